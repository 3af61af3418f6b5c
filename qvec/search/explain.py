"""What a search did: counts and times of one that was asked to explain itself."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qvec._kernels import Searcher

KERNEL_PHASES = ("prepare", "find", "rerank", "write")


@dataclass(frozen=True)
class Explanation:
    """One search, of one query or of a batch; counts are sums over its queries.

    ``way``: how candidates were found: "exact" (a scan of the originals), "flat" (a scan of the codes), the kind of
    index, or "empty". Of a filter: "scored" (each row that matches), "walked" (the graph, among the rows that match),
    "probed" (inverted lists, those rows alone) or "dropped" (the index as ever, and what does not match dropped).
    ``matching``: rows that could be hits.
    ``k``: how many of the nearest were looked for: more than were asked for, where a page or a
    choice is cut from them. ``ef``, ``nprobe``: the effort of a walk, of inverted lists. ``candidates``: re-ranked for
    each query at most; 0: none. ``hops``: nodes whose lists were read. ``evaluations``: codes that were scored
    (originals, by an exact scan). ``reranked``: originals that were scored after that.
    ``seconds``: by phase. Those of the kernels (prepare queries, find candidates, rerank them, write results) are sums
    over threads; refine: max_distance, pages and choices; read: ids, payloads and vectors of the hits; total: by the clock.
    """

    queries: int
    way: str
    k: int
    ef: int
    nprobe: int
    candidates: int
    matching: int
    hops: int
    evaluations: int
    reranked: int
    seconds: dict[str, float]

    def timed(self, began: float, found: float, refined: float, read: float) -> Explanation:
        """With readings of a clock at the beginning, and after each part."""
        parts = {"refine": refined - found, "read": read - refined, "total": read - began}
        return replace(self, seconds=self.seconds | parts)

    def __str__(self) -> str:
        counts = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "seconds"]
        times = [(name, f"{1e6 * value:,.1f} us") for name, value in self.seconds.items()]
        return "\n".join(f"{name:<12} {value}" for name, value in (*counts, *times))


def explained(
    searcher: Searcher | None, way: str, queries: int, k: int, ef: int, nprobe: int, candidates: int, matching: int
) -> Explanation:
    """What a timed searcher was asked to do, and did; None: nothing was stored."""
    counts = (0, 0, 0) if searcher is None else (searcher.hops, searcher.evaluations, searcher.reranked)
    phases = [0] * len(KERNEL_PHASES) if searcher is None else searcher.phase_ns
    seconds = {name: ns / 1e9 for name, ns in zip(KERNEL_PHASES, phases, strict=True)}
    return Explanation(queries, way, k, ef, nprobe, candidates, matching, *counts, seconds)
