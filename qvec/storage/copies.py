"""Copy a store's last commit without free pages, to a new file or in place of the store's own file."""

from __future__ import annotations

import os

from qvec.common.errors import CorruptError
from qvec.storage import atomic_file
from qvec.storage.lmdb_errors import translated
from qvec.storage.store import Store


def copy_to(store: Store, path: str | os.PathLike[str]) -> None:
    """Write the commit that ``store`` reads to a new file. Raises ExistsError if the file exists."""
    atomic_file.make(atomic_file.real_path(path), lambda draft: _copy(store, draft))


def compact(store: Store) -> int:
    """Write a copy without free pages, check it, make it durable, and then replace the file with it.

    Returns the number of bytes by which the file has shrunk.

    Readers in other threads wait only for the replacement itself. Writers wait for the whole call. Raises LockedError
    if another process has the file open, or if snapshots of this process stay open.
    """
    draft = store.path + atomic_file.COMPACTED
    env = store.env
    with store.exclusive("compacts"):
        before = os.fstat(env.pair.data_fd).st_size
        atomic_file.discard(draft)
        try:
            _copy(store, draft)
            _check(store, draft)
            env.replace(draft, store.path)
            return before - os.fstat(env.pair.data_fd).st_size
        finally:
            atomic_file.discard(draft)


def _copy(store: Store, draft: str) -> None:
    with store.read() as snapshot, translated(draft):
        store.env.lmdb.copy(draft, compact=True, txn=snapshot.live())
    # The copy's pages have other numbers. A commit, even an empty one, updates the page table and flushes everything.
    with Store.open(draft, checksums=store._checksums) as other:
        with other.write():
            pass
        other.env.lmdb.sync(True)  # a relaxed store leaves it to the system


def _check(store: Store, draft: str) -> None:
    with Store.open(draft, "r") as other, other.read() as snapshot:
        for problem in snapshot.check():
            raise CorruptError(f"{store.path} cannot be copied: {problem}")
