"""The C files compile for platforms that the tests do not run on (zig's clang, from the package ziglang)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent.parent / "qvec" / "kernels"
TARGETS = ("aarch64-macos", "x86_64-macos", "aarch64-linux-musl", "x86_64-linux-musl", "x86_64-windows-gnu")
FLAGS = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-function",
    "-Wno-unused-command-line-argument",
    "-D_GNU_SOURCE",
]


@pytest.mark.nightly
@pytest.mark.parametrize("target", TARGETS)
def test_every_c_file_compiles_without_warnings(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")
    compiler = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        target,
        *FLAGS,
        f"-I{KERNELS}",
        "-o",
        str(tmp_path / "out.o"),
    ]
    failed = {}
    for file in sorted(KERNELS.rglob("*.c")):
        done = subprocess.run([*compiler, "-c", str(file)], capture_output=True, text=True)
        if done.returncode != 0:
            failed[str(file.relative_to(KERNELS))] = done.stderr[:500]
    assert failed == {}
