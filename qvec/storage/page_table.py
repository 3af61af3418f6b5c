"""The directory: which blocks each column has, on which pages, with which checksums.

    STATE record ──► (txn id, crc) of every directory chunk ──► (page number, crc) of every block ──► rows

A reader that is behind loads the chunks whose stamp changed, and forgets the blocks whose entry changed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from qvec._kernels import Column, Shown, chunk_entries
from qvec.common.errors import CorruptError, InputError
from qvec.storage import keys, records
from qvec.storage.environment import Environment
from qvec.storage.record_sums import Sums

_FRAME = 64  # LMDB's page header and the block's own
_STAMP = struct.Struct("<QI")
STAMP_BYTES = _STAMP.size
_MAX_ROWS = 1 << 31
_LIMITS = (1 << 8, 1 << 16, 1 << 32, 1 << 32, 1 << 32, 1 << 32)  # of the numbers of a column's line


@dataclass(frozen=True, slots=True)
class StateCodec:
    """How the layer above stores its state with a commit. The store itself treats the state as an opaque value.

    ``decode(stored, columns)`` returns the state of a commit. It raises CorruptError if the stored plain data is
    invalid or contradicts the columns. ``encode(state)`` returns plain data for the STATE record.
    """

    decode: Callable[[dict[str, Any], Mapping[str, Column]], Any]
    encode: Callable[[Any], dict[str, Any]]


CodecFactory = Callable[[Mapping[str, Any]], StateCodec]
"""Makes the codec of a file's states from its configuration."""


def plain_codec(config: Mapping[str, Any]) -> StateCodec:
    """A codec whose states are dicts of plain data. It accepts any dict."""
    return StateCodec(lambda stored, columns: stored, dict)


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A column to make: ``id`` (below 256) and ``generation`` name its keys, ``stride`` is bytes a row.

    Blocks take the number of pages from ``min_pages`` to ``max_pages`` that wastes least.
    """

    id: int
    stride: int
    min_pages: int = 4
    max_pages: int = 16
    generation: int = 0


def block_geometry(stride: int, psize: int, min_pages: int, max_pages: int) -> tuple[int, int]:
    """Rows in a block and its pages: the count that wastes the smallest share, the smaller of equals."""
    if stride < 1 or not 1 <= min_pages <= max_pages:
        raise InputError(f"no block of {min_pages}..{max_pages} pages for rows of {stride} bytes")
    best = (0, 0)
    for pages in range(min_pages, max_pages + 1):
        rows = (pages * psize - _FRAME) // stride
        if best == (0, 0) or rows * best[1] > best[0] * pages:
            best = (rows, pages)
    if best[0] == 0:
        raise InputError(f"a row of {stride} bytes is above the limit of {max_pages * psize - _FRAME}")
    return best


class StoredColumn(NamedTuple):
    """A column's line in the STATE record; ``stamps`` has (txn id u64, crc u32) of each directory chunk."""

    id: int
    generation: int
    stride: int
    rows_per_block: int
    pages: int
    n_blocks: int
    stamps: bytes


class View(Shown):
    """The columns and the state of one commit; they point into the map, and need an open transaction of it.

    ``derived`` holds what layers above computed from it, and is emptied when the view moves on.
    """

    __slots__ = ("__weakref__", "columns", "relocated", "stamps", "state", "sums")

    def __init__(self) -> None:
        self.relocated = False
        self.columns: dict[str, Column] = {}
        self.stamps: dict[str, bytes] = {}
        self.state: Any = None
        self.sums = Sums()
        self.derived, self.ready = {}, []

    def forget(self) -> None:
        """Start again from nothing: the file is another one."""
        self.txn_id, self.state, self.sums = 0, None, Sums()
        for part in (self.columns, self.stamps, self.derived, self.ready):
            part.clear()

    def clone(self) -> View:
        """A view of the same commit whose columns can be patched."""
        other = View()
        other.columns = {name: column.clone() for name, column in self.columns.items()}
        other.stamps = dict(self.stamps)
        return other


