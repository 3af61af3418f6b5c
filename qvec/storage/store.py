"""A store: columns, state, records, entries and ids in one LMDB file, with snapshots and write transactions."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from qvec._kernels import StoreBase, fork_epoch
from qvec.common.errors import AbortedError, ClosedError, DiskFullError, ReadOnlyError
from qvec.common.types import Durability, MemoryMode, check_choice, check_flag
from qvec.storage import atomic_file, environment, header, keys, open_checks
from qvec.storage.lmdb_errors import translated
from qvec.storage.page_table import View
from qvec.storage.snapshot import Snapshot
from qvec.storage.state_record import (
    CodecFactory,
    ColumnSpec,
    StateCodec,
    block_geometry,
    first_state,
    plain_codec,
)
from qvec.storage.transaction import Transaction
from qvec.storage.view_cache import ViewCache
from qvec.storage.write_lock import WriteLock

__all__ = ["CodecFactory", "ColumnSpec", "Snapshot", "StateCodec", "Store", "Transaction", "block_geometry"]

Mode = Literal["rw", "r"]


class Store(StoreBase):
    """An open file. Threads may share a store. A store that a forked child inherits reopens its file for reading.

    ``is_full``: a commit has failed because the disk was full, and none that adds data has succeeded since.
    ``snapshots``: the open snapshot stores of this store, with the time (monotonic clock) and commit of each.
    """

    _env: environment.Environment
    _views: ViewCache
    codec: StateCodec
    _transaction: Transaction | None
    _joined: Transaction | None  # the transaction of the `transaction` block that is open
    is_full = False

    def __init__(
        self,
        path: str,
        mode: Mode,
        memory: MemoryMode,
        checksums: bool,
        durability: Durability,
        map_size: int,
        untrusted: bool,
        state_codec: CodecFactory,
    ) -> None:
        """Called by `create` and `open`."""
        self.path, self.mode = path, mode
        self.memory, self._checksums, self._map_size = memory, checksums, map_size
        self.is_closed = True
        self._codec_for = state_codec
        self.epoch = -1
        open_checks.check(path)
        if untrusted:
            open_checks.check_structure(path)
        self._write_lock = WriteLock(path)
        if mode == "rw":
            self._write_lock.lock_file()
        self.is_closed = False
        try:
            if mode == "rw":
                atomic_file.discard(path + atomic_file.COMPACTED)  # left by a process that died
            self._attach(durability == "full" if mode == "rw" else None)
        except BaseException:
            self.is_closed = True
            self._write_lock.unlock_file()
            raise

    def __del__(self) -> None:
        """Close a store without references. If it has an open transaction, unlock the file only."""
        if self.is_closed or self.epoch != fork_epoch() or sys.is_finalizing():
            return
        if self._transaction:
            self._write_lock.unlock_file()
            return
        for snapshot in list(self.open_snapshots):
            self.end(snapshot)
        self.close()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        columns: Mapping[str, ColumnSpec],
        configuration: dict[str, Any],
        *,
        state: Any = None,
        state_codec: CodecFactory = plain_codec,
        memory: MemoryMode = "mmap",
        checksums: bool = True,
        durability: Durability = "full",
        map_size: int = environment.MAP_SIZE,
    ) -> Store:
        """Create a file with empty columns, and open it for writing.

        ``configuration`` is plain data that never changes. ``state`` is the state of the first commit, by default an
        empty dict. The file appears under ``path`` when it is complete.
        """
        path = atomic_file.real_path(path)
        _check_options("rw", memory, checksums, durability)
        encoded = state_codec(configuration).encode({} if state is None else state)

        def fill(txn: Any, psize: int) -> None:
            txn.put(keys.CONFIG, header.pack(configuration, psize))
            txn.put(keys.STATE, first_state(columns, encoded, psize, txn.id()))

        atomic_file.make(path, lambda draft: environment.create(draft, fill))
        return cls.open(
            path, state_codec=state_codec, memory=memory, checksums=checksums, durability=durability, map_size=map_size
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: Mode = "rw",
        *,
        state_codec: CodecFactory = plain_codec,
        memory: MemoryMode = "mmap",
        checksums: bool = True,
        durability: Durability = "full",
        map_size: int = environment.MAP_SIZE,
        untrusted: bool = False,
    ) -> Store:
        """Open a file. Mode ``"rw"`` holds the file's write lock; any number of handles may have mode ``"r"``.

        state_codec: makes the codec of states from the file's configuration.
        memory: an option of the layer above, which calls :meth:`Snapshot.reside`.
        checksums: False skips the checksums of blocks, not of their headers.
        durability: "relaxed" leaves flushing to the system; a power cut may then destroy the file.
        map_size: the address space to reserve at first, in bytes; it grows.
        untrusted: check LMDB's pages, without LMDB, before they are mapped.

        Raises NotFoundError, FormatError, CorruptError, LockedError or ReadOnlyError.
        """
        _check_options(mode, memory, checksums, durability)
        return cls(atomic_file.real_path(path), mode, memory, checksums, durability, map_size, untrusted, state_codec)

    @property
    def source(self) -> Store:
        """The store that follows new commits: this one, unless it stays at one commit."""
        return self

    def load_view(self, txn: Any) -> View:
        """Bring the view to the commit of a transaction; called by `begin` with ``env.lock``."""
        view = self.view = self._views.to_read(self.view, txn)
        return view

    @contextlib.contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A snapshot that ends with the ``with`` block."""
        snapshot = self.begin()
        try:
            yield snapshot
        finally:
            self.end(snapshot)

    def begin_write(self) -> Transaction:
        """Begin a write transaction, after those of other threads. End it by its `commit` or `abort`.

        Raises ReadOnlyError for ``mode="r"``, LockedError in a forked child while the parent has the file.
        """
        self._begin_writing()
        try:
            txn = self.env.begin_write()
            try:
                view = self._views.to_write(txn)
            except BaseException:
                txn.abort()
                raise
            self._transaction = started = Transaction(self.env, txn, view, self.codec, self._end_write)
        except BaseException:
            self._end_write(None)
            raise
        return started

    def _begin_writing(self) -> None:
        """Acquire the write lock of this handle and of the file."""
        if self.mode == "r":
            raise ReadOnlyError(f"{self.path} is open with mode='r'")
        if self.epoch != fork_epoch():
            self.reopen_in_child()
        self._write_lock.acquire()
        try:
            if self.is_closed:
                raise ClosedError(f"{self.path} is closed")
            self._write_lock.lock_file()
        except BaseException:
            self._end_write(None)
            raise

    def _end_write(self, view: View | None) -> None:
        """End a write transaction. ``view`` is what it committed, None if that is not known."""
        self._views.written(view)
        self._transaction = None
        self._write_lock.release()

    @contextlib.contextmanager
    def write(self, *, frees: bool = False) -> Iterator[Transaction]:
        """A write transaction that commits at the end of the ``with`` block; an exception aborts it.

        Inside `transaction`, the block is a part of that transaction. ``frees``: the block deletes more than it adds.
        """
        if self.in_transaction:
            assert self.joined is not None
            with self.joined.call() as joined:
                yield joined
            return
        with self.note_disk_full():
            txn = self.begin_write()
            txn.frees = frees
            try:
                yield txn
            except BaseException:
                txn.abort()
                raise
            txn.commit()
            self.is_full = self.is_full and frees

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Combine all writes of this thread in the ``with`` block: they become visible together at its end, or never.

        Blocks inside it are parts of it. An exception that leaves one of them undoes everything, even if it is caught.
        """
        if self.in_transaction:
            assert self.joined is not None
            try:
                yield
            except BaseException:
                self.joined._failed = True
                raise
            return
        with self.write() as txn:
            self.joined, txn._whole = txn, True
            try:
                yield
                if txn._failed:
                    raise AbortedError("the transaction was undone, because a call in it failed half-way")
            finally:
                self.joined = None
                txn.derived.clear()

    @contextlib.contextmanager
    def note_disk_full(self) -> Iterator[None]:
        """On DiskFullError, commit an empty transaction so that pages freed by the failed one become reusable."""
        try:
            yield
        except DiskFullError:
            self.is_full = True
            self.commit_empty()
            raise

    def commit_empty(self) -> None:
        """Commit an empty transaction, if there is room. LMDB reuses pages two commits after they were freed."""
        with contextlib.suppress(DiskFullError):
            txn = self.begin_write()
            txn.frees = True
            txn.commit()

    def free_reserve(self) -> None:
        """Let the next commit use the reserve for deletes."""
        with self.write(frees=True) as txn:
            txn.free_reserve()
        self.commit_empty()

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside `transaction`."""
        return self.joined is not None and self._write_lock.held_by_me

    def close(self) -> None:
        """Close the handle once the snapshots and transactions of other threads have ended; end those of this thread.

        Later calls raise ClosedError. Closing twice has no effect.
        """
        if self.epoch != fork_epoch():
            self.is_closed = True
            return
        with self.env.lock:
            if self.is_closed:
                return
            self.is_closed = True
            mine = [snapshot for snapshot in list(self.open_snapshots) if snapshot.thread == threading.get_ident()]
        for snapshot in mine:
            self.end(snapshot)
        if self._write_lock.held_by_me and self._transaction:
            self._transaction.abort()
        self._write_lock.wait()
        with self.env.lock:
            self.env.wait(lambda: not (self.open_snapshots or self.running))
        self._write_lock.unlock_file()
        self._views.clear()
        self.view = View()
        environment.release(self.env)

    @property
    def closed(self) -> bool:
        """Whether the store is closed."""
        return self.is_closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Exclude writers during the ``with`` block."""
        self._begin_writing()
        try:
            yield
        finally:
            self._end_write(None)

    def _attach(self, durable: bool | None) -> None:
        """Join the file's environment and read its configuration."""
        self.env = environment.acquire(self.path, durable=durable, map_size=self._map_size)
        self.open_snapshots, self.view, self.snapshot_type = set(), View(), Snapshot
        self.snapshots: weakref.WeakKeyDictionary[Store, tuple[float, int]] = weakref.WeakKeyDictionary()
        self._transaction = None
        self.joined = None
        try:
            with translated(self.path), self.env.lmdb.begin(buffers=True) as txn:
                self.config = MappingProxyType(header.unpack(txn.get(keys.CONFIG), self.path))
            self.codec = self._codec_for(self.config)
            self._views = ViewCache(self.env, self.codec, checksums=self._checksums)
            self.epoch = fork_epoch()
            self.end(self.begin())
        except BaseException:
            self.epoch = -1
            environment.release(self.env)
            raise

    def reopen_in_child(self) -> None:
        """In a forked child: open the file again, because the parent's environment must not be used."""
        with environment.reopen_lock:
            if self.is_closed:
                raise ClosedError(f"{self.path} is closed")
            if self.epoch != fork_epoch():
                open_checks.check(self.path)
                self._write_lock = WriteLock(self.path)
                self._attach(None)


def _check_options(mode: str, memory: str, checksums: bool, durability: str) -> None:
    check_choice("mode", mode, get_args(Mode))
    check_choice("memory", memory, get_args(MemoryMode))
    check_choice("durability", durability, get_args(Durability))
    check_flag("checksums", checksums)
