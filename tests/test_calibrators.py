"""Searches for ranges against brute force and against the published algorithm, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qvec.codes.calibration import Calibration
from qvec.codes.entropy import BINS, STRIDE, best_thresholds
from qvec.common.errors import InputError
from qvec.common.types import Float32Array

SHAPES = ["normal", "laplace", "uniform", "lognormal", "bimodal", "outlier", "integers"]


def drawn(shape: str, n: int = 3000) -> Float32Array:
    rng = np.random.default_rng(11)
    values = {
        "normal": rng.normal(3, 2, n),
        "laplace": rng.laplace(0, 1, n),
        "uniform": rng.uniform(-5, 1, n),
        "lognormal": rng.lognormal(0, 1, n),
        "bimodal": np.where(rng.random(n) < 0.3, rng.normal(-4, 0.2, n), rng.normal(2, 1, n)),
        "outlier": np.append(rng.normal(size=n - 1), 50.0),
        "integers": rng.integers(0, 256, n),
    }[shape]
    return values.astype(np.float32)


def squared_error(x: Float32Array, low: float, high: float, levels: int) -> float:
    step = max((high - low) / levels, 1e-30)
    codes = np.clip(np.rint((x.astype(np.float64) - low) / step), 0, levels)
    return float(np.mean((low + codes * step - x) ** 2))


def brute_force(x: Float32Array, levels: int) -> float:
    """The least error over a grid of both ends, refined around its best point."""
    low, high = float(x.min()), float(x.max())
    lows, highs = np.linspace(low, np.median(x), 60), np.linspace(np.median(x), high, 60)
    highs = np.unique(np.append(highs, np.quantile(x, np.linspace(0.8, 1, 60))))
    lows = np.unique(np.append(lows, np.quantile(x, np.linspace(0, 0.2, 60))))
    error, a, b = min((squared_error(x, a, b, levels), a, b) for a in lows for b in highs)
    width = b - a
    for da in np.linspace(-0.04, 0.04, 17) * width:
        error = min(error, *(squared_error(x, a + da, b + db, levels) for db in np.linspace(-0.04, 0.04, 17) * width))
    return error


@pytest.mark.slow
@pytest.mark.parametrize("levels", [15, 255])
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_within_5_percent_of_brute_force(shape: str, levels: int) -> None:
    x = drawn(shape)
    made = Calibration.train(x[:, None], "mse", {"levels": levels})
    reached = squared_error(x, float(made.lower[0]), float(made.upper[0]), levels)
    assert reached <= 1.05 * brute_force(x, levels) + 1e-9


def test_mse_searches_each_dimension_by_itself() -> None:
    x = np.stack([drawn(shape) for shape in SHAPES[:4]], axis=1)
    together = Calibration.train(x, "mse", {"levels": 15})
    for d in range(4):
        alone = Calibration.train(np.ascontiguousarray(x[:, d : d + 1]), "mse", {"levels": 15})
        assert np.allclose([together.lower[d], together.upper[d]], [alone.lower[0], alone.upper[0]], rtol=1e-5)


def published_threshold(counts: Any, levels: int) -> int:
    """Migacz, GTC 2017, slide 40, line by line; probabilities of zero get a floor."""
    best, kept_bins = np.inf, 0
    for kept in range(max(levels, STRIDE), BINS + 1, STRIDE):
        reference = counts[:kept].astype(float)
        reference[-1] += counts[kept:].sum()
        coded = np.zeros(kept)
        groups = [[i for i in range(kept) if i * levels // kept == level] for level in range(levels)]
        for members in groups:
            filled = [i for i in members if counts[i] > 0]
            for i in filled:
                coded[i] = counts[members].sum() / len(filled)
        p, q = reference / reference.sum(), np.maximum(coded / max(coded.sum(), 1), 1e-4 / kept)
        cost = sum(p[i] * np.log(p[i] / q[i]) for i in range(kept) if p[i] > 0)
        if cost < best - 1e-12:
            best, kept_bins = cost, kept
    return kept_bins


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["normal", "outlier"])
def test_entropy_keeps_the_bins_of_the_published_algorithm(shape: str) -> None:
    magnitudes = np.abs(drawn(shape))
    counts = np.histogram(magnitudes, BINS)[0].astype(np.float64)
    assert best_thresholds(counts[None], 8).tolist() == [published_threshold(counts, 8)]


def test_entropy_cuts_outliers_and_keeps_the_bulk() -> None:
    x = np.random.default_rng(2).normal(size=(20_000, 1)).astype(np.float32)
    x[:20] = 40.0
    made = Calibration.train(x, "entropy")
    assert 2.5 < made.upper[0] < 20
    assert -5 < made.lower[0] < -2.5


def test_entropy_names_the_number_of_vectors_that_it_needs() -> None:
    with pytest.raises(InputError, match="entropy needs a sample of at least 2048 vectors, got 2047"):
        Calibration.train(np.zeros((2047, 3), np.float32), "entropy")


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_one_range_serves_all_dimensions(method: str) -> None:
    x = np.random.default_rng(3).normal(size=(2048, 5)).astype(np.float32) * np.arange(1, 6, dtype=np.float32)
    made = Calibration.train(x, method, one_range=True)
    assert made.dim == 5
    assert len(np.unique(made.lower)) == len(np.unique(made.upper)) == 1
    assert made.lower[0] >= x.min()
    assert made.upper[0] <= x.max()


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_a_constant_dimension_keeps_its_value(method: str) -> None:
    x = np.random.default_rng(3).normal(size=(2048, 3)).astype(np.float32)
    x[:, 1] = -2.5
    made = Calibration.train(x, method)
    assert made.lower[1] == made.upper[1] == np.float32(-2.5)
    assert made.constant_dims == [1]


@pytest.mark.parametrize("levels", [15, 255])
def test_symmetric_ranges_have_a_code_for_zero(levels: int) -> None:
    x = np.random.default_rng(5).uniform(-1, 3, (500, 4)).astype(np.float32)
    made = Calibration.train(x).made_symmetric(levels)
    middle = (levels + 1) // 2
    assert np.allclose(made.lower + middle * made.steps(levels), 0, atol=1e-6)
    assert np.array_equal(made.upper, x.max(axis=0))


def test_levels_of_other_widths_are_refused() -> None:
    with pytest.raises(InputError, match=r"levels must be 15 \(4 bits\) or 255 \(8 bits\), got 100"):
        Calibration.train(np.zeros((256, 2), np.float32), "mse", {"levels": 100})
    with pytest.raises(InputError, match="method must be one of minmax, percentile, mse, entropy"):
        Calibration.train(np.zeros((256, 2), np.float32), "ranges")
