"""Quantization-aware training of a linear adapter for a frozen embedding model (extra ``torch``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from qvec.codes.adapters import Adapter, adapted_config
from qvec.codes.configs import CodeConfig
from qvec.codes.registry import make_config
from qvec.common.errors import InputError
from qvec.qat.examples import Examples, make_examples
from qvec.qat.options import Options
from qvec.schema.validation import as_vectors

__all__ = ["Adapter", "Options", "train_adapter"]

Progress = Callable[[int, int, float], None]


def train_adapter(
    embeddings: ArrayLike,
    pairs: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    code: str | CodeConfig = "binary",
    *,
    options: Options | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Adapter:
    """Learn a linear map that reduces the loss of ``code`` under cosine, for ``qvec.create(..., adapter=...)``.

    embeddings: documents, float32[n, dim], n >= 1,000. queries: float32[m, dim], m >= 100; None: documents serve as
    queries. pairs: int[p, 2], p >= 100, of a row of ``queries`` and the row of ``embeddings`` that answers it; None:
    the map only learns to preserve the order of the exact scores. A tenth of the queries, with their pairs, is held
    out. code: "binary", or another of :data:`qvec.qat.codes.CODES`. seed: of the rotation, the split and the batches;
    equal seeds on one machine give equal adapters. progress: called with (step, steps, held-out recall) at each check.

    Raises InputError that names the wrong argument, or ImportError if PyTorch is missing.
    """
    chosen = options or Options()
    config = adapted_config(make_config(code))
    dim = np.asarray(embeddings).shape[-1] if np.ndim(embeddings) == 2 else 0
    if dim == 0:
        raise InputError(f"embeddings must have shape (n, dim), got {np.shape(embeddings)}")
    x = as_vectors("embeddings", embeddings, dim, "cosine")
    q = None if queries is None else as_vectors("queries", queries, dim, "cosine")
    return _fit(make_examples(x, q, pairs, seed), config, chosen, seed, progress)


def _fit(examples: Examples, config: CodeConfig, options: Options, seed: int, progress: Progress | None) -> Adapter:
    from qvec.qat.codes import fake_code  # loads PyTorch
    from qvec.qat.training import Trainer

    return Trainer(examples, fake_code(config), config, options, seed).fit(progress)
