"""Convert vectors of any library to NumPy arrays. None of the libraries is imported (docs/inputs.md).

Masked arrays, tensors (of Torch and others), bfloat16, and columns of lists (pandas, polars, Arrow) are converted.
Nulls, masked values and rows of different lengths raise InputError, which names the row.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import NDArray

_REAL_KINDS = "fiu"
_SMALL_FLOATS = ("bfloat16", "float8_", "float6_", "float4_")  # dtypes of ml_dtypes, which NumPy takes for raw bytes


def real_array(name: str, value: object) -> NDArray[Any]:
    """An array of real numbers. Raises InputError that calls the value ``name``."""
    x = _as_array(name, value)
    if x.dtype.name.startswith(_SMALL_FLOATS):
        return x.astype(np.float32)
    if x.dtype.kind == "O" and x.ndim == 1 and _has_rows(x):
        x = _stacked(name, x)
    if x.dtype.kind == "O" and x.ndim == 2:
        _refuse_nulls(name, x)
    if x.dtype.kind not in _REAL_KINDS and x.size:
        hint = "; of a table, name the column of vectors with vector=" if hasattr(type(value), "columns") else ""
        raise InputError(f"{name} must hold real numbers (float or integer), got dtype {x.dtype}{hint}")
    return x


def unmasked(name: str, value: Any) -> Any:
    """The data of a masked array; other values as they are. Raises InputError naming the first masked value."""
    # Who has a masked array has imported numpy.ma, which takes longer than to add a vector.
    if "numpy.ma" not in sys.modules or not isinstance(value, np.ma.MaskedArray):
        return value
    masked = np.ma.getmaskarray(value)
    if masked.any():
        place = ", ".join(map(str, np.argwhere(masked)[0].tolist()))
        raise InputError(f"{name}[{place}] is masked: leave out the row, or fill in the value")
    return value.data


def plain_tensor(value: Any) -> Any:
    """A tensor as NumPy can read it: without gradient, in main memory, bfloat16 as float32. Other values as they are.

    Raises nothing: what is no tensor has no ``detach``.
    """
    if not hasattr(value, "detach"):
        return value
    value = value.detach()
    value = value.cpu() if hasattr(value, "cpu") else value
    return value.float() if "float8" in str(value.dtype) or "bfloat16" in str(value.dtype) else value


def _as_array(name: str, value: Any) -> NDArray[Any]:
    if hasattr(value, "null_count") and hasattr(value, "type"):
        value = _arrow_values(name, value)
    elif hasattr(value, "as_py") and hasattr(value, "type"):  # an Arrow scalar: a list or a tensor
        value = value.to_numpy() if hasattr(value, "to_numpy") else getattr(value, "values", value)
    value = plain_tensor(unmasked(name, value))
    if isinstance(value, list | tuple) and value and hasattr(value[0], "detach"):
        value = [plain_tensor(row) for row in value]
    try:
        x = np.asarray(value)
    except ValueError as error:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return _stacked(name, value)
        raise InputError(f"{name} is ragged: every row must have the same number of values ({error})") from None
    if x.dtype.kind == "O" and x.ndim == 2 and hasattr(value, "iloc"):  # a pandas.DataFrame of nullable dtypes
        with contextlib.suppress(TypeError, ValueError):  # a column of other values
            return np.asarray(value.to_numpy(dtype=np.float64, na_value=np.nan))
    return x


def _refuse_nulls(name: str, x: NDArray[Any]) -> None:
    for row, column in np.argwhere([[value is None for value in row] for row in x]).tolist():  # the first
        raise InputError(f"{name}[{row}, {column}] is null: leave out the row, or fill in the value")


def _has_rows(x: NDArray[Any]) -> bool:
    return any(hasattr(row, "__len__") and not isinstance(row, str | bytes | dict) for row in x[:100])


def _stacked(name: str, rows: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Make a matrix from rows that are sequences of numbers."""
    arrays: list[NDArray[Any]] = []
    for i, row in enumerate(rows):
        if not hasattr(row, "__len__"):
            raise InputError(f"{name}[{i}] is {row!r}: every row must be a vector, and the input is ragged")
        array = _as_array(f"{name}[{i}]", row)
        if arrays and array.shape != arrays[0].shape:
            raise InputError(
                f"{name} is ragged: {name}[{i}] has shape {array.shape} and {name}[0] {arrays[0].shape}; every row "
                "must have the same number of values"
            )
        arrays.append(array)
    return np.stack(arrays)


def _arrow_values(name: str, column: Any) -> Any:
    """Make a matrix from an Arrow column of lists (Array or ChunkedArray). Return other columns unchanged."""
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if column.null_count:
        raise InputError(f"{name}[{_first_null(column)}] is null: leave out the row, or fill in the vector")
    lists = getattr(column, "storage", column)  # of an extension type, such as tensors
    if not hasattr(lists, "flatten") or not hasattr(lists.type, "value_type") or not hasattr(lists, "values"):
        return column
    n, values = len(lists), lists.flatten()
    width: int = getattr(lists.type, "list_size", 0)
    if not width and n:
        lengths = np.asarray(lists.value_lengths())
        width = int(lengths[0])
        if (lengths != width).any():
            row = int(np.flatnonzero(lengths != width)[0])
            raise InputError(
                f"{name} is ragged: {name}[{row}] has {lengths[row]} values and {name}[0] {width}; every row must have "
                "the same number of values"
            )
    if values.null_count:
        row, place = divmod(_first_null(values), width)
        raise InputError(f"{name}[{row}, {place}] is null: leave out the row, or fill in the value")
    return values.to_numpy(zero_copy_only=False).reshape(n, width)


def _first_null(column: Any) -> int:
    return int(np.flatnonzero(np.asarray(column.is_null()))[0])
