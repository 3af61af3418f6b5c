"""The strategy of a search: how candidates are found, by the expected cost of each method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qvec._kernels import SearchParams, Selection
from qvec.codes.configs import HNSW
from qvec.search.engine import Engine

if TYPE_CHECKING:
    from qvec.search.row_selection import SelectedRows

# Cost of one place in the pool of a graph walk: the time to score rows in sequence with this many bytes of codes, or
# this many dimensions, whichever gives fewer rows (ADR 9). Long codes take time to fetch, short codes to unpack.
BYTES_PER_PLACE, DIMS_PER_PLACE = 39_000, 28_000
ROWS_PER_LIST = 25  # cost of probing one extra list, in rows scored (ADR 9)
CACHED_STRATEGIES = 64  # for each set of selected rows


@dataclass(frozen=True, slots=True)
class Strategy:
    """A chosen search. ``name``: see :class:`qvec.Explanation`. ``matching``: the number of rows that may be hits."""

    name: str
    params: SearchParams
    selection: Selection | None
    matching: int


def choose_strategy(engine: Engine, params: SearchParams, selected: SelectedRows | None) -> Strategy:
    """The cheapest strategy for a search among the selected rows; None selects all live rows."""
    if selected is None:
        return Strategy("exact" if params.exact else engine.index.kind, params, None, engine.live)
    if params.exact or engine.index.kind == "flat":
        return Strategy("exact" if params.exact else "brute_force", params, selected.brute_force, selected.count)
    strategy = selected.strategies.get(params)
    if strategy is None:
        if len(selected.strategies) >= CACHED_STRATEGIES:
            selected.strategies.clear()
        strategy = selected.strategies[params] = _cheapest(engine, params, selected)
    return strategy


def _cheapest(engine: Engine, params: SearchParams, selected: SelectedRows) -> Strategy:
    """Score each selected row, or use the index."""
    name, wider, cost = (_probe if engine.n_lists else _walk)(engine, params, selected)
    if selected.count <= cost:
        return Strategy("brute_force", params, selected.brute_force, selected.count)
    selection = selected.filtered_walk if name == "filtered_walk" else selected.post_filter
    return Strategy(name, wider, selection, selected.count)


def _probe(engine: Engine, params: SearchParams, selected: SelectedRows) -> tuple[str, SearchParams, int]:
    """A scan of more lists, for about as many selected rows as ``nprobe`` lists have rows of any kind; its cost in
    rows."""
    nprobe = min(-(-max(params.nprobe, 1) * engine.live // selected.count), engine.n_lists)
    return "filtered_probe", params.replace(nprobe=nprobe), ROWS_PER_LIST * nprobe


def _walk(engine: Engine, params: SearchParams, selected: SelectedRows) -> tuple[str, SearchParams, int]:
    """The graph walk with about the recall of an unfiltered walk with ``params``.

    Returns its name, its parameters, and its cost: the number of rows that brute force scores in the same time.
    """
    config = getattr(engine.index, "config", None)
    if isinstance(config, HNSW) and config.layout == "packed":  # the pool holds rows that do not match, too
        name, ef = "post_filter", -(-params.ef * engine.live // selected.count)
    else:
        name, ef = "filtered_walk", params.ef + params.ef // 2
    quantizer = engine.quantizer
    rows = min(BYTES_PER_PLACE * ef // quantizer.code_size, DIMS_PER_PLACE * ef // quantizer.codec.dim)
    return name, params.replace(ef=ef), rows
