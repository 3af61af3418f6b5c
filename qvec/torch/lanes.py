"""Sums in the order of the C kernels (codec/lanes.h), so that training sees the stored values to the last bit.

Only elementwise operations are used: they round the same on all devices, while reductions add in different orders.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 64
UNIT_ERROR = 1e-6  # QV_UNIT_ERROR of the kernels
TINY_NORM = 2.0**-100  # shorter vectors count as zero


def dot(x: Tensor, y: Tensor) -> Tensor:
    """<x, y> of float32[n, dim] rows as float64[n]: eight lanes per block of 64, folded; blocks are added in order."""
    products = pad(x.double() * y.double(), (0, -x.shape[1] % BLOCK)).reshape(len(x), -1, 8, 8)
    lanes = torch.zeros_like(products[:, :, 0])
    for step in products.unbind(2):
        lanes = lanes + step
    a, b, c, d, e, f, g, h = lanes.unbind(2)
    blocks = ((a + e) + (c + g)) + ((b + f) + (d + h))
    total = torch.zeros_like(blocks[:, 0])
    for block in blocks.unbind(1):
        total = total + block
    return total


def inverse_norm(norm2: Tensor) -> Tensor:
    """1 / |x| from squared lengths float64[n]; 0, without a gradient, for vectors that count as zero."""
    counted = norm2.sqrt() >= TINY_NORM
    return torch.where(counted, 1 / torch.where(counted, norm2, torch.ones_like(norm2)).sqrt(), 0.0)


def as_unit(x: Tensor) -> Tensor:
    """Normalize, except vectors that have unit length already, as calibrated codes do."""
    norm2 = dot(x, x)
    unit = torch.where((norm2 - 1).abs() <= UNIT_ERROR, 1.0, inverse_norm(norm2))
    return (x * unit[:, None]).float()


def normalized(x: Tensor) -> Tensor:
    """Normalize to float32[n, dim], rounded once; vectors that count as zero become zero."""
    return (x * inverse_norm(dot(x, x))[:, None]).float()
