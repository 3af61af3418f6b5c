"""A new generation of codes, built beside the one in force and flipped into its place by one commit.

The codes of generation g, and its graph where it has one of its own, are columns whose keys carry g; the state's
``names`` says which columns are in force. A generation under construction is the state's ``pending``: every step is a
transaction that extends it and records how far it is, so that a process that dies leaves the old generation in
force and the new one to be continued. Rows that are added meanwhile are coded before the flip. The generation left
behind stays until it is dropped, so that a roll-back has to code only what came after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from qvec.codes.adapters import Adapter
from qvec.codes.configs import CodeConfig
from qvec.codes.registry import Quantizer, code_from_dict, code_to_dict, make_config, train
from qvec.common.errors import InputError
from qvec.common.plain_state import State
from qvec.common.types import Float32Array
from qvec.index import FlatIndex, IndexInput, Progress, VectorReader, linking_codes, load_index
from qvec.quality.drift import store_reference
from qvec.rows.lookup import live_rows
from qvec.rows.writer import index_for
from qvec.schema.bitmaps import rows_in
from qvec.schema.calibrations import Trained, entry_of, identify, register
from qvec.schema.config import Config
from qvec.schema.generations import (
    discard_pending,
    drop_columns,
    flip,
    own_graph,
    pending_of,
    returning,
    stored_name,
)
from qvec.schema.layout import CALIBRATION, CODES, DRIFT, NODES, VECTORS, in_force, wide_column
from qvec.search.engine import Engine
from qvec.search.params import SearchParams
from qvec.storage.store import Snapshot, Store, Transaction

STEP = 8192  # rows coded by one transaction
SAMPLE = 65_536  # rows trained on: the 99.9th percentile of so many has 65 values beyond it
PROBES = 256  # queries that decide whether the graph is linked anew
PROBE_K, PROBE_EF = 10, 128
MIN_AGREEMENT = 0.95  # of a walk with a scan of the same codes; below, the graph no longer fits them
Relink = bool | Literal["auto"]
Load = Callable[[Any, int], Quantizer]


@dataclass(frozen=True)
class Generations:
    """The generations of a collection. ``load``: a stored quantizer by number; ``originals``: of the stored originals."""

    store: Store
    config: Config
    load: Load
    original_quantizer: Quantizer

    def requantize(
        self, code: str | CodeConfig | None, calibration: int | None, relink: Relink, threads: int,
        progress: Progress | None, adapter: Adapter | None = None,
    ) -> int:  # fmt: skip
        """Build, or go on building, a generation and put it in force; its number."""
        if relink not in (True, False, "auto"):
            raise InputError(f"relink must be True, False or 'auto', got {relink!r}")
        number = self._begin(code, calibration, relink, adapter)
        self._finish(number, threads, progress)
        return number

    def rollback(self, number: int, threads: int, progress: Progress | None) -> None:
        """Put a generation that was in force before back in force."""
        with self.store.write() as txn:
            if number == txn.state["quantizer"]:
                return
            entry = entry_of(txn.state, number)
            if not entry["served"]:
                raise InputError(f"generation {number} was never in force; requantize(calibration={number}) builds it")
            if (pending := txn.state["pending"]) is None or pending["number"] != number:
                discard_pending(txn)
                if entry["rows"]:
                    txn.state["pending"] = returning(txn.state, number)
                else:
                    self._prepare(txn, number, "auto")
        self._finish(number, threads, progress)

    def drop(self, number: int) -> None:
        """Remove a calibration and its codes; a pending one too."""
        with self.store.write() as txn:
            state = txn.state
            entry = entry_of(state, number)
            if number == state["quantizer"]:
                raise InputError(f"generation {number} is in force; put another in force before dropping it")
            if state["pending"] is not None and state["pending"]["number"] == number:
                discard_pending(txn)
            state["generations"] = [other for other in state["generations"] if other["number"] != number]
            if entry["rows"]:
                drop_columns(txn, entry["names"])
            txn.delete_record(CALIBRATION, number)
            txn.delete_record(DRIFT, number)

    def sample(self, snap: Snapshot, size: int = SAMPLE) -> Float32Array:
        """Up to ``size`` stored originals, float32 [n, dim], spread evenly over the live rows."""
        source = self.originals(snap)
        rows = live_rows(snap)
        spread = np.linspace(0, len(rows) - 1, min(size, len(rows))).astype(np.int64)
        return source.read(rows[spread])

    def relink_if_due(self, threads: int, progress: Progress | None) -> bool:
        """Link the graph anew where walks over it no longer find what a scan of its codes finds; whether it was.

        That is a generation of the same codes, which is built beside the one in force and takes its place. One that a
        process left unfinished is gone on with; another that is being built is left alone, and nothing is done.
        """
        with self.store.read() as snap:
            old, pending = snap.state["quantizer"], snap.state["pending"]
            if old is None or snap.state["live"] <= PROBE_K:
                return False
            if pending is None and self._agreement(snap, old, {}) >= MIN_AGREEMENT:
                return False
        number = self._begin_again(old)
        if number is None:
            return False
        self._finish(number, threads, progress)
        self.drop(old)
        return True

    def _begin_again(self, old: int) -> int | None:
        """Prepare a generation of the same codes with a graph of its own; None where another is being built."""
        with self.store.write() as txn:
            state, entry = txn.state, entry_of(txn.state, old)
            if (pending := state["pending"]) is not None:
                number = int(pending["number"])
                return number if entry_of(state, number)["id"] == entry["id"] else None
            if VECTORS not in in_force(txn.columns, state["names"]) and self.load(txn, old).kind != "f32":
                return None  # codes are made from the originals
            quantizer, code = self.load(txn, old), code_from_dict(entry["code"])
            number = register(txn, Trained(quantizer, code, entry["n_samples"], entry["model"], entry["created"]))
            if (record := txn.record(DRIFT, old)) is not None:
                txn.put_record(DRIFT, number, record)
            if state["oversample"] is not None and state["oversample"]["generation"] == old:
                state["oversample"] = {**state["oversample"], "generation": number}
            self._prepare(txn, number, True)
            return number

    # --- steps ---

    def _begin(
        self, code: str | CodeConfig | None, calibration: int | None, relink: Relink, adapter: Adapter | None
    ) -> int:
        """Decide what to build and record it, or find it under construction."""
        if calibration is not None and (code is not None or adapter is not None):
            raise InputError("code, adapter and calibration exclude each other: a calibration is of a code already")
        if adapter is not None:
            adapter.check(self.config.dim, self.config.metric)
        if calibration is not None:
            return self._begin_stored(calibration, relink)
        with self.store.read() as snap:
            self._check_trained(snap.state)
            self.originals(snap)
            pending = snap.state["pending"]
            chosen = None if code is None else make_config(code)
            same = pending is not None and (chosen is None or pending["code"] == code_to_dict(chosen))
            if same and adapter is None:
                return int(pending["number"])
            sample = self.sample(snap)
            if adapter is not None:
                chosen = chosen or adapter.code
                quantizer = adapter.quantizer(sample, chosen, self.config.model)
                trained = Trained(quantizer, chosen, len(sample), self.config.model)
            else:
                trained = self.train(sample, chosen or self._current(snap.state))
            if same and identify(trained.quantizer) == entry_of(snap.state, pending["number"])["id"]:
                return int(pending["number"])
            if identify(trained.quantizer) == entry_of(snap.state, snap.state["quantizer"])["id"]:
                return int(snap.state["quantizer"])  # the codes would be the same
        with self.store.write() as txn:
            discard_pending(txn)
            number = register(txn, trained)
            store_reference(txn, number, trained, sample)
            self._prepare(txn, number, relink)
        return number

    def _begin_stored(self, number: int, relink: Relink) -> int:
        with self.store.write() as txn:
            self._check_trained(txn.state)
            self.originals(txn)
            entry_of(txn.state, number)
            pending = txn.state["pending"]
            if txn.state["quantizer"] == number or (pending is not None and pending["number"] == number):
                return number
            discard_pending(txn)
            self._prepare(txn, number, relink)
        return number

    def train(self, sample: Float32Array, code: CodeConfig) -> Trained:
        """Train a code of this collection on float32 [n, dim]; InputError says how many vectors are needed."""
        config = self.config
        return Trained(train(sample, config.metric, code, config.seed, config.model), code, len(sample), config.model)

    def _current(self, state: State) -> CodeConfig:
        return code_from_dict(entry_of(state, state["quantizer"])["code"])

    def _prepare(self, txn: Transaction, number: int, relink: Relink) -> None:
        """Make the columns of a generation, and record it as pending."""
        state, entry = txn.state, entry_of(txn.state, number)
        index = index_for(self.config, state["index"]["kind"], state["live"])
        own_nodes = NODES in index.columns(self.load(txn, number))  # refuses codes that are not for the index
        if entry["rows"]:
            txn.state["pending"] = returning(state, number)
            return
        names = {CODES: _code_column(txn, number, entry["code_size"])}
        if VECTORS not in in_force(txn.columns, state["names"]):  # f32 codes are the originals, and stay so
            names[VECTORS] = state["names"].get(CODES, CODES)
        elif VECTORS in state["names"]:
            names[VECTORS] = state["names"][VECTORS]
        state["pending"] = {
            "number": number, "code": entry["code"], "rows": 0, "names": names,
            "relink": True if own_nodes else relink, "index": None, "linked": 0,
        }  # fmt: skip

    def _finish(self, number: int, threads: int, progress: Progress | None) -> None:
        """Step until the generation is in force."""
        while not self._in_force(number) and not self._step(number, threads, progress):
            with self.store.read() as snap:
                pending = snap.state["pending"]
                whole = pending is not None and pending["rows"] == snap.state["n"]
                undecided = whole and pending["number"] == number and pending["relink"] == "auto"
                relink = undecided and self._agreement(snap, number, pending["names"]) < MIN_AGREEMENT
            if undecided:
                self._decide(number, relink)

    def _in_force(self, number: int) -> bool:
        with self.store.read() as snap:
            return bool(snap.state["quantizer"] == number)

    def _step(self, number: int, threads: int, progress: Progress | None) -> bool:
        """One bounded transaction; whether the generation is in force."""
        with self.store.write() as txn:
            if txn.state["quantizer"] == number:
                return True
            pending = pending_of(txn.state, number)
            done = self._code_rows(txn, pending) and pending["relink"] != "auto"
            done = done and (not pending["relink"] or self._link(txn, pending, threads))
            txn.state["pending"] = pending
            steps, total = pending["rows"], txn.state["n"]
            if pending["index"] is not None:
                steps, total = steps + pending["linked"], 2 * total
            if done:
                flip(txn.state)
        if progress is not None:
            progress(steps, total)
        return done

    def _decide(self, number: int, relink: bool) -> None:
        with self.store.write() as txn:
            if txn.state["quantizer"] != number:
                txn.state["pending"] = pending_of(txn.state, number) | {"relink": relink}

    def _code_rows(self, txn: Transaction, pending: dict[str, Any]) -> bool:
        """Code the next rows; whether all are coded."""
        start, n = pending["rows"], txn.state["n"]
        stop = min(start + STEP, n)
        if stop > start:
            column = txn.columns[pending["names"].get(CODES, CODES)]
            column.resize(stop)
            quantizer = self.load(txn, pending["number"])
            column.write(start, quantizer.encode(self.originals(txn).read(np.arange(start, stop))))
            pending["rows"] = stop
        return bool(stop == n)

    def _link(self, txn: Transaction, pending: dict[str, Any], threads: int) -> bool:
        """Link the next rows into the generation's own graph, if it has one; whether all are linked.

        Steps grow with the graph: a step rewrites most of it, and so all steps together a few times its size.
        """
        n, start = txn.state["n"], pending["linked"]
        index = index_for(self.config, txn.state["index"]["kind"], txn.state["live"])
        if not index.built_from_codes:  # what it keeps goes with any codes
            return True
        quantizer = self.load(txn, pending["number"])
        specs = index.columns(quantizer)
        started = pending["index"] is not None
        names = pending["names"] = own_graph(pending["names"], specs, pending["number"], started)
        for name, spec in specs.items():
            if (stored := names.get(name, name)) not in txn.columns:
                txn.add_column(stored, replace(spec, generation=pending["number"]))
        columns = in_force(txn.columns, names)
        original_quantizer = self.original_quantizer if VECTORS in columns else None
        coded = linking_codes(quantizer, original_quantizer, columns)
        source, stop = IndexInput(columns, coded, n, self.originals(txn)), min(n, start + max(STEP, start // 2))
        state: dict[str, Any] = pending["index"] if started else {"kind": index.kind}
        rows = source.live[slice(*np.searchsorted(source.live, (start, stop)))].astype(np.uint32)
        state = index.extend(source, state, rows, threads, None)
        pending["index"], pending["linked"] = state, stop
        if stop == n:  # deleted since they were linked
            pending["index"] = index.drop(source, state, rows_in(source.deleted).astype(np.uint32), threads)
        return bool(stop == n)

    def _agreement(self, snap: Snapshot, number: int, names: Mapping[str, str]) -> float:
        """Share of the ten nearest by a scan of a generation's codes that a walk over the graph in force finds."""
        state = snap.state
        index = load_index(self.config.index, state["index"])
        columns = in_force(snap.columns, {**state["names"], **names})
        if not index.built_from_codes or not state["live"]:  # nothing that might not fit
            return 1.0
        quantizer = self.load(snap, number)
        original_quantizer = self.original_quantizer if VECTORS in columns else None
        candidates = 0 if original_quantizer is None else math.ceil(PROBE_K * quantizer.oversample)
        queries = self.sample(snap, PROBES)
        found = [
            Engine(snap, quantizer, original_quantizer, by, columns).search(
                queries, SearchParams(PROBE_K, max(PROBE_EF, candidates), candidates=candidates)
            )[0]
            for by in (index, FlatIndex())
        ]
        shared = [len(np.intersect1d(walked, scanned)) for walked, scanned in zip(*found, strict=True)]
        return float(np.mean(shared)) / min(PROBE_K, int(state["live"]))

    def originals(self, reading: Snapshot) -> VectorReader:
        """Where originals are; InputError where none are kept."""
        columns = in_force(reading.columns, reading.state["names"])
        if VECTORS in columns:
            return VectorReader(self.original_quantizer, columns[VECTORS])
        self._check_trained(reading.state)
        quantizer = self.load(reading, reading.state["quantizer"])
        if quantizer.kind != "f32":
            raise InputError(
                f"new codes are made from the originals, and the collection keeps none: it was created with "
                f"code={quantizer.kind!r} and originals='none'"
            )
        return VectorReader(quantizer, columns[CODES])

    def _check_trained(self, state: State) -> None:
        if state["quantizer"] is None:
            raise InputError("the collection holds no codes yet: add vectors, or calibrate it on a sample, first")


def _code_column(txn: Transaction, number: int, code_size: int) -> str:
    """What the codes of a generation are stored under; those that were in force over no rows have their column yet."""
    own = stored_name(CODES, number)
    for name in (own, CODES):
        if name in txn.columns and txn.columns[name].generation == number:
            return name
    txn.add_column(own, replace(wide_column(CODES, code_size), generation=number))
    return own
