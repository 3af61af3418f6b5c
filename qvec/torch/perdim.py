"""Fake int8 and int4 codes with a learned range per dimension."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from qvec._kernels import Codec
from qvec.codes.calibration import MIN_STEP, Calibration
from qvec.codes.int4 import Int4Quantizer
from qvec.codes.int8 import Int8Quantizer
from qvec.common.types import CalibrationMethod, CodeKind, Metric
from qvec.torch import lanes
from qvec.torch.module import FakeQuantizer, as_numpy, rotated, rotated_back
from qvec.torch.straight import round_straight, scale_gradient, straight


class _FakePerDim(FakeQuantizer):
    """``lower + step * c``, ``c = clamp(rint((x - lower) / step), 0, levels)``.

    ``lower`` and ``step``, float32[coded dim], are parameters with the gradients of learned step size quantization
    (LSQ, Esser et al., arXiv:1902.08153, eq. 3) and of its offset (LSQ+, Bhalgat et al., arXiv:2004.09576, eq. 3), both
    scaled by ``1 / sqrt(levels n)`` for n vectors, the number of values that share a step. Call :meth:`calibrate`
    first.
    """

    kind: ClassVar[CodeKind]
    levels: ClassVar[int]
    method: ClassVar[CalibrationMethod]

    lower: nn.Parameter
    step: nn.Parameter

    def __init__(self, dim: int, metric: Metric = "cosine", *, rotate: bool = False, seed: int = 0) -> None:
        super().__init__(dim, metric, rotate, seed)
        start = 3.0 * self.coded_dim**-0.5  # three standard deviations of a unit vector's values
        self.lower = nn.Parameter(torch.full((self.coded_dim,), -start))
        self.step = nn.Parameter(torch.full((self.coded_dim,), 2 * start / self.levels))

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def calibrate(self, sample: Tensor) -> None:
        """Set the ranges to those that the code learns from float32[n, dim], n >= 256."""
        params = {"levels": self.levels} if self.method == "mse" else {}
        ranges = Calibration.train(as_numpy(self._coded(sample)), self.method, params)
        self.lower.copy_(torch.from_numpy(ranges.lower.copy()))
        self.step.copy_(torch.from_numpy(ranges.steps(self.levels).copy()))

    def _coded(self, x: Tensor) -> Tensor:
        y = rotated(self.rotation, x)
        return lanes.as_unit(y) if self.metric == "cosine" else y

    def _ranges(self) -> tuple[Tensor, Tensor, Tensor]:
        """lower, upper and step as float32, with the rounding of a stored calibration."""
        upper = self.lower + self.levels * self.step.clamp_min(MIN_STEP)
        step = ((upper - self.lower) / self.levels).clamp_min(MIN_STEP)  # rounded twice, as Calibration.steps does
        return self.lower, upper, step

    def _quantize(self, x: Tensor) -> Tensor:
        lower, _, step = self._ranges()
        factor = (self.levels * max(1, len(x))) ** -0.5
        # The value of the step is derived from the rounded upper end; its gradient is that of the parameter.
        lower, step = scale_gradient(lower, factor), scale_gradient(straight(step, self.step), factor)
        levels = round_straight(((self._coded(x) - lower) / step).clamp(0, self.levels))
        kept = lower + step * levels
        return rotated_back(self.rotation, kept)

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def _codec(self) -> Codec:
        lower, _, step = (as_numpy(end) for end in self._ranges())
        return Codec(self.kind, self.metric, self.coded_dim, lower=lower, step=step)

    def _learned(self, sample: Tensor, model: str | None) -> Calibration:
        seen = Calibration.train(as_numpy(self._coded(sample)), "minmax", model=model)
        lower, upper, _ = (as_numpy(end) for end in self._ranges())
        return replace(seen, method="lsq", lower=lower, upper=upper)


class FakeInt8PerDim(_FakePerDim):
    """``Int8(scale="per_dim")``: 256 evenly spaced values per dimension; see :class:`_FakePerDim`."""

    kind = "int8"
    levels = 255
    method = "minmax"

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def export(self, sample: Tensor, model: str | None = None) -> Int8Quantizer:
        """Return the quantizer to store; its codes equal :meth:`codes`.

        sample: float32[n, dim], n >= 256; the calibration stores its statistics with the learned ranges.
        model: a tag of the embedding model.
        """
        return Int8Quantizer(self.dim, self.metric, self._transform(), self._learned(sample, model))


class FakeInt4PerDim(_FakePerDim):
    """``Int4(scale="per_dim")``: 16 evenly spaced values per dimension; ranges start at the least squared error."""

    kind = "int4"
    levels = 15
    method = "mse"

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def export(self, sample: Tensor, model: str | None = None) -> Int4Quantizer:
        """Return the quantizer to store; see :meth:`FakeInt8PerDim.export`."""
        return Int4Quantizer(self.dim, self.metric, self._transform(), self._learned(sample, model))
