"""Hits made of what an engine found: ids as they were given, payloads, and places that hold nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec._kernels import Ready
from qvec.common.errors import CorruptError
from qvec.common.types import IdKind, Metric, NDArray
from qvec.rows.lookup import check_same, find_rows, ids_of_rows, payloads_of, row_record, shaped
from qvec.schema.validation import SAFE_NORM2, id_keys
from qvec.search.engine import Effort, Engine, Found
from qvec.search.results import Hits
from qvec.storage.store import Snapshot


class HitMaker:
    """Makes the hits of one collection."""

    __slots__ = ("_int_ids", "_zero_score")

    def __init__(self, ids: IdKind, metric: Metric) -> None:
        self._int_ids = ids == "int64"
        self._zero_score = 1.0 if metric == "cosine" else 0.0

    def make(self, snap: Snapshot, engine: Engine, found: Found, with_payload: bool) -> Hits:
        """Hits of an engine's ids (rows where ids are strings), distances and counts."""
        ids: NDArray[Any]
        ids, distances, counts = found
        payloads: list[Any] | None = None
        if not self._int_ids:
            ids, payloads = _named(snap, ids, with_payload)
        elif with_payload:
            payloads = _payloads(snap, ids) if engine.state.records else shaped([None] * ids.size, ids.shape)
        return Hits(ids, distances, counts, payloads, self._zero_score)

    def ready(self, engine: Engine, given: tuple[Any, ...], effort: Effort, with_payload: bool) -> Ready | None:
        """A search by options as they were given; None where its hits need more than what an engine finds."""
        if not self._int_ids or (with_payload and engine.state.records):
            return None
        return Ready(given, engine.searcher, engine.quantizer.dim, SAFE_NORM2, effort, self._zero_score, with_payload)

    def of_rows(self, snap: Snapshot, found: Found, with_payload: bool, vectors: NDArray[Any] | None) -> Hits:
        """Hits of rows (-1: none), distances and counts; ``vectors`` [..., k, dim]: what they bring along."""
        rows, distances, counts = found
        flat = rows.reshape(-1)
        held = np.flatnonzero(flat >= 0)
        needs_records = with_payload or not self._int_ids
        records = [row_record(snap, row) for row in flat[held].tolist()] if needs_records else None
        hits = self.none(rows.shape, with_payload=False)
        hits.ids.reshape(-1)[held] = ids_of_rows(snap, flat[held], records)
        payloads: list[Any] | None = None
        if with_payload:
            payloads = [None] * len(flat)
            for i, payload in zip(held.tolist(), payloads_of(records or ()), strict=True):
                payloads[i] = payload
            payloads = shaped(payloads, rows.shape)
        return Hits(hits.ids, distances, counts, payloads, self._zero_score, vectors)

    def none(self, shape: tuple[int, ...], with_payload: bool) -> Hits:
        """Hits of shape (k,) or (n, k) where there is nothing to find."""
        ids = np.full(shape, -1, np.int64) if self._int_ids else np.full(shape, "", object)
        distances, counts = np.full(shape, np.inf, np.float32), np.zeros(shape[:-1], np.int64)
        payloads = shaped([None] * ids.size, shape) if with_payload else None
        return Hits(ids, distances, counts, payloads, self._zero_score)


def _named(snap: Snapshot, rows: NDArray[np.int64], with_payload: bool) -> tuple[NDArray[np.object_], list[Any] | None]:
    """String ids of rows, and their payloads if they are wanted."""
    records = [None if row < 0 else row_record(snap, row) for row in rows.reshape(-1).tolist()]
    ids = np.array(["" if record is None else record["id"] for record in records], object).reshape(rows.shape)
    return ids, shaped(payloads_of(records), rows.shape) if with_payload else None


def _payloads(snap: Snapshot, ids: NDArray[np.int64]) -> list[Any]:
    rows = iter(_rows_of_stored(snap, ids[ids >= 0]))
    records = [None if i < 0 else row_record(snap, next(rows)) for i in ids.reshape(-1).tolist()]
    return shaped(payloads_of(records), ids.shape)


def _rows_of_stored(snap: Snapshot, ids: NDArray[np.int64]) -> list[int]:
    """Rows of integer ids that live rows were found to have."""
    rows = find_rows(snap, id_keys(ids))
    if (rows < 0).any():
        raise CorruptError(f"the id {ids[rows < 0][0]} is stored, but leads to no row")
    check_same(ids, ids_of_rows(snap, rows))
    return [int(row) for row in rows]
