"""Options of a search compared with float64 brute force: max_distance, offset, mmr, by id, with vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.common.types import Metric

N, DIM, K = 400, 16, 7
RNG = np.random.default_rng(11)
X = (RNG.normal(size=(N, DIM)) + 0.3).astype(np.float32)
Q = (RNG.normal(size=(5, DIM)) + 0.3).astype(np.float32)
METRICS: list[Metric] = ["cosine", "ip", "l2"]
DELETED = [3, 77, 200]
Id = Any


@pytest.fixture(params=[(m, i, ids) for m in METRICS for i, ids in [("flat", "int64"), ("hnsw", "str")]], ids=str)
def db(request: pytest.FixtureRequest, path: Path) -> Any:
    metric, index, ids = request.param
    with qvec.create(path, DIM, metric=metric, index=index, ids=ids) as db:
        db.add(X, [name(db, i) for i in range(N)], [{"i": i} for i in range(N)])
        db.delete([name(db, i) for i in DELETED])
        yield db


def name(db: qvec.Collection, i: int) -> Id:
    return int(i) * 2 if db.stats().ids == "int64" else f"n{i}"


def number(id: Id) -> int:
    """The number from which ``name`` made an id."""
    return id // 2 if isinstance(id, int) else int(id.removeprefix("n"))


def nearest(db: qvec.Collection, q: Any, leave_out: Any = ()) -> tuple[list[Id], Any]:
    """All live ids by distance, and their distances, in float64."""
    live = np.setdiff1d(np.arange(N), [*DELETED, *leave_out])
    x, q = X[live].astype(np.float64), np.asarray(q, np.float64)
    metric = db.stats().metric
    if metric == "l2":
        far = ((x - q) ** 2).sum(axis=1)
    elif metric == "ip":
        far = -(x @ q)
    else:
        far = 1 - (x @ q) / (np.linalg.norm(x, axis=1) * np.linalg.norm(q))
    order = np.argsort(far, kind="stable")
    return [name(db, i) for i in live[order]], far[order]


def assert_hits(hits: qvec.Hits, ids: list[Id], distances: Any, k: int = K) -> None:
    """One query has these hits, and no hit in the places after them."""
    assert int(hits.counts) == len(ids)
    assert hits.ids.shape == hits.distances.shape == (k,)
    assert hits.ids[: len(ids)].tolist() == ids
    assert all(i in (-1, "") for i in hits.ids[len(ids) :].tolist())
    np.testing.assert_allclose(hits.distances[: len(ids)], distances, rtol=1e-4, atol=1e-5)
    assert np.isposinf(hits.distances[len(ids) :]).all()
    if "payloads" in hits.included:
        assert hits.payloads == [{"i": number(i)} for i in ids] + [None] * (k - len(ids))


def assert_batch_is_singles(db: qvec.Collection, **options: Any) -> None:
    batch = db.search(Q, K, ef=N, **options)
    singles = [db.search(q, K, ef=N, **options) for q in Q]
    assert batch.ids.tolist() == [hits.ids.tolist() for hits in singles]
    np.testing.assert_array_equal(batch.distances, [hits.distances for hits in singles])
    assert batch.counts.tolist() == [int(hits.counts) for hits in singles]
    assert batch.payloads == [hits.payloads for hits in singles]
    assert db.search(Q, K, ef=N, threads=2, **options).ids.tolist() == batch.ids.tolist()


def test_max_distance_limits_the_distance_of_hits(db: qvec.Collection) -> None:
    for q in Q:
        ids, far = nearest(db, q)
        for n in (0, 1, 4, K, 20):
            max_distance = float(far[n] + far[n - 1]) / 2 if n else float(far[0]) - 1e-3
            if n or max_distance > 0 or db.stats().metric == "ip":
                assert_hits(db.search(q, K, ef=N, max_distance=max_distance), ids[:n][:K], far[:n][:K])
        found = db.search(q, K, ef=N)
        again = db.search(q, K, ef=N, max_distance=float(found.distances[3]))
        assert again.ids[:4].tolist() == found.ids[:4].tolist()  # its own distance is within it
    middle = float(nearest(db, Q[0])[1][3])
    assert_batch_is_singles(db, max_distance=middle)


def test_an_offset_returns_the_next_page(db: qvec.Collection) -> None:
    for q in Q:
        ids, far = nearest(db, q)
        for offset in (0, 1, K, N - len(DELETED) - 2, N):
            page = slice(offset, offset + K)
            assert_hits(db.search(q, K, ef=N, offset=offset), ids[page], far[page])
    assert_batch_is_singles(db, offset=3)


def test_a_radius_and_an_offset_go_together(db: qvec.Collection) -> None:
    ids, far = nearest(db, Q[0])
    max_distance = float(far[8] + far[7]) / 2
    assert_hits(db.search(Q[0], K, ef=N, max_distance=max_distance, offset=5), ids[5:8], far[5:8])


def chosen_by_relevance(db: qvec.Collection, q: Any, weight: float, pool: int, k: int) -> list[int]:
    """Places among the nearest, by the definition of maximal marginal relevance, one pair at a time."""
    ids, _ = nearest(db, q)
    metric = db.stats().metric
    x = [X[number(i)].astype(np.float64) for i in ids[:pool]]

    def sim(a: Any, b: Any) -> float:
        if metric == "l2":
            return -float(((a - b) ** 2).sum())
        return float(a @ b) / (float(np.linalg.norm(a) * np.linalg.norm(b)) if metric == "cosine" else 1.0)

    chosen: list[int] = []
    while len(chosen) < k:
        gains = {
            i: weight * sim(q, x[i]) - (1 - weight) * max((sim(x[i], x[j]) for j in chosen), default=0.0)
            for i in range(pool)
            if i not in chosen
        }
        chosen.append(max(gains, key=lambda i: gains[i]))
    return chosen


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_marginal_relevance_chooses_by_its_definition(db: qvec.Collection, weight: float) -> None:
    for q in Q[:2]:
        ids, far = nearest(db, q)
        at = chosen_by_relevance(db, q.astype(np.float64), weight, 30, K + 2)
        hits = db.search(q, K, ef=N, mmr=(weight, 30), offset=2)
        assert_hits(hits, [ids[i] for i in at[2:]], far[at[2:]])
    assert_batch_is_singles(db, mmr=weight)


def test_marginal_relevance_of_weight_one_is_the_nearest(db: qvec.Collection) -> None:
    ids, far = nearest(db, Q[0])
    assert_hits(db.search(Q[0], K, ef=N, mmr=1), ids[:K], far[:K])
    at = chosen_by_relevance(db, Q[0].astype(np.float64), 0.2, 3, 3)
    hits = db.search(Q[0], K, ef=N, mmr=0.2, max_distance=float(far[2] + far[3]) / 2)
    assert_hits(hits, [ids[i] for i in at], far[at])


def test_a_stored_vector_is_asked_by_its_id_and_is_not_its_own_neighbor(db: qvec.Collection) -> None:
    for i in (0, 5, N - 1):
        ids, far = nearest(db, X[i], [i])
        assert_hits(db.search_by_id(name(db, i), k=K, ef=N), ids[:K], far[:K])
        assert_hits(db.search_by_id(name(db, i), k=K, ef=N, offset=2), ids[2 : K + 2], far[2 : K + 2])
    both = db.search_by_id([name(db, 5), name(db, 0)], k=K, ef=N)
    assert both.ids.shape == (2, K)
    assert both.ids[1].tolist() == db.search_by_id(name(db, 0), k=K, ef=N).ids.tolist()
    assert db.search_by_id([name(db, 5)], k=K).ids.shape == (1, K)
    everything = db.search_by_id(name(db, 5), k=N, ef=N)
    assert int(everything.counts) == N - len(DELETED) - 1


def test_hits_bring_the_stored_vectors(db: qvec.Collection) -> None:
    hits = db.search(Q, K, ef=N, include=["vectors"])
    assert hits.included == ("vectors",)
    assert hits.vectors.shape == (len(Q), K, DIM)
    for ids, vectors in zip(hits.ids, hits.vectors, strict=True):
        np.testing.assert_array_equal(vectors, db.get(ids.tolist()).vectors)
    one = db.search(Q[0], K, ef=N, include=("vectors", "payloads"), max_distance=float(hits.distances[0, 2]))
    assert one.included == ("payloads", "vectors")
    np.testing.assert_array_equal(one.vectors[:3], hits.vectors[0, :3])
    assert not one.vectors[3:].any()
    assert db.search(Q[0], K, include=()).included == ()


def test_an_exact_search_has_every_feature_too(db: qvec.Collection) -> None:
    ids, far = nearest(db, Q[1])
    assert_hits(db.search(Q[1], K, exact=True, offset=4), ids[4 : K + 4], far[4 : K + 4])
    ids, far = nearest(db, X[9], [9])
    assert_hits(db.search_by_id(name(db, 9), k=K, exact=True), ids[:K], far[:K])


def test_a_search_explains_itself_and_finds_the_same(db: qvec.Collection) -> None:
    live, flat = N - len(DELETED), db.stats().index == "flat"
    for queries in (Q[0], Q):
        n = 1 if queries.ndim == 1 else len(queries)
        hits, plain = db.search(queries, K, ef=50, include=("payloads", "explanation")), db.search(queries, K, ef=50)
        assert plain.included == ("payloads",)
        assert hits.ids.tolist() == plain.ids.tolist()
        np.testing.assert_array_equal(hits.distances, plain.distances)
        seen = hits.explanation
        assert seen is not None
        assert (seen.queries, seen.k, seen.strategy) == (n, K, "flat" if flat else "hnsw")
        assert (seen.reranked, seen.hops > 0) == (n * seen.candidates, not flat)
        assert seen.evaluations == n * live if flat else n * K < seen.evaluations <= n * N
        kernel = sum(seen.seconds[name] for name in ("prepare", "find", "rerank", "write"))
        assert all(seconds > 0 for seconds in seen.seconds.values())
        assert kernel + seen.seconds["refine"] + seen.seconds["read"] < seen.seconds["total"]
        assert f"evaluations  {seen.evaluations}" in str(seen)
    exact = db.search(Q[0], K, exact=True, include=("payloads", "explanation"), offset=2).explanation
    assert exact is not None
    assert (exact.strategy, exact.k, exact.hops, exact.evaluations, exact.reranked) == ("exact", K + 2, 0, live, 0)


def test_explained_searches_count_their_own_work_alone(db: qvec.Collection) -> None:
    first = db.search(Q[0], K, include=("payloads", "explanation")).explanation
    db.search(Q, K)
    again = db.search(Q[0], K, include=("payloads", "explanation")).explanation
    assert first is not None
    assert again is not None
    assert (first.hops, first.evaluations, first.reranked) == (again.hops, again.evaluations, again.reranked)


def test_codes_that_came_quantized_can_be_asked_by_id_and_for_diversity(path: Path) -> None:
    codes = np.random.default_rng(2).integers(-128, 128, (60, DIM // 8)).astype(np.int8)
    bits = np.unpackbits(codes.view(np.uint8) ^ 128, axis=1).astype(np.float64) * 2 - 1
    with qvec.create(path, DIM, metric="ip", code=qvec.Prequantized("binary"), originals="none") as db:
        db.add(codes)
        hits = db.search_by_id(4, k=59, include=["vectors"])
        np.testing.assert_array_equal(hits.scores, np.sort((np.delete(bits @ bits[4], 4) - DIM) / 2)[::-1])
        assert hits.vectors is not None
        np.testing.assert_array_equal(hits.vectors, codes[hits.ids])
        spread = db.search_by_id(4, k=5, mmr=0.0)
        assert spread.ids[0] == hits.ids[0]
        assert len(set(spread.ids.tolist())) == 5


def test_an_empty_collection_has_no_hits_of_any_kind(path: Path) -> None:
    with qvec.create(path, DIM) as db:
        hits = db.search(Q[0], K, max_distance=1.0, mmr=0.5, include=["vectors", "payloads"])
        assert (hits.ids.tolist(), int(hits.counts)) == ([-1] * K, 0)
        assert hits.vectors is not None
        assert hits.vectors.shape == (K, DIM)
        explanation = db.search(Q, K, include=("payloads", "explanation")).explanation
        assert explanation is not None
        assert (explanation.strategy, explanation.queries, explanation.evaluations) == ("empty", len(Q), 0)
        with pytest.raises(qvec.MissingIdError, match="no vector has the id 3"):
            db.search_by_id(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_distance": float("nan")}, "max_distance must be a number"),
        ({"max_distance": -0.5}, "max_distance must be a number from 0"),
        ({"max_distance": "near"}, "max_distance must be a number"),
        ({"offset": -1}, "offset must be an integer from 0 to"),
        ({"offset": 1.5}, "offset must be an integer"),
        ({"offset": 1_000_000}, "offset must be an integer from 0 to 999990"),
        ({"mmr": 1.5}, r"mmr must be a number from 0\.0 to 1\.0"),
        ({"mmr": True}, "mmr must be a number"),
        ({"mmr": (0.5, 5)}, r"n in mmr=\(weight, n\) must be an integer from 10 to"),
        ({"mmr": (0.5,)}, r"mmr must be a weight between 0 and 1, or \(weight, n\)"),
        ({"mmr": (1.5, 20)}, r"mmr must be a number from 0\.0 to 1\.0"),
        ({"include": ["texts"]}, "include must be a list of some of payloads, vectors, explanation"),
        ({"include": "vectors"}, "include must be a list"),
        ({"include": [["vectors"]]}, "include must be a list"),
    ],
)
def test_bad_options_are_named(path: Path, options: dict[str, Any], message: str) -> None:
    with qvec.create(path, DIM) as db:
        db.add(X)
        with pytest.raises(qvec.InputError, match=message):
            db.search(Q[0], **options)
        with pytest.raises(qvec.MissingIdError, match="no vector has the id 5000"):
            db.search_by_id([1, 5000])
