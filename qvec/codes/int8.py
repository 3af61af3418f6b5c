"""One byte per dimension, with a scale per vector or with calibrated ranges of the dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self, cast, get_args

from qvec._kernels import Codec
from qvec.codes.base import config_of, read_common, rotation_of
from qvec.codes.calibrated import CalibratedQuantizer, take_calibration
from qvec.codes.configs import CodeConfig, Int8
from qvec.common.errors import FormatError
from qvec.common.plain_state import State, take_choice
from qvec.common.types import CodeKind, Float32Array, Metric, Rounding


@dataclass(frozen=True, eq=False)
class Int8Quantizer(CalibratedQuantizer):
    """``x ~ lower + step * c``, c in 0..255, with ranges from ``calibration``; None: symmetric, per vector.

    Per vector: ``step = max|x_i| / 127``, ``c_i = rint(x_i / step) + 128``. Decoding multiplies by
    ``|x|^2 / <x, c - 128>`` instead of the step, for lengths without bias (RaBitQ, arXiv:2405.12497). Calibrated:
    ``step = (upper - lower) / 255``, ``c_i = clamp(rint((x_i - lower_i) / step_i), 0, 255)``. With
    ``rounding="truncate"``, ``c_i - 128`` is ``(x_i - lower_i) / step_i - 128`` rounded towards zero, as in
    ``sentence_transformers.util.quantize_embeddings(precision="int8")``. Under cosine, unit vectors are coded; a
    vector that already has unit length is coded as given. ``calibration``: of transformed vectors.
    """

    kind: ClassVar[CodeKind] = "int8"
    levels: ClassVar[int] = 255

    rounding: Rounding = "nearest"

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn the ranges of transformed float32[n, dim], n >= ``config.min_samples``; per vector, nothing."""
        chosen = config_of(config, Int8)
        x, transform = rotation_of(sample, seed, chosen.rotate, chosen.dims)
        calibration = cls.calibrated(x, metric, transform, chosen, model)
        return cls(x.shape[1], metric, transform, calibration, chosen.rounding)

    def state(self) -> State:
        return super().state() | {"rounding": self.rounding}

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind, ("calibration", "rounding"))
        transform, calibration = common.plain_transform, take_calibration(common)
        rounding = cast(Rounding, take_choice(common.fields, "rounding", get_args(Rounding)))
        if calibration is None and rounding != "nearest":
            raise FormatError("field 'rounding' must be nearest if there is no calibration")
        return cls(common.dim, common.metric, transform, calibration, rounding)

    @property
    def oversample(self) -> float:
        return 1.25 if self.calibration is None else 2

    def _make_codec(self) -> Codec:
        if self.calibration is None:
            return super()._make_codec()
        lower, step = self.calibration.lower, self.calibration.step
        rounding = self.rounding
        return Codec(self.kind, self.metric, self.coded_dim, lower=lower, step=step, rounding=rounding)
