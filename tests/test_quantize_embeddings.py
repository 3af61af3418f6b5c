"""Codes equal to those of sentence_transformers.util.quantize_embeddings, whose formula is written out here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.codes.calibration import Calibration
from qvec.codes.configs import Binary
from qvec.codes.int8 import Int8Quantizer
from qvec.codes.registry import from_state, train
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Float32Array, Metric


def published(embeddings: Float32Array, ranges: Float32Array, precision: str) -> Any:
    """Starts, steps and the cast as published; values outside 0..255 saturate instead of wrapping."""
    if precision in ("binary", "ubinary"):
        packed = np.packbits(embeddings > 0).reshape(embeddings.shape[0], -1)
        return packed if precision == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    starts = ranges[0, :]
    steps = (ranges[1, :] - ranges[0, :]) / 255
    return (np.clip((embeddings - starts) / steps, 0, 255) - 128).astype(np.int8)


def unit(x: Any) -> Float32Array:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("dim", [7, 64, 384])
def test_int8_codes_agree_to_the_last_bit(metric: Metric, dim: int) -> None:
    rng = np.random.default_rng(dim)
    x = unit(rng.normal(size=(20_000, dim)) + rng.normal(size=dim))
    ranges = np.vstack([x[:500].min(axis=0), x[:500].max(axis=0)])
    quantizer = Int8Quantizer(dim, metric, None, Calibration.from_ranges(ranges), "truncate")
    codes = quantizer.encode(x)[:, :dim]
    expected = published(x, ranges, "int8")
    assert ((x < ranges[0]) | (x > ranges[1])).any()
    assert np.array_equal((codes ^ np.uint8(128)).view(np.int8), expected)
    again = from_state(quantizer.state())
    assert np.array_equal(again.encode(x)[:, :dim], codes)


def test_values_on_the_very_edge_of_a_code_agree_too() -> None:
    ranges = np.array([[-0.1, 0.0, -3e-3], [0.2, 1e-3, 7.7]], np.float32)
    steps = (ranges[1] - ranges[0]) / 255
    x = (ranges[0] + steps * np.arange(256, dtype=np.float32)[:, None]).astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, np.float32(9)), np.nextafter(x, np.float32(-9))])
    quantizer = Int8Quantizer(3, "l2", None, Calibration.from_ranges(ranges), "truncate")
    codes = (quantizer.encode(x)[:, :3] ^ np.uint8(128)).view(np.int8)
    assert np.array_equal(codes, published(x, ranges, "int8"))


@pytest.mark.parametrize("dim", [8, 64, 384])
def test_binary_codes_are_the_same_bits(dim: int) -> None:
    x = np.random.default_rng(1).normal(size=(1000, dim)).astype(np.float32)
    quantizer = train(x, "cosine", Binary(center=False, rotate=False))
    bits = np.unpackbits(quantizer.encode(x), axis=1, bitorder="little")[:, :dim]
    assert np.array_equal(np.packbits(bits, axis=1), published(x, np.empty(0), "ubinary"))


def test_ranges_become_a_calibration_without_a_sample() -> None:
    ranges = np.array([[-1, -2, 0], [1, 3, 0]], np.float32)
    made = Calibration.from_ranges(ranges, model="m")
    assert (made.method, made.n_samples, made.model) == ("ranges", 0, "m")
    assert np.array_equal(made.lower, ranges[0])
    assert np.array_equal(made.upper, ranges[1])
    assert made.constant_dims == [2]
    assert Calibration.from_json(made.to_json()).hash == made.hash == Calibration.from_dict(made.to_dict()).hash


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (np.zeros((3, 4), np.float32), r"shape \(2, dim\), got \(3, 4\)"),
        (np.zeros((2, 4)), "float32"),
        (np.array([[1, 5], [2, 4]], np.float32), "the lower end exceeds the upper in dimension 1"),
        (np.array([[1, np.nan], [2, 4]], np.float32), "nan in row 0, dimension 1"),
    ],
)
def test_bad_ranges_are_refused(ranges: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Calibration.from_ranges(ranges)


def test_truncation_needs_a_calibration() -> None:
    state = Int8Quantizer(4, "l2", None, None).state()
    with pytest.raises(FormatError, match="rounding"):
        from_state(state | {"rounding": "truncate"})


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_collection_is_created_with_ranges_that_are_known(tmp_path: Path, kind: str) -> None:
    x = unit(np.random.default_rng(0).normal(size=(500, 16)))
    ranges = Calibration.from_ranges(np.vstack([x.min(axis=0), x.max(axis=0)]), model="m")
    code = qvec.Int8(scale="per_dim") if kind == "int8" else qvec.Int4(scale="per_dim", rotate=False)
    with qvec.create(tmp_path / "a", 16, code=code, calibration=ranges, model="m") as db:
        db.add(x[:1], [7])  # the first batch teaches nothing
        (made,) = db.generations()
        assert (made.id, made.n_samples, made.active) == (ranges.id, 0, True)
        assert db.search(x[0], 1).ids.tolist() == [7]
    for options, message in [
        ({"code": code, "sample": x, "model": "m"}, "not both"),
        ({"code": kind, "model": "m"}, "a calibration is for Int8 or Int4"),
        ({"code": code}, "of model 'm'"),
        ({"code": code, "model": "m", "dim": 8}, "of 16 dimensions"),
    ]:
        with pytest.raises(qvec.InputError, match=message):
            qvec.create(tmp_path / "b", **({"dim": 16, "calibration": ranges} | options))
        assert not (tmp_path / "b").exists()
