"""Counts of rows by the value of a field, and the order of rows by it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from qvec._kernels import bits_histogram, bits_roaring, bits_rows, roaring_count, roaring_fill
from qvec.common.errors import CorruptError, InputError
from qvec.common.types import Bitmap, NDArray
from qvec.filters.postings import DIGEST, PRESENT, all_names, chunk_of, damaged
from qvec.filters.schema import EPOCH, ZERO, Field, shown
from qvec.filters.values import read_values
from qvec.storage.store import Snapshot

Part = bytes | int
"""Of a value with postings: the part of the names of its entries that stands for it; otherwise its key."""

MAX_ENTRIES = 16_384  # of a field that has a column, too: reading the column takes as long as this many entries
_NUMBER, _CHUNK = 2, 2  # bytes at the beginning and at the end of the name of an entry


@dataclass(frozen=True, slots=True)
class Values:
    """The values of a field that is not a list. ``parts``: ascending; ``numbers``, uint32 [n]: for each row the number
    of its value, from 1; 0: it has none."""

    parts: list[Part]
    numbers: NDArray[np.uint32]


def field_named(schema: Mapping[str, Field], name: object, option: str) -> Field:
    """Return a declared field whose values can be counted and ordered. Raises InputError naming the option."""
    if not isinstance(name, str) or name not in schema:
        listed = ", ".join(schema) or "none"
        raise InputError(f"{option} names a declared field, got {shown(name)}; declared are: {listed}")
    if schema[name].is_searched:
        raise InputError(f"{option}: {name!r} is a {schema[name].type} field, which has no single values")
    return schema[name]


def read_numbers(reading: Snapshot, field: Field) -> Values:
    """Read the values of all rows, from postings if there are few, otherwise from the column."""
    most = MAX_ENTRIES if field.has_column else None
    found = _from_postings(reading, field, most) if field.has_postings else None
    return _from_column(reading, field) if found is None else found


def _from_postings(reading: Snapshot, field: Field, most: int | None) -> Values | None:
    """Read bitmaps; None if there are more than ``most``."""
    n: int = reading.state.n
    numbers = np.zeros(n, np.uint32)
    parts: list[bytes] = []
    low, high = all_names(field)
    for count, (name, data) in enumerate(reading.entries(low, high)):
        part = name[_NUMBER:-_CHUNK]
        if part[:1] == PRESENT:
            continue
        if most is not None and count > most:
            return None
        if not parts or parts[-1] != part:
            parts.append(part)
        if not roaring_fill(data, chunk_of(name), len(parts), numbers):
            raise damaged(name)
    order = sorted(range(len(parts)), key=lambda i: (parts[i][:1] == DIGEST, parts[i][1:]))
    if order != list(range(len(parts))):  # entries are in the order of the lengths of their values
        places = np.zeros(len(parts) + 1, np.uint32)
        places[np.array(order) + 1] = np.arange(1, len(parts) + 1)
        numbers, parts = places[numbers], [parts[i] for i in order]
    return Values(list(parts), numbers)


def _from_column(reading: Snapshot, field: Field) -> Values:
    keys, places = np.unique(read_values(reading.columns, field, reading.state.n), return_inverse=True)
    has_none = len(keys) > 0 and keys[0] == 0
    return Values(keys[1:].tolist() if has_none else keys.tolist(), (places + (not has_none)).astype(np.uint32))


def count_numbers(values: Values, bits: Bitmap) -> dict[Part, int]:
    """Return for each value the number of the rows in ``bits`` that have it; values that none of them has are
    missing."""
    counts = bits_histogram(values.numbers, bits, len(values.parts) + 1)[1:]
    return {values.parts[i]: int(counts[i]) for i in np.flatnonzero(counts).tolist()}


def count_items(reading: Snapshot, field: Field, bits: Bitmap) -> dict[Part, int]:
    """As :func:`count_numbers`, for a field of lists."""
    found: dict[Part, int] = {}
    low, high = all_names(field)
    for name, data in reading.entries(low, high):
        part = name[_NUMBER:-_CHUNK]
        if part[:1] == PRESENT:
            continue
        count = roaring_count(data, chunk_of(name), reading.state.n, bits)
        if count < 0:
            raise damaged(name)
        if count:
            found[part] = found.get(part, 0) + count
    return found


def most_frequent(counts: Mapping[Part, int], limit: int | None) -> list[tuple[Part, int]]:
    """Return the values with the largest counts first, equal counts in the order of the values."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0] if isinstance(item[0], int) else item[0][1:]))
    return ranked if limit is None else ranked[:limit]


def value_of(field: Field, part: Part) -> Any:
    """Return the value that a part stands for. None: the part is a digest, and the value is in the payloads."""
    if isinstance(part, int):
        return _ordered(field, part)
    if part[:1] == DIGEST:
        return None
    data = part[1:]
    if field.kind == "keyword":
        return data.decode()
    return data == b"\x01" if field.kind == "bool" else _ordered(field, int.from_bytes(data, "big"))


def _ordered(field: Field, key: int) -> Any:
    """Return the int, float or datetime that has a key; see :mod:`qvec.filters.schema`."""
    if field.kind == "int":
        return key - ZERO
    if field.kind == "float":
        return struct.unpack("<d", struct.pack("<Q", key ^ (ZERO if key >= ZERO else 2 * ZERO - 1)))[0]
    return EPOCH + timedelta(microseconds=key - ZERO)


def first_row(reading: Snapshot, field: Field, part: bytes, bits: Bitmap) -> int:
    """Return the first row in ``bits`` that has a value."""
    name = field.number.to_bytes(_NUMBER, "big") + part
    for entry, data in reading.entries(name + b"\x00\x00", name + b"\xff\xff"):
        found = np.zeros_like(bits)
        if not bits_roaring(data, chunk_of(entry), reading.state.n, found):
            raise damaged(entry)
        rows = bits_rows(found & bits)
        if len(rows):
            return int(rows[0])
    raise CorruptError(f"the entries of field {field.name!r} have no row for a value that they had before")


def long_value(field: Field, part: bytes, stored: Any) -> str:
    """Return the keyword among a payload's value whose digest is ``part``. CorruptError: it has no such value."""
    import hashlib  # late: it loads OpenSSL

    for value in stored if field.many and isinstance(stored, list) else [stored]:
        if isinstance(value, str) and hashlib.sha256(value.encode()).digest() == part[1:]:
            return value
    raise CorruptError(f"a payload does not have the value of field {field.name!r} that the index has for its row")


def sort_rows(field: Field, values: Values, rows: NDArray[np.int64], descending: bool) -> NDArray[np.int64]:
    """Return rows in the order of their values; those without a value are last, equal values stay in their order."""
    if any(isinstance(part, bytes) and part[:1] == DIGEST for part in values.parts):
        raise InputError(f"order_by: a value of {field.name!r} is longer than 200 bytes, and has no order")
    own = values.numbers[rows]
    has_value = own > 0
    order = np.argsort(~own[has_value] if descending else own[has_value], kind="stable")
    return np.concatenate([rows[has_value][order], rows[~has_value]])
