"""Codes of vectors that are projected onto fewer dimensions: kernels, learning, searches, and life in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec._kernels import Codec, QueryMap, append_residual, simd_levels
from qvec.codes.projection import learn_projection
from qvec.codes.registry import code_from_dict, code_to_dict, every_code, from_state, train
from qvec.codes.transforms import Transform, column_codec
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Codes, Float32Array, Metric

DIM, INNER, WIDTH = 96, 20, 32
METRICS: list[Metric] = ["l2", "cosine", "ip"]


def flat_vectors(n: int, seed: int = 0, shift: float = 1.0) -> Float32Array:
    """Vectors near a plane of INNER dimensions, away from the origin."""
    rng = np.random.default_rng(7)
    plane, center = rng.normal(size=(INNER, DIM)), shift * rng.normal(size=DIM)
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=(n, INNER)) @ plane + 0.3 * rng.normal(size=(n, DIM)) + center, np.float32)


def keys(metric: Metric, queries: Float32Array, base: Float32Array) -> Any:
    """Distances in float64."""
    q, x = queries.astype(np.float64), base.astype(np.float64)
    if metric == "cosine":
        q, x = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, x))
        return 1 - q @ x.T
    return -q @ x.T if metric == "ip" else np.square(q[:, None] - x[None]).sum(2)


def columns_of(dim: int, width: int) -> Codes:
    matrix = np.random.default_rng(dim + width).normal(size=(width, dim)).astype(np.float32)
    return column_codec(dim).encode(matrix)


@pytest.mark.simd
@pytest.mark.parametrize("dim", [1, 2, 63, 64, 65, 127, 130, 784])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 63, 130])
def test_queries_are_multiplied_as_integers_on_every_level(dim: int, width: int) -> None:
    columns, queries = columns_of(dim, width), np.random.default_rng(dim).normal(size=(3, dim)).astype(np.float32)
    queries[2] = 0
    wide = queries.astype(np.float64)
    step = np.abs(wide).max(axis=1, keepdims=True) / 127
    integers = np.rint(wide / np.where(step > 0, step, 1))
    along = (wide * integers).sum(axis=1, keepdims=True)
    scale = np.square(wide).sum(axis=1, keepdims=True) / np.where(along > 0, along, 1)
    expected = (scale * integers) @ column_codec(dim).decode(columns).astype(np.float64).T
    found = [
        QueryMap(dim, width, width, False, None, None, None, columns=columns, simd=level).apply(queries)
        for level in simd_levels()
    ]
    size = np.linalg.norm(wide, axis=1, keepdims=True) * np.linalg.norm(column_codec(dim).decode(columns), axis=1)
    assert (np.abs(found[0] - expected) <= 2e-2 * size / np.sqrt(dim) + 1e-6).all()  # rounding of ties may differ
    assert np.median(np.abs(found[0] - expected)) <= 1e-5 * size.max()
    for other in found[1:]:
        assert np.array_equal(other, found[0])


@pytest.mark.simd
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("rotated", [True, False])
def test_queries_are_normalized_and_centered_before_and_rotated_after(
    normalize: bool, centered: bool, rotated: bool
) -> None:
    rng = np.random.default_rng(5)
    queries, mean = rng.normal(size=(4, 100)).astype(np.float32), rng.normal(size=100).astype(np.float32)
    seed = 3 if rotated else None
    whole = Transform(100, normalize, mean if centered else None, seed, columns=columns_of(100, 40), residual=True)
    before = Transform(100, normalize, mean if centered else None, None).apply(queries)
    middle = Transform(100, False, None, None, columns=whole.columns).apply_to_queries(before)
    after = np.hstack([middle, np.zeros((4, 1), np.float32)])
    expected = after if seed is None else Transform(41, False, None, seed).apply(after)
    assert np.array_equal(whole.apply_to_queries(queries), expected)
    assert whole.padded == expected.shape[1]


def test_a_map_refuses_columns_that_do_not_fit() -> None:
    columns = columns_of(20, 6)
    with pytest.raises(ValueError, match="panels or columns"):
        QueryMap(20, 6, 6, False, None, np.zeros((20, 32), np.float32), None, columns=columns)
    with pytest.raises(ValueError, match="must have 5 rows, not 6"):
        QueryMap(20, 5, 5, False, None, None, None, columns=columns)
    with pytest.raises(ValueError, match="columns"):
        QueryMap(90, 6, 6, False, None, None, None, columns=columns)
    wrong = columns.copy()
    data = column_codec(20).data_size
    wrong[2, data : data + 4] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    with pytest.raises(ValueError, match="factors"):
        QueryMap(20, 6, 6, False, None, None, None, columns=wrong)
    with pytest.raises(ValueError, match="must have 3 rows, not 2"):
        append_residual(np.zeros((3, 4), np.float32), np.zeros((2, 2), np.float32))


@pytest.mark.simd
@pytest.mark.parametrize(("dim", "width"), [(1, 1), (7, 3), (64, 63), (130, 65)])
def test_the_residual_is_the_length_that_is_left_out(dim: int, width: int) -> None:
    x = np.random.default_rng(dim).normal(size=(9, dim)).astype(np.float32)
    y = np.ascontiguousarray(0.5 * x[:, :width])
    y[3] = 100
    found = append_residual(x, y)
    left = np.square(x.astype(np.float64)).sum(1) - np.square(y.astype(np.float64)).sum(1)
    assert np.array_equal(found[:, :width], y)
    assert np.allclose(found[:, width], np.sqrt(np.maximum(left, 0)), rtol=1e-6)
    assert found[3, width] == 0


@pytest.mark.parametrize("seed", [None, 4])
def test_vectors_are_multiplied_with_what_the_columns_decode_to(seed: int | None) -> None:
    x, columns = flat_vectors(9), columns_of(DIM, 10)
    transform = Transform(DIM, False, None, seed, columns=columns, residual=True)
    y = x.astype(np.float64) @ column_codec(DIM).decode(columns).T.astype(np.float64)
    rest = np.sqrt(np.maximum(np.square(x.astype(np.float64)).sum(1) - np.square(y).sum(1), 0))
    expected = np.column_stack([y, rest]).astype(np.float32)
    found = transform.apply(x)
    found = found if seed is None else Transform(11, False, None, seed).unrotate(found)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_the_state_of_a_projection_is_complete_and_checked() -> None:
    transform = Transform(DIM, False, None, 2, columns=columns_of(DIM, 10), residual=True)
    state = transform.state()
    again = Transform.from_state(state)
    x = flat_vectors(5)
    assert np.array_equal(again.apply(x), transform.apply(x))
    assert np.array_equal(again.apply_to_queries(x), transform.apply_to_queries(x))
    assert state["matrix"] is None
    bad = bytearray(state["columns"])
    data = column_codec(DIM).data_size
    bad[data : data + 4] = np.float32(np.inf).tobytes()
    none = {"columns": None, "matrix": None, "width": DIM}
    for change, name in (
        ({"columns": bytes(bad)}, "columns"),
        ({"columns": state["columns"][:-1]}, "columns"),
        ({"width": 11}, "columns"),
        ({"columns": 3}, "columns"),
        ({"residual": 1}, "residual"),
        (none, "residual"),
        ({"matrix": np.zeros(10 * DIM, np.float32).tobytes()}, "columns"),
    ):
        with pytest.raises(FormatError, match=name):
            Transform.from_state(state | change)


@pytest.mark.parametrize("metric", METRICS)
def test_a_learned_projection_keeps_distances(metric: Metric) -> None:
    x = flat_vectors(2 * DIM + 400)
    base, queries = x[40:], x[:40]
    transform = learn_projection(base, None, metric, WIDTH, 0)
    assert transform.padded == WIDTH
    assert transform.residual == (metric == "l2")
    kept = transform.matrix
    assert kept is not None
    assert np.allclose(kept.T @ kept, np.eye(transform.width), atol=0.03)  # columns have 8 bits
    rows, q = transform.apply(base), transform.apply_to_queries(queries)
    true, found = keys(metric, queries, base), keys(metric, q, rows)
    if metric == "l2":  # the residual of a query is the same for all vectors
        found += np.square(queries).sum(1, keepdims=True) - np.square(q).sum(1, keepdims=True)
    assert np.abs(found - true).max() < 0.06 * np.abs(true).max()


def test_the_residual_orders_vectors_that_the_projection_cannot_tell_apart() -> None:
    x = flat_vectors(1000, shift=0.0)
    transform = learn_projection(x, None, "l2", WIDTH, 0)
    assert transform.matrix is not None
    inside = np.asarray(transform.matrix[:, 0])
    outside = np.linalg.svd(transform.matrix.T)[2][-1]
    pair = np.stack([3 * inside, 3 * inside + 5 * outside]).astype(np.float32)
    near = keys("l2", transform.apply_to_queries(3 * inside[None]), transform.apply(pair))[0]
    assert near[1] - near[0] == pytest.approx(25, rel=0.1)


def test_queries_decide_what_a_projection_keeps() -> None:
    rng = np.random.default_rng(0)
    spread = np.ones(DIM)
    spread[:WIDTH] = 3.0  # vectors vary most in these dimensions, queries only in the others
    base = np.asarray(rng.normal(size=(3000, DIM)) * spread, np.float32)
    queries = np.asarray(rng.normal(size=(500, DIM)) * (spread < 2), np.float32)
    errors = []
    for known in (None, queries[:400]):
        transform = learn_projection(base, known, "ip", WIDTH, 0)
        assert transform.matrix is not None
        found = (queries[400:] @ transform.matrix) @ (base @ transform.matrix).T
        errors.append(float(np.square(found - queries[400:] @ base.T).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_the_automatic_number_of_dimensions_is_the_least_that_finds_neighbors() -> None:
    rng = np.random.default_rng(1)
    for inner, expected in ((30, 64), (100, 128)):
        plane = np.linalg.qr(rng.normal(size=(400, inner)))[0].T
        x = np.asarray(rng.normal(size=(1500, inner)) @ plane + 0.01 * rng.normal(size=(1500, 400)), np.float32)
        assert learn_projection(x, None, "l2", "auto", 0).padded == expected
    noise = rng.normal(size=(1500, 400)).astype(np.float32)
    assert learn_projection(noise, None, "cosine", "auto", 0).padded == 200  # half: nothing less is enough


def test_wrong_options_are_refused_by_name(path: Path) -> None:
    for wrong, message in (
        ({"projection": 1}, "Int8.projection"),
        ({"projection": "most"}, "Int8.projection"),
        ({"projection": 64, "dims": 80}, "Int8.dims and Int8.projection"),
    ):
        with pytest.raises(InputError, match=message):
            qvec.Int8(**wrong)
    code = qvec.Int8(projection=WIDTH)
    for options, message in (
        ({"originals": "none"}, "a projection needs originals"),
        ({"code": qvec.Int8(projection=DIM)}, f"below the {DIM} dimensions"),
        ({"sample": flat_vectors(100)}, "at least 256 vectors, got 100"),
        ({"queries": flat_vectors(5)}, "queries= needs a sample"),
        ({"code": "int8", "sample": flat_vectors(300), "queries": flat_vectors(5)}, "queries= needs a sample"),
        ({"quantizer": train(flat_vectors(300), "l2", qvec.Int8())}, "a quantizer that projects"),
        ({"sample": flat_vectors(300), "queries": np.zeros((2, 5))}, "queries"),
    ):
        with pytest.raises(InputError, match=message):
            qvec.create(path, DIM, **({"metric": "l2", "code": code} | options))
        assert not path.exists()
    with pytest.raises(InputError, match="200 dimensions needs a sample of at least 400 vectors, got 300"):
        learn_projection(np.zeros((300, 200), np.float32), None, "l2", 20, 0)


def test_a_first_batch_that_is_too_small_writes_nothing(path: Path) -> None:
    with qvec.create(path, DIM, metric="l2", code=qvec.Int8(projection=WIDTH)) as db:
        with pytest.raises(InputError, match="at least 192 vectors, got 50"):
            db.add(flat_vectors(50))
        assert len(db) == 0
        db.add(flat_vectors(200))
        assert db.verify() == []


@pytest.mark.parametrize("code", [qvec.Int8(projection=64), qvec.Int4(projection="auto"), qvec.Mixed()])
def test_a_sample_may_be_too_small_to_train_on_a_half_of_it(path: Path, code: Any) -> None:
    plane = np.random.default_rng(0).normal(size=(20, 200))
    x = np.asarray(np.random.default_rng(1).normal(size=(600, 20)) @ plane, np.float32)
    with qvec.create(path, 200, metric="l2", code=code) as db:
        db.add(x)
        assert db.search(x[7], 1).ids.tolist() == [7]
        assert db.drift().level == "none"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("code", "index"),
    [
        (qvec.Int8(projection=WIDTH), "flat"),
        (qvec.Int8(projection=WIDTH), "hnsw"),
        (qvec.Int8(projection=WIDTH), "packed"),
        (qvec.Int8(projection=WIDTH), qvec.IVF(nlist=8)),
        (qvec.Int8(projection=WIDTH, rotate=True), "hnsw"),
        (qvec.Int8(projection=WIDTH, scale="per_dim"), "hnsw"),
        (qvec.Int4(projection=WIDTH), "packed"),
        (qvec.Int4(projection="auto"), "hnsw"),
        (qvec.RaBitQ(4, projection=WIDTH), "packed"),
        (qvec.RaBitQ(1, projection=WIDTH), "flat"),
    ],
)
def test_searches_find_what_brute_force_finds(path: Path, metric: Metric, code: Any, index: Any) -> None:
    x = flat_vectors(1540)
    base, queries = x[40:], x[:40]
    with qvec.create(path, DIM, metric=metric, code=code, index=index, originals="f16") as db:
        db.add(base[:1000])
        db.add(base[1000:], range(1000, 1500))
        assert db.verify(deep=True) == []
    true = keys(metric, queries, base)
    nearest = np.argsort(true, axis=1)[:, :10]
    with qvec.open(path, "r", memory="index") as db:
        effort: dict[str, Any] = {"flat": {}, "hnsw": {"ef": 200}, "packed": {"ef": 200}}.get(index, {"nprobe": 8})
        hits = [db.search(query, 10, oversample=10, **effort) for query in queries]
        assert np.array_equal([hit.ids for hit in hits], db.search(queries, 10, oversample=10, **effort).ids)
        recall = np.mean([np.isin(hit.ids, own).mean() for hit, own in zip(hits, nearest, strict=True)])
        assert recall >= 0.97
        for hit, own in zip(hits, true, strict=True):
            assert np.allclose(hit.distances, own[hit.ids], rtol=3e-3, atol=3e-3 * np.abs(own).max())


def test_a_projection_lives_through_reopening_requantizing_and_transfer(path: Path, tmp_path: Path) -> None:
    x, code = flat_vectors(900), qvec.Int8(projection=WIDTH)
    with qvec.create(path, DIM, metric="l2", code="int8", index="hnsw") as db:
        db.add(x[:800])
        full = db.generations()[0].code_size
        made = db.requantize(code)
        assert made.code_size < full
    with qvec.open(path) as db:
        before = db.search(x[800:], 5).ids
        db.add(x[800:], range(800, 900))
        db.delete(range(100))
        db.optimize()
        assert db.verify(deep=True) == []
        assert np.array_equal(db.search(x[850], 1).ids, [850])
        exported = db.export_calibration(format="json")
        db.requantize("int4")
        db.rollback(made.number)
        assert db.verify() == []
    with qvec.create(tmp_path / "other", DIM, metric="l2", code=code, index="hnsw") as other:
        other.import_calibration(exported)
        other.add(x[:800])
        assert np.mean(other.search(x[800:], 5).ids == before) > 0.95
    with qvec.create(tmp_path / "third", DIM, metric="l2", originals="none") as third, pytest.raises(InputError):
        third.import_calibration(exported)


def test_a_calibration_for_queries_is_another_projection(path: Path) -> None:
    x, code = flat_vectors(900), qvec.Int8(projection=WIDTH)
    rng = np.random.default_rng(2)
    queries = np.asarray(rng.normal(size=(300, 8)) @ rng.normal(size=(8, DIM)), np.float32)
    with qvec.create(path, DIM, metric="ip", code=code, sample=x, queries=queries) as db:
        db.add(x)
        first = db.generations()[0]
        made = db.calibrate(x, code=code)
        again = db.calibrate(x, queries=queries, code=code)
        assert len({first.id, made.id}) == 2
        assert again.id == first.id
        with pytest.raises(InputError, match="queries are for codes with a projection"):
            db.calibrate(x, queries=queries, code=qvec.Int8(scale="per_dim"))


def test_another_embedding_model_gets_a_projection_of_its_own(path: Path) -> None:
    x = flat_vectors(400)
    turned = np.asarray(x @ np.linalg.qr(np.random.default_rng(3).normal(size=(DIM, DIM)))[0], np.float32)
    with qvec.create(path, DIM, metric="l2", code=qvec.Int8(projection=WIDTH), index="flat", model="old") as db:
        db.add(x, payloads=[{"text": str(i)} for i in range(len(x))])
        db.reembed(lambda texts: turned[[int(text) for text in texts]], dim=DIM, model="new")
        assert db.generations()[-1].code_size < Codec("int8", "l2", DIM).stride
        assert db.search(turned[5], 1).ids.tolist() == [5]


def test_drift_is_measured_on_projected_codes(path: Path) -> None:
    with qvec.create(path, DIM, metric="l2", code=qvec.Int8(projection=WIDTH)) as db:
        db.add(flat_vectors(2000))
        db.add(flat_vectors(1000, seed=1))
        assert db.drift().level == "none"
        rng = np.random.default_rng(4)
        for _ in range(4):  # vectors that vary in directions which the projection leaves out
            db.add(np.asarray(6 * rng.normal(size=(1000, DIM)), np.float32))
        assert db.drift().level == "alarm"


def test_codes_of_projections_are_measured_from_768_dimensions_on() -> None:
    assert qvec.Int8(projection="auto") in every_code(768)
    assert not [code for code in every_code(767) if getattr(code, "projection", None)]
    for code in every_code(768):
        assert code_from_dict(code_to_dict(code)) == code


def test_an_exported_quantizer_must_agree_with_its_code() -> None:
    quantizer = train(flat_vectors(300), "cosine", qvec.RaBitQ(4, projection=WIDTH))
    assert quantizer.is_projected
    assert quantizer.default_oversample == 3
    assert quantizer.coded_dim == 64  # the rotation pads
    again = from_state(quantizer.state())
    x = flat_vectors(20, 5)
    assert np.array_equal(again.encode(x), quantizer.encode(x))
    assert np.array_equal(again.prepare(x), quantizer.prepare(x))
    assert isinstance(again.codec, Codec)
