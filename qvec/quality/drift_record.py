"""The record of looks, as it comes from a file: FormatError names the field that is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qvec.common.errors import FormatError
from qvec.common.plain_state import State, take_choice, take_floats, take_int, take_state
from qvec.quality.drift_stats import BASE_ROWS, BINNED_DIMS, BINS, MAX_LOOKS, MIN_ROWS
from qvec.schema.layout import DRIFT
from qvec.storage.snapshot import Snapshot

_LIMIT = 2**31 - 1
_RECORD = ("reference", "recent", "looks", "level", "evidence")
_LOOK = ("rows", "mean", "var", "counts", "norm", "norm_var", "outside", "recalls")


def read_looks(reading: Snapshot, number: int, dim: int) -> dict[str, Any] | None:
    """The record of a generation's codes, of so many dimensions; None where there is none."""
    record = reading.record(DRIFT, number)
    return None if record is None else checked(record, dim)


def checked(record: object, dim: int) -> dict[str, Any]:
    """The record of a collection of so many dimensions, all of which may be computed with."""
    fields = take_state(record, "looks of drift", _RECORD)
    reference = take_state(fields["reference"], "what drift is held against", ("look", "edges", "base"))
    bins = min(dim, BINNED_DIMS)
    _check_look(reference["look"], dim, recalls=1)
    edges = take_floats(reference, "edges", bins * (BINS - 1)).reshape(bins, BINS - 1)
    if (np.diff(edges, axis=1) < 0).any():
        raise FormatError("field 'edges' is not in order")
    take_int(reference, "base", MIN_ROWS - MIN_ROWS // 3, BASE_ROWS)
    recent, looks = fields["recent"], take_int(fields, "looks", 0, _LIMIT)
    if not isinstance(recent, list) or len(recent) != min(looks, MAX_LOOKS):
        raise FormatError(f"field 'recent' must hold the last {MAX_LOOKS} of {looks} looks")
    for look in recent:
        _check_look(look, dim, recalls=2)
    take_choice(fields, "level", ("none", "watch", "alarm"))
    evidence = fields["evidence"]
    if not isinstance(evidence, dict):
        raise FormatError("field 'evidence' must be a mapping")
    for name in evidence:
        _take_number(evidence, name, -math.inf, math.inf)
    return fields


def _check_look(state: object, dim: int, recalls: int) -> None:
    look = take_state(state, "a look of drift", _LOOK)
    take_int(look, "rows", 1, _LIMIT)
    take_floats(look, "mean", dim)
    if (take_floats(look, "var", dim) < 0).any():
        raise FormatError("field 'var' holds a negative value")
    counts, expected = look["counts"], min(dim, BINNED_DIMS) * BINS
    if not isinstance(counts, list) or len(counts) != expected:
        raise FormatError(f"field 'counts' must hold {expected} numbers")
    for i in range(expected):
        take_int({"counts": counts[i]}, "counts", 0, _LIMIT)
    _take_number(look, "norm", -1e6, 1e6)
    _take_number(look, "norm_var", 0.0, 1e6)
    _take_number(look, "outside", 0.0, 1.0)
    _check_recalls(look["recalls"], recalls)


def _check_recalls(recalls: object, expected: int) -> None:
    """Measured for as many kinds of queries as there are, or, at a look, not at all."""
    if not isinstance(recalls, list) or (len(recalls) != expected and (recalls or expected == 1)):
        raise FormatError(f"field 'recalls' must hold {expected} of them")
    for one in recalls:
        if not isinstance(one, list) or len(one) != 3:
            raise FormatError("a recall must hold a number of queries, a mean and a variance")
        found = dict(zip(("queries", "mean", "variance"), one, strict=True))
        take_int(found, "queries", 1, _LIMIT)
        _take_number(found, "mean", 0.0, 1.0)
        _take_number(found, "variance", 0.0, 1.0)


def _take_number(state: State, field: str, low: float, high: float) -> None:
    value = state[field]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise FormatError(f"field {field!r} must be a finite number, got {value!r}")
    if not low <= value <= high:
        raise FormatError(f"field {field!r} must be from {low} to {high}, got {value!r}")
