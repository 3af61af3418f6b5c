"""Checks and conversions of callers' input. Errors name the row and the limit."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

import numpy as np

from qvec._kernels import plain_bytes, plain_norm2
from qvec.codes.prequantized_input import as_integers, to_floats
from qvec.common.errors import DuplicateIdError, InputError
from qvec.common.types import Float32Array, IdKind, Metric, NDArray, PrequantizedType, check_int
from qvec.schema.arrays import plain_tensor, real_array, unmasked
from qvec.schema.config import Config
from qvec.schema.payloads import is_table, listed, plain_text, rows_of, to_plain
from qvec.storage.records import MAX_DEPTH, pack

MAX_NORM = 1e18  # of a vector: the squared distance of any two is at most 4e36, and float32 ends at 3.4e38
SAFE_NORM2 = MAX_NORM**2
MIN_VALUE = 1e-18  # under cosine, a vector without a larger value has no direction: its square leaves float32
MAX_ID = 2**63 - 1
MAX_ID_BYTES = 480  # LMDB keys end at 511 bytes
MAX_PAYLOAD_BYTES = 16 << 20  # as msgpack; larger values make LMDB look for long runs of free pages
MAX_K = 1_000_000
MAX_THREADS = 1024
MAX_ROWS = 2**31 - 2**16
CHECKED_ROWS = 1024  # rows checked at a time

_NARROW_BYTES = 2  # arrays with values of this size or smaller are stored without a float32 copy of the whole


def as_vectors(name: str, value: object, dim: int, metric: Metric) -> Float32Array:
    """Convert an array-like to float32 [n, dim], C-contiguous. Norms are limited; under cosine no vector is zero.

    A 1-D value of ``dim`` numbers is one row. Raises InputError naming the first bad row.
    """
    return as_float32(_as_rows(name, real_array(name, value), dim, metric))


def as_float32(x: NDArray[Any]) -> Float32Array:
    """A float32 array, C-contiguous."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the row check names
        return np.ascontiguousarray(x, dtype=np.float32)


def _as_rows(name: str, x: NDArray[Any], dim: int, metric: Metric) -> NDArray[Any]:
    """Checked vectors [n, dim]: float32, or a narrow dtype, to be converted in parts."""
    if x.shape == (0,):
        return np.empty((0, dim), np.float32)
    rows = x[None, :] if x.ndim == 1 else x
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise InputError(f"{name} must have shape (n, {dim}) or ({dim},), got {x.shape}")
    if len(rows) > MAX_ROWS:  # before the rows are copied: strides of zero give any number of rows
        raise InputError(f"{name} has {len(rows)} rows; the limit is {MAX_ROWS}")
    converted = rows if rows.dtype.itemsize <= _NARROW_BYTES else as_float32(rows)
    _check_rows(name, converted, metric)
    return converted


def as_queries(value: object, dim: int, metric: Metric) -> Float32Array:
    """One query as float32 [dim], or a batch as float32 [n, dim]; C-contiguous and checked like vectors."""
    norm2 = plain_norm2(value, dim)  # the hot path: it tells NaN, infinities, overflow and the zero vector at once
    if 0.0 < norm2 < SAFE_NORM2 or (norm2 == 0.0 and metric != "cosine"):
        return cast("Float32Array", value)
    x = real_array("queries", value)
    if x.shape == (0,):
        raise InputError(f"queries must have shape (n, {dim}) or ({dim},), got {x.shape}")
    rows = as_float32(_as_rows("queries", x, dim, metric))
    return rows[0] if x.ndim == 1 else rows


def as_stored(name: str, value: object, dim: int, metric: Metric, form: PrequantizedType | None) -> NDArray[Any]:
    """Vectors to store: [n, dim] of float32 or a narrower dtype, or codes [n, width] of a form that comes quantized."""
    if form is None:
        return _as_rows(name, real_array(name, value), dim, metric)
    x = as_integers(name, real_array(name, value), dim, form, metric)
    if len(x) > MAX_ROWS:
        raise InputError(f"{name} has {len(x)} rows; the limit is {MAX_ROWS}")
    return x


def as_originals(value: object, config: Config, n: int) -> NDArray[Any] | None:
    """Originals that come quantized, next to n codes: [n, dim]. None if the collection stores none of these."""
    form = config.original_form
    if form is None:
        if value is not None:
            raise InputError("originals are for a collection that was created with originals='int8' or 'uint8'")
        return None
    if value is None:
        raise InputError(f"this collection stores vectors in two forms: give the {form} vectors as originals, too")
    x = as_stored("originals", value, config.dim, config.metric, form)
    if len(x) != n:
        raise InputError(f"{len(x)} originals for {n} vectors: give one a vector")
    return x


def as_searched(value: object, dim: int, metric: Metric, form: PrequantizedType | None) -> Float32Array:
    """Queries as float32 [dim] or [n, dim]; where vectors come quantized, integers are codes of the same form."""
    if form is None:
        return as_queries(value, dim, metric)
    x = real_array("queries", value)
    if x.dtype.kind not in "iu":
        return as_queries(x, dim, metric)
    rows = to_floats(as_integers("queries", x, dim, form, metric), form)
    return rows[0] if x.ndim == 1 else rows


