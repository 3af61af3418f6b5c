"""Ids with their rows, as a transaction puts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qvec.common.types import NDArray
from qvec.storage.snapshot import id_key, row_value

Pair = tuple[bytes, bytes]
PAIRS_PER_PART = 16_384


class IdPairs:
    """Keys and values of ids and their rows. They are made a part at a time, because they take 200 bytes for each id.

    Raises InputError with the position of an id that is too long, and for a row that is too large.
    """

    def __init__(self, ids: Sequence[bytes], rows: Sequence[int] | NDArray[Any]) -> None:
        if len(ids) != len(rows):
            raise ValueError(f"{len(ids)} ids for {len(rows)} rows")
        for i, name in enumerate(ids):
            id_key(name, i)
        for row in (min(rows, default=0), max(rows, default=0)):
            row_value(b"", int(row))
        self._ids, self._rows = ids, rows

    def __len__(self) -> int:
        return len(self._ids)

    def parts(self) -> Iterator[list[Pair]]:
        """Yield all pairs, PAIRS_PER_PART at a time."""
        for start in range(0, len(self), PAIRS_PER_PART):
            yield self.part(start, start + PAIRS_PER_PART)

    def part(self, start: int, stop: int) -> list[Pair]:
        """Return the pairs from ``start`` to below ``stop``."""
        names = [id_key(name, start + i) for i, name in enumerate(self._ids[start:stop])]
        return [(name, row_value(name, int(row))) for name, row in zip(names, self._rows[start:stop], strict=True)]
