"""Value columns: for each row the value of an ordered field, as a u64 key; 0 if the row has none.

A row of the column contains the values of 64 rows of the collection, which belong to one word of a bitmap, so that a
scan produces bitmaps. A scan at memory bandwidth is faster than reading ordered entries, unless only a few rows match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qvec._kernels import WORD_ROWS, Column, bits_between
from qvec.common.types import Bitmap, NDArray
from qvec.filters.schema import MAX_NUMBER, Field, Key
from qvec.schema.layout import FIELD, narrow_column
from qvec.storage.store import ColumnSpec

_BYTES = 8


def column_name(field: Field) -> str:
    """The name of a field's column."""
    return f"{FIELD} {field.number}"


def column_spec(field: Field) -> ColumnSpec:
    """Shape of a field's column: blocks of one page, since values change one by one."""
    assert field.number <= MAX_NUMBER
    return narrow_column(FIELD, WORD_ROWS * _BYTES, generation=field.number)


def scan_values(
    columns: Mapping[str, Column], field: Field, ranges: Sequence[tuple[int, int]], n: int, bits: Bitmap
) -> None:
    """Set the bits of the rows whose value is in one of the ascending ranges, both ends included."""
    bits_between(columns[column_name(field)], n, np.array(ranges, np.uint64).reshape(-1), bits)


def read_values(columns: Mapping[str, Column], field: Field, n: int) -> NDArray[np.uint64]:
    """Return the keys of the first n rows, uint64 [n]; 0 for a row without a value."""
    words = -(-n // WORD_ROWS)
    return columns[column_name(field)].read_range(0, words).view("<u8").reshape(-1)[:n].astype(np.uint64)


def keys_of_rows(columns: Mapping[str, Column], field: Field, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the keys of some rows, uint64 [len(rows)]; 0 for a row without a value."""
    values: NDArray[np.uint64] = columns[column_name(field)].read(rows // WORD_ROWS).view("<u8")
    return values[np.arange(len(rows)), rows % WORD_ROWS].astype(np.uint64)


def write_values(column: Column, rows: NDArray[np.int64], keys: Sequence[Key]) -> None:
    """Write the keys of rows, which are ascending and distinct."""
    words, at = np.unique(rows // WORD_ROWS, return_inverse=True)
    values = column.read(words).view(np.uint64)
    values[at, rows % WORD_ROWS] = np.array(keys, np.uint64)
    starts = np.flatnonzero(np.diff(words, prepend=words[0] - 2) != 1)
    for run in np.split(np.arange(len(words)), starts[1:]):
        column.write(int(words[run[0]]), values[run].view(np.uint8))
