"""Files of stores as a whole."""

from __future__ import annotations

import os

from qvec.storage import atomic_file
from qvec.storage.file_lock import FileLock


def remove(path: str) -> None:
    """Remove a store's file and its lock file, durably; LockedError while it is open for writing."""
    lock = FileLock(path)
    try:
        atomic_file.discard(path + atomic_file.COMPACTED)
        os.unlink(path)
        atomic_file.flush_directory(os.path.dirname(os.path.abspath(path)))
        atomic_file.discard(path)
    finally:
        lock.release()