def _check_rows(name: str, x: NDArray[Any], metric: Metric) -> None:
    for start in range(0, len(x), CHECKED_ROWS):
        part = as_float32(x[start : start + CHECKED_ROWS])
        norm2 = np.einsum("ij,ij->i", part, part)  # of finite values below 1e18 it is finite, up to MAX_DIM of them
        bad = np.flatnonzero(~(norm2 <= SAFE_NORM2))
        if len(bad):
            _refuse_large(f"{name}[{start + bad[0]}", part[bad[0]])
        if metric == "cosine":
            small = np.flatnonzero(norm2 < x.shape[1] * MIN_VALUE**2)
            zero = small[np.abs(part[small]).max(axis=1, initial=0) < MIN_VALUE] if len(small) else small
            if len(zero):
                row = start + zero[0]
                raise InputError(f"{name}[{row}] is the zero vector, which has no direction: cosine is undefined")


def _refuse_large(where: str, row: Float32Array) -> None:
    """Raise InputError if the norm of a row is too large. ``where``: its name, up to the number of the row."""
    large = np.flatnonzero(~(np.abs(row) <= MAX_NORM))
    if len(large):
        raise InputError(
            f"{where}, {large[0]}] is {row[large[0]]}: values must be finite and at most {MAX_NORM:g} in magnitude, as "
            "must be the norm of a vector"
        )
    norm = float(np.sqrt(np.square(row, dtype=np.float64).sum()))
    if norm > MAX_NORM * (1 + 1e-6):  # sums in float32 are inexact
        raise InputError(f"{where}] has the norm {norm:g}; the limit is {MAX_NORM:g}: scale the vectors down")


def as_ids(ids: object, kind: IdKind, name: str = "ids") -> NDArray[Any] | list[str]:
    """Ids as int64 [n] or a list of str; a scalar is one id. Raises InputError naming the first bad one.

    Sequences, NumPy arrays, and columns of pandas, polars, Arrow and Torch are accepted. String ids may be UUIDs.
    """
    given = _id_array(name, ids) if hasattr(ids, "__array__") else ids
    if hasattr(given, "as_py"):  # an Arrow scalar
        given = given.as_py()
    if kind == "int64":
        return _int_ids(given, name)
    values = [given] if isinstance(given, str) or _is_uuid(given) else _listed(given, name)
    return [_str_id(value, f"{name}[{i}]") for i, value in enumerate(values)]


def _id_array(name: str, ids: Any) -> NDArray[Any]:
    is_null = getattr(ids, "is_null", getattr(ids, "isna", None))  # of Arrow and polars, and of pandas
    if is_null is not None:
        missing = np.flatnonzero(np.asarray(is_null()))
        if len(missing):
            raise InputError(f"{name}[{missing[0]}] is null: every vector needs an id")
    return np.asarray(plain_tensor(unmasked(name, ids)))


def _is_uuid(value: object) -> bool:
    module = sys.modules.get("uuid")  # without the module there are no UUIDs; importing it takes a millisecond
    return module is not None and isinstance(value, module.UUID)


def _str_id(value: object, where: str) -> str:
    if _is_uuid(value):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f"{where} is {value!r}: this collection's ids are strings")
    size = len(_encoded(value, where))
    if not 1 <= size <= MAX_ID_BYTES:
        raise InputError(f"{where} takes {size} bytes in UTF-8; the limits are 1 and {MAX_ID_BYTES}")
    return plain_text(value)


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
    if not isinstance(ids, np.ndarray) or ids.ndim == 0 or ids.dtype.kind == "O":
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
    """One dict or None a row, of mappings or of the rows of a table (pandas, polars, Arrow)."""
    if payload is None:
        return [None] * n
    if is_table(payload):
        payload = rows_of(payload, "payload")
    elif isinstance(payload, Mapping):
        if n != 1:
            raise InputError(f"payload is one dict for {n} vectors: give a list, with one (or None) a vector")
        payload = [payload]
    else:
        payload = listed(payload)
    if not isinstance(payload, Sequence) or isinstance(payload, (str, bytes)):
        raise InputError(f"payload must be a list of dicts, got {type(payload).__name__}")
    if len(payload) != n:
        raise InputError(f"{len(payload)} payloads for {n} vectors: give one (or None) a vector")
    return [_checked_payload(value, i) for i, value in enumerate(payload)]


def _checked_payload(payload: Any, position: int) -> dict[str, Any] | None:
    if payload is None or (type(payload) is dict and 0 <= plain_bytes(payload, MAX_DEPTH) <= MAX_PAYLOAD_BYTES):
        return payload
    name = f"payload[{position}]"
    if not isinstance(payload, Mapping):
        raise InputError(f"{name} must be a dict or None, got {type(payload).__name__}")
    plain: dict[str, Any] = to_plain(payload, name)
    size = len(pack(plain, name))
    if size > MAX_PAYLOAD_BYTES:
        raise InputError(f"{name} takes {size} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    return plain


def check_count(name: str, value: object, low: int, high: int) -> int:
    """An int within limits, both included, from an int or a NumPy integer. Raises InputError."""
    return check_int(name, value, low, high)


def worker_threads(threads: int | None) -> int:
    """The number of threads to use: ``threads``, or by default one for each core."""
    return os.cpu_count() or 1 if threads is None else check_count("threads", threads, 1, MAX_THREADS)
