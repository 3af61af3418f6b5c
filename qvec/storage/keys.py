"""The keys of the database (docs/format.md).

Most keys have eight bytes: type, column or kind of record, generation, number. The key of an entry consists of the
byte 5 and a name that the layer above chooses. The key of an id consists of the byte 255 and the bytes of the id. Ids
sort last, so ascending ids are appended to the tree.
"""

from __future__ import annotations

import struct

KEY = struct.Struct(">BBHI")

BLOCK = 1
CHUNK = 2
RECORD = 3
RECORD_KIND = bytes([RECORD])
META = 4
ENTRY = b"\x05"
ID = b"\xff"
MAX_ID_BYTES = 510
MAX_NAME_BYTES = 510


def block(column: int, generation: int, number: int) -> bytes:
    """Key of a column's block."""
    return KEY.pack(BLOCK, column, generation, number)


def chunk(column: int, generation: int, number: int) -> bytes:
    """Key of a chunk of a column's page table."""
    return KEY.pack(CHUNK, column, generation, number)


def record(kind: int, number: int) -> bytes:
    """Key of a record: ``kind`` below 256, ``number`` below 2^32."""
    return KEY.pack(RECORD, kind, 0, number)


CONFIG = KEY.pack(META, 0, 0, 0)
STATE = KEY.pack(META, 0, 0, 1)
RESERVE = KEY.pack(META, 0, 0, 2)


def describe(key: bytes) -> str:
    """A description of a key for messages."""
    if key == CONFIG:
        return "the configuration"
    if key == STATE:
        return "the state record"
    if key == RESERVE:
        return "the reserve for deletes"
    if key[:1] == ENTRY:
        return f"entry {key[1:].hex()}"
    if key[:1] == ID:
        return f"the row of the id {key[1:]!r}"
    if len(key) != KEY.size:
        return f"key {key.hex()}"
    kind, column, generation, number = KEY.unpack(key)
    noun = {BLOCK: "block", CHUNK: "page table chunk", RECORD: "record"}.get(kind, f"key of kind {kind},")
    return f"{noun} {number} of {'kind' if kind == RECORD else 'column'} {column}, generation {generation}"
