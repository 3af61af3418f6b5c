"""Sets of rows as bitmaps: uint64 words, bit r of word w is row 64 w + r. A bitmap column stores one word per row."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec._kernels import WORD_ROWS, Column, bits_count, bits_rows, bits_set
from qvec.common.types import Bitmap, NDArray

WORD_BYTES = 8


def words_for(n: int) -> int:
    """Return the number of words of a bitmap of n rows."""
    return (n + WORD_ROWS - 1) // WORD_ROWS


def read_bitmap(column: Column, n: int) -> Bitmap:
    """Read the first n bits of a bitmap column, in whole words."""
    return column.read_range(0, words_for(n)).view("<u8").reshape(-1).astype(np.uint64)


def bytes_of(bitmap: Bitmap) -> NDArray[np.uint8]:
    """Convert a bitmap to rows of a bitmap column, uint8 [words, 8]."""
    return bitmap.astype("<u8").view(np.uint8).reshape(-1, WORD_BYTES)


def rows_in(bitmap: Bitmap) -> NDArray[np.int64]:
    """Return the rows whose bits are set, ascending."""
    return bits_rows(bitmap).astype(np.int64)


def rows_between(bitmap: Bitmap, start: int, stop: int) -> NDArray[np.int64]:
    """Return the rows from start to stop - 1 whose bits are set, ascending."""
    first = start // WORD_ROWS
    rows = rows_in(bitmap[first : words_for(stop)]) + first * WORD_ROWS
    return rows[(rows >= start) & (rows < stop)]


def bitmap_of(rows: NDArray[Any], n: int) -> Bitmap:
    """Return a bitmap of n bits in which the bits of ``rows`` are set."""
    bitmap = np.zeros(words_for(n), np.uint64)
    bits_set(np.ascontiguousarray(rows, np.uint32), n, bitmap)
    return bitmap


def are_in(bitmap: Bitmap, rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each row whether its bit is set."""
    bits = bitmap[rows // WORD_ROWS] >> (rows % WORD_ROWS).astype(np.uint64)
    found: NDArray[np.bool_] = (bits & np.uint64(1)).astype(np.bool_)
    return found


def count(bitmap: Bitmap) -> int:
    """Return the number of set bits."""
    return bits_count(bitmap)


def complement(n: int, bitmap: Bitmap | None = None) -> Bitmap:
    """Return a bitmap of the rows below n that are not in ``bitmap``. None means a bitmap without rows."""
    others = np.full(words_for(n), np.iinfo(np.uint64).max) if bitmap is None else ~bitmap[: words_for(n)]
    if n % WORD_ROWS:
        others[-1] &= np.uint64((1 << n % WORD_ROWS) - 1)
    return others


def unused_rows(column: Column, used: Bitmap, n: int) -> NDArray[np.int64]:
    """Return the rows of a column that are not in ``used``, a bitmap of n rows; ascending, to the end of the last
    block."""
    return np.concatenate([rows_in(complement(n, used)), np.arange(n, column.n_rows)])


def mark(column: Column, rows: NDArray[Any], value: bool) -> None:
    """Set or clear the bits of ``rows`` in a bitmap column."""
    words, masks = _masks(rows)
    bits = column.read(words).view("<u8").reshape(-1)
    bits = bits | masks if value else bits & ~masks
    column.put(words, bytes_of(bits))


def _masks(rows: NDArray[Any]) -> tuple[NDArray[np.int64], Bitmap]:
    """Return the words that contain the rows, ascending, and a mask of the rows' bits in each word."""
    if len(rows) == 1:  # the usual case; the general code below takes ten times as long
        return rows.astype(np.int64) // WORD_ROWS, np.uint64(1) << (rows % WORD_ROWS).astype(np.uint64)
    words, at = np.unique(rows.astype(np.int64) // WORD_ROWS, return_inverse=True)
    masks = np.zeros(len(words), np.uint64)
    np.bitwise_or.at(masks, at, np.uint64(1) << (rows % WORD_ROWS).astype(np.uint64))
    return words, masks
