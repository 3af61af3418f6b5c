"""One to eight bits per dimension after a random rotation, with an unbiased estimate of each distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from qvec._kernels import Codec
from qvec.codes.base import Quantizer, coded_sample, config_of, read_common, rotation_of
from qvec.codes.centroids import Centroids, codec_options
from qvec.codes.configs import CodeConfig, RaBitQ
from qvec.common.errors import FormatError
from qvec.common.plain_state import State, take_int
from qvec.common.types import CodeKind, Float32Array, Metric

OVERSAMPLE = {1: 15, 2: 5, 3: 3}  # by bits; 2 for 4 bits and more (docs/quantization.md)


@dataclass(frozen=True, eq=False)
class RaBitQuantizer(Quantizer):
    """``c_i = floor(y_i / s) + 2^(bits - 1)`` with ``y = R x - center``, clipped to ``bits``.

    The step s of a vector is the one for which ``v = c - (2^bits - 1) / 2`` has the smallest angle to y
    (arXiv:2409.09913, section 3). ``<q, y>`` is estimated as ``|y|^2 / <y, v> * <q, v>``. The estimate has no bias
    over random rotations; with high probability its error is at most
    ``1.9 |q| |y| sqrt((|v|^2 |y|^2 / <y, v>^2 - 1) / (d - 1))`` (arXiv:2405.12497, theorem 3.2 and section 5.2.3).
    ``centroids``: of rotated vectors, or None.
    """

    kind: ClassVar[CodeKind] = "rabitq"

    bits: int
    centroids: Centroids | None

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn centroids of rotated float32[n, dim], n >= ``config.min_samples``; with 0 centroids, nothing."""
        chosen = config_of(config, RaBitQ)
        x, transform = rotation_of(sample, seed, True, chosen.dims)
        centroids = Centroids.learn(coded_sample(x, metric, transform), chosen.centroids, seed, cls.kind)
        return cls(x.shape[1], metric, transform, chosen.bits, centroids)

    @property
    def bits_per_dim(self) -> float:
        return self.bits

    @property
    def oversample(self) -> int:
        return OVERSAMPLE.get(self.bits, 2)

    def state(self) -> State:
        return super().state() | {"bits": self.bits, "centroids": self.centroids and self.centroids.state()}

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind, ("bits", "centroids"))
        transform = common.plain_transform
        if transform is None or transform.seed is None:
            raise FormatError("field 'transform' must rotate: rabitq codes are of rotated vectors")
        centroids = Centroids.from_state(common.fields["centroids"], common.coded_dim)
        return cls(common.dim, common.metric, transform, take_int(common.fields, "bits", 1, 8), centroids)

    def _make_codec(self) -> Codec:
        options = codec_options(self.centroids)
        return Codec("rabitq", self.metric, self.coded_dim, bits=self.bits, **options)
