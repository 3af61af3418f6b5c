"""float32, float16 and bfloat16: they need no training; the codec only converts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from qvec.codes.base import Quantizer, config_of, make_transform, read_common
from qvec.codes.configs import BFloat16, CodeConfig, Float16, Float32
from qvec.codes.samples import check_vectors
from qvec.common.errors import FormatError
from qvec.common.types import CodeKind, Float32Array, Metric


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
    """IEEE 754 half precision, rounded to nearest. Each vector has a unit, a power of two, so its length is free."""

    kind: ClassVar[CodeKind] = "f16"
    config: ClassVar[type[Float16]] = Float16


@dataclass(frozen=True, eq=False)
class BFloat16Quantizer(_FloatQuantizer):
    """The upper half of each float32, rounded to nearest, ties to even; values that would be infinite saturate."""

    kind: ClassVar[CodeKind] = "bf16"
    config: ClassVar[type[BFloat16]] = BFloat16
