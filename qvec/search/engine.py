"""What searches run against in one view of a collection: quantizers, columns and the C searcher over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from qvec._kernels import Column, Searcher, Selection
from qvec.codes.registry import Quantizer
from qvec.common.types import Float32Array, MemoryMode, NDArray
from qvec.index import CodeColumn, Index, IndexInput, vector_reader
from qvec.schema.bitmaps import read_bitmap
from qvec.schema.layout import CODES, DELETED, IDS, VECTORS, in_force
from qvec.storage.store import Snapshot

Found = tuple[NDArray[np.int64], Float32Array, NDArray[np.int64]]
Effort = tuple[int, int, int, int, bool, Selection]

PROBES_PER_ROOT = 1.0  # lists scanned of n lists: this times the root of n
UNBROKEN = 256  # queries that are searched in one call, in which no Ctrl-C is heard
QUERIES_PER_THREAD = 16  # below, starting a thread costs more than it brings


class Engine:
    """Immutable; built when a new commit is seen, dropped with its view."""

    __slots__ = (
        "_looked_up",
        "_new_searcher",
        "_walked",
        "by_row",
        "deleted",
        "everything",
        "index",
        "live",
        "n",
        "n_lists",
        "original_quantizer",
        "plans",
        "probes",
        "quantizer",
        "searcher",
        "state",
        "tombstones",
    )  # fmt: skip

    def __init__(
        self,
        snap: Snapshot,
        quantizer: Quantizer,
        original_quantizer: Quantizer | None,
        index: Index,
        int_ids: bool,
        columns: Mapping[str, Column] | None = None,
    ) -> None:
        """``columns``: by their own names; by default, those in force."""
        self.state: dict[str, Any] = snap.state
        self.quantizer, self.original_quantizer, self.index = quantizer, original_quantizer, index
        self.n: int = self.state["n"]
        self.live: int = self.state["live"]
        self.tombstones: int = self.state["index"].get("tombstones", 0)
        columns = in_force(snap.columns, self.state["names"]) if columns is None else columns
        self.deleted = None if self.n == self.live else read_bitmap(columns[DELETED], self.n)
        self.plans: dict[Any, Any] = {}
        """What layers above worked out of options for this engine."""
        self.everything = Selection(self.n, self.live, self.deleted)
        reader = vector_reader(quantizer, original_quantizer, columns)
        source = IndexInput(columns, CodeColumn(quantizer.codec, columns[CODES]), self.n, reader)
        self.n_lists = index.n_lists(self.state["index"])
        """How many may be probed; 0: the index has none."""
        self.probes = min(self.n_lists, round(PROBES_PER_ROOT * math.sqrt(self.n_lists)))
        """How many are, unless a search says otherwise."""
        finder = index.finder(source, self.state["index"])
        rerank, vectors = (None, None) if original_quantizer is None else (original_quantizer.codec, columns[VECTORS])
        mapped = None if quantizer.query_transform is None else quantizer.query_transform.of_queries
        parts = quantizer.codec, columns[CODES], self.n, finder, rerank, vectors
        self._new_searcher = partial(Searcher, *parts, map=mapped)
        self.by_row = self._new_searcher()
        """Gives row numbers, whatever the ids are."""
        self._walked = [columns[CODES]] if finder is None else list(finder.columns)
        self._looked_up = [columns[name] for name, read in ((VECTORS, original_quantizer), (IDS, int_ids)) if read]
        self.searcher = self._new_searcher(ids=columns[IDS]) if int_ids else self.by_row
        """Gives ids, or rows where ids are strings."""

    def search(
        self,
        queries: Float32Array,
        k: int,
        ef: int,
        candidates: int,
        exact: bool,
        threads: int,
        nprobe: int = 0,
        selection: Selection | None = None,
        searcher: Searcher | None = None,
    ) -> Found:
        """Ids (rows where ids are strings), distances and counts of float32 queries [n, dim] or [dim].

        ``candidates``: how many are re-ranked, 0 for none. ``nprobe``: 0 for as many as ``probes`` says.
        ``selection``: which rows may be found; by default all that live. Deleted rows that a walk meets take places in
        its pool: it is made larger by their share. ``searcher``: another than the one that gives ids.
        """
        if searcher is None:
            searcher = self.searcher
        effort = self.effort(k, ef, candidates, exact, nprobe, selection)
        if queries.ndim == 1 or len(queries) < (UNBROKEN if threads == 1 else 2 * QUERIES_PER_THREAD):
            return searcher.search(queries, *effort)
        return _search_parallel(searcher, queries, effort, threads)

    def effort(
        self, k: int, ef: int, candidates: int, exact: bool, nprobe: int, selection: Selection | None = None
    ) -> Effort:
        """What `search` asks of a searcher."""
        if self.tombstones:
            ef = min(-(-ef * (self.live + self.tombstones) // self.live), self.n)
        return k, ef, nprobe or self.probes, candidates, exact, self.everything if selection is None else selection

    def to_copy(self, memory: MemoryMode) -> list[Column]:
        """The columns that are to be in memory: what finds candidates, or besides what is read of those alone."""
        return {"mmap": [], "index": self._walked, "ram": self._walked + self._looked_up}[memory]

    def timed(self) -> Searcher:
        """A searcher that gives row numbers, and counts and times its own searches alone."""
        return self._new_searcher(timed=True)

    @property
    def work(self) -> tuple[int, int, int]:
        """Hops, evaluated codes and nanoseconds inside the kernels, since this engine was built."""
        return self.searcher.hops, self.searcher.evaluations, self.searcher.kernel_ns


def _search_parallel(searcher: Searcher, queries: Float32Array, effort: Effort, threads: int) -> Found:
    n, k = len(queries), effort[0]
    found = np.empty((n, k), np.int64), np.empty((n, k), np.float32), np.empty(n, np.int64)
    step = UNBROKEN if threads == 1 else QUERIES_PER_THREAD
    starts = iter(range(0, n, step))

    def work() -> None:
        for i in starts:  # each thread takes what no other has taken
            searcher.search_into(queries, *effort, *found, i, min(i + step, n))

    if threads == 1:
        work()
        return found
    from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

    others = min(threads, -(-n // step)) - 1
    with ThreadPoolExecutor(others) as pool:
        jobs = [pool.submit(work) for _ in range(others)]
        try:
            work()
        finally:
            for _ in starts:  # after an error nobody takes more
                pass
        for job in jobs:
            job.result()
    return found
