"""A snapshot: the columns, state, records, entries and ids of one commit."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from qvec._kernels import Column, Deadline, SnapshotBase, make_resident
from qvec.common.errors import CorruptError, InputError
from qvec.common.types import NDArray
from qvec.storage import keys, records
from qvec.storage.environment import Environment
from qvec.storage.lmdb_errors import Error, translate, translated
from qvec.storage.page_table import View
from qvec.storage.pages import structure_problems
from qvec.storage.record_sums import KINDS, RecordSums

ROW_BYTES = 4


class Snapshot(SnapshotBase):
    """The content of one commit, valid until `Store.end`. Any thread may read a snapshot.

    ``derived``: data that higher layers have computed from the commit.
    """

    __slots__ = ()

    env: Environment
    view: View

    @property
    def version(self) -> int:
        """A number that changes with the data. Only inside a write transaction does it differ from 0."""
        return 0

    def reside(self, columns: Iterable[Column], budget: int | None = None) -> None:
        """Copy columns to memory for this snapshot and all later ones. A write transaction ignores the call.

        ``budget``: bytes of memory for all copies of this view, which columns use in their order. None: all columns are
        copied.
        """
        self.live()
        if not self.view.writable:
            with self.env.lock:
                left = None if budget is None else max(0, budget - self.resident_bytes)
                make_resident(columns, self.env.pair.data_fd, left)

    @property
    def resident_bytes(self) -> int:
        """Memory of the copies of columns."""
        return sum(column.resident_bytes for column in self.columns.values())

    def record(self, kind: int, number: int) -> Any:
        """Return the payload under ``kind`` and ``number``, or None. Raises CorruptError if the payload is damaged."""
        key = record_key(kind, number)
        value = self._get(key)
        return None if value is None else records.unseal(key, value)

    def entry(self, name: bytes) -> bytes | memoryview | None:
        """Return the bytes under a name, or None; valid until the snapshot ends.

        Raises CorruptError if they are damaged.
        """
        key = entry_key(name)
        value = self._get(key)
        return None if value is None else records.unseal_bytes(key, value)

    def entries(self, first: bytes, last: bytes) -> Generator[tuple[bytes, bytes | memoryview], bytes | None, None]:
        """Yield the names from ``first`` to ``last``, both included, and their bytes, in ascending order.

        A name that is sent continues there, with the first name that is not below it.
        """
        end, items = entry_key(last), self._items(entry_key(first))
        item = next(items, None)
        while item is not None and item[0] <= end:
            key, value = item
            target = yield key[1:], records.unseal_bytes(key, value)
            try:
                item = items.send(None if target is None else keys.ENTRY + target)
            except StopIteration:
                return

    def row_of(self, key: bytes) -> int | None:
        """Return the row of an id, or None."""
        try:
            value = self.live().get(keys.ID + key)
        except Error as error:
            raise translate(error, self.env.path) from error
        return None if value is None else row_number(keys.ID + key, value)

    def rows_of(self, ids: Sequence[bytes], deadline: Deadline | None = None) -> NDArray[np.int64]:
        """Return the row of each id, int64 [n], -1 for an id that is not stored."""
        rows = np.empty(len(ids), dtype=np.int64)
        for i, key in enumerate(ids if deadline is None else deadline.watch(ids)):
            name = id_key(key, i)
            value = self._get(name)
            rows[i] = -1 if value is None else row_number(name, value)
        return rows

    def iter_ids(self, after: bytes | None = None) -> Iterator[tuple[bytes, int]]:
        """Yield ids and their rows, in the order of the ids' bytes; valid until the snapshot ends.

        ``after``: begin behind this id.
        """
        for key, value in self._items(keys.ID if after is None else keys.ID + after + b"\0"):
            yield key[1:], row_number(key, value)

    def check(self) -> Iterator[str]:
        """Read every page, block and record once, and describe the damaged ones."""
        self.live()
        yield from structure_problems(self.env.pair.readable_path)
        for column in self.columns.values():
            for block in range(column.n_blocks):
                if not column.check(block):
                    yield f"column {column.name!r}: block {block} is damaged, missing or stale"
        for name in KINDS:
            yield from self.check_sealed(name)

    def check_sealed(self, name: str) -> Iterator[str]:
        """Read all "records", "entries" or "ids" once, and describe those that are damaged, lost or stale."""
        unseal: Callable[[bytes, memoryview], object]
        unseal = {"records": records.unseal, "entries": records.unseal_bytes, "ids": row_number}[name]
        sums, expected = RecordSums(), self.view.record_sums.totals[name]
        for key, value in self._items(KINDS[name]):
            if key[:1] != KINDS[name]:
                break
            try:
                unseal(key, value)
            except CorruptError as error:
                yield str(error)
            sums.add(key, value)
        if (found := sums.totals[name]) != expected:
            yield f"{found[0]} {name} exist, the state says {expected[0]}: some are lost, or of an earlier commit"

    def _items(self, first: bytes) -> Generator[tuple[bytes, memoryview], bytes | None, None]:
        """Yield keys and values in ascending order, beginning at the key ``first``, or at one that is sent."""
        with translated(self.env.path), self.live().cursor() as cursor:
            found = cursor.set_range(first)
            while found:
                target = yield bytes(cursor.key()), cursor.value()
                self.live()
                found = cursor.next() if target is None else cursor.set_range(target)

    def _get(self, key: bytes) -> Any:
        txn = self.live()
        try:
            return txn.get(key)
        except Error as error:
            raise translate(error, self.env.path) from error


def record_key(kind: int, number: int) -> bytes:
    """Return the key of a record. Raises InputError for a kind or number that is too large."""
    if not 0 <= kind < 256 or not 0 <= number < 1 << 32:
        raise InputError(f"record kind {kind} is not below 256, or number {number} is not below 2^32")
    return keys.record(kind, number)


def entry_key(name: bytes) -> bytes:
    """Return the key of an entry. Raises InputError for a name that is too long for LMDB."""
    if not 0 < len(name) <= keys.MAX_NAME_BYTES:
        raise InputError(f"the name of an entry has {len(name)} bytes, not 1 to {keys.MAX_NAME_BYTES}")
    return keys.ENTRY + name


def id_key(name: bytes, position: int) -> bytes:
    """Return the key of an id. Raises InputError with the position of an id that is too long for LMDB."""
    if not 0 < len(name) <= keys.MAX_ID_BYTES:
        raise InputError(f"id {position} has {len(name)} bytes, not 1 to {keys.MAX_ID_BYTES}")
    return keys.ID + name


def row_number(key: bytes, value: bytes | memoryview) -> int:
    """Decode the row that is stored under an id's key."""
    payload = records.unseal_bytes(key, value)
    if len(payload) != ROW_BYTES:
        raise CorruptError(f"{keys.describe(key)} has {len(payload)} bytes instead of {ROW_BYTES}")
    return int.from_bytes(payload, "little")


def row_value(key: bytes, row: int) -> bytes:
    """Encode the value that stores a row under an id's key."""
    if not 0 <= row < 1 << 31:
        raise InputError(f"row {row} is not below 2^31")
    return records.seal_bytes(key, row.to_bytes(ROW_BYTES, "little"))
