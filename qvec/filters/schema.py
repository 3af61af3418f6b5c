"""Declared fields of payloads: their types, and the keys under which values of each type are indexed.

Ordered values (ints, floats, datetimes) have int keys from 1 to 2^64 - 1 in the same order; others have bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import FieldType
from qvec.schema.payloads import plain_text, to_plain
from qvec.schema.postings import PostingsState, TextOptions
from qvec.schema.state import FieldDeclaration, State
from qvec.text.analysis import MAX_TEXT_BYTES
from qvec.text.options import Sparse, Text
from qvec.text.sparse import sparse_vector

MAX_FIELDS = 256
MAX_NAME_BYTES = 255
MAX_KEYWORD_BYTES = 65_536
MAX_ITEMS = 4096  # limit of the items of one list
MAX_NUMBER = 65_535  # limit of a field's number; numbers are not reused, and have 16 bits in the keys of columns
MAX_INT = 2**63 - 1
MAX_KEY = 2**64 - 1

FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)
Key = int | bytes
Keys = tuple[Any, ...]
"""Distinct keys; of a text or sparse field, one value as the payload has it."""

ZERO = 1 << 63  # the key of the integer 0
_MICROSECOND, EPOCH = timedelta(microseconds=1), datetime(1970, 1, 1, tzinfo=UTC)
Schema = Mapping[str, "Field"]
Declared = FieldType | Text | Sparse


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field. ``number`` identifies the field in the file, and is never reused."""

    name: str
    number: int
    type: FieldType

    @property
    def kind(self) -> str:
        """The type of a value, or of the items of a list."""
        return self.type.removesuffix("[]")

    @property
    def many(self) -> bool:
        """Whether the value in a payload is a list."""
        return self.type.endswith("[]")

    @property
    def is_ordered(self) -> bool:
        return self.kind in ("int", "float", "datetime")

    @property
    def is_searched(self) -> bool:
        """Whether the field is text or sparse: its rows are in posting lists of terms."""
        return self.type in ("text", "sparse")

    @property
    def has_column(self) -> bool:
        """Whether the field has a value column, which is used for ranges."""
        return self.is_ordered and not self.many

    @property
    def has_postings(self) -> bool:
        """Whether the field has postings: bitmaps of the rows that have a value."""
        return self.many or self.kind in ("keyword", "bool", "int")

    def key(self, value: object, where: str) -> Key:
        """The key of one value. Raises InputError with the valid type; ``where`` names the value."""
        key: Key = _KEYS[self.kind](value, where)
        return key

    def keys(self, value: object, where: str) -> Keys | None:
        """The distinct keys of a payload's value. None: the payload has no value."""
        if value is None:
            return None
        if self.is_searched:
            return (_searched_value(self.type, value, where),)
        if not self.many:
            return (self.key(value, where),)
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} must be a list of {self.kind} values, got {shown(value)}")
        if len(value) > MAX_ITEMS:
            raise InputError(f"{where} has {len(value)} items; the limit is {MAX_ITEMS}")
        return tuple(dict.fromkeys(self.key(item, f"{where}[{i}]") for i, item in enumerate(value)))


def check_fields(fields: object) -> dict[str, FieldDeclaration]:
    """Check names and types as declared by the caller, and number them. Raises InputError naming the wrong one."""
    if not isinstance(fields, Mapping):
        raise InputError(f"fields must map names to types, got {type(fields).__name__}")
    if len(fields) > MAX_FIELDS:
        raise InputError(f"{len(fields)} fields; the limit is {MAX_FIELDS}")
    return {check_name(name): _declaration(i, name, kind) for i, (name, kind) in enumerate(fields.items())}


def _declaration(number: int, name: object, kind: object) -> FieldDeclaration:
    if isinstance(kind, Text) or kind == "text":
        return FieldDeclaration(number, "text", PostingsState((kind if isinstance(kind, Text) else Text()).options()))
    if isinstance(kind, Sparse) or kind == "sparse":
        return FieldDeclaration(
            number, "sparse", PostingsState((kind if isinstance(kind, Sparse) else Sparse()).options())
        )
    return FieldDeclaration(number, check_type(name, kind))


def declared_fields(fields: object) -> dict[str, Declared]:
    """Fields as the caller declared them, checked. Raises InputError naming the wrong one."""
    return {name: as_declared(field) for name, field in check_fields(fields).items()}


