"""The engine for one view of a collection: quantizers, columns, the index, and the searcher of the kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import numpy as np

from qvec._kernels import Column, Deadline, Searcher, SearchParams, Selection
from qvec.codes.configs import HNSW
from qvec.common.parallel import for_each
from qvec.common.types import Float32Array, Memory
from qvec.index import Index, IndexInput
from qvec.schema.bitmaps import read_bitmap
from qvec.schema.layout import CODES, DELETED, IDS, VECTORS, active_columns
from qvec.schema.quantizers import Quantizers
from qvec.schema.state import State
from qvec.search.options import SearchOptions
from qvec.search.refine import Found

PROBES_PER_ROOT = 1.0  # default number of lists to scan: this times the square root of their number
ROWS_CHECKED_ALONE = 8  # codes of a block that are verified alone before the whole block is
QUERIES_PER_CALL = 256  # queries in one call of the kernels, during which Ctrl-C has no effect
QUERIES_PER_THREAD = 16  # for fewer queries, the start of a thread costs more time than it saves


class Reading(Protocol):
    """What an engine needs of a snapshot."""

    @property
    def state(self) -> State: ...
    @property
    def columns(self) -> Mapping[str, Column]: ...


class Engine:
    """Everything that searches of one commit need. Immutable, built for the first search, discarded with the view."""

    __slots__ = (
        "_candidate_columns",
        "_new_searcher",
        "_result_columns",
        "all_rows",
        "default_nprobe",
        "deleted",
        "index",
        "live",
        "n",
        "n_lists",
        "original_quantizer",
        "oversample",
        "plans",
        "quantizer",
        "searcher",
        "state",
        "tombstones",
        "vectors",
    )  # fmt: skip

    def __init__(
        self,
        snap: Reading,
        quantizers: Quantizers,
        index: Index,
        columns: Mapping[str, Column] | None = None,
    ) -> None:
        """``columns``: under their own names; default, the active columns of the snapshot."""
        self.state: State = snap.state
        quantizer, original_quantizer = quantizers.codes, quantizers.originals
        self.quantizer, self.original_quantizer, self.index = quantizer, original_quantizer, index
        self.n, self.live, self.tombstones = self.state.n, self.state.live, self.state.index.tombstones
        columns = active_columns(snap.columns, self.state.column_names) if columns is None else columns
        self.deleted = None if self.n == self.live else read_bitmap(columns[DELETED], self.n)
        self.all_rows = Selection(self.n, self.live, self.deleted)
        self.n_lists = index.n_lists(self.state.index)
        self.default_nprobe = min(self.n_lists, round(PROBES_PER_ROOT * math.sqrt(self.n_lists)))
        codes, self.vectors = columns[CODES], quantizers.vector_reader(columns)
        codes.whole_after = ROWS_CHECKED_ALONE
        data = IndexInput.of_codes(quantizers, columns, self.n)
        finder = index.finder(data, self.state.index)
        waiting = finder is not None and self.state.unindexed > 0
        unindexed = index.unindexed_rows(data, self.state.index) if waiting else None
        query_map = None if quantizer.query_transform is None else quantizer.query_transform.of_queries
        original_codec = None if original_quantizer is None else original_quantizer.codec
        parts = quantizer.codec, codes, self.n, finder, original_codec, self.vectors.column
        self._new_searcher = partial(Searcher, *parts, map=query_map, unindexed=unindexed)
        self.searcher = self._new_searcher()
        self.oversample = quantizer.default_oversample
        self.plans: dict[tuple[SearchOptions, int], SearchParams] = {}
        self._candidate_columns = [codes] if finder is None else list(finder.columns)
        names = [IDS] if original_quantizer is None else [VECTORS, IDS]
        self._result_columns = [columns[name] for name in names if name in columns]

    def search(
        self,
        queries: Float32Array,
        params: SearchParams,
        threads: int = 1,
        selection: Selection | None = None,
        searcher: Searcher | None = None,
        deadline: Deadline | None = None,
    ) -> Found:
        """Find the rows, distances and counts for float32 queries [n, dim] or [dim].

        ``selection``: rows that may be found; default, all live rows. ``searcher``: default, that of the engine.
        """
        searcher = self.searcher if searcher is None else searcher
        selection = self.all_rows if selection is None else selection
        if self.tombstones or params.nprobe != self.default_nprobe:
            params = self.completed(params)
        if queries.ndim == 1 or len(queries) < (QUERIES_PER_CALL if threads == 1 else 2 * QUERIES_PER_THREAD):
            return searcher.search(queries, params, selection, deadline)
        return search_parallel(searcher, queries, params, selection, threads, deadline)

    def completed(self, params: SearchParams) -> SearchParams:
        """Set the default of ``nprobe``, and enlarge the candidate list if tombstones take slots in it.

        Walks then have the recall of walks over a repaired graph (ADR 31): packed nodes need a list that is longer in
        proportion to the rows, other graphs the square root of this factor.
        """
        ef = params.ef
        if self.tombstones:
            factor = (self.live + self.tombstones) / self.live
            ef = min(math.ceil(ef * (factor if is_packed(self.index) else math.sqrt(factor))), self.n)
        return params.replace(ef=ef, nprobe=params.nprobe or self.default_nprobe)

    def to_copy(self, memory: Memory) -> list[Column]:
        """Return the columns to copy to memory: those that find candidates and, for "ram", those that results are read
        from. For a budget: the ids, because each hit reads one, then the candidates' columns, then the originals."""
        if not isinstance(memory, str):
            first = [column for column in self._result_columns if column is not self.vectors.column]
            return list(dict.fromkeys([*first, *self._candidate_columns, *self._result_columns]))
        return {"mmap": [], "index": self._candidate_columns, "ram": self._candidate_columns + self._result_columns}[
            memory
        ]

    def timed_searcher(self) -> Searcher:
        """Return a new searcher, which counts and times only its own searches."""
        return self._new_searcher(timed=True)

    @property
    def work(self) -> tuple[int, int, int]:
        """Hops, scored codes and nanoseconds inside the kernels since this engine was built."""
        return self.searcher.hops, self.searcher.evaluations, self.searcher.kernel_ns


def is_packed(index: Index) -> bool:
    """Whether the index is a graph of packed nodes."""
    config = getattr(index, "config", None)
    return isinstance(config, HNSW) and config.layout == "packed"


def search_parallel(
    searcher: Searcher,
    queries: Float32Array,
    params: SearchParams,
    selection: Selection,
    threads: int,
    deadline: Deadline | None = None,
) -> Found:
    """Search queries [n, dim] in parts, on several threads or on this one."""
    n, k = len(queries), params.k
    found = np.empty((n, k), np.int64), np.empty((n, k), np.float32), np.empty(n, np.int64)
    step = QUERIES_PER_CALL if threads == 1 else QUERIES_PER_THREAD
    for_each(
        lambda i: searcher.search_into(queries, params, selection, *found, i, min(i + step, n), deadline),
        range(0, n, step),
        min(threads, -(-n // step)),
    )
    return found
