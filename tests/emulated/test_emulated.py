"""Kernels of instruction sets that this machine may not have, run by emulation: AVX-512 as plain C, NEON by QEMU.

Debian's packages: libsimde-dev; gcc-aarch64-linux-gnu and qemu-user-static; wine64 and wine, with ziglang of PyPI.
QVEC_WINDOWS_PYTHON: the python.exe of a Python for Windows, if the functions of Windows are to be tested, too.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qvec

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "qvec" / "kernels"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-ffp-contract=off", "-fno-math-errno", "-Wno-unused-function"]

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not KERNELS.exists(), reason="the kernels' sources are not next to the tests"),
]


def run(folder: Path, compiler: str, *options: str, through: tuple[str, ...] = ()) -> str:
    """The output of the comparison, which must not report a difference."""
    program = folder / "kernels.exe"
    sources = [HERE / "kernels.c", *sorted(KERNELS.rglob("*.c"))]
    subprocess.run([*compiler.split(), *FLAGS, *options, f"-I{KERNELS}", *sources, "-lm", "-o", program], check=True)
    done = subprocess.run([*through, program], stdout=subprocess.PIPE, text=True, timeout=1800, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.skipif(not Path("/usr/include/simde/x86/avx512.h").exists(), reason="libsimde-dev is not installed")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_avx512_kernels_agree_with_the_scalar_ones(tmp_path: Path) -> None:
    shown = run(tmp_path, "gcc", "-DQV_EMULATED", f"-I{HERE / 'avx512'}")
    assert "avx512: " in shown
    assert shown.strip().endswith(" 0 failed")


@pytest.mark.parametrize("machine", ["armv8-a", "armv8.2-a+dotprod+crc"])
@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason="gcc-aarch64-linux-gnu is not installed")
@pytest.mark.skipif(shutil.which("qemu-aarch64-static") is None, reason="qemu-user-static is not installed")
def test_neon_kernels_agree_with_the_scalar_ones(tmp_path: Path, machine: str) -> None:
    through = ("qemu-aarch64-static",)
    shown = run(tmp_path, "aarch64-linux-gnu-gcc", f"-march={machine}", "-static", through=through)
    assert "neon: " in shown
    assert shown.strip().endswith(" 0 failed")


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
@pytest.mark.skipif(shutil.which("wine") is None, reason="wine is not installed")
def test_kernels_for_windows_agree_with_the_scalar_ones(tmp_path: Path) -> None:
    """zig's library for Windows detects no features of the processor, so all of them are assumed."""
    if qvec.simd_level() != "avx512":
        pytest.skip("this processor has no AVX-512")
    compiler = f"{sys.executable} -m ziglang cc -target x86_64-windows-gnu"
    features = "-mcpu=x86_64_v4+avx512vnni+avx512vpopcntdq"
    shown = run(tmp_path, compiler, "-DQV_EMULATED", features, through=("wine",))
    assert "avx2: " in shown
    assert "avx512: " in shown
    assert shown.strip().endswith(" 0 failed")


@pytest.mark.skipif("QVEC_WINDOWS_PYTHON" not in os.environ, reason="QVEC_WINDOWS_PYTHON is not set")
@pytest.mark.skipif(shutil.which("wine") is None, reason="wine is not installed")
def test_the_functions_of_windows_do_what_those_of_linux_do(tmp_path: Path) -> None:
    module = HERE.parents[1] / "qvec" / "common" / "system" / "windows.py"
    command = ["wine", os.environ["QVEC_WINDOWS_PYTHON"], str(HERE / "windows.py"), str(module), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.strip() == "ok", done.stdout + done.stderr[-3000:]
