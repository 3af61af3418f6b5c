"""What is made of the nearest rows that a search finds: those within a max_distance, a page, a diverse selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Float32Array, Metric, NDArray, check_number
from qvec.schema.validation import MAX_K, check_count

Found = tuple[NDArray[np.int64], Float32Array, NDArray[np.int64]]
"""Rows [n, depth] (-1: none), distances, and counts [n]."""
Float64 = NDArray[np.float64]
Vectors = Callable[[NDArray[np.int64]], Float64]

FETCH_FACTOR, MIN_FETCH = 5, 20  # candidates of a diverse selection, per hit and at least


@dataclass(frozen=True, slots=True)
class Refinement:
    """``depth``: how many of the nearest it needs. ``max_distance``: largest distance of a hit. ``offset``: hits left out
    before the first. ``mmr``: weight of nearness against diversity in choosing among them. None: not asked for.
    """

    depth: int
    max_distance: float | None
    offset: int
    mmr: float | None

    def apply(self, k: int, metric: Metric, queries: Float32Array, found: Found, vectors: Vectors) -> Found:
        """The k hits of each query [n, dim]; ``vectors``: float64 of rows, to compare them with each other."""
        n = len(queries)
        rows, distances = np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32)
        counts = np.zeros(n, np.int64)
        for i, (near, far, count) in enumerate(zip(*found, strict=True)):
            at = self._chosen(k, metric, queries[i], near[:count], far[:count], vectors)
            counts[i] = len(at)
            rows[i, : len(at)], distances[i, : len(at)] = near[at], far[at]
        return rows, distances, counts

    def _chosen(
        self,
        k: int,
        metric: Metric,
        query: Float32Array,
        rows: NDArray[np.int64],
        distances: Float32Array,
        vectors: Vectors,
    ) -> NDArray[np.int64]:
        """Positions of the hits among the nearest rows."""
        within = len(rows) if self.max_distance is None else int((distances <= self.max_distance).sum())
        if self.mmr is None:
            return np.arange(within)[self.offset : self.offset + k]
        near = marginal(query.astype(np.float64), vectors(rows[:within]), metric, self.mmr, self.offset + k)
        return near[self.offset :]


def refinement(k: int, metric: Metric, max_distance: Any, offset: object, mmr: Any, fetch_k: object) -> Refinement:
    """What options of :meth:`Collection.search` ask for; InputError names the first bad one and its limits."""
    skipped = check_count("offset", offset, 0, MAX_K - k)
    if max_distance is not None:
        check_number("max_distance", max_distance, -np.inf if metric == "ip" else 0.0, np.inf)
        max_distance = float(max_distance)
    depth = skipped + k
    if mmr is not None:
        check_number("mmr", mmr, 0.0, 1.0)
        most = min(MAX_K, max(MIN_FETCH, FETCH_FACTOR * depth))
        depth, mmr = most if fetch_k is None else check_count("fetch_k", fetch_k, depth, MAX_K), float(mmr)
    elif fetch_k is not None:
        raise InputError("fetch_k says how many hits mmr chooses among: give mmr too")
    return Refinement(depth, max_distance, skipped, mmr)


def without(found: Found, own: NDArray[np.int64]) -> Found:
    """What was found less one row of each query, or the last place where it was not among them."""
    rows, distances, counts = found
    mine = rows == own[:, None]
    order = np.argsort(mine, axis=1, kind="stable")[:, :-1]
    counts = np.minimum(counts - mine.any(axis=1), rows.shape[1] - 1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1), counts


def marginal(query: Float64, x: Float64, metric: Metric, weight: float, k: int) -> NDArray[np.int64]:
    """Positions of k rows of x [n, dim], each the one of greatest marginal relevance given those before it.

    Marginal relevance: weight * sim(query, x) - (1 - weight) * the largest sim(x, y) of the rows y chosen before
    (Carbonell and Goldstein, SIGIR 1998); sim: cosine, dot product, or minus the squared distance. Ties go to the row
    that comes first.
    """
    if metric == "cosine":
        query, x = query / np.linalg.norm(query), x / np.linalg.norm(x, axis=1, keepdims=True)
    relevance = _similar(x, query, metric)
    redundancy = np.full(len(x), -np.inf)
    chosen: list[int] = []
    left = np.ones(len(x), bool)
    while len(chosen) < min(k, len(x)):
        gain = weight * relevance
        if chosen and weight < 1:
            redundancy = np.maximum(redundancy, _similar(x, x[chosen[-1]], metric))
            gain = gain - (1 - weight) * redundancy
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        left[best] = False
        chosen.append(best)
    return np.array(chosen, np.int64)


def _similar(x: Float64, y: Float64, metric: Metric) -> Float64:
    if metric == "l2":
        difference = x - y
        return np.asarray(-np.einsum("ij,ij->i", difference, difference))
    return np.asarray(x @ y)
