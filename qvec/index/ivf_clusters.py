"""Balanced k-means over the space of inverted lists (Lloyd 1982)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qvec._kernels import Lists
from qvec.common.types import Float32Array, NDArray

POINTS = 64  # vectors a centroid is learned from; more gain nothing that counts
ROUNDS = 8
HEAVY = 4.0  # times the mean: a list that holds more is split
CHUNK = 1024  # vectors assigned in one call

Owners = NDArray[np.uint32]


def cluster(
    lists: Lists, y: Float32Array, rng: np.random.Generator, threads: int, step: Callable[[int, int], object] | None
) -> None:
    """Make ``lists.n_lists`` centroids of float32 [n, dims], n of at least as many, and begin the lists with them.

    The same for a seed, whatever the number of threads. ``step``: called with (done, total) rounds.
    """
    centroids = y[np.sort(rng.choice(len(y), lists.n_lists, replace=False))]
    spreads = np.zeros(lists.n_lists, np.float32)
    for done in range(ROUNDS):
        lists.begin(centroids, spreads)
        owners, distances = assign(lists, y, 1, threads)
        centroids, spreads, sizes = _means(centroids, y, owners[:, 0], distances)
        if done < ROUNDS - 1:
            _split(centroids, y, owners[:, 0], sizes, rng)
        if step is not None:
            step(done + 1, ROUNDS)
    lists.begin(centroids, spreads)


def assign(lists: Lists, y: Float32Array, copies: int, threads: int) -> tuple[Owners, Float32Array]:
    """:meth:`qvec._kernels.Lists.assign` of any number of vectors, in parallel."""
    from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

    parts = [y[i : i + CHUNK] for i in range(0, len(y), CHUNK)]
    if threads == 1 or len(parts) < 2:
        found = [lists.assign(part, copies) for part in parts]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda part: lists.assign(part, copies), parts))
    return np.concatenate([owners for owners, _ in found]), np.concatenate([far for _, far in found])


def _means(
    centroids: Float32Array, y: Float32Array, owners: Owners, distances: Float32Array
) -> tuple[Float32Array, Float32Array, NDArray[np.int64]]:
    """Means of the vectors of each list, their mean squared distance from the old centroid, and how many there are.

    A list without vectors keeps its centroid.
    """
    sizes = np.bincount(owners, minlength=len(centroids))
    filled = np.flatnonzero(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes[filled])])
    order = np.argsort(owners, kind="stable")
    means = centroids.copy()
    for at in range(0, len(filled), 256):  # bounds the copy of sorted vectors
        some = filled[at : at + 256]
        first, last = starts[at], starts[at + len(some)]
        sums = np.add.reduceat(y[order[first:last]], starts[at : at + len(some)] - first, axis=0)
        means[some] = sums / sizes[some, None]
    spreads = np.bincount(owners, distances, len(centroids)) / np.maximum(sizes, 1)
    return means, spreads.astype(np.float32), sizes


def _split(
    centroids: Float32Array, y: Float32Array, owners: Owners, sizes: NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Give each list without vectors, and the smallest for each that is too large, a vector of a large one instead."""
    n_heavy = int((sizes > HEAVY * sizes.mean()).sum())
    n_moved = max(int((sizes == 0).sum()), min(n_heavy, len(sizes) // 2))
    if n_moved == 0:
        return
    largest_first = np.argsort(-sizes, kind="stable")
    chances: NDArray[Any] = np.isin(owners, largest_first[:n_moved]).astype(np.float64)
    picked = rng.choice(len(y), n_moved, replace=False, p=chances / chances.sum())
    centroids[largest_first[len(sizes) - n_moved :]] = y[np.sort(picked)]
