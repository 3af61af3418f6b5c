"""Find rows by id, and read records of rows. Results are checked, because LMDB's tree pages have no checksums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from qvec._kernels import Deadline
from qvec._kernels import ids_of_rows as column_ids
from qvec.common.errors import CorruptError, MissingIdError
from qvec.common.types import IdKind, NDArray, Payload
from qvec.schema.bitmaps import complement, read_bitmap, rows_in
from qvec.schema.layout import DELETED, IDS, ROW
from qvec.schema.state import State
from qvec.schema.validation import as_ids, id_keys
from qvec.storage.records import read_all
from qvec.storage.store import Snapshot

_MISSING = object()


class RowRecord(NamedTuple):
    """A row's payload, and its id if ids are strings."""

    payload: Payload | None
    id: str | None


_new_record = tuple.__new__  # RowRecord() takes three times as long, and a search reads many records


def find_rows(reading: Snapshot, keys: Sequence[bytes], deadline: Deadline | None = None) -> NDArray[np.int64]:
    """Return the row of each id, given as a key: int64 [n], -1 for an id that is not stored.

    Raises CorruptError if an id refers to a row that does not exist.
    """
    state: State = reading.state
    rows = reading.rows_of(keys, deadline)
    if len(rows) and int(rows.max()) >= state.n:
        raise CorruptError(f"an id leads to row {rows.max()} of {state.n}")
    return rows


def row_of_id(reading: Snapshot, id: int | str, kind: IdKind) -> int:
    """Return the row of one id. Raises MissingIdError, or CorruptError if the id map refers to a row of another id."""
    is_plain = type(id) is int and kind == "int64" and 0 <= id < 1 << 63
    row = reading.row_of(id.to_bytes(8, "big") if is_plain else id_keys(as_ids([id], kind))[0])  # type: ignore[union-attr]
    if row is None:
        raise MissingIdError(f"no vector has the id {id!r}")
    if kind == "int64":
        if row >= reading.state.n:
            raise CorruptError(f"an id leads to row {row} of {reading.state.n}")
        stored: Any = column_ids(reading.columns[IDS], np.array([row])).item()
    else:
        stored = getattr(read_records(reading, [row], complete=True)[0], "id", None)
    if stored != id:
        raise CorruptError(f"the id {id!r} leads to the row of {stored!r}")
    return row


def read_record(reading: Snapshot, row: int) -> RowRecord | None:
    """Return a row's record, or None. Raises CorruptError if the record is not valid."""
    return read_records(reading, (row,))[0]


def read_records(
    reading: Snapshot, rows: Sequence[int], *, complete: bool = False, deadline: Deadline | None = None
) -> list[RowRecord | None]:
    """Return the record of each row; None if there is none, and for row -1. CorruptError names the first damaged one.

    ``complete``: the rows are live. If every live row must have a record, CorruptError names a row without one.
    """
    state: State = reading.state
    string_ids = IDS not in reading.columns
    records: list[RowRecord | None] = []
    for row, plain in zip(rows, read_all(reading, ROW, rows, deadline), strict=True):
        if plain is None:
            if complete and row >= 0 and state.records == state.live:
                raise CorruptError(f"the record of row {row} is lost")
            records.append(None)
            continue
        payload, id = (plain.get("payload", _MISSING), plain.get("id")) if type(plain) is dict else (_MISSING, None)
        if not (payload is None or type(payload) is dict):
            raise CorruptError(f"the record of row {row} has no payload")
        if not (type(id) is str or (id is None and not string_ids)):
            raise CorruptError(f"the record of row {row} has no id, or an id that is not a string")
        records.append(_new_record(RowRecord, (payload, id)))
    return records


def payloads_of(records: Sequence[RowRecord | None]) -> list[Payload | None]:
    """Return the payload of each record, None for a row without a record."""
    return [None if record is None else record.payload for record in records]


def ids_of_rows(
    reading: Snapshot, rows: NDArray[np.int64], records: Sequence[RowRecord | None] | None = None
) -> NDArray[Any]:
    """Return the ids of live rows: int64 [n] from their column, or strings from ``records``, which are read if None."""
    if IDS not in reading.columns:
        records = read_records(reading, rows.tolist(), complete=True) if records is None else records
        return np.array([None if record is None else record.id for record in records], object)
    return reading.columns[IDS].read(rows).view("<i8").reshape(-1).astype(np.int64)


def check_same(wanted: NDArray[Any], stored: NDArray[Any]) -> None:
    """Raise CorruptError if the id map referred to a row of another id."""
    wrong = np.flatnonzero(wanted != stored)
    if len(wrong):
        raise CorruptError(f"the id {wanted[wrong[0]]!r} leads to the row of {stored[wrong[0]]!r}")


def id_array(ids: NDArray[Any] | list[str]) -> NDArray[Any]:
    """Convert checked ids to an array, of dtype object for strings."""
    return ids if isinstance(ids, np.ndarray) else np.array(ids, object)


def live_rows(reading: Snapshot) -> NDArray[np.int64]:
    """Return the rows that are not deleted, ascending."""
    n = reading.state.n
    return rows_in(complement(n, read_bitmap(reading.columns[DELETED], n))) if n else np.zeros(0, np.int64)
