"""Recall curves: the measured cost of searches that reach a recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from qvec.common.errors import InputError
from qvec.common.plain_state import Between, decode, encode
from qvec.schema.layout import TUNING
from qvec.schema.state import Count, Number, State, Text
from qvec.schema.validation import MAX_K, MAX_ROWS
from qvec.storage.store import Snapshot

VERSION = 1
MAX_POINTS = 1000
MAX_GROWTH = 1.5  # curves are outdated once the collection has grown by this factor

Source = Literal["queries", "rows"]


class Point(NamedTuple):
    """Parameters of a search, and its measured recall and cost.

    ``ef``: 0 unless the index is a graph. ``nprobe``: 0 unless the index has inverted lists. ``candidates``: candidates
    to re-rank, 0 for none. ``recall``: mean over the queries; ``low``: lower end of its 95 % interval. ``cost``: codes
    scored for a query, plus weighted re-ranked candidates.
    """

    ef: Annotated[int, Between(0, MAX_K)]
    nprobe: Count
    candidates: Count
    recall: Annotated[float, Between(-1.0, 2.0)]
    low: Annotated[float, Between(-1.0, 2.0)]
    cost: Annotated[float, Between(0.0, 1e18)]


@dataclass(frozen=True)
class Curve:
    """Points of recall@k, ascending in cost and in ``low``."""

    k: Annotated[int, Between(1, MAX_ROWS)]
    points: Annotated[tuple[Point, ...], Between(1, MAX_POINTS)]

    @classmethod
    def best_of(cls, k: int, points: Sequence[Point]) -> Curve:
        """Make a curve from the points for which no cheaper point has as high a ``low``."""
        kept: list[Point] = []
        for point in sorted(points, key=lambda p: (p.cost, -p.low)):
            if not kept or point.low > kept[-1].low:
                kept.append(point)
        return cls(k, tuple(kept))

    def reaching(self, recall: float) -> Point:
        """Return the cheapest point whose interval is above the recall.

        InputError gives the highest measured recall.
        """
        for point in self.points:
            if point.low >= recall:
                return point
        best = self.points[-1]
        raise InputError(
            f"recall={recall} at k={self.k} is not reached: the highest measured recall is {best.recall:.4f} "
            f"(with 95 % confidence {best.low:.4f}); exact=True finds all"
        )


@dataclass(frozen=True, repr=False)
class Curves:
    """The curves of one index over one generation of codes. ``n``: number of rows when they were measured."""

    generation: Number
    index: Text
    n: Count
    source: Source
    n_queries: Annotated[int, Between(1, MAX_ROWS)]
    curves: Annotated[tuple[Curve, ...], Between(1, MAX_POINTS)]
    version: Annotated[int, Between(VERSION, VERSION)] = field(default=VERSION, repr=False)

    def __repr__(self) -> str:
        best = ", ".join(f"recall@{curve.k} up to {curve.points[-1].recall:.4f}" for curve in self.curves)
        return f"<qvec.Curves: {self.index}, {self.n:,} rows, {self.n_queries:,} {self.source}: {best}>"

    def _repr_html_(self) -> str:
        from qvec.common import plots
        from qvec.common.tables import html_table

        rows = [
            (curve.k, *point[:3], *(f"{value:.4g}" for value in point[3:]))
            for curve in self.curves
            for point in curve.points
        ]
        title = f"Recall curves: {self.index}, {self.n:,} rows, {self.n_queries:,} {self.source}"
        return html_table(title, ("k", *Point._fields), rows) + plots.as_html(self._draw, "recall and cost of searches")

    def _draw(self, axes: Any) -> None:
        from qvec.common import plots

        for number, curve in enumerate(self.curves):
            costs, recalls = [p.cost for p in curve.points], [p.recall for p in curve.points]
            axes.plot(costs, recalls, label=f"k={curve.k}", **plots.style(number))
        axes.set(xlabel="cost (codes scored)", ylabel="recall")
        plots.log_scale(axes, "x")
        axes.legend()

    def at(self, k: int) -> Curve:
        """Return the curve of the smallest measured k that is at least ``k``."""
        for curve in self.curves:
            if curve.k >= k:
                return curve
        raise InputError(f"recall= was measured for k up to {self.curves[-1].k}, got k={k}; call tune(ks=({k},))")

    def state(self) -> dict[str, Any]:
        """Return plain data for msgpack."""
        plain: dict[str, Any] = encode(self)
        return plain

    @classmethod
    def from_state(cls, state: object) -> Curves:
        """Decode the result of :meth:`state`. FormatError names the wrong field."""
        return decode(cls, state, "recall curves")


def outdated(state: State) -> bool:
    """Whether the stored curves were measured on other codes, on another index or on far fewer rows."""
    tuned = state.tuned
    if tuned is None:
        return False
    same = tuned.generation == state.active and tuned.index == state.index.kind
    return not same or state.n > MAX_GROWTH * tuned.n


def stored_curves(snap: Snapshot) -> Curves | None:
    """The curves that are stored, or None. FormatError names a wrong field."""
    return None if snap.state.tuned is None else Curves.from_state(snap.record(TUNING, 0))
