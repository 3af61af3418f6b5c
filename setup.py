"""Build of the one extension module; everything declarative is in pyproject.toml.

Folders of qvec/kernels/, from the lowest: system (what differs between operating systems), codec (vectors to rows of
bytes, and their scores), column (blocks of rows in the file, bitmaps), search (the steps that all queries share, the
scan), graph, ivf and text (none includes another).
A file includes files of its own folder and of lower folders only (tests/test_kernels_layers.py).
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("qvec/kernels")
GLUE = "qvec/_kernels.c"  # what Cython writes: no loop over vectors, and -O3 takes three times as long
SANITIZE = os.environ.get("QVEC_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("QVEC_DEBUG") == "1"

if sys.platform == "win32":
    sys.exit("qvec builds with GCC or Clang on Linux and macOS; Windows is not supported yet")

# No -march flags: each kernel carries its own target attribute and is chosen at run time.
# No contraction: codes must be equal to the last bit on every machine.
flags = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-function", "-ffp-contract=off", "-fno-math-errno", "-MMD"]
flags += ["-O1", "-g"] if DEBUG else ["-O3", "-g0"]  # Python's own flags have -g, which takes a third longer
# Without debug symbols the module has a fifth of the size. Linkers of macOS have no such option that is safe.
stripped = ["-Wl,--strip-all"] if sys.platform == "linux" and not DEBUG else []
sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZE else []


def is_current(built: Path) -> bool:
    """Whether an object file is newer than all that it was compiled from, as GCC and Clang list them (-MMD)."""
    listed = built.with_suffix(".d")
    if not (built.exists() and listed.exists()):
        return False
    _, _, sources = listed.read_text().replace("\\\n", " ").partition(": ")
    times = [Path(source).stat().st_mtime if Path(source).exists() else float("inf") for source in sources.split()]
    return max(times) < built.stat().st_mtime


class ParallelBuild(build_ext):
    """Compiles the files of an extension in parallel, and only those that have changed since the last time."""

    def build_extensions(self) -> None:
        compile_in_order = self.compiler.compile

        def compile_file(source: str, **options: Any) -> list[str]:
            if source == GLUE:
                options["extra_postargs"] = [*options["extra_postargs"], "-O1"]
            built = self.compiler.object_filenames([source], output_dir=self.build_temp)
            return built if not self.force and is_current(Path(built[0])) else compile_in_order([source], **options)

        def compile_all(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [
                    built for one in pool.map(lambda source: compile_file(source, **options), sources) for built in one
                ]

        self.compiler.compile = compile_all
        super().build_extensions()


extension = Extension(
    "qvec._kernels",
    sources=["qvec/_kernels.pyx", *sorted(map(str, KERNELS.rglob("*.c")))],
    depends=["setup.py", *sorted(str(path) for kind in ("*.h", "*.pxi") for path in KERNELS.rglob(kind))],
    include_dirs=[str(KERNELS), numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("_GNU_SOURCE", "1")],
    extra_compile_args=flags + sanitizers,
    extra_link_args=sanitizers + stripped,
)

setup(
    cmdclass={"build_ext": ParallelBuild},
    ext_modules=cythonize(
        [extension],
        language_level=3,
        compiler_directives={
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "embedsignature": True,
        },
    ),
)
