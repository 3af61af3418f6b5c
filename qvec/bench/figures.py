"""What is read off the points: queries/s at a recall, and how contestants compare there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from qvec.bench.records import Entry, Result

ORIGINALS = "vectors"  # the part of an index that a search re-ranks with
TARGETS = (0.90, 0.95, 0.98, 0.99)
Way = Literal["single", "batch"]
Curve = list[tuple[float, float]]


def curve(entry: Entry, way: Way = "single") -> Curve:
    """(recall, best queries/s) of each point that has them."""
    if way == "single":
        return [(point.recall, point.qps) for point in entry.points]
    return [
        (point.batch_recall, point.batch_qps)
        for point in entry.points
        if point.batch_recall is not None and point.batch_qps is not None
    ]


def front(points: Curve) -> Curve:
    """The points that no other one beats in both, by ascending recall."""
    best: Curve = []
    for recall, rate in sorted(points, key=lambda point: (-point[0], -point[1])):
        if not best or rate > best[-1][1]:
            best.append((recall, rate))
    return best[::-1]


def at_recall(points: Curve, recall: float) -> float | None:
    """Queries/s at a recall, log-linear between points of the front; None where it does not get there.

    Below the recall of its fastest point, a contestant is as fast as there.
    """
    best = front(points)
    if not best or best[-1][0] < recall:
        return None
    if best[0][0] >= recall:
        return best[0][1]
    recalls, rates = zip(*best, strict=True)
    return float(np.exp(np.interp(recall, recalls, np.log(rates))))


def rates_at(result: Result, recall: float, way: Way = "single") -> dict[str, float | None]:
    """Queries/s of each contestant at a recall."""
    return {entry.contestant: at_recall(curve(entry, way), recall) for entry in result.entries}


def ratios(result: Result, recall: float, way: Way = "single") -> dict[str, tuple[float | None, float | None]]:
    """Of each contestant: queries/s over those of the best peer of all at that recall, and over hnswlib's.

    A peer is compared with the best of the others. None where either does not get there.
    """
    rates = rates_at(result, recall, way)
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
    """Resident bytes a vector, of the process's own and of mapped files, at the end of all searches."""
    return None if entry.memory is None else entry.memory["rss"] / n


def index_bytes(entry: Entry, n: int) -> float | None:
    """Bytes a vector of all parts but the originals that are re-ranked with.

    None where the library does not tell its parts.
    """
    return sum(size for name, size in entry.parts.items() if name != ORIGINALS) / n if entry.parts else None


def _best(rates: Iterable[float | None]) -> float | None:
    return max((rate for rate in rates if rate is not None), default=None)


def _over(rate: float | None, other: float | None) -> float | None:
    return None if rate is None or other is None else rate / other
