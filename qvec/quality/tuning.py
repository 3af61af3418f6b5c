"""Tuning: measures recall against the cost of searches; ``search(recall=)`` uses the resulting curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qvec._kernels import SearchParams
from qvec.common.errors import ClosedError, InputError
from qvec.common.plain_state import floats_to_bytes, take_floats, take_int, take_state
from qvec.common.types import Float32Array, Int64Array
from qvec.index import Progress, load_index
from qvec.quality.recall import first_others, recall, wilson
from qvec.rows.access import RowAccess
from qvec.rows.lookup import live_rows
from qvec.schema.layout import TUNING
from qvec.schema.state import Tuned
from qvec.search.curves import Curve, Curves, Point, Source, outdated, stored_curves
from qvec.search.engine import Engine
from qvec.search.refine import Found
from qvec.storage.store import Snapshot, Store, Transaction

EF_STEPS = tuple(round(10 * 1.2**i) for i in range(30))  # 10 to 1,978
PROBE_STEPS = tuple(sorted({round(1.25**i) for i in range(45)}))  # 1 to 18,330
DEPTHS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0)  # candidates per hit
RERANK_COST = 6.0  # of re-ranking one candidate, in codes scored
MAX_RECALL = 0.9995  # higher points are not measured
MIN_GAIN = 0.0005  # of recall; after a smaller gain, more candidates are not tried
RECORD_BYTES = 60_000  # of queries per record: longer values need contiguous pages


@dataclass(frozen=True)
class Tuning:
    """A measurement of one snapshot. ``engine`` must return rows, not ids."""

    snap: Snapshot
    engine: Engine
    queries: Float32Array
    own: Int64Array
    source: Source

    def run(self, ks: Sequence[int], threads: int, progress: Progress | None) -> Curves:
        """Measure a curve for each k."""
        state = self.snap.state
        made = []
        for i, k in enumerate(sorted(ks)):
            truth = self._truth(k, threads)
            made.append(Curve.best_of(k, list(self._points(k, truth, threads))))
            if progress is not None:
                progress(i + 1, len(ks))
        assert state.active is not None
        return Curves(state.active, state.index.kind, state.n, self.source, len(self.queries), tuple(made))

    @property
    def _extra(self) -> int:
        """Additional hits that are searched, for the query's own row."""
        return int(self.source == "rows")

    def _truth(self, k: int, threads: int) -> Float32Array:
        params = SearchParams(k + self._extra, exact=True)
        return self._distances(self.engine.search(self.queries, params, threads), k)

    def _distances(self, found: Found, k: int) -> Float32Array:
        """Distances of the first k hits that are not the query itself, float32 [nq, k or k + 1]; others: infinite."""
        rows, distances, _ = found
        return np.where(first_others(rows, self.own, k) & (rows >= 0), distances, np.float32(np.inf))

    def _points(self, k: int, truth: Float32Array, threads: int) -> Iterator[Point]:
        for ef, nprobe in widths(self.engine, k):
            best = -1.0
            for candidates in self._depths(k, ef):
                point = self._point(k, truth, ef, nprobe, candidates, threads)
                yield point
                if point.recall < best + MIN_GAIN:
                    break
                best = point.recall
            if best >= MAX_RECALL:
                return

    def _depths(self, k: int, ef: int) -> list[int]:
        """Numbers of candidates to try, up to the width of the walk."""
        if self.engine.original_quantizer is None:
            return [0]
        most = self.engine.live if ef == 0 else max(ef, k)
        return sorted({min(int(np.ceil(k * depth)), most) for depth in DEPTHS})

    def _point(self, k: int, truth: Float32Array, ef: int, nprobe: int, candidates: int, threads: int) -> Point:
        before = self.engine.work[1]
        extra = self._extra
        width, wanted = max(ef, k, candidates) + extra, 0 if candidates == 0 else candidates + extra
        params = SearchParams(k + extra, ef=width, nprobe=nprobe, candidates=wanted)
        found = self.engine.search(self.queries, params, threads)
        scored = (self.engine.work[1] - before) / len(self.queries)
        mean, low, _ = wilson(recall(self._distances(found, k), truth), k)
        return Point(ef, nprobe, candidates, mean, low, scored + RERANK_COST * candidates)


