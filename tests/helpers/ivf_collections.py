"""Collections with inverted lists, and readers of the lists in their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import qvec
from helpers.vectors import clustered

Float32 = npt.NDArray[np.float32]
DIM, N = 40, 3000


def vectors_and_queries() -> tuple[Float32, Float32]:
    """N vectors, and 100 queries from the same clusters."""
    x = clustered(np.random.default_rng(3), N + 100, DIM, centroids=60)
    return x[:N], x[N:]


def build(path: Path, base: Float32, *, index: Any = None, **options: Any) -> qvec.Collection:
    db = qvec.create(path, base.shape[1], index=qvec.IVF() if index is None else index, **options)
    db.add(base, threads=2)
    return db


def lists_of(db: qvec.Collection) -> int:
    return db.stats().lists


# --- recall ---
