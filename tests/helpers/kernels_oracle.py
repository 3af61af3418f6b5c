"""Expected results of the codec kernels, computed in NumPy: integers exactly, floats in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec._kernels import Codec, offset_rows, offset_values

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

DIMS = [*range(1, 131, 2), 384, 768, 784, 1536, 1537]
KINDS = [
    "f32",
    "f16",
    "bf16",
    "int8",
    "static",
    "int4",
    "int4-static",
    "int4-centered",
    "int4-local",
    "ternary",
    "ternary-centered",
    "ternary-local",
    "binary",
]
PACKED = {
    name: 4 if name.startswith("int4") else 2 for name in KINDS if name.startswith(("int4", "ternary"))
}  # bits a dim
INT4_VALUES = np.array([-63, -48, -37, -29, -22, -15, -9, -3, 3, 9, 15, 22, 29, 37, 48, 63])
METRICS = ["l2", "ip", "cosine"]
TINY_NORM = 2.0**-100


def gaussian(seed: int, n: int, dim: int) -> Floats:
    """Rows of different lengths, so that normalization has an effect."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(size=(n, 1)))
    return (rng.normal(size=(n, dim)) * lengths).astype(np.float32)


def vectors_and_queries(dim: int) -> tuple[Floats, Floats]:
    """Nine vectors and four queries; zeros and vectors with one large value are among them."""
    x = gaussian(dim, 9, dim)
    x[4] = 0
    x[7, 0] = x[8, 0] = 3 * np.abs(x[8]).max()
    return x, np.concatenate([gaussian(dim + 10_000, 2, dim), x[:1], np.zeros((1, dim), np.float32)])


def unit(x: Floats) -> Floats:
    norms = np.sqrt((x.astype(np.float64) ** 2).sum(1, keepdims=True))
    return (x.astype(np.float64) / np.where(norms < TINY_NORM, np.inf, norms)).astype(np.float32)


def affine(x: Floats, metric: str, levels: int = 255) -> tuple[Floats, Floats]:
    """Lower and step per dimension that span the sample; a dimension without spread gets step 0."""
    sample = unit(x) if metric == "cosine" else x
    lower = sample.min(0)
    return lower, ((sample.max(0) - lower) / np.float32(levels)).astype(np.float32)


def centroid_of(x: Floats, metric: str) -> Floats:
    return (unit(x) if metric == "cosine" else x).mean(0)


def make_codec(kind: str, metric: str, sample: Floats, **options: Any) -> Codec:
    if kind == "static":
        lower, step = affine(sample, metric)
        return Codec("int8", metric, sample.shape[1], lower=lower, step=step, **options)
    name, _, how = kind.partition("-")
    if how == "static":
        options["lower"], options["step"] = affine(sample, metric, 15)
    if how in ("centered", "local"):
        options["center"] = centroid_of(sample, metric)
    if how == "local":
        options["offsets"] = local_offsets(sample, metric)
    return Codec(name, metric, sample.shape[1], **options)


def local_offsets(sample: Floats, metric: str) -> Bytes:
    """Rows of centroids: none, and three vectors of the sample, shortened."""
    y = (unit(sample) if metric == "cosine" else sample) - centroid_of(sample, metric)
    offsets = y[:3] * np.float32(0.7)
    return offset_rows(np.concatenate([np.zeros_like(offsets[:1]), offsets]))


def numbers(codec: Codec, rows: Bytes) -> Ints:
    """The number of each row's centroid: the lowest byte of its scale."""
    return rows[:, codec.data_size].astype(np.int64)


def origins(kind: str, metric: str, sample: Floats, codec: Codec, rows: Bytes) -> Floats:
    """The centroid that was subtracted from each row's vector: [n, dim]."""
    dim, (_, _, how) = sample.shape[1], kind.partition("-")
    if how not in ("centered", "local"):
        return np.zeros((len(rows), dim), np.float32)
    center = centroid_of(sample, metric)
    if how == "centered":
        return np.tile(center, (len(rows), 1))
    return center + offset_values(local_offsets(sample, metric), dim)[numbers(codec, rows)]


