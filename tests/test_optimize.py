"""optimize() removes every deleted row, in steps; searches, writes and crashes may happen between steps."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.collection_model import Model, assert_hits_are_exact, assert_same_content
from helpers.vectors import clustered
from qvec.maintenance import optimize
from qvec.storage.stats import collect

DIM, N = 32, 1500
KILLED = """
import os, sys
import qvec, qvec.maintenance.optimize
qvec.maintenance.optimize.REPAIRED_ROWS = qvec.maintenance.optimize.MOVED_ROWS = 100
steps = 0
def count(done, total):
    global steps
    steps += 1
    if steps == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
with qvec.open(sys.argv[1]) as db:
    db.optimize(progress=count)
"""


@pytest.fixture(params=["flat", "hnsw", "packed"])
def index(request: pytest.FixtureRequest) -> Any:
    return {"flat": "flat", "hnsw": qvec.HNSW(m=8, ef_construction=40), "packed": qvec.HNSW(layout="packed")}[
        request.param
    ]


def filled(path: Path, rng: np.random.Generator, index: Any, strings: bool = False) -> tuple[qvec.Collection, Model]:
    """A collection after two thirds were deleted, and its model."""
    x, model, gone = clustered(rng, N, DIM), Model(DIM, "l2"), rng.permutation(N)[: N * 2 // 3]
    db = qvec.create(path, DIM, metric="l2", index=index, ids="str" if strings else "int64")
    names = [f"id {i}" if strings else i for i in range(N)]
    for changed in (db, model):
        changed.add(x, names, [{"i": i} if i % 2 else None for i in range(N)])  # type: ignore[attr-defined]
        changed.delete([names[i] for i in gone])  # type: ignore[attr-defined]
    return db, model


def rows_of(db: qvec.Collection) -> int:
    with db._store.read() as snap:
        return int(snap.state.n)


def assert_sound(db: qvec.Collection, model: Model) -> None:
    assert db.verify() == []
    assert_same_content(db, model)
    queries = np.array([vector for vector, _ in list(model.rows.values())[:20]])
    assert_hits_are_exact(model, queries, 5, db.search(queries, 5, exact=True))
    names = list(model.rows)
    found = db.search(np.array([vector for vector, _ in model.rows.values()]), 1, ef=100).ids[:, 0].tolist()
    assert np.mean([a == b for a, b in zip(found, names, strict=True)]) > 0.99


@pytest.mark.parametrize("strings", [False, True])
def test_rows_are_as_many_as_vectors_afterwards(
    path: Path, rng: np.random.Generator, index: Any, strings: bool
) -> None:
    db, model = filled(path, rng, index, strings)
    with db:
        calls: list[tuple[int, int]] = []
        unused = rows_of(db) - len(model.rows)
        assert db.optimize(progress=lambda done, total: calls.append((done, total))) == unused
        assert rows_of(db) == len(model.rows)
        assert db.stats().deleted == 0
        assert calls[-1][0] == calls[-1][1]
        assert all(0 < done <= total for done, total in calls)
        assert_sound(db, model)
        size = path.stat().st_size
        assert db.compact() > size // 2
        assert_sound(db, model)
        for changed in (db, model):
            changed.add(np.ones((70, DIM)) * np.arange(1, 71)[:, None], _fresh(70, strings))  # type: ignore[attr-defined]
        assert_sound(db, model)


def _fresh(count: int, strings: bool) -> list[Any]:
    return [f"new {i}" if strings else 10_000 + i for i in range(count)]


def test_there_is_nothing_to_do_twice_or_in_an_empty_collection(path: Path, rng: np.random.Generator) -> None:
    db, _ = filled(path, rng, qvec.HNSW(m=8, ef_construction=40))
    with db:
        db.optimize()
        commits = db.stats().txn_id
        calls: list[int] = []
        assert db.optimize(progress=lambda done, _: calls.append(done)) == 0
        assert calls == []
        assert db.stats().txn_id - commits <= 4
    with qvec.create(path.with_name("empty"), DIM) as empty:
        empty.optimize()
        assert empty.verify() == []


@pytest.mark.slow
def test_searches_and_writes_go_on_between_the_steps(
    path: Path, rng: np.random.Generator, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvec.maintenance.optimize.REPAIRED_ROWS", 100)
    monkeypatch.setattr("qvec.maintenance.optimize.MOVED_ROWS", 50)
    db, model = filled(path, rng, index)
    x, names = clustered(rng, 300, DIM), iter(range(20_000, 30_000))
    errors: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                assert (db.search(x[:4], 3, ef=50).counts == 3).all()
        except BaseException as error:
            errors.append(error)

    def write(done: int, total: int) -> None:
        name, gone = next(names), next(iter(model.rows))
        for changed in (db, model):
            changed.add(x[name - 20_000][None], [name])  # type: ignore[attr-defined]
            changed.delete([gone])  # type: ignore[attr-defined]

    with db:
        thread = threading.Thread(target=search)
        thread.start()
        db.optimize(progress=write)
        stop.set()
        thread.join()
        assert errors == []
        assert_sound(db, model)


@pytest.mark.slow
def test_a_process_that_dies_in_between_leaves_a_sound_collection(
    path: Path, rng: np.random.Generator, index: Any
) -> None:
    db, model = filled(path, rng, index)
    db.close()
    for step in (1, 2, 3, 5):
        subprocess.run([sys.executable, "-c", KILLED, str(path), str(step)], check=False)
        with qvec.open(path) as again:
            assert_sound(again, model)
    with qvec.open(path) as again:
        again.optimize()
        assert rows_of(again) == len(model.rows)
        assert_sound(again, model)


def test_optimize_is_refused_inside_a_transaction(path: Path) -> None:
    with qvec.create(path, DIM) as db:
        with db.transaction(), pytest.raises(qvec.InputError, match="outside"):
            db.optimize()
        with qvec.open(path, "r") as reader, pytest.raises(qvec.ReadOnlyError):
            reader.optimize()


@pytest.mark.parametrize("layout", ["compact", "packed"])
def test_a_graph_with_low_recall_is_rebuilt(path: Path, rng: np.random.Generator, layout: Any) -> None:
    db, model = filled(path, rng, qvec.HNSW(m=16, ef_construction=40, layout=layout))
    with db:
        n_columns = len(collect(db._store).column_bytes)
        (before,) = db.generations()
        db.optimize()
        assert [made.number for made in db.generations()] == [before.number]  # nothing was wrong with the graph
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("qvec.maintenance.requantize.MIN_AGREEMENT", 2.0)
            db.optimize()
        (after,) = db.generations()
        assert (after.id, after.code) == (before.id, before.code)
        assert after.number != before.number
        assert_sound(db, model)
        db.compact()
        assert len(collect(db._store).column_bytes) == n_columns  # nothing is left of the old graph
        for changed in (db, model):
            changed.add(np.ones((70, DIM)) * np.arange(1, 71)[:, None], _fresh(70, False))  # type: ignore[attr-defined]
        assert_sound(db, model)


@pytest.mark.slow
def test_a_rebuild_continues_after_the_death_of_a_process(path: Path, rng: np.random.Generator) -> None:
    db, model = filled(path, rng, qvec.HNSW(m=8, ef_construction=40))
    db.optimize()
    db.close()
    settings = "qvec.maintenance.requantize.MIN_AGREEMENT = 2.0; qvec.maintenance.requantize.CODED_ROWS = 100"
    script = KILLED.replace("steps = 0", f"steps = 0; {settings}")
    script = script.replace(
        "qvec.maintenance.optimize\n", "qvec.maintenance.requantize, qvec.maintenance.optimize\n", 1
    )
    for step in (1, 3):
        assert subprocess.run([sys.executable, "-c", script, str(path), str(step)], check=False).returncode == -9
        with qvec.open(path) as again:
            assert_sound(again, model)
            assert len(again.generations()) == 2
    with qvec.open(path) as again:
        again.optimize()
        assert len(again.generations()) == 1
        assert_sound(again, model)


@pytest.mark.parametrize("index", ["hnsw", "packed"])
def test_a_large_collection_is_not_rewritten_for_a_few_deleted_rows(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    monkeypatch.setattr(optimize, "LARGE_ROWS", 1000)
    x = clustered(rng, N, DIM)
    with qvec.create(path, DIM, index=index) as db:
        db.add(x)
        db.delete([*range(0, 1400, 200), N - 1])  # 8 of 1500: more than one of 200
        db.optimize()
        with db._store.read() as snap:
            assert (snap.state.n, snap.state.index.tombstones) == (N - 1, 0)  # only the last row is gone
        db.delete([1, 2])
        before = db.stats().txn_id
        db.optimize()
        with db._store.read() as snap:
            assert snap.state.index.tombstones == 2
        assert db.stats().txn_id == before  # nothing was written
        db.add(x[:6])  # in the unused rows
        assert rows_of(db) == N - 1
        db.delete(list(range(3, 300)))
        db.optimize()
        assert rows_of(db) == len(db)
        assert db.verify(deep=True) == []
