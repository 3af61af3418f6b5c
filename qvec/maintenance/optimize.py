"""Maintenance in separate transactions. Stored data does not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qvec.index import Progress
from qvec.maintenance.reclaim import Reclaim
from qvec.rows.access import RowAccess
from qvec.rows.lookup import ids_of_rows
from qvec.rows.writer import Writer
from qvec.schema.bitmaps import are_in, read_bitmap
from qvec.schema.fresh import FreshRows
from qvec.schema.layout import DELETED
from qvec.schema.state import GraphState, State
from qvec.schema.validation import id_keys
from qvec.storage.store import Store, Transaction
from qvec.storage.zero_free_pages import zero_free_pages

REPAIRED_PER_DELETED = 20  # a repair visits this many rows of the index for each deleted row
REPAIRED_ROWS = 4096  # one transaction visits at most this many
EXPIRED_ROWS = 1024  # one transaction deletes at most this many rows that have expired
MOVED_ROWS = 512  # one transaction moves at most this many rows, because each must be linked again
# A deleted or a moved row changes about 2 m lists and a block of each column, each in another page. In a large
# collection, optimize() therefore waits until it removes a share of the rows that is worth these pages (ADR 35).
LARGE_ROWS = 65_536
MIN_TOMBSTONE_SHARE = 1 / 200  # of the rows of the index
MIN_UNUSED_SHARE = 1 / 20  # of all rows


@dataclass(frozen=True)
class Maintenance:
    """Maintains an index and the order of rows. ``writer``: makes the writer of a transaction."""

    store: Store
    access: RowAccess
    writer: Callable[[Transaction], Writer]

    def optimize(self, threads: int, progress: Progress | None) -> int:
        """Remove deleted rows from the index, and fill unused rows.

        Returns how many unused rows the columns have lost.
        """
        before = self._unused_rows()
        self.remove_expired(threads)
        self.grow_index(threads, progress, 0.0)
        self.flush_reverse_edges(threads)
        for _ in range(2):  # moving a row leaves a deleted row
            if self._has_many("tombstones", MIN_TOMBSTONE_SHARE):
                self.remove_tombstones(threads, progress)
            if self._has_many("unused", MIN_UNUSED_SHARE):
                self.move_rows(threads, progress)
            else:
                self._remove_last_rows()
        self.merge_postings(invalid_only=False)
        return max(before - self._unused_rows(), 0)  # other threads may have deleted more rows

    def remove_expired(self, threads: int) -> int:
        """Delete the rows that have expired. Returns their number."""
        with self.store.read() as snap:
            left = snap.state.expires is not None
        done = 0
        while left:
            from qvec.rows.expiry import expired_rows, present  # late: few collections have rows that expire

            with self.store.write(frees=True) as txn:
                rows = expired_rows(txn, present())[:EXPIRED_ROWS]
                left = len(rows) > 0
                if left:
                    ids = ids_of_rows(txn, rows)
                    keys = id_keys(ids.tolist() if ids.dtype == object else ids)
                    self.writer(txn).delete(keys, rows, threads)
            done += len(rows)
        return done

    def repair_index(self, deleted: int, threads: int) -> None:
        """Remove deleted rows from the index, in as many steps as are due after ``deleted`` rows were deleted.

        At this pace, a repair has visited the whole index before the next repair is due.
        """
        due = REPAIRED_PER_DELETED * deleted
        while due > 0:
            with self.store.write(frees=True) as txn:
                writer = self.writer(txn)
                writer.repair_index(min(due, REPAIRED_ROWS), threads)
                if not writer.repair_due:
                    return
            due -= REPAIRED_ROWS

    def remove_tombstones(self, threads: int, progress: Progress | None) -> None:
        """Remove all deleted rows from the index. ``progress`` is called with numbers of visited rows.

        Rows that others delete during the call are left to the next call. Otherwise a call might never end.
        """
        with self.store.read() as snap:
            total = 2 * snap.state.n  # a repair that has begun, and another one for rows that were deleted since then
        done = 0
        while done < total:
            with self.store.write() as txn:
                if not txn.state.index.tombstones:
                    return
                self.writer(txn).repair_index(REPAIRED_ROWS, threads)
                done = done + REPAIRED_ROWS if txn.state.index.tombstones else total
            if progress is not None:
                progress(min(done, total), total)

    def grow_index(
        self, threads: int, progress: Progress | None, share: float | None = None, fresh: FreshRows | None = None
    ) -> bool:
        """Call :meth:`qvec.maintenance.growth.Growth.run`."""
        from qvec.maintenance.growth import Growth  # late: few calls need it

        return Growth(self.store, self.access, self.writer, threads, fresh).run(progress, share)

    def flush_reverse_edges(self, threads: int) -> None:
        """Add the pending reverse edges of the graph."""
        with self.store.read() as snap:
            if not isinstance(snap.state.index, GraphState) or not len(snap.state.index.pending_rows):
                return
        with self.store.write() as txn:
            if txn.state.active is not None:
                self.writer(txn).extend_index(np.zeros(0, np.uint32), threads, None)

    def move_rows(self, threads: int, progress: Progress | None) -> None:
        """Move rows toward the start until no unused row is between them, and remove the unused rows at the end."""
        done, moved = 0, MOVED_ROWS
        while moved == MOVED_ROWS:
            with self.store.write() as txn:
                if txn.state.active is None:
                    return
                moved, left = Reclaim(self.writer(txn)).move_rows(MOVED_ROWS, threads)
            done += moved
            if moved and progress is not None:
                progress(done, done + left)

    def merge_postings(self, invalid_only: bool) -> None:
        """Merge posting lists, or only remove those of deleted rows; one segment in a commit."""
        with self.store.read() as snap:
            left = any(declared.postings is not None for declared in snap.state.fields.values())
        while left:
            with self.store.write() as txn:
                left = txn.state.active is not None and self.writer(txn).fields.merge_postings(invalid_only)

    def erase(self, threads: int, progress: Progress | None, patience: float) -> None:
        """Overwrite all unused space. Until this is done, the state records that an erasure is pending.

        patience: seconds to wait for other processes.
        """
        self.remove_tombstones(threads, progress)
        self.merge_postings(invalid_only=True)
        with self.store.write() as txn:
            if txn.state.active is not None:
                Reclaim(self.writer(txn)).zero_unused_rows()
        zero_free_pages(self.store, patience)
        with self.store.write() as txn:
            txn.state = replace(txn.state, erasing=False)

    def _has_many(self, kind: Literal["tombstones", "unused"], least: float) -> bool:
        """Whether tombstones or unused rows are at least this share of all rows; any number if there are few rows."""
        with self.store.read() as snap:
            state: State = snap.state
            tombstones = state.index.tombstones
            n = tombstones if kind == "tombstones" else state.n - state.live - tombstones
            return n > 0 and (state.n <= LARGE_ROWS or n >= least * state.n)

    def _remove_last_rows(self) -> None:
        """Remove the unused rows at the end of the columns."""
        with self.store.read() as snap:
            n = snap.state.n
            if n == snap.state.live or not are_in(read_bitmap(snap.columns[DELETED], n), np.array([n - 1]))[0]:
                return
        with self.store.write() as txn:
            if txn.state.active is not None:
                Reclaim(self.writer(txn)).remove_last_rows()

    def _unused_rows(self) -> int:
        with self.store.read() as snap:
            return int(snap.state.n - snap.state.live)
