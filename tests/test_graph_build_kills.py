"""A process dies while it builds a graph by partitions: the collection holds the old rows or the new ones, complete."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered

DIM, OLD, NEW = 64, 200, 6000
ADD = """
import sys, numpy as np, qvec, qvec.index.hnsw
qvec.index.hnsw.LINKED_ROWS = int(sys.argv[4])
x = np.load(sys.argv[2])
with qvec.open(sys.argv[1], build_memory=int(sys.argv[3])) as db:
    print("ready", flush=True)
    db.add(x, threads=1)
    print("done", flush=True)
"""


@pytest.fixture
def vectors(tmp_path: Path) -> np.ndarray:
    x = clustered(np.random.default_rng(4), OLD + NEW, DIM, centroids=60, spread=0.6)
    np.save(tmp_path / "new.npy", x[OLD:])
    return x


def killed_add(folder: Path, after: float, build_memory: int, most: int) -> float:
    """Add rows in a process that is killed after some seconds. Returns how long the process added rows.

    ``most``: more rows are added to the graph after their commit.
    """
    command = [sys.executable, "-c", ADD, str(folder / "a.qvec"), str(folder / "new.npy"), str(build_memory), str(most)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        start = time.monotonic()
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        return time.monotonic() - start


@pytest.mark.parametrize(
    "kills", [pytest.param(4, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize("layout", ["compact", "packed"])
@pytest.mark.parametrize("old", [0, OLD])
@pytest.mark.parametrize("most", [1000, 8192])
@pytest.mark.alone
def test_a_kill_during_a_build_leaves_the_old_rows_or_the_new_ones(
    tmp_path: Path, vectors: np.ndarray, layout: str, old: int, kills: int, most: int
) -> None:
    rng, path = random.Random(f"{layout} {old}"), tmp_path / "a.qvec"
    index = qvec.HNSW(layout=layout)  # type: ignore[arg-type]
    duration, found = 0.0, set()
    for i in range(kills + 1):
        path.unlink(missing_ok=True)
        with qvec.create(path, DIM, code=qvec.Int8(), index=index) as db:
            if old:
                db.add(vectors[:old])
        after, build_memory = 60 if i == 0 else rng.uniform(0, 1.1 * duration), rng.choice([0, 1 << 30])
        lasted = killed_add(tmp_path, after, build_memory, most)
        duration = duration or lasted
        with qvec.open(path) as db:
            found.add(len(db))
            assert len(db) in (old, old + NEW)
            assert not db.verify(deep=True)
            if len(db) == old:
                db.add(vectors[OLD:])
                assert not db.verify(deep=True)
            elif rng.random() < 0.5:  # otherwise, the rows are searched as the kill left them
                db.optimize()
                assert db.stats().unindexed == 0
                assert not db.verify(deep=True)
            ids = db.search(vectors[OLD : OLD + 50], 1, ef=100).ids[:, 0]
            assert (ids == np.arange(old, old + 50)).mean() > 0.95
    assert old + NEW in found
