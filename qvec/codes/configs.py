"""Configurations of codes and indexes: what a caller chooses, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from qvec.common.errors import InputError
from qvec.common.types import (
    MAX_DIM,
    MIN_SAMPLES_ENTROPY,
    MIN_SAMPLES_MEAN,
    MIN_SAMPLES_RANGE,
    CalibrationMethod,
    CentroidCount,
    CodeKind,
    GraphLayout,
    MixedGroups,
    PrequantizedType,
    Rounding,
    Scale,
    centroid_samples,
    check_centroid_count,
    check_choice,
    check_dims,
    check_flag,
    check_int,
    check_number,
)

MAX_LISTS = 2**20


@dataclass(frozen=True)
class Float32:
    """Vectors as they are: 4 bytes a dimension, exact. ``dims``: see :class:`Int8`."""

    kind: ClassVar[CodeKind] = "f32"
    min_samples: ClassVar[int] = 0
    dims: int | None = None

    def __post_init__(self) -> None:
        check_dims("Float32.dims", self.dims)


@dataclass(frozen=True)
class Float16:
    """IEEE 754 half precision: 2 bytes a dimension, values up to 65,504 in magnitude. ``dims``: see :class:`Int8`."""

    kind: ClassVar[CodeKind] = "f16"
    min_samples: ClassVar[int] = 0
    dims: int | None = None

    def __post_init__(self) -> None:
        check_dims("Float16.dims", self.dims)


@dataclass(frozen=True)
class BFloat16:
    """bfloat16: 2 bytes a dimension, the range of float32, 8 bits of precision. ``dims``: see :class:`Int8`."""

    kind: ClassVar[CodeKind] = "bf16"
    min_samples: ClassVar[int] = 0
    dims: int | None = None

    def __post_init__(self) -> None:
        check_dims("BFloat16.dims", self.dims)


@dataclass(frozen=True)
class Int8:
    """One byte a dimension.

    ``scale="per_vector"`` takes each vector's own range (dynamic: nothing is trained). ``scale="per_dim"``
    takes one range a dimension from a sample, ``"global"`` one for all dimensions (static: see
    :class:`qvec.codes.calibration.Calibration`); values outside saturate. ``symmetric`` ranges are even around
    zero, so that there is no zero point; per vector they always are. ``method`` says how the ranges are
    found: ``"minmax"`` covers the sample, ``"percentile"`` the central ``percentile`` per cent (default
    99.9), ``"mse"`` minimizes the squared error, ``"entropy"`` the divergence of the histograms.
    ``rounding="truncate"`` gives the codes of ``sentence_transformers.util.quantize_embeddings``. ``rotate``
    spreads the variance evenly over the dimensions with a seeded random rotation first. ``dims`` codes the
    first ``dims`` values only (embeddings trained as Matryoshka, Kusupati et al., arXiv:2205.13147).
    """

    kind: ClassVar[CodeKind] = "int8"
    scale: Scale = "per_vector"
    method: CalibrationMethod = "minmax"
    percentile: float | None = None
    rotate: bool = False
    symmetric: bool | None = None
    rounding: Rounding = "nearest"
    dims: int | None = None

    def __post_init__(self) -> None:
        check_scalar(self, "Int8", "minmax")
        check_choice("Int8.rounding", self.rounding, get_args(Rounding))
        if self.scale == "per_vector" and self.rounding != "nearest":
            raise InputError(
                f"Int8.rounding={self.rounding!r} goes with calibrated ranges, not with scale='per_vector'"
            )

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        return min_samples(self.scale, self.method)


@dataclass(frozen=True)
class Int4:
    """Half a byte a dimension: 16 levels.

    ``scale``, ``symmetric``, ``method``, ``percentile``, ``rotate`` and ``dims`` as for :class:`Int8`; per
    vector, the range is the one of least squared error. ``centroids``, per vector only: vectors are coded around the
    nearest of so many (0 to 256) centroids of a sample, 1 being its mean; "auto": one for each 64 vectors of it, 256 at
    most, and none of fewer than 100 vectors. They take the space of no bit, and a query some microseconds.
    """

    kind: ClassVar[CodeKind] = "int4"
    scale: Scale = "per_vector"
    method: CalibrationMethod = "mse"
    percentile: float | None = None
    rotate: bool = True
    centroids: CentroidCount = "auto"
    symmetric: bool | None = None
    dims: int | None = None

    def __post_init__(self) -> None:
        check_scalar(self, "Int4", "mse")
        check_centroid_count("Int4.centroids", self.centroids)
        if self.centroids not in ("auto", 0) and self.scale != "per_vector":
            raise InputError("Int4.centroids go with scale='per_vector' only: calibrated ranges have their own middle")

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        if self.scale == "per_vector":
            return centroid_samples(self.centroids)
        return min_samples(self.scale, self.method)


@dataclass(frozen=True)
class Ternary:
    """Two bits a dimension: -1, 0 or 1 times each vector's own scale.

    ``centroids``, ``rotate`` and ``dims`` as for :class:`Int4`.
    """

    kind: ClassVar[CodeKind] = "ternary"
    rotate: bool = True
    centroids: CentroidCount = "auto"
    dims: int | None = None

    def __post_init__(self) -> None:
        check_flag("Ternary.rotate", self.rotate)
        check_centroid_count("Ternary.centroids", self.centroids)
        check_dims("Ternary.dims", self.dims)

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        return centroid_samples(self.centroids)


@dataclass(frozen=True)
class Binary:
    """One bit a dimension: the sign, compared by Hamming distance.

    ``center`` subtracts the mean of a sample first, so that each bit splits the data; "auto": where the sample has
    100 vectors or more. ``rotate`` applies a
    seeded random rotation, so that each bit tells equally much. ``dims``: see :class:`Int8`.
    """

    kind: ClassVar[CodeKind] = "binary"
    center: bool | Literal["auto"] = "auto"
    rotate: bool = True
    dims: int | None = None

    def __post_init__(self) -> None:
        if self.center != "auto":
            check_flag("Binary.center", self.center)
        check_flag("Binary.rotate", self.rotate)
        check_dims("Binary.dims", self.dims)

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        return MIN_SAMPLES_MEAN if self.center else 0


@dataclass(frozen=True)
class RaBitQ:
    """``bits`` a dimension, 1 to 8, after a seeded random rotation, with an unbiased estimate of each distance.

    RaBitQ (Gao and Long, arXiv:2405.12497) and its extension to more bits (arXiv:2409.09913). ``centroids``: see
    :class:`Int4`; ``dims``: see :class:`Int8`.
    """

    kind: ClassVar[CodeKind] = "rabitq"
    bits: int = 1
    centroids: CentroidCount = "auto"
    dims: int | None = None

    def __post_init__(self) -> None:
        check_int("RaBitQ.bits", self.bits, 1, 8)
        check_centroid_count("RaBitQ.centroids", self.centroids)
        check_dims("RaBitQ.dims", self.dims)

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on: 0 when nothing is learned."""
        return centroid_samples(self.centroids)


