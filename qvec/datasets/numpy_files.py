"""Vectors in NumPy's file formats."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from qvec.common.errors import InputError
from qvec.datasets.files import Matrix, checked_matrix, named_part


def load_npy(file: Path) -> Matrix:
    """Map a ``.npy`` file read-only. Arrays of objects are refused, as reading them could run code."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{file} is not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{file} is an .npz archive: rename it to {file.with_suffix('.npz').name}")
    return checked_matrix(array, str(file))


def load_npz(file: Path, key: str | None) -> Matrix:
    """Read one array of an ``.npz`` archive into memory: archives cannot be mapped."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            name = named_part(file, "array", "key", list(archive.files), key)
            array = archive[name]
    except InputError:
        raise
    except (ValueError, EOFError, OSError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is not a readable .npz file: {error}") from error
    return checked_matrix(array, f"{file}[{name!r}]")
