"""The face of a quantizer, and what the kinds share: a transform, then the kernels' codec."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self, TypeVar, cast, get_args

from qvec._kernels import Codec
from qvec.codes.configs import CodeConfig
from qvec.codes.samples import check_codes, check_vectors
from qvec.codes.transforms import Transform
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, take_choice, take_int, take_state, take_version
from qvec.common.types import MAX_DIM, CodeKind, Codes, Float32Array, Metric, check_choice, check_int

VERSION = 1
MIN_GRAPH_BITS = 4.0  # below, a graph pruned by codes loses recall: docs/quantization.md
_COMMON = ("kind", "version", "dim", "metric", "transform")

T = TypeVar("T")


class Quantizer(Protocol):
    """Immutable once trained. Two with equal ``state()`` give equal codes on every machine.

    ``kind``: the name that is stored. ``oversample``: candidates by code to re-rank per hit asked for, so
    that the hits are the true ones (docs/adr/0001). ``coarse``: whether codes are too coarse to prune a graph
    by, or too slow (a row with centroids is held against all of them), where there are originals. ``dim``,
    ``metric``: of the vectors. ``code_size``: bytes of one code, factors included. ``transform``: what vectors go
    through before ``codec``, or None.
    ``codec``: the kernels' view, for engines that score rows in place.
    """

    kind: ClassVar[CodeKind]

    @property
    def oversample(self) -> float: ...
    @property
    def coarse(self) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def code_size(self) -> int: ...
    @property
    def transform(self) -> Transform | None: ...
    @property
    def query_transform(self) -> Transform | None: ...
    @property
    def codec(self) -> Codec: ...

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn from float32[n, dim], n >= ``config.min_samples``; n = 0 serves a config that learns nothing.

        ``seed`` draws the rotation; ``model`` tags the calibration, where there is one. InputError: the
        sample is too small (it says how many are needed), not finite, or of the wrong shape or dtype.
        """
        ...

    def encode(self, x: Float32Array) -> Codes:
        """Code float32[n, dim] as uint8[n, code_size]. Values must be finite; those out of range saturate."""
        ...

    def decode(self, codes: Codes) -> Float32Array:
        """Rebuild float32[n, dim] from uint8[n, code_size], as near as the code allows."""
        ...

    def prepare(self, queries: Float32Array) -> Codes:
        """Bring float32[n, dim] into the form that ``codec.score`` takes: uint8[n, codec.query_size]."""
        ...

    def make_codec(self) -> Codec:
        """Give ``codec`` anew."""
        ...

    def state(self) -> State:
        """Give all that was learned or chosen, as plain msgpack data."""
        ...

    @classmethod
    def from_state(cls, state: object) -> Self:
        """Rebuild from :meth:`state`; FormatError names the field that is wrong."""
        ...


@dataclass(frozen=True, eq=False)
class CodecQuantizer:
    """What the kinds share. A kind adds ``train``, ``from_state`` and what it learned."""

    kind: ClassVar[CodeKind]

    dim: int
    metric: Metric
    transform: Transform | None
    codec: Codec = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_int("dim", self.dim, 1, MAX_DIM)
        check_choice("metric", self.metric, get_args(Metric))
        object.__setattr__(self, "codec", self.make_codec())

    @property
    def code_size(self) -> int:
        return self.codec.stride

    @property
    def bits_per_dim(self) -> float:
        """Bits of a code without its factors, by coded dimension."""
        return 8 * self.codec.data_size / self.coded_dim

    @property
    def coarse(self) -> bool:
        return self.bits_per_dim < MIN_GRAPH_BITS or self.codec.n_centroids > 0

    @property
    def coded_dim(self) -> int:
        """Dimensions that the codec sees: ``dim``, padded where a rotation is."""
        return self.dim if self.transform is None else self.transform.padded

    @property
    def query_transform(self) -> Transform | None:
        """What queries go through; the same as vectors, unless a kind says otherwise."""
        return self.transform

    def encode(self, x: Float32Array) -> Codes:
        x = check_vectors("vectors", x, self.dim)
        return self.codec.encode(x if self.transform is None else self.transform.apply(x))

    def decode(self, codes: Codes) -> Float32Array:
        y = self.codec.decode(check_codes(codes, self.code_size))
        return y if self.transform is None else self.transform.unrotate(y)

    def prepare(self, queries: Float32Array) -> Codes:
        x = check_vectors("queries", queries, self.dim)
        return self.codec.prepare(x if self.query_transform is None else self.query_transform.apply(x))

    def state(self) -> State:
        transform = None if self.transform is None else self.transform.state()
        head = {"kind": self.kind, "version": VERSION, "dim": self.dim, "metric": self.metric}
        return head | {"transform": transform}

    def make_codec(self) -> Codec:
        return Codec(self.kind, self.metric, self.coded_dim)


@dataclass(frozen=True)
class Common:
    """The fields of a state that every kind has, checked."""

    fields: State
    dim: int
    metric: Metric
    transform: Transform | None


def read_common(state: object, kind: CodeKind, extra: Iterable[str] = ()) -> Common:
    """Check a state's fields, those named in ``extra`` for presence only; FormatError names the wrong one."""
    fields = take_state(state, f"{kind} quantizer", (*_COMMON, *extra))
    take_choice(fields, "kind", (kind,))
    take_version(fields, VERSION)
    dim = take_int(fields, "dim", 1, MAX_DIM)
    metric = cast(Metric, take_choice(fields, "metric", get_args(Metric)))
    transform = None if fields["transform"] is None else Transform.from_state(fields["transform"])
    if transform is not None and transform.dim != dim:
        raise FormatError(f"field 'transform' is of {transform.dim} dimensions, the quantizer of {dim}")
    return Common(fields, dim, metric, transform)


def make_transform(
    dim: int,
    normalize: bool,
    mean: Float32Array | None,
    seed: int | None,
    dims: int | None = None,
    matrix: Float32Array | None = None,
) -> Transform | None:
    """Give the transform, or None where it would change nothing."""
    if dims is not None and dims > dim:
        raise InputError(f"dims is {dims}, but vectors have {dim} dimensions")
    kept = None if dims == dim else dims
    if not normalize and mean is None and seed is None and kept is None and matrix is None:
        return None
    return Transform(dim, normalize, mean, seed, kept, matrix)


def config_of(config: CodeConfig, wanted: type[T]) -> T:
    """Return ``config`` if it is of the kind's own type."""
    if not isinstance(config, wanted):
        raise InputError(f"config must be {wanted.__name__}, got {type(config).__name__}")
    return config
