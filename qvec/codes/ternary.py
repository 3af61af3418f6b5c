"""Two bits per dimension: -1, 0 or 1, with a scale per vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from qvec._kernels import Codec
from qvec.codes.base import Quantizer, coded_sample, config_of, read_common, rotation_of
from qvec.codes.centroids import Centroids, codec_options
from qvec.codes.configs import CodeConfig, Ternary
from qvec.common.plain_state import State
from qvec.common.types import CodeKind, Float32Array, Metric


@dataclass(frozen=True, eq=False)
class TernaryQuantizer(Quantizer):
    """``x ~ center + scale * t``, ``t_i = sign(y_i) [|y_i| > a / 2]``, y = x - center.

    ``a`` is the mean of the ``|y_i|`` above ``a / 2``: the fixed point that minimizes ``|y - a t|`` (ternary weight
    networks, Li, Zhang and Liu, arXiv:1605.04711, eq. 5 and 6). The iteration starts from the optimum of a normal
    distribution, a = 1.224 standard deviations (Max, IRE Trans. Inf. Theory 1960). Decoding multiplies by
    ``|y|^2 / <y, t>``, for lengths without bias (RaBitQ, arXiv:2405.12497). Queries have 8 bits per dimension.
    ``centroids``: of transformed vectors, or None.
    """

    kind: ClassVar[CodeKind] = "ternary"
    oversample: ClassVar[int] = 10

    centroids: Centroids | None

    @property
    def bits_per_dim(self) -> float:
        return 2  # rows are padded to 16 bytes

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn centroids of transformed float32[n, dim], n >= ``config.min_samples``; with 0 centroids, nothing."""
        chosen = config_of(config, Ternary)
        x, transform = rotation_of(sample, seed, chosen.rotate, chosen.dims)
        centroids = Centroids.learn(coded_sample(x, metric, transform), chosen.centroids, seed, cls.kind)
        return cls(x.shape[1], metric, transform, centroids)

    def state(self) -> State:
        return super().state() | {"centroids": self.centroids and self.centroids.state()}

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind, ("centroids",))
        centroids = Centroids.from_state(common.fields["centroids"], common.coded_dim)
        return cls(common.dim, common.metric, common.plain_transform, centroids)

    def _make_codec(self) -> Codec:
        return Codec(self.kind, self.metric, self.coded_dim, **codec_options(self.centroids))
