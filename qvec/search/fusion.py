"""Fusion: combine the lists of rows of several inputs (vector, text, sparse) to one list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Float32Array, NDArray

VECTOR, TEXT, SPARSE = INPUTS = ("vector", "text", "sparse")
METHODS = ("rrf", "weighted")
RRF_RANKS = 60  # Cormack, Clarke and Buettcher, SIGIR 2009
DEFAULT_DEPTH = 100

Listed = tuple[NDArray[np.int64], Float32Array]
"""Rows, best first, and their scores."""
Fusion = str | Mapping[str, float]


def check_fusion(fusion: object, inputs: tuple[str, ...]) -> Fusion:
    """The method for these inputs: "rrf", "weighted", or weights of the inputs. Raises InputError."""
    if fusion is None:
        return "rrf"
    if len(inputs) < 2:
        raise InputError(f"fusion joins two inputs or more of {', '.join(INPUTS)}; there is only {', '.join(inputs)}")
    if isinstance(fusion, Mapping):
        if set(fusion) != set(inputs):
            raise InputError(
                f"fusion must have a weight for each of {', '.join(inputs)}; got {sorted(map(str, fusion))}"
            )
        for name, weight in fusion.items():
            check_weight(f"fusion[{name!r}]", weight)
        if not any(fusion.values()):
            raise InputError("fusion must have a weight above zero")
        return {name: float(weight) for name, weight in fusion.items()}
    if not isinstance(fusion, str) or fusion not in METHODS:
        raise InputError(f"fusion must be {', '.join(map(repr, METHODS))} or weights by input; got {fusion!r}")
    return fusion


def check_weight(name: str, weight: Any) -> float:
    """A weight, which must be a finite number that is not negative. Raises InputError."""
    is_number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight < np.inf:
        raise InputError(f"{name} must be a finite number, zero or above; got {weight!r}")
    return float(weight)


def fuse(lists: Mapping[str, Listed], fusion: Fusion, k: int) -> Listed:
    """The best k rows of several lists. Equal scores: the lower row first.

    "rrf": the sum of 1 / (60 + rank), ranks from 1. Weights: the weighted sum of scores that are scaled from 0, the
    least of a list, to 1, its best; "weighted" has equal weights. A list adds nothing to the score of a row that it
    does not contain.
    """
    if len(lists) == 1:
        ((rows, scores),) = lists.values()
        return rows[:k], scores[:k]
    parts = {name: _contribution(scores, fusion, name) for name, (_, scores) in lists.items()}
    all_rows, places = np.unique(np.concatenate([rows for rows, _ in lists.values()]), return_inverse=True)
    totals = np.bincount(places, np.concatenate([parts[name] for name in lists]), len(all_rows))
    best = np.argsort(-totals, kind="stable")[:k]
    return all_rows[best], totals[best].astype(np.float32)


def _contribution(scores: Float32Array, fusion: Fusion, name: str) -> NDArray[np.float64]:
    if fusion == "rrf":
        return np.asarray(1 / (RRF_RANKS + np.arange(1.0, len(scores) + 1)))
    weight = 1.0 if isinstance(fusion, str) else fusion[name]
    if not len(scores):
        return np.zeros(0)
    low, high = float(scores[-1]), float(scores[0])
    scaled = np.ones(len(scores)) if high <= low else (scores.astype(np.float64) - low) / (high - low)
    return np.asarray(weight * scaled)
