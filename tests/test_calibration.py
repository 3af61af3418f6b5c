"""Calibrations: learned ranges, the hash of their content, and errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgpack  # noqa: TID251 - states must survive the packer itself
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qvec.codes.calibration import Calibration
from qvec.codes.calibrators import METHODS
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Float32Array

ARRAYS = ("lower", "upper", "mean", "std", "min", "max")


@pytest.fixture
def sample() -> Float32Array:
    x = np.random.default_rng(1).normal(size=(1000, 6)) * np.arange(1, 7) + 0.1
    return x.astype(np.float32)


@pytest.fixture
def calibration(sample: Float32Array) -> Calibration:
    return Calibration.train(sample, "percentile", {"percentile": 99.0}, model="mini-v2")


def test_minmax_covers_the_sample_exactly(sample: Float32Array) -> None:
    made = Calibration.train(sample)
    assert np.array_equal(made.lower, sample.min(axis=0))
    assert np.array_equal(made.upper, sample.max(axis=0))
    assert made.n_samples == 1000
    assert made.constant_dims == []


def test_percentile_leaves_equal_tails_outside(sample: Float32Array, calibration: Calibration) -> None:
    assert ((sample < calibration.lower).sum(axis=0) == 5).all()
    assert ((sample > calibration.upper).sum(axis=0) == 5).all()


def test_percentile_of_100_is_minmax(sample: Float32Array) -> None:
    full = Calibration.train(sample, "percentile", {"percentile": 100})
    assert np.array_equal(full.lower, sample.min(axis=0))
    assert np.array_equal(full.upper, sample.max(axis=0))


def test_percentile_defaults_to_99_9(sample: Float32Array) -> None:
    assert Calibration.train(sample, "percentile").params == {"percentile": 99.9}


def test_statistics_are_those_of_the_sample(sample: Float32Array, calibration: Calibration) -> None:
    wide = sample.astype(np.float64)
    assert np.allclose(calibration.mean, wide.mean(axis=0), rtol=1e-6)
    assert np.allclose(calibration.std, wide.std(axis=0), rtol=1e-6)
    assert np.array_equal(calibration.min, sample.min(axis=0))
    assert np.array_equal(calibration.max, sample.max(axis=0))


def test_moments_do_not_depend_on_the_chunk_that_a_row_falls_in() -> None:
    x = np.random.default_rng(2).normal(size=(9000, 2)).astype(np.float32) + 1000
    made = Calibration.train(x)
    assert np.allclose(made.std, x.astype(np.float64).std(axis=0), rtol=1e-6)


def test_a_step_is_a_255th_of_the_range(sample: Float32Array) -> None:
    made = Calibration.train(sample)
    assert made.step.dtype == np.float32
    assert np.allclose(made.step * 255, made.upper - made.lower, rtol=1e-6)


def test_a_constant_dimension_is_named_and_keeps_a_step_above_zero(sample: Float32Array) -> None:
    sample[:, 2] = -4.5
    made = Calibration.train(sample)
    assert made.constant_dims == [2]
    assert made.step[2] == np.float32(1e-30)


def test_the_widest_range_of_float32_has_a_finite_step() -> None:
    sample = np.zeros((256, 1), np.float32)
    sample[0], sample[1] = np.finfo(np.float32).min, np.finfo(np.float32).max
    assert np.isfinite(Calibration.train(sample).step).all()


def test_a_calibration_is_dated_in_utc(calibration: Calibration) -> None:
    age = datetime.now(UTC) - datetime.fromisoformat(calibration.created)
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_the_hash_does_not_depend_on_the_date(sample: Float32Array) -> None:
    first, second = (Calibration.train(sample, model="m") for _ in range(2))
    assert first.hash == second.hash
    assert first.id == first.hash[:16]
    assert Calibration.train(sample, model="other").hash != first.hash
    assert Calibration.train(sample[:-1], model="m").hash != first.hash


def test_arrays_and_parameters_cannot_be_changed(sample: Float32Array, calibration: Calibration) -> None:
    with pytest.raises(ValueError, match="read-only"):
        calibration.lower[0] = 0
    with pytest.raises(TypeError):
        calibration.params["percentile"] = 1.0  # type: ignore[index]
    before = calibration.hash
    sample[:] = 0
    assert calibration.hash == before


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_survives_msgpack_and_json(sample: Float32Array, method: str) -> None:
    ranges = np.stack([sample.min(axis=0), sample.max(axis=0)])
    given = method == "ranges"
    made = Calibration.from_ranges(ranges, "mini") if given else Calibration.train(np.tile(sample, (3, 1)), method)
    unpacked = Calibration.from_dict(msgpack.unpackb(msgpack.packb(made.to_dict())))
    for again in (unpacked, Calibration.from_json(made.to_json())):
        assert again.to_dict() == made.to_dict()
        assert again.hash == made.hash


@given(arrays(np.float32, (256, 2), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_json_keeps_every_bit_of_any_finite_sample(sample: Float32Array) -> None:
    made = Calibration.train(sample)
    assert Calibration.from_json(made.to_json()).to_dict() == made.to_dict()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_row_and_dimension(sample: Float32Array, value: float) -> None:
    sample[123, 4] = value
    with pytest.raises(InputError, match=f"{value} in row 123, dimension 4"):
        Calibration.train(sample)


def test_too_small_a_sample_is_refused_with_the_number_needed(sample: Float32Array) -> None:
    with pytest.raises(InputError, match="minmax needs a sample of at least 256 vectors, got 255"):
        Calibration.train(sample[:255])


@pytest.mark.parametrize("shape", [(300,), (300, 0), (3, 100, 2)])
def test_a_sample_that_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="shape"):
        Calibration.train(np.zeros(shape, np.float32))


def test_unknown_methods_and_parameters_are_refused(sample: Float32Array) -> None:
    with pytest.raises(InputError, match="minmax, percentile"):
        Calibration.train(sample, "mode")
    with pytest.raises(InputError, match="no parameter 'percentile'"):
        Calibration.train(sample, "minmax", {"percentile": 99.0})
    with pytest.raises(InputError, match="above 50 and at most 100"):
        Calibration.train(sample, "percentile", {"percentile": 50.0})


@pytest.mark.parametrize("name", ARRAYS)
def test_a_changed_value_does_not_match_the_hash(calibration: Calibration, name: str) -> None:
    plain = calibration.to_dict()
    values = np.frombuffer(plain[name], "<f4") * np.float32(1 + 1e-6)
    with pytest.raises(FormatError, match="hash"):
        Calibration.from_dict(plain | {name: values.astype("<f4").tobytes()})


@pytest.mark.parametrize("change", [{"model": "other"}, {"n_samples": 999}, {"params": {"percentile": 98.0}}])
def test_changed_provenance_does_not_match_the_hash(calibration: Calibration, change: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="hash"):
        Calibration.from_dict(calibration.to_dict() | change)


def test_a_swapped_range_is_refused(calibration: Calibration) -> None:
    plain = calibration.to_dict()
    with pytest.raises(FormatError, match="'lower' exceeds 'upper' in dimension 0"):
        Calibration.from_dict(plain | {"lower": plain["upper"], "upper": plain["lower"]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("dim", 7),
        ("method", "mode"),
        ("lower", [1.0]),
        ("lower", ["x"] * 6),
        ("upper", [1e300] * 6),
        ("upper", [10**400] * 6),
        ("std", [-1.0] * 6),
        ("params", {"percentile": "99"}),
        ("params", {}),
        ("created", "yesterday"),
        ("created", "2026-01-01T00:00:00"),
        ("model", 3),
        ("model", "x" * 1025),
        ("id", "0" * 16),
    ],
)
def test_a_bad_field_of_json_is_refused_by_name(calibration: Calibration, field: str, value: object) -> None:
    plain = json.loads(calibration.to_json()) | {field: value}
    named = "lower" if field == "dim" else field
    with pytest.raises(FormatError, match=named):
        Calibration.from_json(json.dumps(plain))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_text_that_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="calibration"):
        Calibration.from_json(text)
