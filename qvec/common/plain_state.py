"""Records as plain data (msgpack or JSON): one decoder, whose errors name the field that is wrong, and one encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from qvec.common.errors import FormatError
from qvec.common.types import Float32Array, NDArray

State = dict[str, Any]
T = TypeVar("T")


def take_state(state: object, where: str, fields: Iterable[str]) -> State:
    """Return ``state`` if it is a dict with exactly these ``fields``."""
    if not isinstance(state, dict):
        raise FormatError(f"{where} must be a mapping, got {type(state).__name__}")
    expected = set(fields)
    if missing := sorted(expected - state.keys()):
        raise FormatError(f"{where}: field {missing[0]!r} is missing")
    if unknown := sorted(map(str, state.keys() - expected)):
        raise FormatError(f"{where}: field {unknown[0]!r} is unknown")
    return state


def take_int(state: State, field: str, low: int, high: int) -> int:
    """Return an int from ``low`` to ``high``, both included."""
    value = state[field]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FormatError(f"field {field!r} must be an integer from {low} to {high}, got {value!r}")
    return value


def take_version(state: State, newest: int) -> None:
    """Refuse a state written by a later version than this one reads."""
    take_int(state, "version", newest, newest)


def take_flag(state: State, field: str) -> bool:
    """Return a bool."""
    value = state[field]
    if not isinstance(value, bool):
        raise FormatError(f"field {field!r} must be true or false, got {value!r}")
    return value


def take_str(state: State, field: str, limit: int = 1024) -> str:
    """Return a string of at most ``limit`` characters."""
    value = state[field]
    if not isinstance(value, str) or len(value) > limit:
        raise FormatError(f"field {field!r} must be a string of at most {limit} characters")
    return value


def take_choice(state: State, field: str, choices: Iterable[str]) -> str:
    """Return one of ``choices``."""
    value, allowed = state[field], tuple(choices)
    if not isinstance(value, str) or value not in allowed:
        raise FormatError(f"field {field!r} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def take_floats(state: State, field: str, n: int) -> Float32Array:
    """Return float32[n], read-only and finite, from 4 * n little-endian bytes."""
    value = state[field]
    if not isinstance(value, bytes) or len(value) != 4 * n:
        raise FormatError(f"field {field!r} must hold {n} little-endian float32 ({4 * n} bytes)")
    array = np.frombuffer(value, dtype="<f4").astype(np.float32)
    if not np.isfinite(array).all():
        raise FormatError(f"field {field!r} holds a value that is not finite")
    array.flags.writeable = False
    return array


def floats_to_bytes(array: Float32Array) -> bytes:
    """Pack float32 values as little-endian bytes, the form that :func:`take_floats` reads."""
    return array.astype("<f4", copy=False).tobytes()


# --- records ---


class Between(NamedTuple):
    """Limits of a number, or of the length of a string or tuple, both included.

    ``high``: a number, or the name of an earlier field: its value, or its length if it is an array.
    """

    low: float
    high: float | str


@dataclass(frozen=True)
class Floats:
    """A float32 array, read-only and finite, stored as little-endian bytes. ``size``: a number or an earlier field."""

    size: int | str

    def decode(self, value: Any, name: str, scope: State) -> Float32Array:
        return take_floats({name: value}, name, int(_bound(self.size, scope)))

    def encode(self, value: Float32Array) -> bytes:
        return floats_to_bytes(value)


@dataclass(frozen=True)
class RowNumbers:
    """A uint32 array of at most ``most`` rows, each below ``limit`` (a number or an earlier field), stored as bytes."""

    limit: int | str
    most: int

    def decode(self, value: Any, name: str, scope: State) -> NDArray[np.uint32]:
        if not isinstance(value, bytes) or len(value) % 4 or len(value) > 4 * self.most:
            raise FormatError(f"field {name!r} must hold at most {self.most} rows of 4 bytes")
        limit = _bound(self.limit, scope)
        if value and max(memoryview(value).cast("I")) >= limit:
            raise FormatError(f"field {name!r} names a row that is not below {limit}")
        return np.frombuffer(value, "<u4").astype(np.uint32, copy=False)

    def encode(self, value: NDArray[np.uint32]) -> bytes:
        return value.astype("<u4", copy=False).tobytes()


class Coder(NamedTuple):
    """Functions for a type that is not a record. ``decode`` raises FormatError or InputError."""

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any]


def decode(record: type[T], plain: object, where: str, **scope: Any) -> T:
    """Decode a record from plain data; FormatError names the field that is missing, unknown or wrong.

    A record is a dataclass, stored as a map, or a NamedTuple, stored as an array. Type hints of its fields say what is
    valid: ``bool``, ``Literal``, records, ``X | None``, unions of records told apart by their field ``kind``,
    ``tuple[X, ...]``, ``Mapping[str, X]``, and ``Annotated`` types: ``int``, ``float``, ``str`` and tuples with
    :class:`Between`, arrays with :class:`Floats` or :class:`RowNumbers`, others with a :class:`Coder`.
    ``where`` names the record in errors. ``scope``: values that limits may name in addition to earlier fields.
    """
    hint: Any = record
    made: T = _compiled(hint)[0](plain, where, scope)
    return made


def encode(record: object) -> Any:
    """Plain data for :func:`decode`."""
    kind: Any = type(record)
    encoder = _compiled(kind)[1]
    return record if encoder is None else encoder(record)


Decoder = Callable[[Any, str, State], Any]
Encoder = Callable[[Any], Any] | None  # None: values are plain already


def _bound(limit: float | str, scope: State) -> float:
    if not isinstance(limit, str):
        return limit
    named = scope[limit]
    return named if isinstance(named, int) else len(named)


@cache
def _compiled(hint: Any) -> tuple[Decoder, Encoder]:
    """The functions that decode and encode values of a type hint."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(*parts)
    if origin is Literal:
        return _literal(parts), None
    if origin in (Union, UnionType):
        return _union([part for part in parts if part is not NoneType], NoneType in parts)
    if origin is tuple:
        return _tuple(parts[0], Between(0, math.inf))
    if origin is Mapping:
        return _mapping(parts[1])
    if hint is bool:
        return _bool, None
    return _named_tuple(hint) if issubclass(hint, tuple) else _dataclass(hint)


