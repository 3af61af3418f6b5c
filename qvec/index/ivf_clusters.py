"""Train the centroids of inverted lists with k-means, which splits the longest lists to balance their lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qvec._kernels import Lists
from qvec.codes.kmeans import cluster_means
from qvec.common.parallel import for_each
from qvec.common.types import Float32Array, NDArray

TRAINING_ROWS_PER_LIST = 64  # more training vectors do not improve the centroids measurably
ROUNDS = 8
MAX_LENGTH_RATIO = 4.0  # a list is too long if its length exceeds this times the mean length
ROWS_PER_CALL = 1024  # one call of the kernel assigns this many vectors to lists

Owners = NDArray[np.uint32]


def cluster(
    lists: Lists, y: Float32Array, rng: np.random.Generator, threads: int, step: Callable[[int, int], object] | None
) -> None:
    """Train ``lists.n_lists`` centroids on vectors ``y``, float32[n, dims] with n >= n_lists; store them in ``lists``.

    The lists become empty. The result depends on the seed of ``rng``, but not on the number of threads. ``step`` is
    called with (done, total) rounds.
    """
    centroids = y[np.sort(rng.choice(len(y), lists.n_lists, replace=False))]
    spreads = np.zeros(lists.n_lists, np.float32)  # mean squared distance of each list's vectors from its centroid
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
    """Find the lists whose centroids are nearest to each vector of ``y``, float32[n, dims], on several threads.

    Returns ``copies`` lists for each vector, uint32[n, copies], nearest first, and the squared distance of each vector
    from its nearest centroid, float32[n].
    """
    owners, distances = np.empty((len(y), copies), np.uint32), np.empty(len(y), np.float32)

    def assign_from(start: int) -> None:
        part = slice(start, start + ROWS_PER_CALL)
        owners[part], distances[part] = lists.assign(y[part], copies)

    for_each(assign_from, range(0, len(y), ROWS_PER_CALL), threads)
    return owners, distances


def _split(
    centroids: Float32Array, y: Float32Array, owners: Owners, sizes: NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Move the centroids of the shortest lists to random vectors of the longest lists, so that these are split.

    The number of moved centroids is the larger of two numbers: the number of empty lists, and the number of lists that
    are too long, limited to half of all lists. Vectors come from as many of the longest lists as centroids are moved.
    """
    n_long = int((sizes > MAX_LENGTH_RATIO * sizes.mean()).sum())
    n_moved = max(int((sizes == 0).sum()), min(n_long, len(sizes) // 2))
    if n_moved == 0:
        return
    largest_first = np.argsort(-sizes, kind="stable")
    chances: NDArray[Any] = np.isin(owners, largest_first[:n_moved]).astype(np.float64)
    picked = rng.choice(len(y), n_moved, replace=False, p=chances / chances.sum())
    centroids[largest_first[len(sizes) - n_moved :]] = y[np.sort(picked)]
