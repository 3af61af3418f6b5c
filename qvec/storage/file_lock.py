"""The write lock of a file: a lock on a byte of the data file, through a descriptor of its own."""

from __future__ import annotations

import errno
import os

from qvec.common.errors import LockedError, ReadOnlyError
from qvec.storage import byte_locks

_BYTE = 1 << 42
_held: set[FileLock] = set()


class FileLock:
    """A lock that is held from construction to `release`. The system releases it when the process dies."""

    def __init__(self, path: str) -> None:
        """Lock a file. Raises LockedError if another handle has the lock, ReadOnlyError if the file is not writable."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError as error:
            raise ReadOnlyError(f"{path} may not be written; open it with mode='r'") from error
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            raise ReadOnlyError(f"{path} is on a read-only file system; open it with mode='r'") from error
        if not byte_locks.exclude(self._fd, _BYTE):
            os.close(self._fd)
            raise LockedError(f"{path} is open for writing elsewhere (another handle or process)")

        _held.add(self)

    @property
    def held(self) -> bool:
        """Whether this process has the lock. A forked child of the process that locked the file does not."""
        return self in _held

    def release(self) -> None:
        """Unlock, even if a forked child still has the descriptor. Unlocking twice has no effect."""
        if self in _held:
            _held.remove(self)
            byte_locks.unlock(self._fd, _BYTE)
            os.close(self._fd)


def _after_fork() -> None:
    """In a forked child: close the descriptors only, because the locks belong to the parent."""
    for lock in _held:
        os.close(lock._fd)
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)
