"""A learned linear map that vectors and queries go through before they are coded: made by :mod:`qvec.qat`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self, cast, get_args

from qvec.codes.base import CodecQuantizer
from qvec.codes.configs import Binary, CodeConfig, RaBitQ, Ternary
from qvec.codes.registry import CONFIGS, Quantizer, train
from qvec.codes.samples import check_vectors
from qvec.codes.transforms import MAX_SEED, Transform
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, take_choice, take_int, take_state, take_version
from qvec.common.types import Float32Array, Metric, check_choice, check_int

VERSION = 1
_FIELDS = ("version", "metric", "code", "seed", "transform")


@dataclass(frozen=True, eq=False)
class Adapter:
    """``M^T (x' - mean)``, with ``x' = x / |x|`` where the transform normalizes, learned for one code.

    ``transform``: float32[n, dim] in, float32[n, out] out; without a rotation, which the code brings. ``code``: what
    it was learned for; other codes take it too. ``seed``: of the rotation that it was learned under.
    """

    metric: Metric
    code: CodeConfig
    seed: int
    transform: Transform

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, get_args(Metric))
        check_int("seed", self.seed, 0, MAX_SEED)
        if self.transform.matrix is None or self.transform.seed is not None:
            raise InputError("an adapter's transform must have a matrix and no rotation: the code brings that")

    @property
    def dim(self) -> int:
        """Values of a vector that comes in."""
        return self.transform.dim

    def apply(self, x: Float32Array) -> Float32Array:
        """Map float32[n, dim], vectors or queries alike, to float32[n, out]."""
        return self.transform.apply(check_vectors("vectors", x, self.dim))

    def quantizer(self, sample: Float32Array, code: CodeConfig | None = None, model: str | None = None) -> Quantizer:
        """Train ``code`` (None: the adapter's own) on adapted vectors.

        sample: float32[n, dim]; n as the code needs, from 0. Raises InputError: the sample is too small, or the code
        centroids or normalizes by itself, which the adapter has done.
        """
        if (code or self.code).kind in ("f32", "f16"):
            raise InputError(f"{(code or self.code).kind} stores vectors as they are: an adapter needs another code")
        inner = train(self.apply(sample), self.metric, code or self.code, self.seed, model)
        own = cast(CodecQuantizer, inner).transform
        if own is not None and (own.normalize or own.mean is not None or own.matrix is not None):
            raise InputError(
                f"{code or self.code} transforms vectors by itself: an adapter needs a code without center"
            )
        seed = None if own is None else own.seed
        t = self.transform
        whole = Transform(t.dim, t.normalize, t.mean, seed, t.dims, t.matrix)
        return cast(Quantizer, replace(cast(Any, inner), dim=self.dim, transform=whole))

    def check(self, dim: int, metric: str) -> None:
        """Raise InputError unless a collection of this dimension and metric can take the adapter."""
        if (dim, metric) != (self.dim, self.metric):
            raise InputError(f"the adapter is for {self.dim} dimensions under {self.metric}, not {dim} under {metric}")

    def state(self) -> State:
        """Give the adapter as plain msgpack data."""
        code = {"kind": self.code.kind, **asdict(self.code)}
        return {
            "version": VERSION,
            "metric": self.metric,
            "code": code,
            "seed": self.seed,
            "transform": self.transform.state(),
        }

    @classmethod
    def from_state(cls, state: object) -> Self:
        """Rebuild from :meth:`state`; FormatError names the field that is wrong."""
        fields = take_state(state, "adapter", _FIELDS)
        take_version(fields, VERSION)
        metric = cast(Metric, take_choice(fields, "metric", get_args(Metric)))
        seed = take_int(fields, "seed", 0, MAX_SEED)
        try:
            return cls(metric, _take_code(fields["code"]), seed, Transform.from_state(fields["transform"]))
        except InputError as error:
            raise FormatError(f"adapter: {error}") from None


def _take_code(state: object) -> CodeConfig:
    if not isinstance(state, dict) or "kind" not in state:
        raise FormatError("adapter: field 'code' must be a mapping with a kind")
    config = CONFIGS[take_choice(state, "kind", CONFIGS)]
    fields = take_state(state, "adapter's code", ("kind", *config.__dataclass_fields__))
    return config(**{name: value for name, value in fields.items() if name != "kind"})


def adapted_config(config: CodeConfig) -> CodeConfig:
    """The code as it goes with an adapter: not centered, as training does not see centroids."""
    if isinstance(config, Binary):
        return replace(config, center=False)
    return replace(config, centroids=0) if isinstance(config, RaBitQ | Ternary) else config
