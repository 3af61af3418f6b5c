"""The smallest code that holds a recall, proven on the user's vectors, and how to put it in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from qvec.calibrations import Generation
from qvec.configs import CodeConfig
from qvec.errors import InputError
from qvec.evaluation.report import Report, Row
from qvec.index import Progress

Apply = Callable[[CodeConfig, int, Progress | None], Generation]


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


def choose(report: Report, target: Target, apply: Apply) -> Choice:
    """The first row by bytes, then oversampling, whose lower bound of recall meets the target within its limits."""
    within = [row for row in report.rows if target.admits(row)]
    meeting = [row for row in within if row.low >= target.recall]
    best = min(meeting, key=lambda row: (row.bytes, row.oversample), default=None)
    return Choice(target, report, best, max(within, key=lambda row: row.low, default=None), apply)


def _described(row: Row) -> str:
    return f"{row.code} ({row.bytes} bytes, {row.oversample}x oversampling, recall {row.low:.4f} to {row.high:.4f})"