def unpacked(rows: Bytes, dim: int, bits: int) -> Ints:
    """Codes of packed rows, dim by dim: groups of 64 bytes, the last one of a multiple of 16, plane by plane."""
    planes, codes = 8 // bits, np.empty((len(rows), dim), np.int64)
    for d in range(dim):
        group, place = divmod(d, 64 * planes)
        left = dim - group * 64 * planes
        width = 64 if left >= 64 * planes else -(-left // (16 * planes)) * 16
        codes[:, d] = rows[:, 64 * group + place % width] >> (bits * (place // width)) & (2**bits - 1)
    return codes


def signed_codes(rows: Bytes, dim: int, kind: str) -> Ints:
    """Decoded values of a row's codes, in units of its scale."""
    codes = unpacked(rows, dim, PACKED[kind])
    return 2 * codes - 15 if kind == "int4-static" else INT4_VALUES[codes] if PACKED[kind] == 4 else codes - 1


def fitted_codes(y: Floats, bits: int) -> Ints:
    """The nearest codes at the best step: the one whose decoded vector has the smallest angle to y, of several
    tried."""
    values, start = (INT4_VALUES, 2.733 / 63) if bits == 4 else (np.arange(-1, 2), 1.224)
    halves, wide = (values[1:] + values[:-1]) / 2, y.astype(np.float64)

    def nearest(step: Floats) -> Ints:
        return np.where(y < 0, np.searchsorted(halves, y / step), np.searchsorted(halves, y / step, side="left"))

    step = (np.float32(start) * np.sqrt((wide**2).mean(1, keepdims=True))).astype(np.float32)
    for _ in range(2):
        k = values[nearest(step)]
        step = ((wide * k).sum(1, keepdims=True) / (k**2).sum(1, keepdims=True)).astype(np.float32)
    best, along = np.zeros(y.shape, np.int64), np.full(len(y), -1.0)
    for trial in (0.88, 0.94, 1.0, 1.06, 1.13):
        codes = nearest((step * trial).astype(np.float32))
        cosine2 = (wide * values[codes]).sum(1) ** 2 / (values[codes] ** 2).sum(1)
        best[cosine2 > along] = codes[cosine2 > along]
        along = np.maximum(along, cosine2)
    return best


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


def brain(x: Floats) -> Floats:
    """The nearest bfloat16, ties to even; infinity saturates."""
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    rounded = np.where((rounded & 0x7FFFFFFF) >= 0x7F800000, (bits & 0x80000000) | 0x7F7F0000, rounded)
    return rounded.astype(np.uint32).view(np.float32)


def half_units(x: Floats) -> Doubles:
    """The power of two that puts the largest value of each row between 2^14 and 2^15; [n, 1]."""
    exponents = np.frexp(np.abs(x).max(axis=1, keepdims=True).astype(np.float64))[1] - 15
    return np.where(x.any(axis=1, keepdims=True), np.exp2(np.maximum(exponents, -126).astype(np.float64)), 1)


def norms2(x: Floats) -> Doubles:
    return np.asarray((x.astype(np.float64) ** 2).sum(1))


def inverse_norms(x: Floats) -> Doubles:
    norms = np.sqrt(norms2(x))
    return np.where(norms < TINY_NORM, 0, 1 / np.where(norms < TINY_NORM, 1, norms))


def static_codes(x: Floats, lower: Floats, step: Floats, metric: str, levels: int = 255) -> Ints:
    values = unit(x) if metric == "cosine" else x
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        codes = np.rint((values - lower) / step)
    return np.where(step > 0, np.clip(codes, 0, levels), 0).astype(np.int64)


def factors(codec: Codec, rows: Bytes) -> tuple[Doubles, Doubles]:
    """Scale and norm2 that the rows carry."""
    stored = rows[:, codec.data_size : codec.data_size + 8].copy().view(np.float32).astype(np.float64)
    return stored[:, 0], stored[:, 1]


def estimated_dots(kind: str, metric: str, sample: Floats, q: Floats, x: Floats) -> tuple[Doubles, Doubles]:
    """<q, x> estimated from the codes of both (unit vectors under cosine), and the sum of the absolute terms."""
    if kind == "static":
        lower, step = (v.astype(np.float64) for v in affine(sample, metric))
        y = (unit(q) if metric == "cosine" else q).astype(np.float64)
        weights = (y * step).astype(np.float32)
        base = (y * (lower + 128 * step)).sum(1, keepdims=True)
        centered = static_codes(x, *affine(sample, metric), metric) - 128
        coded = symmetric_scales(weights)[:, None] * (symmetric_codes(weights) @ centered.T)
        return base + coded, np.abs(base) + np.abs(coded)
    if kind in PACKED:
        return _packed_dots(kind, metric, sample, q, x)
    sums = symmetric_codes(q) @ symmetric_codes(x).T
    gains = symmetric_scales(q)[:, None] * symmetric_scales(x)[None]
    if metric == "cosine":
        gains = gains * inverse_norms(q)[:, None] * inverse_norms(x)[None]
    return gains * sums, np.abs(gains * sums)


def _packed_dots(kind: str, metric: str, sample: Floats, q: Floats, x: Floats) -> tuple[Doubles, Doubles]:
    codec, dim = make_codec(kind, metric, sample), x.shape[1]
    rows, (_, _, how) = codec.encode(x), kind.partition("-")
    k = signed_codes(rows, dim, kind)
    y = (unit(q) if metric == "cosine" else q).astype(np.float64)
    if how == "":
        gains = symmetric_scales(q)[:, None] * factors(codec, rows)[0][None]
        dots = gains * (symmetric_codes(q) @ k.T) * (inverse_norms(q)[:, None] if metric == "cosine" else 1)
        return dots, np.abs(dots)
    if how == "static":
        lower, step = (v.astype(np.float64) for v in affine(sample, metric, 15))
        base, weights, scale = y @ (lower + 7.5 * step), y * step / 2, np.ones((1, 1))
        spread = np.abs(y * (lower + 7.5 * step)).sum(1, keepdims=True)
    else:
        offset = origins(kind, metric, sample, codec, rows).astype(np.float64) - centroid_of(sample, metric)
        base = y @ centroid_of(sample, metric)
        around = symmetric_scales(q)[:, None] * (symmetric_codes(q) @ offset.T)
        weights, scale = y, factors(codec, rows)[0][None]
        spread = np.abs(y * centroid_of(sample, metric)).sum(1, keepdims=True) + np.abs(around)
        base = base[:, None] + around
    w = weights.astype(np.float32)
    coded = symmetric_scales(w)[:, None] * (symmetric_codes(w) @ k.T) * scale
    return base.reshape(len(q), -1) + coded, spread + np.abs(coded)


def _centered_keys(kind: str, metric: str, sample: Floats, q: Floats, x: Floats) -> tuple[Doubles, Doubles]:
    """|q - x|^2 of centered vectors; under cosine of unit vectors, halved.

    The error of the code along the offset of its centroid is known, and subtracted from |x|^2.
    """
    codec, center = make_codec(kind, metric, sample), centroid_of(sample, metric)
    y, z = ((unit(v) if metric == "cosine" else v) - center for v in (q, x))
    rows = codec.encode(x)
    offset = origins(kind, metric, sample, codec, rows).astype(np.float64) - center
    held = offset + factors(codec, rows)[0][:, None] * signed_codes(rows, x.shape[1], kind)
    dots = symmetric_scales(y)[:, None] * (symmetric_codes(y) @ held.T)
    shift = 2 * (offset * (z - held)).sum(1)
    spread, share = norms2(y)[:, None] + norms2(z)[None], 0.5 if metric == "cosine" else 1.0
    # centering rounds each value at the size of its terms, and a number in a scale rounds that to 16 bits
    sizes = (
        spread + 2 * np.abs(dots) + 0.1 * (norms2(unit(q) if metric == "cosine" else q)[:, None] + norms2(center[None]))
    )
    return share * np.maximum(spread - shift - 2 * dots, 0), share * (sizes + np.abs(shift))


def exact_keys(kind: str, metric: str, sample: Floats, q: Floats, x: Floats) -> tuple[Doubles, Doubles]:
    """Exact keys, and the sum of the absolute terms of each: rounding errors are relative to this sum."""
    if kind.endswith(("-centered", "-local")) and metric != "ip":
        return _centered_keys(kind, metric, sample, q, x)
    if kind == "binary":
        differing = ((q > 0)[:, None] != (x > 0)[None]).sum(-1).astype(np.float64)
        return differing, np.zeros_like(differing)
    if kind == "f16":
        units = half_units(x)
        x = ((x.astype(np.float64) / units).astype(np.float16).astype(np.float64) * units).astype(np.float32)
    if kind == "bf16":
        x = brain(x)
    y, z = q.astype(np.float64), x.astype(np.float64)
    if kind in ("f32", "f16", "bf16"):
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
