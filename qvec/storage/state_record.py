"""The STATE record of a commit: its columns, the sums of its records, and the state of the layer above."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from qvec._kernels import Column
from qvec.common.errors import CorruptError, InputError
from qvec.storage import keys, records
from qvec.storage.record_sums import RecordSums

_HEADERS = 64  # bytes before the rows of a block: LMDB's page header and the block's own
_MAX_ROWS = 1 << 31
_LIMITS = (1 << 8, 1 << 16, 1 << 32, 1 << 32, 1 << 32, 1 << 32, 2)  # of the numbers of a column entry


@dataclass(frozen=True, slots=True)
class StateCodec:
    """Converts the state of the layer above to plain data and back. The store itself does not interpret the state.

    ``decode(stored, columns)`` returns the state of a commit. It raises CorruptError if the stored plain data is
    invalid or contradicts the columns. ``encode(state)`` returns plain data for the STATE record.
    """

    decode: Callable[[dict[str, Any], Mapping[str, Column]], Any]
    encode: Callable[[Any], dict[str, Any]]


CodecFactory = Callable[[Mapping[str, Any]], StateCodec]
"""Makes the codec for a file's states from the file's configuration."""


def plain_codec(config: Mapping[str, Any]) -> StateCodec:
    """Return a codec for states that are dicts of plain data. It accepts any dict."""
    return StateCodec(lambda stored, columns: stored, dict)


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A column to create. ``id`` (below 256) and ``generation`` are parts of its keys; ``stride``: bytes per row.

    A block takes the number of pages from ``min_pages`` to ``max_pages`` that wastes the least space. ``row_sums``: the
    last four bytes of each row, which are not the caller's, contain its checksum, so that it can be verified alone.
    """

    id: int
    stride: int
    min_pages: int = 4
    max_pages: int = 16
    generation: int = 0
    row_sums: bool = False


def block_geometry(stride: int, psize: int, min_pages: int, max_pages: int) -> tuple[int, int]:
    """Return the rows and pages of a block: the number of pages that wastes the smallest share, the least of equals."""
    if stride < 1 or not 1 <= min_pages <= max_pages:
        raise InputError(f"no block of {min_pages}..{max_pages} pages for rows of {stride} bytes")
    best = (0, 0)
    for pages in range(min_pages, max_pages + 1):
        rows = (pages * psize - _HEADERS) // stride
        if best == (0, 0) or rows * best[1] > best[0] * pages:
            best = (rows, pages)
    if best[0] == 0:
        raise InputError(f"a row of {stride} bytes is above the limit of {max_pages * psize - _HEADERS}")
    return best


class ColumnEntry(NamedTuple):
    """A column in the STATE record. ``stamps``: (txn id u64, crc32c u32) for each chunk of its page table."""

    id: int
    generation: int
    stride: int
    rows_per_block: int
    pages: int
    n_blocks: int
    row_sums: int
    stamps: bytes


class StateRecord(NamedTuple):
    """The content of a STATE record. ``state`` is encoded; ``txn_id`` 0 means that page numbers are not valid."""

    txn_id: int
    columns: dict[str, ColumnEntry]
    sums: RecordSums
    state: dict[str, Any]

    def pack(self) -> bytes:
        """Encode the value to store under the key STATE."""
        columns = {name: list(entry) for name, entry in self.columns.items()}
        payload = {"txn": self.txn_id, "columns": columns, "sums": self.sums.totals, "state": self.state}
        return records.seal(keys.STATE, payload)


def read_state(txn: Any) -> StateRecord:
    """Read the STATE record of the commit that a transaction reads.

    Raises CorruptError if it is missing or malformed.
    """
    value = txn.get(keys.STATE)
    if value is None:
        raise CorruptError("the state record is missing")
    payload = records.unseal(keys.STATE, value)
    try:
        columns = {name: _column_entry(name, line) for name, line in payload["columns"].items()}
        if len({entry[:2] for entry in columns.values()}) < len(columns):
            raise ValueError("two columns have the same id and generation")
        if type(payload["txn"]) is not int:
            raise ValueError(f"'txn' is {payload['txn']!r}")
        return StateRecord(payload["txn"], columns, RecordSums.from_state(payload["sums"]), dict(payload["state"]))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CorruptError(f"the state record is malformed: {error}") from error


def _column_entry(name: Any, line: Any) -> ColumnEntry:
    entry = ColumnEntry(*line)
    numbers = zip(entry[:-1], _LIMITS, strict=True)
    if type(name) is not str or not all(type(number) is int and 0 <= number < limit for number, limit in numbers):
        raise ValueError(f"column {name!r} has the entry {line!r}")
    if type(entry.stamps) is not bytes:
        raise ValueError(f"column {name!r} has the stamps {entry.stamps!r}")
    if entry.n_blocks * entry.rows_per_block > _MAX_ROWS - entry.rows_per_block:
        raise ValueError(f"column {name!r} claims {entry.n_blocks} blocks of {entry.rows_per_block} rows")
    return entry


def first_state(columns: Mapping[str, ColumnSpec], state: dict[str, Any], psize: int, commit: int) -> bytes:
    """Encode the STATE record of a new file with empty columns."""
    entries = {}
    for name, spec in columns.items():
        geometry = block_geometry(spec.stride, psize, spec.min_pages, spec.max_pages)
        entries[name] = ColumnEntry(spec.id, spec.generation, spec.stride, *geometry, 0, int(spec.row_sums), b"")
    if len({entry[:2] for entry in entries.values()}) < len(entries):
        raise InputError("two columns have the same id and generation")
    return StateRecord(commit, entries, RecordSums(), state).pack()
