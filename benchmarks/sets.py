"""Data sets of the benchmarks: the folders under $QVEC_DATA, or the demo's own set if that is not set."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qvec.common.console import progress
from qvec.datasets import Workload, grow, load_workload
from qvec.demo.corpus import demo_workload

Float32 = npt.NDArray[np.float32]
GROWN = Path(__file__).resolve().parents[1] / "build" / "bench-sets"


def names() -> list[str]:
    """Return the names of the sets that are there."""
    root = os.environ.get("QVEC_DATA")
    if not root:
        return ["demo"]
    return sorted(p.parent.name for p in Path(root).glob("*/meta.json"))


def load(name: str, limit: int | None = None) -> Workload:
    """Load a set into memory as float32, or its first ``limit`` rows with their own exact neighbors."""
    found = workload(name, limit)
    return replace(found, name=name, base=found.base.astype(np.float32))


def workload(name: str, limit: int | None = None) -> Workload:
    """Map a set as it is stored."""
    if name == "demo":
        return demo_workload(rows=limit)
    return load_workload(Path(os.environ["QVEC_DATA"]) / name, 100, rows=limit)


def grown(name: str, n: int, folder: Path = GROWN) -> Workload:
    """Return a set of n mixtures of the rows of another set, written to ``folder`` the first time."""
    with progress(f"{n:,} rows: exact neighbors", "rows") as report:
        return grow(workload(name), n, folder / f"{name}-{n}", progress=report)
