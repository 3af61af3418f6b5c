"""Whether vectors still look as those that the code was trained on, and whether the code still holds their recall.

Of what is added, 512 rows at a time are looked at (qvec/drift/looks.py). Tests compare the newest look, and the
newest four together, with the training sample. The n-th look may err with probability
ALPHA 6 / (pi n)^2, so that all looks together raise a false alarm with probability ALPHA at most, however many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from qvec.calibrations import Trained
from qvec.drift.looks import BINS, LOOK_ROWS, MIN_ROWS, Look, Reference, pooled, spread
from qvec.layout import DRIFT
from qvec.quantizers import Quantizer, train
from qvec.storage.snapshot import Reading
from qvec.storage.store import Transaction
from qvec.types import Float32Array

ALPHA = 0.005  # of all looks together; alarm and watch each
MIN_LOSS = 0.005  # of recall: less is not worth an alarm, however certain
MIN_SHIFT = 0.25  # standard deviations
MIN_NORM_STD = 0.01  # vectors of one length: a change of a hundredth is as one standard deviation
MIN_PSI = 0.25  # the customary "significant shift" of the population stability index
DEPENDENCE = 1.15  # recalls of neighbours vary together: the largest ratio seen (benchmarks/bench_drift.py)
REMEMBERED = 16_384  # rows of a training sample
MAX_LOOKS = 4  # at one batch, and tested together
Level = Literal["none", "watch", "alarm"]
OnDrift = Literal["warn", "raise"] | Callable[["Drift"], object] | None

_ADVICE: dict[str, str] = {
    "none": "nothing to do",
    "watch": "the vectors have shifted, and the code still holds their recall; evaluate() measures it",
    "alarm": "the code loses recall on new vectors: requantize() trains it anew on what is stored now; "
    "choose() finds the smallest code that holds a recall",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """``level``: "none"; "watch": vectors have shifted; "alarm": their code loses recall. An alarm stays for the
    generation of codes that it was raised for.

    ``evidence``: "recall" and "recall_trained" (recall@10 by code among 512 vectors: new ones, those of the training),
    "recall_loss", "outside" (share of values beyond the code's range), "outside_trained", "shift" (largest shift of a
    dimension's mean, in standard deviations), "shift_dim", "psi" (population stability index, mean of 16
    dimensions), "norm_shift" (of log length, in standard deviations), "vectors" (that the newest look saw). Empty
    before the first look. ``looks``: so far.
    """

    level: Level
    evidence: dict[str, float]
    advice: str
    generation: int | None
    looks: int


@dataclass
class Watch:
    """A handle's eye on what is added. ``waiting``: rows of small batches, until they make a look."""

    waiting: list[Float32Array] = field(default_factory=list)

    def observe(self, txn: Transaction, quantizer: Quantizer, x: Float32Array) -> Drift | None:
        """Take in a batch; what is known after it where that was enough for a look."""
        if not (samples := self._samples(x)):
            return None
        number = txn.state["quantizer"]
        record = txn.record(DRIFT, number)
        for sample in samples:
            record = _looked(record, quantizer, sample)
        txn.put_record(DRIFT, number, record)
        return drift_of(record, number)

    def _samples(self, x: Float32Array) -> list[Float32Array]:
        if len(x) >= LOOK_ROWS:
            count = min(MAX_LOOKS, len(x) // LOOK_ROWS)
            sample = spread(x, count * LOOK_ROWS)
            return [sample[i::count] for i in range(count)]
        self.waiting.append(np.array(x))
        if sum(map(len, self.waiting)) < LOOK_ROWS:
            return []
        seen = np.concatenate(self.waiting)
        self.waiting = [seen[LOOK_ROWS:]]
        return [seen[:LOOK_ROWS]]


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


def read_drift(reading: Reading) -> Drift:
    """What is known of the generation in force."""
    number = reading.state["quantizer"]
    record = None if number is None else reading.record(DRIFT, number)
    return Drift("none", {}, _ADVICE["none"], number, 0) if record is None else drift_of(record, number)


def drift_of(record: dict[str, Any], number: int) -> Drift:
    """A record in words."""
    level: Level = record["level"]
    return Drift(level, dict(record["evidence"]), _ADVICE[level], number, record["looks"])


def _new_record(quantizer: Quantizer, sample: Float32Array) -> dict[str, Any]:
    reference = Reference.build(quantizer, sample).to_dict()
    return {"reference": reference, "recent": [], "looks": 0, "level": "none", "evidence": {}}


def _looked(record: dict[str, Any] | None, quantizer: Quantizer, sample: Float32Array) -> dict[str, Any]:
    """The record after one look more; the first look of all is what others are compared with."""
    if record is None:
        return _new_record(quantizer, sample)
    reference = Reference.from_dict(record["reference"])
    look = reference.look_at(quantizer, spread(sample, reference.size))
    recent = [*(Look(**plain) for plain in record["recent"][1 - MAX_LOOKS :]), look]
    number = record["looks"] + 1
    verdicts = [judge(reference, seen, number) for seen in ((look, pooled(recent)) if len(recent) > 1 else (look,))]
    level, evidence = max(verdicts, key=lambda verdict: _RANK[verdict[0]])
    if record["level"] == "alarm" and level != "alarm":
        level, evidence = "alarm", record["evidence"]
    plain = [seen.to_dict() for seen in recent]
    return record | {"recent": plain, "looks": number, "level": level, "evidence": evidence}


_RANK: dict[Level, int] = {"none": 0, "watch": 1, "alarm": 2}


def judge(reference: Reference, look: Look, number: int) -> tuple[Level, dict[str, float]]:
    """The level that a look deserves as the ``number``-th, and why.

    watch: vectors have shifted. alarm: so they have, and recall by code is lower; or it has fallen so far that
    this alone is certain. Exchangeable vectors pass the first test or the last with probability alpha only.
    """
    evidence = _evidence(reference, look)
    alpha = ALPHA * 6 / (math.pi * number) ** 2 / 2  # halved: a look is judged alone and with those before
    has_shifted, loss = _has_shifted(reference, look, evidence, alpha), evidence["recall_loss"]
    if loss > MIN_LOSS and (has_shifted or loss > _critical_loss(reference.look, look, alpha)):
        return "alarm", evidence
    return "watch" if has_shifted else "none", evidence


def _critical_loss(trained: Look, look: Look, alpha: float) -> float:
    """The loss of recall beyond which a one-sided z test of two means over queries is sure."""
    variance = look.recall_var / look.rows + trained.recall_var / trained.rows
    return _quantile(alpha) * DEPENDENCE * math.sqrt(variance)


def _has_shifted(reference: Reference, look: Look, evidence: dict[str, float], alpha: float) -> bool:
    """Whether the mean of a dimension or of the log length has shifted, or the stability index is large.

    The means by two-sided z tests with Bonferroni's correction over the dimensions.
    """
    noise = math.sqrt(1 / look.rows + 1 / reference.look.rows)
    critical = _quantile(alpha / (2 * (len(look.means) + 1))) * noise
    shift = max(evidence["shift"], evidence["norm_shift"])
    return shift > max(MIN_SHIFT, critical) or evidence["psi"] > MIN_PSI


def _quantile(alpha: float) -> float:
    """What a standard normal exceeds with probability alpha."""
    from statistics import NormalDist  # takes longer to import than the rest of this file

    return -NormalDist().inv_cdf(alpha)


def _evidence(reference: Reference, look: Look) -> dict[str, float]:
    trained = reference.look
    shifts = np.abs(look.means - trained.means) / np.maximum(reference.stds, 1e-12)
    shifts[reference.stds == 0] = 0.0  # a constant dimension: what leaves it is beyond the code's range
    return {
        "recall": look.recall,
        "recall_trained": trained.recall,
        "recall_loss": trained.recall - look.recall,
        "outside": look.outside,
        "outside_trained": trained.outside,
        "shift": float(shifts.max()),
        "shift_dim": int(shifts.argmax()),
        "psi": _stability(trained.counts, look.counts),
        "norm_shift": abs(look.norm - trained.norm) / max(reference.norm_std, MIN_NORM_STD),
        "vectors": look.rows,
    }


def _stability(expected: list[int], actual: list[int]) -> float:
    """Population stability index, sum (a - e) ln(a / e) over bins, the mean over dimensions; half a count is added."""
    e, a = (np.array(counts, np.float64).reshape(-1, BINS) + 0.5 for counts in (expected, actual))
    e, a = (shares / shares.sum(axis=1, keepdims=True) for shares in (e, a))
    return float(((a - e) * np.log(a / e)).sum(axis=1).mean())
