"""Rows found by id, and records of rows. Results are checked: LMDB's tree pages have no checksums of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qvec._kernels import ids_of_rows as column_ids
from qvec.common.errors import CorruptError, MissingIdError
from qvec.common.types import IdKind, NDArray, Payload
from qvec.schema.bitmaps import complement, read_bitmap, rows_in
from qvec.schema.layout import DELETED, IDS, ROW
from qvec.schema.state import State
from qvec.schema.validation import as_ids, id_keys
from qvec.storage.store import Snapshot

_MISSING = object()


def find_rows(reading: Snapshot, keys: Sequence[bytes]) -> NDArray[np.int64]:
    """The row of each id, given by its key: int64 [n], -1 for an id that is not stored.

    Raises CorruptError if an id leads to a row that does not exist.
    """
    state: State = reading.state
    rows = reading.rows_of(keys)
    if len(rows) and int(rows.max()) >= state.n:
        raise CorruptError(f"an id leads to row {rows.max()} of {state.n}")
    return rows


def row_of_id(reading: Snapshot, id: int | str, kind: IdKind) -> int:
    """The row of one id. Raises MissingIdError, or CorruptError if the id map led to the row of another id."""
    is_plain = type(id) is int and kind == "int64" and 0 <= id < 1 << 63
    row = reading.row_of(id.to_bytes(8, "big") if is_plain else id_keys(as_ids([id], kind))[0])  # type: ignore[union-attr]
    if row is None:
        raise MissingIdError(f"no vector has the id {id!r}")
    if kind == "int64":
        if row >= reading.state.n:
            raise CorruptError(f"an id leads to row {row} of {reading.state.n}")
        stored: Any = column_ids(reading.columns[IDS], np.array([row])).item()
    else:
        stored = row_records(reading, [row])[0]["id"]
    if stored != id:
        raise CorruptError(f"the id {id!r} leads to the row of {stored!r}")
    return row


def read_record(reading: Snapshot, row: int) -> Any:
    """A row's record, or None. Raises CorruptError if it is not a record of a row."""
    return read_records(reading, (row,))[0]


def read_records(reading: Snapshot, rows: Sequence[int]) -> list[Any]:
    """The record of each row, or None. CorruptError names the first malformed record."""
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
    """The record of each live row, or None; also None for the row -1. CorruptError if a record is lost."""
    state: State = snap.state
    records = read_records(snap, rows)
    if None in records and state.records == state.live:
        lost = [row for row, record in zip(rows, records, strict=True) if record is None and row >= 0]
        if lost:
            raise CorruptError(f"the record of row {lost[0]} is lost")
    return records


def payloads_of(records: Sequence[Any]) -> list[Payload | None]:
    """The payload of each record, None for a row without a record."""
    return [None if record is None else record["payload"] for record in records]


def ids_of_rows(reading: Snapshot, rows: NDArray[np.int64], records: Sequence[Any] | None = None) -> NDArray[Any]:
    """The ids of live rows: int64 [n] of their column, or strings of ``records``, which are loaded if None."""
    if IDS not in reading.columns:
        records = row_records(reading, rows.tolist()) if records is None else records
        return np.array([record["id"] for record in records], object)
    return reading.columns[IDS].read(rows).view("<i8").reshape(-1).astype(np.int64)


def check_same(wanted: NDArray[Any], stored: NDArray[Any]) -> None:
    """Raise CorruptError if the id map led to the row of another id."""
    wrong = np.flatnonzero(wanted != stored)
    if len(wrong):
        raise CorruptError(f"the id {wanted[wrong[0]]!r} leads to the row of {stored[wrong[0]]!r}")


def id_array(ids: NDArray[Any] | list[str]) -> NDArray[Any]:
    """Checked ids as an array, of dtype object for strings."""
    return ids if isinstance(ids, np.ndarray) else np.array(ids, object)


def shaped(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """A flat list as k values, or as n lists of k."""
    k = shape[-1]
    return values if len(shape) == 1 else [values[i : i + k] for i in range(0, len(values), k)]


def live_rows(reading: Snapshot) -> NDArray[np.int64]:
    """The rows that are not deleted, ascending."""
    n = reading.state.n
    return rows_in(complement(n, read_bitmap(reading.columns[DELETED], n))) if n else np.zeros(0, np.int64)
