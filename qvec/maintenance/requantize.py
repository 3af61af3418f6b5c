"""A new generation of codes, built next to the active one and activated by one commit.

The codes of generation g, and its graph if it does not share another one, are columns whose keys contain g. The state's
``column_names`` contains the names of the active columns. The generation under construction is the state's ``pending``.
Each step is a transaction that extends the pending generation and records the progress. If a process dies, the old
generation stays active, and building the new one can be continued. Rows that others add during the construction are
encoded before the activation. The old generation stays until it is dropped, so that a rollback only has to encode the
rows that were added since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qvec._kernels import Codec, SearchParams
from qvec.codes.adapters import Adapter
from qvec.codes.configs import CodeConfig, IndexConfig
from qvec.codes.registry import make_config
from qvec.common.errors import InputError
from qvec.index import FlatIndex, IndexInput, Progress, isolated_duplicates, linking_codes, load_index
from qvec.maintenance.index_aside import IndexAside, index_names, index_of, lacks_index
from qvec.quality.drift import store_reference
from qvec.quality.recall import recall
from qvec.rows.originals import check_trained, originals_of, sample_originals
from qvec.rows.writer import index_for
from qvec.schema.bitmaps import rows_in
from qvec.schema.config import Config, check_makes_codes
from qvec.schema.generations import (
    activate_pending,
    column_key_name,
    discard_pending,
    drop_columns,
    pending_generation,
    register,
    resume_inactive,
)
from qvec.schema.layout import (
    CODES,
    DRIFT,
    NODES,
    QUANTIZER,
    VECTORS,
    active_columns,
    code_column,
)
from qvec.schema.quantizers import QuantizerLoader, Trained, train_code
from qvec.schema.state import GraphState, InactiveCodes, PendingGeneration, State
from qvec.search.engine import Engine
from qvec.storage.store import Snapshot, Store, Transaction

CODED_ROWS, CODED_VALUES = 8192, 1 << 23  # rows coded by one transaction, and values of their vectors, at most
LINKED_ROWS, LINKED_VALUES = 2048, 1 << 20  # rows linked by one transaction, and values of their vectors, at most
PROBES = 256  # queries that decide whether a new graph is built
PROBE_K, PROBE_EF = 10, 128
MIN_AGREEMENT = 0.95  # a graph fits codes if walks find at least this share of what scans find
Relink = bool | Literal["auto"]


@dataclass(frozen=True)
class GenerationManager:
    """Builds, activates and drops the generations of a collection."""

    store: Store
    quantizers: QuantizerLoader

    @property
    def config(self) -> Config:
        """The configuration of the collection."""
        return self.quantizers.config

    def requantize(
        self, code: str | CodeConfig | None, generation: int | None, relink: Relink, threads: int,
        progress: Progress | None, adapter: Adapter | None = None,
    ) -> int:  # fmt: skip
        """Build a generation, or continue an unfinished one, and activate it. Returns its number."""
        if relink not in (True, False, "auto"):
            raise InputError(f"relink must be True, False or 'auto', got {relink!r}")
        if generation is not None and (code is not None or adapter is not None):
            raise InputError("code, adapter and generation exclude each other: a generation has a code already")
        if adapter is not None:
            adapter.check(self.config.dim, self.config.metric)
        number = self._begin_new(code, adapter, relink) if generation is None else self._begin(generation, relink)
        self._finish(number, threads, progress)
        return number

    def rebuild(self, code: CodeConfig, index: IndexConfig, threads: int, progress: Progress | None) -> int:
        """Build a generation of a code with another index, or continue one, and activate it; returns its number.

        Codes are made in bounded transactions. The index is built in memory, from a snapshot, without the write lock,
        and then stored in bounded transactions.
        """
        number = self._begin_rebuild(code, index)
        self._finish(number, threads, progress)
        return number

    def rollback(self, number: int, threads: int, progress: Progress | None) -> None:
        """Activate a generation that has been active before."""
        with self.store.write() as txn:
            state: State = txn.state
            if number == state.active:
                return
            if not state.generation(number).was_active:
                raise InputError(f"generation {number} was never active; requantize(generation={number}) builds it")
            if state.pending is None or state.pending.number != number:
                discard_pending(txn)
                self._prepare(txn, number, "auto")
        self._finish(number, threads, progress)

    def drop(self, number: int) -> None:
        """Remove a generation and its codes. It may be unfinished, but not active."""
        with self.store.write() as txn:
            inactive = txn.state.generation(number).inactive
            if number == txn.state.active:
                raise InputError(f"generation {number} is active; activate another one before dropping it")
            if txn.state.pending is not None and txn.state.pending.number == number:
                discard_pending(txn)
            rest = tuple(record for record in txn.state.generations if record.number != number)
            txn.state = replace(txn.state, generations=rest)
            if inactive.rows:
                drop_columns(txn, inactive.column_names)
            txn.delete_record(QUANTIZER, number)
            txn.delete_record(DRIFT, number)

    def relink_if_due(self, threads: int, progress: Progress | None) -> bool:
        """Build a new graph if walks over the active one no longer find what a scan of its codes finds.

        The new graph belongs to a new generation with the same codes, which replaces the active one. If a process has
        left such a generation unfinished, it is continued. If another generation is being built, nothing is done.
        Returns whether the graph was replaced.
        """
        with self.store.read() as snap:
            state: State = snap.state
            old = state.active
            if old is None or state.live <= PROBE_K:
                return False
            agrees = state.pending is None and self._agreement(snap, old, {}) >= MIN_AGREEMENT
            if agrees and not self._has_isolated_duplicates(snap):
                return False
        number = self._begin_same_codes(old)
        if number is None:
            return False
        self._finish(number, threads, progress)
        self.drop(old)
        return True

    # --- beginning ---

    def _begin_same_codes(self, old: int) -> int | None:
        """Prepare a generation with the same codes and a new graph. None if another generation is being built."""
        with self.store.write() as txn:
            state: State = txn.state
            record, pending = state.generation(old), state.pending
            if pending is not None:
                return pending.number if state.generation(pending.number).id == record.id else None
            quantizer = self.quantizers.load(txn, old)
            made = VECTORS in active_columns(txn.columns, state.column_names) or quantizer.kind == "f32"
            if self.config.form is not None or not made:
                return None  # codes are made from the originals
            number = register(txn, Trained(quantizer, record.code, record.n_samples, record.model, record.created))
            if (drift := txn.record(DRIFT, old)) is not None:
                txn.put_record(DRIFT, number, drift)
            if state.oversample is not None and state.oversample.generation == old:
                txn.state = replace(txn.state, oversample=replace(state.oversample, generation=number))
            self._prepare(txn, number, True)
            return number

    def _begin_new(self, code: str | CodeConfig | None, adapter: Adapter | None, relink: Relink) -> int:
        """Train a quantizer and record its generation as pending, unless the codes would be the same."""
        check_makes_codes(self.config)
        with self.store.read() as snap:
            state: State = snap.state
            check_trained(state)
            assert state.active is not None
            originals_of(snap, self.quantizers)
            chosen = None if code is None else make_config(code)
            pending = None if state.pending is None else state.generation(state.pending.number)
            if pending is not None and chosen not in (None, pending.code):
                pending = None  # it will be discarded
            if pending is not None and adapter is None:
                return pending.number
            sample = sample_originals(snap, self.quantizers)
            if adapter is None:
                trained = train_code(sample, chosen or state.generation(state.active).code, self.config)
            else:
                chosen = chosen or adapter.code
                quantizer = adapter.quantizer(sample, chosen, self.config.model)
                trained = Trained(quantizer, chosen, len(sample), self.config.model)
            if pending is not None and trained.id == pending.id:
                return pending.number
            if trained.id == state.generation(state.active).id:
                return state.active
        with self.store.write() as txn:
            discard_pending(txn)
            number = register(txn, trained)
            store_reference(txn, number, trained, sample)
            self._prepare(txn, number, relink)
        return number

    def _begin_rebuild(self, code: CodeConfig, index: IndexConfig) -> int:
        """Train a quantizer and record its generation, with an index of its own, as pending."""
        with self.store.read() as snap:
            state: State = snap.state
            check_trained(state)
            sample = sample_originals(snap, self.quantizers)
            trained = train_code(sample, code, self.config)
            assert state.active is not None
            current = state.own_index or self.config.index
            if trained.id == state.generation(state.active).id and current == index:
                return state.active
        with self.store.write() as txn:
            now: State = txn.state
            pending = now.pending
            same_index = pending is not None and pending.built.own_index == index
            if pending is not None and same_index and now.generation(pending.number).id == trained.id:
                return pending.number
            discard_pending(txn)
            number = register(txn, trained)
            store_reference(txn, number, trained, sample)
            self._prepare(txn, number, True, index)
        return number

    def _begin(self, number: int, relink: Relink) -> int:
        """Record a stored generation as pending."""
        check_makes_codes(self.config)
        with self.store.write() as txn:
            state: State = txn.state
            check_trained(state)
            originals_of(txn, self.quantizers)
            state.generation(number)
            if state.active != number and (state.pending is None or state.pending.number != number):
                discard_pending(txn)
                self._prepare(txn, number, relink)
        return number

    def _prepare(self, txn: Transaction, number: int, relink: Relink, own_index: IndexConfig | None = None) -> None:
        """Create the columns of a generation, and record it as pending. ``own_index``: default, the active index."""
        state: State = txn.state
        record, own = state.generation(number), state.column_names
        if record.inactive.rows:
            txn.state = replace(state, pending=resume_inactive(state, number))
            return
        own_index = own_index or state.own_index
        index = index_for(self.config, replace(state, own_index=own_index))
        quantizer = self.quantizers.load(txn, number)
        own_nodes = NODES in index.columns(quantizer)  # refuses codes that the index cannot use
        names = {CODES: _code_column(txn, number, quantizer.codec)}
        if VECTORS not in active_columns(txn.columns, own):  # f32 codes are the originals, and stay so
            names[VECTORS] = own.get(CODES, CODES)
        elif VECTORS in own:
            names[VECTORS] = own[VECTORS]
        built = InactiveCodes(column_names=names, own_index=own_index)
        txn.state = replace(state, pending=PendingGeneration(number, True if own_nodes else relink, built))

    # --- steps ---

    def _finish(self, number: int, threads: int, progress: Progress | None) -> None:
        """Build the generation step by step until it is active."""
        while not self._step(number, threads, progress):
            self._build_aside(number, threads, progress)
            with self.store.read() as snap:
                pending = snap.state.pending
                if pending is None or pending.number != number or pending.relink != "auto":
                    continue
                if pending.built.rows < snap.state.n:
                    continue
                relink = self._agreement(snap, number, pending.built.column_names) < MIN_AGREEMENT
            with self.store.write() as txn:
                if txn.state.active != number:
                    txn.state = replace(
                        txn.state, pending=replace(pending_generation(txn.state, number), relink=relink)
                    )

    def _step(self, number: int, threads: int, progress: Progress | None) -> bool:
        """Run one bounded transaction. Returns whether the generation is active."""
        with self.store.read() as snap:
            if snap.state.active == number:
                return True
        with self.store.write() as txn:
            if txn.state.active == number:
                return True
            n, pending = txn.state.n, pending_generation(txn.state, number)
            pending = replace(pending, built=self._code_rows(txn, pending))
            waits = pending.relink == "auto" or lacks_index(self.config, txn.state, pending)
            done = pending.built.rows == n and not waits
            if done and pending.relink:
                built, done = self._link(txn, pending, threads)
                pending = replace(pending, built=built)
            txn.state = replace(txn.state, pending=pending)
            steps, total = pending.built.rows + pending.built.indexed_rows, n
            if pending.built.index is not None or lacks_index(self.config, txn.state, pending):
                total = 2 * n
            if done:
                txn.state = activate_pending(txn.state)
        if progress is not None:
            progress(steps, total)
        return done

    def _code_rows(self, txn: Transaction, pending: PendingGeneration) -> InactiveCodes:
        """Encode the next rows."""
        built, start = pending.built, pending.built.rows
        stop = min(start + max(1, min(CODED_ROWS, CODED_VALUES // self.config.dim)), txn.state.n)
        if stop == start:
            return built
        column = txn.columns[built.column_names.get(CODES, CODES)]
        column.resize(stop)
        originals = originals_of(txn, self.quantizers).read(np.arange(start, stop))
        column.write(start, self.quantizers.load(txn, pending.number).encode(originals))
        return replace(built, rows=stop)

    def _link(self, txn: Transaction, pending: PendingGeneration, threads: int) -> tuple[InactiveCodes, bool]:
        """Link the next rows into the generation's own graph, if it has one. The second result is whether all rows are
        linked. These rows were added after the index was built (:mod:`qvec.maintenance.index_aside`).
        """
        built, n = pending.built, txn.state.n
        index = index_of(self.config, built, txn.state)
        if built.index is None and not index.built_from_codes:  # the index serves any codes
            return built, True
        codes = self.quantizers.load(txn, pending.number)
        specs = index.columns(codes)
        names = dict(built.column_names)
        if built.index is None:
            names |= index_names(txn, specs, pending.number)
        for name, spec in specs.items():
            if (stored := names.get(name, name)) not in txn.columns:
                txn.add_column(stored, replace(spec, generation=pending.number))
        columns = active_columns(txn.columns, names)
        linked_by = linking_codes(self.quantizers.pair(codes, columns), columns)
        reader = originals_of(txn, self.quantizers)
        data = IndexInput(columns, linked_by, n, reader, workspace=self.quantizers.workspace)
        start = built.indexed_rows
        stop = min(n, start + max(1, min(LINKED_ROWS, LINKED_VALUES // self.config.dim)))
        rows = data.live[slice(*np.searchsorted(data.live, (start, stop)))].astype(np.uint32)
        state = index.empty if built.index is None else built.index
        if len(rows) or built.index is None:
            state = index.extend(data, state, rows, threads, None)
        if stop == n:  # some may have been deleted since they were linked
            state = index.drop(data, state, rows_in(data.deleted).astype(np.uint32), threads)
        return InactiveCodes(built.rows, names, state, stop, built.own_index), stop == n

    def _build_aside(self, number: int, threads: int, progress: Progress | None) -> None:
        """Build the index of a pending generation, if it lacks one and nearly all of its rows have codes."""
        with self.store.read() as snap:
            state: State = snap.state
            pending = state.pending
            if pending is None or pending.number != number or not lacks_index(self.config, state, pending):
                return
            if pending.built.rows < state.n - CODED_ROWS:
                return
        IndexAside(self.store, self.quantizers, number, threads).run(progress)

    def _has_isolated_duplicates(self, snap: Snapshot) -> bool:
        """Whether :func:`qvec.index.isolated_duplicates` finds rows in the active graph."""
        quantizers = self.quantizers.active(snap)
        if quantizers is None or not isinstance(snap.state.index, GraphState):
            return False
        columns = active_columns(snap.columns, snap.state.column_names)
        return len(isolated_duplicates(IndexInput.of_codes(quantizers, columns, snap.state.n))) > 0

    def _agreement(self, snap: Snapshot, number: int, names: Mapping[str, str]) -> float:
        """Return which share of the ten nearest rows in a scan of a generation's codes a walk of the active graph
        finds."""
        state: State = snap.state
        index = load_index(self.config.index, state)
        columns = active_columns(snap.columns, {**state.column_names, **names})
        if not index.built_from_codes or not state.live:  # no graph, or no rows that might not fit it
            return 1.0
        quantizers = self.quantizers.pair(self.quantizers.load(snap, number), columns)
        candidates = 0 if quantizers.originals is None else math.ceil(PROBE_K * quantizers.codes.default_oversample)
        queries = sample_originals(snap, self.quantizers, PROBES)
        walked, scanned = (
            Engine(snap, quantizers, by, columns).search(
                queries, SearchParams(PROBE_K, ef=max(PROBE_EF, candidates), candidates=candidates)
            )[1]
            for by in (index, FlatIndex())
        )
        return float(recall(walked, scanned).mean())  # by distance: a walk may find another row with an equal code


def _code_column(txn: Transaction, number: int, codec: Codec) -> str:
    """Return the stored name of a generation's codes.

    A generation that was active without rows already has a column.
    """
    own = column_key_name(CODES, number)
    for name in (own, CODES):
        if name in txn.columns and txn.columns[name].generation == number:
            return name
    txn.add_column(own, replace(code_column(CODES, codec), generation=number))
    return own
