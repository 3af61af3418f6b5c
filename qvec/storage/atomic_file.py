"""Create files so that they appear complete or not at all: write under a draft name, then rename."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from qvec.common import system
from qvec.common.errors import ExistsError, InputError, LockedError, NotFoundError
from qvec.storage.file_pair import WRITERS, named_users

PREVIOUS = ".previous"  # suffix of a file that another one has replaced, and that is kept
REEMBEDDED = ".reembed"  # suffix of the file that is to replace one, until it is complete
REEMBEDDED_DRAFT = ".reembed.new"  # ... until it is created
COMPACTED = ".compact"  # suffix of the copy that is to replace a file


def real_path(path: str | os.PathLike[str]) -> str:
    """Resolve symbolic links, because LMDB's lock file must be next to the file and not next to a link."""
    name = os.fsdecode(path)
    if not name or "\0" in name:
        raise InputError(f"{name!r} is not a path: it is empty or contains a null character")
    return os.path.realpath(name)


def make(path: str, write: Callable[[str], None], draft: str | None = None) -> None:
    """Create a file: call ``write(draft)``, then rename the draft to ``path``. ``draft``: default, a name of its own.

    Raises ExistsError if ``path`` exists.
    """
    if os.path.lexists(path):
        raise ExistsError(f"{path} exists already")
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise NotFoundError(f"{path}: there is no such directory")
    draft = draft or f"{path}.{os.urandom(4).hex()}.new"
    try:
        write(draft)
        try:
            system.rename_new(draft, path)
        except FileExistsError as error:
            raise ExistsError(f"{path} exists already") from error
    finally:
        discard(draft)
    system.flush_directory(directory)


def replace_bytes(path: str, data: bytes) -> None:
    """Write a small file durably: under ``path`` is either what was there before, or all of ``data``."""
    draft = f"{path}.{os.urandom(4).hex()}.new"
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            system.flush_file(file.fileno())
        system.replace(draft, path)
    finally:
        discard(draft)
    system.flush_directory(os.path.dirname(path))


def has_leftovers(draft: str) -> bool:
    """Whether a draft or its lock file exists."""
    return os.path.lexists(draft) or os.path.lexists(draft + "-lock")


def discard(draft: str) -> None:
    """Remove a draft and its lock file, if they exist."""
    for leftover in (draft, draft + "-lock"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)


def switch(new: str, path: str) -> None:
    """Put a closed file in place of ``path``, in one step, and keep the replaced one under ``path + PREVIOUS``.

    The caller excludes writers. Where the file system has no hard links, there is no file at ``path`` for a moment.
    """
    discard(path + PREVIOUS)
    discard_lock_file(new)
    system.move_aside(path, path + PREVIOUS)
    system.replace(new, path)
    system.flush_directory(os.path.dirname(path))


def switch_back(path: str) -> None:
    """Put the closed file ``path + PREVIOUS`` in place of ``path``, in one step. The caller excludes writers."""
    discard_lock_file(path + PREVIOUS)
    system.replace(path + PREVIOUS, path)
    system.flush_directory(os.path.dirname(path))


def discard_lock_file(path: str) -> None:
    """Remove the lock file of a file that nobody has open, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + "-lock")


def remove(path: str) -> None:
    """Remove a store's file and its lock file, durably. Raises LockedError if the file is open for writing."""
    fd = system.open_file(path, write=True)
    try:
        if not system.exclude(fd, WRITERS):
            raise LockedError(f"{path} is open for writing{named_users(fd)}")
        for suffix in (COMPACTED, PREVIOUS, REEMBEDDED, REEMBEDDED_DRAFT):
            discard(path + suffix)
        os.unlink(path)
        system.flush_directory(os.path.dirname(os.path.abspath(path)))
        discard(path)
    finally:
        os.close(fd)
