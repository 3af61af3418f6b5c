"""Ids with their rows, as a transaction puts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qvec._kernels import seal_pairs
from qvec.common.types import NDArray
from qvec.storage import keys
from qvec.storage.snapshot import ROW_BYTES, id_key, row_value

Pair = tuple[bytes, bytes]
PAIRS_PER_PART = 8192


class IdPairs:
    """Keys and values of ids and their rows. They are made a part at a time, because they take 200 bytes for each id.

    Raises InputError with the position of an id that is too long, and for a row that is too large.
    """

    def __init__(self, ids: Sequence[bytes], rows: Sequence[int] | NDArray[Any]) -> None:
        if len(ids) != len(rows):
            raise ValueError(f"{len(ids)} ids for {len(rows)} rows")
        sizes = [*map(len, ids)]
        if not 0 < min(sizes, default=1) <= max(sizes, default=1) <= keys.MAX_ID_BYTES:
            for i, name in enumerate(ids):
                id_key(name, i)
        for row in (min(rows, default=0), max(rows, default=0)):
            row_value(b"", int(row))
        self._ids, self._rows = ids, rows

    def __len__(self) -> int:
        return len(self._ids)

    def parts(self) -> Iterator[tuple[list[Pair], int]]:
        """Yield all pairs, PAIRS_PER_PART at a time, and the sum of their checksums."""
        for start in range(0, len(self), PAIRS_PER_PART):
            yield self.part(start, start + PAIRS_PER_PART)

    def part(self, start: int, stop: int) -> tuple[list[Pair], int]:
        """Return the pairs from ``start`` to below ``stop``, and the sum of their checksums."""
        raw = np.asarray(self._rows[start:stop], f"<u{ROW_BYTES}").tobytes()
        rows = [raw[i : i + ROW_BYTES] for i in range(0, len(raw), ROW_BYTES)]
        return seal_pairs(keys.ID, list(self._ids[start:stop]), rows)
