"""A write transaction: changed blocks in private copies, everything published by one LMDB commit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Self

from qvec._kernels import Column, Ready, chunk_entries, fork_epoch, trim_heap
from qvec.common.errors import AbortedError, DuplicateIdError, InputError, QvecError
from qvec.storage import keys, records, reserve
from qvec.storage.lmdb_errors import Error, MapIsFull, translate, translated
from qvec.storage.page_table import ColumnSpec, View, block_geometry, place_all, write_directory
from qvec.storage.record_sums import KINDS, Sums
from qvec.storage.snapshot import Snapshot, entry_key, id_key, record_key, row_value

Operation = Callable[[Any], object]
_HELD_SHARE = 48  # of the file: three checkpoints' worth of pages wait to be used again
_HELD_BYTES = 1 << 20, 64 << 20
_LARGE = 16 << 20  # of a commit of more, memory is given back as early as can be
_ROOM_FOR_EACH = 4  # bytes of the map for each that is put: a map with so much room does not become full


class Transaction(Snapshot):
    """Changes that become visible together at `commit`, or never. Belongs to the thread that began it.

    Reading sees the changes. Puts and deletes are kept
    in a list as well: when the map is full they are abandoned with LMDB's transaction, the map doubled, and the list
    run again. ``frees``: it takes away more than it adds, and need not leave room for others that do.
    """

    __slots__ = ("_calls", "_committed", "_failed", "_log", "_spent", "_sums", "_whole", "_written", "frees")

    def __init__(self, store: Any, txn: Any, view: View) -> None:
        super().__init__(store, txn, view)
        self._log: list[Operation] = []
        self._whole, self._failed, self._calls, self._written = False, False, 0, 0
        self.frees = False
        self._spent = False  # what is put is not held any more: it cannot be put once more
        self._committed = {name: (column, column.n_blocks) for name, column in view.columns.items()}
        self._sums = view.sums.copy()  # those of the commit before

    def reside(self, columns: Iterable[Column]) -> None:
        """Nothing: what a transaction reads is its own."""

    def keep_ready(self, ready: Ready) -> None:
        """Nothing: what a transaction reads changes."""

    @property
    def version(self) -> int:
        """How many calls have made changes."""
        return self._calls

    @contextlib.contextmanager
    def call(self) -> Iterator[Self]:
        """One of several calls that this transaction holds together; AbortedError after one that failed half-way."""
        if self._failed:
            raise AbortedError("a call in this transaction failed half-way: leave the transaction, all of it is undone")
        encode = self._store.codec.encode
        before = encode(self.state), len(self._log)
        self.derived.clear()
        try:
            yield self
        except BaseException as error:
            self._failed = not isinstance(error, QvecError) or (encode(self.state), len(self._log)) != before
            raise
        finally:
            self._calls += 1
            self.derived.clear()

    @property
    def state(self) -> Any:
        """The state that `commit` stores. It may be changed in place or assigned."""
        self._live()
        return self._view.state

    @state.setter
    def state(self, state: Any) -> None:
        self._own()
        self._view.state = state

    def add_column(self, name: str, spec: ColumnSpec) -> Column:
        """A new, empty column; InputError where the name, or its id and generation, are in use."""
        self._live()
        taken = {(column.id, column.generation): other for other, column in self._view.columns.items()}
        if name in self._view.columns or (spec.id, spec.generation) in taken:
            raise InputError(f"column {name!r} (id {spec.id}, generation {spec.generation}) is already there")
        env = self._store._env
        rows, pages = block_geometry(spec.stride, env.psize, spec.min_pages, spec.max_pages)
        column = Column(name, spec.id, spec.generation, spec.stride, rows, pages, env.psize, writable=True)
        column.attach(env.base, env.reaches())
        self._view.columns[name] = column
        return column

    def drop_column(self, name: str) -> None:
        """Remove a column and all its blocks."""
        column = self._view.columns.get(name)
        if column is None:
            raise InputError(f"there is no column {name!r}")
        n_blocks, per_chunk = self._n_committed(column), chunk_entries(self._store._env.psize)
        self._run(lambda txn: _delete_blocks(txn, column, 0, n_blocks, per_chunk))
        self._view.stamps.pop(name, None)
        self._committed.pop(name, None)
        del self._view.columns[name]

    def put_record(self, kind: int, number: int, payload: object, *, name: str = "payload") -> None:
        """Store plain data under ``kind`` and ``number``; InputError names the field of ``name`` that is not plain."""
        key = record_key(kind, number)
        value = records.seal(key, payload, name)
        self._run(lambda txn: self._view.sums.put(txn, key, value))

    def delete_record(self, kind: int, number: int) -> None:
        """Remove a record, if it is there."""
        key = record_key(kind, number)
        self._run(lambda txn: self._view.sums.delete(txn, key))

    def put_entries(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Store bytes under names; None removes a name."""
        pairs: list[tuple[bytes, bytes | None]] = []
        for name, value in entries:
            key = entry_key(name)
            pairs.append((key, None if value is None else records.seal_bytes(key, value)))
        self._run(lambda txn: _put_or_delete(txn, pairs, self._view.sums))

    def delete_entries(self, first: bytes, last: bytes) -> None:
        """Remove the names from ``first`` to ``last``, both included."""
        start, end = entry_key(first), entry_key(last)
        self._run(lambda txn: _delete_range(txn, start, end, self._view.sums))

    def put_ids(self, ids: Sequence[bytes], rows: Sequence[int], *, append: bool = False) -> None:
        """Give each id its row; DuplicateIdError names the position of one that is stored or repeated.

        ``append`` is a hint: the ids ascend and lie above all that are stored. An error puts nothing.
        """
        names = [id_key(name, i) for i, name in enumerate(ids)]
        pairs = [(name, row_value(name, int(row))) for name, row in zip(names, rows, strict=True)]
        append = append and self._is_above(ids)
        if not append:
            self._refuse_duplicates(ids)
        self._run(lambda txn: _put_pairs(txn, pairs, append, self._view.sums))

    def delete_ids(self, ids: Sequence[bytes]) -> None:
        """Remove ids; those that are not stored are passed over."""
        wanted = [(id_key(name, i), None) for i, name in enumerate(ids)]
        self._run(lambda txn: _put_or_delete(txn, wanted, self._view.sums))

    def clear(self, name: str) -> None:
        """Remove all "entries" or "ids", whatever state they are in."""
        self._run(lambda txn: _clear(txn, name, self._view.sums))

    def put_again(self, first: bytes, stop: bytes | None) -> None:
        """Delete and put entries and ids, from one key of the database to below another, or to the end."""
        self._run(lambda txn: _put_again(txn, max(first, keys.ENTRY), stop))

    def give_up_reserve(self) -> None:
        """Free the room that is kept for deletes (`qvec.storage.reserve`)."""
        self._run(lambda txn: txn.delete(keys.RESERVE))

    def checkpoint(self) -> None:
        """Publish what was changed so far, give back its memory and go on; `abort` then undoes what comes after.

        For changes that mean nothing to readers before others follow, so that these need not be held all at once.
        Nothing happens where several calls are held together.
        """
        self._own()
        if self._whole:
            return
        try:
            held = self._held()
            self._retry(self._publish)
            self._written += held
            self._log.clear()
            self._committed = {name: (column, column.n_blocks) for name, column in self._view.columns.items()}
            self._sums = self._view.sums.copy()
            self._txn = self._store._env.begin_write()
            self._attach_columns()
        except BaseException:
            self.abort()
            raise

    def relieve(self) -> None:
        """A `checkpoint` when much is held: a 48th of the file, 1 MiB at least and 64 MiB at most."""
        least, most = _HELD_BYTES
        limit = min(max(self._store._env.reaches() // _HELD_SHARE, least), most)
        if self._held() > limit:
            self.checkpoint()

    def _held(self) -> int:
        return sum(column.private_bytes for column in self._view.columns.values())

    def commit(self) -> None:
        """Publish everything at once, durably unless the store is relaxed; on an error nothing happened."""
        self._own()
        written = self._written + self._held()
        try:
            self._retry(self._publish)
        except BaseException:
            self.abort()
            raise
        if written > _LARGE:
            trim_heap()
        self._txn = None
        self._store._end_write(self._view if self._store._env.sound else None)

    def abort(self) -> None:
        """Undo everything. Ending twice is fine; so is ending the parent's in a forked child."""
        if self._txn is None or self._epoch != fork_epoch():
            return
        self._own().abort()
        self._txn = None
        self._store._end_write(None)

    def _own(self) -> Any:
        if threading.get_ident() != self._thread:
            raise InputError("a write transaction is used by another thread than the one that began it")
        return self._live()

    def _run(self, operation: Operation) -> None:
        self._own()
        self._retry(lambda: operation(self._txn))
        self._log.append(operation)

    def _retry(self, action: Callable[[], object]) -> None:
        """Run; while the map is full, double it, start again from the list of operations, run once more."""
        full = False
        while True:
            try:
                if full:
                    self._restart()
                action()
                return
            except MapIsFull as error:
                if self._spent:
                    raise translate(error, self._store.path) from error
                self._txn.abort()
                full = True
            except Error as error:
                raise translate(error, self._store.path) from error

    def _restart(self) -> None:
        env = self._store._env
        env.grow()
        self._txn = env.begin_write()
        self._view.relocated = self._view.relocated or not env.sound
        self._attach_columns()
        self._view.sums = self._sums.copy()
        for operation in self._log:
            operation(self._txn)

    def _attach_columns(self) -> None:
        env = self._store._env
        for column in self._view.columns.values():
            column.attach(env.base, env.reaches())
            if self._view.relocated:
                place_all(column, min(column.n_blocks, self._n_committed(column)), self._txn)

    def _publish(self) -> None:
        env, txn = self._store._env, self._txn
        per_chunk, held = chunk_entries(env.psize), self._held()
        self._spent = held > _LARGE and env.room() > _ROOM_FOR_EACH * held
        touched = {name: self._put_blocks(column, per_chunk) for name, column in self._view.columns.items()}
        stamps = write_directory(self._view, self._store.codec, touched, txn, env)
        if not self.frees:
            reserve.keep(txn, env.used())
        commit = txn.id()
        txn.commit()
        self._spent = False
        self._view.stamps, self._view.txn_id, self._view.relocated = stamps, commit, not env.sound
        for column in self._view.columns.values():
            column.release()

    def _put_blocks(self, column: Column, per_chunk: int) -> set[int]:
        """Put the changed blocks, read back which pages LMDB gave them; returns those whose entry changed."""
        txn, commit = self._txn, self._txn.id()
        n_blocks = self._n_committed(column)
        dirty = column.dirty().tolist()
        for block in dirty:
            key = keys.block(column.id, column.generation, block)
            txn.put(key, column.seal(block, commit))
            column.set_page(block, txn.get(key))
            if self._spent:  # LMDB holds a copy until the commit
                column.discard(block)
        touched = set(range(column.n_blocks)) if self._view.relocated else set(dirty)
        if column.n_blocks < n_blocks:
            _delete_blocks(txn, column, column.n_blocks, n_blocks, per_chunk)
            touched |= {column.n_blocks - 1} if column.n_blocks else set()
        return touched

    def _n_committed(self, column: Column) -> int:
        """Blocks that the column has in the commit before this transaction."""
        committed, n_blocks = self._committed.get(column.name, (None, 0))
        return n_blocks if committed is column else 0

    def _is_above(self, ids: Sequence[bytes]) -> bool:
        if not ids or not all(a < b for a, b in pairwise(ids)):
            return False
        with translated(self._store.path), self._own().cursor() as cursor:
            return cursor.last() and bytes(cursor.key()) < keys.ID + ids[0]

    def _refuse_duplicates(self, ids: Sequence[bytes]) -> None:
        stored = self.rows_of(ids)
        seen: dict[bytes, int] = {}
        for i, key in enumerate(ids):
            if stored[i] >= 0:
                raise DuplicateIdError(f"id {i} ({key!r}) is already stored, as row {stored[i]}")
            if seen.setdefault(key, i) != i:
                raise DuplicateIdError(f"id {i} ({key!r}) is in the batch before, as id {seen[key]}")


def _put_pairs(txn: Any, pairs: list[tuple[bytes, bytes]], append: bool, sums: Sums) -> None:
    with txn.cursor() as cursor:
        _, added = cursor.putmulti(pairs, dupdata=False, overwrite=False, append=append)
    if added != len(pairs):
        raise QvecError(f"{added} of {len(pairs)} ids were put")
    for key, value in pairs:
        sums.count(key, value)


def _put_or_delete(txn: Any, pairs: Sequence[tuple[bytes, bytes | None]], sums: Sums) -> None:
    for key, value in pairs:
        if value is None:
            sums.delete(txn, key)
        else:
            sums.put(txn, key, value)


def _delete_range(txn: Any, start: bytes, end: bytes, sums: Sums) -> None:
    with txn.cursor() as cursor:
        found = cursor.set_range(start)
        while found and (key := bytes(cursor.key())) <= end:
            sums.forget(key, cursor.value())
            found = cursor.delete()  # moves on to the next


def _put_again(txn: Any, first: bytes, stop: bytes | None) -> None:
    pairs = []
    with txn.cursor() as cursor:
        found = cursor.set_range(first)
        while found and (stop is None or bytes(cursor.key()) < stop):
            pairs.append((bytes(cursor.key()), bytes(cursor.value())))
            found = cursor.next()
    for key, _ in pairs:
        txn.delete(key)
    for key, value in pairs:
        txn.put(key, value)


def _clear(txn: Any, name: str, sums: Sums) -> None:
    with txn.cursor() as cursor:
        found = cursor.set_range(KINDS[name])
        while found and bytes(cursor.key()[:1]) == KINDS[name]:
            found = cursor.delete()
    sums.of[name] = [0, 0]


def _delete_blocks(txn: Any, column: Column, start: int, stop: int, per_chunk: int) -> None:
    """Delete the blocks start..stop and the directory chunks that only they needed."""
    for block in range(start, stop):
        txn.delete(keys.block(column.id, column.generation, block))
    for chunk in range(-(-start // per_chunk), -(-stop // per_chunk)):
        txn.delete(keys.chunk(column.id, column.generation, chunk))
