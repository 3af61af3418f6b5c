"""Recency: combine the scores of hits with a decay of a field of datetimes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import NDArray
from qvec.filters.schema import Field, searchable_fields
from qvec.filters.values import keys_of_rows
from qvec.rows.expiry import present
from qvec.schema.state import State
from qvec.search.fusion import Listed
from qvec.storage.store import Snapshot

DECAY = "decay"
DEFAULT_WEIGHT = 0.5
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PERIOD = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


@dataclass(frozen=True, slots=True)
class Boost:
    """A decay of a field: half of the value is left after ``half_life`` microseconds.

    ``weight``: of the decay in the score, from 0 to 1. ``now``: the present moment, as a key of the field.
    """

    field: Field
    half_life: float
    weight: float
    now: int

    def decays(self, reading: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return for each row 2^(-age / half-life), 1 for a time in the future, 0 for a row without a time."""
        times = keys_of_rows(reading.columns, self.field, rows)
        ages = np.float64(self.now) - times.astype(np.float64)
        return np.where(times > 0, np.exp2(-np.maximum(ages, 0) / self.half_life), 0.0)

    def combined(self, reading: Snapshot, listed: Listed, k: int) -> Listed:
        """Return the best k rows of a list. Equal scores: the row that was listed first.

        The score is (1 - weight) s + weight d, with the score s of the list, scaled from 0, the least, to 1, the best,
        and the decay d.
        """
        rows, scores = listed
        if not len(rows):
            return listed
        low, high = float(scores[-1]), float(scores[0])
        scaled = np.ones(len(rows)) if high <= low else (scores.astype(np.float64) - low) / (high - low)
        totals = (1 - self.weight) * scaled + self.weight * self.decays(reading, rows)
        best = np.argsort(-totals, kind="stable")[:k]
        return rows[best], totals[best].astype(np.float32)


def check_boost(boost: object, state: State) -> Boost:
    """Return a checked boost, ``{"field": ("decay", half_life)}`` or with a weight. Raises InputError."""
    if not isinstance(boost, Mapping) or len(boost) != 1:
        raise InputError(f'boost must name one field, as in {{"field": ("decay", "7d")}}; got {boost!r}')
    ((name, value),) = boost.items()
    fields = {field: kind for field, kind in searchable_fields(state).items() if kind.type == "datetime"}
    if name not in fields:
        listed = ", ".join(fields) or "none"
        raise InputError(f"boost must name a field of type datetime, got {name!r}; such fields are: {listed}")
    if not isinstance(value, tuple | list) or len(value) not in (2, 3) or value[0] != DECAY:
        raise InputError(f'boost[{name!r}] must be ("decay", half-life) or ("decay", half-life, weight); got {value!r}')
    weight = value[2] if len(value) == 3 else DEFAULT_WEIGHT
    is_number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight <= 1:
        raise InputError(f"boost[{name!r}]: the weight must be a number from 0 to 1, got {weight!r}")
    return Boost(fields[name], _microseconds(name, value[1]), float(weight), present())


def _microseconds(name: str, period: Any) -> float:
    if isinstance(period, str) and (found := _PERIOD.fullmatch(period)):
        try:
            period = timedelta(**{_UNITS[found[2]]: float(found[1])})
        except OverflowError:
            period = None
    if isinstance(period, timedelta) and period > timedelta(0):
        return period / timedelta(microseconds=1)
    raise InputError(
        f"boost[{name!r}]: the half-life must be a time above zero, such as '7d', '12h', '30m', or a timedelta"
    )
