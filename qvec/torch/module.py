"""Base class of the fake-quantization modules."""

from __future__ import annotations

from abc import abstractmethod
from typing import get_args

import torch
from torch import Tensor, nn

from qvec._kernels import Codec
from qvec.codes.base import make_transform
from qvec.codes.transforms import Transform
from qvec.common.errors import InputError
from qvec.common.types import MAX_DIM, Codes, Float32Array, Metric, check_choice, check_int
from qvec.torch.rotation import Rotation


class FakeQuantizer(nn.Module):
    """Codes and decodes float32[n, dim], with gradients.

    The output equals, to the last bit, vectors coded and decoded by the quantizer that ``export()`` returns. A rotation
    is undone.
    """

    def __init__(self, dim: int, metric: Metric, rotate: bool, seed: int) -> None:
        super().__init__()
        check_int("dim", dim, 1, MAX_DIM)
        check_choice("metric", metric, get_args(Metric))
        self.dim, self.metric, self.seed = dim, metric, seed if rotate else None
        self.rotation = Rotation(dim, seed) if rotate else None

    @property
    def coded_dim(self) -> int:
        """Dimensions that the codec sees: ``dim``, padded by a rotation."""
        return self.dim if self.rotation is None else self.rotation.padded

    def forward(self, x: Tensor) -> Tensor:
        """Raise InputError if ``x`` is not float32[n, dim]: half precision would give other codes."""
        if x.ndim != 2 or x.shape[1] != self.dim or x.dtype != torch.float32:
            got = f"{x.dtype} of shape {tuple(x.shape)}"
            raise InputError(f"input must be float32 of shape (n, {self.dim}), got {got}")
        with torch.autocast(x.device.type, enabled=False):
            return self._quantize(x)

    def codes(self, x: Tensor) -> Codes:
        """Return the codes that a collection stores for float32[n, dim]: uint8[n, code_size]."""
        rows, transform = as_numpy(x), self._transform()
        return self._codec().encode(rows if transform is None else transform.apply(rows))

    def _transform(self) -> Transform | None:
        """The transform before the codec."""
        return make_transform(self.dim, False, None, self.seed)

    @abstractmethod
    def _codec(self) -> Codec: ...

    @abstractmethod
    def _quantize(self, x: Tensor) -> Tensor: ...


def as_numpy(x: Tensor) -> Float32Array:
    """Return the values of a tensor, C-contiguous, without gradient."""
    array: Float32Array = x.detach().cpu().contiguous().numpy()
    return array


def rotated(rotation: Rotation | None, x: Tensor) -> Tensor:
    """Rotate float32[n, dim] if there is a rotation."""
    return x if rotation is None else torch.as_tensor(rotation(x))


def rotated_back(rotation: Rotation | None, y: Tensor) -> Tensor:
    """Undo :func:`rotated`."""
    return y if rotation is None else rotation.inverse(y)
