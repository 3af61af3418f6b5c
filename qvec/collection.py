"""The collection: one file of vectors, their codes, an index and payloads, behind the public calls."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from qvec.calibrations import Trained
from qvec.config import Config
from qvec.engine import Engine, live_rows
from qvec.errors import CorruptError, InputError, MissingIdError
from qvec.index import Progress, stored_index
from qvec.inputs import (
    MAX_K,
    as_ids,
    as_payloads,
    as_searched,
    as_stored,
    check_count,
    check_unique,
    id_keys,
)
from qvec.layout import CODES, IDS, VECTORS, in_force
from qvec.quantizers import Quantizer, train
from qvec.rows import check_same, payloads_of, row_record, shaped
from qvec.statistics import collect_stats
from qvec.storage.store import Snapshot, Store
from qvec.types import AddResult, ArrayLike, Hits, Metric, NDArray, OnConflict, Payload, Records, Stats, check_choice
from qvec.upkeep import Upkeep, worker_threads
from qvec.writer import Writer, initial_state

MAX_OVERSAMPLE = 10_000
if TYPE_CHECKING:
    from qvec.drift.watch import OnDrift

DEFAULT_EF = 64


class Collection(Upkeep):
    """Vectors of one dimension under one metric. Made by :func:`qvec.create` and :func:`qvec.open`.

    Any number of threads and processes may search while one handle writes; a search sees the last commit, whole.
    """

    def __init__(self, store: Store, on_drift: OnDrift = None) -> None:
        super().__init__(store, on_drift)
        config = self._config
        self._int_ids = config.ids == "int64"
        self._zero_score = 1.0 if config.metric == "cosine" else 0.0

    # --- writing ---

    def add(
        self,
        vectors: ArrayLike,
        ids: Any = None,
        payload: Sequence[Payload | None] | Payload | None = None,
        *,
        on_conflict: OnConflict = "error",
        progress: Progress | None = None,
        threads: int | None = None,
        model: str | None = None,
    ) -> AddResult:
        """Store a batch, all of it or nothing; durable when the call returns.

        vectors: array-like [n, dim] or [dim] of real numbers, finite, at most 1e18 in magnitude; in a collection
        of :class:`qvec.Prequantized` codes, integers in that form.
        ids: n integers in [0, 2^63) or n strings, as the collection was created for; None numbers them on.
        payload: a dict (or None) a vector, of msgpack-able values.
        on_conflict: what to do where an id is stored already: "error", "skip" or "replace".
        progress: called with (done, total) rows while an index is built. threads: default, all cores.
        model: the tag of the vectors' model; refused where it is not the collection's.

        Raises InputError (also a ValueError) naming the row and the limit, DuplicateIdError, ReadOnlyError,
        DiskFullError; nothing was written then.
        """
        config = self._config
        self._check_model(model)
        check_choice("on_conflict", on_conflict, ("error", "skip", "replace"))
        x = as_stored("vectors", vectors, config.dim, config.metric, config.form)
        checked = None if ids is None else as_ids(ids, config.ids)
        if checked is not None:
            if len(checked) != len(x):
                raise InputError(f"{len(checked)} ids for {len(x)} vectors: give one a vector")
            check_unique(checked)
        payloads = as_payloads(payload, len(x))
        workers = worker_threads(threads)
        with self._store.write() as txn:
            writer = Writer(txn, config, self._quantizer(txn), self._originals(txn))
            untrained = writer.quantizer is None
            stored, added, replaced, skipped = writer.add(x, checked, payloads, on_conflict, workers, progress)
            drift = self._observe(txn, untrained, x)
        self._announce(drift)
        return AddResult(_id_array(stored), added, replaced, skipped)

    def upsert(
        self,
        vectors: ArrayLike,
        ids: Any,
        payload: Sequence[Payload | None] | Payload | None = None,
        *,
        progress: Progress | None = None,
        threads: int | None = None,
        model: str | None = None,
    ) -> AddResult:
        """Add, replacing the vectors whose ids are stored already; see :meth:`add`."""
        return self.add(vectors, ids, payload, on_conflict="replace", progress=progress, threads=threads, model=model)

    def delete(self, ids: Any, *, missing: Literal["ignore", "error"] = "ignore") -> int:
        """Delete by id, all or nothing; how many were stored. ``missing="error"`` raises MissingIdError instead."""
        check_choice("missing", missing, ("ignore", "error"))
        wanted = as_ids(ids, self._config.ids)
        with self._store.write() as txn:
            keys = list(dict.fromkeys(id_keys(wanted)))
            rows = txn.rows_of(keys)
            found = np.flatnonzero(rows >= 0)
            if missing == "error":
                self._refuse_missing(keys, rows)
            if len(found):
                Writer(txn, self._config, None, None).delete([keys[i] for i in found], rows[found])
        return len(found)

    def _refuse_missing(self, keys: Sequence[bytes], rows: NDArray[np.int64]) -> None:
        if (rows < 0).any():
            key = keys[int(np.argmin(rows))]
            raise MissingIdError(
                f"no vector has the id {int.from_bytes(key, 'big') if self._int_ids else key.decode()!r}"
            )

    # --- searching ---

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef: int | None = None,
        oversample: float | Literal["auto"] = "auto",
        rescore: bool | Literal["auto"] = "auto",
        exact: bool = False,
        threads: int | None = None,
        with_payload: bool = True,
        model: str | None = None,
    ) -> Hits:
        """The k nearest neighbours of one query (1-D in, 1-D out) or of a batch (2-D in, 2-D out).

        ef: candidates a graph walk keeps; more is slower and finds more. oversample: candidates re-ranked per hit;
        "auto": what the code needs, of a given ``ef`` all at most.
        rescore: whether candidates are re-ranked with the stored originals; "auto": where there are any.
        exact: score every original instead. threads: for a batch; default, all cores. model: the tag of the
        queries' model; refused where it is not the collection's.
        Fewer than k vectors stored: what there is, padded as :class:`Hits` says.
        """
        config = self._config
        if model is not None:
            self._check_model(model)
        q = as_searched(queries, config.dim, config.metric, config.form)
        if type(k) is not int or not 1 <= k <= MAX_K:
            k = check_count("k", k, 1, MAX_K)
        workers = 1 if threads is None and q.ndim == 1 else worker_threads(threads)
        width = DEFAULT_EF if ef is None else check_count("ef", ef, 1, MAX_K)
        factor = None if oversample == rescore == "auto" else _check_reranking(oversample, rescore)
        snap = self._store.begin()
        try:
            engine = snap.derived.get("engine") or self._make_engine(snap)
            if engine is None:
                return self._no_hits((*q.shape[:-1], k), with_payload)
            candidates = _candidates(engine, k, factor, rescore)
            if ef is not None and factor is None and engine.index.kind != "flat":
                candidates = min(candidates, max(k, width))  # a walk that is asked for less has no more to re-rank
            ids, distances, counts = engine.search(q, k, max(width, k, candidates), candidates, exact, workers)
            payloads: list[Any] | None = None
            if not self._int_ids:
                ids, payloads = self._string_hits(snap, ids, with_payload)
            elif with_payload:
                payloads = (
                    self._payloads(snap, ids) if engine.state["records"] else shaped([None] * ids.size, ids.shape)
                )
            return Hits(ids, distances, counts, payloads, self._zero_score)
        finally:
            self._store.end(snap)

    def _string_hits(
        self, snap: Snapshot, rows: NDArray[np.int64], with_payload: bool
    ) -> tuple[NDArray[np.object_], list[Any] | None]:
        records = [None if row < 0 else row_record(snap, row) for row in rows.reshape(-1).tolist()]
        ids = np.array(["" if record is None else record["id"] for record in records], object).reshape(rows.shape)
        return ids, shaped(payloads_of(records), rows.shape) if with_payload else None

    def _payloads(self, snap: Snapshot, ids: NDArray[np.int64]) -> list[Any]:
        rows = iter(self._rows_of_stored(snap, ids[ids >= 0]))
        records = [None if i < 0 else row_record(snap, next(rows)) for i in ids.reshape(-1).tolist()]
        return shaped(payloads_of(records), ids.shape)

    def _rows_of_stored(self, snap: Snapshot, ids: NDArray[np.int64]) -> list[int]:
        """Rows of integer ids that live rows were found to have."""
        rows = snap.rows_of(id_keys(ids))
        if (rows < 0).any():
            raise CorruptError(f"the id {ids[rows < 0][0]} is stored, but leads to no row")
        check_same(ids, self._row_ids(snap, rows, ()))
        return [int(row) for row in rows]

    def _no_hits(self, shape: tuple[int, ...], with_payload: bool) -> Hits:
        ids = np.full(shape, -1, np.int64) if self._int_ids else np.full(shape, "", object)
        distances, counts = np.full(shape, np.inf, np.float32), np.zeros(shape[:-1], np.int64)
        payloads = shaped([None] * ids.size, shape) if with_payload else None
        return Hits(ids, distances, counts, payloads, self._zero_score)

    # --- reading ---

    def get(self, ids: Any) -> Records:
        """Stored vectors and payloads in the order asked for; MissingIdError names the first id that is not stored."""
        wanted = as_ids(ids, self._config.ids)
        with self._store.read() as snap:
            keys = id_keys(wanted)
            rows = snap.rows_of(keys)
            self._refuse_missing(keys, rows)
            records = [row_record(snap, row) for row in rows.tolist()]
            if len(rows):
                check_same(_id_array(wanted), self._row_ids(snap, rows, records))
            return Records(_id_array(wanted), self._vectors(snap, rows), payloads_of(records))

    def scan(self, batch_size: int = 8192) -> Generator[Records, None, None]:
        """Every live vector, in batches, as of the commit at the first step; close the iterator to end it early."""
        size = check_count("batch_size", batch_size, 1, MAX_K)
        with self._store.read() as snap:
            live = live_rows(snap)
            for start in range(0, len(live), size):
                rows = live[start : start + size]
                records = [row_record(snap, int(row)) for row in rows] if snap.state["records"] else [None] * len(rows)
                yield Records(self._row_ids(snap, rows, records), self._vectors(snap, rows), payloads_of(records))

    def _row_ids(self, snap: Snapshot, rows: NDArray[np.int64], records: Sequence[Any]) -> NDArray[Any]:
        if not self._int_ids:
            return np.array([record["id"] for record in records], object)
        return snap.columns[IDS].read(rows).view("<i8").reshape(-1).astype(np.int64)

    def _vectors(self, snap: Snapshot, rows: NDArray[np.int64]) -> NDArray[Any]:
        keep, quantizer = self._originals(snap), self._quantizer(snap)
        if quantizer is None or not len(rows):
            return as_stored("vectors", (), self._config.dim, self._config.metric, self._config.form)
        columns = in_force(snap.columns, snap.state["names"])
        return quantizer.decode(columns[CODES].read(rows)) if keep is None else keep.decode(columns[VECTORS].read(rows))

    def __len__(self) -> int:
        with self._store.read() as snap:
            return int(snap.state["live"])

    def __contains__(self, id: object) -> bool:
        try:
            key = id_keys(as_ids([id], self._config.ids))[0]
        except InputError:
            return False
        with self._store.read() as snap:
            return snap.row_of(key) is not None

    # --- looking after ---

    def stats(self) -> Stats:
        """Counts and sizes as of the last commit."""
        with self._store.read() as snap:
            return collect_stats(snap, self._store, self._config)

    def verify(self) -> list[str]:
        """Check every block, record, id and edge of the last commit; the problems found, none when it is sound."""
        from qvec.verify import verify_snapshot

        with self._store.read() as snap:
            return verify_snapshot(snap, self._config, self._quantizer(snap), self._originals(snap))

    def close(self) -> None:
        """Wait for searches that are running, then release the file. Calls after it raise ClosedError."""
        self._store.close()

    def __enter__(self) -> Self:
        self._store.end(self._store.begin())  # a closed handle says so here, not at the first call
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        config = self._config
        return f"<qvec.Collection {os.fspath(self._store.path)!r} dim={config.dim} {config.metric}>"

    # --- parts ---

    def _codes_by(self, quantizer: Quantizer) -> bool:
        """Whether this is the collection's own quantizer."""
        with self._store.read() as snap:
            own = self._quantizer(snap)
        return own is not None and _undated(own.state()) == _undated(quantizer.state())

    def _make_engine(self, snap: Snapshot) -> Engine | None:
        quantizer = self._quantizer(snap)
        if quantizer is None or not snap.state["live"]:
            return None
        index = stored_index(self._config.index, snap.state["index"])
        engine = Engine(snap, quantizer, self._originals(snap), index, self._int_ids)
        snap.derived["engine"] = engine
        return engine


