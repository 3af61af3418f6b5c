"""Verification of the posting lists of a field against the payloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qvec._kernels import Column, Segment, merge_segments
from qvec.common.errors import CorruptError
from qvec.common.types import Bitmap, NDArray
from qvec.schema.bitmaps import bitmap_of, rows_in
from qvec.schema.postings import PostingsState, SegmentRecord
from qvec.storage.store import Snapshot
from qvec.text.segments import lengths_column, open_segment, valid_rows
from qvec.text.writer import PART_ROWS, PostingsWriter

_PART_BYTES = 65_472


def check_postings_of(reading: Snapshot, name: str, rows: Sequence[int], values: Sequence[Any]) -> Iterator[str]:
    """Problems found in a field. ``values``: of ascending rows, a tuple with the payload's value, or None."""
    try:
        yield from _check(reading, name, rows, values)
    except CorruptError as error:
        yield f"field {name!r}: {error}"


def _check(reading: Snapshot, name: str, rows: Sequence[int], values: Sequence[Any]) -> Iterator[str]:
    field = reading.state.fields[name]
    state: PostingsState = field.postings
    held = [(row, value[0]) for row, value in zip(rows, values, strict=True) if value is not None]
    writer = PostingsWriter(reading, name)  # type: ignore[arg-type]  # only to analyze
    lengths = reading.columns[lengths_column(field.number)] if state.options.kind == "text" else None
    bitmaps = [valid_rows(reading.columns, record) for record in state.segments]
    counted: dict[int, int] = {}
    for start in range(0, len(held), PART_ROWS):
        part = held[start : start + PART_ROWS]
        batch, counts = writer.batch_of([row for row, _ in part], [value for _, value in part])
        counted.update((row, count) for (row, _), count in zip(part, counts, strict=True) if count)
        found = _merged(reading, state, bitmaps, part[0][0], part[-1][0], lengths)
        if not batch.n_docs:
            continue
        expected = batch.encode(_PART_BYTES, lengths)
        if found is None or not _same(found, expected, state.options.kind):
            yield f"field {name!r}: the posting lists of rows {part[0][0]} to {part[-1][0]} do not match the payloads"
    yield from _check_rows(name, state, bitmaps, counted)
    if lengths is not None:
        yield from _check_lengths(reading, name, lengths, counted, state)


def _merged(
    reading: Snapshot, state: PostingsState, bitmaps: list[Bitmap], first: int, last: int, lengths: Any
) -> NDArray[np.uint8] | None:
    """The postings of rows from ``first`` to ``last`` as one segment; None: no rows are valid."""
    kind, segments, valid = state.options.kind, [], []
    for record, bitmap in zip(state.segments, bitmaps, strict=True):
        rows = rows_in(bitmap) + record.first
        rows = rows[(rows >= first) & (rows <= last)]
        if len(rows):
            segments.append(open_segment(reading.columns, record, kind, _bits(rows, record, len(bitmap))))
            valid.append(rows)
    if not valid:
        return None
    rows = np.sort(np.concatenate(valid))
    return merge_segments(segments, kind, _PART_BYTES, int(rows[0]), int(rows[-1]), len(rows), lengths)


def _bits(rows: NDArray[np.int64], record: SegmentRecord, words: int) -> Bitmap:
    return bitmap_of(rows - record.first, 64 * words)


def _same(found: NDArray[np.uint8], expected: NDArray[np.uint8], kind: str) -> bool:
    """Whether segments are equal; under sparse only their terms and rows, because weights are rounded in merges."""
    if kind == "text":
        return np.array_equal(found, expected)
    return _terms_of(found) == _terms_of(expected)


def _terms_of(data: NDArray[np.uint8]) -> list[tuple[bytes, int]]:
    return Segment(_column_of(data), "sparse", None, 0).terms()


def _column_of(data: NDArray[np.uint8]) -> Column:
    """A column in memory that holds the parts of a segment."""
    column = Column("segment", 24, 0, 64, _PART_BYTES // 64, 16, 4096, writable=True)
    rows = data.reshape(-1, 64)
    column.resize(len(rows))
    column.write(0, rows)
    return column


def _check_rows(name: str, state: PostingsState, bitmaps: list[Bitmap], counted: dict[int, int]) -> Iterator[str]:
    named: Counter[int] = Counter()
    for record, bitmap in zip(state.segments, bitmaps, strict=True):
        rows = rows_in(bitmap) + record.first
        named.update(rows.tolist())
        if len(rows) != record.docs:
            yield f"field {name!r}: segment {record.number} has {len(rows)} rows, the state says {record.docs}"
    if wrong := sorted(set(named) ^ set(counted)):
        yield f"field {name!r}: {len(wrong)} rows are wrongly in a segment or in none, the first is row {wrong[0]}"
    if twice := [row for row, times in named.items() if times > 1]:
        yield f"field {name!r}: row {min(twice)} is in several segments"
    if len(named) != state.docs:
        yield f"field {name!r}: {len(named)} rows have terms, the state says {state.docs}"


def _check_lengths(
    reading: Snapshot, name: str, lengths: Any, counted: dict[int, int], state: PostingsState
) -> Iterator[str]:
    n = reading.state.n
    expected = np.zeros(lengths.n_rows * 64, np.uint32)
    expected[list(counted)] = list(counted.values())
    stored = lengths.read_range(0, -(-n // 64)).view("<u4").reshape(-1)
    if wrong := np.flatnonzero(stored != expected[: len(stored)]).tolist():
        yield f"field {name!r}: {len(wrong)} rows have another length, the first is row {wrong[0]}"
    if sum(counted.values()) != state.tokens:
        yield f"field {name!r}: the rows have {sum(counted.values())} tokens, the state says {state.tokens}"
