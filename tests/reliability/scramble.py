"""R7: random bytes and numbers in rows of columns, postings, bitmaps, ids and records, with valid checksums."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from crafted_fields import WRONG, changed, places
from crafted_files import Case, N, records_of

from qvec.schema.layout import LENGTHS, POSTINGS, ROW, SEGMENT_ROWS
from qvec.storage.store import Transaction


def random_case(collection: str, chance: random.Random) -> Case:
    return Case(collection, "bytes", chance.randrange(2**62))


def scramble(txn: Transaction, case: Case) -> str:
    """Damage one to three random parts; returns a description."""
    chance = random.Random(case.place)
    return ", ".join(chance.choice(SCRAMBLES)(txn, chance) for _ in range(chance.randint(1, 3)))


def _numbers(chance: random.Random, size: int) -> bytes:
    """Bytes of numbers near the limits of valid references."""
    few = (0, 1, 2, N - 1, N, N + 1, 31, 32, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2, 0x7F800000, 0xFFC00000, 0x7F7FFFFF)
    parts = [chance.choice(few) if chance.random() < 0.8 else chance.getrandbits(32) for _ in range(size // 4 + 1)]
    return b"".join(part.to_bytes(4, "little") for part in parts)[:size]


def scramble_column(txn: Transaction, chance: random.Random) -> str:
    name = chance.choice(sorted(n for n, column in txn.columns.items() if column.n_rows))
    column = txn.columns[name]
    for _ in range(chance.choice((1, 1, 4, 30))):
        row = chance.randrange(min(column.n_rows, N + 40))
        content = bytearray(column.read_range(row, row + 1).tobytes())
        at = 4 * chance.randrange(len(content) // 4) if len(content) > 4 else 0
        size = min(chance.choice((1, 4, 4, 16, len(content))), len(content) - at)
        content[at : at + size] = _numbers(chance, size)
        column.write(row, np.frombuffer(bytes(content), np.uint8)[None])
    return f"rows of {name}"


def scramble_postings(txn: Transaction, chance: random.Random) -> str:
    """Random bytes in the segments of text and sparse fields, their bitmaps and the lengths of texts."""
    names = [name for name in txn.columns if name.split(" ")[0] in (POSTINGS, SEGMENT_ROWS, LENGTHS)]
    if not names:
        return "no postings"
    name = chance.choice(sorted(names))
    column = txn.columns[name]
    for _ in range(chance.choice((1, 1, 2, 10))):
        row = chance.randrange(column.n_rows)
        content = bytearray(column.read_range(row, row + 1).tobytes())
        at, size = chance.randrange(len(content)), chance.choice((1, 1, 2, 4, 8))
        new = chance.randbytes(size) if chance.random() < 0.5 else _numbers(chance, size)
        content[at : at + size] = new[: len(content) - at]
        column.write(row, np.frombuffer(bytes(content), np.uint8)[None])
    return f"bytes of {name}"


def scramble_size(txn: Transaction, chance: random.Random) -> str:
    name = chance.choice(sorted(txn.columns))
    column = txn.columns[name]
    column.resize(chance.choice((0, 1, column.n_rows // 2, column.n_rows + 100)))
    return f"size of {name}"


def scramble_entry(txn: Transaction, chance: random.Random) -> str:
    entries = [(name, bytes(value)) for name, value in txn.entries(b"\0", b"\xff" * 400)]
    if not entries:
        return "no entry"
    name, value = chance.choice(entries)
    name, other = (name, value) if chance.random() < 0.8 else (name[:-1] + bytes([chance.randrange(256)]), value)
    txn.put_entries([(name, mutated(other, chance) or b"\0")])
    return f"entry {name.hex()}"


def scramble_id(txn: Transaction, chance: random.Random) -> str:
    keys = [key for key, _ in txn.iter_ids()][:50]
    if not keys:
        return "no id"
    key, row = chance.choice(keys), chance.choice((0, N - 1, N, N + 500, 2**31 - 1, 34))
    txn.delete_ids([key])
    txn.put_ids([key if chance.random() < 0.7 else mutated(key, chance)[:500] or b"\0"], [row])
    return f"id {key!r}"


def scramble_record(txn: Transaction, chance: random.Random) -> str:
    keys = records_of(txn)
    what = chance.choice(sorted(keys))
    key = keys[what] if what != "row" else (ROW, chance.randrange(N))
    content = txn.record(*key)
    if content is None:
        return f"no {what}"
    txn.put_record(*key, changed(content, chance.choice(list(places(content))), chance.choice(WRONG)))
    return what


SCRAMBLES: list[Callable[[Transaction, random.Random], str]] = [
    scramble_column, scramble_column, scramble_column, scramble_postings, scramble_postings, scramble_size,
    scramble_entry, scramble_id, scramble_record,
]  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes with a few changes."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(out) + 1)
        step = chance.randrange(4)
        if step == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif step == 1:
            out[at : at + chance.randint(0, 8)] = chance.randbytes(chance.randint(0, 8))
        elif step == 2 and at < len(out):
            out[at] = chance.choice((0, 255, 0x7F, 0x80, 0xDD, 0xDF, 0xC9))
        else:
            out[at:] = out[at : at + chance.randrange(len(out) + 1)]
    return bytes(out)
