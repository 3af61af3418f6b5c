"""Copy a store's last commit without free pages, to a new file or in place of the store's own file."""

from __future__ import annotations

import os

from qvec.common.errors import CorruptError
from qvec.storage import atomic_file
from qvec.storage.lmdb_errors import translated
from qvec.storage.store import Store

COPIES = 3  # made while other threads write, before one that they wait for


def copy_to(store: Store, path: str | os.PathLike[str]) -> None:
    """Write the commit that ``store`` reads to a new file. Raises ExistsError if the file exists."""

    def fill(draft: str) -> None:
        _copy(store, draft)

    atomic_file.make(atomic_file.real_path(path), fill)


def compact(store: Store) -> int:
    """Write a copy without free pages, check it, make it durable, and then replace the file with it.

    Returns the number of bytes by which the file has shrunk.

    Other threads continue to read and write, and wait only for the replacement itself. If they commit during each of
    several copies, one more copy is made while writers wait. Raises LockedError if another process has the file open
    for longer than the handle's timeout, or if snapshots of this process stay open.
    """
    draft = store.path + atomic_file.COMPACTED
    with store.job("compacts"):
        before = os.fstat(store.env.pair.data_fd).st_size
        store.env.pair.check_named(store.path)
        store.env.pair.wait_for_others(store.timeout, "has it open", store.env.pair.is_only_user)
        try:
            if not any(_replaced(store, draft) for _ in range(COPIES)):
                with store.exclusive("compacts"):
                    _make(store, draft)
                    store.env.replace(draft, store.path)
        finally:
            atomic_file.discard(draft)
        return before - os.fstat(store.env.pair.data_fd).st_size


def _replaced(store: Store, draft: str) -> bool:
    """Copy the last commit, and replace the file with the copy if there is no newer commit. Returns whether it did."""
    commit = _make(store, draft)
    with store.exclusive("compacts"):
        if store.env.lmdb.info()["last_txnid"] != commit:
            return False
        store.env.replace(draft, store.path)
        return True


def _make(store: Store, draft: str) -> int:
    """Make a complete, checked and durable copy of the last commit. Returns the number of this commit."""
    atomic_file.discard(draft)
    commit = _copy(store, draft)
    _check(store, draft)
    return commit


def _copy(store: Store, draft: str) -> int:
    with store.read() as snapshot, translated(draft):
        store.env.lmdb.copy(draft, compact=True, txn=snapshot.live())
        commit = snapshot.txn_id
    # The copy's pages have other numbers. A commit, even an empty one, updates the page table and flushes everything.
    with Store.open(draft, checksums=store._checksums) as other:
        with other.write():
            pass
        other.env.lmdb.sync(True)  # a relaxed store leaves it to the system
    return commit


def _check(store: Store, draft: str) -> None:
    with Store.open(draft, "r") as other, other.read() as snapshot:
        for problem in snapshot.check():
            raise CorruptError(f"{store.path} cannot be copied: {problem}")
