"""How selected rows are searched: each of them scored, or the graph walked among them, whichever costs less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qvec._kernels import Selection
from qvec.engine import Engine
from qvec.plan import Plan
from qvec.query import SearchOptions

if TYPE_CHECKING:
    from qvec.selecting import Selected


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
    if engine.index.kind != "hnsw":
        return Way("scored", plan, selected.listed, selected.count)
    wider = replace(plan, ef=plan.ef + plan.ef // 2)
    if selected.count <= 20 * wider.ef:
        return Way("scored", plan, selected.listed, selected.count)
    return Way("walked", wider, selected.walked, selected.count)
