"""Recall curves: the measured cost of searches that reach a recall."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np

from qvec._kernels import MAX_STAGES, N_FEATURES, EffortTable
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import Between, Floats, decode, encode
from qvec.common.types import Float32Array
from qvec.schema.state import Count, Number, State, Text
from qvec.schema.validation import MAX_K, MAX_ROWS

VERSION = 1
MAX_POINTS = 1000
MAX_POLICIES = 64
TENTHS = 10  # of recall; shares of queries are counted below each
MAX_GROWTH = 1.5  # curves are outdated once the collection has grown by this factor

Source = Literal["queries", "rows"]
Share = Annotated[float, Between(0.0, 1.0)]


class Point(NamedTuple):
    """Parameters of a search, and its measured recall and cost.

    ``ef`` is 0 unless the index is a graph, ``nprobe`` is 0 unless it is inverted lists. ``candidates``: candidates to
    re-rank, 0 for none. ``recall``: mean over the queries; ``low``: lower end of its 95 % interval. ``cost``: codes
    scored for a query, plus weighted re-ranked candidates. ``below``: share of queries with a recall below .1, .2, ...
    and 1: upper ends of 95 % intervals.
    """

    ef: Annotated[int, Between(0, MAX_K)]
    nprobe: Count
    candidates: Count
    recall: Annotated[float, Between(-1.0, 2.0)]
    low: Annotated[float, Between(-1.0, 2.0)]
    cost: Annotated[float, Between(0.0, 1e18)]
    below: Annotated[tuple[Share, ...], Between(TENTHS, TENTHS)]

    def effort(self, k: int, scanned: float) -> EffortTable:
        """The same effort for all queries, whose expected recall is the mean."""
        weights = np.zeros((2, 1, N_FEATURES), np.float32)
        weights[1, 0, 0] = self.recall
        return EffortTable(k, (max(1, self.ef, self.nprobe),), weights[0], weights[1], scanned)


@dataclass(frozen=True, eq=False)
class Policy:
    """Search effort that depends on the query: searches run in stages of growing width (kernels/search/effort.h).

    ``widths``: of the stages: pools of a graph walk, or numbers of lists. ``go_on``: after a stage the search goes on
    if the sum of these weights times the stage's features is positive. ``expected``: weights of the recall to expect.
    Both are float32 [stages, features], flat. Other fields are as in :class:`Point`, for queries that the weights were
    not learned from.
    """

    widths: Annotated[tuple[Annotated[int, Between(1, MAX_ROWS)], ...], Between(1, MAX_STAGES)]
    n_weights: Annotated[int, Between(N_FEATURES, N_FEATURES * MAX_STAGES)]
    go_on: Annotated[Float32Array, Floats("n_weights")] = field(repr=False)
    expected: Annotated[Float32Array, Floats("n_weights")] = field(repr=False)
    candidates: Count
    recall: Annotated[float, Between(-1.0, 2.0)]
    low: Annotated[float, Between(-1.0, 2.0)]
    cost: Annotated[float, Between(0.0, 1e18)]
    below: Annotated[tuple[Share, ...], Between(TENTHS, TENTHS)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and bool(encode(self) == encode(other))

    __hash__ = None  # type: ignore[assignment]

    def effort(self, k: int, scanned: float) -> EffortTable:
        """The table for the kernels."""
        shape = len(self.widths), N_FEATURES
        if self.n_weights != shape[0] * shape[1]:
            raise FormatError(f"recall curves: {len(self.widths)} stages have {self.n_weights} weights")
        try:
            return EffortTable(k, self.widths, self.go_on.reshape(shape), self.expected.reshape(shape), scanned)
        except ValueError as error:
            raise FormatError(f"recall curves: {error}") from None


P = TypeVar("P", Point, Policy)


class Goal(NamedTuple):
    """A mean recall, and the largest share of queries whose recall may be below a floor."""

    recall: float
    floor: float = 0.0
    share: float = 1.0

    def reached_by(self, point: Point | Policy) -> bool:
        """Whether the measured intervals lie within the goal. Floors are rounded up to tenths."""
        if point.low < self.recall:
            return False
        tenth = math.ceil(round(TENTHS * self.floor, 6))
        return tenth == 0 or point.below[tenth - 1] <= self.share

    def __str__(self) -> str:
        return f"recall={self.recall}" if self.share == 1.0 else f"recall={tuple(self)}"


@dataclass(frozen=True)
class Curve:
    """Points of recall@k, ascending in cost and in ``low``, and policies likewise."""

    k: Annotated[int, Between(1, MAX_ROWS)]
    points: Annotated[tuple[Point, ...], Between(1, MAX_POINTS)]
    policies: Annotated[tuple[Policy, ...], Between(0, MAX_POLICIES)] = ()

    @classmethod
    def best_of(cls, k: int, points: Sequence[Point]) -> Curve:
        """The curve of the points that no cheaper point equals in ``low``."""
        return cls(k, tuple(best_of(points)))

    @property
    def scanned(self) -> float:
        """The highest recall that was measured: that of a scan."""
        return min(1.0, max(point.recall for point in self.points))

    def reaching(self, goal: Goal) -> Point | Policy:
        """The cheapest point or policy that reaches a goal; InputError names the highest recall of the curve."""
        measured: list[Point | Policy] = [*self.points, *self.policies]
        reaching = [found for found in measured if goal.reached_by(found)]
        if reaching:
            return min(reaching, key=lambda found: found.cost)
        best = self.points[-1]
        raise InputError(
            f"{goal} at k={self.k} is not reached: the highest measured recall is {best.recall:.4f} "
            f"(with 95 % confidence {best.low:.4f}); exact=True finds all"
        )


def best_of(points: Iterable[P], gain: float = 0.0) -> list[P]:
    """The points that have a higher ``low`` than all cheaper ones, by at least ``gain``; by ascending cost."""
    kept: list[P] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.low)):
        if not kept or point.low > kept[-1].low + gain:
            kept.append(point)
    return kept


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
        from qvec.common.tables import html_plot, html_table

        rows = [
            (curve.k, *point[:3], *(f"{value:.4g}" for value in point[3:6]))
            for curve in self.curves
            for point in curve.points
        ]
        title = f"Recall curves: {self.index}, {self.n:,} rows, {self.n_queries:,} {self.source}"
        return html_table(title, ("k", *Point._fields[:6]), rows) + html_plot(self._draw)

    def _draw(self, axes: Any) -> None:
        for curve in self.curves:
            if curve.policies:
                label = f"k={curve.k}, for each query"
                axes.plot([p.cost for p in curve.policies], [p.recall for p in curve.policies], "--", label=label)
            axes.plot(
                [p.cost for p in curve.points], [p.recall for p in curve.points], marker="o", label=f"k={curve.k}"
            )
        axes.set(xscale="log", xlabel="cost (codes scored)", ylabel="recall")
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
