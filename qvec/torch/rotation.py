"""The seeded fast Hadamard rotation and its inverse, with gradients, in the C kernel's order of operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from qvec.codes.transforms import ROUNDS, rotation_signs

HALF_ROOT = float(np.float32(0.5**0.5))


class Rotation(nn.Module):
    """``R x`` of float32[n, dim] as float32[n, padded], padded to a multiple of 64: see :class:`Transform`."""

    flips: Tensor

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        self.dim, self.padded = dim, -(-dim // 64) * 64
        self.power = 1 << (self.padded.bit_length() - 1)
        bits = np.unpackbits(rotation_signs(seed, self.padded), bitorder="little").reshape(ROUNDS, self.padded)
        self.register_buffer("flips", torch.from_numpy(1.0 - 2.0 * bits.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out = pad(x, (0, self.padded - self.dim))
        scale = float(np.float32(1 / np.sqrt(self.power)))
        for r in range(ROUNDS):
            out = self._transformed(out * self.flips[r], r, lambda y: _hadamard(y * scale, 1.0))
            if self.power < self.padded:
                out = _butterfly(out, self.padded // 2) * HALF_ROOT
        return out

    def inverse(self, y: Tensor) -> Tensor:
        """Rotate float32[n, padded] back to float32[n, dim], as :meth:`Transform.unrotate` does."""
        for r in reversed(range(ROUNDS)):
            if self.power < self.padded:
                y = _butterfly(y * HALF_ROOT, self.padded // 2)
            y = self._transformed(y, r, lambda z: _hadamard(z, HALF_ROOT)) * self.flips[r]
        return y[:, : self.dim]

    def _transformed(self, x: Tensor, r: int, hadamard: Callable[[Tensor], Tensor]) -> Tensor:
        """Transform the first 2^k dims in even rounds, the last in odd ones."""
        if self.power == self.padded:
            return hadamard(x)
        if r % 2 == 0:
            return torch.cat((hadamard(x[:, : self.power]), x[:, self.power :]), 1)
        start = self.padded - self.power
        return torch.cat((x[:, :start], hadamard(x[:, start:])), 1)


def _hadamard(x: Tensor, scale: float) -> Tensor:
    half = 1
    while half < x.shape[1]:
        x = _butterfly(x if scale == 1.0 else x * scale, half)
        half *= 2
    return x


def _butterfly(x: Tensor, half: int) -> Tensor:
    a, b = x.reshape(len(x), -1, 2, half).unbind(2)
    return torch.stack((a + b, a - b), 2).reshape(x.shape)
