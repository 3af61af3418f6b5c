"""Recall curves: what a search has to spend for a recall, as it was measured on this collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import take_choice, take_int, take_state, take_version
from qvec.schema.state import State
from qvec.schema.validation import MAX_K

VERSION = 1
MAX_POINTS = 1000
STALE = 1.5  # a collection that has grown this much is another one
_LIMIT = 2**31 - 1
_FIELDS = ("version", "generation", "index", "n", "source", "n_queries", "curves")

Source = Literal["queries", "rows"]


class Point(NamedTuple):
    """What a search may spend, and what that was measured to find.

    ``ef``, ``nprobe``: of a graph, of inverted lists; 0 where the index has no such thing. ``candidates``: re-ranked,
    0: none. ``recall``: mean over the queries, ``low`` the lower end of its 95 % interval. ``cost``: codes
    scored for a query, re-ranked candidates weighted.
    """

    ef: int
    nprobe: int
    candidates: int
    recall: float
    low: float
    cost: float


@dataclass(frozen=True)
class Curve:
    """Points of recall@k: each costs more than the one before, and its ``low`` is higher."""

    k: int
    points: tuple[Point, ...]

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

    generation: int
    index: str
    n: int
    source: Source
    n_queries: int
    curves: tuple[Curve, ...]

    def at(self, k: int) -> Curve:
        """The curve that answers for k: of the smallest k measured that is not below it."""
        for curve in self.curves:
            if curve.k >= k:
                return curve
        raise InputError(f"recall= was measured for k up to {self.curves[-1].k}, got k={k}; call tune(ks=({k},))")

    def state(self) -> dict[str, Any]:
        """Plain msgpack data."""
        curves = [{"k": curve.k, "points": [list(point) for point in curve.points]} for curve in self.curves]
        head = {"version": VERSION, "generation": self.generation, "index": self.index, "n": self.n}
        return head | {"source": self.source, "n_queries": self.n_queries, "curves": curves}

    @classmethod
    def from_state(cls, state: object) -> Curves:
        """Rebuild from :meth:`state`; FormatError names the field that is wrong."""
        fields = take_state(state, "recall curves", _FIELDS)
        take_version(fields, VERSION)
        generation, n = take_int(fields, "generation", 0, 65535), take_int(fields, "n", 0, _LIMIT)
        index, n_queries = fields["index"], take_int(fields, "n_queries", 1, _LIMIT)
        source: Any = take_choice(fields, "source", ("queries", "rows"))
        curves = fields["curves"]
        if not isinstance(index, str) or not isinstance(curves, list) or not curves:
            raise FormatError("recall curves: fields 'index' and 'curves' must be a name and a list")
        made = tuple(_curve(curve) for curve in curves)
        return cls(generation, index, n, source, n_queries, made)


def outdated(state: State) -> bool:
    """Whether a collection's state has curves of other codes, of another index, or of far fewer rows."""
    tuned = state.tuned
    if tuned is None:
        return False
    same = tuned.generation == state.active and tuned.index == state.index.kind
    return not same or state.n > STALE * tuned.n


def _curve(state: object) -> Curve:
    fields = take_state(state, "recall curve", ("k", "points"))
    k, points = take_int(fields, "k", 1, _LIMIT), fields["points"]
    if not isinstance(points, list) or not 1 <= len(points) <= MAX_POINTS:
        raise FormatError(f"field 'points' must be a list of 1 to {MAX_POINTS}")
    return Curve(k, tuple(_point(point) for point in points))


def _point(values: object) -> Point:
    if not isinstance(values, list) or len(values) != len(Point._fields):
        raise FormatError(f"a point must hold {', '.join(Point._fields)}")
    whole, shares = values[:3], values[3:]
    if not all(type(v) is int and 0 <= v <= _LIMIT for v in whole) or not all(type(v) is float for v in shares):
        raise FormatError(f"a point must hold three counts and three floats, got {values}")
    point = Point(*values)
    take_int(point._asdict(), "ef", 0, MAX_K)
    return point
