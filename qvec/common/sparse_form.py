"""The form in which payloads store sparse vectors.

A map: ``ids``, u32[n] in ascending order, and ``weights``, f16[n]; or, with a ``scale``, u8[n] in units of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint32]
Weights = npt.NDArray[np.float32]


def decoded(value: Mapping[str, Any]) -> tuple[Ids, Weights] | None:
    """Return ids and weights; None if the value has another form. The numbers are not checked."""
    ids, weights, scale = value.get("ids"), value.get("weights"), value.get("scale")
    size = 2 if scale is None else 1
    if not isinstance(ids, bytes) or not isinstance(weights, bytes) or not isinstance(scale, float | None):
        return None
    if len(ids) % 4 or len(ids) // 4 * size != len(weights):
        return None
    numbers = np.frombuffer(weights, "<f2" if scale is None else np.uint8).astype(np.float32)
    return np.frombuffer(ids, "<u4"), numbers if scale is None else numbers * np.float32(scale)


def encoded(ids: Ids, weights: Weights, originals: str) -> dict[str, Any]:
    """Return the form with weights as "f16", or as "u8", in half of the bytes."""
    packed: dict[str, Any] = {"ids": ids.astype("<u4").tobytes()}
    if originals == "f16":
        return packed | {"weights": weights.astype("<f2").tobytes()}
    scale = float(np.float32(max(float(weights.max(initial=0.0)), 1e-6) / 255))
    steps = np.clip(np.rint(weights / np.float32(scale)), 1, 255).astype(np.uint8)
    return packed | {"weights": steps.tobytes(), "scale": scale}
