"""Training data and held-out data: documents, queries, pairs, and each query's nearest documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvec.codes.transforms import Transform
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, Int64Array
from qvec.datasets import exact_knn

MIN_DOCUMENTS = 1000
MIN_QUERIES = 100
MAX_QUERIES = 20_000  # more do not improve a linear map, and their exact neighbors cost time
NEAREST = 100  # neighbors per query: the source of negatives; the first ten are the truth of recall
HELD_OUT = 0.1


@dataclass(frozen=True)
class Examples:
    """documents float32[n, dim], queries float32[m, dim]: unit vectors.

    ``answers`` int64[m]: the document that answers, or -1. ``nearest`` int64[m, 100]: exact neighbors; a document is
    not its own neighbor. ``held`` bool[m]: held out of training.
    """

    documents: Float32Array
    queries: Float32Array
    answers: Int64Array
    nearest: Int64Array
    held: NDArray[np.bool_]


def make_examples(
    documents: Float32Array,
    queries: Float32Array | None,
    pairs: ArrayLike | None,
    seed: int,
) -> Examples:
    """Check and normalize the vectors, find the neighbors, split. InputError says what is wrong."""
    if len(documents) < MIN_DOCUMENTS:
        raise InputError(f"training needs at least {MIN_DOCUMENTS} embeddings, got {len(documents)}")
    if pairs is not None and queries is None:
        raise InputError("pairs name rows of queries: give queries")
    rng = np.random.default_rng(seed)
    x = _unit(documents)
    if queries is None:
        rows = rng.permutation(len(x))[: MAX_QUERIES // 10]
        return _examples(x, x[rows], np.full(len(rows), -1), _others(x, rows), rng)
    q = _unit(queries)
    rows, answers = _paired(pairs, len(q), len(x), rng)
    if len(rows) < MIN_QUERIES:
        raise InputError(
            f"training needs at least {MIN_QUERIES} {'queries' if pairs is None else 'pairs'}, got {len(rows)}"
        )
    return _examples(x, q[rows], answers, _nearest(x, q[rows], NEAREST), rng)


def _examples(
    x: Float32Array, q: Float32Array, answers: Int64Array, nearest: Int64Array, rng: np.random.Generator
) -> Examples:
    """Split by answer: a document used for testing must not be used for training."""
    groups = np.where(answers >= 0, answers, len(x) + np.arange(len(q)))
    names = np.unique(groups)
    held = rng.permutation(names)[: max(1, round(len(names) * HELD_OUT))]
    return Examples(x, q, answers, nearest, np.isin(groups, held))


def _paired(pairs: ArrayLike | None, m: int, n: int, rng: np.random.Generator) -> tuple[Int64Array, Int64Array]:
    """Rows of queries, and the answer of each; -1 without pairs."""
    if pairs is None:
        rows = rng.permutation(m)[:MAX_QUERIES]
        return rows, np.full(len(rows), -1)
    array = np.asarray(pairs)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise InputError(f"pairs must be integers of shape (p, 2), got {array.dtype} of shape {array.shape}")
    for column, (name, limit) in enumerate((("queries", m), ("embeddings", n))):
        wrong = np.flatnonzero((array[:, column] < 0) | (array[:, column] >= limit))
        if len(wrong):
            i = int(wrong[0])
            raise InputError(f"pairs[{i}, {column}] = {array[i, column]}; {name} has rows 0 to {limit - 1}")
    kept = array[rng.permutation(len(array))[:MAX_QUERIES]].astype(np.int64)
    return kept[:, 0], kept[:, 1]


def _others(x: Float32Array, rows: Int64Array) -> Int64Array:
    """The nearest other documents of documents: int64[m, 100]."""
    found = _nearest(x, x[rows], NEAREST + 1)
    own = found == rows[:, None]
    own[~own.any(axis=1), -1] = True  # more equal documents than columns: leave out any of them
    return found[~own].reshape(len(rows), NEAREST)


def _nearest(x: Float32Array, q: Float32Array, k: int) -> Int64Array:
    return exact_knn(x, q, k, "cosine")[0].astype(np.int64)


def _unit(x: Float32Array) -> Float32Array:
    return Transform(x.shape[1], True, None, None).apply(x)
