"""Normalizing, centering and the fast Hadamard rotation."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.kernels_oracle import Bytes, Doubles, Floats, gaussian, unit
from qvec._kernels import transform

pytestmark = pytest.mark.simd

WIDTHS = [32, 64, 80, 128, 192, 320, 384, 448, 512, 768, 784, 960]


def random_signs(padded: int) -> Bytes:
    return np.random.default_rng(padded).integers(0, 256, padded // 2, dtype=np.uint8)


def sylvester(n: int) -> Doubles:
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return np.asarray(h / np.sqrt(n))


def rotation_matrix(padded: int, signs: Bytes) -> Doubles:
    """The four rounds as dense matrices."""
    power = 1 << (padded.bit_length() - 1)
    flips = np.unpackbits(signs, bitorder="little").reshape(4, padded) * -2.0 + 1
    half = np.eye(padded // 2)
    butterfly = np.block([[half, half], [half, -half]]) / np.sqrt(2) if power < padded else np.eye(padded)
    matrix = np.eye(padded)
    for turn in range(4):
        start = padded - power if turn % 2 else 0
        hadamard = np.eye(padded)
        hadamard[start : start + power, start : start + power] = sylvester(power)
        matrix = butterfly @ hadamard @ np.diag(flips[turn]) @ matrix
    return matrix


@pytest.mark.parametrize("padded", WIDTHS)
def test_the_rotation_is_its_definition(padded: int) -> None:
    x = gaussian(padded, 5, padded)
    signs = random_signs(padded)
    expected = x @ rotation_matrix(padded, signs).T
    error = np.abs(transform(x, padded, False, None, signs) - expected).max(1)
    assert (error <= 1e-6 * np.linalg.norm(x, axis=1)).all()


@pytest.mark.parametrize("padded", WIDTHS)
def test_the_rotation_is_orthogonal_and_mixes_every_dimension(padded: int) -> None:
    axes = np.eye(padded, dtype=np.float32)
    matrix = transform(axes, padded, False, None, random_signs(padded)).astype(np.float64)
    assert np.abs(matrix @ matrix.T - np.eye(padded)).max() < 1e-5
    # of a random rotation, the largest of padded^2 entries is near sqrt(4 ln padded / padded)
    assert np.abs(matrix).max() < 2 * np.sqrt(4 * np.log(padded) / padded)


def test_norms_are_kept_at_the_largest_width() -> None:
    for dim, padded in ((65536, 65536), (40000, 40000), (784, 832), (3, 64)):
        x = gaussian(dim, 2, dim)
        turned = transform(x, padded, False, None, random_signs(padded))
        assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)


def test_vectors_are_normalized_then_centered_then_padded() -> None:
    x, mean = gaussian(1, 7, 50), gaussian(2, 1, 50)[0]
    for normalize in (False, True):
        for center in (None, mean):
            expected: Floats = (unit(x) if normalize else x) - (0 if center is None else center)
            out = transform(x, 60, normalize, center, None)
            assert np.allclose(out[:, :50], expected, rtol=1e-6, atol=1e-7)
            assert not out[:, 50:].any()


def test_zero_vectors_stay_zero_and_huge_and_tiny_ones_become_unit() -> None:
    x = np.zeros((3, 64), np.float32)
    x[1], x[2] = 3e38, 1e-25
    out = transform(x, 64, True, None, random_signs(64))
    assert not out[0].any()
    assert np.allclose(np.linalg.norm(out[1:].astype(np.float64), axis=1), 1, rtol=1e-5)


def test_a_vector_is_transformed_the_same_alone_and_in_a_batch() -> None:
    x, mean, signs = gaussian(3, 9, 100), gaussian(4, 1, 100)[0], random_signs(192)
    whole = transform(x, 192, True, mean, signs)
    assert np.array_equal(np.concatenate([transform(row, 192, True, mean, signs) for row in x]), whole)
    assert transform(x[:0], 192, True, mean, signs).shape == (0, 192)


@pytest.mark.parametrize(
    ("padded", "mean", "signs", "message"),
    [
        (5, None, None, "padded must be at least dim, 10, not 5"),
        (65537, None, None, "padded must be in 1..65536"),
        (100, None, np.zeros(50, np.uint8), "multiple of 16"),
        (16, None, np.zeros(8, np.uint8), "at least 32"),
        (64, None, np.zeros(31, np.uint8), "signs must be 32 wide"),
        (64, None, np.zeros((1, 32), np.uint8), "signs must have 1 dimension"),
        (64, np.zeros(9, np.float32), None, "mean must be 10 wide"),
        (64, np.zeros((1, 10), np.float32), None, "mean must have 1 dimension"),
    ],
)
def test_bad_arguments_are_named(padded: int, mean: Floats | None, signs: Bytes | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform(np.zeros((2, 10), np.float32), padded, False, mean, signs)
