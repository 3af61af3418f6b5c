"""An open file: its environment, its snapshots, and the end of both."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Literal, Self

from qvec._kernels import StoreBase, fork_epoch
from qvec.common.errors import ClosedError, LockedError
from qvec.common.types import Memory, check_timeout
from qvec.storage import environment, header, keys, open_checks
from qvec.storage.lmdb_errors import translated
from qvec.storage.page_table import View
from qvec.storage.running_calls import running_calls
from qvec.storage.snapshot import Snapshot
from qvec.storage.state_record import CodecFactory, StateCodec
from qvec.storage.transaction import Transaction
from qvec.storage.view_cache import ViewCache

Mode = Literal["rw", "r"]
TIMEOUT = 5.0  # seconds


class OpenFile(StoreBase):
    """A handle of an open file. Threads may share a handle. A handle that a forked child inherits opens the file again.

    ``snapshots``: the open snapshot stores of this store, with the time (monotonic clock) and commit of each.
    """

    env: environment.Environment
    codec: StateCodec
    _views: ViewCache
    _transaction: Transaction | None
    _is_released: bool
    _is_abandoned: bool
    _block: object

    def __init__(
        self,
        path: str,
        mode: Mode,
        memory: Memory,
        checksums: bool,
        map_size: int,
        state_codec: CodecFactory,
        timeout: float,
    ) -> None:
        """The caller has checked the file (:mod:`qvec.storage.open_checks`)."""
        self.path, self.mode, self.timeout = path, mode, timeout
        self._handle = object()  # represents this store in the queue, which must not keep the store alive
        self.memory: Memory = memory if isinstance(memory, str) else int(memory)
        self._checksums, self._map_size = checksums, map_size
        self._codec_for = state_codec
        self.epoch = -1
        self.is_closed = False
        try:
            self._attach()
        except BaseException:
            self.is_closed = True
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

    def _check_open(self) -> None:
        if self.is_closed:
            raise ClosedError(f"{self.path} is closed")

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
            if txn.owner.is_running_here or (txn.is_between_calls and txn.owner.has_ended):
                txn.abort()
            elif txn.is_between_calls:
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

    def _attach(self) -> None:
        """Join the file's environment and read its configuration."""
        self.env = environment.acquire(self.path, map_size=self._map_size)
        self.open_snapshots, self.view, self.snapshot_type = set(), View(), Snapshot
        self.snapshots: weakref.WeakKeyDictionary[StoreBase, tuple[float, int]] = weakref.WeakKeyDictionary()
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
