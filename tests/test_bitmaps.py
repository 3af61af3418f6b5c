"""Bitmaps of rows, in memory and in columns, against Python sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qvec._kernels import Column
from qvec.schema.bitmaps import bitmap_of, complement, count, mark, read_bitmap, rows_between, rows_in, words_for
from qvec.storage.store import block_geometry

SIZES = st.integers(0, 700)


@st.composite
def rows_below(draw: st.DrawFn) -> tuple[int, list[int]]:
    n = draw(SIZES)
    return n, sorted(draw(st.sets(st.integers(0, n - 1)))) if n else []


@given(rows_below())
def test_the_rows_of_a_bitmap_are_read_back(case: tuple[int, list[int]]) -> None:
    n, rows = case
    bitmap = bitmap_of(np.array(rows, np.int64), n)
    assert len(bitmap) == words_for(n)
    assert count(bitmap) == len(rows)
    assert rows_in(bitmap).tolist() == rows
    assert rows_in(complement(n)).tolist() == list(range(n))
    assert rows_in(complement(n, bitmap)).tolist() == sorted(set(range(n)) - set(rows))


@given(rows_below(), SIZES, SIZES)
def test_rows_of_a_range(case: tuple[int, list[int]], start: int, stop: int) -> None:
    n, rows = case
    found = rows_between(bitmap_of(np.array(rows, np.int64), n), start, stop)
    assert found.tolist() == [row for row in rows if start <= row < stop]


@given(rows_below(), st.lists(st.tuples(st.sets(st.integers(0, 699)), st.booleans()), max_size=4))
def test_bits_of_a_column_are_set_and_cleared(
    case: tuple[int, list[int]], changes: list[tuple[set[int], bool]]
) -> None:
    n, rows = case
    column = Column("bits", 1, 0, 8, *block_geometry(8, 4096, 1, 1), 4096, writable=True)
    column.resize(words_for(n))
    expected: set[int] = set()
    for changed, value in [(set(rows), True), *changes]:
        within = {row for row in changed if row < n}
        mark(column, np.array(sorted(within), np.uint32), value)
        expected = expected | within if value else expected - within
    assert rows_in(read_bitmap(column, n)).tolist() == sorted(expected)
