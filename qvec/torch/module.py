"""What the fake-quantization modules share: checks, and codes by the store's own kernels."""

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
    """float32[n, dim] in, what the code keeps of each vector out: float32[n, dim], with gradients.

    The output equals what ``export()`` decodes of what it encodes, to the last bit. A rotated code is turned
    back, so that the output stands where the input stood.
    """

    def __init__(self, dim: int, metric: Metric, rotate: bool, seed: int) -> None:
        super().__init__()
        check_int("dim", dim, 1, MAX_DIM)
        check_choice("metric", metric, get_args(Metric))
        self.dim, self.metric, self.seed = dim, metric, seed if rotate else None
        self.rotation = Rotation(dim, seed) if rotate else None

    @property
    def coded_dim(self) -> int:
        """Dimensions that the code sees: ``dim``, padded where a rotation is."""
        return self.dim if self.rotation is None else self.rotation.padded

    def forward(self, x: Tensor) -> Tensor:
        """Raise InputError unless ``x`` is float32[n, dim]: half precision has other codes."""
        if x.ndim != 2 or x.shape[1] != self.dim or x.dtype != torch.float32:
            got = f"{x.dtype} of shape {tuple(x.shape)}"
            raise InputError(f"input must be float32 of shape (n, {self.dim}), got {got}")
        with torch.autocast(x.device.type, enabled=False):
            return self._quantize(x)

    def codes(self, x: Tensor) -> Codes:
        """The bytes that a collection stores for float32[n, dim]: uint8[n, code_size]."""
        rows, transform = as_numpy(x), self._transform()
        return self._codec().encode(rows if transform is None else transform.apply(rows))

    def _transform(self) -> Transform | None:
        """What comes before the codec."""
        return make_transform(self.dim, False, None, self.seed)

    @abstractmethod
    def _codec(self) -> Codec: ...

    @abstractmethod
    def _quantize(self, x: Tensor) -> Tensor: ...


def as_numpy(x: Tensor) -> Float32Array:
    """The values of a tensor, C-contiguous, without its gradient."""
    array: Float32Array = x.detach().cpu().contiguous().numpy()
    return array


def rotated(rotation: Rotation | None, x: Tensor) -> Tensor:
    """Rotate float32[n, dim], where there is a rotation."""
    return x if rotation is None else torch.as_tensor(rotation(x))


def turned_back(rotation: Rotation | None, y: Tensor) -> Tensor:
    """Undo :func:`rotated`."""
    return y if rotation is None else rotation.inverse(y)
