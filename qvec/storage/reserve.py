"""Room inside the file that only deletes may use, so that they work where the disk has none left.

LMDB writes new pages before it gives up those that they replace, so even a delete needs some, and a file that was
filled to the last page has none. A value of zeros holds as many as are kept for that. It is given up when a delete
finds no room; commits that add have to make it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qvec.common.errors import DiskFullError
from qvec.storage import keys

if TYPE_CHECKING:
    from qvec.storage.store import Store

SHARE = 16  # of what is stored, rounded down to a power of two: seldom written anew
TOO_MUCH = 4  # times that: given back, for a compact copy holds it too
LEAST, MOST = 1 << 17, 1 << 26  # bytes: a delete of one vector changes up to half of the least
SMALLEST = 1 << 20  # stored where any is kept


def size_for(stored: int) -> int:
    """Bytes to keep beside so many."""
    share = 1 << max(0, (stored // SHARE).bit_length() - 1)
    return 0 if stored < SMALLEST else min(max(LEAST, share), MOST)


def keep(txn: Any, used: int) -> None:
    """Put what is to be kept where ``used`` bytes are in use, unless about as much is there."""
    held = len(txn.get(keys.RESERVE, b""))
    wanted = size_for(used - held)
    if held > TOO_MUCH * wanted:
        txn.delete(keys.RESERVE)
        held = 0
    if held < wanted:
        txn.put(keys.RESERVE, bytes(wanted))


@contextlib.contextmanager
def heeding(store: Store) -> Iterator[None]:
    """Where the disk is full inside the ``with`` block, see to it that another attempt may use all that is free."""
    try:
        yield
    except DiskFullError:
        store.is_full = True
        turn_over(store)
        raise


def make_room(store: Store) -> None:
    """Let the next commit use what is kept for deletes."""
    with store.write(frees=True) as txn:
        txn.give_up_reserve()
    turn_over(store)


def turn_over(store: Store) -> None:
    """Make a commit of nothing, if that has room: LMDB uses what a commit frees from the next but one on."""
    with contextlib.suppress(DiskFullError):
        txn = store.begin_write()
        txn.frees = True
        txn.commit()
