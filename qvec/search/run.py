"""The later stages of a search, after its options were checked: find rows, refine them, and read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec._kernels import Deadline, Searcher, SearchParams
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, NDArray
from qvec.rows.access import RowAccess
from qvec.rows.lookup import read_records
from qvec.schema.validation import worker_threads
from qvec.search.engine import Engine
from qvec.search.explain import Explanation, explain
from qvec.search.hits import make_hits
from qvec.search.options import SearchOptions
from qvec.search.plan import plan_search
from qvec.search.refine import Found, no_hits, refine, within, without
from qvec.search.results import BatchHits, Extras, Hits
from qvec.search.strategy import Strategy, choose_strategy
from qvec.storage.store import Snapshot

if TYPE_CHECKING:  # qvec.filters and the modules that use it are imported by the first search that needs them
    from qvec.filters.schema import Field
    from qvec.search.grouping import Condition, Nearby
    from qvec.search.inputs import Inputs
    from qvec.search.row_selection import SelectedRows, Selector

EVERY = slice(None)  # query of a batch
MAX_PLANS = 64  # plans that an engine caches


@dataclass(slots=True)
class Run:
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
    inputs: Inputs | None = None
    """Texts and sparse vectors of the queries (:class:`qvec.search.hybrid.HybridRun`)."""
    batch: Float32Array = field(init=False)
    searcher: Searcher | None = None
    filters: Sequence[tuple[str, Any]] = ()
    """The filters and their names in errors: one for each query, one for all queries, or none."""
    strategy: Strategy | None = None
    """The last chosen strategy."""

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
                by_score, floats = self.inputs is not None, None if reader is None else reader.floats
                found = refine(options, config.metric, self.batch, found, floats, self.deadline, by_score)
        else:
            from qvec.search.grouping import group_field

            selector = None if engine is None else self.snap.derived.get("selector") or self._selector()
            schema = _declared_fields(self.snap) if selector is None else selector.schema
            by = group_field(options.group_by, options.group_size, options.k, schema)
            found, groups = self.nearest_groups(by)
            times.append(perf_counter())
        times.append(perf_counter())
        of_batch = found
        if queries.ndim == 1:
            found = found[0][0], found[1][0], found[2].reshape(())
        vectors = reader.padded(found[0]) if options.vectors and reader is not None else None
        if groups is not None and queries.ndim == 1:
            groups = groups[0]
        extras = Extras(vectors, groups=groups)
        if self.inputs is not None:
            self.complete(extras, of_batch)
        hits = make_hits(self.snap, config, found, options, extras, self.deadline)
        if options.explain:
            k = options.depth + (self.own is not None)
            extras.explanation = explain(self.searcher, self.strategy, len(self.batch), k, [*times, perf_counter()])
            if self.inputs is not None:
                extras.explanation = self.explained(extras.explanation)
        return hits

    def nearest(self) -> Found:
        """Find the nearest rows of each query among those that can be hits."""
        k = self.options.depth + (self.own is not None)
        params = self.plan or self._params(k)
        if len(self.filters) < 2:
            found = self._find(EVERY, k, params, self._select(*self.filters[0]) if self.filters else None)
        else:
            selections = [self._select(name, where) for name, where in self.filters]
            found = no_hits(len(self.batch), k)
            for selected, at in _same_selections(selections):
                found[0][at], found[1][at], found[2][at] = self._find(at, k, params, selected)
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
        found = self._find(slice(query, query + 1), k, self._params(k), selected)
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
        return (
            near,
            distances[0, :count].tolist(),
            values,
            count < n_found or n_found < depth or selected.count <= depth,
        )

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

    def complete(self, extras: Extras, found: Found) -> None:
        """Add the extras that only searches with other inputs have."""

    def explained(self, explanation: Explanation) -> Explanation:
        """Return the explanation with the work of the inputs."""
        return explanation

    def _find(self, at: Any, k: int, params: SearchParams | None, selected: SelectedRows | None) -> Found:
        """Find the k nearest rows of some queries, given as an index of the batch."""
        queries = self.batch[at]
        if self.engine is None or params is None or (selected is not None and selected.count == 0):
            return no_hits(len(queries), k)
        if selected is None and not self.options.explain:
            return self.engine.search(queries, params, self.threads or 1, None, self.searcher, self.deadline)
        strategy = None if selected is None else selected.strategies.get(params)
        self.strategy = strategy = strategy or choose_strategy(self.engine, params, selected)
        return self.engine.search(
            queries, strategy.params, self.threads or 1, strategy.selection, self.searcher, self.deadline
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
