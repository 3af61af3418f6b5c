"""Half a byte per dimension: 16 levels, with a scale per vector or with calibrated ranges of the dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from qvec._kernels import Codec
from qvec.codes.base import coded_sample, config_of, read_common, rotation_of
from qvec.codes.calibrated import CalibratedQuantizer, take_calibration
from qvec.codes.centroids import Centroids, codec_options
from qvec.codes.configs import CodeConfig, Int4
from qvec.common.errors import FormatError
from qvec.common.plain_state import State
from qvec.common.types import CodeKind, Float32Array, Metric


@dataclass(frozen=True, eq=False)
class Int4Quantizer(CalibratedQuantizer):
    """Per vector ``x ~ center + scale * (2c - 15)``, calibrated ``x ~ lower + step * c``, c in 0..15.

    Per vector, the step has the least squared error: Lloyd's iterations (IEEE Trans. Inf. Theory 1982) start from the
    optimum of a normal distribution, .3352 standard deviations (Max, IRE Trans. Inf. Theory 1960, table II). Decoding
    multiplies by ``|y|^2 / <y, 2c - 15>``, y = x - center, for lengths without bias (RaBitQ, arXiv:2405.12497).
    Calibrated: as :class:`Int8Quantizer`, with 15 steps. ``centroids``: of transformed vectors, or None.
    """

    kind: ClassVar[CodeKind] = "int4"
    levels: ClassVar[int] = 15

    centroids: Centroids | None = None

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn ranges or centroids of transformed float32[n, dim], n >= ``config.min_samples``, or nothing."""
        chosen = config_of(config, Int4)
        x, transform = rotation_of(sample, seed, chosen.rotate, chosen.dims)
        calibration = cls.calibrated(x, metric, transform, chosen, model)
        wanted = chosen.centroids if chosen.scale == "per_vector" else 0
        centroids = Centroids.learn(coded_sample(x, metric, transform), wanted, seed, cls.kind)
        return cls(x.shape[1], metric, transform, calibration, centroids)

    def state(self) -> State:
        return super().state() | {"centroids": self.centroids and self.centroids.state()}

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind, ("calibration", "centroids"))
        transform = common.plain_transform
        calibration = take_calibration(common)
        centroids = Centroids.from_state(common.fields["centroids"], common.coded_dim)
        if calibration is not None and centroids is not None:
            raise FormatError("field 'centroids' must be empty if there is a calibration")
        return cls(common.dim, common.metric, transform, calibration, centroids)

    @property
    def oversample(self) -> float:
        return 2 if self.centroids is not None else 3

    def _make_codec(self) -> Codec:
        if self.centroids is None:
            return super()._make_codec()
        return Codec(self.kind, self.metric, self.coded_dim, **codec_options(self.centroids))
