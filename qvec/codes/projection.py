"""Projections onto fewer dimensions, learned from vectors and, if they are given, from queries (LeanVec).

Vectors of 768 and more dimensions have most of their variance in a few hundred directions. Codes of the projected
vectors find candidates, and the originals re-rank them (Tepper et al., arXiv:2312.16335).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from qvec.codes.components import Float64Array, eigenvectors, mixed_by_groups, second_moment
from qvec.codes.samples import check_sample, check_vectors
from qvec.codes.transforms import Transform, column_codec
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, Metric, NDArray

STEP = 64  # codes have whole groups of 64 dimensions
SHARES = (0.0, 0.25, 0.5, 0.75)  # of the queries' moment in the moment whose eigenvectors are tried
TRIAL_QUERIES, TRIAL_ROWS = 256, 16_384  # for the choice of a number of dimensions
NEIGHBORS, CANDIDATES = 10, 20
ENOUGH = 0.97  # of the neighbors must be among the candidates


def learn_projection(
    sample: Float32Array, queries: Float32Array | None, metric: Metric, width: int | Literal["auto"], seed: int
) -> Transform:
    """Learn a projection from float32[n, dim], n >= 2 dim, and queries float32[m, dim] to ``width`` dimensions.

    The columns of the matrix are eigenvectors of the second moment of the vectors, rotated randomly so that all
    dimensions have about the same variance. With queries, the moment of queries is mixed in with the share that gives
    the least squared error of dot products of queries and vectors (LeanVec-OOD with eigenvectors, section 3.2). Under
    l2, one of the ``width`` dimensions is the length of the residual.
    ``"auto"``: the least multiple of 64 with which ENOUGH of the neighbors of trial queries are among the candidates.
    """
    dim = check_vectors("sample", sample, None).shape[1]
    if dim < 3 or (width != "auto" and width >= dim):
        raise InputError(f"a projection must have 2 or more dimensions, and fewer than vectors ({dim}); got {width}")
    x = _unit(check_sample(sample, dim, 2 * dim, f"a projection of {dim} dimensions"), metric)
    q = None if queries is None else _unit(check_sample(queries, dim, 1, "a projection"), metric)
    basis = _basis(x, q)
    if width == "auto":
        width = _enough_dims(x, q, basis, metric)
    residual = metric == "l2"
    matrix = mixed_by_groups(basis[:, : width - residual], width, seed)
    columns = column_codec(dim).encode(np.ascontiguousarray(matrix.T))
    return Transform(dim, False, None, None, columns=columns, residual=residual)


def _unit(x: Float32Array, metric: Metric) -> Float32Array:
    return Transform(x.shape[1], True, None, None).apply(x) if metric == "cosine" else x


def _basis(x: Float32Array, q: Float32Array | None) -> Float64Array:
    """Orthogonal columns, float64[dim, dim], the most important first."""
    of_vectors = _scaled(second_moment(x))
    if q is None:
        return eigenvectors(of_vectors)
    of_queries = _scaled(second_moment(q))
    found = [eigenvectors((1 - share) * of_vectors + share * of_queries) for share in SHARES]
    width = min(128, len(of_vectors) // 2)  # shares are compared at this width
    return min(found, key=lambda basis: _error(of_vectors, of_queries, basis[:, :width]))


def _scaled(moment: Float64Array) -> Float64Array:
    return np.asarray(moment / max(float(np.trace(moment)), 1e-300))


def _error(of_vectors: Float64Array, of_queries: Float64Array, kept: Float64Array) -> float:
    """Mean squared error of dot products of queries and vectors: tr(Q R X R), R projects onto what is left out."""
    left = np.eye(len(kept)) - kept @ kept.T
    return float(np.einsum("ij,ji->", of_queries @ left, of_vectors @ left))


def _enough_dims(x: Float32Array, q: Float32Array | None, basis: Float64Array, metric: Metric) -> int:
    """The least multiple of STEP that finds ENOUGH neighbors; half of the dimensions if none below does."""
    dim = int(x.shape[1])
    base = x[:: -(-len(x) // TRIAL_ROWS)]
    if q is None:
        own = np.zeros(len(base), bool)
        own[:: -(-len(base) // TRIAL_QUERIES)] = True
        q, base = base[own], base[~own]
    else:
        q = q[:: -(-len(q) // TRIAL_QUERIES)]
    norms = np.einsum("ij,ij->i", base, base, dtype=np.float64) if metric == "l2" else np.zeros(len(base))
    near = _nearest(q @ base.T, norms, NEIGHBORS)
    matrix = basis.astype(np.float32)
    for width in range(STEP, dim // 2, STEP):
        kept = matrix[:, : width - (metric == "l2")]
        rows = _unit(base @ kept, metric)
        candidates = _nearest((q @ kept) @ rows.T, norms, CANDIDATES)
        found = [len(np.intersect1d(a, b)) for a, b in zip(near, candidates, strict=True)]
        if sum(found) >= ENOUGH * near.size:
            return width
    return max(2, dim // 2)


def _nearest(dots: NDArray[Any], norms: Float64Array, k: int) -> NDArray[np.int64]:
    """The k rows with the least |x|^2 - 2 <q, x> of each query."""
    k = min(k, len(norms))
    return np.argpartition(norms - 2.0 * dots, k - 1, axis=1)[:, :k]
