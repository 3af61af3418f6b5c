"""Read stored records of rows from a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvec._kernels import Deadline
from qvec.codes.prequantized_input import to_floats
from qvec.common.errors import MissingIdError
from qvec.common.types import Missing, NDArray
from qvec.rows.lookup import check_same, find_rows, id_array, ids_of_rows, payloads_of, read_records
from qvec.rows.results import Records
from qvec.schema.config import Config
from qvec.schema.layout import active_columns
from qvec.schema.quantizers import Quantizers
from qvec.schema.state import State
from qvec.schema.validation import as_ids, as_stored, id_keys
from qvec.storage.store import Snapshot

PART_BYTES = 1 << 20  # bytes of float32 vectors that are read between two checks of the deadline


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads rows of a snapshot. ``quantizers``: those of the active generation; None in an empty collection.

    Calls raise SearchTimeoutError soon after the ``deadline``.
    """

    snap: Snapshot
    config: Config
    quantizers: Quantizers | None
    deadline: Deadline | None = None

    def by_ids(self, ids: Any, missing: Missing) -> Records:
        """Return records in the order of ``ids``.

        Ids that are not stored are skipped, or MissingIdError names the first.
        """
        wanted, rows = self._rows_of(ids, missing)
        found = self.by_rows(rows)
        check_same(wanted, found.ids)
        return found

    def rows(self, ids: Any) -> NDArray[np.int64]:
        """Return the rows of ids. MissingIdError names the first id that is not stored."""
        wanted, rows = self._rows_of(ids, "error")
        if len(rows):
            check_same(wanted, ids_of_rows(self.snap, rows))
        return rows

    def _rows_of(self, ids: Any, missing: Missing) -> tuple[NDArray[Any], NDArray[np.int64]]:
        wanted = as_ids(ids, self.config.ids)
        keys = id_keys(wanted)
        rows = find_rows(self.snap, keys, self.deadline)
        if missing == "error":
            refuse_missing(keys, rows, self.config)
        return id_array(wanted)[rows >= 0], rows[rows >= 0]

    def by_rows(self, rows: NDArray[np.int64]) -> Records:
        """Return records of live rows."""
        records = self._records(rows)
        ids = ids_of_rows(self.snap, rows, records) if len(rows) else id_array(as_ids([], self.config.ids))
        return Records(ids, self.vectors(rows), payloads_of(records))

    def in_batches(self, rows: NDArray[np.int64], size: int) -> Iterator[Records]:
        """Yield records of live rows, ``size`` at a time."""
        for start in range(0, len(rows), size):
            yield self.by_rows(rows[start : start + size])

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the originals of rows if they are stored, otherwise the decoded codes."""
        config, state = self.config, self.snap.state
        if self.quantizers is None or not len(rows):
            return as_stored("vectors", (), config.dim, config.metric, config.exact_form)
        reader = self.quantizers.vector_reader(active_columns(self.snap.columns, state.column_names))
        if self.deadline is None:
            return reader.quantizer.decode(reader.column.read(rows))
        size = max(1, PART_BYTES // (4 * config.dim))
        parts = self.deadline.watch([rows[i : i + size] for i in range(0, len(rows), size)])
        return np.concatenate([reader.quantizer.decode(reader.column.read(part)) for part in parts])

    def floats(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the vectors of rows as float64 [n, dim], converted if they are prequantized."""
        x, form = self.vectors(rows), self.config.exact_form
        return (x if form is None else to_floats(x, form)).astype(np.float64)

    def padded(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the vectors of rows of any shape [...] as [..., dim]; zeros where a row is -1."""
        flat = rows.reshape(-1)
        found = self.vectors(flat[flat >= 0])
        out = np.zeros((len(flat), found.shape[1]), found.dtype)
        out[flat >= 0] = found
        return out.reshape(*rows.shape, -1)

    def _records(self, rows: NDArray[np.int64]) -> list[Any]:
        state: State = self.snap.state
        if not state.records:
            return [None] * len(rows)
        return read_records(self.snap, rows.tolist(), complete=True, deadline=self.deadline)


def refuse_missing(keys: Sequence[bytes], rows: NDArray[np.int64], config: Config) -> None:
    """Raise MissingIdError naming the first id that has no row."""
    if (rows < 0).any():
        key = keys[int(np.argmin(rows))]
        name = int.from_bytes(key, "big") if config.ids == "int64" else key.decode()
        raise MissingIdError(f"no vector has the id {name!r}")
