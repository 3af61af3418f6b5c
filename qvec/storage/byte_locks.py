"""Locks on single bytes of a file that belong to an open file description (fcntl(2), "open file description locks").

A POSIX record lock belongs to the process: closing any descriptor of the file releases it, and two descriptors in one
process do not exclude each other. A lock of this module is released when its descriptor and all inherited copies are
closed, and when the process dies. It conflicts with the POSIX locks of all processes, including those of its own
process. The locked bytes need not exist in the file.
"""

from __future__ import annotations

import errno
import fcntl
import struct
import sys

_READ, _WRITE, _UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
if sys.platform == "darwin":
    _FLOCK, _SET, _GET = struct.Struct("qqihh"), 90, 92
else:
    _FLOCK, _SET, _GET = struct.Struct("hhqqi4x"), 37, 36


def _pack(kind: int, start: int, length: int) -> bytes:
    if sys.platform == "darwin":
        return _FLOCK.pack(start, length, 0, kind, 0)
    return _FLOCK.pack(kind, 0, start, length, 0)


def _set(fd: int, kind: int, start: int, length: int) -> bool:
    try:
        fcntl.fcntl(fd, _SET, _pack(kind, start, length))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def share(fd: int, start: int, length: int = 1) -> bool:
    """Take a shared lock, or convert the descriptor's own lock to one. Returns False if another lock is exclusive."""
    return _set(fd, _READ, start, length)


def exclude(fd: int, start: int, length: int = 1) -> bool:
    """Take an exclusive lock on a descriptor that is open for writing. Returns False if there is another lock."""
    return _set(fd, _WRITE, start, length)


def unlock(fd: int, start: int, length: int = 1) -> None:
    """Release the descriptor's own locks on some bytes, if there are any."""
    _set(fd, _UNLOCK, start, length)


def find(fd: int, start: int, stop: int) -> tuple[int, int] | None:
    """Find a lock on any of the bytes ``start`` to ``stop`` - 1, ignoring locks of the descriptor itself.

    Returns the lock's first byte and its owner, or None. The owner is a process id for a POSIX lock, -1 for others.
    """
    if start >= stop:
        return None
    found = fcntl.fcntl(fd, _GET, _pack(_WRITE, start, stop - start))
    if sys.platform == "darwin":
        first, _, owner, kind, _ = _FLOCK.unpack(found)
    else:
        kind, _, first, _, owner = _FLOCK.unpack(found)
    return None if kind == _UNLOCK else (first, owner)
