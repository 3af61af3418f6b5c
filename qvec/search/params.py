"""Parameters of one search as the kernels take them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SearchParams:
    """``k``: hits of each query. ``ef``: pool of a graph walk. ``nprobe``: inverted lists to scan, 0 for the default.

    ``candidates``: candidates to re-rank, 0 for none. ``exact``: score every original instead.
    """

    k: int
    ef: int = 0
    nprobe: int = 0
    candidates: int = 0
    exact: bool = False
