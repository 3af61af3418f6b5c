"""Rows that nothing points at any more are given to new vectors, and nothing remembers what they held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated import clustered
from model import Model, assert_hits_are_exact, assert_same_content

import qvec

DIM, N = 16, 600


def collection(path: Path, **options: Any) -> qvec.Collection:
    return qvec.create(path, DIM, metric="l2", **({"index": "flat"} | options))


def rows_of(db: qvec.Collection) -> int:
    with db._store.read() as snap:
        return int(snap.state["n"])


@pytest.mark.parametrize("strings", [False, True])
def test_deleted_rows_are_written_over_by_later_vectors(path: Path, rng: np.random.Generator, strings: bool) -> None:
    x, model = clustered(rng, 3 * N, DIM), Model(DIM, "l2")

    def names(ids: Any) -> list[Any]:
        return [f"id {i}" for i in ids] if strings else list(ids)

    with collection(path, ids="str" if strings else "int64") as db:
        for calls in (db, model):
            calls.add(x[:N], names(range(N)), [{"row": i} for i in range(N)])
            calls.delete(names(range(0, N, 3)))
            calls.add(x[N : N + 250], names(range(1000, 1250)), [{"row": i} if i % 2 else None for i in range(250)])
        assert rows_of(db) == N + 50
        assert db.verify() == []
        assert_same_content(db, model)
        assert_hits_are_exact(model, x[:50], 10, db.search(x[:50], 10))
    with qvec.open(path, "r") as reader:
        assert_same_content(reader, model)


def test_replacing_vectors_takes_turns_between_two_sets_of_rows(path: Path, rng: np.random.Generator) -> None:
    x = clustered(rng, N, DIM)
    with collection(path) as db:
        db.add(x)
        for _ in range(20):
            last = rng.permutation(x)
            db.upsert(last, range(N), [{"i": i} for i in range(N)])
        assert rows_of(db) == 2 * N
        assert db.verify() == []
        assert (db.get(range(N)).vectors == last).all()


def test_a_collection_that_is_emptied_starts_over(path: Path, rng: np.random.Generator) -> None:
    x = clustered(rng, N, DIM)
    for index in ("flat", qvec.HNSW(m=8, ef_construction=40)):
        with collection(path.with_suffix(f".{index!s:.4}"), index=index) as db:
            db.add(x)
            assert db.delete(range(N)) == N
            assert (len(db), rows_of(db)) == (0, 0)
            assert db.verify() == []
            db.add(x[:100])
            assert (rows_of(db), db.search(x[3], 1).ids.tolist()) == (100, [N + 3])
            assert db.verify() == []


def test_a_reused_row_takes_the_codes_of_generations_left_behind_with_it(path: Path, rng: np.random.Generator) -> None:
    x = clustered(rng, 2 * N, DIM)
    with collection(path, code="int8") as db:
        db.add(x[:N])
        db.requantize("f16")
        assert [made.rows for made in db.calibrations()] == [N, N]
        db.delete([5])
        db.add(x[N : N + 1], [5000])
        assert [made.rows for made in db.calibrations()] == [0, N]
        assert "codes" not in db._store.stats()["column_bytes"]
        db.rollback(0)
        assert db.stats().code == "int8"
        assert db.verify() == []
        assert db.search(x[N], 1, exact=False, rescore=False).ids.tolist() == [5000]


def test_a_graph_left_behind_is_built_again_when_its_rows_were_reused(path: Path, rng: np.random.Generator) -> None:
    x = clustered(rng, 2 * N, DIM)
    with collection(path, code="int8", index=qvec.HNSW(m=8, ef_construction=40)) as db:
        db.add(x[:N])
        db.requantize("f16", relink=True)
        db.delete(range(N))  # every row may be reused
        db.add(x[N:])
        db.rollback(0)
        assert db.verify() == []
        assert (db.search(x[N:], 1, ef=200).ids[:, 0] == np.arange(N, 2 * N)).mean() > 0.99


def test_no_row_is_reused_while_a_generation_is_being_built(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = clustered(rng, 2 * N, DIM)
    monkeypatch.setattr("qvec.generations.STEP", 200)
    with collection(path, code="int8") as db:
        db.add(x[:N])

        def change(done: int, total: int) -> None:
            if done == 400:
                db.delete(range(100))
                db.add(x[N : N + 50], range(5000, 5050))
                assert rows_of(db) == N + 50

        db.requantize("f16", progress=change)
        assert db.verify() == []
        db.add(x[N + 50 : N + 100], range(6000, 6050))
        assert rows_of(db) == N + 50


def test_a_generation_that_holds_up_a_quarter_of_the_rows_starts_over(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = clustered(rng, 2 * N, DIM)
    monkeypatch.setattr("qvec.generations.STEP", 100)
    steps: list[int] = []
    with collection(path, code="int8") as db:
        db.add(x[:N])

        def change(done: int, total: int) -> None:
            steps.append(done)
            if steps == [100, 200]:
                db.delete(range(200))
                db.add(x[N : N + 200], range(5000, 5200))
                assert rows_of(db) == N

        db.requantize("f16", progress=change)
        assert steps[:8] == [100, 200, 100, 200, 300, 400, 500, 600]
        assert db.verify() == []
        assert db.search(x[N], 1, rescore=False).ids.tolist() == [5000]
