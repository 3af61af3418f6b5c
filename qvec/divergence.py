"""Ranges that keep the shape of the histogram: the search of the calibration method "entropy"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qvec.types import Float32Array

BINS = 2048
STRIDE = 16  # bins from one threshold looked at to the next
FLOOR = 1e-4  # probability of what the code cannot show, so that the divergence stays finite

Histogram = npt.NDArray[np.float64]


def least_divergence_ranges(sample: Float32Array, levels: int) -> tuple[Float32Array, Float32Array]:
    """Give (lower, upper), float32[dim], for float32[n, dim], n >= 2048, and codes of ``levels`` steps.

    The calibration of TensorRT (Migacz, "8-bit inference with TensorRT", GTC 2017, slides 38 to 40): over a
    histogram of magnitudes, here distances from the median, the threshold whose clipped and requantized
    histogram has the least Kullback-Leibler divergence from the clipped one.
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


def best_thresholds(counts: Histogram, levels: int) -> npt.NDArray[np.int64]:
    """Give the bins to keep, int[dim], of histograms float64[dim, 2048]: a multiple of 16, at least ``levels``."""
    candidates = np.arange(max(levels, STRIDE), BINS + 1, STRIDE)
    costs = np.stack([_divergence(counts, int(kept), levels) for kept in candidates])
    best: npt.NDArray[np.int64] = candidates[np.argmin(costs, axis=0)]
    return best


def _histogram(distances: Float32Array, reach: float) -> Histogram:
    if reach == 0:
        return np.ones(BINS)
    return np.histogram(np.abs(distances), BINS, (0.0, float(reach)))[0].astype(np.float64)


def _divergence(counts: Histogram, kept: int, levels: int) -> Histogram:
    inside = counts[:, :kept]
    reference = inside.copy()
    reference[:, -1] += counts[:, kept:].sum(axis=1)
    group = np.arange(kept) * levels // kept
    starts = np.searchsorted(group, np.arange(levels))
    filled = np.add.reduceat((inside > 0).astype(np.float64), starts, axis=1)
    level = np.add.reduceat(inside, starts, axis=1) / np.maximum(filled, 1)
    coded = np.where(inside > 0, level[:, group], 0.0)
    p = reference / reference.sum(axis=1, keepdims=True)
    q = np.maximum(coded / np.maximum(coded.sum(axis=1, keepdims=True), 1), FLOOR / kept)
    cost: Histogram = np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / q), 0.0).sum(axis=1)
    return cost
