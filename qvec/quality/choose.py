"""The smallest code that holds a recall, proven on the user's vectors, and how to put it in force.

Codes are looked at with few queries first. Those that the interval of their recall does not tell from the target are
looked at with four times as many, and again, for as long as one of them may be the answer. Intervals are widened so
that all looks of a code together are as sure as one (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from qvec.codes.configs import CodeConfig
from qvec.common.errors import InputError
from qvec.index import Progress
from qvec.quality.report import Report, Row
from qvec.schema.generations import Generation

GROWTH = 4  # times as many queries at the next look
CONFIDENCE = 0.95
Apply = Callable[[CodeConfig, int, Progress | None], Generation]
Measure = Callable[[list[CodeConfig] | None, int, float], Report]
"""Measures codes (None: all that are asked for) on so many queries, with intervals of z standard errors."""


@dataclass(frozen=True)
class Target:
    """What is asked for: the lower bound of recall@k, at most so many bytes a code, at most so slow."""

    recall: float
    max_bytes: int | None = None
    max_p99_ms: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.recall, float) or not 0.0 < self.recall < 1.0:
            raise InputError(f"target_recall must be a number between 0 and 1, both excluded; got {self.recall!r}")

    def admits(self, row: Row) -> bool:
        """Whether a row is within the limits, whatever its recall."""
        small = self.max_bytes is None or row.bytes <= self.max_bytes
        return small and (self.max_p99_ms is None or (row.p99_ms is not None and row.p99_ms <= self.max_p99_ms))


@dataclass(frozen=True)
class Choice:
    """``row``: the code and oversampling chosen; None where nothing meets the target. ``nearest``: then, the best."""

    target: Target
    report: Report
    row: Row | None
    nearest: Row | None
    _apply: Apply = field(repr=False)

    @property
    def met(self) -> bool:
        """Whether a code meets the target."""
        return self.row is not None

    def apply(self, progress: Progress | None = None) -> Generation:
        """Requantize to the code chosen, and let searches re-rank as many candidates as it needs from now on.

        InputError where nothing meets the target; nothing changes then.
        """
        if self.row is None:
            raise InputError(str(self))
        return self._apply(self.row.config, self.row.oversample, progress)

    def __str__(self) -> str:
        goal = f"recall@{self.report.k} of {self.target.recall:g}"
        if self.row is not None:
            return f"{_described(self.row)}: the smallest code whose lower bound meets {goal}"
        limits = [] if self.target.max_bytes is None else [f"{self.target.max_bytes} bytes"]
        limits += [] if self.target.max_p99_ms is None else [f"{self.target.max_p99_ms:g} ms"]
        within = f" within {' and '.join(limits)}" if limits else ""
        closest = (
            "no code is within the limits" if self.nearest is None else f"the nearest is {_described(self.nearest)}"
        )
        return f"no code meets {goal}{within}; {closest}"


def choose(measure: Measure, target: Target, n: int, most: int, apply: Apply) -> Choice:
    """The first row by bytes, then oversampling, whose lower bound of recall meets the target within its limits.

    ``n``: queries of the first look; ``most``: of the last, where it comes to that.
    """
    sizes = look_sizes(n, most)
    z = _z(1 - (1 - CONFIDENCE) / len(sizes))
    report = measure(None, sizes[0], z)
    for size in sizes[1:]:
        if not (configs := undecided(report, target)):
            break
        report = _updated(report, measure(configs, size, z))
    within = [row for row in report.rows if target.admits(row)]
    meeting = [row for row in within if row.low >= target.recall]
    best = min(meeting, key=_size, default=None)
    return Choice(target, report, best, max(within, key=lambda row: row.low, default=None), apply)


def look_sizes(n: int, most: int) -> list[int]:
    """How many queries each look has: n, four times as many, and so on, the last as many as there may be."""
    sizes = [min(n, most)]
    while sizes[-1] < most:
        sizes.append(min(GROWTH * sizes[-1], most))
    return sizes


def undecided(report: Report, target: Target) -> list[CodeConfig]:
    """Codes with a row that is smaller than any that is sure to meet the target, and may meet it too."""
    found: list[CodeConfig] = []
    for row in sorted(filter(target.admits, report.rows), key=_size):
        if row.low >= target.recall:
            break
        if row.high >= target.recall and row.config not in found:
            found.append(row.config)
    return found


def _size(row: Row) -> tuple[int, int]:
    return row.bytes, row.oversample


def _updated(report: Report, newer: Report) -> Report:
    """A report with the rows of another in place of its own."""
    rows = {(row.code, row.oversample): row for row in (*report.rows, *newer.rows)}
    return replace(report, rows=list(rows.values()), n_queries=newer.n_queries)


def _z(confidence: float) -> float:
    """Standard errors on either side of a two-sided interval."""
    from statistics import NormalDist  # takes longer to import than the rest of this file

    return NormalDist().inv_cdf((1 + confidence) / 2)


def _described(row: Row) -> str:
    return f"{row.code} ({row.bytes} bytes, {row.oversample}x oversampling, recall {row.low:.4f} to {row.high:.4f})"
