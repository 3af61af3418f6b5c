"""The graph of a pending generation, built while others write, and published in bounded transactions.

The graph is built in memory, by a snapshot. Its lists and nodes are then stored in columns that no search reads yet;
the last transaction records the graph in the state. Rows that are added meanwhile are linked by later steps. If the
process dies, the state still says that nothing is linked, and the next call starts over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qvec._kernels import Column
from qvec.common.parallel import thread_pool
from qvec.index import Index, IndexInput, Progress, linking_codes, pack_new_nodes
from qvec.rows.originals import originals_of
from qvec.schema.generations import column_key_name, pending_generation
from qvec.schema.layout import ADJACENCY, NODES, PAGE_BYTES, active_columns
from qvec.schema.quantizers import QuantizerLoader
from qvec.schema.state import InactiveCodes, IndexState, State
from qvec.storage.store import ColumnSpec, Snapshot, Store, Transaction, block_geometry

LISTS_PER_STEP = 65_536  # stored by one transaction
NODES_PER_STEP = 16_384


@dataclass
class SnapshotBuild:
    """Builds the graph of generation ``number``, all of whose rows have codes, on ``threads`` threads."""

    store: Store
    quantizers: QuantizerLoader
    index: Index
    number: int
    threads: int

    def run(self, progress: Progress | None) -> None:
        """Build and publish. Does nothing if the generation has a graph, or its rows changed meanwhile."""
        with self.store.read() as snap:
            built = pending_generation(snap.state, self.number).built
            if built.index is not None:
                return
            made, state = self._build(snap, built, progress)
        names = {**built.column_names, **{name: column_key_name(name, self.number) for name in made}}
        for start in range(0, max(built.rows, 1), LISTS_PER_STEP):
            if not self._store_lists(built, names, made, start):
                return
        if NODES in made:
            for start in range(0, built.rows, NODES_PER_STEP):
                if not self._store_nodes(built, names, start):
                    return
        self._finish(built, names, made, state)

    def _build(
        self, snap: Snapshot, built: InactiveCodes, progress: Progress | None
    ) -> tuple[dict[str, Column], IndexState]:
        """The columns of the graph, in memory, and its state."""
        codes = self.quantizers.load(snap, self.number)
        made = {name: _in_memory(spec) for name, spec in self.index.columns(codes).items()}
        data = self._input(snap, {**active_columns(snap.columns, built.column_names), **made}, built.rows)
        rows = data.live.astype(np.uint32)
        return made, self.index.extend(data, self.index.empty, rows, self.threads, progress)

    def _input(self, reading: Snapshot, columns: Mapping[str, Column], n: int) -> IndexInput:
        codes = linking_codes(self.quantizers.pair(self.quantizers.load(reading, self.number), columns), columns)
        reader, workspace = originals_of(reading, self.quantizers), self.quantizers.workspace
        return IndexInput(columns, codes, n, reader, workspace=workspace, lists_only=True)

    def _unchanged(self, txn: Transaction, built: InactiveCodes) -> bool:
        """Whether the codes that the graph was built by are still those of the pending generation."""
        state: State = txn.state
        if state.pending is None or state.pending.number != self.number:
            return False
        now = state.pending.built
        return now.index is None and now.rows >= built.rows and now.column_names == built.column_names

    def _store_lists(
        self, built: InactiveCodes, names: Mapping[str, str], made: Mapping[str, Column], start: int
    ) -> bool:
        with self.store.write() as txn:
            if not self._unchanged(txn, built):
                return False
            if start == 0:
                self._add_columns(txn, names)
            stop, column = min(start + LISTS_PER_STEP, built.rows), txn.columns[names[ADJACENCY]]
            column.resize(stop)
            column.write(start, made[ADJACENCY].read_range(start, stop))
        return True

    def _add_columns(self, txn: Transaction, names: Mapping[str, str]) -> None:
        specs: Mapping[str, ColumnSpec] = self.index.columns(self.quantizers.load(txn, self.number))
        for name, spec in specs.items():
            if names[name] in txn.columns:  # of a build that did not end
                txn.drop_column(names[name])
            txn.add_column(names[name], replace(spec, generation=self.number))

    def _store_nodes(self, built: InactiveCodes, names: Mapping[str, str], start: int) -> bool:
        with self.store.write() as txn, thread_pool(self.threads) as pool:
            if not self._unchanged(txn, built):
                return False
            columns = active_columns(txn.columns, names)
            data = self._input(txn, columns, built.rows)
            rows = data.live[slice(*np.searchsorted(data.live, (start, start + NODES_PER_STEP)))].astype(np.uint32)
            pack_new_nodes(replace(data, lists_only=False), rows, self.threads, pool)
        return True

    def _finish(
        self, built: InactiveCodes, names: Mapping[str, str], made: Mapping[str, Column], index: IndexState
    ) -> None:
        with self.store.write() as txn:
            if not self._unchanged(txn, built):
                return
            for name, column in made.items():
                stored = txn.columns[names[name]]
                if name in (ADJACENCY, NODES):
                    stored.resize(built.rows)
                else:
                    stored.resize(column.n_rows)
                    stored.write(0, column.read_range(0, column.n_rows))
            pending = pending_generation(txn.state, self.number)
            now = replace(pending.built, column_names=dict(names), index=index, indexed_rows=built.rows)
            txn.state = replace(txn.state, pending=replace(pending, built=now))


def _in_memory(spec: ColumnSpec) -> Column:
    geometry = block_geometry(spec.stride, PAGE_BYTES, spec.min_pages, spec.max_pages)
    return Column("built", spec.id, 0, spec.stride, *geometry, PAGE_BYTES, writable=True)
