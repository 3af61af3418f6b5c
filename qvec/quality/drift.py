"""Drift: whether added vectors still resemble the training sample of the quantizer, and whether recall is lost.

Added rows are checked 512 at a time (qvec/quality/drift_stats.py). One check of four measures the recall of new and of
stored vectors, and so does each check of vectors that have shifted. If new vectors have shifted, their recall is also
measured among the newest rows alone, because their neighbors may all be there. Each check compares two samples with the
training sample: its own rows, and the rows of the newest four checks together. In the n-th check, the tests of a shift
have a probability of error of at most ALPHA 6 / (pi n)^2 over both samples, and so have the tests of recall. The sums
over all checks are therefore at most ALPHA each, however many checks there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from qvec.codes.configs import Int4, Int8, RaBitQ
from qvec.codes.registry import Quantizer, samples_needed, train
from qvec.common.types import Codes, Float32Array, NDArray
from qvec.quality.drift_record import DriftRecord, DriftRecords, Evidence, Level, read_drift_record, write_drift_record
from qvec.quality.drift_stats import (
    BINS,
    MAX_CHECKS,
    MIN_SAMPLE_ROWS,
    QUERIES,
    ROWS_PER_CHECK,
    RecallStats,
    Reference,
    SampleStats,
    apart,
    known_among,
    pooled,
    recalls_among,
    spread,
)
from qvec.quality.recall import Recalls
from qvec.schema.quantizers import Trained
from qvec.schema.state import State
from qvec.storage.snapshot import Snapshot
from qvec.storage.store import Transaction

ALPHA = 0.005  # probability of error over all checks, of the tests of a shift and of the tests of recall
MIN_LOSS = 0.005  # if vectors have shifted, a smaller loss of recall raises no alarm, however significant it is
MIN_LOSS_UNSHIFTED = 0.01  # the same, if vectors have not shifted
MIN_SHIFT = 0.25  # standard deviations; smaller shifts of a mean are ignored
MIN_NORM_STD = 0.01  # of log length: in sets of vectors of one length, a change of 1 % counts as one standard deviation
MIN_PSI = 0.25  # the customary "significant shift" of the population stability index
DEPENDENCE = 1.15  # recalls of neighboring queries vary together: the largest ratio seen (benchmarks/bench_drift.py)
REFERENCE_ROWS = 16_384  # at most this many rows of a training sample are measured
RECALL_EVERY = 4  # one check of this many measures recall
RETRAIN_GROWTH = 10  # retraining is advised when this many times the smallest sample is stored
LEAST_STD = 1e-3  # of the root mean square over dimensions
MAX_UNDONE = 64  # batches of one transaction that may be rolled back without losing the rows that waited before it
StoredSample = Callable[[int, bool], tuple[Float32Array, Codes]]
"""Returns at most n stored vectors and their codes: spread over all rows, or, if the flag is set, the newest."""
OnDrift = Literal["warn", "raise"] | Callable[["Drift"], object] | None

_ADVICE: dict[str, str] = {
    "none": "nothing to do",
    "warning": "the vectors have shifted; the code still holds their recall. evaluate() measures it",
    "alarm": "the code loses recall of new or of stored vectors: requantize() trains it on the vectors stored now; "
    "choose() finds the smallest code that holds a recall",
}


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """The figures of one check, as in :attr:`Drift.evidence`. ``number``: 1 for the first of the generation.

    ``recall``, ``recall_stored``: None if this check did not measure them.
    """

    number: int
    vectors: int
    recall: float | None
    recall_stored: float | None
    shift: float
    psi: float
    norm_shift: float
    outside: float


@dataclass(frozen=True, slots=True, repr=False)
class Drift:
    """The result of drift checks.

    ``level``: "none"; "warning": vectors have shifted; "alarm": searches by codes lose recall. An alarm stays until the
    collection gets another generation of codes. ``n_checks``: the number of checks of this generation.

    ``evidence``: empty before the first check, later a dict with these figures: "recall", "recall_stored",
    "recall_trained": recall@10 by codes among about 2,000 vectors, for new vectors, for stored vectors, and for the
    training sample when the quantizer was trained. "recall_loss": the larger loss of the first two. "outside",
    "outside_trained": share of values outside the calibrated range. "shift", "shift_dim": the largest shift of a
    dimension's mean, in standard deviations, and this dimension. "psi": population stability index, mean of 16
    dimensions. "norm_shift": shift of the mean log length, in standard deviations. "vectors": number of checked
    vectors.

    ``history``: the newest checks, at most four, the newest last.
    """

    level: Level
    evidence: dict[str, float]
    advice: str
    generation: int | None
    n_checks: int
    history: tuple[DriftCheck, ...] = ()

    def __repr__(self) -> str:
        evidence = ", ".join(f"{name}={value:.4g}" for name, value in self.evidence.items())
        head = f"<qvec.Drift: {self.level}, generation {self.generation}, {self.n_checks} checks"
        return f"{head}: {self.advice}{f' ({evidence})' if evidence else ''}>"

    def _repr_html_(self) -> str:
        from qvec.common import plots
        from qvec.common.tables import html_table

        rows = [(name, f"{value:.4g}") for name, value in self.evidence.items()]
        table = html_table(f"Drift: {self.level}", ("evidence", "value"), rows, self.advice)
        table += self._history_table()
        names = {"recall_trained": "training sample", "recall_stored": "stored vectors", "recall": "new vectors"}
        recalls = {label: self.evidence[name] for name, label in names.items() if name in self.evidence}
        if not recalls:
            return table
        return table + plots.as_html(lambda axes: plots.bars(axes, recalls, "recall@10 by codes"), "recall by codes")

    def _history_table(self) -> str:
        from qvec.common.tables import html_table

        if not self.history:
            return ""
        columns = [*DriftCheck.__dataclass_fields__]
        cells = [[getattr(check, name) for name in columns] for check in self.history]
        rows = [["-" if cell is None else f"{cell:.4g}" for cell in row] for row in cells]
        return html_table("The newest checks", columns, rows)


@dataclass
class DriftMonitor:
    """Checks the vectors that a handle adds. ``waiting``: rows of small batches, until there are enough for a check.

    The key of ``waiting`` is the state's count of small batches after these rows were added. A rollback restores the
    count, so that the rows of the undone batches are no longer found.
    """

    waiting: dict[int, tuple[Float32Array, ...]] = field(default_factory=dict)
    records: DriftRecords = field(default_factory=DriftRecords)

    def check(self, txn: Transaction, quantizer: Quantizer, x: NDArray[Any], stored: StoredSample) -> Drift | None:
        """Check a stored batch. None if there are not yet enough rows for a check."""
        if not (samples := self._samples(txn, x)):
            return None
        number = txn.state.active
        record = self.records.read(txn, number, quantizer.dim)
        if record is None:  # no training sample: later checks are compared with the first
            record = DriftRecord.begin(quantizer, samples.pop(0))
        for sample in samples:
            record = _checked(record, quantizer, sample, stored)
        self.records.write(txn, number, record)
        return drift_of(record, number)

    def _samples(self, txn: Transaction, x: NDArray[Any]) -> list[Float32Array]:
        if len(x) >= ROWS_PER_CHECK:
            count = min(MAX_CHECKS, len(x) // ROWS_PER_CHECK)
            sample = spread(x, count * ROWS_PER_CHECK).astype(np.float32)
            return [sample[i::count] for i in range(count)]
        before = txn.state.small_batches
        seen = *self.waiting.get(before, ()), np.array(x, np.float32)
        txn.state = replace(txn.state, small_batches=before + 1)
        self.waiting = {number: rows for number, rows in self.waiting.items() if before - MAX_UNDONE < number <= before}
        if sum(map(len, seen)) < ROWS_PER_CHECK:
            self.waiting[before + 1] = seen
            return []
        together = np.concatenate(seen)
        self.waiting[before + 1] = (together[ROWS_PER_CHECK:],)
        return [together[:ROWS_PER_CHECK]]


def store_reference(txn: Transaction, number: int, trained: Trained, sample: NDArray[Any]) -> None:
    """Store the statistics of a generation's training sample, unless the sample is too small.

    Recall by codes is higher for the vectors that the quantizer was trained on. For a code that learns from a sample,
    another quantizer is therefore trained on one half of the sample, and its recall is measured on the other half.
    """
    sample, quantizer, code = spread(sample, REFERENCE_ROWS).astype(np.float32), trained.quantizer, trained.code
    if isinstance(code, Int8 | Int4 | RaBitQ):
        code = replace(code, projection=quantizer.projected_dims)  # also if the number was chosen with the sample
    needed = samples_needed(code, quantizer.dim)
    if needed and len(sample) >= 2 * max(needed, MIN_SAMPLE_ROWS):
        seed = 0 if quantizer.transform is None else quantizer.transform.seed or 0
        half, rest = np.ascontiguousarray(sample[::2]), np.ascontiguousarray(sample[1::2])
        quantizer, sample = train(half, quantizer.metric, code, seed), rest
    if len(sample) >= MIN_SAMPLE_ROWS:
        write_drift_record(txn, number, DriftRecord.begin(quantizer, sample))


def read_drift(reading: Snapshot, dim: int) -> Drift:
    """Return the drift of the active generation, whose vectors have ``dim`` dimensions."""
    number = reading.state.active
    record = None if number is None else read_drift_record(reading, number, dim)
    known = Drift("none", {}, _ADVICE["none"], number, 0) if record is None else drift_of(record, number)
    if number is None or known.level != "none":
        return known
    return replace(known, advice=_young_advice(reading.state, number) or known.advice)


def _young_advice(state: State, number: int) -> str:
    """Return advice if the code was trained on fewer vectors than it needs; "" if there is no advice."""
    record = state.generation(number)
    needed = record.code.min_samples
    if not 0 < record.n_samples < needed or state.live < RETRAIN_GROWTH * needed:
        return ""
    return (
        f"the code was trained on {record.n_samples} vectors, too few to learn their center from: requantize() "
        f"trains it on the {state.live} vectors stored now, for a higher recall"
    )


def drift_of(record: DriftRecord, number: int) -> Drift:
    """Return the drift that the record of a generation describes, with advice."""
    evidence = {} if record.evidence is None else asdict(record.evidence)
    return Drift(record.level, evidence, _ADVICE[record.level], number, record.n_checks, _history(record))


def _history(record: DriftRecord) -> tuple[DriftCheck, ...]:
    trained, first = record.reference.stats, record.n_checks - len(record.recent) + 1
    return tuple(
        DriftCheck(
            number=number,
            vectors=stats.rows,
            recall=stats.recalls[0].mean if stats.recalls else None,
            recall_stored=stats.recalls[1].mean if len(stats.recalls) > 1 else None,
            shift=float(_shifts(trained, stats).max()),
            psi=_stability(trained.counts, stats.counts),
            norm_shift=_norm_shift(trained, stats),
            outside=stats.outside,
        )
        for number, stats in enumerate(record.recent, first)
    )


def _checked(record: DriftRecord, quantizer: Quantizer, x: Float32Array, stored: StoredSample) -> DriftRecord:
    """Return the record after one more check."""
    reference, number = record.reference, record.n_checks + 1
    earlier = record.recent[1 - MAX_CHECKS :]
    stats = reference.stats_of(quantizer, x)
    shifted = any(has_shifted(reference, sample, number) for sample in _samples_to_test(earlier, stats))
    if shifted or number % RECALL_EVERY == 1 or not any(sample.recalls for sample in earlier):
        new, old = _recalls(quantizer, x, reference.base, stored)
        if shifted:
            new = min(new, _recalls_among_newest(quantizer, x, reference.base, stored), key=np.mean)
        stats = stats.with_recalls(new, old)
    verdicts = [judge(reference, s, number) for s in _samples_to_test(earlier, stats) if s.recalls]
    level: Level
    evidence: Evidence | None
    level, evidence = max(verdicts, key=lambda verdict: _RANK[verdict[0]])
    if record.level == "alarm" and level != "alarm":
        level, evidence = "alarm", record.evidence
    return replace(record, recent=(*earlier, stats), n_checks=number, level=level, evidence=evidence)


def _recalls(quantizer: Quantizer, x: Float32Array, base_rows: int, stored: StoredSample) -> list[Recalls]:
    """Measure the recall of queries taken from x and from the stored vectors, among other vectors of both groups."""
    n_new = min(QUERIES, base_rows // 4)
    new = np.ascontiguousarray(x[1::2][:n_new])
    rows, codes = stored(base_rows + base_rows // 4 + QUERIES, False)
    others = ~known_among(quantizer, rows, new)  # x has been stored
    size = min(QUERIES, int(np.count_nonzero(others)) // 2)
    if not size:  # all stored vectors equal new ones, so that no code can confuse them with others
        return [np.ones(QUERIES), np.ones(QUERIES)]
    (old_queries, old), (_, old_codes) = apart(rows[others], size), apart(codes[others], size)
    old, old_codes = spread(old, base_rows - n_new), spread(old_codes, base_rows - n_new)
    base, codes = np.concatenate([old, new]), np.concatenate([old_codes, quantizer.encode(new)])
    queries = np.ascontiguousarray(x[::2][:QUERIES]), old_queries
    return [recalls_among(quantizer, asked, base, codes) for asked in queries]


def _recalls_among_newest(quantizer: Quantizer, x: Float32Array, base_rows: int, stored: StoredSample) -> Recalls:
    """Measure the recall of queries taken from x among the newest stored vectors, which include x.

    If new vectors are far from the old vectors, their neighbors are other new vectors. Codes may distinguish a few of
    them but not many. :func:`_recalls` searches among few new vectors and would not detect this.
    """
    return recalls_among(quantizer, np.ascontiguousarray(x[::2][:QUERIES]), *stored(base_rows, True))


def _samples_to_test(earlier: tuple[SampleStats, ...], stats: SampleStats) -> list[SampleStats]:
    """Return the newest check alone, and the newest checks together."""
    return [stats, pooled([*earlier, stats])] if earlier else [stats]


_RANK: dict[Level, int] = {"none": 0, "warning": 1, "alarm": 2}


def judge(reference: Reference, stats: SampleStats, number: int) -> tuple[Level, Evidence]:
    """Return the level of the ``number``-th check, and its evidence.

    warning: vectors have shifted. alarm: vectors have shifted and recall by codes is lower, or recall is significantly
    lower. If the vectors have not changed, each of the two kinds of test errs with probability alpha at most. alpha
    falls with the number of the check, so that the sum over all checks is bounded.
    """
    evidence, shifted = _evidence(reference, stats), has_shifted(reference, stats, number)
    (trained,), alpha = reference.stats.recalls, _alpha(number) / len(stats.recalls)
    for found in stats.recalls:
        # A shift of the vectors is already significant. Without a shift, the loss itself must be significant.
        least = MIN_LOSS if shifted else max(MIN_LOSS_UNSHIFTED, _critical_loss(trained, found, alpha))
        if trained.mean - found.mean > least:
            return "alarm", evidence
    return "warning" if shifted else "none", evidence


def has_shifted(reference: Reference, stats: SampleStats, number: int) -> bool:
    """Whether the mean of a dimension or of the log length has shifted, or the stability index is large.

    Means are compared by two-sided z tests with Bonferroni's correction over the dimensions. The tests use the
    variances of both samples (Welch): a dimension that is nearly always zero may vary in one of the samples only.
    """
    trained, critical = reference.stats, _quantile(_alpha(number) / (2 * (len(stats.means) + 1)))
    mean_errors = np.sqrt(stats.variances / stats.rows + trained.variances / trained.rows)
    significant = np.abs(stats.means - trained.means) > critical * mean_errors
    dims_shifted = bool((significant & (_shifts(trained, stats) > MIN_SHIFT)).any())
    norm_error = math.sqrt(stats.norm_var / stats.rows + trained.norm_var / trained.rows)
    norm_significant = abs(stats.norm - trained.norm) > critical * norm_error
    norm_shifted = norm_significant and _norm_shift(trained, stats) > MIN_SHIFT
    return dims_shifted or norm_shifted or _stability(trained.counts, stats.counts) > MIN_PSI


def _alpha(number: int) -> float:
    """Return the probability of error of a test in the ``number``-th check, for each of the two samples that it
    tests."""
    return ALPHA * 6 / (math.pi * number) ** 2 / 2


def _critical_loss(trained: RecallStats, found: RecallStats, alpha: float) -> float:
    """Return the loss of recall from which on a one-sided z test of two means over queries is significant.

    Both means get the larger variance: near a recall of 1, a mean that is high by chance has a variance that is low by
    chance.
    """
    variance = max(found.variance, trained.variance) * (1 / found.queries + 1 / trained.queries)
    return _quantile(alpha) * DEPENDENCE * math.sqrt(variance)


def _shifts(trained: SampleStats, stats: SampleStats) -> NDArray[np.float64]:
    """Return the shift of each dimension's mean, in standard deviations of both samples together.

    A standard deviation counts as at least LEAST_STD of the others' root mean square.
    """
    variance = (trained.variances.astype(np.float64) + stats.variances) / 2
    floor = max(float(trained.variances.mean()) * LEAST_STD**2, 1e-24)
    shifts: NDArray[np.float64] = np.abs(stats.means - trained.means) / np.sqrt(np.maximum(variance, floor))
    return shifts


def _norm_shift(trained: SampleStats, stats: SampleStats) -> float:
    return abs(stats.norm - trained.norm) / max(math.sqrt((trained.norm_var + stats.norm_var) / 2), MIN_NORM_STD)


def _quantile(alpha: float) -> float:
    """Return the value that a standard normal variable exceeds with probability alpha."""
    from statistics import NormalDist  # takes longer to import than the rest of this file

    return -NormalDist().inv_cdf(alpha)


def _evidence(reference: Reference, stats: SampleStats) -> Evidence:
    trained = reference.stats
    shifts = _shifts(trained, stats)
    before, new, old = (found.mean for found in (*trained.recalls, *stats.recalls))
    return Evidence(
        recall=new,
        recall_stored=old,
        recall_trained=before,
        recall_loss=before - min(new, old),
        outside=stats.outside,
        outside_trained=trained.outside,
        shift=float(shifts.max()),
        shift_dim=int(shifts.argmax()),
        psi=_stability(trained.counts, stats.counts),
        norm_shift=_norm_shift(trained, stats),
        vectors=stats.rows,
    )


def _stability(expected: tuple[int, ...], actual: tuple[int, ...]) -> float:
    """Population stability index: the sum of (a - e) ln(a / e) over bins, averaged over dimensions.

    a: the share of the checked values in a bin. e: the share of the values of the training sample. 0.5 is added to each
    count, so that no share is zero.
    """
    e, a = (np.array(counts, np.float64).reshape(-1, BINS) + 0.5 for counts in (expected, actual))
    e, a = (shares / shares.sum(axis=1, keepdims=True) for shares in (e, a))
    return float(((a - e) * np.log(a / e)).sum(axis=1).mean())
