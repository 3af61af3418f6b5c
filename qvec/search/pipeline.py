"""The one path of every search: options, plan, strategy, engine, refinement, hits.

Each stage is a function of this package. A prepared search keeps the first stages' results for options that were used
before on the same commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from qvec._kernels import Ready, Searcher
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, IdKind, NDArray, check_number
from qvec.filters.schema import Field, load_schema
from qvec.index import load_index
from qvec.rows.access import RowAccess
from qvec.rows.lookup import payloads_of, row_records
from qvec.schema.validation import SAFE_NORM2, as_searched, worker_threads
from qvec.search.engine import Engine
from qvec.search.explain import explain
from qvec.search.grouping import group_field, nearest_groups
from qvec.search.hits import ids_and_payloads
from qvec.search.options import RawOptions, SearchOptions, checked_options
from qvec.search.params import SearchParams
from qvec.search.plan import plan_search
from qvec.search.refine import Found, no_hits, refine, without
from qvec.search.results import BatchHits, Extras, Hits, hits_of
from qvec.search.row_selection import SelectedRows, selector_of
from qvec.search.strategy import Strategy, choose_strategy
from qvec.storage.store import Snapshot, Store

SAMPLED_CALLS = 64  # one call in this many is sampled: to copy a query takes a microsecond, a search takes ten or more


class Searches:
    """The searches of one handle of a collection."""

    def __init__(self, store: Store, access: RowAccess, sample: Callable[[Float32Array], object]) -> None:
        """``sample`` is shown one single query in SAMPLED_CALLS, and every batch."""
        self._store, self._access, self._config, self._sample = store, access, access.config, sample
        self._n_calls = 0

    def engine(self, snap: Snapshot) -> Engine | None:
        """The engine of a snapshot, built at its first search; None if no vectors are stored."""
        engine: Engine | None = snap.derived.get("engine")
        quantizers = self._access.active(snap) if engine is None else None
        if quantizers is None or not snap.state.live:
            return engine
        index = load_index(self._config.index, snap.state.index)
        engine = snap.derived["engine"] = Engine(snap, quantizers, index)
        snap.reside(engine.to_copy(self._store.memory))
        return engine

    def search(
        self, queries: Any, raw: RawOptions, where: Any = None, ids_in: Any = None, threads: int | None = None
    ) -> Hits | BatchHits:
        """Hits of array-like queries [n, dim] or [dim]; ``where`` is a filter, or one for each query of a batch."""
        self._n_calls += 1
        is_plain = where is None and ids_in is None and type(raw[1]) is tuple
        found = self._store.quick(queries, raw) if is_plain and self._n_calls % SAMPLED_CALLS else None
        if found is not None:
            return Hits(*found)
        with self._store.read() as snap:
            engine = self.engine(snap)
            options = self._options(raw)
            q = as_searched(queries, self._config.dim, self._config.metric, self._config.form)
            if (q.ndim == 2 or not self._n_calls % SAMPLED_CALLS) and self._config.form is None:
                self._sample(q)
            if engine is not None and is_plain and q is queries and q.ndim == 1:
                self._prepare(snap, engine, options, raw)
            return self._run(snap, engine, options, q, None, where, ids_in, threads)

    def search_by_id(
        self, ids: Any, raw: RawOptions, where: Any = None, ids_in: Any = None, threads: int | None = None
    ) -> Hits | BatchHits:
        """Hits of stored vectors, given by one id (1-D out) or by several (2-D out); a vector is no hit of itself."""
        with self._store.read() as snap:
            engine = self.engine(snap)
            options, reader = self._options(raw), self._access.reader(snap)
            own = reader.rows(ids)
            vectors = reader.vectors(own)[0 if np.ndim(ids) == 0 else slice(None)]
            q = as_searched(vectors, self._config.dim, self._config.metric, self._config.form)
            return self._run(snap, engine, options, q, own, where, ids_in, threads)

    def _options(self, raw: RawOptions) -> SearchOptions:
        options = checked_options(raw)
        if options.max_distance is not None and self._config.metric != "ip":
            check_number("max_distance", options.max_distance, 0.0, np.inf)
        return options

    def _prepare(self, snap: Snapshot, engine: Engine, options: SearchOptions, raw: RawOptions) -> None:
        plain = not (options.refined or options.explain or options.vectors or options.group_by is not None)
        if not plain or engine.id_searcher is None or (options.payloads and snap.state.records):
            return
        effort = engine.effort(plan_search(snap, engine, options, options.k))
        zero = 1.0 if self._config.metric == "cosine" else 0.0
        dim, payloads = engine.quantizer.dim, options.payloads
        snap.keep_ready(Ready(raw, engine.id_searcher, dim, SAFE_NORM2, effort, zero, payloads))

    def _run(
        self,
        snap: Snapshot,
        engine: Engine | None,
        options: SearchOptions,
        queries: Float32Array,
        own: NDArray[np.int64] | None,
        where: Any,
        ids_in: Any,
        threads: int | None,
    ) -> Hits | BatchHits:
        times = [perf_counter()]
        workers = 1 if threads is None and queries.ndim == 1 else worker_threads(threads)
        batch = queries.reshape(-1, queries.shape[-1])
        run = _Run(snap, engine, options, batch, own, workers, _filters(where, queries), ids_in, self._config.ids)
        reader = self._access.reader(snap) if options.vectors or options.mmr is not None else None
        groups: list[list[Any]] | None = None
        if options.group_by is None:
            found = run.nearest()
            times.append(perf_counter())
            if options.refined:
                floats = _no_vectors if reader is None else reader.floats
                found = refine(options, self._config.metric, batch, found, floats)
        else:
            by = group_field(options.group_by, options.group_size, options.k, load_schema(snap.state))
            found, groups = run.nearest_groups(by)
            times.append(perf_counter())
        times.append(perf_counter())
        if queries.ndim == 1:
            found = found[0][0], found[1][0], found[2].reshape(())
        vectors = reader.padded(found[0]) if options.vectors and reader is not None else None
        if groups is not None and queries.ndim == 1:
            groups = groups[0]
        ids, payloads = ids_and_payloads(snap, self._config, found[0], options.payloads)
        explanation = None
        if options.explain:
            k = options.depth + (own is not None)
            explanation = explain(run.searcher, run.strategy, len(batch), k, [*times, perf_counter()])
        zero_score = 1.0 if self._config.metric == "cosine" else 0.0
        return hits_of(ids, found[1], found[2], payloads, zero_score, Extras(vectors, explanation, groups))


@dataclass(slots=True)
class _Run:
    """One search of float32 queries [n, dim]: the stages from the plan to the rows found.

    ``own``: for each query a row that is not a hit of it. ``filters``: for each query, or one for all, its name in
    errors and the filter. ``strategy``: the last that was chosen.
    """

    snap: Snapshot
    engine: Engine | None
    options: SearchOptions
    queries: Float32Array
    own: NDArray[np.int64] | None
    threads: int
    filters: list[tuple[str, Any]]
    ids_in: Any
    ids: IdKind
    strategy: Strategy | None = None
    searcher: Searcher | None = field(init=False)

    def __post_init__(self) -> None:
        engine = self.engine
        timed = engine is not None and self.options.explain
        self.searcher = None if engine is None else engine.timed_searcher() if timed else engine.searcher

    def nearest(self) -> Found:
        """The nearest rows of each query that may be its hits."""
        k = self.options.depth + (self.own is not None)
        params = None if self.engine is None else plan_search(self.snap, self.engine, self.options, k)
        selections = [self._select(name, where) for name, where in self.filters]
        if len(selections) == 1:
            found = self._find(self.queries, k, params, selections[0])
        else:
            found = no_hits(len(self.queries), k)
            for selected, at in _same_selections(selections):
                found[0][at], found[1][at], found[2][at] = self._find(self.queries[at], k, params, selected)
        return found if self.own is None else without(found, self.own)

    def nearest_groups(self, by: Field) -> tuple[Found, list[list[Any]]]:
        """The rows of the nearest groups, group after group, and the value of each row's group."""
        options, size = self.options, self.options.k * self.options.group_size
        found = no_hits(len(self.queries), size)
        values: list[list[Any]] = []
        for query in range(len(self.queries)):
            nearest, read = self._nearest_of(query), self._values_of(by)
            groups = nearest_groups(by, options.group_size, options.depth, nearest, read)[options.offset :]
            rows = [row for group in groups for row in group.rows]
            found[0][query, : len(rows)] = rows
            found[1][query, : len(rows)] = [distance for group in groups for distance in group.distances]
            found[2][query] = len(rows)
            of_rows = [group.value for group in groups for _ in group.rows]
            values.append(of_rows + [None] * (size - len(of_rows)))
        return found, values

    def _nearest_of(self, query: int) -> Callable[[dict[str, Any], int], tuple[NDArray[Any], Float32Array, bool]]:
        name, where = self.filters[0 if len(self.filters) == 1 else query]
        queries, own, max_distance = self.queries[query : query + 1], self.own, self.options.max_distance

        def nearest(condition: dict[str, Any], depth: int) -> tuple[NDArray[Any], Float32Array, bool]:
            selected = self._select(name, {"$and": [part for part in (where, condition) if part]})
            k = depth + (own is not None)
            params = None if self.engine is None else plan_search(self.snap, self.engine, self.options, k)
            found = self._find(queries, k, params, selected)
            rows, distances, counts = found if own is None else without(found, own[query : query + 1])
            count = n_found = int(counts[0])
            if max_distance is not None:
                count = int((distances[0, :n_found] <= max_distance).sum())
            ended = count < n_found or (selected is not None and selected.count <= depth)
            return rows[0, :count], distances[0, :count], ended

        return nearest

    def _values_of(self, by: Field) -> Callable[[NDArray[Any]], list[Any]]:
        def values(rows: NDArray[Any]) -> list[Any]:
            payloads = payloads_of(row_records(self.snap, rows.tolist()))
            return [None if payload is None else payload.get(by.name) for payload in payloads]

        return values

    def _select(self, name: str, where: Any) -> SelectedRows | None:
        if where is None and self.ids_in is None and len(self.filters) == 1:
            return None
        return selector_of(self.snap).select(self.snap, where, self.ids_in, self.ids, name)

    def _find(self, queries: Float32Array, k: int, params: SearchParams | None, selected: SelectedRows | None) -> Found:
        if self.engine is None or params is None or (selected is not None and selected.count == 0):
            return no_hits(len(queries), k)
        self.strategy = choose_strategy(self.engine, params, selected)
        return self.engine.search(queries, self.strategy.params, self.threads, self.strategy.selection, self.searcher)


def _filters(where: Any, queries: Float32Array) -> list[tuple[str, Any]]:
    """The filters of a search and their names in errors: one for all queries, or one for each query."""
    if not isinstance(where, (list, tuple)):
        return [("where", where)]
    if queries.ndim == 1 or len(where) != len(queries):
        raise InputError(
            f"where must be a mapping, or a list with a filter for each query of a batch; got {len(where)} for "
            f"{'one query' if queries.ndim == 1 else f'a batch of {len(queries)}'}"
        )
    return [(f"where[{i}]", one) for i, one in enumerate(where)]


def _same_selections(selections: Sequence[SelectedRows | None]) -> list[tuple[SelectedRows | None, NDArray[np.int64]]]:
    """Each selection once, with the numbers of its queries."""
    places: dict[int, list[int]] = {}
    for query, selected in enumerate(selections):
        places.setdefault(id(selected), []).append(query)
    return [(selections[at[0]], np.array(at, np.int64)) for at in places.values()]


def _no_vectors(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    raise AssertionError("only maximal marginal relevance compares vectors")
