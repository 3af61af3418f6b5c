"""float32, float16 and bfloat16: they need no training; the codec only converts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from qvec.codes.base import Quantizer, config_of, make_transform, read_common
from qvec.codes.configs import BFloat16, CodeConfig, Float16, Float32
from qvec.codes.samples import check_vectors
from qvec.common.errors import FormatError, InputError
from qvec.common.types import CodeKind, Codes, Float32Array, Metric

_FIRST_BEYOND = 65_520.0  # float16 rounds it to infinity
_ROUNDS_TO_ZERO = 2.0**-25  # the largest value that float16 rounds to zero


@dataclass(frozen=True, eq=False)
class _FloatQuantizer(Quantizer):
    oversample: ClassVar[int] = 1
    config: ClassVar[type[Float32] | type[Float16] | type[BFloat16]]

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Take the dimension from float32[n, dim]; values, seed and model are not used."""
        dim = check_vectors("sample", sample, None).shape[1]
        return cls(dim, metric, make_transform(dim, False, None, None, config_of(config, cls.config).dims))

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind)
        t = common.transform
        if t is not None and (t.normalize or t.mean is not None or t.seed is not None):
            raise FormatError(f"field 'transform' may only truncate for {cls.kind}")
        return cls(common.dim, common.metric, t)


@dataclass(frozen=True, eq=False)
class Float32Quantizer(_FloatQuantizer):
    """Unchanged float32 vectors."""

    kind: ClassVar[CodeKind] = "f32"
    config: ClassVar[type[Float32]] = Float32


@dataclass(frozen=True, eq=False)
class Float16Quantizer(_FloatQuantizer):
    """IEEE 754 half precision, rounded to nearest.

    Under cosine each vector has a unit, a power of two, so that its length is of no importance. Under other metrics
    values above 65,504 are refused, as are vectors that would become zero.
    """

    kind: ClassVar[CodeKind] = "f16"
    config: ClassVar[type[Float16]] = Float16

    @property
    def limited(self) -> bool:
        return self.metric != "cosine"

    def check_range(self, name: str, x: Float32Array, first: int = 0) -> None:
        if not self.limited:
            return
        sizes = np.abs(x[:, : self.coded_dim])
        largest = sizes.max(axis=1, initial=0)
        bad = np.flatnonzero((largest >= _FIRST_BEYOND) | ((largest <= _ROUNDS_TO_ZERO) & (largest > 0)))
        if not len(bad):
            return
        row, column = first + bad[0], int(sizes[bad[0]].argmax())
        value = x[bad[0], column]
        if largest[bad[0]] >= _FIRST_BEYOND:
            raise InputError(
                f"{name}[{row}, {column}] is {value}: float16 ends at 65504; use bf16 or f32, or scale down"
            )
        raise InputError(
            f"{name}[{row}] would be the zero vector in float16: its largest value, in dimension {column}, "
            f"is {value}; use bf16 or f32, or scale up"
        )

    def encode(self, x: Float32Array) -> Codes:
        x = check_vectors("vectors", x, self.dim)
        self.check_range("vectors", x)
        return super().encode(x)


@dataclass(frozen=True, eq=False)
class BFloat16Quantizer(_FloatQuantizer):
    """The upper half of each float32, rounded to nearest, ties to even; values that would be infinite saturate."""

    kind: ClassVar[CodeKind] = "bf16"
    config: ClassVar[type[BFloat16]] = BFloat16