def to_plain_declared(kind: Declared) -> Any:
    """Plain data of a declaration: the name of a type, or a map of the options of a text or sparse field."""
    if isinstance(kind, str):
        return kind
    plain = {"kind": type(kind).__name__.lower(), **asdict(kind)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def from_plain_declared(plain: Any) -> Any:
    """The declaration that plain data stands for. Raises InputError for options that do not exist."""
    if not isinstance(plain, dict):
        return plain
    options = dict(plain)
    kind = options.pop("kind", None)
    try:
        return Text(**options) if kind == "text" else Sparse(**options) if kind == "sparse" else plain
    except TypeError as error:
        raise InputError(f"a declaration of a {kind} field has wrong options: {error}") from None


def as_declared(field: FieldDeclaration) -> Declared:
    """A declaration as the caller wrote it."""
    options = None if field.postings is None else field.postings.options
    if isinstance(options, TextOptions):
        numbers = options.k1, options.b
        return Text(options.analyzer, options.stemmer, options.stop_words, *numbers, options.positions)
    return field.type if options is None else Sparse(options.originals)


def check_name(name: object) -> str:
    """Check the name of a field."""
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise InputError(f"a field name must be a non-empty string that does not begin with '$'; got {shown(name)}")
    if len(name) > MAX_NAME_BYTES or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise InputError(f"the field name {shown(name)} is longer than {MAX_NAME_BYTES} bytes")
    return plain_text(name)


def check_type(name: object, kind: object) -> FieldType:
    """Check the type of a field."""
    if not isinstance(kind, str) or kind not in FIELD_TYPES:
        raise InputError(f"field {shown(name)}: the type must be one of {', '.join(FIELD_TYPES)}; got {shown(kind)}")
    return kind


def load_schema(state: State) -> dict[str, Field]:
    """The fields that a collection's state declares."""
    return {name: Field(name, declared.number, declared.type) for name, declared in state.fields.items()}


def searchable_fields(state: State) -> dict[str, Field]:
    """The declared fields whose indexes cover every row."""
    partial = state.partial_fields
    return {name: field for name, field in load_schema(state).items() if name not in partial}


def payload_keys(fields: Iterable[Field], payload: Mapping[str, Any] | None, where: str) -> list[Keys | None]:
    """The keys of each field in a payload. Raises InputError naming a value that is not of its field's type."""
    if payload is None:
        return [None for _ in fields]
    found: list[Keys | None] = []
    for field in fields:
        value = payload.get(field.name)
        if value is None:
            found.append(None)
        elif field.type == "text" and type(value) is str and value.isascii() and len(value) <= MAX_TEXT_BYTES:
            found.append((value,))  # what `keys` returns, in a tenth of the time
        else:
            found.append(field.keys(value, f"{where}[{field.name!r}]"))
    return found


def _searched_value(kind: str, value: Any, where: str) -> object:
    """The value of a text or sparse field. Raises InputError with the valid type and the limit."""
    if kind == "sparse":
        sparse_vector(value, where)
        return value
    if isinstance(value, str):
        return _limited_text(value, where)
    if not isinstance(value, list | tuple) or not all(isinstance(token, str) for token in value):
        raise _mismatch(value, where, "a string or a list of tokens")
    _limited_text(" ".join(value), where)
    if "\0" in "".join(value):
        raise InputError(f"{where} has a token with the character 0")
    return tuple(value)


def _limited_text(text: str, where: str) -> str:
    size = len(text)
    if size <= MAX_TEXT_BYTES and not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise InputError(f"{where} has a lone surrogate at {error.start}, which UTF-8 cannot hold") from None
    if size > MAX_TEXT_BYTES:
        raise InputError(f"{where} takes {size} bytes; the limit of a text is {MAX_TEXT_BYTES}")
    return text


def _keyword(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise _mismatch(value, where, "a string")
    if len(value) > MAX_KEYWORD_BYTES:
        raise InputError(f"{where} has {len(value)} characters; the limit of a keyword is {MAX_KEYWORD_BYTES} bytes")
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} has a lone surrogate at {error.start}, which UTF-8 cannot hold") from None
    if len(data) > MAX_KEYWORD_BYTES:
        raise InputError(f"{where} takes {len(data)} bytes; the limit of a keyword is {MAX_KEYWORD_BYTES}")
    return data


def _int(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise _mismatch(value, where, "an integer")
    if not -MAX_INT <= value <= MAX_INT:
        raise InputError(f"{where} is {shown(value)}: an integer must be from {-MAX_INT} to {MAX_INT}")
    return int(value) + ZERO


def _float(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise _mismatch(value, where, "a number")
    try:
        number = float(value) + 0.0  # -0.0 becomes 0.0
    except OverflowError:
        raise InputError(f"{where} is outside of the range of a float64") from None
    if number != number:
        raise InputError(f"{where} is NaN, which has no order")
    bits: int = struct.unpack("<Q", struct.pack("<d", number))[0]
    return bits ^ (ZERO if bits < ZERO else 2 * ZERO - 1)


def _bool(value: object, where: str) -> bytes:
    if not isinstance(value, bool | np.bool_):
        raise _mismatch(value, where, "True or False")
    return b"\x01" if value else b"\x00"


def _datetime(value: object, where: str) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InputError(f"{where} is {shown(value)}: it must be a datetime or an ISO 8601 string") from None
    if isinstance(value, np.datetime64) or hasattr(value, "to_pydatetime"):
        value = to_plain(value, where)  # refuses nanoseconds
    if not isinstance(value, datetime):
        raise _mismatch(value, where, "a datetime or an ISO 8601 string")
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return (moment - EPOCH) // _MICROSECOND + ZERO


_KEYS: dict[str, Callable[[object, str], Any]] = {
    "keyword": _keyword,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "datetime": _datetime,
}


def _mismatch(value: object, where: str, wanted: str) -> InputError:
    return InputError(f"{where} is {shown(value)} ({type(value).__name__}): it must be {wanted}")


def shown(value: object) -> str:
    """A value for an error message, shortened."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}..."
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    return repr(value) if isinstance(value, int | float | datetime | None) else type(value).__name__
