"""qvec itself, through its public calls."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

import qvec
from qvec.bench.adapters.base import NPROBES, Adapter, Calls, Options, Sweep, tree_bytes, widths
from qvec.errors import InputError
from qvec.types import Float32Array

GRAPHS = ("hnsw", "packed")
INDEXES = ("flat", *GRAPHS, "ivf")


class Own(Adapter):
    """A collection: built in one ``add``, closed, and searched by a reader, as another process would.

    Options: ``code``; ``index`` "flat", "hnsw", "packed" (``HNSW(layout="packed")``) or "ivf"; ``keep``;
    ``residency``; ``m`` and ``ef_construction`` of graphs, ``nlist`` of lists, 0 for the index's own; ``batch``: rows
    of one ``add``, 0 for all.
    """

    module = "qvec"
    package = "qvec"
    defaults: ClassVar[Options] = {
        "code": "int8", "index": "hnsw", "keep": "f32", "residency": "mmap",
        "m": 0, "ef_construction": 0, "nlist": 0, "batch": 0,
    }  # fmt: skip

    def build(self, base: Float32Array, threads: int) -> None:
        rows = self.options["batch"] or len(base)
        with self._created() as db:
            for start in range(0, len(base), rows):
                db.add(base[start : start + rows], threads=threads)

    def settle(self) -> int:
        self.db = qvec.open(self._path, "r", residency=self.options["residency"])
        return tree_bytes(self._path)

    def parts(self) -> dict[str, int]:
        stats = self.db.stats()
        return {"codes": stats.codes_bytes, "graph": stats.graph_bytes, "vectors": stats.vectors_bytes}

    def sweep(self, k: int) -> Sweep:
        if self.options["index"] in GRAPHS:
            return {"ef": widths(k)}
        if self.options["index"] == "ivf":
            return {"nprobe": NPROBES}
        return {"oversample": (1, 2, 3, 5, 10, 20, 40)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        search = partial(self.db.search, k=k, **point)
        return Calls(search, partial(search, threads=threads), attrgetter("ids"))

    def check(self) -> None:
        """InputError where the code or the index does not go with the dimension, the metric, or one another."""
        with self._created():
            pass
        self._path.unlink()

    @property
    def _path(self) -> Any:
        return self.folder / "own.qvec"

    def _created(self) -> qvec.Collection:
        options = self.options
        return qvec.create(
            self._path, self.dim, metric=self.metric, code=options["code"], index=self._index(), keep=options["keep"]
        )

    def _index(self) -> Any:
        kind = self.options["index"]
        if kind == "flat":
            return self._made("Flat")
        if kind == "hnsw":
            return self._made("HNSW", "m", "ef_construction")
        if kind == "packed":
            return self._made("HNSW", "m", "ef_construction", layout="packed")
        if kind == "ivf":
            return self._made("IVF", "nlist")
        raise InputError(f"index is {kind!r}; it is one of {', '.join(INDEXES)}")

    def _made(self, name: str, *names: str, **fixed: Any) -> Any:
        given = {key: self.options[key] for key in names if self.options[key]}
        foreign = [key for key in ("m", "ef_construction", "nlist") if self.options[key] and key not in names]
        if foreign:
            raise InputError(f"index {self.options['index']} has no {foreign[0]}")
        try:
            return getattr(qvec, name)(**given, **fixed)
        except (AttributeError, TypeError):
            raise InputError(f"qvec {qvec.__version__} has no index {self.options['index']!r}") from None
