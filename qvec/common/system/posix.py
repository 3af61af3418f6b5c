"""The functions of :mod:`qvec.common.system` for Linux and macOS.

Locks of bytes belong to an open file description (fcntl(2), "open file description locks"). A POSIX record lock belongs
to the process: closing any descriptor of the file releases it, and two descriptors in one process do not exclude each
other. A lock of this module is released when its descriptor and all inherited copies are closed, and when the process
dies. It conflicts with the POSIX locks of all processes, including those of its own process. The locked bytes need not
exist in the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import stat
import struct
import sys
from collections.abc import Callable

assert sys.platform != "win32"

_READ, _WRITE, _UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
if sys.platform == "darwin":
    _FLOCK, _SET, _GET = struct.Struct("qqihh"), 90, 92
else:
    _FLOCK, _SET, _GET = struct.Struct("hhqqi4x"), 37, 36
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP)  # errors of file systems without hard links
_NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0)

# --- locks ---


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


def lock_file(fd: int) -> bool:
    """Lock a whole file without waiting; independent of locks of bytes. Returns False if it is locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock_file(fd: int) -> None:
    """Release the lock of a whole file."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def keep_lmdb_locks(fd: int) -> bool:
    """Take over the locks by which LMDB's lock file is in use. Returns False if LMDB has another file locked.

    LMDB has POSIX locks on two bytes: byte 0 (the lock file is in use) and the byte of the process id (the readers of
    the process are alive; mdb_reader_pid in mdb.c). The process loses both when it closes any descriptor of the file,
    so this call also takes shared locks on both bytes, which belong to ``fd``. LMDB's lock on the byte of the process
    id is exclusive and is converted to a shared one first.
    """
    pid = os.getpid()
    if find(fd, pid, pid + 1) != (pid, pid):
        return False
    fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, pid)
    return share(fd, pid) and share(fd, 0)


def release_lmdb_locks(fd: int) -> None:
    """Unlock the byte of the process id, before LMDB is opened again."""
    unlock(fd, os.getpid())


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


# --- maps ---


def has_address_space(size: int) -> bool:
    """Whether the process could map ``size`` more bytes."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=0).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True


# --- durable flushes ---


def flush_file(fd: int) -> None:
    """Make the contents of a file durable. macOS's fsync leaves them in the cache of the drive (fsync(2) there)."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):  # not every file system of macOS has it
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def flush_directory(directory: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory or ".", os.O_RDONLY)
    try:
        flush_file(fd)
    finally:
        os.close(fd)


# --- replacement of files ---


def replace(draft: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Rename a file, in one step, also if there is one at ``path``. Processes keep the one that they have open."""
    os.replace(draft, path)


def rename_new(draft: str, path: str) -> None:
    """Give a file a name. Raises FileExistsError if there is one, where the file system has hard links.

    With them, the draft keeps its own name, too.
    """
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(draft, path)


def move_aside(path: str, aside: str) -> None:
    """Give a file that is about to be replaced another name, which it keeps. Nothing is at ``aside`` before.

    Where the file system has no hard links, there is no file at ``path`` afterwards.
    """
    try:
        os.link(path, aside)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(path, aside)


# --- others ---


def open_file(path: str | os.PathLike[str], *, write: bool = False, create: bool = False) -> int:
    """Open a file and return its descriptor, which child processes that execute a program do not inherit."""
    return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT if create else 0) | os.O_CLOEXEC, 0o666)


def read_at(fd: int, n: int, offset: int) -> bytes:
    """Read ``n`` bytes from an offset of a file, fewer at its end."""
    return os.pread(fd, n, offset)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write bytes at an offset of a file; the number that was written."""
    return os.pwrite(fd, data, offset)


def reserve_space(fd: int, size: int) -> None:
    """Lengthen an empty file to ``size`` bytes and take their space on the disk. Raises OSError if it is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    zeros = bytes(1 << 20)  # macOS
    for start in range(0, size, len(zeros)):
        os.pwrite(fd, zeros[: size - start], start)


def path_of(fd: int) -> str:
    """A path that refers to an open file, even after the file was renamed or removed."""
    return f"/proc/self/fd/{fd}" if os.path.isdir("/proc/self/fd") else f"/dev/fd/{fd}"


def users_of(fd: int) -> list[int]:
    """The other processes that have the file of a descriptor open, as far as they can be found."""
    status, found = os.fstat(fd), []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError):
            for other in os.listdir(f"/proc/{pid}/fd"):
                held = os.stat(f"/proc/{pid}/fd/{other}")
                if stat.S_ISREG(held.st_mode) and os.path.samestat(held, status) and int(pid) != os.getpid():
                    found.append(int(pid))
                    break
    return sorted(found)


def free_bytes(directory: str) -> int:
    """Bytes that this user may still write to the disk of a directory."""
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


def file_size_limit() -> int | None:
    """The largest size of a file that this process may write, in bytes. None: no limit."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def after_fork(call: Callable[[], object]) -> None:
    """Call a function in each forked child, before anything else there."""
    os.register_at_fork(after_in_child=call)
