"""Files of stores as a whole."""

from __future__ import annotations

import os

from qvec.storage import newfile
from qvec.storage.filelock import FileLock


def remove(path: str) -> None:
    """Remove a store's file and its lock file, durably; LockedError while it is open for writing."""
    lock = FileLock(path)
    try:
        newfile.discard(path + newfile.COMPACTED)
        os.unlink(path)
        newfile.flush_directory(os.path.dirname(os.path.abspath(path)))
        newfile.discard(path)
    finally:
        lock.release()
