"""Changes to a collection inside one write transaction: rows appended, replaced and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec._kernels import Column
from qvec.calibrations import Trained, register
from qvec.config import AUTO_INDEX_ROWS, Config
from qvec.configs import HNSW, Flat
from qvec.engine import live_rows
from qvec.errors import DuplicateIdError, InputError
from qvec.index import Coded, Index, Progress, make_index
from qvec.inputs import MAX_ID, MAX_ROWS, as_payloads, id_keys
from qvec.integers import to_floats
from qvec.layout import CODES, DELETED, IDS, ROW, VECTORS, in_force, row_columns
from qvec.quantizers import Quantizer, train
from qvec.rows import ids_of_rows, payloads_of
from qvec.storage.store import Transaction
from qvec.types import FieldType, NDArray, OnConflict, Payload

if TYPE_CHECKING:
    from qvec.filters.maintain import FieldWriter, RowKeys

INDEXED_ROWS = 65_536  # rows of a new field that are indexed at a time: one chunk of a bitmap
ENCODE_ROWS = 8192  # rows encoded at a time: the codes of one step stay in cache
Ids = NDArray[Any] | list[str]
Vectors = NDArray[Any]  # float32 [n, dim], or integers as Config.form says


def initial_state(fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The state of an empty collection with some declared fields."""
    return {
        "n": 0,  # rows ever written, deleted ones included
        "live": 0,
        "next_id": 0,
        "records": 0,  # live rows with a row record (payload or string id)
        "quantizer": None,  # number of the calibration record in force: the generation of the codes
        "names": {},  # columns in force that are stored under another name than their own
        "generations": [],  # what is known of each calibration record (qvec/calibrations.py)
        "next_generation": 0,
        "tuned": None,  # {"generation", "index", "n"}: what recall curves were measured on (qvec/curves.py)
        "oversample": None,  # {"generation", "factor"}: what searches of that generation re-rank per hit
        "pending": None,  # a generation that is being built (qvec/generations.py)
        "index": {"kind": "flat", "n": 0},
        "fields": {name: [number, kind] for number, (name, kind) in enumerate(fields.items())},  # qvec/filters
        "next_field": len(fields),  # the first number that no field ever had
        "lift2": 0.0,  # largest |x|^2 seen, for graphs under inner product
    }


