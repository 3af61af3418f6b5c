"""Ranges that preserve the histogram: the search of the calibration method "entropy"."""

from __future__ import annotations

import numpy as np

from qvec.common.types import Float32Array, NDArray

BINS = 2048
STRIDE = 16  # bins between thresholds that are tried
MIN_PROBABILITY = 1e-4  # of values that the code cannot represent: keeps the divergence finite

Histogram = NDArray[np.float64]


def least_divergence_ranges(sample: Float32Array, levels: int) -> tuple[Float32Array, Float32Array]:
    """Return (lower, upper), float32[dim], for float32[n, dim], n >= 2048, and codes of ``levels`` steps.

    The calibration of TensorRT (Migacz, "8-bit inference with TensorRT", GTC 2017, slides 38 to 40). It takes a
    histogram of magnitudes, here of distances from the median, and chooses the threshold whose requantized histogram
    has the least Kullback-Leibler divergence from the clipped one.
    """
    median = np.median(sample, axis=0)
    reach = np.abs(sample - median).max(axis=0)
    counts = np.stack([_histogram(sample[:, d] - median[d], reach[d]) for d in range(sample.shape[1])])
    threshold = best_thresholds(counts, (levels + 1) // 2) / BINS * reach
    lower, upper = (
        np.maximum(median - threshold, sample.min(axis=0)),
        np.minimum(median + threshold, sample.max(axis=0)),
    )
    return lower.astype(np.float32), upper.astype(np.float32)


def best_thresholds(counts: Histogram, levels: int) -> NDArray[np.int64]:
    """Return the number of bins below the best threshold, int[dim], of histograms float64[dim, 2048].

    It is a multiple of 16 and at least ``levels``.
    """
    candidates = np.arange(max(levels, STRIDE), BINS + 1, STRIDE)
    sums = _Sums(counts)
    costs = np.stack([sums.divergence(int(kept), levels) for kept in candidates])
    best: NDArray[np.int64] = candidates[np.argmin(costs, axis=0)]
    return best


def _histogram(distances: Float32Array, reach: float) -> Histogram:
    if reach == 0:
        return np.ones(BINS)
    return np.histogram(np.abs(distances), BINS, (0.0, float(reach)))[0].astype(np.float64)


class _Sums:
    """Prefix sums over the bins: the cost of a threshold is computed from its levels, not from all bins."""

    def __init__(self, counts: Histogram) -> None:
        self.share = counts / counts.sum(axis=1, keepdims=True)
        self.mass = _running(self.share)
        self.filled = _running((counts > 0).astype(np.float64))
        self.entropy = _running(_x_log(self.share, self.share))

    def divergence(self, kept: int, levels: int) -> Histogram:
        """KL(P || Q), float64[dim]. P has the clipped values in its last bin; Q is flat over a level's filled bins."""
        ends = np.searchsorted(np.arange(kept) * levels // kept, np.arange(levels + 1))
        mass, filled = (np.diff(sums[:, ends], axis=1) for sums in (self.mass, self.filled))
        total = np.maximum(self.mass[:, kept], 1e-300)
        q = mass / np.maximum(filled, 1) / total[:, None]
        last, beyond = self.share[:, kept - 1], 1 - self.mass[:, kept]
        q_last = np.where(last > 0, q[:, -1], MIN_PROBABILITY / kept)
        entropy = self.entropy[:, kept - 1] + _x_log(last + beyond, last + beyond)
        cost: Histogram = entropy - _x_log(mass, q).sum(axis=1) - _x_log(beyond, q_last)
        return cost


def _running(values: Histogram) -> Histogram:
    return np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))


def _x_log(x: Histogram, y: Histogram) -> Histogram:
    """x log y; 0 if x is 0 or a rounding error."""
    product: Histogram = np.where(x > 1e-12, x * np.log(np.maximum(y, 1e-300)), 0.0)
    return product
