"""Select the hits from the nearest rows: by distance, offset or maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qvec._kernels import Deadline
from qvec.common.types import Float32Array, Metric, NDArray
from qvec.search.options import SearchOptions

COSINE_ROUNDING = 1e-6  # of 1 - cos, in float32 arithmetic and with originals in float16
Found = tuple[NDArray[np.int64], Float32Array, NDArray[np.int64]]
"""Rows [n, depth] (-1: none), distances (inf: none), and counts [n]."""
Float64 = NDArray[np.float64]
Vectors = Callable[[NDArray[np.int64]], Float64]


def no_hits(n: int, k: int) -> Found:
    """Return the result of n queries without hits."""
    rows, distances, counts = np.empty((n, k), np.int64), np.empty((n, k), np.float32), np.zeros(n, np.int64)
    rows.fill(-1)
    distances.fill(np.inf)
    return rows, distances, counts


def refine(
    options: SearchOptions,
    metric: Metric,
    queries: Float32Array,
    found: Found,
    vectors: Vectors | None,
    deadline: Deadline | None = None,
    by_score: bool = False,
) -> Found:
    """Select the k hits of each query [n, dim] from its nearest rows.

    ``vectors`` gives float64 [m, dim] of rows; only maximal marginal relevance needs them. by_score: its relevance is
    the score, as a share of the best, and similarity is the cosine. Raises SearchTimeoutError soon after the deadline.
    """
    rows, distances, counts = found
    if options.max_distance is not None:
        counts = np.minimum(counts, within(distances, options.max_distance, metric).sum(axis=1))
    first, last = options.offset, options.offset + options.k
    refined = no_hits(len(queries), options.k)
    limits = counts.tolist()
    for i, count in enumerate(limits if deadline is None else deadline.watch(limits)):
        if options.weight is None or vectors is None:
            chosen: slice | NDArray[np.int64] = slice(first, min(count, last))
        else:
            near = vectors(rows[i, :count])
            if by_score:
                relevance = distances[i, :count].astype(np.float64) / min(float(distances[i, 0]), -1e-30)
                order = mmr_by_relevance(relevance, near, "cosine", options.weight, last, deadline)
            else:
                order = mmr_order(queries[i].astype(np.float64), near, metric, options.weight, last, deadline)
            chosen = order[first:]
        hits = rows[i, chosen]
        refined[0][i, : len(hits)], refined[1][i, : len(hits)] = hits, distances[i, chosen]
        refined[2][i] = len(hits)
    return refined


def within(distances: Float32Array, max_distance: float, metric: Metric) -> NDArray[np.bool_]:
    """Mark distances up to a limit. Under cosine, rounding can make the distance of equal vectors larger than zero."""
    return np.asarray(distances <= float(max_distance) + (COSINE_ROUNDING if metric == "cosine" else 0.0))


def without(found: Found, own: NDArray[np.int64]) -> Found:
    """Remove one row from each query's result, or the last column if that row was not found."""
    rows, distances, counts = found
    is_own = rows == own[:, None]
    places = is_own.argsort(axis=1, kind="stable")  # the own row last
    queries = np.arange(len(rows))[:, None]
    counts = np.minimum(counts - is_own[queries[:, 0], places[:, -1]], rows.shape[1] - 1)
    return rows[queries, places[:, :-1]], distances[queries, places[:, :-1]], counts


def mmr_order(
    query: Float64, x: Float64, metric: Metric, weight: float, k: int, deadline: Deadline | None = None
) -> NDArray[np.int64]:
    """Select k rows of x [n, dim], each with the greatest marginal relevance given the rows before it. Return
    positions.

    Marginal relevance: weight * sim(query, x) - (1 - weight) * max(sim(x, y)) over the rows y selected before
    (Carbonell and Goldstein, SIGIR 1998). sim is cosine, dot product, or minus the squared distance. Ties go to the
    first row.
    """
    unit_x, unit_query = _unit(metric, x, query)
    relevance = _similarity(unit_x, unit_query, metric)
    return mmr_by_relevance(relevance, x, metric, weight, k, deadline)


def mmr_by_relevance(
    relevance: Float64, x: Float64, metric: Metric, weight: float, k: int, deadline: Deadline | None = None
) -> NDArray[np.int64]:
    """As :func:`mmr_order`, with a relevance [n] of each row."""
    (x,) = _unit(metric, x)
    redundancy = np.full(len(x), -np.inf)
    chosen: list[int] = []
    left = np.ones(len(x), bool)
    while len(chosen) < min(k, len(x)):
        if deadline is not None:
            deadline.check()
        gain = weight * relevance
        if chosen and weight < 1:
            redundancy = np.maximum(redundancy, _similarity(x, x[chosen[-1]], metric))
            gain = gain - (1 - weight) * redundancy
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        left[best] = False
        chosen.append(best)
    return np.array(chosen, np.int64)


def _unit(metric: Metric, *vectors: Float64) -> tuple[Float64, ...]:
    """Under cosine, vectors of length 1."""
    if metric != "cosine":
        return vectors
    return tuple(x / np.linalg.norm(x, axis=-1, keepdims=True) for x in vectors)


def _similarity(x: Float64, y: Float64, metric: Metric) -> Float64:
    if metric == "l2":
        difference = x - y
        return np.asarray(-np.einsum("ij,ij->i", difference, difference))
    return np.asarray(x @ y)
