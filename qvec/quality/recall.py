"""Recall: the share of the true neighbors that a search finds; and confidence intervals of its mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from qvec.codes.configs import CodeConfig, Float32
from qvec.codes.registry import Quantizer, train
from qvec.common.types import Codes, Float32Array, Int64Array, Metric, NDArray

TIE_TOLERANCE = 1e-6  # relative to the largest distance of the true neighbors; float32 rounds by 6e-8
TILE_KEYS = 1 << 22  # keys in memory at a time: 16 MiB
OVERSAMPLES = (1, 2, 3, 5, 10, 20, 40)
MAX_EVALUATED_ROWS = 250_000  # an evaluation samples a collection with more rows
Z95 = 1.959964  # two-sided 95 %
Recalls = NDArray[np.float64]
CodeNames = Literal["all"] | Sequence[str | CodeConfig]


def recall(found: NDArray[Any], truth: NDArray[Any], chance: NDArray[Any] | None = None) -> Recalls:
    """Return the recall of each query: float64 [nq]. A hit that is as near as the true k-th neighbor is correct.

    found: exact distances of the hits of each query, float [nq, m], in any order; infinite: no hit. truth: exact
    distances of the true k nearest, float [nq, k]; infinite: no neighbor. A hit is correct if its distance is at most
    that of the farthest true neighbor plus TIE_TOLERANCE. k correct hits are a recall of 1. chance: the probability of
    each hit, float [nq, m], if a search may return one of several rows; None: 1.
    """
    there = np.isfinite(truth)
    sizes = np.abs(np.where(there, truth, 0)).max(axis=1, initial=0)
    limits = np.where(there, truth, -np.inf).max(axis=1, initial=-np.inf) + TIE_TOLERANCE * sizes
    right = found <= limits[:, None]
    hits = right.sum(axis=1) if chance is None else (right * chance).sum(axis=1)
    wanted = there.sum(axis=1)
    recalls: Recalls = np.minimum(hits, wanted) / np.maximum(wanted, 1)
    return recalls


def distances_to(queries: NDArray[Any], base: NDArray[Any], rows: Int64Array, metric: Metric) -> Float32Array:
    """Return exact distances of rows int64 [nq, m] of ``base`` from float32 [nq, dim] queries: float32 [nq, m].

    Infinite for negative rows, which mean no row, and for repetitions of a row. Equal vectors have equal distances.
    ``base`` may be a map of a large file, of any real dtype.
    """
    exact = train(np.empty((0, base.shape[1]), np.float32), metric, Float32())
    distances = np.full(rows.shape, np.inf, np.float32)
    for query, own, out in zip(exact.prepare(np.ascontiguousarray(queries, np.float32)), rows, distances, strict=True):
        some, places = np.unique(own, return_index=True)
        some, places = some[some >= 0], places[some >= 0]
        out[places] = exact.codec.score(query[None], exact.encode(np.ascontiguousarray(base[some], np.float32)))[0]
    return distances


def recall_of_rows(
    found: Int64Array, truth: Int64Array, queries: NDArray[Any], base: NDArray[Any], metric: Metric
) -> Recalls:
    """Return the recall of each query, given rows of ``base``: found int64 [nq, m], truth int64 [nq, k]."""
    return recall(distances_to(queries, base, found, metric), distances_to(queries, base, truth, metric))


def first_others(rows: Int64Array, own: Int64Array, k: int) -> NDArray[np.bool_]:
    """Mark the first k of each query's rows [nq, k or more] except its own row (-1: none): bool [nq, m]."""
    others = rows != own[:, None]
    first: NDArray[np.bool_] = others & (np.cumsum(others, axis=1) <= k)
    return first


