"""Check arrays that are used for training or encoding, and compute their mean and standard deviation."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Codes, Float32Array, NDArray

_ROWS_PER_STEP = 4096  # rows converted to float64 at a time, because a large sample would need too much memory


def check_vectors(name: str, x: object, dim: int | None) -> Float32Array:
    """Return ``x``, C-contiguous, if it is float32[n, dim] (None: any dim from 1); otherwise raise InputError."""
    matrix: Float32Array = _check_matrix(name, x, np.float32, dim)
    return matrix


def check_codes(codes: object, code_size: int) -> Codes:
    """Return ``codes``, C-contiguous, if they are uint8[n, code_size]; otherwise raise InputError."""
    matrix: Codes = _check_matrix("codes", codes, np.uint8, code_size)
    return matrix


def check_finite(name: str, x: Float32Array) -> None:
    """Raise InputError naming the first row and dimension of float32[n, dim] that holds NaN or infinity."""
    finite = np.isfinite(x)
    if finite.all():
        return
    row, column = divmod(int(np.argmin(finite)), x.shape[1])
    raise InputError(f"{name} holds {x[row, column]} in row {row}, dimension {column}")


def check_sample(x: object, dim: int | None, needed: int, purpose: str) -> Float32Array:
    """Return ``x`` if it is a finite float32[n, dim] with at least ``needed`` rows; otherwise raise InputError."""
    sample = check_vectors("sample", x, dim)
    if len(sample) < needed:
        raise InputError(f"{purpose} needs a sample of at least {needed} vectors, got {len(sample)}")
    check_finite("sample", sample)
    return sample


def mean_of(x: Float32Array) -> Float32Array:
    """Return the mean of each dimension of float32[n, dim] as float32[dim], summed in float64."""
    mean: NDArray[np.float64] = np.mean(x, axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def std_of(x: Float32Array) -> Float32Array:
    """Return the population standard deviation of each dimension of float32[n, dim] as float32[dim]."""
    mean = np.mean(x, axis=0, dtype=np.float64)
    squares = np.zeros(x.shape[1])
    for start in range(0, len(x), _ROWS_PER_STEP):
        squares += np.square(x[start : start + _ROWS_PER_STEP] - mean).sum(axis=0)
    return np.sqrt(squares / len(x)).astype(np.float32)


def _check_matrix(name: str, x: object, dtype: type[np.generic], width: int | None) -> NDArray[Any]:
    if not isinstance(x, np.ndarray) or x.dtype != dtype:
        got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise InputError(f"{name} must be a {dtype.__name__} array, got {got}")
    if x.ndim != 2 or x.shape[1] != (width or x.shape[1] or 1):
        raise InputError(f"{name} must have shape (n, {width or 'dim'}), got {x.shape}")
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)
