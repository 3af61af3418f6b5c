"""The pipeline of every search: options, plan, strategy, engine, refinement, hits.

Each stage is a function of this package. A prepared search caches the results of the first stages for options that have
been used on the same commit before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec._kernels import Deadline, PreparedSearch, Searcher, SearchParams, add_prepared, find_prepared, plain_norm2
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, NDArray, check_number
from qvec.index import load_index
from qvec.rows.access import RowAccess
from qvec.rows.lookup import read_records, row_of_id
from qvec.schema.layout import IDS
from qvec.schema.validation import SAFE_NORM2, as_searched, worker_threads
from qvec.search.engine import Engine
from qvec.search.explain import explain
from qvec.search.hits import make_hits
from qvec.search.options import RawOptions, SearchOptions, cached_options, deadline_after
from qvec.search.plan import plan_search
from qvec.search.refine import Found, no_hits, refine, within, without
from qvec.search.results import BatchHits, Extras, Hits
from qvec.search.strategy import Strategy, choose_strategy
from qvec.storage.store import Snapshot, Store

if TYPE_CHECKING:  # qvec.filters and the modules that use it are imported by the first search that needs them
    from qvec.filters.schema import Field
    from qvec.search.grouping import Condition, Nearby
    from qvec.search.row_selection import SelectedRows, Selector

MAX_PLANS = 64  # plans that an engine caches
SAMPLED_CALLS = 64  # one call of this many is sampled: copying a query takes a microsecond, a search takes ten or more


class Searches:
    """The searches through one handle of a collection."""

    def __init__(self, store: Store, access: RowAccess, sample: Callable[[Float32Array], object]) -> None:
        """``sample`` receives one of SAMPLED_CALLS single queries, and every batch."""
        self._store, self._access, self._config, self._sample = store, access, access.config, sample
        self._form, self._n_calls = access.config.form, 0

    def engine(self, snap: Snapshot) -> Engine | None:
        """Return the engine of a snapshot, built for its first search. None if no vectors are stored."""
        engine: Engine | None = snap.derived.get("engine")
        quantizers = self._access.active(snap) if engine is None else None
        if quantizers is None or not snap.state.live:
            return engine
        index = load_index(self._config.index, snap.state)
        engine = snap.derived["engine"] = Engine(snap, quantizers, index)
        snap.reside(engine.to_copy(self._store.memory))
        return engine

    def search(
        self,
        queries: Any,
        raw: RawOptions,
        where: Any = None,
        ids_in: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> Hits | BatchHits:
        """Search array-like queries [n, dim] or [dim]. ``where``: a filter, or one for each query of a batch."""
        deadline = None if timeout is None else deadline_after(timeout)
        self._n_calls += 1
        is_sampled = not self._n_calls % SAMPLED_CALLS
        nearest = where is None and ids_in is None and threads is None and not is_sampled
        hits: Hits | None = self._store.search_prepared(queries, raw, deadline) if nearest else None
        if hits is not None:
            return hits
        if threads is not None:
            worker_threads(threads)  # raises InputError, also if the search runs on one thread
        snap = self._store.begin(deadline)
        try:
            engine = snap.derived.get("engine") or self.engine(snap)
            if deadline is not None:
                deadline.check()
            search = None if engine is None else find_prepared(snap.derived, raw) or self._prepare(snap, engine, raw)
            if search is not None and nearest and search.options.plain:
                found = search.find(queries, deadline)
                if found is not None:
                    made = make_hits(snap, self._config, found[:3], search.options, deadline=deadline)
                    if search.plan.effort is not None:
                        made.set_expected(found[3])
                    return made
            if self._form is None and 0 < plain_norm2(queries, self._config.dim) < SAFE_NORM2:
                q: Float32Array = queries
            else:
                q = as_searched(queries, self._config.dim, self._config.metric, self._form)
            if (q.ndim == 2 or is_sampled) and self._form is None:
                self._sample(q)
            options = self._options(raw) if search is None else search.options
            plan = None if search is None else search.plan
            return _Run(snap, self._access, engine, options, plan, q, None, where, ids_in, threads, deadline).hits()
        finally:
            self._store.end(snap)

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
        snap = self._store.begin(deadline)
        try:
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
            return _Run(snap, self._access, engine, options, None, q, own, where, ids_in, threads, deadline).hits()
        finally:
            self._store.end(snap)

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
        )
        if type(options.include) is tuple:  # a list may change
            add_prepared(snap.derived, search)
        return search


@dataclass(slots=True)
class _Run:
    """The later stages of one search for float32 queries [n, dim] or [dim].

    ``plan``: for a search for the nearest rows; None to make one. ``own``: for each query, a row that must not be a
    hit.
    """

    snap: Snapshot
    access: RowAccess
    engine: Engine | None
    options: SearchOptions
    plan: SearchParams | None
    queries: Float32Array
    own: NDArray[np.int64] | None
    where: Any
    ids_in: Any
    threads: int | None
    deadline: Deadline | None
    batch: Float32Array = field(init=False)
    searcher: Searcher | None = None
    filters: Sequence[tuple[str, Any]] = ()
    """Name in errors and filter: of each query, one for all queries, or none: every row may be a hit."""
    strategy: Strategy | None = None
    """The last chosen strategy."""
    expected: Float32Array | None = None
    """The recall to expect of each query, if the search is for a recall."""

    def hits(self) -> Hits | BatchHits:
        """Find rows, refine them, and read their ids, payloads and vectors."""
        times = [perf_counter()]
        options, queries, config, engine = self.options, self.queries, self.access.config, self.engine
        self.threads = 1 if self.threads is None and queries.ndim == 1 else worker_threads(self.threads)
        self.batch = queries.reshape(-1, queries.shape[-1])
        if engine is not None:
            self.searcher = engine.timed_searcher() if options.explain else engine.searcher
        if self.where is not None or self.ids_in is not None:
            self.filters = _filters(self.where, queries)
        reader = None
        if options.vectors or options.weight is not None:
            reader = self.access.reader(self.snap, self.deadline)
        groups: list[list[Any]] | None = None
        if options.group_by is None:
            found = self.nearest()
            times.append(perf_counter())
            if options.refined:
                vectors_of = None if reader is None else reader.floats
                found = refine(options, config.metric, self.batch, found, vectors_of, self.deadline)
        else:
            from qvec.search.grouping import group_field

            selector = None if engine is None else self.snap.derived.get("selector") or self._selector()
            schema = _declared_fields(self.snap) if selector is None else selector.schema
            by = group_field(options.group_by, options.group_size, options.k, schema)
            found, groups = self.nearest_groups(by)
            times.append(perf_counter())
        times.append(perf_counter())
        if queries.ndim == 1:
            found = found[0][0], found[1][0], found[2].reshape(())
        vectors = reader.padded(found[0]) if options.vectors and reader is not None else None
        if groups is not None and queries.ndim == 1:
            groups = groups[0]
        extras = Extras(vectors, groups=groups)
        hits = make_hits(self.snap, config, found, options, extras, self.deadline)
        if self.expected is not None:
            hits.set_expected(self.expected)
        if options.explain:
            k = options.depth + (self.own is not None)
            extras.explanation = explain(self.searcher, self.strategy, len(self.batch), k, [*times, perf_counter()])
        return hits

    def nearest(self) -> Found:
        """Find the nearest rows of each query among those that can be hits."""
        k = self.options.depth + (self.own is not None)
        params = self.plan or self._params(k)
        if params is not None and params.effort is not None:
            self.expected = np.ones(len(self.batch), np.float32)
        if len(self.filters) < 2:
            selected = self._select(*self.filters[0]) if self.filters else None
            found = self._find(self.batch, k, params, selected, self.expected)
        else:
            selections = [self._select(name, where) for name, where in self.filters]
            found = no_hits(len(self.batch), k)
            for selected, at in _same_selections(selections):
                part = None if self.expected is None else self.expected[at]
                found[0][at], found[1][at], found[2][at] = self._find(self.batch[at], k, params, selected, part)
                if self.expected is not None and part is not None:
                    self.expected[at] = part
        return found if self.own is None else without(found, self.own)

    def nearest_groups(self, by: Field) -> tuple[Found, list[list[Any]]]:
        """Find the rows of the nearest groups, group after group, and the value of each row's group."""
        from qvec.search.grouping import nearest_groups

        options, size = self.options, self.options.k * self.options.group_size
        found = no_hits(len(self.batch), size)
        values: list[list[Any]] = []
        for query in range(len(self.batch)):
            nearest = partial(self._nearest_to_group, query, by.name)
            groups = nearest_groups(by, options.group_size, options.depth, nearest)
            of_rows, n = [None] * size, 0
            for group in groups[options.offset :]:
                end = n + len(group.rows)
                found[0][query, n:end], found[1][query, n:end] = group.rows, group.distances
                of_rows[n:end] = [group.value] * len(group.rows)
                n = end
            found[2][query] = n
            values.append(of_rows)
        return found, values

    def _nearest_to_group(self, query: int, field: str, condition: Condition, depth: int) -> Nearby:
        """Find the nearest rows of one query that match a condition on a field."""
        name, where = self.filters[min(query, len(self.filters) - 1)] if self.filters else ("group_by", None)
        restricted: dict[str, Any] = {field: condition}
        if where:
            self._select(name, where)  # raises InputError if the caller's filter is too large
            restricted = {"$and": [where, restricted]}
        selected = self._select(name, restricted, limited=False)  # there may be many excluded groups
        k = depth + (self.own is not None)  # one more, because the query's own row is removed from the result
        found = self._find(self.batch[query : query + 1], k, self._params(k), selected)
        rows, distances, counts = found if self.own is None else without(found, self.own[query : query + 1])
        count = n_found = int(counts[0])
        limit = self.options.max_distance
        if limit is not None:
            count = int(within(distances[0, :n_found], limit, self.access.config.metric).sum())
        near: list[int] = rows[0, :count].tolist()
        values = []
        for record in read_records(self.snap, near, complete=True, deadline=self.deadline):
            payload = None if record is None else record.payload
            values.append(None if payload is None else payload.get(field))
        return near, distances[0, :count].tolist(), values, count < n_found or selected.count <= depth

    def _params(self, k: int) -> SearchParams | None:
        """Return the parameters of a search for the k nearest rows, planned once per engine. None without an engine."""
        if self.engine is None:
            return None
        key = self.options, k
        params = self.engine.plans.get(key)
        if params is None:
            if len(self.engine.plans) >= MAX_PLANS:
                self.engine.plans.clear()
            params = self.engine.plans[key] = plan_search(self.snap, self.engine, self.options, k)
        return params

    def _selector(self) -> Selector:
        from qvec.search.row_selection import selector_of

        return selector_of(self.snap)

    def _select(self, name: str, where: Any, limited: bool = True) -> SelectedRows:
        selector = self.snap.derived.get("selector") or self._selector()
        if self.deadline is not None:
            self.deadline.check()
        return selector.select(self.snap, where, self.ids_in, self.access.config.ids, name, limited, self.deadline)

    def _find(
        self,
        queries: Float32Array,
        k: int,
        params: SearchParams | None,
        selected: SelectedRows | None,
        expected: Float32Array | None = None,
    ) -> Found:
        if self.engine is None or params is None or (selected is not None and selected.count == 0):
            return no_hits(len(queries), k)
        if selected is None and not self.options.explain:
            return self.engine.search(queries, params, self.threads or 1, None, self.searcher, self.deadline, expected)
        strategy = None if selected is None else selected.strategies.get(params)
        self.strategy = strategy = strategy or choose_strategy(self.engine, params, selected)
        return self.engine.search(
            queries, strategy.params, self.threads or 1, strategy.selection, self.searcher, self.deadline, expected
        )


def _declared_fields(snap: Snapshot) -> Mapping[str, Field]:
    from qvec.filters.schema import searchable_fields

    return searchable_fields(snap.state)


def _filters(where: Any, queries: Float32Array) -> list[tuple[str, Any]]:
    """Return the filters of a search and their names in errors: one for all queries, or one for each query."""
    if not isinstance(where, (list, tuple)):
        return [("where", where)]
    if queries.ndim == 1 or len(where) != len(queries):
        raise InputError(
            f"where must be a mapping, or a list with a filter for each query of a batch; got {len(where)} for "
            f"{'one query' if queries.ndim == 1 else f'a batch of {len(queries)}'}"
        )
    return [(f"where[{i}]", one) for i, one in enumerate(where)]


def _same_selections(selections: Sequence[SelectedRows]) -> list[tuple[SelectedRows, NDArray[np.int64]]]:
    """Return each different selection once, with the numbers of its queries."""
    places: dict[int, list[int]] = {}
    for query, selected in enumerate(selections):
        places.setdefault(id(selected), []).append(query)
    return [(selections[at[0]], np.array(at, np.int64)) for at in places.values()]
