"""Translate LMDB's errors to qvec's, and give modules that do not import lmdb the classes of LMDB's errors."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import lmdb

from qvec.common import system
from qvec.common.errors import (
    ClosedError,
    CorruptError,
    DiskFullError,
    LockedError,
    MapFullError,
    QvecError,
    ReadOnlyError,
)

MAX_READERS = 1024
Error = lmdb.Error
MapIsFull = lmdb.MapFullError
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Translate LMDB's errors in the ``with`` block to qvec's."""
    try:
        yield
    except lmdb.Error as error:
        raise translate(error, path) from error


def translate(error: lmdb.Error, path: str) -> QvecError:
    """Return the qvec error for an LMDB error."""
    code = getattr(error, "code", None)
    if isinstance(error, lmdb.DiskError) or code in _NO_ROOM or "Input/output" in str(error):
        return DiskFullError(f"{path}: the commit could not be written ({error}); {_room(path)}")
    if isinstance(error, lmdb.MapFullError | lmdb.MapResizedError | lmdb.MemoryError):
        return MapFullError(f"{path}: {error}")
    if "already open in this process" in str(error):
        return LockedError(f"{path}: a removed file of this name is still open in this process")
    if isinstance(error, lmdb.ReadersFullError):
        return LockedError(f"{path}: all {MAX_READERS} reader slots are taken")
    if is_denied(error):
        return ReadOnlyError(f"{path}: {error}")
    if isinstance(error, lmdb.PanicError):
        return DiskFullError(f"{path}: an earlier commit failed half-way; close and reopen the file ({error})")
    if isinstance(error, lmdb.BadTxnError) or "closed/deleted/dropped" in str(error):
        return ClosedError(f"{path}: the transaction or the file is closed ({error})")
    return CorruptError(f"{path}: LMDB reports that the file is damaged ({error})")


def _room(path: str) -> str:
    free, limit = system.free_bytes(os.path.dirname(path) or "."), system.file_size_limit()
    allowed = "no limit" if limit is None else f"a limit of {limit}"
    return f"{free} bytes are free on the disk, and files have {allowed}"


def is_busy(error: lmdb.Error) -> bool:
    """Whether a lock of LMDB is held for a moment: a new child has not yet closed its copies of descriptors."""
    return getattr(error, "code", None) == errno.EAGAIN or "temporarily unavailable" in str(error)


def is_denied(error: lmdb.Error) -> bool:
    """Whether the error says that the file or its lock file is not writable."""
    if isinstance(error, lmdb.LockError | lmdb.ReadonlyError):
        return True
    code = getattr(error, "code", None)
    return code in (errno.EACCES, errno.EPERM, errno.EROFS) or "denied" in str(error) or "Read-only" in str(error)
