"""Checks and conversions of callers' input. Errors name the row and the limit."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from typing import Any, cast

import numpy as np

from qvec._kernels import plain_norm2
from qvec.codes.prequantized_input import as_integers, to_floats
from qvec.common.errors import DuplicateIdError, InputError
from qvec.common.types import Float32Array, IdKind, Metric, NDArray, PrequantizedType, check_int
from qvec.storage.records import pack

MAX_VALUE = 1e18  # squares of larger values leave float32
SAFE_NORM2 = 1e36
MAX_ID = 2**63 - 1
MAX_ID_BYTES = 480  # LMDB keys end at 511 bytes
MAX_PAYLOAD_BYTES = 16 << 20  # as msgpack; larger values make LMDB look for long runs of free pages
MAX_K = 1_000_000
MAX_THREADS = 1024
MAX_ROWS = 2**31 - 2**16
CHECKED_ROWS = 8192  # rows checked at a time

_REAL_KINDS = "fiu"


def as_vectors(name: str, value: object, dim: int, metric: Metric) -> Float32Array:
    """Convert an array-like to float32 [n, dim], C-contiguous. Every value is finite; under cosine no vector is zero.

    A 1-D value of ``dim`` numbers is one row. Raises InputError naming the first bad row.
    """
    x = _as_array(name, value)
    return np.empty((0, dim), np.float32) if x.shape == (0,) else _as_rows(name, x, dim, metric)


def _as_rows(name: str, x: NDArray[Any], dim: int, metric: Metric) -> Float32Array:
    rows = x[None, :] if x.ndim == 1 else x
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise InputError(f"{name} must have shape (n, {dim}) or ({dim},), got {x.shape}")
    if len(rows) > MAX_ROWS:  # before the rows are copied: strides of zero give any number of rows
        raise InputError(f"{name} has {len(rows)} rows; the limit is {MAX_ROWS}")
    converted = _as_float32(rows)
    _check_rows(name, converted, metric)
    return converted


def as_queries(value: object, dim: int, metric: Metric) -> Float32Array:
    """One query as float32 [dim], or a batch as float32 [n, dim]; C-contiguous and checked like vectors."""
    norm2 = plain_norm2(value, dim)  # the hot path: it tells NaN, infinities, overflow and the zero vector at once
    if 0.0 < norm2 < SAFE_NORM2 or (norm2 == 0.0 and metric != "cosine"):
        return cast("Float32Array", value)
    x = _as_array("queries", value)
    rows = _as_rows("queries", x, dim, metric)
    return rows[0] if x.ndim == 1 else rows


def as_stored(name: str, value: object, dim: int, metric: Metric, form: PrequantizedType | None) -> NDArray[Any]:
    """Vectors to store: float32 [n, dim], or codes [n, width] of a form that comes quantized."""
    if form is None:
        return as_vectors(name, value, dim, metric)
    x = as_integers(name, value, dim, form, metric)
    if len(x) > MAX_ROWS:
        raise InputError(f"{name} has {len(x)} rows; the limit is {MAX_ROWS}")
    return x


def as_searched(value: object, dim: int, metric: Metric, form: PrequantizedType | None) -> Float32Array:
    """Queries as float32 [dim] or [n, dim]; where vectors come quantized, integers are codes of the same form."""
    if form is None:
        return as_queries(value, dim, metric)
    x = np.asarray(value)
    if x.dtype.kind not in "iu":
        return as_queries(x, dim, metric)
    rows = to_floats(as_integers("queries", x, dim, form, metric), form)
    return rows[0] if x.ndim == 1 else rows


def _as_array(name: str, value: object) -> NDArray[Any]:
    try:
        x = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is ragged: every row must have the same number of values ({error})") from None
    if x.dtype.kind not in _REAL_KINDS and x.size:
        raise InputError(f"{name} must hold real numbers (float or integer), got dtype {x.dtype}")
    return x


def _as_float32(x: NDArray[Any]) -> Float32Array:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the row check names
        return np.ascontiguousarray(x, dtype=np.float32)


def _check_rows(name: str, x: Float32Array, metric: Metric) -> None:
    for start in range(0, len(x), CHECKED_ROWS):
        with np.errstate(over="ignore", invalid="ignore"):
            largest = np.abs(x[start : start + CHECKED_ROWS]).max(axis=1)
        bad = ~(largest <= MAX_VALUE)
        if bad.any():
            row = start + int(np.flatnonzero(bad)[0])
            column = int(np.flatnonzero(~(np.abs(x[row]) <= MAX_VALUE))[0])
            raise InputError(
                f"{name}[{row}, {column}] is {x[row, column]}: values must be finite and at most {MAX_VALUE:g} in "
                "magnitude"
            )
        if metric == "cosine" and (largest < 1e-18).any():
            row = start + int(np.flatnonzero(largest < 1e-18)[0])
            raise InputError(f"{name}[{row}] is the zero vector, which has no direction: cosine is undefined")


def as_ids(ids: object, kind: IdKind, name: str = "ids") -> NDArray[Any] | list[str]:
    """Ids as int64 [n] or a list of str; a scalar is one id. Raises InputError naming the first bad one.

    Sequences, NumPy arrays and objects that NumPy converts (of pandas, Arrow, Torch) are accepted.
    """
    given = np.asarray(ids) if hasattr(ids, "__array__") else ids
    if kind == "int64":
        return _int_ids(given, name)
    values = [given] if isinstance(given, str) else _listed(given, name)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise InputError(f"{name}[{i}] is {value!r}: this collection's ids are strings")
        size = len(_encoded(value, f"{name}[{i}]"))
        if not 1 <= size <= MAX_ID_BYTES:
            raise InputError(f"{name}[{i}] takes {size} bytes in UTF-8; the limits are 1 and {MAX_ID_BYTES}")
    return [str(value) for value in values]


def as_id_set(ids: object, kind: IdKind, name: str = "ids") -> NDArray[Any] | list[str]:
    """Ids whose order does not matter; sets are accepted too."""
    return as_ids(list(ids) if isinstance(ids, Set) else ids, kind, name)


def _encoded(value: str, where: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} is {value!r}: a lone surrogate has no UTF-8 form") from None


def _listed(ids: object, name: str) -> list[Any]:
    if isinstance(ids, np.ndarray):
        return list(ids.reshape(-1).tolist())
    if isinstance(ids, Sequence) and not isinstance(ids, bytes | bytearray):
        return list(ids)
    raise InputError(f"{name} must be a list or an array, got {type(ids).__name__}")


def _int_ids(ids: object, name: str) -> NDArray[np.int64]:
    if not isinstance(ids, np.ndarray) or ids.ndim == 0:
        values = [ids] if np.isscalar(ids) else _listed(ids, name)
        for i, value in enumerate(values):
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
                raise InputError(f"{name}[{i}] is {value!r}: this collection's ids are integers")
            if not 0 <= int(value) <= MAX_ID:
                raise InputError(f"{name}[{i}] is {value}: ids lie between 0 and {MAX_ID}")
        return np.array(values, dtype=np.int64)
    if ids.size and ids.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, got dtype {ids.dtype}")
    flat = ids.reshape(-1)
    bad = np.flatnonzero((flat < 0) | (flat > MAX_ID))
    if len(bad):
        raise InputError(f"{name}[{bad[0]}] is {flat[bad[0]]}: ids lie between 0 and {MAX_ID}")
    return flat.astype(np.int64)


def check_unique(ids: NDArray[Any] | list[str]) -> None:
    """Raise DuplicateIdError if a batch contains an id twice; the message names both positions."""
    if isinstance(ids, np.ndarray) and (len(ids) < 2 or bool((np.diff(ids) > 0).all())):
        return
    seen: dict[Any, int] = {}
    for i, value in enumerate(ids.tolist() if isinstance(ids, np.ndarray) else ids):
        if value in seen:
            raise DuplicateIdError(f"ids[{i}] repeats {value!r} of ids[{seen[value]}]: a batch may hold an id once")
        seen[value] = i


def id_keys(ids: NDArray[Any] | list[str]) -> list[bytes]:
    """Keys of the id map: 8 bytes big-endian, or UTF-8."""
    if isinstance(ids, np.ndarray):
        raw = ids.astype(">u8").tobytes()
        return [raw[i : i + 8] for i in range(0, len(raw), 8)]
    return [value.encode() for value in ids]


def as_payloads(payload: object, n: int) -> list[dict[str, Any] | None]:
    """One dict or None a row."""
    if payload is None:
        return [None] * n
    if isinstance(payload, dict):
        if n != 1:
            raise InputError(f"payload is one dict for {n} vectors: give a list, with one (or None) a vector")
        payload = [payload]
    if not isinstance(payload, Sequence) or isinstance(payload, (str, bytes)):
        raise InputError(f"payload must be a list of dicts, got {type(payload).__name__}")
    if len(payload) != n:
        raise InputError(f"{len(payload)} payloads for {n} vectors: give one (or None) a vector")
    for i, value in enumerate(payload):
        if value is not None and not isinstance(value, dict):
            raise InputError(f"payload[{i}] must be a dict or None, got {type(value).__name__}")
        _check_size(value, f"payload[{i}]")
    return list(payload)


def _check_size(payload: dict[str, Any] | None, name: str) -> None:
    size = len(pack(payload, name))
    if size > MAX_PAYLOAD_BYTES:
        raise InputError(f"{name} takes {size} bytes; the limit is {MAX_PAYLOAD_BYTES}")


def check_count(name: str, value: object, low: int, high: int) -> int:
    """An int within limits, both included, from an int or a NumPy integer. Raises InputError."""
    return check_int(name, int(value) if isinstance(value, np.integer) else value, low, high)


def worker_threads(threads: int | None) -> int:
    """The number of threads to use: ``threads``, or by default one for each core."""
    return os.cpu_count() or 1 if threads is None else check_count("threads", threads, 1, MAX_THREADS)
