"""R2: a process that dies at each step of a change.

Steps are calls of LMDB inside write transactions and operations on other files. The process kills itself at the n-th
step, for every n until the change completes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kills
from figures import Figures, Job
from forked_workers import Server, Worker, ask
from workloads import WORKLOADS, Change, change_back, change_model, expire, gone, ids_of, put, recode, together

import qvec
from qvec.maintenance import requantize
from qvec.storage.environment import Environment

STEPS = {"get", "put", "delete", "commit", "cursor"}
OF_FILES = ("replace", "link", "fsync", "unlink", "pwrite")
OTHERS = (".reembed", ".previous")  # files next to a collection whose embedding model changes
LOCKS = ("", "-lock")
PLACES = {"short": 12, "nightly": 100_000}  # of one change, not counting its last ones


class Counted:
    """A transaction of LMDB whose calls are steps; a commit is two."""

    def __init__(self, txn: Any, at: list[int]) -> None:
        self._txn, self._at = txn, at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._txn, name)
        return self._counting(found, name == "commit") if name in STEPS else found

    def _counting(self, call: Callable[..., Any], is_commit: bool) -> Callable[..., Any]:
        return counting(call, self._at, both=is_commit)


def counting(call: Callable[..., Any], at: list[int], *, both: bool) -> Callable[..., Any]:
    """A call that is a step; with ``both``, its return is another step."""

    def step() -> None:
        at[0] -= 1
        if at[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(*args: Any, **options: Any) -> Any:
        step()
        done = call(*args, **options)
        if both:
            step()
        return done

    return counted


def change(path: str, name: str, number: int, at: int, say: Callable[[str], None]) -> None:
    """Make the change with a number. The process is killed at step ``at``, or reports the number of steps."""
    steps, begin = [at], Environment.begin_write
    with qvec.open(path) as db:
        Environment.begin_write = lambda env: Counted(begin(env), steps)  # type: ignore[method-assign]
        for call in OF_FILES:
            setattr(os, call, counting(getattr(os, call), steps, both=True))
        CHANGES[name][number][1](db)
        say(json.dumps(at - steps[0]))


CHANGES: dict[str, list[tuple[Change, Callable[[qvec.Collection], object]]]] = {
    "add": [put(30, 0), put(7, 1), gone(8)],
    "churn": [
        put(30, 0),
        put(7, 1),
        ([(b, -1) for b in range(6, 16)], lambda db: deleted(db, 6, 16)),
    ],
    "transactions": [next(together(dict.fromkeys(range(20), 0), 30, random.Random(3))), gone(8)],
    "requantize": [([], lambda db: recode(db, "f16")), put(31, 0)],
    "expiry": [
        put(30, 0),
        expire(8),
        ([(9, -1)], lambda db: expired_and_erased(db, 9)),
        ([], lambda db: db.optimize(threads=1)),
    ],
    "reembed": [
        ([], change_model),
        ([], lambda db: (change_model(db), change_back(db))),
        ([], lambda db: (change_model(db), db.discard_reembed())),
    ],
    "text": [put(30, 0), put(7, 1), gone(8)],
    "upkeep": [
        gone(8),
        ([], lambda db: db.compact()),
        ([(9, -1)], lambda db: db.erase(ids_of(9))),
        ([], lambda db: db.optimize(threads=1)),
        ([], lambda db: db.repair(threads=1)),
    ],
}


def deleted(db: qvec.Collection, first: int, last: int) -> None:
    """Delete enough rows to start a repair of the graph."""
    db.delete([i for batch in range(first, last) for i in ids_of(batch)])


def expired_and_erased(db: qvec.Collection, batch: int) -> None:
    """Let a batch expire, and overwrite it."""
    expire(batch)[1](db)
    db.erase(expired=True, threads=1)


def prepare(path: str, name: str) -> None:
    kills.create(path, WORKLOADS[name][1])
    requantize.CODED_ROWS = 40
    with qvec.open(path) as db:
        for batch in range(20):
            put(batch, 0)[1](db)


def run(job: Job) -> Figures:
    figures = Figures("R2", "death of a writer at each step of a change")
    kills.warm_up(job.folder)
    requantize.CODED_ROWS = 40
    with Server(kills.found) as server:
        for name in job.chosen(CHANGES):
            base, path = str(job.folder / f"{name}.base"), str(job.folder / f"{name}.qvec")
            ask(prepare, base, name)
            for number, (done, _) in enumerate(CHANGES[name]):
                _sweep(server, base, path, name, number, done, figures, job.amount(PLACES))
    figures.amounts.pop("reopen ms", None)
    return figures


def _sweep(
    server: Server, base: str, path: str, name: str, number: int, done: Change, figures: Figures, places: int
) -> None:
    total = _killed_at(base, path, name, number, 1 << 30)
    assert total is not None
    stride = max(1, total // places)
    for at in sorted({*range(1, total + 1, stride), *range(max(1, total - 3), total + 1)}):
        ended = _killed_at(base, path, name, number, at)
        figures.count("kills")
        live = dict.fromkeys(range(20), 0)
        where = f"{name}, change {number}, step {at} of {total}"
        if ended is not None:
            figures.fail(f"{where}: it ended by itself after {ended} steps")
        if at == total and done:  # after the last commit
            kills.apply(done, live)
            kills.check(server, path, live, None, figures, where)
        else:
            kills.check(server, path, live, done, figures, where)
        kept = [path, *(path + other for other in OTHERS if name == "reembed")]
        expected = {Path(one + lock) for one in kept for lock in LOCKS}
        for stray in set(Path(path).parent.glob(f"{name}.qvec*")) - expected:
            figures.fail(f"{where}: {stray.name} was left")


def _killed_at(base: str, path: str, name: str, number: int, at: int) -> int | None:
    """Number of steps of a change; None if the process was killed before the end."""
    for leftover in (path + other + lock for other in ("", *OTHERS) for lock in LOCKS):
        Path(leftover).unlink(missing_ok=True)
    shutil.copy(base, path)
    worker = Worker(lambda say: change(path, name, number, at, say))
    line = worker.line()
    ended = worker.end()
    if line is None:
        assert ended == "SIGKILL", ended
        return None
    steps = json.loads(line)
    assert isinstance(steps, int), steps
    return steps
