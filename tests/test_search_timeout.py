"""The timeout of a search: it ends a search inside the kernels, between stages and while results are read."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
import qvec.aio

DIM = 32
ROWS = 4000
INDEXES: dict[str, Any] = {
    "flat": "flat",
    "compact": qvec.HNSW(),
    "packed": qvec.HNSW(layout="packed"),
    "ivf": qvec.IVF(nlist=40),
}


def make(folder: Path, index: Any = "flat", **options: Any) -> qvec.Collection:
    rng = np.random.default_rng(3)
    db = qvec.create(folder / "a.qvec", DIM, index=index, fields={"tag": "int"}, metric="l2", **options)
    x = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    db.add(x, payloads=[{"tag": i % 20} for i in range(ROWS)])
    db.optimize()
    return db


@pytest.fixture(scope="module", params=list(INDEXES))
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[qvec.Collection]:
    with make(tmp_path_factory.mktemp("timeout"), INDEXES[request.param]) as opened:
        yield opened


def query(n: int | None = None) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(DIM if n is None else (n, DIM)).astype(np.float32)


CALLS: dict[str, Callable[..., Any]] = {
    "plain": lambda db, **o: db.search(query(), **o),
    "batch": lambda db, **o: db.search(query(50), **o),
    "threads": lambda db, **o: db.search(query(200), threads=3, **o),
    "exact": lambda db, **o: db.search(query(), exact=True, **o),
    "filtered": lambda db, **o: db.search(query(), where={"tag": {"$lt": 3}}, **o),
    "a filter for each query": lambda db, **o: db.search(query(3), where=[{"tag": 1}, None, {"tag": 2}], **o),
    "ids": lambda db, **o: db.search(query(), ids_in=[1, 2, 3], **o),
    "by id": lambda db, **o: db.search_by_id(7, **o),
    "by ids": lambda db, **o: db.search_by_id([7, 8], **o),
    "groups": lambda db, **o: db.search_groups(query(), 3, group_by="tag", **o),
    "diverse": lambda db, **o: db.search(query(), mmr=0.5, **o),
    "vectors": lambda db, **o: db.search(query(), include=["vectors", "payloads"], **o),
    "explained": lambda db, **o: db.search(query(), include=["explanation"], **o),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_search_within_its_timeout_finds_what_it_finds_without(db: qvec.Collection, name: str) -> None:
    wanted = CALLS[name](db)
    for timeout in (60.0, float("inf"), np.float32(60), 60):
        for _ in range(2):  # the second is a prepared search
            found = CALLS[name](db, timeout=timeout)
            assert found.ids.tolist() == wanted.ids.tolist()
            assert found.distances.tolist() == wanted.distances.tolist()


@pytest.mark.parametrize("name", list(CALLS))
def test_every_search_ends_at_its_timeout(db: qvec.Collection, name: str) -> None:
    for warm in (False, True):
        if warm:
            CALLS[name](db)
        with pytest.raises(qvec.SearchTimeoutError, match=r"did not end within its timeout of 0 s") as caught:
            CALLS[name](db, timeout=0)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, qvec.QvecError)
    assert (CALLS[name](db).ids >= 0).any()  # the handle is as before


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True, [1]])
def test_a_wrong_timeout_is_refused(db: qvec.Collection, timeout: Any) -> None:
    with pytest.raises(qvec.InputError, match="timeout must be a number of seconds that is not negative"):
        db.search(query(), timeout=timeout)
    with pytest.raises(qvec.InputError, match="timeout"):
        db.search_by_id(1, timeout=timeout)


@pytest.mark.alone
def test_a_long_scan_stops_a_few_milliseconds_after_its_deadline(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with qvec.create(tmp_path / "a.qvec", 768, index="flat", code="f32", metric="ip") as db:
        db.add(rng.standard_normal((60_000, 768), np.float32))
        q = rng.standard_normal((4096, 768), np.float32)
        db.search(q[:1], exact=True)
        began = time.perf_counter()
        db.search(q[:8], exact=True, threads=1)
        timeout = (time.perf_counter() - began) / 20
        for n in (1, 8, 4096):
            late = []
            for _ in range(5):
                began = time.perf_counter()
                with pytest.raises(qvec.SearchTimeoutError):
                    db.search(q[:n], exact=True, timeout=timeout, threads=1)
                late.append(time.perf_counter() - began - timeout)
            assert min(late) < 0.005


def test_a_batch_of_many_payloads_stops_while_they_are_read(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", 4, index="flat") as db:
        db.add(np.eye(4, dtype=np.float32).repeat(500, 0), payloads=[{"text": "x" * 20_000}] * 2000)
        q = np.ones((50, 4), np.float32)
        db.search(q[:1], 2000)
        began = time.perf_counter()
        db.search(q, 2000, threads=1, include=())
        found = time.perf_counter() - began
        began = time.perf_counter()
        with pytest.raises(qvec.SearchTimeoutError):  # 2 GB of payloads
            db.search(q, 2000, threads=1, timeout=found + 0.1)
        assert time.perf_counter() - began < found + 0.5


def test_a_shard_gets_the_deadline_of_the_whole_search(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        with qvec.create(tmp_path / name, 4) as db:
            db.add(np.eye(4, dtype=np.float32))
        paths.append(tmp_path / name)
    with qvec.ShardedIndex(paths) as shards:
        assert len(shards.search(np.ones(4, np.float32), 8, timeout=30)) == 8
        with pytest.raises(qvec.SearchTimeoutError, match="of 0 s"):
            shards.search(np.ones(4, np.float32), timeout=0)


def test_the_timeout_of_a_coroutine_includes_the_wait_for_a_thread(tmp_path: Path) -> None:
    make(tmp_path).close()

    async def run() -> None:
        async with await qvec.aio.open(tmp_path / "a.qvec", pool=1) as db:
            assert len(await db.search(query(), timeout=30)) == 10
            release = threading.Event()
            blocked = asyncio.ensure_future(db._run(db._readers, partial(release.wait, 30)))
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            for call in (db.search(query(), timeout=0.05), db.search_by_id(1, timeout=0.05)):
                with pytest.raises(qvec.SearchTimeoutError):
                    await call
            assert time.perf_counter() - began < 5
            release.set()
            await blocked
            assert len(await db.search_groups(query(), 3, group_by="tag", timeout=30)) == 3

    asyncio.run(run())


def test_a_search_does_not_wait_longer_than_its_timeout_for_a_file_that_is_being_replaced(tmp_path: Path) -> None:
    with make(tmp_path) as db:
        env, inside, release = db._store.env, threading.Event(), threading.Event()

        def replace() -> None:
            with env.exclusive_map():
                inside.set()
                release.wait(30)

        db.search(query())
        thread = threading.Thread(target=replace)
        thread.start()
        inside.wait(30)
        try:
            for call in CALLS.values():
                with pytest.raises(qvec.SearchTimeoutError):
                    call(db, timeout=0.01)
        finally:
            release.set()
            thread.join()
        assert len(db.search(query(), timeout=30)) == 10


def test_searches_of_a_snapshot_and_inside_a_transaction_have_timeouts(tmp_path: Path) -> None:
    with make(tmp_path) as db:
        for i, call in enumerate(CALLS.values()):
            with db.snapshot() as snapshot:
                assert len(call(snapshot, timeout=60)) > 0
                with pytest.raises(qvec.SearchTimeoutError):
                    call(snapshot, timeout=0)
            with db.transaction():
                with pytest.raises(qvec.SearchTimeoutError):
                    call(db, timeout=0)
                db.delete([ROWS - 1 - i])  # the transaction continues
        assert len(db) == ROWS - len(CALLS)
