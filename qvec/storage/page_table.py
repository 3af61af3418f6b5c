"""The page table: the page number and the checksum of each block of each column. It is stored in chunks of one page.

    STATE record ──► stamp (txn id, crc) of each chunk ──► entry (page number, crc) of each block ──► rows

To move a view to a newer commit, the loader reads only those chunks whose stamps differ, and the view then forgets
only those blocks whose entries differ.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from qvec._kernels import Column, ViewBase, chunk_entries
from qvec.common.errors import CorruptError, InputError
from qvec.storage import keys
from qvec.storage.environment import Environment
from qvec.storage.record_sums import RecordSums
from qvec.storage.state_record import ColumnEntry, StateCodec, StateRecord, read_state

_STAMP = struct.Struct("<QI")
STAMP_BYTES = _STAMP.size


class View(ViewBase):
    """The columns and the state of one commit. The columns point into the memory map and need an open transaction.

    ``writable``: whether a write transaction may change the columns. ``relocated``: whether blocks were located by key,
    because the page table has the page numbers of another file. ``derived``: data that higher layers have computed from
    the commit; cleared when the view moves to another commit. ``lasting``: data that they keep for later commits, and
    that they compare with each commit; views of one handle share it.
    """

    __slots__ = ("__weakref__", "lasting", "record_sums", "relocated", "stamps", "writable")

    def __init__(self, *, writable: bool = False) -> None:
        self.writable, self.relocated = writable, False
        self.columns = {}
        self.stamps: dict[str, bytes] = {}
        self.state = None
        self.record_sums = RecordSums()
        self.derived = {}
        self.lasting: dict[Any, Any] = {}

    def reset(self) -> None:
        """Empty the view after the file was replaced."""
        self.txn_id, self.state, self.record_sums = 0, None, RecordSums()
        for part in (self.columns, self.stamps, self.derived, self.lasting):
            part.clear()

    def clone(self) -> View:
        """Copy the columns and the stamps, so that :meth:`Loader.refresh` can move the copy to a newer commit.

        The copy has no state, record sums, transaction id or derived data. ``refresh`` sets them.
        """
        other = View()
        other.columns = {name: column.clone() for name, column in self.columns.items()}
        other.stamps, other.lasting = dict(self.stamps), self.lasting
        return other


class Loader:
    """Moves views to the commit that a transaction reads."""

    def __init__(self, env: Environment, codec: StateCodec, *, checksums: bool) -> None:
        self._env, self._codec, self._checksums = env, codec, checksums

    def refresh(self, view: View, txn: Any, commit: int) -> None:
        """Move ``view`` to the last commit, whose transaction id is ``commit``.

        Raises CorruptError, which names the damage. The view must not be used after an error.
        """
        record = read_state(txn)
        size = self._env.used_bytes()
        for name, entry in record.columns.items():
            self._check_size(name, entry, size)
        columns = {name: self._column(view, name, entry) for name, entry in record.columns.items()}
        for name, entry in record.columns.items():
            columns[name].attach(self._env.base, size)
            columns[name].resize(entry.n_blocks * entry.rows_per_block)
            self._load_changed(columns[name], view.stamps.get(name, b""), entry.stamps, txn)
        view.relocated = record.txn_id != commit or not self._env.addressable
        if view.relocated:
            for column in columns.values():
                place_all(column, column.n_blocks, txn)
        state = self._codec.decode(record.state, columns)
        view.columns, view.state, view.record_sums, view.txn_id = columns, state, record.sums, commit
        view.stamps = {name: entry.stamps for name, entry in record.columns.items()}
        view.derived.clear()

    def _check_size(self, name: str, entry: ColumnEntry, size: int) -> None:
        """Check that a column's blocks fit into the ``size`` used bytes of the file. Check that chunks have stamps."""
        psize = self._env.psize
        chunks = -(-entry.n_blocks // chunk_entries(psize))
        if entry.n_blocks * entry.pages * psize > size or len(entry.stamps) != STAMP_BYTES * chunks:
            raise CorruptError(
                f"the state record claims {entry.n_blocks} blocks of {entry.pages} pages for column {name!r},"
                f" with {len(entry.stamps)} bytes of stamps"
            )

    def _column(self, view: View, name: str, entry: ColumnEntry) -> Column:
        """Return the view's column of this name. If it is missing or has another geometry, return an empty column."""
        old = view.columns.get(name)
        if old is not None:
            if _shape(old) == (*entry[:5], entry.row_sums):
                return old
            del view.columns[name]
            view.stamps.pop(name)
        try:
            options = {"verify": self._checksums, "writable": view.writable, "row_sums": bool(entry.row_sums)}
            return Column(name, *entry[:5], self._env.psize, **options)
        except InputError as error:
            raise CorruptError(f"the state record has an impossible column: {error}") from error

    def _load_changed(self, column: Column, old: bytes, new: bytes, txn: Any) -> None:
        for chunk, stamp in changed_stamps(old, new):
            key = keys.chunk(column.id, column.generation, chunk)
            value = txn.get(key)
            if value is None:
                raise CorruptError(f"column {column.name!r}: {keys.describe(key)} is missing")
            column.load(chunk, value, stamp[1])
            self._env.addressable = self._env.addressable and self._env.agrees(value)


def _shape(column: Column) -> tuple[int, ...]:
    return column.id, column.generation, column.stride, column.rows_per_block, column.pages, column.row_sums


def changed_stamps(old: bytes, new: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the chunk number and the stamp (txn id, crc) of each stamp in ``new`` that differs from ``old``."""
    if old == new:
        return
    for at in range(0, len(new), STAMP_BYTES):
        stamp = new[at : at + STAMP_BYTES]
        if stamp != old[at : at + STAMP_BYTES]:
            yield at // STAMP_BYTES, _STAMP.unpack(stamp)


def place_all(column: Column, n_blocks: int, txn: Any) -> None:
    """Locate each stored block by its key: the page table has the page numbers of another file."""
    for block in range(n_blocks):
        key = keys.block(column.id, column.generation, block)
        value = txn.get(key)
        if value is None:
            raise CorruptError(f"column {column.name!r}: {keys.describe(key)} is missing")
        column.place(block, value)


def write_page_table(
    view: View, codec: StateCodec, touched: dict[str, set[int]], txn: Any, env: Environment
) -> dict[str, bytes]:
    """Store the chunks that describe the ``touched`` blocks of each column, then STATE. Returns the new stamps."""
    per_chunk = chunk_entries(env.psize)
    commit: int = txn.id()
    entries = {}
    for name, column in view.columns.items():
        n_chunks = -(-column.n_blocks // per_chunk)
        chunks = {block // per_chunk for block in touched[name]}
        stamps = _put_chunks(column, chunks, n_chunks, view.stamps.get(name, b""), txn, commit)
        geometry = column.stride, column.rows_per_block, column.pages, column.n_blocks, int(column.row_sums)
        entries[name] = ColumnEntry(column.id, column.generation, *geometry, stamps)
    # If the page numbers are invalid, the record contains transaction id 0, and readers locate the blocks by key.
    record = StateRecord(commit if env.addressable else 0, entries, view.record_sums, codec.encode(view.state))
    txn.put(keys.STATE, record.pack())
    return {name: entry.stamps for name, entry in entries.items()}


def _put_chunks(column: Column, chunks: set[int], n_chunks: int, old: bytes, txn: Any, commit: int) -> bytes:
    stamps = bytearray(old[: n_chunks * STAMP_BYTES].ljust(n_chunks * STAMP_BYTES, b"\0"))
    for chunk in sorted(chunks):
        value, crc = column.pack_chunk(chunk, commit)
        txn.put(keys.chunk(column.id, column.generation, chunk), value)
        stamps[chunk * STAMP_BYTES : (chunk + 1) * STAMP_BYTES] = _STAMP.pack(commit, crc)
    return bytes(stamps)
