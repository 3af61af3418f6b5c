"""FastScan: codes, table and sums against NumPy, on every level; estimates within RaBitQ's bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Place
from numpy.typing import NDArray

from qvec._kernels import fastscan_encode, fastscan_sums, fastscan_table, simd_levels, transform
from qvec.codes.transforms import rotation_signs

pytestmark = pytest.mark.simd

Floats = NDArray[np.float32]
DIMS = [16, 32, 48, 64, 80, 112, 384, 784, 4096, 4112, 8208, 65536]  # beyond 4096, sums do not fit into 16 bits at once


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def nibbles(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int [32, dims / 4] of a group's bytes, in the layout that fastscan.h describes."""
    lanes = codes.reshape(-1, 16)
    place = np.array([2 * v if v < 8 else 2 * (v - 8) + 1 for v in range(16)])
    low, high = lanes[:, place] & 15, lanes[:, place] >> 4
    return np.concatenate([low, high], axis=1).T.astype(np.int64)


def signs(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """b = +-1/2 of a group, float64 [32, dims]."""
    bits = nibbles(codes)[:, :, None] >> np.arange(4) & 1
    return bits.reshape(len(bits), -1) - 0.5


def expected_sums(codes: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.int64]:
    entries = table.reshape(-1, 16).astype(np.int64) - 32
    return np.stack([entries[np.arange(len(entries)), row].sum() for row in nibbles(codes)])


@pytest.mark.parametrize("dims", DIMS[:8])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 32])
def test_codes_are_the_signs_of_the_residuals(dims: int, n: int) -> None:
    r = normal(dims + n, n, dims)
    r[:, ::5] = 0
    codes, _ = fastscan_encode(r, normal(1, dims), "l2")
    b = signs(codes)
    np.testing.assert_array_equal(b[:n], np.where(r > 0, 0.5, -0.5))
    assert (b[n:] == -0.5).all()  # unused places


@pytest.mark.parametrize("dims", DIMS[:8])
def test_a_tables_entries_are_its_groups_sums_to_half_a_unit(dims: int) -> None:
    q = normal(dims, dims)
    table, unit = fastscan_table(q)
    halves = np.where(np.arange(16)[:, None] >> np.arange(4) & 1, 0.5, -0.5)
    exact = q.reshape(-1, 4).astype(np.float64) @ halves.T
    entries = table.reshape(-1, 16).astype(np.float64) - 32
    assert unit == pytest.approx(np.abs(exact).max() / 31, rel=1e-5)
    assert np.abs(entries).max() == 31
    assert np.abs(entries * unit - exact).max() <= 0.51 * unit


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-30, 1.0, 1e18])
def test_a_table_of_a_query_of_any_length_is_in_range(scale: float) -> None:
    q = normal(3, 64) * np.float32(scale)
    table, unit = fastscan_table(q)
    assert table.min() >= 1
    assert table.max() <= 63
    assert np.isfinite(unit)
    assert (unit > 0) == (scale > 1e-36)
    assert unit > 0 or (table == 32).all()


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("dims", DIMS)
def test_sums_are_those_of_the_entries_on_every_level(dims: int, level: str) -> None:
    rng = np.random.default_rng(dims)
    codes = rng.integers(0, 256, (2, 4 * dims), dtype=np.uint8)
    for table in (
        rng.integers(1, 64, 4 * dims, dtype=np.uint8),
        np.full(4 * dims, 63, np.uint8),
        np.full(4 * dims, 1, np.uint8),
    ):
        sums = fastscan_sums(codes, table, simd=level)
        np.testing.assert_array_equal(sums, np.stack([expected_sums(group, table) for group in codes]))


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("dims", [16, 48, 64, 400])
def test_sums_at_any_address_and_to_the_last_byte(dims: int, level: str, guarded: Place) -> None:
    rng = np.random.default_rng(dims)
    codes = rng.integers(0, 256, (3, 4 * dims), dtype=np.uint8)
    table, _ = fastscan_table(normal(1, dims))
    expected = fastscan_sums(codes, table, simd=level)
    np.testing.assert_array_equal(fastscan_sums(guarded(codes), guarded(table), simd=level), expected)
    for offset in range(1, 65, 7):
        moved = np.empty(codes.size + offset, np.uint8)[offset:].reshape(codes.shape)
        moved[...] = codes
        np.testing.assert_array_equal(fastscan_sums(moved, table, simd=level), expected)


