"""One search: a plan, a run, and hits made of what was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qvec.engine import Engine
from qvec.hits import HitMaker
from qvec.plan import make_plan, plan_of
from qvec.query import SearchOptions
from qvec.reading import Reader
from qvec.refine import Found, Refinement, without
from qvec.results import Hits
from qvec.selecting import Selected
from qvec.storage.store import Snapshot
from qvec.strategy import selection_for
from qvec.types import Float32Array, NDArray


def run_search(
    snap: Snapshot,
    engine: Engine,
    hits: HitMaker,
    queries: Float32Array,
    options: SearchOptions,
    threads: int,
    selected: Selected | None = None,
) -> Hits:
    """Hits of checked float32 queries [n, dim] or [dim]; the snapshot must be the engine's.

    ``selected``: which rows may be hits, at least one; None: all.
    """
    plan = plan_of(snap, engine, options)
    selection = None if selected is None else selection_for(engine, options, plan, selected)
    found = engine.search(queries, options.k, plan.ef, plan.candidates, options.exact, threads, plan.nprobe, selection)
    return hits.make(snap, engine, found, options.payloads)


def run_refined(
    reader: Reader,
    engine: Engine | None,
    hits: HitMaker,
    queries: Float32Array,
    options: SearchOptions,
    refined: Refinement,
    threads: int,
    own: NDArray[np.int64] | None = None,
    selected: Selected | None = None,
) -> Hits:
    """As `run_search`, of what a refinement makes of the nearest rows. ``own``: rows [n] that are no hits of theirs.

    ``engine`` None: nothing is stored.
    """
    batch = queries.reshape(-1, queries.shape[-1])
    found = (
        _nothing(len(batch), refined.depth)
        if engine is None
        else _nearest(reader.snap, engine, batch, options, refined, threads, own, selected)
    )
    rows, distances, counts = refined.apply(options.k, reader.config.metric, batch, found, reader.floats)
    if queries.ndim == 1:
        rows, distances, counts = rows[0], distances[0], counts.reshape(())
    vectors = reader.padded(rows) if options.vectors else None
    return hits.of_rows(reader.snap, (rows, distances, counts), options.payloads, vectors)


def _nearest(
    snap: Snapshot,
    engine: Engine,
    queries: Float32Array,
    options: SearchOptions,
    refined: Refinement,
    threads: int,
    own: NDArray[np.int64] | None,
    selected: Selected | None,
) -> Found:
    """The ``refined.depth`` nearest rows of each query."""
    wider = replace(options, k=refined.depth + (own is not None))
    plan = make_plan(snap, engine, wider)
    effort = wider.k, plan.ef, plan.candidates, wider.exact, threads, plan.nprobe
    selection = None if selected is None else selection_for(engine, wider, plan, selected)
    found = engine.search(queries, *effort, selection, engine.by_row)
    return found if own is None else without(found, own)


def _nothing(n: int, k: int) -> Found:
    return np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32), np.zeros(n, np.int64)
