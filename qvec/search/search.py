"""One search: a plan, a run, and hits made of what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qvec.common.types import Float32Array
from qvec.search.engine import Engine
from qvec.search.hits import HitMaker
from qvec.search.options import SearchOptions
from qvec.search.plan import plan_of
from qvec.search.results import Hits
from qvec.search.strategy import choose_way
from qvec.storage.store import Snapshot

if TYPE_CHECKING:
    from qvec.search.row_selection import Selected


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
    plan, selection = plan_of(snap, engine, options), None
    if selected is not None:
        way = choose_way(engine, options, plan, selected)
        plan, selection = way.plan, way.selection
    found = engine.search(queries, options.k, plan.ef, plan.candidates, options.exact, threads, plan.nprobe, selection)
    return hits.make(snap, engine, found, options.payloads)


def keep_ready(snap: Snapshot, engine: Engine, hits: HitMaker, options: SearchOptions, given: tuple[Any, ...]) -> None:
    """Let the store do the next search of one query like this by itself; ``given``: the options as they were given."""
    plan = plan_of(snap, engine, options)
    effort = engine.effort(options.k, plan.ef, plan.candidates, options.exact, plan.nprobe)
    ready = hits.ready(engine, given, effort, options.payloads)
    if ready is not None:
        snap.keep_ready(ready)
