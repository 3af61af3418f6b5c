"""How many sealed values there are of each kind, and the sum of their checksums.

A checksum finds a value that has changed. The sum, which stands in STATE, finds one that is lost, that is there twice,
or that an earlier commit left: it does not depend on the order, so that a commit brings it up to date by what it puts
and deletes (docs/format.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from qvec.storage import keys, records

KINDS = {"records": keys.RECORD_KIND, "entries": keys.ENTRY, "ids": keys.ID}
_NAMES = {kind: name for name, kind in KINDS.items()}
_MASK = (1 << 64) - 1
_NEVER_ON_PAGES = 1024  # bytes that LMDB keeps with their key, whatever the size of its pages


@dataclass
class Sums:
    """By name of a kind: [how many, sum of their checksums modulo 2^64]."""

    of: dict[str, list[int]] = field(default_factory=lambda: {name: [0, 0] for name in KINDS})

    @classmethod
    def from_state(cls, stored: Mapping[str, Any]) -> Self:
        """Those that STATE holds; ValueError where they are none."""
        of = {name: list(pair) for name, pair in stored.items()}
        whole = all(len(pair) == 2 and all(type(v) is int and 0 <= v <= _MASK for v in pair) for pair in of.values())
        if of.keys() != KINDS.keys() or not whole:
            raise ValueError(f"the sums of records are {stored!r}")
        return cls(of)

    def copy(self) -> Self:
        """Others that begin as these."""
        return type(self)({name: list(pair) for name, pair in self.of.items()})

    def put(self, txn: Any, key: bytes, value: bytes) -> None:
        """Put a sealed value in place of what was there.

        In place of a longer one that the same transaction put, LMDB would leave it pages that checks of the file's
        structure would take for lost (mdb_cursor_put in mdb.c).
        """
        there = txn.get(key)
        self.forget(key, there)
        if there is not None and len(there) > max(len(value), _NEVER_ON_PAGES):
            txn.delete(key)
        txn.put(key, value)
        self.count(key, value)

    def delete(self, txn: Any, key: bytes) -> None:
        """Delete a sealed value, if it is there."""
        self.forget(key, txn.get(key))
        txn.delete(key)

    def count(self, key: bytes, value: bytes | memoryview) -> None:
        """A sealed value has been put where none was."""
        pair = self.of[_NAMES[key[:1]]]
        pair[0], pair[1] = pair[0] + 1, (pair[1] + records.checksum_of(value)) & _MASK

    def forget(self, key: bytes, value: bytes | memoryview | None) -> None:
        """A sealed value, or none, is going."""
        if value is not None:
            pair = self.of[_NAMES[key[:1]]]
            pair[0], pair[1] = pair[0] - 1, (pair[1] - records.checksum_of(value)) & _MASK
