"""A process killed in the middle of a requantize leaves the old codes or the new, whole, and goes on where it was."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from generated import clustered

import qvec

DIM, N = 16, 2500
CODES = ("int8", "binary", "f16", "f32")
CHILD = f"""
import sys
import qvec
from qvec import generations
generations.STEP = 200
with qvec.open(sys.argv[1]) as db:
    print("ready", flush=True)
    while True:
        for code in {CODES!r}:
            for generation in db.calibrations():
                if not generation.active:
                    db.drop_generation(generation.number)
            db.requantize(code, relink=True)
"""


def kill_during_requantize(path: Path, delay: float) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        assert child.poll() is None
        child.kill()
        child.wait()


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])])
def test_a_kill_during_requantize_leaves_one_generation_whole(tmp_path: Path, rounds: int) -> None:
    rng, path = random.Random(rounds), tmp_path / "a"
    x = clustered(np.random.default_rng(0), N, DIM)
    with qvec.create(path, DIM, index=qvec.HNSW(m=8, ef_construction=40)) as db:
        db.add(x)
    interrupted = 0
    for _ in range(rounds):
        kill_during_requantize(path, rng.uniform(0.0, 0.5))
        with qvec.open(path) as db:
            assert db.verify() == []
            (active,) = (generation for generation in db.calibrations() if generation.active)
            assert (active.rows, active.code) == (N, db.stats().code)
            interrupted += db._store.begin().state["pending"] is not None
            found = db.search(x[::50], 1, ef=200).ids[:, 0]
            assert np.mean(found == np.arange(0, N, 50)) > 0.95
    assert interrupted > rounds // 4
    with qvec.open(path) as db:
        db.requantize("int8")
        assert (db.stats().code, db.verify()) == ("int8", [])
