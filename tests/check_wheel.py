"""Check what `make wheel` has built: sizes, contents, tags, and the time of an import.

    check_wheel.py DIST FOLDER

DIST: folder of the source archive and the wheels. FOLDER: of the environment in which the wheel is installed. Prints
the figures; exit code 1 and a line for each limit that is exceeded.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "docs/format.md", "Makefile")
PACKAGES = ("qvec", "lmdb", "msgpack", "pyroaring")  # what an installation consists of, without NumPy
MAX_WHEEL, MAX_INSTALLED = 3e6, 25e6  # bytes
MAX_IMPORT = 0.1  # seconds of processor time, after the import of NumPy
TAG = "manylinux_2_" if sys.platform == "linux" else "macosx"
TIMER = "import numpy, time; start = time.process_time(); import qvec; print(time.process_time() - start)"


def check_sources(archive: Path) -> Iterator[str]:
    """Documents and kernels that the source archive lacks."""
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    kernels = [str(path.relative_to(ROOT)) for path in (ROOT / "qvec").rglob("*.[ch]") if path.name != "_kernels.c"]
    for missing in sorted({*DOCUMENTS, *kernels} - names):
        yield f"{archive.name} lacks {missing}"


def check_wheel(wheel: Path) -> Iterator[str]:
    """What is wrong with a wheel: its size, its tag, modules that it lacks."""
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.2f} MB")
    if size > MAX_WHEEL:
        yield f"{wheel.name} has {size} bytes, the limit is {MAX_WHEEL:.0f}"
    if TAG not in wheel.name:
        yield f"{wheel.name} has no tag of {TAG}"
    packed = {*zipfile.ZipFile(wheel).namelist()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "qvec").rglob("*.py")}
    for missing in sorted(modules - packed):
        yield f"{wheel.name} lacks {missing}"
    for foreign in sorted(name for name in packed if re.search(r"(^|/)(tests|_kernels\.c|.*\.npy)(/|$)", name)):
        yield f"{wheel.name} contains {foreign}"


def check_installed(environment: Path) -> Iterator[str]:
    """Bytes of the installed packages, and the time of an import."""
    (packages,) = environment.glob("lib/python3.*/site-packages")
    found = [each for each in metadata.distributions(path=[str(packages)]) if each.name in PACKAGES]
    sizes = {each.name: _bytes(each) for each in found}
    total = sum(sizes.values())
    print(f"installed: {total / 1e6:.2f} MB", {name: f"{size / 1e6:.2f}" for name, size in sizes.items()})
    if {*sizes} != {*PACKAGES}:
        yield f"of {PACKAGES}, {tuple(sizes)} are installed"
    if total > MAX_INSTALLED:
        yield f"{total} bytes are installed, the limit is {MAX_INSTALLED:.0f}"
    command = [str(environment / "bin" / "python"), "-P", "-c", TIMER]
    seconds = min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(7))
    print(f"import: {1000 * seconds:.0f} ms of processor time after NumPy")
    if seconds > MAX_IMPORT:
        yield f"the import takes {seconds:.3f} s, the limit is {MAX_IMPORT}"


def _bytes(found: metadata.Distribution) -> int:
    files = (Path(str(file.locate())) for file in found.files or () if not file.name.endswith(".pyc"))
    return sum(file.stat().st_size for file in files if file.exists())


def main(dist: Path, environment: Path) -> int:
    (archive,), wheels = dist.glob("qvec-*.tar.gz"), sorted(dist.glob("qvec-*.whl"))
    faults = [*check_sources(archive), *(fault for wheel in wheels for fault in check_wheel(wheel))]
    faults += check_installed(environment)
    for fault in faults or ["sizes and contents are within the limits"]:
        print(fault)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
