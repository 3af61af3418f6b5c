"""What a look at some vectors records: their moments, where their values fall, and what their code loses.

Plain data in and out: looks are kept in the file. Vectors are taken as they are coded: under cosine, at length 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.codes.transforms import splitmix64
from qvec.common.types import Codes, Float32Array, NDArray
from qvec.quality.recall import recall

LOOK_ROWS = 512
MAX_LOOKS = 4  # at one batch, kept, and tested together
QUERIES = 256  # new ones of a look, where recall is measured, and stored ones; four times as many of a training sample
BASE_ROWS = 2048  # that their neighbors are looked for among; of a look, QUERIES new ones among them
NEIGHBORS = 10
MIN_ROWS = 128  # of a training sample: fewer have too few neighbors
BINS = 10
BINNED_DIMS = 16
FAR = 4.0  # standard deviations: values beyond count as clipped where no calibration says what is
_TINY = 1e-12
_SAME = 1e-5  # of two squared lengths: vectors no further apart are one


@dataclass(frozen=True)
class Look:
    """Statistics of ``rows`` vectors; arrays are bytes, so that the record is plain data.

    ``mean``, ``var``: of each dimension. ``counts``: [BINNED_DIMS * BINS], values by bin. ``norm``, ``norm_var``: mean
    and variance of log |x|. ``outside``: share of values beyond the code's range. ``recalls``: recall@10 by code, among
    both, of these vectors and of those that were stored before: number of queries, mean and variance over them; empty
    where it was not measured. A reference has that of the training sample alone.
    """

    rows: int
    mean: bytes
    var: bytes
    counts: list[int]
    norm: float
    norm_var: float
    outside: float
    recalls: list[tuple[int, float, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def means(self) -> NDArray[np.float32]:
        """float32 [dim]."""
        return np.frombuffer(self.mean, "<f4")

    @property
    def variances(self) -> NDArray[np.float32]:
        """float32 [dim]."""
        return np.frombuffer(self.var, "<f4")

    def with_recalls(self, *recalls: NDArray[np.float64]) -> Look:
        """The same, with recall measured: float64 [queries] each."""
        return replace(self, recalls=[(len(found), float(found.mean()), float(found.var())) for found in recalls])


@dataclass(frozen=True)
class Reference:
    """What the vectors looked like that the code was trained on; ``look`` are their own statistics.

    ``edges``: float32 [BINNED_DIMS, BINS - 1], deciles. ``base``: how many vectors recall was measured among.
    """

    look: Look
    edges: bytes
    base: int

    @classmethod
    def build(cls, quantizer: Quantizer, vectors: Float32Array) -> Self:
        """Of float32 [n, dim], n >= MIN_ROWS: a third of them at most are looked for among the others."""
        queries, base = apart(vectors, min(4 * QUERIES, len(vectors) // 3))
        base = spread(base, BASE_ROWS)
        x = spread(vectors, 4 * LOOK_ROWS)
        unit, _ = _as_coded(quantizer, x)
        edges = np.quantile(unit[:, _dims(unit.shape[1])], np.arange(1, BINS) / BINS, axis=0).T.astype("<f4").tobytes()
        whole = cls(cls(_BLANK, edges, 0).look_at(quantizer, x), edges, 0)
        recalls = recalls_among(quantizer, queries, base, quantizer.encode(base))
        return cls(whole.look_at(quantizer, x).with_recalls(recalls), edges, len(base))

    def look_at(self, quantizer: Quantizer, vectors: Float32Array) -> Look:
        """The statistics of float32 [n, dim], but for recall."""
        unit, norms = _as_coded(quantizer, vectors)
        mean = unit.mean(axis=0, dtype=np.float64).astype("<f4")
        offsets = unit - mean
        return Look(
            rows=len(vectors),
            mean=mean.tobytes(),
            var=(np.einsum("ij,ij->j", offsets, offsets) / len(unit)).astype("<f4").tobytes(),
            counts=self._counts(unit),
            norm=float(norms.mean()),
            norm_var=float(norms.var()),
            outside=self._outside(quantizer, unit),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Rebuild from :meth:`to_dict`."""
        return cls(**{**plain, "look": Look(**plain["look"])})

    def _counts(self, unit: Float32Array) -> list[int]:
        edges = np.frombuffer(self.edges, "<f4").reshape(-1, BINS - 1)
        values = unit[:, _dims(unit.shape[1])].T
        bins = [np.bincount(np.searchsorted(e, v), minlength=BINS) for e, v in zip(edges, values, strict=True)]
        return [int(count) for of_dim in bins for count in of_dim]

    def _outside(self, quantizer: Quantizer, unit: Float32Array) -> float:
        calibration = getattr(quantizer, "calibration", None)
        if calibration is None:
            mean, std = (
                (self.look.means, np.sqrt(self.look.variances))
                if self.look.rows
                else (unit.mean(axis=0), unit.std(axis=0))
            )
            return float((np.abs(unit - mean) > FAR * std + _TINY).mean())
        y = unit if quantizer.transform is None else quantizer.transform.apply(unit)
        slack = calibration.step / 2  # values that round to the last code lose nothing
        return float(((y < calibration.lower - slack) | (y > calibration.upper + slack)).mean())


