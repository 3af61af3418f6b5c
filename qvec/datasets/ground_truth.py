"""Exact k-nearest neighbors by brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvec.common.console import as_progress
from qvec.common.errors import InputError
from qvec.datasets.annbenchmarks import Metric
from qvec.datasets.files import Matrix, checked_matrix
from qvec.schema.arrays import real_array

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Progress = Callable[[int, int], None]

BASE_BLOCK, QUERY_BLOCK = 8192, 256  # 16 MiB of distances: large enough for BLAS to run at full speed
SLACK = 1e-10  # relative; far above the rounding errors of a float64 dot product


def exact_knn(
    base: ArrayLike, queries: ArrayLike, k: int, metric: Metric, *, progress: Progress | bool | None = None
) -> tuple[Int64, Float64]:
    """Find the k nearest rows of ``base`` to each query by float64 distance; of ties, the smaller row.

    ``base`` (n, dim) and ``queries`` (q, dim) are array-like (docs/inputs.md). Arrays are converted block by block, so
    that ``base`` may be a map of a large file. Distances are those of qvec: l2 squared Euclidean, ip ``-dot``, cosine
    ``1 - cos``.
    BLAS finds candidates; their distances are then computed one by one, so that equal vectors are at equal distances.
    ``progress(done, total)`` is called with rows of ``base``; True: show a bar.

    Returns rows int64 and distances float64, both (q, min(k, n)), nearest first. Raises InputError for a wrong shape,
    dtype, metric or k, and for a row that is not finite or, under cosine, zero.
    """
    base = checked_matrix(real_array("base", base), "base")
    queries = checked_matrix(real_array("queries", queries), "queries")
    _check(base, queries, k, metric)
    report = as_progress(progress, "exact neighbors")
    points = _prepared(queries, metric, "queries", 0)
    best = [_Nearest(min(k, len(base))) for _ in points]
    for start in range(0, len(base), BASE_BLOCK):
        block = _prepared(base[start : start + BASE_BLOCK], metric, "base", start)
        slack = SLACK * (_longest(points) + _longest(block))
        for first, keys in _distances(points, block, metric):
            for row, row_keys in enumerate(keys, first):
                near = best[row].near(row_keys, slack)
                best[row].merge(near + start, _pairwise(points[row], block[near], metric))
        if report is not None:
            report(start + len(block), len(base))
    shape = (len(points), min(k, len(base)))
    rows = np.array([nearest.rows for nearest in best], np.int64).reshape(shape)
    return rows, np.array([nearest.distances for nearest in best], np.float64).reshape(shape)


class _Nearest:
    """The nearest rows of one query that have been found so far."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.rows: Int64 = np.empty(0, np.int64)
        self.distances: Float64 = np.empty(0)

    def near(self, keys: Float64, slack: float) -> Int64:
        """Rows of a block that may be among the k nearest, given distances with errors up to ``slack``."""
        limit = np.inf if len(keys) <= self.k else float(np.partition(keys, self.k - 1)[self.k - 1])
        if len(self.rows) == self.k:
            limit = min(limit, float(self.distances[-1]))
        return np.flatnonzero(keys <= limit + slack)

    def merge(self, rows: Int64, distances: Float64) -> None:
        rows, distances = np.concatenate([self.rows, rows]), np.concatenate([self.distances, distances])
        order = np.lexsort((rows, distances))[: self.k]
        self.rows, self.distances = rows[order], distances[order]


def _check(base: Matrix, queries: Matrix, k: int, metric: str) -> None:
    if metric not in ("l2", "ip", "cosine"):
        raise InputError(f"metric is {metric!r}; it is one of l2, ip, cosine")
    if k < 1:
        raise InputError(f"k is {k}; the least is 1")
    if base.shape[1] != queries.shape[1]:
        raise InputError(f"queries have dimension {queries.shape[1]}, base has {base.shape[1]}")


def _prepared(x: Matrix, metric: Metric, name: str, start: int) -> Float64:
    """Rows in float64, of length 1 under cosine."""
    values = np.ascontiguousarray(x, np.float64)
    _refuse(np.logical_not(np.isfinite(values).all(axis=1)), name, start, "is not finite")
    if metric != "cosine":
        return values
    norms = np.sqrt((values * values).sum(axis=1, keepdims=True))
    _refuse(norms[:, 0] == 0, name, start, "is zero, which has no cosine")
    return np.asarray(values / norms)


def _refuse(bad: NDArray[np.bool_], name: str, start: int, what: str) -> None:
    if bad.any():
        raise InputError(f"{name}: row {start + int(bad.argmax())} {what}")


def _distances(points: Float64, block: Float64, metric: Metric) -> Iterator[tuple[int, Float64]]:
    """Yield the first query and the distances (queries, rows) of each block of queries, by BLAS."""
    norms = (block * block).sum(axis=1)
    for first in range(0, len(points), QUERY_BLOCK):
        some = points[first : first + QUERY_BLOCK]
        dots = some @ block.T
        if metric == "l2":
            yield first, (some * some).sum(axis=1)[:, None] + norms - 2 * dots
        else:
            yield first, (0.0 if metric == "ip" else 1.0) - dots


def _pairwise(query: Float64, rows: Float64, metric: Metric) -> Float64:
    """Compute distances one at a time, so that the result for a row does not depend on other rows."""
    if metric == "l2":
        difference = rows - query
        return np.asarray((difference * difference).sum(axis=1))
    return np.asarray((0.0 if metric == "ip" else 1.0) - (rows * query).sum(axis=1))


def _longest(x: Float64) -> float:
    """The largest squared length, to which SLACK is relative."""
    return float((x * x).sum(axis=1).max(initial=0))
