"""Work that keeps a collection fit: in transactions of its own, none of which changes what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qvec.storage.store import Store, Transaction
from qvec.writer import Writer

PACE = 20  # rows of the index that are gone through for each row that is deleted
STEP = 4096  # ... in one transaction


@dataclass(frozen=True)
class Maintenance:
    """``writer``: makes the writer of a transaction."""

    store: Store
    writer: Callable[[Transaction], Writer]

    def mend(self, rows: int, threads: int) -> None:
        """Take deleted rows out of the index, as much of it as is due for ``rows`` of them.

        At this pace the index is gone through before as many rows more are deleted as made it due.
        """
        owed = PACE * rows
        while owed > 0:
            with self.store.write() as txn:
                if not self.writer(txn).mend(min(owed, STEP), threads):
                    return
            owed -= STEP
