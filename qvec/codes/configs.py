"""Configurations of codes and indexes; their options are checked on creation."""

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
    unbox,
)

Projection = int | Literal["auto"] | None
MAX_LISTS = 2**20
PROJECTION_SAMPLES = 256  # at least, to learn a projection; and twice as many as vectors have dimensions
MIXED_BITS = 3.0  # of Mixed, per dimension on average, if no budget is given


@dataclass(frozen=True)
class Float32:
    """Unchanged float32 vectors: 4 bytes per dimension, exact. ``dims``: see :class:`Int8`."""

    kind: ClassVar[CodeKind] = "f32"
    min_samples: ClassVar[int] = 0
    dims: int | None = None

    def __post_init__(self) -> None:
        unbox(self)
        check_dims("Float32.dims", self.dims)


@dataclass(frozen=True)
class Float16:
    """IEEE 754 half precision, with a unit for each vector: 2 bytes per dimension. ``dims``: see :class:`Int8`."""

    kind: ClassVar[CodeKind] = "f16"
    min_samples: ClassVar[int] = 0
    dims: int | None = None

    def __post_init__(self) -> None:
        unbox(self)
        check_dims("Float16.dims", self.dims)


@dataclass(frozen=True)
class BFloat16:
    """bfloat16: 2 bytes per dimension, the range of float32, 8 bits of precision. ``dims``: see :class:`Int8`."""

    kind: ClassVar[CodeKind] = "bf16"
    min_samples: ClassVar[int] = 0
    dims: int | None = None

    def __post_init__(self) -> None:
        unbox(self)
        check_dims("BFloat16.dims", self.dims)


@dataclass(frozen=True)
class Int8:
    """One byte per dimension.

    ``scale``: ``"per_vector"``: each vector has its own range; nothing is trained. ``"per_dim"``: each dimension has a
    range that is learned from a sample; ``"global"``: one range for all dimensions (see
    :class:`qvec.codes.calibration.Calibration`). Values out of range saturate. ``symmetric``: ranges are symmetric
    about zero, without zero point; ranges per vector always are. ``method``: how to find ranges. ``"minmax"`` covers
    the sample, ``"percentile"`` covers the central ``percentile`` per cent (default 99.9), ``"mse"`` minimizes the
    squared error, ``"entropy"`` minimizes the divergence of the histograms. ``rounding="truncate"``: codes equal those
    of ``sentence_transformers.util.quantize_embeddings``. ``rotate``: a seeded random rotation first spreads the
    variance evenly over the dimensions. ``dims``: encode only the first ``dims`` values (Matryoshka embeddings,
    Kusupati et al., arXiv:2205.13147). ``projection``: encode a projection onto this number of dimensions, which is
    learned from a sample of at least twice as many vectors as these have dimensions; "auto": the number is chosen with
    the sample. For vectors of 768 and more dimensions; the collection must store originals
    (:mod:`qvec.codes.projection`).
    """

    kind: ClassVar[CodeKind] = "int8"
    scale: Scale = "per_vector"
    method: CalibrationMethod = "minmax"
    percentile: float | None = None
    rotate: bool = False
    symmetric: bool | None = None
    rounding: Rounding = "nearest"
    dims: int | None = None
    projection: Projection = None

    def __post_init__(self) -> None:
        unbox(self)
        check_scalar(self, "Int8", "minmax")
        check_choice("Int8.rounding", self.rounding, get_args(Rounding))
        if self.scale == "per_vector" and self.rounding != "nearest":
            raise InputError(
                f"Int8.rounding={self.rounding!r} needs calibrated ranges; it is not for scale='per_vector'"
            )

    @property
    def min_samples(self) -> int:
        """Size of the smallest training sample; 0 if nothing is learned."""
        return max(min_samples(self.scale, self.method), projection_samples(self.projection))


