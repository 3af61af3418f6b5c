"""Transactions that group several calls, and snapshots."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.collection_model import Model, assert_hits_are_exact, assert_same_content
from helpers.vectors import clustered

DIM, N = 16, 400


@pytest.fixture(params=["flat", "hnsw", "packed"])
def db(request: pytest.FixtureRequest, path: Path, x: Any) -> Any:
    index: Any = {"flat": "flat", "hnsw": qvec.HNSW(m=8, ef_construction=40), "packed": qvec.HNSW(layout="packed")}
    with qvec.create(path, DIM, metric="l2", index=index[request.param]) as made:
        made.add(x[:N], payloads=[{"i": i} for i in range(N)])
        yield made


@pytest.fixture
def x(rng: np.random.Generator) -> Any:
    return clustered(rng, 2 * N, DIM)


def model_of(x: Any, n: int = N) -> Model:
    model = Model(DIM, "l2")
    model.add(x[:n], payloads=[{"i": i} for i in range(n)])
    return model


class Stop(Exception):
    """An exception of the caller."""


def change(db: Any, x: Any) -> None:
    """Make the same calls on a collection and on a model."""
    db.add(x[N : N + 50], range(1000, 1050), [{"new": i} for i in range(50)])
    db.delete(range(100))
    replacing: Any = {"on_conflict": "replace"}
    db.add(x[N + 50 : N + 60], range(200, 210), [None] * 10, **replacing)


def test_all_calls_of_a_transaction_become_visible_together(db: qvec.Collection, path: Path, x: Any) -> None:
    before, after = model_of(x), model_of(x)
    with qvec.open(path, "r") as reader:
        with db.transaction() as same:
            assert same is db
            change(db, x)
            assert_same_content(reader, before)
        change(after, x)
        assert_same_content(reader, after)
        assert_same_content(db, after)
    assert db.verify() == []


def test_a_transaction_reads_and_finds_what_it_has_written(db: qvec.Collection, x: Any) -> None:
    model = model_of(x)
    with db.transaction():
        for changed in (db, model):
            change(changed, x)
        assert_same_content(db, model)
        assert_hits_are_exact(model, x[:20], 5, db.search(x[:20], 5, exact=True))
        assert (db.search(x[N : N + 50], 1, ef=200).ids[:, 0] == np.arange(1000, 1050)).all()
        assert (len(db), 5 in db, 1005 in db) == (N - 50, False, True)
        assert db.stats().count == N - 50
        db.delete([1005])
        assert db.search(x[N + 5], 1, ef=200).ids.tolist() != [1005]


@pytest.mark.parametrize("where", ["outside", "inside a block inside", "inside a block inside, and caught"])
def test_an_exception_undoes_everything(db: qvec.Collection, x: Any, where: str) -> None:
    commits = db.stats().txn_id

    def run() -> None:
        with db.transaction():
            change(db, x)
            if where == "outside":
                raise Stop
            try:
                with db.transaction():
                    db.add(x[:1], [7777])
                    raise Stop
            except Stop:
                if not where.endswith("caught"):
                    raise
            with pytest.raises(qvec.AbortedError):
                db.add(x[:1], [8888])

    with pytest.raises(qvec.AbortedError if where.endswith("caught") else Stop):
        run()
    assert_same_content(db, model_of(x))
    assert db.verify() == []
    assert db.stats().txn_id == commits
    db.add(x[:1], [9999])
    assert 9999 in db


def test_a_call_that_was_refused_leaves_the_transaction_as_it_was(db: qvec.Collection, x: Any) -> None:
    with db.transaction():
        db.add(x[N : N + 1], [5000])
        with pytest.raises(qvec.DuplicateIdError):
            db.add(x[:2], [5001, 5000])
        with pytest.raises(qvec.MissingIdError):
            db.delete([6000], missing="error")
        with pytest.raises(qvec.InputError):
            db.add([[np.nan] * DIM])
        db.add(x[N + 1 : N + 2], [5001])
    assert 5000 in db
    assert 5001 in db
    assert db.verify() == []


def test_a_call_that_failed_half_way_undoes_the_transaction(
    db: qvec.Collection, x: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    def run() -> None:
        with db.transaction():
            db.add(x[N : N + 1], [5000])
            with monkeypatch.context() as patched:
                patched.setattr("qvec.rows.writer.Writer.extend_index", fail)
                with pytest.raises(MemoryError):
                    db.add(x[N + 1 : N + 2], [5001])

    with pytest.raises(qvec.AbortedError, match="failed half-way"):
        run()
    assert_same_content(db, model_of(x))
    assert db.verify() == []


def test_codes_and_calibrations_belong_to_the_transaction(path: Path, x: Any) -> None:
    with qvec.create(path, DIM, metric="l2", code="int8", index="flat") as db:
        try:
            with db.transaction():
                db.add(x[:300] * 3)
                db.requantize(qvec.Int8(scale="per_dim"))
                assert db.search(x[7] * 3, 1).ids.tolist() == [7]
                raise Stop
        except Stop:
            pass
        assert (len(db), db.generations()) == (0, [])
        with db.transaction():
            db.add(x)
            db.requantize(qvec.Int8(scale="per_dim"))
        assert [made.rows for made in db.generations()] == [len(x), len(x)]
        assert db.search(x[7], 1, oversample=0).ids.tolist() == [7]
        assert db.verify() == []


def test_a_scan_that_the_transaction_overtakes_is_stopped(db: qvec.Collection, x: Any) -> None:
    with db.transaction():
        records = db.scan(batch_size=10)
        next(records)
        db.delete([300])
        with pytest.raises(qvec.InputError, match="since this scan"):
            next(records)


def test_other_threads_wait_to_write_and_read_the_last_commit(db: qvec.Collection, x: Any) -> None:
    seen: list[Any] = []
    entered, leave = threading.Event(), threading.Event()

    def write() -> None:
        entered.wait()
        seen.append(len(db))
        db.add(x[N : N + 1], [6000])
        seen.append(len(db))

    other = threading.Thread(target=write)
    other.start()
    with db.transaction():
        db.delete(range(10))
        entered.set()
        leave.wait(0.2)
        assert seen == [N]
    other.join()
    assert seen == [N, N - 9]


def test_calls_with_their_own_transactions_are_refused(db: qvec.Collection, path: Path, x: Any) -> None:
    with db.transaction():
        for call in (db.verify, db.snapshot):
            with pytest.raises(qvec.InputError, match="transaction"):
                call()
        db.delete([3])
    assert 3 not in db
    with qvec.open(path, "r") as reader, pytest.raises(qvec.ReadOnlyError), reader.transaction():
        pass


def test_a_snapshot_answers_as_of_its_commit(db: qvec.Collection, x: Any) -> None:
    before, after = model_of(x), model_of(x)
    with db.snapshot() as snapshot:
        change(db, x)
        change(after, x)
        for _ in range(2):
            assert_same_content(snapshot, before)
            assert_hits_are_exact(before, x[:10], 5, snapshot.search(x[:10], 5, exact=True))
            assert (snapshot.search(x[:50], 1, ef=200).ids[:, 0] == np.arange(50)).all()
            assert_same_content(db, after)
        assert (len(snapshot), 5 in snapshot, 5 in db) == (N, True, False)
        assert snapshot.verify() == []
        for write in (lambda: snapshot.delete([300]), lambda: snapshot.add(x[:1]), snapshot.transaction().__enter__):
            with pytest.raises(qvec.ReadOnlyError):
                write()
    with pytest.raises(qvec.ClosedError):
        len(snapshot)
    assert_same_content(db, after)


def test_a_snapshot_of_a_snapshot_is_of_the_same_commit(db: qvec.Collection, path: Path, x: Any) -> None:
    before = model_of(x)
    with db.snapshot() as snapshot:
        change(db, x)
        with snapshot.snapshot() as again:
            assert_same_content(again, before)
            again.backup(path.with_name("copy.qvec"))
            assert len(db.stats().snapshots) == 1
        with pytest.raises(qvec.ClosedError):
            len(again)
        assert_same_content(snapshot, before)
        again = snapshot.snapshot()
    with pytest.raises(qvec.ClosedError):
        len(again)
    again.close()
    with qvec.open(path.with_name("copy.qvec"), "r") as copy:
        assert_same_content(copy, before)


def test_open_snapshots_are_told_of(db: qvec.Collection, x: Any) -> None:
    assert db.stats().snapshots == ()
    first = db.snapshot()
    db.add(x[N : N + 1], [7000])
    with db.snapshot():
        db.delete([7000])
        time.sleep(0.01)
        told = db.stats()
        assert [pin.commits_behind for pin in told.snapshots] == [2, 1]
        assert told.snapshots[0].age > told.snapshots[1].age > 0
        assert told.commits_held == 2
    del first
    gc.collect()
    assert db.stats().snapshots == ()
    assert db.stats().commits_held == 0


def test_threads_share_a_snapshot(db: qvec.Collection, x: Any) -> None:
    wrong: list[Any] = []

    def look(snapshot: qvec.Collection) -> None:
        for _ in range(30):
            ids = snapshot.search(x[:20], 1, ef=200).ids[:, 0]
            if not (ids == np.arange(20)).all() or snapshot.get([3]).payloads != [{"i": 3}]:
                wrong.append(ids)

    with db.snapshot() as snapshot:
        threads = [threading.Thread(target=look, args=(snapshot,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(20):
            db.delete([i])
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_closed_collection_ends_its_snapshots(path: Path, x: Any) -> None:
    db = qvec.create(path, DIM)
    snapshot = db.snapshot()
    db.close()
    with pytest.raises(qvec.ClosedError):
        len(snapshot)
    snapshot.close()


@pytest.mark.parametrize("memory", ["mmap", "index", "ram"])
def test_a_snapshot_is_searched_by_a_handle_that_was_never_searched(path: Path, memory: Any) -> None:
    with qvec.create(path, 4, metric="l2") as db:
        db.add(np.eye(4, dtype=np.float32))
    with qvec.open(path, memory=memory) as db, db.snapshot() as snapshot:
        assert snapshot.search(np.eye(4, dtype=np.float32)[2], 1).ids.tolist() == [2]


@pytest.mark.parametrize("sizes", [(9_000, 30), (9_000, 4_500), (5_000, 2_500), (30, 9_000), (9_000, 0)])
def test_a_payload_may_become_shorter_within_a_transaction(path: Path, x: Any, sizes: tuple[int, int]) -> None:
    with qvec.create(path, DIM) as db:
        db.add(x[:10], payloads=[{"i": i} for i in range(10)])
        with db.transaction():
            for size in sizes:
                db.update_payloads([3], {"text": "x" * size}, merge=False)
        assert db.verify() == []
        assert db.get([3]).payloads == [{"text": "x" * sizes[-1]}]
        db.upsert(x[3], ids=[3], payloads={"text": "y"})
        db.compact()
        assert db.verify() == []
    with qvec.open(path, "r", untrusted=True) as db:
        assert db.get([3]).payloads == [{"text": "y"}]
