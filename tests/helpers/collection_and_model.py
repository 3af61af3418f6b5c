"""Pairs of a collection and its model that tests change together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import qvec
from helpers.collection_model import Model
from helpers.vectors import clustered

DIM = 24
METRICS: tuple[Any, ...] = ("cosine", "ip", "l2")
CODES: dict[str, Any] = {
    "f32": "f32",
    "f16": "f16",
    "int8": "int8",
    "int8-static": qvec.Int8(scale="per_dim"),
    "int8-percentile": qvec.Int8(scale="per_dim", method="percentile"),
    "int8-rotated": qvec.Int8(rotate=True),
    "binary": "binary",
    "binary-plain": qvec.Binary(center=False, rotate=False),
}
INDEXES: dict[str, Any] = {"flat": "flat", "hnsw": qvec.HNSW(m=8, ef_construction=64)}


class Pair:
    """A collection and the model of it, changed together."""

    def __init__(self, db: qvec.Collection, model: Model, data: np.ndarray[Any, Any]) -> None:
        self.db, self.model, self.data = db, model, data

    def name(self, i: int) -> int | str:
        return f"vector-{i}" if self.db.stats().ids == "str" else 3 * i

    def add(self, start: int, stop: int) -> None:
        names = [self.name(i) for i in range(start, stop)]
        payload = [{"row": i, "tags": ["a", None, 1.5]} if i % 3 else None for i in range(start, stop)]
        found = self.db.add(self.data[start:stop], names, payload)
        assert (found.ids.tolist(), found.added, found.replaced, found.skipped) == (names, stop - start, 0, 0)
        self.model.add(self.data[start:stop], names, payload)


def make(
    path: Path, *, metric: Any = "l2", code: str = "f32", index: str = "flat", n: int = 300, **options: Any
) -> Pair:
    """A collection of n vectors in batches of 150, 100 and the rest."""
    data = clustered(np.random.default_rng(5), n + 50, DIM)
    db = qvec.create(path, DIM, metric=metric, code=CODES[code], index=INDEXES[index], sample=data, **options)
    pair = Pair(db, Model(DIM, metric), data)
    for start, stop in ((0, 150), (150, 250), (250, n)):
        pair.add(min(start, n), min(stop, n))
    return pair
