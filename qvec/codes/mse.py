"""Ranges that minimize the squared error of a uniform code: the search of the calibration method "mse"."""

from __future__ import annotations

from itertools import product

import numpy as np

from qvec.common.types import Float32Array, NDArray

MEASURED_VALUES = 1 << 20  # of the sample: rows at even distances
TAILS = (0.0, 0.0005, 0.005, 0.03, 0.2, 0.5)  # shares cut off below and above: all pairs are starting points
CUTS = (0.05, 0.15, 0.3, 0.5, 0.7)  # the same as shares of the range: for an outlier far from all other values
MOVES = (0.1, 0.05, 0.02, 0.01, 0.003, 0.001)  # of the ends, as shares of the width
SHIFTS = (0.3, 0.1)  # the same as shares of a step
ROUNDS = 2
# Moves of the lower and the upper end: one end alone, both inwards or outwards, both in the same direction.
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, 1), (1, 1), (-1, -1))

Errors = NDArray[np.float64]


def least_squares_ranges(sample: Float32Array, levels: int) -> tuple[Float32Array, Float32Array]:
    """Return (lower, upper), float32[dim], for float32[n, dim] and codes of ``levels`` steps.

    The error as a function of both ends has many local minima. The best of a few quantiles is therefore improved by
    pattern search (Hooke and Jeeves, J. ACM 1961), for each dimension separately. The result is within 5 % of the
    optimum on all distributions tested; values on a grid with at most that many steps are coded exactly.
    """
    origin = sample.min(axis=0)
    width = sample.max(axis=0).astype(np.float64) - origin
    scale = np.where(width > 0, width, 1.0)
    rows = sample[:: max(1, sample.size // MEASURED_VALUES)]
    unit = ((rows.astype(np.float64) - origin) / scale).astype(np.float32)
    low, high = _search(unit, levels)
    return (origin + low * width).astype(np.float32), (origin + high * width).astype(np.float32)


def squared_errors(x: Float32Array, low: Float32Array, high: Float32Array, levels: int) -> Errors:
    """Return the mean squared error of each dimension of float32[n, dim], coded from low to high: float64[dim]."""
    step = np.maximum((high - low) / np.float32(levels), np.float32(1e-12))
    code = x - low
    code /= step
    np.clip(np.rint(code, out=code), 0, levels, out=code)
    code *= step
    code += low
    code -= x
    errors: Errors = np.einsum("nd,nd->d", code, code, dtype=np.float64) / len(x)
    return errors


def _search(x: Float32Array, levels: int) -> tuple[Float32Array, Float32Array]:
    dim = x.shape[1]
    low, high = np.zeros(dim, np.float32), np.ones(dim, np.float32)
    error = squared_errors(x, low, high, levels)
    quantiles = np.quantile(x, [*TAILS, *(1 - share for share in TAILS)], axis=0).astype(np.float32)
    cuts = [np.full(dim, cut, np.float32) for cut in CUTS]
    lows, highs = [*quantiles[: len(TAILS)], *cuts], [*quantiles[len(TAILS) :], *(1 - cut for cut in cuts)]
    for below, above in product(lows, highs):
        _keep_better(x, (low, high, error), below, above, levels)
    for move in (*MOVES, *(shift / levels for shift in SHIFTS)):
        for down, up in DIRECTIONS * ROUNDS:
            width = (high - low) * np.float32(move)
            moved = np.clip(low + down * width, 0, 1), np.clip(high + up * width, 0, 1)
            _keep_better(x, (low, high, error), *moved, levels)
    return low, high


def _keep_better(
    x: Float32Array,
    best: tuple[Float32Array, Float32Array, Errors],
    low: Float32Array,
    high: Float32Array,
    levels: int,
) -> None:
    error = squared_errors(x, low, high, levels)
    better = error < best[2]
    for kept, found in zip(best, (low, high, error), strict=True):
        kept[better] = found[better]  # type: ignore[index]
