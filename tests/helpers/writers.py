"""A collection of eight rows, and processes that write to it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import qvec

DIM = 8


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Random vectors, [n, DIM]."""
    return np.random.default_rng(seed).normal(size=(n, DIM))


def make(path: Path) -> Path:
    """Create a collection of eight rows, whose ids are 0 to 7. Returns its path."""
    with qvec.create(path, DIM, index="flat") as db:
        db.add(rows(8))
    return path


@contextlib.contextmanager
def process(code: str, path: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run code in another process, which has ``path`` and these modules: numpy as np, qvec, sys, time."""
    command = [sys.executable, "-c", f"import sys, time, numpy as np, qvec\npath = sys.argv[1]\n{code}", str(path)]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()
