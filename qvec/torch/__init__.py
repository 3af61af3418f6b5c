"""Fake quantization for PyTorch: train an embedding model with the codes that a collection will store.

Each module codes and decodes float32[n, dim], with gradients that pass straight through the rounding (Bengio et al.,
arXiv:1308.3432). ``export`` returns the quantizer; its codes equal those of the module, bit for bit.
"""

from __future__ import annotations

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("qvec.torch needs PyTorch: pip install torch") from error

from qvec.torch.binary import FakeBinary
from qvec.torch.int8 import FakeInt8
from qvec.torch.kernels import FakeInt4, FakeTernary
from qvec.torch.module import FakeQuantizer
from qvec.torch.perdim import FakeInt4PerDim, FakeInt8PerDim

MIN_TORCH = (2, 2)
if tuple(int(part) for part in _torch.__version__.split(".")[:2]) < MIN_TORCH:
    raise ImportError(f"qvec.torch needs PyTorch 2.2 or later, found {_torch.__version__}")

__all__ = [
    "FakeBinary",
    "FakeInt4",
    "FakeInt4PerDim",
    "FakeInt8",
    "FakeInt8PerDim",
    "FakeQuantizer",
    "FakeTernary",
]
