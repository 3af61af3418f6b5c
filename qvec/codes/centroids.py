"""Centroids, from which codes represent residuals: train them, store them, and pass them to a codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from qvec._kernels import offset_rows, offset_values
from qvec.codes.kmeans import lloyd, nearest
from qvec.codes.samples import check_sample, mean_of
from qvec.common.errors import FormatError
from qvec.common.plain_state import State, floats_to_bytes, take_floats, take_state
from qvec.common.types import MAX_CENTROIDS, CentroidCount, Codes, Float32Array, centroid_samples

ROWS_PER_CENTROID = 64  # centroids="auto" trains one centroid for this many rows of the sample
MAX_BYTES = 4 << 20  # limit of all offsets with centroids="auto": 256 centroids up to 16,000 dimensions
COARSE_ROWS = 16_384  # the first rounds of k-means use this many rows of the sample
COARSE_ROUNDS, FINE_ROUNDS = 8, 2


@dataclass(frozen=True, eq=False)
class Centroids:
    """``mean``: mean of the sample, float32[dim]. ``offsets``: centroids minus the mean, uint8[n, stride], or None.

    Rows of offsets are in the format of :func:`qvec._kernels.offset_rows`. The first offset is zero, so that no
    vector is farther from its nearest centroid than from the mean.
    """

    mean: Float32Array
    offsets: Codes | None

    @classmethod
    def learn(cls, y: Float32Array, wanted: CentroidCount, seed: int, kind: str) -> Self | None:
        """Train centroids on transformed vectors, float32[n, dim]. None if ``wanted`` is 0, or "auto" and n is too
        small.

        :func:`qvec.common.types.centroid_samples` gives the smallest n. InputError: n is smaller, and ``wanted`` is not
        "auto".
        """
        if wanted == 0 or (wanted == "auto" and len(y) < centroid_samples(wanted)):
            return None
        purpose = "the mean" if wanted in ("auto", 1) else f"{wanted} centroids"
        y = check_sample(y, y.shape[1], centroid_samples(wanted), f"{purpose} for {kind} codes")
        count = auto_count(len(y), y.shape[1]) if wanted == "auto" else wanted
        mean = mean_of(y)
        return cls.of(mean, _clusters(y - mean, count - 1, seed) if count > 1 else None)

    @classmethod
    def of(cls, mean: Float32Array, offsets: Float32Array | None) -> Self:
        """Encode float32[n, dim] offsets, with a zero offset before them."""
        if offsets is None:
            return cls(mean, None)
        zero = np.zeros((1, len(mean)), np.float32)
        return cls(mean, offset_rows(np.ascontiguousarray(np.vstack((zero, offsets)))))

    @property
    def values(self) -> Float32Array:
        """The centroids as float32[n, dim]; without offsets, only the mean."""
        if self.offsets is None:
            return self.mean[None]
        return self.mean + offset_values(self.offsets, len(self.mean))

    def residual(self, y: Float32Array) -> Float32Array:
        """Return float32[n, dim] minus the nearest centroid of each row."""
        values = self.values
        return y - values[nearest(y - self.mean, values - self.mean)]

    def rotated(self, matrix: Float32Array) -> Self:
        """Return the centroids of vectors multiplied by an orthogonal float32[dim, width]."""
        moved = None if self.offsets is None else offset_values(self.offsets[1:], len(self.mean)) @ matrix
        return type(self).of(self.mean @ matrix, moved)

    def state(self) -> State:
        """Return plain msgpack data."""
        offsets = None if self.offsets is None else self.offsets.tobytes()
        return {"mean": floats_to_bytes(self.mean), "offsets": offsets}

    @classmethod
    def from_state(cls, state: object, dim: int) -> Self | None:
        """Rebuild from :meth:`state`, or None from None; FormatError names the wrong field."""
        if state is None:
            return None
        fields = take_state(state, "centroids", ("mean", "offsets"))
        return cls(take_floats(fields, "mean", dim), _take_offsets(fields["offsets"], dim))


def codec_options(centroids: Centroids | None) -> dict[str, Any]:
    """Return the centroids as keyword arguments of a codec."""
    return {} if centroids is None else {"center": centroids.mean, "offsets": centroids.offsets}


def auto_count(rows: int, dim: int) -> int:
    """Return the number of centroids for a sample of ``rows`` vectors."""
    return max(1, min(MAX_CENTROIDS, rows // ROWS_PER_CENTROID, MAX_BYTES // dim))


def _clusters(y: Float32Array, k: int, seed: int) -> Float32Array:
    """Return the k cluster means of k-means, which starts from rows drawn with ``seed``."""
    rng = np.random.default_rng(seed)
    coarse = y[rng.permutation(len(y))[:COARSE_ROWS]]
    centroids = coarse[:k].copy()
    for rows, rounds in ((coarse, COARSE_ROUNDS), (y, FINE_ROUNDS if len(y) > len(coarse) else 0)):
        centroids = lloyd(rows, centroids, rounds)
    return centroids


def _take_offsets(value: object, dim: int) -> Codes | None:
    if value is None:
        return None
    stride = offset_rows(np.zeros((1, dim), np.float32)).shape[1]
    if not isinstance(value, bytes) or len(value) % stride or not 2 <= len(value) // stride <= MAX_CENTROIDS:
        raise FormatError(f"field 'offsets' must hold 2 to {MAX_CENTROIDS} rows of {stride} bytes")
    rows = np.frombuffer(value, np.uint8).reshape(-1, stride)
    padded = -(-dim // 64) * 64
    factors = rows[:, padded : padded + 8].copy().view("<f4")
    if not ((factors >= 0) & (factors < np.inf)).all():
        raise FormatError("field 'offsets' holds a scale or length that is negative or not finite")
    return rows
