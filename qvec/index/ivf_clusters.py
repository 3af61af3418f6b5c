"""Balanced k-means in the space of inverted lists: lists that grow too long are split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qvec._kernels import Lists
from qvec.codes.kmeans import cluster_means
from qvec.common.parallel import for_each
from qvec.common.types import Float32Array, NDArray

TRAINING_ROWS_PER_LIST = 64  # more do not improve the centroids measurably
ROUNDS = 8
MAX_LIST_SHARE = 4.0  # a list longer than this times the mean is split
ROWS_PER_CALL = 1024  # vectors that one call of the kernel assigns

Owners = NDArray[np.uint32]


def cluster(
    lists: Lists, y: Float32Array, rng: np.random.Generator, threads: int, step: Callable[[int, int], object] | None
) -> None:
    """Train ``lists.n_lists`` centroids on float32[n, dims], n >= n_lists, and start empty lists with them.

    The result depends on the seed of ``rng``, not on the number of threads. ``step``: called with (done, total) rounds.
    """
    centroids = y[np.sort(rng.choice(len(y), lists.n_lists, replace=False))]
    spreads = np.zeros(lists.n_lists, np.float32)  # of each list: mean squared distance of its vectors
    for done in range(ROUNDS):
        lists.begin(centroids, spreads)
        owned, distances = assign(lists, y, 1, threads)
        owners = owned[:, 0]
        sizes = np.bincount(owners, minlength=lists.n_lists)
        centroids = cluster_means(y, owners, centroids)
        spreads = (np.bincount(owners, distances, lists.n_lists) / np.maximum(sizes, 1)).astype(np.float32)
        if done < ROUNDS - 1:
            _split(centroids, y, owners, sizes, rng)
        if step is not None:
            step(done + 1, ROUNDS)
    lists.begin(centroids, spreads)


def assign(lists: Lists, y: Float32Array, copies: int, threads: int) -> tuple[Owners, Float32Array]:
    """The nearest ``copies`` lists of each vector, and its squared distance from the first; on several threads."""
    owners, distances = np.empty((len(y), copies), np.uint32), np.empty(len(y), np.float32)

    def assign_from(start: int) -> None:
        part = slice(start, start + ROWS_PER_CALL)
        owners[part], distances[part] = lists.assign(y[part], copies)

    for_each(assign_from, range(0, len(y), ROWS_PER_CALL), threads)
    return owners, distances


def _split(
    centroids: Float32Array, y: Float32Array, owners: Owners, sizes: NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Move the centroids of empty lists, and of one small list for each that is too long, to vectors of long lists."""
    n_long = int((sizes > MAX_LIST_SHARE * sizes.mean()).sum())
    n_moved = max(int((sizes == 0).sum()), min(n_long, len(sizes) // 2))
    if n_moved == 0:
        return
    largest_first = np.argsort(-sizes, kind="stable")
    chances: NDArray[Any] = np.isin(owners, largest_first[:n_moved]).astype(np.float64)
    picked = rng.choice(len(y), n_moved, replace=False, p=chances / chances.sum())
    centroids[largest_first[len(sizes) - n_moved :]] = y[np.sort(picked)]
