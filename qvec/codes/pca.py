"""Learned orthogonal matrices that a transform applies."""

from __future__ import annotations

import numpy as np

from qvec.common.types import Float32Array


def principal_components(x: Float32Array, group: int, seed: int) -> Float32Array:
    """Give an orthogonal float32[dim, dim] from centered float32[n, dim]: principal components, mixed by group.

    Columns are the eigenvectors of the covariance by falling variance (Pearson 1901; Hotelling 1933); each
    run of ``group`` of them is turned by a random rotation drawn by ``seed``, so that the dimensions within
    share its variance alike and one step serves them all.
    """
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), 4096):
        part = x[start : start + 4096].astype(np.float64)
        covariance += part.T @ part
    columns = np.linalg.eigh(covariance)[1][:, ::-1]
    rng = np.random.default_rng(seed)
    for start in range(0, x.shape[1], group):
        run = columns[:, start : start + group]
        turn = np.linalg.qr(rng.normal(size=(run.shape[1], run.shape[1])))[0]
        columns[:, start : start + group] = run @ turn
    return np.ascontiguousarray(columns, np.float32)
