"""Sets of rows as bitmaps: uint64 words, bit r of word w is row 64 w + r; in memory, and as columns of a word a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec._kernels import Column
from qvec.common.types import NDArray

WORD = 64
WORD_BYTES = 8
Bitmap = NDArray[np.uint64]


def words_for(n: int) -> int:
    """Words that hold n bits."""
    return (n + WORD - 1) // WORD


def read_bitmap(column: Column, n: int) -> Bitmap:
    """The first n bits of a column, in whole words."""
    return column.read_range(0, words_for(n)).view("<u8").reshape(-1).astype(np.uint64)


def bytes_of(bitmap: Bitmap) -> NDArray[np.uint8]:
    """A bitmap as rows of a column."""
    return bitmap.astype("<u8").view(np.uint8).reshape(-1, WORD_BYTES)


def rows_in(bitmap: Bitmap, limit: int | None = None) -> NDArray[np.int64]:
    """Rows whose bit is set, ascending; the first ``limit`` of them at most."""
    filled = np.flatnonzero(bitmap)
    if limit is not None:
        filled = filled[:limit]
    bits = np.unpackbits(bitmap[filled].view(np.uint8), bitorder="little").reshape(-1, WORD)
    word, bit = np.nonzero(bits)
    return (filled[word] * WORD + bit)[:limit]


def rows_between(bitmap: Bitmap, start: int, stop: int) -> NDArray[np.int64]:
    """Rows from start to below stop whose bit is set, ascending."""
    first = start // WORD
    rows = rows_in(bitmap[first : words_for(stop)]) + first * WORD
    return rows[(rows >= start) & (rows < stop)]


def bitmap_of(rows: NDArray[Any], n: int) -> Bitmap:
    """The bitmap of n bits with those of ``rows`` set."""
    bits = np.zeros(words_for(n) * WORD, np.uint8)
    bits[rows] = 1
    return np.packbits(bits, bitorder="little").view(np.uint64)


def are_in(bitmap: Bitmap, rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Of each row, whether its bit is set."""
    bits = bitmap[rows // WORD] >> (rows % WORD).astype(np.uint64)
    found: NDArray[np.bool_] = (bits & np.uint64(1)).astype(np.bool_)
    return found


def count(bitmap: Bitmap) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(bitmap).sum())


def without(n: int, bitmap: Bitmap) -> Bitmap:
    """The rows below n that are not in ``bitmap``."""
    others = ~bitmap[: words_for(n)]
    if n % WORD:
        others[-1] &= np.uint64((1 << n % WORD) - 1)
    return others


def unused_rows(column: Column, used: Bitmap, n: int) -> NDArray[np.int64]:
    """The rows of a column, ascending, that are not among the n of ``used``: behind these too, to its last block."""
    return np.concatenate([rows_in(without(n, used)), np.arange(n, column.n_rows)])


def mark(column: Column, rows: NDArray[Any], value: bool) -> None:
    """Set or clear the bits of ``rows`` in a column."""
    words, masks = _masks(rows)
    bits = column.read(words).view("<u8").reshape(-1)
    bits = bits | masks if value else bits & ~masks
    column.put(words, bytes_of(bits))


def _masks(rows: NDArray[Any]) -> tuple[NDArray[np.int64], Bitmap]:
    """The words that rows fall into, ascending, and their bits in each."""
    if len(rows) == 1:  # most calls, and the way below takes ten times as long
        return rows.astype(np.int64) // WORD, np.uint64(1) << (rows % WORD).astype(np.uint64)
    words, at = np.unique(rows.astype(np.int64) // WORD, return_inverse=True)
    masks = np.zeros(len(words), np.uint64)
    np.bitwise_or.at(masks, at, np.uint64(1) << (rows % WORD).astype(np.uint64))
    return words, masks
