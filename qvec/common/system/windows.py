"""The functions of :mod:`qvec.common.system` for Windows. qvec does not run there yet: see docs/reliability.md.

LockFileEx has no question "who has locked a byte of this range": :func:`find` tries to lock parts of it. Two processes
that ask at the same time may see each other, so locks that look taken are tried again after a millisecond.
"""

from __future__ import annotations

import ctypes
import errno
import msvcrt
import os
import sys
import time
from collections.abc import Callable
from ctypes import wintypes

assert sys.platform == "win32"

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_FAIL_AT_ONCE, _EXCLUSIVE = 1, 2  # flags of LockFileEx
_LOCKED, _NOT_LOCKED = 33, 158  # error codes: a lock of another, no lock of one's own
_REPLACE, _WRITE_THROUGH = 1, 8  # flags of MoveFileExW
_READ_ACCESS, _WRITE_ACCESS = 0x80000000, 0x40000000
_SHARE_ALL = 7  # others may read, write, rename and delete the file
_OPEN_EXISTING, _OPEN_ALWAYS = 3, 4
_RESERVE, _NO_ACCESS, _RELEASE = 0x2000, 1, 0x8000  # of VirtualAlloc and VirtualFree
_WHOLE_FILE = (1 << 63) - 2  # the byte that stands for a whole file
_ATTEMPTS, _PAUSE = 3, 1e-3
_held: dict[int, dict[tuple[int, int], bool]] = {}  # by handle: ranges that are locked, and whether exclusively


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


_kernel.LockFileEx.argtypes = (
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(_Overlapped),
)
_kernel.UnlockFileEx.argtypes = (
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(_Overlapped),
)
_kernel.CreateFileW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_kernel.CreateFileW.restype = wintypes.HANDLE
_kernel.MoveFileExW.argtypes = wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD
_kernel.GetFinalPathNameByHandleW.argtypes = wintypes.HANDLE, wintypes.LPWSTR, wintypes.DWORD, wintypes.DWORD
_kernel.GetDiskFreeSpaceExW.argtypes = wintypes.LPCWSTR, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
_kernel.VirtualAlloc.argtypes = ctypes.c_void_p, ctypes.c_size_t, wintypes.DWORD, wintypes.DWORD
_kernel.VirtualAlloc.restype = ctypes.c_void_p
_kernel.VirtualFree.argtypes = ctypes.c_void_p, ctypes.c_size_t, wintypes.DWORD

# --- locks ---


def share(fd: int, start: int, length: int = 1) -> bool:
    """Take a shared lock, or convert the descriptor's own lock to one. Returns False if another lock is exclusive."""
    return _convert(_handle(fd), start, length, False)


def exclude(fd: int, start: int, length: int = 1) -> bool:
    """Take an exclusive lock on a descriptor that is open for writing. Returns False if there is another lock."""
    return _convert(_handle(fd), start, length, True)


def unlock(fd: int, start: int, length: int = 1) -> None:
    """Release the descriptor's own locks on some bytes, if there are any. Each was taken as a whole."""
    handle = _handle(fd)
    own = _held.get(handle, {})
    for first, count in [part for part in own if start <= part[0] < start + length]:
        _unlock(handle, first, count)


def find(fd: int, start: int, stop: int) -> tuple[int, int] | None:
    """Find a lock on any of the bytes ``start`` to ``stop`` - 1, ignoring locks of the descriptor itself.

    Returns the first locked byte and -1, or None: Windows does not tell the owner. To learn whether others share a lock
    of the descriptor, the call releases it for a moment; it raises BlockingIOError if the lock is lost by that.
    """
    handle = _handle(fd)
    own = sorted(part for part in _held.get(handle, {}) if part[0] < stop and sum(part) > start)
    for first, count in [*own, (stop, 0)]:
        found = _first_locked(handle, start, first)
        if found is not None:
            return found, -1
        if count and _is_shared(handle, first, count):
            return first, -1
        start = first + count
    return None


def lock_file(fd: int) -> bool:
    """Lock a whole file without waiting; independent of locks of bytes. Returns False if it is locked."""
    return exclude(fd, _WHOLE_FILE)


def unlock_file(fd: int) -> None:
    """Release the lock of a whole file."""
    unlock(fd, _WHOLE_FILE)


def keep_lmdb_locks(fd: int) -> bool:
    """Share LMDB's lock on byte 0. On Windows, locks belong to handles, and LMDB asks the system whether a process of a
    reader is alive: there is no lock to take over."""
    return share(fd, 0)


def release_lmdb_locks(fd: int) -> None:
    """Do nothing: see :func:`keep_lmdb_locks`."""


def _handle(fd: int) -> int:
    return msvcrt.get_osfhandle(fd)


def _lock(handle: int, start: int, length: int, exclusive: bool) -> bool:
    place = _Overlapped(offset=start & 0xFFFFFFFF, offset_high=start >> 32)
    flags = _FAIL_AT_ONCE | (_EXCLUSIVE if exclusive else 0)
    if _kernel.LockFileEx(handle, flags, 0, length & 0xFFFFFFFF, length >> 32, ctypes.byref(place)):
        return True
    if ctypes.get_last_error() == _LOCKED:
        return False
    raise ctypes.WinError(ctypes.get_last_error())


def _unlock(handle: int, start: int, length: int) -> None:
    _held.get(handle, {}).pop((start, length), None)
    _release(handle, start, length)


def _release(handle: int, start: int, length: int) -> None:
    place = _Overlapped(offset=start & 0xFFFFFFFF, offset_high=start >> 32)
    if not _kernel.UnlockFileEx(handle, 0, length & 0xFFFFFFFF, length >> 32, ctypes.byref(place)):
        code = ctypes.get_last_error()
        if code != _NOT_LOCKED:  # such a record is left from a closed file whose handle has the same number
            raise ctypes.WinError(code)


