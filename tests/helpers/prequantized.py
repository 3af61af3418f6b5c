"""Embeddings as APIs quantize them, and their exact distances."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.common.types import Metric, PrequantizedType


def quantized(x: Any, form: PrequantizedType) -> Any:
    """Quantize as sentence_transformers.util.quantize_embeddings: packed signs, or 256 steps between -4 and 4."""
    bits = np.packbits(x > 0, axis=1)
    levels = np.clip((x + 4) / (8 / 255), 0, 255)
    return {
        "ubinary": bits,
        "binary": (bits.astype(np.int16) - 128).astype(np.int8),
        "uint8": levels.astype(np.uint8),
        "int8": (levels.astype(np.uint8).astype(np.int16) - 128).astype(np.int8),
    }[form]


def expected_distances(codes: Any, queries: Any, form: PrequantizedType, metric: Metric) -> Any:
    if form in ("binary", "ubinary"):
        a, b = (
            np.unpackbits((c.astype(np.int16) + 128 * (form == "binary")).astype(np.uint8), axis=1)
            for c in (queries, codes)
        )
        return (a[:, None] != b[None]).sum(-1)
    a, b = (c.astype(np.float64) - 128 * (form == "uint8") for c in (queries, codes))
    if metric == "l2":
        return ((a[:, None] - b[None]) ** 2).sum(-1)
    if metric == "cosine":
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
        return 1 - a @ b.T
    return -(a @ b.T)
