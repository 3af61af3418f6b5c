"""New graphs are built from a snapshot: others write meanwhile, processes die, and no transaction takes long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.recall import search_recall
from helpers.vectors import clustered
from qvec.common.types import Float32Array
from qvec.maintenance import index_aside
from qvec.maintenance.index_aside import IndexAside
from qvec.maintenance.stats import collect

DIM, N = 32, 3000
INDEXES: dict[str, Any] = {
    "compact": qvec.HNSW(m=8, ef_construction=40),
    "packed": qvec.HNSW(m=16, ef_construction=40, layout="packed"),
}


class Dying(Exception):
    pass


@pytest.fixture
def x() -> Float32Array:
    return clustered(np.random.default_rng(1), N + 400, DIM)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several transactions store a column."""
    monkeypatch.setattr(index_aside, "STORED_BYTES", 1 << 16)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("index", list(INDEXES))
def test_rows_that_others_add_and_delete_during_the_build_are_in_the_new_graph(
    path: Path, x: Float32Array, index: str, metric: Any
) -> None:
    done: list[tuple[int, int]] = []
    with qvec.create(path, DIM, metric=metric, index=INDEXES[index]) as db, qvec.open(path, timeout=0.5) as other:
        db.add(x[:N])

        def write_once(now: int, total: int) -> None:
            if now > N and not [one for one in done if one[0] > N]:
                other.add(x[N:])
                other.delete(range(0, 300, 2))
                other.upsert(x[:50], range(1, 101, 2))
            done.append((now, total))

        db.requantize("int4", relink=True, progress=write_once)
        assert [one for one in done if one[0] > N]
        assert db.code == "int4"
        assert len(db) == N + 400 - 150
        assert db.verify(deep=True) == []
        if metric == "l2":
            assert search_recall(db, x[400:500]) > 0.9
        hits = db.search(x[N : N + 200], 1, exact=True)
        found = db.search(x[N : N + 200], 1)
        assert (hits.ids == found.ids).mean() > 0.9


def test_the_graph_is_stored_in_many_short_transactions(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, index=INDEXES["packed"]) as db:
        db.add(x[:N])
        before = db.stats().txn_id
        db.requantize("int4", relink=True)
        node_bytes = collect(db._store).column_bytes["nodes.1"]
        assert db.stats().txn_id - before > node_bytes // (2 * index_aside.STORED_BYTES)


@pytest.mark.parametrize("step", ["_store_columns", "_store_nodes", "_finish"])
def test_a_build_that_died_leaves_nothing_and_can_be_repeated(
    path: Path, x: Float32Array, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: object) -> bool:
        raise Dying

    with qvec.create(path, DIM, index=INDEXES["packed"]) as db:
        db.add(x[:N])
        for again in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(IndexAside, step, die)
                with pytest.raises(Dying):
                    db.requantize("int4", relink=True)
            assert "adjacency.1" in collect(db._store).column_bytes
            assert (db.code, db.verify(deep=True)) == ("int8", [])
            if again:
                db.requantize("int4", relink=True)
                assert (db.code, db.verify(deep=True)) == ("int4", [])
                db.rollback(0)
        db.drop_generation(1)
        assert not [name for name in collect(db._store).column_bytes if "." in name]
        assert db.verify(deep=True) == []


def test_an_unfinished_build_is_removed_with_its_generation(
    path: Path, x: Float32Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> bool:
        raise Dying

    with qvec.create(path, DIM, index=INDEXES["compact"]) as db:
        db.add(x[:N])
        with monkeypatch.context() as patch:
            patch.setattr(IndexAside, "_finish", die)
            with pytest.raises(Dying):
                db.requantize("int4", relink=True)
        db.drop_generation(1)
        assert not [name for name in collect(db._store).column_bytes if "." in name]
        assert db.verify(deep=True) == []


def test_a_generation_whose_earlier_graph_another_one_uses_gets_other_columns(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, index=INDEXES["compact"]) as db:
        db.add(x[:600])
        db.requantize("int4", relink=True)
        db.requantize("f16", relink=False)  # uses the graph of generation 1
        db.delete(range(300))
        db.optimize()
        db.add(x[600:900])  # in rows of deleted vectors: generation 1 loses its codes
        assert [made.rows for made in db.generations() if made.number == 1] == [0]
        db.requantize(generation=1, relink=True)
        assert (db.code, db.verify(deep=True)) == ("int4", [])
        db.rollback(2)
        assert (db.code, db.verify(deep=True)) == ("f16", [])
        assert search_recall(db, x[400:500]) > 0.9
        assert db.requantize("int8").number == 3 + 1  # the columns have used a number
