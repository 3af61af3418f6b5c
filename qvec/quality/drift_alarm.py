"""Check the batches that one handle adds for drift, and act on an alarm."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from qvec.common.errors import DriftError, DriftWarning
from qvec.common.types import NDArray
from qvec.quality.drift import Drift, DriftMonitor, OnDrift, read_drift, store_reference
from qvec.quality.drift_stats import BASE_ROWS, ROWS_PER_CHECK
from qvec.quality.query_sample import QuerySample, query_evidence
from qvec.rows.access import RowAccess
from qvec.schema.quantizers import Trained
from qvec.storage.store import Snapshot, Transaction


class DriftAlarm:
    """Checks batches for drift, and acts at level alarm. ``on_drift``: what to do then, as in :func:`qvec.create`."""

    def __init__(self, access: RowAccess, on_drift: OnDrift) -> None:
        self._access, self._on_drift = access, on_drift
        self._monitor, self._announced = DriftMonitor(), -1

    def check(self, txn: Transaction, x: NDArray[Any], trained_now: bool) -> Drift | None:
        """Check a batch that was added in a transaction. Raises DriftError on an alarm if ``on_drift`` is "raise".

        trained_now: the batch was the training sample of the first generation.
        """
        config, quantizers = self._access.config, self._access.active(txn)
        if quantizers is None or config.form is not None:  # prequantized codes are not trained
            return None
        if trained_now and len(x) >= ROWS_PER_CHECK:
            store_reference(txn, txn.state.active, Trained(quantizers.codes, config.code, len(x), config.model), x)
            return None
        drift = self._monitor.check(txn, quantizers.codes, x, lambda n, newest: self._access.sample(txn, n, newest))
        if drift is not None and drift.level == "alarm" and self._on_drift == "raise":
            raise DriftError(_message(drift))
        return drift

    def announce(self, drift: Drift | None) -> None:
        """Issue a DriftWarning, or call the callable, at level alarm: once per generation, after the batch is
        committed."""
        if drift is None or drift.level != "alarm" or drift.generation is None or drift.generation <= self._announced:
            return
        self._announced = drift.generation
        if callable(self._on_drift):
            self._on_drift(drift)
        elif self._on_drift == "warn":
            warnings.warn(_message(drift), DriftWarning, stacklevel=3)


def current_drift(snap: Snapshot, access: RowAccess, queries: QuerySample) -> Drift:
    """Return the drift of the active generation, with the recall of sampled queries in its evidence."""
    found, quantizers, rows = read_drift(snap, access.config.dim), access.active(snap), queries.rows
    if quantizers is None or not len(rows) or not snap.state.live:
        return found
    more = query_evidence(rows, quantizers.codes, *access.sample(snap, BASE_ROWS))
    return replace(found, evidence=found.evidence | more)


def _message(drift: Drift) -> str:
    found = drift.evidence
    recalls = f"recall by code {found['recall']:.3f}, {found['recall_trained']:.3f} when it was trained"
    return f"drift alarm: {drift.advice} ({recalls})"
