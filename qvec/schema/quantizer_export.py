"""Export trained quantizers as text or bytes, which another collection can import."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from qvec.codes.configs import CodeConfig, projection_of
from qvec.codes.registry import Quantizer, code_from_dict, code_to_dict, from_state
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import Between, Coder, decode, encode
from qvec.common.types import MAX_DIM, Metric
from qvec.schema.config import Config, check_projection
from qvec.schema.quantizers import Trained
from qvec.schema.state import GenerationRecord, Text
from qvec.storage import records

Transfer = Literal["json", "msgpack"]


@dataclass(frozen=True, slots=True)
class QuantizerExport:
    """The complete content of an exported quantizer."""

    format: Literal["qvec quantizer"]
    version: Annotated[int, Between(1, 1)]
    id: Text
    dim: Annotated[int, Between(1, MAX_DIM)]
    metric: Metric
    model: Text | None
    created: Annotated[str, Between(0, 64)]
    n_samples: Annotated[int, Between(0, (1 << 63) - 1)]
    code: Annotated[CodeConfig, Coder(code_from_dict, code_to_dict)]
    quantizer: Annotated[Quantizer, Coder(from_state, lambda quantizer: quantizer.state())]


def export_quantizer(record: GenerationRecord, quantizer: Quantizer, config: Config, form: Transfer) -> str | bytes:
    """Export the quantizer of a generation as JSON text or msgpack bytes."""
    if form not in ("json", "msgpack"):
        raise InputError(f"format must be json or msgpack, got {form!r}")
    parts = config.dim, config.metric, record.model, record.created, record.n_samples, record.code, quantizer
    plain = encode(QuantizerExport("qvec quantizer", 1, record.id, *parts))
    return records.pack(plain) if form == "msgpack" else json.dumps(plain, default=_armored)


def import_quantizer(data: str | bytes, config: Config) -> Trained:
    """Read what :func:`export_quantizer` returned.

    FormatError: the data is damaged or has another format. InputError: the quantizer has another dimension, metric or
    model.
    """
    found = decode(QuantizerExport, _parsed(data), "quantizer")
    for name in ("dim", "metric", "model"):
        given, own = getattr(found, name), getattr(config, name)
        if given != own:
            raise InputError(f"the quantizer is of {name} {given!r}, the collection of {own!r}")
    quantizer, code = found.quantizer, found.code
    if (quantizer.dim, quantizer.metric, quantizer.kind) != (config.dim, config.metric, code.kind):
        raise FormatError("field 'quantizer' has another dimension, metric or kind than the other fields say")
    if quantizer.is_projected != (projection_of(code) is not None):
        raise FormatError("field 'quantizer' projects vectors and 'code' does not, or the other way round")
    check_projection(config, code)
    trained = Trained(quantizer, code, found.n_samples, found.model, found.created)
    if found.id != trained.id:
        raise FormatError("field 'id' does not match the quantizer")
    return trained


def _parsed(data: str | bytes) -> object:
    try:
        if isinstance(data, str):
            return json.loads(data, object_pairs_hook=_disarmored)
        return records.unpack(data)
    except ValueError as error:
        raise FormatError(f"the quantizer is neither JSON nor msgpack: {error}") from error


def _armored(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return {"base64": base64.b64encode(value).decode()}


def _disarmored(pairs: Iterable[tuple[str, Any]]) -> Any:
    plain = dict(pairs)
    return base64.b64decode(plain["base64"], validate=True) if plain.keys() == {"base64"} else plain
