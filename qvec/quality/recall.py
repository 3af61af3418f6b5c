"""Recall of codes, query by query, against exact neighbors; and intervals around its mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from qvec.codes.configs import CodeConfig, Float32
from qvec.codes.registry import Quantizer, train
from qvec.common.types import Codes, Float32Array, Int64Array, Metric, NDArray

TILE_KEYS = 1 << 22  # keys held at a time: 16 MiB
OVERSAMPLES = (1, 2, 3, 5, 10, 20, 40)
MAX_ROWS = 250_000  # measured on: more are sampled
Z95 = 1.959964  # two-sided 95 %
Recalls = NDArray[np.float64]
CodeNames = Literal["all"] | Sequence[str | CodeConfig]


@dataclass(frozen=True)
class Problem:
    """What neighbors are looked for, and which are the right ones.

    ``base``: float32 [n, dim]. ``queries``: float32 [nq, dim]. ``own``: int64 [nq], the row of ``base`` that a
    query is, which is not to be found; -1 where it is none. ``hidden``: int64, rows of ``base`` that are never to
    be found. ``truth``: int64 [nq, k], the exact k nearest rows.
    """

    base: Float32Array
    queries: Float32Array
    own: Int64Array
    hidden: Int64Array
    truth: Int64Array

    @property
    def k(self) -> int:
        """Neighbors of a query."""
        return int(self.truth.shape[1])


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def make_problem(
    base: Float32Array, queries: Float32Array, own: Int64Array, hidden: Int64Array, k: int, metric: Metric
) -> Problem:
    """Find the exact neighbors by a scan in float32; ``k`` must leave that many rows to be found."""
    exact = train(base[:0], metric, Float32())
    unsolved = Problem(base, queries, own, hidden, np.empty((0, k), np.int64))
    truth = [nearest(row, k) for keys in _tiles(exact, exact.encode(base), unsolved) for row in keys]
    return Problem(base, queries, own, hidden, np.array(truth))


def recalls_by_code(quantizer: Quantizer, codes: Codes, problem: Problem, depths: Sequence[int]) -> dict[int, Recalls]:
    """Share of the true neighbors among the c best by code, for each depth c: float64 [nq] each.

    Re-ranking the c best by exact distance finds just these, so this is the recall after re-ranking c
    candidates; at c = k it is the recall without.
    """
    n, deepest = len(problem.base), min(max(depths), len(problem.base))
    places = np.empty(problem.truth.shape, np.int64)
    place = np.full(n, n, np.int64)
    query = 0
    for keys in _tiles(quantizer, codes, problem):
        for row in keys:
            order = nearest(row, deepest)
            place[order] = np.arange(deepest)
            places[query] = place[problem.truth[query]]
            place[order] = n
            query += 1
    return {depth: (places < depth).mean(axis=1) for depth in depths}


def recalls_of(found: Int64Array, problem: Problem) -> Recalls:
    """Share of the true neighbors among the k first of ``found``, int64 [nq, k or more], a query's own left out."""
    kept = [row[row != own][: problem.k] for row, own in zip(found, problem.own, strict=True)]
    return np.array([np.isin(true, row).mean() for true, row in zip(problem.truth, kept, strict=True)])


def nearest(keys: Float32Array, k: int) -> Int64Array:
    """The rows of the k smallest keys, ascending; of equal keys the first row."""
    rows = np.arange(len(keys)) if k >= len(keys) else np.sort(np.argpartition(keys, k - 1)[:k])
    return rows[np.argsort(keys[rows], kind="stable")]


def wilson(recalls: Recalls, k: int, z: float = Z95) -> Interval:
    """Mean recall@k over queries with its score interval (Wilson, JASA 1927) of z standard errors on either side.

    The trials are nq k, divided by the design effect of asking k neighbors of one query (Kish, Survey
    Sampling, 1965): the variance of the mean over queries against that of nq k independent trials, at least 1.
    Where all queries agree that variance says nothing, and a query counts as one trial.
    """
    n, p = len(recalls), float(recalls.mean())
    spread, binomial = float(recalls.var(ddof=1)) if n > 1 else 0.0, p * (1.0 - p)
    trials = n * min(float(k), binomial / spread) if spread > 0.0 else float(n)
    z2 = z * z
    center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return Interval(p, max(0.0, center - half), min(1.0, center + half))


def _tiles(quantizer: Quantizer, codes: Codes, problem: Problem) -> Iterator[Float32Array]:
    """Keys of all rows for some queries at a time, float32 [m, n]; infinite where a row is not to be found."""
    step = max(1, TILE_KEYS // max(1, len(codes)))
    for start in range(0, len(problem.queries), step):
        part = slice(start, start + step)
        keys = quantizer.codec.score(quantizer.prepare(problem.queries[part]), codes)
        own = problem.own[part]
        keys[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
        keys[:, problem.hidden] = np.inf
        yield keys
