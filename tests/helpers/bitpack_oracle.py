"""Expected bit-packed codes (kinds "rabitq" and "mixed"), computed by a second implementation in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.kernels_oracle import (
    Bytes,
    Doubles,
    Floats,
    Ints,
    inverse_norms,
    norms2,
    symmetric_codes,
    symmetric_scales,
)
from qvec._kernels import Codec

BITPACK = [*(f"rabitq{bits}" for bits in range(1, 9)), "mixed"]
STEPS = np.array([0, 1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0568, 0.0308])
TRIALS = np.array([0.80, 0.88, 0.94, 1.0, 1.06, 1.13, 1.22, 1.34])


def block_widths(kind: str, dim: int) -> Bytes:
    """Bits of each block of 64 dims; those of "mixed" take every value within nine blocks, 0 among the first."""
    blocks = -(-dim // 64)
    if kind != "mixed":
        return np.full(blocks, int(kind.removeprefix("rabitq")), np.uint8)
    return ((np.arange(blocks) * 4 + 3) % 9).astype(np.uint8)


def mixed_steps(dim: int) -> Floats:
    return np.random.default_rng(dim).uniform(0.2, 1.5, dim).astype(np.float32) / np.float32(np.sqrt(dim))


def bitpack_codec(kind: str, metric: str, dim: int, **options: Any) -> Codec:
    """A codec of one of BITPACK."""
    if kind == "mixed":
        options |= {"widths": block_widths(kind, dim), "step": mixed_steps(dim)}
        return Codec("mixed", metric, dim, **options)  # type: ignore[arg-type]
    return Codec("rabitq", metric, dim, bits=int(kind[-1]), **options)  # type: ignore[arg-type]


def unpack(rows: Bytes, widths: Bytes) -> Ints:
    """Codes [n, 64 * blocks] by the layout of bitpack.h; 0 in blocks without bits."""
    blocks, at = [], 0
    for width in widths.tolist():
        codes = np.zeros((len(rows), 64), np.int64)
        shift = 0
        for part in (8,) if width == 8 else (4, 2, 1):
            if not width & part:
                continue
            data = rows[:, at : at + 8 * part].astype(np.int64)
            at += 8 * part
            codes |= _part(data, part) << shift
            shift += part
        blocks.append(codes)
    return np.hstack(blocks)


def _part(data: Ints, part: int) -> Ints:
    if part == 1:
        return np.unpackbits(data.astype(np.uint8), axis=1, bitorder="little").astype(np.int64)
    return np.hstack([data >> up & ((1 << part) - 1) for up in range(0, 8, part)])


def values(kind: str, rows: Bytes, dim: int) -> Doubles:
    """Decoded values without the row's scale: [n, dim]."""
    widths = block_widths(kind, dim)
    per_dim = np.repeat(widths, 64)[:dim].astype(np.int64)
    found = np.where(per_dim > 0, unpack(rows, widths)[:, :dim] - ((1 << per_dim) - 1) / 2, 0)
    return found * mixed_steps(dim) if kind == "mixed" else found


def candidates(kind: str, x: Floats) -> list[Doubles]:
    """Values [n, dim] of each step that an encoder may choose."""
    dim = x.shape[1]
    widths = np.repeat(block_widths(kind, dim), 64)[:dim].astype(np.int64)
    lengths = np.sqrt(norms2(x))[:, None]
    if kind == "mixed":
        inverses = [(1 / lengths).astype(np.float32) / mixed_steps(dim)]
    else:
        sigma = lengths / np.sqrt(dim) * STEPS[widths[0]]
        inverses = [(1 / (trial * sigma)).astype(np.float32) for trial in TRIALS]
    half = (1 << np.maximum(widths, 1)) // 2
    found = []
    for inverse in inverses:
        levels = np.clip(np.rint(np.clip(x * inverse - np.float32(0.5), -half, half - 1)), -half, half - 1) + 0.5
        found.append(np.where(widths > 0, levels, 0) * (mixed_steps(dim) if kind == "mixed" else 1))
    return found


def bitpack_keys(kind: str, metric: str, rows: Bytes, q: Floats, x: Floats) -> tuple[Doubles, Doubles]:
    """Keys, and the sum of the absolute terms that make each of them."""
    dim = x.shape[1]
    live = np.repeat(block_widths(kind, dim) > 0, 64)[:dim]
    step = mixed_steps(dim) * live if kind == "mixed" else np.ones(dim)
    lengths = inverse_norms(q)[:, None] if metric == "cosine" else 1
    weights = (q * lengths * step).astype(np.float32)
    coded = symmetric_scales(weights)[:, None] * symmetric_codes(weights)
    v = values(kind, rows, dim)
    along = (x * v).sum(1)
    scale = np.where(along > 0, norms2(x * live) / np.where(along > 0, along, 1), 0)
    if metric == "cosine":
        scale *= inverse_norms(x)
    levels = np.divide(v, step, out=np.zeros_like(v), where=step > 0)
    dots = coded @ levels.T * scale
    sizes: NDArray[np.float64] = np.abs(coded) @ np.abs(levels).T * scale
    if metric == "ip":
        return -dots, sizes
    if metric == "cosine":
        return np.maximum(1 - dots, 0), sizes + 1
    spread = norms2(q)[:, None] + norms2(x)[None]
    return np.maximum(spread - 2 * dots, 0), spread + 2 * sizes