@dataclass(frozen=True)
class Problem:
    """Queries with their true neighbors.

    ``base``: float32 [n, dim]. ``queries``: float32 [nq, dim]. ``own``: int64 [nq], the row of ``base`` that the query
    is a copy of, which is not a neighbor; -1: none. ``hidden``: int64, rows of ``base`` that are no neighbors of any
    query. ``truth``: float32 [nq, k], exact distances of the k nearest rows.
    """

    base: Float32Array
    queries: Float32Array
    own: Int64Array
    hidden: Int64Array
    metric: Metric
    truth: Float32Array

    @property
    def k(self) -> int:
        """The number of neighbors of a query."""
        return int(self.truth.shape[1])


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def make_problem(
    base: Float32Array, queries: Float32Array, own: Int64Array, hidden: Int64Array, k: int, metric: Metric
) -> Problem:
    """Find the true neighbors by a scan in float32. At least ``k`` rows must be left to find."""
    exact = train(base[:0], metric, Float32())
    unsolved = Problem(base, queries, own, hidden, metric, np.empty((0, k), np.float32))
    tiles = [np.partition(keys, k - 1, axis=1)[:, :k] for keys in _tiles(exact, exact.encode(base), unsolved)]
    return Problem(base, queries, own, hidden, metric, np.concatenate(tiles))


def recalls_by_code(quantizer: Quantizer, codes: Codes, problem: Problem, depths: Sequence[int]) -> dict[int, Recalls]:
    """Return the recall among the c rows with the nearest codes, for each depth c: float64 [nq] each.

    This is the recall of a search that re-ranks c candidates by exact distance; with c = k, of a search without
    re-ranking.
    """
    deepest = min(max(depths), len(problem.base))
    rows = np.array([nearest(row, deepest) for keys in _tiles(quantizer, codes, problem) for row in keys])
    found = distances_to(problem.queries, problem.base, rows, problem.metric)
    return {depth: recall(found[:, :depth], problem.truth) for depth in depths}


def recalls_of(found: Int64Array, problem: Problem) -> Recalls:
    """Return the recall of a search that found these rows, int64 [nq, k or more], nearest first, without own rows."""
    rows = np.where(first_others(found, problem.own, problem.k), found, -1)
    return recall(distances_to(problem.queries, problem.base, rows, problem.metric), problem.truth)


def nearest(keys: Float32Array, k: int) -> Int64Array:
    """Return the rows of the k smallest keys, ascending; of equal keys, the first row. -1: the key is infinite."""
    rows = np.arange(len(keys)) if k >= len(keys) else np.sort(np.argpartition(keys, k - 1)[:k])
    rows = rows[np.argsort(keys[rows], kind="stable")]
    return np.where(np.isfinite(keys[rows]), rows, -1)


def wilson(recalls: Recalls, k: int, z: float = Z95) -> Interval:
    """Return the mean recall@k with its score interval (Wilson, JASA 1927) of z standard errors on either side.

    The number of trials is nq k divided by the design effect of searching for k neighbors of one query (Kish, Survey
    Sampling, 1965): the ratio of the variance over queries to the variance of independent trials, at least 1. If all
    queries have the same recall, the variance over queries is 0, and each query counts as one trial.
    """
    n, p = len(recalls), float(recalls.mean())
    spread, binomial = float(recalls.var(ddof=1)) if n > 1 else 0.0, p * (1.0 - p)
    trials = n * min(float(k), binomial / spread) if spread > 0.0 else float(n)
    z2 = z * z
    center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return Interval(p, max(0.0, min(p, center - half)), min(1.0, max(p, center + half)))  # rounding can cross the mean


def _tiles(quantizer: Quantizer, codes: Codes, problem: Problem) -> Iterator[Float32Array]:
    """Yield keys of all rows for several queries at a time: float32 [m, n]; infinite for rows that are not
    neighbors."""
    queries_per_tile = max(1, TILE_KEYS // max(1, len(codes)))
    for start in range(0, len(problem.queries), queries_per_tile):
        part = slice(start, start + queries_per_tile)
        keys = quantizer.codec.score(quantizer.prepare(problem.queries[part]), codes)
        own = problem.own[part]
        keys[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
        keys[:, problem.hidden] = np.inf
        yield keys
