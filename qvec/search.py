"""One search: a plan, a run, and hits made of what was found."""

from __future__ import annotations

from qvec.engine import Engine
from qvec.hits import HitMaker
from qvec.plan import plan_of
from qvec.query import SearchOptions
from qvec.results import Hits
from qvec.storage.store import Snapshot
from qvec.types import Float32Array


def run_search(
    snap: Snapshot, engine: Engine, hits: HitMaker, queries: Float32Array, options: SearchOptions, threads: int
) -> Hits:
    """Hits of checked float32 queries [n, dim] or [dim]; the snapshot must be the engine's."""
    plan = plan_of(snap, engine, options)
    found = engine.search(queries, options.k, plan.ef, plan.candidates, options.exact, threads, plan.nprobe)
    return hits.make(snap, engine, found, options.payloads)
