"""Limits of vectors, float16, and distances at the limits (docs/inputs.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import InputError

DIM = 4
X = np.arange(1, 13, dtype=np.float32).reshape(3, DIM)


# --- limits ---


def test_norms_are_limited_so_that_distances_are_finite(path: Path) -> None:
    with qvec.create(path, 400, metric="l2") as db:
        with pytest.raises(InputError, match=r"vectors\[1\] has the norm 1\.98e\+19; the limit is 1e\+18"):
            db.add(np.stack([np.ones(400), np.full(400, 9.9e17)]))
        largest = np.zeros((2, 400), np.float32)
        largest[:, 3] = [1e18, -1e18]
        db.add(largest)
        found = db.search(largest[0], 2)
        assert found.ids.tolist() == [0, 1]
        assert np.isfinite(found.distances).all()
        with pytest.raises(InputError, match=r"queries\[0\] has the norm"):
            db.search(np.full(400, 9.9e17, np.float32))


@pytest.mark.parametrize("index", [qvec.IVF(nlist=2), qvec.HNSW(), "flat"])
@pytest.mark.parametrize("code", ["f32", "int8", "rabitq4", qvec.Int8(scale="per_dim")])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_the_largest_vectors_are_stored_searched_and_verified(path: Path, index: Any, code: Any, metric: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (600, 400)) * 0.999e18 / 20
    with qvec.create(path, 400, metric=metric, code=code, index=index) as db:
        db.add(x)
        db.add(x[:512])
        db.add(np.tile(x[:1], (512, 1)))
        found = db.search(x[5], 3)
        assert {5, 605} <= set(found.ids.tolist())
        assert np.isfinite(found.distances).all()
        assert not db.verify()
        db.drift()
    with qvec.open(path, untrusted=True) as db:
        assert len(db) == 1624


# --- float16 ---


def exact_distances(metric: str, q: Any, x: Any) -> Any:
    a, b = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return ((a[:, None] - b[None]) ** 2).sum(-1)
    if metric == "cosine":
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return (metric == "cosine") - a @ b.T


HALVES = [{"code": "f16"}, {"code": "int8", "originals": "f16"}]


@pytest.mark.parametrize("options", HALVES)
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("size", [1e-13, 1e-9, 1e-5, 1.0, 7e4, 1e12, 1e17])
def test_float16_keeps_the_values_of_vectors_of_every_size(
    path: Path, options: dict[str, Any], metric: Any, size: float
) -> None:
    x = clustered(np.random.default_rng(3), 200, 16)
    x = (x * np.float64(size) / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    with qvec.create(path, 16, metric=metric, **options) as db:
        db.add(x)
        stored = db.get(range(200)).vectors
        assert (np.abs(stored - x) <= 2.0**-11 * np.abs(x)).all()
        found = db.search(x, 1, exact=True)
        exact = exact_distances(metric, x, stored)
        np.testing.assert_allclose(
            found.distances[:, 0], exact.min(axis=1), rtol=1e-5, atol=1e-6 * (metric == "cosine")
        )
        assert (found.ids[:, 0] == exact.argmin(axis=1)).mean() > 0.99
        assert not db.verify()


@pytest.mark.parametrize("options", HALVES)
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_float16_keeps_values_far_apart_and_the_smallest_floats(
    path: Path, options: dict[str, Any], metric: Any
) -> None:
    x = np.array([[70000, 1], [1e-9, 2e-9], [0, 0], [3e-5, -4e-5], [1e-40, 1e-45], [9e17, 1e5]], np.float32)
    with qvec.create(path, 2, metric=metric, **options) as db:
        db.add(x)
        stored = db.get(range(len(x))).vectors
        error = np.maximum(2.0**-11 * np.abs(x), 2.0**-39 * np.abs(x).max(axis=1, keepdims=True))
        assert (np.abs(stored - x) <= error).all()
        db.requantize("f16")
        assert not db.verify()


# --- distances ---


def test_cosine_distances_lie_between_0_and_2(path: Path) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((500, 300)).astype(np.float32)
    with qvec.create(path, 300, code="f32") as db:
        db.add(np.concatenate([x, -x]))
        for queries in (x, x[0]):
            distances = db.search(queries, 1000).distances
            assert distances.min() >= 0
            assert distances.max() <= 2


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("originals", ["f32", "f16"])
def test_a_largest_distance_of_zero_finds_the_query_itself(path: Path, metric: Any, originals: Any) -> None:
    x = clustered(np.random.default_rng(5), 300, 100)
    with qvec.create(path, 100, metric=metric, originals=originals) as db:
        db.add(x)
        found = db.search(x, 5, max_distance=0)
        assert found.ids[:, 0].tolist() == list(range(300))
        assert (found.counts == 1).all()
