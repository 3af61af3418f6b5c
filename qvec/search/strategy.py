"""Choose how a search with a filter finds its candidates.

There are two choices: brute force scores every matching row; the index is searched with more effort than without a
filter, because some of the rows that it reads do not match. The one with the lower expected cost is used. The unit of
cost is the time in which brute force scores one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qvec._kernels import SearchParams, Selection
from qvec.search.engine import Engine, is_packed

if TYPE_CHECKING:
    from qvec.search.row_selection import SelectedRows

# The cost of a graph walk for each slot of its candidate list (ADR 9). In that time, brute force scores
# min(39,000 / bytes of a code, 28,000 / dimensions) rows: memory limits the speed of codes with many bits per
# dimension, and unpacking limits that of codes with few bits.
BYTES_PER_SLOT, DIMS_PER_SLOT = 39_000, 28_000
# The mean cost of one inverted list (ADR 9). The scan tests one bit for each row of the list, and scores only the rows
# that match.
PROBE_COST_IN_ROWS = 25
FILTERED_EF = 1.5  # a filtered walk needs a longer candidate list for the recall of an unfiltered one (ADR 9)
MAX_CACHED_STRATEGIES = 64  # for each set of selected rows


@dataclass(frozen=True, slots=True)
class Strategy:
    """How to find the candidates of a search.

    ``name``: see :class:`qvec.Explanation`. ``matching``: the number of rows that can be hits.
    """

    name: str
    params: SearchParams
    selection: Selection | None
    matching: int


def choose_strategy(engine: Engine, params: SearchParams, selected: SelectedRows | None) -> Strategy:
    """Return the cheapest strategy for a search among the selected rows; None selects all live rows."""
    if selected is None:
        return Strategy("exact" if params.exact else engine.index.kind, params, None, engine.live)
    if params.exact or engine.index.kind == "flat":
        return Strategy("exact" if params.exact else "brute_force", params, selected.brute_force, selected.count)
    strategy = selected.strategies.get(params)
    if strategy is None:
        if len(selected.strategies) >= MAX_CACHED_STRATEGIES:
            selected.strategies.clear()
        strategy = selected.strategies[params] = _cheapest(engine, params, selected)
    return strategy


def _cheapest(engine: Engine, params: SearchParams, selected: SelectedRows) -> Strategy:
    """Plan a search of the index. Return it, or brute force if that costs no more."""
    name, wider, cost = (_plan_probe if engine.n_lists else _plan_walk)(engine, params, selected)
    if selected.count <= cost:  # also if no row matches
        return Strategy("brute_force", params, selected.brute_force, selected.count)
    # post_filter: a bitmap of the rows that may not be returned, which scans of lists test, too
    selection = selected.filtered_walk if name == "filtered_walk" else selected.post_filter
    return Strategy(name, wider, selection, selected.count)


def _plan_probe(engine: Engine, params: SearchParams, selected: SelectedRows) -> tuple[str, SearchParams, int]:
    """Plan a scan of enough inverted lists to contain as many selected rows as ``nprobe`` lists contain live rows.

    Returns the name of the strategy, its parameters and its cost.
    """
    nprobe = min(_scaled(max(params.nprobe, 1), engine, selected), engine.n_lists)
    return "filtered_probe", params.replace(nprobe=nprobe), PROBE_COST_IN_ROWS * nprobe


def _plan_walk(engine: Engine, params: SearchParams, selected: SelectedRows) -> tuple[str, SearchParams, int]:
    """Plan a graph walk that has about the same recall as an unfiltered walk with ``params``.

    Returns the name of the strategy, its parameters and its cost.
    """
    if is_packed(engine.index):  # the candidate list has rows that do not match, too
        name, ef = "post_filter", _scaled(params.ef, engine, selected)
    else:
        name, ef = "filtered_walk", int(FILTERED_EF * params.ef)
    quantizer = engine.quantizer
    rows = min(BYTES_PER_SLOT * ef // quantizer.code_size, DIMS_PER_SLOT * ef // quantizer.codec.dim)
    return name, params.replace(ef=ef), rows


def _scaled(effort: int, engine: Engine, selected: SelectedRows) -> int:
    """The effort times the number of live rows for each selected row, rounded up."""
    return -(-effort * engine.live // max(selected.count, 1))
