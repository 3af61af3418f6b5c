"""The index of a pending generation, built from a snapshot while others write, and stored in bounded transactions.

The index is built in memory. Its columns are then stored in parts, under names that no generation has yet. The last
transaction records the index in the state. The rows that others have added since are linked by later steps. If the
process dies, the generation still has no index, and the next call begins again.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from qvec._kernels import Column
from qvec.common.parallel import thread_pool
from qvec.common.types import NDArray
from qvec.index import Index, IndexInput, Progress, linking_codes, pack_new_nodes
from qvec.rows.originals import originals_of
from qvec.rows.writer import index_for
from qvec.schema.config import Config
from qvec.schema.generations import column_key_name, drop_unused_index_columns, reserve_number
from qvec.schema.layout import INDEX_COLUMNS, NODES, active_columns, column_in_memory
from qvec.schema.quantizers import QuantizerLoader, VectorReader
from qvec.schema.state import InactiveCodes, IndexState, PendingGeneration, State
from qvec.storage.store import Snapshot, Store, Transaction

STORED_BYTES = 32 << 20  # of one transaction


def index_of(config: Config, built: InactiveCodes, state: State) -> Index:
    """The index of a generation that is being built."""
    return index_for(config, replace(state, own_index=built.own_index, index=built.index or state.index))


def lacks_index(config: Config, state: State, pending: PendingGeneration) -> bool:
    """Whether a generation is to have an index of its own, which has not been built yet."""
    built = pending.built
    if not state.n or built.index is not None or pending.relink is not True:
        return False
    return built.own_index not in (None, state.own_index) or index_of(config, built, state).built_from_codes


def index_names(reading: Snapshot, own: Container[str], number: int) -> dict[str, str]:
    """The stored names of the index columns of a generation that has its ``own``; the others are hidden from it."""
    names = {name: column_key_name(name, number) for name in INDEX_COLUMNS if name in own}
    return names | {name: "" for name in INDEX_COLUMNS if name not in own and name in reading.columns}


@dataclass
class Made:
    """An index in memory, of ``rows``. ``names``: the stored names of all columns of the generation. ``replaced``: the
    index that was active when it was built, if it is to replace that."""

    built: InactiveCodes
    index: IndexState
    columns: dict[str, Column]
    rows: NDArray[np.uint32]
    names: dict[str, str] = field(default_factory=dict)
    replaced: IndexState | None = None


@dataclass(frozen=True)
class IndexAside:
    """Builds the index of generation ``number``, all of whose rows have codes, on ``threads`` threads."""

    store: Store
    quantizers: QuantizerLoader
    number: int
    threads: int

    def run(self, progress: Progress | None) -> bool:
        """Build and store the index. Returns False if another call has changed the generation in the meantime."""
        with self.store.read() as snap:
            made = self._build(snap, progress)
        return self._add_columns(made) and self._store_columns(made) and self._store_nodes(made) and self._finish(made)

    def _build(self, snap: Snapshot, progress: Progress | None) -> Made:
        state: State = snap.state
        assert state.pending is not None
        built, codes = state.pending.built, self.quantizers.load(snap, self.number)
        index = index_of(self.quantizers.config, built, state)
        columns = self._columns(snap, {**built.column_names, **index_names(snap, (), self.number)})
        own = {name: column_in_memory(name, spec) for name, spec in index.columns(codes).items()}
        data = replace(self._input(snap, columns | own, built.rows), lists_only=True)
        rows = data.live.astype(np.uint32)
        report = None if progress is None else lambda done, total: progress(built.rows + done, built.rows + total)
        return Made(built, index.extend(data, index.empty, rows, self.threads, report), own, rows)

    def _columns(self, reading: Snapshot, names: dict[str, str]) -> dict[str, Column]:
        return active_columns(reading.columns, {**reading.state.column_names, **names})

    def _input(self, reading: Snapshot, columns: dict[str, Column], n: int) -> IndexInput:
        codes = linking_codes(self.quantizers.pair(self.quantizers.load(reading, self.number), columns), columns)
        reader, workspace = self._reader(reading, columns), self.quantizers.workspace
        return IndexInput(columns, codes, n, reader, workspace=workspace)

    def _reader(self, reading: Snapshot, columns: dict[str, Column]) -> VectorReader:
        return originals_of(reading, self.quantizers)

    def _is_current(self, txn: Transaction, made: Made) -> bool:
        """Whether the pending generation still has the codes that the index was built from, and no index."""
        pending: PendingGeneration | None = txn.state.pending
        if pending is None or pending.number != self.number or pending.built.index is not None:
            return False
        now = pending.built
        same = (now.column_names, now.own_index) == (made.built.column_names, made.built.own_index)
        return same and now.rows >= made.built.rows

    def _add_columns(self, made: Made) -> bool:
        """Create the columns. Remove those of calls that did not end."""
        with self.store.write() as txn:
            if not self._is_current(txn, made):
                return False
            drop_unused_index_columns(txn)
            number = self._free_number(txn, made)
            made.names = {**made.built.column_names, **index_names(txn, made.columns, number)}
            index = index_of(self.quantizers.config, made.built, txn.state)
            for name, spec in index.columns(self.quantizers.load(txn, self.number)).items():
                txn.add_column(made.names[name], replace(spec, generation=number))
        return True

    def _free_number(self, txn: Transaction, made: Made) -> int:
        """The number in the keys of the columns: that of the generation, unless another one uses its earlier graph."""
        if not any(column_key_name(name, self.number) in txn.columns for name in made.columns):
            return self.number
        return reserve_number(txn)

    def _store_columns(self, made: Made) -> bool:
        """Copy the columns, except packed nodes."""
        for name, source in made.columns.items():
            if name == NODES:
                continue
            for start, stop in _parts(source.n_rows, source.stride):
                with self.store.write() as txn:
                    if not self._is_current(txn, made):
                        return False
                    column = txn.columns[made.names[name]]
                    column.resize(stop)
                    column.write(start, source.read_range(start, stop))
        return True

    def _store_nodes(self, made: Made) -> bool:
        """Pack the nodes, if the graph has any, from the stored lists."""
        if NODES not in made.columns:
            return True
        for start, stop in _parts(made.built.rows, made.columns[NODES].stride):
            rows = made.rows[slice(*np.searchsorted(made.rows, (start, stop)))]
            with self.store.write() as txn, thread_pool(self.threads) as pool:
                if not self._is_current(txn, made):
                    return False
                data = self._input(txn, self._columns(txn, made.names), made.built.rows)
                data.columns[NODES].resize(stop)
                pack_new_nodes(data, rows, self.threads, pool)
        return True

    def _finish(self, made: Made) -> bool:
        """Record the index in the state."""
        with self.store.write() as txn:
            if not self._is_current(txn, made):
                return False
            pending: PendingGeneration = txn.state.pending
            built = InactiveCodes(pending.built.rows, made.names, made.index, made.built.rows, made.built.own_index)
            txn.state = replace(txn.state, pending=replace(pending, built=built))
        return True


def _parts(n_rows: int, stride: int) -> Iterator[tuple[int, int]]:
    """Divide rows into parts that one transaction stores."""
    step = max(1, STORED_BYTES // stride)
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)
