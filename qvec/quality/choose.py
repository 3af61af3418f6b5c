"""Choose the smallest code that reaches a recall, measured on the user's vectors.

The first round measures all codes with a few hundred queries. Each further round has four times as many queries and
measures the codes that may be the answer and whose confidence interval includes the target. Intervals are widened so
that all rounds of a code together have the confidence of one (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from qvec.codes.configs import CodeConfig
from qvec.common.errors import InputError
from qvec.index import Progress
from qvec.quality.report import Report, Row
from qvec.schema.generations import Generation

GROWTH = 4  # ratio of the numbers of queries of successive rounds
CONFIDENCE = 0.95
Apply = Callable[[CodeConfig, int, Progress | bool | None], Generation]
Measure = Callable[[list[CodeConfig] | None, int, float], Report]
"""Measures codes (None: all requested ones) with n queries; intervals have z standard errors."""


@dataclass(frozen=True)
class Target:
    """Requirements: a minimum for the lower bound of recall@k; maxima for bytes per code and milliseconds per
    search."""

    recall: float
    max_bytes: int | None = None
    max_p99_ms: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.recall, float) or not 0.0 < self.recall < 1.0:
            raise InputError(f"target_recall must be a number between 0 and 1, both excluded; got {self.recall!r}")

    def admits(self, row: Row) -> bool:
        """Whether a row is within the limits of bytes and latency."""
        small = self.max_bytes is None or row.bytes <= self.max_bytes
        return small and (self.max_p99_ms is None or (row.p99_ms is not None and row.p99_ms <= self.max_p99_ms))

    @property
    def within(self) -> str:
        """The limits in words, "" if there are none."""
        limits = [] if self.max_bytes is None else [f"{self.max_bytes} bytes"]
        limits += [] if self.max_p99_ms is None else [f"{self.max_p99_ms:g} ms"]
        return f" within {' and '.join(limits)}" if limits else ""


@dataclass(frozen=True)
class Choice:
    """The result of a choice.

    ``row``: the chosen code and oversampling, or None. ``nearest``: in this case, the best row.
    """

    target: Target
    report: Report
    row: Row | None
    nearest: Row | None
    _apply: Apply = field(repr=False)

    @property
    def met(self) -> bool:
        """Whether a code meets the target."""
        return self.row is not None

    def apply(self, progress: Progress | bool | None = None) -> Generation:
        """Requantize to the chosen code, and store its oversampling as the default of searches.

        Raises InputError, and changes nothing, if no code meets the target.
        """
        if self.row is None:
            raise InputError(str(self))
        return self._apply(self.row.config, self.row.oversample, progress)

    def __str__(self) -> str:
        goal = f"recall@{self.report.k} of {self.target.recall:g}"
        if self.row is not None:
            return f"{_described(self.row)}: the smallest code whose lower bound meets {goal}"
        closest = (
            "no code is within the limits" if self.nearest is None else f"the nearest is {_described(self.nearest)}"
        )
        return f"no code meets {goal}{self.target.within}; {closest}"


def choose(measure: Measure, target: Target, n: int, most: int, apply: Apply) -> Choice:
    """Choose the row with the least bytes, then the least oversampling, among those whose lower bound meets the target.
    Of equal ones, it is that with the highest recall. Bounds do not decide: if all queries have a recall of 1, their
    variance is 0, and the bound is below that of a code that misses a few neighbors (see :func:`wilson`).

    ``n``: queries of the first round. ``most``: queries of the last.
    """
    sizes = round_sizes(n, most)
    z = _z(1 - (1 - CONFIDENCE) / len(sizes))
    report = measure(None, sizes[0], z)
    for size in sizes[1:]:
        if not (configs := undecided(report, target)):
            break
        report = _updated(report, measure(configs, size, z))
    within = [row for row in report.rows if target.admits(row)]
    meeting = [row for row in within if row.low >= target.recall]
    best = min(meeting, key=_rank, default=None)
    return Choice(target, report, best, max(within, key=lambda row: row.low, default=None), apply)


def round_sizes(n: int, most: int) -> list[int]:
    """Return the number of queries of each round: n, four times as many, and so on, up to ``most``."""
    sizes = [min(n, most)]
    while sizes[-1] < most:
        sizes.append(min(GROWTH * sizes[-1], most))
    return sizes


def undecided(report: Report, target: Target) -> list[CodeConfig]:
    """Return the codes that may meet the target and are smaller than every code that certainly meets it, or as small
    with a higher recall."""
    rows = sorted(filter(target.admits, report.rows), key=_rank)
    certain = next((row for row in rows if row.low >= target.recall), None)
    better = rows if certain is None else rows[: rows.index(certain)]
    return list(dict.fromkeys(row.config for row in better if row.high >= target.recall))


def _rank(row: Row) -> tuple[int, int, float]:
    """The order in which rows are preferred if they meet the target."""
    return row.bytes, row.oversample, -row.recall


def _updated(report: Report, newer: Report) -> Report:
    """Replace rows of a report with rows of a newer one."""
    rows = {(row.code, row.oversample): row for row in (*report.rows, *newer.rows)}
    return replace(report, rows=list(rows.values()), n_queries=newer.n_queries)


def _z(confidence: float) -> float:
    """Return the number of standard errors on each side of a two-sided interval."""
    from statistics import NormalDist  # takes longer to import than the rest of this file

    return NormalDist().inv_cdf((1 + confidence) / 2)


def _described(row: Row) -> str:
    return f"{row.code} ({row.bytes} bytes, {row.oversample}x oversampling, recall {row.low:.4f} to {row.high:.4f})"