def _check_reranking(oversample: object, rescore: object) -> float | None:
    """The factor of oversampling, None for auto; InputError for what neither option can be."""
    if rescore not in (True, False, "auto"):
        raise InputError(f"rescore must be True, False or 'auto', got {rescore!r}")
    if oversample == "auto":
        return None
    if not isinstance(oversample, (int, float)) or not 1 <= oversample <= MAX_OVERSAMPLE:
        raise InputError(f"oversample must be 'auto' or a number between 1 and {MAX_OVERSAMPLE}, got {oversample!r}")
    return float(oversample)


def _candidates(engine: Engine, k: int, factor: float | None, rescore: bool | Literal["auto"]) -> int:
    """How many candidates are re-ranked; 0: none."""
    if rescore is False or engine.keep is None:
        if rescore is True and not _is_exact(engine.quantizer):  # f32 codes are the originals
            raise InputError("rescore=True needs stored originals: the collection was created with keep='none'")
        return 0
    if factor is None:
        chosen = engine.state["oversample"]
        if chosen is not None and chosen["generation"] == engine.state["quantizer"]:
            return int(k * chosen["factor"])
        return max(k * engine.quantizer.oversample, k + 10)
    return int(np.ceil(k * factor))


def _is_exact(quantizer: Quantizer) -> bool:
    return quantizer.kind == "f32" and quantizer.transform is None


