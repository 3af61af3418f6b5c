"""A collection under the interface of the algorithms of ann-benchmarks and of VIBE.

The modules in benchmarks/annbenchmarks and benchmarks/vibe add the base class of their project.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qvec._kernels import simd_level
from qvec.bench.adapters.own import INDEXES
from qvec.bench.memory import memory
from qvec.codes import configs
from qvec.collection.collection import Collection
from qvec.collection.open import create
from qvec.collection.open import open as open_collection
from qvec.common.types import Float32Array, Int64Array, Metric


class External:
    """A collection in a folder of its own, searched through a reading handle.

    ``options``: ``code``, ``index`` ("flat", "hnsw", "packed" or "ivf"), and ``m``, ``ef_construction``, ``nlist`` or
    ``originals`` as :func:`qvec.create` and the index's configuration take them. What is set for a search is the one
    parameter of the index: ``ef`` of graphs, ``nprobe`` of lists, ``oversample`` of a scan.
    """

    metrics: ClassVar[Mapping[str, Metric]]
    """The metrics of qvec by their names in the project."""

    def __init__(self, metric: str, options: Mapping[str, Any]) -> None:
        if metric not in self.metrics:
            raise NotImplementedError(f"qvec has no metric {metric!r}; it has {', '.join(self.metrics)}")
        options = dict(options)
        kind = options.pop("index", "hnsw")
        made: dict[str, Any] = {name: options.pop(name) for name in ("code", "originals") if name in options}
        self._made = {"metric": self.metrics[metric], "index": index_of(kind, options), **made}
        self._label = ", ".join(map(str, [made.get("code", "auto"), kind, *options.items()]))
        self._parameter = {"flat": "oversample", "ivf": "nprobe"}.get(kind, "ef")
        self._search: dict[str, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="qvec-")
        self._db: Collection | None = None
        self._found: Int64Array = np.empty((0, 0), np.int64)

    def fit(self, X: Float32Array) -> None:
        """Create the collection with the vectors [n, dim], and open it for the searches."""
        path = Path(self._folder.name) / "index.qvec"
        with create(path, X.shape[1], **self._made) as db:
            db.add(np.ascontiguousarray(X, np.float32))
        self._db = open_collection(path, "r")

    @property
    def db(self) -> Collection:
        """The collection; RuntimeError before ``fit``."""
        if self._db is None:
            raise RuntimeError("fit has not been called")
        return self._db

    def set_query_arguments(self, value: float) -> None:
        """Set the parameter of the index for the next queries; more lists than there are mean all lists."""
        if self._parameter == "nprobe":
            value = min(value, self.db.stats().lists)
        self._search = {self._parameter: value}

    def query(self, q: Float32Array, n: int) -> Int64Array:
        """Return the rows of the n nearest vectors: int64 [n]."""
        ids: Int64Array = self.db.search(q, n, **self._search).ids
        return ids

    def batch_query(self, X: Float32Array, n: int) -> None:
        """Search all queries in one call; ``get_batch_results`` returns the rows."""
        self._found = self.db.search(X, n, **self._search).ids

    def get_batch_results(self) -> Int64Array:
        """Return the rows that ``batch_query`` has found: int64 [queries, n]."""
        return self._found

    def get_memory_usage(self) -> float | None:
        """Kilobytes: the process's own memory and the whole file, because its pages are loaded as they are read."""
        now = memory()
        size = 0 if self._db is None else self._db.stats().file_bytes
        return None if now is None else (now.anonymous + size) / 1024

    def get_additional(self) -> dict[str, Any]:
        """Return the SIMD level and the bytes of the parts of the file, which the project stores with its results."""
        stats = self.db.stats()
        return {
            "simd": simd_level(),
            "codes_bytes": stats.codes_bytes,
            "graph_bytes": stats.graph_bytes,
            "vectors_bytes": stats.vectors_bytes,
            "file_bytes": stats.file_bytes,
        }

    def done(self) -> None:
        """Close the collection and remove its folder."""
        if self._db is not None:
            self._db.close()
        self._folder.cleanup()

    def __str__(self) -> str:
        return f"qvec({self._label}, {self._search})"


def index_of(kind: str, options: Mapping[str, Any]) -> Any:
    """Return the configuration of an index; KeyError if there is no such index."""
    name, fixed = INDEXES[kind]
    return getattr(configs, name)(**fixed, **options)
