"""The two views of a store that follow the last commit: one for its snapshots, and one that its writer changes."""

from __future__ import annotations

from typing import Any

from qvec.storage.environment import Environment
from qvec.storage.lmdb_errors import translated
from qvec.storage.page_table import Loader, View
from qvec.storage.state_record import StateCodec


class ViewCache:
    """Brings a view to the last commit when a read or a write begins, by loading the changes only."""

    def __init__(self, env: Environment, codec: StateCodec, *, checksums: bool) -> None:
        self._env, self._loader = env, Loader(env, codec, checksums=checksums)
        self._writers = View(writable=True)

    def to_read(self, view: View, txn: Any) -> View:
        """A view at a transaction's commit: ``view``, changed in place, or a changed copy if reads use it.

        The caller has ``env.lock``. On an error the transaction is aborted, and ``view`` is empty.
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
        """The writer's view at the commit before a write transaction, its columns attached to the map."""
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
        """Drop the columns of the writer's view."""
        self._writers = View(writable=True)
