"""Changes to a collection inside one write transaction: rows appended, replaced and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec._kernels import Column
from qvec.codes.configs import HNSW, Flat
from qvec.codes.registry import Quantizer, train
from qvec.common.errors import DuplicateIdError, InputError
from qvec.common.parallel import map_parts
from qvec.common.types import Codes, FieldType, NDArray, OnConflict, Payload
from qvec.index import Index, IndexInput, Progress, Rows, linking_codes, load_index, make_index, vector_reader
from qvec.rows.lookup import find_rows, ids_of_rows, live_rows, payloads_of, stored_record
from qvec.schema.bitmaps import mark, rows_in, words_for
from qvec.schema.calibrations import Trained, register
from qvec.schema.config import AUTO_INDEX_ROWS, Config
from qvec.schema.generations import forget_codes, may_reuse
from qvec.schema.layout import CODES, DELETED, IDS, ROW, VECTORS, in_force, row_columns
from qvec.schema.validation import MAX_ID, MAX_ROWS, as_payloads, id_keys
from qvec.storage.store import Transaction

if TYPE_CHECKING:
    from qvec.filters.maintain import FieldWriter, RowKeys

INDEXED_ROWS = 65_536  # rows of a new field that are indexed at a time: one chunk of a bitmap
ENCODE_ROWS = 1024  # rows encoded at a time by one thread: in cache, and little that its allocator keeps
PUT_ROWS = 64  # rows written between two looks at how much is held: each may lie in a block of its own
Ids = NDArray[Any] | list[str]
Vectors = NDArray[Any]  # float32 [n, dim], or integers as Config.form says


Conflicts = tuple[slice | NDArray[np.int64], list[bytes], NDArray[np.int64]]
_NOTHING_STORED: Conflicts = slice(None), [], np.zeros(0, np.int64)


def initial_state(fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The state of an empty collection with some declared fields."""
    return {
        "n": 0,  # rows that there are, in use or not
        "live": 0,
        "next_id": 0,
        "records": 0,  # live rows with a row record (payload or string id)
        "quantizer": None,  # number of the calibration record in force: the generation of the codes
        "names": {},  # columns in force that are stored under another name than their own
        "generations": [],  # what is known of each calibration record (qvec/schema/calibrations.py)
        "next_generation": 0,
        "tuned": None,  # {"generation", "index", "n"}: what recall curves were measured on (qvec/search/curves.py)
        "oversample": None,  # {"generation", "factor"}: what searches of that generation re-rank per hit
        "watched": 0,  # changes with each batch that is too small to look at alone (qvec/drift)
        "pending": None,  # a generation that is being built (qvec/maintenance/requantize.py)
        "index": {"kind": "flat"},
        "fields": {name: [number, kind] for number, (name, kind) in enumerate(fields.items())},  # qvec/filters
        "next_field": len(fields),  # the first number that no field ever had
        "erasing": False,  # what was deleted is still to be overwritten (Collection.erase)
    }


@dataclass(frozen=True)
class Batch:
    """Vectors to store, with an id and a payload each; ``held``: what payloads hold of the fields, [] without any."""

    x: Vectors
    ids: Ids
    payloads: Sequence[Payload | None]
    held: list[RowKeys]

    def part(self, kept: slice | NDArray[np.int64]) -> Batch:
        """Those at the given positions; the batch itself for all."""
        if isinstance(kept, slice):
            return self
        ids = self.ids[kept] if isinstance(self.ids, np.ndarray) else [self.ids[i] for i in kept]
        held = [self.held[i] for i in kept] if self.held else self.held
        return Batch(self.x[kept], ids, [self.payloads[i] for i in kept], held)