class Loader:
    """Brings views up to a transaction of an environment."""

    def __init__(self, env: Environment, codec: StateCodec, *, verify: bool, writable: bool = False) -> None:
        self._env, self._codec = env, codec
        self._verify, self._writable = verify, writable

    def refresh(self, view: View, txn: Any, commit: int) -> None:
        """Make ``view`` that of the last commit, whose transaction id is ``commit``.

        CorruptError names what is damaged; the view is then of no use any more.
        """
        written, stored, encoded_state, sums = read_state(txn)
        size = self._env.reaches()
        for name, line in stored.items():
            self._check_size(name, line, size)
        columns = {name: self._column(view, name, line) for name, line in stored.items()}
        for name, line in stored.items():
            columns[name].attach(self._env.base, size)
            columns[name].resize(line.n_blocks * line.rows_per_block)
            self._load_changed(columns[name], view.stamps.get(name, b""), line.stamps, txn)
        view.relocated = written != commit or not self._env.sound
        if view.relocated:
            for column in columns.values():
                place_all(column, column.n_blocks, txn)
        state = self._codec.decode(encoded_state, columns)
        view.columns, view.state, view.sums, view.txn_id = columns, state, sums, commit
        view.stamps = {name: line.stamps for name, line in stored.items()}
        view.derived.clear()
        view.ready.clear()

    def _check_size(self, name: str, line: StoredColumn, size: int) -> None:
        """Whether a column's blocks fit the ``size`` bytes in use, and each of its chunks has a stamp."""
        psize = self._env.psize
        chunks = -(-line.n_blocks // chunk_entries(psize))
        if line.n_blocks * line.pages * psize > size or len(line.stamps) != STAMP_BYTES * chunks:
            raise CorruptError(
                f"the state record claims {line.n_blocks} blocks of {line.pages} pages for column {name!r},"
                f" with {len(line.stamps)} bytes of stamps"
            )

    def _column(self, view: View, name: str, line: StoredColumn) -> Column:
        """The view's column, or an empty one where the view has none of this geometry."""
        old = view.columns.get(name)
        if old is not None:
            if (old.id, old.generation, old.stride, old.rows_per_block, old.pages) == line[:5]:
                return old
            del view.columns[name]
            view.stamps.pop(name)
        try:
            return Column(name, *line[:5], self._env.psize, verify=self._verify, writable=self._writable)
        except InputError as error:
            raise CorruptError(f"the state record holds an impossible column: {error}") from error

    def _load_changed(self, column: Column, old: bytes, new: bytes, txn: Any) -> None:
        for chunk, stamp in changed_stamps(old, new):
            key = keys.chunk(column.id, column.generation, chunk)
            value = txn.get(key)
            if value is None:
                raise CorruptError(f"column {column.name!r}: {keys.describe(key)} is missing")
            column.load(chunk, value, stamp[1])
            self._env.sound = self._env.sound and self._env.agrees(value)


def changed_stamps(old: bytes, new: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    """Chunk number and (txn id, crc) of every stamp in ``new`` that ``old`` has not."""
    if old == new:
        return
    for at in range(0, len(new), _STAMP.size):
        stamp = new[at : at + _STAMP.size]
        if stamp != old[at : at + _STAMP.size]:
            yield at // _STAMP.size, _STAMP.unpack(stamp)


def place_all(column: Column, n_blocks: int, txn: Any) -> None:
    """Find each stored block by its key, where the directory's page numbers are not those of this file."""
    for block in range(n_blocks):
        key = keys.block(column.id, column.generation, block)
        value = txn.get(key)
        if value is None:
            raise CorruptError(f"column {column.name!r}: {keys.describe(key)} is missing")
        column.place(block, value)


def read_state(txn: Any) -> tuple[int, dict[str, StoredColumn], dict[str, Any], Sums]:
    """The STATE record: the transaction that wrote it, the columns, the state of the layer above, sums of records."""
    value = txn.get(keys.STATE)
    if value is None:
        raise CorruptError("the state record is missing")
    payload = records.unseal(keys.STATE, value)
    try:
        columns = {name: _stored_column(name, line) for name, line in payload["columns"].items()}
        if len({line[:2] for line in columns.values()}) < len(columns):
            raise ValueError("two columns have the same id and generation")
        if type(payload["txn"]) is not int:
            raise ValueError(f"'txn' is {payload['txn']!r}")
        return payload["txn"], columns, dict(payload["state"]), Sums.from_state(payload["sums"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CorruptError(f"the state record is not of this format: {error}") from error


def _stored_column(name: Any, line: Any) -> StoredColumn:
    stored = StoredColumn(*line)
    numbers = zip(stored[:6], _LIMITS, strict=True)
    if type(name) is not str or not all(type(number) is int and 0 <= number < limit for number, limit in numbers):
        raise ValueError(f"column line {name!r}: {line!r}")
    if type(stored.stamps) is not bytes:
        raise ValueError(f"column {name!r} has the stamps {stored.stamps!r}")
    if stored.n_blocks * stored.rows_per_block > _MAX_ROWS - stored.rows_per_block:
        raise ValueError(f"column {name!r} claims {stored.n_blocks} blocks of {stored.rows_per_block} rows")
    return stored


def first_state(columns: Mapping[str, ColumnSpec], state: dict[str, Any], psize: int, commit: int) -> bytes:
    """The value of the STATE record of a new file, whose ``columns`` are empty."""
    lines = {}
    for name, spec in columns.items():
        geometry = block_geometry(spec.stride, psize, spec.min_pages, spec.max_pages)
        lines[name] = [spec.id, spec.generation, spec.stride, *geometry, 0, b""]
    if len({(line[0], line[1]) for line in lines.values()}) < len(lines):
        raise InputError("two columns have the same id and generation")
    return records.seal(keys.STATE, {"txn": commit, "columns": lines, "sums": Sums().of, "state": state})


def write_directory(
    view: View, codec: StateCodec, touched: dict[str, set[int]], txn: Any, env: Environment
) -> dict[str, bytes]:
    """Put the chunks that hold the ``touched`` blocks of each column, then STATE; returns the new stamps."""
    per_chunk = chunk_entries(env.psize)
    commit: int = txn.id()
    stamps, lines = {}, {}
    for name, column in view.columns.items():
        n_chunks = -(-column.n_blocks // per_chunk)
        chunks = {block // per_chunk for block in touched[name]}
        stamps[name] = _put_chunks(column, chunks, n_chunks, view.stamps.get(name, b""), txn, commit)
        lines[name] = [
            column.id,
            column.generation,
            column.stride,
            column.rows_per_block,
            column.pages,
            column.n_blocks,
            stamps[name],
        ]
    # Without sound page numbers no transaction matches, and every reader looks the blocks up by key.
    payload = {
        "txn": commit if env.sound else 0,
        "columns": lines,
        "sums": view.sums.of,
        "state": codec.encode(view.state),
    }
    txn.put(keys.STATE, records.seal(keys.STATE, payload))
    return stamps


def _put_chunks(column: Column, chunks: set[int], n_chunks: int, old: bytes, txn: Any, commit: int) -> bytes:
    stamps = bytearray(old[: n_chunks * _STAMP.size].ljust(n_chunks * _STAMP.size, b"\0"))
    for chunk in sorted(chunks):
        value, crc = column.pack_chunk(chunk, commit)
        txn.put(keys.chunk(column.id, column.generation, chunk), value)
        stamps[chunk * _STAMP.size : (chunk + 1) * _STAMP.size] = _STAMP.pack(commit, crc)
    return bytes(stamps)
