"""Rows that nothing references are reused for new vectors; no trace of their old content remains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.collection_model import Model, assert_hits_are_exact, assert_same_content
from helpers.vectors import clustered
from qvec.storage.stats import collect

DIM, N = 16, 600


def collection(path: Path, **options: Any) -> qvec.Collection:
    return qvec.create(path, DIM, metric="l2", **({"index": "flat"} | options))


def rows_of(db: qvec.Collection) -> int:
    with db._store.read() as snap:
        return int(snap.state.n)


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


@pytest.mark.slow
def test_replacing_vectors_alternates_between_two_sets_of_rows(path: Path, rng: np.random.Generator) -> None:
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


def test_reusing_a_row_discards_the_codes_of_inactive_generations(path: Path, rng: np.random.Generator) -> None:
    x = clustered(rng, 2 * N, DIM)
    with collection(path, code="int8") as db:
        db.add(x[:N])
        db.requantize("f16")
        assert [made.rows for made in db.generations()] == [N, N]
        db.delete([5])
        db.add(x[N : N + 1], [5000])
        assert [made.rows for made in db.generations()] == [0, N]
        assert "codes" not in collect(db._store).column_bytes
        db.rollback(0)
        assert db.stats().code == "int8"
        assert db.verify() == []
        assert db.search(x[N], 1, exact=False, oversample=0).ids.tolist() == [5000]


def test_an_inactive_graph_is_rebuilt_if_its_rows_were_reused(path: Path, rng: np.random.Generator) -> None:
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
    monkeypatch.setattr("qvec.maintenance.requantize.CODED_ROWS", 200)
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


def test_a_pending_generation_that_blocks_a_quarter_of_the_rows_starts_over(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = clustered(rng, 2 * N, DIM)
    monkeypatch.setattr("qvec.maintenance.requantize.CODED_ROWS", 100)
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
        assert db.search(x[N], 1, oversample=0).ids.tolist() == [5000]


@pytest.mark.slow
@pytest.mark.parametrize("index", [qvec.HNSW(m=8, ef_construction=60), qvec.HNSW(layout="packed"), qvec.IVF(nlist=12)])
@pytest.mark.parametrize("optimized", [False, True])
def test_filters_find_the_vectors_that_rows_were_given_to(path: Path, index: Any, optimized: bool) -> None:
    """Rows are reused many times. Filters never find indexed values of an earlier vector in the same row."""
    rng, dim, n = np.random.default_rng(8), 24, 1200
    fields: Any = {"word": "keyword", "year": "int", "tags": "keyword[]"}
    model: dict[int, tuple[Any, dict[str, Any]]] = {}
    with qvec.create(path, dim, metric="l2", index=index, fields=fields) as db:
        for turn in range(6):
            ids = list(range(turn * n, (turn + 1) * n)) if turn else list(range(2 * n))
            x = clustered(rng, len(ids), dim)
            payload = [{"word": f"w{(i + turn) % 7}", "year": turn, "tags": [f"t{i % 3}", f"u{turn}"]} for i in ids]
            ids = [10_000 * (turn + 1) + i for i in range(len(ids))]
            db.add(x, ids, payload)
            model |= zip(ids, zip(x, payload, strict=True), strict=True)
            gone = rng.choice(list(model), n, replace=False).tolist()
            assert db.delete(gone) == n
            for i in gone:
                del model[i]
            if optimized:
                db.optimize()
            for where, holds in (
                ({"word": "w3"}, lambda p: p["word"] == "w3"),
                ({"year": {"$lt": turn}}, lambda p, turn=turn: p["year"] < turn),
                (
                    {"tags": f"u{turn}", "word": {"$ne": "w1"}},
                    lambda p, t=turn: f"u{t}" in p["tags"] and p["word"] != "w1",
                ),
            ):
                matching = {i: v for i, (v, p) in model.items() if holds(p)}
                assert set(db.get(where=where).ids.tolist()) == set(matching)
                hits = db.search(x[:20], 10, where=where)
                assert hits.counts.tolist() == [min(10, len(matching))] * 20
                names = np.array(list(matching))
                if not len(names):
                    continue
                distances = ((np.array(list(matching.values()))[None] - x[:20, None]) ** 2).sum(-1)
                true = names[np.argsort(distances, axis=1)[:, :10]]
                found = [len(np.intersect1d(a, b)) / 10 for a, b in zip(hits.ids, true, strict=True)]
                assert np.mean(found) > 0.9
        assert db.verify() == []
        with db._store.read() as snap:
            assert snap.state.n <= 2 * n + n // 4  # rows were used again
