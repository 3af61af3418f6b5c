"""Records of rows, held against what leads to them: LMDB's tree pages have no checksums of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qvec.common.errors import CorruptError
from qvec.common.types import NDArray, Payload
from qvec.schema.bitmaps import complement, read_bitmap, rows_in
from qvec.schema.layout import DELETED, IDS, ROW
from qvec.storage.store import Snapshot

_MISSING = object()


def find_rows(reading: Snapshot, keys: Sequence[bytes]) -> NDArray[np.int64]:
    """The row of each id, given by its key, int64 [n], -1 where it is not stored; CorruptError for one that is none."""
    rows, n = reading.rows_of(keys), reading.state["n"]
    if len(rows) and int(rows.max()) >= n:
        raise CorruptError(f"an id leads to row {rows.max()} of {n}")
    return rows


def stored_record(reading: Snapshot, row: int) -> Any:
    """A row's record, or None. Raises CorruptError if it is not a record of a row."""
    return stored_records(reading, (row,))[0]


def stored_records(reading: Snapshot, rows: Sequence[int]) -> list[Any]:
    """The record of each row, None if there is none; CorruptError names the first that is not a record of a row."""
    records = reading.records(ROW, rows)
    names = (str,) if IDS not in reading.columns else (str, type(None))
    for row, record in zip(rows, records, strict=True):
        if record is None:
            continue
        payload = record.get("payload", _MISSING) if type(record) is dict else _MISSING
        if not (payload is None or type(payload) is dict):
            raise CorruptError(f"the record of row {row} has no payload")
        if type(record.get("id")) not in names:
            raise CorruptError(f"the record of row {row} has no id, or an id that is not a string")
    return records


def row_records(snap: Snapshot, rows: Sequence[int]) -> list[Any]:
    """The record of each live row, None if there is none, and for the row -1. CorruptError if a record is lost."""
    state, records = snap.state, stored_records(snap, rows)
    if None in records and state["records"] == state["live"]:
        lost = [row for row, record in zip(rows, records, strict=True) if record is None and row >= 0]
        if lost:
            raise CorruptError(f"the record of row {lost[0]} is lost")
    return records


def payloads_of(records: Sequence[Any]) -> list[Payload | None]:
    """The payload of each record, None where there is no record."""
    return [None if record is None else record["payload"] for record in records]


def ids_of_rows(snap: Snapshot, rows: NDArray[np.int64], records: Sequence[Any] | None = None) -> NDArray[Any]:
    """The ids of live rows: int64 [n] of their column, or strings of their records where ids are strings."""
    if IDS not in snap.columns:
        records = row_records(snap, rows.tolist()) if records is None else records
        return np.array([record["id"] for record in records], object)
    return snap.columns[IDS].read(rows).view("<i8").reshape(-1).astype(np.int64)


def check_same(wanted: NDArray[Any], stored: NDArray[Any]) -> None:
    """CorruptError where the id map, which has no checksums, led to another id's row."""
    wrong = np.flatnonzero(wanted != stored)
    if len(wrong):
        raise CorruptError(f"the id {wanted[wrong[0]]!r} leads to the row of {stored[wrong[0]]!r}")


def shaped(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """A flat list as k values, or as n lists of k."""
    k = shape[-1]
    return values if len(shape) == 1 else [values[i : i + k] for i in range(0, len(values), k)]


def live_rows(snap: Snapshot) -> NDArray[np.int64]:
    """The rows that are not deleted, ascending."""
    n = snap.state["n"]
    return rows_in(complement(n, read_bitmap(snap.columns[DELETED], n))) if n else np.zeros(0, np.int64)
