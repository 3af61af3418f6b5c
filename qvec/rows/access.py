"""The quantizers of one collection, and the readers and writers that use them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.codes.configs import Float16, Float32
from qvec.codes.registry import Quantizer, from_state, train
from qvec.common.errors import CorruptError
from qvec.common.types import Codes, Float32Array
from qvec.index import vector_reader
from qvec.rows.lookup import live_rows
from qvec.rows.reader import Reader
from qvec.rows.writer import Writer
from qvec.schema.calibrations import entry_of
from qvec.schema.config import Config
from qvec.schema.layout import CALIBRATION, CODES, VECTORS, in_force
from qvec.storage.store import Snapshot, Transaction


class RowAccess:
    """Loads the quantizers of a collection once, and makes the readers and writers of its rows.

    ``original_quantizer`` encodes the stored originals; collections without originals have it too.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        code = Float16() if config.keeps_originals and config.originals == "f16" else Float32()
        self.original_quantizer = train(np.empty((0, config.dim), np.float32), config.metric, code)
        self._loaded: dict[tuple[int, str], Quantizer] = {}

    def reader(self, snap: Snapshot) -> Reader:
        """A reader of the rows of a snapshot."""
        return Reader(snap, self.config, self.quantizer(snap), self.originals(snap))

    def writer(self, txn: Transaction) -> Writer:
        """A writer of rows inside a transaction."""
        return Writer(txn, self.config, self.quantizer(txn), self.originals(txn))

    def quantizer(self, reading: Snapshot) -> Quantizer | None:
        """The quantizer of the active generation; None before the collection has codes."""
        generation = reading.state["quantizer"]
        return None if generation is None else self.load(reading, generation)

    def originals(self, reading: Snapshot) -> Quantizer | None:
        """The quantizer of the stored originals; None if codes alone are stored."""
        if reading.state["quantizer"] is None:
            return self.original_quantizer if self.config.keeps_originals else None
        return self.original_quantizer if VECTORS in in_force(reading.columns, reading.state["names"]) else None

    def load(self, reading: Snapshot, generation: int) -> Quantizer:
        """The quantizer of a generation. Raises CorruptError if its record is lost or belongs to other vectors."""
        # The number of a generation that was rolled back with its transaction is given out again: the id tells.
        key = generation, entry_of(reading.state, generation)["id"]
        if key not in self._loaded:
            self._loaded[key] = self._read_quantizer(reading, generation)
        return self._loaded[key]

    def _read_quantizer(self, reading: Snapshot, generation: int) -> Quantizer:
        config, state = self.config, reading.record(CALIBRATION, generation)
        if state is None:
            raise CorruptError(f"the calibration of generation {generation} is lost")
        quantizer, size = from_state(state), entry_of(reading.state, generation)["code_size"]
        found = quantizer.dim, quantizer.metric, quantizer.code_size
        if found != (config.dim, config.metric, size):
            raise CorruptError(
                f"the calibration of generation {generation} is of (dim, metric, code size) = {found}, "
                f"the collection of {(config.dim, config.metric, size)}"
            )
        return quantizer

    def sample(
        self, reading: Snapshot, quantizer: Quantizer, n: int, newest: bool = False
    ) -> tuple[Float32Array, Codes]:
        """Up to n stored vectors, as exactly as they are stored, and their codes.

        The rows are spread evenly over all live rows, or are the newest. A vector in a reused row counts as being as
        old as the vector that was deleted from the row.
        """
        rows, columns = live_rows(reading), in_force(reading.columns, reading.state["names"])
        rows = rows[-n:] if newest else rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(np.int64)]
        return vector_reader(quantizer, self.originals(reading), columns).read(rows), columns[CODES].read(rows)

    def encodes_like(self, reading: Snapshot, quantizer: Quantizer) -> bool:
        """Whether the active generation has the same quantizer, whatever the date of its calibration."""
        own = self.quantizer(reading)
        return own is not None and _undated(own.state()) == _undated(quantizer.state())


def _undated(state: dict[str, Any]) -> dict[str, Any]:
    """A quantizer's state with the id of its calibration in place of the calibration."""
    calibration = state.get("calibration")
    return state if calibration is None else state | {"calibration": calibration["id"]}