class Writer:
    """One write transaction of a collection. Every argument has been checked; nothing is visible before commit.

    Codes and originals go first, to rows that nobody looks at, with checkpoints: a batch of any size takes little
    memory and leaves few free pages. What makes them visible follows, at once.
    """

    def __init__(
        self, txn: Transaction, config: Config, quantizer: Quantizer | None, original_quantizer: Quantizer | None
    ) -> None:
        self.txn, self.config, self.quantizer, self.original_quantizer = txn, config, quantizer, original_quantizer
        self.state = txn.state
        from qvec.filters.maintain import FieldWriter  # late: readers have no use for it

        self.fields = FieldWriter(txn)

    @property
    def columns(self) -> dict[str, Column]:
        """Columns in force by their own names."""
        return in_force(self.txn.columns, self.state["names"])

    @property
    def is_mending_due(self) -> bool:
        """Whether the index waits for deleted rows to be taken out of it."""
        return self.index().repair_due(self.state["index"])

    # --- adding ---

    def use(self, quantizer: Quantizer, samples: int) -> None:
        """Store what the code was trained to and lay out the columns; once in a collection's life."""
        self._lay_out(quantizer)
        trained = Trained(quantizer, self.config.code, samples, self.config.model)
        self.state["quantizer"] = register(self.txn, trained)

    def _lay_out(self, quantizer: Quantizer) -> None:
        """Make the columns of rows. There may be some already, of a batch that failed: nothing in them is in use."""
        self.quantizer = quantizer
        for name, spec in row_columns(quantizer, self.original_quantizer, self.config.ids == "int64").items():
            if name in self.txn.columns:
                self.txn.drop_column(name)
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
        if ids is None:
            ids = self._new_ids(len(x))
            kept, old_keys, old_rows = _NOTHING_STORED
        else:
            kept, old_keys, old_rows = self._resolve_conflicts(ids, on_conflict)
        stored = Batch(x, ids, payloads, held).part(kept)
        if len(stored.x):
            self._store(stored, old_keys, old_rows, threads, progress)
        return ids, len(stored.x) - len(old_rows), len(old_rows), len(x) - len(stored.x)

    def _new_ids(self, n: int) -> NDArray[np.int64]:
        if self.config.ids == "str":
            raise InputError("ids are required: this collection's ids are strings")
        first = self.state["next_id"]
        if first + n - 1 > MAX_ID:
            raise InputError(f"no automatic ids are left above {first - 1}; give ids")
        return np.arange(first, first + n, dtype=np.int64)

    def _resolve_conflicts(self, ids: Ids, on_conflict: OnConflict) -> Conflicts:
        """Which of the batch to store, and the keys and rows of vectors that this replaces."""
        keys = id_keys(ids)
        rows = find_rows(self.txn, keys)
        taken = np.flatnonzero(rows >= 0)
        if len(taken) and on_conflict == "error":
            i = int(taken[0])
            name = ids[i : i + 1].tolist()[0] if isinstance(ids, np.ndarray) else ids[i]
            raise DuplicateIdError(
                f"ids[{i}] = {name!r} is stored already; use upsert or on_conflict to replace or skip"
            )
        if len(taken) and on_conflict == "skip":
            return np.flatnonzero(rows < 0), [], taken[:0]
        return slice(None), [keys[i] for i in taken], rows[taken]

    def _store(
        self,
        batch: Batch,
        old_keys: list[bytes],
        old_rows: NDArray[np.int64],
        threads: int,
        progress: Progress | None,
    ) -> None:
        config, untrained = self.config, self.quantizer is None
        if self.quantizer is None:
            self._lay_out(train(batch.x, config.metric, config.code, config.seed, config.model))
        rows = self._choose_rows(len(batch.x))
        self._put_vectors(batch, rows, threads)
        # From here on, in one commit
        if untrained:
            assert self.quantizer is not None
            trained = Trained(self.quantizer, config.code, len(batch.x), config.model)
            self.state["quantizer"] = register(self.txn, trained)
        if len(old_rows):
            self.hide(old_keys, old_rows, threads)
        self.show(batch, rows)
        self.extend_index(rows, threads, progress)

    def _choose_rows(self, count: int) -> Rows:
        """Rows to write to, ascending: those that nothing points at any more, then new ones."""
        n = self.state["n"]
        reused = self.free_rows()[:count]
        stop = n + count - len(reused)
        if stop > MAX_ROWS:
            raise InputError(f"the collection would hold {stop} rows; the limit is {MAX_ROWS}")
        return np.concatenate([reused, np.arange(n, stop)]).astype(np.uint32)

    def free_rows(self) -> NDArray[np.int64]:
        """Deleted rows that nothing points at, ascending."""
        state = self.state
        free = state["n"] - state["live"] - state["index"].get("tombstones", 0)
        if free == 0 or not may_reuse(self.txn, free):
            return np.zeros(0, np.int64)
        source = self.source()
        held = self.index().referenced_rows(source, state["index"])
        return rows_in(source.deleted if held is None else source.deleted & ~held)

    def _put_vectors(self, batch: Batch, rows: Rows, threads: int) -> None:
        """Write codes, originals and ids to rows that are not visible."""
        columns = self.columns
        parts = [slice(i, i + ENCODE_ROWS) for i in range(0, len(rows), ENCODE_ROWS)]

        def encode(part: slice) -> tuple[Codes, Codes | None]:
            assert self.quantizer is not None
            x, by = batch.x[part], self.original_quantizer
            return self.quantizer.encode(x), None if by is None else by.encode(x)

        for part, (codes, originals) in zip(parts, map_parts(encode, parts, threads), strict=True):
            self._put(columns[CODES], rows[part], codes)
            if originals is not None:
                self._put(columns[VECTORS], rows[part], originals)
        if isinstance(batch.ids, np.ndarray):
            self._put(columns[IDS], rows, batch.ids.astype("<i8").view(np.uint8).reshape(-1, 8))

    def _put(self, column: Column, rows: Rows, values: NDArray[np.uint8]) -> None:
        """Write rows, ascending; a column grows as they come, for all its blocks are written with the next commit."""
        column.resize(max(self.state["n"], int(rows[-1]) + 1))
        for i in range(0, len(rows), PUT_ROWS):
            column.put(rows[i : i + PUT_ROWS], values[i : i + PUT_ROWS])
            self.txn.checkpoint_if_large()

    def show(self, batch: Batch, rows: Rows) -> None:
        """Make the rows of a batch visible, to all but the index."""
        state = self.state
        if rows[0] < state["n"]:
            forget_codes(self.txn, int(rows[0]))
        state["n"] = max(state["n"], int(rows[-1]) + 1)
        state["live"] += len(rows)
        deleted = self.columns[DELETED]
        deleted.resize(words_for(state["n"]))
        mark(deleted, rows, False)
        self._put_ids(batch.ids, rows)
        self._put_records(batch, rows)
        self.fields.resize(state["n"])
        self.fields.change(rows.tolist(), [], batch.held)

    def _put_ids(self, ids: Ids, rows: Rows) -> None:
        state, append = self.state, False
        if isinstance(ids, np.ndarray):
            append = bool(ids[0] >= state["next_id"]) and bool((np.diff(ids) > 0).all())
            state["next_id"] = max(state["next_id"], int(ids.max()) + 1)
        self.txn.put_ids(id_keys(ids), rows.tolist(), append=append)

    def _put_records(self, batch: Batch, rows: Rows) -> None:
        strings = self.config.ids == "str"
        for i, payload in enumerate(batch.payloads):
            if payload is None and not strings:
                continue
            record = {"id": batch.ids[i], "payload": payload} if strings else {"payload": payload}
            self.txn.put_record(ROW, int(rows[i]), record, name=f"payload[{i}]")
            self.state["records"] += 1

    # --- the index ---

    def index(self) -> Index:
        """The index in force."""
        return load_index(self.config.index, self.state["index"])

    def source(self) -> IndexInput:
        """What the index is over, as of now."""
        assert self.quantizer is not None
        columns = self.columns
        coded = linking_codes(self.quantizer, self.original_quantizer, columns)
        vectors = vector_reader(self.quantizer, self.original_quantizer, columns)
        return IndexInput(columns, coded, self.state["n"], vectors)

    def extend_index(self, rows: Rows, threads: int, progress: Progress | None) -> None:
        """Take stored rows, ascending, into the index."""
        state = self.state["index"]
        index = index_for(self.config, state["kind"], self.state["live"])
        assert self.quantizer is not None
        for name, spec in index.columns(self.quantizer).items():
            if name not in self.columns:
                self.txn.add_column(name, spec)
        source = self.source()
        if index.kind != state["kind"]:  # auto has outgrown the scan: every row is linked now
            state, rows = {"kind": index.kind}, source.live.astype(np.uint32)
        self.state["index"] = index.extend(source, state, rows, threads, progress)

    # --- deleting ---

    def delete(self, keys: Sequence[bytes], rows: NDArray[np.int64], threads: int) -> None:
        """Delete live rows, given with the keys of their ids."""
        self.hide(keys, rows, threads)
        if self.state["live"] == 0 and may_reuse(self.txn, self.state["n"]):
            self._start_over()

    def hide(self, keys: Sequence[bytes], rows: NDArray[np.int64], threads: int) -> None:
        """Make live rows, given with the keys of their ids, invisible, to the index too."""
        mark(self.columns[DELETED], rows, True)
        self.txn.delete_ids(keys)
        self._delete_records(rows)
        self.state["live"] -= len(rows)
        gone = np.sort(rows).astype(np.uint32)
        self.state["index"] = self.index().drop(self.source(), self.state["index"], gone, threads)

    def _delete_records(self, rows: NDArray[np.int64]) -> None:
        gone, payloads = [], []
        for row in rows.tolist() if self.state["records"] else ():
            record = stored_record(self.txn, row)
            if record is not None:
                gone.append(row)
                payloads.append(record["payload"])
                self.txn.delete_record(ROW, row)
        self.state["records"] -= len(gone)
        self.fields.change(gone, self.fields.read_stored(payloads), [])

    def mend(self, limit: int, threads: int) -> None:
        """Take deleted rows out of the index by going through ``limit`` of its rows."""
        self.state["index"] = self.index().repair(self.source(), self.state["index"], limit, threads)

    def _start_over(self) -> None:
        """Nothing is stored any more: give up every row."""
        index = self.index()
        assert self.quantizer is not None
        forget_codes(self.txn, 0)
        for name in (CODES, VECTORS, IDS, DELETED, *index.columns(self.quantizer)):
            if name in self.columns:
                self.columns[name].resize(0)
        self.fields.resize(0)
        self.state["n"], self.state["index"] = 0, {"kind": index.kind}

    # --- payloads ---

    def add_fields(self, fields: Mapping[str, FieldType], progress: Progress | None = None) -> None:
        """Declare fields, and index what live rows hold under their names."""
        self.fields.declare(fields)
        fresh = type(self.fields)(self.txn, fields)
        rows = live_rows(self.txn)
        for start in range(0, len(rows) if self.state["records"] else 0, INDEXED_ROWS):
            part = rows[start : start + INDEXED_ROWS].tolist()
            payloads = payloads_of([stored_record(self.txn, row) for row in part])
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
        records = [stored_record(self.txn, row) for row in rows.tolist()]
        old, new, fields = payloads_of(records), payloads, self.fields
        if merge:  # two payloads may be small enough, and not together
            new = as_payloads([_merged(was, change) for was, change in zip(old, payloads, strict=True)], len(old))
            fields = type(fields)(self.txn, {name for change in payloads for name in change or ()})
        held = fields.read(new)
        fields.change(rows.tolist(), fields.read_stored(old), held)
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
