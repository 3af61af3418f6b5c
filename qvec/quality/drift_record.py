"""The drift record of a generation: the statistics of its training sample and of the newest checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.common.errors import FormatError
from qvec.common.plain_state import Between, decode, encode
from qvec.common.types import MAX_DIM, Float32Array
from qvec.quality.drift_stats import BINNED_DIMS, BINS, MAX_CHECKS, MAX_COUNT, Reference, SampleStats
from qvec.schema.layout import DRIFT
from qvec.storage.snapshot import Snapshot
from qvec.storage.store import Transaction

Level = Literal["none", "warning", "alarm"]
Figure = Annotated[float, Between(-1e300, 1e300)]


@dataclass(frozen=True)
class Evidence:
    """Figures of a check: see :class:`qvec.quality.drift.Drift`."""

    recall: Figure
    recall_stored: Figure
    recall_trained: Figure
    recall_loss: Figure
    outside: Figure
    outside_trained: Figure
    shift: Figure
    shift_dim: Annotated[int, Between(0, MAX_DIM)]
    psi: Figure
    norm_shift: Figure
    vectors: Annotated[int, Between(1, MAX_COUNT)]


@dataclass(frozen=True, eq=False)
class DriftRecord:
    """``recent``: the newest checks, at most MAX_CHECKS.

    ``level``, ``evidence``: of the newest check, or of the alarm.
    """

    reference: Reference
    recent: Annotated[tuple[SampleStats, ...], Between(0, MAX_CHECKS)]
    n_checks: Annotated[int, Between(0, MAX_COUNT)]
    level: Level
    evidence: Evidence | None

    @classmethod
    def begin(cls, quantizer: Quantizer, sample: Float32Array) -> Self:
        """Make the record before the first check, from the training sample float32 [n, dim]."""
        return cls(Reference.build(quantizer, sample), (), 0, "none", None)


def read_drift_record(reading: Snapshot, number: int, dim: int) -> DriftRecord | None:
    """Read the record of a generation of codes of ``dim`` dimensions; None: there is none.

    FormatError names the wrong field.
    """
    plain = reading.record(DRIFT, number)
    return None if plain is None else decode_drift_record(plain, dim)


def decode_drift_record(plain: object, dim: int) -> DriftRecord:
    """Check a stored record of codes of ``dim`` dimensions. FormatError names the field that is wrong."""
    binned = min(dim, BINNED_DIMS)
    n_counts, n_edges = binned * BINS, binned * (BINS - 1)
    record = decode(DriftRecord, plain, "drift record", dim=dim, n_counts=n_counts, n_edges=n_edges)
    if (np.diff(record.reference.edges.reshape(binned, -1), axis=1) < 0).any():
        raise FormatError("field 'edges' is not in order")
    if len(record.recent) != min(record.n_checks, MAX_CHECKS):
        raise FormatError(f"field 'recent' must hold the last {MAX_CHECKS} of {record.n_checks} checks")
    _check_stats(record.reference.stats, n_counts, (1,))
    for stats in record.recent:
        _check_stats(stats, n_counts, (0, 2))
    return record


def write_drift_record(txn: Transaction, number: int, record: DriftRecord) -> None:
    """Store the record of a generation."""
    txn.put_record(DRIFT, number, encode(record))


class DriftRecords:
    """Reads and writes the records of generations. The record that this object wrote last is not decoded again."""

    def __init__(self) -> None:
        self._plain: object = None
        self._record: DriftRecord | None = None

    def read(self, reading: Snapshot, number: int, dim: int) -> DriftRecord | None:
        """Read a record; see :func:`read_drift_record`."""
        plain = reading.record(DRIFT, number)
        if plain is None:
            return None
        return self._record if self._record is not None and plain == self._plain else decode_drift_record(plain, dim)

    def write(self, txn: Transaction, number: int, record: DriftRecord) -> None:
        """Store a record."""
        self._plain, self._record = encode(record), record
        txn.put_record(DRIFT, number, self._plain)


def _check_stats(stats: SampleStats, n_counts: int, n_recalls: tuple[int, ...]) -> None:
    if (stats.variances < 0).any():
        raise FormatError("field 'variances' holds a negative value")
    if len(stats.counts) != n_counts:
        raise FormatError(f"field 'counts' must hold {n_counts} numbers")
    if len(stats.recalls) not in n_recalls:
        raise FormatError(f"field 'recalls' must hold {n_recalls[-1]} of them")