class Writer:
    """One write transaction of a collection. Every argument has been checked; nothing is visible before commit."""

    def __init__(self, txn: Transaction, config: Config, quantizer: Quantizer | None, keep: Quantizer | None) -> None:
        self.txn, self.config, self.quantizer, self.keep = txn, config, quantizer, keep
        self.state = txn.state
        from qvec.filters.maintain import FieldWriter  # late: readers have no use for it

        self.fields = FieldWriter(txn)

    @property
    def columns(self) -> dict[str, Column]:
        """Columns in force by their own names."""
        return in_force(self.txn.columns, self.state["names"])

    # --- adding ---

    def use(self, quantizer: Quantizer, samples: int) -> None:
        """Store what the code was trained to and lay out the columns; once in a collection's life."""
        self.quantizer, config = quantizer, self.config
        self.state["quantizer"] = register(self.txn, Trained(quantizer, config.code, samples, config.model))
        for name, spec in row_columns(quantizer, self.keep, self.config.ids == "int64").items():
            self.txn.add_column(name, spec)

    def add(
        self,
        x: Vectors,
        ids: Ids | None,
        payloads: Sequence[Payload | None],
        on_conflict: OnConflict,
        threads: int,
        progress: Progress | None,
    ) -> tuple[Ids, int, int, int]:
        """Store a batch; ids of its rows, and how many were added, replaced, skipped."""
        held = self.fields.read(payloads)
        if self.quantizer is None and len(x):
            config = self.config
            self.use(train(x, config.metric, config.code, config.seed, config.model), len(x))
        replaced = skipped = 0
        if ids is None:
            ids = self._new_ids(len(x))
        else:
            kept, replaced = self._resolve_conflicts(ids, on_conflict)
            if len(kept) < len(x):
                skipped = len(x) - len(kept)
                all_ids, ids = ids, ids[kept] if isinstance(ids, np.ndarray) else [ids[i] for i in kept]
                held = [held[i] for i in kept] if held else held
                self._append(x[kept], ids, [payloads[i] for i in kept], held, threads, progress)
                return all_ids, len(kept) - replaced, replaced, skipped
        self._append(x, ids, payloads, held, threads, progress)
        return ids, len(x) - replaced, replaced, skipped

    def _new_ids(self, n: int) -> NDArray[np.int64]:
        if self.config.ids == "str":
            raise InputError("ids are required: this collection's ids are strings")
        first = self.state["next_id"]
        if first + n - 1 > MAX_ID:
            raise InputError(f"no automatic ids are left above {first - 1}; give ids")
        return np.arange(first, first + n, dtype=np.int64)

    def _resolve_conflicts(self, ids: Ids, on_conflict: OnConflict) -> tuple[NDArray[np.int64], int]:
        """Positions to store, and how many stored vectors they replace (now deleted)."""
        keys = id_keys(ids)
        rows = self.txn.rows_of(keys)
        taken = rows >= 0
        if not taken.any():
            return np.arange(len(keys)), 0
        if on_conflict == "error":
            i = int(np.flatnonzero(taken)[0])
            name = ids[i : i + 1].tolist()[0] if isinstance(ids, np.ndarray) else ids[i]
            raise DuplicateIdError(
                f"ids[{i}] = {name!r} is stored already; use upsert or on_conflict to replace or skip"
            )
        if on_conflict == "skip":
            return np.flatnonzero(~taken), 0
        self.delete([keys[i] for i in np.flatnonzero(taken)], rows[taken])
        return np.arange(len(keys)), int(taken.sum())

    def _append(
        self,
        x: Vectors,
        ids: Ids,
        payloads: Sequence[Payload | None],
        held: list[RowKeys],
        threads: int,
        progress: Progress | None,
    ) -> None:
        start, stop = self.state["n"], self.state["n"] + len(x)
        if stop > MAX_ROWS:
            raise InputError(f"the collection would hold {stop} rows; the limit is {MAX_ROWS}")
        if not len(x):
            return
        self._put_ids(ids, start)
        self._put_records(ids, payloads, range(start, stop))
        self.fields.resize(stop)
        self.fields.change(range(start, stop), [], held)
        self._put_vectors(x, ids, start, stop)
        self.state["n"] = stop
        self.state["live"] += len(x)
        self._extend_index(stop, threads, progress)

    def _put_ids(self, ids: Ids, start: int) -> None:
        state, append = self.state, False
        if isinstance(ids, np.ndarray):
            append = bool(ids[0] >= state["next_id"]) and bool((np.diff(ids) > 0).all())
            state["next_id"] = max(state["next_id"], int(ids.max()) + 1)
        self.txn.put_ids(id_keys(ids), range(start, start + len(ids)), append=append)

    def _put_records(self, ids: Ids, payloads: Sequence[Payload | None], rows: Sequence[int]) -> None:
        strings = self.config.ids == "str"
        for i, (row, payload) in enumerate(zip(rows, payloads, strict=True)):
            if payload is None and not strings:
                continue
            record = {"id": ids[i], "payload": payload} if strings else {"payload": payload}
            self.txn.put_record(ROW, row, record, name=f"payload[{i}]")
            self.state["records"] += 1

    def _put_vectors(self, x: Vectors, ids: Ids, start: int, stop: int) -> None:
        assert self.quantizer is not None
        columns = self.columns
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                columns[name].resize(stop)
        columns[DELETED].resize((stop + 63) // 64)
        for i in range(0, len(x), ENCODE_ROWS):
            part = x[i : i + ENCODE_ROWS]
            columns[CODES].write(start + i, self.quantizer.encode(part))
            if self.keep is not None:
                columns[VECTORS].write(start + i, self.keep.encode(part))
            if self.config.metric == "ip":
                self.state["lift2"] = max(self.state["lift2"], self._largest_norm2(part))
        if isinstance(ids, np.ndarray):
            columns[IDS].write(start, ids.astype("<i8").view(np.uint8).reshape(-1, 8))

    def _largest_norm2(self, x: Vectors) -> float:
        floats = x if self.config.form is None else to_floats(x, self.config.form)
        return float(np.einsum("ij,ij->i", floats, floats).max())

    def _extend_index(self, stop: int, threads: int, progress: Progress | None) -> None:
        state = self.state["index"]
        index = index_for(self.config, state["kind"], stop)
        if index.kind != state["kind"]:  # auto has outgrown the scan: every row is linked now
            state = {"kind": index.kind}
        assert self.quantizer is not None
        coded = linkable(self.quantizer, self.keep, self.columns, self.state["lift2"])
        for name, spec in index.columns(self.quantizer.codec).items():
            if name not in self.columns:
                self.txn.add_column(name, spec)
            self.columns[name].resize(stop)
        fresh = index.extend(self.columns, coded, state, stop, threads, progress)
        self.state["index"] = {"kind": index.kind, **fresh}

    # --- deleting ---

    def delete(self, keys: Sequence[bytes], rows: NDArray[np.int64]) -> None:
        """Delete live rows, given with the keys of their ids."""
        column = self.txn.columns[DELETED]
        for word in np.unique(rows // 64):
            bits = column.read_range(int(word), int(word) + 1).view("<u8")
            bits |= np.bitwise_or.reduce(np.uint64(1) << (rows[rows // 64 == word] % 64).astype(np.uint64))
            column.write(int(word), bits.view(np.uint8))
        self.txn.delete_ids(keys)
        self._delete_records(rows)
        self.state["live"] -= len(rows)

    def _delete_records(self, rows: NDArray[np.int64]) -> None:
        gone, payloads = [], []
        for row in rows.tolist() if self.state["records"] else ():
            record = self.txn.record(ROW, row)
            if record is not None:
                gone.append(row)
                payloads.append(record["payload"])
                self.txn.delete_record(ROW, row)
        self.state["records"] -= len(gone)
        self.fields.change(gone, self.fields.read_stored(payloads), [])

    # --- payloads ---

    def add_fields(self, fields: Mapping[str, FieldType], progress: Progress | None = None) -> None:
        """Declare fields, and index what live rows hold under their names."""
        self.fields.declare(fields)
        fresh = type(self.fields)(self.txn, fields)
        rows = live_rows(self.txn)
        for start in range(0, len(rows) if self.state["records"] else 0, INDEXED_ROWS):
            part = rows[start : start + INDEXED_ROWS].tolist()
            payloads = payloads_of([self.txn.record(ROW, row) for row in part])
            fresh.change(part, [], self._read_named(fresh, part, payloads))
            if progress is not None:
                progress(start + len(part), len(rows))

    def _read_named(self, fields: FieldWriter, rows: list[int], payloads: Sequence[Payload | None]) -> list[RowKeys]:
        """What stored payloads hold; InputError names the id of one that holds a value of another type."""
        try:
            return fields.read(payloads)
        except InputError:
            for name, payload in zip(ids_of_rows(self.txn, np.array(rows)).tolist(), payloads, strict=True):
                fields.read([payload], [f"the payload of id {name!r}"])
            raise

    def update_payload(self, rows: NDArray[np.int64], payloads: Sequence[Payload | None], merge: bool) -> None:
        """Give live rows, each once, other payloads; ``merge``: change the keys named, drop those named None."""
        records = [self.txn.record(ROW, row) for row in rows.tolist()]
        old = payloads_of(records)
        new = payloads
        if merge:  # two payloads may be small enough, and not together
            new = as_payloads([_merged(was, change) for was, change in zip(old, payloads, strict=True)], len(old))
        held = self.fields.read(new)
        self.fields.change(rows.tolist(), self.fields.read_stored(old), held)
        for i, (row, record, payload) in enumerate(zip(rows.tolist(), records, new, strict=True)):
            if record is not None and "id" not in record and payload is None:
                self.txn.delete_record(ROW, row)
            elif record is not None or payload is not None:
                self.txn.put_record(ROW, row, {**(record or {}), "payload": payload}, name=f"payload[{i}]")
            self.state["records"] += ("id" in (record or {}) or payload is not None) - (record is not None)


def _merged(old: Payload | None, change: Payload | None) -> Payload | None:
    """A payload with some keys changed, and those that are changed to None left out."""
    if change is None:
        return old
    changed = {**(old or {}), **change}
    return {name: value for name, value in changed.items() if value is not None or name not in change}


def index_for(config: Config, kind: str, rows: int) -> Index:
    """The index that ``rows`` rows ask for, where one of ``kind`` is there already."""
    if config.index is not None:
        return make_index(config.index)
    return make_index(HNSW() if rows > AUTO_INDEX_ROWS or kind != "flat" else Flat())


def linkable(quantizer: Quantizer, keep: Quantizer | None, columns: Mapping[str, Column], lift2: float) -> Coded:
    """What a graph is built on: the codes, or the originals where a code is too coarse to prune by."""
    if quantizer.coarse and keep is not None:
        return Coded(keep.make_codec(lift2), columns[VECTORS])
    return Coded(quantizer.make_codec(lift2), columns[CODES])
