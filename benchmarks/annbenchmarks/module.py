"""qvec for https://github.com/erikbern/ann-benchmarks: copy this folder to its ``ann_benchmarks/algorithms/qvec``.

cp -r benchmarks/annbenchmarks ../ann-benchmarks/ann_benchmarks/algorithms/qvec
cd ../ann-benchmarks && python install.py --algorithm qvec && python run.py --algorithm qvec-int8-hnsw
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import qvec
from qvec.bench.memory import memory

from ..base.module import BaseANN  # noqa: TID252  (there is no other way to name it)

METRICS = {"angular": "cosine", "euclidean": "l2", "ip": "ip"}


class Qvec(BaseANN):
    """A collection in a folder of its own, searched through a reading handle.

    ``options``: ``code``, ``index`` ("flat", "hnsw", "packed" or "ivf"), and ``m``, ``ef_construction``, ``nlist`` or
    ``originals`` as :func:`qvec.create` and the index's configuration take them. What is set for a search is the one
    parameter of the index: ``ef`` of graphs, ``nprobe`` of lists, ``oversample`` of a scan.
    """

    def __init__(self, metric: str, options: dict[str, Any]) -> None:
        if metric not in METRICS:
            raise NotImplementedError(f"qvec has no metric {metric!r}; it has {', '.join(METRICS)}")
        self.metric = METRICS[metric]
        options = dict(options)
        self.kind = options.pop("index", "hnsw")
        self.made = {name: options.pop(name) for name in ("code", "originals") if name in options}
        self.made["index"] = index_of(self.kind, options)
        self.label = ", ".join(map(str, [self.made.get("code", "auto"), self.kind, *options.items()]))
        self.parameter = {"flat": "oversample", "ivf": "nprobe"}.get(self.kind, "ef")
        self.search: dict[str, Any] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="qvec-")
        self.db: Any = None
        self.found = np.empty((0, 0), np.int64)

    def fit(self, X: np.ndarray) -> None:
        path = Path(self.folder.name) / "index.qvec"
        with qvec.create(path, X.shape[1], metric=self.metric, **self.made) as db:
            db.add(np.ascontiguousarray(X, np.float32))
        self.db = qvec.open(path, "r")

    def set_query_arguments(self, value: float) -> None:
        self.search = {self.parameter: value}

    def query(self, q: np.ndarray, n: int) -> np.ndarray:
        return self.db.search(q, n, **self.search).ids

    def batch_query(self, X: np.ndarray, n: int) -> None:
        self.found = self.db.search(X, n, **self.search).ids

    def get_batch_results(self) -> np.ndarray:
        return self.found

    def get_memory_usage(self) -> float | None:
        """Kilobytes: the process's own memory and the whole file, because its pages are loaded as they are read."""
        now = memory()
        size = 0 if self.db is None else self.db.stats().file_bytes
        return None if now is None else (now.anonymous + size) / 1024

    def get_additional(self) -> dict[str, Any]:
        stats = self.db.stats()
        return {
            "simd": qvec.simd_level(),
            "codes_bytes": stats.codes_bytes,
            "graph_bytes": stats.graph_bytes,
            "vectors_bytes": stats.vectors_bytes,
            "file_bytes": stats.file_bytes,
        }

    def done(self) -> None:
        if self.db is not None:
            self.db.close()
        self.folder.cleanup()

    def __str__(self) -> str:
        return f"qvec({self.label}, {self.search})"


def index_of(kind: str, options: dict[str, Any]) -> Any:
    """The configuration of an index."""
    if kind == "packed":
        return qvec.HNSW(layout="packed", **options)
    return getattr(qvec, {"flat": "Flat", "hnsw": "HNSW", "ivf": "IVF"}[kind])(**options)
