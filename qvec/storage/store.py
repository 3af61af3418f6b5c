"""A store: columns, state, records, entries and ids in one LMDB file, with snapshots and write transactions."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from qvec._kernels import StoreBase, fork_epoch
from qvec.common.errors import AbortedError, ClosedError, DiskFullError, InputError, LockedError, ReadOnlyError
from qvec.common.types import Durability, MemoryMode, check_choice, check_flag
from qvec.storage import atomic_file, environment, header, keys, open_checks, owner
from qvec.storage.file_pair import refuse_hard_links
from qvec.storage.lmdb_errors import translated
from qvec.storage.page_table import View
from qvec.storage.running_calls import running_calls
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
from qvec.storage.write_queue import WriteQueue

__all__ = ["CodecFactory", "ColumnSpec", "Snapshot", "StateCodec", "Store", "Transaction", "block_geometry"]

Mode = Literal["rw", "r"]
TIMEOUT = 5.0  # seconds


class Store(StoreBase):
    """A handle of an open file. Threads may share a store. A store that a forked child inherits opens its file again.

    ``is_full``: a commit has failed because the disk was full, and no commit that adds data has succeeded since.
    ``snapshots``: the open snapshot stores of this store, with the time (monotonic clock) and commit of each.
    """

    env: environment.Environment
    codec: StateCodec
    _views: ViewCache
    _transaction: Transaction | None
    _is_released: bool
    _is_abandoned: bool
    is_full = False

    def __init__(
        self,
        path: str,
        mode: Mode,
        memory: MemoryMode,
        checksums: bool,
        map_size: int,
        untrusted: bool,
        state_codec: CodecFactory,
        timeout: float,
        exclusive: bool,
    ) -> None:
        """Called by `create` and `open`."""
        self.path, self.mode, self.timeout, self._is_exclusive = path, mode, timeout, exclusive
        self._handle = object()  # represents this store in the queue, which must not keep the store alive
        self.memory, self._checksums, self._map_size = memory, checksums, map_size
        self.is_closed = True
        self._codec_for = state_codec
        self.epoch = -1
        open_checks.check(path)
        if untrusted:
            open_checks.check_structure(path)
        if mode == "rw":
            if not os.access(path, os.W_OK):
                raise ReadOnlyError(f"{path} may not be written; open it with mode='r'")
            refuse_hard_links(path)
        self.is_closed = False
        try:
            self._attach()
        except BaseException:
            self.is_closed = True
            raise
        try:
            if exclusive:
                self._exclude_others()
            if mode == "rw" and atomic_file.has_leftovers(path + atomic_file.COMPACTED):
                self._discard_compacted()
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        """Close a store without references.

        If another thread has a transaction open, only let the next writer write.
        """
        if self.is_closed or self.epoch != fork_epoch() or sys.is_finalizing():
            return
        if self._transaction and not self._transaction.owner.is_running_here:
            self._queue.release()
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
        timeout: float = TIMEOUT,
        exclusive: bool = False,
    ) -> Store:
        """Create a file with empty columns, and open it for writing.

        ``configuration`` is plain data that never changes. ``durability`` is stored with it: "relaxed" leaves flushing
        to the system, and a power cut may then destroy the file. ``state`` is the state of the first commit, by default
        an empty dict. The file appears under ``path`` when it is complete.
        """
        path = atomic_file.real_path(path)
        _check_options("rw", memory, checksums)
        check_choice("durability", durability, get_args(Durability))
        relaxed = {header.DURABILITY: durability} if durability == "relaxed" else {}
        encoded = state_codec(configuration).encode({} if state is None else state)

        def fill(txn: Any, psize: int) -> None:
            txn.put(keys.CONFIG, header.pack(configuration | relaxed, psize))
            txn.put(keys.STATE, first_state(columns, encoded, psize, txn.id()))

        atomic_file.make(path, lambda draft: environment.create(draft, fill))
        return cls.open(
            path, state_codec=state_codec, memory=memory, checksums=checksums, map_size=map_size,
            timeout=timeout, exclusive=exclusive,
        )  # fmt: skip

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: Mode = "rw",
        *,
        state_codec: CodecFactory = plain_codec,
        memory: MemoryMode = "mmap",
        checksums: bool = True,
        map_size: int = environment.MAP_SIZE,
        untrusted: bool = False,
        timeout: float = TIMEOUT,
        exclusive: bool = False,
    ) -> Store:
        """Open a file. Any number of handles in any number of processes may have it open in both modes.

        state_codec: makes the codec of states from the file's configuration.
        memory: an option of the layer above, which calls :meth:`Snapshot.reside`.
        checksums: False skips the checksums of blocks, not of their headers.
        map_size: the address space to reserve at first, in bytes; it grows.
        untrusted: check LMDB's pages, without LMDB, before they are mapped.
        timeout: seconds that a transaction waits for transactions of other handles, threads and processes.
        exclusive: no other handle can write while this one is open.

        Raises NotFoundError, FormatError, CorruptError, LockedError or ReadOnlyError.
        """
        _check_options(mode, memory, checksums)
        seconds = check_timeout("timeout", timeout)
        check_flag("exclusive", exclusive)
        if exclusive and mode == "r":
            raise InputError("exclusive=True is for mode='rw'")
        name = atomic_file.real_path(path)
        return cls(
            name, mode, memory, checksums, map_size, untrusted, state_codec, seconds, exclusive
        )  # fmt: skip

    @property
    def source(self) -> Store:
        """The store that follows new commits: this store, unless it is a snapshot store."""
        return self

    def load_view(self, txn: Any) -> View:
        """Move the view to the commit that a transaction reads. `begin` calls this while it holds ``env.lock``."""
        view = self.view = self._views.to_read(self.view, txn)
        return view

    @contextlib.contextmanager
    def read(self) -> Iterator[Snapshot]:
        """Open a snapshot for the ``with`` block."""
        snapshot = self.begin()
        try:
            yield snapshot
        finally:
            self.end(snapshot)

    def begin_write(self, activity: str = "writes") -> Transaction:
        """Begin a write transaction when all earlier requests have been served. End it with `commit` or `abort`.

        Raises ReadOnlyError for ``mode="r"``. Raises LockedError if this takes longer than the handle's timeout.
        """
        self._begin_writing(activity)
        try:
            txn = self.env.begin_write()
            try:
                view = self._views.to_write(txn)
            except BaseException:
                txn.abort()
                raise
            self._transaction = started = Transaction(self.env, self.path, txn, view, self.codec, self._end_write)
        except BaseException:
            self._end_write(None)
            raise
        return started

    def _begin_writing(self, activity: str) -> None:
        """Wait until the calling task or thread is the writer among all processes."""
        if self.mode == "r":
            raise ReadOnlyError(f"{self.path} is open with mode='r'")
        if self.epoch != fork_epoch():
            self.reopen_in_child()
        self._check_open()
        if self._is_exclusive and self._queue is self.env.queue:  # a forked child
            self._exclude_others()
        self._queue.acquire(self._handle, activity, self.timeout)
        try:
            self._check_open()
            self.env.pair.check_named(self.path)
        except BaseException:
            self._end_write(None)
            raise

    def _check_open(self) -> None:
        if self.is_closed:
            raise ClosedError(f"{self.path} is closed")

    def _exclude_others(self) -> None:
        """Become the writer until `close`. The threads of this handle then wait in a separate queue."""
        self.env.queue.acquire(self._handle, "has the file open exclusively", self.timeout, whole_handle=True)
        self._queue = WriteQueue(self.path)

    def _discard_compacted(self) -> None:
        """Discard the incomplete copy of a process that died, unless another process is writing it."""
        timeout, self.timeout = self.timeout, 0.0
        with contextlib.suppress(LockedError), self.exclusive("opens the file"):
            atomic_file.discard(self.path + atomic_file.COMPACTED)
        self.timeout = timeout

    def _end_write(self, view: View | None) -> None:
        """End a write transaction. ``view``: the committed view, or None if its content is not known."""
        self._views.written(view)
        self._transaction = None
        self._queue.release()
        if self._is_abandoned:
            self._finish_close()

    @contextlib.contextmanager
    def write(self, *, frees: bool = False, activity: str = "writes") -> Iterator[Transaction]:
        """Run a write transaction, which commits at the end of the ``with`` block. An exception aborts it.

        Inside a `transaction` block, join that transaction instead. ``frees``: the block deletes more than it adds.
        """
        if self.in_transaction:
            assert self.joined is not None
            with self.joined.call() as joined:
                yield joined
            return
        with self.note_disk_full():
            txn = self.begin_write(activity)
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
        """Combine all writes of this task or thread in the ``with`` block: they become visible together at its end.

        Nested blocks are parts of the outer block. An exception that leaves a nested block undoes everything, even if
        the outer block catches it.
        """
        if self.in_transaction:
            with self._inner_block(self.joined):
                yield
            return
        block = object()
        with self.write(activity="is in a transaction") as txn, owner.inside(block):
            self.joined, self._block, txn.is_block = txn, block, True
            try:
                yield
                txn.check_whole()
                if self._inner:
                    raise AbortedError("the transaction was undone, because it ended before a block inside it")
            finally:
                self._orphans.update(self._inner)
                self._inner.clear()
                self.joined = self._block = None
                txn.derived.clear()

    @contextlib.contextmanager
    def _inner_block(self, txn: Transaction) -> Iterator[None]:
        """Run a nested block. If the outer block ends first (a generator contains it), both are undone."""
        block = object()
        self._inner.add(block)
        try:
            with owner.inside(block):
                yield
        except BaseException:
            txn.has_failed = True
            raise
        finally:
            self._inner.discard(block)
            orphan = block in self._orphans
            self._orphans.discard(block)
        if orphan:
            raise AbortedError("the outer block of this transaction has already ended, and everything was undone")

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
        """Commit an empty transaction, if there is space. LMDB reuses pages two commits after they were freed."""
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
        """Whether the calling task or thread is inside `transaction`.

        Raises AbortedError inside a block whose outer block has ended.
        """
        if self._orphans and not self._orphans.isdisjoint(owner.blocks()):
            raise AbortedError("the outer block of this transaction has ended, and everything was undone")
        if self._is_abandoned and self._queue.is_held_by(self._handle):
            raise ClosedError(f"{self.path} is closed")
        return self.joined is not None and self._queue.is_held_by(self._handle) and self._block in owner.blocks()

    def job(self, activity: str) -> contextlib.AbstractContextManager[None]:
        """Reserve a job of several transactions for the ``with`` block.

        Raises LockedError if another process, thread or task is doing the same job.
        """
        if self.mode == "r":
            raise ReadOnlyError(f"{self.path} is open with mode='r'")
        if self.epoch != fork_epoch():
            self.reopen_in_child()
        self._check_open()
        return self.env.queue.job(activity)

    def close(self, timeout: float = TIMEOUT) -> None:
        """Close the handle, and end its idle snapshots and transactions. Later calls raise ClosedError.

        Waits for running calls in other threads. Raises LockedError after ``timeout`` seconds, which names the calls
        that are still running; the handle then accepts no more calls, and another `close` continues to wait. Closing
        twice has no effect. If another thread has a transaction open, that thread undoes the transaction when it leaves
        its block.
        """
        deadline = time.monotonic() + check_timeout("timeout", timeout)
        if self.epoch != fork_epoch():
            self.is_closed = True
            return
        with self.env.lock:
            if self._is_released:
                return
            self.is_closed = True
            if not self.env.wait(self._are_snapshots_ended, max(0.0, deadline - time.monotonic())):
                raise self._still_running(timeout)
        if (txn := self._transaction) is not None:
            if txn.owner.is_running_here or (txn.is_idle and txn.owner.has_ended):
                txn.abort()
            elif txn.is_idle:
                self._is_abandoned = txn.is_abandoned = True
                return
        if not self._queue.wait_for(self._handle, max(0.0, deadline - time.monotonic())):
            raise self._still_running(timeout)
        self._finish_close()

    def _are_snapshots_ended(self) -> bool:
        """End the snapshots that no running call uses. Returns whether no others are left."""
        for snapshot in list(self.open_snapshots):
            if self.uses.get(snapshot) == 0 or snapshot.thread == threading.get_ident():
                self.end(snapshot)
        return not (self.open_snapshots or self.running)

    def _finish_close(self) -> None:
        with self.env.lock:
            if self._is_released:
                return
            self._is_released, self._is_abandoned = True, False
        if self._queue is not self.env.queue:
            self.env.queue.release()
        if self.mode == "rw":
            self.env.remove_writing_handle()
        self._views.clear()
        self.view = View()
        environment.release(self.env)

    def _still_running(self, timeout: float) -> LockedError:
        calls = running_calls(self)
        return LockedError(f"{self.path}: calls are still running after {timeout:g} s: {', '.join(calls) or 'unknown'}")

    @contextlib.contextmanager
    def idle(self, snapshot: Snapshot) -> Iterator[None]:
        """Allow `close` to end a snapshot during the ``with`` block.

        Raises ClosedError if it has ended the snapshot.
        """
        self.add_use(snapshot, -1)
        try:
            yield
        finally:
            self.add_use(snapshot, 1)
        snapshot.live()

    def add_use(self, snapshot: Snapshot, by: int) -> None:
        """Change the number of running calls that use a snapshot. Without an entry in ``uses``, the number is one."""
        with self.env.lock:
            self.uses[snapshot] = self.uses.get(snapshot, 1) + by
            if self.uses[snapshot] == 1:
                del self.uses[snapshot]
            if self.env.waiting:
                self.env.idle.notify_all()

    @property
    def readable_path(self) -> str:
        """A path that refers to the open file, even after the file was renamed or removed."""
        return self.env.pair.readable_path

    @property
    def closed(self) -> bool:
        """Whether the store is closed."""
        return self.is_closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def exclusive(self, activity: str) -> Iterator[None]:
        """Exclude writers during the ``with`` block."""
        self._begin_writing(activity)
        try:
            yield
        finally:
            self._end_write(None)

    def _attach(self) -> None:
        """Join the file's environment and read its configuration."""
        self.env = environment.acquire(self.path, map_size=self._map_size)
        self.open_snapshots, self.view, self.snapshot_type = set(), View(), Snapshot
        self.snapshots: weakref.WeakKeyDictionary[Store, tuple[float, int]] = weakref.WeakKeyDictionary()
        self.uses: dict[Snapshot, int] = {}
        self._queue, self._transaction = self.env.queue, None
        self.joined, self._block = None, None  # of the open `transaction` block
        self._inner: set[object] = set()  # open nested blocks
        self._orphans: set[object] = set()  # nested blocks whose outer block has ended
        self._is_released = self._is_abandoned = False
        try:
            if self.mode == "rw":
                self.env.add_writing_handle()
            with translated(self.path), self.env.lmdb.begin(buffers=True) as txn:
                stored = header.unpack(txn.get(keys.CONFIG), self.path)
            self.config = MappingProxyType({name: stored[name] for name in stored if name != header.DURABILITY})
            self.codec = self._codec_for(self.config)
            self._views = ViewCache(self.env, self.codec, checksums=self._checksums)
            self.epoch = fork_epoch()
            self.end(self.begin())
        except BaseException:
            self.epoch = -1
            if self.mode == "rw":
                self.env.remove_writing_handle()
            environment.release(self.env)
            raise

    def reopen_in_child(self) -> None:
        """In a forked child: open the file again, because the parent's environment must not be used."""
        with environment.reopen_lock:
            if self.is_closed:
                raise ClosedError(f"{self.path} is closed")
            if self.epoch != fork_epoch():
                open_checks.check(self.path)
                self._attach()


def check_timeout(name: str, seconds: float) -> float:
    """Return a number of seconds as a float. Raises InputError if it is negative or not a number."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise InputError(f"{name} must be a number of seconds that is not negative, got {seconds!r}")
    return float(seconds)


def _check_options(mode: str, memory: str, checksums: bool) -> None:
    check_choice("mode", mode, get_args(Mode))
    check_choice("memory", memory, get_args(MemoryMode))
    check_flag("checksums", checksums)
