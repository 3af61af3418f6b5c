"""Memory bandwidth of one thread: the best of a compiled loop and of NumPy."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SOURCE = """
#include <stddef.h>
#include <stdint.h>
/* Eight sums, so that no addition waits for another; the compiler makes vectors of them. */
uint64_t read_all(const uint64_t *restrict x, size_t n) {
    uint64_t sum[8][8] = {{0}};
    for (size_t i = 0; i + 64 <= n; i += 64)
        for (int a = 0; a < 8; a++)
            for (int b = 0; b < 8; b++) sum[a][b] += x[i + 8 * a + b];
    uint64_t all = 0;
    for (int a = 0; a < 8; a++)
        for (int b = 0; b < 8; b++) all += sum[a][b];
    return all;
}
"""
BYTES = 1 << 29
Read = Callable[[], object]


class Memory:
    """A large array, and several ways to read it; ``gigabytes`` reads it once in each way and returns the best
    rate."""

    def __init__(self, size: int = BYTES) -> None:
        self.words = np.arange(size // 8, dtype=np.uint64)
        self.size = self.words.nbytes
        floats = self.words.view(np.float32)
        self.ways: dict[str, Read] = {"numpy sum": self.words.sum, "numpy dot": lambda: floats @ floats}
        compiled = compile_loop()
        if compiled is not None:
            self.ways["compiled loop"] = lambda: compiled(self.words.ctypes.data, len(self.words))
            assert compiled(self.words.ctypes.data, len(self.words)) == int(self.words.sum()), "the loop skips words"
        self.best: dict[str, float] = dict.fromkeys(self.ways, 0.0)
        floats[::2] = 0  # small sums: no way meets infinities
        floats[1::2] = 1

    def read(self) -> None:
        """Time each way once more."""
        for name, way in self.ways.items():
            start = time.perf_counter()
            way()
            self.best[name] = max(self.best[name], self.size / (time.perf_counter() - start) / 1e9)

    @property
    def gigabytes(self) -> float:
        """Gigabytes a second, the best so far."""
        return max(self.best.values())


def compile_loop() -> Callable[[int, int], int] | None:
    """The loop as a function of an address and words; None if there is no gcc."""
    if shutil.which("gcc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "read.so"
        flags = ["-O3", "-shared", "-fPIC"] + (["-march=native"] if platform.machine() == "x86_64" else [])
        subprocess.run(["gcc", *flags, "-x", "c", "-", "-o", str(library)], input=SOURCE, text=True, check=True)
        function = ctypes.CDLL(str(library)).read_all
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint64
    return function
