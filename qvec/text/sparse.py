"""Sparse vectors: from dicts, pairs and CSR rows to the value that a payload stores, and back
(:mod:`qvec.common.sparse_form`)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.sparse_form import Ids, decoded, encoded
from qvec.common.types import Float32Array, NDArray

MAX_ID = 2**32 - 1
MAX_IDS = 1 << 16  # of one vector
MAX_WEIGHT, MIN_WEIGHT = 65_504.0, 6e-8  # of float16


def sparse_vector(value: Any, name: str) -> tuple[Ids, Float32Array]:
    """Ids, ascending, and weights above zero of a dict, a pair of arrays, a map of ``ids`` and ``weights``, a CSR row,
    or a stored value.

    Weights of zero are left out. Raises InputError for an id that is out of range or repeated, and for a weight that is
    negative, not finite or above MAX_WEIGHT.
    """
    if isinstance(value, Mapping) and set(value) >= {"ids", "weights"}:
        if isinstance(value["ids"], bytes):
            return stored_vector(value, name)
        value = value["ids"], value["weights"]
    ids, weights = _parts(value, name)
    if ids.ndim != 1 or ids.shape != weights.shape:
        raise InputError(f"{name} has {ids.shape} ids and {weights.shape} weights; give one weight for each id")
    if ids.dtype.kind not in "iu" and ids.size:
        raise InputError(f"{name}: ids must be integers, got {ids.dtype}")
    if len(ids) > MAX_IDS:
        raise InputError(f"{name} has {len(ids)} ids; the limit is {MAX_IDS}")
    if len(ids) and not (ids.min() >= 0 and ids.max() <= MAX_ID):
        raise InputError(f"{name} has the id {ids.min() if ids.min() < 0 else ids.max()}, not from 0 to {MAX_ID}")
    floats = weights.astype(np.float64)
    _check_weights(floats, name)
    order = np.argsort(ids, kind="stable")
    sorted_ids, sorted_weights = ids[order].astype(np.uint32), floats[order].astype(np.float32)
    if (repeated := sorted_ids[1:][sorted_ids[1:] == sorted_ids[:-1]]).size:
        raise InputError(f"{name} has the id {repeated[0]} twice")
    kept = sorted_weights >= MIN_WEIGHT
    return sorted_ids[kept], sorted_weights[kept]


def _check_weights(weights: NDArray[np.float64], name: str) -> None:
    if not np.isfinite(weights).all():
        raise InputError(f"{name} has a weight that is not finite")
    if weights.size and weights.min() < 0:
        raise InputError(f"{name} has the negative weight {weights.min()}: bounds of scores need weights above zero")
    if weights.size and weights.max() > MAX_WEIGHT:
        raise InputError(f"{name} has the weight {weights.max()}; the limit is {MAX_WEIGHT}")


def _parts(value: Any, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if isinstance(value, Mapping):
        ids, weights = list(value.keys()), list(value.values())
        if not all(isinstance(id, int | np.integer) and not isinstance(id, bool) for id in ids):
            raise InputError(f"{name} must map integer ids to weights")
        return _array(ids, name), _array(weights, name)
    if hasattr(value, "indptr") and hasattr(value, "indices"):
        if value.shape[0] != 1 and len(value.shape) > 1:
            raise InputError(f"{name} must be one row of a CSR matrix, got shape {value.shape}")
        return np.asarray(value.indices), np.asarray(value.data)
    if isinstance(value, list | tuple) and len(value) == 2:
        return _array(value[0], name), _array(value[1], name)
    raise InputError(f"{name} must be a dict, a pair of ids and weights, or a CSR row; got {type(value).__name__}")


def _array(values: Any, name: str) -> NDArray[Any]:
    try:
        made: NDArray[Any] = np.asarray(values)
    except (ValueError, OverflowError):
        raise InputError(f"{name} must hold numbers") from None
    if made.dtype.kind not in "iuf" and made.size:
        raise InputError(f"{name} must hold numbers, got {made.dtype}")
    return made


def stored_vector(value: Mapping[str, Any], name: str) -> tuple[Ids, Float32Array]:
    """The ids and weights of a stored value; InputError if it is malformed."""
    scale = value.get("scale")
    found = decoded(value)
    if found is None:
        size = 2 if scale is None else 1
        raise InputError(f"{name} must have ids and weights as bytes, four and {size} for each id")
    if scale is not None and not 0 < scale < MAX_WEIGHT:
        raise InputError(f"{name} has the scale {scale!r}")
    numbers, floats = found
    _check_weights(floats.astype(np.float64), name)
    if len(numbers) > MAX_IDS or (np.diff(numbers.astype(np.int64)) <= 0).any() or (floats <= 0).any():
        raise InputError(f"{name} must have ascending ids, at most {MAX_IDS}, with weights above zero")
    return numbers, floats


def stored_value(value: Any, originals: str, name: str) -> dict[str, Any]:
    """The value that a payload stores for a sparse vector."""
    return encoded(*sparse_vector(value, name), originals)


def product(query: tuple[Ids, Float32Array], value: Any) -> float:
    """The inner product of a query, with ascending ids, and a payload's value."""
    is_f16 = isinstance(value, Mapping) and "scale" not in value  # other forms are checked, which takes longer
    found = decoded(value) if is_f16 else None
    ids, weights = sparse_vector(value, "the payload") if found is None else found
    if not len(query[0]):
        return 0.0
    at = np.minimum(np.searchsorted(query[0], ids), len(query[0]) - 1)
    same = query[0][at] == ids
    return float(query[1][at[same]] @ weights[same])


def with_sparse(
    payloads: list[dict[str, Any] | None], sparse: Mapping[str, Any], types: Mapping[str, str]
) -> list[dict[str, Any] | None]:
    """Payloads with sparse vectors in addition; ``types``: of the declared fields. Raises InputError."""
    if not isinstance(sparse, Mapping):
        raise InputError(f"sparse must map sparse fields to vectors, got {type(sparse).__name__}")
    made = list(payloads)
    for name, value in sparse.items():
        if types.get(name) != "sparse":
            raise InputError(f"sparse names {name!r}, which is no sparse field")
        for i, row in enumerate(rows_of(value, len(made), f"sparse[{name!r}]")):
            if row is not None:
                made[i] = {**(made[i] or {}), name: row}
    return made


def rows_of(value: Any, n: int, name: str, of: str = "vectors") -> list[Any]:
    """The sparse vectors of n rows: a CSR matrix, a list, or, for one row, one vector. None: a row without one."""
    if hasattr(value, "indptr") and hasattr(value, "indices"):
        if value.shape[0] != n:
            raise InputError(f"{name} has {value.shape[0]} rows for {n} {of}")
        starts = np.asarray(value.indptr)
        return [(value.indices[a:b], value.data[a:b]) for a, b in pairwise(starts)]
    if n == 1 and (isinstance(value, Mapping) or (isinstance(value, tuple) and len(value) == 2)):
        return [value]
    if not isinstance(value, list) or len(value) != n:
        raise InputError(f"{name} must be a CSR matrix or a list of {n} sparse vectors")
    return value
