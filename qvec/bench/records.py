"""What was measured: plain data, a JSON line a point."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import qvec
from qvec.common.errors import InputError


@dataclass(frozen=True)
class Point:
    """One point of a sweep. Rates are queries a second: the best of all rounds, and their median.

    ``p50_us``, ``p95_us``, ``p99_us``: of single queries, in the best round. ``batch_qps``: None where the library
    has no batch. ``queries``: single queries that were asked in a round.
    """

    search: dict[str, Any]
    recall: float
    qps: float
    qps_median: float
    p50_us: float
    p95_us: float
    p99_us: float
    queries: int
    batch_recall: float | None = None
    batch_qps: float | None = None
    batch_qps_median: float | None = None


@dataclass(frozen=True)
class Entry:
    """One contestant: what it is, its build, its memory, and its points.

    Bytes are growth over the process before the build, None where the system does not tell: ``peak_bytes`` while
    building, the input's pages included as far as they were read, ``peak_anonymous`` without; ``rss``, ``pss``,
    ``anonymous`` and ``file`` (pages of mapped files) at the end of all searches, the input released.
    """

    contestant: str
    own: bool
    library: str
    version: str
    options: dict[str, Any]
    build_s: float
    file_bytes: int | None
    peak_bytes: int | None
    peak_anonymous: int | None
    memory: dict[str, int] | None
    parts: dict[str, int]
    simd: str
    points: list[Point]


@dataclass(frozen=True)
class Result:
    """A run. ``failed`` and ``skipped``: contestants without figures, and why."""

    dataset: dict[str, Any]
    settings: dict[str, Any]
    machine: dict[str, Any]
    entries: list[Entry]
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_dicts(self) -> list[dict[str, Any]]:
        """A flat record a point."""
        run = {**self.dataset, **self.settings, "machine": self.machine}
        return [
            {**run, **{name: value for name, value in asdict(entry).items() if name != "points"}, **asdict(point)}
            for entry in self.entries
            for point in entry.points
        ]


DATASET = ("dataset", "n", "dim", "metric")
SETTINGS = ("k", "build_threads", "batch_threads", "rounds", "started")


def write_lines(result: Result, file: Path) -> None:
    """Append a JSON line a point."""
    with file.open("a") as out:
        out.writelines(json.dumps(record) + "\n" for record in result.to_dicts())


def load_lines(file: Path) -> list[Result]:
    """The runs whose points a file holds. InputError naming the line that is none."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
            runs.setdefault(json.dumps([record[name] for name in (*DATASET, *SETTINGS, "machine")]), []).append(record)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}, line {number}: no point of a benchmark: {error!r}") from error
    try:
        return [_result(records) for records in runs.values()]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: no points of a benchmark: {error!r}") from error


def _result(records: list[dict[str, Any]]) -> Result:
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["contestant"], []).append(record)
    entries = [
        Entry(**_picked(Entry, group[0]), points=[Point(**_picked(Point, record)) for record in group])
        for group in groups.values()
    ]
    one = records[0]
    dataset, settings = ({name: one[name] for name in names} for names in (DATASET, SETTINGS))
    return Result(dataset, settings, one["machine"], entries)


def _picked(kind: type[Entry] | type[Point], record: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: record[each.name] for each in fields(kind) if each.name != "points"}


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "qvec": qvec.__version__,
    }


def cpu_model() -> str:
    """As the system names it."""
    lines: Iterable[str] = ()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name") or platform.processor() or platform.machine()
