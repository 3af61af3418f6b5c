"""Vectors to measure on: the folders under $QVEC_DATA, or the demo's own set where there is none."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qvec.datasets import exact_knn
from qvec.types import Metric

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Set:
    """base float32[n, dim], queries float32[nq, dim], truth int[nq, 100]: the exact neighbours."""

    name: str
    metric: Metric
    base: Float32
    queries: Float32
    truth: npt.NDArray[np.int64]

    def recall(self, ids: npt.NDArray[np.int64], k: int = 10) -> float:
        """Share of the true k nearest among ids[nq, k]."""
        hits = [len(np.intersect1d(found[:k], true[:k])) for found, true in zip(ids, self.truth, strict=True)]
        return float(np.mean(hits)) / k


def names() -> list[str]:
    """Sets that are there."""
    root = os.environ.get("QVEC_DATA")
    if not root:
        return ["demo"]
    return sorted(p.parent.name for p in Path(root).glob("*/meta.json"))


def load(name: str, limit: int | None = None) -> Set:
    """Load a set whole, or its first ``limit`` rows with their neighbours computed anew."""
    if name == "demo":
        folder = files("qvec.demo") / "data"
        base = np.load(str(folder / "passages.npy")).astype(np.float32)[:limit]
        queries = np.load(str(folder / "questions.npy")).astype(np.float32)
        return Set(name, "cosine", base, queries, exact_knn(base, queries, 100, "cosine")[0])
    folder = Path(os.environ["QVEC_DATA"]) / name
    metric = json.loads((folder / "meta.json").read_text())["metric"]
    stored = np.load(folder / "base.npy") if (folder / "base.npy").exists() else np.load(folder / "base.npz")["base"]
    base = stored.astype(np.float32)
    queries = np.load(folder / "queries.npy").astype(np.float32)
    if limit is None or limit >= len(base):
        return Set(name, metric, base, queries, np.load(folder / "gt.npy").astype(np.int64))
    base = base[:limit]
    return Set(name, metric, base, queries, exact_knn(base, queries, 100, metric)[0])
