"""The pipeline of every search: options, plan, strategy, engine, refinement, hits.

Each stage is a function of this package. A prepared search caches the results of the first stages for options that have
been used on the same commit before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from qvec._kernels import Column, Deadline, PreparedSearch, add_prepared, find_prepared, plain_norm2
from qvec.common.types import Float32Array, NDArray, check_number
from qvec.index import load_index
from qvec.rows.access import RowAccess
from qvec.rows.lookup import row_of_id
from qvec.rows.visibility import Visibility
from qvec.schema.layout import IDS
from qvec.schema.validation import SAFE_NORM2, as_searched, worker_threads
from qvec.search.engine import Engine
from qvec.search.hits import make_hits
from qvec.search.options import RawOptions, SearchOptions, cached_options, deadline_after
from qvec.search.plan import plan_search
from qvec.search.results import NO_EXTRAS, BatchHits, Hits
from qvec.search.run import Run
from qvec.storage.store import Snapshot, Store


class Searches:
    """The searches through one handle of a collection."""

    def __init__(
        self, store: Store, access: RowAccess, sample: Callable[[Float32Array], object], visibility: Visibility
    ) -> None:
        """``sample`` receives some of the single queries, and every batch."""
        self._store, self._access, self._config, self._sample = store, access, access.config, sample
        self._visibility = visibility
        self._form = access.config.exact_form

    def engine(self, snap: Snapshot) -> Engine | None:
        """Return the engine of a snapshot, built for its first search. None if no vectors are stored."""
        engine: Engine | None = snap.derived.get("engine")
        quantizers = self._access.active(snap) if engine is None else None
        if quantizers is None or not snap.state.live:
            return engine
        index = load_index(self._config.index, snap.state)
        engine = snap.derived["engine"] = Engine(snap, quantizers, index)
        self._copy(snap, engine.to_copy(self._store.memory))
        return engine

    def _copy(self, snap: Snapshot, columns: Iterable[Column]) -> None:
        memory = self._store.memory
        snap.reside(columns, None if isinstance(memory, str) else memory)

    def search(
        self,
        queries: Any,
        raw: RawOptions,
        where: Any = None,
        ids_in: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> Hits | BatchHits:
        """Search array-like queries [n, dim] or [dim] for which `Store.search_prepared` returns None.

        ``where``: a filter, or one for each query of a batch.
        """
        deadline = None if timeout is None else deadline_after(timeout)
        is_sampled = self._store.is_sampled
        nearest = where is None and ids_in is None and threads is None and not is_sampled
        if threads is not None:
            worker_threads(threads)  # raises InputError, also if the search runs on one thread
        whole = self._store.begin(deadline)
        try:
            snap = self._visibility.of(whole)
            engine = snap.derived.get("engine") or self.engine(snap)
            if deadline is not None:
                deadline.check()
            search = None if engine is None else find_prepared(snap.derived, raw) or self._prepare(snap, engine, raw)
            if search is not None and nearest and search.options.plain:
                found = search.find(queries, deadline)
                if found is not None:
                    return make_hits(snap, self._config, found, search.options, deadline=deadline)
            if self._form is None and 0 < plain_norm2(queries, self._config.dim) < SAFE_NORM2:
                q: Float32Array = queries
            else:
                q = as_searched(queries, self._config.dim, self._config.metric, self._form)
            if (q.ndim == 2 or is_sampled) and self._form is None:
                self._sample(q)
            options = self._options(raw) if search is None else search.options
            plan = None if search is None else search.plan
            return Run(snap, self._access, engine, options, plan, q, None, where, ids_in, threads, deadline).hits()
        finally:
            self._store.end(whole)

    def search_inputs(
        self,
        query: Any,
        raw: RawOptions,
        given: tuple[Any, ...],
        where: Any,
        ids_in: Any,
        threads: int | None,
        timeout: float | Deadline | None,
    ) -> Hits | BatchHits:
        """Hits by text and sparse vectors, and by array-like vectors [n, dim] or [dim] if ``query`` is not None.

        ``given``: the fields of :class:`qvec.search.inputs.RawInputs`.
        """
        from qvec.search.hybrid import HybridRun, check_hybrid_options, nearest_to_text
        from qvec.search.inputs import RawInputs, check_inputs
        from qvec.text.reader import postings_columns

        others = RawInputs(*given)
        others.check(query is not None)

        config = self._config
        deadline = None if timeout is None else deadline_after(timeout)
        if threads is not None:
            worker_threads(threads)
        q = None if query is None else as_searched(query, config.dim, config.metric, self._form)
        whole = self._store.begin(deadline)
        try:
            snap = self._visibility.of(whole)
            if self._store.memory != "mmap":
                self._copy(snap, postings_columns(snap))
            options = self._options(raw)
            if options.plain and others.is_one_text and query is None and where is None and ids_in is None:
                return nearest_to_text(snap, config, options, others, deadline)
            engine = snap.derived.get("engine") or self.engine(snap)
            n = len(q) if q is not None and q.ndim == 2 else None
            inputs = check_inputs(others, snap.state, q is not None, n)
            check_hybrid_options(options, inputs)
            if q is None:  # stands for the number of queries
                q = np.zeros(config.dim if inputs.n is None else (inputs.n, config.dim), np.float32)
            parts = snap, self._access, engine, options, None, q, None, where, ids_in, threads, deadline, inputs
            return HybridRun(*parts).hits()
        finally:
            self._store.end(whole)

    def search_by_id(
        self,
        ids: Any,
        raw: RawOptions,
        where: Any = None,
        ids_in: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> Hits | BatchHits:
        """Search for the neighbors of one stored vector (1-D results) or several (2-D results), without the vector
        itself."""
        deadline = None if timeout is None else deadline_after(timeout)
        whole = self._store.begin(deadline)
        try:
            snap = self._visibility.of(whole)
            engine = snap.derived.get("engine") or self.engine(snap)
            options = self._options(raw)
            if engine is not None and type(ids) is int:
                own = np.array([row_of_id(snap, ids, self._config.ids)])
            else:
                own = self._access.reader(snap, deadline).rows(ids)
            if engine is not None and self._form is None and deadline is None:
                vectors: NDArray[Any] = engine.vectors.read(own)
            else:
                vectors = self._access.reader(snap, deadline).vectors(own)
            q = vectors[0] if type(ids) is int or np.ndim(ids) == 0 else vectors
            if self._form is not None or not 0 < plain_norm2(q, self._config.dim) < SAFE_NORM2:
                q = as_searched(q, self._config.dim, self._config.metric, self._form)
            return Run(snap, self._access, engine, options, None, q, own, where, ids_in, threads, deadline).hits()
        finally:
            self._store.end(whole)

    def _options(self, raw: RawOptions) -> SearchOptions:
        """Return checked options: the same object for equal values of equal types."""
        try:
            options = cached_options(*raw)
        except TypeError:  # a value without a hash: a list, or a wrong value
            options = SearchOptions(*raw)
        if options.max_distance is not None and self._config.metric != "ip":
            check_number("max_distance", options.max_distance, 0.0, np.inf)
        return options

    def _prepare(self, snap: Snapshot, engine: Engine, raw: RawOptions) -> PreparedSearch:
        """Check and plan a search, and cache the result in the engine."""
        options = self._options(raw)
        plan = plan_search(snap, engine, options, options.depth)
        ids, no_records = snap.columns.get(IDS), not (options.payloads and snap.state.records)
        search = PreparedSearch(
            raw,
            options,
            plan,
            engine.searcher,
            engine.completed(plan) if engine.tombstones or plan.nprobe != engine.default_nprobe else plan,
            engine.all_rows,
            dim=engine.quantizer.dim,
            max_norm2=SAFE_NORM2,
            hits=Hits if options.plain and no_records and ids is not None else None,
            ids=ids,
            payloads=options.payloads,
            zero_score=1.0 if self._config.metric == "cosine" else 0.0,
            extras=NO_EXTRAS,
        )
        if type(options.include) is tuple:  # a list may change
            add_prepared(snap.derived, search)
        return search
