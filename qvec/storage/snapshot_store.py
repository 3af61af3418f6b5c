"""A read-only store that stays at one commit while other stores follow new commits."""

from __future__ import annotations

import time
import weakref

from qvec._kernels import Deadline, fork_epoch
from qvec.common.errors import ClosedError
from qvec.storage.snapshot import Snapshot
from qvec.storage.store import TIMEOUT, Store


class SnapshotStore(Store):
    """A read-only store whose snapshots all read the same commit. Close it soon: its pages cannot be reused until then.

    Any thread may use it. ``source`` is the store that follows new commits.
    """

    _snapshot: Snapshot | None = None

    def __init__(self, store: Store) -> None:
        """Open the last commit of ``store``, which must not be in a transaction of this thread.

        If ``store`` is a snapshot store itself, the new store shares its snapshot, which ends with ``store``.
        """
        self._store = store
        self._snapshot = store.begin()
        store.source.add_use(self._snapshot, -1)
        self.path, self.mode, self.memory, self._checksums = store.path, "r", store.memory, store._checksums
        self.timeout, self.config, self.codec = store.timeout, store.config, store.codec
        self.env, self._views, self.joined = store.env, store._views, None
        self.snapshots = weakref.WeakKeyDictionary()
        store.snapshots[self] = time.monotonic(), self._snapshot.txn_id

    def __del__(self) -> None:
        if self._snapshot is not None:
            self._end_snapshot(self._snapshot)

    def _end_snapshot(self, snapshot: Snapshot) -> None:
        """End the snapshot, unless it belongs to another snapshot store."""
        if self._store is self.source:
            self.source.uses.pop(snapshot, None)
            self.source.end(snapshot)

    @property
    def source(self) -> Store:
        return self._store.source

    def begin(self, deadline: Deadline | None = None) -> Snapshot:
        """Return the snapshot. Raises ClosedError if this store, or the store that it was made from, was closed."""
        if self._snapshot is None or self.closed:
            raise ClosedError("this snapshot is closed")
        self._snapshot.live()
        self.source.add_use(self._snapshot, 1)
        return self._snapshot

    def end(self, snapshot: Snapshot) -> None:
        """End a call that reads the snapshot. The snapshot itself ends with `close`."""
        if snapshot.epoch == fork_epoch() and snapshot.txn is not None:
            self.source.add_use(snapshot, -1)

    def add_use(self, snapshot: Snapshot, by: int) -> None:
        self.source.add_use(snapshot, by)

    @property
    def in_transaction(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self not in self._store.snapshots

    def close(self, timeout: float = TIMEOUT) -> None:
        """End the snapshot. Closing twice has no effect."""
        if self._snapshot is not None:
            self._store.snapshots.pop(self, None)
            self._end_snapshot(self._snapshot)
