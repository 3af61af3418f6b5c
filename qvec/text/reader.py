"""The posting lists of a snapshot, opened once for each commit, and the terms of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from qvec._kernels import Column, PostingField, Segment
from qvec.common.types import Bitmap, Float32Array, NDArray
from qvec.schema.bitmaps import rows_in
from qvec.schema.postings import PostingsState, TextOptions
from qvec.schema.state import State
from qvec.storage.store import Snapshot
from qvec.text.analysis import Analyzer, analyzer_version
from qvec.text.segments import all_columns, lengths_column, open_segment, valid_rows
from qvec.text.statistics import FieldCounts

Terms = list[tuple[bytes, float]]
"""Terms and weights above zero."""


@lru_cache(64)
def _analyzer(options: TextOptions, name: str, installed: str) -> Analyzer:
    return Analyzer(options, name)


def postings_of(reading: Snapshot, name: str) -> PostingField:
    """The posting lists of a field."""
    key = "postings", name
    opened: PostingField | None = reading.derived.get(key)
    if opened is None:
        opened = reading.derived[key] = _open(reading, name)
    return opened


def _open(reading: Snapshot, name: str) -> PostingField:
    field = reading.state.fields[name]
    state: PostingsState = field.postings
    if not isinstance(state.options, TextOptions):
        return PostingField(_segments(reading, name), None, state.docs, 0, 0, 0)
    return _text_field(reading, name, FieldCounts(state.docs, state.tokens, {}))


def _text_field(reading: Snapshot, name: str, counts: FieldCounts) -> PostingField:
    field = reading.state.fields[name]
    options, lengths = field.postings.options, reading.columns[lengths_column(field.number)]
    known = dict(counts.frequencies)
    return PostingField(_segments(reading, name), lengths, counts.docs, counts.tokens, options.k1, options.b, known)


def _segments(reading: Snapshot, name: str) -> list[Segment]:
    opened: list[Segment] | None = reading.derived.get(("segments", name))
    if opened is None:
        state: PostingsState = reading.state.fields[name].postings
        opened = [open_segment(reading.columns, record, state.options.kind) for record in state.segments]
        reading.derived["segments", name] = opened
    return opened


def postings_columns(reading: Snapshot) -> list[Column]:
    """Return the columns of the posting lists of all fields, once for each commit, to copy them to memory."""
    found: list[Column] = []
    if "resident postings" in reading.derived:
        return found
    for name, field in reading.state.fields.items():
        if field.postings is not None and name not in reading.state.partial_fields:
            columns = [reading.columns[column] for column in all_columns(field.number, field.postings)]
            found += [column for column in columns if column.n_rows]
    reading.derived["resident postings"] = True
    return found


def postings_with(reading: Snapshot, name: str, counts: FieldCounts) -> PostingField:
    """The posting lists of a text field, scored by the counts of several collections together."""
    return _text_field(reading, name, counts)


def counts_of(reading: Snapshot, name: str, terms: Iterable[bytes]) -> FieldCounts:
    """The counts of a text field, with those of some terms."""
    state: PostingsState = reading.state.fields[name].postings
    field = postings_of(reading, name)
    return FieldCounts(state.docs, state.tokens, {term: field.document_frequency(term) for term in terms})


def analyzer_of(state: State, name: str) -> Analyzer:
    """The analyzer of a text field."""
    postings = state.fields[name].postings
    assert postings is not None
    assert isinstance(postings.options, TextOptions)
    options = postings.options
    return _analyzer(options, name, analyzer_version(options.analyzer, options.stemmer))


def text_terms(state: State, name: str, text: str | Sequence[str]) -> Terms:
    """The terms of a query for a text field, each with the number of times that it has it."""
    terms = analyzer_of(state, name).terms(text)
    if len({*terms}) == len(terms):
        return [(term.encode(), 1.0) for term in terms]
    return [(term.encode(), float(count)) for term, count in Counter(terms).items()]


def sparse_terms(ids: NDArray[np.uint32], weights: Float32Array) -> Terms:
    """The terms of a sparse query."""
    keys = ids.astype(">u4").tobytes()
    return [(keys[4 * i : 4 * i + 4], weight) for i, weight in enumerate(weights.tolist())]


def rows_with_all(reading: Snapshot, name: str, terms: Sequence[bytes], n: int, bits: Bitmap) -> None:
    """Set the bits of the rows that have all terms; none if there are no terms."""
    field = postings_of(reading, name)
    for i, term in enumerate(terms):
        found = np.zeros_like(bits)
        field.set_bits(term, n, found)
        np.bitwise_or(bits, found, out=bits) if i == 0 else np.bitwise_and(bits, found, out=bits)


def rows_with_any(reading: Snapshot, name: str, n: int, bits: Bitmap) -> None:
    """Set the bits of the rows that have a term."""
    state: PostingsState = reading.state.fields[name].postings
    for record in state.segments:
        rows = rows_in(valid_rows(reading.columns, record)) + record.first
        rows = rows[rows < n]
        np.bitwise_or.at(bits, rows // 64, np.uint64(1) << (rows % 64).astype(np.uint64))