@dataclass(frozen=True)
class Int4:
    """Half a byte per dimension: 16 levels.

    ``scale``, ``symmetric``, ``method``, ``percentile``, ``rotate``, ``dims`` and ``projection``: see :class:`Int8`;
    with ``"per_vector"``, the range has the least squared error. ``centroids`` (only with ``"per_vector"``): number of
    centroids, 0 to 256; a code represents the residual from the nearest centroid. 1: only the mean of the sample.
    "auto": one for each 64 vectors of the sample, at most 256; none if there are fewer than 100 vectors. Centroids do
    not make codes longer; a query takes a few microseconds more.
    """

    kind: ClassVar[CodeKind] = "int4"
    scale: Scale = "per_vector"
    method: CalibrationMethod = "mse"
    percentile: float | None = None
    rotate: bool = True
    centroids: CentroidCount = "auto"
    symmetric: bool | None = None
    dims: int | None = None
    projection: Projection = None

    def __post_init__(self) -> None:
        unbox(self)
        check_scalar(self, "Int4", "mse")
        check_centroid_count("Int4.centroids", self.centroids)
        if self.centroids not in ("auto", 0) and self.scale != "per_vector":
            raise InputError("Int4.centroids need scale='per_vector': calibrated ranges are not centered on centroids")

    @property
    def min_samples(self) -> int:
        """Size of the smallest training sample; 0 if nothing is learned."""
        own = centroid_samples(self.centroids) if self.scale == "per_vector" else min_samples(self.scale, self.method)
        return max(own, projection_samples(self.projection))


@dataclass(frozen=True)
class Ternary:
    """Two bits per dimension: -1, 0 or 1 times the scale of the vector.

    ``centroids``, ``rotate`` and ``dims``: see :class:`Int4`.
    """

    kind: ClassVar[CodeKind] = "ternary"
    rotate: bool = True
    centroids: CentroidCount = "auto"
    dims: int | None = None

    def __post_init__(self) -> None:
        unbox(self)
        check_flag("Ternary.rotate", self.rotate)
        check_centroid_count("Ternary.centroids", self.centroids)
        check_dims("Ternary.dims", self.dims)

    @property
    def min_samples(self) -> int:
        """Size of the smallest training sample; 0 if nothing is learned."""
        return centroid_samples(self.centroids)


@dataclass(frozen=True)
class Binary:
    """One bit per dimension: the sign, compared by Hamming distance.

    ``center``: subtract the mean of a sample first, so that each bit splits the data; "auto": if the sample has at
    least 100 vectors. ``rotate``: apply a seeded random rotation, so that all bits contain the same information.
    ``dims``: see :class:`Int8`.
    """

    kind: ClassVar[CodeKind] = "binary"
    center: bool | Literal["auto"] = "auto"
    rotate: bool = True
    dims: int | None = None

    def __post_init__(self) -> None:
        unbox(self)
        if self.center != "auto":
            check_flag("Binary.center", self.center)
        check_flag("Binary.rotate", self.rotate)
        check_dims("Binary.dims", self.dims)

    @property
    def min_samples(self) -> int:
        """Size of the smallest training sample; 0 if nothing is learned."""
        return MIN_SAMPLES_MEAN if self.center else 0


@dataclass(frozen=True)
class RaBitQ:
    """``bits`` per dimension, 1 to 8, after a seeded random rotation, with an unbiased estimate of each distance.

    RaBitQ (Gao and Long, arXiv:2405.12497) and its extension to more bits (arXiv:2409.09913). ``centroids``: see
    :class:`Int4`; ``dims`` and ``projection``: see :class:`Int8`.
    """

    kind: ClassVar[CodeKind] = "rabitq"
    bits: int = 1
    centroids: CentroidCount = "auto"
    dims: int | None = None
    projection: Projection = None

    def __post_init__(self) -> None:
        unbox(self)
        check_int("RaBitQ.bits", self.bits, 1, 8)
        check_centroid_count("RaBitQ.centroids", self.centroids)
        check_dims("RaBitQ.dims", self.dims)
        check_projection("RaBitQ", self.projection, self.dims)

    @property
    def min_samples(self) -> int:
        """Size of the smallest training sample; 0 if nothing is learned."""
        return max(centroid_samples(self.centroids), projection_samples(self.projection))


