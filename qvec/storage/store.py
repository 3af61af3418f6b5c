"""A store: columns, state, records and ids in one LMDB file; snapshots to read, transactions to write."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from qvec._kernels import Reads, fork_epoch
from qvec.common.errors import AbortedError, ClosedError, ReadOnlyError
from qvec.common.types import Durability, MemoryMode, check_choice, check_flag
from qvec.storage import atomic_file, environment, header, keys, open_checks, reserve
from qvec.storage.lmdb_errors import translated
from qvec.storage.page_table import CodecFactory, ColumnSpec, StateCodec, View, block_geometry, first_state, plain_codec
from qvec.storage.snapshot import Reading, Snapshot
from qvec.storage.transaction import Transaction
from qvec.storage.view_cache import Views
from qvec.storage.write_lock import Turn

__all__ = ["CodecFactory", "ColumnSpec", "Reading", "Snapshot", "StateCodec", "Store", "Transaction", "block_geometry"]

Mode = Literal["rw", "r"]


class Store(Reads):
    """An open file. Threads may share it; a forked child's copy opens the file again by itself, to read."""

    _env: environment.Environment
    _views: Views
    _joined: Transaction | None  # what `transaction` holds together
    is_full = False  # a commit has found no room

    def __init__(
        self,
        path: str,
        mode: Mode,
        memory: MemoryMode,
        verify: bool,
        durability: Durability,
        map_size: int,
        untrusted: bool,
        state_codec: CodecFactory,
    ) -> None:
        """For `create` and `open`."""
        self.path, self.mode = path, mode
        self.memory, self._verify, self._map_size = memory, verify, map_size
        self._closed = True
        self._codec_for = state_codec
        self._epoch = -1
        open_checks.check(path)
        if untrusted:
            open_checks.check_structure(path)
        self._turn = Turn(path)
        if mode == "rw":
            self._turn.lock()
        self._closed = False
        try:
            if mode == "rw":
                atomic_file.discard(path + atomic_file.COMPACTED)  # of a process that died
            self._attach(durability == "full" if mode == "rw" else None)
        except BaseException:
            self._closed = True
            self._turn.unlock()
            raise

    def __del__(self) -> None:
        """Close a store that nobody refers to; with a transaction left open in it, only free its lock."""
        if self._closed or self._epoch != fork_epoch() or sys.is_finalizing():
            return
        if self._transaction:
            self._turn.unlock()
            return
        for snapshot in list(self._open):
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
        verify: bool = True,
        durability: Durability = "full",
        map_size: int = environment.MAP_SIZE,
    ) -> Store:
        """Make a file with empty columns, and open it for writing.

        ``configuration`` is plain data that never changes. ``state`` is that of the first commit, default an empty
        dict. A file appears under ``path`` only when it is whole.
        """
        path = atomic_file.own_path(path)
        _check_options("rw", memory, verify, durability)
        encoded = state_codec(configuration).encode({} if state is None else state)

        def fill(txn: Any, psize: int) -> None:
            txn.put(keys.CONFIG, header.pack(configuration, psize))
            txn.put(keys.STATE, first_state(columns, encoded, psize, txn.id()))

        atomic_file.make(path, lambda draft: environment.create(draft, fill))
        return cls.open(
            path, state_codec=state_codec, memory=memory, verify=verify, durability=durability, map_size=map_size
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: Mode = "rw",
        *,
        state_codec: CodecFactory = plain_codec,
        memory: MemoryMode = "mmap",
        verify: bool = True,
        durability: Durability = "full",
        map_size: int = environment.MAP_SIZE,
        untrusted: bool = False,
    ) -> Store:
        """Open a file: ``"rw"`` takes its write lock, ``"r"`` any number of handles may do.

        ``state_codec`` makes the codec of states from the file's configuration.
        ``memory`` is for the layer above, which calls :meth:`Snapshot.reside`; ``verify=False`` skips the checksums
        of blocks, not their headers; ``durability="relaxed"`` leaves the flush to the system: a power cut may then cost
        the file.
        ``map_size`` is the address space to reserve at first, in bytes; it grows.
        ``untrusted`` has LMDB's pages checked, without LMDB, before they are mapped.
        NotFoundError, FormatError, CorruptError, LockedError or ReadOnlyError say why a file does not open.
        """
        _check_options(mode, memory, verify, durability)
        return cls(atomic_file.own_path(path), mode, memory, verify, durability, map_size, untrusted, state_codec)

    def begin(self) -> Snapshot:
        """A snapshot of the last commit; `end` it soon, for the pages it reads are kept as long.

        Inside `transaction`, that: its thread reads what it has written.
        CorruptError when the directory is damaged, ClosedError after `close`.
        """
        if self._epoch != fork_epoch():
            self._revive()
        if self._joined is not None and self._turn.mine:
            return self._joined
        env = self._env
        with env.lock:
            if self._closed:
                raise ClosedError(f"{self.path} is closed")
            txn = env.begin()
            view = self._views.shared
            if view.txn_id != txn.id():
                view = self._views.to_read(txn)
            view.users += 1
            env.open_reads += 1
            snapshot = Snapshot(self, txn, view)
            self._open.add(snapshot)
        return snapshot

    def end(self, snapshot: Snapshot) -> None:
        """End a snapshot; twice is fine, and so is ending in a forked child one that is the parent's."""
        if snapshot._epoch != fork_epoch() or snapshot is self._joined:
            return
        env = self._env
        with env.lock:
            if snapshot._txn is None:
                return
            snapshot._txn.abort()
            snapshot._txn = None
            snapshot._view.users -= 1
            env.open_reads -= 1
            self._open.discard(snapshot)
            if env.waiting and (env.open_reads == 0 or self._closed):
                env.idle.notify_all()

    @contextlib.contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A snapshot for the length of a ``with`` block."""
        snapshot = self.begin()
        try:
            yield snapshot
        finally:
            self.end(snapshot)

    def begin_write(self) -> Transaction:
        """A write transaction, after those of other threads; end it by its `commit` or `abort`.

        ReadOnlyError for ``mode="r"``; LockedError in a forked child while the parent has the file.
        """
        self._begin_writing()
        try:
            return self._start_write()
        except BaseException:
            self._end_write(None)
            raise

    def _begin_writing(self) -> None:
        """Wait until no other thread writes, and hold the file's write lock."""
        if self.mode == "r":
            raise ReadOnlyError(f"{self.path} is open with mode='r'")
        if self._epoch != fork_epoch():
            self._revive()
        self._turn.take()
        try:
            if self._closed:
                raise ClosedError(f"{self.path} is closed")
            self._turn.lock()
        except BaseException:
            self._end_write(None)
            raise

    @contextlib.contextmanager
    def write(self, *, frees: bool = False) -> Iterator[Transaction]:
        """A write transaction that commits at the end of the ``with`` block; an exception undoes it.

        Inside `transaction`, a part of that. ``frees``: it takes away more than it adds.
        """
        if self.in_transaction:
            assert self._joined is not None
            with self._joined.call() as joined:
                yield joined
            return
        with reserve.heeding(self):
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
        """All that this thread writes inside the ``with`` block becomes visible together at its end, or never.

        Blocks inside it are parts of it; an exception that leaves one of them undoes everything, even if it is caught.
        """
        if self.in_transaction:
            assert self._joined is not None
            try:
                yield
            except BaseException:
                self._joined._failed = True
                raise
            return
        with reserve.heeding(self):
            txn = self.begin_write()
            self._joined, txn._whole = txn, True
            try:
                yield
                if txn._failed:
                    raise AbortedError("the transaction was undone, because a call in it failed half-way")
            except BaseException:
                self._joined = None
                txn.derived.clear()
                txn.abort()
                raise
            self._joined = None
            txn.derived.clear()
            txn.commit()
            self.is_full = False

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside `transaction`."""
        return self._joined is not None and self._turn.mine

    def close(self) -> None:
        """Close the handle, after the snapshots and transactions of other threads; this thread's are ended.

        New ones get ClosedError. Closing twice is fine.
        """
        if self._epoch != fork_epoch():
            self._closed = True
            return
        with self._env.lock:
            if self._closed:
                return
            self._closed = True
            mine = [snapshot for snapshot in self._open if snapshot._thread == threading.get_ident()]
        for snapshot in mine:
            self.end(snapshot)
        if self._turn.mine and self._transaction:
            self._transaction.abort()
        self._turn.wait()
        with self._env.lock:
            self._env.wait(lambda: not self._open and not self.under_way)
        self._turn.unlock()
        self._views.clear()
        environment.release(self._env)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stats(self) -> dict[str, Any]:
        """See `qvec.storage.stats.collect`."""
        from qvec.storage.stats import collect

        return collect(self)

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write the last commit, without free pages, to a new file; ExistsError if there is one."""
        from qvec.storage.copies import copy

        with self.read() as snapshot:
            atomic_file.make(atomic_file.own_path(path), lambda draft: copy(snapshot, draft))

    def compact(self) -> None:
        """Put a copy without free pages in the place of the file, once it is whole, checked and durable.

        Other threads read on, and wait for the moment of the change; those that write wait for all of it.
        LockedError while another process has the file open, or snapshots of this process stay open.
        """
        from qvec.storage.copies import replace_by_copy

        with self.exclusive():
            replace_by_copy(self)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody writes inside the ``with`` block."""
        self._begin_writing()
        try:
            yield
        finally:
            self._end_write(None)

    def _attach(self, durable: bool | None) -> None:
        """Join the file's environment and read its configuration."""
        self._env = environment.acquire(self.path, durable=durable, map_size=self._map_size)
        self._open: set[Snapshot] = set()
        self.pins: weakref.WeakSet[Any] = weakref.WeakSet()
        self._transaction: Transaction | None = None
        self._joined = None
        try:
            with translated(self.path), self._env.lmdb.begin(buffers=True) as txn:
                self.config = MappingProxyType(header.unpack(txn.get(keys.CONFIG), self.path))
            self.codec = self._codec_for(self.config)
            self._views = Views(self._env, self.codec, verify=self._verify)
            self._epoch = fork_epoch()
            self.end(self.begin())
        except BaseException:
            self._epoch = -1
            environment.release(self._env)
            raise

    def _start_write(self) -> Transaction:
        txn = self._env.begin_write()
        try:
            view = self._views.to_write(txn)
        except BaseException:
            txn.abort()
            raise
        self._transaction = Transaction(self, txn, view)
        return self._transaction

    def _end_write(self, view: View | None) -> None:
        """The transaction has ended: ``view`` is what it committed, None if that is not known any more."""
        self._views.written(view)
        self._transaction = None
        self._turn.pass_on()

    def _revive(self) -> None:
        """In a forked child: open the file anew, to read; environment._after_fork left the parent's alone."""
        with environment.revival:
            if self._closed:
                raise ClosedError(f"{self.path} is closed")
            if self._epoch != fork_epoch():
                open_checks.check(self.path)
                self._turn = Turn(self.path)
                self._attach(None)


def _check_options(mode: str, memory: str, verify: bool, durability: str) -> None:
    check_choice("mode", mode, get_args(Mode))
    check_choice("memory", memory, get_args(MemoryMode))
    check_choice("durability", durability, get_args(Durability))
    check_flag("verify", verify)
