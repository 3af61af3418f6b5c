"""Changes of the posting lists of a field in a write transaction.

Each change writes one segment of its rows; segments of similar sizes are merged in the same commit (docs/adr/0021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qvec._kernels import Segment, TermBatch, merge_segments
from qvec.common.types import Bitmap, NDArray
from qvec.schema.bitmaps import bitmap_of, bytes_of, rows_in, words_for
from qvec.schema.postings import PostingsState, SegmentRecord, TextOptions
from qvec.schema.state import State
from qvec.storage.store import Transaction
from qvec.text.analysis import Analyzer
from qvec.text.segments import (
    MAX_DOCS,
    MAX_POSTINGS,
    all_columns,
    lengths_column,
    lengths_spec,
    open_segment,
    postings_column,
    postings_spec,
    put_lengths,
    read_lengths,
    rows_column,
    rows_spec,
    valid_rows,
)
from qvec.text.sparse import sparse_vector

PART_ROWS = 16_384  # the terms of this many rows are in memory at a time
MERGE_RATIO = 1.25  # a segment is merged with later ones if it has less than this many times their postings
SMALL = 4096  # segments with fewer postings together are merged whatever their sizes
MIN_MERGED = 4  # segments that a commit merges: each posting is rewritten half as often as with two
Rows = NDArray[np.int64]


class PostingsWriter:
    """The posting lists of one field."""

    def __init__(self, txn: Transaction, name: str) -> None:
        self.txn, self.name = txn, name
        self._analyzer: Analyzer | None = None

    @property
    def state(self) -> PostingsState:
        """The state of the field."""
        postings = self._collection.fields[self.name].postings
        assert postings is not None
        return postings

    @property
    def _collection(self) -> State:
        state: State = self.txn.state
        return state

    @property
    def _number(self) -> int:
        return self._collection.fields[self.name].number

    @property
    def _is_text(self) -> bool:
        return self.state.options.kind == "text"

    def set(self, **changes: Any) -> None:
        """Replace parts of the field's state."""
        field = self._collection.fields[self.name]
        field = replace(field, postings=replace(self.state, **changes))
        self.txn.state = replace(self._collection, fields={**self._collection.fields, self.name: field})

    # --- rows ---

    def create(self) -> None:
        """Create the columns of a field that is declared."""
        if self._is_text:
            self.txn.add_column(lengths_column(self._number), lengths_spec(self._number))
            self.resize(self._collection.n)

    def resize(self, n: int) -> None:
        """Make room for n rows."""
        if self._is_text:
            self.txn.columns[lengths_column(self._number)].resize(words_for(n))

    def drop(self) -> None:
        """Remove all columns."""
        for name in all_columns(self._number, self.state):
            self.txn.drop_column(name)

    def clear(self) -> None:
        """Remove all segments, and count no rows."""
        for segment in self.state.segments:
            self._drop_columns(segment)
        self.set(docs=0, tokens=0, segments=())

    def change(self, rows: Sequence[int], before: Sequence[Any], after: Sequence[Any]) -> None:
        """Replace the values of ascending rows: None, or a tuple with a value as payloads store it."""
        moved = [i for i in range(len(rows)) if before[i] != after[i]]
        is_partial = self.name in self._collection.partial_fields  # an interrupted step may have added the values
        self.remove(np.array([rows[i] for i in moved if is_partial or before[i] is not None], np.int64))
        added = [i for i in moved if after[i] is not None]
        for start in range(0, len(added), PART_ROWS):
            part = added[start : start + PART_ROWS]
            self._add([rows[i] for i in part], [after[i][0] for i in part])
        self._merge_similar()

    def remove(self, rows: Rows) -> None:
        """Make the postings of rows, ascending, invalid."""
        if not len(rows):
            return
        segments, docs, tokens = list(self.state.segments), self.state.docs, self.state.tokens
        if self._is_text:
            lengths = self.txn.columns[lengths_column(self._number)]
            tokens -= int(read_lengths(lengths, rows).sum())
            put_lengths(lengths, rows, np.zeros(len(rows), np.uint32))
        for i, segment in enumerate(segments):
            cleared = self._clear(segment, rows)
            docs -= cleared
            if cleared == segment.docs:
                self._drop_columns(segment)
            segments[i] = replace(segment, docs=segment.docs - cleared)
        self.set(docs=docs, tokens=tokens, segments=tuple(segment for segment in segments if segment.docs))

    def _clear(self, segment: SegmentRecord, rows: Rows) -> int:
        """Clear the bits of rows in the bitmap of a segment; returns how many were set."""
        column = self.txn.columns[rows_column(segment.number)]
        at = rows[(rows >= segment.first) & (rows < segment.first + 64 * column.n_rows)] - segment.first
        if not len(at):
            return 0
        words, place = np.unique(at // 64, return_inverse=True)
        masks = np.zeros(len(words), np.uint64)
        np.bitwise_or.at(masks, place, np.uint64(1) << (at % 64).astype(np.uint64))
        bits = column.read(words).view("<u8").reshape(-1)
        cleared = int(np.bitwise_count(bits & masks).sum())
        if cleared:
            column.put(words, bytes_of(bits & ~masks))
        return cleared

    # --- segments ---

    def _add(self, rows: list[int], values: list[Any]) -> None:
        """Write a segment of rows, ascending."""
        if self._is_text:
            batch, counts = self.batch_of(rows, values)
            column, tokens = self.txn.columns[lengths_column(self._number)], sum(counts)
            put_lengths(column, np.array(rows, np.int64), np.array(counts, np.uint32))
            self.set(tokens=self.state.tokens + tokens)
        else:
            (batch, counts), column = self.batch_of(rows, values), None
        if not batch.n_docs:
            return
        held = np.array([row for row, count in zip(rows, counts, strict=True) if count], np.int64)
        number = self._new_number()
        lists = self.txn.add_column(postings_column(number), postings_spec(number, batch.n_postings, batch.n_docs))
        self._store(number, held, batch.encode(lists.rows_per_block * lists.stride, column), self.state.segments)
        self.set(docs=self.state.docs + len(held))

    def batch_of(self, rows: Sequence[int], values: Sequence[Any]) -> tuple[TermBatch, list[int]]:
        """The terms of rows, ascending, and how many each row has."""
        options = self.state.options
        if not isinstance(options, TextOptions):
            batch, counts = TermBatch("sparse"), []
            for row, value in zip(rows, values, strict=True):
                ids, weights = sparse_vector(value, self.name)
                batch.add_weights(row, ids, weights)
                counts.append(len(ids))
            return batch, counts
        if self._analyzer is None:
            self._analyzer = Analyzer(options, self.name)
        analyzer = self._analyzer
        batch, counts = TermBatch("text", analyzer.words, analyzer.term_of), []
        for row, value in zip(rows, values, strict=True):
            if analyzer.is_unicode and isinstance(value, str):
                counts.append(batch.add_text(row, value))
            else:
                counts.append(batch.add_words(row, analyzer.words(value)))
        return batch, counts

    def _new_number(self) -> int:
        fields = self._collection.fields.values()
        used = {segment.number for field in fields if field.postings for segment in field.postings.segments}
        return next(number for number in range(len(used) + 1) if number not in used)

    def _store(self, number: int, rows: Rows, data: NDArray[np.uint8], others: tuple[SegmentRecord, ...]) -> None:
        """Store a segment, for which the column of lists exists, after the other segments of the field."""
        lists = self.txn.columns[postings_column(number)]
        parts = data.reshape(-1, lists.stride)
        lists.resize(len(parts))
        lists.write(0, parts)
        first = int(rows[0]) // 64 * 64
        bitmap = bytes_of(bitmap_of(rows - first, int(rows[-1]) - first + 1))
        column = self.txn.add_column(rows_column(number), rows_spec(number))
        column.resize(len(bitmap))
        column.write(0, bitmap)
        written = Segment(lists, self.state.options.kind, None, first)
        record = SegmentRecord(number, first, len(rows), len(rows), written.n_postings)
        self.set(segments=(*others, record))

    def _drop_columns(self, segment: SegmentRecord) -> None:
        self.txn.drop_column(postings_column(segment.number))
        self.txn.drop_column(rows_column(segment.number))

    def _merge_similar(self) -> None:
        """Merge the last segments, while a segment is not much larger than all later ones together."""
        segments = self.state.segments
        start, postings, docs = len(segments), 0, 0
        while start:
            one = segments[start - 1]
            similar = one.postings < MERGE_RATIO * postings or postings + one.postings < SMALL
            if start < len(segments) and not (similar and self._fits(postings + one.postings, docs + one.docs)):
                break
            start, postings, docs = start - 1, postings + one.postings, docs + one.docs
        if len(segments) - start >= MIN_MERGED:
            self.merge(range(start, len(segments)))
        for i, segment in enumerate(self.state.segments):
            if 2 * segment.docs < segment.written:
                self.merge([i])
                break

    def _fits(self, postings: int, docs: int) -> bool:
        return postings <= MAX_POSTINGS and docs <= MAX_DOCS

    def merge_step(self, invalid_only: bool) -> bool:
        """Rewrite a segment with invalid postings, or else merge neighbors that fit one. False: nothing is left."""
        segments = self.state.segments
        for i, segment in enumerate(segments):
            if segment.docs < segment.written:
                self.merge([i])
                return True
        if invalid_only:
            return False
        for i, segment in enumerate(segments):
            group = [i]
            postings, docs = segment.postings, segment.docs
            for j in range(i + 1, len(segments)):
                postings, docs = postings + segments[j].postings, docs + segments[j].docs
                if not self._fits(postings, docs):
                    break
                group.append(j)
            if len(group) > 1:
                self.merge(group)
                return True
        return False

    def merge(self, chosen: Sequence[int]) -> None:
        """Replace segments, given by position, with one segment of their valid postings at the position of the
        first."""
        records = [self.state.segments[i] for i in chosen]
        kind, columns = self.state.options.kind, self.txn.columns
        bitmaps = [valid_rows(columns, record) for record in records]
        rows = np.sort(np.concatenate([_rows(bitmap, record) for bitmap, record in zip(bitmaps, records, strict=True)]))
        segments = [open_segment(columns, record, kind) for record in records]
        number, postings = self._new_number(), sum(record.postings for record in records)
        lists = self.txn.add_column(postings_column(number), postings_spec(number, postings, len(rows)))
        lengths = columns[lengths_column(self._number)] if self._is_text else None
        part_bytes, first, last = lists.rows_per_block * lists.stride, int(rows[0]), int(rows[-1])
        data = merge_segments(segments, kind, part_bytes, first, last, len(rows), lengths)
        kept = self.state.segments[: chosen[0]]
        after = tuple(s for i, s in enumerate(self.state.segments) if i > chosen[0] and i not in chosen)
        self._store(number, rows, data, kept)
        self.set(segments=(*self.state.segments, *after))
        for record in records:
            self._drop_columns(record)


def _rows(bitmap: Bitmap, record: SegmentRecord) -> Rows:
    return rows_in(bitmap) + record.first
