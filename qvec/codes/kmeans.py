"""k-means clustering (Lloyd, IEEE Trans. Inf. Theory 28, 1982)."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.common.types import Float32Array, Int64Array, NDArray

_ROWS_PER_PRODUCT = 8192  # bounds the matrix of dot products


def lloyd(y: Float32Array, centroids: Float32Array, rounds: int) -> Float32Array:
    """Return the float32[k, dim] centroids of float32[n, dim] after several rounds that start from ``centroids``."""
    for _ in range(rounds):
        centroids = cluster_means(y, nearest(y, centroids), centroids)
    return centroids


def nearest(y: Float32Array, centroids: Float32Array) -> Int64Array:
    """Return the nearest of float32[k, dim] centroids for each of float32[n, dim]: int64[n]."""
    half = np.square(centroids).sum(axis=1) / 2
    tiles = (y[i : i + _ROWS_PER_PRODUCT] @ centroids.T - half for i in range(0, len(y), _ROWS_PER_PRODUCT))
    return np.concatenate([tile.argmax(axis=1) for tile in tiles])


def cluster_means(y: Float32Array, owners: NDArray[Any], centroids: Float32Array) -> Float32Array:
    """Return the mean of each cluster.

    ``owners`` int[n]: the cluster of each vector. Empty ones keep their centroids.
    """
    order = np.argsort(owners, kind="stable")
    clusters, starts = np.unique(owners[order], return_index=True)
    means = centroids.copy()
    for cluster, members in zip(clusters, np.split(order, starts[1:]), strict=True):
        means[cluster] = y[members].mean(axis=0)
    return means
