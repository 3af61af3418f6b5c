"""Write the payloads of stored rows, and index their values in new fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import NDArray, Payload
from qvec.filters.maintain import FieldWriter, RowKeys
from qvec.index import Progress
from qvec.rows.change_log import log_changes
from qvec.rows.lookup import ids_of_rows, live_rows, payloads_of, read_records
from qvec.schema.layout import ROW
from qvec.schema.state import FieldDeclaration, State
from qvec.schema.validation import as_payloads, id_keys
from qvec.storage.store import Transaction

INDEXED_ROWS = 65_536  # a new field is indexed for this many rows at a time: one chunk of a bitmap


class PayloadWriter:
    """The payloads and fields of one write transaction. Every argument has been checked."""

    def __init__(self, txn: Transaction) -> None:
        self.txn, self.fields = txn, FieldWriter(txn)

    def add_fields(self, fields: Mapping[str, FieldDeclaration], progress: Progress | None = None) -> None:
        """Declare fields, and index the values that live rows have for them."""
        self.fields.declare(fields)
        fresh = type(self.fields)(self.txn, fields)
        rows = live_rows(self.txn)
        for start in range(0, len(rows) if self.txn.state.records else 0, INDEXED_ROWS):
            part = rows[start : start + INDEXED_ROWS].tolist()
            payloads = payloads_of(read_records(self.txn, part))
            fresh.change(part, [], self._read_named(fresh, part, payloads))
            if progress is not None:
                progress(start + len(part), len(rows))

    def index_next_rows(self, name: str, limit: int) -> int:
        """Index the next ``limit`` rows in a field that is being added. Returns the number of indexed rows."""
        state: State = self.txn.state
        start = state.partial_fields[name]
        stop = min(start + limit, state.n)
        live = live_rows(self.txn)
        part = live[np.searchsorted(live, start) : np.searchsorted(live, stop)].tolist() if state.records else []
        fresh = type(self.fields)(self.txn, {name})
        payloads = payloads_of(read_records(self.txn, part))
        fresh.change(part, [], self._read_named(fresh, part, payloads))
        partial = {other: rows for other, rows in state.partial_fields.items() if other != name}
        left = partial if stop == state.n else {**partial, name: stop}
        self.txn.state = replace(self.txn.state, partial_fields=left)
        return stop

    def _read_named(self, fields: FieldWriter, rows: list[int], payloads: Sequence[Payload | None]) -> list[RowKeys]:
        """Return the keys of fields in stored payloads. InputError names the id of a payload with a wrong value."""
        try:
            return fields.read(payloads)
        except InputError:
            for name, payload in zip(ids_of_rows(self.txn, np.array(rows)).tolist(), payloads, strict=True):
                fields.read([payload], [f"the payload of id {name!r}"])
            raise

    def write_payloads(self, rows: NDArray[np.int64], payloads: Sequence[Payload | None], merge: bool) -> None:
        """Change the payloads of different live rows. ``merge``: change the given keys, and remove keys with None."""
        payloads = self.fields.stored_form(payloads)
        records = read_records(self.txn, rows.tolist())
        old, new, fields = payloads_of(records), payloads, self.fields
        if merge:  # both payloads can be within the limit while the merged one is not
            new = as_payloads([_merged(was, change) for was, change in zip(old, payloads, strict=True)], len(old))
            fields = type(fields)(self.txn, {name for change in payloads for name in change or ()})
        fields.change(rows.tolist(), fields.read_stored(old), fields.read(new))
        count: int = self.txn.state.records
        for i, (row, record, payload) in enumerate(zip(rows.tolist(), records, new, strict=True)):
            name = {} if record is None or record.id is None else {"id": record.id}
            if name or payload is not None:
                self.txn.put_record(ROW, row, name | {"payload": payload}, name=f"payload[{i}]")
            elif record is not None:
                self.txn.delete_record(ROW, row)
            count += bool(name or payload is not None) - (record is not None)
        self.txn.state = replace(self.txn.state, records=count)
        if self.txn.state.reembedding is not None:
            ids = ids_of_rows(self.txn, rows, records)
            log_changes(self.txn, id_keys(ids if ids.dtype != object else ids.tolist()))


def _merged(old: Payload | None, change: Payload | None) -> Payload | None:
    """Return a payload with changed keys, without the keys that are changed to None."""
    if change is None:
        return old
    changed = {**(old or {}), **change}
    return {name: value for name, value in changed.items() if value is not None or name not in change}
