"""Second moments of vectors, their principal components, and random rotations of these."""

from __future__ import annotations

import numpy as np

from qvec.common.types import Float32Array, NDArray

ROWS_PER_STEP = 4096  # converted to float64 at a time

Float64Array = NDArray[np.float64]


def second_moment(x: Float32Array) -> Float64Array:
    """Return the sum of the outer products of the rows of float32[n, dim]: float64[dim, dim]."""
    moment = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), ROWS_PER_STEP):
        part = x[start : start + ROWS_PER_STEP].astype(np.float64)
        moment += part.T @ part
    return moment


def eigenvectors(moment: Float64Array) -> Float64Array:
    """Return the eigenvectors of a symmetric float64[dim, dim] as columns, by falling eigenvalues."""
    return np.asarray(np.linalg.eigh(moment)[1][:, ::-1])


def mixed_by_groups(columns: Float64Array, group: int, seed: int) -> Float32Array:
    """Rotate each run of ``group`` orthogonal columns randomly, with ``seed``.

    Its dimensions then have about the same variance, so that one step fits all of them.
    """
    rng = np.random.default_rng(seed)
    mixed = columns.copy()
    for start in range(0, columns.shape[1], group):
        run = columns[:, start : start + group]
        turn = np.linalg.qr(rng.normal(size=(run.shape[1], run.shape[1])))[0]
        mixed[:, start : start + group] = run @ turn
    return np.ascontiguousarray(mixed, np.float32)