@dataclass(frozen=True)
class Mixed:
    """0 to 8 bits a dimension, given to groups of 64 dimensions by what they bring, under a budget.

    The budget is ``bits`` a dimension on average (default 3), or ``bytes`` a vector without the 8 bytes of
    its factors: give one. ``groups="pca"`` groups the principal components of a sample, ``"raw"`` the
    dimensions as they come. ``centroids``: see :class:`Int4`; ``dims``: see :class:`Int8`.
    """

    kind: ClassVar[CodeKind] = "mixed"
    bits: float | None = None
    bytes: int | None = None
    groups: MixedGroups = "pca"
    centroids: CentroidCount = "auto"
    dims: int | None = None

    def __post_init__(self) -> None:
        check_choice("Mixed.groups", self.groups, get_args(MixedGroups))
        if self.bits is not None and self.bytes is not None:
            raise InputError("Mixed.bits and Mixed.bytes are two ways to give one budget: give one")
        if self.bytes is not None:
            check_int("Mixed.bytes", self.bytes, 8, MAX_DIM)
        if self.bits is not None:
            check_number("Mixed.bits", self.bits, 0.125, 8)
        check_centroid_count("Mixed.centroids", self.centroids)
        check_dims("Mixed.dims", self.dims)

    @property
    def min_samples(self) -> int:
        """Vectors needed to train on."""
        return max(MIN_SAMPLES_RANGE, centroid_samples(self.centroids))


@dataclass(frozen=True)
class Prequantized:
    """Embeddings that come quantized, as embedding APIs and sentence-transformers return them; no originals are kept.

    ``dtype="int8"``: int8[n, dim], the integers themselves. ``"uint8"``: uint8[n, dim], each standing for the
    integer 128 below it, so that both forms of one embedding give the same distances. ``"ubinary"``:
    uint8[n, dim / 8], bits packed highest first (``numpy.packbits``); ``"binary"``: the same less 128, as
    int8. The metric is that of the integers; bits are compared by Hamming distance under every metric.
    Queries may come in the same form, or as floats [n, dim].
    """

    kind: ClassVar[CodeKind] = "prequantized"
    min_samples: ClassVar[int] = 0
    dtype: PrequantizedType = "int8"

    def __post_init__(self) -> None:
        check_choice("Prequantized.dtype", self.dtype, get_args(PrequantizedType))


