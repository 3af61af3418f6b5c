"""Fake binary codes: one bit per dimension, with a learned center."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qvec._kernels import Codec
from qvec.codes.base import make_transform
from qvec.codes.binary import BinaryQuantizer
from qvec.codes.samples import check_sample, mean_of
from qvec.codes.transforms import Transform
from qvec.common.types import Metric
from qvec.torch.lanes import normalized
from qvec.torch.module import FakeQuantizer, as_numpy, rotated, rotated_back
from qvec.torch.straight import straight


class FakeBinary(FakeQuantizer):
    """``sign(y) / sqrt(padded)`` of ``y = R(x - mean)``: see :class:`qvec.codes.binary.BinaryQuantizer`.

    ``mean`` float32[dim] is a parameter, the threshold of each bit; it starts at 0 or at :meth:`calibrate`. Gradients
    are those of the unit vector ``u = y / |y|``, and 0 where ``|u_i| > clip / sqrt(padded)``, as a bit far from its
    threshold will not flip (the hard tanh of Hubara et al., arXiv:1602.02830, section 1.2, scaled to unit vectors).
    """

    mean: nn.Parameter

    def __init__(
        self, dim: int, metric: Metric = "cosine", *, rotate: bool = True, seed: int = 0, clip: float = 3.0
    ) -> None:
        super().__init__(dim, metric, rotate, seed)
        self.clip = clip
        self.mean = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def calibrate(self, sample: Tensor) -> None:
        """Center on float32[n, dim], n >= 1."""
        x = check_sample(as_numpy(normalized(sample) if self.metric == "cosine" else sample), self.dim, 1, "the mean")
        self.mean.copy_(torch.from_numpy(mean_of(x)))

    def _quantize(self, x: Tensor) -> Tensor:
        centered = (normalized(x) if self.metric == "cosine" else x) - self.mean
        y = rotated(self.rotation, centered)
        signs = torch.where(y.detach() > 0, 1.0, -1.0)
        length = y.square().sum(1, keepdim=True).sqrt().clamp_min(1e-30)
        unit = y / length
        near = unit.detach().abs() * y.shape[1] ** 0.5 <= self.clip
        kept = straight(signs, torch.where(near, unit, unit.detach()) * y.shape[1] ** 0.5)
        return self._unit(rotated_back(self.rotation, kept))

    def _unit(self, x: Tensor) -> Tensor:
        # NumPy's sum, as in the quantizer. All rows have the same number of bits, so the lengths are constants.
        lengths = np.linalg.norm(as_numpy(x), axis=1, keepdims=True)
        return x / torch.from_numpy(np.maximum(lengths, np.float32(1e-30))).to(x.device)

    def _transform(self) -> Transform | None:
        return make_transform(self.dim, self.metric == "cosine", as_numpy(self.mean).copy(), self.seed)

    def _codec(self) -> Codec:
        return self.export().codec

    def export(self) -> BinaryQuantizer:
        """Return the quantizer to store; its codes equal :meth:`codes`."""
        return BinaryQuantizer(self.dim, self.metric, self._transform())
