"""Files of qvec/kernels/ include files of their own folder and of lower folders only, without cycles."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[1] / "qvec" / "kernels"
BELOW = {
    "codec": set[str](),
    "column": {"codec"},
    "search": {"codec", "column"},
    "graph": {"codec", "column", "search"},
    "ivf": {"codec", "column", "search"},
    "text": {"codec", "column", "search"},
}
INCLUDE = re.compile(r'^(?:#include|cdef extern from) "([\w/.]+)"', re.MULTILINE)

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


def test_no_two_kernel_files_include_each_other() -> None:
    TopologicalSorter(includes()).prepare()  # raises CycleError
