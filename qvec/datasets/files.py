"""Checks that all loaders share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError, NotFoundError

PathLike = str | os.PathLike[str]
Matrix = NDArray[Any]


def existing_file(path: PathLike) -> Path:
    """Return the path of a regular file; NotFoundError or InputError if there is none."""
    file = Path(path)
    if not file.exists():
        raise NotFoundError(f"{file}: no such file")
    if not file.is_file():
        raise InputError(f"{file} is not a regular file")
    return file


def checked_matrix(array: Matrix, where: str) -> Matrix:
    """Return the array if it has rows of real numbers; otherwise raise InputError that names ``where``."""
    if array.ndim != 2:
        raise InputError(f"{where} has shape {array.shape}; vectors are a 2-D array, one row each")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{where} has dtype {array.dtype}; vectors are floats or integers")
    if array.shape[1] == 0:
        raise InputError(f"{where} has shape {array.shape}; vectors have at least one dimension")
    return array


def mapped(file: Path, dtype: np.dtype[Any], shape: tuple[int, int], offset: int = 0) -> Matrix:
    """Map the file's rows read-only. An empty file cannot be mapped: return an empty array."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, mode="r", offset=offset, shape=shape)


def named_part(
    where: object, what: str, option: str, names: Sequence[str], asked: str | None, default: str | None = None
) -> str:
    """Choose one of the arrays or tables of a file or folder: ``asked``, ``default`` if it exists, or the only one.

    Raises InputError that names the ``option`` to choose with.
    """
    wanted = asked if asked is not None else default
    if wanted in names:
        return str(wanted)
    listed = ", ".join(names) or "none"
    if asked is not None:
        raise InputError(f"{where} has no {what} {asked!r}; it has: {listed}")
    if len(names) != 1:
        raise InputError(f"{where} has {len(names)} {what}s; name one with {option}=: {listed}")
    return names[0]
