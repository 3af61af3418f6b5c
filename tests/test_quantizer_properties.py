"""Properties of every quantizer for any data: QVEC_PROPERTIES examples of each (R20)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.quantizer_laws import CONFIGS
from qvec._kernels import simd_levels
from qvec.codes.configs import Int8
from qvec.codes.int8 import Int8Quantizer
from qvec.codes.registry import Quantizer, train
from qvec.common.types import Float32Array

pytestmark = pytest.mark.simd

EXAMPLES = int(os.environ.get("QVEC_PROPERTIES", "60"))
SAMPLE, ROWS = 400, 37
LARGEST = 1e18  # limit of a vector's values
TAIL = 0.002  # of the clipped share, against the percentile that was asked for
LARGE = settings(max_examples=EXAMPLES, deadline=None)
SHAPES = ("normal", "uniform", "heavy", "offset", "few", "equal")


def made(seed: int, shape: str, dim: int, n: int = SAMPLE + ROWS) -> Float32Array:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-6, 6)
    x = rng.normal(size=(n, dim))
    x = {
        "normal": x, "uniform": rng.random((n, dim)), "heavy": rng.standard_t(2, (n, dim)), "offset": x + 30,
        "few": np.round(x), "equal": np.ones((n, dim)) + 1e-3 * x[:, :1],
    }[shape]  # fmt: skip
    return (scale * x + 1e-9).astype(np.float32)


def trained(seed: int, name: str, shape: str, dim: int, metric: Any) -> tuple[Quantizer, Float32Array]:
    x = made(seed, shape, dim)
    return train(x[:SAMPLE], metric, CONFIGS[name], seed=seed % 7), x[SAMPLE:]


DRAWN = {
    "seed": st.integers(0, 2**31), "name": st.sampled_from(sorted(CONFIGS)), "shape": st.sampled_from(SHAPES),
    "dim": st.integers(25, 200), "metric": st.sampled_from(["l2", "ip", "cosine"]),
}  # fmt: skip


@LARGE
@given(**DRAWN, at=st.lists(st.integers(0, ROWS), max_size=4))
@pytest.mark.slow
def test_codes_do_not_depend_on_how_a_batch_is_split(
    seed: int, name: str, shape: str, dim: int, metric: Any, at: list[int]
) -> None:
    quantizer, x = trained(seed, name, shape, dim, metric)
    parts = [quantizer.encode(part) for part in np.split(x, sorted(at)) if len(part)]
    assert np.array_equal(np.concatenate(parts), quantizer.encode(x))


@LARGE
@given(**DRAWN, factor=st.sampled_from([1e3, 1e6, 1e9, 1e12]))
def test_values_out_of_range_saturate(seed: int, name: str, shape: str, dim: int, metric: Any, factor: float) -> None:
    quantizer, x = trained(seed, name, shape, dim, metric)
    far = np.clip(x * np.float64(factor), -LARGEST, LARGEST).astype(np.float32)
    assert np.isfinite(quantizer.decode(quantizer.encode(far))).all()
    assert np.isfinite(quantizer.decode(quantizer.encode(-far))).all()


@LARGE
@given(**{k: v for k, v in DRAWN.items() if k not in ("name", "metric")}, rotate=st.booleans())
def test_the_error_of_a_calibrated_code_is_at_most_half_a_step(seed: int, shape: str, dim: int, rotate: bool) -> None:
    x = made(seed, shape, dim)
    quantizer = train(x, "l2", Int8(scale="per_dim", rotate=rotate), seed=1)
    assert isinstance(quantizer, Int8Quantizer)
    assert quantizer.calibration is not None
    error = quantizer.decode(quantizer.encode(x)).astype(np.float64) - x
    half, slack = quantizer.calibration.step / 2, 1e-5 * np.sqrt(dim) * np.abs(x).max() + 1e-12  # of float32
    if rotate:  # lengths are those before the rotation
        assert np.linalg.norm(error, axis=1).max() <= np.linalg.norm(half) + slack
    else:
        assert (np.abs(error) <= half + slack).all()


@LARGE
@given(**{k: v for k, v in DRAWN.items() if k not in ("name", "metric")}, percentile=st.floats(90.0, 99.99))
def test_a_percentile_clips_the_stated_share(seed: int, shape: str, dim: int, percentile: float) -> None:
    x = made(seed, shape, dim % 8 + 1, 4000)
    quantizer = train(x, "l2", Int8(scale="per_dim", method="percentile", percentile=percentile), seed=0)
    assert isinstance(quantizer, Int8Quantizer)
    calibration = quantizer.calibration
    assert calibration is not None
    outside = ((x < calibration.lower) | (x > calibration.upper)).mean(axis=0)
    allowed = 1 - percentile / 100 + TAIL
    assert (outside <= allowed + 1 / len(x)).all()
    if shape in ("normal", "uniform", "heavy", "offset"):  # values at one place fall on one side of the limit
        assert (outside >= 1 - percentile / 100 - TAIL - 2 / len(x)).all()


def digest(examples: int) -> str:
    """A digest of the codes of every kind."""
    said = hashlib.sha256()
    for i in range(examples):
        for name in sorted(CONFIGS):
            quantizer, x = trained(i, name, SHAPES[i % len(SHAPES)], 25 + 7 * i % 160, ("l2", "ip", "cosine")[i % 3])
            said.update(quantizer.encode(x).tobytes())
    return said.hexdigest()


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.slow
def test_codes_do_not_depend_on_the_simd_level(level: str) -> None:
    examples = max(2, EXAMPLES // 100)
    script = f"import test_quantizer_properties as t; print(t.digest({examples}))"
    environment = os.environ | {
        "QVEC_SIMD": level,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == digest(examples), done.stderr
