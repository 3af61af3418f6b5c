"""The two views that a handle keeps up to the last commit: one its snapshots share, one its writer patches."""

from __future__ import annotations

from typing import Any

from qvec.storage.environment import Environment
from qvec.storage.lmdb_errors import translated
from qvec.storage.page_table import Loader, StateCodec, View


class Views:
    """Each is brought up to a commit when somebody begins to read or to write, by what changed since it last was."""

    def __init__(self, env: Environment, codec: StateCodec, *, verify: bool) -> None:
        """Of nothing yet. ``shared``: of the commit that was last read."""
        self._env = env
        self.shared, self._writers = View(), View()
        self._to_read = Loader(env, codec, verify=verify)
        self._to_write = Loader(env, codec, verify=verify, writable=True)

    def to_read(self, txn: Any) -> View:
        """The shared view, brought up to a transaction's commit: in place, or on a copy while searches use it.

        Under env.lock. The transaction is aborted where that fails.
        """
        view = self.shared.clone() if self.shared.users else self.shared
        self.shared = View()
        try:
            with translated(self._env.path):
                self._to_read.refresh(view, txn, txn.id())
        except BaseException:
            txn.abort()
            raise
        self.shared = view
        self._env.dependents.add(view)
        return view

    def to_write(self, txn: Any) -> View:
        """The writer's view at the commit before a write transaction, its columns attached to the map."""
        commit = txn.id() - 1
        if self._writers.txn_id != commit:
            with translated(self._env.path):
                self._to_write.refresh(self._writers, txn, commit)
            with self._env.lock:
                self._env.dependents.add(self._writers)
        size = self._env.reaches()
        for column in self._writers.columns.values():
            column.attach(self._env.base, size)
        return self._writers

    def written(self, view: View | None) -> None:
        """What a write transaction has committed; None when that is not known any more."""
        self._writers = view or View()

    def clear(self) -> None:
        """Let go of every column."""
        self.shared, self._writers = View(), View()
