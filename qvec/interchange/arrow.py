"""Arrow tables: Parquet files, Arrow files, and databases that return Arrow batches."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.common.tables import REST, merged
from qvec.common.types import IdKind, Metric, Payload
from qvec.interchange.base import Batch, Ids, Matrix, Source, checked_dim, int_ids

if TYPE_CHECKING:
    from qvec.filters.schema import Declared

MARK = b"qvec"  # metadata key of exported schemas, with the metric; the column REST then has JSON
FIELDS = b"qvec.fields"  # metadata key of the declared fields, as a JSON object
ROWS_PER_LENGTH_CHECK = 1024
SAMPLED_PARTS = 16  # a sample is taken from at most this many row groups or batches
Batches = Callable[[int], Iterator[Any]]


class ArrowSource(Source):
    """Rows of record batches: a column of vectors, optionally one of ids; other columns are payload keys.

    vector, id: names of the columns. Default: ``vector``, or the only column of lists of numbers; and ``id``, if there
    is one. payload: a column of JSON objects, merged into the payloads; default: the one that an export wrote.
    columns: the payload columns to read; skip: columns to leave out. Default: all are read. A null means that the
    payload has no such key. Timestamps become datetimes; those that are not whole microseconds are refused. Dates and
    times of day become ISO 8601 text, and UUIDs become text, as the note says.
    """

    def __init__(
        self,
        name: str,
        schema: Any,
        rows: int,
        batches: Batches,
        spread: Batches,
        *,
        vector: str | None = None,
        id: str | None = None,
        payload: str | None = None,
        columns: Sequence[str] | None = None,
        skip: Sequence[str] = (),
        metric: Metric | None = None,
    ) -> None:
        """``batches``: yields all rows, at most n per batch.

        ``spread``: yields n rows that are spread over the table.
        """
        self.name, self.rows = name, rows
        self._batches, self._spread = batches, spread
        self._vector = _vector_column(name, schema, vector)
        self._id = _named_column(name, schema, id, "id")
        meta = schema.metadata or {}
        self._rest = _named_column(name, schema, payload, REST if MARK in meta else None)
        for asked in (*(columns or ()), *skip):
            _named_column(name, schema, asked, None)
        own = [self._vector, self._id, self._rest]
        chosen = [key for key in schema.names if columns is None or key in columns]
        self._keys = [key for key in chosen if key not in own and key not in skip]
        _check_columns(name, schema, [key for key in own if key is not None], self._keys)
        self.note = _converted({key: schema.field(key).type for key in self._keys})
        self.metric = metric if metric is not None else _stored_metric(meta)
        self.fields = _stored_fields(name, meta)
        self.id_kind = None if self._id is None else _id_kind(name, self._id, schema.field(self._id).type)
        self.dim = checked_dim(self._dim(schema.field(self._vector).type), name)

    def batches(self, size: int) -> Iterator[Batch]:
        first = 0
        for found in self._batches(size):
            yield Batch(self._vectors(found, first), self._ids(found, first), self._payloads(found, first))
            first += found.num_rows

    def sample(self, size: int) -> Matrix:
        parts = [self._vectors(found, 0) for found in self._spread(size)]
        return np.concatenate(parts)[:size] if parts else np.empty((0, self.dim), np.float32)

    def _dim(self, kind: Any) -> int:
        kind = getattr(kind, "storage_type", kind)  # a tensor is stored as a list
        if hasattr(kind, "list_size"):
            return int(kind.list_size)
        empty = True
        for found in self._batches(ROWS_PER_LENGTH_CHECK):
            lengths = _storage(found.column(self._vector)).value_lengths().drop_null()
            if len(lengths):
                return int(lengths[0].as_py())
            empty = empty and not found.num_rows
        if empty:
            raise InputError(f"{self.name} has no rows, and the type of its column {self._vector!r} has no length")
        raise InputError(f"{self.name}: row 0 has no vector; the column {self._vector!r} has only nulls")

    def _vectors(self, found: Any, first: int) -> Matrix:
        column = _storage(found.column(self._vector))
        if column.null_count:
            row = first + np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]
            raise InputError(f"{self.name}: row {row} has no vector")
        if not hasattr(column.type, "list_size"):
            lengths = column.value_lengths().to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(lengths != self.dim)
            if bad.size:
                raise InputError(f"{self.name}: row {first + bad[0]} has {lengths[bad[0]]} values, not {self.dim}")
        values = column.flatten()
        if values.null_count:
            row = first + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) // self.dim
            raise InputError(f"{self.name}: row {row} has a null in its vector")
        return cast(Matrix, values.to_numpy(zero_copy_only=False).reshape(-1, self.dim))

    def _ids(self, found: Any, first: int) -> Ids | None:
        if self._id is None:
            return None
        column = _plain_column(found.column(self._id))
        if column.null_count:
            row = first + np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]
            raise InputError(f"{self.name}: row {row} has no id")
        if self.id_kind == "int64":
            return int_ids(column.to_numpy(zero_copy_only=False), self.name)
        return [str(value) for value in column.to_pylist()]

    def _payloads(self, found: Any, first: int) -> list[Payload | None] | None:
        if not self._keys and self._rest is None:
            return None
        columns = [self._values(found.column(key), key, first) for key in self._keys]
        held = [dict(zip(self._keys, row, strict=True)) for row in zip(*columns, strict=True)]
        held = held if columns else [{}] * found.num_rows
        rest = [None] * found.num_rows if self._rest is None else found.column(self._rest).to_pylist()
        return [self._merged(row, *parts) for row, parts in enumerate(zip(held, rest, strict=True), first)]

    def _values(self, column: Any, key: str, first: int) -> list[Any]:
        """The values of a payload column. InputError names the row and the column of one that Python cannot hold."""
        column = self._in_microseconds(_plain_column(column), key, first)
        try:
            return [plain(value) for value in column.to_pylist()]
        except (ValueError, OverflowError):
            for row in range(len(column)):
                try:
                    column[row].as_py()
                except (ValueError, OverflowError) as error:
                    raise InputError(f"{self.name}: row {first + row}, column {key!r}: {error}") from error
            raise

    def _in_microseconds(self, column: Any, key: str, first: int) -> Any:
        """Timestamps in microseconds, as datetimes have. InputError names the first that has digits beyond."""
        pa, types = require("pyarrow"), require("pyarrow.types")
        if not types.is_timestamp(column.type) or column.type.unit != "ns":
            return column
        lost = np.flatnonzero(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False) % 1000)
        if lost.size:
            raise InputError(
                f"{self.name}: row {first + lost[0]}, column {key!r} is {column[int(lost[0])]}: dates are stored in "
                f"microseconds; round it, or leave the column out with skip=[{key!r}]"
            )
        return column.cast(pa.timestamp("us", column.type.tz))

    def _merged(self, row: int, held: Payload, rest: str | None) -> Payload | None:
        try:
            return merged(held, rest)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{self.name}: row {row}, column {self._rest!r} is not a JSON object: {error}") from error


def parquet_source(path: Path, **columns: Any) -> ArrowSource:
    """A Parquet file, read row group by row group."""
    file = _opened(path, require("pyarrow.parquet").ParquetFile)

    def spread(size: int) -> Iterator[Any]:
        groups = _some(file.num_row_groups)
        for group in groups:
            yield from islice(file.iter_batches(-(-size // len(groups)), row_groups=[group]), 1)

    return ArrowSource(str(path), file.schema_arrow, file.metadata.num_rows, file.iter_batches, spread, **columns)


def ipc_source(path: Path, **columns: Any) -> ArrowSource:
    """An Arrow IPC file (also known as Feather), mapped."""
    memory_map = require("pyarrow").memory_map
    file = _opened(path, lambda name: require("pyarrow.ipc").open_file(memory_map(name)))
    n = file.num_record_batches

    def batches(size: int) -> Iterator[Any]:
        for found in map(file.get_batch, range(n)):
            yield from (found.slice(start, size) for start in range(0, found.num_rows, size))

    def spread(size: int) -> Iterator[Any]:
        some = _some(n)
        return (file.get_batch(i).slice(0, -(-size // len(some))) for i in some)

    rows = sum(file.get_batch(i).num_rows for i in range(n))
    return ArrowSource(str(path), file.schema, rows, batches, spread, **columns)


def _some(parts: int) -> list[int]:
    """Numbers of the parts of a file to sample from."""
    return sorted({i * parts // SAMPLED_PARTS for i in range(SAMPLED_PARTS)}) if parts else []


def _opened(path: Path, opener: Callable[[str], Any]) -> Any:
    pa = require("pyarrow")
    try:
        return opener(str(path))
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _vector_column(name: str, schema: Any, asked: str | None) -> str:
    if asked is not None:
        return str(_named_column(name, schema, asked, None))
    found = [field.name for field in schema if _is_vector(field.type)]
    if "vector" in found:
        return "vector"
    if len(found) != 1:
        raise InputError(
            f"{name} has {len(found)} columns of lists of numbers ({', '.join(found) or 'none'}): "
            f"name the one that holds vectors; its columns are {', '.join(schema.names)}"
        )
    return str(found[0])


def _named_column(name: str, schema: Any, asked: str | None, default: str | None) -> str | None:
    """Return the column ``asked`` for, or the default if it exists."""
    if asked is not None and asked not in schema.names:
        raise InputError(f"{name} has no column {asked!r}; its columns are {', '.join(schema.names)}")
    return asked if asked is not None else default if default in schema.names else None


def _is_vector(kind: Any) -> bool:
    types = require("pyarrow.types")
    kind = getattr(kind, "storage_type", kind)
    plain_lists = types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)
    lists = plain_lists or types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))


def _id_kind(name: str, column: str, kind: Any) -> IdKind:
    types = require("pyarrow.types")
    if types.is_integer(kind):
        return "int64"
    if types.is_dictionary(kind):
        return _id_kind(name, column, kind.value_type)
    is_uuid = getattr(kind, "extension_name", "") == "arrow.uuid"
    if is_uuid or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "str"
    raise InputError(f"{name}: column {column!r} is {kind}; ids are integers or strings")


def _check_columns(name: str, schema: Any, own: list[str], keys: list[str]) -> None:
    """Refuse two columns of one name, and types that a payload cannot have, before anything is written."""
    for key in (*own, *keys):
        if (count := schema.names.count(key)) > 1:
            raise InputError(f"{name} has {count} columns named {key!r}; leave them out with skip=[{key!r}]")
    for key in keys:
        if wrong := _unfit(schema.field(key).type):
            raise InputError(
                f"{name}: column {key!r} is {schema.field(key).type}; payloads cannot hold {wrong}: cast the column, "
                f"or leave it out with skip=[{key!r}]"
            )


def _unfit(kind: Any) -> str | None:
    """The name of a type, in a column or nested in it, that a payload cannot contain."""
    types = require("pyarrow.types")
    if types.is_decimal(kind):
        return "decimals"
    if types.is_duration(kind) or types.is_interval(kind):
        return "durations"
    if types.is_dictionary(kind):
        return _unfit(kind.value_type)
    inner = (kind.field(i).type for i in range(kind.num_fields)) if types.is_nested(kind) else ()
    return next(filter(None, map(_unfit, inner)), None)


def _storage(column: Any) -> Any:
    """A column of vectors as lists; tensors are stored as lists."""
    return getattr(column, "storage", column)


def _plain_column(column: Any) -> Any:
    """A column with dictionaries decoded."""
    types = require("pyarrow.types")
    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def _stored_metric(meta: Any) -> Metric | None:
    found = meta.get(MARK, b"").decode()
    return cast(Metric, found) if found in get_args(Metric) else None


def _stored_fields(name: str, meta: Any) -> Mapping[str, Declared]:
    """Return the declared fields of an exported collection; of other tables, none."""
    if FIELDS not in meta:
        return {}
    from qvec.filters.schema import declared_fields, from_plain_declared

    try:
        plain = json.loads(meta[FIELDS])
        return declared_fields({name: from_plain_declared(kind) for name, kind in plain.items()})
    except (ValueError, AttributeError) as error:  # not JSON, or not fields
        raise InputError(f"{name}: the declared fields in its metadata are damaged: {error}") from error


def _converted(columns: Mapping[str, Any]) -> str:
    """Names the columns whose values :func:`plain` converts; "" if there are none."""
    text = {key: kind for key, kind in columns.items() if _becomes_text(kind)}
    return "; ".join(f"column {key!r} is {kind}, its values become text" for key, kind in text.items())


def _becomes_text(kind: Any) -> bool:
    """Whether values of a type, in a column or nested in it, become text."""
    types = require("pyarrow.types")
    if types.is_date(kind) or types.is_time(kind) or getattr(kind, "extension_name", "") == "arrow.uuid":
        return True
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_nested(kind) and any(_becomes_text(kind.field(i).type) for i in range(kind.num_fields))


def plain(value: Any) -> Any:
    """Convert UUIDs, dates and times of day in a value to text: payloads can hold datetimes only."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, uuid.UUID):
        return str(value)
    is_part = isinstance(value, datetime.date | datetime.time) and not isinstance(value, datetime.datetime)
    return value.isoformat() if is_part else value
