"""One to eight bits a dimension after a random rotation, with an unbiased estimate of each distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from qvec._kernels import Codec
from qvec.calibration.samples import check_sample, check_vectors, mean_of
from qvec.configs import CodeConfig, RaBitQ
from qvec.errors import FormatError
from qvec.fields import State, take_int
from qvec.quantizers.base import config_of, make_transform, read_common
from qvec.quantizers.bitpack import BitpackQuantizer
from qvec.types import MIN_SAMPLES_MEAN, CodeKind, Float32Array, Metric

OVERSAMPLE = {1: 30, 2: 5, 3: 3}  # 4 bits and more: 2; docs/quantization.md


@dataclass(frozen=True, eq=False)
class RaBitQuantizer(BitpackQuantizer):
    """``c_i = floor(y_i / s) + 2^(bits - 1)`` of ``y = R(x - mean)``, cut to ``bits``.

    s is the step, chosen for each vector, whose values ``v = c - (2^bits - 1) / 2`` point most nearly along y
    (arXiv:2409.09913, section 3). ``<q, y>`` is estimated as ``|y|^2 / <y, v> * <q, v>``, which has no bias
    over the rotations and an error of at most ``1.9 |q| |y| sqrt((|v|^2 |y|^2 / <y, v>^2 - 1) / (d - 1))`` in
    most cases (arXiv:2405.12497, theorem 3.2 and section 5.2.3).
    """

    kind: ClassVar[CodeKind] = "rabitq"

    bits: int

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn the mean of float32[n, dim], n >= 100, with ``centre=True``; else learn nothing."""
        chosen = config_of(config, RaBitQ)
        x = check_vectors("sample", sample, None)
        dim = x.shape[1]
        if not chosen.centre:
            return cls(dim, metric, make_transform(dim, False, None, seed, chosen.dims), chosen.bits)
        x = check_sample(x, dim, MIN_SAMPLES_MEAN, "the mean that rabitq codes are centred on")
        normalise = metric == "cosine"
        kept = make_transform(dim, normalise, None, None, chosen.dims)
        unit = x if kept is None else kept.apply(x)
        return cls(dim, metric, make_transform(dim, normalise, mean_of(unit), seed, chosen.dims), chosen.bits)

    @property
    def bits_per_dim(self) -> float:
        return self.bits

    @property
    def oversample(self) -> int:
        return OVERSAMPLE.get(self.bits, 2)

    def state(self) -> State:
        return super().state() | {"bits": self.bits}

    @classmethod
    def from_state(cls, state: object) -> Self:
        """Rebuild from ``state()``; FormatError names the field that is wrong."""
        common = read_common(state, cls.kind, ("bits",))
        if common.transform is None or common.transform.seed is None:
            raise FormatError("field 'transform' must rotate: rabitq codes are of rotated vectors")
        return cls(common.dim, common.metric, common.transform, take_int(common.fields, "bits", 1, 8))

    def make_codec(self, lift2: float = 0.0) -> Codec:
        return Codec("rabitq", self.metric, self.coded_dim, lift2=lift2, bits=self.bits, centre=self.centre)
