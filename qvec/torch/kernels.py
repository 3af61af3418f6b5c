"""Fake int4 and ternary codes, coded and decoded by the kernels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qvec._kernels import Codec
from qvec.codes.configs import CodeConfig, Int4, Ternary
from qvec.codes.registry import Quantizer, from_state, train
from qvec.common.types import CentroidCount, Codes, Metric
from qvec.torch.lanes import normalized
from qvec.torch.module import FakeQuantizer, as_numpy
from qvec.torch.straight import straight


class _FakeByKernels(FakeQuantizer):
    """Encodes and decodes with the kernels, on the CPU.

    Gradients are those of the input (under cosine, of ``x / |x|``). There are no parameters; :meth:`calibrate` finds
    centroids.
    """

    config: ClassVar[type[Int4 | Ternary]]

    def __init__(self, dim: int, metric: Metric = "cosine", *, rotate: bool = True, seed: int = 0) -> None:
        super().__init__(dim, metric, rotate, seed)
        self.quantizer = self._train(np.empty((0, dim), np.float32), 0)

    def _train(self, sample: Any, centroids: CentroidCount) -> Quantizer:
        chosen: CodeConfig = self.config(centroids=centroids, rotate=self.seed is not None)
        return train(sample, self.metric, chosen, self.seed or 0)

    def calibrate(self, sample: Tensor, centroids: CentroidCount = "auto") -> None:
        """Find centroids from float32[n, dim], n >= 100. Until then there are none."""
        self.quantizer = self._train(as_numpy(sample), centroids)

    def _quantize(self, x: Tensor) -> Tensor:
        rows = as_numpy(x)
        kept = torch.from_numpy(self.quantizer.decode(self.quantizer.encode(rows))).to(x.device)
        return straight(kept, normalized(x) if self.metric == "cosine" else x)

    def codes(self, x: Tensor) -> Codes:
        return self.quantizer.encode(as_numpy(x))

    def _codec(self) -> Codec:
        return self.quantizer.codec

    def export(self) -> Quantizer:
        """Return the quantizer to store; its codes equal :meth:`codes`."""
        return self.quantizer

    def get_extra_state(self) -> Any:
        """Return the quantizer's state for ``state_dict``."""
        return self.quantizer.state()

    def set_extra_state(self, state: Any) -> None:
        """Restore the quantizer from a ``state_dict``."""
        self.quantizer = from_state(state)


class FakeInt4(_FakeByKernels):
    """``Int4()``: 16 levels, with the step of least squared error for each vector."""

    config = Int4


class FakeTernary(_FakeByKernels):
    """``Ternary()``: -1, 0 and 1 with the threshold of ternary weight networks (arXiv:1605.04711)."""

    config = Ternary
