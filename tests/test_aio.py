"""Collections for asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
import qvec.aio

DIM = 8
Test = Callable[[qvec.aio.AsyncCollection], Coroutine[Any, Any, None]]


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, DIM)).astype(np.float32)


def run(path: Path, test: Test, **options: Any) -> None:
    """Run a test on a new collection of eight vectors."""

    async def main() -> None:
        async with await qvec.aio.create(path, DIM, index="flat", **options) as db:
            await db.add(rows(8))
            await asyncio.wait_for(test(db), 60)

    asyncio.run(main())


def test_calls_are_those_of_a_collection(tmp_path: Path) -> None:
    async def test(db: qvec.aio.AsyncCollection) -> None:
        hits = await db.search(rows(8)[3], 1)
        assert hits.ids.tolist() == [3]
        assert (await db.get([2])).ids.tolist() == [2]
        assert await db.delete([2]) == 1
        assert await db.count() == 7
        assert [len(part) async for part in db.scan(4)] == [4, 3]
        assert await db.verify() == []
        assert (await db.stats()).count == 7
        async with db.snapshot() as snapshot:
            await db.add(rows(1))
            assert (await snapshot.count(), await db.count()) == (7, 8)
        with pytest.raises(qvec.MissingIdError):
            await db.get([99])

    run(tmp_path / "a.qvec", test)


def test_every_call_of_a_collection_has_a_coroutine() -> None:
    calls = {name for name in dir(qvec.create.__globals__["Collection"]) if not name.startswith("_")}
    properties = {
        "call_on_close",  # does not read or write
        "closed",
        "declarations",
        "code",
        "durability",
        "embeds_text",
        "dim",
        "fields",
        "fusions",
        "index",
        "metric",
        "mode",
        "model",
        "path",
        "timeout",
    }
    assert calls - properties - set(dir(qvec.aio.AsyncCollection)) == set()


def test_transactions_of_tasks_are_apart(tmp_path: Path) -> None:
    async def test(db: qvec.aio.AsyncCollection) -> None:
        async def fails() -> None:
            async with db.transaction():
                await db.add(rows(1))
                await asyncio.sleep(0.1)
                assert await db.count() == 9
                raise ZeroDivisionError

        failing = asyncio.create_task(fails())
        await asyncio.sleep(0.05)
        assert await db.count() == 8
        added = await db.add(rows(2))  # waits for the other task
        assert added.added == 2
        with pytest.raises(ZeroDivisionError):
            await failing
        assert await db.count() == 10

    run(tmp_path / "a.qvec", test)


def test_a_task_that_waits_too_long_to_write_gets_an_error(tmp_path: Path) -> None:
    async def test(db: qvec.aio.AsyncCollection) -> None:
        async with db.transaction():
            other = asyncio.create_task(db.add(rows(1)))
            with pytest.raises(qvec.LockedError, match=r"waited 0\.2 s"):
                await other
            await db.add(rows(1))
        assert await db.count() == 9

    run(tmp_path / "a.qvec", test, timeout=0.2)


def test_cancellation_leaves_the_last_commit_and_no_lock(tmp_path: Path) -> None:
    async def test(db: qvec.aio.AsyncCollection) -> None:
        async def block() -> None:
            async with db.transaction():
                await db.add(rows(1))
                await asyncio.sleep(60)

        task = asyncio.create_task(block())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        call = asyncio.create_task(db.add(rows(1000)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await db.count() in (8, 1008)
        await db.add(rows(1))
        assert await db.verify() == []

    run(tmp_path / "a.qvec", test)


@pytest.mark.alone
def test_the_event_loop_stays_responsive(tmp_path: Path) -> None:
    latencies: list[float] = []

    async def test(db: qvec.aio.AsyncCollection) -> None:
        await db.add(rows(3000))
        end = time.monotonic() + 1.5

        async def search() -> None:
            while time.monotonic() < end:
                await db.search(rows(8)[0], 5)

        async def write() -> None:
            while time.monotonic() < end:
                await db.add(rows(20))

        async def watch() -> None:
            while time.monotonic() < end:
                begun = time.perf_counter()
                await asyncio.sleep(0.001)
                latencies.append(time.perf_counter() - begun - 0.001)

        await asyncio.gather(watch(), write(), *(search() for _ in range(20)))

    run(tmp_path / "a.qvec", test)
    assert np.median(latencies) < 0.05  # on a busy machine; benchmarks/bench_writers.py measures it


def test_a_closed_collection_has_no_threads(tmp_path: Path) -> None:
    async def test(db: qvec.aio.AsyncCollection) -> None:
        await db.close()
        with pytest.raises(RuntimeError):
            await db.count()

    before = threading.active_count()
    run(tmp_path / "a.qvec", test)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.alone
def test_a_forked_child_makes_threads_of_its_own(tmp_path: Path) -> None:
    async def begin() -> qvec.aio.AsyncCollection:
        db = await qvec.aio.create(tmp_path / "a.qvec", DIM)
        await db.add(rows(20))
        await db.search(rows(1)[0], 3)
        return db

    async def use(db: qvec.aio.AsyncCollection) -> int:
        async with db.snapshot() as snapshot:
            assert await snapshot.count() == 20
        await db.add(rows(5))
        return len(await db.search(rows(1)[0], 3))

    db = asyncio.run(begin())
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends a child that hangs
        os._exit(0 if asyncio.run(use(db)) == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(db.collection) == 25
    asyncio.run(db.close())


def test_a_long_read_does_not_delay_searches(tmp_path: Path) -> None:
    go_on, running = threading.Event(), threading.Event()

    def wait(done: int, total: int) -> None:
        running.set()
        go_on.wait(30)

    async def test(db: qvec.aio.AsyncCollection) -> None:
        measuring = asyncio.create_task(db.evaluate(rows(3), 2, ["f16"], progress=wait))
        await asyncio.to_thread(running.wait)
        try:
            hits = await asyncio.wait_for(db.search(rows(1)[0], 3), 10)
            assert len(hits) == 3
            assert not measuring.done()
        finally:
            go_on.set()
        await measuring

    run(tmp_path / "a.qvec", test, pool=1)
