"""Unused rows: fill them with the last rows, remove them at the end of the columns, or overwrite them with zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvec._kernels import Column
from qvec.common.types import Bitmap, NDArray
from qvec.rows.lookup import ids_of_rows, payloads_of, read_record
from qvec.rows.writer import PUT_ROWS, Batch, Ids, Writer
from qvec.schema.bitmaps import complement, rows_in, unused_rows, words_for
from qvec.schema.generations import discard_codes_from, discard_pending, may_reuse_rows
from qvec.schema.layout import CODES, DELETED, IDS, VECTORS
from qvec.schema.validation import id_keys


@dataclass(frozen=True)
class Reclaim:
    """Removes unused rows inside the write transaction of ``writer``."""

    writer: Writer

    def move_rows(self, limit: int, threads: int) -> tuple[int, int]:
        """Move at most ``limit`` of the last live rows to unused rows before them. Returns how many were moved, and how
        many remain to be moved.

        If fewer than ``limit`` rows are moved, the unused rows at the end are removed.
        """
        writer = self.writer
        live, free, rows = writer.state.live, writer.free_rows(), writer.index_input().live
        behind, free = rows[np.searchsorted(rows, live) :], free[free < live]
        last = behind[-limit:]
        first = free[: len(last)]
        if len(first):
            self._move(last[len(last) - len(first) :], first, threads)
        if len(first) < limit:
            self.remove_last_rows()
        return len(first), min(len(behind), len(free)) - len(first)

    def _move(self, old: NDArray[np.int64], new: NDArray[np.int64], threads: int) -> None:
        """Move live rows, ascending, to the same number of unused rows, also ascending."""
        writer, columns = self.writer, self.writer.columns
        payloads = payloads_of([read_record(writer.txn, row) for row in old.tolist()])
        found = ids_of_rows(writer.txn, old)
        ids: Ids = found.tolist() if found.dtype == object else found
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                columns[name].put(new, columns[name].read(old))
        rows, keys = new.astype(np.uint32), id_keys(ids)
        moved = writer.index().move(writer.index_input(), writer.state.index, old.astype(np.uint32), rows)
        writer.hide(keys, old, threads)
        batch = Batch(np.empty((0, 0)), None, ids, keys, payloads, writer.fields.read_stored(payloads))
        writer.show(batch, rows)
        if not moved:
            writer.extend_index(rows, threads, None)

    def remove_last_rows(self) -> None:
        """Shorten all columns, so that they end with the last row that is live or to which the index refers."""
        writer, txn = self.writer, self.writer.txn
        index, n = writer.index(), writer.state.n
        rows = rows_in(self._used_rows())
        kept = int(rows[-1]) + 1 if len(rows) else 0
        if kept == n or not may_reuse_rows(txn, n - kept):
            return
        discard_codes_from(txn, kept)
        columns = writer.columns
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                columns[name].resize(kept)
        columns[DELETED].write(0, _first_bits(columns[DELETED].read_range(0, words_for(n)), kept))
        columns[DELETED].resize(words_for(kept))
        writer.fields.resize(kept)
        writer.change_state(n=kept)
        no_rows = np.zeros(0, np.uint32)
        writer.change_state(index=index.extend(writer.index_input(), writer.state.index, no_rows, 1, None))

    def zero_unused_rows(self) -> None:
        """Overwrite all unused rows with zeros. Discard the codes of inactive generations."""
        writer, txn = self.writer, self.writer.txn
        discard_pending(txn)
        discard_codes_from(txn, 0)
        data, columns, used = writer.index_input(), writer.columns, self._used_rows()
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                self._zero(columns[name], unused_rows(columns[name], used, data.n))
        for name, rows in writer.index().unused_rows(data, writer.state.index).items():
            self._zero(columns[name], rows)

    def _zero(self, column: Column, rows: NDArray[np.int64]) -> None:
        for i in range(0, len(rows), PUT_ROWS):
            part = rows[i : i + PUT_ROWS]
            filled = part[column.read(part).any(axis=1)]
            column.put(filled, np.zeros((len(filled), column.stride), np.uint8))
            self.writer.txn.checkpoint_if_large()

    def _used_rows(self) -> Bitmap:
        """Return the rows that are live or to which the index refers."""
        data = self.writer.index_input()
        live = complement(data.n, data.deleted)
        referenced = self.writer.index().referenced_rows(data, self.writer.state.index)
        return live if referenced is None else live | referenced


def _first_bits(words: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """Copy the words of a bitmap, uint8 [w, 8], and clear bit n and all later bits."""
    bits = np.unpackbits(words.reshape(-1), bitorder="little")
    bits[n:] = 0
    return np.packbits(bits, bitorder="little").reshape(words.shape)
