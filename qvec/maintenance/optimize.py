"""Work that keeps a collection fit: in transactions of its own, none of which changes what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qvec.index import Progress
from qvec.maintenance.reclaim import Reclaim
from qvec.rows.writer import Writer
from qvec.storage.store import Store, Transaction
from qvec.storage.zero_free_pages import zero_free_pages

PACE = 20  # rows of the index that are gone through for each row that is deleted
STEP = 4096  # ... in one transaction
MOVED = 512  # rows moved by one transaction: each is linked anew


@dataclass(frozen=True)
class Maintenance:
    """``writer``: makes the writer of a transaction."""

    store: Store
    writer: Callable[[Transaction], Writer]

    def optimize(self, threads: int, progress: Progress | None) -> int:
        """Take deleted rows out of the index and move the other rows together; how many unused rows were released."""
        before = self._unused_rows()
        self.settle(threads)
        for _ in range(2):  # moving rows leaves deleted ones behind
            self.mend_all(threads, progress)
            self.gather(threads, progress)
        return max(before - self._unused_rows(), 0)  # other threads may have deleted more meanwhile

    def mend(self, rows: int, threads: int) -> None:
        """Take deleted rows out of the index, as much of it as is due for ``rows`` of them.

        At this pace the index is gone through before as many rows more are deleted as made it due.
        """
        owed = PACE * rows
        while owed > 0:
            with self.store.write(frees=True) as txn:
                writer = self.writer(txn)
                writer.mend(min(owed, STEP), threads)
                if not writer.is_mending_due:
                    return
            owed -= STEP

    def mend_all(self, threads: int, progress: Progress | None) -> None:
        """Take the deleted rows out of the index; ``progress`` is called with rows of it.

        What is deleted meanwhile is left to the next call, or this one might not end.
        """
        done, total = 0, 2 * self._n_rows()  # a repair that is running, and one for what was deleted since it began
        while done < total:
            with self.store.write() as txn:
                if not txn.state["index"].get("tombstones", 0):
                    return
                self.writer(txn).mend(STEP, threads)
                done = done + STEP if txn.state["index"].get("tombstones", 0) else total
            if progress is not None:
                progress(min(done, total), total)

    def settle(self, threads: int) -> None:
        """Have the index do what it left for later."""
        with self.store.read() as snap:
            if not snap.state["index"].get("pending_rows"):
                return
        with self.store.write() as txn:
            if txn.state["quantizer"] is not None:
                self.writer(txn).extend_index(np.zeros(0, np.uint32), threads, None)

    def gather(self, threads: int, progress: Progress | None) -> None:
        """Move rows to the front until none that is not in use lies between them, and give up those behind."""
        done, moved = 0, MOVED
        while moved == MOVED:
            with self.store.write() as txn:
                if txn.state["quantizer"] is None:
                    return
                moved, left = Reclaim(self.writer(txn)).gather(MOVED, threads)
            done += moved
            if moved and progress is not None:
                progress(done, done + left)

    def erase(self, threads: int, progress: Progress | None) -> None:
        """Overwrite all that is not in use; the state says that this is to be done until it is."""
        self.mend_all(threads, progress)
        with self.store.write() as txn:
            if txn.state["quantizer"] is not None:
                Reclaim(self.writer(txn)).wipe()
        zero_free_pages(self.store)
        with self.store.write() as txn:
            txn.state["erasing"] = False

    def _n_rows(self) -> int:
        with self.store.read() as snap:
            return int(snap.state["n"])

    def _unused_rows(self) -> int:
        with self.store.read() as snap:
            return int(snap.state["n"] - snap.state["live"])
