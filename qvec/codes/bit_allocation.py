"""Bit allocation of mixed precision: the bits of each group of dimensions that minimize the error of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvec.common.types import Codes, Float32Array, NDArray

GROUP = 64  # dimensions per group: a block of the kernels
MAX_WIDTH = 8
MEASURED_ROWS = 2048  # errors are measured on this many rows of the sample, which are also used as queries
NEIGHBORS = 10  # of each row that is used as a query
# Steps of least error for a Gaussian, in standard deviations: Max, IRE Trans. Inf. Theory 6 (1960), table II.
GAUSSIAN_STEP = (1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0568, 0.0308)
STEP_FACTORS = (0.6, 0.75, 0.9, 1.0, 1.15, 1.35)  # multiples of these steps that are tried

Errors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BitAllocation:
    """``widths``: uint8[groups], bits per dimension of each group. ``step``: float32[dim], between codes."""

    widths: Codes
    step: Float32Array


def allocate_bits(vectors: Float32Array, rest: Float32Array, budget: int) -> BitAllocation:
    """Allocate ``budget`` bytes to codes of float32[n, dim] vectors. Steps are relative to the length of the residual.

    ``rest``: the residuals, which are encoded: vectors minus their centers.

    Greedy: the next bit goes to the group whose score error it reduces most. This is optimal if each bit of a group
    reduces the error less than the bit before (Gersho and Gray, Vector Quantization and Signal Compression, 1992,
    section 8.4). The error of the score of x against q is ``<q, e> = <q - x, e>``, because the scale makes the error e
    orthogonal to x. The weight of a group is therefore its squared error times its share of ``|q - x|^2``. Both are
    measured: the error with the best of several steps, and ``q - x`` between rows and their nearest neighbors.
    """
    rows, coded = (y[:: -(-len(y) // MEASURED_ROWS)] for y in (vectors, rest))
    lengths = np.linalg.norm(coded, axis=1, keepdims=True)
    unit = coded / np.maximum(lengths, np.float32(1e-30))
    deviation = np.maximum(np.sqrt(np.square(unit).mean(axis=0)), np.float32(1e-6))
    groups = [slice(i, min(i + GROUP, rows.shape[1])) for i in range(0, rows.shape[1], GROUP)]
    measured = [_measure(unit[:, g], deviation[g]) for g in groups]
    differences = _differences(rows)
    weights = np.array([differences[g].mean() for g in groups])
    widths = greedy(np.array([errors for errors, _ in measured]) * weights[:, None], budget)
    step = deviation.copy()
    for group, width, (_, trials) in zip(groups, widths, measured, strict=True):
        step[group] *= np.float32(trials[max(width, 1) - 1])
    return BitAllocation(widths, step)


def _differences(rows: Float32Array) -> NDArray[np.float64]:
    """Return the mean square of the differences between rows and their nearest neighbors, per dimension:
    float64[dim]."""
    squares = np.square(rows).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * (rows @ rows.T)
    np.fill_diagonal(distances, np.inf)
    near = min(NEIGHBORS, len(rows) - 1)
    nearest = np.argpartition(distances, near - 1, axis=1)[:, :near]
    # A share of the values themselves: without it, a sample of duplicates would give all weights 0.
    total: NDArray[np.float64] = np.square(rows).mean(axis=0, dtype=np.float64) / 100
    for neighbors in nearest.T:
        total += np.square(rows - rows[neighbors]).mean(axis=0)
    return total


def _measure(unit: Float32Array, deviation: Float32Array) -> tuple[list[float], list[float]]:
    """Return the squared errors of a group with 0 to 8 bits, and the best steps with 1 to 8, in standard deviations."""
    ratio = unit / deviation
    errors, steps = [float(np.square(unit).sum(axis=1).mean())], []
    for width, gaussian in enumerate(GAUSSIAN_STEP, start=1):
        tried = [(_error(ratio, deviation, width, factor * gaussian), factor * gaussian) for factor in STEP_FACTORS]
        error, step = min(tried)
        errors.append(min(error, errors[-1]))
        steps.append(step)
    return errors, steps


def _error(ratio: Float32Array, deviation: Float32Array, width: int, step: float) -> float:
    half = 1 << (width - 1)
    values = np.clip(np.floor(ratio / np.float32(step)), -half, half - 1) + np.float32(0.5)
    return float(np.square((ratio - values * np.float32(step)) * deviation).sum(axis=1).mean())


def greedy(errors: Errors, budget: int) -> Codes:
    """Return uint8[groups] widths from errors[groups, 9]. One bit for a group costs 8 bytes."""
    widths = np.zeros(len(errors), np.uint8)
    places = np.arange(len(errors))
    for _ in range(min(budget // (GROUP // 8), MAX_WIDTH * len(errors))):
        next_width = np.minimum(widths + 1, MAX_WIDTH)
        gains = np.where(widths < MAX_WIDTH, errors[places, widths] - errors[places, next_width], -1)
        if gains.max() <= 0 and widths.any():
            break
        widths[int(np.argmax(gains))] += 1
    return widths
