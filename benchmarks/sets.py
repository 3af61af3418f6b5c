"""Vectors to measure on: the folders under $QVEC_DATA, or the demo's own set where there is none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qvec.bench.figures import recall_of
from qvec.common.console import progress
from qvec.common.types import Metric
from qvec.datasets import Workload, grow, load_workload
from qvec.demo.corpus import demo_workload

Float32 = npt.NDArray[np.float32]
GROWN = Path(__file__).resolve().parents[1] / "build" / "bench-sets"


@dataclass(frozen=True)
class Set:
    """base float32[n, dim], queries float32[nq, dim], truth int[nq, 100]: the exact neighbors."""

    name: str
    metric: Metric
    base: Float32
    queries: Float32
    truth: npt.NDArray[np.int64]

    def recall(self, ids: npt.NDArray[np.int64], k: int = 10) -> float:
        """Share of the true k nearest among ids[nq, k]."""
        return recall_of(ids[:, :k], self.truth, k)


def names() -> list[str]:
    """Sets that are there."""
    root = os.environ.get("QVEC_DATA")
    if not root:
        return ["demo"]
    return sorted(p.parent.name for p in Path(root).glob("*/meta.json"))


def load(name: str, limit: int | None = None) -> Set:
    """Load a set whole, or its first ``limit`` rows with their neighbors recomputed."""
    found = workload(name, limit)
    return Set(name, found.metric, found.base.astype(np.float32), found.queries, found.truth)


def workload(name: str, limit: int | None = None) -> Workload:
    """The same, mapped as it is stored."""
    if name == "demo":
        return demo_workload(rows=limit)
    return load_workload(Path(os.environ["QVEC_DATA"]) / name, 100, rows=limit)


def grown(name: str, n: int, folder: Path = GROWN) -> Workload:
    """A set of n rows with the character of another, made once and kept."""
    with progress(f"{n:,} rows: exact neighbors", "rows") as report:
        return grow(workload(name), n, folder / f"{name}-{n}", progress=report)
