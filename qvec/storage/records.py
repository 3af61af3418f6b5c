"""Values of records: a checksum of key and payload, then the payload as msgpack.

Payloads are plain data: None, bool, int of 64 bits, float, str, bytes, datetime, list, dict with str keys. Datetimes
are returned in UTC; a datetime without a time zone is taken to be in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgpack
import numpy as np

from qvec._kernels import Deadline, SnapshotBase, crc32c, plain_bytes
from qvec.common.errors import CorruptError, InputError
from qvec.storage import keys
from qvec.storage.lmdb_errors import Error, translate

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
_CRC_BYTES = 4
_HINTS: dict[type | tuple[type, ...], str] = {  # what to store instead; the first match applies
    np.generic: ": take its .item()",
    np.ndarray: ": take its .tolist()",
    datetime: ": make it a datetime.datetime",
    date: ": make it a datetime, or text in ISO 8601",
    (set, frozenset): ": make it a list",
    (bool, int, float, str, bytes, dict, list): ": make it one of its plain base class",
}
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


def pack(payload: object, name: str = "payload") -> bytes:
    """Encode a payload as msgpack. InputError names the field that is not plain data or is too large."""
    return next(pack_each((payload,), lambda _: name))


def pack_each(payloads: Iterable[object], name_of: Callable[[int], str]) -> Iterator[bytes]:
    """Encode payloads as :func:`pack` does. ``name_of``: what errors call the payload at a position."""
    packer = msgpack.Packer(use_bin_type=True, datetime=True, default=_in_utc)
    for i, payload in enumerate(payloads):
        if plain_bytes(payload, MAX_DEPTH) < 0:
            check_plain(payload, name_of(i))
        try:
            packed: bytes = packer.pack(payload)
        except (UnicodeEncodeError, TypeError):  # from text, and from an int that is too large
            check_plain(payload, name_of(i))
            raise
        if len(packed) > MAX_BYTES:
            raise InputError(f"{name_of(i)} takes {len(packed)} bytes, more than the {MAX_BYTES} of a record")
        yield packed


def unpack(packed: bytes | memoryview) -> Any:
    """Decode msgpack bytes. Raises ValueError unless they are one value of plain data."""
    try:
        return msgpack.unpackb(packed, raw=False, strict_map_key=True, ext_hook=_reject, timestamp=3)
    except (ValueError, OverflowError, msgpack.UnpackException) as error:
        raise ValueError(f"not plain msgpack data: {error or type(error).__name__}") from error


def fingerprint(value: object) -> bytes | None:
    """Return bytes that are equal only for equal plain data of equal types and order.

    None for data that is not plain.
    """
    try:
        packer = msgpack.Packer(use_bin_type=True, datetime=True, strict_types=True, default=_in_utc)
        return bytes(packer.pack(value))
    except (TypeError, ValueError, OverflowError):
        return None


def check_plain(value: object, name: str) -> None:
    """Raise InputError naming the field of ``name`` that is not plain data."""
    _check(value, name, 0)


def seal(key: bytes, payload: object, name: str = "payload") -> bytes:
    """Encode the value that stores ``payload`` under ``key``. Error messages call the payload ``name``."""
    return seal_bytes(key, pack(payload, name))


def unseal(key: bytes, value: bytes | memoryview) -> Any:
    """Decode the payload of a value that was sealed under ``key``. Raises CorruptError if the value is damaged."""
    packed = unseal_bytes(key, value)
    try:
        return unpack(packed)
    except ValueError as error:
        raise CorruptError(f"{keys.describe(key)} is {error}") from error


def read_all(snapshot: SnapshotBase, kind: int, numbers: Sequence[int], deadline: Deadline | None = None) -> list[Any]:
    """The payloads of records of one kind; None for one that does not exist, and for a negative number.

    CorruptError names a damaged record. A search reads the payloads of its hits by this one loop.
    """
    found: list[Any] = []
    get = snapshot.live().get
    try:
        for number in numbers if deadline is None else deadline.watch(numbers):
            key = keys.KEY.pack(keys.RECORD, kind, 0, number) if number >= 0 else b""
            value = get(key) if key else None
            if value is None:
                found.append(None)
                continue
            packed = value[_CRC_BYTES:]
            if crc32c(packed, crc32c(key)) != int.from_bytes(value[:_CRC_BYTES], "little") or len(packed) == 0:
                raise CorruptError(f"{keys.describe(key)} fails its checksum")
            try:
                found.append(msgpack.unpackb(packed, raw=False, strict_map_key=True, ext_hook=_reject, timestamp=3))
            except (ValueError, OverflowError, msgpack.UnpackException):
                found.append(unseal(key, value))  # raises the error that names the key
    except Error as error:
        raise translate(error, snapshot.env.path) from error
    return found


def seal_bytes(key: bytes, payload: bytes) -> bytes:
    """Encode the value that stores bytes under ``key``."""
    return crc32c(payload, crc32c(key)).to_bytes(_CRC_BYTES, "little") + payload


def unseal_bytes(key: bytes, value: bytes | memoryview) -> bytes | memoryview:
    """Decode the bytes of a value that was sealed under ``key``. Raises CorruptError if they are missing or damaged."""
    payload = value[_CRC_BYTES:]
    if len(payload) == 0 or crc32c(payload, crc32c(key)) != int.from_bytes(value[:_CRC_BYTES], "little"):
        raise CorruptError(f"{keys.describe(key)} fails its checksum")
    return payload


def checksum_of(value: bytes | memoryview) -> int:
    """The checksum at the start of a sealed value."""
    return int.from_bytes(value[:_CRC_BYTES], "little")


def _in_utc(value: object) -> datetime:
    """Convert a value that msgpack cannot encode. Only a datetime without a time zone can be converted."""
    if type(value) is datetime and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    raise TypeError(f"{type(value).__name__} is not plain data")


def _reject(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code} of {len(data)} bytes")


def _check(value: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InputError(f"{where} is nested deeper than {MAX_DEPTH} levels")
    kind = type(value)
    if kind is dict:
        _check_dict(value, where, depth)
    elif kind in (list, tuple):
        for i, item in enumerate(value):
            _check(item, f"{where}[{i}]", depth + 1)
    elif kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise InputError(f"{where} = {value} does not fit 64 bits")
    elif kind is str:
        _check_text(value, where)
    elif kind is datetime:
        _check_datetime(value, where)
    elif value is not None and kind not in (bytes, float, bool):
        hint = next((hint for base, hint in _HINTS.items() if isinstance(value, base)), "")
        raise InputError(f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be stored{hint}")


def _check_datetime(value: datetime, where: str) -> None:
    try:
        value.astimezone(UTC) if value.tzinfo else None
    except OverflowError:
        raise InputError(f"{where} = {value} is outside the years 1 to 9999 in UTC") from None


def _check_text(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} has a lone surrogate at {error.start}, which UTF-8 cannot hold") from error


def _check_dict(value: Any, where: str, depth: int) -> None:
    for name, item in value.items():
        if type(name) is not str:
            raise InputError(f"{where} has the key {name!r}, which is not a str")
        _check_text(name, where)
        _check(item, f"{where}[{name!r}]", depth + 1)
