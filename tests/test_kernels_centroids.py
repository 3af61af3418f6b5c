"""Vectors coded around a center, or around the nearest of several, in every kind with a scale per vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.bitpack_oracle import BITPACK, bitpack_codec, values
from helpers.kernels_oracle import (
    METRICS,
    PACKED,
    Bytes,
    Doubles,
    Floats,
    factors,
    gaussian,
    norms2,
    signed_codes,
    unit,
)
from qvec._kernels import Codec, offset_rows, offset_values, simd_levels

pytestmark = pytest.mark.simd

LEVELS = simd_levels()
KINDS = ["int4", "ternary", *BITPACK]
DIMS = [1, 63, 64, 65, 130, 384, 1537]
N_CENTROIDS = 70  # more than one tile of the kernel


def clustered(seed: int, n: int, dim: int) -> tuple[Floats, Floats, Floats]:
    """Vectors off the origin around N_CENTROIDS - 1 places; the centroids: the mean first, then that of each
    cluster."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(N_CENTROIDS - 1, dim)).astype(np.float32)
    x = places[rng.integers(0, N_CENTROIDS - 1, n)] + 0.5 * rng.normal(size=(n, dim)) + 0.3
    return x.astype(np.float32), np.full(dim, 0.3, np.float32), np.vstack([np.zeros((1, dim), np.float32), places])


def centered_codec(kind: str, metric: str, center: Floats, offsets: Bytes | None, **options: Any) -> Codec:
    options |= {"center": center, "offsets": offsets}
    return (
        bitpack_codec(kind, metric, len(center), **options)
        if kind in BITPACK
        else Codec(kind, metric, len(center), **options)
    )


def made(kind: str, metric: str, dim: int, level: str | None = None) -> tuple[Codec, Floats, Floats, Floats]:
    """A codec with centroids, the vectors in its coordinates, its center and the offsets."""
    x, center, offsets = clustered(dim, 60, dim)
    if metric == "cosine":
        x, center, offsets = unit(x), center / np.float32(dim**0.5), offsets / np.float32(dim**0.5)
    rows = offset_rows(offsets)
    return centered_codec(kind, metric, center, rows, simd=level), x, center, offset_values(rows, dim)


def held_values(kind: str, codec: Codec, rows: Bytes) -> Doubles:
    """Decoded values of a row: its codes times its scale, without the center."""
    scale = factors(codec, rows)[0][:, None]
    if kind in PACKED:
        return scale * signed_codes(rows, codec.dim, kind)
    return 2 * scale * values(kind, rows, codec.dim)


