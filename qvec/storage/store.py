"""A store: columns, state, records, entries and ids in one LMDB file, with snapshots and write transactions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from qvec._kernels import fork_epoch
from qvec.common.errors import AbortedError, ClosedError, DiskFullError, InputError, LockedError, ReadOnlyError
from qvec.common.types import Durability, Memory, check_choice, check_flag, check_memory, check_timeout
from qvec.storage import atomic_file, environment, header, keys, open_checks, owner
from qvec.storage.file_pair import refuse_hard_links
from qvec.storage.open_file import TIMEOUT, Mode, OpenFile
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
from qvec.storage.write_queue import WriteQueue

__all__ = [
    "TIMEOUT",
    "CodecFactory",
    "ColumnSpec",
    "Mode",
    "Snapshot",
    "StateCodec",
    "Store",
    "Transaction",
    "block_geometry",
]


class Store(OpenFile):
    """An open file, and its write transactions.

    ``is_full``: a commit has failed because the disk was full, and none that adds data has succeeded since.
    """

    is_full = False

    def __init__(
        self,
        path: str,
        mode: Mode,
        memory: Memory,
        checksums: bool,
        map_size: int,
        untrusted: bool,
        state_codec: CodecFactory,
        timeout: float,
        exclusive: bool,
    ) -> None:
        """Called by `create` and `open`."""
        self._is_exclusive, self.is_closed = exclusive, True
        open_checks.check(path)
        if untrusted:
            open_checks.check_structure(path)
        if mode == "rw":
            if not environment.may_be_written(path):
                what = f"{path}-lock" if os.access(path, os.W_OK) else path
                raise ReadOnlyError(f"there is no permission to write {what}; open the file with mode='r'")
            refuse_hard_links(path)
        super().__init__(path, mode, memory, checksums, map_size, state_codec, timeout)
        try:
            if exclusive:
                self._exclude_others()
            if mode == "rw":
                self._discard_leftovers(atomic_file.COMPACTED, "compacts")
                self._discard_leftovers(atomic_file.REEMBEDDED_DRAFT, "re-embeds")
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> Store:
        """The store that follows new commits: this store, unless it is a snapshot store."""
        return self

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        columns: Mapping[str, ColumnSpec],
        configuration: dict[str, Any],
        *,
        state: Any = None,
        state_codec: CodecFactory = plain_codec,
        memory: Memory = "mmap",
        checksums: bool = True,
        durability: Durability = "full",
        map_size: int = environment.MAP_SIZE,
        timeout: float = TIMEOUT,
        exclusive: bool = False,
        draft: str | None = None,
    ) -> Store:
        """Create a file with empty columns, and open it for writing.

        ``configuration`` is plain data that never changes. ``durability`` is stored with it: "relaxed" leaves flushing
        to the system, and a power cut may then destroy the file. ``state`` is the state of the first commit, by default
        an empty dict. The file appears under ``path`` when it is complete. ``draft``: its name until then.
        """
        path = atomic_file.real_path(path)
        _check_options("rw", memory, checksums)
        check_choice("durability", durability, get_args(Durability))
        relaxed = {header.DURABILITY: durability} if durability == "relaxed" else {}
        encoded = state_codec(configuration).encode({} if state is None else state)

        def fill(txn: Any, psize: int) -> None:
            txn.put(keys.CONFIG, header.pack(configuration | relaxed, psize))
            txn.put(keys.STATE, first_state(columns, encoded, psize, txn.id()))

        atomic_file.make(path, lambda name: environment.create(name, fill), draft)
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
        memory: Memory = "mmap",
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

    def open_again(self) -> Store:
        """Open the file that the path refers to now, with the options of this store."""
        return type(self).open(
            self.path, self.mode, state_codec=self._codec_for, memory=self.memory, checksums=self._checksums,
            map_size=self._map_size, timeout=self.timeout, exclusive=self._is_exclusive,
        )  # fmt: skip

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

    def _exclude_others(self) -> None:
        """Become the writer until `close`. The threads of this handle then wait in a separate queue."""
        self.env.queue.acquire(self._handle, "has the file open exclusively", self.timeout, whole_handle=True)
        self._queue = WriteQueue(self.path)

    def _discard_leftovers(self, suffix: str, job: str) -> None:
        """Discard the incomplete file of a process that died, unless another process is writing it."""
        if not atomic_file.has_leftovers(self.path + suffix):
            return
        timeout, self.timeout = self.timeout, 0.0
        with contextlib.suppress(LockedError), self.env.queue.job(job), self.exclusive("opens the file"):
            atomic_file.discard(self.path + suffix)
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
            self.joined, self._block, txn.is_combined = txn, block, True
            try:
                with txn.owner.watched(lambda: self._undo(txn)):
                    yield
                txn.check_whole()
                if self._inner:
                    raise AbortedError("the transaction was undone, because it ended before a block inside it")
            finally:
                self._leave_block(txn)

    def _leave_block(self, txn: Transaction) -> None:
        """End the block of a transaction. Another transaction may have begun since, if this one was undone before."""
        if self.joined is txn:
            self._orphans.update(self._inner)
            self._inner.clear()
            self.joined = self._block = None
        txn.derived.clear()

    def _undo(self, txn: Transaction) -> None:
        """Undo a transaction whose task or thread has ended, so that the next writer can write."""
        self._leave_block(txn)
        txn.abort()

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
        self.env.pair.check_named(self.path)
        return self.env.queue.job(activity)

    @contextlib.contextmanager
    def exclusive(self, activity: str) -> Iterator[None]:
        """Exclude writers during the ``with`` block."""
        self._begin_writing(activity)
        try:
            yield
        finally:
            self._end_write(None)


def _check_options(mode: str, memory: object, checksums: bool) -> None:
    check_choice("mode", mode, get_args(Mode))
    check_memory(memory)
    check_flag("checksums", checksums)
