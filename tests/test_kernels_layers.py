"""Files of qvec/kernels/ include files of their own folder and of lower folders only, without cycles."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[1] / "qvec" / "kernels"
BELOW = {
    "system": set[str](),
    "codec": {"system"},
    "column": {"system", "codec"},
    "search": {"system", "codec", "column"},
    "graph": {"system", "codec", "column", "search"},
    "ivf": {"system", "codec", "column", "search"},
    "text": {"system", "codec", "column", "search"},
}
INCLUDE = re.compile(r'^(?:#include|cdef extern from) "([\w/.]+)"', re.MULTILINE)
HEADER = re.compile(r"^#include <((?:sys/\w+|unistd|fcntl|time|windows|io|pthread)\.h)>", re.MULTILINE)

pytestmark = pytest.mark.skipif(not KERNELS.exists(), reason="the kernels' sources are not next to the tests")


def includes() -> dict[str, list[str]]:
    files = [path for path in KERNELS.rglob("*.*") if path.suffix in (".c", ".h", ".pxi")]
    return {str(path.relative_to(KERNELS)): INCLUDE.findall(path.read_text()) for path in files}


def test_every_kernel_file_is_in_a_folder_and_includes_lower_folders_only() -> None:
    found = includes()
    assert {name.split("/")[0] for name in found} == set(BELOW)
    for name, included in found.items():
        folder = name.split("/")[0]
        for other in included:
            assert other in found, f"{name} includes {other}, which does not exist"
            assert other.split("/")[0] in BELOW[folder] | {folder}, f"{name} must not include {other}"


def test_only_the_lowest_folder_includes_headers_of_a_system() -> None:
    found = {}
    for path in KERNELS.rglob("*.*"):
        if path.parent.name != "system":
            headers = re.findall(
                r"^#include <((?:sys/.*|unistd|fcntl|time|windows|io|pthread)\.h)>", path.read_text(), re.MULTILINE
            )
            if headers:
                found[path.name] = headers
    assert found == {"simd.c": ["sys/auxv.h"]}  # the features of the processor, as Linux names them


def test_no_two_kernel_files_include_each_other() -> None:
    TopologicalSorter(includes()).prepare()  # raises CycleError
