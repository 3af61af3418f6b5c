"""Differentiable versions of codes, with straight-through gradients, for the training of adapters.

The formulas are those of the quantizers, but sums are added in another order: results differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from qvec.codes.configs import CodeConfig, projection_of
from qvec.common.errors import InputError
from qvec.torch.straight import straight


class FakeCode(NamedTuple):
    """Maps rotated ``documents`` and ``queries``, float32[n, d], to vectors whose dot products are the scores."""

    documents: Callable[[Tensor], Tensor]
    queries: Callable[[Tensor], Tensor]


def directions(y: Tensor) -> Tensor:
    """``y / |y|``."""
    length: Tensor = torch.linalg.vector_norm(y, dim=1, keepdim=True)
    return y / length.clamp_min(1e-30)


def signs(y: Tensor) -> Tensor:
    """``sign(y) / sqrt(d)``: one bit per dimension, as a unit vector."""
    kept = torch.where(y > 0, 1.0, -1.0) / y.shape[1] ** 0.5
    return straight(kept, directions(y))


def unbiased(y: Tensor, levels: Tensor) -> Tensor:
    """``levels |y| / <y, levels>``: scaled so that scores have no bias (arXiv:2405.12497)."""
    along = (y * levels).sum(1, keepdim=True).clamp_min(1e-30)
    return levels * torch.linalg.vector_norm(y, dim=1, keepdim=True) / along


def one_bit(y: Tensor) -> Tensor:
    """Signs, scored with float queries (RaBitQ, arXiv:2405.12497, eq. 20)."""
    return straight(unbiased(y, torch.where(y > 0, 1.0, -1.0)).detach(), directions(y))


def three_levels(y: Tensor) -> Tensor:
    """-1, 0 and 1, thresholds at 0.6 of the root mean square (Li, Zhang and Liu, arXiv:1605.04711, section 2.2)."""
    cut = 0.6 * y.square().mean(1, keepdim=True).sqrt()
    return straight(unbiased(y, torch.where(y.abs() > cut, y.sign(), 0.0)).detach(), directions(y))


CODES = {
    "binary": FakeCode(signs, signs),
    "ternary": FakeCode(three_levels, directions),
    "rabitq1": FakeCode(one_bit, directions),
}
FLOAT = FakeCode(directions, directions)


def fake_code(config: CodeConfig) -> FakeCode:
    """Return the differentiable version of a code; InputError if there is none."""
    name = f"{config.kind}{getattr(config, 'bits', '')}"
    if name not in CODES or projection_of(config) is not None:
        raise InputError(f"adapters are learned for {', '.join(CODES)}, not for {config}")
    return CODES[name]
