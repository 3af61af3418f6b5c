"""Adding text and sparse fields to a collection, in short transactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qvec.common.errors import InputError
from qvec.filters.maintain import FieldWriter
from qvec.index import Progress
from qvec.rows.writer import Writer
from qvec.schema.state import FieldDeclaration
from qvec.storage.store import Store, Transaction
from qvec.text.writer import PostingsWriter

STEP_ROWS = 8192  # rows that one transaction indexes


def add_searched_field(
    store: Store,
    writer: Callable[[Transaction], Writer],
    name: str,
    wanted: FieldDeclaration,
    progress: Progress | None,
) -> None:
    """Declare a field and index the stored payloads, or go on where an earlier call was interrupted.

    Raises InputError for a payload with a value of another type; the field is then removed again.
    """
    with store.write() as txn:
        if not _is_unfinished(txn, name, wanted):
            assert wanted.postings is not None
            FieldWriter(txn).declare({name: replace(wanted, postings=replace(wanted.postings, indexed=0))})
    try:
        while _index_part(store, writer, name, progress):
            pass
    except InputError:
        with store.write() as txn:
            FieldWriter(txn).drop(name)
        raise


def _is_unfinished(txn: Transaction, name: str, wanted: FieldDeclaration) -> bool:
    """Whether the field is declared with the same options, and not yet indexed."""
    declared = txn.state.fields.get(name)
    if declared is None or declared.postings is None or declared.postings.indexed is None:
        return False
    assert wanted.postings is not None
    return bool(declared.postings.options == wanted.postings.options)


def _index_part(store: Store, writer: Callable[[Transaction], Writer], name: str, progress: Progress | None) -> bool:
    """Index some rows; False: all are indexed."""
    with store.write() as txn:
        postings, n = PostingsWriter(txn, name), txn.state.n
        start = postings.state.indexed
        if start is None:
            return False
        stop = min(start + STEP_ROWS, n)
        postings.set(indexed=stop)
        if stop > start:
            writer(txn).index_field(name, np.arange(start, stop))
        if stop == n:
            postings.set(indexed=None)
    if progress is not None:
        progress(stop, n)
    return stop < n
