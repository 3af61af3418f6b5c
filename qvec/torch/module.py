"""What the fake-quantization modules share: checks, codes by the store's own kernels, the export."""

from __future__ import annotations

from abc import abstractmethod
from typing import get_args

import torch
from torch import Tensor, nn

from qvec.errors import InputError
from qvec.quantizers import Quantizer
from qvec.types import MAX_DIM, Codes, Float32Array, Metric, check_choice, check_int


class FakeQuantizer(nn.Module):
    """float32[n, dim] in, what the code keeps of each vector out: float32[n, dim], with gradients.

    The output equals ``export().decode(export().encode(x))`` to the last bit, on any device. A rotated code is turned
    back, so that the output stands where the input stood.
    """

    def __init__(self, dim: int, metric: Metric) -> None:
        super().__init__()
        check_int("dim", dim, 1, MAX_DIM)
        check_choice("metric", metric, get_args(Metric))
        self.dim, self.metric = dim, metric

    def forward(self, x: Tensor) -> Tensor:
        """Raise InputError unless ``x`` is float32[n, dim]; mixed precision must be left before codes are made."""
        if x.ndim != 2 or x.shape[1] != self.dim or x.dtype != torch.float32:
            raise InputError(f"input must be float32 of shape (n, {self.dim}), got {x.dtype} of shape {tuple(x.shape)}")
        device = x.device.type
        with torch.autocast(device, enabled=False):
            return self._quantize(x)

    def codes(self, x: Tensor) -> Codes:
        """The bytes that a collection stores for float32[n, dim]: uint8[n, code_size]."""
        return self.quantizer().encode(_to_numpy(x))

    @abstractmethod
    def quantizer(self) -> Quantizer:
        """The quantizer of the module as it is now."""

    @abstractmethod
    def _quantize(self, x: Tensor) -> Tensor: ...


def _to_numpy(x: Tensor) -> Float32Array:
    array: Float32Array = x.detach().cpu().numpy()
    return array
