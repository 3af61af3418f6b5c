"""Searches by text, sparse vectors and vectors together: fusion, partial scores, filters, groups, diversity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.text_model import bm25, random_texts
from qvec.search.fusion import fuse

N, DIM = 400, 8
TEXTS = random_texts(N, 60, 15, 1)
RNG = np.random.default_rng(5)
X = RNG.standard_normal((N, DIM)).astype(np.float32)
SPARSE = [
    dict(zip(RNG.choice(50, 6, replace=False).tolist(), RNG.gamma(2, 1, 6).tolist(), strict=True)) for _ in range(N)
]


@pytest.fixture(scope="module")
def db(tmp_path_factory: Any) -> Any:
    path: Path = tmp_path_factory.mktemp("hybrid") / "a.qvec"
    fields = {"body": "text", "title": "text", "splade": "sparse", "n": "int"}
    with qvec.create(path, DIM, fields=fields, index="flat", code="f32") as made:
        payloads = [{"body": " ".join(t), "title": f"t{i % 4}", "n": i % 10} for i, t in enumerate(TEXTS)]
        made.add(X, payloads=payloads, sparse={"splade": SPARSE})
        yield made


def cosines(query: np.ndarray) -> np.ndarray:
    return X @ query / np.linalg.norm(X, axis=1) / np.linalg.norm(query)


def ranked(scores: dict[int, float], depth: int) -> list[int]:
    return sorted(scores, key=lambda i: (-scores[i], i))[:depth]


def expected(
    query: np.ndarray, text: list[str], weights: dict[str, float] | None, allowed: set[int]
) -> dict[int, float]:
    """Fused scores by their definition."""
    cos = cosines(query)
    lists = {
        "vector": {i: float(cos[i]) for i in allowed},
        "text": bm25(dict(enumerate(TEXTS)), text, allowed=allowed),
    }
    fused: dict[int, float] = {}
    for name, scores in lists.items():
        best = ranked(scores, 100)
        for rank, i in enumerate(best, 1):
            low, high = scores[best[-1]], scores[best[0]]
            part = (
                1 / (60 + rank)
                if weights is None
                else weights[name] * ((scores[i] - low) / (high - low) if high > low else 1)
            )
            fused[i] = fused.get(i, 0.0) + part
    return fused


@pytest.mark.parametrize("fusion", ["rrf", "weighted", {"vector": 0.7, "text": 0.3}])
@pytest.mark.parametrize(
    "where", [None, {"n": {"$lt": 5}}, {"n": 4}, {"$and": [{"n": 4}, {"title": {"$match": "t0"}}]}]
)
def test_fused_hits_are_those_of_the_definition(db: qvec.Collection, fusion: Any, where: Any) -> None:
    query, text = X[3] + 0.5, ["w1", "w5", "w30"]
    hits = db.search(query, 10, text=" ".join(text), text_weights={"title": 0}, fusion=fusion, where=where)
    kept = {
        None: lambda i: True,
        2: lambda i: i % 10 < 5,
        1: lambda i: i % 10 == 4,
        3: lambda i: i % 10 == 4 and i % 4 == 0,
    }
    key = None if where is None else 3 if "$and" in where else 1 if where["n"] == 4 else 2
    allowed = {i for i in range(N) if kept[key](i)}
    weights = None if fusion == "rrf" else {"vector": 1.0, "text": 1.0} if fusion == "weighted" else fusion
    scores = expected(query, text, weights, allowed)
    best = sorted(scores.values(), reverse=True)[:10]
    np.testing.assert_allclose(hits.scores[: len(hits)], best, rtol=1e-4, atol=1e-6)
    assert len(hits) == min(10, len(allowed))


def test_hits_have_their_score_by_each_input(db: qvec.Collection) -> None:
    hits = db.search(X[0], 20, text="w1 w9", sparse=SPARSE[0])
    text = bm25(dict(enumerate(TEXTS)), ["w1", "w9"])
    assert set(hits.parts) == {"vector", "text", "sparse"}
    for hit in hits:
        assert hit.parts["vector"] is None or abs(hit.parts["vector"] - cosines(X[0])[hit.id]) < 1e-4
        assert hit.parts["text"] is None or abs(hit.parts["text"] - text[hit.id]) < 1e-4
    assert any(hit.parts["sparse"] is not None for hit in hits)
    assert hits.to_list()[0]["parts"] == hits[0].parts


def test_each_input_alone_has_its_own_scores(db: qvec.Collection) -> None:
    text = db.search(text="w1", text_weights={"body": 2.0}, k=5)
    assert abs(text.scores[0] - 2 * max(bm25(dict(enumerate(TEXTS)), ["w1"]).values())) < 1e-4
    sparse = db.search(sparse={"splade": SPARSE[7]}, k=5)
    products = [sum(SPARSE[7].get(i, 0) * w for i, w in row.items()) for row in SPARSE]
    np.testing.assert_allclose(sparse.scores, sorted(products, reverse=True)[:5], rtol=2e-2)
    assert sparse.ids[0] == int(np.argmax(products))


def test_pages_batches_and_filters_agree_with_single_searches(db: qvec.Collection) -> None:
    texts, queries = ["w1 w2", "w3", "t1 w4"], X[:3]
    batch = db.search(queries, 6, text=texts)
    filtered = db.search(queries, 6, text=texts, where=[{"n": 1}, None, {"n": 3}])
    for i in range(3):
        one = db.search(queries[i], 6, text=texts[i])
        assert batch[i].ids.tolist() == one.ids.tolist()
        assert db.search(queries[i], 3, text=texts[i], offset=3).ids.tolist() == one.ids[3:].tolist()
        alone = db.search(queries[i], 6, text=texts[i], where=[{"n": 1}, None, {"n": 3}][i])
        assert filtered[i].ids.tolist() == alone.ids.tolist()
    assert db.search(queries, 6, text=texts, threads=2).ids.tolist() == batch.ids.tolist()


def test_groups_have_one_hit_for_each_value(db: qvec.Collection) -> None:
    hits = db.search_groups(X[0], 5, group_by="n", text="w1 w2")
    assert len(set(hits.groups)) == 5
    assert sorted(hits.scores.tolist(), reverse=True) == hits.scores.tolist()
    best = db.search(X[0], 1, text="w1 w2")
    assert hits.ids[0] == best.ids[0]


def test_diverse_hits_begin_with_the_best(db: qvec.Collection) -> None:
    plain, diverse = db.search(text="w1 w2", k=8), db.search(text="w1 w2", k=8, mmr=0.3)
    assert diverse.ids[0] == plain.ids[0]
    assert len(diverse) == 8
    assert db.search(text="w1 w2", k=8, mmr=1.0).ids.tolist() == plain.ids.tolist()


def test_highlights_are_the_words_of_the_query(db: qvec.Collection) -> None:
    for hit in db.search(text="W1 w2", k=5, highlight=True):
        text = hit.payload["body"]
        assert [text[a:b] for a, b in hit.highlights["body"]] == [word for word in text.split() if word in ("w1", "w2")]


def test_an_explanation_names_the_inputs(db: qvec.Collection) -> None:
    explanation = db.search(X[0], 5, text="w1", include=("explanation",)).explanation
    assert explanation.strategy == "flat+text"
    assert explanation.evaluations > N // 2
    assert db.search(text="w1", k=5, include=("explanation",)).explanation.strategy == "text"


def test_equal_ranks_are_fused_in_the_order_of_rows() -> None:
    rows = np.array([5, 2]), np.array([2.0, 1.0], np.float32)
    other = np.array([2, 5]), np.array([9.0, 1.0], np.float32)
    assert fuse({"vector": rows, "text": other}, "rrf", 5)[0].tolist() == [2, 5]


# --- sparse vectors ---


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: float("nan")}, "not finite"),
        ({1: -0.5}, "negative weight"),
        ({-1: 1.0}, "the id -1"),
        ({2**32: 1.0}, "not from 0 to 4294967295"),
        (([3, 3], [1.0, 2.0]), "the id 3 twice"),
        (([3], [1.0, 2.0]), "one weight for each id"),
        ({1: 1e9}, "the limit is 65504"),
        ("text", "must be a dict"),
        ({"a": 1.0}, "sparse names 'a', which is no sparse field; there are: splade"),
    ],
)
def test_wrong_sparse_vectors_are_refused(db: qvec.Collection, value: Any, message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        db.search(sparse=value)


@pytest.mark.parametrize("value", [{1: float("inf")}, {1: -0.5}, {2**32: 1.0}, ([3, 3], [1.0, 2.0]), {1: 1e9}])
def test_wrong_sparse_vectors_are_not_stored(db: qvec.Collection, value: Any) -> None:
    commit, stored = db.stats().txn_id, len(db)
    with pytest.raises(qvec.InputError, match=r"payload\[1\]\[.splade.\] has"):
        db.add(X[:2], payloads=[{"body": "new"}] * 2, sparse={"splade": [{5: 1.0}, value]})
    with pytest.raises(qvec.InputError):
        db.upsert(X[:1], [0], sparse={"splade": [value]})
    assert len(db) == stored
    assert db.count({"body": {"$match": "new"}}) == 0
    assert db.stats().txn_id == commit


def test_sparse_vectors_come_as_csr_rows_dicts_and_pairs(tmp_path: Path) -> None:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    dense = np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    forms = [
        scipy_sparse.csr_matrix(dense),
        [{1: 1.0, 3: 2.0}, {0: 3.0}, None],
        [([3, 1], [2.0, 1.0]), (np.array([0]), np.array([3.0])), {}],
    ]
    for i, rows in enumerate(forms):
        with qvec.create(tmp_path / f"{i}.qvec", DIM, fields={"s": "sparse"}) as made:
            made.add(X[:3], sparse={"s": rows})
            for query in ({3: 1.0, 0: 1.0}, scipy_sparse.csr_matrix([[1.0, 0, 0, 1.0]])):
                hits = made.search(sparse=query)
                assert hits.ids[:2].tolist() == [1, 0]
                assert len(hits) == 2
                np.testing.assert_allclose(hits.scores[:2], [3, 2], rtol=1e-2)
            assert len(made.search(sparse=scipy_sparse.csr_matrix(dense[:2]))) == 2
            made.update_payloads([1], [{"s": [[3], [9.0]]}])
            assert made.search(sparse={3: 1.0}).ids[0] == 1
            made.delete([1])
            assert made.verify() == []


def test_sparse_vectors_follow_changes(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, fields={"s": qvec.Sparse(originals="u8")}) as made:
        held: dict[int, dict[int, float]] = {}
        for step in range(12):
            ids = np.random.default_rng(step).choice(80, 20, replace=False).tolist()
            rows = [SPARSE[(step * 20 + i) % N] for i in range(20)]
            made.upsert(X[:20], ids, sparse={"s": rows})
            held.update(zip(ids, rows, strict=True))
            made.delete(gone := ids[:4])
            held = {i: row for i, row in held.items() if i not in gone}
        query = {3: 1.0, 7: 2.0, 20: 0.3}
        scores = {i: sum(query[j] * row.get(j, 0) for j in query) for i, row in held.items()}
        hits = made.search(sparse=query, k=10)
        np.testing.assert_allclose(hits.scores, sorted(scores.values(), reverse=True)[:10], rtol=3e-2)
        assert made.verify() == []
        made.optimize()
        assert made.verify() == []
        made.erase(sorted(held)[:5])
        assert made.verify() == []
        assert made.search(sparse=query, k=1).ids[0] in held
