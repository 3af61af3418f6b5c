"""Every kind of code in a collection: flat and graph, with and without originals, with truncated dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.quantizer_laws import clustered
from helpers.recall import recall, search_recall
from qvec.codes.configs import BFloat16, Binary, CodeConfig, Float16, Float32, Int4, Int8, Ternary
from qvec.codes.registry import make_config, train
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, Metric
from qvec.demo.corpus import data_folder

CODES: list[CodeConfig] = [
    BFloat16(),
    Int8(scale="global", method="mse"),
    Int8(scale="per_dim", symmetric=True),
    Int8(scale="per_dim", rounding="truncate"),
    Int4(),
    Int4(centroids=1),
    Int4(centroids=0),
    Int4(scale="per_dim"),
    Ternary(),
    Ternary(centroids=0),
]
TRUNCATED: list[CodeConfig] = [
    kind(dims=40)
    for kind in (Float32, Float16, BFloat16, Int8, Int4, Ternary, Binary)  # type: ignore[operator]
]
DIM = 72


@pytest.fixture(scope="module")
def data() -> Float32Array:
    return clustered(np.random.default_rng(3), 900, DIM)


def nearest(x: Float32Array, queries: Float32Array, metric: Metric, k: int) -> Any:
    q, v = queries.astype(np.float64), x.astype(np.float64)
    if metric == "cosine":
        q, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, v))
    far = -2 * q @ v.T + (np.square(v).sum(axis=1) if metric == "l2" else 0)
    return np.argsort(far, axis=1)[:, :k]


@pytest.mark.parametrize("index", ["flat", "hnsw"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("code", CODES, ids=repr)
def test_reranked_searches_find_the_nearest(
    tmp_path: Path, data: Float32Array, code: CodeConfig, metric: Metric, index: str
) -> None:
    x, queries = data[:850], data[850:]
    path = tmp_path / "a.qvec"
    with qvec.create(path, DIM, metric=metric, code=code, index=index) as db:
        db.add(x)
        assert db.verify() == []
    with qvec.open(path, "r") as db:
        found = db.search(queries, 10, oversample=10).ids
    assert recall(found, nearest(x, queries, metric, 10)) > 0.99


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("code", CODES, ids=repr)
def test_codes_alone_give_nearly_the_public_distance(
    tmp_path: Path, data: Float32Array, code: CodeConfig, metric: Metric
) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, metric=metric, code=code, originals="none", index="flat") as db:
        db.add(data)
        hits = db.search(data[:20], 1)
        decoded = db.get(hits.ids[:, 0]).vectors
    spread = 2.0 if metric == "cosine" else 2 * float(np.square(data).sum(axis=1).mean())
    assert hits.distances.max() < {"bf16": 0.01, "int8": 0.03, "int4": 0.1, "ternary": 0.4}[code.kind] * spread
    assert decoded.shape == (20, DIM)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("code", TRUNCATED, ids=repr)
def test_truncated_codes_are_those_of_the_first_dimensions(
    data: Float32Array, code: CodeConfig, metric: Metric
) -> None:
    quantizer, short = train(data, metric, code), np.ascontiguousarray(data[:, :40])
    alone = train(short, metric, make_config(code.kind))
    assert np.array_equal(quantizer.encode(data), alone.encode(short))
    assert np.array_equal(quantizer.prepare(data), alone.prepare(short))
    decoded = quantizer.decode(quantizer.encode(data))
    assert decoded.shape == data.shape
    assert not decoded[:, 40:].any()
    assert np.allclose(decoded[:, :40], alone.decode(alone.encode(short)))


@pytest.mark.parametrize("code", TRUNCATED, ids=repr)
def test_truncated_codes_are_reranked_with_whole_vectors(tmp_path: Path, data: Float32Array, code: CodeConfig) -> None:
    x, queries = data[:850], data[850:]
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", code=code, index="flat") as db:
        db.add(x)
        assert np.array_equal(db.get([5]).vectors, x[5:6])
        reranked, bare = (db.search(queries, 10, oversample=factor).ids for factor in (85, 0))
    true = nearest(x, queries, "l2", 10)
    assert recall(reranked, true) == 1.0
    assert recall(bare, true) < 0.95


def test_more_dims_than_a_collection_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"code.dims must be an integer from 1 to 72, got 73"):
        qvec.create(tmp_path / "a.qvec", DIM, code=Int8(dims=73))
    with pytest.raises(InputError, match="dims is 73, but vectors have 72 dimensions"):
        train(np.zeros((1, DIM), np.float32), "l2", Int4(dims=73))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        (Int8(scale="global"), 256),
        (Int8(scale="per_dim", method="entropy"), 2048),
        (Int4(scale="per_dim"), 256),
        (Int4(centroids=1), 100),
        (Int4(centroids=20), 320),
        (Ternary(centroids=1), 100),
    ],
    ids=repr,
)
def test_a_small_sample_is_refused_with_the_number_needed(code: CodeConfig, needed: int) -> None:
    assert code.min_samples == needed
    with pytest.raises(InputError, match=rf"at least {needed} vectors, got {needed - 1}"):
        train(np.ones((needed - 1, 8), np.float32), "l2", code)


@pytest.mark.parametrize("code", ["binary", "int4", "ternary", "rabitq1", "rabitq4"])
def test_a_collection_begins_with_one_vector_and_gets_advice_to_retrain_when_it_has_grown(
    tmp_path: Path, code: str
) -> None:
    x = np.random.default_rng(0).normal(size=(1200, 32)).astype(np.float32) + 3
    with qvec.create(tmp_path / "a", 32, code=code, metric="l2", index="flat") as db:
        db.add(x[0])
        assert db.search(x[0], 1).ids.tolist() == [0]
        db.add(x[1:900])
        assert "requantize()" not in db.drift().advice
        db.add(x[900:])
        assert "the code was trained on 1 vectors" in db.drift().advice
        queries = x[:100] + np.random.default_rng(1).normal(size=(100, 32)).astype(np.float32) / 4

        before = search_recall(db, queries, oversample=0)
        made = db.requantize()
        assert (made.n_samples, db.drift().advice) == (1200, "nothing to do")
        assert search_recall(db, queries, oversample=0) > before
        assert db.verify() == []


def test_a_sample_that_is_given_must_be_large_enough_to_learn_from(tmp_path: Path) -> None:
    for code in ("binary", "int4", "ternary", "rabitq1"):
        with pytest.raises(InputError, match="at least 100 vectors, got 99"):
            qvec.create(tmp_path / "a", 8, code=code, sample=np.ones((99, 8), np.float32))
        assert not (tmp_path / "a").exists()
    with qvec.create(tmp_path / "b", 8, code="int4") as db, pytest.raises(InputError, match="at least 100 vectors"):
        db.calibrate(np.ones((99, 8), np.float32))


@pytest.mark.parametrize("code", [Int8(), Int8(scale="per_dim"), Int8(scale="global")], ids=repr)
def test_int8_loses_within_5_percent_of_the_best_uniform_quantizer_of_its_range(code: Int8) -> None:
    x = np.random.default_rng(2).normal(size=(3000, 96)).astype(np.float32)
    quantizer = train(x, "l2", code)
    wide = x.astype(np.float64)
    if code.scale == "per_vector":
        lower, upper = -np.abs(wide).max(axis=1, keepdims=True), np.abs(wide).max(axis=1, keepdims=True)
    else:
        axis = 0 if code.scale == "per_dim" else None
        lower, upper = wide.min(axis=axis), wide.max(axis=axis)
    step = (upper - lower) / 255
    least = np.square(lower + step * np.rint((wide - lower) / step) - wide).mean()
    assert np.square(quantizer.decode(quantizer.encode(x)) - wide).mean() <= 1.05 * least


def test_rabitq1_finds_nearly_all_neighbors_with_its_default_oversampling(tmp_path: Path) -> None:
    x = np.load(data_folder() / "passages.npy").astype(np.float32)
    with qvec.create(tmp_path / "a", x.shape[1], code="rabitq1", index="flat") as db:
        db.add(x)
        found = db.search(x[::20], 10)
        exact = db.search(x[::20], 10, exact=True).ids
        assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.ids, strict=True)]) >= 0.995
        fewer = db.search(x[::20], 10, oversample=0).ids
        assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, fewer, strict=True)]) < 0.9
        assert train(x[:200], "cosine", make_config("rabitq1")).oversample == 15
        assert db.stats().code == db.generations()[0].code == "rabitq1"


def test_codes_that_learn_nothing_need_no_sample() -> None:
    for code in (BFloat16(), Int4(centroids=0), Int4(centroids=0, rotate=False, dims=5), Ternary(centroids=0, dims=7)):
        assert code.min_samples == 0
        assert train(np.empty((0, 12), np.float32), "cosine", code).dim == 12


def test_global_ranges_are_one_and_symmetric_ones_have_no_zero_point(data: Float32Array) -> None:
    zero = np.zeros((1, DIM), np.float32)
    for code in (Int8(scale="global", symmetric=True), Int4(scale="global", symmetric=True, rotate=False)):
        quantizer = train(data, "l2", code)
        assert len(np.unique(quantizer.codec.decode(quantizer.encode(zero)))) == 1
        assert np.abs(quantizer.decode(quantizer.encode(zero))).max() < 1e-5
