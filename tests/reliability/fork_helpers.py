"""Shared by the tests of forks: a collection, and a check that the parent's handle is unharmed."""

from __future__ import annotations

from typing import Any

import numpy as np

import qvec

DIM = 8
DEADLINE = 10.0
X = np.random.default_rng(1).normal(size=(300, DIM)).astype(np.float32)


def collection(path: str, **options: Any) -> qvec.Collection:
    db = qvec.create(path, DIM, metric="l2", index="hnsw", **options)
    db.add(X[:200], payloads=[{"row": i} for i in range(200)])
    return db


def assert_unharmed(db: qvec.Collection) -> None:
    """The parent's handle searches, writes and verifies."""
    before = len(db)
    assert db.search(X[7], 1).ids.tolist() == [7]
    db.add(X[200:210])
    assert len(db) == before + 10
    assert db.verify() == []
