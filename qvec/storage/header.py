"""The configuration record, written once when a file is created.

    "QVEC" | format version u32 | crc32c u32 | payload bytes u32 | msgpack payload | zeros to whole pages

The checksum covers the key, the version, the length and the payload. The value fills whole overflow pages, so its
address gives the address of the map (environment.Environment).
"""

from __future__ import annotations

import struct
from typing import Any

from qvec._kernels import crc32c
from qvec.common.errors import CorruptError, FormatError
from qvec.storage import keys, records
from qvec.storage.pages import PAGE_HEADER

FORMAT_VERSION = 2
DURABILITY = "durability"  # name in the configuration; absent: "full"
_MAGIC = b"QVEC"
_HEADER = struct.Struct("<4sIII")


def pack(config: dict[str, Any], psize: int) -> bytes:
    """Return the value of the configuration record for a file with pages of ``psize`` bytes."""
    payload = records.pack(config)
    header = _HEADER.pack(_MAGIC, FORMAT_VERSION, _checksum(FORMAT_VERSION, payload), len(payload))
    pages = -(-(len(header) + len(payload) + PAGE_HEADER) // psize)
    return (header + payload).ljust(pages * psize - PAGE_HEADER, b"\0")


def unpack(value: bytes | memoryview, path: str) -> dict[str, Any]:
    """Return the configuration. Raises FormatError for a foreign or newer file, CorruptError for a damaged one."""
    magic, version, crc, length = _HEADER.unpack(value[: _HEADER.size])
    if magic != _MAGIC:
        raise FormatError(f"{path} is an LMDB file, but not a qvec file")
    if version > FORMAT_VERSION:
        raise FormatError(f"{path} has format {version}; this version of qvec reads up to {FORMAT_VERSION}")
    payload = value[_HEADER.size : _HEADER.size + length]
    if len(payload) != length or length == 0 or _checksum(version, payload) != crc:
        raise CorruptError(f"{path}: the configuration fails its checksum")
    try:
        return dict(records.unpack(payload))
    except (TypeError, ValueError) as error:
        raise CorruptError(f"{path}: the configuration is unreadable: {error}") from error


def durability(value: bytes | memoryview, path: str) -> str:
    """Return the durability: "full" (commits are flushed) or "relaxed". Raises the same errors as `unpack`."""
    return str(unpack(value, path).get(DURABILITY, "full"))


def _checksum(version: int, payload: bytes | memoryview) -> int:
    return crc32c(payload, crc32c(keys.CONFIG + struct.pack("<II", version, len(payload))))
