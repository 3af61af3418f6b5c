"""Bit-packed codes against a second implementation, at every width, instruction set, tail and extreme."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.bitpack_oracle import (
    BITPACK,
    bitpack_codec,
    bitpack_keys,
    block_widths,
    candidates,
    mixed_steps,
    unpack,
    values,
)
from helpers.kernels_oracle import METRICS, Bytes, Floats, factors, gaussian, inverse_norms, norms2, vectors_and_queries
from qvec._kernels import Codec, simd_levels

pytestmark = pytest.mark.simd

DIMS = [1, 2, 31, 63, 64, 65, 100, 129, 384, 577, 784, 1537]
LEVELS = simd_levels()


@pytest.mark.parametrize("kind", BITPACK)
def test_codes_use_the_step_with_the_smallest_angle_to_the_vector(kind: str) -> None:
    for dim in DIMS:
        x = np.delete(vectors_and_queries(dim)[0], 4, axis=0)
        found = values(kind, bitpack_codec(kind, "l2", dim).encode(x), dim)
        options = candidates(kind, x)
        cosines = np.array([_cosine(x, v) for v in options])
        assert (_cosine(x, found) >= cosines.max(axis=0) - 1e-6).all(), dim
        misses = np.min([(v != found).sum(axis=1) for v in options], axis=0)
        assert misses.max() <= 1, dim  # a value on the edge of two codes


def _cosine(x: Floats, v: Floats | np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> np.ndarray:
    lengths = np.sqrt(norms2(x) * (v * v).sum(axis=1))
    return (x * v).sum(axis=1) / np.where(lengths > 0, lengths, 1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", BITPACK)
def test_the_scale_keeps_the_length_along_the_vector(kind: str, metric: str) -> None:
    for dim in DIMS:
        x, _ = vectors_and_queries(dim)
        codec = bitpack_codec(kind, metric, dim)
        rows = codec.encode(x)
        v = values(kind, rows, dim)
        along, live = (x * v).sum(axis=1), np.repeat(block_widths(kind, dim) > 0, 64)[:dim]
        expected = np.where(along > 0, norms2(x * live) / np.where(along > 0, along, 1), 0) / 2
        if metric == "cosine":
            expected = expected * inverse_norms(x)
        scale, norm2 = factors(codec, rows)
        assert np.allclose(scale, expected, rtol=1e-5), dim
        assert np.allclose(norm2, 1 if metric == "cosine" else norms2(x), rtol=1e-6), dim
        assert np.allclose(codec.decode(rows), 2 * scale[:, None] * v, rtol=1e-5, atol=1e-30), dim


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", BITPACK)
def test_keys_are_the_public_distance(kind: str, metric: str, level: str) -> None:
    for dim in DIMS:
        x, q = vectors_and_queries(dim)
        codec = bitpack_codec(kind, metric, dim, simd=level)
        rows = codec.encode(x)
        keys = codec.score(codec.prepare(q), rows)
        exact, sizes = bitpack_keys(kind, metric, rows, q, x)
        worst = np.abs(keys - exact) - (1e-5 * sizes + 1e-30)
        assert worst.max() <= 0, dim


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", BITPACK)
def test_levels_agree_to_the_last_bit(kind: str, metric: str) -> None:
    for dim in DIMS:
        x, q = vectors_and_queries(dim)
        codecs = [bitpack_codec(kind, metric, dim, simd=level) for level in LEVELS]
        rows = codecs[0].encode(x)
        queries, row_queries = codecs[0].prepare(q), codecs[0].prepare_rows(rows)
        keys, row_keys = codecs[0].score(queries, rows), codecs[0].score(row_queries, rows)
        for codec in codecs[1:]:
            assert np.array_equal(codec.encode(x), rows), dim
            assert np.array_equal(codec.prepare(q), queries), dim
            assert np.array_equal(codec.score(queries, rows), keys), dim
            assert np.array_equal(codec.score(row_queries, rows), row_keys), dim


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", BITPACK)
def test_sums_are_exact_at_the_extremes_of_both_sides(kind: str, level: str) -> None:
    for dim in (64, 192, 320, 448, 576, 768, 1536, 2112, 65536):
        codec = bitpack_codec(kind, "ip", dim, simd=level)
        rng = np.random.default_rng(dim)
        rows = rng.integers(0, 256, (6, codec.stride), dtype=np.uint8)
        rows[0], rows[1] = 255, 0
        rows[:, codec.data_size : codec.data_size + 8] = np.array([1, 0], np.float32).view(np.uint8)
        query = rng.choice(np.array([-127, -1, 0, 1, 127], np.int8), (4, dim))
        query[0], query[1] = 127, -127
        sums = query.astype(np.int64) @ unpack(rows, block_widths(kind, dim)).T
        keys = codec.score(_prepared(kind, codec, query), rows)
        assert np.array_equal(keys, (2 * sums).astype(np.float32)), dim


def _prepared(kind: str, codec: Codec, query: np.ndarray[tuple[int, int], np.dtype[np.int8]]) -> Bytes:
    """Queries with the given codes whose keys are twice the bare sums: bias 0, per_scale 1, no floor, offset 0."""
    prepared = codec.prepare(np.ones((len(query), codec.dim), np.float32))
    header = np.zeros(16, np.float32)
    header[2:4] = 1, -np.inf
    prepared[:, :64] = header.view(np.uint8)
    values = np.zeros((len(query), -(-codec.dim // 512) * 512), np.uint8)
    values[:, : codec.dim] = query.view(np.uint8)
    if kind == "rabitq1":  # bit p of byte j goes with byte 64 p + j of its 512
        values = values.reshape(-1, 64, 8).transpose(0, 2, 1).reshape(values.shape)
    else:
        values = values[:, : codec.dim]
    prepared[:, 64 : 64 + values.shape[1]] = values
    return prepared


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", BITPACK)
def test_a_row_as_a_query_measures_squared_l2_or_dot_between_two_decoded_rows(kind: str, metric: str) -> None:
    x = gaussian(5, 12, 576)
    codec = bitpack_codec(kind, metric, 576)
    rows = codec.encode(x)
    held = codec.decode(rows).astype(np.float64)
    lengths = np.ones(12) if metric == "cosine" else norms2(x)
    expected = lengths[:, None] + lengths[None] - 2 * held @ held.T
    expected = -2 * held @ held.T if metric == "ip" else np.maximum(expected, 0)
    sizes = np.linalg.norm(held, axis=1)[:, None] * np.linalg.norm(held, axis=1)[None]
    error = np.abs(codec.score(codec.prepare_rows(rows), rows) - expected)
    assert (error <= 0.03 * sizes + 1e-5 * np.abs(expected)).all()  # the row's values are rounded to 8 bits


@pytest.mark.parametrize("kind", BITPACK)
def test_huge_and_tiny_vectors_give_finite_keys(kind: str) -> None:
    for metric in METRICS:
        for magnitude in (1e-38, 1e-30, 1e-12, 1e12, 1e18):
            x = np.clip(gaussian(9, 6, 130), -1, 1) * np.float32(magnitude)
            codec = bitpack_codec(kind, metric, 130)
            rows = codec.encode(x)
            keys = codec.score(codec.prepare(x), rows), codec.score(codec.prepare_rows(rows), rows)
            assert all(np.isfinite(k).all() for k in keys), (metric, magnitude)


def test_widths_take_eight_bytes_for_each_bit_of_64_dimensions() -> None:
    for bits in range(1, 9):
        for dim in (1, 64, 65, 384):
            codec = Codec("rabitq", "l2", dim, bits=bits)
            assert codec.data_size == 8 * bits * -(-dim // 64)
            assert codec.stride == -(-(codec.data_size + 8) // 16) * 16


@pytest.mark.parametrize(
    ("kind", "metric", "options", "message"),
    [
        ("rabitq", "l2", {}, "bits go with kind rabitq"),
        ("int8", "l2", {"bits": 4}, "bits go with kind rabitq, and it with them, not with int8"),
        ("rabitq", "l2", {"bits": 0}, r"bits must be in 1\.\.8, not 0"),
        ("rabitq", "l2", {"bits": 9}, r"bits must be in 1\.\.8, not 9"),
        ("rabitq", "l2", {"bits": 2.5}, r"bits must be in 1\.\.8, not 2\.5"),
        ("mixed", "l2", {}, "widths go with kind mixed"),
        ("f32", "l2", {"widths": np.ones(2, np.uint8)}, "widths go with kind mixed, and it with them, not with f32"),
        ("mixed", "l2", {"widths": np.ones(2, np.uint8)}, "kind mixed takes step"),
        ("mixed", "l2", {"widths": np.ones(3, np.uint8), "step": mixed_steps(100)}, "widths must be 2 wide, not 3"),
        ("mixed", "l2", {"widths": np.zeros(2, np.uint8), "step": mixed_steps(100)}, "the largest is 0"),
        ("mixed", "l2", {"widths": np.full(2, 9, np.uint8), "step": mixed_steps(100)}, "the largest is 9"),
        ("mixed", "l2", {"widths": np.ones(2, np.uint8), "step": mixed_steps(100) * 0}, "step must be positive"),
        ("rabitq", "l2", {"bits": 1, "step": mixed_steps(100)}, "and kind rabitq none"),
    ],
)
def test_options_that_do_not_go_together_are_refused(kind: str, metric: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codec(kind, metric, 100, **options)  # type: ignore[arg-type]
