"""Recall on generated clusters and on the demo's passages and questions; every vector is found by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.datasets import exact_knn
from qvec.demo.corpus import data_folder

DIM = 48
N = 5000
Float32 = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def clusters() -> tuple[Float32, Float32]:
    x = clustered(np.random.default_rng(3), N + 200, DIM, centroids=100, spread=0.6)
    return x[:N], x[N:]


@pytest.fixture(scope="module")
def demo() -> tuple[Float32, Float32]:
    folder = data_folder()
    passages, questions = (
        np.load(str(folder / f"{name}.npy")).astype(np.float32) for name in ("passages", "questions")
    )
    return passages, questions[:200]


def recall_at_10(db: qvec.Collection, data: tuple[Float32, Float32], **options: Any) -> float:
    """Share of the true 10 nearest that a search for 10 finds."""
    base, queries = data
    true, _ = exact_knn(base, queries, 10, db.stats().metric)
    found = db.search(queries, 10, **options).ids
    return recall(found, true)


def build(path: Path, base: Float32, **options: Any) -> qvec.Collection:
    db = qvec.create(path, base.shape[1], **options)
    db.add(base, threads=2)
    return db


# Least recall@10 by code, re-ranked or not: on clusters, and on the demo's passages.
LEAST_RECALL = [
    ("f32", "hnsw", False, 0.99, 0.99),
    ("f16", "hnsw", False, 0.98, 0.98),
    ("int8", "flat", False, 0.95, 0.96),
    ("int8", "hnsw", False, 0.95, 0.96),
    ("int8", "flat", True, 0.999, 0.999),
    ("int8", "hnsw", True, 0.99, 0.99),
    ("binary", "flat", True, 0.95, 0.95),
    ("binary", "hnsw", True, 0.95, 0.95),
]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize(("code", "index", "rerank", "floor", "_"), LEAST_RECALL)
def test_recall_on_clusters_is_above_its_limit(
    path: Path,
    clusters: tuple[Float32, Float32],
    metric: Any,
    code: str,
    index: str,
    rerank: bool,
    floor: float,
    _: float,
) -> None:
    options = {"oversample": 30.0 if code == "binary" else "auto" if rerank else 0}
    with build(path, clusters[0], metric=metric, code=code, index=index) as db:
        assert recall_at_10(db, clusters, ef=300, **options) >= floor


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "floor"), [("compact", 0.95), ("packed", 0.8)])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_recall_under_ip_does_not_depend_on_equal_lengths(path: Path, layout: Any, floor: float, spread: float) -> None:
    rng = np.random.default_rng(3)
    x, q = (rng.standard_normal((n, 64), np.float32) for n in (5000, 100))
    x *= np.exp(spread * rng.standard_normal((5000, 1))).astype(np.float32)
    with build(path, x, metric="ip", code="int8", index=qvec.HNSW(layout=layout)) as db:
        assert recall_at_10(db, (x, q), ef=200) >= floor


@pytest.mark.slow
@pytest.mark.parametrize(("code", "index", "rerank", "_", "floor"), LEAST_RECALL)
def test_recall_on_real_questions_is_above_its_limit(
    path: Path, demo: tuple[Float32, Float32], code: str, index: str, rerank: bool, _: float, floor: float
) -> None:
    options = {"oversample": 20.0 if code == "binary" else "auto" if rerank else 0}
    with build(path, demo[0], code=code, index=index) as db:
        assert recall_at_10(db, demo, ef=300, **options) >= floor


@pytest.mark.slow
@pytest.mark.parametrize("code", ["f32", "int8", "binary"])
@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_every_stored_vector_is_found_by_itself(
    path: Path, demo: tuple[Float32, Float32], code: str, index: str
) -> None:
    base = np.unique(demo[0], axis=0)
    with build(path, base, code=code, index=index) as db:
        hits = db.search(base, 1, ef=100)
        assert (hits.ids[:, 0] == np.arange(len(base))).mean() >= 0.999
        assert (hits.distances[:, 0] < 1e-5).mean() >= 0.999


@pytest.mark.parametrize("code", ["f32", "int8", "binary"])
def test_five_hundred_equal_vectors_do_no_harm_to_the_others(path: Path, code: str) -> None:
    x = clustered(np.random.default_rng(4), 2000, DIM)
    x[500:1000] = x[0]
    with build(path, x, metric="l2", code=code, index="hnsw") as db:
        assert db.verify() == []
        others = np.r_[1:500, 1000:2000]
        hits = db.search(x[others], 1, ef=200, oversample=50.0)
        assert (hits.ids[:, 0] == others).mean() >= 0.998
        same = db.search(x[0], 600, ef=1000, oversample=3.0)
        assert (same.distances == 0).sum() >= 450  # lists of 32 cannot name all of 500 at one place
        assert (db.search(x[0], 10).distances == 0).all()


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("code", ["f32", "f16", "int8", "binary"])
@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_zero_vectors_do_no_harm(path: Path, metric: Any, code: str, index: str) -> None:
    x = clustered(np.random.default_rng(4), 600, DIM)
    x[::20] = 0
    with build(path, x, metric=metric, code=code, index=index) as db:
        assert db.verify() == []
        hits = db.search(x[:100], 10, exact=True)
        assert np.isfinite(hits.distances).all()
        zero = db.search(np.zeros(DIM), 10, ef=400, oversample=50.0)
        assert (zero.distances == 0).all()
        if metric == "l2":
            assert zero.counts == 10
            assert (zero.ids % 20 == 0).all()


def one_by_one(db: qvec.Collection, x: Float32) -> None:
    for row in x[:300]:
        db.add(row)
    db.add(x[300:])


def in_batches_of(size: int) -> Callable[[qvec.Collection, Float32], None]:
    def fill(db: qvec.Collection, x: Float32) -> None:
        for i in range(0, len(x), size):
            db.add(x[i : i + size])

    return fill


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("fill", [lambda db, x: db.add(x), one_by_one, in_batches_of(7), in_batches_of(64)],
                         ids=["at once", "one by one", "by 7", "by 64"])  # fmt: skip
def test_the_graph_reaches_every_vector_for_any_sequence_of_batches(path: Path, metric: Any, fill: Any) -> None:
    x = clustered(np.random.default_rng(8), 1500, 16)
    with qvec.create(
        path, 16, metric=metric, code="int8", index=qvec.HNSW(m=8, ef_construction=60), durability="relaxed"
    ) as db:
        fill(db, x)
        assert db.verify() == []
        if metric != "ip":  # under inner product a longer vector may lie nearer than oneself
            assert (db.search(x, 1, ef=100).ids[:, 0] == np.arange(len(x))).mean() >= 0.998
        assert recall_at_10(db, (x, x[:200] + np.float32(0.05)), ef=200) >= 0.99


@pytest.mark.slow
def test_recall_holds_through_deletions_and_replacements(path: Path) -> None:
    x = clustered(np.random.default_rng(9), 4000, 32, centroids=50)
    with build(path, x[:3000], metric="l2", code="int8", index="hnsw") as db:
        for turn in range(10):
            db.delete(np.arange(100 * turn, 100 * turn + 50))
            db.upsert(x[3000 + 100 * turn : 3100 + 100 * turn], np.arange(1000 + 100 * turn, 1100 + 100 * turn))
        live = np.concatenate([records.ids for records in db.scan()])
        assert len(live) == len(db) == 2500
        current = db.get(live).vectors
        hits = db.search(x[:200], 10, ef=200)
        true, _ = exact_knn(current, x[:200], 10, "l2")
        found = [len(np.intersect1d(a, live[b])) for a, b in zip(hits.ids, true, strict=True)]
        assert np.mean(found) / 10 >= 0.99
        assert db.verify() == []
