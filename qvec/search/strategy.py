"""Choose the strategy of a filtered search: brute force, or the search of the index that is expected to cost less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qvec._kernels import SearchParams, Selection
from qvec.codes.configs import HNSW
from qvec.search.engine import Engine

if TYPE_CHECKING:
    from qvec.search.row_selection import SelectedRows

# A graph walk takes a certain time for each slot of its candidate list. In this time, brute force scores consecutive
# rows that have this many bytes of codes, or this many dimensions in total, whichever is fewer rows (ADR 9). Fetching
# limits the speed for long codes, unpacking for short ones.
BYTES_PER_SLOT, DIMS_PER_SLOT = 39_000, 28_000
PROBE_COST_IN_ROWS = 25  # scanning one inverted list costs as much as scoring this many rows (ADR 9)
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
    """Return brute force if it costs at most as much as the planned search of the index, and else that search."""
    name, wider, cost = (_plan_probe if engine.n_lists else _plan_walk)(engine, params, selected)
    if selected.count <= cost:
        return Strategy("brute_force", params, selected.brute_force, selected.count)
    selection = selected.filtered_walk if name == "filtered_walk" else selected.post_filter
    return Strategy(name, wider, selection, selected.count)


def _plan_probe(engine: Engine, params: SearchParams, selected: SelectedRows) -> tuple[str, SearchParams, int]:
    """Plan a scan of inverted lists that contain about as many selected rows as ``nprobe`` lists contain live rows.

    Returns the strategy's name, its parameters, and its cost: the number of rows that brute force scores in the same
    time.
    """
    nprobe = min(-(-max(params.nprobe, 1) * engine.live // selected.count), engine.n_lists)
    return "filtered_probe", params.replace(nprobe=nprobe), PROBE_COST_IN_ROWS * nprobe


def _plan_walk(engine: Engine, params: SearchParams, selected: SelectedRows) -> tuple[str, SearchParams, int]:
    """Plan a graph walk that has about the same recall as an unfiltered walk with ``params``.

    Returns the strategy's name, its parameters, and its cost: the number of rows that brute force scores in the same
    time.
    """
    config = getattr(engine.index, "config", None)
    if isinstance(config, HNSW) and config.layout == "packed":  # the candidate list has rows that do not match, too
        name, ef = "post_filter", -(-params.ef * engine.live // selected.count)
    else:
        name, ef = "filtered_walk", params.ef + params.ef // 2
    quantizer = engine.quantizer
    rows = min(BYTES_PER_SLOT * ef // quantizer.code_size, DIMS_PER_SLOT * ef // quantizer.codec.dim)
    return name, params.replace(ef=ef), rows
