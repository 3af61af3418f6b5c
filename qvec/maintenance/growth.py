"""Add rows to the index after their commit, so that no transaction takes long (ADR 35).

An add of many rows stores them without their index; until they are in it, searches score them one by one. A graph, and
lists with new centroids, are then built in memory from a snapshot, stored under other names, and replace the old ones
in one short transaction. Rows that are appended to lists, and those that others have added since, are added by short
transactions. If the process dies, the rows are still stored, and the next add or `optimize` begins again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from qvec._kernels import Column
from qvec.common.errors import DiskFullError, LockedError, MapFullError
from qvec.index import HNSWIndex, Progress
from qvec.maintenance.index_aside import IndexAside, Made
from qvec.rows.access import RowAccess
from qvec.rows.writer import Writer, index_for, is_growth_due
from qvec.schema.bitmaps import are_in, read_bitmap, rows_in
from qvec.schema.fresh import FreshRows
from qvec.schema.generations import GROWTH_NUMBERS, drop_unused_index_columns, replace_index
from qvec.schema.layout import LINKED, NODES, column_in_memory, copy_rows
from qvec.schema.quantizers import VectorReader
from qvec.schema.state import InactiveCodes, IndexState, ListsState, State
from qvec.storage.store import Snapshot, Store, Transaction

TRIES = 3  # builds whose rows or generations others change meanwhile
LATER = LockedError, DiskFullError, MapFullError  # errors after which rows wait for the next call
ADDED_ROWS = 1024  # of those that were added since the snapshot: fewer are added when the index is replaced


@dataclass(frozen=True)
class Growth:
    """Adds to the active index the rows that it lacks. ``writer``: makes the writer of a transaction. ``fresh``: the
    vectors of some of these rows."""

    store: Store
    access: RowAccess
    writer: Callable[[Transaction], Writer]
    threads: int
    fresh: FreshRows | None = None

    def run(self, progress: Progress | None = None, share: float | None = None) -> bool:
        """Add the rows if they are more than this share of a graph (default, MAX_UNINDEXED_SHARE), or any of lists.

        Returns whether there was something to do.

        Does nothing if another thread or process does it, which then adds all rows. Rows that others add meanwhile are
        added, too. Without a share, the call is a part of an add: rows are left to a later one if the write lock is
        taken for longer than the timeout, or if there is no space. With one, LockedError or DiskFullError is raised.
        """
        begun, tries = False, TRIES
        with contextlib.suppress(*(LATER if share is None else ())):
            while tries and self._is_due(share):
                begun = True
                with contextlib.ExitStack() as stack:
                    try:
                        stack.enter_context(self.store.job("builds the index"))
                    except LockedError:
                        break
                    stack.enter_context(self._discarding())
                    while tries and self._is_due(share):
                        tries = TRIES if self._step(progress) else tries - 1
        return begun

    def _is_due(self, share: float | None) -> bool:
        with self.store.read() as snap:
            state: State = snap.state
            return state.active is not None and is_growth_due(state, share)

    def _step(self, progress: Progress | None) -> bool:
        """Replace the index, or add some rows to it. Returns False if other calls have prevented it."""
        with self.store.read() as snap:
            state: State = snap.state
            number, index = state.active, index_for(self.access.config, state)
            lists = state.index
            is_built = isinstance(lists, ListsState) and lists.lists is not None and not lists.is_outgrown(state.live)
            is_shared = state.pending is not None  # perhaps, and the pending generation names its columns
            limit = index.max_rows(state.index, state.live, self.access.config.dim)
        if number is None or limit is None:
            return False
        if is_shared or is_built:
            return self._add_rows(limit, progress)
        return ActiveIndex(self.store, self.access, number, self.threads, self.writer, self.fresh).run(progress)

    def _add_rows(self, limit: int, progress: Progress | None) -> bool:
        """Add at most ``limit`` rows to the index in place."""
        with self.store.write() as txn:
            if txn.state.active is None or not txn.state.unindexed:
                return False
            writer = self.writer(txn)
            writer.fresh = self.fresh
            total = txn.state.unindexed
            data = writer.index_input()
            writer.index_rows(writer.index().unindexed_rows(data, txn.state.index)[:limit], self.threads, None)
            left = txn.state.unindexed
        if progress is not None:
            progress(total - left, total)
        return True

    @contextlib.contextmanager
    def _discarding(self) -> Iterator[None]:
        """At the end, remove what an unfinished build has stored, of this process or of one that died."""
        try:
            yield
        finally:
            with self.store.read() as snap:
                unfinished = snap.state.indexing
            if unfinished:
                with self.store.write(frees=True) as txn:
                    if txn.state.pending is None:  # else they are of a pending generation
                        drop_unused_index_columns(txn)
                    txn.state = replace(txn.state, indexing=False)


@dataclass(frozen=True)
class ActiveIndex(IndexAside):
    """A new index for generation ``number``, which is active. Rows are not reused until it is stored."""

    writer: Callable[[Transaction], Writer]
    fresh: FreshRows | None = None

    def run(self, progress: Progress | None) -> bool:
        with self.store.write() as txn:
            if txn.state.pending is not None or txn.state.active != self.number:
                return False
            txn.state = replace(txn.state, indexing=True)
        return super().run(progress)

    def _build(self, snap: Snapshot, progress: Progress | None) -> Made:
        state: State = snap.state
        config = self.quantizers.config
        index, n = index_for(config, state), state.n
        specs = index.columns(self.quantizers.load(snap, self.number))
        own = {name: column_in_memory(name, spec) for name, spec in specs.items()}
        stored = self._columns(snap, {})
        data = self._input(snap, stored | own, n)
        before = replace(data, columns=stored), state.index
        data = replace(data, lists_only=True, former=before if state.index.contains(state.live) else None)
        rows, old = data.live.astype(np.uint32), index.empty
        if isinstance(index, HNSWIndex) and state.index.contains(state.live):
            more = index.unindexed_rows(replace(data, columns=stored), state.index)
            if not index.rebuilds(data, state.index, len(more)):
                rows, old = more, state.index
                for name in own.keys() - {NODES}:
                    copy_rows(stored[name], own[name])
        made = index.extend(data, old, rows, self.threads, progress)
        if LINKED in own:
            rows = rows_in(read_bitmap(own[LINKED], n)).astype(np.uint32)
        built = InactiveCodes(n, state.column_names, own_index=state.own_index)
        return Made(built, made, own, rows, replaced=state.index)

    def _reader(self, reading: Snapshot, columns: dict[str, Column]) -> VectorReader:
        quantizers = self.quantizers.pair(self.quantizers.load(reading, self.number), columns)
        return quantizers.vector_reader(columns, self.fresh)

    def _is_current(self, txn: Transaction, made: Made) -> bool:
        """Whether the rows of the snapshot still have their codes, and nobody has changed the generations."""
        state: State = txn.state
        same = (state.active, state.column_names, state.own_index)
        before = self.number, made.built.column_names, made.built.own_index
        if made.replaced is not None and _clustered_at(state.index) != _clustered_at(made.replaced):
            return False  # another call has trained new centroids
        return state.indexing and state.pending is None and same == before and state.n >= made.built.rows

    def _free_number(self, txn: Transaction, made: Made) -> int:
        taken = {(column.id, column.generation) for column in txn.columns.values()}
        ids = [column.id for column in made.columns.values()]
        return next(number for number in GROWTH_NUMBERS if not taken & {(id, number) for id in ids})

    def _finish(self, made: Made) -> bool:
        """Replace the old index. Remove what was deleted since, and add a few of the rows that were added since."""
        with self.store.write() as txn:
            if not self._is_current(txn, made):
                return False
            replace_index(txn, made.names, made.index)
            writer = self.writer(txn)
            writer.fresh = self.fresh
            index, data, state = writer.index(), writer.index_input(), made.index
            index.defer(data, state, np.arange(made.built.rows, data.n).astype(np.uint32))
            gone = made.rows[are_in(data.deleted, made.rows)]
            writer.change_state(index=index.drop(data, state, gone, self.threads))
            rest = index.unindexed_rows(data, writer.state.index)
            if 0 < len(rest) <= ADDED_ROWS:
                writer.index_rows(rest, self.threads, None)
        return True


def _clustered_at(index: IndexState) -> int | None:
    return index.lists.clustered_at if isinstance(index, ListsState) and index.lists is not None else None
