"""Commits as readers see them: without the rows that have expired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from qvec.common.types import NDArray
from qvec.storage.store import Snapshot


@dataclass(frozen=True, slots=True)
class Visibility:
    """Shows commits as they are at the present moment, or at a moment that does not change, for snapshots.

    ``moment``: microseconds, as a key of a field of datetimes; None: that of each call.
    """

    moment: int | None = None

    def of(self, snap: Snapshot) -> Snapshot:
        """Return the commit without the rows that have expired; the commit itself if no rows expire."""
        if snap.state.expires is None:
            return snap
        return _show()(snap, self.moment)

    def at_present(self, snap: Snapshot) -> Visibility:
        """Return the visibility of a snapshot of this commit, in which no row expires later."""
        if snap.state.expires is None or self.moment is not None:
            return self
        from qvec.rows.expiry import present

        return Visibility(present())


@cache
def _show() -> Callable[[Snapshot, int | None], Snapshot]:
    """Import what few collections need, once: an import statement takes half a microsecond in each search."""
    from qvec.rows.expiry import show

    return show


def expired_among(reading: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each row whether it has expired at the present moment. Rows below 0 have not."""
    if reading.state.expires is None or not len(rows):
        return np.zeros(len(rows), np.bool_)
    from qvec.rows.expiry import have_expired, present

    return have_expired(reading, rows, present())
