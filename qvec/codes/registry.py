"""The kinds of code: a kind is one file and one line in QUANTIZERS. Stored names never decide what is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import Any, cast, get_args

from qvec.codes.base import Quantizer, after
from qvec.codes.configs import (
    HNSW,
    IVF,
    CodeConfig,
    Flat,
    IndexConfig,
    Int4,
    Int8,
    Mixed,
    Prequantized,
    RaBitQ,
    projection_of,
)
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, take_choice
from qvec.common.types import Float32Array, Metric


class _Kinds(Mapping[str, type[Quantizer]]):
    """Quantizer classes by kind. The module of a kind is imported when the kind is first used."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places

    def __getitem__(self, kind: str) -> type[Quantizer]:
        module, name = self._places[kind].split(".")
        return cast(type[Quantizer], getattr(import_module(f"qvec.codes.{module}"), name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


QUANTIZERS = _Kinds(
    {
        "f32": "floats.Float32Quantizer",
        "f16": "floats.Float16Quantizer",
        "bf16": "floats.BFloat16Quantizer",
        "int8": "int8.Int8Quantizer",
        "int4": "int4.Int4Quantizer",
        "ternary": "ternary.TernaryQuantizer",
        "binary": "binary.BinaryQuantizer",
        "rabitq": "rabitq.RaBitQuantizer",
        "mixed": "mixed.MixedQuantizer",
        "prequantized": "prequantized.PrequantizedQuantizer",
    }
)
INDEXES: dict[str, type[Flat] | type[HNSW] | type[IVF]] = {"flat": Flat, "hnsw": HNSW, "ivf": IVF}
CONFIGS: dict[str, type[CodeConfig]] = {config.kind: config for config in get_args(CodeConfig)}
NAMED: dict[str, CodeConfig] = {f"rabitq{bits}": RaBitQ(bits) for bits in range(1, 9)}
PROJECTED_DIM = 768  # codes of projections are tried for vectors of at least this many dimensions
MIXED_BUDGETS = (1.0, 1.5, 2.0, 2.5, 4.0, 5.0, 6.0)  # budgets per dimension in addition to the default
AUTO = "int8"  # nearly the recall of float32 on all sets measured, in a quarter of the bytes (ADR 1)

__all__ = [
    "AUTO",
    "CONFIGS",
    "INDEXES",
    "NAMED",
    "QUANTIZERS",
    "Quantizer",
    "code_from_dict",
    "code_to_dict",
    "config_from_dict",
    "every_code",
    "from_state",
    "index_from_dict",
    "index_to_dict",
    "make_config",
    "samples_needed",
    "train",
]


def make_config(code: str | CodeConfig) -> CodeConfig:
    """Return the configuration named ``code`` (or "auto"), or ``code`` itself if it is a configuration."""
    if isinstance(code, CodeConfig):
        return code
    name = AUTO if code == "auto" else code
    if name in tuple(NAMED):
        return NAMED[name]
    if name not in tuple(CONFIGS):
        names = ", ".join(("auto", *CONFIGS, *NAMED))
        raise InputError(f"code must be one of {names}, or a configuration such as Int8(); got {code!r}")
    return CONFIGS[name]()


def every_code(dim: int = 0) -> list[CodeConfig]:
    """Each kind of code that vectors can be encoded to: RaBitQ with all numbers of bits, mixed with some budgets.

    From PROJECTED_DIM dimensions on also codes of projections, which need originals.
    """
    plain = [kind() for kind in CONFIGS.values() if kind not in (RaBitQ, Prequantized)]
    projected: list[CodeConfig] = []
    if dim >= PROJECTED_DIM:
        projected += [Int8(projection="auto"), Int4(projection="auto", centroids=0)]
    return [*plain, *NAMED.values(), *(Mixed(bits=bits) for bits in MIXED_BUDGETS), *projected]


def code_to_dict(code: CodeConfig) -> State:
    """Return the configuration of a code as plain data."""
    return {"kind": code.kind, **vars(code)}


def code_from_dict(plain: object) -> CodeConfig:
    """Rebuild a configuration from :func:`code_to_dict`; FormatError or InputError names the wrong option."""
    return cast(CodeConfig, config_from_dict("code", plain, CONFIGS))


def index_to_dict(index: IndexConfig) -> State:
    """Return the configuration of an index as plain data."""
    return {"kind": index.kind, **vars(index)}


def index_from_dict(plain: object) -> IndexConfig:
    """Rebuild a configuration from :func:`index_to_dict`; FormatError or InputError names the wrong option."""
    return cast(IndexConfig, config_from_dict("index", plain, INDEXES))


def config_from_dict(name: str, plain: object, kinds: Mapping[str, type[Any]]) -> Any:
    """Rebuild the configuration of a code or an index, one of ``kinds``, from plain data."""
    if not isinstance(plain, dict) or "kind" not in plain:
        raise FormatError(f"config: field {name!r} must be a mapping with a kind")
    kind = kinds[take_choice(plain, "kind", kinds)]
    options = {key: option for key, option in plain.items() if key != "kind"}
    names = {field.name for field in fields(kind)}
    if unknown := options.keys() - names:
        raise FormatError(f"config: {name} has an unknown option {min(map(str, unknown))!r}")
    if missing := names - options.keys():
        raise FormatError(f"config: {name} lacks the option {min(missing)!r}")
    return kind(**options)


def samples_needed(config: CodeConfig, dim: int) -> int:
    """Return the size of the smallest sample that the code can be trained on, for vectors of ``dim`` dimensions.

    Codes that learn directions, for a projection or for groups of principal components, need two vectors for each
    dimension.
    """
    directions = projection_of(config) is not None or (isinstance(config, Mixed) and config.groups == "pca")
    return max(config.min_samples, 2 * (getattr(config, "dims", None) or dim) if directions else 0)


def train(
    sample: Float32Array,
    metric: Metric,
    config: CodeConfig,
    seed: int = 0,
    model: str | None = None,
    queries: Float32Array | None = None,
) -> Quantizer:
    """Train a quantizer of the kind of ``config``; see :meth:`Quantizer.train`.

    ``queries``: float32[m, dim], for which a projection is learned. InputError: there is none.
    """
    config = make_config(config)
    width = projection_of(config)
    if not isinstance(config, Int8 | Int4 | RaBitQ) or width is None:
        if queries is not None:
            raise InputError(f"queries are for codes with a projection, such as Int8(projection=128); got {config}")
        return QUANTIZERS[config.kind].train(sample, metric, config, seed, model)
    from qvec.codes.projection import learn_projection  # late: few collections need it

    projection = learn_projection(sample, queries, metric, width, seed)
    plain = replace(config, projection=None)
    return after(projection, train(projection.apply(sample), metric, plain, seed, model))


def from_state(state: object) -> Quantizer:
    """Rebuild a quantizer of any kind from its ``state()``; FormatError names the wrong field."""
    if not isinstance(state, dict) or "kind" not in state:
        raise FormatError("quantizer: field 'kind' is missing")
    return QUANTIZERS[take_choice(state, "kind", QUANTIZERS)].from_state(state)
