"""The quantizers of a collection: of the codes of each generation, and of the stored originals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qvec._kernels import Column
from qvec.codes.configs import CodeConfig, Float16, Float32, Prequantized
from qvec.codes.prequantized_input import DTYPES
from qvec.codes.registry import Quantizer, from_state, train
from qvec.common.errors import CorruptError, InputError
from qvec.common.types import Float32Array, NDArray
from qvec.common.workspace import DEFAULT_WORKSPACE, Workspace
from qvec.schema.config import Config, check_projection
from qvec.schema.fresh import FreshRows
from qvec.schema.layout import CODES, QUANTIZER, VECTORS, active_columns
from qvec.schema.state import State
from qvec.storage import records
from qvec.storage.store import Snapshot

_ID_DIGITS = 16
MIN_EXACT_BITS = 4.0  # codes of fewer bits per dimension are too coarse to make inverted lists from


@dataclass(frozen=True)
class Trained:
    """A quantizer and facts about its training. ``created``: UTC, ISO 8601; None: now."""

    quantizer: Quantizer
    code: CodeConfig
    n_samples: int
    model: str | None
    created: str | None = None

    @cached_property
    def id(self) -> str:
        """Hash that identifies the quantizer: the calibration's id if the codes depend on nothing else, else of the
        state."""
        calibration = getattr(self.quantizer, "calibration", None)
        if calibration is not None and self.quantizer.transform is None:
            return str(calibration.id)
        import hashlib  # late: it loads OpenSSL

        return hashlib.sha256(records.pack(_undated(self.quantizer.state()))).hexdigest()[:_ID_DIGITS]


def _undated(plain: Any) -> Any:
    """Remove dates from plain data, because equal calibrations may differ in their dates."""
    if isinstance(plain, dict):
        return {name: _undated(value) for name, value in sorted(plain.items()) if name != "created"}
    return [_undated(value) for value in plain] if isinstance(plain, (list, tuple)) else plain


def train_code(sample: Float32Array, code: CodeConfig, config: Config, queries: Float32Array | None = None) -> Trained:
    """Train a code of a collection on float32 [n, dim], and its projection also for queries, float32 [m, dim].

    InputError: the sample is too small (the message says how many vectors are needed), or the code does not suit the
    collection.
    """
    check_projection(config, code)
    quantizer = train(sample, config.metric, code, config.seed, config.model, queries)
    return Trained(quantizer, code, len(sample), config.model)


def check_enough(code: CodeConfig, rows: int) -> None:
    """Raise InputError if a given sample is smaller than what the code learns from."""
    if rows < code.min_samples:
        raise InputError(f"{code.kind} needs a sample of at least {code.min_samples} vectors, got {rows}")


@dataclass(frozen=True, slots=True)
class VectorReader:
    """Reads stored vectors: a column and the quantizer that made its rows. ``fresh``: vectors that are known more
    exactly."""

    quantizer: Quantizer
    column: Column
    fresh: FreshRows | None = None

    def read(self, rows: NDArray[Any]) -> Float32Array:
        """float32 [n, dim] of the rows."""
        if self.fresh is None:
            return self._decode(rows)
        known = self.fresh.contains(rows)
        if known.all():
            return self.fresh.read(rows)
        x = self._decode(rows)
        x[known] = self.fresh.read(rows[known])
        return x

    def _decode(self, rows: NDArray[Any]) -> Float32Array:
        codes, quantizer = self.column.read(rows), self.quantizer
        return quantizer.codec.decode(codes) if quantizer.transform is None else quantizer.decode(codes)


@dataclass(frozen=True, slots=True)
class Quantizers:
    """The quantizers that rows are stored by. ``originals``: None if only codes are stored."""

    codes: Quantizer
    originals: Quantizer | None

    @property
    def are_coarse(self) -> bool:
        """Whether stored vectors are so inexact that inverted lists should not be made from them."""
        return self.originals is None and is_coarse(self.codes)

    def vector_reader(self, columns: Mapping[str, Column], fresh: FreshRows | None = None) -> VectorReader:
        """The reader of the most exact vectors that are stored: the originals, else the codes. ``fresh``: known ones,
        which are used if the stored ones are coarse and still in their rows."""
        if self.originals is None:
            codes, column = self.codes, columns[CODES]
            if fresh is not None:
                fresh = (
                    fresh.still_in(column, codes.codec.stride - codes.codec.spare_bytes) if self.are_coarse else None
                )
            return VectorReader(codes, column, fresh)
        return VectorReader(self.originals, columns[VECTORS])


def is_coarse(quantizer: Quantizer) -> bool:
    """Whether decoded codes are so inexact that inverted lists should not be made from them. Prequantized ones are the
    vectors themselves."""
    codec = quantizer.codec
    return quantizer.kind != "prequantized" and 8 * codec.data_size < MIN_EXACT_BITS * codec.dim


def original_quantizer(config: Config) -> Quantizer:
    """The quantizer that originals are stored by."""
    form = config.original_form
    if form is not None:
        return train(np.empty((0, config.dim), DTYPES[form]), config.metric, Prequantized(form))
    code = Float16() if config.keeps_originals and config.originals == "f16" else Float32()
    return train(np.empty((0, config.dim), np.float32), config.metric, code)


class QuantizerLoader:
    """Loads the quantizers of a collection's generations, each once.

    ``original_quantizer`` encodes the stored originals; collections without originals have it too. ``workspace``: of
    builds over the codes.
    """

    def __init__(self, config: Config, workspace: Workspace = DEFAULT_WORKSPACE) -> None:
        self.config, self.original_quantizer, self.workspace = config, original_quantizer(config), workspace
        self._loaded: dict[tuple[int, str], Quantizer] = {}

    def load(self, reading: Snapshot, number: int) -> Quantizer:
        """The quantizer of a generation; CorruptError if it is lost, or not of this collection."""
        state: State = reading.state
        key = number, state.generation(number).id  # a rollback may free a number for another generation
        if key not in self._loaded:
            self._loaded[key] = self._read(reading, number)
        return self._loaded[key]

    def _read(self, reading: Snapshot, number: int) -> Quantizer:
        config, plain = self.config, reading.record(QUANTIZER, number)
        if plain is None:
            raise CorruptError(f"the quantizer of generation {number} is lost")
        state: State = reading.state
        quantizer, size = from_state(plain), state.generation(number).code_size
        found = quantizer.dim, quantizer.metric, quantizer.code_size
        if found != (config.dim, config.metric, size):
            raise CorruptError(
                f"the quantizer of generation {number} is of (dim, metric, code size) = {found}, "
                f"the collection of {(config.dim, config.metric, size)}"
            )
        return quantizer

    def active(self, reading: Snapshot) -> Quantizers | None:
        """The quantizers of the active generation; None before the first vectors."""
        state: State = reading.state
        if state.active is None:
            return None
        return self.pair(self.load(reading, state.active), active_columns(reading.columns, state.column_names))

    def encodes_like(self, reading: Snapshot, quantizer: Quantizer) -> bool:
        """Whether the active generation has the same quantizer. The date of its calibration is ignored."""
        active = self.active(reading)
        return active is not None and _undated(active.codes.state()) == _undated(quantizer.state())

    def pair(self, codes: Quantizer, columns: Mapping[str, Column]) -> Quantizers:
        """The quantizers of a collection whose columns have these codes."""
        return Quantizers(codes, self.original_quantizer if VECTORS in columns else None)

    def first(self, codes: Quantizer) -> Quantizers:
        """The quantizers of a new collection with these codes."""
        return Quantizers(codes, self.original_quantizer if self.config.keeps_originals else None)
