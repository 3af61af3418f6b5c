"""Recall curves: what a search has to spend for a recall, as it was measured on this collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from qvec.common.errors import InputError
from qvec.common.plain_state import Between, decode, encode
from qvec.schema.state import Count, Number, State, Text
from qvec.schema.validation import MAX_K, MAX_ROWS

VERSION = 1
MAX_POINTS = 1000
STALE = 1.5  # a collection that has grown this much is another one

Source = Literal["queries", "rows"]


class Point(NamedTuple):
    """What a search may spend, and what that was measured to find.

    ``ef``, ``nprobe``: of a graph, of inverted lists; 0 where the index has no such thing. ``candidates``: re-ranked,
    0: none. ``recall``: mean over the queries, ``low`` the lower end of its 95 % interval. ``cost``: codes
    scored for a query, re-ranked candidates weighted.
    """

    ef: Annotated[int, Between(0, MAX_K)]
    nprobe: Count
    candidates: Count
    recall: Annotated[float, Between(-1.0, 2.0)]
    low: Annotated[float, Between(-1.0, 2.0)]
    cost: Annotated[float, Between(0.0, 1e18)]


@dataclass(frozen=True)
class Curve:
    """Points of recall@k: each costs more than the one before, and its ``low`` is higher."""

    k: Annotated[int, Between(1, MAX_ROWS)]
    points: Annotated[tuple[Point, ...], Between(1, MAX_POINTS)]

    @classmethod
    def best_of(cls, k: int, points: Sequence[Point]) -> Curve:
        """Keep the points that no other beats."""
        kept: list[Point] = []
        for point in sorted(points, key=lambda p: (p.cost, -p.low)):
            if not kept or point.low > kept[-1].low:
                kept.append(point)
        return cls(k, tuple(kept))

    def reaching(self, recall: float) -> Point:
        """The cheapest point whose interval lies above the recall; InputError says how far the curve goes."""
        for point in self.points:
            if point.low >= recall:
                return point
        best = self.points[-1]
        raise InputError(
            f"recall={recall} at k={self.k} is not reached: the most that was measured is {best.recall:.4f} "
            f"(with 95 % confidence {best.low:.4f}); exact=True finds all"
        )


@dataclass(frozen=True)
class Curves:
    """The curves of one index over one generation of codes. ``n``: rows when they were measured."""

    generation: Number
    index: Text
    n: Count
    source: Source
    n_queries: Annotated[int, Between(1, MAX_ROWS)]
    curves: Annotated[tuple[Curve, ...], Between(1, MAX_POINTS)]
    version: Annotated[int, Between(VERSION, VERSION)] = field(default=VERSION, repr=False)

    def at(self, k: int) -> Curve:
        """The curve that answers for k: of the smallest k measured that is not below it."""
        for curve in self.curves:
            if curve.k >= k:
                return curve
        raise InputError(f"recall= was measured for k up to {self.curves[-1].k}, got k={k}; call tune(ks=({k},))")

    def state(self) -> dict[str, Any]:
        """Plain msgpack data."""
        plain: dict[str, Any] = encode(self)
        return plain

    @classmethod
    def from_state(cls, state: object) -> Curves:
        """Rebuild from :meth:`state`; FormatError names the field that is wrong."""
        return decode(cls, state, "recall curves")


def outdated(state: State) -> bool:
    """Whether a collection's state has curves of other codes, of another index, or of far fewer rows."""
    tuned = state.tuned
    if tuned is None:
        return False
    same = tuned.generation == state.active and tuned.index == state.index.kind
    return not same or state.n > STALE * tuned.n
