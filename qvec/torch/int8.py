"""One byte a dimension: with each vector's own scale, or with ranges of the dimensions that are learned."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from qvec._kernels import Codec
from qvec.calibration.calibration import LEVELS, MIN_STEP, Calibration
from qvec.quantizers.int8 import Int8Quantizer
from qvec.torch import lanes
from qvec.torch.module import FakeQuantizer, as_numpy, rotated, turned_back
from qvec.torch.straight import round_straight, scale_gradient, straight
from qvec.types import Metric


class FakeInt8(FakeQuantizer):
    """``scale * k`` with ``k = rint(x / step)``, ``step = max|x_i| / 127``: ``Int8(scale="per_vector")``.

    Nothing is learned here but by the model before: gradients are those of ``x`` (under cosine of ``x / |x|``).
    """

    def __init__(self, dim: int, metric: Metric = "cosine", *, rotate: bool = False, seed: int = 0) -> None:
        super().__init__(dim, metric, rotate, seed)

    def _quantize(self, x: Tensor) -> Tensor:
        y = rotated(self.rotation, x)
        norm2 = lanes.dot(y, y)
        target = (y * lanes.inverse_norm(norm2)[:, None]).float() if self.metric == "cosine" else y
        kept = straight(self._decoded(y.detach(), norm2.detach()), target)
        return turned_back(self.rotation, kept)

    def _decoded(self, y: Tensor, norm2: Tensor) -> Tensor:
        """What the kernels decode, in their order of operations: see ``qv_quantise`` in kernels/encode.c."""
        counted = norm2.sqrt() >= lanes.TINY_NORM
        step = torch.where(counted, y.abs().amax(1) / 127, 1.0)
        levels = (y / step[:, None]).clamp(-127, 127).round()
        along = torch.where(counted, lanes.dot(y, levels), 1.0)
        scale = torch.where(counted, norm2 / along, 0.0).float()
        if self.metric == "cosine":
            scale = (scale.double() * lanes.inverse_norm(norm2)).float()
        return scale[:, None] * levels

    def _codec(self) -> Codec:
        return self.export().codec

    def export(self) -> Int8Quantizer:
        """Give the quantizer, to be stored: its codes are :meth:`codes`."""
        return Int8Quantizer(self.dim, self.metric, self._transform(), None)


class FakeInt8PerDim(FakeQuantizer):
    """``lower + step * c``, ``c = clamp(rint((x - lower) / step), 0, 255)``: ``Int8(scale="per_dim")``.

    ``lower`` and ``step``, float32[coded dim], are parameters with the gradients of learned step size quantization
    (LSQ, Esser et al., arXiv:1902.08153, eq. 3) and of its offset (LSQ+, Bhalgat et al., arXiv:2004.09576, eq. 3), both
    scaled by ``1 / sqrt(255 n)`` for n vectors, as many values as share one step. Call :meth:`calibrate` first.
    """

    lower: nn.Parameter
    step: nn.Parameter

    def __init__(self, dim: int, metric: Metric = "cosine", *, rotate: bool = False, seed: int = 0) -> None:
        super().__init__(dim, metric, rotate, seed)
        start = 3.0 * self.coded_dim**-0.5  # three standard deviations of a unit vector's values
        self.lower = nn.Parameter(torch.full((self.coded_dim,), -start))
        self.step = nn.Parameter(torch.full((self.coded_dim,), 2 * start / LEVELS))

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def calibrate(self, sample: Tensor) -> None:
        """Start from the least and greatest value of each dimension of float32[n, dim], n >= 256."""
        ranges = Calibration.train(as_numpy(self._coded(sample)), "minmax")
        self.lower.copy_(torch.from_numpy(ranges.lower.copy()))
        self.step.copy_(torch.from_numpy(ranges.step.copy()))

    def _coded(self, x: Tensor) -> Tensor:
        y = rotated(self.rotation, x)
        return lanes.as_unit(y) if self.metric == "cosine" else y

    def _ranges(self) -> tuple[Tensor, Tensor, Tensor]:
        """lower, upper and the step between them, each float32 as a calibration keeps and derives it."""
        upper = self.lower + LEVELS * self.step.clamp_min(MIN_STEP)
        step = ((upper - self.lower) / LEVELS).clamp_min(MIN_STEP)  # rounded twice, as Calibration.steps does
        return self.lower, upper, step

    def _quantize(self, x: Tensor) -> Tensor:
        lower, _, step = self._ranges()
        factor = (LEVELS * max(1, len(x))) ** -0.5
        # The step comes from the rounded upper end: its value is that, its gradient the parameter's.
        lower, step = scale_gradient(lower, factor), scale_gradient(straight(step, self.step), factor)
        levels = round_straight(((self._coded(x) - lower) / step).clamp(0, LEVELS))
        kept = lower + step * levels
        return turned_back(self.rotation, kept)

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def _codec(self) -> Codec:
        lower, _, step = (as_numpy(end) for end in self._ranges())
        return Codec("int8", self.metric, self.coded_dim, lower=lower, step=step)

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def export(self, sample: Tensor, model: str | None = None) -> Int8Quantizer:
        """Give the quantizer, to be stored: its codes are :meth:`codes`.

        sample: float32[n, dim], n >= 256, whose statistics the calibration keeps beside the learned ranges.
        model: a tag of the embedding model.
        """
        seen = Calibration.train(as_numpy(self._coded(sample)), "minmax", model=model)
        lower, upper, _ = (as_numpy(end) for end in self._ranges())
        learned = replace(seen, method="lsq", lower=lower, upper=upper)
        return Int8Quantizer(self.dim, self.metric, self._transform(), learned)
