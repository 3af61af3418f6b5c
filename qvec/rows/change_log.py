"""The ids that change while a collection for another embedding model exists (docs/adr/0033-reembedding.md).

Each writing call adds a record with the keys of the ids that it has stored, changed or deleted. The records have
consecutive numbers, so that a reader knows which ones are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qvec.common.errors import CorruptError
from qvec.schema.layout import CHANGES
from qvec.schema.state import Reembedding, State
from qvec.storage.store import Snapshot, Transaction

RECORD_KEYS = 65_536  # of one record: 64 MiB is the limit of a record, and 510 bytes that of a key


def log_changes(txn: Transaction, keys: Sequence[bytes]) -> None:
    """Record that ids have changed, if a collection for another embedding model needs to know."""
    state: State = txn.state
    if state.reembedding is None:
        return
    number = state.reembedding.next_change
    for start in range(0, len(keys), RECORD_KEYS):
        txn.put_record(CHANGES, number, list(keys[start : start + RECORD_KEYS]))
        number += 1
    txn.state = replace(txn.state, reembedding=replace(state.reembedding, next_change=number))


def changed_keys(reading: Snapshot, pending: Reembedding) -> list[bytes]:
    """Return the keys of the ids that have changed, each once. Raises CorruptError."""
    keys: dict[bytes, None] = {}
    for number in range(pending.first_change, pending.next_change):
        record = reading.record(CHANGES, number)
        if not isinstance(record, list) or not all(isinstance(key, bytes) for key in record):
            raise CorruptError(f"record {number} of changed ids is lost, or is no list of keys")
        keys.update(dict.fromkeys(record))
    return list(keys)


def forget_changes(txn: Transaction, stop: int) -> None:
    """Delete the records below a number."""
    pending: Reembedding = txn.state.reembedding
    for number in range(pending.first_change, stop):
        txn.delete_record(CHANGES, number)
    txn.state = replace(txn.state, reembedding=replace(pending, first_change=max(stop, pending.first_change)))
