"""Vectors for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def clustered(rng: np.random.Generator, n: int, dim: int, centroids: int = 20, spread: float = 0.7) -> Float32:
    """float32[n, dim] around centroids of unit variance, off the origin; every value has an exact float16 form."""
    middle = rng.normal(size=(centroids, dim)) + 0.3
    points = middle[rng.integers(0, centroids, n)] + spread * rng.normal(size=(n, dim))
    return points.astype(np.float16).astype(np.float32)
