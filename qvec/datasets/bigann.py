"""The fbin, u8bin, i8bin and ibin files of https://big-ann-benchmarks.com: uint32 n, dim, then the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.datasets.files import Matrix, existing_file, mapped

DTYPES: dict[str, np.dtype[Any]] = {
    ".fbin": np.dtype("<f4"),
    ".u8bin": np.dtype("u1"),
    ".i8bin": np.dtype("i1"),
    ".ibin": np.dtype("<i4"),
}
TRUTH_SUFFIXES = (".ibin", ".bin")
HEADER = 8


def load_bigann(file: Path) -> Matrix:
    """Map the file's rows read-only: (n, dim) float32, uint8, int8 or int32.

    Raises InputError if the length of the file does not match its header.
    """
    value = DTYPES[file.suffix.lower()]
    n, dim, size = _header(file)
    stride = dim * value.itemsize
    promised = HEADER + n * stride
    if size != promised:
        whole, rest = divmod(size - HEADER, stride)
        raise InputError(
            f"{file} has {size} bytes; its header promises {n} rows of {stride} bytes, {promised} in all "
            f"(the file holds {whole} rows and {rest} bytes)"
        )
    return mapped(file, value, (n, dim), HEADER)


def load_neighbors(file: Path) -> Matrix:
    """Map exact neighbors (n, k) int32: an ``.ibin`` file, or a file with distances after the neighbors."""
    existing_file(file)
    n, k, size = _header(file)
    if size not in (HEADER + 4 * n * k, HEADER + 8 * n * k):
        raise InputError(
            f"{file} has {size} bytes; its header promises {n} rows of {k} neighbors, {HEADER + 4 * n * k} bytes, "
            f"or {HEADER + 8 * n * k} with their distances"
        )
    return mapped(file, DTYPES[".ibin"], (n, k), HEADER)


def _header(file: Path) -> tuple[int, int, int]:
    """Rows, values per row, and bytes of the file."""
    size = file.stat().st_size
    if size < HEADER:
        raise InputError(f"{file} has {size} bytes; the header alone has {HEADER}")
    n, width = (int(word) for word in np.fromfile(file, "<u4", 2))
    if width == 0:
        raise InputError(f"{file}: the header gives dimension 0")
    return n, width, size
