"""Changes of keys in LMDB's transaction. A write transaction repeats them if it has to begin again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qvec._kernels import Column
from qvec.common.errors import DuplicateIdError, QvecError
from qvec.storage import keys
from qvec.storage.id_pairs import IdPairs
from qvec.storage.record_sums import KINDS, RecordSums
from qvec.storage.snapshot import row_number


def append_ids(txn: Any, pairs: IdPairs, sums: RecordSums) -> None:
    """Put ids and their rows. The ids ascend and are greater than all stored ids."""
    for part, total in pairs.parts():
        with txn.cursor() as cursor:
            _, added = cursor.putmulti(part, dupdata=False, overwrite=False, append=True)
        if added != len(part):
            raise QvecError(f"{added} of {len(part)} ids were put")
        sums.add_all(part, total)


def put_ids(txn: Any, pairs: IdPairs, sums: RecordSums) -> None:
    """Put ids and their rows. If an id exists, delete the ids that this call has put, and raise DuplicateIdError."""
    i = 0
    for part, _ in pairs.parts():
        for key, value in part:
            if not txn.put(key, value, overwrite=False):
                _undo(txn, key, [name for name, _ in pairs.part(0, i)[0]], i)
            i += 1
    for part, total in pairs.parts():
        sums.add_all(part, total)


def _undo(txn: Any, key: bytes, before: list[bytes], position: int) -> None:
    """Delete the ids that were put before a key that exists. Raises DuplicateIdError."""
    row = row_number(key, txn.get(key))
    for name in before:
        txn.delete(name)
    if key in before:
        raise DuplicateIdError(f"id {position} ({key[1:]!r}) repeats id {before.index(key)} of the batch")
    raise DuplicateIdError(f"id {position} ({key[1:]!r}) is already stored, as row {row}")


def put_or_delete(txn: Any, pairs: Sequence[tuple[bytes, bytes | None]], sums: RecordSums) -> None:
    """Put values, and delete the keys whose value is None."""
    for key, value in pairs:
        if value is None:
            sums.delete(txn, key)
        else:
            sums.put(txn, key, value)


def delete_range(txn: Any, start: bytes, end: bytes, sums: RecordSums) -> None:
    """Delete the keys from ``start`` to ``end``, both included."""
    with txn.cursor() as cursor:
        found = cursor.set_range(start)
        while found and (key := bytes(cursor.key())) <= end:
            sums.subtract(key, cursor.value())
            found = cursor.delete()  # moves to the next


def put_again(txn: Any, first: bytes, stop: bytes | None) -> None:
    """Delete the keys from ``first`` to below ``stop`` (None: to the end), and put them again."""
    pairs = []
    with txn.cursor() as cursor:
        found = cursor.set_range(first)
        while found and (stop is None or bytes(cursor.key()) < stop):
            pairs.append((bytes(cursor.key()), bytes(cursor.value())))
            found = cursor.next()
    for key, _ in pairs:
        txn.delete(key)
    for key, value in pairs:
        txn.put(key, value)


def clear(txn: Any, name: str, sums: RecordSums) -> None:
    """Delete all "entries" or "ids"."""
    with txn.cursor() as cursor:
        found = cursor.set_range(KINDS[name])
        while found and bytes(cursor.key()[:1]) == KINDS[name]:
            found = cursor.delete()
    sums.totals[name] = [0, 0]


def delete_blocks(txn: Any, column: Column, start: int, stop: int, per_chunk: int) -> None:
    """Delete the blocks start..stop, and the chunks of the page table that describe no other blocks."""
    for block in range(start, stop):
        txn.delete(keys.block(column.id, column.generation, block))
    for chunk in range(-(-start // per_chunk), -(-stop // per_chunk)):
        txn.delete(keys.chunk(column.id, column.generation, chunk))
