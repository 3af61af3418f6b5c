"""How selected rows are searched: each of them scored, or the graph walked among them, whichever costs less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qvec._kernels import Selection
from qvec.configs import HNSW
from qvec.engine import Engine
from qvec.plan import Plan
from qvec.query import SearchOptions

if TYPE_CHECKING:
    from qvec.selecting import Selected

# Codes that a walk scores for each place of its pool: counted, 5 to 24 at selectivities from 5 to 50 % (docs/adr/0009).
SCORED_PER_PLACE = 20


@dataclass(frozen=True, slots=True)
class Way:
    """A search that was chosen; ``matching``: rows that may be hits."""

    name: str
    plan: Plan
    selection: Selection | None
    matching: int


def choose_way(engine: Engine, options: SearchOptions, plan: Plan, selected: Selected | None) -> Way:
    """The cheapest search of selected rows, by the work that it is expected to take."""
    if selected is None:
        return Way("exact" if options.exact else engine.index.kind, plan, None, engine.live)
    if options.exact or engine.index.kind == "flat":
        return Way("exact" if options.exact else "scored", plan, selected.listed, selected.count)
    by_walk = _walk(engine, plan, selected)
    if by_walk is None or selected.count <= SCORED_PER_PLACE * by_walk.plan.ef:
        return Way("scored", plan, selected.listed, selected.count)
    return by_walk


def _walk(engine: Engine, plan: Plan, selected: Selected) -> Way | None:
    """The walk that finds about as much as one without a filter; None where the index is no graph."""
    config = getattr(engine.index, "config", None)
    if not isinstance(config, HNSW):
        return None
    # walks pass through every packed node: the pool needs room for those that do not match
    if config.layout == "packed":
        ef = -(-plan.ef * engine.live // selected.count)
        return Way("dropped", replace(plan, ef=ef), selected.passed, selected.count)
    return Way("walked", replace(plan, ef=plan.ef + plan.ef // 2), selected.walked, selected.count)
