"""Results of a run as plain data: one JSON line per point."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from qvec.common import __version__
from qvec.common.errors import InputError


@dataclass(frozen=True)
class Point:
    """One point of a sweep. Rates are in queries per second: the best trial, and the median of all.

    ``p50_us``, ``p95_us``, ``p99_us``: latency of single queries in the best trial. ``queries``: number of single
    queries in this trial. ``batch_qps``: None if the library has no batch search.
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
    """A contestant with its build, its memory, and its points.

    Bytes are growth over the process before the build; None if the system does not report them. ``peak_bytes``: maximum
    during the build, including pages of the input; ``peak_anonymous``: without them. ``memory``: ``rss``, ``pss``,
    ``anonymous`` and ``file`` (pages of mapped files) after all searches, without the input.
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
    """A run. ``failed``, ``skipped``: contestants without figures, with the reasons."""

    dataset: dict[str, Any]
    settings: dict[str, Any]
    machine: dict[str, Any]
    entries: list[Entry]
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a flat record for each point."""
        run = {**self.dataset, **self.settings, "machine": self.machine}
        return [
            {**run, **{name: value for name, value in asdict(entry).items() if name != "points"}, **asdict(point)}
            for entry in self.entries
            for point in entry.points
        ]


DATASET = ("dataset", "n", "dim", "metric")
SETTINGS = ("k", "build_threads", "batch_threads", "rounds", "started")


def write_lines(result: Result, file: Path, about: Mapping[str, Any] | None = None) -> None:
    """Append a JSON line for each point. ``about``: what to add to each line, such as the command."""
    with file.open("a") as out:
        out.writelines(json.dumps({**record, **(about or {})}) + "\n" for record in result.to_dicts())


def load_lines(file: Path) -> list[Result]:
    """Read the runs in a file; InputError names a line that is not a point."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
            runs.setdefault(json.dumps([record[name] for name in (*DATASET, *SETTINGS, "machine")]), []).append(record)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}, line {number}: not a point of a benchmark: {error!r}") from error
    try:
        return [_result(records) for records in runs.values()]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: not points of a benchmark: {error!r}") from error


def _result(records: list[dict[str, Any]]) -> Result:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in records:
        groups.setdefault(line["contestant"], []).append(line)
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
    """Describe the machine of the measurement."""
    return {
        "cpu": cpu_model(),
        "avx512": has_avx512(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "qvec": __version__,
    }


def cpu_model() -> str:
    """Return the name of the processor."""
    return _cpu_fields().get("model name") or platform.processor() or platform.machine()


def has_avx512() -> bool:
    """Whether the processor has AVX-512: libraries that use it are not to be compared with runs without it."""
    return "avx512f" in _cpu_fields().get("flags", "").split()


def _cpu_fields() -> dict[str, str]:
    lines: Iterable[str] = ()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
