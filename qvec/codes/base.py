"""The base class of all quantizers, and functions that all kinds use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar, cast, get_args

from qvec._kernels import Codec
from qvec.codes.configs import CodeConfig
from qvec.codes.samples import check_codes, check_vectors
from qvec.codes.transforms import Transform
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, take_choice, take_int, take_state, take_version
from qvec.common.types import MAX_DIM, CodeKind, Codes, Float32Array, Metric, check_choice, check_int

VERSION = 1
PROJECTED_OVERSAMPLE = 3  # of codes of projected vectors, at least (docs/quantization.md)
MIN_GRAPH_BITS = 4.0  # per dimension; a graph linked with coarser codes loses recall (docs/quantization.md)
_COMMON = ("kind", "version", "dim", "metric", "transform")

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Quantizer(ABC):
    """Encodes vectors with a transform, followed by the kernels' codec. Immutable after training.

    Two quantizers with equal ``state()`` give equal codes on every machine. ``kind``: the stored name. ``dim``,
    ``metric``: dimension and metric of the vectors. ``transform``: applied to vectors before ``codec``, or None.
    ``codec``: the kernels' object, which scores rows in place. A subclass for a kind adds ``train``, ``from_state``,
    ``oversample`` and learned parameters.
    """

    kind: ClassVar[CodeKind]

    dim: int
    metric: Metric
    transform: Transform | None
    codec: Codec = field(init=False, repr=False)

    @classmethod
    @abstractmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Train on float32[n, dim], n >= ``config.min_samples``; n can be 0 if the config needs no sample.

        ``seed``: seed of the rotation. ``model``: a tag for the calibration, if there is one. InputError: the sample is
        too small (the message gives the number needed), not finite, or of the wrong shape or dtype.
        """

    @classmethod
    @abstractmethod
    def from_state(cls, state: object) -> Self:
        """Rebuild from :meth:`state`; FormatError names the field that is wrong."""

    @property
    @abstractmethod
    def oversample(self) -> float:
        """The number of candidates per hit that a search must re-rank for nearly the recall of the originals (ADR
        1), if the code is not of projected vectors."""

    @property
    def projected_dims(self) -> int | None:
        """The number of dimensions that vectors are projected onto (:mod:`qvec.codes.projection`); None: they are
        not."""
        t = self.transform
        return None if t is None or t.columns is None else t.width + t.residual

    @property
    def default_oversample(self) -> float:
        """The number of candidates per hit that searches re-rank by default."""
        return max(self.oversample, PROJECTED_OVERSAMPLE) if self.is_projected else self.oversample

    @property
    def is_projected(self) -> bool:
        """Whether vectors are projected onto fewer dimensions before they are encoded."""
        return self.projected_dims is not None

    def __post_init__(self) -> None:
        check_int("dim", self.dim, 1, MAX_DIM)
        check_choice("metric", self.metric, get_args(Metric))
        object.__setattr__(self, "codec", self._make_codec())

    @property
    def code_size(self) -> int:
        """The bytes of one code, including factors."""
        return self.codec.stride

    @property
    def bits_per_dim(self) -> float:
        """The bits per encoded dimension, without factors."""
        return 8 * self.codec.data_size / self.coded_dim

    @property
    def coarse(self) -> bool:
        """Whether originals are better for linking a graph than codes, which are too coarse or too slow.

        Codes with centroids are slow to compare, because a row must be compared with all centroids.
        """
        return self.bits_per_dim < MIN_GRAPH_BITS or self.codec.n_centroids > 0

    @property
    def coded_dim(self) -> int:
        """The number of dimensions that the codec encodes: after the transform, and after the padding of a rotation."""
        return self.dim if self.transform is None else self.transform.padded

    @property
    def query_transform(self) -> Transform | None:
        """The transform of queries: that of vectors, unless a subclass overrides it."""
        return self.transform

    def encode(self, x: Float32Array) -> Codes:
        """Encode float32[n, dim] as uint8[n, code_size]. Values must be finite; values out of range saturate."""
        x = check_vectors("vectors", x, self.dim)
        return self.codec.encode(x if self.transform is None else self.transform.apply(x))

    def decode(self, codes: Codes) -> Float32Array:
        """Rebuild float32[n, dim] from uint8[n, code_size], as exactly as the code allows."""
        y = self.codec.decode(check_codes(codes, self.code_size))
        return y if self.transform is None else self.transform.unrotate(y)

    def prepare(self, queries: Float32Array) -> Codes:
        """Convert queries float32[n, dim] to the form that ``codec.score`` takes: uint8[n, codec.query_size]."""
        x = check_vectors("queries", queries, self.dim)
        return self.codec.prepare(x if self.query_transform is None else self.query_transform.apply_to_queries(x))

    def state(self) -> State:
        """Return all learned and chosen parameters as plain msgpack data."""
        transform = None if self.transform is None else self.transform.state()
        head = {"kind": self.kind, "version": VERSION, "dim": self.dim, "metric": self.metric}
        return head | {"transform": transform}

    def _make_codec(self) -> Codec:
        return Codec(self.kind, self.metric, self.coded_dim)


