"""Assign vectors to their nearest shards, and order the shards for a query.

A shard has many neighboring centroids, because a single centroid would describe its region too roughly. A vector
belongs to the shard of its nearest centroid. First, k-means groups the centroids. Then a centroid moves to the shard
that contains most of the neighbors of its vectors, unless this shard would become too large. Of several groupings, the
one whose first quarter of shards has most neighbors of other vectors of the sample is kept. For a query, each centroid
gets its weight times a Gaussian of its distance, as an estimate of the neighbors around it; shards are searched in the
descending order of the sums over their centroids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qvec.codes.kmeans import cluster_means, lloyd, nearest
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, Int64Array, Metric, NDArray
from qvec.shards.manifest import Clusters

CENTROIDS = 64  # limit for each shard
MAX_CENTROIDS = 16_384  # limit for all shards, because the manifest contains them
ROWS = 16  # at most this many rows of the sample for each centroid
LEAST_ROWS = 4  # of the sample for each shard, and for each centroid where there are several for a shard
ROUNDS, GROUP_ROUNDS, MOVE_ROUNDS = 6, 25, 15
LARGEST, SMALLEST = 2.5, 0.2  # a shard, in mean sizes: no centroid moves to a larger or from a smaller one
PROBES, NEIGHBORS = 4096, 30  # of the sample: queries whose neighbors should be in one shard, and how many
TRIALS, TRIAL_PROBES, TRIAL_NEIGHBORS = 8, 2048, 10  # groupings, and of the sample: queries that judge them
SHARPNESS = 20.0  # of the Gaussian: twice its exponent at the mean squared distance of a vector from its centroid
_QUERIES_PER_STEP = 512


def learn(sample: Float32Array, n_shards: int, metric: Metric, seed: int) -> Clusters:
    """Divide float32 [n, dim] into ``n_shards`` regions, none with more than LARGEST mean sizes.

    Raises InputError if the sample has fewer than LEAST_ROWS rows for each shard.
    """
    if len(sample) < n_shards * LEAST_ROWS:
        needed = n_shards * LEAST_ROWS
        raise InputError(f"{n_shards} shards by cluster need a sample of {needed} vectors, got {len(sample)}")
    per_shard = max(1, min(CENTROIDS, MAX_CENTROIDS // n_shards, len(sample) // (n_shards * LEAST_ROWS)))
    count, rng = n_shards * per_shard, np.random.default_rng(seed)
    rows = normalized(sample[rng.permutation(len(sample))[: count * ROWS]], metric)
    centroids = lloyd(rows, rows[:count].copy(), ROUNDS)
    cells = nearest(rows, centroids)
    weights = np.bincount(cells, minlength=count)
    spread = float(np.square(rows - centroids[cells]).sum(axis=1).mean())
    sharpness = min(SHARPNESS / max(spread, float(np.finfo(np.float32).tiny)), 1e30)

    def grouped() -> Clusters:
        owners = _grouped(centroids, weights, n_shards, rng)
        if per_shard > 1:
            _gather_neighbors(owners, weights, neighbors, n_shards, rng)
        return Clusters(n_shards, centroids, owners.astype(np.uint32), weights.astype(np.uint32), sharpness, ())

    if per_shard == 1:
        return grouped()
    neighbors = _neighbor_cells(rows, cells, count)
    probes = np.arange(max(0, len(rows) - TRIAL_PROBES), len(rows))
    found = cells[_nearest_rows(rows, probes, TRIAL_NEIGHBORS)]
    return max((grouped() for _ in range(TRIALS)), key=lambda one: share_asked(one, rows[probes], found, metric))


def share_asked(clusters: Clusters, queries: Float32Array, cells: Int64Array, metric: Metric) -> float:
    """The share of the neighbors of queries that is in the first quarter of the shards.

    cells: the nearest centroids of the neighbors, [n, k].
    """
    n_shards = clusters.count
    order = ranked(queries, clusters, metric, n_shards)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(n_shards), order.shape), axis=1)
    asked = np.take_along_axis(places, clusters.owners[cells].astype(np.int64), axis=1) < max(1, n_shards // 4)
    return float(asked.mean())


def _grouped(centroids: Float32Array, weights: Int64Array, n_groups: int, rng: np.random.Generator) -> Int64Array:
    """Group the centroids with k-means. Returns the group of each, int64 [c]."""
    middles = centroids[rng.permutation(len(centroids))[:n_groups]].copy()
    for _ in range(GROUP_ROUNDS):
        middles = cluster_means(centroids, nearest(centroids, middles), middles)
    return _shrunk(nearest(centroids, middles), weights, centroids, middles)


def _shrunk(owners: Int64Array, weights: Int64Array, centroids: Float32Array, middles: Float32Array) -> Int64Array:
    """Move the outermost centroids of groups that are too large to the nearest groups that are not."""
    limit, sizes = LARGEST * weights.sum() / len(middles), np.bincount(owners, weights, len(middles))
    far = np.square(centroids).sum(axis=1)[:, None] - 2 * centroids @ middles.T + np.square(middles).sum(axis=1)
    for cell in np.argsort(-far[np.arange(len(owners)), owners], kind="stable").tolist():
        if sizes[owners[cell]] <= limit:
            continue
        room = sizes + weights[cell] <= limit
        if room.any():
            sizes[owners[cell]] -= weights[cell]
            owners[cell] = np.where(room, far[cell], np.inf).argmin()
            sizes[owners[cell]] += weights[cell]
    return owners


def _neighbor_cells(rows: Float32Array, cells: Int64Array, count: int) -> list[Int64Array]:
    """For each cell, the cells of the nearest neighbors of its vectors and of the vectors whose neighbors it has."""
    probes = np.arange(min(PROBES, len(rows)))
    found = _nearest_rows(rows, probes, NEIGHBORS)
    first, second = np.repeat(cells[probes], found.shape[1]), cells[found].ravel()
    starts, ends = np.concatenate([first, second]), np.concatenate([second, first])
    order = np.argsort(starts, kind="stable")
    return np.split(ends[order], np.searchsorted(starts[order], np.arange(1, count)))


def _nearest_rows(rows: Float32Array, probes: Int64Array, k: int) -> Int64Array:
    """The k nearest other rows of some rows, [n, k], in any order."""
    k, half, found = min(k, len(rows) - 1), np.square(rows).sum(axis=1) / 2, []
    for part in np.array_split(probes, -(-len(probes) // _QUERIES_PER_STEP)):
        scores = rows[part] @ rows.T - half
        scores[np.arange(len(part)), part] = -np.inf
        found.append(np.argpartition(-scores, k - 1, axis=1)[:, :k])
    return np.concatenate(found)


def _gather_neighbors(
    owners: Int64Array, weights: Int64Array, neighbors: list[Int64Array], n_groups: int, rng: np.random.Generator
) -> None:
    """Move each cell to the group that has most of its neighbors, until none moves."""
    mean, sizes = weights.sum() / n_groups, np.bincount(owners, weights, n_groups)
    for _ in range(MOVE_ROUNDS):
        moved = False
        for cell in rng.permutation(len(owners)).tolist():
            own = owners[cell]
            if sizes[own] - weights[cell] < SMALLEST * mean:
                continue
            others = neighbors[cell][neighbors[cell] != cell]
            room = sizes + weights[cell] <= LARGEST * mean
            room[own] = True
            counts = np.where(room, np.bincount(owners[others], minlength=n_groups), -1)
            best = int(counts.argmax())
            if counts[best] > counts[own]:
                sizes[own] -= weights[cell]
                sizes[best] += weights[cell]
                owners[cell], moved = best, True
        if not moved:
            return


def normalized(x: NDArray[Any], metric: Metric) -> Float32Array:
    """Convert vectors for comparison: to float32, normalized under cosine."""
    rows: Float32Array = np.asarray(x, np.float32)
    if metric != "cosine":
        return rows
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Float32Array = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def assign(x: NDArray[Any], clusters: Clusters, metric: Metric) -> Int64Array:
    """The shard of each of [n, dim] vectors: int64 [n]."""
    if not len(x):
        return np.zeros(0, np.int64)
    return clusters.owners[nearest(normalized(x, metric), clusters.centroids)].astype(np.int64)


def ranked(queries: Float32Array, clusters: Clusters, metric: Metric, n_shards: int) -> Int64Array:
    """Order the shards for each query: int64 [n, n_shards], the most promising first."""
    order = np.argsort(clusters.owners, kind="stable")
    starts = np.searchsorted(clusters.owners[order], np.arange(n_shards))
    centroids, weights = clusters.centroids[order], clusters.weights[order]
    half = np.zeros(len(order)) if metric == "ip" else np.square(centroids).sum(axis=1) / 2

    def rank(part: Float32Array) -> Int64Array:
        scores = normalized(part, metric) @ centroids.T - half
        shares = np.exp(clusters.sharpness * (scores - scores.max(axis=1, keepdims=True))) * weights
        sums = np.zeros((len(part), n_shards))
        filled = np.diff(np.append(starts, len(order))) > 0  # a shard without centroids is asked last
        sums[:, filled] = np.add.reduceat(shares, starts[filled], axis=1)
        nearby = np.full((len(part), n_shards), -np.inf)
        nearby[:, filled] = np.maximum.reduceat(scores, starts[filled], axis=1)
        return np.lexsort((-nearby, -sums), axis=1)

    return _in_steps(rank, queries)


def _in_steps(rank: Callable[[Float32Array], Int64Array], queries: Float32Array) -> Int64Array:
    starts = range(0, len(queries), _QUERIES_PER_STEP)
    return np.concatenate([rank(queries[start : start + _QUERIES_PER_STEP]) for start in starts])
