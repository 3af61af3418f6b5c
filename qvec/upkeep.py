"""The part of a collection that looks after its codes: calibrations and generations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec.calibrations import Generation, Trained, Transfer, entry_of, exported, imported, listed, register
from qvec.config import Config, code_from_dict, make_config
from qvec.configs import CodeConfig, Float16, Float32
from qvec.curves import Curves, outdated
from qvec.engine import Engine
from qvec.errors import DriftError, DriftWarning, InputError
from qvec.index import Progress, stored_index
from qvec.inputs import as_searched, as_vectors, check_count
from qvec.layout import CALIBRATION, TUNING, VECTORS, in_force
from qvec.measure import MAX_ROWS, OVERSAMPLES, CodeNames
from qvec.quantizers import Quantizer, from_state, train
from qvec.reading import Reader
from qvec.storage.store import Snapshot, Store, Transaction
from qvec.types import ArrayLike, Float32Array
from qvec.writer import Writer

if TYPE_CHECKING:  # imported when they are called: seldom, and a sixth of the import's time
    from qvec.drift.watch import Drift, OnDrift, Watch
    from qvec.evaluation.choose import Choice
    from qvec.evaluation.report import Report
    from qvec.generations import Generations, Relink
    from qvec.maintenance import Maintenance

MAX_THREADS = 1024
MAX_TUNED_K = 10_000
MAX_TUNED_QUERIES = 100_000


class Upkeep:
    """What :class:`qvec.collection.Collection` inherits: the handle's parts, and calls that change its codes."""

    def __init__(self, store: Store, on_drift: OnDrift = None) -> None:
        if not (on_drift in (None, "warn", "raise") or callable(on_drift)):
            raise InputError(f"on_drift must be 'warn', 'raise', a callable or None, got {on_drift!r}")
        self._on_drift, self._alarmed = on_drift, -1
        self._store = store
        self._config = Config.from_dict(dict(store.config))
        self._keep = _keep_quantizer(self._config)
        self._quantizers: dict[tuple[int, str], Quantizer] = {}

    # --- calibrations ---

    def calibrations(self) -> list[Generation]:
        """Every calibration that is stored, oldest first, and how many rows are coded with it."""
        with self._store.read() as snap:
            return listed(snap.state)

    def calibrate(
        self,
        sample: ArrayLike,
        *,
        method: str | None = None,
        code: str | CodeConfig | None = None,
        activate: bool = True,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Generation:
        """Learn a code anew from float32 [n, dim], store what was learned, and by default code every row with it.

        code: what to train; default, the code in force. method: how ranges are found, for codes that have them.
        activate: requantize now; else :meth:`requantize` with ``calibration=`` does it later.

        Raises InputError: the sample is too small (it says how many are needed), the code learns nothing from
        one, or there are no originals to code anew.
        """
        config = self._config
        x = as_vectors("sample", sample, config.dim, config.metric)
        with self._store.read() as snap:
            empty = snap.state["quantizer"] is None
            current = config.code if empty else _current_code(snap)
        chosen = _with_method(current if code is None else make_config(code), method)
        trained = self._generations.train(x, chosen)
        number = self._put_calibration(trained, x)
        if activate and not empty:
            self.requantize(calibration=number, threads=threads, progress=progress)
        return self._generation(number)

    def export_calibration(self, number: int | None = None, format: Transfer = "json") -> str | bytes:
        """A calibration, by default the one in force, as JSON text or msgpack bytes for :meth:`import_calibration`."""
        with self._store.read() as snap:
            entry = entry_of(snap.state, snap.state["quantizer"] if number is None else number)
            return exported(entry, snap.record(CALIBRATION, entry["number"]), self._config, format)

    def import_calibration(self, data: str | bytes, *, activate: bool = False) -> Generation:
        """Store a calibration that :meth:`export_calibration` gave; ``activate`` codes every row with it.

        Raises FormatError (damaged, or not a calibration) and InputError (of another dimension, metric or model).
        """
        trained = imported(data, self._config)
        with self._store.read() as snap:
            empty = snap.state["quantizer"] is None
        number = self._put_calibration(trained)
        if activate and not empty:
            self.requantize(calibration=number)
        return self._generation(number)

    # --- generations ---

    def requantize(
        self,
        code: str | CodeConfig | None = None,
        calibration: int | None = None,
        *,
        relink: Relink = "auto",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Generation:
        """Code every row anew from the stored originals, while searches and writes go on; then flip at once.

        code: the new code, trained on stored vectors; default, the code in force trained anew. calibration: a
        stored one, by number. relink: whether the graph is linked anew; "auto", where walks over it no longer
        find what a scan of the new codes finds. progress: called with (done, total) rows.

        Works in transactions of 8,192 rows. A process that dies leaves the old codes in force; calling again
        continues where it stopped, and asking for another code gives the unfinished one up. The old codes stay
        for :meth:`rollback` until :meth:`drop_generation`, or until one of their rows is given to another vector.

        Raises InputError: no originals are kept, the collection is empty, or the code cannot be trained on it.
        """
        number = self._generations.requantize(code, calibration, relink, worker_threads(threads), progress)
        self._keep_tuned(threads)
        return self._generation(number)

    def rollback(self, generation: int, *, threads: int | None = None, progress: Progress | None = None) -> Generation:
        """Put an earlier generation back in force; rows added since are coded first, all if its codes are gone."""
        self._generations.rollback(generation, worker_threads(threads), progress)
        self._keep_tuned(threads)
        return self._generation(generation)

    def drop_generation(self, generation: int) -> None:
        """Remove a calibration and its codes, or give up one that is being built; not the one in force."""
        self._generations.drop(generation)

    # --- maintenance ---

    def optimize(self, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Take all that is deleted out of the index, and move vectors together, while searches and writes go on.

        Works in transactions of a few hundred to 4,096 rows; a process that dies has done what it has done, and calling
        again goes on from there. :meth:`compact` then gives the pages back. progress: called with (done, total) rows.

        Raises ReadOnlyError; InputError inside a transaction.
        """
        if self._store.in_transaction:
            raise InputError("optimize() makes transactions of its own; call it outside of one")
        workers = worker_threads(threads)
        for _ in range(2):  # moving leaves deleted rows behind
            self._maintenance.mend_all(workers, progress)
            self._maintenance.gather(workers, progress)

    # --- measuring ---

    def evaluate(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        codes: CodeNames = "all",
        n: int = 1000,
        *,
        oversamples: Sequence[int] = OVERSAMPLES,
        rows: int = MAX_ROWS,
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
        from qvec.evaluation.evaluate import Evaluation

        config = self._config
        q = None if queries is None else as_vectors("queries", queries, config.dim, config.metric)
        if q is not None and not len(q):
            raise InputError("queries must hold one query or more")
        check_count("k", k, 1, 10_000)
        check_count("rows", rows, k + 1, 2**31)
        with self._store.read() as snap:
            evaluation = Evaluation(snap, config, self._generations, q, k, check_count("n", n, 1, 1_000_000), seed)
            return evaluation.run(codes, oversamples, rows, progress)

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

    def choose(
        self,
        target_recall: float = 0.95,
        k: int = 10,
        max_bytes: int | None = None,
        max_p99_ms: float | None = None,
        queries: ArrayLike | None = None,
        *,
        codes: CodeNames = "all",
        n: int = 2000,
        oversamples: Sequence[int] = OVERSAMPLES,
        rows: int = MAX_ROWS,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Choice:
        """The smallest code, by bytes a vector, whose recall@k is at least the target at 95 % confidence.

        Of one code, the smallest oversampling is taken. ``Choice.met`` says whether there is one, ``Choice.apply``
        puts it in force. The rest as in :meth:`evaluate`.
        """
        from qvec.evaluation.choose import Target, choose

        target = Target(target_recall, max_bytes, max_p99_ms)
        report = self.evaluate(queries, k, codes, n, oversamples=oversamples, rows=rows, seed=seed, progress=progress)
        return choose(report, target, self._apply_choice)

    def _apply_choice(self, code: CodeConfig, oversample: int, progress: Progress | None) -> Generation:
        made = self.requantize(code, progress=progress)
        with self._store.write() as txn:
            txn.state["oversample"] = {"generation": made.number, "factor": oversample}
        return made

    def drift(self) -> Drift:
        """Whether what was added lately still looks as what the code in force was trained on; see :class:`Drift`."""
        from qvec.drift.watch import read_drift

        with self._store.read() as snap:
            return read_drift(snap)

    # --- parts ---

    @cached_property
    def _watch(self) -> Watch:
        from qvec.drift.watch import Watch

        return Watch()

    def _observe(self, txn: Transaction, trained: bool, x: Float32Array) -> Drift | None:
        """Look at a batch that is being added; DriftError where it raises an alarm and that is asked for."""
        from qvec.drift.looks import LOOK_ROWS
        from qvec.drift.watch import remember

        quantizer = self._quantizer(txn)
        if quantizer is None or self._config.form is not None:  # codes that come ready-made learned nothing here
            return None
        if trained and len(x) >= LOOK_ROWS:
            made = Trained(quantizer, self._config.code, len(x), self._config.model)
            remember(txn, txn.state["quantizer"], made, x)
            return None
        drift = self._watch.observe(txn, quantizer, x)
        if drift is not None and drift.level == "alarm" and self._on_drift == "raise":
            raise DriftError(f"drift alarm: {drift.advice} ({_shown(drift)})")
        return drift

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
        from qvec.evaluation.tuning import make_tuning, store_curves

        with self._store.read() as snap:
            quantizer, keep = self._quantizer(snap), self._originals(snap)
            if quantizer is None or snap.state["live"] <= max(ks):
                raise InputError(
                    f"recall@{max(ks)} is measured on more vectors than that; {snap.state['live']} are stored"
                )
            if keep is None and quantizer.kind != "f32" and self._config.form is None:
                raise InputError(
                    "recall is measured against the originals, and the collection was created with keep='none'"
                )
            index = stored_index(self._config.index, snap.state["index"])
            engine = Engine(snap, quantizer, keep, index, False)
            vectors = Reader(snap, self._config, quantizer, keep).vectors
            tuning = make_tuning(snap, engine, queries, vectors, n, seed)
            curves = tuning.run(ks, worker_threads(threads), progress)
        with self._store.write() as txn:
            store_curves(txn, curves, None if queries is None else tuning.queries)
        return curves

    def _keep_tuned(self, threads: int | None) -> None:
        """Measure recall curves again where there are any and they no longer fit."""
        with self._store.read() as snap:
            if not outdated(snap.state):
                return
            from qvec.evaluation.tuning import stored_queries

            old = Curves.from_state(snap.record(TUNING, 0))
            queries = stored_queries(snap, self._config.dim) if old.source == "queries" else None
            ks = [curve.k for curve in old.curves]
        self._tune(queries, ks, old.n_queries, threads=threads)

    def _writer(self, txn: Transaction) -> Writer:
        return Writer(txn, self._config, self._quantizer(txn), self._originals(txn))

    @cached_property
    def _maintenance(self) -> Maintenance:
        from qvec.maintenance import Maintenance

        return Maintenance(self._store, self._writer)

    @cached_property
    def _generations(self) -> Generations:
        from qvec.generations import Generations

        return Generations(self._store, self._config, self._load, self._keep)

    def _generation(self, number: int) -> Generation:
        return next(made for made in self.calibrations() if made.number == number)

    def _put_calibration(self, trained: Trained, sample: Float32Array | None = None) -> int:
        """Store a calibration; in a collection without any, it is the one that codes the first vectors."""
        from qvec.drift.watch import remember

        with self._store.write() as txn:
            if txn.state["quantizer"] is not None:
                number = register(txn, trained)
                if sample is not None:
                    remember(txn, number, trained, sample)
                return number
            if trained.code != self._config.code:
                raise InputError(f"the collection is empty and was created for {self._config.code}, not {trained.code}")
            Writer(txn, self._config, None, self._originals(txn)).use(trained.quantizer, trained.n_samples)
            if sample is not None:
                remember(txn, 0, trained, sample)
            return 0

    def _load(self, reading: Snapshot | Transaction, number: int) -> Quantizer:
        key = number, entry_of(reading.state, number)["id"]  # a number that was undone may be given out again
        if key not in self._quantizers:
            self._quantizers[key] = from_state(reading.record(CALIBRATION, number))
        return self._quantizers[key]

    def _quantizer(self, reading: Snapshot | Transaction) -> Quantizer | None:
        number = reading.state["quantizer"]
        return None if number is None else self._load(reading, number)

    def _originals(self, reading: Snapshot | Transaction) -> Quantizer | None:
        """What codes the stored originals, None where codes are all there is."""
        if reading.state["quantizer"] is None:
            return self._keep if self._config.keeps_originals else None
        return self._keep if VECTORS in in_force(reading.columns, reading.state["names"]) else None

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self._config.model:
            raise InputError(f"the vectors are of model {model!r}, the collection of {self._config.model!r}")


def _shown(drift: Drift) -> str:
    found = drift.evidence
    return f"recall by code {found['recall']:.3f}, {found['recall_trained']:.3f} when it was trained"


def _current_code(snap: Snapshot) -> CodeConfig:
    return code_from_dict(entry_of(snap.state, snap.state["quantizer"])["code"])


def _with_method(code: CodeConfig, method: str | None) -> CodeConfig:
    """The configuration with another calibration method; InputError where it has none, or learns nothing."""
    if method is not None:
        if "method" not in {field.name for field in fields(code)}:
            raise InputError(f"{code.kind} codes have no calibration method; got {method!r}")
        static: dict[str, Any] = {"scale": "per_dim"} if hasattr(code, "scale") else {}
        code = replace(code, method=method, **static)  # type: ignore[arg-type]
    if code.min_samples == 0:
        raise InputError(f"{code} learns nothing from a sample; give a method, or a code that is trained")
    return code


def worker_threads(threads: int | None) -> int:
    return os.cpu_count() or 1 if threads is None else check_count("threads", threads, 1, MAX_THREADS)


def _keep_quantizer(config: Config) -> Quantizer:
    code = Float16() if config.keeps_originals and config.keep == "f16" else Float32()
    return train(np.empty((0, config.dim), np.float32), config.metric, code)
