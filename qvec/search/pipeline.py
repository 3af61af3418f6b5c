"""Searches for something else than the nearest k: what a refinement makes of more of them, and an account of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec._kernels import Searcher
from qvec.common.types import Float32Array, NDArray
from qvec.rows.lookup import payloads_of, row_record
from qvec.rows.reader import Reader
from qvec.search.engine import Engine
from qvec.search.explain import Explanation, explained
from qvec.search.grouping import Grouping, nearest_groups
from qvec.search.hits import HitMaker
from qvec.search.options import SearchOptions
from qvec.search.plan import make_plan
from qvec.search.refine import Found, Refinement, without
from qvec.search.results import Hits
from qvec.search.strategy import Way, choose_way

if TYPE_CHECKING:
    from qvec.search.row_selection import Selected

Select = Callable[[int, dict[str, Any]], "Selected"]
"""Of a query by its number, the rows that may be hits and fulfil one more condition."""


@dataclass(frozen=True, slots=True)
class Request:
    """A search beyond the nearest k: float32 queries [n, dim] or [dim], and what to make of what is found.

    ``own``: a row for each query, which is no hit of it. ``explain``: whether hits say how they were found.
    ``selected``: for each query the rows that may be its hits; None: all, for every query. ``grouping``: look for k
    groups of rows instead, with ``select`` to find them by.
    """

    queries: Float32Array
    options: SearchOptions
    refinement: Refinement
    threads: int
    own: NDArray[np.int64] | None
    explain: bool
    selected: Sequence[Selected] | None = None
    grouping: Grouping | None = None
    select: Select | None = None

    @property
    def batch(self) -> Float32Array:
        """The queries as [n, dim]."""
        return self.queries.reshape(-1, self.queries.shape[-1])

    @property
    def wider(self) -> SearchOptions:
        """Options of the search whose hits are refined."""
        return replace(self.options, k=self.refinement.depth + (self.own is not None))


def run_request(reader: Reader, engine: Engine | None, hits: HitMaker, request: Request) -> Hits:
    """Hits of a request; ``engine`` None: nothing is stored."""
    times, run = [perf_counter()], _Run(reader, engine, request)
    groups: list[list[Any]] | None = None
    if request.grouping is None:
        found = run.nearest()
        times.append(perf_counter())
        k, metric = request.options.k, reader.config.metric
        found = request.refinement.apply(k, metric, request.batch, found, reader.floats)
    else:
        found, groups = run.grouped(request.grouping)
        times.append(perf_counter())
    times.append(perf_counter())
    rows, distances, counts = found if request.queries.ndim > 1 else _first(found)
    vectors = reader.padded(rows) if request.options.vectors else None
    made = hits.of_rows(reader.snap, (rows, distances, counts), request.options.payloads, vectors)
    if groups is not None:
        made.groups = groups if request.queries.ndim > 1 else groups[0]
    times.append(perf_counter())
    if request.explain:
        made.explanation = run.explanation().timed(*times)
    return made


class _Run:
    """The searches of one request."""

    def __init__(self, reader: Reader, engine: Engine | None, request: Request) -> None:
        self.reader, self.engine, self.request = reader, engine, request
        self.searcher: Searcher | None = None
        if engine is not None:
            self.searcher = engine.timed() if request.explain else engine.by_row
        self.way: Way | None = None
        self.k = request.wider.k

    def nearest(self) -> Found:
        """The rows that a refinement needs."""
        request, n = self.request, len(self.request.batch)
        if request.selected is None:
            found = self._find(request.batch, request.wider, None)
        else:
            found = _nothing(n, request.wider.k)
            for selected, at in _alike(request.selected):
                found[0][at], found[1][at], found[2][at] = self._find(request.batch[at], request.wider, selected)
        return found if request.own is None else without(found, request.own)

    def grouped(self, by: Grouping) -> tuple[Found, list[list[Any]]]:
        """Rows of the nearest groups, group after group, and the value of each row's group."""
        refinement, size = self.request.refinement, self.request.options.k * by.size
        found, values = _nothing(len(self.request.batch), size), []
        for query in range(len(self.request.batch)):
            groups = nearest_groups(by, refinement.depth, self._nearest_of(query), self._values(by))
            groups = groups[refinement.offset :]
            rows = [row for group in groups for row in group.rows]
            found[0][query, : len(rows)] = rows
            found[1][query, : len(rows)] = [distance for group in groups for distance in group.distances]
            found[2][query] = len(rows)
            held = [group.value for group in groups for _ in group.rows]
            values.append(held + [None] * (size - len(held)))
        return found, values

    def _nearest_of(self, query: int) -> Callable[[dict[str, Any], int], tuple[NDArray[Any], Float32Array, bool]]:
        request = self.request
        assert request.select is not None
        select, max_distance, own = request.select, request.refinement.max_distance, request.own

        def nearest(condition: dict[str, Any], depth: int) -> tuple[NDArray[Any], Float32Array, bool]:
            selected = select(query, condition)
            options = replace(request.options, k=depth + (own is not None))
            found = self._find(request.batch[query : query + 1], options, selected)
            rows, distances, counts = found if own is None else without(found, own[query : query + 1])
            count = int(counts[0]) if max_distance is None else int((distances[0, : counts[0]] <= max_distance).sum())
            ended = count < counts[0] or selected.count <= depth
            return rows[0, :count], distances[0, :count], ended

        return nearest

    def _values(self, by: Grouping) -> Callable[[NDArray[Any]], list[Any]]:
        def values(rows: NDArray[Any]) -> list[Any]:
            records = [row_record(self.reader.snap, row) for row in rows.tolist()]
            return [(payload or {}).get(by.field.name) for payload in payloads_of(records)]

        return values

    def _find(self, queries: Float32Array, options: SearchOptions, selected: Selected | None) -> Found:
        """The nearest rows of queries [n, dim]."""
        if self.engine is None or (selected is not None and selected.count == 0):
            return _nothing(len(queries), options.k)
        plan = make_plan(self.reader.snap, self.engine, options)
        way = self.way = choose_way(self.engine, options, plan, selected)
        self.k, plan = options.k, way.plan
        effort = options.k, plan.ef, plan.candidates, options.exact, self.request.threads, plan.nprobe
        return self.engine.search(queries, *effort, way.selection, self.searcher)

    def explanation(self) -> Explanation:
        """What the searches did, and how the last of them was done."""
        n, way = len(self.request.batch), self.way
        if way is None:
            return explained(None, "empty", n, self.k, 0, 0, 0, 0)
        plan = way.plan
        return explained(self.searcher, way.name, n, self.k, plan.ef, plan.nprobe, plan.candidates, way.matching)


def _alike(selected: Sequence[Selected]) -> list[tuple[Selected, NDArray[np.int64]]]:
    """Each selection once, and the queries that it is for."""
    places: dict[int, list[int]] = {}
    for query, one in enumerate(selected):
        places.setdefault(id(one), []).append(query)
    return [(selected[at[0]], np.array(at, np.int64)) for at in places.values()]


def _nothing(n: int, k: int) -> Found:
    return np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32), np.zeros(n, np.int64)


def _first(found: Found) -> Found:
    rows, distances, counts = found
    return rows[0], distances[0], counts.reshape(())