def widths(engine: Engine, k: int) -> list[tuple[int, int]]:
    """Pairs (ef, nprobe) to try, ascending; of a scan, (0, 0)."""
    kind = engine.index.kind
    if kind == "hnsw":
        steps = [ef for ef in EF_STEPS if k <= ef < engine.live]
        return [(ef, 0) for ef in steps] or [(max(k, engine.live), 0)]
    if kind == "ivf":
        return [(0, nprobe) for nprobe in PROBE_STEPS if nprobe < engine.n_lists] + [(0, engine.n_lists)]
    return [(0, 0)]


def make_tuning(
    snap: Snapshot,
    engine: Engine,
    queries: Float32Array | None,
    vectors: Callable[[Int64Array], Float32Array],
    n: int,
    seed: int,
) -> Tuning:
    """Prepare a measurement with at most ``n`` queries, or with stored ``vectors`` as queries among the others."""
    rng = np.random.default_rng(seed)
    if queries is not None:
        chosen = queries[np.sort(rng.permutation(len(queries))[:n])]
        return Tuning(snap, engine, np.ascontiguousarray(chosen), np.full(len(chosen), -1), "queries")
    rows = live_rows(snap)
    picked = np.sort(rng.choice(rows, min(n, len(rows)), replace=False))
    return Tuning(snap, engine, vectors(picked), picked, "rows")


def tune(
    store: Store,
    access: RowAccess,
    queries: Float32Array | None,
    ks: Sequence[int],
    n: int,
    seed: int,
    threads: int,
    progress: Progress | None,
) -> Curves:
    """Measure recall curves on the last commit and store them, with the queries if there are any."""
    config = access.config
    with store.read() as snap:
        quantizers, live = access.active(snap), snap.state.live
        if quantizers is None or live <= max(ks):
            raise InputError(f"recall@{max(ks)} is measured on more vectors than that; {live} are stored")
        if quantizers.originals is None and quantizers.codes.kind != "f32" and config.form is None:
            raise InputError(
                "recall is measured against the originals, and the collection was created with originals='none'"
            )
        engine = Engine(snap, quantizers, load_index(config.index, snap.state))
        tuning = make_tuning(snap, engine, queries, engine.vectors.read, n, seed)
        curves = tuning.run(ks, threads, progress)
    with store.write() as txn:
        store_curves(txn, curves, None if queries is None else tuning.queries)
    return curves


def refresh_curves(store: Store, access: RowAccess, threads: int) -> None:
    """Measure stored recall curves again if they no longer fit the collection.

    Called after a commit. A handle that was closed since the commit is not an error.
    """
    try:
        snap = store.begin()
    except ClosedError:
        return
    try:
        old = stored_curves(snap)
        if old is None or not outdated(snap.state):
            return
        queries = load_queries(snap, access.config.dim) if old.source == "queries" else None
        ks = [curve.k for curve in old.curves]
        if snap.state.live <= max(ks):
            return  # too few vectors to measure on
    finally:
        store.end(snap)
    tune(store, access, queries, ks, old.n_queries, 0, threads, None)


def store_curves(txn: Transaction, curves: Curves, queries: Float32Array | None) -> None:
    """Store the curves, and ``queries``, if given, for measuring again after changes."""
    txn.put_record(TUNING, 0, curves.state())
    txn.state = replace(txn.state, tuned=Tuned(curves.generation, curves.index, curves.n))
    if queries is None:
        return
    forget_queries(txn)
    per_record = max(1, RECORD_BYTES // (4 * queries.shape[1]))
    for i, start in enumerate(range(0, len(queries), per_record)):
        part = queries[start : start + per_record]
        txn.put_record(TUNING, i + 1, {"n": len(part), "queries": floats_to_bytes(part)})


def forget_queries(txn: Transaction) -> None:
    """Remove the stored queries."""
    number = 1
    while txn.record(TUNING, number) is not None:
        txn.delete_record(TUNING, number)
        number += 1


def load_queries(reading: Snapshot, dim: int) -> Float32Array | None:
    """Read the stored queries, float32 [n, dim], or None."""
    parts: list[Float32Array] = []
    while (record := reading.record(TUNING, len(parts) + 1)) is not None:
        fields = take_state(record, "queries of recall curves", ("n", "queries"))
        n = take_int(fields, "n", 1, RECORD_BYTES)
        parts.append(take_floats(fields, "queries", n * dim).reshape(-1, dim))
    return np.concatenate(parts) if parts else None
