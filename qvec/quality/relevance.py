"""Measures of relevance for ranked lists, with intervals from a paired bootstrap over the queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import IdKind, Ids, Int64Array, NDArray
from qvec.schema.validation import as_ids

MEASURES = ("ndcg", "recall", "mrr", "hit")
BOOTSTRAPS = 2000
_CHUNK = 250  # bootstraps at a time

Float64Array = NDArray[np.float64]
Grades = Mapping[int, float]
"""The relevant rows of a query, as places in the order of ids, and their grades. Others are below zero."""


class Interval(NamedTuple):
    """A mean over queries, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


class Places:
    """The places of ids in the order of stored rows."""

    def __init__(self, ids: Ids, kind: IdKind) -> None:
        """``ids``: of all rows, in row order."""
        self.kind = kind
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def of(self, ids: Any) -> Int64Array:
        """int64, the place of each id; -1 for one that is not stored."""
        wanted = np.asarray(ids)
        if not len(self._sorted):
            return np.full(len(wanted), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(self._sorted[at] == wanted, self._order[at], -1)

    def grades(self, relevant: Any, query: int) -> Grades:
        """The relevant rows of a query: an id, several ids, or a map from ids to grades. Raises InputError."""
        name = f"relevant[{query}]"
        given = list(relevant) if isinstance(relevant, Mapping | set | frozenset) else relevant
        checked = np.asarray(as_ids(given, self.kind, name))
        is_graded = isinstance(relevant, Mapping)
        grades = [_grade(name, grade) for grade in relevant.values()] if is_graded else [1.0] * len(checked)
        if len({*checked.tolist()}) < len(checked):
            raise InputError(f"{name} names an id twice")
        found = {
            place if place >= 0 else -1 - i: grade
            for i, (place, grade) in enumerate(zip(self.of(checked).tolist(), grades, strict=True))
            if grade > 0
        }
        if not found:
            raise InputError(f"{name} must have an id with a grade above zero")
        return found


def _grade(name: str, grade: Any) -> float:
    number = isinstance(grade, int | float | np.integer | np.floating) and not isinstance(grade, bool)
    if not number or not 0 <= grade <= 1e6:
        raise InputError(f"{name} has the grade {grade!r}; grades are from 0 to 1000000")
    return float(grade)


def figures(ranked: Sequence[Int64Array], relevant: Sequence[Grades], k: int) -> Float64Array:
    """Return nDCG@k, recall@k, the reciprocal rank within k, and hit@k of each query: float64 [n, 4].

    DCG: the sum of grade / log2(1 + rank) (Jarvelin and Kekalainen, 2002); nDCG divides by that of the best order. The
    reciprocal rank is that of the first relevant row, 0 if no row is among the first k.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    made = np.zeros((len(ranked), len(MEASURES)))
    for i, (rows, grades) in enumerate(zip(ranked, relevant, strict=True)):
        gains = np.array([grades.get(row, 0.0) for row in rows[:k].tolist()])
        hits = np.flatnonzero(gains)
        if len(hits):
            best = np.sort(np.array([*grades.values()]))[::-1][:k]
            ndcg = float(gains @ discounts[: len(gains)]) / float(best @ discounts[: len(best)])
            made[i] = ndcg, len(hits) / len(grades), 1 / (hits[0] + 1), 1
    return made


def bootstrap(values: Float64Array, seed: int) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Means over the queries of values [n, ...], and the ends of their 95 % intervals (percentiles of 2,000 samples).

    Every column is resampled with the same queries, so that the interval of a difference of columns is paired.
    """
    n, rng = len(values), np.random.default_rng(seed)
    flat, means = values.reshape(n, -1), []
    for start in range(0, BOOTSTRAPS, _CHUNK):
        counts = rng.multinomial(n, np.full(n, 1 / n), min(_CHUNK, BOOTSTRAPS - start))
        means.append(counts @ flat / n)
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return values.mean(0), low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def intervals(values: Float64Array, seed: int) -> list[Interval]:
    """The interval of each column of values [n, m]."""
    return [Interval(*map(float, parts)) for parts in zip(*bootstrap(values, seed), strict=True)]
