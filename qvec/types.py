"""Public vocabulary: metrics, the configuration of codes and indexes, and the results of each call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qvec.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike as ArrayLike
    from numpy.typing import NDArray as NDArray
else:  # numpy.typing takes a tenth of the import's time, and only type checkers read it
    ArrayLike, NDArray = object, np.ndarray

Metric = Literal["cosine", "ip", "l2"]
CodeKind = Literal["f32", "f16", "bf16", "int8", "int4", "ternary", "binary", "rabitq", "mixed", "prequantized"]
IdKind = Literal["int64", "str"]
Keep = Literal["f32", "f16", "none"]
Scale = Literal["per_vector", "per_dim", "global"]
Rounding = Literal["nearest", "truncate"]
CalibrationMethod = Literal["minmax", "percentile", "mse", "entropy"]
PrequantizedType = Literal["int8", "uint8", "binary", "ubinary"]
MixedGroups = Literal["pca", "raw"]
Centring = int | Literal["auto"]
OnConflict = Literal["error", "skip", "replace"]
Durability = Literal["full", "relaxed"]
Residency = Literal["mmap", "ram"]

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]
Codes = NDArray[np.uint8]
Ids = NDArray[Any]
Payload = dict[str, Any]

MAX_DIM = 65_536  # sums of 255 * 127 over more dimensions leave int32
MIN_SAMPLES_RANGE = 256  # a range is cut into 255 steps: fewer values cannot tell where it ends
MIN_SAMPLES_ENTROPY = 2048  # its histogram has as many bins
MIN_SAMPLES_MEAN = 100  # the error of the mean is then a tenth of the standard deviation
MIN_ROWS_PER_CENTRE = 16  # of a local one: a quarter
MAX_CENTRES = 256  # a row holds the number of its own in a byte


@dataclass(slots=True, eq=False)  # not frozen: that would double the cost of making one
class Hits:
    """The nearest neighbours of one query (1-D) or of a batch (2-D), nearest first.

    ``ids``: int64 or str, shape (k,) or (n, k); places that hold no hit are ``-1`` or ``""``. ``distances``:
    float32, same shape, ascending: squared Euclidean (l2), ``-dot`` (ip), ``1 - cos`` (cosine); infinite
    where there is no hit. ``counts``: hits found: an int64 scalar array of shape () or shape (n,). ``payloads``: a list
    of k payloads, or n such lists; None where payloads were not asked for.
    """

    ids: Ids
    distances: Float32Array
    counts: Int64Array
    payloads: list[Any] | None = None
    zero_score: float = 0.0
    """Score at distance 0: 1 under cosine."""

    @property
    def scores(self) -> Float32Array:
        """float32, shape of ``ids``, descending: ``-distance`` (l2), dot (ip), cos (cosine)."""
        return np.float32(self.zero_score) - self.distances

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Unpack as ``ids, distances = hits``."""
        yield self.ids
        yield self.distances

    def to_list(self) -> list[Any]:
        """Give each hit as a dict of id, distance, score and, if asked for, payload: a list, or n lists."""
        if self.ids.ndim == 1:
            return _hit_dicts(self.ids, self.distances, self.scores, int(self.counts), self.payloads)
        payloads = self.payloads if self.payloads is not None else [None] * len(self.ids)
        rows = zip(self.ids, self.distances, self.scores, self.counts.tolist(), payloads, strict=True)
        return [_hit_dicts(*row) for row in rows]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Stored vectors in the order asked for.

    ``ids``: int64 or str, shape (n,). ``vectors``: float32, shape (n, dim): the originals where they are
    kept, else decoded from the codes (zeros in dimensions that ``dims`` left out); of a :class:`Prequantized`
    collection what was put in, int8 or uint8. ``payloads``: n dicts, None where a vector has none.
    """

    ids: Ids
    vectors: NDArray[Any]
    payloads: list[Payload | None]


@dataclass(frozen=True, slots=True, eq=False)
class AddResult:
    """What an add or upsert did. ``ids``: int64 or str, shape (n,): the id of each row of the batch."""

    ids: Ids
    added: int
    replaced: int
    skipped: int


@dataclass(frozen=True)
class Stats:
    """A collection as of its last commit. Sizes in bytes; ``code_size`` is per vector, factors included."""

    path: str
    dim: int
    metric: Metric
    code: CodeKind
    index: Literal["flat", "hnsw"]
    ids: IdKind
    keep: Keep
    model: str | None
    count: int
    deleted: int
    code_size: int
    codes_bytes: int
    vectors_bytes: int
    graph_bytes: int
    file_bytes: int
    calibration: str | None
    generation: int
    txn_id: int


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InputError listing the choices unless ``value`` is one of them."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Raise InputError naming the limits unless ``value`` is an int within them, both included."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name} must be an integer from {low} to {high}, got {value!r}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise InputError naming the limits unless ``value`` is a number within them, both included."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name} must be a number from {low} to {high}, got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}")


def check_centring(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is "auto" or a number of centres."""
    if value != "auto":
        check_int(f'{name} must be "auto", or it', value, 0, MAX_CENTRES)


def centre_samples(centres: Centring) -> int:
    """Vectors needed to learn so many centres from."""
    if centres == 0:
        return 0
    return MIN_SAMPLES_MEAN if centres == "auto" else max(MIN_SAMPLES_MEAN, centres * MIN_ROWS_PER_CENTRE)


def check_dims(name: str, value: int | None) -> None:
    """Raise InputError unless ``value`` is None or a number of dimensions."""
    if value is not None:
        check_int(name, value, 1, MAX_DIM)


def _hit_dicts(
    ids: Ids, distances: Float32Array, scores: Float32Array, count: int, payloads: list[Any] | None
) -> list[dict[str, Any]]:
    columns = zip(ids.tolist(), distances.tolist(), scores.tolist(), strict=True)
    hits = [{"id": i, "distance": d, "score": s} for i, d, s in columns][:count]
    if payloads is not None:
        for hit, payload in zip(hits, payloads, strict=False):
            hit["payload"] = payload
    return hits
