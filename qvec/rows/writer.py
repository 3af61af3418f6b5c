"""Add, replace and delete rows of a collection inside one write transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec._kernels import Column
from qvec.codes.configs import HNSW, Flat
from qvec.codes.registry import Quantizer
from qvec.common.errors import DuplicateIdError, InputError
from qvec.common.parallel import map_parts
from qvec.common.types import Codes, NDArray, OnConflict, Payload
from qvec.index import Index, IndexInput, Progress, linking_codes, load_index, make_index
from qvec.rows.change_log import log_changes
from qvec.rows.lookup import find_rows, id_array, read_record
from qvec.rows.results import AddResult
from qvec.rows.visibility import expired_among
from qvec.schema.bitmaps import mark, rows_in, words_for
from qvec.schema.config import AUTO_INDEX_ROWS, Config
from qvec.schema.fresh import FreshRows
from qvec.schema.generations import discard_codes_from, may_reuse_rows, register
from qvec.schema.layout import CODES, DELETED, IDS, ROW, VECTORS, active_columns, row_columns
from qvec.schema.quantizers import QuantizerLoader, Quantizers, Trained, train_code
from qvec.schema.state import GraphState, ListsState, Rows, State
from qvec.schema.validation import MAX_ID, MAX_ROWS, as_float32, id_keys
from qvec.storage.records import pack_each
from qvec.storage.store import Transaction

if TYPE_CHECKING:
    from qvec.filters.maintain import RowKeys

ENCODE_ROWS = 1024  # one thread encodes this many rows at a time, which fit into the cache
MIN_DEFERRED_ROWS = 1024  # of fewer rows in one call, each is linked at once
MAX_UNINDEXED_SHARE = 1 / 64  # of the rows of a graph: more are added to it, fewer may wait for others
PUT_ROWS = 64  # rows written between two checks of the used memory: each row may be in a different block
ADDED_BYTES = 8 << 20  # of new blocks between two checkpoints: they replace few others, so the file does not grow
Ids = NDArray[Any] | list[str]
Vectors = NDArray[Any]  # real numbers [n, dim] (parts are converted to float32), or integers as Config.form says


@dataclass(frozen=True)
class Batch:
    """Vectors to store. ``originals``: their exact form, None if it is x. ``keys``: keys of the ids. ``field_keys``:
    keys of the fields in each payload, [] without fields."""

    x: Vectors
    originals: Vectors | None
    ids: Ids
    keys: list[bytes]
    payloads: Sequence[Payload | None]
    field_keys: list[RowKeys]

    def part(self, positions: NDArray[np.int64]) -> Batch:
        """Return the rows at some positions."""
        ids = self.ids[positions] if isinstance(self.ids, np.ndarray) else [self.ids[i] for i in positions]
        keys, payloads = [self.keys[i] for i in positions], [self.payloads[i] for i in positions]
        field_keys = [self.field_keys[i] for i in positions if self.field_keys]
        originals = None if self.originals is None else self.originals[positions]
        return Batch(self.x[positions], originals, ids, keys, payloads, field_keys)


class Writer:
    """The rows of one write transaction. Every argument has been checked.

    The codes and originals of a batch are written first, to rows that the state does not count. Checkpoints (commits of
    such rows, which no reader sees) keep the used memory small for a batch of any size, and the file from growing. The
    last commit changes the state, so that all rows of the batch become visible together.
    """

    def __init__(self, txn: Transaction, loader: QuantizerLoader) -> None:
        self.txn, self.loader, self.config = txn, loader, loader.config
        self._quantizers = loader.active(txn)
        self.trained: Trained | None = (
            None  # a code that was trained on the vectors of this call before its transaction
        )
        self.fresh: FreshRows | None = None  # vectors of this call, if lists should not be made from their codes
        from qvec.filters.maintain import FieldWriter  # imported here, because handles that only read do not need it

        self.fields = FieldWriter(txn)

    @property
    def state(self) -> State:
        """The state that the commit will store."""
        state: State = self.txn.state
        return state

    def change_state(self, **values: Any) -> None:
        """Replace values of the state."""
        self.txn.state = replace(self.txn.state, **values)

    @property
    def quantizers(self) -> Quantizers:
        """The quantizers of codes and originals. Call this only after the code was trained (not `is_untrained`)."""
        assert self._quantizers is not None
        return self._quantizers

    @property
    def is_untrained(self) -> bool:
        """Whether no code has been trained, because no vector was ever stored."""
        return self._quantizers is None

    @property
    def columns(self) -> dict[str, Column]:
        """The columns of the active generation by their names without its number: "codes", not "codes.3"."""
        return active_columns(self.txn.columns, self.state.column_names)

    # --- adding ---

    def use(self, trained: Trained) -> int:
        """Make a trained code the first generation, without a batch. Returns the number of the generation."""
        self._create_columns(trained.quantizer)
        return self._activate(trained)

    def _activate(self, trained: Trained) -> int:
        number = register(self.txn, trained)
        self.change_state(active=number)
        return number

    def _create_columns(self, quantizer: Quantizer) -> None:
        """Create the columns of rows. Replace those that a first batch left when it failed after a checkpoint."""
        self._quantizers = quantizers = self.loader.first(quantizer)
        for name, spec in row_columns(quantizer, quantizers.originals, self.config.ids == "int64").items():
            if name in self.txn.columns:
                self.txn.drop_column(name)
            self.txn.add_column(name, spec)

    def add(
        self,
        x: Vectors,
        originals: Vectors | None,
        ids: Ids | None,
        payloads: Sequence[Payload | None],
        on_conflict: OnConflict,
        threads: int,
        progress: Progress | None,
    ) -> AddResult:
        """Store a batch; ``originals``: see :class:`Batch`."""
        payloads = self.fields.stored_form(payloads)
        field_keys = self.fields.read(payloads)
        given = self._new_ids(len(x)) if ids is None else ids
        batch = Batch(x, originals, given, id_keys(given), payloads, field_keys)
        replaced, rows, n_expired = np.zeros(0, np.int64), np.zeros(0, np.int64), 0
        if ids is not None:
            found = find_rows(self.txn, batch.keys)
            expired = expired_among(self.txn, found)
            stored = np.flatnonzero((found >= 0) & ~expired)
            if len(stored) and on_conflict == "error":
                name = id_array(ids)[stored[:1]].tolist()[0]
                raise DuplicateIdError(
                    f"ids[{stored[0]}] = {name!r} is stored already; use upsert or on_conflict to replace or skip"
                )
            if len(stored) and on_conflict == "skip":
                kept = np.flatnonzero((found < 0) | expired)
                batch, found, expired, stored = batch.part(kept), found[kept], expired[kept], stored[:0]
            replaced, n_expired = np.flatnonzero(found >= 0), int(expired.sum())
            rows = found[replaced]
        if len(batch.x):
            self._store(batch, [batch.keys[i] for i in replaced], rows, threads, progress)
        n_replaced = len(rows) - n_expired  # who adds an id again whose row has expired does not replace anything
        return AddResult(id_array(given), len(batch.x) - n_replaced, n_replaced, len(x) - len(batch.x))

    def _new_ids(self, n: int) -> NDArray[np.int64]:
        if self.config.ids == "str":
            raise InputError("ids are required: this collection's ids are strings")
        first = self.state.next_id
        if first + n - 1 > MAX_ID:
            raise InputError(f"no automatic ids are left above {first - 1}; give ids")
        return np.arange(first, first + n, dtype=np.int64)

    def _store(
        self,
        batch: Batch,
        old_keys: list[bytes],
        old_rows: NDArray[np.int64],
        threads: int,
        progress: Progress | None,
    ) -> None:
        """Store a batch. ``old_keys``, ``old_rows``: keys and rows of the vectors that it replaces."""
        trained = (self.trained or self._trained(batch.x)) if self.is_untrained else None
        if trained is not None:
            self._create_columns(trained.quantizer)
        new_rows = self._choose_rows(len(batch.x))
        self._put_vectors(batch, new_rows, threads)
        # There is no checkpoint from here on: the following changes are in one commit.
        if trained is not None:
            self._activate(trained)
        if len(old_rows):
            self.hide(old_keys, old_rows, threads)
        self.show(batch, new_rows)
        if self.quantizers.are_coarse:
            self.fresh = FreshRows(batch.x, new_rows, self.columns[CODES].read(new_rows))
        self.extend_index(new_rows, threads, progress)

    def _trained(self, x: Vectors) -> Trained:
        return trained_on(x, self.config)

    def _in_float32(self, x: Vectors) -> Vectors:
        return in_float32(x, self.config)

    def _choose_rows(self, count: int) -> Rows:
        """Return rows to write to, ascending: unused rows first, then new rows."""
        n = self.state.n
        reused = self.free_rows()[:count]
        stop = n + count - len(reused)
        if stop > MAX_ROWS:
            raise InputError(f"the collection would hold {stop} rows; the limit is {MAX_ROWS}")
        return np.concatenate([reused, np.arange(n, stop)]).astype(np.uint32)

    def free_rows(self) -> NDArray[np.int64]:
        """Return the unused rows, ascending: deleted rows to which the index does not refer."""
        state = self.state
        free = state.n - state.live - state.index.tombstones
        if free == 0 or not may_reuse_rows(self.txn, free):
            return np.zeros(0, np.int64)
        data = self.index_input()
        referenced = self.index().referenced_rows(data, state.index)
        return rows_in(data.deleted if referenced is None else data.deleted & ~referenced)

    def _put_vectors(self, batch: Batch, rows: Rows, threads: int) -> None:
        """Write codes, originals and ids to rows that are not visible."""
        columns = self.columns
        parts = [slice(i, i + ENCODE_ROWS) for i in range(0, len(rows), ENCODE_ROWS)]

        def encode(part: slice) -> tuple[Codes, Codes | None]:
            x, by = self._in_float32(batch.x[part]), self.quantizers.originals
            exact = x if batch.originals is None else batch.originals[part]
            return self.quantizers.codes.encode(x), None if by is None else by.encode(exact)

        for part, (codes, originals) in zip(parts, map_parts(encode, parts, threads), strict=True):
            self._put(columns[CODES], rows[part], codes)
            if originals is not None:
                self._put(columns[VECTORS], rows[part], originals)
        if isinstance(batch.ids, np.ndarray):
            self._put(columns[IDS], rows, batch.ids.astype("<i8").view(np.uint8).reshape(-1, 8))

    def _put(self, column: Column, rows: Rows, values: NDArray[np.uint8]) -> None:
        """Write rows, ascending. Extend the column in steps, because the next commit writes all of its blocks."""
        column.resize(max(self.state.n, int(rows[-1]) + 1))
        for i in range(0, len(rows), PUT_ROWS):
            column.put(rows[i : i + PUT_ROWS], values[i : i + PUT_ROWS])
            self.txn.checkpoint_if_large(ADDED_BYTES)

    def show(self, batch: Batch, rows: Rows) -> None:
        """Make the rows of a batch visible, but not yet to the index."""
        if rows[0] < self.state.n:
            discard_codes_from(self.txn, int(rows[0]))
        state = self.state
        n = max(state.n, int(rows[-1]) + 1)
        deleted = self.columns[DELETED]
        deleted.resize(words_for(n))
        mark(deleted, rows, False)
        next_id = self._put_ids(batch, rows)
        records = self._put_records(batch, rows)
        self.change_state(n=n, live=state.live + len(rows), next_id=next_id, records=state.records + records)
        self.fields.resize(n)
        self.fields.change(rows.tolist(), [], batch.field_keys)

    def _put_ids(self, batch: Batch, rows: Rows) -> int:
        """Add the ids to the id map. Returns the next automatic id."""
        ids, next_id, append = batch.ids, self.state.next_id, False
        if isinstance(ids, np.ndarray):
            append = bool(ids[0] >= next_id) and bool((np.diff(ids) > 0).all())
            next_id = max(next_id, int(ids.max()) + 1)
        self.txn.put_ids(batch.keys, rows, append=append)
        log_changes(self.txn, batch.keys)
        return next_id

    def _put_records(self, batch: Batch, rows: Rows) -> int:
        """Store payloads and string ids. Returns the number of records."""
        strings = self.config.ids == "str"
        stored = [i for i, payload in enumerate(batch.payloads) if strings or payload is not None]
        payloads = ({"payload": batch.payloads[i]} for i in stored)
        records = ({"id": batch.ids[i], "payload": batch.payloads[i]} for i in stored) if strings else payloads
        packed = pack_each(records, lambda i: f"payload[{stored[i]}]")
        self.txn.put_records(ROW, rows[stored], list(packed))
        return len(stored)

    # --- the index ---

    def index(self) -> Index:
        """The active index."""
        return load_index(self.config.index, self.state)

    def index_input(self) -> IndexInput:
        """The current input of the index."""
        columns, quantizers = self.columns, self.quantizers
        reader, codes = quantizers.vector_reader(columns, self.fresh), linking_codes(quantizers, columns)
        return IndexInput(columns, codes, self.state.n, reader, workspace=self.loader.workspace)

    def extend_index(self, rows: Rows, threads: int, progress: Progress | None) -> None:
        """Add stored rows, ascending, to the index, or leave them to :class:`qvec.maintenance.growth.Growth`.

        They are left to it if to add them would take long, or if a large graph would be rewritten for few rows.
        Searches score them one by one until then. A transaction that combines calls always adds them.
        """
        index = index_for(self.config, self.state)
        if index.kind != self.state.index.kind:  # the collection is now too large for a scan
            self.change_state(index=index.empty)
        if not self.state.index.contains(self.state.live):
            rows = self.index_input().live.astype(np.uint32)
        if not self.txn.is_combined and self._is_deferred(index, len(rows)):
            if self.state.index.contains(self.state.live):
                index.defer(self.index_input(), self.state.index, rows)
        else:
            self.index_rows(rows, threads, progress)

    def _is_deferred(self, index: Index, n_rows: int) -> bool:
        state = self.state
        limit = index.max_rows(state.index, state.live, self.config.dim)
        if limit is None or n_rows > limit:
            return limit is not None
        is_large = MAX_UNINDEXED_SHARE * state.index.contains(state.live) >= MIN_DEFERRED_ROWS
        return index.built_from_codes and n_rows >= MIN_DEFERRED_ROWS and is_large

    def index_rows(self, rows: Rows, threads: int, progress: Progress | None) -> None:
        """Add stored rows, ascending, to the index."""
        index = self.index()
        for name, spec in index.columns(self.quantizers.codes).items():
            if name not in self.columns:
                self.txn.add_column(name, spec)
        index_state = index.extend(self.index_input(), self.state.index, rows, threads, progress)
        self.change_state(index=index_state)

    @property
    def repair_due(self) -> bool:
        """Whether it is time to remove deleted rows from the index."""
        return self.index().repair_due(self.state.index)

    def repair_index(self, limit: int, threads: int) -> None:
        """Remove deleted rows from the index by visiting ``limit`` of its rows."""
        self.change_state(index=self.index().repair(self.index_input(), self.state.index, limit, threads))

    # --- deleting ---

    def delete(self, keys: Sequence[bytes], rows: NDArray[np.int64], threads: int) -> None:
        """Delete live rows, given with the keys of their ids."""
        self.hide(keys, rows, threads)
        if self.state.live == 0 and may_reuse_rows(self.txn, self.state.n):
            self._release_all_rows()

    def hide(self, keys: Sequence[bytes], rows: NDArray[np.int64], threads: int) -> None:
        """Make live rows, given with the keys of their ids, invisible, also to the index."""
        mark(self.columns[DELETED], rows, True)
        self.txn.delete_ids(keys)
        log_changes(self.txn, keys)
        rows = np.sort(rows)
        records = self._delete_records(rows)
        index = self.index().drop(self.index_input(), self.state.index, rows.astype(np.uint32), threads)
        self.change_state(live=self.state.live - len(rows), records=self.state.records - records, index=index)

    def _delete_records(self, rows: NDArray[np.int64]) -> int:
        """Delete the records of rows, ascending. Returns how many rows had a record."""
        deleted, payloads = [], []
        for row in rows.tolist() if self.state.records else ():
            record = read_record(self.txn, row)
            if record is not None:
                deleted.append(row)
                payloads.append(record.payload)
                self.txn.delete_record(ROW, row)
        self.fields.change(deleted, self.fields.read_stored(payloads), [])
        return len(deleted)

    def _release_all_rows(self) -> None:
        """Shorten all columns to zero rows once every row is deleted."""
        index = self.index()
        discard_codes_from(self.txn, 0)
        for name in (CODES, VECTORS, IDS, DELETED, *index.columns(self.quantizers.codes)):
            if name in self.columns:
                self.columns[name].resize(0)
        self.fields.resize(0)
        self.change_state(n=0, index=index.empty)


def in_float32(x: Vectors, config: Config) -> Vectors:
    """Convert vectors to float32, unless they are prequantized."""
    return x if config.form is not None or x.dtype == np.float32 else as_float32(x)


def trained_on(x: Vectors, config: Config) -> Trained:
    """Train the code of a collection on its first vectors. Raises InputError."""
    return train_code(in_float32(x, config), config.code, config)


def is_growth_due(state: State, share: float | None = None) -> bool:
    """Whether the index should now be given the rows that it lacks: more than this share of a graph, or any of lists.

    Also whether lists have too few centroids. ``share``: default, MAX_UNINDEXED_SHARE.
    """
    share = MAX_UNINDEXED_SHARE if share is None else share
    if isinstance(state.index, ListsState) and state.index.is_outgrown(state.live):
        return True
    least = share * state.index.contains(state.live) if isinstance(state.index, GraphState) else 0.0
    return state.unindexed > least


def index_for(config: Config, state: State) -> Index:
    """The index that the state, the configuration or the number of live rows asks for."""
    if (wanted := state.own_index or config.index) is not None:
        return make_index(wanted)
    return make_index(HNSW() if state.live > AUTO_INDEX_ROWS or state.index.kind != "flat" else Flat())