def test_encoder_and_table_read_no_further_than_their_input(guarded: Place) -> None:
    for dims in (16, 48, 400):
        r, center = normal(dims, 32, dims), normal(2, dims)
        for fenced, plain in zip(
            fastscan_encode(guarded(r), guarded(center), "ip"), fastscan_encode(r, center, "ip"), strict=True
        ):
            np.testing.assert_array_equal(fenced, plain)
        np.testing.assert_array_equal(fastscan_table(guarded(center))[0], fastscan_table(center)[0])


def keys(metric: str, q: Floats, x: Floats) -> NDArray[np.float64]:
    y, z = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return np.asarray(((y[:, None] - z[None]) ** 2).sum(-1))
    return float(metric == "cosine") - y @ z.T


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dims", [64, 384, 784])
def test_estimates_are_unbiased_and_within_the_bound(metric: str, dims: int) -> None:
    """Each group has another rotation. The bound of 1.9 sigma holds for about 94 % of normal errors."""
    errors, within = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        center, shifts = rng.normal(size=dims), rng.normal(size=(33, dims)) * rng.uniform(0.2, 2, (33, 1))
        x = np.vstack([center, center + shifts]).astype(np.float32)
        x = transform(x, dims, metric == "cosine", None, rotation_signs(seed, dims))
        c, v, q = x[0], x[1:33], x[33]
        codes, factors = fastscan_encode(v - c, c, metric)
        table, unit = fastscan_table(q)
        add, rescale, bound = factors.T.astype(np.float64)
        estimate = keys(metric, q[None], c[None])[0] + add + rescale * unit * fastscan_sums(codes, table)[0]
        error = estimate - keys(metric, q[None], v)[0]
        limit = bound * np.linalg.norm(q.astype(np.float64) - c)
        errors.append(error / limit)
        within.append(np.abs(error) <= limit)
    assert np.mean(within) == pytest.approx(0.943, abs=0.02)
    assert abs(np.mean(errors)) < 0.05  # of 1.9 sigma, over 1,280 estimates


def test_a_vector_that_is_its_center_has_its_key() -> None:
    center = normal(0, 64)
    _, factors = fastscan_encode(np.zeros((2, 64), np.float32), center, "l2")
    assert (factors == 0).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fastscan_encode(normal(0, 2, 24), normal(0, 24), "l2"), ValueError, "multiple of 16, not 24"),
        (lambda: fastscan_encode(normal(0, 33, 16), normal(0, 16), "l2"), ValueError, "holds 32 vectors, not 33"),
        (lambda: fastscan_encode(normal(0, 2, 16), normal(0, 32), "l2"), ValueError, "center must be 16 wide"),
        (lambda: fastscan_encode(normal(0, 2, 16), normal(0, 16), "l1"), ValueError, "metric must be one of"),
        (lambda: fastscan_table(np.zeros(16)), TypeError, "float32, not float64"),
        (lambda: fastscan_sums(np.zeros((1, 64), np.uint8), np.zeros(128, np.uint8)), ValueError, "128 wide"),
        (lambda: fastscan_sums(np.zeros((1, 32), np.uint8), np.zeros(32, np.uint8)), ValueError, "multiple of 64"),
        (lambda: fastscan_sums(np.zeros((1, 64), np.uint8), np.zeros(64, np.uint8), simd="sse"), ValueError, "simd"),
    ],
)
def test_bad_arguments_are_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
