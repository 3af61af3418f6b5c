"""Keys of every kind, metric and instruction set against the oracle, and against each other."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.kernels_oracle import (
    DIMS,
    INT4_VALUES,
    KINDS,
    METRICS,
    PACKED,
    Bytes,
    Doubles,
    Floats,
    estimated_dots,
    exact_keys,
    factors,
    gaussian,
    make_codec,
    norms2,
    unit,
    vectors_and_queries,
)
from qvec._kernels import Codec, simd_levels

pytestmark = pytest.mark.simd

LEVELS = simd_levels()
INTEGER_KINDS = ["int8", "static", *PACKED, "binary"]


def check_close(keys: Floats, exact: Doubles, sizes: Doubles, what: str) -> None:
    worst = np.abs(keys - exact) - (1e-5 * sizes + 1e-30)
    assert worst.max() <= 0, f"{what}: off by {np.abs(keys - exact).max()}"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_the_public_distance(kind: str, metric: str, level: str) -> None:
    for dim in DIMS:
        x, q = vectors_and_queries(dim)
        codec = make_codec(kind, metric, x, simd=level)
        keys = codec.score(codec.prepare(q), codec.encode(x))
        check_close(keys, *exact_keys(kind, metric, x, q, x), what=f"dim {dim}")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_levels_agree_to_the_last_bit_on_rows_queries_and_integer_keys(kind: str, metric: str) -> None:
    for dim in DIMS:
        x, q = vectors_and_queries(dim)
        results = []
        for level in LEVELS:
            codec = make_codec(kind, metric, x, simd=level)
            rows, queries = codec.encode(x), codec.prepare(q)
            results.append((rows, queries, codec.prepare_rows(rows), codec.score(queries, rows)))
        for rows, queries, row_queries, keys in results[1:]:
            assert np.array_equal(rows, results[0][0]), dim
            assert np.array_equal(queries, results[0][1]), dim
            assert np.array_equal(row_queries, results[0][2]), dim
            if kind in INTEGER_KINDS:
                assert np.array_equal(keys, results[0][3]), dim


@pytest.mark.parametrize("level", LEVELS)
def test_int8_sums_are_exact_at_the_extremes_of_both_sides(level: str) -> None:
    for dim in [64, 128, 192, 384, 832, 1536, 65536]:
        codec = Codec("int8", "ip", dim, simd=level)
        rows, data, query = hand_made_int8(codec)
        sums = query.astype(np.int64) @ data.astype(np.int64).T
        assert np.array_equal(codec.score(prepared_int8(codec, query), rows), sums.astype(np.float32)), dim


def hand_made_int8(codec: Codec) -> tuple[Bytes, Bytes, np.ndarray[tuple[int, int], np.dtype[np.int8]]]:
    rng = np.random.default_rng(codec.dim)
    data = rng.choice(np.array([0, 1, 127, 128, 254, 255], np.uint8), (7, codec.dim))
    data[0], data[1] = 255, 0
    query = rng.choice(np.array([-128, -127, -1, 0, 1, 127], np.int8), (4, codec.dim))
    query[0], query[1] = 127, -127
    rows = np.zeros((7, codec.stride), np.uint8)
    rows[:, : codec.data_size] = data
    rows[:, codec.data_size : codec.data_size + 8] = np.array([1, 0], np.float32).view(np.uint8)
    return rows, data, query


def prepared_int8(codec: Codec, query: np.ndarray[tuple[int, int], np.dtype[np.int8]]) -> Bytes:
    """Queries with the given codes whose keys are the bare sums: bias 0, per_scale 1, no floor, offset 0."""
    prepared = codec.prepare(np.ones((len(query), codec.dim), np.float32))
    header = np.zeros(16, np.float32)
    header[2:4] = 1, -np.inf
    prepared[:, :64] = header.view(np.uint8)
    prepared[:, 64 : 64 + codec.data_size] = query.view(np.uint8)
    return prepared


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["int4", "ternary"])
def test_packed_sums_are_exact_at_the_extremes_of_both_sides(kind: str, level: str) -> None:
    rng, planes = np.random.default_rng(5), 8 // PACKED[kind]
    values = INT4_VALUES + 64 if kind == "int4" else np.array([0, 1, 2, 3])
    for dim in [64 * planes, 384 * planes, 1024, 65536]:
        codec = Codec(kind, "ip", dim, simd=level)
        codes = rng.integers(0, 2 ** PACKED[kind], (7, dim))
        codes[0], codes[1] = 2 ** PACKED[kind] - 1, 0
        query = rng.choice(np.array([-128, -127, 0, 127], np.int8), (4, dim))
        query[0], query[1] = 127, -128
        groups = codes.reshape(7, -1, planes, 64)
        data = (groups << (np.arange(planes) * PACKED[kind])[:, None]).sum(2).reshape(7, -1).astype(np.uint8)
        rows = np.zeros((7, codec.stride), np.uint8)
        rows[:, : codec.data_size] = data
        rows[:, codec.data_size : codec.data_size + 8] = np.array([1, 0], np.float32).view(np.uint8)
        prepared = codec.prepare(np.ones((4, dim), np.float32))
        header = np.zeros(16, np.float32)
        header[2:4] = 1, -np.inf
        prepared[:, :64] = header.view(np.uint8)
        prepared[:, 64 : 64 + dim] = query.view(np.uint8)
        sums = query.astype(np.int64) @ values[codes].T
        assert np.array_equal(codec.score(prepared, rows), sums.astype(np.float32)), dim


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_key_does_not_depend_on_the_other_rows_of_a_batch(kind: str, level: str) -> None:
    x = gaussian(1, 67, 100)
    codec = make_codec(kind, "l2", x, simd=level)
    rows, query = codec.encode(x), codec.prepare(x[3])
    single = np.array([codec.score(query, row)[0, 0] for row in rows])
    for n in range(68):
        assert np.array_equal(codec.score(query, rows[:n]), single[None, :n]), n


@pytest.mark.parametrize("kind", KINDS)
def test_many_queries_score_like_one_at_a_time(kind: str) -> None:
    x = gaussian(2, 200, 70)
    codec = make_codec(kind, "cosine", x)
    rows = codec.encode(x)
    each = [codec.score(codec.prepare(q), rows)[0] for q in x[:5]]
    assert np.array_equal(codec.score(codec.prepare(x[:5]), rows), np.stack(each))


@pytest.mark.parametrize("level", LEVELS)
def test_every_finite_half_scores_as_its_value(level: str) -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    values = halves[np.isfinite(halves)].astype(np.float32)
    codec = Codec("f16", "ip", 1, simd=level)
    keys = codec.score(codec.prepare(np.ones(1, np.float32)), codec.encode(values[:, None]))
    assert np.array_equal(keys[0], -values)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["f32", "f16", "int8"])
def test_row_queries_give_squared_l2_on_the_unit_sphere_under_cosine(kind: str, level: str) -> None:
    for dim in [1, 3, 64, 100, 384]:
        x = gaussian(dim, 12, dim)
        codec = Codec(kind, "cosine", dim, simd=level)
        rows = codec.encode(x)
        exact = ((unit(x).astype(np.float64)[:, None] - unit(x)[None]) ** 2).sum(-1)
        # int8: both sides within about half a step of 127 levels per dimension
        tolerance = {"f32": 2e-6, "f16": 2e-3, "int8": 0.02}[kind]
        assert np.abs(codec.score(codec.prepare_rows(rows), rows) - exact).max() < tolerance, dim


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["f32", "f16", "int8", "static"])
def test_row_queries_give_minus_twice_the_dot_product_under_ip(kind: str, level: str) -> None:
    for dim in [2, 65, 384]:
        x = gaussian(dim, 12, dim)
        codec = make_codec(kind, "ip", x, simd=level)
        rows = codec.encode(x)
        exact = -2 * x.astype(np.float64) @ x.T
        tolerance = {"f32": 1e-5, "f16": 4e-3, "int8": 0.03, "static": 0.03}[kind]
        assert np.abs(codec.score(codec.prepare_rows(rows), rows) - exact).max() < tolerance * norms2(x).max(), dim


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_row_queries_under_l2_agree_with_queries_of_the_same_vectors(kind: str, level: str) -> None:
    x = gaussian(5, 20, 200)
    codec = make_codec(kind, "l2", x, simd=level)
    rows = codec.encode(x)
    decoded = codec.decode(rows)
    by_row, by_vector = codec.score(codec.prepare_rows(rows), rows), codec.score(codec.prepare(decoded), rows)
    # a row query has the squared norm that the row carries, the other one that of what the row holds
    center = x.mean(0) if kind.endswith(("-centered", "-local")) else np.zeros(200, np.float32)
    carried = factors(codec, rows)[1] if kind in INTEGER_KINDS[:-1] else norms2(decoded - center)
    norm_change = carried - norms2(decoded - center)
    difference = by_row - by_vector - norm_change[:, None]
    sizes = norms2(x)[:, None] + norms2(x)[None] + norms2(decoded)[:, None]
    inside = (by_row > 0) & (by_vector > 0)
    assert inside.mean() > 0.9
    # the values of int4 are exact in a row query of a code without a center, and rounded to 8 bits in the other one
    assert (np.abs(difference)[inside] <= (2e-3 if kind == "int4" else 4e-6) * sizes[inside]).all()


def test_int8_l2_keys_are_never_negative() -> None:
    x = np.full((50, 128), 100, np.float32) + gaussian(7, 50, 128) * np.float32(1e-3)
    codec = Codec("int8", "l2", 128)
    rows = codec.encode(x)
    unclamped = norms2(x)[:, None] + norms2(x)[None] - 2 * estimated_dots("int8", "l2", x, x, x)[0]
    assert unclamped.min() < 0 <= codec.score(codec.prepare(x), rows).min()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_values_give_ordered_keys_without_nan(kind: str, metric: str, level: str) -> None:
    for dim in [3, 64, 384]:
        base = np.where(np.arange(dim) % 3 == 0, -1, 1).astype(np.float32)
        magnitudes = [1e18, 1.0, 1e-20, 1e-38, 1e-45, 0.0]
        x = np.stack([base * np.float32(m) for m in magnitudes])
        x = np.concatenate([x, -x, np.eye(1, dim, dtype=np.float32) * np.float32(1e18)])
        codec = make_codec(kind, metric, x, simd=level)
        rows = codec.encode(x)
        for keys in (codec.score(codec.prepare(x), rows), codec.score(codec.prepare_rows(rows), rows)):
            assert not np.isnan(keys).any()
            assert metric == "ip" or keys.min() >= 0


@pytest.mark.parametrize("kind", ["f32", "int8"])
def test_huge_vectors_keep_their_cosine(kind: str) -> None:
    x = gaussian(8, 10, 384)
    codec = Codec(kind, "cosine", 384)
    near = codec.score(codec.prepare(x), codec.encode(x))
    far = codec.score(codec.prepare(x * np.float32(2.0**60)), codec.encode(x * np.float32(2.0**60)))
    assert np.allclose(near, far, rtol=0, atol=1e-6)
