"""Rows that are not in use: given to others that lie behind them, given up at the end, or overwritten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvec._kernels import Column
from qvec.common.types import Bitmap, NDArray
from qvec.rows.lookup import ids_of_rows, payloads_of
from qvec.rows.writer import PUT_ROWS, Batch, Ids, Writer
from qvec.schema.bitmaps import complement, rows_in, unused_rows, words_for
from qvec.schema.generations import discard_pending, forget_codes, may_reuse
from qvec.schema.layout import CODES, DELETED, IDS, ROW, VECTORS
from qvec.schema.validation import id_keys


@dataclass(frozen=True)
class Reclaim:
    """Works inside the write transaction of ``writer``."""

    writer: Writer

    def gather(self, limit: int, threads: int) -> tuple[int, int]:
        """Move at most ``limit`` of the last live rows to free ones before them; how many were, and are left to be.

        Where fewer are left to be moved, the rows at the end that are not in use are given up.
        """
        writer = self.writer
        live, free, rows = writer.state["live"], writer.free_rows(), writer.source().live
        behind, free = rows[np.searchsorted(rows, live) :], free[free < live]
        last = behind[-limit:]
        first = free[: len(last)]
        if len(first):
            self._move(last[len(last) - len(first) :], first, threads)
        if len(first) < limit:
            self.give_up()
        return len(first), min(len(behind), len(free)) - len(first)

    def _move(self, old: NDArray[np.int64], new: NDArray[np.int64], threads: int) -> None:
        """Give what is stored in live rows, ascending, to as many free ones, ascending too."""
        writer, columns = self.writer, self.writer.columns
        payloads = payloads_of([writer.txn.record(ROW, row) for row in old.tolist()])
        named = ids_of_rows(writer.txn, old)
        ids: Ids = named.tolist() if named.dtype == object else named
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                columns[name].put(new, columns[name].read(old))
        rows = new.astype(np.uint32)
        writer.hide(id_keys(ids), old, threads)
        writer.show(Batch(np.empty((0, 0)), ids, payloads, writer.fields.read_stored(payloads)), rows)
        writer.extend_index(rows, threads, None)

    def give_up(self) -> None:
        """Shorten all columns to the last row that is live or that the index points at."""
        writer, txn = self.writer, self.writer.txn
        index, n = writer.index(), txn.state["n"]
        rows = rows_in(self._in_use())
        kept = int(rows[-1]) + 1 if len(rows) else 0
        if kept == n or not may_reuse(txn, n - kept):
            return
        forget_codes(txn, kept)
        columns = writer.columns
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                columns[name].resize(kept)
        columns[DELETED].write(0, _first_bits(columns[DELETED].read_range(0, words_for(n)), kept))
        columns[DELETED].resize(words_for(kept))
        writer.fields.resize(kept)
        txn.state["n"] = kept
        txn.state["index"] = index.extend(writer.source(), txn.state["index"], np.zeros(0, np.uint32), 1, None)

    def wipe(self) -> None:
        """Overwrite with zeros all rows that are not in use. Codes that are not in force are given up."""
        writer, txn = self.writer, self.writer.txn
        discard_pending(txn)
        forget_codes(txn, 0)
        source, columns, used = writer.source(), writer.columns, self._in_use()
        for name in (CODES, VECTORS, IDS):
            if name in columns:
                self._zero(columns[name], unused_rows(columns[name], used, source.n))
        for name, rows in writer.index().unused_rows(source, txn.state["index"]).items():
            self._zero(columns[name], rows)

    def _zero(self, column: Column, rows: NDArray[np.int64]) -> None:
        for i in range(0, len(rows), PUT_ROWS):
            part = rows[i : i + PUT_ROWS]
            filled = part[column.read(part).any(axis=1)]
            column.put(filled, np.zeros((len(filled), column.stride), np.uint8))
            self.writer.txn.checkpoint_if_large()

    def _in_use(self) -> Bitmap:
        """Rows that are live or that the index points at."""
        writer = self.writer
        source = writer.source()
        live = complement(source.n, source.deleted)
        held = writer.index().referenced_rows(source, writer.state["index"])
        return live if held is None else live | held


def _first_bits(words: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """The words of a bitmap, uint8 [w, 8], with all bits from the nth on cleared."""
    bits = np.unpackbits(words.reshape(-1), bitorder="little")
    bits[n:] = 0
    return np.packbits(bits, bitorder="little").reshape(words.shape)