def _annotated(base: Any, rule: Any) -> tuple[Decoder, Encoder]:
    if isinstance(rule, Coder):
        return lambda value, name, scope: rule.decode(value), rule.encode
    if not isinstance(rule, Between):
        return rule.decode, rule.encode
    if get_origin(base) is tuple:
        return _tuple(get_args(base)[0], rule)
    return {int: _int, float: _float, str: _str}[base](rule), None


def _bool(value: Any, name: str, scope: State) -> bool:
    return take_flag({name: value}, name)


def _int(rule: Between) -> Decoder:
    low, high = rule

    def decode_int(value: Any, name: str, scope: State) -> int:
        most = high if type(high) is int else _bound(high, scope)
        if type(value) is int and low <= value <= most:
            return value
        raise FormatError(f"field {name!r} must be an integer from {low} to {most}, got {value!r}")

    return decode_int


def _float(rule: Between) -> Decoder:
    low, high = rule

    def decode_float(value: Any, name: str, scope: State) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise FormatError(f"field {name!r} must be a finite number, got {value!r}")
        if low <= value <= _bound(high, scope):
            return float(value)
        raise FormatError(f"field {name!r} must be from {low} to {high}, got {value!r}")

    return decode_float


def _str(rule: Between) -> Decoder:
    low, high = rule

    def decode_str(value: Any, name: str, scope: State) -> str:
        if type(value) is str and low <= len(value) <= _bound(high, scope):
            return value
        raise FormatError(f"field {name!r} must be a string of {low} to {high} characters")

    return decode_str


def _literal(choices: tuple[Any, ...]) -> Decoder:
    def decode_literal(value: Any, name: str, scope: State) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise FormatError(f"field {name!r} must be one of {', '.join(map(str, choices))}; got {value!r}")

    return decode_literal


def _union(options: list[Any], optional: bool) -> tuple[Decoder, Encoder]:
    encode_some: Encoder
    if len(options) == 1:
        decode_some, encode_some = _compiled(options[0])
    else:
        by_kind = {get_args(get_type_hints(option)["kind"])[0]: _compiled(option)[0] for option in options}
        encode_some = encode

        def decode_some(value: Any, name: str, scope: State) -> Any:
            if not isinstance(value, dict) or "kind" not in value:
                raise FormatError(f"field {name!r} must be a mapping with a kind")
            return by_kind[take_choice(value, "kind", by_kind)](value, name, scope)

    if not optional:
        return decode_some, encode_some

    def decode_optional(value: Any, name: str, scope: State) -> Any:
        return None if value is None else decode_some(value, name, scope)

    return decode_optional, encode_some and (lambda value: None if value is None else encode_some(value))


def _tuple(item: Any, rule: Between) -> tuple[Decoder, Encoder]:
    (decode_item, encode_item), (low, high) = _compiled(item), rule

    def decode_tuple(value: Any, name: str, scope: State) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not low <= len(value) <= _bound(high, scope):
            raise FormatError(f"field {name!r} must be a list of {low} to {high} items")
        return tuple([decode_item(part, name, scope) for part in value])

    return decode_tuple, list if encode_item is None else lambda value: [encode_item(part) for part in value]


def _mapping(item: Any) -> tuple[Decoder, Encoder]:
    decode_item, encode_item = _compiled(item)

    def decode_mapping(value: Any, name: str, scope: State) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(type(key) is str for key in value):
            raise FormatError(f"field {name!r} must map names to values")
        return {key: decode_item(part, key, scope) for key, part in value.items()}

    if encode_item is None:
        return decode_mapping, dict
    return decode_mapping, lambda value: {key: encode_item(part) for key, part in value.items()}


def _named_tuple(record: Any) -> tuple[Decoder, Encoder]:
    parts = [(name, _compiled(hint)[0]) for name, hint in get_type_hints(record, include_extras=True).items()]

    def decode_parts(value: Any, name: str, scope: State) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise FormatError(f"field {name!r} must hold lists of {', '.join(own for own, _ in parts)}")
        return record(*[decode_part(part, own, scope) for part, (own, decode_part) in zip(value, parts, strict=True)])

    return decode_parts, list


def _dataclass(record: Any) -> tuple[Decoder, Encoder]:
    hints = get_type_hints(record, include_extras=True)
    decoders = {field.name: _compiled(hints[field.name])[0] for field in fields(record) if field.init}
    encoders = {name: encoder for name in decoders if (encoder := _compiled(hints[name])[1]) is not None}
    names, values_of = decoders.keys(), attrgetter(*decoders, "__class__")  # attrgetter of one name returns no tuple

    def decode_fields(value: Any, where: str, scope: State) -> Any:
        if type(value) is not dict or value.keys() != names:
            take_state(value, where, names)
        found, made = dict(scope), []
        for name, decode_field in decoders.items():
            found[name] = one = decode_field(value[name], name, found)
            made.append(one)
        return record(*made)

    def encode_fields(value: Any) -> State:
        plain = dict(zip(names, values_of(value), strict=False))
        for name, encode_field in encoders.items():
            plain[name] = encode_field(plain[name])
        return plain

    return decode_fields, encode_fields
