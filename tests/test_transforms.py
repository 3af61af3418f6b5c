"""Transforms: the signs never change, the rotation keeps lengths, the order is normalize, center, rotate."""

from __future__ import annotations

import hashlib

import msgpack  # noqa: TID251 - states must survive the packer itself
import numpy as np
import pytest

from qvec._kernels import PANEL, project, simd_levels
from qvec.codes.transforms import ROUNDS, Transform, rotation_signs, splitmix64
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Float32Array

pytestmark = pytest.mark.simd

DIMS = [1, 2, 63, 64, 65, 100, 128, 384, 784, 1024]


def vectors(dim: int, n: int = 8) -> Float32Array:
    return np.random.default_rng(dim).normal(size=(n, dim)).astype(np.float32)


def test_splitmix64_returns_the_published_stream() -> None:
    assert splitmix64(0, 2).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert splitmix64(1234567, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(2**64 - 1, 2).tolist() == [16490336266968443936, 16834447057089888969]


def test_the_signs_of_a_seed_never_change() -> None:
    signs = rotation_signs(42, 384)
    assert signs.dtype == np.uint8
    assert signs.shape == (ROUNDS * 384 // 8,)
    golden = "7d93953d959de269366bbaf23ebfa25282c15ee60b176395592aebb99f02b6d0"
    assert hashlib.sha256(signs.tobytes()).hexdigest() == golden


@pytest.mark.parametrize("dim", DIMS)
def test_a_rotation_keeps_dot_products_and_pads_to_64(dim: int) -> None:
    x = vectors(dim)
    y = Transform(dim, False, None, 9).apply(x)
    assert y.shape == (8, -(-dim // 64) * 64)
    assert np.allclose(y @ y.T, x @ x.T, atol=1e-4 * dim)


@pytest.mark.parametrize("dim", DIMS)
def test_unrotate_is_the_inverse(dim: int) -> None:
    x, rotation = vectors(dim), Transform(dim, False, None, 9)
    back = rotation.unrotate(rotation.apply(x))
    assert back.shape == x.shape
    assert np.allclose(back, x, atol=1e-5)


@pytest.mark.parametrize("dim", [64, 100, 384, 784])
def test_a_rotation_spreads_each_dimension_over_all_others(dim: int) -> None:
    basis = np.eye(dim, dtype=np.float32)
    rotated = Transform(dim, False, None, 0).apply(basis)
    assert np.abs(rotated).max() < 0.5
    # The fourth moment of a random direction is 3 / d, of a direction along an axis 1.
    assert np.mean((rotated**4).sum(axis=1)) < 12 / rotated.shape[1]


def test_normalizing_comes_before_centering() -> None:
    x, mean = vectors(100), np.full(100, 0.01, np.float32)
    y = Transform(100, True, mean, None).apply(x)
    assert np.allclose(y, x / np.linalg.norm(x, axis=1, keepdims=True) - mean, atol=1e-6)


def test_centering_comes_before_the_rotation() -> None:
    x, mean = vectors(100), vectors(100)[0] * 3
    both, rotation = Transform(100, False, mean, 4), Transform(100, False, None, 4)
    assert np.array_equal(both.apply(x), rotation.apply(x - mean))


def test_a_zero_vector_normalizes_to_something_finite() -> None:
    assert np.isfinite(Transform(64, True, None, 1).apply(np.zeros((1, 64), np.float32))).all()


def test_a_row_does_not_depend_on_its_batch() -> None:
    x, rotation = vectors(784, 33), Transform(784, True, vectors(784)[0], 2)
    whole = rotation.apply(x)
    assert np.array_equal(np.vstack([rotation.apply(row[None]) for row in x]), whole)


@pytest.mark.parametrize("seed", [None, 0, 2**64 - 1])
@pytest.mark.parametrize("centered", [False, True])
def test_a_transform_survives_msgpack(seed: int | None, centered: bool) -> None:
    made = Transform(100, True, vectors(100)[0] if centered else None, seed)
    again = Transform.from_state(msgpack.unpackb(msgpack.packb(made.state())))
    assert again.state() == made.state()
    assert np.array_equal(again.apply(vectors(100)), made.apply(vectors(100)))


def test_the_mean_is_a_private_copy_that_cannot_be_changed() -> None:
    mean = vectors(100)[0]
    made = Transform(100, False, mean, None)
    before = made.state()
    mean[:] = 0
    assert made.state() == before
    assert made.mean is not None
    with pytest.raises(ValueError, match="read-only"):
        made.mean[0] = 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("dim", 0),
        ("dim", 65_537),
        ("padded", 100),
        ("normalize", 1),
        ("mean", b"\x00" * 396),
        ("mean", np.full(100, np.inf, "<f4").tobytes()),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", True),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    state = Transform(100, False, None, 1).state()
    with pytest.raises(FormatError, match=field):
        Transform.from_state(state | {field: value})


def test_a_transform_refuses_bad_options() -> None:
    with pytest.raises(InputError, match="dim"):
        Transform(0, False, None, None)
    with pytest.raises(InputError, match="seed"):
        Transform(8, False, None, -1)
    with pytest.raises(InputError, match=r"float32 of shape \(8,\)"):
        Transform(8, False, np.zeros(9, np.float32), None)
    with pytest.raises(InputError, match="not finite in dimension 3"):
        Transform(8, False, np.array([0, 0, 0, np.nan, 0, 0, 0, 0], np.float32), None)


def orthogonal(dim: int, width: int) -> Float32Array:
    square = np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, dim)))[0]
    return np.ascontiguousarray(square[:, :width].astype(np.float32))


@pytest.mark.parametrize(("dim", "width"), [(1, 1), (33, 7), (64, 64), (100, 70), (40, 90)])
def test_a_matrix_projects_centered_vectors(dim: int, width: int) -> None:
    rng = np.random.default_rng(dim)
    matrix, mean = (rng.normal(size=shape).astype(np.float32) for shape in ((dim, width), dim))
    x = rng.normal(size=(9, dim)).astype(np.float32)
    transform = Transform(dim, False, mean, None, matrix=matrix)
    expected = (x - mean).astype(np.float64) @ matrix
    assert transform.padded == width
    assert np.allclose(transform.apply(x), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", [None, 3])
def test_an_orthogonal_matrix_is_undone_by_its_transpose(seed: int | None) -> None:
    x = np.random.default_rng(1).normal(size=(5, 100)).astype(np.float32)
    transform = Transform(100, False, None, seed, matrix=orthogonal(100, 100))
    assert np.allclose(transform.unrotate(transform.apply(x)), x, atol=1e-5)


def test_projections_have_the_same_bits_on_every_level_and_in_every_batch() -> None:
    for dim, n_panels in ((1, 1), (31, 3), (130, 2)):
        rng = np.random.default_rng(dim)
        x = rng.normal(size=(11, dim)).astype(np.float32)
        panels = rng.normal(size=(n_panels * dim, PANEL)).astype(np.float32)
        whole = project(x, panels)
        for level in simd_levels():
            assert np.array_equal(project(x, panels, simd=level), whole)
            assert np.array_equal(np.vstack([project(row, panels, simd=level) for row in x]), whole)


def test_a_matrix_survives_its_state_and_is_refused_when_damaged() -> None:
    transform = Transform(20, True, None, 5, matrix=orthogonal(20, 12))
    again = Transform.from_state(transform.state())
    x = np.random.default_rng(2).normal(size=(3, 20)).astype(np.float32)
    assert np.array_equal(again.apply(x), transform.apply(x))
    for field, bad in (("width", 13), ("width", 0), ("matrix", b"\x00" * 4), ("matrix", None)):
        with pytest.raises(FormatError, match=r"'(width|matrix)'"):
            Transform.from_state(transform.state() | {field: bad})


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((3, 4), np.float32), r"shape \(4, width\), got float32 of shape \(3, 4\)"),
        (np.zeros((4, 0), np.float32), r"of shape \(4, 0\)"),
        (np.zeros((4, 4)), "got float64"),
        (np.full((4, 4), np.nan, np.float32), "not finite in row 0"),
        (np.zeros((4, (15 << 18) + 1), np.float32), "takes 62914576 bytes; the limit is 62914560"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(matrix: Float32Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Transform(4, False, None, None, matrix=matrix)


def test_panels_of_another_size_are_refused() -> None:
    x = np.zeros((2, 5), np.float32)
    for rows in (0, 4, 6):
        with pytest.raises(ValueError, match="panels must have a multiple of 5 rows"):
            project(x, np.zeros((rows, PANEL), np.float32))
