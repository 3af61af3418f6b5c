"""Arrow tables that Hypothesis draws: columns of every type, and what a payload holds of their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st

from helpers.drawn_tables import TEXT

MAX_ROWS = 4
FIRST, LAST = datetime(1700, 1, 1), datetime(2200, 1, 1)


@dataclass(frozen=True)
class Kind:
    """A type of columns. ``values``: what is drawn. ``make``: the Arrow type, from pyarrow.

    ``stored``: the value that a payload holds; ``in_files``: in place of it, if the table is imported from a file.
    None: a column with a value of the type is refused.
    """

    make: Callable[[Any], Any]
    values: st.SearchStrategy[Any]
    stored: Callable[[Any], Any] | None = lambda value: value
    in_files: Callable[[Any], Any] | None = lambda value: value
    only_in_memory: bool = False  # Parquet has no such type


def whole(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def moments(step: timedelta) -> st.SearchStrategy[datetime]:
    return st.integers(0, (LAST - FIRST) // step).map(lambda n: FIRST + n * step)


def in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


def refused(make: Callable[[Any], Any], values: st.SearchStrategy[Any], text: bool = False) -> Kind:
    """A type that payloads do not have; ``text``: files give its values as text."""
    return Kind(make, values, None, (lambda value: value.isoformat()) if text else None)


INT64 = whole(64, True)
KINDS: dict[str, Kind] = {
    **{
        f"{'u' * (not signed)}int{bits}": Kind(
            lambda pa, bits=bits, signed=signed: getattr(pa, f"{'u' * (not signed)}int{bits}")(), whole(bits, signed)
        )
        for bits in (8, 16, 32, 64)
        for signed in (True, False)
    },
    "float16": Kind(lambda pa: pa.float16(), st.floats(width=16)),
    "float32": Kind(lambda pa: pa.float32(), st.floats(width=32)),
    "float64": Kind(lambda pa: pa.float64(), st.floats()),
    "bool": Kind(lambda pa: pa.bool_(), st.booleans()),
    "string": Kind(lambda pa: pa.string(), TEXT),
    "large_string": Kind(lambda pa: pa.large_string(), TEXT),
    "string_view": Kind(lambda pa: pa.string_view(), TEXT),
    "binary": Kind(lambda pa: pa.binary(), st.binary(max_size=8)),
    "large_binary": Kind(lambda pa: pa.large_binary(), st.binary(max_size=8)),
    "binary_view": Kind(lambda pa: pa.binary_view(), st.binary(max_size=8)),
    "fixed_binary": Kind(lambda pa: pa.binary(3), st.binary(min_size=3, max_size=3)),
    "dictionary": Kind(lambda pa: pa.dictionary(pa.int32(), pa.string()), TEXT),
    "null": Kind(lambda pa: pa.null(), st.none()),
    "seconds": Kind(lambda pa: pa.timestamp("s"), moments(timedelta(seconds=1)), in_utc, in_utc),
    "milliseconds": Kind(lambda pa: pa.timestamp("ms", "UTC"), moments(timedelta(milliseconds=1)), in_utc, in_utc),
    "microseconds": Kind(lambda pa: pa.timestamp("us"), moments(timedelta(microseconds=1)), in_utc, in_utc),
    "zoned": Kind(lambda pa: pa.timestamp("us", "+05:30"), moments(timedelta(microseconds=1)).map(in_utc)),
    "nanoseconds": Kind(lambda pa: pa.timestamp("ns", "UTC"), moments(timedelta(microseconds=1)), in_utc, in_utc),
    "lists": Kind(lambda pa: pa.list_(pa.int64()), st.lists(INT64, max_size=3)),
    "large_lists": Kind(lambda pa: pa.large_list(pa.string()), st.lists(TEXT, max_size=3)),
    "list_views": Kind(lambda pa: pa.list_view(pa.int64()), st.lists(INT64, max_size=3), only_in_memory=True),
    "fixed_lists": Kind(lambda pa: pa.list_(pa.float64(), 2), st.lists(st.floats(), min_size=2, max_size=2)),
    "lists_of_lists": Kind(
        lambda pa: pa.list_(pa.list_(pa.bool_())), st.lists(st.lists(st.booleans(), max_size=2), max_size=2)
    ),
    "structs": Kind(
        lambda pa: pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
        st.tuples(st.none() | INT64, st.lists(TEXT, max_size=2)).map(lambda pair: {"a": pair[0], "b": pair[1]}),
    ),
    "lists_of_structs": Kind(
        lambda pa: pa.list_(pa.struct([("x", pa.float64())])),
        st.lists(st.fixed_dictionaries({"x": st.floats()}), max_size=2),
    ),
    "maps": Kind(
        lambda pa: pa.map_(pa.string(), pa.int64()),
        st.lists(st.tuples(TEXT, INT64), max_size=2, unique_by=lambda pair: pair[0]),
        lambda value: [list(pair) for pair in value],
        lambda value: [list(pair) for pair in value],
    ),
    "dates": refused(lambda pa: pa.date32(), st.dates(date(1900, 1, 1), date(2100, 1, 1)), text=True),
    "times": refused(lambda pa: pa.time64("us"), st.times(), text=True),
    "times_of_seconds": refused(
        lambda pa: pa.time32("s"),
        st.integers(0, 86_399).map(lambda n: time(n // 3600, n // 60 % 60, n % 60)),
        text=True,
    ),
    "uuids": Kind(lambda pa: pa.uuid(), st.uuids(), None, str),
    "durations": refused(lambda pa: pa.duration("us"), st.timedeltas(timedelta(-1000), timedelta(1000))),
    "decimals": refused(lambda pa: pa.decimal128(10, 2), st.integers(-(10**8), 10**8).map(lambda n: Decimal(n) / 100)),
}
NAMES = TEXT.filter(lambda name: name not in ("vector", "id", "payload"))


@st.composite
def arrow_tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Columns of one type each, some of them with nulls; and the names of their types."""
    rows = draw(st.integers(1, MAX_ROWS))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    kinds = {name: draw(st.sampled_from(sorted(KINDS))) for name in names}
    nulls = {name: draw(st.booleans()) for name in names}
    columns = {
        name: draw(
            st.lists(
                st.none() | KINDS[kind].values if nulls[name] else KINDS[kind].values, min_size=rows, max_size=rows
            )
        )
        for name, kind in kinds.items()
    }
    return columns, kinds


def arrow_table(pa: Any, columns: dict[str, list[Any]], kinds: dict[str, str], x: Any) -> Any:
    """The table, with a column of vectors and one of ids; in two chunks if it has several rows."""
    arrays = {name: arrow_array(pa, values, KINDS[kinds[name]].make(pa)) for name, values in columns.items()}
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    table = pa.table({"vector": vectors, "id": pa.array(range(len(x)), pa.int64()), **arrays})
    half = len(x) // 2
    return pa.concat_tables([table.slice(0, half), table.slice(half)]) if half else table


def arrow_array(pa: Any, values: list[Any], kind: Any) -> Any:
    if kind == pa.float16():
        known = [np.float16(0 if value is None else value) for value in values]
        return pa.array(np.array(known, np.float16), kind, mask=np.array([value is None for value in values]))
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        raw = pa.array([value and value.bytes for value in values], pa.binary(16))
        return pa.ExtensionArray.from_storage(kind, raw)
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)
