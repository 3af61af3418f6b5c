"""The reserve: space inside the file with which deletes succeed on a full disk.

LMDB writes new pages before it frees the pages that they replace, so even a delete needs free pages, and a file that
fills the disk may have none. The reserve is one value of zeros. A delete that runs out of space frees it, and the next
commit that adds data puts it again.
"""

from __future__ import annotations

from typing import Any

from qvec.storage import keys

SHARE = 16  # the reserve is a 16th of the stored bytes, rounded down to a power of two so that it is rarely rewritten
SHRINK_FACTOR = 4  # a reserve more than this many times too large is replaced, because a compacted copy contains it
MIN_BYTES, MAX_BYTES = 1 << 17, 1 << 26  # a delete of one vector changes up to half of the minimum
SMALLEST = 1 << 20  # stored bytes from which on a file has a reserve


def size_for(stored: int) -> int:
    """Bytes to reserve in a file with ``stored`` bytes."""
    share = 1 << max(0, (stored // SHARE).bit_length() - 1)
    return 0 if stored < SMALLEST else min(max(MIN_BYTES, share), MAX_BYTES)


def put(txn: Any, stored: int) -> None:
    """Put the reserve of a file with ``stored`` bytes, the reserve included, unless its size is about right."""
    present = len(txn.get(keys.RESERVE, b""))
    wanted = size_for(stored - present)
    if present > SHRINK_FACTOR * wanted:
        txn.delete(keys.RESERVE)
        present = 0
    if present < wanted:
        txn.put(keys.RESERVE, bytes(wanted))
