"""Searches and stored content against the model: combinations of metric, code, index, originals and kind of ids."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.collection_and_model import CODES, DIM, INDEXES, METRICS, make
from helpers.collection_model import (
    Model,
    assert_hits_are_exact,
    assert_hits_are_sound,
    assert_same_content,
    assert_vector,
)

# Without originals: largest error of a distance as a share of |q| |x|; None where the code only ranks.
CODE_ERROR = {
    "f32": 0.0,
    "f16": 2e-3,
    "int8": 0.03,
    "int8-static": 0.03,
    "int8-percentile": 0.2,
    "int8-rotated": 0.03,
}
DECODE_ERROR = {
    "f32": 0.0,
    "f16": 1e-3,
    "int8": 0.03,
    "int8-static": 0.03,
    "int8-percentile": 0.2,
    "int8-rotated": 0.03,
}


@pytest.mark.parametrize(("metric", "code", "index"), [*product(METRICS, CODES, INDEXES)])
def test_exact_search_equals_brute_force_for_every_code_and_index(
    path: Path, metric: Any, code: str, index: str
) -> None:
    pair = make(path, metric=metric, code=code, index=index)
    with pair.db as db:
        hits = db.search(pair.data[-50:], 10, exact=True)
        assert_hits_are_exact(pair.model, pair.data[-50:], 10, hits)
        assert db.verify() == []


@pytest.mark.parametrize(("metric", "code", "index"), [*product(METRICS, CODES, INDEXES)])
def test_search_equals_brute_force_once_enough_candidates_are_reranked(
    path: Path, metric: Any, code: str, index: str
) -> None:
    pair = make(path, metric=metric, code=code, index=index)
    with pair.db as db:
        options: dict[str, Any] = {} if code == "f32" else {"oversample": 30}
        hits = db.search(pair.data[-50:], 10, ef=300, **options)
        assert_hits_are_exact(pair.model, pair.data[-50:], 10, hits)


@pytest.mark.parametrize(("code", "index", "ids"), [*product(("f16", "int8", "binary"), INDEXES, ("int64", "str"))])
def test_float16_originals_are_used_for_reranking_and_returned(path: Path, code: str, index: str, ids: Any) -> None:
    pair = make(path, code=code, index=index, originals="f16", ids=ids)
    with pair.db as db:
        assert_hits_are_exact(pair.model, pair.data[:20], 5, db.search(pair.data[:20], 5, exact=True))
        assert_same_content(db, pair.model)


@pytest.mark.parametrize(("metric", "code", "index"), [*product(METRICS, CODE_ERROR, INDEXES)])
def test_without_originals_distances_are_within_the_error_of_the_code(
    path: Path, metric: Any, code: str, index: str
) -> None:
    pair = make(path, metric=metric, code=code, index=index, originals="none")
    with pair.db as db:
        hits = db.search(pair.data[-50:], 10, ef=300)
        assert_hits_are_sound(pair.model, pair.data[-50:], 10, hits, error=2 * CODE_ERROR[code])
        assert (hits.counts == 10).all()
        ids = [pair.name(i) for i in range(20)]
        if metric != "cosine" or code == "f32":
            for found, expected in zip(db.get(ids).vectors, pair.data, strict=False):
                assert_vector(found, expected.astype(np.float64), DECODE_ERROR[code])


@pytest.mark.parametrize(
    ("metric", "code"), [*product(("cosine", "l2"), ("binary", "binary-plain")), ("ip", "binary-plain")]
)
def test_binary_codes_without_originals_rank_a_vector_itself_first(path: Path, metric: Any, code: str) -> None:
    pair = make(path, metric=metric, code=code, index="flat", originals="none")
    with pair.db as db:
        hits = db.search(pair.data[:50], 10)
        assert (np.diff(hits.distances, axis=1) >= 0).all()
        assert (hits.counts == 10).all()
        own = hits.ids == np.array([[pair.name(i)] for i in range(50)])
        assert (hits.distances[:, 0] == np.where(own, hits.distances, np.inf).min(axis=1)).all()


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize("code", list(CODES))
def test_get_scan_len_and_in_agree_with_the_model_also_after_reopening(path: Path, code: str, ids: Any) -> None:
    pair = make(path, code=code, index="hnsw", ids=ids)
    with pair.db as db:
        assert_same_content(db, pair.model)
    with qvec.open(path) as db:
        assert_same_content(db, pair.model)
        assert_hits_are_exact(pair.model, pair.data[0], 10, db.search(pair.data[0], 10, exact=True))


@pytest.mark.parametrize(("metric", "index", "ids"), [*product(METRICS, INDEXES, ("int64", "str"))])
def test_delete_and_upsert_change_a_collection_as_the_model(path: Path, metric: Any, index: str, ids: Any) -> None:
    pair = make(path, metric=metric, code="int8", index=index, ids=ids)
    with pair.db as db:
        gone = [pair.name(i) for i in range(0, 300, 4)]
        assert db.delete(gone) == pair.model.delete(gone) == 75
        moved = [pair.name(i) for i in range(2, 340, 3)]
        x, payload = pair.data[-len(moved) :], [{"new": i} for i in range(len(moved))]
        found = db.upsert(x, moved, payload)
        assert (found.ids.tolist(), found.added, found.replaced, found.skipped) == pair.model.add(x, moved, payload)
        assert_same_content(db, pair.model)
        hits = db.search(pair.data[-50:], 10, ef=400, oversample=30)
        assert_hits_are_exact(pair.model, pair.data[-50:], 10, hits)
        assert gone[0] not in db
        assert db.stats().count == len(pair.model.rows)
        assert db.verify() == []


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("exact", [False, True])
def test_a_k_above_the_number_of_vectors_returns_all(path: Path, index: str, exact: bool) -> None:
    pair = make(path, code="int8", index=index, n=40)
    with pair.db as db:
        assert_hits_are_exact(pair.model, pair.data[:3], 60, db.search(pair.data[:3], 60, exact=exact))
        gone = [pair.name(i) for i in range(35)]
        assert db.delete(gone) == pair.model.delete(gone)
        assert_hits_are_exact(pair.model, pair.data[:3], 10, db.search(pair.data[:3], 10, exact=exact))
        assert_hits_are_exact(pair.model, pair.data[0], 10, db.search(pair.data[0], 10, exact=exact))
        assert db.delete([pair.name(i) for i in range(40)]) == 5
        assert db.search(pair.data[0], 3, exact=exact).counts == 0
        assert len(db) == 0


@pytest.mark.parametrize("ids", ["int64", "str"])
def test_an_empty_collection_answers_with_no_hits(path: Path, ids: Any) -> None:
    with qvec.create(path, DIM, metric="l2", ids=ids) as db:
        model, query = Model(DIM), np.ones(DIM, np.float32)
        assert_hits_are_exact(model, query, 3, db.search(query, 3))
        assert_hits_are_exact(model, np.ones((2, DIM)), 3, db.search(np.ones((2, DIM)), 3))
        assert db.search(np.empty((0, DIM)), 3).ids.shape == (0, 3)
        assert_same_content(db, model)
        assert list(db.scan()) == []
        assert db.delete([1] if ids == "int64" else ["1"]) == 0
        assert db.verify() == []


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize("query", [[0.5] * DIM, np.full(DIM, 0.5), np.full((1, DIM), 0.5), np.full((3, DIM), 0.5)])
def test_one_query_returns_1d_arrays_and_a_batch_returns_2d_arrays(path: Path, query: Any, ids: Any) -> None:
    pair = make(path, code="int8", ids=ids)
    with pair.db as db:
        hits = db.search(query, 4)
        assert hits.ids.shape == hits.distances.shape == hits.scores.shape == (*np.shape(query)[:-1], 4)
        assert np.shape(hits.counts) == np.shape(query)[:-1]
        assert hits.distances.dtype == hits.scores.dtype == np.float32
        assert_hits_are_sound(pair.model, query, 4, hits)


@pytest.mark.parametrize("index", INDEXES)
def test_a_batch_finds_what_its_queries_find_one_by_one(path: Path, index: str) -> None:
    pair = make(path, code="int8", index=index)
    with pair.db as db:
        batch = db.search(pair.data[-50:], 5)
        for row, query in enumerate(pair.data[-50:]):
            single = db.search(query, 5)
            assert single.ids.tolist() == batch.ids[row].tolist()
            assert single.distances.tolist() == batch.distances[row].tolist()
