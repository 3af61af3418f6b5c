"""Public vocabulary: metrics, the configuration of codes and indexes, and the results of each call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from qvec.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike as ArrayLike
    from numpy.typing import NDArray as NDArray
else:  # numpy.typing takes a tenth of the import's time, and only type checkers read it
    ArrayLike, NDArray = object, np.ndarray

Metric = Literal["cosine", "ip", "l2"]
CodeKind = Literal["f32", "f16", "int8", "binary", "rabitq", "mixed"]
IdKind = Literal["int64", "str"]
Keep = Literal["f32", "f16", "none"]
Scale = Literal["per_vector", "per_dim"]
CalibrationMethod = Literal["minmax", "percentile"]
MixedGroups = Literal["pca", "raw"]
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
MIN_SAMPLES_MEAN = 100  # the error of the mean is then a tenth of the standard deviation


@dataclass(frozen=True, slots=True)
class Float32:
    """Vectors as they are: 4 bytes a dimension, exact."""

    kind: ClassVar[CodeKind] = "f32"
    min_samples: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Float16:
    """IEEE 754 half precision: 2 bytes a dimension, values up to 65,504 in magnitude."""

    kind: ClassVar[CodeKind] = "f16"
    min_samples: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Int8:
    """One byte a dimension.

    ``scale="per_vector"`` takes each vector's own range (dynamic: nothing is trained). ``scale="per_dim"``
    takes one range a dimension from a sample (static: see :class:`qvec.calibration.Calibration`); values
    outside saturate. ``method`` says how the ranges are found: ``"minmax"`` covers the sample,
    ``"percentile"`` the central ``percentile`` per cent of each dimension (default 99.9). ``rotate`` spreads
    the variance evenly over the dimensions with a seeded random rotation first.
    """

    kind: ClassVar[CodeKind] = "int8"
    scale: Scale = "per_vector"
    method: CalibrationMethod = "minmax"
    percentile: float | None = None
    rotate: bool = False

    def __post_init__(self) -> None:
        check_choice("Int8.scale", self.scale, get_args(Scale))
        check_choice("Int8.method", self.method, get_args(CalibrationMethod))
        check_flag("Int8.rotate", self.rotate)
        if self.scale == "per_vector" and self.method != "minmax":
            raise InputError(f"Int8.method={self.method!r} goes with scale='per_dim' only")
        if self.percentile is not None and self.method != "percentile":
            raise InputError("Int8.percentile goes with method='percentile' only")
        if self.percentile is not None and not 50.0 < self.percentile <= 100.0:
            raise InputError(f"Int8.percentile must be above 50 and at most 100, got {self.percentile}")

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        return MIN_SAMPLES_RANGE if self.scale == "per_dim" else 0


@dataclass(frozen=True, slots=True)
class Binary:
    """One bit a dimension: the sign, compared by Hamming distance.

    ``centre`` subtracts the mean of a sample first, so that each bit splits the data; ``rotate`` applies a
    seeded random rotation, so that each bit tells equally much.
    """

    kind: ClassVar[CodeKind] = "binary"
    centre: bool = True
    rotate: bool = True

    def __post_init__(self) -> None:
        check_flag("Binary.centre", self.centre)
        check_flag("Binary.rotate", self.rotate)

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        return MIN_SAMPLES_MEAN if self.centre else 0


@dataclass(frozen=True, slots=True)
class RaBitQ:
    """``bits`` a dimension, 1 to 8, after a seeded random rotation, with an unbiased estimate of each distance.

    RaBitQ (Gao and Long, arXiv:2405.12497) and its extension to more bits (arXiv:2409.09913). ``centre``
    subtracts the mean of a sample first.
    """

    kind: ClassVar[CodeKind] = "rabitq"
    bits: int = 1
    centre: bool = True

    def __post_init__(self) -> None:
        check_int("RaBitQ.bits", self.bits, 1, 8)
        check_flag("RaBitQ.centre", self.centre)

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        return MIN_SAMPLES_MEAN if self.centre else 0


@dataclass(frozen=True, slots=True)
class Mixed:
    """0 to 8 bits a dimension, given to groups of 64 dimensions by what they bring, under a budget.

    The budget is ``bits`` a dimension on average (default 3), or ``bytes`` a vector without the 8 bytes of
    its factors: give one. ``groups="pca"`` groups the principal components of a sample, ``"raw"`` the
    dimensions as they come.
    """

    kind: ClassVar[CodeKind] = "mixed"
    min_samples: ClassVar[int] = MIN_SAMPLES_RANGE
    bits: float | None = None
    bytes: int | None = None
    groups: MixedGroups = "pca"

    def __post_init__(self) -> None:
        check_choice("Mixed.groups", self.groups, get_args(MixedGroups))
        if self.bits is not None and self.bytes is not None:
            raise InputError("Mixed.bits and Mixed.bytes are two ways to give one budget: give one")
        if self.bytes is not None:
            check_int("Mixed.bytes", self.bytes, 8, MAX_DIM)
        if self.bits is not None:
            check_number("Mixed.bits", self.bits, 0.125, 8)


CodeConfig = Float32 | Float16 | Int8 | Binary | RaBitQ | Mixed


@dataclass(frozen=True, slots=True)
class Flat:
    """Scan every code: exact with respect to the code, and the fastest below some ten thousand vectors."""

    kind: ClassVar[Literal["flat"]] = "flat"


@dataclass(frozen=True, slots=True)
class HNSW:
    """Navigable small-world graph (Malkov and Yashunin, arXiv:1603.09320), one level with a table of entry points.

    ``m``: half the links a node may have (2..64). ``ef_construction``: candidates kept while a node is linked
    (``m``..4096); more makes a better graph, and takes longer.
    """

    kind: ClassVar[Literal["hnsw"]] = "hnsw"
    m: int = 16
    ef_construction: int = 128

    def __post_init__(self) -> None:
        check_int("HNSW.m", self.m, 2, 64)
        check_int("HNSW.ef_construction", self.ef_construction, self.m, 4096)


IndexConfig = Flat | HNSW


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
    kept, else decoded from the codes. ``payloads``: n dicts, None where a vector has none.
    """

    ids: Ids
    vectors: Float32Array
    payloads: list[Payload | None]


@dataclass(frozen=True, slots=True, eq=False)
class AddResult:
    """What an add or upsert did. ``ids``: int64 or str, shape (n,): the id of each row of the batch."""

    ids: Ids
    added: int
    replaced: int
    skipped: int


@dataclass(frozen=True, slots=True)
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


def _hit_dicts(
    ids: Ids, distances: Float32Array, scores: Float32Array, count: int, payloads: list[Any] | None
) -> list[dict[str, Any]]:
    columns = zip(ids.tolist(), distances.tolist(), scores.tolist(), strict=True)
    hits = [{"id": i, "distance": d, "score": s} for i, d, s in columns][:count]
    if payloads is not None:
        for hit, payload in zip(hits, payloads, strict=False):
            hit["payload"] = payload
    return hits
