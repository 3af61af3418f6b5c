"""What a collection's handle is made of: its file, its configuration, and the parts that read and write it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from qvec._kernels import Column
from qvec.codes.configs import Float16, Float32
from qvec.codes.registry import Quantizer, from_state, train
from qvec.common.errors import CorruptError, InputError
from qvec.common.types import MemoryMode
from qvec.index import stored_index
from qvec.maintenance.state_check import check_state
from qvec.rows.reader import Reader
from qvec.rows.writer import Writer
from qvec.schema.calibrations import entry_of
from qvec.schema.config import Config
from qvec.schema.layout import CALIBRATION, VECTORS, in_force
from qvec.schema.validation import check_count
from qvec.search.engine import Engine
from qvec.storage.store import Snapshot, StateCodec, Store, Transaction

if TYPE_CHECKING:  # imported when it is called: seldom
    from qvec.maintenance.requantize import Generations

MAX_THREADS = 1024

H = TypeVar("H", bound="Handle")


class Handle:
    """What :class:`qvec.Collection` inherits: the file it has open, and how it is given up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._config = Config.from_dict(dict(store.config))
        self._keep = _keep_quantizer(self._config)
        self._quantizers: dict[tuple[int, str], Quantizer] = {}

    def close(self) -> None:
        """Wait for searches that are running, then release the file. Calls after it raise ClosedError."""
        self._store.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._store.closed

    def __enter__(self) -> Self:
        self._store.end(self._store.begin())  # a closed handle says so here, not at the first call
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as its path, and is opened for reading where it is unpickled: only one handle can write."""
        return reopened, (type(self), os.path.abspath(self._store.path), self._store.memory)

    def __repr__(self) -> str:
        config = self._config
        return f"<qvec.Collection {os.fspath(self._store.path)!r} dim={config.dim} {config.metric}>"

    # --- parts ---

    def _reader(self, snap: Snapshot) -> Reader:
        return Reader(snap, self._config, self._quantizer(snap), self._originals(snap))

    def _codes_by(self, quantizer: Quantizer) -> bool:
        """Whether this is the collection's own quantizer."""
        with self._store.read() as snap:
            own = self._quantizer(snap)
        return own is not None and _undated(own.state()) == _undated(quantizer.state())

    def _make_engine(self, snap: Snapshot) -> Engine | None:
        quantizer = self._quantizer(snap)
        if quantizer is None or not snap.state["live"]:
            return None
        index = stored_index(self._config.index, snap.state["index"])
        engine = Engine(snap, quantizer, self._originals(snap), index, self._config.ids == "int64")
        snap.reside(engine.to_copy(self._store.memory))
        snap.derived["engine"] = engine
        return engine

    def _writer(self, txn: Transaction) -> Writer:
        return Writer(txn, self._config, self._quantizer(txn), self._originals(txn))

    @cached_property
    def _generations(self) -> Generations:
        from qvec.maintenance.requantize import Generations

        return Generations(self._store, self._config, self._load, self._keep)

    def _load(self, reading: Snapshot | Transaction, number: int) -> Quantizer:
        key = number, entry_of(reading.state, number)["id"]  # a number that was undone may be given out again
        if key not in self._quantizers:
            self._quantizers[key] = self._stored_quantizer(reading, number)
        return self._quantizers[key]

    def _stored_quantizer(self, reading: Snapshot | Transaction, number: int) -> Quantizer:
        """A calibration as it is stored; CorruptError where it is lost, or not of this collection."""
        config, state = self._config, reading.record(CALIBRATION, number)
        if state is None:
            raise CorruptError(f"the calibration of generation {number} is lost")
        quantizer, size = from_state(state), entry_of(reading.state, number)["code_size"]
        found = quantizer.dim, quantizer.metric, quantizer.code_size
        if found != (config.dim, config.metric, size):
            raise CorruptError(
                f"the calibration of generation {number} is of (dim, metric, code size) = {found}, "
                f"the collection of {(config.dim, config.metric, size)}"
            )
        return quantizer

    def _quantizer(self, reading: Snapshot | Transaction) -> Quantizer | None:
        number = reading.state["quantizer"]
        return None if number is None else self._load(reading, number)

    def _originals(self, reading: Snapshot | Transaction) -> Quantizer | None:
        """What codes the stored originals, None where codes are all there is."""
        if reading.state["quantizer"] is None:
            return self._keep if self._config.keeps_originals else None
        return self._keep if VECTORS in in_force(reading.columns, reading.state["names"]) else None

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self._config.model:
            raise InputError(f"the vectors are of model {model!r}, the collection of {self._config.model!r}")


def state_codec(stored_config: Mapping[str, Any]) -> StateCodec:
    """How the state of a collection with this configuration is checked when a commit is read, and stored."""
    config = Config.from_dict(dict(stored_config))
    original_size = _keep_quantizer(config).code_size

    def decode(stored: dict[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
        check_state(config, original_size, stored, columns)
        return stored

    return StateCodec(decode, dict)


def worker_threads(threads: int | None) -> int:
    return os.cpu_count() or 1 if threads is None else check_count("threads", threads, 1, MAX_THREADS)


def _keep_quantizer(config: Config) -> Quantizer:
    code = Float16() if config.keeps_originals and config.originals == "f16" else Float32()
    return train(np.empty((0, config.dim), np.float32), config.metric, code)


def _undated(state: dict[str, Any]) -> dict[str, Any]:
    """A quantizer's state without the time of its calibration: the id stands for all the rest."""
    calibration = state.get("calibration")
    return state if calibration is None else state | {"calibration": calibration["id"]}


def reopened(kind: type[H], path: str, memory: MemoryMode) -> H:
    """What a pickled collection becomes."""
    return kind(Store.open(path, "r", memory=memory, state_codec=state_codec))
