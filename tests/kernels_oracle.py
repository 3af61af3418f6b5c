"""What the codec kernels should compute, written again in NumPy: integers exactly, floats in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec._kernels import Codec

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

DIMS = [*range(1, 131, 2), 384, 768, 784, 1536, 1537]
KINDS = ["f32", "f16", "int8", "static", "binary"]
METRICS = ["l2", "ip", "cosine"]
TINY_NORM = 2.0**-100


def gaussian(seed: int, n: int, dim: int) -> Floats:
    """Rows of different lengths, so that nothing passes by being normalised."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(size=(n, 1)))
    return (rng.normal(size=(n, dim)) * lengths).astype(np.float32)


def unit(x: Floats) -> Floats:
    norms = np.sqrt((x.astype(np.float64) ** 2).sum(1, keepdims=True))
    return (x.astype(np.float64) / np.where(norms < TINY_NORM, np.inf, norms)).astype(np.float32)


def affine(x: Floats, metric: str) -> tuple[Floats, Floats]:
    """Lower and step per dimension that span the sample; a dimension without spread gets step 0."""
    sample = unit(x) if metric == "cosine" else x
    lower = sample.min(0)
    return lower, ((sample.max(0) - lower) / np.float32(255)).astype(np.float32)


def make_codec(kind: str, metric: str, sample: Floats, **options: Any) -> Codec:
    if kind == "static":
        lower, step = affine(sample, metric)
        return Codec("int8", metric, sample.shape[1], lower=lower, step=step, **options)
    return Codec(kind, metric, sample.shape[1], **options)


def symmetric_codes(x: Floats) -> Ints:
    """rint(x / step) with step = max|x| / 127 in float32; zeros for vectors that count as zero."""
    norms = np.sqrt((x.astype(np.float64) ** 2).sum(1, keepdims=True))
    step = np.abs(x).max(1, keepdims=True) / np.float32(127)
    safe = np.where(norms < TINY_NORM, np.float32(1), step).astype(np.float32)
    return np.where(norms < TINY_NORM, 0, np.rint(x / safe)).astype(np.int64)


def symmetric_scales(x: Floats) -> Doubles:
    """|x|^2 / <x, k>."""
    k = symmetric_codes(x).astype(np.float64)
    along = (x.astype(np.float64) * k).sum(1)
    return np.where(along > 0, (x.astype(np.float64) ** 2).sum(1) / np.where(along > 0, along, 1), 0)


def norms2(x: Floats) -> Doubles:
    return np.asarray((x.astype(np.float64) ** 2).sum(1))


def inverse_norms(x: Floats) -> Doubles:
    norms = np.sqrt(norms2(x))
    return np.where(norms < TINY_NORM, 0, 1 / np.where(norms < TINY_NORM, 1, norms))


def static_codes(x: Floats, lower: Floats, step: Floats, metric: str) -> Ints:
    values = unit(x) if metric == "cosine" else x
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        levels = np.rint((values - lower) / step)
    return np.where(step > 0, np.clip(levels, 0, 255), 0).astype(np.int64)


def factors(codec: Codec, rows: Bytes) -> tuple[Doubles, Doubles]:
    """Scale and norm2 that the rows carry."""
    stored = rows[:, codec.data_size : codec.data_size + 8].copy().view(np.float32).astype(np.float64)
    return stored[:, 0], stored[:, 1]


def estimated_dots(kind: str, metric: str, sample: Floats, q: Floats, x: Floats) -> tuple[Doubles, Doubles]:
    """<q, x> as the codes of both give it, on unit vectors under cosine; and the absolute terms added up."""
    if kind == "static":
        lower, step = (v.astype(np.float64) for v in affine(sample, metric))
        y = (unit(q) if metric == "cosine" else q).astype(np.float64)
        weights = (y * step).astype(np.float32)
        base = (y * (lower + 128 * step)).sum(1, keepdims=True)
        centred = static_codes(x, *affine(sample, metric), metric) - 128
        coded = symmetric_scales(weights)[:, None] * (symmetric_codes(weights) @ centred.T)
        return base + coded, np.abs(base) + np.abs(coded)
    sums = symmetric_codes(q) @ symmetric_codes(x).T
    gains = symmetric_scales(q)[:, None] * symmetric_scales(x)[None]
    if metric == "cosine":
        gains = gains * inverse_norms(q)[:, None] * inverse_norms(x)[None]
    return gains * sums, np.abs(gains * sums)


def exact_keys(kind: str, metric: str, sample: Floats, q: Floats, x: Floats) -> tuple[Doubles, Doubles]:
    """Keys and the sum of the absolute terms that make each of them, which float rounding is relative to."""
    if kind == "binary":
        differing = ((q > 0)[:, None] != (x > 0)[None]).sum(-1).astype(np.float64)
        return differing, np.zeros_like(differing)
    if kind == "f16":
        x = np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
    y, z = q.astype(np.float64), x.astype(np.float64)
    if kind in ("f32", "f16"):
        if metric == "l2":
            distances = ((y[:, None] - z[None]) ** 2).sum(-1)
            return distances, distances
        lengths = inverse_norms(q)[:, None] * inverse_norms(x)[None] if metric == "cosine" else np.float64(1)
        dots, sizes = y @ z.T * lengths, np.abs(y) @ np.abs(z).T * lengths
    else:
        dots, sizes = estimated_dots(kind, metric, sample, q, x)
    if metric == "ip":
        return -dots, sizes
    if metric == "cosine":
        return np.maximum(1 - dots, 0), sizes + 1
    spread = norms2(q)[:, None] + norms2(x)[None]
    return np.maximum(spread - 2 * dots, 0), spread + 2 * sizes
