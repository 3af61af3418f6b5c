"""What can be read inside a transaction: columns, state, records, ids."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec._kernels import Column, Ready, fork_epoch
from qvec.common.errors import ClosedError, CorruptError, ForkedError, InputError
from qvec.common.types import NDArray
from qvec.storage import keys, records
from qvec.storage.lmdb_errors import Error, translate, translated
from qvec.storage.page_table import View
from qvec.storage.pages import structure_problems
from qvec.storage.record_sums import KINDS, Sums

if TYPE_CHECKING:
    from qvec.storage.store import Store

_ROW_BYTES = 4


class Reading:
    """The reading half of snapshots and transactions."""

    __slots__ = ("_epoch", "_store", "_thread", "_txn", "_view", "derived")

    def __init__(self, store: Store, txn: Any, view: View) -> None:
        self._store, self._txn, self._view = store, txn, view
        self.derived = view.derived
        """What layers above computed from this commit; emptied when another commit is seen."""
        self._epoch, self._thread = fork_epoch(), threading.get_ident()

    @property
    def columns(self) -> Mapping[str, Column]:
        """Columns by name; their rows may be read until this ends."""
        self._live()
        return self._view.columns

    @property
    def state(self) -> Any:
        """The state of the commit, as the layer above decoded it. Snapshots share it: do not change it."""
        self._live()
        return self._view.state

    def keep_ready(self, ready: Ready) -> None:
        """Have `Store.quick` do a search as long as this is the last commit; the newest few are kept."""
        with self._store._env.lock:
            self._view.keep_ready(ready)

    @property
    def txn_id(self) -> int:
        """Number of the commit that is read; grows with every commit."""
        self._live()
        return self._view.txn_id

    @property
    def version(self) -> int:
        """Changes when what is read does; only inside a write transaction."""
        return 0

    def record(self, kind: int, number: int) -> Any:
        """The payload under ``kind`` and ``number``, None where there is none; CorruptError if damaged."""
        key = record_key(kind, number)
        value = self._get(key)
        return None if value is None else records.unseal(key, value)

    def entry(self, name: bytes) -> bytes | memoryview | None:
        """The bytes under a name, None where there are none; valid until this ends. CorruptError if damaged."""
        key = entry_key(name)
        value = self._get(key)
        return None if value is None else records.unseal_bytes(key, value)

    def entries(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes | memoryview]]:
        """Names from ``first`` to ``last``, both included, with their bytes, in the order of the names."""
        end = entry_key(last)
        with translated(self._store.path), self._live().cursor() as cursor:
            found = cursor.set_range(entry_key(first))
            while found and (key := bytes(cursor.key())) <= end:
                yield key[1:], records.unseal_bytes(key, cursor.value())
                self._live()
                found = cursor.next()

    def row_of(self, key: bytes) -> int | None:
        """The row of an id, None where no row has it."""
        value = self._get(id_key(key, 0))
        return None if value is None else row_number(keys.ID + key, value)

    def rows_of(self, ids: Sequence[bytes]) -> NDArray[np.int64]:
        """The row of each id, int64 [n], -1 where no row has it."""
        rows = np.empty(len(ids), dtype=np.int64)
        for i, key in enumerate(ids):
            name = id_key(key, i)
            value = self._get(name)
            rows[i] = -1 if value is None else row_number(name, value)
        return rows

    def iter_ids(self) -> Iterator[tuple[bytes, int]]:
        """All ids and their rows, in the order of the ids' bytes; valid until this ends."""
        with translated(self._store.path), self._live().cursor() as cursor:
            found = cursor.set_range(keys.ID)
            while found:
                key = bytes(cursor.key())
                yield key[1:], row_number(key, cursor.value())
                self._live()
                found = cursor.next()

    def check(self) -> Iterator[str]:
        """Read every page, block and record once; what is damaged, in words."""
        self._live()
        yield from structure_problems(self._store.path)
        for column in self.columns.values():
            for block in range(column.n_blocks):
                if not column.check(block):
                    yield f"column {column.name!r}: block {block} is damaged, missing or stale"
        for name in KINDS:
            yield from self.check_sealed(name)

    def check_sealed(self, name: str) -> Iterator[str]:
        """Read all "records", "entries" or "ids" once; which are damaged, and whether any is lost, in words."""
        unseal = {"records": records.unseal, "entries": records.unseal_bytes, "ids": row_number}[name]
        found, expected = Sums(), self._view.sums.of[name]
        yield from self._check_sealed(KINDS[name], unseal, found)
        if (there := found.of[name]) != expected:
            yield f"{there[0]} {name} are there, the state says {expected[0]}: some are lost, or of an earlier commit"

    def _check_sealed(self, kind: bytes, unseal: Callable[[bytes, memoryview], object], sums: Sums) -> Iterator[str]:
        with translated(self._store.path), self._live().cursor() as cursor:
            found = cursor.set_range(kind)
            while found and (key := bytes(cursor.key()))[:1] == kind:
                try:
                    unseal(key, cursor.value())
                except CorruptError as error:
                    yield str(error)
                sums.count(key, cursor.value())
                found = cursor.next()

    def _get(self, key: bytes) -> Any:
        txn = self._live()
        try:
            return txn.get(key)
        except Error as error:
            raise translate(error, self._store.path) from error

    def _live(self) -> Any:
        """LMDB's transaction; ForkedError in a child that inherited it, ClosedError after its end."""
        if self._epoch != fork_epoch():
            raise ForkedError("this snapshot or transaction was opened before the fork; only the parent may use it")
        if self._txn is None:
            raise ClosedError("this snapshot or transaction has ended")
        return self._txn


class Snapshot(Reading):
    """The collection as one commit left it, until `Store.end`. Any thread may read it."""

    __slots__ = ()

    def reside(self, columns: Iterable[Column]) -> None:
        """Copy columns into memory, for this and all later snapshots."""
        self._live()
        with self._store._env.lock:
            for column in columns:
                if not column.resident:
                    column.make_resident()


def record_key(kind: int, number: int) -> bytes:
    """Key of a record; InputError for numbers that do not fit."""
    if not 0 <= kind < 256 or not 0 <= number < 1 << 32:
        raise InputError(f"record kind {kind} is not below 256, or number {number} not below 2^32")
    return keys.record(kind, number)


def entry_key(name: bytes) -> bytes:
    """Key of an entry; InputError for a name that is too long for LMDB."""
    if not 0 < len(name) <= keys.MAX_NAME_BYTES:
        raise InputError(f"the name of an entry has {len(name)} bytes, not 1 to {keys.MAX_NAME_BYTES}")
    return keys.ENTRY + name


def id_key(name: bytes, position: int) -> bytes:
    """Key of an id; InputError names the position of one that is too long for LMDB."""
    if not 0 < len(name) <= keys.MAX_ID_BYTES:
        raise InputError(f"id {position} has {len(name)} bytes, not 1 to {keys.MAX_ID_BYTES}")
    return keys.ID + name


def row_number(key: bytes, value: bytes | memoryview) -> int:
    """The row stored under an id's key."""
    payload = records.unseal_bytes(key, value)
    if len(payload) != _ROW_BYTES:
        raise CorruptError(f"{keys.describe(key)} has {len(payload)} bytes instead of {_ROW_BYTES}")
    return int.from_bytes(payload, "little")


def row_value(key: bytes, row: int) -> bytes:
    """A row as stored under an id's key."""
    if not 0 <= row < 1 << 31:
        raise InputError(f"row {row} is not below 2^31")
    return records.seal_bytes(key, row.to_bytes(_ROW_BYTES, "little"))