@dataclass(frozen=True)
class Common:
    """The checked fields that the states of all kinds have."""

    fields: State
    dim: int
    metric: Metric
    transform: Transform | None

    @property
    def coded_dim(self) -> int:
        """The number of dimensions after the transform."""
        return self.dim if self.transform is None else self.transform.padded

    @property
    def plain_transform(self) -> Transform | None:
        """Return the transform. It may only truncate, project and rotate, because the codec normalizes and centers."""
        t, kind = self.transform, self.fields["kind"]
        if t is not None and t.mean is not None:
            raise FormatError(f"field 'mean' must be empty: {kind} codes are not centered by their transform")
        if t is not None and t.normalize:
            raise FormatError(f"field 'normalize' must be false: the codec of {kind} normalizes itself")
        return t


def read_common(state: object, kind: CodeKind, extra: Iterable[str] = ()) -> Common:
    """Check the fields of a state; those named in ``extra`` for presence only. FormatError names the wrong field."""
    fields = take_state(state, f"{kind} quantizer", (*_COMMON, *extra))
    take_choice(fields, "kind", (kind,))
    take_version(fields, VERSION)
    dim = take_int(fields, "dim", 1, MAX_DIM)
    metric = cast(Metric, take_choice(fields, "metric", get_args(Metric)))
    transform = None if fields["transform"] is None else Transform.from_state(fields["transform"])
    if transform is not None and transform.dim != dim:
        raise FormatError(f"field 'transform' is of {transform.dim} dimensions, the quantizer of {dim}")
    return Common(fields, dim, metric, transform)


def after(transform: Transform, inner: Quantizer) -> Quantizer:
    """Return ``inner``, which was trained on vectors that ``transform`` has mapped, with this map before its rotation.

    InputError: inner centers, normalizes or multiplies with a matrix itself.
    """
    own = inner.transform
    if own is not None and (own.normalize or own.mean is not None or own.matrix is not None):
        raise InputError(f"{inner.kind} codes with these options center, normalize or project vectors themselves")
    whole = replace(transform, seed=None if own is None else own.seed)
    return cast(Quantizer, replace(cast(Any, inner), dim=transform.dim, transform=whole))


def make_transform(
    dim: int,
    normalize: bool,
    mean: Float32Array | None,
    seed: int | None,
    dims: int | None = None,
    matrix: Float32Array | None = None,
) -> Transform | None:
    """Return the transform, or None if it would change nothing."""
    if dims is not None and dims > dim:
        raise InputError(f"dims is {dims}, but vectors have {dim} dimensions")
    dims = None if dims == dim else dims
    if not normalize and mean is None and seed is None and dims is None and matrix is None:
        return None
    return Transform(dim, normalize, mean, seed, dims, matrix)


def rotation_of(
    sample: Float32Array, seed: int, rotate: bool, dims: int | None
) -> tuple[Float32Array, Transform | None]:
    """Check the sample's shape; return it with the transform that truncates to ``dims`` and rotates."""
    x = check_vectors("sample", sample, None)
    return x, make_transform(x.shape[1], False, None, seed if rotate else None, dims)


def coded_sample(x: Float32Array, metric: Metric, transform: Transform | None) -> Float32Array:
    """Transform float32[n, dim]; under cosine also normalize, which the codec does with vectors."""
    y = x if transform is None else transform.apply(x)
    return Transform(y.shape[1], True, None, None).apply(y) if metric == "cosine" else y


def config_of(config: CodeConfig, wanted: type[T]) -> T:
    """Return ``config`` if it is of the kind's own type."""
    if not isinstance(config, wanted):
        raise InputError(f"config must be {wanted.__name__}, got {type(config).__name__}")
    return config
