"""Postings: for each value of a field, and each chunk of 65,536 rows, a CRoaring bitmap of the rows that hold it.

An entry's name is the field's number, the size of the key, the key and the chunk's number, big-endian: the values of a
field with an order lie in that order. Bitmaps are in CRoaring's portable form and hold whole row numbers. They are
written by pyroaring, and read by a kernel that takes them for hostile and sets bits where searches want them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qvec._kernels import CHUNK_ROWS, bits_roaring
from qvec.errors import CorruptError
from qvec.filters.schema import Field, Key
from qvec.storage.store import Reading, Transaction
from qvec.types import Bitmap

_PRESENT = b"\xff"  # in the place of a size: the rows that hold anything
_DIGEST = b"\xfe"  # ... the SHA-256 of a keyword that is too long for a key
_MAX_SIZE = 200
_CHUNK_BYTES = 2
_FIRST, _LAST = b"\x00\x00", b"\xff\xff"

Changes = dict[bytes, tuple[list[int], list[int]]]
"""Rows that come to an entry, and rows that go, by its name."""


def stem(field: Field, key: Key | None) -> bytes:
    """The name of a value's entries but for the chunk; None: of the rows that hold anything."""
    number = field.number.to_bytes(2, "big")
    if key is None:
        return number + _PRESENT
    data = key.to_bytes(8, "big") if isinstance(key, int) else key
    if len(data) > _MAX_SIZE:
        import hashlib  # late: it loads OpenSSL

        return number + _DIGEST + hashlib.sha256(data).digest()
    return number + bytes([len(data)]) + data


def entry_name(name_stem: bytes, row: int) -> bytes:
    """The name of the entry that a row belongs to."""
    return name_stem + (row // CHUNK_ROWS).to_bytes(_CHUNK_BYTES, "big")


def all_names(field: Field) -> tuple[bytes, bytes]:
    """The first and the last name that an entry of a field can have."""
    number = field.number.to_bytes(2, "big")
    return number, number + b"\xff" * 256


def read_postings(reading: Reading, field: Field, key: Key | None, n: int, bits: Bitmap) -> None:
    """Set the rows that hold a value, or anything."""
    name = stem(field, key)
    _read_span(reading, name, name, n, bits)


def read_range(reading: Reading, field: Field, low: int, high: int, n: int, bits: Bitmap) -> None:
    """Set the rows that hold a value whose key lies between two; both included."""
    _read_span(reading, stem(field, low), stem(field, high), n, bits)


def _read_span(reading: Reading, low: bytes, high: bytes, n: int, bits: Bitmap) -> None:
    for name, data in reading.entries(low + _FIRST, high + _LAST):
        chunk = int.from_bytes(name[-_CHUNK_BYTES:], "big")
        if len(name) != len(low) + _CHUNK_BYTES or not bits_roaring(data, chunk, n, bits):
            raise CorruptError(f"entry {name.hex()} is no bitmap of rows of chunk {chunk} below {n}")


def rows_of_entry(data: Any) -> Any:
    """The rows of a serialised bitmap as a mutable set; CorruptError where it is none."""
    from pyroaring import BitMap  # late: a twentieth of the import's time

    try:
        return BitMap.deserialize(bytes(data))
    except (ValueError, IndexError) as error:
        raise CorruptError(f"a bitmap of rows is damaged: {error}") from error


def changed_entries(txn: Transaction, changes: Changes) -> Iterable[tuple[bytes, bytes | None]]:
    """The entries after some changes; None: nothing is left of one."""
    from pyroaring import BitMap

    for name, (come, go) in changes.items():
        data = txn.entry(name)
        rows = BitMap() if data is None else rows_of_entry(data)
        rows.difference_update(BitMap(go))
        rows.update(come)
        rows.run_optimize()
        yield name, rows.serialize() if rows else None