def _undated(state: dict[str, Any]) -> dict[str, Any]:
    """A quantizer's state without the time of its calibration: the id stands for all the rest."""
    calibration = state.get("calibration")
    return state if calibration is None else state | {"calibration": calibration["id"]}


def _id_array(ids: NDArray[Any] | list[str]) -> NDArray[Any]:
    return ids if isinstance(ids, np.ndarray) else np.array(ids, object)


def new_collection(
    path: str | os.PathLike[str],
    config: Config,
    sample: NDArray[Any] | None,
    on_drift: OnDrift,
    quantizer: Quantizer | None = None,
    **options: Any,
) -> Collection:
    """Create the file with a quantizer that is trained already, or train one at once where a sample is given."""
    if quantizer is None and sample is not None:
        quantizer = train(sample, config.metric, config.code, config.seed, config.model)
    store = Store.create(path, {}, config.to_dict(), state=initial_state(), **options)
    try:
        collection = Collection(store, on_drift)
        if quantizer is not None:
            with store.write() as txn:
                samples = 0 if sample is None else len(sample)
                Writer(txn, config, None, collection._originals(txn)).use(quantizer, samples)
                if sample is not None:
                    from qvec.drift.watch import remember

                    remember(txn, 0, Trained(quantizer, config.code, samples, config.model), sample)
        return collection
    except BaseException:
        store.close()
        raise


__all__ = ["Collection", "Metric", "new_collection"]
