"""A write transaction: it changes private copies of stored blocks, and publishes all changes in one LMDB commit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import lt
from typing import Any, Self

from qvec._kernels import Column, chunk_entries, fork_epoch, seal_pairs, trim_heap
from qvec.common.errors import AbortedError, ClosedError, InputError, QvecError
from qvec.common.types import NDArray
from qvec.storage import keys, operations, owner, records, reserve
from qvec.storage.environment import Environment
from qvec.storage.id_pairs import IdPairs
from qvec.storage.lmdb_errors import Error, MapIsFull, translate, translated
from qvec.storage.page_table import View, place_all, write_page_table
from qvec.storage.snapshot import Snapshot, entry_key, id_key, record_key
from qvec.storage.state_record import ColumnSpec, StateCodec, block_geometry

Operation = Callable[[Any], object]
# A checkpoint is an LMDB commit before the last one, of blocks that no state counts yet. It is made when the changed
# blocks exceed 1/48 of the file. LMDB cannot yet reuse the pages that the last three checkpoints replaced, so the file
# grows by at most 1/16 during a long transaction.
_CHECKPOINT_SHARE = 48
_CHECKPOINT_BYTES = 1 << 20, 64 << 20  # the least and the most
_LARGE_COMMIT = 16 << 20  # a commit of more bytes than this releases the memory of each block as soon as LMDB has it
# Such a commit cannot be retried with a larger map. Memory is released early only if the map has this many free bytes
# for each byte to store, so that it cannot become full.
_FREE_MAP_FACTOR = 4


class Transaction(Snapshot):
    """Changes that become visible together at `commit`, or never.

    Only the thread or task that began a transaction may use it (`qvec.storage.owner`). Reads in the transaction see its
    changes. Puts and deletes are also recorded in a log: when the map is full, LMDB's transaction is aborted, the map
    is doubled, and a new LMDB transaction repeats the log.

    ``frees``: the transaction deletes more than it adds; its commit then leaves out the reserve, the zeros that the
    file holds so that vectors can be deleted on a full disk. ``is_combined``: the transaction combines the calls in a
    ``with`` statement of `Store.transaction`. ``has_failed``: one of these calls failed half-way. ``is_abandoned``: the
    handle was closed while the transaction was open.
    """

    __slots__ = (
        "_calls", "_codec", "_committed", "_discarded", "_log", "_on_end", "_path", "_record_sums", "_running",
        "_written", "frees", "has_failed", "is_abandoned", "is_combined", "owner",
    )  # fmt: skip

    def __init__(
        self,
        env: Environment,
        path: str,
        txn: Any,
        view: View,
        codec: StateCodec,
        on_end: Callable[[View | None], None],
    ) -> None:
        """At the commit, ``path`` must refer to the open file.

        ``on_end`` is called when the transaction ends: with the committed view; or with None, after an abort or if the
        view must be loaded from the file.
        """
        super().__init__(env, txn, view)
        self._path, self._codec, self._on_end = path, codec, on_end
        self._log: list[Operation] = []
        self.is_combined, self.has_failed, self._calls, self._written = False, False, 0, 0
        self.frees, self.is_abandoned, self._running = False, False, 0
        self.owner = owner.current()
        self._discarded = False  # the memory of changed blocks was released early: the commit cannot be retried
        self._note_committed()

    def _note_committed(self) -> None:
        """Remember the number of blocks and the record sums of the last commit. A retry begins from them."""
        self._committed = {name: (column, column.n_blocks) for name, column in self.view.columns.items()}
        self._record_sums = self.view.record_sums.copy()

    @property
    def version(self) -> int:
        """A number that changes whenever a call ends: what was cached from the transaction may then be outdated."""
        return self._calls

    @contextlib.contextmanager
    def call(self) -> Iterator[Self]:
        """Run one of the calls that this transaction combines.

        A call fails half-way if it raises a QvecError after it has changed the state or the log, or any other error.
        Blocks that it has changed without changing the state belong to rows that the state does not count: no harm.

        Raises AbortedError if an earlier call failed half-way.
        """
        self._check_owner()
        if self.has_failed:
            raise AbortedError(
                "a call in this transaction failed half-way: end the with statement; that undoes all of its calls"
            )
        encode = self._codec.encode
        before = encode(self.state), len(self._log)
        self.derived.clear()
        self._running += 1
        try:
            yield self
        except BaseException as error:
            self.has_failed = not isinstance(error, QvecError) or (encode(self.state), len(self._log)) != before
            raise
        finally:
            self._calls += 1
            self._running -= 1
            self.derived.clear()

    @property
    def is_between_calls(self) -> bool:
        """Whether the transaction combines calls, and none of them is running."""
        return self.is_combined and not self._running

    def check_whole(self) -> None:
        """Raise AbortedError if one of the combined calls failed half-way."""
        self._check_owner()
        if self.has_failed:
            raise AbortedError("the transaction was undone, because a call in it failed half-way")

    @property
    def state(self) -> Any:
        """The state that `commit` stores. It may be changed in place or assigned."""
        self.live()
        return self.view.state

    @state.setter
    def state(self, state: Any) -> None:
        self._check_owner()
        self.view.state = state

    def add_column(self, name: str, spec: ColumnSpec) -> Column:
        """Add an empty column. Raises InputError if the name, or the id and generation, are in use."""
        self.live()
        taken = {(column.id, column.generation): other for other, column in self.view.columns.items()}
        if name in self.view.columns or (spec.id, spec.generation) in taken:
            raise InputError(f"column {name!r} (id {spec.id}, generation {spec.generation}) exists already")
        env = self.env
        rows, pages = block_geometry(spec.stride, env.psize, spec.min_pages, spec.max_pages)
        shape = spec.id, spec.generation, spec.stride, rows, pages, env.psize
        column = Column(name, *shape, writable=True, row_sums=spec.row_sums)
        column.attach(env.base, env.used_bytes())
        self.view.columns[name] = column
        return column

    def drop_column(self, name: str) -> None:
        """Remove a column and all its blocks."""
        column = self.view.columns.get(name)
        if column is None:
            raise InputError(f"there is no column {name!r}")
        n_blocks, per_chunk = self._n_committed(column), chunk_entries(self.env.psize)
        self._run(lambda txn: operations.delete_blocks(txn, column, 0, n_blocks, per_chunk))
        self.view.stamps.pop(name, None)
        self._committed.pop(name, None)
        del self.view.columns[name]

    def put_record(self, kind: int, number: int, payload: object, *, name: str = "payload") -> None:
        """Store plain data under ``kind`` and ``number``; InputError names the field that is not plain."""
        key = record_key(kind, number)
        value = records.seal(key, payload, name)
        self._run(lambda txn: self.view.record_sums.put(txn, key, value))

    def put_records(self, kind: int, numbers: NDArray[Any], packed: list[bytes]) -> None:
        """Store packed data (:func:`qvec.storage.records.pack_each`) under ``kind`` and ascending numbers, uint32."""
        if len(numbers):
            raw = numbers.astype(">u4").tobytes()
            names = [raw[i : i + 4] for i in range(0, len(raw), 4)]
            pairs, total = seal_pairs(record_key(kind, 0)[:-4], names, packed)
            self._run(lambda txn: self.view.record_sums.put_all(txn, pairs, total))

    def delete_record(self, kind: int, number: int) -> None:
        """Delete a record, if it is stored."""
        key = record_key(kind, number)
        self._run(lambda txn: self.view.record_sums.delete(txn, key))

    def put_entries(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Store bytes under names. None deletes a name."""
        pairs: list[tuple[bytes, bytes | None]] = []
        for name, value in entries:
            key = entry_key(name)
            pairs.append((key, None if value is None else records.seal_bytes(key, value)))
        self._run(lambda txn: operations.put_or_delete(txn, pairs, self.view.record_sums))

    def delete_entries(self, first: bytes, last: bytes) -> None:
        """Delete the names from ``first`` to ``last``, both included."""
        start, end = entry_key(first), entry_key(last)
        self._run(lambda txn: operations.delete_range(txn, start, end, self.view.record_sums))

    def put_ids(self, ids: Sequence[bytes], rows: Sequence[int] | NDArray[Any], *, append: bool = False) -> None:
        """Store the row of each id. Raises DuplicateIdError with the position of an id that is already stored or
        repeated.

        ``append``: a hint that the ids ascend and are greater than all stored ids. After an error nothing is stored.
        """
        pairs = IdPairs(ids, rows)
        put = operations.append_ids if append and self._is_above(ids) else operations.put_ids
        self._run(lambda txn: put(txn, pairs, self.view.record_sums))

    def delete_ids(self, ids: Sequence[bytes]) -> None:
        """Delete ids. Ids that are not stored are ignored.

        They are deleted in the order of their keys: a page that becomes empty is used again for a copy of the next
        one, so that the transaction needs few pages. In another order it would copy all pages before one is empty.
        """
        wanted = [(key, None) for key in sorted(id_key(name, i) for i, name in enumerate(ids))]
        self._run(lambda txn: operations.put_or_delete(txn, wanted, self.view.record_sums))

    def clear(self, name: str) -> None:
        """Delete all "entries" or "ids", including damaged ones."""
        self._run(lambda txn: operations.clear(txn, name, self.view.record_sums))

    def put_again(self, first: bytes, stop: bytes | None) -> None:
        """Delete the entries and ids in a range of keys, ``stop`` excluded (None: to the end), and put them again."""
        self._run(lambda txn: operations.put_again(txn, max(first, keys.ENTRY), stop))

    def free_reserve(self) -> None:
        """Delete the reserve (`qvec.storage.reserve`), whose pages later commits may use."""
        self._run(lambda txn: txn.delete(keys.RESERVE))

    def checkpoint(self) -> None:
        """Publish the changes so far, release their memory and continue; `abort` then undoes later changes only.

        A checkpoint limits the memory of a large transaction. It is for changes that readers cannot see until further
        changes follow. The call has no effect in a transaction that combines several calls.
        """
        self._check_owner()
        if self.is_combined:
            return
        try:
            changed = self._changed_bytes()
            self._retry(self._publish)
            self._written += changed
            self._log.clear()
            self._note_committed()
            self.txn = self.env.begin_write()
            self._attach_columns()
        except BaseException:
            self.abort()
            raise

    def checkpoint_if_large(self, least: int = _CHECKPOINT_BYTES[0]) -> None:
        """Make a `checkpoint` if changed blocks exceed 1/48 of the file. The limit is at least ``least`` bytes (default
        1 MiB) and at most 64 MiB.

        Each commit also writes pages of the tree and of the free list. Few changes in each make the file grow less, if
        they replace blocks; many in each write fewer bytes."""
        limit = min(max(self.env.used_bytes() // _CHECKPOINT_SHARE, least), _CHECKPOINT_BYTES[1])
        if self._changed_bytes() > limit:
            self.checkpoint()

    def _changed_bytes(self) -> int:
        return sum(column.private_bytes for column in self.view.columns.values())

    def commit(self) -> None:
        """Publish all changes at once, durably unless the store is relaxed. After an error nothing is changed."""
        self._check_owner()
        written = self._written + self._changed_bytes()
        try:
            self._retry(self._publish)
        except BaseException:
            self.abort()
            raise
        if written > _LARGE_COMMIT:
            trim_heap()
        self.txn = None
        self._log.clear()  # its operations refer to this transaction
        self._on_end(self.view if self.env.addressable else None)

    def abort(self) -> None:
        """Undo everything. Ending twice, or ending the parent's transaction in a forked child, has no effect."""
        if self.txn is None or self.epoch != fork_epoch():
            return
        if not self.owner.has_ended and not self.owner.is_running_here:
            raise InputError("a write transaction must be ended by the thread that began it")
        self.live().abort()
        self.txn = None
        self._log.clear()
        self._on_end(None)

    def _check_owner(self) -> Any:
        if owner.current() != self.owner:
            raise InputError("a write transaction can only be used by the thread or task that began it")
        if self.is_abandoned:
            raise ClosedError(f"{self._path} is closed")
        return self.live()

    def _run(self, operation: Operation) -> None:
        self._check_owner()
        self._retry(lambda: operation(self.txn))
        self._log.append(operation)

    def _retry(self, action: Callable[[], object]) -> None:
        """Run an action. Whenever the map is full, double it, rerun the log in a new transaction, and try again."""
        full = False
        while True:
            try:
                if full:
                    self._restart()
                action()
                return
            except MapIsFull as error:
                if self._discarded:
                    raise translate(error, self.env.path) from error
                self.txn.abort()
                full = True
            except Error as error:
                raise translate(error, self.env.path) from error

    def _restart(self) -> None:
        env = self.env
        env.grow()
        self.txn = env.begin_write()
        self.view.relocated = self.view.relocated or not env.addressable
        self._attach_columns()
        self.view.record_sums = self._record_sums.copy()
        for operation in self._log:
            operation(self.txn)

    def _attach_columns(self) -> None:
        env = self.env
        for column in self.view.columns.values():
            column.attach(env.base, env.used_bytes())
            if self.view.relocated:
                place_all(column, min(column.n_blocks, self._n_committed(column)), self.txn)

    def _publish(self) -> None:
        env, txn = self.env, self.txn
        env.pair.check_named(self._path)
        per_chunk, changed = chunk_entries(env.psize), self._changed_bytes()
        self._discarded = changed > _LARGE_COMMIT and env.free_map_bytes() > _FREE_MAP_FACTOR * changed
        touched = {name: self._put_blocks(column, per_chunk) for name, column in self.view.columns.items()}
        stamps = write_page_table(self.view, self._codec, touched, txn, env)
        if not self.frees:
            reserve.put(txn, env.tree_bytes())
        commit = txn.id()
        txn.commit()
        self._discarded = False
        self.view.stamps, self.view.txn_id, self.view.relocated = stamps, commit, not env.addressable
        for column in self.view.columns.values():
            column.release()

    def _put_blocks(self, column: Column, per_chunk: int) -> set[int]:
        """Store the changed blocks and read their page numbers from LMDB. Returns the blocks whose entries changed."""
        txn, commit = self.txn, self.txn.id()
        n_blocks = self._n_committed(column)
        dirty = column.dirty().tolist()
        for block in dirty:
            key = keys.block(column.id, column.generation, block)
            txn.put(key, column.seal(block, commit))
            column.set_page(block, txn.get(key))
            if self._discarded:  # LMDB keeps a copy until the commit
                column.discard(block)
        touched = set(range(column.n_blocks)) if self.view.relocated else set(dirty)
        if column.n_blocks < n_blocks:
            operations.delete_blocks(txn, column, column.n_blocks, n_blocks, per_chunk)
            touched |= {column.n_blocks - 1} if column.n_blocks else set()
        return touched

    def _n_committed(self, column: Column) -> int:
        """Return the number of blocks that the column has in the last commit."""
        committed, n_blocks = self._committed.get(column.name, (None, 0))
        return n_blocks if committed is column else 0

    def _is_above(self, ids: Sequence[bytes]) -> bool:
        if not ids or not all(map(lt, ids, ids[1:])):
            return False
        with translated(self.env.path), self._check_owner().cursor() as cursor:
            return cursor.last() and bytes(cursor.key()) < keys.ID + ids[0]