def eight_bits(y: Doubles) -> Doubles:
    """Each row rounded to 127 steps of its largest value; the component along itself is exact."""
    k = np.rint(y / (np.abs(y).max(1, keepdims=True) / 127))
    return k * (norms2(y.astype(np.float32)) / (y * k).sum(1))[:, None]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_is_coded_around_the_nearest_centroid(kind: str, metric: str) -> None:
    for dim in DIMS:
        codec, x, center, offsets = made(kind, metric, dim)
        rows = codec.encode(x)
        number = rows[:, codec.data_size].astype(int)
        distances = ((x - center)[:, None].astype(np.float64) - offsets[None]) ** 2
        reached, best = distances.sum(-1)[np.arange(len(x)), number], distances.sum(-1).min(1)
        assert (reached <= best + 0.02 * norms2(x - center)).all(), dim  # the vector is compared with 8 bits
        rest = (x - center - offsets[number]).astype(np.float64)
        along = (rest * held_values(kind, codec, rows)).sum(1)
        if kind != "mixed":  # which leaves blocks out
            assert np.allclose(along, norms2(rest.astype(np.float32)), rtol=1e-4, atol=1e-6), dim
        assert np.allclose(codec.decode(rows), center + offsets[number] + held_values(kind, codec, rows), atol=1e-4), (
            dim
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_keys_leave_the_error_along_the_centroid_out(kind: str, metric: str, level: str) -> None:
    for dim in DIMS:
        codec, x, center, offsets = made(kind, metric, dim, level)
        q = gaussian(dim, 5, dim)
        rows = codec.encode(x)
        offset = offsets[rows[:, codec.data_size]].astype(np.float64)
        held = held_values(kind, codec, rows)
        y = (unit(q) if metric == "cosine" else q).astype(np.float64)
        keys = codec.score(codec.prepare(q), rows)
        if metric == "ip":
            expected = -(y @ (center.astype(np.float64) + offset + held).T)
        else:
            y, z = y - center, x.astype(np.float64) - center
            spread = (y**2).sum(1)[:, None] + (z**2).sum(1) - 2 * (offset * (z - offset - held)).sum(1)
            expected = (spread - 2 * y @ (offset + held).T) * (0.5 if metric == "cosine" else 1)
        sizes = np.linalg.norm(y, axis=1)[:, None] * (np.linalg.norm(offset, axis=1) + np.linalg.norm(held, axis=1))
        assert (np.abs(keys - np.maximum(expected, 0 if metric != "ip" else -np.inf)) <= 0.02 * sizes + 1e-5).all(), dim


@pytest.mark.parametrize("kind", ["int4", "ternary", "rabitq1", "rabitq4"])
def test_the_distance_from_the_centroid_has_no_error_of_the_code(kind: str) -> None:
    dim = 384
    codec, x, center, offsets = made(kind, "l2", dim)
    rows = codec.encode(x)
    number = rows[:, codec.data_size]
    keys = codec.score(codec.prepare(center + offsets), rows)[number, np.arange(len(x))]
    exact = norms2(x - center - offsets[number])
    coarse = norms2((x - codec.decode(rows)).astype(np.float32))
    assert np.abs(keys - exact).max() < 0.1 * coarse.mean()  # what 8 bits of the query leave


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_levels_agree_to_the_last_bit(kind: str, metric: str) -> None:
    for dim in DIMS:
        results = []
        for level in LEVELS:
            codec, x, _, _ = made(kind, metric, dim, level)
            rows, queries = codec.encode(x), codec.prepare(gaussian(dim, 5, dim))
            results.append((rows, queries, codec.prepare_rows(rows), codec.score(queries, rows)))
        for result in results[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(result, results[0], strict=True)), dim


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_as_a_query_measures_squared_l2_between_two_decoded_rows(kind: str, metric: str) -> None:
    codec, x, _, _ = made(kind, metric, 384)
    rows = codec.encode(x)
    held = codec.decode(rows).astype(np.float64)
    slack = norms2(x - held.astype(np.float32))  # both have the length of the vector, not of the decoded values
    exact = ((held[:, None] - held[None]) ** 2).sum(-1)
    error = np.abs(codec.score(codec.prepare_rows(rows), rows) - exact)
    assert (error <= slack[:, None] + slack[None] + 0.03 * exact.max()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_center_is_the_local_centroid_of_all(kind: str) -> None:
    codec, x, center, _ = made(kind, "l2", 384)
    alone = centered_codec(kind, "l2", center, None)
    same = centered_codec(kind, "l2", center, offset_rows(np.zeros((2, 384), np.float32)))
    rows, twice = alone.encode(x), same.encode(x)
    assert np.array_equal(rows[:, : codec.data_size], twice[:, : codec.data_size])
    assert not twice[:, codec.data_size].any()
    assert np.allclose(alone.decode(rows), same.decode(twice), rtol=1e-4, atol=1e-5)
    keys = [c.score(c.prepare(x[:5]), r) for c, r in ((alone, rows), (same, twice))]
    assert np.allclose(keys[0], keys[1], rtol=1e-3, atol=1e-3 * keys[0].max())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_no_center_has_is_no_center(kind: str, level: str) -> None:
    codec, x, center, _ = made(kind, "l2", 130, level)
    rows = codec.encode(x)
    rows[:, codec.data_size] = 255
    assert np.isfinite(codec.score(codec.prepare(x), rows)).all()
    assert np.allclose(codec.decode(rows), center + held_values(kind, codec, rows), atol=1e-4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_values_give_keys_that_are_numbers(kind: str, metric: str, level: str) -> None:
    base = np.where(np.arange(384) % 3 == 0, -1, 1).astype(np.float32)
    x = np.stack([base * np.float32(m) for m in (1e18, 1.0, 1e-20, 1e-38, 1e-45, 0.0)])
    x = np.concatenate([x, -x, np.eye(1, 384, dtype=np.float32) * np.float32(1e18)])
    for magnitude in (1e18, 1.0, 1e-38):
        offsets = offset_rows(np.vstack([np.zeros_like(base), base, -base]) * np.float32(magnitude))
        codec = centered_codec(kind, metric, base * np.float32(magnitude), offsets, simd=level)
        rows = codec.encode(x)
        for keys in (codec.score(codec.prepare(x), rows), codec.score(codec.prepare_rows(rows), rows)):
            assert not np.isnan(keys).any()
            assert metric == "ip" or keys.min() >= 0


def test_offset_rows_decode_to_the_offsets() -> None:
    offsets = gaussian(3, 20, 100)
    rows = offset_rows(offsets)
    held = offset_values(rows, 100)
    assert np.abs(held - offsets).max() <= np.abs(offsets).max() / 127
    assert np.allclose(rows[:, 132:136].copy().view(np.float32)[:, 0], norms2(held), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("int8", {"center": np.zeros(100, np.float32)}, "center is for kinds int4, ternary, rabitq, mixed"),
        ("f32", {"center": np.zeros(100, np.float32)}, "not for f32"),
        (
            "int4",
            {"center": np.zeros(100, np.float32), "lower": np.zeros(100, np.float32), "step": np.ones(100, np.float32)},
            "where vectors have their own scale",
        ),
        ("int4", {"center": np.zeros(99, np.float32)}, "center must be 100 wide"),
        ("int4", {"center": np.full(100, np.inf, np.float32)}, r"center\[0\] must be finite"),
        ("int4", {"offsets": offset_rows(np.zeros((2, 100), np.float32))}, "offsets go with a center"),
        (
            "int4",
            {"center": np.zeros(100, np.float32), "offsets": offset_rows(np.zeros((1, 100), np.float32))},
            "there must be 2 to 256 offsets, not 1",
        ),
        (
            "int4",
            {"center": np.zeros(100, np.float32), "offsets": offset_rows(np.zeros((257, 100), np.float32))},
            "there must be 2 to 256 offsets, not 257",
        ),
        (
            "int4",
            {"center": np.zeros(100, np.float32), "offsets": offset_rows(np.zeros((2, 64), np.float32))},
            "offsets must be 192 wide, not 128",
        ),
        (
            "int4",
            {"center": np.zeros(100, np.float32), "offsets": np.full((2, 192), 255, np.uint8)},
            r"offsets\[0\] has factors that are negative or not finite",
        ),
    ],
)
def test_centroids_that_do_not_go_with_a_code_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codec(kind, "l2", 100, **options)
