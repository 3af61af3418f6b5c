"""Input of prequantized embeddings: checks, and conversion to floats.

Forms: "int8": int8[n, dim]. "uint8": uint8[n, dim], the integer plus 128. "ubinary": uint8[n, dim / 8], bits packed
highest first, as by numpy.packbits. "binary": int8[n, dim / 8], the same minus 128. They are those of
sentence_transformers.util.quantize_embeddings and of embedding APIs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Float32Array, Metric, NDArray, PrequantizedType

Integers = NDArray[Any]  # int8 or uint8
DTYPES: dict[str, type[np.int8] | type[np.uint8]] = {
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}


def is_bits(form: PrequantizedType) -> bool:
    """Whether a byte holds eight dimensions."""
    return form in ("binary", "ubinary")


def width_of(form: PrequantizedType, dim: int) -> int:
    """Return the bytes of a vector; InputError if bits do not fill the last byte."""
    if is_bits(form) and dim % 8:
        raise InputError(f"dim must be a multiple of 8 for {form} embeddings, got {dim}")
    return dim // 8 if is_bits(form) else dim


def as_integers(name: str, x: NDArray[Any], dim: int, form: PrequantizedType, metric: Metric) -> Integers:
    """Return [n, width], C-contiguous, of the form's dtype; a single vector may be 1-D.

    Integers of other dtypes are accepted if all values fit. InputError names the first value
    that does not fit and, under cosine, the first zero vector.
    """
    dtype, width = DTYPES[form], width_of(form, dim)
    if x.size and x.dtype.kind not in "iu":
        raise InputError(f"{name} must hold integers, this collection's {form} codes, got dtype {x.dtype}")
    if x.shape == (0,):
        return np.empty((0, width), dtype)
    rows = x[None, :] if x.ndim == 1 else x
    if rows.ndim != 2 or rows.shape[1] != width:
        raise InputError(f"{name} must have shape (n, {width}) or ({width},), got {x.shape}")
    limits = np.iinfo(dtype)
    outside = (rows < limits.min) | (rows > limits.max)
    if outside.any():
        row, column = divmod(int(np.argmax(outside)), width)
        found = rows[row, column]
        raise InputError(f"{name}[{row}, {column}] is {found}: {form} codes lie in {limits.min}..{limits.max}")
    if metric == "cosine" and not is_bits(form):
        _check_directions(name, rows, 128 if form == "uint8" else 0)
    return np.ascontiguousarray(rows, dtype=dtype)


def to_floats(x: Integers, form: PrequantizedType) -> Float32Array:
    """Return the values of codes [n, width]: float32[n, dim] of integers in -128..127, or of -1 and 1."""
    if form == "int8":
        return x.astype(np.float32)
    if form == "uint8":
        return x.astype(np.float32) - np.float32(128)
    return np.unpackbits(to_bits(x, form), axis=1).astype(np.float32) * np.float32(2) - np.float32(1)


def to_bits(x: Integers, form: PrequantizedType) -> NDArray[np.uint8]:
    """Convert "binary" or "ubinary" codes to "ubinary". Except for the dtype, the function is its own inverse."""
    return x.view(np.uint8) ^ np.uint8(128) if form == "binary" else x.view(np.uint8)


def _check_directions(name: str, rows: NDArray[Any], zero: int) -> None:
    empty = np.flatnonzero((rows == zero).all(axis=1))
    if empty.size:
        raise InputError(f"{name}[{empty[0]}] is the zero vector, which has no direction: cosine is undefined")
