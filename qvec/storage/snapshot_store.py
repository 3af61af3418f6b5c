"""One commit of a store that stays readable while others follow."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NoReturn

from qvec.common.errors import ClosedError, ReadOnlyError
from qvec.common.types import MemoryMode
from qvec.storage import atomic_file
from qvec.storage.snapshot import Snapshot
from qvec.storage.store import Store


class PinnedStore:
    """Stands in for a store that is open to read. Any thread may use it; close it soon, for it keeps pages."""

    mode: Literal["r"] = "r"

    def __init__(self, store: Store | PinnedStore) -> None:
        """The last commit of ``store``, which must not be in a transaction of this thread; of one that is pinned, it.

        What is pinned twice is given up with the first.
        """
        self._store, self._snapshot = store, store.begin()
        self.pins: weakref.WeakSet[PinnedStore] = weakref.WeakSet()
        self.path: str = store.path
        self.config: Mapping[str, Any] = store.config
        self.memory: MemoryMode = store.memory
        self.since, self.commit = time.monotonic(), self._snapshot.txn_id
        store.pins.add(self)

    def __del__(self) -> None:
        self._store.end(self._snapshot)

    def begin(self) -> Snapshot:
        """The snapshot; ClosedError after `close`, or that of the store."""
        if self.closed:
            raise ClosedError("this snapshot is closed")
        _ = self._snapshot.txn_id
        return self._snapshot

    def end(self, snapshot: Snapshot) -> None:
        """Nothing: the snapshot stays until `close`."""

    def quick(self, query: object, options: object) -> None:
        """Nothing: a store's short way is to its last commit."""

    @contextlib.contextmanager
    def read(self) -> Iterator[Snapshot]:
        """The snapshot for the length of a ``with`` block, and longer."""
        yield self.begin()

    def write(self, *, frees: bool = False) -> NoReturn:
        """ReadOnlyError."""
        raise ReadOnlyError("a snapshot is only read")

    transaction = compact = write

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write this commit, without free pages, to a new file; ExistsError if there is one."""
        from qvec.storage.copies import copy

        atomic_file.make(atomic_file.own_path(path), lambda draft: copy(self.begin(), draft))

    @property
    def in_transaction(self) -> bool:
        """No."""
        return False

    def stats(self) -> dict[str, Any]:
        """Those of the store."""
        return self._store.stats()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self not in self._store.pins

    def close(self) -> None:
        """End the snapshot; twice is fine."""
        self._store.pins.discard(self)
        self._store.end(self._snapshot)
