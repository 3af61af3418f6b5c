"""Counts of rows by the value of a field, and the order of rows by it."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np

from qvec._kernels import CHUNK_ROWS, WORD_ROWS, bits_histogram, bits_roaring, bits_rows, roaring_count
from qvec.common.errors import CorruptError, InputError
from qvec.common.types import Bitmap, NDArray
from qvec.filters.field_values import Part, Values
from qvec.filters.postings import DIGEST, MAX_KEY_BYTES, PRESENT, VERSION, all_names, chunk_of, damaged
from qvec.filters.schema import EPOCH, ZERO, Field, shown
from qvec.schema.bitmaps import words_for
from qvec.storage.store import Snapshot

_NUMBER, _CHUNK = 2, 2  # bytes at the beginning and at the end of the name of an entry


def field_named(schema: Mapping[str, Field], name: object, option: str) -> Field:
    """Return a declared field whose values can be counted and ordered. Raises InputError naming the option."""
    if not isinstance(name, str) or name not in schema:
        listed = ", ".join(schema) or "none"
        raise InputError(f"{option} names a declared field, got {shown(name)}; declared are: {listed}")
    if schema[name].is_searched:
        raise InputError(f"{option}: {name!r} is a {schema[name].type} field, which has no single values")
    return schema[name]


def count_numbers(values: Values, bits: Bitmap) -> dict[Part, int]:
    """Return for each value the number of the rows in ``bits`` that have it; values that none of them has are
    missing."""
    counts = np.zeros(len(values.parts) + 1, np.int64)
    for chunk, numbers in enumerate(values.chunks):
        first = chunk * CHUNK_ROWS // WORD_ROWS
        bits_histogram(numbers, bits[first : first + words_for(len(numbers))], counts)
    return {values.parts[i]: int(counts[i + 1]) for i in np.flatnonzero(counts[1:]).tolist()}


def count_items(reading: Snapshot, field: Field, bits: Bitmap) -> dict[Part, int]:
    """As :func:`count_numbers`, for a field of lists."""
    found: dict[Part, int] = {}
    low, high = all_names(field)
    for name, data in reading.entries(low, high):
        part = name[_NUMBER:-_CHUNK]
        if part[:1] in (PRESENT, VERSION):
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


def sum_facets(parts: Iterable[Mapping[Any, int]], limit: int | None) -> dict[Any, int]:
    """Return the sums of facets of one field of several collections, in the order of :func:`most_frequent`."""
    total: Counter[Any] = Counter()
    for part in parts:
        total.update(part)
    ranked = sorted(total.items(), key=lambda item: (-item[1], _place(item[0])))
    return dict(ranked[:limit])


def _place(value: Any) -> Any:
    """The key by which a value is sorted among those of its field."""
    if not isinstance(value, str):
        return value
    data = value.encode()
    if len(data) <= MAX_KEY_BYTES:
        return data
    import hashlib  # late: it loads OpenSSL

    return hashlib.sha256(data).digest()


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
    own = values.ranks[np.concatenate([*values.chunks, np.zeros(0, np.uint32)])[rows]]
    has_value = own > 0
    order = np.argsort(~own[has_value] if descending else own[has_value], kind="stable")
    return np.concatenate([rows[has_value][order], rows[~has_value]])
