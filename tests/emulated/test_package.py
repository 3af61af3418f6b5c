"""The wheel for aarch64, run by QEMU: Debian's Python, wheels of the dependencies, and cross-compiled kernels.

Debian's packages: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user-static, debootstrap. What is downloaded is
kept in build/aarch64.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "aarch64"
TOOLS = ("aarch64-linux-gnu-gcc", "qemu-aarch64-static", "debootstrap", "dpkg-deb")
PACKAGES = "python3.11-minimal,libpython3.11-stdlib,libstdc++6"
WHEELS = ("numpy", "lmdb", "msgpack", "pyroaring")
MAX_WHEEL = 3e6  # bytes
SMALL, LARGE = 4096, 16_384  # pages; those of Apple's machines and of some kernels for the Raspberry Pi are larger

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the sources are not next to the tests"),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="Debian's Python 3.11 is run"),
    *(pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed") for tool in TOOLS),
]


def run(*command: object, **options: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture(scope="session")
def system() -> Path:
    """A folder with the files of Debian's packages for arm64."""
    made = CACHE / "root"
    if not (made / "complete").exists():
        shutil.rmtree(made, ignore_errors=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        run("debootstrap", "--foreign", "--variant=minbase", "--arch=arm64", f"--include={PACKAGES}", "bookworm", made)
        for package in (made / "var/cache/apt/archives").glob("*.deb"):
            run("dpkg-deb", "-x", package, made)
        (made / "complete").touch()
    return made


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dependencies and the package."""
    pytest.importorskip("Cython")
    wheels = CACHE / "wheels"
    if not all([*wheels.glob(f"{name}-*.whl")] for name in WHEELS):
        platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 24, 27, 28)]
        options = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_aarch64"]
        run(sys.executable, "-m", "pip", "download", "-d", wheels, *options, *platforms, *WHEELS)
    made = tmp_path_factory.mktemp("packages")
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(made)
    copy = tmp_path_factory.mktemp("sources")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "qvec", copy / "qvec", ignore=shutil.ignore_patterns("*.so", "_kernels.c", "__pycache__"))
    target = {"CC": "aarch64-linux-gnu-gcc", "LDSHARED": "aarch64-linux-gnu-gcc -shared"}
    target["SETUPTOOLS_EXT_SUFFIX"] = ".cpython-311-aarch64-linux-gnu.so"
    build = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--plat-name", "linux_aarch64"]
    run(*build, cwd=copy, env={**os.environ, **target})
    (wheel,) = (copy / "dist").glob("qvec-*-cp311-cp311-linux_aarch64.whl")
    assert wheel.stat().st_size < MAX_WHEEL
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=linux_aarch64"]
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", made, *options, wheel)
    return made


PROBE = """
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int n, char **arguments) {
    static char bytes[65536];
    int file = open(arguments[n - 1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (write(file, bytes, 32768) != 32768) return 1;
    volatile char *map = mmap(0, 1 << 24, PROT_READ, MAP_SHARED, file, 0);
    if (lseek(file, 0, SEEK_END) < 0 || write(file, bytes, 65536) != 65536) return 1;
    return map[32768 + 49152];
}
"""


def reads_growing_files(page: int, folder: Path) -> bool:
    """Whether this QEMU reads the pages that a file gains after it was mapped, as LMDB does.

    QEMU 7.2 ends a map at the end of the file if its pages are larger than those of the host.
    """
    (folder / "probe.c").write_text(PROBE)
    run("aarch64-linux-gnu-gcc", "-static", "-o", folder / "probe", folder / "probe.c")
    command = ["qemu-aarch64-static", "-p", str(page), str(folder / "probe"), str(folder / "file")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("machine", "level", "page"),
    [
        ("max", "neon_i8mm", SMALL),
        ("max", "neon_i8mm", LARGE),
        ("neoverse-n1", "neon_dot", SMALL),
        ("cortex-a57", "neon", LARGE),
    ],
)
def test_the_package_works_on_aarch64(
    system: Path, packages: Path, tmp_path: Path, machine: str, level: str, page: int
) -> None:
    if not reads_growing_files(page, tmp_path):
        pytest.skip(f"this QEMU cannot read what a file gains after it was mapped, with pages of {page} bytes")
    emulator = ["qemu-aarch64-static", "-cpu", machine, "-p", page, "-L", system, "-E", f"PYTHONPATH={packages}"]
    python = system / "usr/bin/python3.11"
    run(*emulator, python, "-B", HERE / "smoke.py", tmp_path, level, page, ROOT / "tests" / "golden", timeout=3000)
