"""Changes to a collection inside one write transaction: rows appended, replaced and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qvec._kernels import Column
from qvec.calibrations import Trained, register
from qvec.config import AUTO_INDEX_ROWS, Config
from qvec.configs import HNSW, Flat
from qvec.errors import DuplicateIdError, InputError
from qvec.index import Coded, Index, Progress, make_index
from qvec.inputs import MAX_ID, MAX_ROWS, id_keys
from qvec.integers import to_floats
from qvec.layout import CODES, DELETED, IDS, ROW, VECTORS, in_force, row_columns
from qvec.quantizers import Quantizer, train
from qvec.storage.store import Transaction
from qvec.types import NDArray, OnConflict, Payload

ENCODE_ROWS = 8192  # rows encoded at a time: the codes of one step stay in cache
Ids = NDArray[Any] | list[str]
Vectors = NDArray[Any]  # float32 [n, dim], or integers as Config.form says


def initial_state() -> dict[str, Any]:
    """The state of an empty collection."""
    return {
        "n": 0,  # rows ever written, deleted ones included
        "live": 0,
        "next_id": 0,
        "records": 0,  # live rows with a row record (payload or string id)
        "quantizer": None,  # number of the calibration record in force: the generation of the codes
        "names": {},  # columns in force that are stored under another name than their own
        "generations": [],  # what is known of each calibration record (qvec/calibrations.py)
        "next_generation": 0,
        "tuned": None,  # {"generation", "index", "n"}: what recall curves were measured on (qvec/curves.py)
        "oversample": None,  # {"generation", "factor"}: what searches of that generation re-rank per hit
        "pending": None,  # a generation that is being built (qvec/generations.py)
        "index": {"kind": "flat", "n": 0},
        "lift2": 0.0,  # largest |x|^2 seen, for graphs under inner product
    }


class Writer:
    """One write transaction of a collection. Every argument has been checked; nothing is visible before commit."""

    def __init__(self, txn: Transaction, config: Config, quantizer: Quantizer | None, keep: Quantizer | None) -> None:
        self.txn, self.config, self.quantizer, self.keep = txn, config, quantizer, keep
        self.state = txn.state

    @property
    def columns(self) -> dict[str, Column]:
        """Columns in force by their own names."""
        return in_force(self.txn.columns, self.state["names"])

    # --- adding ---

    def use(self, quantizer: Quantizer, samples: int) -> None:
        """Store what the code was trained to and lay out the columns; once in a collection's life."""
        self.quantizer, config = quantizer, self.config
        self.state["quantizer"] = register(self.txn, Trained(quantizer, config.code, samples, config.model))
        for name, spec in row_columns(quantizer, self.keep, self.config.ids == "int64").items():
            self.txn.add_column(name, spec)

    def add(
        self,
        x: Vectors,
        ids: Ids | None,
        payloads: Sequence[Payload | None],
        on_conflict: OnConflict,
        threads: int,
        progress: Progress | None,
    ) -> tuple[Ids, int, int, int]:
        """Store a batch; ids of its rows, and how many were added, replaced, skipped."""
        if self.quantizer is None and len(x):
            config = self.config
            self.use(train(x, config.metric, config.code, config.seed, config.model), len(x))
        replaced = skipped = 0
        if ids is None:
            ids = self._new_ids(len(x))
        else:
            kept, replaced = self._resolve_conflicts(ids, on_conflict)
            if len(kept) < len(x):
                skipped = len(x) - len(kept)
                all_ids, ids = ids, ids[kept] if isinstance(ids, np.ndarray) else [ids[i] for i in kept]
                self._append(x[kept], ids, [payloads[i] for i in kept], threads, progress)
                return all_ids, len(kept) - replaced, replaced, skipped
        self._append(x, ids, payloads, threads, progress)
        return ids, len(x) - replaced, replaced, skipped

    def _new_ids(self, n: int) -> NDArray[np.int64]:
        if self.config.ids == "str":
            raise InputError("ids are required: this collection's ids are strings")
        first = self.state["next_id"]
        if first + n - 1 > MAX_ID:
            raise InputError(f"no automatic ids are left above {first - 1}; give ids")
        return np.arange(first, first + n, dtype=np.int64)

    def _resolve_conflicts(self, ids: Ids, on_conflict: OnConflict) -> tuple[NDArray[np.int64], int]:
        """Positions to store, and how many stored vectors they replace (now deleted)."""
        keys = id_keys(ids)
        rows = self.txn.rows_of(keys)
        taken = rows >= 0
        if not taken.any():
            return np.arange(len(keys)), 0
        if on_conflict == "error":
            i = int(np.flatnonzero(taken)[0])
            name = ids[i : i + 1].tolist()[0] if isinstance(ids, np.ndarray) else ids[i]
            raise DuplicateIdError(
                f"ids[{i}] = {name!r} is stored already; use upsert or on_conflict to replace or skip"
            )
        if on_conflict == "skip":
            return np.flatnonzero(~taken), 0
        self.delete([keys[i] for i in np.flatnonzero(taken)], rows[taken])
        return np.arange(len(keys)), int(taken.sum())

    def _append(
        self,
        x: Vectors,
        ids: Ids,
        payloads: Sequence[Payload | None],
        threads: int,
        progress: Progress | None,
    ) -> None:
        start, stop = self.state["n"], self.state["n"] + len(x)
        if stop > MAX_ROWS:
            raise InputError(f"the collection would hold {stop} rows; the limit is {MAX_ROWS}")
        if not len(x):
            return
        self._put_ids(ids, start)
        self._put_records(ids, payloads, start)
        self._put_vectors(x, ids, start, stop)
        self.state["n"] = stop
        self.state["live"] += len(x)
        self._extend_index(stop, threads, progress)

    def _put_ids(self, ids: Ids, start: int) -> None:
        state, append = self.state, False
        if isinstance(ids, np.ndarray):
            append = bool(ids[0] >= state["next_id"]) and bool((np.diff(ids) > 0).all())
            state["next_id"] = max(state["next_id"], int(ids.max()) + 1)
        self.txn.put_ids(id_keys(ids), range(start, start + len(ids)), append=append)

    def _put_records(self, ids: Ids, payloads: Sequence[Payload | None], start: int) -> None:
        strings = self.config.ids == "str"
        for i, payload in enumerate(payloads):
            if payload is None and not strings:
                continue
            record = {"id": ids[i], "payload": payload} if strings else {"payload": payload}
            self.txn.put_record(ROW, start + i, record, name=f"payload[{i}]")
            self.state["records"] += 1

    def _put_vectors(self, x: Vectors, ids: Ids, start: int, stop: int) -> None:
        assert self.quantizer is not None
        columns = self.columns
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                columns[name].resize(stop)
        columns[DELETED].resize((stop + 63) // 64)
        for i in range(0, len(x), ENCODE_ROWS):
            part = x[i : i + ENCODE_ROWS]
            columns[CODES].write(start + i, self.quantizer.encode(part))
            if self.keep is not None:
                columns[VECTORS].write(start + i, self.keep.encode(part))
            if self.config.metric == "ip":
                self.state["lift2"] = max(self.state["lift2"], self._largest_norm2(part))
        if isinstance(ids, np.ndarray):
            columns[IDS].write(start, ids.astype("<i8").view(np.uint8).reshape(-1, 8))

    def _largest_norm2(self, x: Vectors) -> float:
        floats = x if self.config.form is None else to_floats(x, self.config.form)
        return float(np.einsum("ij,ij->i", floats, floats).max())

    def _extend_index(self, stop: int, threads: int, progress: Progress | None) -> None:
        state = self.state["index"]
        index = index_for(self.config, state["kind"], stop)
        if index.kind != state["kind"]:  # auto has outgrown the scan: every row is linked now
            state = {"kind": index.kind}
        assert self.quantizer is not None
        coded = linkable(self.quantizer, self.keep, self.columns, self.state["lift2"])
        for name, spec in index.columns(self.quantizer.codec).items():
            if name not in self.columns:
                self.txn.add_column(name, spec)
            self.columns[name].resize(stop)
        fresh = index.extend(self.columns, coded, state, stop, threads, progress)
        self.state["index"] = {"kind": index.kind, **fresh}

    # --- deleting ---

    def delete(self, keys: Sequence[bytes], rows: NDArray[np.int64]) -> None:
        """Delete live rows, given with the keys of their ids."""
        column = self.txn.columns[DELETED]
        for word in np.unique(rows // 64):
            bits = column.read_range(int(word), int(word) + 1).view("<u8")
            bits |= np.bitwise_or.reduce(np.uint64(1) << (rows[rows // 64 == word] % 64).astype(np.uint64))
            column.write(int(word), bits.view(np.uint8))
        self.txn.delete_ids(keys)
        for row in rows.tolist() if self.state["records"] else ():
            if self.txn.record(ROW, row) is not None:
                self.txn.delete_record(ROW, row)
                self.state["records"] -= 1
        self.state["live"] -= len(rows)


def index_for(config: Config, kind: str, rows: int) -> Index:
    """The index that ``rows`` rows ask for, where one of ``kind`` is there already."""
    if config.index is not None:
        return make_index(config.index)
    return make_index(HNSW() if rows > AUTO_INDEX_ROWS or kind != "flat" else Flat())


def linkable(quantizer: Quantizer, keep: Quantizer | None, columns: Mapping[str, Column], lift2: float) -> Coded:
    """What a graph is built on: the codes, or the originals where a code is too coarse to prune by."""
    if quantizer.coarse and keep is not None:
        return Coded(keep.make_codec(lift2), columns[VECTORS])
    return Coded(quantizer.make_codec(lift2), columns[CODES])
