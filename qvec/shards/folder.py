"""The folder of a set of shards: names of its files, its lock, checksums of whole files."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from qvec._kernels import crc32c
from qvec.common import system
from qvec.common.errors import LockedError
from qvec.storage.atomic_file import discard

STAGED = "staged"  # folder of finished blocks that no manifest lists yet
LOG = "log"  # folder of routed writes
LOCK = "set.lock"
REBALANCE_LOCK = "rebalance.lock"
SUFFIX = ".qvec"
MAP_SIZE = 1 << 35  # address space of a shard at first; a process has 2^47 bytes for all of its shards
_CHUNK = 1 << 24
_PAUSE = 2e-3  # seconds between two attempts to lock


def checksum(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and CRC-32C of a file."""
    crc = size = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc, size = crc32c(chunk, crc), size + len(chunk)
    return size, crc


def move(draft: Path, path: Path) -> None:
    """Rename a finished file to ``path``, replacing any file of this name. Lock files are not renamed."""
    discard(f"{path}-lock")
    system.replace(draft, path)
    discard(f"{draft}-lock")
    system.flush_directory(str(path.parent))


def drafts_of(path: Path) -> list[Path]:
    """Return the drafts of unfinished attempts to write ``path``."""
    return [found for found in path.parent.glob(f"{path.stem}.*") if found.name != path.name]


def is_rebalanced(folder: Path) -> bool:
    """Whether a living process rebalances the set."""
    try:
        fd = system.open_file(folder / REBALANCE_LOCK, write=True)
    except FileNotFoundError:
        return False
    try:
        return system.find(fd, 0, 1) is not None
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str], timeout: float, name: str = LOCK) -> Iterator[None]:
    """Hold the lock of a set of shards: only its owner changes the set. If the process dies, the lock is released.

    Raises LockedError after ``timeout`` seconds.
    """
    path = Path(folder) / name
    fd = system.open_file(path, write=True, create=True)
    try:
        deadline = time.monotonic() + timeout
        while not system.exclude(fd, 0):
            if time.monotonic() >= deadline:
                raise LockedError(f"{folder}: another process or thread changes the set; waited {timeout:g} s")
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(fd)
