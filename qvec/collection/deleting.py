"""The part of a collection that takes vectors away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import numpy as np

from qvec.collection.handle import worker_threads
from qvec.collection.payloads import Payloads
from qvec.common.errors import DiskFullError, InputError
from qvec.common.types import Missing, NDArray, Where, check_choice
from qvec.index import Progress
from qvec.rows.lookup import find_rows, ids_of_rows
from qvec.rows.reader import refuse_missing
from qvec.schema.validation import as_id_set, id_keys
from qvec.storage.store import Transaction

Done = TypeVar("Done")


class Deleting(Payloads):
    """What :class:`qvec.Collection` inherits of calls that delete."""

    def delete(self, ids: Any = None, *, where: Where | None = None, missing: Missing = "ignore") -> int:
        """Delete by id, or what fulfils a filter, all or nothing; how many were stored.

        where: as in :meth:`Collection.search`, not empty; together with ids, those of them that fulfil it.
        On a full disk it uses room that the file keeps for that; many at once may need more than fewer do.
        ``missing="error"``: MissingIdError for an id that is not stored.
        """
        wanted = self._to_delete(ids, where, missing)

        def work() -> tuple[int, bool]:
            with self._store.write(frees=True) as txn:
                deleted = self._delete(txn, wanted, where, missing)
                return deleted, deleted > 0 and self._writer(txn).is_mending_due

        deleted, due = self._with_reserve(work)
        if due:
            with contextlib.suppress(DiskFullError):  # what is not done stays due
                self._maintenance.mend(deleted, worker_threads(None))
        return deleted

    def erase(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        missing: Missing = "ignore",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Delete as :meth:`delete` does, and overwrite all that the file still holds of what was ever deleted.

        Returns how many were stored. Vectors, codes, links, payloads, ids and index entries are gone from every byte
        of the file when this returns, free pages and gaps between records included; so are codes of generations that
        are not in force. What was learned of many vectors (calibrations, centroids of lists) stays, and backups, copies
        and the disk itself are not reached. Takes the index through a repair and reads the file once: erase many at a
        time. progress: of the repair.

        A process that dies half-way has deleted; the next open for writing overwrites. Raises MissingIdError;
        InputError inside a transaction; LockedError where snapshots keep what is to be overwritten: it is
        deleted then, and is overwritten by the next call, ``erase([])`` too, or the next open for writing.
        """
        if self._store.in_transaction:
            raise InputError("erase() makes transactions of its own; call it outside of one")
        wanted = self._to_delete(ids, where, missing)
        workers = worker_threads(threads)

        def work() -> int:
            with self._store.write(frees=True) as txn:
                txn.state["erasing"] = True
                return self._delete(txn, wanted, where, missing)

        deleted = self._with_reserve(work)
        self._maintenance.erase(workers, progress)
        return deleted

    def _with_reserve(self, work: Callable[[], Done]) -> Done:
        """Do what frees room; once more, with the room that the file keeps for it, where the disk has none."""
        try:
            done = work()
        except DiskFullError:
            if self._store.in_transaction:
                raise
            self._store.free_reserve()
            done = work()
        if self._store.is_full and not self._store.in_transaction:
            self._store.commit_empty()
        return done

    def _to_delete(self, ids: Any, where: Where | None, missing: Missing) -> list[bytes] | None:
        """Keys of the ids that are given, once they and the options are checked; None: a filter says it all."""
        check_choice("missing", missing, get_args(Missing))
        if where is not None and not where:
            raise InputError("where is empty and would delete everything; give a condition")
        if ids is None and where is None:
            raise InputError("give the ids to delete, or a filter")
        return None if ids is None else id_keys(as_id_set(ids, self._config.ids))

    def _delete(self, txn: Transaction, wanted: list[bytes] | None, where: Where | None, missing: Missing) -> int:
        keys, rows = self._keys_and_rows(txn, wanted, where)
        if missing == "error":
            refuse_missing(keys, rows, self._config)
        found = np.flatnonzero(rows >= 0)
        if where is not None and wanted is not None:
            found = found[np.isin(rows[found], self._matching_rows(txn, where))]
        if len(found):
            self._writer(txn).delete([keys[i] for i in found], rows[found], worker_threads(None))
        return len(found)

    def _keys_and_rows(
        self, txn: Transaction, wanted: list[bytes] | None, where: Where | None
    ) -> tuple[list[bytes], NDArray[np.int64]]:
        """Keys of ids, each once, and their rows; without keys, of the rows that fulfil a filter."""
        if wanted is not None:
            keys = list(dict.fromkeys(wanted))
            return keys, find_rows(txn, keys)
        rows = self._matching_rows(txn, where)
        ids = ids_of_rows(txn, rows)
        return id_keys(ids.tolist() if ids.dtype == object else ids), rows