def _convert(handle: int, start: int, length: int, exclusive: bool) -> bool:
    """Lock a range in place of the handle's own lock on it. If that fails, the handle has its earlier lock again."""
    own = _held.setdefault(handle, {})
    before = own.get((start, length))
    if before is not None:
        _unlock(handle, start, length)
    for wanted, done in ((exclusive, True), (before, False)):
        if wanted is not None and _lock_patiently(handle, start, length, wanted):
            own[start, length] = wanted
            return done
    return False


def _lock_patiently(handle: int, start: int, length: int, exclusive: bool) -> bool:
    for attempt in range(_ATTEMPTS):
        if _lock(handle, start, length, exclusive):
            return True
        time.sleep(_PAUSE if attempt + 1 < _ATTEMPTS else 0)
    return False


def _first_locked(handle: int, start: int, stop: int) -> int | None:
    """The first byte of a range without own locks that another handle has locked."""
    while start < stop and not _is_free(handle, start, stop):
        first, last = start, stop  # the range contains a locked byte; at the end it is one byte
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (middle, last) if _is_free(handle, first, middle) else (first, middle)
        if not _lock_patiently(handle, first, 1, True):
            return first
        _release(handle, first, 1)  # it was another process's question
    return None


def _is_shared(handle: int, start: int, length: int) -> bool:
    """Whether others have locks in a range that the handle has locked."""
    if _held[handle][start, length]:
        return False
    is_own = _convert(handle, start, length, True)
    if (is_own and not _convert(handle, start, length, False)) or (start, length) not in _held[handle]:
        raise BlockingIOError(errno.EAGAIN, f"another process took the lock of byte {start}")
    return not is_own


def _is_free(handle: int, start: int, stop: int) -> bool:
    if not _lock(handle, start, stop - start, True):
        return False
    _release(handle, start, stop - start)
    return True


# --- maps ---


def has_address_space(size: int) -> bool:
    """Whether the process could map ``size`` more bytes."""
    start = _kernel.VirtualAlloc(None, size, _RESERVE, _NO_ACCESS) if size < 1 << 63 else None
    return bool(start and _kernel.VirtualFree(start, 0, _RELEASE))


# --- durable flushes ---


def flush_file(fd: int) -> None:
    """Make the contents of a file durable."""
    os.fsync(fd)  # FlushFileBuffers


def flush_directory(directory: str) -> None:
    """Do nothing: :func:`replace`, :func:`rename_new` and :func:`move_aside` return when the names are durable."""


# --- replacement of files ---


def replace(draft: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Rename a file, in one step, also if there is one at ``path``.

    Raises PermissionError if a process has mapped the file at ``path``, as LMDB does: it has to be closed before.
    """
    _move(draft, path, _REPLACE | _WRITE_THROUGH)


def rename_new(draft: str, path: str) -> None:
    """Give a file a name. Raises FileExistsError if there is one."""
    _move(draft, path, _WRITE_THROUGH)


def move_aside(path: str, aside: str) -> None:
    """Give a file that is about to be replaced another name. There is no file at ``path`` afterwards."""
    _move(path, aside, _WRITE_THROUGH)


def _move(source: str | os.PathLike[str], target: str | os.PathLike[str], flags: int) -> None:
    if not _kernel.MoveFileExW(os.fspath(source), os.fspath(target), flags):
        raise ctypes.WinError(ctypes.get_last_error())


# --- others ---


def open_file(path: str | os.PathLike[str], *, write: bool = False, create: bool = False) -> int:
    """Open a file and return its descriptor, which child processes do not inherit. Others may rename the file."""
    access = _READ_ACCESS | (_WRITE_ACCESS if write else 0)
    how = _OPEN_ALWAYS if create else _OPEN_EXISTING
    handle = _kernel.CreateFileW(os.fspath(path), access, _SHARE_ALL, None, how, 0, None)
    if handle == wintypes.HANDLE(-1).value:
        raise ctypes.WinError(ctypes.get_last_error())
    _held.pop(handle, None)  # of a closed file
    return msvcrt.open_osfhandle(handle, (os.O_RDWR if write else os.O_RDONLY) | os.O_BINARY | os.O_NOINHERIT)


def read_at(fd: int, n: int, offset: int) -> bytes:
    """Read ``n`` bytes from an offset of a file, fewer at its end. Moves the position of the descriptor."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, n)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write bytes at an offset of a file; the number that was written. Moves the position of the descriptor."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def reserve_space(fd: int, size: int) -> None:
    """Lengthen an empty file to ``size`` bytes and take their space on the disk. Raises OSError if it is full."""
    os.ftruncate(fd, size)  # NTFS allocates the clusters of a file that is not sparse


def path_of(fd: int) -> str:
    """The path of an open file."""
    name = ctypes.create_unicode_buffer(32_768)
    if not _kernel.GetFinalPathNameByHandleW(_handle(fd), name, len(name), 0):
        raise ctypes.WinError(ctypes.get_last_error())
    return name.value


def users_of(fd: int) -> list[int]:
    """Return an empty list: other processes that have the file open are not looked for."""
    return []


def free_bytes(directory: str) -> int:
    """Bytes that this user may still write to the disk of a directory."""
    free = ctypes.c_uint64()
    if not _kernel.GetDiskFreeSpaceExW(directory, ctypes.byref(free), None, None):
        raise ctypes.WinError(ctypes.get_last_error())
    return free.value


def file_size_limit() -> int | None:
    """Return None: Windows has no limit for a process."""
    return None


def after_fork(call: Callable[[], object]) -> None:
    """Do nothing: Windows has no fork."""
