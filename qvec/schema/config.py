"""The configuration of a collection, which never changes. It is checked when it is created and when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, get_args

from qvec.codes.configs import (
    HNSW,
    IVF,
    MIXED_BITS,
    Binary,
    CodeConfig,
    Float32,
    IndexConfig,
    Mixed,
    Prequantized,
    RaBitQ,
    Ternary,
    projection_of,
)
from qvec.codes.prequantized_input import is_bits, width_of
from qvec.codes.registry import INDEXES, code_from_dict, code_to_dict, index_from_dict, index_to_dict
from qvec.codes.transforms import MAX_SEED
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import take_int, take_state
from qvec.common.types import (
    MAX_DIM,
    IdKind,
    Metric,
    Originals,
    PrequantizedType,
    check_choice,
    check_int,
    check_metric,
    unbox,
)

MAX_LISTED_DIM = 16_192  # a block of lists is one value of 64 KiB at most
MAX_PACKED_DIM = 4096  # a node of 64 neighbors then fits into a block
MIN_PACKED_BITS = 4  # with coarser codes, the distance of an expanded node is not exact enough
AUTO_INDEX_ROWS = 10_000  # a scan of fewer codes is faster than any graph
_FIELDS = ("dim", "metric", "ids", "originals", "code", "index", "model", "seed")


@dataclass(frozen=True)
class Config:
    """Options of a collection. ``index`` None is "auto": a scan that becomes a graph at AUTO_INDEX_ROWS rows."""

    dim: int
    metric: Metric
    ids: IdKind
    originals: Originals
    code: CodeConfig
    index: IndexConfig | None
    model: str | None
    seed: int

    def __post_init__(self) -> None:
        unbox(self)
        check_int("dim", self.dim, 1, MAX_DIM)
        check_metric(self.metric)
        check_choice("ids", self.ids, get_args(IdKind))
        check_choice("originals", self.originals, get_args(Originals))
        check_int("seed", self.seed, 0, MAX_SEED)
        if getattr(self.code, "dims", None) is not None:
            check_int("code.dims", self.code.dims, 1, self.dim)  # type: ignore[union-attr]
        if isinstance(self.index, IVF) and self.dim > MAX_LISTED_DIM:
            raise InputError(f"inverted lists take vectors of at most {MAX_LISTED_DIM:,} dimensions, got {self.dim}")
        if isinstance(self.index, HNSW) and self.index.layout == "packed":
            check_packed(self.code.kind, self._coded_dim, self._bits)
        if self.form is not None:
            width_of(self.form, self.dim)
        if self.original_form is not None and (self.form is None or not is_bits(self.form)):
            raise InputError(
                f"originals={self.originals!r} is for embeddings that come in two forms, with "
                f"code=Prequantized('ubinary') or Prequantized('binary'); got code={self.code!r}"
            )
        check_projection(self, self.code)
        if self.form is not None and self.original_form is None:
            object.__setattr__(self, "originals", "none")  # prequantized vectors have no float originals
        if self.model is not None and (not isinstance(self.model, str) or len(self.model) > 1000):
            raise InputError(f"model must be a string of at most 1000 characters, got {self.model!r}")

    @property
    def keeps_originals(self) -> bool:
        """Whether originals are stored in addition to the codes. f32 codes of all dimensions are the originals."""
        return self.originals != "none" and self.code != Float32()

    @property
    def _coded_dim(self) -> int:
        """The dimensions of the codes, at least; the number of an automatic projection is not known yet."""
        projection = projection_of(self.code)
        return 1 if projection == "auto" else projection or getattr(self.code, "dims", None) or self.dim

    @property
    def _bits(self) -> float:
        """The bits of the code per dimension; exact below MIN_PACKED_BITS."""
        match self.code:
            case Binary():
                return 1
            case Ternary():
                return 2
            case RaBitQ(bits=bits):
                return bits
            case Mixed(bits=bits, bytes=size, dims=dims):
                return bits if bits is not None else MIXED_BITS if size is None else 8 * size / (dims or self.dim)
            case Prequantized(dtype=form):
                return 1 if is_bits(form) else 8
        return MIN_PACKED_BITS

    @property
    def form(self) -> PrequantizedType | None:
        """The form of prequantized vectors; None: vectors are floats."""
        return self.code.dtype if isinstance(self.code, Prequantized) else None

    @property
    def original_form(self) -> PrequantizedType | None:
        """The form of prequantized originals that are stored next to other codes; None: there are none."""
        return self.originals if self.originals in ("int8", "uint8") else None

    @property
    def exact_form(self) -> PrequantizedType | None:
        """The form of the most exact prequantized vectors, and of queries that are integers."""
        return self.original_form or self.form

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS} | {
            "code": code_to_dict(self.code),
            "index": None if self.index is None else index_to_dict(self.index),
        }

    @classmethod
    def from_dict(cls, state: object) -> Config:
        """Decode a stored configuration. FormatError names the wrong field."""
        fields = dict(take_state(state, "config", _FIELDS))
        take_int(fields, "dim", 1, MAX_DIM)
        try:
            fields["code"] = code_from_dict(fields["code"])
            fields["index"] = None if fields["index"] is None else index_from_dict(fields["index"])
            return cls(**fields)
        except InputError as error:
            raise FormatError(f"config: {error}") from None


def check_packed(kind: str, dim: int, bits: float) -> None:
    """Raise InputError if codes are too coarse or too wide for the packed layout of a graph."""
    if bits < MIN_PACKED_BITS:
        raise InputError(f"index='packed' needs codes of at least {MIN_PACKED_BITS} bits per dimension, not {kind}")
    if dim > MAX_PACKED_DIM:
        raise InputError(f"index='packed' is limited to {MAX_PACKED_DIM} dimensions, got {dim}")


def check_projection(config: Config, code: CodeConfig) -> None:
    """Raise InputError if a code projects vectors, and the collection does not suit that."""
    projection = projection_of(code)
    if projection is None:
        return
    if config.originals == "none":
        raise InputError("a projection needs originals, which re-rank its candidates: give originals='f32' or 'f16'")
    if projection != "auto" and projection >= config.dim:
        raise InputError(f"code.projection must be below the {config.dim} dimensions of the vectors, got {projection}")


def check_makes_codes(config: Config) -> None:
    """Raise InputError if the codes of a collection come with its vectors."""
    if config.form is not None:
        raise InputError(f"the {config.form} codes of this collection come with its vectors: no other codes are made")


def index_config(index: object) -> IndexConfig | None:
    """Return the configuration of an index, given by name or as a configuration; None for "auto"."""
    if isinstance(index, get_args(IndexConfig)):
        return cast(IndexConfig, index)
    if index == "auto":
        return None
    if index == "packed":
        return HNSW(layout="packed")
    if not isinstance(index, str) or index not in INDEXES:
        raise InputError(
            f"index must be auto, {', '.join(INDEXES)}, packed or a configuration such as HNSW(); got {index!r}"
        )
    return INDEXES[index]()


__all__ = ["AUTO_INDEX_ROWS", "Config", "check_makes_codes", "index_config"]
