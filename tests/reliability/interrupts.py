"""R21: Ctrl-C during long work interrupts it within a time limit and leaves the last commit intact.

The delay is the elapsed time or the processor time of the process, whichever is less.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figures, Job
from forked_workers import Worker, ask, cpu_seconds

import qvec
from helpers.vectors import clustered

DIM = 64
N = {"short": 6_000, "nightly": 30_000}
BUILT = {"short": 6_000, "nightly": 100_000}  # rows when builds begin
LATEST = {"short": 0.3, "nightly": 4.0}  # seconds from the beginning
LATEST_BUILT = {"short": 0.3, "nightly": 10.0}
TRIES = {"short": 2, "nightly": 8}
LIMIT_MS = {"short": 600, "nightly": 200}  # machines that test each change are shared
BATCHES: dict[str, dict[str, Any]] = {
    "build of a graph": {"index": "hnsw"},
    "build of a packed graph": {"index": qvec.HNSW(m=32, layout="packed")},
    "build of lists": {"index": "ivf"},
}


def data(n: int) -> Any:
    return clustered(np.random.default_rng(0), n, DIM, 200)


def make(path: str, n: int) -> None:
    with qvec.create(path, DIM, metric="l2", index="hnsw", durability="relaxed") as db:
        db.add(data(n), payloads=[{"i": i} for i in range(n)])


WORK: dict[str, Callable[[qvec.Collection], object]] = {
    "requantize": lambda db: db.requantize("f16", relink=True),
    "tune": lambda db: db.tune(n=1000),
    "evaluate": lambda db: db.evaluate(n=300),
    "verify": lambda db: db.verify(),
    "repair": lambda db: db.repair(),
    "add": lambda db: db.add(data(len(db))[::2] + 1),
    "delete": lambda db: db.delete(list(range(0, len(db), 3))),
    "scan": lambda db: [db.search(records.vectors, 10, ef=200) for records in db.scan()],
}


def busy(path: str, options: dict[str, Any], n: int, work: str, say: Callable[[str], None]) -> None:
    """Work until interrupted, and report the time of the interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    db = qvec.open(path) if work in WORK else qvec.create(path, DIM, metric="l2", durability="relaxed", **options)
    x = data(n)
    try:
        say("ready")
        if work in WORK:
            WORK[work](db)
        else:
            db.add(x)
        say(json.dumps(["done", 0.0, 0.0]))
    except KeyboardInterrupt:
        say(json.dumps(["interrupted", time.monotonic(), time.process_time()]))
    db.close()


def sound(path: str) -> list[Any]:
    with qvec.open(path) as db:
        return [len(db), db.verify()]


def run(job: Job) -> Figures:
    figures, chance = Figures("R21", "Ctrl-C during long work"), random.Random(job.seed)
    n, base = N[job.scale], job.folder / "base.qvec"
    ask(make, str(base), n, deadline=600)
    worst = 0.0
    for work in job.chosen((*BATCHES, *WORK)):
        times = []
        for _ in range(job.amount(TRIES)):
            path = job.folder / "work.qvec"
            for leftover in (path, Path(f"{path}-lock")):
                leftover.unlink(missing_ok=True)
            if work in WORK:
                path.write_bytes(base.read_bytes())
            size = n if work in WORK else BUILT[job.scale]
            worker = Worker(
                lambda say, work=work, path=path, size=size: busy(str(path), BATCHES.get(work, {}), size, work, say)
            )  # type: ignore[misc]
            worker.line()
            time.sleep(chance.uniform(0.0, (LATEST if work in WORK else LATEST_BUILT)[job.scale]))
            sent, used = time.monotonic(), cpu_seconds(worker.pid)
            os.kill(worker.pid, signal.SIGINT)
            line = worker.line(60)
            worker.end()
            if line is None or '"traceback"' in line:
                figures.count(f"{work}: ended before")
                continue
            kind, at, used_then = json.loads(line)
            figures.count("interrupts", kind == "interrupted")
            if kind == "interrupted":
                times.append(1000 * min(at - sent, used_then - used))  # others may hold the processors meanwhile
            length, problems = ask(sound, str(path), deadline=600)
            if problems or (work not in WORK and length not in (0, size)):
                figures.fail(f"{work}: {length} vectors are left, {problems[:2]}")
        if times:
            figures.amounts[f"{work}: ms, longest"] = round(max(times))
            worst = max(worst, *times)
            if max(times) > LIMIT_MS[job.scale]:
                figures.fail(f"{work}: {max(times):.0f} ms until Ctrl-C was heard")
    figures.amounts["ms, longest"] = round(worst)
    return figures
