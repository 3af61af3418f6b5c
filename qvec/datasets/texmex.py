"""The fvecs, bvecs and ivecs files of http://corpus-texmex.irisa.fr: each row is its dimension and its values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.datasets.files import Matrix, mapped

DTYPES: dict[str, np.dtype[Any]] = {
    ".fvecs": np.dtype("<f4"),
    ".bvecs": np.dtype("u1"),
    ".ivecs": np.dtype("<i4"),
}
MAX_DIM = 1 << 20  # a larger first word is not a dimension: the file has another format
PREFIX = 4


def load_texmex(file: Path) -> Matrix:
    """Map the file's rows read-only: (n, dim) float32, uint8 or int32.

    Raises InputError that names the row whose dimension differs from the first, or in which the file ends.
    """
    value = DTYPES[file.suffix.lower()]
    size = file.stat().st_size
    dim = _first_dim(file, size)
    stride = PREFIX + dim * value.itemsize
    n, rest = divmod(size, stride)
    raw = mapped(file, np.dtype("u1"), (n, stride))
    _check_dims(file, raw, dim)
    if rest:
        raise InputError(f"{file} ends inside row {n}: {rest} bytes of {stride}")
    return raw[:, PREFIX:].view(value)


def _first_dim(file: Path, size: int) -> int:
    if size < PREFIX:
        raise InputError(f"{file} is empty: {size} bytes")
    dim = int(np.fromfile(file, "<i4", 1)[0])
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"{file}: row 0 has dimension {dim}; the limit is 1 to {MAX_DIM}")
    return dim


def _check_dims(file: Path, raw: Matrix, dim: int) -> None:
    dims = raw[:, :PREFIX].copy().view("<i4")[:, 0]
    wrong = np.flatnonzero(dims != dim)
    if wrong.size:
        row = int(wrong[0])
        raise InputError(f"{file}: row {row} has dimension {dims[row]}, the rows before it have {dim}")
