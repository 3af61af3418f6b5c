"""Adapters: learned linear maps, applied to vectors and queries before encoding. :mod:`qvec.qat` trains them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, cast, get_args

from qvec.codes.base import after
from qvec.codes.configs import Binary, CodeConfig, RaBitQ, Ternary
from qvec.codes.registry import Quantizer, code_from_dict, code_to_dict, train
from qvec.codes.samples import check_vectors
from qvec.codes.transforms import MAX_SEED, Transform
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, take_choice, take_int, take_state, take_version
from qvec.common.types import Float32Array, Metric, check_choice, check_int

VERSION = 1
_FIELDS = ("version", "metric", "code", "seed", "transform")


@dataclass(frozen=True, eq=False)
class Adapter:
    """``M^T (x' - mean)``, with ``x' = x / |x|`` if the transform normalizes. Trained for one code.

    ``transform``: maps float32[n, dim] to float32[n, out], without the rotation, which is part of the code. ``code``:
    the code that the adapter was trained for; it can be used with other codes. ``seed``: seed of the rotation in
    training.
    """

    metric: Metric
    code: CodeConfig
    seed: int
    transform: Transform

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, get_args(Metric))
        check_int("seed", self.seed, 0, MAX_SEED)
        if self.transform.matrix is None or self.transform.seed is not None:
            raise InputError("an adapter's transform must have a matrix and no rotation: the code rotates")

    @property
    def dim(self) -> int:
        """The number of dimensions of the input."""
        return self.transform.dim

    def apply(self, x: Float32Array) -> Float32Array:
        """Map vectors or queries, float32[n, dim], to float32[n, out]."""
        return self.transform.apply(check_vectors("vectors", x, self.dim))

    def quantizer(self, sample: Float32Array, code: CodeConfig | None = None, model: str | None = None) -> Quantizer:
        """Train ``code`` (None: the adapter's own) on adapted vectors.

        sample: float32[n, dim]; the code determines the smallest n. InputError: the sample is too small, or the code
        centers or normalizes, which the adapter already does.
        """
        if (code or self.code).kind in ("f32", "f16"):
            raise InputError(f"{(code or self.code).kind} stores vectors as they are: an adapter needs another code")
        inner = train(self.apply(sample), self.metric, code or self.code, self.seed, model)
        try:
            return after(self.transform, inner)
        except InputError as error:
            raise InputError(f"{error}: an adapter needs a code without center and projection") from None

    def check(self, dim: int, metric: str) -> None:
        """Raise InputError if a collection of this dimension and metric cannot use the adapter."""
        if (dim, metric) != (self.dim, self.metric):
            raise InputError(f"the adapter is for {self.dim} dimensions under {self.metric}, not {dim} under {metric}")

    def state(self) -> State:
        """Return the adapter as plain msgpack data."""
        return {
            "version": VERSION,
            "metric": self.metric,
            "code": code_to_dict(self.code),
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
            return cls(metric, code_from_dict(fields["code"]), seed, Transform.from_state(fields["transform"]))
        except InputError as error:
            raise FormatError(f"adapter: {error}") from None


def adapted_config(config: CodeConfig) -> CodeConfig:
    """Return the code without centering: the training of adapters does not model centroids."""
    if isinstance(config, Binary):
        return replace(config, center=False)
    return replace(config, centroids=0) if isinstance(config, RaBitQ | Ternary) else config
