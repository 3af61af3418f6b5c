"""Samples and checks that the tests of exports and imports share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import qvec
from qvec import interchange

N, DIM = 300, 12
X = np.random.default_rng(5).normal(size=(N, DIM)).astype(np.float32)
PAYLOADS: list[dict[str, Any] | None] = [
    {
        "page": i,
        "lang": "en" if i % 2 else "de",
        "tags": ["a"] * (i % 3),
        "mixed": i if i % 2 else "x",
        "deep": {"n": [i]},
    }
    for i in range(N)
]
PAYLOADS[3], PAYLOADS[4], PAYLOADS[5] = None, {}, {"page": None, "more": 2**64 - 1}


def store(path: Path, ids: str = "int64", payloads: bool = True) -> qvec.Collection:
    names = [f"dok-{i}\n" for i in range(N)] if ids == "str" else np.arange(N) * 3
    db = qvec.create(path, DIM, metric="l2", ids=ids)
    db.add(X, names, PAYLOADS if payloads else None)
    return db


def content(db: qvec.Collection) -> dict[Any, tuple[bytes, Any]]:
    rows = (row for part in db.scan() for row in zip(part.ids.tolist(), part.vectors, part.payloads, strict=True))
    return {id: (vector.tobytes(), payload) for id, vector, payload in rows}


def copied(source: interchange.Source, path: Path, **options: Any) -> qvec.Collection:
    db = interchange.create_for(source, path, **options)
    interchange.add_from(db, source, batch_size=70)
    return db


def payloads_of(path: Path, **options: Any) -> list[Any]:
    (batch,) = interchange.open_source(path, **options).batches(100)
    return list(batch.payloads or [])
