"""Files that appear whole or not at all: written under another name, then given their own."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from qvec.common.errors import ExistsError, InputError, NotFoundError

COMPACTED = ".compact"  # a copy that is to take a file's place
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP)  # what file systems without hard links say


def own_path(path: str | os.PathLike[str]) -> str:
    """The file's own path: LMDB's lock file lies beside it, and must not lie beside a link to it instead."""
    name = os.fsdecode(path)
    if not name or "\0" in name:
        raise InputError(f"{name!r} is not a path: it is empty or holds a null character")
    return os.path.realpath(name)


def make(path: str, write: Callable[[str], None]) -> None:
    """Let ``write(draft)`` make a file, and name it ``path`` when it is whole; ExistsError: it is taken."""
    if os.path.lexists(path):
        raise ExistsError(f"{path} is there already")
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise NotFoundError(f"{path}: there is no such directory")
    draft = f"{path}.{os.urandom(4).hex()}.new"
    try:
        write(draft)
        _give_name(draft, path)
    finally:
        discard(draft)
    flush_directory(directory)


def discard(draft: str) -> None:
    """Remove a draft and its lock file, if they are there."""
    for leftover in (draft, draft + "-lock"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)


def _give_name(draft: str, path: str) -> None:
    try:
        os.link(draft, path)
    except FileExistsError as error:
        raise ExistsError(f"{path} is there already") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(draft, path)


def flush_directory(directory: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