@dataclass(frozen=True)
class Mixed:
    """Mixed precision: 0 to 8 bits per dimension, allocated to groups of 64 dimensions under a budget.

    The budget is ``bits`` per dimension on average (default 3), or ``bytes`` per vector without the 8 bytes of its
    factors: give one. ``groups``: ``"pca"`` groups the principal components of a sample, ``"raw"`` the dimensions in
    their order. ``centroids``: see :class:`Int4`; ``dims``: see :class:`Int8`.
    """

    kind: ClassVar[CodeKind] = "mixed"
    bits: float | None = None
    bytes: int | None = None
    groups: MixedGroups = "pca"
    centroids: CentroidCount = "auto"
    dims: int | None = None

    def __post_init__(self) -> None:
        unbox(self)
        check_choice("Mixed.groups", self.groups, get_args(MixedGroups))
        if self.bits is not None and self.bytes is not None:
            raise InputError("Mixed.bits and Mixed.bytes both set the budget: give one of them")
        if self.bytes is not None:
            check_int("Mixed.bytes", self.bytes, 8, MAX_DIM)
        if self.bits is not None:
            check_number("Mixed.bits", self.bits, 0.125, 8)
        check_centroid_count("Mixed.centroids", self.centroids)
        check_dims("Mixed.dims", self.dims)

    @property
    def min_samples(self) -> int:
        """Size of the smallest training sample."""
        return max(MIN_SAMPLES_RANGE, centroid_samples(self.centroids))


@dataclass(frozen=True)
class Prequantized:
    """Embeddings that are already quantized, as embedding APIs and sentence-transformers return them.

    ``dtype``: ``"int8"``: int8[n, dim]. ``"uint8"``: uint8[n, dim], the integer plus 128: both forms of an embedding
    have the same distances. ``"ubinary"``: uint8[n, dim / 8], bits packed highest first (``numpy.packbits``).
    ``"binary"``: the same minus 128, as int8. Distances are computed from the integers; bits are compared by
    Hamming distance under all metrics. Queries have the same form, or are floats [n, dim].

    Vectors that come as bits and as integers are stored in both forms with ``originals="int8"`` or ``"uint8"``: bits
    find candidates, and integers re-rank them. Queries are then integers or floats [n, dim].
    """

    kind: ClassVar[CodeKind] = "prequantized"
    min_samples: ClassVar[int] = 0
    dtype: PrequantizedType = "int8"

    def __post_init__(self) -> None:
        unbox(self)
        check_choice("Prequantized.dtype", self.dtype, get_args(PrequantizedType))


CodeConfig = Float32 | Float16 | BFloat16 | Int8 | Int4 | Ternary | Binary | RaBitQ | Mixed | Prequantized


@dataclass(frozen=True)
class Flat:
    """Scan of all codes: exact with respect to the codes; the fastest index up to about ten thousand vectors."""

    kind: ClassVar[Literal["flat"]] = "flat"


@dataclass(frozen=True)
class HNSW:
    """Navigable small-world graph (Malkov and Yashunin, arXiv:1603.09320), one level with a table of entry points.

    ``m``: half of the maximum degree (2..64). ``ef_construction``: candidates considered when a row is linked
    (``m``..4096); more candidates give a better graph and a longer build. ``layout="packed"`` stores one-bit codes of
    the neighbors next to each row, in 5 bytes per dimension plus 264: searches are fastest, but need more memory. It
    needs an ``m`` of 16, 32, 48 or 64, codes of at least 4 bits per dimension, and at most 4,096 dimensions.
    """

    kind: ClassVar[Literal["hnsw"]] = "hnsw"
    m: int = 16
    ef_construction: int = 128
    layout: GraphLayout = "compact"

    def __post_init__(self) -> None:
        unbox(self)
        check_int("HNSW.m", self.m, 2, 64)
        check_int("HNSW.ef_construction", self.ef_construction, self.m, 4096)
        check_choice("HNSW.layout", self.layout, get_args(GraphLayout))
        if self.layout == "packed" and self.m % 16:
            raise InputError(f"HNSW.m must be 16, 32, 48 or 64 with layout='packed', got {self.m}")


