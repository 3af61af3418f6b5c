"""R24 and R25: random interleavings of tasks, generators and threads over transactions, snapshots, scans and close.

Actors are advanced one step at a time, in random order, by one event loop. Tasks and threads make transactions of their
own. Generators run in the task that advances them and share its transaction. Afterwards the file has exactly the rows
whose outermost block, or whose call outside of one, ended without an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figures, Job

import qvec

DIM, LIMIT = 4, 20.0
ROUNDS = {"short": 60, "nightly": 2000}
REFUSALS = (qvec.LockedError, qvec.AbortedError, qvec.ClosedError)


class Oops(Exception):
    """What fails inside a block."""


class Rows:
    """What the file must have: rows that were acknowledged, and rows that must not be visible."""

    def __init__(self) -> None:
        self.next, self.stored, self.undone = 0, set[int](), set[int]()

    def new(self) -> int:
        self.next += 1
        return self.next


def add(db: qvec.Collection, rows: Rows) -> int:
    """Add a row; its id, which is counted as undone until its block or call ends."""
    number = rows.new()
    rows.undone.add(number)
    db.add(np.ones((1, DIM)), ids=[number])
    return number


def acknowledge(rows: Rows, numbers: list[int]) -> None:
    rows.stored.update(numbers)
    rows.undone.difference_update(numbers)


def actions(db: qvec.Collection, rows: Rows, chance: random.Random) -> Iterator[None]:
    """Some blocks, calls, snapshots and scans, with a pause after each step. An actor of a task or a thread."""
    for _ in range(chance.randrange(1, 4)):
        kind = chance.choice(["block", "block", "call", "snapshot", "scan"])
        with contextlib.suppress(Oops, *REFUSALS):
            if kind == "call":
                acknowledge(rows, [add(db, rows)])
            elif kind == "snapshot":
                with db.snapshot() as snapshot:
                    before = len(snapshot)
                    yield
                    assert len(snapshot) == before, "a snapshot has changed"
            elif kind == "scan":
                for _batch in db.scan(1):
                    yield
            else:
                own: list[int] = []
                fails = chance.random() < 0.4
                with db.transaction():
                    for _ in range(chance.randrange(3)):
                        own.append(add(db, rows))
                        yield
                    if fails:
                        raise Oops
                acknowledge(rows, own)
        yield


def run(job: Job) -> Figures:
    """R24: transactions of tasks and threads, with generators that the driving task advances."""
    figures = Figures("R24", "random interleavings of tasks, generators and threads over transactions")
    return _run(job, figures, False)


def run_close(job: Job) -> Figures:
    """R25: the same, and the handle is closed in the middle."""
    figures = Figures("R25", "handles that are closed while tasks, generators and threads use them")
    return _run(job, figures, True)


def _run(job: Job, figures: Figures, close: bool) -> Figures:
    path = job.folder / "rows.qvec"
    qvec.create(path, DIM, code="f32", index="flat", durability="relaxed").close()
    rows = Rows()
    for turn in range(job.amount(ROUNDS)):
        seed = job.seed + turn
        begun = time.monotonic()
        try:
            _round(path, rows, random.Random(seed), close)
            with qvec.open(path, timeout=1) as db:
                found = {int(i) for part in db.scan() for i in part.ids}
                db.delete(list(found))
            if lost := rows.stored - found:
                figures.fail(f"seed {seed}: acknowledged rows {sorted(lost)} are lost")
            if ghosts := found - rows.stored:
                figures.fail(f"seed {seed}: rows {sorted(ghosts)} were undone, and are visible")
            figures.count("acknowledged rows", len(rows.stored))
            rows.stored.clear()
        except Exception as error:
            figures.fail(f"seed {seed}: {type(error).__name__}: {error}")
            path = job.folder / f"rows{turn}.qvec"
            qvec.create(path, DIM, code="f32", index="flat", durability="relaxed").close()
            rows = Rows()
        if time.monotonic() - begun > LIMIT:
            figures.fail(f"seed {seed}: {time.monotonic() - begun:.1f} s")
        figures.count("interleavings")
    return figures


def _round(path: Path, rows: Rows, chance: random.Random, close: bool) -> None:
    db = qvec.open(path, timeout=0.05)
    try:
        asyncio.run(_drive(db, rows, chance, close))
    finally:
        db.close()


async def _drive(db: qvec.Collection, rows: Rows, chance: random.Random, close: bool) -> None:
    loop = asyncio.get_running_loop()
    pools = [ThreadPoolExecutor(1) for _ in range(2)]  # one thread for each actor: LMDB's transactions are of a thread
    steps: list[Callable[[], Any]] = []
    tasks = []
    for _ in range(3):
        ready, ended = asyncio.Queue[None](), asyncio.Queue[bool]()
        tasks.append(asyncio.create_task(_task(actions(db, rows, chance), ready, ended)))

        async def step_task(ready: asyncio.Queue[None] = ready, ended: asyncio.Queue[bool] = ended) -> bool:
            ready.put_nowait(None)
            return await ended.get()

        steps.append(step_task)
    for pool in pools:
        actor = actions(db, rows, chance)
        steps.append(lambda pool=pool, actor=actor: loop.run_in_executor(pool, next, actor, True))
    stop_at = chance.randrange(2, 12) if close else -1
    generator = actions(db, rows, chance)
    steps.append(lambda: next(generator, True))  # in the task that runs this function
    turn = 0
    while steps:
        turn += 1
        if turn == stop_at:
            db.close()
        step = chance.choice(steps)
        over = step()
        if (await over if inspect.isawaitable(over) else over) is True:
            steps.remove(step)
    for pool in pools:
        pool.shutdown()
    await asyncio.gather(*tasks)


async def _task(actor: Iterator[None], ready: asyncio.Queue[None], ended: asyncio.Queue[bool]) -> None:
    """Advance an actor inside a task of its own."""
    while True:
        await ready.get()
        over = next(actor, True) is True
        ended.put_nowait(over)
        if over:
            return
