"""Rounds of a process that is killed while it makes new codes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import qvec
from qvec.types import Float32Array

DIM, N, STEP = 16, 2500, 200
CODES = ("int8", "binary", "f16", "f32")
CHILD = """
import sys
import qvec
from qvec import generations
generations.STEP = int(sys.argv[2])
with qvec.open(sys.argv[1]) as db:
    for generation in db.calibrations():
        if not generation.active:
            db.drop_generation(generation.number)
    db.requantize(sys.argv[3], relink=True, progress=lambda done, total: print("step", flush=True))
    print("done", flush=True)
    sys.stdin.read()  # until it is killed
"""


class Round(NamedTuple):
    """What was found after a kill. ``interrupted``: a generation was unfinished."""

    code: str
    interrupted: bool
    problems: list[str]


def make_collection(path: Path) -> tuple[Path, Float32Array]:
    """A graph of clustered vectors, as int8."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, DIM)) * 3
    x = (centres[rng.integers(0, 40, N)] + rng.normal(size=(N, DIM))).astype(np.float32)
    with qvec.create(path, DIM, index=qvec.HNSW(m=8, ef_construction=40)) as db:
        db.add(x)
    return path, x


def one_round(path: Path, x: Float32Array, number: int) -> Round:
    """Kill a requantize at a step that the round's number draws, and look at what it left."""
    rng = random.Random(number)
    code = CODES[(number + 1) % len(CODES)]
    _kill(path, code, rng.randrange(0, 2 * N // STEP + 2), rng.choice((0.0, 0.0, rng.uniform(0.0, 0.02))))
    problems: list[str] = []
    with qvec.open(path) as db:
        problems += db.verify()
        (active,) = (generation for generation in db.calibrations() if generation.active)
        if (active.rows, active.code) != (N, db.stats().code):
            problems.append(f"{active.rows} rows of {active.code} are in force, stats say {db.stats().code}")
        with db._store.read() as snap:
            interrupted = snap.state["pending"] is not None
        found = db.search(x[::50], 1, ef=200).ids[:, 0]
        if (share := np.mean(found == np.arange(0, N, 50))) <= 0.95:
            problems.append(f"{share:.0%} of the vectors find themselves")
        return Round(active.code, interrupted, problems)


def _kill(path: Path, code: str, steps: int, delay: float) -> None:
    """Kill the process after ``steps`` transactions, at most all of them, and some seconds more."""
    arguments = [sys.executable, "-c", CHILD, str(path), str(STEP), code]
    child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdout, child.stdin:
        for _ in range(steps):
            if child.stdout.readline() != "step\n":
                break
        time.sleep(delay)
        child.kill()
        child.wait()
