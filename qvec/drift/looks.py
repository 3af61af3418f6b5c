"""What a look at some vectors records: their moments, where their values fall, and what their code loses.

Plain data in and out: looks are kept in the file. Vectors are taken as they are coded: under cosine, at length 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from qvec.quantizers import Quantizer
from qvec.transforms import splitmix64
from qvec.types import Float32Array, NDArray

LOOK_ROWS = 512
NEIGHBOURS = 10
MIN_ROWS = 128  # fewer have too few neighbours among themselves
BINS = 10
BINNED_DIMS = 16
FAR = 4.0  # standard deviations: values beyond count as clipped where no calibration says what is
_TINY = 1e-12


@dataclass(frozen=True)
class Look:
    """Statistics of ``rows`` vectors; arrays are lists of floats, so that the record is plain data.

    ``mean``: of each dimension. ``counts``: [BINNED_DIMS * BINS], values by bin. ``norm``: the mean of log |x|.
    ``outside``: share of values beyond the code's range. ``recall``, ``recall_var``: mean and variance over the
    rows of recall@10 by code among the rows themselves.
    """

    rows: int
    mean: bytes
    counts: list[int]
    norm: float
    outside: float
    recall: float
    recall_var: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def means(self) -> NDArray[np.float32]:
        """float32 [dim]."""
        return np.frombuffer(self.mean, "<f4")


@dataclass(frozen=True)
class Reference:
    """What the vectors looked like that the code was trained on; ``look`` are their own statistics.

    ``std``: float32 [dim], of each dimension. ``norm_std``: of log |x|. ``edges``: float32 [BINNED_DIMS, BINS - 1],
    deciles. ``size``: rows of a look, so that its recall compares with ``look.recall``.
    """

    look: Look
    std: bytes
    norm_std: float
    edges: bytes
    size: int

    @classmethod
    def build(cls, quantizer: Quantizer, vectors: Float32Array) -> Self:
        """Of float32 [n, dim], n >= MIN_ROWS: of at most four looks' rows, evenly spread."""
        size = min(LOOK_ROWS, len(vectors))
        count = min(4, len(vectors) // size)
        x = spread(vectors, size * count)
        unit, norms = _as_coded(quantizer, x)
        edges = np.quantile(unit[:, _dims(unit.shape[1])], np.arange(1, BINS) / BINS, axis=0).T.astype("<f4")
        std = unit.std(axis=0).astype("<f4").tobytes()
        blank = cls(Look(0, b"", [], 0.0, 0.0, 0.0, 0.0), std, float(norms.std()), edges.tobytes(), size)
        looks = [blank.look_at(quantizer, x[i::count]) for i in range(count)]
        return cls(pooled(looks), std, float(norms.std()), edges.tobytes(), size)

    def look_at(self, quantizer: Quantizer, vectors: Float32Array) -> Look:
        """The statistics of float32 [size, dim]."""
        unit, norms = _as_coded(quantizer, vectors)
        recalls = _recalls(quantizer, vectors)
        return Look(
            rows=len(vectors),
            mean=unit.mean(axis=0, dtype=np.float64).astype("<f4").tobytes(),
            counts=self._counts(unit),
            norm=float(norms.mean()),
            outside=self._outside(quantizer, unit),
            recall=float(recalls.mean()),
            recall_var=float(recalls.var()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Rebuild from :meth:`to_dict`."""
        return cls(**{**plain, "look": Look(**plain["look"])})

    @property
    def stds(self) -> NDArray[np.float32]:
        """float32 [dim]."""
        return np.frombuffer(self.std, "<f4")

    def _counts(self, unit: Float32Array) -> list[int]:
        edges = np.frombuffer(self.edges, "<f4").reshape(-1, BINS - 1)
        values = unit[:, _dims(unit.shape[1])].T
        bins = [np.bincount(np.searchsorted(e, v), minlength=BINS) for e, v in zip(edges, values, strict=True)]
        return [int(count) for of_dim in bins for count in of_dim]

    def _outside(self, quantizer: Quantizer, unit: Float32Array) -> float:
        calibration = getattr(quantizer, "calibration", None)
        if calibration is None:
            mean = self.look.means if self.look.mean else unit.mean(axis=0)
            return float((np.abs(unit - mean) > FAR * self.stds + _TINY).mean())
        y = unit if quantizer.transform is None else quantizer.transform.apply(unit)
        slack = calibration.step / 2  # values that round to the last code lose nothing
        return float(((y < calibration.lower - slack) | (y > calibration.upper + slack)).mean())


def pooled(looks: list[Look]) -> Look:
    """Several looks as one."""
    rows = np.array([look.rows for look in looks], np.float64)
    share = rows / rows.sum()
    recall = float(share @ [look.recall for look in looks])
    within = share @ [look.recall_var + (look.recall - recall) ** 2 for look in looks]
    return Look(
        rows=int(rows.sum()),
        mean=np.asarray(share @ np.array([look.means for look in looks]), "<f4").tobytes(),
        counts=[sum(counts) for counts in zip(*(look.counts for look in looks), strict=True)],
        norm=float(share @ [look.norm for look in looks]),
        outside=float(share @ [look.outside for look in looks]),
        recall=recall,
        recall_var=float(within),
    )


def spread(x: Float32Array, size: int) -> Float32Array:
    """``size`` rows of x, evenly spread over it."""
    return x if size >= len(x) else x[(np.arange(size) * (len(x) / size)).astype(np.int64)]


def _dims(dim: int) -> NDArray[np.int64]:
    """The dimensions whose values are binned: a fixed draw."""
    return np.argsort(splitmix64(0, dim), kind="stable")[:BINNED_DIMS]


def _as_coded(quantizer: Quantizer, x: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Vectors at the length that is coded, and the logarithms of their lengths."""
    norms = np.maximum(np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)), _TINY).astype(np.float32)
    return (x / norms[:, None] if quantizer.metric == "cosine" else x), np.log(norms)


def _recalls(quantizer: Quantizer, x: Float32Array) -> NDArray[np.float64]:
    """Share of each row's ten nearest others, by exact distance, that are its ten nearest by code: float64 [n]."""
    unit, _ = _as_coded(quantizer, x)
    exact = -(unit @ unit.T)
    if quantizer.metric == "l2":
        exact += np.einsum("ij,ij->i", unit, unit) / 2
    coded = quantizer.codec.score(quantizer.prepare(x), quantizer.encode(x))
    for keys in (exact, coded):
        np.fill_diagonal(keys, np.inf)
    k = min(NEIGHBOURS, len(x) - 1)
    best, by_code = (np.argpartition(keys, k - 1, axis=1)[:, :k] for keys in (exact, coded))
    shared: NDArray[np.float64] = (best[:, :, None] == by_code[:, None, :]).sum(axis=(1, 2)) / k
    return shared
