"""Measurements and generations: the parts behind `evaluate`, `choose`, `tune`, `calibrate` and `requantize`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import numpy as np

from qvec.codes.adapters import Adapter
from qvec.codes.configs import CodeConfig, IndexConfig
from qvec.common.console import as_progress
from qvec.common.errors import InputError, LockedError
from qvec.common.types import ArrayLike, Float32Array, check_choice
from qvec.index import Progress
from qvec.maintenance.calibrate import store_trained, train_on
from qvec.maintenance.requantize import GenerationManager, Relink
from qvec.quality.choose import Choice, Target, choose
from qvec.quality.combinations import EVERY_INDEX, Combination, IndexChoice, Limits, choose_combination, make_search
from qvec.quality.drift import Drift
from qvec.quality.drift_alarm import current_drift
from qvec.quality.evaluate import Evaluation
from qvec.quality.query_sample import QuerySample
from qvec.quality.recall import MAX_EVALUATED_ROWS, CodeNames
from qvec.quality.report import Report
from qvec.quality.tuning import refresh_curves, tune
from qvec.rows.access import RowAccess
from qvec.schema.config import check_makes_codes, index_config
from qvec.schema.generations import Generation, list_generations
from qvec.schema.quantizer_export import Transfer, export_quantizer, import_quantizer
from qvec.schema.quantizers import Trained
from qvec.schema.state import Oversample
from qvec.schema.validation import as_searched, as_vectors, check_count, worker_threads
from qvec.search.curves import Curves
from qvec.storage.store import Snapshot, Store

MAX_TUNED_K = 10_000
MAX_TUNED_QUERIES = 100_000
MAX_MEASURED_QUERIES = 1_000_000
MAX_TRIAL_ROWS = 60_000  # for which indexes are built to be compared


class ChooseKeywords(TypedDict, total=False):
    """Options of :meth:`qvec.Collection.choose` for any indexes."""

    k: int
    max_bytes: int | None
    max_p99_ms: float | None
    queries: ArrayLike | None
    minimize: Literal["time", "bytes"] | None
    codes: CodeNames
    n: int | None
    max_n: int
    oversamples: Sequence[int]
    rows: int | None
    seed: int
    threads: int | None
    progress: Progress | bool | None


@dataclass(frozen=True)
class Measurements:
    """The measurements of one collection, and the generations that follow from them."""

    store: Store
    access: RowAccess

    @property
    def generations(self) -> GenerationManager:
        """What changes the codes of the collection."""
        return GenerationManager(self.store, self.access)

    def generation(self, number: int) -> Generation:
        """Describe a generation."""
        with self.store.read() as snap:
            return next(made for made in list_generations(snap.state) if made.number == number)

    def requantize(
        self,
        code: str | CodeConfig | None,
        number: int | None,
        adapter: Adapter | None,
        relink: Relink,
        threads: int | None,
        progress: Progress | bool | None,
    ) -> Generation:
        """See :meth:`qvec.Collection.requantize`."""
        workers, report = worker_threads(threads), as_progress(progress, "requantize")
        with self.store.job("requantizes"):
            made = self.generations.requantize(code, number, relink, workers, report, adapter)
            self.refresh_curves(workers)
        return self.generation(made)

    def rollback(self, number: int, threads: int | None, progress: Progress | bool | None) -> Generation:
        """See :meth:`qvec.Collection.rollback`."""
        workers = worker_threads(threads)
        with self.store.job("requantizes"):
            self.generations.rollback(number, workers, as_progress(progress, "rollback"))
            self.refresh_curves(workers)
        return self.generation(number)

    def calibrate(
        self,
        sample: ArrayLike,
        queries: ArrayLike | None,
        method: str | None,
        code: str | CodeConfig | None,
        activate: bool,
        threads: int | None,
        progress: Progress | bool | None,
    ) -> Generation:
        """See :meth:`qvec.Collection.calibrate`."""
        x = as_vectors("sample", sample, self.access.config.dim, self.access.config.metric)
        dim, metric = self.access.config.dim, self.access.config.metric
        asked = None if queries is None else as_vectors("queries", queries, dim, metric)
        trained = train_on(self.store, self.access, x, code, method, asked)
        return self._store_trained(trained, x, activate, threads, progress)

    def export_calibration(self, number: int | None, format: Transfer) -> str | bytes:
        """See :meth:`qvec.Collection.export_calibration`."""
        with self.store.read() as snap:
            record = snap.state.generation(snap.state.active if number is None else number)
            return export_quantizer(record, self.access.load(snap, record.number), self.access.config, format)

    def import_calibration(self, data: str | bytes, activate: bool) -> Generation:
        """See :meth:`qvec.Collection.import_calibration`."""
        return self._store_trained(import_quantizer(data, self.access.config), None, activate, None, None)

    def _store_trained(
        self,
        trained: Trained,
        sample: Float32Array | None,
        activate: bool,
        threads: int | None,
        progress: Progress | bool | None,
    ) -> Generation:
        """Store a trained code as a generation. ``activate``: encode every row with it."""
        check_makes_codes(self.access.config)
        number, active = store_trained(self.store, self.access, trained, sample)
        if activate and not active:
            return self.requantize(None, number, None, "auto", threads, progress)
        return self.generation(number)

    def relink_if_due(self, threads: int, progress: Progress | None, tuning_threads: int) -> None:
        """Build a new graph if that is due and no other process requantizes, and measure outdated curves again."""
        with contextlib.suppress(LockedError), self.store.job("requantizes"):
            if self.generations.relink_if_due(threads, progress):
                self.refresh_curves(tuning_threads)

    def evaluate(
        self,
        queries: ArrayLike | None,
        k: int,
        codes: CodeNames,
        n: int,
        oversamples: Sequence[int],
        rows: int,
        seed: int,
        progress: Progress | bool | None,
    ) -> Report:
        """See :meth:`qvec.Collection.evaluate`."""
        with self.store.read() as snap:
            evaluation = self._evaluation(snap, queries, k, oversamples, rows, seed, as_progress(progress, "evaluate"))
            return evaluation.run(codes, check_count("n", n, 1, MAX_MEASURED_QUERIES))

    def choose(
        self,
        target: Target,
        k: int,
        queries: ArrayLike | None,
        indexes: str | Sequence[str | IndexConfig] | None,
        minimize: str | None,
        codes: CodeNames,
        sizes: tuple[int | None, int],
        oversamples: Sequence[int],
        rows: int | None,
        seed: int,
        threads: int | None,
        progress: Progress | bool | None,
    ) -> Choice | IndexChoice:
        """See :meth:`qvec.Collection.choose`; ``sizes``: ``n`` and ``max_n``."""
        check_makes_codes(self.access.config)
        if minimize is not None:
            check_choice("minimize", minimize, ("time", "bytes"))
        limited = target.max_bytes is not None or target.max_p99_ms is not None
        chosen = ("all" if limited else "current") if indexes is None else indexes
        alone = isinstance(chosen, str) and chosen == "current"
        limit = check_count("rows", rows or (MAX_EVALUATED_ROWS if alone else MAX_TRIAL_ROWS), 1, 2**31)
        first = check_count("n", sizes[0] or (500 if alone else 1000), 1, MAX_MEASURED_QUERIES)
        last = check_count("max_n", sizes[1], 1, MAX_MEASURED_QUERIES)
        report = as_progress(progress, "evaluate" if alone else "choose")
        with self.store.read() as snap:
            evaluation = self._evaluation(snap, queries, k, oversamples, limit, seed, report if alone else None)
            if alone:
                if minimize == "time":
                    raise InputError("minimize='time' compares indexes; indexes='current' names none to compare")
                return self._choose_code(evaluation, target, codes, first, max(first, last))
            return self._choose_index(
                evaluation, target, codes, chosen, minimize, first, worker_threads(threads), report
            )

    def tune(
        self,
        queries: ArrayLike | None,
        ks: Sequence[int],
        n: int,
        seed: int,
        threads: int | None,
        progress: Progress | bool | None,
    ) -> Curves:
        """See :meth:`qvec.Collection.tune`."""
        q = self._queries(queries)
        if not len(ks):
            raise InputError("ks must name one k or more")
        checked = sorted({check_count("ks", k, 1, MAX_TUNED_K) for k in ks})
        limit = check_count("n", n, 1, MAX_TUNED_QUERIES)
        workers, report = worker_threads(threads), as_progress(progress, "tune")
        with self.store.job("tunes"):
            return tune(self.store, self.access, q, checked, limit, seed, workers, report)

    def drift(self, queries: QuerySample) -> Drift:
        """See :meth:`qvec.Collection.drift`."""
        with self.store.read() as snap:
            return current_drift(snap, self.access, queries)

    def refresh_curves(self, threads: int) -> None:
        """Measure outdated recall curves again."""
        refresh_curves(self.store, self.access, threads)

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
        return Evaluation(snap, self.access, self._queries(queries), k, oversamples, rows, seed, progress)

    def _queries(self, queries: ArrayLike | None) -> Float32Array | None:
        """Queries to measure with, float32 [n, dim], n > 0."""
        if queries is None:
            return None
        config = self.access.config
        q = np.atleast_2d(as_searched(queries, config.dim, config.metric, config.exact_form))
        if not len(q):
            raise InputError("queries must hold one query or more")
        return q

    def _choose_code(self, evaluation: Evaluation, target: Target, codes: CodeNames, first: int, last: int) -> Choice:
        def measure(configs: list[CodeConfig] | None, size: int, z: float) -> Report:
            return replace(evaluation, z=z).run(codes if configs is None else configs, size)

        return choose(measure, target, first, min(last, evaluation.n_queries), self._apply_choice)

    def _choose_index(
        self,
        evaluation: Evaluation,
        target: Target,
        codes: CodeNames,
        indexes: str | Sequence[str | IndexConfig],
        minimize: str | None,
        n: int,
        threads: int,
        progress: Progress | None,
    ) -> IndexChoice:
        chosen = list(EVERY_INDEX) if isinstance(indexes, str) and indexes == "all" else _indexes(indexes)
        fewest_bytes = target.max_p99_ms is not None and target.max_bytes is None
        limits = Limits(target, fewest_bytes if minimize is None else minimize == "bytes")
        search = make_search(evaluation, n, limits, threads)
        queries, k = evaluation.queries, evaluation.k

        def apply(best: Combination, report: Progress | bool | None) -> Generation:
            return self._apply_combination(best, queries, k, report)

        return choose_combination(search, evaluation.wanted(codes), chosen, evaluation.oversamples, apply, progress)

    def _apply_choice(self, code: CodeConfig, oversample: int, progress: Progress | bool | None) -> Generation:
        made = self.requantize(code, None, None, "auto", None, progress)
        self._set_oversample(made.number, oversample)
        return made

    def _apply_combination(
        self, best: Combination, queries: Float32Array | None, k: int, progress: Progress | bool | None
    ) -> Generation:
        """Build and activate a combination, and measure its recall curves."""
        workers, report = worker_threads(None), as_progress(progress, "choose_index")
        with self.store.job("requantizes"):
            number = self.generations.rebuild(best.config, best.index_config, workers, report)
        self._set_oversample(number, max(1, -(-best.effort.candidates // k)))
        self.tune(queries, (k,), 1000, 0, None, None)
        return self.generation(number)

    def _set_oversample(self, number: int, oversample: int) -> None:
        with self.store.write() as txn:
            txn.state = replace(txn.state, oversample=Oversample(number, oversample))


def _indexes(indexes: str | Sequence[str | IndexConfig]) -> list[IndexConfig]:
    """The configurations of a list of indexes; InputError if it is none, or names "auto"."""
    if isinstance(indexes, str) or not len(indexes):
        raise InputError(f"indexes must be 'all', 'current', or a list of indexes; got {indexes!r}")
    chosen = [made for index in indexes if (made := index_config(index)) is not None]
    if len(chosen) < len(indexes):
        raise InputError("indexes must name each index: 'auto' is none")
    return chosen
