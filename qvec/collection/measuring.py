"""The part of a collection that measures: recall, what searches must spend for it, and drift."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.collection.handle import Handle, worker_threads
from qvec.common.errors import ClosedError, DriftError, DriftWarning, InputError
from qvec.common.types import ArrayLike, Codes, Float32Array
from qvec.index import Progress, stored_index
from qvec.quality.recall import MAX_BASE_ROWS, OVERSAMPLES, CodeNames
from qvec.rows.lookup import live_rows
from qvec.rows.reader import Reader
from qvec.rows.writer import stored
from qvec.schema.calibrations import Trained
from qvec.schema.layout import CODES, TUNING, in_force
from qvec.schema.validation import as_searched, as_vectors, check_count
from qvec.search.curves import Curves, outdated
from qvec.search.engine import Engine
from qvec.storage.store import Snapshot, Store, Transaction

if TYPE_CHECKING:  # imported when they are called: seldom, and a sixth of the import's time
    from qvec.quality.drift import Drift, DriftMonitor, OnDrift
    from qvec.quality.evaluate import Evaluation
    from qvec.quality.query_sample import QuerySample
    from qvec.quality.report import Report

MAX_TUNED_K = 10_000
MAX_TUNED_QUERIES = 100_000
MAX_MEASURED = 1_000_000
SAMPLED_CALLS = 64  # keeping a query takes a microsecond; a search, ten or more


class Measuring(Handle):
    """What :class:`qvec.Collection` inherits of calls that measure."""

    def __init__(self, store: Store, on_drift: OnDrift = None) -> None:
        if not (on_drift in (None, "warn", "raise") or callable(on_drift)):
            raise InputError(f"on_drift must be 'warn', 'raise', a callable or None, got {on_drift!r}")
        super().__init__(store)
        self._on_drift, self._alarmed = on_drift, -1
        self._asked = 0  # searches, of which one in SAMPLED_CALLS is looked at

    def evaluate(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        codes: CodeNames = "all",
        n: int = 1000,
        *,
        oversamples: Sequence[int] = OVERSAMPLES,
        rows: int = MAX_BASE_ROWS,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Report:
        """Measure codes on the stored vectors: recall@k with its interval, bytes, latency, and what loses recall.

        queries: float32 [m, dim]; None: stored rows, each looked for among the others. n: queries used at most,
        drawn by ``seed``. codes: "all" that are known, or a list of names and configurations. oversamples:
        candidates re-ranked per hit; 1: none. rows: more vectors than this are sampled, and scanned only.
        progress: called with (done, total) codes.

        The collection's own graph is walked over each code, so that the index's loss is that of a requantize
        with ``relink=False``. Nothing is written. Raises InputError: no originals, or too few vectors.
        """
        with self._store.read() as snap:
            evaluation = self._evaluation(snap, queries, k, oversamples, rows, seed, progress)
            return evaluation.run(codes, check_count("n", n, 1, MAX_MEASURED))

    def tune(
        self,
        queries: ArrayLike | None = None,
        *,
        ks: Sequence[int] = (10, 100),
        n: int = 1000,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Curves:
        """Measure recall@k against what a search spends, and store the curves that ``search(recall=)`` goes by.

        queries: float32 [m, dim], like those that will be asked; at most ``n`` of them, drawn by ``seed``, are used and
        kept in the file, so that the curves are measured again when the codes change or the collection has grown by
        half. None: stored rows, each looked for among the others, which are easier to find than most queries. ks: the
        curve of the smallest k that is not below a search's answers for it. progress: called with (done, total) curves.

        Raises InputError: no originals to measure against, fewer vectors than the largest k, or no queries.
        """
        config = self._config
        q = None if queries is None else as_searched(np.atleast_2d(queries), config.dim, config.metric, config.form)
        if q is not None and not len(q):
            raise InputError("queries must hold one query or more")
        if not len(ks):
            raise InputError("ks must name one k or more")
        checked = sorted({check_count("ks", k, 1, MAX_TUNED_K) for k in ks})
        return self._tune(q, checked, check_count("n", n, 1, MAX_TUNED_QUERIES), seed, threads, progress)

    def drift(self) -> Drift:
        """Tell whether vectors added lately resemble the training sample of the active code; see :class:`Drift`.

        The evidence also has the recall by code of the newest 256 queries that this handle sampled: one search in 64,
        and some queries of each batch. These figures do not affect the level.
        """
        from qvec.quality.drift import read_drift
        from qvec.quality.drift_stats import BASE_ROWS
        from qvec.quality.query_sample import query_evidence

        with self._store.read() as snap:
            found, quantizer, queries = read_drift(snap, self._config.dim), self._quantizer(snap), self._queries.rows
            if quantizer is None or not len(queries) or not snap.state["live"]:
                return found
            more = query_evidence(queries, quantizer, *self._stored_sample(snap, quantizer, BASE_ROWS))
            return replace(found, evidence=found.evidence | more)

    # --- parts ---

    def _evaluation(
        self,
        snap: Snapshot,
        queries: ArrayLike | None,
        k: int,
        oversamples: Sequence[int],
        rows: int,
        seed: int,
        progress: Progress | None,
    ) -> Evaluation:
        from qvec.quality.evaluate import Evaluation

        config = self._config
        q = None if queries is None else as_vectors("queries", queries, config.dim, config.metric)
        if q is not None and not len(q):
            raise InputError("queries must hold one query or more")
        check_count("k", k, 1, 10_000)
        check_count("rows", rows, k + 1, 2**31)
        return Evaluation(snap, config, self._generations, q, k, oversamples, rows, seed, progress)

    @cached_property
    def _queries(self) -> QuerySample:
        from qvec.quality.query_sample import QuerySample

        return QuerySample(self._config.dim)

    @cached_property
    def _drift_monitor(self) -> DriftMonitor:
        from qvec.quality.drift import DriftMonitor

        return DriftMonitor()

    def _check_drift(self, txn: Transaction, trained: bool, x: Float32Array) -> Drift | None:
        """Check a batch that is being added for drift. DriftError: an alarm, if the handle was opened to raise it."""
        from qvec.quality.drift import store_reference
        from qvec.quality.drift_stats import ROWS_PER_CHECK

        quantizer = self._quantizer(txn)
        if quantizer is None or self._config.form is not None:  # codes that come ready-made learned nothing here
            return None
        if trained and len(x) >= ROWS_PER_CHECK:
            made = Trained(quantizer, self._config.code, len(x), self._config.model)
            store_reference(txn, txn.state["quantizer"], made, x)
            return None
        stored_sample = partial(self._stored_sample, txn, quantizer)
        drift = self._drift_monitor.check(txn, quantizer, x, stored_sample)
        if drift is not None and drift.level == "alarm" and self._on_drift == "raise":
            raise DriftError(f"drift alarm: {drift.advice} ({_shown(drift)})")
        return drift

    def _stored_sample(
        self, txn: Snapshot | Transaction, quantizer: Quantizer, n: int, newest: bool = False
    ) -> tuple[Float32Array, Codes]:
        """At most n stored vectors, as exactly as they are kept, and their codes: spread over all, or the newest.

        Those that took the rows of deleted ones count as old as these.
        """
        rows, columns = live_rows(txn), in_force(txn.columns, txn.state["names"])
        rows = rows[-n:] if newest else rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(np.int64)]
        return stored(quantizer, self._originals(txn), columns).read(rows), columns[CODES].read(rows)

    def _announce(self, drift: Drift | None) -> None:
        """Tell of an alarm, once for each generation."""
        if drift is None or drift.level != "alarm" or drift.generation is None or drift.generation <= self._alarmed:
            return
        self._alarmed = drift.generation
        if callable(self._on_drift):
            self._on_drift(drift)
        elif self._on_drift == "warn":
            warnings.warn(f"drift alarm: {drift.advice} ({_shown(drift)})", DriftWarning, stacklevel=3)

    def _tune(
        self,
        queries: Float32Array | None,
        ks: Sequence[int],
        n: int,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Curves:
        from qvec.quality.tuning import make_tuning, store_curves

        with self._store.read() as snap:
            quantizer, original_quantizer = self._quantizer(snap), self._originals(snap)
            if quantizer is None or snap.state["live"] <= max(ks):
                raise InputError(
                    f"recall@{max(ks)} is measured on more vectors than that; {snap.state['live']} are stored"
                )
            if original_quantizer is None and quantizer.kind != "f32" and self._config.form is None:
                raise InputError(
                    "recall is measured against the originals, and the collection was created with originals='none'"
                )
            index = stored_index(self._config.index, snap.state["index"])
            engine = Engine(snap, quantizer, original_quantizer, index, False)
            vectors = Reader(snap, self._config, quantizer, original_quantizer).vectors
            tuning = make_tuning(snap, engine, queries, vectors, n, seed)
            curves = tuning.run(ks, worker_threads(threads), progress)
        with self._store.write() as txn:
            store_curves(txn, curves, None if queries is None else tuning.queries)
        return curves

    def _keep_tuned(self, threads: int | None) -> None:
        """Measure recall curves again where there are any and they no longer fit.

        The change before it is committed: that the handle was closed since is no error of it.
        """
        try:
            snap = self._store.begin()
        except ClosedError:
            return
        try:
            if not outdated(snap.state):
                return
            from qvec.quality.tuning import stored_queries

            old = Curves.from_state(snap.record(TUNING, 0))
            queries = stored_queries(snap, self._config.dim) if old.source == "queries" else None
            ks = [curve.k for curve in old.curves]
            if snap.state["live"] <= max(ks):
                return  # too few to measure on; what adds more comes here again
        finally:
            self._store.end(snap)
        self._tune(queries, ks, old.n_queries, threads=threads)


def _shown(drift: Drift) -> str:
    found = drift.evidence
    return f"recall by code {found['recall']:.3f}, {found['recall_trained']:.3f} when it was trained"
