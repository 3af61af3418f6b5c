"""The readers and writers of a collection's rows."""

from __future__ import annotations

import numpy as np

from qvec._kernels import Deadline
from qvec.common.types import Codes, Float32Array
from qvec.rows.lookup import live_rows
from qvec.rows.reader import Reader
from qvec.rows.writer import Writer
from qvec.schema.layout import CODES, active_columns
from qvec.schema.quantizers import QuantizerLoader
from qvec.storage.store import Snapshot, Transaction


class RowAccess(QuantizerLoader):
    """Loads the quantizers of a collection, and makes the readers and writers that use them."""

    def reader(self, snap: Snapshot, deadline: Deadline | None = None) -> Reader:
        """A reader of the rows of a snapshot, until a deadline."""
        return Reader(snap, self.config, self.active(snap), deadline)

    def writer(self, txn: Transaction) -> Writer:
        """A writer of rows inside a transaction."""
        return Writer(txn, self)

    def sample(self, reading: Snapshot, n: int, newest: bool = False) -> tuple[Float32Array, Codes]:
        """Return up to n stored vectors (originals or decoded codes), and their codes. There must be a quantizer.

        The rows are spread evenly over all live rows, or are the newest rows. The age of a row is its position, so a
        vector in a reused row counts as old.
        """
        quantizers = self.active(reading)
        assert quantizers is not None
        rows, columns = live_rows(reading), active_columns(reading.columns, reading.state.column_names)
        rows = rows[-n:] if newest else rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(np.int64)]
        return quantizers.vector_reader(columns).read(rows), columns[CODES].read(rows)
