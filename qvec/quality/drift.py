"""Whether vectors still look as those that the code was trained on, and whether the code still holds their recall.

Of what is added, 512 rows at a time are looked at (qvec/quality/drift_stats.py); recall is measured at one look in four, and
where vectors have shifted: of new vectors and of stored ones, since a code that cannot tell the new from the old loses
recall for either. New ones that have shifted are also looked for among the newest, which may be where all their
neighbors are. Tests compare the newest look, and the newest four together, with the training sample. The n-th look may
err with probability ALPHA 6 / (pi n)^2, so that all looks together raise a false alarm with probability ALPHA at most,
however many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from qvec.codes.registry import Quantizer, train
from qvec.common.types import Codes, Float32Array, NDArray
from qvec.quality.drift_record import read_looks
from qvec.quality.drift_stats import (
    BINS,
    LOOK_ROWS,
    MAX_LOOKS,
    MIN_ROWS,
    QUERIES,
    Look,
    Reference,
    apart,
    known_among,
    pooled,
    recalls_among,
    spread,
)
from qvec.schema.layout import DRIFT
from qvec.schema.quantizers import Trained
from qvec.schema.state import State
from qvec.storage.snapshot import Snapshot
from qvec.storage.store import Transaction

ALPHA = 0.005  # of all looks together; alarm and watch each
MIN_LOSS = 0.005  # of recall, where vectors have shifted: less is not worth an alarm, however certain
MIN_LOSS_ALONE = 0.01  # where they have not
MIN_SHIFT = 0.25  # standard deviations
MIN_NORM_STD = 0.01  # vectors of one length: a change of a hundredth is as one standard deviation
MIN_PSI = 0.25  # the customary "significant shift" of the population stability index
DEPENDENCE = 1.15  # recalls of neighbors vary together: the largest ratio seen (benchmarks/bench_drift.py)
REMEMBERED = 16_384  # rows of a training sample
RECALL_EVERY = 4  # looks
GROWN = 10  # times what a code learns from: then it is worth to be trained anew
LEAST_STD = 1e-3  # of the root mean square over dimensions
MAX_UNDONE = 64  # batches of one transaction after which rows that waited before it are still known
Recall = tuple[int, float, float]  # queries, mean, variance
Level = Literal["none", "watch", "alarm"]
Sampled = Callable[[int, bool], tuple[Float32Array, Codes]]
"""At most so many stored vectors, spread over all of them or, if True, the newest, and their codes."""
OnDrift = Literal["warn", "raise"] | Callable[["Drift"], object] | None

_ADVICE: dict[str, str] = {
    "none": "nothing to do",
    "watch": "the vectors have shifted, and the code still holds their recall; evaluate() measures it",
    "alarm": "the code loses recall on new vectors, or for them: requantize() trains it anew on what is stored now; "
    "choose() finds the smallest code that holds a recall",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """``level``: "none"; "watch": vectors have shifted; "alarm": their code loses recall. An alarm stays for the
    generation of codes that it was raised for.

    ``evidence``: "recall", "recall_stored" and "recall_trained" (recall@10 by code, among some 2,000 vectors, of new
    ones, of those stored before and, when the code was trained, of its sample), "recall_loss" (the larger), "outside"
    (share of values beyond the code's range), "outside_trained", "shift" (largest shift of a dimension's mean, in
    standard deviations), "shift_dim", "psi" (population stability index, mean of 16 dimensions), "norm_shift" (of log
    length, in standard deviations), "vectors" (that were looked at). Empty before the first look. ``looks``: so far.
    """

    level: Level
    evidence: dict[str, float]
    advice: str
    generation: int | None
    looks: int


@dataclass
class Watch:
    """A handle's eye on what is added. ``waiting``: small batches, until they make a look.

    They are kept by the state's number of the batch after which they waited: what is undone takes its rows along.
    """

    waiting: dict[int, tuple[Float32Array, ...]] = field(default_factory=dict)

    def observe(self, txn: Transaction, quantizer: Quantizer, x: Float32Array, stored: Sampled) -> Drift | None:
        """Take in a batch that was stored; what is known after it where that was enough for a look."""
        if not (samples := self._samples(txn, x)):
            return None
        number = txn.state.active
        record = read_looks(txn, number, quantizer.dim)
        if record is None:  # the first look of all is what others are compared with
            record = _new_record(quantizer, samples.pop(0))
        for sample in samples:
            record = _looked(record, quantizer, sample, stored)
        txn.put_record(DRIFT, number, record)
        return drift_of(record, number)

    def _samples(self, txn: Transaction, x: Float32Array) -> list[Float32Array]:
        if len(x) >= LOOK_ROWS:
            count = min(MAX_LOOKS, len(x) // LOOK_ROWS)
            sample = spread(x, count * LOOK_ROWS)
            return [sample[i::count] for i in range(count)]
        before = txn.state.small_batches
        seen = *self.waiting.get(before, ()), np.array(x)
        txn.state = replace(txn.state, small_batches=before + 1)
        self.waiting = {number: rows for number, rows in self.waiting.items() if before - MAX_UNDONE < number <= before}
        if sum(map(len, seen)) < LOOK_ROWS:
            self.waiting[before + 1] = seen
            return []
        together = np.concatenate(seen)
        self.waiting[before + 1] = (together[LOOK_ROWS:],)
        return [together[:LOOK_ROWS]]


def remember(txn: Transaction, number: int, trained: Trained, sample: Float32Array) -> None:
    """Keep what the training sample of a generation looked like; too small a sample tells nothing.

    A code flatters the vectors that it was trained on. So where it learns from them, what is kept is how one
    trained on half of them does on the other half.
    """
    sample, quantizer = spread(sample, REMEMBERED), trained.quantizer
    if trained.code.min_samples and len(sample) >= 2 * max(trained.code.min_samples, MIN_ROWS):
        seed = 0 if quantizer.transform is None else quantizer.transform.seed or 0
        half, rest = np.ascontiguousarray(sample[::2]), np.ascontiguousarray(sample[1::2])
        quantizer, sample = train(half, quantizer.metric, trained.code, seed), rest
    if len(sample) >= MIN_ROWS:
        txn.put_record(DRIFT, number, _new_record(quantizer, sample))


def read_drift(reading: Snapshot, dim: int) -> Drift:
    """What is known of the generation in force, whose vectors have so many dimensions."""
    number = reading.state.active
    record = None if number is None else read_looks(reading, number, dim)
    known = Drift("none", {}, _ADVICE["none"], number, 0) if record is None else drift_of(record, number)
    if number is None or known.level != "none":
        return known
    return replace(known, advice=_young_advice(reading.state, number) or known.advice)


def _young_advice(state: State, number: int) -> str:
    """What to do about codes that were begun with fewer vectors than they learn from."""
    record = state.generation(number)
    needed = record.code.min_samples
    if not 0 < record.n_samples < needed or state.live < GROWN * needed:
        return ""
    return (
        f"the code was begun with {record.n_samples} vectors, too few to learn their center from: requantize() "
        f"trains it on the {state.live} that are stored now, and finds more"
    )


def drift_of(record: dict[str, Any], number: int) -> Drift:
    """A record in words."""
    level: Level = record["level"]
    return Drift(level, dict(record["evidence"]), _ADVICE[level], number, record["looks"])


def _new_record(quantizer: Quantizer, sample: Float32Array) -> dict[str, Any]:
    reference = Reference.build(quantizer, sample).to_dict()
    return {"reference": reference, "recent": [], "looks": 0, "level": "none", "evidence": {}}


def _looked(record: dict[str, Any], quantizer: Quantizer, x: Float32Array, stored: Sampled) -> dict[str, Any]:
    """The record after one look more."""
    reference, number = Reference.from_dict(record["reference"]), record["looks"] + 1
    earlier = [Look(**plain) for plain in record["recent"][1 - MAX_LOOKS :]]
    look = reference.look_at(quantizer, x)
    shifted = any(has_shifted(reference, seen, number) for seen in _views(earlier, look))
    if shifted or number % RECALL_EVERY == 1 or not any(seen.recalls for seen in earlier):
        new, old = _recalls(quantizer, x, reference.base, stored)
        if shifted:
            new = min(new, _recalls_alone(quantizer, x, reference.base, stored), key=np.mean)
        look = look.with_recalls(new, old)
    verdicts = [judge(reference, seen, number) for seen in _views(earlier, look) if seen.recalls]
    level, evidence = max(verdicts, key=lambda verdict: _RANK[verdict[0]])
    if record["level"] == "alarm" and level != "alarm":
        level, evidence = "alarm", record["evidence"]
    plain = [seen.to_dict() for seen in (*earlier, look)]
    return record | {"recent": plain, "looks": number, "level": level, "evidence": evidence}


def _recalls(quantizer: Quantizer, x: Float32Array, base_rows: int, stored: Sampled) -> list[NDArray[np.float64]]:
    """Recall by query, of some of x and of some stored vectors, among others of both."""
    n_new = min(QUERIES, base_rows // 4)
    new = np.ascontiguousarray(x[1::2][:n_new])
    rows, codes = stored(base_rows + base_rows // 4 + QUERIES, False)
    others = ~known_among(quantizer, rows, new)  # x has been stored
    size = min(QUERIES, int(np.count_nonzero(others)) // 2)
    (old_queries, old), (_, old_codes) = apart(rows[others], size), apart(codes[others], size)
    old, old_codes = spread(old, base_rows - n_new), spread(old_codes, base_rows - n_new)
    base, codes = np.concatenate([old, new]), np.concatenate([old_codes, quantizer.encode(new)])
    queries = np.ascontiguousarray(x[::2][:QUERIES]), old_queries
    return [recalls_among(quantizer, asked, base, codes) for asked in queries]


def _recalls_alone(quantizer: Quantizer, x: Float32Array, base_rows: int, stored: Sampled) -> NDArray[np.float64]:
    """Recall by query, of some of x among the newest stored vectors, x with them.

    Where new vectors are far from the old, each has its neighbors among the new: among a few of these, codes tell
    them apart that do not among as many as the code was trained for.
    """
    return recalls_among(quantizer, np.ascontiguousarray(x[::2][:QUERIES]), *stored(base_rows, True))


def _views(earlier: list[Look], look: Look) -> list[Look]:
    """A look alone, and together with those before."""
    return [look, pooled([*earlier, look])] if earlier else [look]


_RANK: dict[Level, int] = {"none": 0, "watch": 1, "alarm": 2}


def judge(reference: Reference, look: Look, number: int) -> tuple[Level, dict[str, float]]:
    """The level that a look deserves as the ``number``-th, and why.

    watch: vectors have shifted. alarm: so they have, and recall by code is lower; or it has fallen so far that
    this alone is certain. Exchangeable vectors pass the first test or the last with probability alpha only.
    """
    evidence, shifted = _evidence(reference, look), has_shifted(reference, look, number)
    (trained,), alpha = reference.look.recalls, _alpha(number) / len(look.recalls)
    for found in look.recalls:
        loss = trained[1] - found[1]
        if loss > (MIN_LOSS if shifted else max(MIN_LOSS_ALONE, _critical_loss(trained, found, alpha))):
            return "alarm", evidence
    return "watch" if shifted else "none", evidence


def has_shifted(reference: Reference, look: Look, number: int) -> bool:
    """Whether the mean of a dimension or of the log length has shifted, or the stability index is large.

    The means by two-sided z tests with Bonferroni's correction over the dimensions, with the variances of both sides
    (Welch): a dimension that is seldom not zero varies in the look, where it is not, and not before.
    """
    trained, critical = reference.look, _quantile(_alpha(number) / (2 * (len(look.means) + 1)))
    noise = np.sqrt(look.variances / look.rows + trained.variances / trained.rows)
    moved = np.abs(look.means - trained.means)
    surely = (moved > critical * noise) & (_shifts(trained, look) > MIN_SHIFT)
    norm_noise = math.sqrt(look.norm_var / look.rows + trained.norm_var / trained.rows)
    longer = abs(look.norm - trained.norm) > critical * norm_noise and _norm_shift(trained, look) > MIN_SHIFT
    return bool(surely.any()) or longer or _stability(trained.counts, look.counts) > MIN_PSI


def _alpha(number: int) -> float:
    """The chance of a false alarm that the ``number``-th look may have, halved: it is judged alone and with others."""
    return ALPHA * 6 / (math.pi * number) ** 2 / 2


def _critical_loss(trained: Recall, found: Recall, alpha: float) -> float:
    """The loss of recall beyond which a one-sided z test of two means over queries is sure.

    Both get the larger variance: near a recall of 1 a mean that is high by chance has a variance that is low by chance.
    """
    return _quantile(alpha) * DEPENDENCE * math.sqrt(max(found[2], trained[2]) * (1 / found[0] + 1 / trained[0]))


def _shifts(trained: Look, look: Look) -> NDArray[np.float64]:
    """Shift of each dimension's mean, in standard deviations of both sides together.

    Dimensions that vary less than a thousandth of the others count as varying so much.
    """
    variance = (trained.variances.astype(np.float64) + look.variances) / 2
    floor = max(float(trained.variances.mean()) * LEAST_STD**2, 1e-24)
    shifts: NDArray[np.float64] = np.abs(look.means - trained.means) / np.sqrt(np.maximum(variance, floor))
    return shifts


def _norm_shift(trained: Look, look: Look) -> float:
    return abs(look.norm - trained.norm) / max(math.sqrt((trained.norm_var + look.norm_var) / 2), MIN_NORM_STD)


def _quantile(alpha: float) -> float:
    """What a standard normal exceeds with probability alpha."""
    from statistics import NormalDist  # takes longer to import than the rest of this file

    return -NormalDist().inv_cdf(alpha)


def _evidence(reference: Reference, look: Look) -> dict[str, float]:
    trained = reference.look
    shifts = _shifts(trained, look)
    (_, before, _), (_, new, _), (_, old, _) = *trained.recalls, *look.recalls
    return {
        "recall": new,
        "recall_stored": old,
        "recall_trained": before,
        "recall_loss": before - min(new, old),
        "outside": look.outside,
        "outside_trained": trained.outside,
        "shift": float(shifts.max()),
        "shift_dim": int(shifts.argmax()),
        "psi": _stability(trained.counts, look.counts),
        "norm_shift": _norm_shift(trained, look),
        "vectors": look.rows,
    }


def _stability(expected: list[int], actual: list[int]) -> float:
    """Population stability index, sum (a - e) ln(a / e) over bins, the mean over dimensions; half a count is added."""
    e, a = (np.array(counts, np.float64).reshape(-1, BINS) + 0.5 for counts in (expected, actual))
    e, a = (shares / shares.sum(axis=1, keepdims=True) for shares in (e, a))
    return float(((a - e) * np.log(a / e)).sum(axis=1).mean())
