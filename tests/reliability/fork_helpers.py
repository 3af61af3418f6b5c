"""What the tests of forks share: a collection, a task in a child with a deadline, a parent that must be unharmed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np
from child import describe

import qvec

DIM = 8
DEADLINE = 10.0
X = np.random.default_rng(1).normal(size=(300, DIM)).astype(np.float32)


def collection(path: str) -> qvec.Collection:
    db = qvec.create(path, DIM, metric="l2", index="hnsw")
    db.add(X[:200], payloads=[{"row": i} for i in range(200)])
    return db


def in_fork(task: Callable[[], object]) -> None:
    """Run a task in a forked child; AssertionError when it fails there, is killed or hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            task()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + DEADLINE
    while (status := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status[1])
    assert code == 0, f"the child ended with {describe(code)}"


def assert_unharmed(db: qvec.Collection) -> None:
    """The parent's handle searches, writes and verifies."""
    before = len(db)
    assert db.search(X[7], 1).ids.tolist() == [7]
    db.add(X[200:210])
    assert len(db) == before + 10
    assert db.verify() == []
