"""Train new centroids for inverted lists that have grown, while others write.

New lists are built in memory from a snapshot. One transaction then replaces the old lists with them, and applies the
adds, deletes and replacements since the snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from qvec._kernels import Column, chunk_entries
from qvec.common.types import NDArray
from qvec.index import IndexInput, Progress, load_index
from qvec.index.ivf import IVFIndex, layout_of
from qvec.rows.access import RowAccess
from qvec.rows.writer import Writer
from qvec.schema.bitmaps import bitmap_of, rows_in
from qvec.schema.layout import CODES, VECTORS, active_columns
from qvec.schema.state import IndexState, ListsState
from qvec.storage.store import Snapshot, Store, Transaction

COPIED_ROWS = 65_536


@dataclass(frozen=True)
class Recluster:
    """``writer``: makes the writer of a transaction."""

    store: Store
    access: RowAccess
    writer: Callable[[Transaction], Writer]

    def run(self, threads: int, progress: Progress | None = None) -> bool:
        """Train new centroids if there are far more vectors than at the last training.

        Returns whether this was done.
        """
        with self.store.read() as snap:
            index, lists = load_index(self.access.config.index, snap.state), snap.state.index
            if not (
                isinstance(index, IVFIndex) and isinstance(lists, ListsState) and lists.is_outgrown(snap.state.live)
            ):
                return False
            before, psize = self._input(snap), self.store.env.psize
            made, state = index.build_apart(before, psize, threads, progress)
            with self.store.write() as txn:
                if not self._has_only_grown(snap, txn):
                    return False  # another process was faster
                writer = self.writer(txn)
                for name, column in made.items():
                    _overwrite(writer.columns[name], column)
                writer.change_state(index=self._updated(index, before, writer.index_input(), state, threads, psize))
        return True

    def _input(self, snap: Snapshot) -> IndexInput:
        quantizers = self.access.active(snap)
        assert quantizers is not None
        return IndexInput.of_codes(quantizers, active_columns(snap.columns, snap.state.column_names), snap.state.n)

    def _has_only_grown(self, snap: Snapshot, txn: Transaction) -> bool:
        """Whether the lists still have the centroids of the snapshot, and only entries were added or removed since."""
        old, new = layout_of(snap.state.index), layout_of(txn.state.index)
        if old is None or new is None or snap.state.column_names != txn.state.column_names:
            return False
        return replace(new, n_blocks=old.n_blocks, n_free=old.n_free, free_block=old.free_block) == old

    def _updated(
        self, index: IVFIndex, before: IndexInput, now: IndexInput, state: IndexState, threads: int, psize: int
    ) -> IndexState:
        """Apply the changes of rows since the snapshot to the stored lists."""
        n = max(before.n, now.n)
        was, is_live = bitmap_of(before.live, n), bitmap_of(now.live, n)
        changed = bitmap_of(np.fromiter(_changed_rows(before, now, psize), np.int64), n)
        gone, come = rows_in(was & (~is_live | changed)), rows_in(is_live & (~was | changed))
        state = index.drop(replace(now, n=n), state, gone.astype(np.uint32), threads)
        return index.extend(now, state, come.astype(np.uint32), threads, None)


def _overwrite(column: Column, made: Column) -> None:
    column.resize(0)
    column.resize(made.n_rows)
    for start in range(0, made.n_rows, COPIED_ROWS):
        column.write(start, made.read_range(start, min(start + COPIED_ROWS, made.n_rows)))


def _changed_rows(before: IndexInput, now: IndexInput, psize: int) -> Iterator[int]:
    """Return the rows that both states contain, but with different vectors."""
    name = VECTORS if VECTORS in now.columns else CODES
    old, new, n = before.columns[name], now.columns[name], min(before.n, now.n)
    step = chunk_entries(psize) * old.rows_per_block
    for chunk, start in enumerate(range(0, n, step)):
        if old.pack_chunk(chunk, 0) != new.pack_chunk(chunk, 0):
            stop = min(start + step, n)
            differs: NDArray[np.bool_] = (old.read_range(start, stop) != new.read_range(start, stop)).any(axis=1)
            yield from (start + np.flatnonzero(differs)).tolist()
