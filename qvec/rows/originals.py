"""The stored originals, with which quantizers are trained and from which codes are made."""

from __future__ import annotations

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Float32Array
from qvec.rows.lookup import live_rows
from qvec.schema.layout import CODES, VECTORS, active_columns
from qvec.schema.quantizers import QuantizerLoader, VectorReader
from qvec.schema.state import State
from qvec.storage.store import Snapshot

TRAINING_ROWS = 65_536  # of a dimension, 65 values of such a sample are above the 99.9th percentile


def check_trained(state: State) -> None:
    """Raise InputError if no quantizer has been trained."""
    if state.active is None:
        raise InputError("the collection holds no codes yet: add vectors, or calibrate it on a sample, first")


def originals_of(reading: Snapshot, quantizers: QuantizerLoader) -> VectorReader:
    """Return the reader of originals. Raises InputError if the collection stores no originals."""
    state: State = reading.state
    columns = active_columns(reading.columns, state.column_names)
    if VECTORS in columns:
        return VectorReader(quantizers.original_quantizer, columns[VECTORS])
    check_trained(state)
    assert state.active is not None
    quantizer = quantizers.load(reading, state.active)
    if quantizer.kind != "f32":
        raise InputError(
            f"new codes are made from the originals, and the collection stores none: it was created with "
            f"code={quantizer.kind!r} and originals='none'"
        )
    return VectorReader(quantizer, columns[CODES])


def sample_originals(reading: Snapshot, quantizers: QuantizerLoader, size: int = TRAINING_ROWS) -> Float32Array:
    """Return at most ``size`` stored originals, float32 [n, dim], spread evenly over the live rows."""
    rows = live_rows(reading)
    spread = np.linspace(0, len(rows) - 1, min(size, len(rows))).astype(np.int64)
    return originals_of(reading, quantizers).read(rows[spread])
