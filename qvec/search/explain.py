"""The explanation of a search: the strategy, the parameters, counts of work and times."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qvec._kernels import Searcher
    from qvec.search.strategy import Strategy

KERNEL_PHASES = ("prepare", "find", "rerank", "write")


@dataclass(frozen=True)
class Explanation:
    """How one query or a batch was searched. Counts are sums over the queries.

    ``strategy``: how candidates were found. Without a filter: "exact" (a scan of the originals), "flat" (a scan of the
    codes), the kind of the index, or "empty". With a filter: "brute_force" (every matching row is scored),
    "filtered_walk" (a walk of the graph among the matching rows), "filtered_probe" (the matching rows of inverted
    lists) or "post_filter" (an ordinary search of the index whose results are filtered).
    ``k``: the number of nearest rows searched for, which is larger than the requested k if hits are selected from them.
    ``ef``: size of the candidate list of a graph walk. ``nprobe``: number of scanned inverted lists. ``candidates``:
    the largest number of candidates re-ranked for a query; 0: none. ``matching``: rows that could be hits.
    ``hops``: adjacency lists read. ``evaluations``: scored codes, or originals in an exact scan. ``reranked``:
    originals scored to re-rank candidates.
    ``seconds``: time of each phase. Phases of the kernels are sums over threads: prepare queries, find candidates,
    rerank candidates, write results. refine: select the hits. read: read ids, payloads and vectors. total: elapsed
    time.
    """

    queries: int
    strategy: str
    k: int
    ef: int
    nprobe: int
    candidates: int
    matching: int
    hops: int
    evaluations: int
    reranked: int
    seconds: dict[str, float]

    def __str__(self) -> str:
        counts = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "seconds"]
        times = [(name, f"{1e6 * value:,.1f} us") for name, value in self.seconds.items()]
        return "\n".join(f"{name:<12} {value}" for name, value in (*counts, *times))


def explain(
    searcher: Searcher | None, strategy: Strategy | None, queries: int, k: int, times: list[float]
) -> Explanation:
    """Explain the work of a timed searcher. None: there was nothing to search.

    ``times``: readings of a clock at the start, and after the phases of finding, refining and reading.
    """
    elapsed = [after - before for before, after in pairwise(times)]
    after_kernels = {"refine": elapsed[1], "read": elapsed[2], "total": times[-1] - times[0]}
    if searcher is None or strategy is None:
        kernels = dict.fromkeys(KERNEL_PHASES, 0.0)
        return Explanation(queries, "empty", k, 0, 0, 0, 0, 0, 0, 0, kernels | after_kernels)
    kernels = {name: ns / 1e9 for name, ns in zip(KERNEL_PHASES, searcher.phase_ns, strict=True)}
    params, work = strategy.params, (searcher.hops, searcher.evaluations, searcher.reranked)
    parameters = params.k, params.ef, params.nprobe, params.candidates, strategy.matching
    return Explanation(queries, strategy.name, *parameters, *work, kernels | after_kernels)
