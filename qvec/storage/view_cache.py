"""The two views of a store that follow the last commit: one for snapshots, and one that the writer changes."""

from __future__ import annotations

from typing import Any

from qvec.storage.environment import Environment
from qvec.storage.lmdb_errors import translated
from qvec.storage.page_table import Loader, View
from qvec.storage.state_record import StateCodec


class ViewCache:
    """Moves a view to the last commit when a read or a write begins. It loads only what has changed."""

    def __init__(self, env: Environment, codec: StateCodec, *, checksums: bool) -> None:
        self._env, self._loader = env, Loader(env, codec, checksums=checksums)
        self._writers = View(writable=True)

    def to_read(self, view: View, txn: Any) -> View:
        """Return a view of the commit that a transaction reads.

        Moves ``view`` in place, or a copy of it if running reads use it. The caller holds ``env.lock``. After an error
        the transaction is aborted, and ``view`` is empty.
        """
        loaded = view.clone() if view.users else view
        try:
            with translated(self._env.path):
                self._loader.refresh(loaded, txn, txn.id())
        except BaseException:
            if loaded is view:
                view.reset()
            txn.abort()
            raise
        self._env.dependents.add(loaded)
        return loaded

    def to_write(self, txn: Any) -> View:
        """Return the writer's view of the commit before a write transaction. Its columns point into the map."""
        commit = txn.id() - 1
        if self._writers.txn_id != commit:
            with translated(self._env.path):
                self._loader.refresh(self._writers, txn, commit)
            with self._env.lock:
                self._env.dependents.add(self._writers)
        size = self._env.used_bytes()
        for column in self._writers.columns.values():
            column.attach(self._env.base, size)
        return self._writers

    def written(self, view: View | None) -> None:
        """Set the writer's view to that of a finished transaction; None if its content is not known."""
        self._writers = view or View(writable=True)

    def clear(self) -> None:
        """Forget the columns of the writer's view."""
        self._writers = View(writable=True)
