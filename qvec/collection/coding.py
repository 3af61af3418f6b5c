"""The part of a collection that looks after its codes: calibrations and generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from qvec.codes.configs import CodeConfig
from qvec.collection.handle import worker_threads
from qvec.collection.measuring import MAX_MEASURED, Measuring
from qvec.common.errors import InputError
from qvec.common.types import ArrayLike, Float32Array
from qvec.index import Progress
from qvec.quality.recall import MAX_BASE_ROWS, OVERSAMPLES, CodeNames
from qvec.rows.writer import Writer
from qvec.schema.calibrations import (
    Generation,
    Trained,
    Transfer,
    check_enough,
    entry_of,
    exported,
    imported,
    listed,
    register,
)
from qvec.schema.config import code_from_dict, make_config
from qvec.schema.layout import CALIBRATION
from qvec.schema.validation import as_vectors, check_count
from qvec.storage.store import Snapshot

if TYPE_CHECKING:  # imported when they are called: seldom, and a sixth of the import's time
    from qvec.codes.adapters import Adapter
    from qvec.maintenance.requantize import Relink
    from qvec.quality.choose import Choice
    from qvec.quality.report import Report


class Coding(Measuring):
    """What :class:`qvec.Collection` inherits of calls that change its codes."""

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
        check_enough(chosen, len(x))
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
        adapter: Adapter | None = None,
        relink: Relink = "auto",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Generation:
        """Code every row anew from the stored originals, while searches and writes go on; then flip at once.

        code: the new code, trained on stored vectors; default, the code in force trained anew. calibration: a
        stored one, by number. adapter: a learned map that vectors and queries go through before they are coded
        (:mod:`qvec.qat`), by default to the code that it was learned for; without it, codes are of vectors as they are.
        relink: whether the graph is linked anew; "auto", where walks over it no longer find what a scan of the new
        codes finds. progress: called with (done, total) rows.

        Works in transactions of 8,192 rows. A process that dies leaves the old codes in force; calling again
        continues where it stopped, and asking for another code gives the unfinished one up. The old codes stay
        for :meth:`rollback` until :meth:`drop_generation`, or until one of their rows is given to another vector.

        Raises InputError: no originals are kept, the collection is empty, or the code cannot be trained on it.
        """
        number = self._generations.requantize(code, calibration, relink, worker_threads(threads), progress, adapter)
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

    # --- choosing ---

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
        max_n: int = 16_000,
        oversamples: Sequence[int] = OVERSAMPLES,
        rows: int = MAX_BASE_ROWS,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Choice:
        """The smallest code, by bytes a vector, whose recall@k is at least the target at 95 % confidence.

        Of one code, the smallest oversampling is taken. Codes that ``n`` queries do not tell from the target are
        measured with more, up to ``max_n`` where there are so many. ``Choice.met`` says whether there is one,
        ``Choice.apply`` puts it in force. The rest as in :meth:`evaluate`.
        """
        from qvec.quality.choose import Target, choose

        target = Target(target_recall, max_bytes, max_p99_ms)
        first, last = check_count("n", n, 1, MAX_MEASURED), check_count("max_n", max_n, 1, MAX_MEASURED)
        with self._store.read() as snap:
            evaluation = self._evaluation(snap, queries, k, oversamples, rows, seed, progress)

            def measure(configs: list[CodeConfig] | None, size: int, z: float) -> Report:
                return replace(evaluation, z=z).run(codes if configs is None else configs, size)

            return choose(measure, target, first, min(max(first, last), evaluation.n_queries), self._apply_choice)

    def _apply_choice(self, code: CodeConfig, oversample: int, progress: Progress | None) -> Generation:
        made = self.requantize(code, progress=progress)
        with self._store.write() as txn:
            txn.state["oversample"] = {"generation": made.number, "factor": oversample}
        return made

    # --- parts ---

    def _generation(self, number: int) -> Generation:
        return next(made for made in self.calibrations() if made.number == number)

    def _put_calibration(self, trained: Trained, sample: Float32Array | None = None) -> int:
        """Store a calibration; in a collection without any, it is the one that codes the first vectors."""
        from qvec.quality.drift import store_reference

        with self._store.write() as txn:
            if txn.state["quantizer"] is not None:
                number = register(txn, trained)
                if sample is not None:
                    store_reference(txn, number, trained, sample)
                return number
            if trained.code != self._config.code:
                raise InputError(f"the collection is empty and was created for {self._config.code}, not {trained.code}")
            Writer(txn, self._config, None, self._originals(txn)).use(trained.quantizer, trained.n_samples)
            if sample is not None:
                store_reference(txn, 0, trained, sample)
            return 0


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
