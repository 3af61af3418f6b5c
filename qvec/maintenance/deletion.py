"""Delete vectors by id or by a filter, and erase deleted data from the file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from qvec.common.errors import CorruptError, DiskFullError, InputError, LockedError
from qvec.common.types import Missing, Where
from qvec.index import Progress
from qvec.maintenance.optimize import Maintenance
from qvec.rows.access import RowAccess
from qvec.rows.lookup import find_rows, ids_of_rows
from qvec.rows.reader import refuse_missing
from qvec.rows.visibility import expired_among
from qvec.schema.validation import id_keys, worker_threads
from qvec.search.row_selection import matching_rows
from qvec.storage.store import Store, Transaction

Result = TypeVar("Result")


@dataclass(frozen=True)
class Deletion:
    """The vectors to delete: those with the ids whose ``keys`` are given, those that match ``where``, or both.

    Rows that have expired are deleted, too, but they do not count as stored.
    """

    access: RowAccess
    keys: list[bytes] | None
    where: Where | None
    missing: Missing
    threads: int

    def __post_init__(self) -> None:
        if self.where is not None and not self.where:
            raise InputError("where is empty and would delete everything; give a condition")
        if self.keys is None and self.where is None:
            raise InputError("give the ids to delete, or a filter")

    def run(self, txn: Transaction) -> int:
        """Delete the vectors inside a transaction. Returns how many of them were stored."""
        if self.keys is None:
            rows = matching_rows(txn, self.where)
            ids = ids_of_rows(txn, rows)
            keys = id_keys(ids.tolist() if ids.dtype == object else ids)
        else:
            keys = list(dict.fromkeys(self.keys))
            rows = find_rows(txn, keys)
        expired = expired_among(txn, rows)
        if self.missing == "error":
            refuse_missing(keys, np.where(expired, -1, rows), self.access.config)
        found = np.flatnonzero(rows >= 0)
        if self.where is not None and self.keys is not None:
            found = found[np.isin(rows[found], matching_rows(txn, self.where))]
        if len(found):
            self.access.writer(txn).delete([keys[i] for i in found], rows[found], self.threads)
        return len(found) - int(expired[found].sum())


def delete(store: Store, maintenance: Maintenance, deletion: Deletion) -> int:
    """Delete in one transaction, then repair the index if that is due. Returns how many vectors were stored."""

    def work() -> tuple[int, bool]:
        with store.write(frees=True) as txn:
            deleted = deletion.run(txn)
            return deleted, deleted > 0 and deletion.access.writer(txn).repair_due

    deleted, due = _with_reserve(store, work)
    if due:
        with contextlib.suppress(DiskFullError):  # the rest of the repair remains due
            maintenance.repair_index(deleted, deletion.threads)
    return deleted


def erase(
    store: Store, maintenance: Maintenance, deletion: Deletion, progress: Progress | None, expired: bool = False
) -> int:
    """Delete, and overwrite everything that was ever deleted. Returns how many vectors were stored.

    ``expired``: also delete the rows that have expired, and count them.
    """

    with store.read() as snap:
        if snap.state.reembedding is not None:
            raise InputError(f"a second file of {store.path} has copies of the vectors: call discard_reembed() first")

    def work() -> int:
        with store.write(frees=True) as txn:
            txn.state = replace(txn.state, erasing=True)
            return deletion.run(txn)

    deleted = _with_reserve(store, work)
    if expired:
        deleted += maintenance.remove_expired(deletion.threads)
    maintenance.erase(deletion.threads, progress, store.timeout)
    return deleted


def _with_reserve(store: Store, work: Callable[[], Result]) -> Result:
    """Call ``work``, which frees space. If the disk is full, call it again with the space reserved for deletes."""
    try:
        done = work()
    except DiskFullError:
        if store.in_transaction:
            raise
        store.free_reserve()
        done = work()
    if store.is_full and not store.in_transaction:
        store.commit_empty()
    return done


def finish_erasure(store: Store, maintenance: Maintenance) -> None:
    """Continue an unfinished erasure, unless that is not possible at present."""
    # LockedError: snapshots use the data, or another process erases. CorruptError: a repair is needed first
    with contextlib.suppress(LockedError, CorruptError), store.job("erases"):
        maintenance.erase(worker_threads(None), None, patience=0.0)
