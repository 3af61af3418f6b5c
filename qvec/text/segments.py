"""The columns of segments: their names, their shapes, and a segment as kernels read it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qvec._kernels import LENGTHS_PER_ROW, SEGMENT_STRIDE, Column, Segment
from qvec.common.errors import CorruptError
from qvec.common.types import Bitmap, NDArray
from qvec.schema.bitmaps import read_bitmap
from qvec.schema.layout import LENGTHS, POSTINGS, SEGMENT_ROWS, column_of
from qvec.schema.postings import PostingsState, SegmentRecord
from qvec.storage.store import ColumnSpec

MAX_DOCS = 1 << 18  # of a segment
MAX_POSTINGS = 1 << 24  # ... about 32 MiB; one document may have more
_BYTES_PER_POSTING, _PARTS, _MAX_PAGES, _PAGE = 4, 16, 16, 4096


def postings_column(number: int) -> str:
    """The name of the column of a segment's lists."""
    return f"{POSTINGS} {number}"


def rows_column(number: int) -> str:
    """The name of the column of a segment's bitmap of rows."""
    return f"{SEGMENT_ROWS} {number}"


def lengths_column(field_number: int) -> str:
    """The name of the column of the lengths of a text field."""
    return f"{LENGTHS} {field_number}"


def lengths_spec(field_number: int) -> ColumnSpec:
    """Shape of the column of lengths."""
    return column_of(LENGTHS, 4 * LENGTHS_PER_ROW, 1, field_number)


def postings_spec(number: int, postings: int, docs: int) -> ColumnSpec:
    """Shape of a segment's lists: about 16 blocks, so that the last of lists and dictionary waste little."""
    pages = _BYTES_PER_POSTING * postings // (_PARTS * _PAGE) + docs // (8 * _PAGE) + 1
    return column_of(POSTINGS, SEGMENT_STRIDE, min(pages, _MAX_PAGES), number)


def rows_spec(number: int) -> ColumnSpec:
    """Shape of a segment's bitmap of rows."""
    return column_of(SEGMENT_ROWS, 8, 1, number)


def valid_rows(columns: Mapping[str, Column], record: SegmentRecord) -> Bitmap:
    """The bitmap of a segment's rows; its first bit is row ``record.first``."""
    column = columns[rows_column(record.number)]
    return read_bitmap(column, 64 * column.n_rows)


def open_segment(
    columns: Mapping[str, Column], record: SegmentRecord, kind: str, valid: Bitmap | None = None
) -> Segment:
    """A segment. ``valid``: the rows whose postings count; default, those of its bitmap."""
    if valid is None and record.docs < record.written:
        valid = valid_rows(columns, record)
    segment = Segment(columns[postings_column(record.number)], kind, valid, record.first)
    if segment.n_docs != record.written or segment.first_row < record.first:
        raise CorruptError(f"segment {record.number} has {segment.n_docs} rows from {segment.first_row} on")
    return segment


def all_columns(number: int, state: PostingsState) -> dict[str, int]:
    """The columns of field ``number``, and the bytes of their rows."""
    named = {postings_column(segment.number): SEGMENT_STRIDE for segment in state.segments}
    named |= {rows_column(segment.number): 8 for segment in state.segments}
    return named | ({lengths_column(number): 4 * LENGTHS_PER_ROW} if state.options.kind == "text" else {})


def put_lengths(column: Column, rows: NDArray[np.int64], lengths: NDArray[np.uint32]) -> None:
    """Write the lengths of rows, ascending."""
    words, at = np.unique(rows // LENGTHS_PER_ROW, return_inverse=True)
    values = column.read(words).view("<u4")
    values[at, rows % LENGTHS_PER_ROW] = lengths
    column.put(words, values.view(np.uint8))


def read_lengths(column: Column, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Read the lengths of rows."""
    words, at = np.unique(rows // LENGTHS_PER_ROW, return_inverse=True)
    lengths: NDArray[np.uint32] = column.read(words).view("<u4")[at, rows % LENGTHS_PER_ROW]
    return lengths
