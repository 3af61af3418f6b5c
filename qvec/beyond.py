"""Searches for something else than the nearest k: what a refinement makes of more of them, and an account of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from qvec.engine import Engine
from qvec.explain import Explanation, explained
from qvec.hits import HitMaker
from qvec.plan import make_plan
from qvec.query import SearchOptions
from qvec.reading import Reader
from qvec.refine import Found, Refinement, without
from qvec.results import Hits
from qvec.storage.store import Snapshot
from qvec.types import Float32Array, NDArray


@dataclass(frozen=True, slots=True)
class Request:
    """A search beyond the nearest k: float32 queries [n, dim] or [dim], and what to make of what is found.

    ``own``: a row for each query, which is no hit of it. ``explain``: whether hits say how they were found.
    """

    queries: Float32Array
    options: SearchOptions
    refinement: Refinement
    threads: int
    own: NDArray[np.int64] | None
    explain: bool

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
    options, times = request.options, [perf_counter()]
    found, explanation = _nothing(request) if engine is None else _nearest(reader.snap, engine, request)
    times.append(perf_counter())
    found = request.refinement.apply(options.k, reader.config.metric, request.batch, found, reader.floats)
    times.append(perf_counter())
    rows, distances, counts = found if request.queries.ndim > 1 else _first(found)
    vectors = reader.padded(rows) if options.vectors else None
    made = hits.of_rows(reader.snap, (rows, distances, counts), options.payloads, vectors)
    times.append(perf_counter())
    if request.explain:
        made.explanation = explanation.timed(*times)
    return made


def _nearest(snap: Snapshot, engine: Engine, request: Request) -> tuple[Found, Explanation]:
    """The rows that a refinement needs, and how they were found."""
    wider = request.wider
    plan = make_plan(snap, engine, wider)
    searcher = engine.timed() if request.explain else engine.by_row
    effort = wider.k, plan.ef, plan.candidates, wider.exact, request.threads, plan.nprobe
    found = engine.search(request.batch, *effort, searcher=searcher)
    if request.own is not None:
        found = without(found, request.own)
    way = "exact" if wider.exact else engine.index.kind
    return found, explained(searcher, way, len(request.batch), wider.k, plan.ef, plan.nprobe, plan.candidates)


def _nothing(request: Request) -> tuple[Found, Explanation]:
    n, k = len(request.batch), request.refinement.depth
    found = np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32), np.zeros(n, np.int64)
    return found, explained(None, "empty", n, k, 0, 0, 0)


def _first(found: Found) -> Found:
    rows, distances, counts = found
    return rows[0], distances[0], counts.reshape(())
