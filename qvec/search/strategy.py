"""How selected rows are searched: each of them scored, or the graph walked among them, whichever costs less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qvec._kernels import Selection
from qvec.codes.configs import HNSW
from qvec.search.engine import Engine
from qvec.search.options import SearchOptions
from qvec.search.plan import Plan

if TYPE_CHECKING:
    from qvec.search.row_selection import Selected

# A place of a walk's pool takes as long as scoring rows one after the other of so many bytes of codes, or of so many
# dimensions, whichever are fewer (docs/adr/0009): long codes are fetched, short ones unpacked.
BYTES_PER_PLACE, DIMS_PER_PLACE = 39_000, 28_000
# Rows that are scored in the time that a list takes, of those that the scan of more lists adds (docs/adr/0009).
SCORED_PER_LIST = 25
MAX_WAYS = 64  # that are remembered of rows that were selected


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
    way = selected.ways.get(plan)
    if way is None:
        if len(selected.ways) >= MAX_WAYS:
            selected.ways.clear()
        way = selected.ways[plan] = _cheapest(engine, plan, selected)
    return way


def _cheapest(engine: Engine, plan: Plan, selected: Selected) -> Way:
    """To score each row, or to walk or probe among them."""
    name, wider, work = _probe(engine, plan, selected) if engine.n_lists else _walk(engine, plan, selected)
    if selected.count <= work:
        return Way("scored", plan, selected.listed, selected.count)
    return Way(name, wider, selected.walked if name == "walked" else selected.passed, selected.count)


def _probe(engine: Engine, plan: Plan, selected: Selected) -> tuple[str, Plan, int]:
    """The scan of lists that finds about as much as one without a filter, and its work in scored rows.

    As many matching rows as were scanned before lie in more lists, by the inverse of their share.
    """
    nprobe = min(-(-max(plan.nprobe, 1) * engine.live // selected.count), engine.n_lists)
    return "probed", replace(plan, nprobe=nprobe), SCORED_PER_LIST * nprobe


def _walk(engine: Engine, plan: Plan, selected: Selected) -> tuple[str, Plan, int]:
    """The walk that finds about as much as one without a filter, and its work in scored rows."""
    config = getattr(engine.index, "config", None)
    if isinstance(config, HNSW) and config.layout == "packed":  # walks pass through all, and need room for them
        name, ef = "dropped", -(-plan.ef * engine.live // selected.count)
    else:
        name, ef = "walked", plan.ef + plan.ef // 2
    quantizer = engine.quantizer
    rows = min(BYTES_PER_PLACE * ef // quantizer.code_size, DIMS_PER_PLACE * ef // quantizer.codec.dim)
    return name, replace(plan, ef=ef), rows
