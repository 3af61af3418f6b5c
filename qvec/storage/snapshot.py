"""A snapshot: the columns, state, records, entries and ids of one commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from qvec._kernels import Column, Ready, fork_epoch
from qvec.common.errors import ClosedError, CorruptError, ForkedError, InputError
from qvec.common.types import NDArray
from qvec.storage import keys, records
from qvec.storage.environment import Environment
from qvec.storage.lmdb_errors import Error, translate, translated
from qvec.storage.page_table import View
from qvec.storage.pages import structure_problems
from qvec.storage.record_sums import KINDS, RecordSums

_ROW_BYTES = 4


class Snapshot:
    """What one commit stored, until `Store.end`. Any thread may read a snapshot.

    ``derived`` holds data that layers above computed from the commit. It is emptied when another commit is seen.
    """

    __slots__ = ("_env", "_epoch", "_thread", "_txn", "_view", "derived")

    def __init__(self, env: Environment, txn: Any, view: View) -> None:
        self._env, self._txn, self._view = env, txn, view
        self.derived = view.derived
        self._epoch, self._thread = fork_epoch(), threading.get_ident()

    @property
    def columns(self) -> Mapping[str, Column]:
        """Columns by name. Their rows may be read until the snapshot ends."""
        self._live()
        return self._view.columns

    @property
    def state(self) -> Any:
        """The state of the commit, as the layer above decoded it. Snapshots share it: do not change it."""
        self._live()
        return self._view.state

    @property
    def txn_id(self) -> int:
        """Number of the commit that is read; grows with every commit."""
        self._live()
        return self._view.txn_id

    @property
    def version(self) -> int:
        """A number that changes with the data. Only inside a write transaction does it differ from 0."""
        return 0

    def reside(self, columns: Iterable[Column]) -> None:
        """Copy columns into memory for this and all later snapshots. A write transaction ignores the call."""
        self._live()
        if not self._view.writable:
            with self._env.lock:
                for column in columns:
                    if not column.resident:
                        column.make_resident()

    def keep_ready(self, ready: Ready) -> None:
        """Let `Store.quick` run a search while this is the last commit. A write transaction ignores the call."""
        if not self._view.writable:
            with self._env.lock:
                self._view.keep_ready(ready)

    def record(self, kind: int, number: int) -> Any:
        """The payload under ``kind`` and ``number``, or None. Raises CorruptError if it is damaged."""
        key = record_key(kind, number)
        value = self._get(key)
        return None if value is None else records.unseal(key, value)

    def entry(self, name: bytes) -> bytes | memoryview | None:
        """The bytes under a name, or None; valid until the snapshot ends. Raises CorruptError if they are damaged."""
        key = entry_key(name)
        value = self._get(key)
        return None if value is None else records.unseal_bytes(key, value)

    def entries(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes | memoryview]]:
        """Names from ``first`` to ``last``, both included, with their bytes, in ascending order."""
        end = entry_key(last)
        for key, value in self._items(entry_key(first)):
            if key > end:
                return
            yield key[1:], records.unseal_bytes(key, value)

    def row_of(self, key: bytes) -> int | None:
        """The row of an id, or None."""
        value = self._get(id_key(key, 0))
        return None if value is None else row_number(keys.ID + key, value)

    def rows_of(self, ids: Sequence[bytes]) -> NDArray[np.int64]:
        """The row of each id, int64 [n], -1 for an id that is not stored."""
        rows = np.empty(len(ids), dtype=np.int64)
        for i, key in enumerate(ids):
            name = id_key(key, i)
            value = self._get(name)
            rows[i] = -1 if value is None else row_number(name, value)
        return rows

    def iter_ids(self) -> Iterator[tuple[bytes, int]]:
        """All ids and their rows, in the order of the ids' bytes; valid until the snapshot ends."""
        for key, value in self._items(keys.ID):
            yield key[1:], row_number(key, value)

    def check(self) -> Iterator[str]:
        """Read every page, block and record once, and describe what is damaged."""
        self._live()
        yield from structure_problems(self._env.pair.readable_path)
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
        sums, expected = RecordSums(), self._view.record_sums.totals[name]
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

    def _items(self, first: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Keys from ``first`` on, with their values, in ascending order."""
        with translated(self._env.path), self._live().cursor() as cursor:
            found = cursor.set_range(first)
            while found:
                yield bytes(cursor.key()), cursor.value()
                self._live()
                found = cursor.next()

    def _get(self, key: bytes) -> Any:
        txn = self._live()
        try:
            return txn.get(key)
        except Error as error:
            raise translate(error, self._env.path) from error

    def _live(self) -> Any:
        """LMDB's transaction. Raises ForkedError in a child that inherited it, ClosedError after its end."""
        if self._epoch != fork_epoch():
            raise ForkedError("this snapshot or transaction was opened before the fork; only the parent may use it")
        if self._txn is None:
            raise ClosedError("this snapshot or transaction has ended")
        return self._txn


def record_key(kind: int, number: int) -> bytes:
    """Key of a record. Raises InputError for numbers that do not fit."""
    if not 0 <= kind < 256 or not 0 <= number < 1 << 32:
        raise InputError(f"record kind {kind} is not below 256, or number {number} is not below 2^32")
    return keys.record(kind, number)


def entry_key(name: bytes) -> bytes:
    """Key of an entry. Raises InputError for a name that is too long for LMDB."""
    if not 0 < len(name) <= keys.MAX_NAME_BYTES:
        raise InputError(f"the name of an entry has {len(name)} bytes, not 1 to {keys.MAX_NAME_BYTES}")
    return keys.ENTRY + name


def id_key(name: bytes, position: int) -> bytes:
    """Key of an id. Raises InputError with the position of an id that is too long for LMDB."""
    if not 0 < len(name) <= keys.MAX_ID_BYTES:
        raise InputError(f"id {position} has {len(name)} bytes, not 1 to {keys.MAX_ID_BYTES}")
    return keys.ID + name


def row_number(key: bytes, value: bytes | memoryview) -> int:
    """The row that is stored under an id's key."""
    payload = records.unseal_bytes(key, value)
    if len(payload) != _ROW_BYTES:
        raise CorruptError(f"{keys.describe(key)} has {len(payload)} bytes instead of {_ROW_BYTES}")
    return int.from_bytes(payload, "little")


def row_value(key: bytes, row: int) -> bytes:
    """The value that stores a row under an id's key."""
    if not 0 <= row < 1 << 31:
        raise InputError(f"row {row} is not below 2^31")
    return records.seal_bytes(key, row.to_bytes(_ROW_BYTES, "little"))
