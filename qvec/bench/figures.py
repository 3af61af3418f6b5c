"""Figures derived from measured points: queries/s at a recall, and ratios between contestants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from qvec.bench.records import Entry, Result

ORIGINALS = "vectors"  # the part of an index that a search re-ranks with
TARGETS = (0.90, 0.95, 0.98, 0.99)
Mode = Literal["single", "batch"]
Curve = list[tuple[float, float]]


def curve(entry: Entry, mode: Mode = "single") -> Curve:
    """Return (recall, best queries/s) of each point that has both."""
    if mode == "single":
        return [(point.recall, point.qps) for point in entry.points]
    return [
        (point.batch_recall, point.batch_qps)
        for point in entry.points
        if point.batch_recall is not None and point.batch_qps is not None
    ]


def front(points: Curve) -> Curve:
    """Return the Pareto front: points that no other point beats in both figures, by ascending recall."""
    best: Curve = []
    for recall, rate in sorted(points, key=lambda point: (-point[0], -point[1])):
        if not best or rate > best[-1][1]:
            best.append((recall, rate))
    return best[::-1]


def at_recall(points: Curve, recall: float) -> float | None:
    """Return queries/s at a recall, interpolated log-linearly on the front; None if the recall is not reached.

    At a recall below that of the fastest point, return the rate of the fastest point.
    """
    best = front(points)
    if not best or best[-1][0] < recall:
        return None
    if best[0][0] >= recall:
        return best[0][1]
    recalls, rates = zip(*best, strict=True)
    return float(np.exp(np.interp(recall, recalls, np.log(rates))))


def rates_at(result: Result, recall: float, mode: Mode = "single") -> dict[str, float | None]:
    """Return queries/s of each contestant at a recall."""
    return {entry.contestant: at_recall(curve(entry, mode), recall) for entry in result.entries}


def ratios(result: Result, recall: float, mode: Mode = "single") -> dict[str, tuple[float | None, float | None]]:
    """Return each contestant's queries/s at a recall, divided by that of the best peer, and by that of hnswlib.

    A peer is compared with the best of the other peers. None: one of the two does not reach the recall.
    """
    rates = rates_at(result, recall, mode)
    peers = {entry.contestant: rates[entry.contestant] for entry in result.entries if not entry.own}
    hnswlib = _best(rate for name, rate in peers.items() if name.split()[0] == "hnswlib")
    return {
        name: (
            _over(rate, _best(other for peer, other in peers.items() if peer != name)),
            _over(rate, hnswlib),
        )
        for name, rate in rates.items()
    }


def bytes_per_vector(entry: Entry, n: int) -> float | None:
    """Return resident bytes per vector after all searches: anonymous memory and pages of mapped files."""
    return None if entry.memory is None else entry.memory["rss"] / n


def index_bytes(entry: Entry, n: int) -> float | None:
    """Return bytes per vector of all parts of the index except originals for re-ranking; None if unknown."""
    return sum(size for name, size in entry.parts.items() if name != ORIGINALS) / n if entry.parts else None


def index_memory(entry: Entry, n: int) -> float | None:
    """Return bytes of memory per vector that the index takes: anonymous memory, and pages of the file with its parts.

    Originals in the mapped file are left out, since a search reads few of them. All memory of a library that reports no
    sizes of its parts counts as index. None: memory was not measured.
    """
    if entry.memory is None:
        return None
    if not entry.parts:
        return entry.memory["rss"] / n
    parts = sum(size for name, size in entry.parts.items() if name != ORIGINALS)
    mapped = entry.options.get("memory", "mmap") == "mmap"  # otherwise the parts are copies, in anonymous memory
    return (entry.memory["anonymous"] + (min(entry.memory["file"], parts) if mapped else 0)) / n


def _best(rates: Iterable[float | None]) -> float | None:
    return max((rate for rate in rates if rate is not None), default=None)


def _over(rate: float | None, other: float | None) -> float | None:
    return None if rate is None or other is None else rate / other
