"""A run: each contestant builds in its own process, then trials are interleaved at each point of the sweep."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qvec.bench.child import Child, FailedError
from qvec.bench.contestants import Contestant, adapter_class
from qvec.bench.records import Entry, Point, Result, machine
from qvec.common.console import AnyProgress, as_progress
from qvec.common.errors import InputError
from qvec.common.types import check_int, check_number
from qvec.datasets import Workload
from qvec.datasets.files import Matrix
from qvec.datasets.grow import write_rows
from qvec.datasets.workload import scaled

Notice = Callable[[str], None]
Trial = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """``k``: neighbors per query. ``batch_threads``: threads for a batch; single queries use one thread.

    ``rounds``: trials of each contestant at each point; the best and the median count. ``trial_seconds``: time limit of
    the single queries of a trial. ``build_timeout``, ``trial_timeout``: seconds after which a contestant that does not
    answer is stopped and reported as failed. ``cpus``: processors for searches, by default the last ones; single
    queries use the first of them.
    """

    k: int = 10
    build_threads: int = 2
    batch_threads: int = 1
    rounds: int = 3
    trial_seconds: float = 10.0
    build_timeout: float = 7200.0
    trial_timeout: float = 300.0
    cpus: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_int("k", self.k, 1, 10_000)
        check_int("threads", self.build_threads, 1, 1024)
        check_int("batch_threads", self.batch_threads, 1, 1024)
        check_int("rounds", self.rounds, 1, 1000)
        for name in ("trial_seconds", "build_timeout", "trial_timeout"):
            check_number(name, getattr(self, name), 1e-3, 1e6)
        if self.cpus is not None and len(self.cpus) < self.batch_threads:
            raise InputError(f"{len(self.cpus)} processors to search on, and batch_threads is {self.batch_threads}")

    def processors(self) -> list[int]:
        """Return the processors for searches; empty if the system cannot pin processes."""
        if self.cpus is not None:
            return list(self.cpus)
        if not hasattr(os, "sched_getaffinity"):
            return []
        return sorted(os.sched_getaffinity(0), reverse=True)[: self.batch_threads]


def run(
    workload: Workload,
    contestants: Sequence[Contestant],
    settings: Settings | None = None,
    *,
    skipped: Mapping[str, str] | None = None,
    folder: Path | None = None,
    progress: AnyProgress | bool | None = None,
    notice: Notice | None = None,
) -> Result:
    """Measure the contestants on a workload.

    ``folder``: where the indexes and float32 vectors are stored and later removed; by default the system's.
    ``progress(done, total)`` counts trials; True: show a bar. ``notice`` gets a line for each build and each failure. A
    contestant that crashes, hangs or raises is reported in ``failed``; its measured points are kept.
    """
    settings = settings or Settings()
    (result,) = run_each(
        workload, contestants, settings, (settings.k,), skipped=skipped, folder=folder, progress=progress, notice=notice
    )
    return result


def run_each(
    workload: Workload,
    contestants: Sequence[Contestant],
    settings: Settings,
    ks: Sequence[int],
    *,
    skipped: Mapping[str, str] | None = None,
    folder: Path | None = None,
    progress: AnyProgress | bool | None = None,
    notice: Notice | None = None,
) -> list[Result]:
    """Build each contestant once, and measure it for each number of neighbors: one result for each of ``ks``."""
    each = [replace(settings, k=k) for k in ks]
    _check(workload, contestants, each)
    report = as_progress(progress, "measuring", "trials") or (lambda done, total: None)
    found = []
    with tempfile.TemporaryDirectory(prefix="qvec-bench-", dir=folder) as name:
        base, queries = spool(workload, Path(name))
        contest = _Contest(workload, Path(name), notice or (lambda line: None))
        try:
            for contestant in contestants:
                contest.build(contestant, base, queries, settings)
            for one in each:
                started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                contest.run_trials(one, report)
                found.append(_result(workload, one, started, contest, skipped or {}))
        finally:
            contest.end()
    return found


def _check(workload: Workload, contestants: Sequence[Contestant], each: Sequence[Settings]) -> None:
    if not contestants:
        raise InputError("there is no contestant to measure")
    for settings in each:
        if workload.truth.shape[1] < settings.k:
            raise InputError(f"k is {settings.k}; the ground truth has {workload.truth.shape[1]} neighbors a query")


def _result(
    workload: Workload, settings: Settings, started: str, contest: _Contest, skipped: Mapping[str, str]
) -> Result:
    n, dim = workload.base.shape
    used = {"k": settings.k, "build_threads": settings.build_threads, "batch_threads": settings.batch_threads}
    return Result(
        {"dataset": workload.name, "n": n, "dim": dim, "metric": workload.metric},
        {**used, "rounds": settings.rounds, "started": started},
        machine(),
        contest.entries(),
        dict(contest.failed),
        dict(skipped),
    )


def spool(workload: Workload, folder: Path) -> tuple[Path, Path]:
    """Write the vectors for all contestants: float32, of length 1 under cosine. Such a file is reused as the base."""
    queries = folder / "queries.npy"
    np.save(queries, scaled(workload.queries, workload.metric))
    file = _own_file(workload.base)
    if file is not None and (workload.metric != "cosine" or _unit(workload.base)):
        return file, queries
    write_rows(folder / "base.npy", workload.blocks(), *workload.base.shape)
    return folder / "base.npy", queries


def _own_file(base: Matrix) -> Path | None:
    """Return the .npy file of float32 that an array maps as a whole, or None."""
    file = getattr(base, "filename", None)
    if file is None or Path(file).suffix != ".npy":
        return None
    stored = np.load(file, mmap_mode="r")
    same = (stored.shape, stored.dtype) == (base.shape, np.dtype("<f4")) and stored.flags.c_contiguous
    return Path(file) if same else None


def _unit(base: Matrix) -> bool:
    blocks = (base[start : start + 65_536] for start in range(0, len(base), 65_536))
    return all(bool(np.allclose(np.einsum("ij,ij->i", block, block), 1.0, atol=1e-5)) for block in blocks)


class _Entrant:
    """A contestant with its process and its trials."""

    def __init__(self, contestant: Contestant, child: Child) -> None:
        self.contestant, self.child = contestant, child
        self.built: dict[str, Any] = {}
        self.points: list[dict[str, Any]] = []
        self.trials: list[list[Trial]] = []
        self.memory: dict[str, int] | None = None
        self.peak_anonymous: int | None = None
        self.alive = True


class _Contest:
    def __init__(self, workload: Workload, folder: Path, notice: Notice) -> None:
        self._workload, self._folder, self._notice = workload, folder, notice
        self._entrants: list[_Entrant] = []
        self.failed: dict[str, str] = {}

    def build(self, contestant: Contestant, base: Path, queries: Path, settings: Settings) -> None:
        number = len(self._entrants)
        folder = self._folder / str(number)
        folder.mkdir()
        entrant = _Entrant(contestant, Child(self._folder / f"{number}.log"))
        self._entrants.append(entrant)
        built = self._ask(
            entrant,
            "build",
            settings.build_timeout,
            adapter=contestant.adapter,
            options=dict(contestant.options),
            metric=self._workload.metric,
            folder=str(folder),
            base=str(base),
            queries=str(queries),
            threads=settings.build_threads,
        )
        if built:
            entrant.built = built
            before = built["anonymous_before"]
            entrant.peak_anonymous = None if before is None else max(0, entrant.child.peak_anonymous - before)
            self._notice(f"{contestant.name}: built in {built['build_s']:.1f} s")

    def run_trials(self, settings: Settings, progress: AnyProgress) -> None:
        """Run all rounds for one k; earlier trials are forgotten.

        At each point the contestants run one after another; each round begins with another contestant.
        """
        for entrant in self._entrants:
            self._list_points(entrant, settings)
        deepest = max((len(entrant.points) for entrant in self._entrants), default=0)
        total, done, first = settings.rounds * sum(len(entrant.points) for entrant in self._entrants), 0, 0
        for _ in range(settings.rounds):
            for point in range(deepest):
                first += 1
                for place in range(len(self._entrants)):
                    entrant = self._entrants[(first + place) % len(self._entrants)]
                    if point < len(entrant.points):
                        self._trial(entrant, point, settings)
                        done += 1
                        progress(done, total)
        for entrant in self._entrants:
            answer = self._ask(entrant, "memory", settings.trial_timeout)
            entrant.memory = answer["memory"] if answer else None

    def _list_points(self, entrant: _Entrant, settings: Settings) -> None:
        sweep = dict(entrant.contestant.sweep)
        listed = self._ask(entrant, "points", settings.trial_timeout, k=settings.k, sweep=sweep)
        entrant.points = listed["points"] if listed else []
        entrant.trials = [[] for _ in entrant.points]

    def _trial(self, entrant: _Entrant, point: int, settings: Settings) -> None:
        trials = entrant.trials[point]
        trial = self._ask(
            entrant,
            "search",
            settings.trial_timeout,
            point=entrant.points[point],
            k=settings.k,
            threads=settings.batch_threads,
            budget=settings.trial_seconds,
            cpus=settings.processors(),
            ids=not trials,
        )
        if trial:
            for ids, recall in (("ids", "recall"), ("batch_ids", "batch_recall")):
                if ids in trial:
                    trial[recall] = self._workload.recall(trial.pop(ids), settings.k)
            trials.append(trial)

    def _ask(self, entrant: _Entrant, op: str, timeout: float, **arguments: Any) -> dict[str, Any] | None:
        """Send a request; None if the contestant has failed, which is noted in ``failed``."""
        if not entrant.alive:
            return None
        try:
            return entrant.child.ask(op, timeout, **arguments)
        except FailedError as error:
            entrant.alive = False
            self.failed[entrant.contestant.name] = str(error)
            self._notice(f"{entrant.contestant.name}: failed: {error}")
            return None

    def entries(self) -> list[Entry]:
        """Return the contestants that have a measured point."""
        return [_entry(entrant) for entrant in self._entrants if any(entrant.trials)]

    def end(self) -> None:
        for entrant in self._entrants:
            entrant.child.end()


def _entry(entrant: _Entrant) -> Entry:
    contestant, built = entrant.contestant, entrant.built
    adapter = adapter_class(contestant.adapter)
    return Entry(
        contestant=contestant.name,
        own=contestant.own,
        library=adapter.package,
        version=contestant.version,
        options={**adapter.defaults, **contestant.options},
        build_s=built["build_s"],
        file_bytes=built["file_bytes"],
        peak_bytes=built["peak_bytes"],
        peak_anonymous=entrant.peak_anonymous,
        memory=entrant.memory,
        parts=built["parts"],
        simd=built["simd"],
        points=[
            _point(point, trials, built["queries"])
            for point, trials in zip(entrant.points, entrant.trials, strict=True)
            if trials
        ],
    )


def _point(search: dict[str, Any], trials: Sequence[Trial], queries: int) -> Point:
    rates = [trial["single"]["queries"] / trial["single"]["seconds"] for trial in trials]
    batches = [queries / trial["batch_s"] for trial in trials if "batch_s" in trial]
    best = trials[int(np.argmax(rates))]["single"]
    return Point(
        search=search,
        recall=trials[0]["recall"],
        qps=max(rates),
        qps_median=float(np.median(rates)),
        p50_us=best["p50_us"],
        p95_us=best["p95_us"],
        p99_us=best["p99_us"],
        queries=best["queries"],
        batch_recall=trials[0].get("batch_recall"),
        batch_qps=max(batches, default=None),
        batch_qps_median=float(np.median(batches)) if batches else None,
    )