CodeConfig = Float32 | Float16 | BFloat16 | Int8 | Int4 | Ternary | Binary | RaBitQ | Mixed | Prequantized


@dataclass(frozen=True)
class Flat:
    """Scan every code: exact with respect to the code, and the fastest below some ten thousand vectors."""

    kind: ClassVar[Literal["flat"]] = "flat"


@dataclass(frozen=True)
class HNSW:
    """Navigable small-world graph (Malkov and Yashunin, arXiv:1603.09320), one level with a table of entry points.

    ``m``: half the links a node may have (2..64). ``ef_construction``: candidates kept while a node is linked
    (``m``..4096); more makes a better graph, and takes longer. ``layout="packed"`` keeps beside each node what
    a walk needs to know of its neighbors, 5 bytes a dimension and 264 more: the fastest search, in more
    memory. It takes an ``m`` of 16, 32, 48 or 64, codes of 4 bits a dimension or more, and 4,096 dimensions at most.
    """

    kind: ClassVar[Literal["hnsw"]] = "hnsw"
    m: int = 16
    ef_construction: int = 128
    layout: GraphLayout = "compact"

    def __post_init__(self) -> None:
        check_int("HNSW.m", self.m, 2, 64)
        check_int("HNSW.ef_construction", self.ef_construction, self.m, 4096)
        check_choice("HNSW.layout", self.layout, get_args(GraphLayout))
        if self.layout == "packed" and self.m % 16:
            raise InputError(f"HNSW.m must be 16, 32, 48 or 64 with layout='packed', got {self.m}")


@dataclass(frozen=True)
class IVF:
    """Inverted lists: a search scans those near the query, by one bit a dimension, and scores what may be near.

    ``nlist``: lists (1..2^20), at most as many as the first vectors added; "auto": about four times the root of
    the number of vectors, chosen anew each time that there are four times as many. ``copies``: lists that each vector
    is in, 1 or 2 (SOAR, Sun et al., arXiv:2404.00774): 2 takes d/8 + 20 bytes a vector more, and needs fewer
    lists to be scanned. ``seed``: of what is drawn to learn the centroids.
    """

    kind: ClassVar[Literal["ivf"]] = "ivf"
    nlist: int | Literal["auto"] = "auto"
    copies: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.nlist != "auto":
            check_int("IVF.nlist", self.nlist, 1, MAX_LISTS)
        check_int("IVF.copies", self.copies, 1, 2)
        check_int("IVF.seed", self.seed, 0, 2**64 - 1)


IndexConfig = Flat | HNSW | IVF


def check_scalar(config: Int8 | Int4, name: str, default: CalibrationMethod) -> None:
    """Check the options that the codes of integer levels share; InputError names the wrong one."""
    check_choice(f"{name}.scale", config.scale, get_args(Scale))
    check_choice(f"{name}.method", config.method, get_args(CalibrationMethod))
    check_flag(f"{name}.rotate", config.rotate)
    check_dims(f"{name}.dims", config.dims)
    if config.symmetric is not None:
        check_flag(f"{name}.symmetric", config.symmetric)
    if config.scale == "per_vector" and config.method != default:
        raise InputError(f"{name}.method={config.method!r} goes with scale='per_dim' or 'global' only")
    if config.scale == "per_vector" and config.symmetric is False:
        raise InputError(
            f"{name}.symmetric=False goes with scale='per_dim' or 'global': per vector there is no zero point"
        )
    if config.percentile is not None and (config.method != "percentile" or config.scale == "per_vector"):
        raise InputError(f"{name}.percentile goes with method='percentile' only")
    if config.percentile is not None and not 50.0 < config.percentile <= 100.0:
        raise InputError(f"{name}.percentile must be above 50 and at most 100, got {config.percentile}")


def code_name(config: CodeConfig) -> str:
    """What `create` takes for it, but for its options: ``"int8"``, ``"rabitq4"``."""
    return f"{config.kind}{config.bits}" if isinstance(config, RaBitQ) else config.kind


def min_samples(scale: Scale, method: CalibrationMethod) -> int:
    """Give the vectors that ranges are learned from: 0 per vector, where nothing is learned."""
    if scale == "per_vector":
        return 0
    return MIN_SAMPLES_ENTROPY if method == "entropy" else MIN_SAMPLES_RANGE
