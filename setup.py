"""Build of the one extension module; everything declarative is in pyproject.toml."""

import os
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("QVEC_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("QVEC_DEBUG") == "1"

if sys.platform == "win32":
    sys.exit("qvec builds with GCC or Clang on Linux and macOS; Windows is not supported yet")

# No -march flags: each kernel carries its own target attribute and is chosen at run time.
# No contraction: codes must be equal to the last bit on every machine.
flags = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-function", "-ffp-contract=off", "-fno-math-errno"]
flags += ["-O1", "-g"] if DEBUG else ["-O3"]
sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZE else []

extension = Extension(
    "qvec._kernels",
    sources=["qvec/_kernels.pyx", *sorted(str(p) for p in Path("qvec/kernels").glob("*.c"))],
    depends=sorted(str(p) for pattern in ("*.h", "*.pxi") for p in Path("qvec/kernels").glob(pattern)),
    include_dirs=["qvec/kernels", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("_GNU_SOURCE", "1")],
    extra_compile_args=flags + sanitizers,
    extra_link_args=sanitizers,
)

setup(
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
    )
)
