"""The value of each row in a field, as a number: read from the field's index once, and then only where that changes.

Numbers are kept by chunks of 65,536 rows, with the versions of the chunks (:mod:`qvec.filters.postings`). After a
commit, the chunks with other versions are read again: each value has at most one bitmap there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qvec._kernels import CHUNK_ROWS, roaring_fill
from qvec.common.types import NDArray
from qvec.filters.postings import DIGEST, PRESENT, VERSION, all_names, chunk_of, damaged, version_name
from qvec.filters.schema import Field
from qvec.filters.values import read_values
from qvec.storage.store import Snapshot

Part = bytes | int
"""Of a value with postings: the part of the names of its entries that stands for it; otherwise its key."""
Numbers = NDArray[np.uint32]

MAX_ENTRIES = 16_384  # of a field that has a column, too: reading the column takes as long as this many entries
SEEKS_PER_VALUE = 2  # of a chunk; a seek takes as long as the step to the next entry
_NUMBER, _CHUNK = 2, 2  # bytes at the beginning and at the end of the name of an entry
_BEHIND = b"\xff\xff\x00"  # follows the number of every chunk


@dataclass(frozen=True)
class Values:
    """The values of a field that is not a list.

    ``parts``: in any order, those of a column ascending. ``chunks``: for each row of each chunk the number of its
    value, from 1; 0: it has none. ``versions``: those of the chunks, None for values from a column. ``n_entries``: of
    the field, when all of them were read.
    """

    parts: list[Part]
    chunks: list[Numbers]
    versions: list[bytes | None] | None
    n_entries: int = 0

    @cached_property
    def ranks(self) -> Numbers:
        """The place of each number in the order of the values; 0 for number 0."""
        if self.versions is None:  # those of a column are in order
            return np.arange(len(self.parts) + 1, dtype=np.uint32)
        order = sorted(range(len(self.parts)), key=lambda i: _in_order(self.parts[i]))
        ranks = np.zeros(len(self.parts) + 1, np.uint32)
        ranks[np.array(order, np.int64) + 1] = np.arange(1, len(order) + 1)
        return ranks


def _in_order(part: Part) -> tuple[bool, Part]:
    """The key by which values are sorted. Entries are in the order of the lengths of their values."""
    return (False, part) if isinstance(part, int) else (part[:1] == DIGEST, part[1:])


def read_field(reading: Snapshot, field: Field, known: Values | None) -> Values:
    """Return the values of all rows, from postings if there are few, otherwise from the column.

    ``known``: the values of another commit.
    """
    n: int = reading.state.n
    if not field.has_postings:
        return _from_column(reading, field)
    versions = _versions(reading, field, n)
    if known is not None and known.versions is not None:
        changed = [i for i, version in enumerate(versions) if i >= len(known.versions) or version != known.versions[i]]
        if SEEKS_PER_VALUE * len(changed) * len(known.parts) <= known.n_entries:
            return _updated(reading, field, known, versions, changed)
    found = _from_postings(reading, field, versions, MAX_ENTRIES if field.has_column else None)
    return _from_column(reading, field) if found is None else found


def _versions(reading: Snapshot, field: Field, n: int) -> list[bytes | None]:
    found = [reading.entry(version_name(field, chunk)) for chunk in range(-(-n // CHUNK_ROWS))]
    return [None if version is None else bytes(version) for version in found]


def _empty_chunks(n: int) -> list[Numbers]:
    return [np.zeros(min(CHUNK_ROWS, n - first), np.uint32) for first in range(0, n, CHUNK_ROWS)]


def _from_postings(reading: Snapshot, field: Field, versions: list[bytes | None], most: int | None) -> Values | None:
    """Read bitmaps; None if there are more than ``most``."""
    chunks = _empty_chunks(reading.state.n)
    places: dict[bytes, int] = {}
    count = 0
    for count, (name, data) in enumerate(reading.entries(*all_names(field)), 1):
        if most is not None and count > most:
            return None
        _fill(name, data, places, chunks)
    return Values(list(places), chunks, versions, count)


def _updated(
    reading: Snapshot, field: Field, known: Values, versions: list[bytes | None], changed: list[int]
) -> Values:
    """Read the bitmaps of changed chunks. A chunk with the same version may have more rows, which have no values."""
    chunks = _empty_chunks(reading.state.n)
    for i in set(range(len(chunks))) - set(changed):
        old = known.chunks[i]
        if len(old) == len(chunks[i]):
            chunks[i] = old
        else:
            shared = min(len(old), len(chunks[i]))
            chunks[i][:shared] = old[:shared]
    places: dict[bytes, int] = {part: i for i, part in enumerate(known.parts, 1) if isinstance(part, bytes)}
    for name, data in _of_chunks(reading, field, changed):
        _fill(name, data, places, chunks)
    return Values(list(places), chunks, versions, known.n_entries)


def _fill(name: bytes, data: bytes | memoryview, places: dict[bytes, int], chunks: list[Numbers]) -> None:
    """Write the number of a value to the rows of one of its bitmaps. ``places``: the numbers of the values so far."""
    part, chunk = name[_NUMBER:-_CHUNK], chunk_of(name)
    if part[:1] in (PRESENT, VERSION):
        return
    number = places.setdefault(part, len(places) + 1)
    if chunk >= len(chunks) or not roaring_fill(data, chunk, number, chunks[chunk]):
        raise damaged(name)


def _of_chunks(
    reading: Snapshot, field: Field, chunks: Iterable[int]
) -> Generator[tuple[bytes, bytes | memoryview], None, None]:
    """Yield the entries of some chunks: value after value, without the entries between."""
    wanted = sorted(chunks)
    if not wanted:
        return
    entries = reading.entries(*all_names(field))
    item = next(entries, None)
    while item is not None:
        name, data = item
        stem, chunk = name[:-_CHUNK], chunk_of(name)
        at = bisect_right(wanted, chunk)
        if at > 0 and wanted[at - 1] == chunk:
            yield name, data
        try:
            item = entries.send(stem + (wanted[at].to_bytes(_CHUNK, "big") if at < len(wanted) else _BEHIND))
        except StopIteration:
            return


def _from_column(reading: Snapshot, field: Field) -> Values:
    n: int = reading.state.n
    keys, places = np.unique(read_values(reading.columns, field, n), return_inverse=True)
    has_none = len(keys) > 0 and keys[0] == 0
    numbers = (places + (not has_none)).astype(np.uint32)
    chunks = [numbers[first : first + CHUNK_ROWS] for first in range(0, n, CHUNK_ROWS)]
    return Values(keys[1:].tolist() if has_none else keys.tolist(), chunks, None)
