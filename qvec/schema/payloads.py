"""Convert payloads to plain data: mappings, numbers of other types, and rows of tables (docs/inputs.md).

A value is converted only if it has an exact plain form. The check of records names other values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import NDArray
from qvec.schema.arrays import unmasked

_NULLS = ("NAType", "NaTType")  # of pandas
_MAX_DEPTH = 64  # as records are checked
_MICROSECOND = "M8[us]"


def plain_text(value: str) -> str:
    """Convert a subclass of str to str. An enumeration of strings becomes its value."""
    return str.__str__(value)


def to_plain(value: Any, name: str, depth: int = 0) -> Any:
    """Plain data of the same value, at every depth. Raises InputError for a date that would lose digits."""
    kind = type(value)
    if depth > _MAX_DEPTH or kind in (str, int, float, bool, bytes, datetime) or value is None:
        return value
    if isinstance(value, Mapping):
        plain = {
            plain_text(key) if isinstance(key, str) else key: to_plain(item, f"{name}[{key!r}]", depth + 1)
            for key, item in value.items()
        }
        if len(plain) != len(value):
            raise InputError(f"{name} has a key twice: {sorted(map(str, value))}")
        return plain
    if kind in (list, tuple):
        return [to_plain(item, f"{name}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, np.datetime64):
        return _plain_date(value, name)
    if isinstance(value, np.bool_ | np.integer | np.floating | np.str_ | np.bytes_):
        item = value.item()
        return item if type(item) in (bool, int, float, str, bytes) else value
    if kind.__name__ in _NULLS:
        return None
    if isinstance(value, str):  # an enumeration, or another subclass
        return plain_text(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if hasattr(value, "to_pydatetime"):  # a pandas.Timestamp
        if value.nanosecond:
            raise InputError(f"{name} is {value}: dates are stored in microseconds; round it, or store text")
        return value.to_pydatetime()
    return value


def _plain_date(value: np.datetime64, name: str) -> datetime | None:
    if np.isnat(value):
        return None
    stored = value.astype(_MICROSECOND)
    if stored != value:
        raise InputError(f"{name} is {value}: dates are stored in microseconds; round it, or store text")
    found = stored.item()
    if not isinstance(found, datetime):
        raise InputError(f"{name} is {value}, which is outside the years 1 to 9999")
    return found


def listed(value: Any) -> Any:
    """The values of an array, or of a column of pandas, polars or Arrow, as a list; other values as they are."""
    if isinstance(value, np.ndarray):
        return value.reshape(-1).tolist()
    for method in ("to_pylist", "to_list"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value


def is_table(value: object) -> bool:
    """Whether a value is a table of named columns: of pandas, polars or Arrow. InputError: its values are not known."""
    if type(value).__name__ == "LazyFrame":
        raise InputError("a LazyFrame has no values yet: collect() it first")
    named = hasattr(value, "column_names") or (hasattr(value, "columns") and hasattr(value, "dtypes"))
    return named and not isinstance(value, Mapping)


def columns_of(table: Any, name: str) -> dict[str, Any]:
    """The columns of a table by their names. Raises InputError for a name that is not a str or occurs twice."""
    names = list(table.column_names if hasattr(table, "column_names") else table.columns)
    for i, column in enumerate(names):
        if not isinstance(column, str):
            raise InputError(f"{name}: column {i} is called {column!r}: names of columns must be strings")
        if column in names[:i]:
            raise InputError(f"{name} has two columns {column!r}: rename one")
    return {plain_text(column): table[column] for column in names}


def rows_of(table: Any, name: str, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """Make a dict from each row of a table. Nulls become None. ``without``: columns to skip."""
    columns = {
        column: _values(values, f"{name}: column {column!r}")
        for column, values in columns_of(table, name).items()
        if column not in without
    }
    if not columns:
        return [{} for _ in range(len(table))]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: Any, name: str) -> list[Any]:
    """The values of a column as Python objects; datetimes as numpy.datetime64, which keeps nanoseconds."""
    if hasattr(column, "to_pylist"):  # of Arrow
        try:
            return list(column.to_pylist())
        except (ValueError, OverflowError) as error:  # nanoseconds, or a year above 9999
            raise InputError(f"{name}: {error}") from None
    dtype = getattr(column, "dtype", None)
    if getattr(dtype, "time_unit", None) == "ns" and hasattr(column, "to_list"):  # of polars
        return list(np.asarray(column.to_numpy()))
    if "time_unit='ns'" in str(dtype):
        raise InputError(f"{name} has dates in nanoseconds inside of {dtype}: cast them to microseconds")
    values = [_listed(value) for value in (column.to_list() if hasattr(column, "to_list") else column)]
    if hasattr(column, "isna") and getattr(dtype, "kind", "") != "f":  # of pandas, which marks missing text by NaN
        return [None if missing else value for value, missing in zip(values, column.isna(), strict=True)]
    return values


def _listed(value: Any) -> Any:
    """Convert a cell that is an array to a list."""
    if isinstance(value, np.ndarray):
        data: NDArray[Any] = unmasked("cell", value)
        return list(data) if data.dtype.kind == "M" else data.tolist()
    return value


def table_parts(
    table: Any, vector: str | None, id: str | None, originals: Any = None
) -> tuple[Any, Any, Any, list[dict[str, Any]] | None]:
    """Vectors, originals, ids and payloads of a table: columns by name, and a dict of the others for each row."""
    if vector is None:
        raise InputError("id names a column of a table; name the column of vectors too: vector=")
    if not is_table(table):
        raise InputError(
            f"vector and id name columns of a table (of pandas, polars or Arrow), got {type(table).__name__}"
        )
    columns = columns_of(table, "vectors")
    named = {"vector": vector, "originals": originals, "id": id}
    for option, column in named.items():
        if column is not None and (not isinstance(column, str) or column not in columns):
            raise InputError(f"{option}={column!r}: the table has no such column; it has {', '.join(columns)}")
    taken = {column for column in named.values() if column is not None}
    payloads = rows_of(table, "vectors", taken) if len(columns) > len(taken) else None
    vectors, exact, ids = (None if column is None else columns[column] for column in named.values())
    return vectors, exact, ids, payloads
