"""Checked reading of plain state (msgpack or JSON data): every error names the field that is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from qvec.common.errors import FormatError
from qvec.common.types import Float32Array

State = dict[str, Any]


def take_state(state: object, where: str, fields: Iterable[str]) -> State:
    """Return ``state`` if it is a dict with exactly these ``fields``."""
    if not isinstance(state, dict):
        raise FormatError(f"{where} must be a mapping, got {type(state).__name__}")
    expected = set(fields)
    if missing := sorted(expected - state.keys()):
        raise FormatError(f"{where}: field {missing[0]!r} is missing")
    if unknown := sorted(map(str, state.keys() - expected)):
        raise FormatError(f"{where}: field {unknown[0]!r} is unknown")
    return state


def take_int(state: State, field: str, low: int, high: int) -> int:
    """Return an int from ``low`` to ``high``, both included."""
    value = state[field]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FormatError(f"field {field!r} must be an integer from {low} to {high}, got {value!r}")
    return value


def take_version(state: State, newest: int) -> None:
    """Refuse a state written by a later version than this one reads."""
    take_int(state, "version", newest, newest)


def take_flag(state: State, field: str) -> bool:
    """Return a bool."""
    value = state[field]
    if not isinstance(value, bool):
        raise FormatError(f"field {field!r} must be true or false, got {value!r}")
    return value


def take_str(state: State, field: str, limit: int = 1024) -> str:
    """Return a string of at most ``limit`` characters."""
    value = state[field]
    if not isinstance(value, str) or len(value) > limit:
        raise FormatError(f"field {field!r} must be a string of at most {limit} characters")
    return value


def take_choice(state: State, field: str, choices: Iterable[str]) -> str:
    """Return one of ``choices``."""
    value, allowed = state[field], tuple(choices)
    if not isinstance(value, str) or value not in allowed:
        raise FormatError(f"field {field!r} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def take_floats(state: State, field: str, n: int) -> Float32Array:
    """Return float32[n], read-only and finite, from 4 * n little-endian bytes."""
    value = state[field]
    if not isinstance(value, bytes) or len(value) != 4 * n:
        raise FormatError(f"field {field!r} must hold {n} little-endian float32 ({4 * n} bytes)")
    array = np.frombuffer(value, dtype="<f4").astype(np.float32)
    if not np.isfinite(array).all():
        raise FormatError(f"field {field!r} holds a value that is not finite")
    array.flags.writeable = False
    return array


def floats_to_bytes(array: Float32Array) -> bytes:
    """Pack float32 values as little-endian bytes, the form that :func:`take_floats` reads."""
    return array.astype("<f4", copy=False).tobytes()
