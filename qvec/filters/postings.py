"""Postings: for each value of a field and each chunk of 65,536 rows, a CRoaring bitmap of the rows with the value.

The name of an entry is the field's number, the size of the key, the key, and the chunk's number, big-endian: entries
of an ordered field are sorted by value. Bitmaps use CRoaring's portable format with whole row numbers. pyroaring writes
bitmaps; a kernel, which does not trust their bytes, reads them. Each chunk of a field has a version, a random number
that changes with its bitmaps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from qvec._kernels import CHUNK_ROWS, Deadline, bits_roaring
from qvec.common.errors import CorruptError
from qvec.common.types import Bitmap
from qvec.filters.schema import Field, Key
from qvec.storage.store import Snapshot, Transaction

PRESENT = b"\xff"  # in place of a size: rows that have any value
DIGEST = b"\xfe"  # in place of a size: SHA-256 of a keyword that is too long for a key
VERSION = b"\xfd"  # in place of a size: the version of a chunk
VERSION_BYTES = 8
MAX_KEY_BYTES = 200
_CHUNK_BYTES = 2
_FIRST, _LAST = b"\x00\x00", b"\xff\xff"

Changes = dict[bytes, tuple[list[int], list[int]]]
"""By the name of an entry: rows to add, and rows to remove."""


def stem(field: Field, key: Key | None) -> bytes:
    """Return the name of a value's entries without the chunk. None: the entries of rows that have any value."""
    number = field.number.to_bytes(2, "big")
    if key is None:
        return number + PRESENT
    data = key.to_bytes(8, "big") if isinstance(key, int) else key
    if len(data) > MAX_KEY_BYTES:
        import hashlib  # late: it loads OpenSSL

        return number + DIGEST + hashlib.sha256(data).digest()
    return number + bytes([len(data)]) + data


def entry_name(name_stem: bytes, row: int) -> bytes:
    """Return the name of the entry whose chunk contains a row."""
    return name_stem + (row // CHUNK_ROWS).to_bytes(_CHUNK_BYTES, "big")


def all_names(field: Field) -> tuple[bytes, bytes]:
    """The lowest and the highest possible name of a field's entries."""
    number = field.number.to_bytes(2, "big")
    return number, number + b"\xff" * 256


def read_postings(
    reading: Snapshot, field: Field, key: Key | None, n: int, bits: Bitmap, deadline: Deadline | None = None
) -> None:
    """Set the bits of the rows that have the value. None: any value."""
    name = stem(field, key)
    _read_span(reading, name, name, n, bits, deadline)


def read_range(
    reading: Snapshot, field: Field, low: int, high: int, n: int, bits: Bitmap, deadline: Deadline | None = None
) -> None:
    """Set the bits of the rows that have a key from ``low`` to ``high``, both included."""
    _read_span(reading, stem(field, low), stem(field, high), n, bits, deadline)


def read_items(reading: Snapshot, field: Field, n: int, bits: Bitmap, deadline: Deadline | None = None) -> None:
    """Set the bits of the rows that have any key."""
    low, high = all_names(field)
    entries = reading.entries(low, high)
    for name, data in entries if deadline is None else deadline.watch(entries):
        if name[len(low) : len(low) + 1] in (PRESENT, VERSION):
            continue
        if not bits_roaring(data, chunk_of(name), n, bits):
            raise damaged(name)


def chunk_of(name: bytes) -> int:
    """Return the number of the chunk of rows that an entry covers."""
    return int.from_bytes(name[-_CHUNK_BYTES:], "big")


def _read_span(reading: Snapshot, low: bytes, high: bytes, n: int, bits: Bitmap, deadline: Deadline | None) -> None:
    entries = reading.entries(low + _FIRST, high + _LAST)
    for name, data in entries if deadline is None else deadline.watch(entries):
        if len(name) != len(low) + _CHUNK_BYTES or not bits_roaring(data, chunk_of(name), n, bits):
            raise damaged(name)


def changed_entries(txn: Transaction, changes: Changes) -> Iterable[tuple[bytes, bytes | None]]:
    """The changed entries. None: the entry is empty and must be deleted."""
    from pyroaring import BitMap  # late: a twentieth of the import's time

    for name, (come, go) in changes.items():
        data = txn.entry(name)
        rows = BitMap() if data is None else _stored_rows(name, data, txn.state.n)
        rows.difference_update(BitMap(go))
        rows.update(come)
        rows.run_optimize()
        yield name, rows.serialize() if rows else None


def new_versions(field: Field, changes: Changes) -> Iterable[tuple[bytes, bytes]]:
    """The entries with new versions of the chunks that have changed."""
    for chunk in sorted({chunk_of(name) for name in changes}):
        yield version_name(field, chunk), os.urandom(VERSION_BYTES)


def version_name(field: Field, chunk: int) -> bytes:
    """Return the name of the entry with a chunk's version."""
    return field.number.to_bytes(2, "big") + VERSION + chunk.to_bytes(_CHUNK_BYTES, "big")


def _stored_rows(name: bytes, data: Any, n: int) -> Any:
    """Deserialize a bitmap. Raises CorruptError if it is malformed or has rows outside of its chunk."""
    from pyroaring import BitMap

    chunk = int.from_bytes(name[-_CHUNK_BYTES:], "big")
    try:
        rows = BitMap.deserialize(bytes(data))
        if rows.min() // CHUNK_ROWS == rows.max() // CHUNK_ROWS == chunk and rows.max() < n:
            return rows
    except (ValueError, IndexError):
        pass
    raise damaged(name)


def damaged(name: bytes) -> CorruptError:
    """Return the error to raise for an entry that is not a bitmap."""
    return CorruptError(f"entry {name.hex()} is not a bitmap of rows of its chunk")
