"""Every registered kind under the laws of quantizer_laws.py, and tests of single kinds."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.quantizer_laws import (
    CONFIGS,
    check_bad_states,
    check_batches,
    check_input,
    check_recall,
    check_scores,
    check_state,
    clustered,
    coded_view,
)
from qvec.codes.configs import Binary, Int4, Int8, Ternary
from qvec.codes.int8 import Int8Quantizer
from qvec.codes.registry import QUANTIZERS, Quantizer, from_state, make_config, train
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Float32Array, Metric

pytestmark = pytest.mark.simd

DIM = 100  # no multiple of 8, 16 or 64: every kernel has a tail, and every row is padded


@pytest.fixture(scope="module")
def data() -> Float32Array:
    return clustered(np.random.default_rng(7), 700, DIM)


@pytest.fixture(scope="module", params=get_args(Metric))
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param


@pytest.fixture(scope="module", params=CONFIGS)
def quantizer(request: pytest.FixtureRequest, metric: Metric, data: Float32Array) -> Quantizer:
    return train(data[:600], metric, CONFIGS[request.param], seed=3)


def test_every_registered_kind_is_under_the_laws() -> None:
    own_laws = {"prequantized"}  # takes integers, not floats: test_prequantized.py
    assert {config.kind for config in CONFIGS.values()} == set(QUANTIZERS) - own_laws
    assert all(QUANTIZERS[kind].kind == kind for kind in QUANTIZERS)


def test_codes_do_not_depend_on_how_a_batch_is_split(quantizer: Quantizer, data: Float32Array) -> None:
    check_batches(quantizer, data[:20])


def test_a_state_survives_msgpack_and_gives_the_same_codes(quantizer: Quantizer, data: Float32Array) -> None:
    check_state(quantizer, data)


def test_a_bad_state_is_refused_naming_the_field(quantizer: Quantizer) -> None:
    check_bad_states(quantizer)


def test_wrong_shapes_and_dtypes_are_refused(quantizer: Quantizer) -> None:
    check_input(quantizer)


def test_scores_agree_with_the_metric(quantizer: Quantizer, data: Float32Array) -> None:
    check_scores(quantizer, data[600:620], data[:600])


def test_a_scan_by_code_reaches_its_recall(quantizer: Quantizer, data: Float32Array) -> None:
    check_recall(quantizer, data[600:650], data[:600])


def test_one_dimension_is_enough(metric: Metric) -> None:
    x = np.linspace(1, 2, 300, dtype=np.float32)[:, None]
    for config in CONFIGS.values():
        quantizer = train(x, metric, config)
        assert quantizer.decode(quantizer.encode(x)).shape == (300, 1)


@pytest.mark.parametrize("rotate", [False, True])
def test_per_dim_error_is_at_most_half_a_step_inside_the_range(data: Float32Array, rotate: bool) -> None:
    quantizer = Int8Quantizer.train(data[:600], "l2", Int8(scale="per_dim", rotate=rotate), 0)
    assert quantizer.calibration is not None
    x = coded_view(quantizer, data[:600])
    error = np.abs(quantizer.codec.decode(quantizer.encode(data[:600])) - x)
    slack = 4 * np.finfo(np.float32).eps * np.abs(x).max()
    assert (error <= quantizer.calibration.step / 2 + slack).all()


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_per_vector_codes_are_the_nearest_steps_scaled_so_that_the_length_has_no_bias(
    data: Float32Array, metric: Metric
) -> None:
    quantizer = train(data, metric, Int8())
    levels = np.rint(data / (np.abs(data).max(axis=1, keepdims=True) / 127))
    gain = np.square(data).sum(axis=1) / np.einsum("nd,nd->n", data, levels)
    decoded = quantizer.decode(quantizer.encode(data))
    assert np.allclose(decoded, gain[:, None] * levels, rtol=1e-5)


def test_decoding_undoes_the_rotation(data: Float32Array) -> None:
    for config in (Int8(rotate=True), Int8(scale="per_dim", rotate=True)):
        quantizer = train(data, "l2", config, seed=5)
        decoded = quantizer.decode(quantizer.encode(data))
        assert decoded.shape == data.shape
        assert decoded.flags.c_contiguous
        assert np.abs(decoded - data).max() < 0.1


def test_values_beyond_the_range_saturate_and_never_wrap(data: Float32Array) -> None:
    quantizer = Int8Quantizer.train(data, "l2", Int8(scale="per_dim"), 0)
    assert quantizer.calibration is not None
    beyond = np.array([[-3e38], [-1e6], [1e6], [3e38]], np.float32) * np.ones(DIM, np.float32)
    codes = quantizer.encode(beyond)[:, :DIM]  # the factors follow
    assert (codes[:2] == 0).all()
    assert (codes[2:] == 255).all()


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_float16_has_a_unit_for_each_vector(metric: Metric) -> None:
    halves = train(np.empty((0, 3), np.float32), metric, make_config("f16"))
    for size in (1e-18, 1.0, 1e18):
        x = np.array([[1.0, -0.3, 1e-6]], np.float32) * np.float32(size)
        assert np.allclose(halves.decode(halves.encode(x)), x, rtol=2.0**-11, atol=0)


@given(
    arrays(np.float32, (256, 3), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    arrays(np.float32, (20, 3), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
)
def test_any_sample_calibrates_codes_that_decode_into_its_range(sample: Float32Array, x: Float32Array) -> None:
    quantizer = Int8Quantizer.train(sample, "l2", Int8(scale="per_dim"), 0)
    assert quantizer.calibration is not None
    lower, step = quantizer.calibration.lower.astype(np.float64), quantizer.calibration.step
    upper = lower + 255.0 * step
    nearest = np.clip(x, lower, upper)
    slack = 4 * np.finfo(np.float32).eps * np.maximum(np.abs(lower), np.abs(upper))
    assert (np.abs(quantizer.decode(quantizer.encode(x)) - nearest) <= step / 2 * 1.0001 + slack).all()


def test_a_constant_dimension_codes_its_value(data: Float32Array) -> None:
    x = data.copy()
    x[:, 4] = 0.75
    quantizer = Int8Quantizer.train(x, "l2", Int8(scale="per_dim"), 0)
    assert quantizer.calibration is not None
    assert quantizer.calibration.constant_dims == [4]
    x[0, 4] = 9.0
    decoded = quantizer.decode(quantizer.encode(x))
    assert (decoded[:, 4] == np.float32(0.75)).all()


def test_int8_saturates_a_query_of_a_calibrated_code_without_harm(data: Float32Array) -> None:
    quantizer = train(data, "l2", Int8(scale="per_dim"))
    keys = quantizer.codec.score(quantizer.prepare(data[:1] * 1e4), quantizer.encode(data))
    assert np.isfinite(keys).all()


def test_binary_decodes_to_unit_directions(data: Float32Array) -> None:
    quantizer = train(data, "l2", Binary(center=False))
    decoded = quantizer.decode(quantizer.encode(data))
    unit = data / np.linalg.norm(data, axis=1, keepdims=True)
    assert np.allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)
    assert np.einsum("nd,nd->n", decoded, unit).mean() > 0.7


def test_binary_decodes_the_mean_itself_to_finite_values(metric: Metric) -> None:
    quantizer = train(np.ones((100, 1), np.float32), metric, Binary())
    assert np.isfinite(quantizer.decode(quantizer.encode(np.ones((1, 1), np.float32)))).all()


def test_another_seed_is_another_rotation(data: Float32Array) -> None:
    first, second = (train(data, "cosine", Binary(), seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.encode(data), second.encode(data))


@pytest.mark.parametrize(("config", "needed"), [(Int8(scale="per_dim"), 256), (Binary(center=True), 100)])
def test_a_small_sample_is_refused_with_the_number_needed(config: Int8 | Binary, needed: int) -> None:
    assert config.min_samples == needed
    sample = np.ones((needed - 1, 8), np.float32)
    with pytest.raises(InputError, match=rf"at least {needed} vectors, got {needed - 1}"):
        train(sample, "l2", config)


@pytest.mark.parametrize("config", [Int8(scale="per_dim"), Int8(scale="per_dim", rotate=True), Binary()])
def test_a_sample_with_nan_is_refused_naming_row_and_dimension(config: Int8 | Binary) -> None:
    sample = np.ones((300, 8), np.float32)
    sample[17, 5] = np.nan
    with pytest.raises(InputError, match="nan in row 17, dimension 5"):
        train(sample, "cosine", config)


def test_codes_that_learn_nothing_train_on_an_empty_sample() -> None:
    for config in (make_config("f32"), make_config("f16"), Int8(), Int8(rotate=True), Binary(center=False)):
        assert config.min_samples == 0
        assert train(np.empty((0, 12), np.float32), "ip", config).dim == 12


def test_names_of_codes_give_configurations() -> None:
    for kind in QUANTIZERS:
        assert make_config(kind).kind == kind
    assert make_config("auto") == Int8()
    assert make_config(Binary(rotate=False)) == Binary(rotate=False)


@pytest.mark.parametrize("code", ["int9", "", None, 8, Int8])
def test_an_unknown_code_is_refused_listing_the_choices(code: object) -> None:
    with pytest.raises(
        InputError, match="auto, f32, f16, bf16, int8, int4, ternary, binary, rabitq, mixed, prequantized, rabitq1"
    ):
        make_config(code)  # type: ignore[arg-type]


def test_a_configuration_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="config must be Int8, got Binary"):
        Int8Quantizer.train(np.ones((1, 4), np.float32), "l2", Binary(), 0)


@pytest.mark.parametrize("state", [None, [], {}, {"kind": "pickle"}, {"kind": ["int8"]}])
def test_a_state_of_no_known_kind_is_refused(state: object) -> None:
    with pytest.raises(FormatError, match="kind"):
        from_state(state)


def test_parts_of_other_dimensions_are_refused(data: Float32Array) -> None:
    config = Int8(scale="per_dim", rotate=True)
    wide, narrow = (train(data[:, :dim].copy(), "l2", config).state() for dim in (DIM, 60))
    for part in ("transform", "calibration"):
        with pytest.raises(FormatError, match=f"'{part}' is of"):
            from_state(wide | {part: narrow[part]})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Int8(scale="per_row"),  # type: ignore[arg-type]
        lambda: Int8(scale="per_dim", method="mode"),  # type: ignore[arg-type]
        lambda: Int8(method="percentile"),
        lambda: Int8(scale="per_dim", percentile=99.0),
        lambda: Int8(scale="per_dim", method="percentile", percentile=50.0),
        lambda: Int8(rotate=1),  # type: ignore[arg-type]
        lambda: Int8(symmetric=False),
        lambda: Int8(rounding="truncate"),
        lambda: Int8(dims=0),
        lambda: Int4(method="minmax"),
        lambda: Int4(scale="global", centroids=1),
        lambda: Int4(percentile=99.0),
        lambda: Ternary(centroids=-1),
        lambda: Ternary(dims=65_537),
        lambda: Binary(center="yes"),  # type: ignore[arg-type]
    ],
)
def test_configurations_refuse_values_that_mean_nothing(make: object) -> None:
    with pytest.raises(InputError, match=r"(Int8|Int4|Ternary|Binary)\."):
        make()  # type: ignore[operator]
