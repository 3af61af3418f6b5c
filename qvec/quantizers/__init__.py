"""The kinds of code. A kind is one file and one line in QUANTIZERS; nothing is imported by a stored name."""

from __future__ import annotations

from typing import get_args

from qvec.errors import FormatError, InputError
from qvec.fields import take_choice
from qvec.quantizers.base import Quantizer
from qvec.quantizers.binary import BinaryQuantizer
from qvec.quantizers.floats import Float16Quantizer, Float32Quantizer
from qvec.quantizers.int8 import Int8Quantizer
from qvec.quantizers.mixed import MixedQuantizer
from qvec.quantizers.rabitq import RaBitQuantizer
from qvec.types import CodeConfig, Float32Array, Metric, RaBitQ

QUANTIZERS: dict[str, type[Quantizer]] = {
    "f32": Float32Quantizer,
    "f16": Float16Quantizer,
    "int8": Int8Quantizer,
    "binary": BinaryQuantizer,
    "rabitq": RaBitQuantizer,
    "mixed": MixedQuantizer,
}
CONFIGS: dict[str, type[CodeConfig]] = {config.kind: config for config in get_args(CodeConfig)}
NAMED: dict[str, CodeConfig] = {f"rabitq{bits}": RaBitQ(bits) for bits in range(1, 9)}
AUTO = "int8"  # docs/adr/0001: nearly the recall of float32 on every set measured, at a quarter of its size

__all__ = ["AUTO", "CONFIGS", "QUANTIZERS", "Quantizer", "from_state", "make_config", "train"]


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
