"""Collections of texts for the tests of text fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import qvec

DIM = 4


def vectors(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, DIM)).astype(np.float32)


def payloads(texts: list[list[str]]) -> list[dict[str, Any]]:
    return [{"body": " ".join(words), "n": i % 10} for i, words in enumerate(texts)]


def make(path: Path, texts: list[list[str]], **options: Any) -> qvec.Collection:
    db = qvec.create(path / "a.qvec", DIM, fields={"body": "text", "n": "int"} | options.pop("fields", {}), **options)
    if texts:
        db.add(vectors(len(texts)), payloads=payloads(texts))
    return db
