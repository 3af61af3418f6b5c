"""Kernels access nothing outside their arguments: buffers end at a page without access."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Place
from numpy.typing import NDArray

from helpers.bitpack_oracle import BITPACK, bitpack_codec
from helpers.kernels_oracle import DIMS, KINDS, METRICS, gaussian, make_codec
from qvec._kernels import Codec, crc32c, offset_rows, simd_levels, transform

pytestmark = pytest.mark.simd

LOCAL = {f"{kind}-local": kind for kind in ("rabitq1", "rabitq5", "mixed")}


def codec_of(kind: str, metric: str, x: NDArray[np.float32], level: str) -> Codec:
    if kind in LOCAL:
        center, offsets = np.zeros(x.shape[1], np.float32), offset_rows(np.concatenate([x[:1] * 0, x]) / np.float32(2))
        return bitpack_codec(LOCAL[kind], metric, x.shape[1], simd=level, center=center, offsets=offsets)
    if kind in BITPACK:
        return bitpack_codec(kind, metric, x.shape[1], simd=level)
    return make_codec(kind, metric, x, simd=level)


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("kind", [*KINDS, *BITPACK, *LOCAL])
def test_no_kernel_reads_past_the_end_of_its_input(kind: str, level: str, guarded: Place) -> None:
    for dim in [*DIMS[::4], 1536, 1537]:
        x = gaussian(dim, 5, dim)
        codec = codec_of(kind, "cosine", x, level)
        fenced = guarded(x)
        rows = codec.encode(fenced)
        queries, row_queries = codec.prepare(fenced[-1]), codec.prepare_rows(rows)
        assert np.array_equal(rows, codec.encode(x))
        assert np.array_equal(queries, codec.prepare(x[-1]))
        fenced_rows = guarded(rows)
        assert np.array_equal(codec.decode(fenced_rows), codec.decode(rows))
        assert np.array_equal(codec.prepare_rows(fenced_rows), row_queries)
        assert np.array_equal(codec.score(guarded(queries), fenced_rows), codec.score(queries, rows))


def test_transform_and_crc_read_no_further_than_their_input(guarded: Place) -> None:
    rng = np.random.default_rng(0)
    for dim, padded in ((1, 64), (63, 64), (100, 128), (130, 192), (384, 384)):
        x, mean = gaussian(dim, 3, dim), gaussian(dim + 1, 1, dim)[0]
        signs = rng.integers(0, 256, padded // 2, dtype=np.uint8)
        fenced = transform(guarded(x), padded, True, guarded(mean), guarded(signs))
        assert np.array_equal(fenced, transform(x, padded, True, mean, signs))
    for n in (0, 1, 7, 8, 767, 768, 769, 12288, 12299, 25000):
        data = rng.integers(0, 256, n, dtype=np.uint8)
        assert crc32c(guarded(data)) == crc32c(data)


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [*KINDS, *BITPACK, *LOCAL])
def test_rows_may_lie_at_any_address(kind: str, metric: str, level: str) -> None:
    x = gaussian(4, 6, 107)
    codec = codec_of(kind, metric, x, level)
    rows, query = codec.encode(x), codec.prepare(x[0])
    expected = codec.score(query, rows)
    for offset in range(1, 65):
        shifted = np.empty(rows.size + offset, np.uint8)[offset:].reshape(rows.shape)
        shifted[...] = rows
        assert np.array_equal(codec.score(query, shifted), expected), offset
        assert np.array_equal(codec.decode(shifted), codec.decode(rows)), offset
        assert np.array_equal(codec.prepare_rows(shifted), codec.prepare_rows(rows)), offset


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("kind", [*KINDS, *BITPACK, *LOCAL])
def test_a_key_does_not_depend_on_the_rows_scored_with_it(kind: str, level: str) -> None:
    for dim in (3, 107, 200, 768):
        x = gaussian(dim, 9, dim)
        codec = codec_of(kind, "l2", x, level)
        rows, query = codec.encode(x), codec.prepare(x[0])
        alone = np.hstack([codec.score(query, row) for row in rows[:, None]])
        for n in range(1, len(rows) + 1):
            assert np.array_equal(codec.score(query, rows[:n]), alone[:, :n]), (dim, n)