@dataclass(frozen=True)
class IVF:
    """Inverted lists: a search scans the lists near the query with one bit per dimension, and scores candidates.

    ``nlist``: number of lists (1..2^20), fewer while there are fewer vectors; "auto": about four times the square root
    of the number of vectors, determined again each time that this number has quadrupled. ``copies``: lists per vector,
    1 or 2 (SOAR, Sun et al., arXiv:2404.00774): 2 takes d/8 + 20 more bytes per vector, and fewer lists have to be
    scanned.
    ``seed``: seed of the random choices in training the centroids.
    """

    kind: ClassVar[Literal["ivf"]] = "ivf"
    nlist: int | Literal["auto"] = "auto"
    copies: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        unbox(self)
        if self.nlist != "auto":
            check_int("IVF.nlist", self.nlist, 1, MAX_LISTS)
        check_int("IVF.copies", self.copies, 1, 2)
        check_int("IVF.seed", self.seed, 0, 2**64 - 1)


IndexConfig = Flat | HNSW | IVF


def check_scalar(config: Int8 | Int4, name: str, default: CalibrationMethod) -> None:
    """Check the options that int8 and int4 share; InputError names the wrong one."""
    check_choice(f"{name}.scale", config.scale, get_args(Scale))
    check_choice(f"{name}.method", config.method, get_args(CalibrationMethod))
    check_flag(f"{name}.rotate", config.rotate)
    check_dims(f"{name}.dims", config.dims)
    check_projection(name, config.projection, config.dims)
    if config.symmetric is not None:
        check_flag(f"{name}.symmetric", config.symmetric)
    if config.scale == "per_vector" and config.method != default:
        raise InputError(f"{name}.method={config.method!r} needs scale='per_dim' or 'global'")
    if config.scale == "per_vector" and config.symmetric is False:
        raise InputError(
            f"{name}.symmetric=False needs scale='per_dim' or 'global': ranges per vector have no zero point"
        )
    if config.percentile is not None and (config.method != "percentile" or config.scale == "per_vector"):
        raise InputError(f"{name}.percentile needs method='percentile'")
    if config.percentile is not None and not 50.0 < config.percentile <= 100.0:
        raise InputError(f"{name}.percentile must be above 50 and at most 100, got {config.percentile}")


def check_projection(name: str, projection: Projection, dims: int | None) -> None:
    """Check a number of dimensions to project on; InputError gives the name of the configuration."""
    if projection is None:
        return
    if dims is not None:
        raise InputError(f"{name}.dims and {name}.projection both reduce the dimensions: give one of them")
    if projection != "auto":
        check_int(f"{name}.projection", projection, 2, MAX_DIM)


def projection_samples(projection: Projection) -> int:
    """Return the size of the smallest sample for learning a projection, 0 without one."""
    return 0 if projection is None else PROJECTION_SAMPLES


def projection_of(config: CodeConfig) -> Projection:
    """Return the number of dimensions that vectors are projected onto before they are encoded; None: no projection."""
    return config.projection if isinstance(config, Int8 | Int4 | RaBitQ) else None


def code_name(config: CodeConfig) -> str:
    """Return the name that `create` accepts, without options: ``"int8"``, ``"rabitq4"``."""
    return f"{config.kind}{config.bits}" if isinstance(config, RaBitQ) else config.kind


def min_samples(scale: Scale, method: CalibrationMethod) -> int:
    """Return the size of the smallest sample for learning ranges: 0 per vector, as nothing is learned."""
    if scale == "per_vector":
        return 0
    return MIN_SAMPLES_ENTROPY if method == "entropy" else MIN_SAMPLES_RANGE
