"""Record sums: the number of sealed values of each kind, and the sum of their checksums.

A checksum detects a changed value. The record sums, which are stored in STATE, detect a value that is lost, duplicated
or left over from an earlier commit. They do not depend on the order of the values, so a commit can update them by
adding what it puts and subtracting what it deletes (docs/format.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from qvec.storage import keys, records

KINDS = {"records": keys.RECORD_KIND, "entries": keys.ENTRY, "ids": keys.ID}
_NAMES = {kind: name for name, kind in KINDS.items()}
_MASK = (1 << 64) - 1
_INLINE_BYTES = 1024  # values up to this size are stored with their key, whatever the page size


@dataclass
class RecordSums:
    """``totals``: for each name of a kind, [number of values, sum of their checksums modulo 2^64]."""

    totals: dict[str, list[int]] = field(default_factory=lambda: {name: [0, 0] for name in KINDS})

    @classmethod
    def from_state(cls, stored: Mapping[str, Any]) -> Self:
        """Decode the record sums of a STATE record. Raises ValueError if they are malformed."""
        totals = {name: list(pair) for name, pair in stored.items()}
        whole = all(
            len(pair) == 2 and all(type(v) is int and 0 <= v <= _MASK for v in pair) for pair in totals.values()
        )
        if totals.keys() != KINDS.keys() or not whole:
            raise ValueError(f"the record sums are {stored!r}")
        return cls(totals)

    def copy(self) -> Self:
        """Return an independent copy."""
        return type(self)({name: list(pair) for name, pair in self.totals.items()})

    def put(self, txn: Any, key: bytes, value: bytes) -> None:
        """Put a sealed value, which may replace another.

        If the old value is longer, it is deleted first. Otherwise, if the same transaction put both values, LMDB would
        leave the pages of the longer value to the shorter one, and checks of the file's structure would report these
        pages as lost (mdb_cursor_put in mdb.c).
        """
        old = txn.get(key)
        self.subtract(key, old)
        if old is not None and len(old) > max(len(value), _INLINE_BYTES):
            txn.delete(key)
        txn.put(key, value)
        self.add(key, value)

    def put_all(self, txn: Any, pairs: Sequence[tuple[bytes, bytes]], total: int) -> None:
        """Put sealed values with ascending keys of one kind, whose checksums add up to ``total``."""
        with txn.cursor() as cursor:
            is_new = not cursor.set_range(pairs[0][0]) or bytes(cursor.key()) > pairs[-1][0]
            if is_new:
                cursor.putmulti(pairs, dupdata=False)
        if is_new:
            self.add_all(pairs, total)
            return
        for key, value in pairs:
            self.put(txn, key, value)

    def delete(self, txn: Any, key: bytes) -> None:
        """Delete a sealed value, if there is one."""
        self.subtract(key, txn.get(key))
        txn.delete(key)

    def add(self, key: bytes, value: bytes | memoryview) -> None:
        """Add a new sealed value to the sums."""
        pair = self.totals[_NAMES[key[:1]]]
        pair[0], pair[1] = pair[0] + 1, (pair[1] + records.checksum_of(value)) & _MASK

    def add_all(self, pairs: Sequence[tuple[bytes, bytes]], total: int) -> None:
        """Add new sealed values of one kind, whose checksums add up to ``total``."""
        if pairs:
            pair = self.totals[_NAMES[pairs[0][0][:1]]]
            pair[0], pair[1] = pair[0] + len(pairs), (pair[1] + total) & _MASK

    def subtract(self, key: bytes, value: bytes | memoryview | None) -> None:
        """Subtract a sealed value from the sums before it is deleted. None: there is no value."""
        if value is not None:
            pair = self.totals[_NAMES[key[:1]]]
            pair[0], pair[1] = pair[0] - 1, (pair[1] - records.checksum_of(value)) & _MASK
