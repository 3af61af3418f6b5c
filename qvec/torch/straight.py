"""Rounding with a straight-through gradient (Bengio, Léonard and Courville, arXiv:1308.3432, section 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def straight(value: Tensor, surrogate: Tensor) -> Tensor:
    """``value``, exactly, with the gradient of ``surrogate``."""
    result: Tensor = _Straight.apply(value.detach(), surrogate)  # type: ignore[no-untyped-call]
    return result


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x``, exactly, with its gradient times ``factor`` (LSQ, arXiv:1902.08153, section 2.2)."""
    result: Tensor = _Scaled.apply(x, factor)  # type: ignore[no-untyped-call]
    return result


def round_straight(x: Tensor) -> Tensor:
    """The nearest integers, ties to even, with the gradient of the identity."""
    return straight(x.round(), x)
