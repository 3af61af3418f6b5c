"""Statistics of a sample of vectors: moments, histograms, and recall by codes. The drift record stores them.

Under cosine, vectors are normalized first, as for encoding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, Self

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.codes.transforms import splitmix64
from qvec.common.plain_state import Between, Floats
from qvec.common.types import Codes, Float32Array, NDArray
from qvec.quality.recall import Recalls, recall

ROWS_PER_CHECK = 512
MAX_CHECKS = 4  # at most this many checks of one batch; also, how many checks are stored and tested together
QUERIES = 256  # per kind (new vectors, stored vectors) where a check measures recall; of a training sample, four times
BASE_ROWS = 2048  # neighbors are searched among this many vectors; in a check, QUERIES of them are new
QUERIES_PER_STEP = 256  # that recalls are measured for at a time
NEIGHBORS = 10
MIN_SAMPLE_ROWS = 128  # a smaller training sample has too few neighbors
BINS = 10
BINNED_DIMS = 16
FAR = 4.0  # standard deviations; without calibrated ranges, values farther from the mean count as outside
MAX_COUNT = 2**31 - 1
_TINY = 1e-12
_SAME = 1e-5  # vectors count as equal if their squared distance is at most this times their squared lengths

Count = Annotated[int, Between(0, MAX_COUNT)]
Share = Annotated[float, Between(0.0, 1.0)]


class RecallStats(NamedTuple):
    """Mean and variance of recall@10 by codes, over queries."""

    queries: Annotated[int, Between(1, MAX_COUNT)]
    mean: Share
    variance: Share

    @classmethod
    def of(cls, recalls: Recalls) -> Self:
        return cls(len(recalls), float(recalls.mean()), float(recalls.var()))


@dataclass(frozen=True, eq=False)
class SampleStats:
    """Statistics of ``rows`` vectors.

    ``means``, ``variances``: of each dimension, float32 [dim]. ``counts``: [BINNED_DIMS * BINS], values by bin.
    ``norm``, ``norm_var``: mean and variance of log |x|. ``outside``: share of values outside the calibrated range.
    ``recalls``: recall by codes for these vectors and for earlier stored vectors, among vectors of both groups; empty
    if the check did not measure recall. For a training sample, only the recall for this sample.
    """

    rows: Annotated[int, Between(1, MAX_COUNT)]
    means: Annotated[Float32Array, Floats("dim")]
    variances: Annotated[Float32Array, Floats("dim")]
    counts: Annotated[tuple[Count, ...], Between(0, "n_counts")]
    norm: Annotated[float, Between(-1e6, 1e6)]
    norm_var: Annotated[float, Between(0.0, 1e6)]
    outside: Share
    recalls: Annotated[tuple[RecallStats, ...], Between(0, 2)] = ()

    @classmethod
    def of(cls, quantizer: Quantizer, vectors: Float32Array, edges: Float32Array, trained: SampleStats | None) -> Self:
        """Compute the statistics of float32 [n, dim], without recall.

        edges: edges of the bins, float32 [BINNED_DIMS, BINS - 1]. trained: statistics of the training sample; None: the
        vectors are the training sample.
        """
        unit, norms = _as_coded(quantizer, vectors)
        means = unit.mean(axis=0, dtype=np.float64).astype(np.float32)
        offsets = unit - means
        variances = (np.einsum("ij,ij->j", offsets, offsets, dtype=np.float64) / len(unit)).astype(np.float32)
        center, spread_of = (means, variances) if trained is None else (trained.means, trained.variances)
        return cls(
            rows=len(vectors),
            means=means,
            variances=variances,
            counts=_counts(unit, edges),
            norm=float(norms.mean()),
            norm_var=float(norms.var()),
            outside=_outside(quantizer, unit, center, np.sqrt(spread_of)),
        )

    def with_recalls(self, *recalls: Recalls) -> Self:
        """Return a copy with measured recall: float64 [queries] each."""
        return replace(self, recalls=tuple(map(RecallStats.of, recalls)))


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of the training sample of a quantizer.

    ``edges``: edges of the bins (deciles), float32 [BINNED_DIMS * (BINS - 1)]. ``base``: the number of vectors among
    which recall was measured.
    """

    stats: SampleStats
    edges: Annotated[Float32Array, Floats("n_edges")]
    base: Annotated[int, Between(MIN_SAMPLE_ROWS - MIN_SAMPLE_ROWS // 3, BASE_ROWS)]

    @classmethod
    def build(cls, quantizer: Quantizer, vectors: Float32Array) -> Self:
        """Measure float32 [n, dim], n >= MIN_SAMPLE_ROWS.

        At most a third of the rows are queries, which are searched among the other rows.
        """
        queries, base = apart(vectors, min(4 * QUERIES, len(vectors) // 3))
        base = spread(base, BASE_ROWS)
        x = spread(vectors, 4 * ROWS_PER_CHECK)
        unit, _ = _as_coded(quantizer, x)
        edges = np.quantile(unit[:, _binned_dims(unit.shape[1])], np.arange(1, BINS) / BINS, axis=0).T
        edges = np.ascontiguousarray(edges, np.float32)
        stats = SampleStats.of(quantizer, x, edges, None)
        recalls = recalls_among(quantizer, queries, base, quantizer.encode(base))
        return cls(stats.with_recalls(recalls), edges.reshape(-1), len(base))

    def stats_of(self, quantizer: Quantizer, vectors: Float32Array) -> SampleStats:
        """Compute the statistics of float32 [n, dim] for comparison with these, without recall."""
        return SampleStats.of(quantizer, vectors, self.edges.reshape(-1, BINS - 1), self.stats)


def pooled(samples: list[SampleStats]) -> SampleStats:
    """Combine the statistics of several samples."""
    rows = np.array([sample.rows for sample in samples], np.float64)
    share = rows / rows.sum()
    means = np.array([sample.means for sample in samples])
    norms = np.array([sample.norm for sample in samples])
    mean, norm = share @ means, float(share @ norms)
    variances = share @ ([sample.variances for sample in samples] + np.square(means - mean))
    measured = [sample.recalls for sample in samples if sample.recalls]
    return SampleStats(
        rows=sum(sample.rows for sample in samples),
        means=mean.astype(np.float32),
        variances=variances.astype(np.float32),
        counts=tuple(sum(counts) for counts in zip(*(sample.counts for sample in samples), strict=True)),
        norm=norm,
        norm_var=float(share @ ([sample.norm_var for sample in samples] + np.square(norms - norm))),
        outside=float(share @ [sample.outside for sample in samples]),
        recalls=tuple(_pooled_recalls(found) for found in zip(*measured, strict=True)),
    )


def _pooled_recalls(found: tuple[RecallStats, ...]) -> RecallStats:
    queries, means, variances = (np.array(values, np.float64) for values in zip(*found, strict=True))
    share = queries / queries.sum()
    mean = float(share @ means)
    return RecallStats(int(queries.sum()), mean, float(share @ (variances + np.square(means - mean))))


def spread(x: NDArray[Any], size: int) -> NDArray[Any]:
    """Return ``size`` rows of x, evenly spread over it."""
    return x if size >= len(x) else x[(np.arange(size) * (len(x) / size)).astype(np.int64)]


def apart(x: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split x: ``size`` rows, evenly spread over it, and the other rows."""
    chosen = np.zeros(len(x), bool)
    chosen[(np.arange(size) * (len(x) / max(size, 1))).astype(np.int64)] = True
    return x[chosen], x[~chosen]


def _counts(unit: Float32Array, edges: Float32Array) -> tuple[int, ...]:
    values = unit[:, _binned_dims(unit.shape[1])].T
    bins = [np.bincount(np.searchsorted(e, v), minlength=BINS) for e, v in zip(edges, values, strict=True)]
    return tuple(np.concatenate(bins).tolist())


def _outside(quantizer: Quantizer, unit: Float32Array, mean: Float32Array, std: Float32Array) -> float:
    """Return the share of values outside the calibrated ranges or, without ranges, far from the mean."""
    calibration = getattr(quantizer, "calibration", None)
    if calibration is None:
        return float((np.abs(unit - mean) > FAR * std + _TINY).mean())
    y = unit if quantizer.transform is None else quantizer.transform.apply(unit)
    slack = calibration.step / 2  # values that round to the last code lose nothing
    return float(((y < calibration.lower - slack) | (y > calibration.upper + slack)).mean())


def _binned_dims(dim: int) -> NDArray[np.int64]:
    """Return the dimensions whose values are counted in bins: a fixed pseudo-random choice."""
    return np.argsort(splitmix64(0, dim), kind="stable")[:BINNED_DIMS]


def _as_coded(quantizer: Quantizer, x: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Return the vectors, normalized under cosine, and the logarithms of their original lengths."""
    norms = np.maximum(np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)), _TINY).astype(np.float32)
    return (x / norms[:, None] if quantizer.metric == "cosine" else x), np.log(norms)


def recalls_among(quantizer: Quantizer, x: Float32Array, base: Float32Array, codes: Codes) -> Recalls:
    """Measure recall@10 by codes for float32 [nq, dim] queries among float32 [n, dim] vectors: float64 [nq].

    A vector that equals the query is not a neighbor. If several codes have the distance of the tenth, each is found
    with the same probability. A part of the queries is measured at a time, because each takes several keys for each
    vector.
    """
    parts = [x[i : i + QUERIES_PER_STEP] for i in range(0, len(x), QUERIES_PER_STEP)]
    return np.concatenate([_recalls(quantizer, part, base, codes) for part in parts or [x]])


def _recalls(quantizer: Quantizer, x: Float32Array, base: Float32Array, codes: Codes) -> Recalls:
    exact, coded = _exact_keys(quantizer, x, base), quantizer.codec.score(quantizer.prepare(x), codes)
    coded[np.isinf(exact)] = np.inf
    k = min(NEIGHBORS, len(base) - 1)
    last = np.partition(coded, k - 1, axis=1)[:, k - 1 : k]
    sure, tied = coded < last, coded == last
    places = k - np.count_nonzero(sure, axis=1, keepdims=True)
    chance = sure + tied * (places / np.count_nonzero(tied, axis=1, keepdims=True))
    return recall(exact, np.partition(exact, k - 1, axis=1)[:, :k], chance)


def known_among(quantizer: Quantizer, x: Float32Array, base: Float32Array) -> NDArray[np.bool_]:
    """Mark the rows of x that equal a row of ``base``."""
    return np.asarray(np.isinf(_exact_keys(quantizer, x, base)).any(axis=1))


def _exact_keys(quantizer: Quantizer, x: Float32Array, base: Float32Array) -> Float32Array:
    """Return keys that order ``base`` by distance from each row of x, float32 [len(x), n]; infinite for equal vectors.

    Values are scaled so that their squares do not overflow.
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
