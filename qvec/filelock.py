"""The write lock of a file: flock on the data file, through a descriptor of its own.

LMDB's lock file is left alone: its fcntl locks are lost as soon as the process closes any descriptor of it.
"""

from __future__ import annotations

import errno
import fcntl
import os

from qvec.errors import LockedError, ReadOnlyError


class FileLock:
    """Held from construction to `release`; the system gives it back when the process dies."""

    def __init__(self, path: str) -> None:
        """Take the lock; LockedError: another handle has it; ReadOnlyError: the file may not be written."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError as error:
            raise ReadOnlyError(f"{path} may not be written; open it with mode='r'") from error
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            raise ReadOnlyError(f"{path} is on a read-only file system; open it with mode='r'") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.abandon()
            raise LockedError(f"{path} is open for writing elsewhere (another handle or process)") from error

    def __del__(self) -> None:
        """A handle that was dropped without being closed must not keep the file locked."""
        if getattr(self, "_fd", -1) >= 0:
            self.abandon()

    def release(self) -> None:
        """Unlock, also where a forked child still has the descriptor."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.abandon()

    def abandon(self) -> None:
        """Close the descriptor only: in a forked child, the lock is the parent's."""
        os.close(self._fd)
        self._fd = -1
