"""Embeddings that the model has already quantized, stored and searched unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast, get_args

import numpy as np

from qvec._kernels import Codec
from qvec.codes.base import Quantizer, config_of, read_common
from qvec.codes.binary import BinaryQuantizer
from qvec.codes.configs import CodeConfig, Prequantized
from qvec.codes.prequantized_input import DTYPES, Integers, is_bits, to_bits, to_floats, width_of
from qvec.codes.samples import check_codes
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, take_choice
from qvec.common.types import CodeKind, Codes, Metric, NDArray, PrequantizedType

# Codes store bit 0 first; numpy.packbits stores it last.
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little")[:, 0]


@dataclass(frozen=True, eq=False)
class PrequantizedQuantizer(Quantizer):
    """Stores the integers or bits themselves: distances between two prequantized vectors are exact.

    ``form``: see :class:`qvec.Prequantized`. A float query whose values are all integers in -128..127 is used exactly;
    other float queries are coded with 8 bits, as those of :class:`Int8Quantizer`. With bits, only the signs of a float
    query count.
    """

    kind: ClassVar[CodeKind] = "prequantized"

    form: PrequantizedType

    def __post_init__(self) -> None:
        width_of(self.form, self.dim)
        super().__post_init__()

    @classmethod
    def train(cls, sample: Any, metric: Metric, config: CodeConfig, seed: int, model: str | None = None) -> Self:
        """Take the dimension from codes [n, width] of the form; values, seed and model are not used."""
        form = config_of(config, Prequantized).dtype
        if not isinstance(sample, np.ndarray) or sample.dtype != DTYPES[form] or sample.ndim != 2:
            got = sample.dtype if isinstance(sample, np.ndarray) else type(sample).__name__
            raise InputError(f"sample must be a matrix of {form} codes ({DTYPES[form].__name__}), got {got}")
        return cls(sample.shape[1] * (8 if is_bits(form) else 1), metric, None, form)

    @property
    def oversample(self) -> int:
        return BinaryQuantizer.oversample if is_bits(self.form) else 1

    @property
    def bits_per_dim(self) -> float:
        return 1 if is_bits(self.form) else 8  # rows are padded

    def encode(self, x: Any) -> Codes:
        """Store codes [n, width] of the form as uint8[n, code_size]."""
        codes = self._checked(x)
        if not is_bits(self.form):
            return self.codec.encode(to_floats(codes, self.form))
        rows = np.zeros((len(codes), self.code_size), np.uint8)
        rows[:, : codes.shape[1]] = _REVERSED[to_bits(codes, self.form)]
        return rows

    def decode(self, codes: Codes) -> NDArray[Any]:
        """Return the codes of the form that were stored: [n, width]."""
        stored = check_codes(codes, self.code_size)[:, : width_of(self.form, self.dim)]
        if is_bits(self.form):
            return to_bits(_REVERSED[stored], self.form).view(DTYPES[self.form])
        return np.ascontiguousarray(stored if self.form == "uint8" else (stored ^ np.uint8(128)).view(np.int8))

    def prepare(self, queries: Any) -> Codes:
        """Prepare float32[n, dim], or codes [n, width] of the form: uint8[n, codec.query_size]."""
        if isinstance(queries, np.ndarray) and queries.dtype == np.float32:
            return super().prepare(queries)
        return self.codec.prepare(to_floats(self._checked(queries), self.form))

    def _make_codec(self) -> Codec:
        if is_bits(self.form):
            return Codec("binary", self.metric, self.dim)
        return Codec("int8", self.metric, self.dim, integers=True)

    def state(self) -> State:
        return super().state() | {"form": self.form}

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind, ("form",))
        form = cast(PrequantizedType, take_choice(common.fields, "form", get_args(PrequantizedType)))
        if common.transform is not None:
            raise FormatError("field 'transform' must be empty for prequantized")
        if is_bits(form) and common.dim % 8:
            raise FormatError(f"field 'dim' must be a multiple of 8 for {form} codes, got {common.dim}")
        return cls(common.dim, common.metric, None, form)

    def _checked(self, x: Any) -> Integers:
        dtype, width = DTYPES[self.form], width_of(self.form, self.dim)
        if not isinstance(x, np.ndarray) or x.dtype != dtype:
            got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise InputError(f"{self.form} codes must be a {dtype.__name__} array, got {got}")
        if x.ndim != 2 or x.shape[1] != width:
            raise InputError(f"{self.form} codes must have shape (n, {width}), got {x.shape}")
        return np.ascontiguousarray(x)
