"""The kinds of code. A kind is one file and one line in QUANTIZERS; nothing is imported by a stored name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import cast, get_args

from qvec.codes.base import Quantizer
from qvec.codes.configs import CodeConfig, RaBitQ
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import take_choice
from qvec.common.types import Float32Array, Metric


class _Kinds(Mapping[str, type[Quantizer]]):
    """Classes by kind. A module is imported when its kind is first asked for: few programs use more than two."""

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
CONFIGS: dict[str, type[CodeConfig]] = {config.kind: config for config in get_args(CodeConfig)}
NAMED: dict[str, CodeConfig] = {f"rabitq{bits}": RaBitQ(bits) for bits in range(1, 9)}
AUTO = "int8"  # docs/adr/0001: nearly the recall of float32 on every set measured, at a quarter of its size

__all__ = ["AUTO", "CONFIGS", "NAMED", "QUANTIZERS", "Quantizer", "from_state", "make_config", "train"]


def make_config(code: str | CodeConfig) -> CodeConfig:
    """Give the configuration that ``code`` names ("auto" among them), or ``code`` if it is one already."""
    if isinstance(code, CodeConfig):
        return code
    name = AUTO if code == "auto" else code
    if name in tuple(NAMED):
        return NAMED[name]
    if name not in tuple(CONFIGS):
        names = ", ".join(("auto", *CONFIGS, *NAMED))
        raise InputError(f"code must be one of {names}, or a configuration such as Int8(); got {code!r}")
    return CONFIGS[name]()


def train(
    sample: Float32Array, metric: Metric, config: CodeConfig, seed: int = 0, model: str | None = None
) -> Quantizer:
    """Train the kind that ``config`` is of; see :meth:`Quantizer.train`."""
    return QUANTIZERS[make_config(config).kind].train(sample, metric, config, seed, model)


def from_state(state: object) -> Quantizer:
    """Rebuild a quantizer of any kind from its ``state()``; FormatError names the field that is wrong."""
    if not isinstance(state, dict) or "kind" not in state:
        raise FormatError("quantizer: field 'kind' is missing")
    return QUANTIZERS[take_choice(state, "kind", QUANTIZERS)].from_state(state)
