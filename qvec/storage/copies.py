"""Copies of a store's last commit without free pages: under another name, or in the place of the file itself."""

from __future__ import annotations

from qvec.common.errors import CorruptError
from qvec.storage import atomic_file
from qvec.storage.file_lock import FileLock
from qvec.storage.lmdb_errors import translated
from qvec.storage.snapshot import Snapshot
from qvec.storage.store import Store


def copy(snapshot: Snapshot, draft: str) -> None:
    """Write a durable copy of what a snapshot reads to ``draft``."""
    store = snapshot._store
    with translated(draft):
        store._env.lmdb.copy(draft, compact=True, txn=snapshot._live())
    # Pages have other numbers there: a commit, even an empty one, writes them into the directory. It flushes all.
    with Store.open(draft, verify=store._verify) as other, other.write():
        pass


def replace_by_copy(store: Store) -> None:
    """Put a checked copy in the place of the file; the caller keeps others from writing."""
    draft = store.path + atomic_file.COMPACTED
    atomic_file.discard(draft)
    try:
        with store.read() as snapshot:
            copy(snapshot, draft)
        _check(store, draft)
        lock = FileLock(draft)  # of the file, whatever its name: nobody else can take it in between
        try:
            store._env.replace(draft)
        except BaseException:
            lock.release()
            raise
        store._turn.move_to(lock)
    finally:
        atomic_file.discard(draft)


def _check(store: Store, draft: str) -> None:
    with Store.open(draft, "r") as other, other.read() as snapshot:
        for problem in snapshot.check():
            raise CorruptError(f"{store.path} cannot be copied: {problem}")
