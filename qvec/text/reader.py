"""The posting lists of a snapshot, opened once for each commit, and the terms of queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from qvec._kernels import PostingField
from qvec.common.types import Bitmap, Float32Array, NDArray
from qvec.schema.bitmaps import rows_in
from qvec.schema.postings import PostingsState, TextOptions
from qvec.schema.state import State
from qvec.storage.store import Snapshot
from qvec.text.analysis import Analyzer, analyzer_version
from qvec.text.segments import lengths_column, open_segment, valid_rows

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
    options, columns = state.options, reading.columns
    segments = [open_segment(columns, record, options.kind) for record in state.segments]
    if not isinstance(options, TextOptions):
        return PostingField(segments, None, state.docs, 0, 0, 0)
    lengths = columns[lengths_column(field.number)]
    return PostingField(segments, lengths, state.docs, state.tokens, options.k1, options.b)


def analyzer_of(state: State, name: str) -> Analyzer:
    """The analyzer of a text field."""
    postings = state.fields[name].postings
    assert postings is not None
    assert isinstance(postings.options, TextOptions)
    options = postings.options
    return _analyzer(options, name, analyzer_version(options.analyzer, options.stemmer))


def text_terms(state: State, name: str, text: str | Sequence[str]) -> Terms:
    """The terms of a query for a text field, each with the number of times that it has it."""
    counts: dict[str, float] = {}
    for term in analyzer_of(state, name).terms(text):
        counts[term] = counts.get(term, 0.0) + 1.0
    return [(term.encode(), count) for term, count in counts.items()]


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
