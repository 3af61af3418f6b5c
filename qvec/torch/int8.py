"""Fake int8 codes with a scale per vector."""

from __future__ import annotations

import torch
from torch import Tensor

from qvec._kernels import Codec
from qvec.codes.int8 import Int8Quantizer
from qvec.common.types import Metric
from qvec.torch import lanes
from qvec.torch.module import FakeQuantizer, rotated, rotated_back
from qvec.torch.straight import straight


class FakeInt8(FakeQuantizer):
    """``scale * k`` with ``k = rint(x / step)``, ``step = max|x_i| / 127``: ``Int8(scale="per_vector")``.

    The module has no parameters. Gradients are those of ``x`` (under cosine, of ``x / |x|``).
    """

    def __init__(self, dim: int, metric: Metric = "cosine", *, rotate: bool = False, seed: int = 0) -> None:
        super().__init__(dim, metric, rotate, seed)

    def _quantize(self, x: Tensor) -> Tensor:
        y = rotated(self.rotation, x)
        norm2 = lanes.dot(y, y)
        target = (y * lanes.inverse_norm(norm2)[:, None]).float() if self.metric == "cosine" else y
        kept = straight(self._decoded(y.detach(), norm2.detach()), target)
        return rotated_back(self.rotation, kept)

    def _decoded(self, y: Tensor, norm2: Tensor) -> Tensor:
        """Decoded codes, computed in the order of the kernels: see ``qv_quantize`` in kernels/codec/encode.c."""
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
        """Return the quantizer to store; its codes equal :meth:`codes`."""
        return Int8Quantizer(self.dim, self.metric, self._transform(), None)