_BLANK = Look(0, b"", b"", [], 0.0, 0.0, 0.0)


def pooled(looks: list[Look]) -> Look:
    """Several looks as one."""
    rows = np.array([look.rows for look in looks], np.float64)
    share = rows / rows.sum()
    means = np.array([look.means for look in looks])
    norms = np.array([look.norm for look in looks])
    mean, norm = share @ means, float(share @ norms)
    merged = Look(
        rows=sum(look.rows for look in looks),
        mean=np.asarray(mean, "<f4").tobytes(),
        var=np.asarray(share @ ([look.variances for look in looks] + np.square(means - mean)), "<f4").tobytes(),
        counts=[sum(counts) for counts in zip(*(look.counts for look in looks), strict=True)],
        norm=norm,
        norm_var=float(share @ ([look.norm_var for look in looks] + np.square(norms - norm))),
        outside=float(share @ [look.outside for look in looks]),
    )
    measured = [look.recalls for look in looks if look.recalls]
    return replace(merged, recalls=[_pooled_recalls(found) for found in zip(*measured, strict=True)])


def _pooled_recalls(found: tuple[tuple[int, float, float], ...]) -> tuple[int, float, float]:
    queries, means, variances = (np.array(values, np.float64) for values in zip(*found, strict=True))
    share = queries / queries.sum()
    mean = float(share @ means)
    return int(queries.sum()), mean, float(share @ (variances + np.square(means - mean)))


def spread(x: NDArray[Any], size: int) -> NDArray[Any]:
    """``size`` rows of x, evenly spread over it."""
    return x if size >= len(x) else x[(np.arange(size) * (len(x) / size)).astype(np.int64)]


def apart(x: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """``size`` rows of x, evenly spread over it, and the others."""
    chosen = np.zeros(len(x), bool)
    chosen[(np.arange(size) * (len(x) / max(size, 1))).astype(np.int64)] = True
    return x[chosen], x[~chosen]


def _dims(dim: int) -> NDArray[np.int64]:
    """The dimensions whose values are binned: a fixed draw."""
    return np.argsort(splitmix64(0, dim), kind="stable")[:BINNED_DIMS]


def _as_coded(quantizer: Quantizer, x: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Vectors at the length that is coded, and the logarithms of their lengths."""
    norms = np.maximum(np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)), _TINY).astype(np.float32)
    return (x / norms[:, None] if quantizer.metric == "cosine" else x), np.log(norms)


def recalls_among(quantizer: Quantizer, x: Float32Array, base: Float32Array, codes: Codes) -> NDArray[np.float64]:
    """Share of the ten nearest of each of x, among float32 [n, dim] and their codes, that code finds: float64 [len(x)].

    A vector that is as near to x as x itself is no neighbor. Where codes are at one distance, each is as likely found.
    """
    exact, coded = _exact_keys(quantizer, x, base), quantizer.codec.score(quantizer.prepare(x), codes)
    coded[np.isinf(exact)] = np.inf
    k = min(NEIGHBORS, len(base) - 1)
    last = np.partition(coded, k - 1, axis=1)[:, k - 1 : k]
    sure, tied = coded < last, coded == last
    places = k - np.count_nonzero(sure, axis=1, keepdims=True)
    chance = sure + tied * (places / np.count_nonzero(tied, axis=1, keepdims=True))
    return recall(exact, np.partition(exact, k - 1, axis=1)[:, :k], chance)


def known_among(quantizer: Quantizer, x: Float32Array, base: Float32Array) -> NDArray[np.bool_]:
    """Which of x are where one of ``base`` is."""
    return np.asarray(np.isinf(_exact_keys(quantizer, x, base)).any(axis=1))


def _exact_keys(quantizer: Quantizer, x: Float32Array, base: Float32Array) -> Float32Array:
    """What orders ``base`` by distance from each of x, float32 [len(x), n]; infinite for what is where x is.

    Values are scaled, so that no square is too large.
    """
    (unit, _), (others, _) = _as_coded(quantizer, x), _as_coded(quantizer, base)
    scale = np.float32(max(np.abs(unit).max(), np.abs(others).max(), _TINY))
    unit, others = unit / scale, others / scale
    keys: Float32Array = -(unit @ others.T)
    own, half = (np.einsum("ij,ij->i", y, y) / 2 for y in (unit, others))
    same = np.abs(keys + own[:, None] + half) <= _SAME * (own[:, None] + half)
    if quantizer.metric == "l2":
        keys += half
    keys[same] = np.inf
    return keys
