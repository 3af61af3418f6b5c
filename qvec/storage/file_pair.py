"""A data file and the lock file that LMDB uses for it (docs/adr/0018-file-identity.md).

LMDB finds its lock file by name, and trusts the transaction number and the reader table in it. A lock file must
therefore never be used for two data files, nor a data file with two lock files. An open pair holds a pairing lock on
each of its files: a shared lock on a byte whose position is computed from the inode of the other file. A process that
opens a file checks these locks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from qvec.common import system
from qvec.common.errors import InputError, LockedError, NotFoundError, ReadOnlyError, ReplacedError
from qvec.storage.pages import newest_commit

WRITERS = 1 << 39  # byte of the data file on which processes that have it open for writing share a lock
PAIRING = 1 << 40  # a pairing lock is on byte PAIRING + (inode of the other file) mod PAIRING
PATIENCE = 5.0  # seconds to wait for other processes that are opening the file
_PAUSE = 0.001
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
PAUSE_FOR_OTHERS = 0.01
_pairs: set[FilePair] = set()

OpenLmdb = Callable[[], tuple[Any, bool]]


class FilePair:
    """Descriptors of an open data file and of its lock file. They hold locks until they are closed.

    ``data_fd`` is writable if the file is. ``lock_fd`` is -1 for a reader without permission to write the lock file:
    such a reader does not use it. Forked children close their copies, and the parent keeps the locks.
    """

    def __init__(self, path: str) -> None:
        self.path, self.lock_fd, self.lock_inode = path, -1, 0
        self.data_fd = _open_data(path)
        _pairs.add(self)
        self.key = _key(os.fstat(self.data_fd))

    @classmethod
    def open(cls, path: str, open_lmdb: OpenLmdb) -> tuple[Any, FilePair]:
        """Open the file that ``path`` refers to now. Returns LMDB's environment and the pair of files.

        ``open_lmdb`` opens the environment by name. It returns the environment and whether it uses the lock file.
        Raises LockedError if a process uses the data file with another lock file.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pair = cls(path)
            try:
                with _opening(pair.data_fd, path, deadline):
                    env = pair._connect(open_lmdb)
            except BaseException as error:
                pair.close()
                if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                    raise InputError(
                        f"{path} is on a file system without locks ({error.strerror}), which would not keep writers "
                        "apart; keep the file on a local disk"
                    ) from error
                raise
            if env is not None:
                return env, pair
            pair.close()
            time.sleep(_PAUSE)
        raise LockedError(f"{path}: the file or its lock file was replaced each time that it was opened")

    def is_named(self, path: str | None = None) -> bool:
        """Whether a path, by default that of the pair, still refers to the open data file."""
        try:
            return _key(os.stat(path or self.path)) == self.key
        except OSError:
            return False

    def check_named(self, path: str) -> None:
        """Raise ReplacedError if ``path`` no longer refers to the open data file."""
        if not self.is_named(path):
            there = "refers to another file" if os.path.lexists(path) else "is gone"
            raise ReplacedError(
                f"{path} {there}: the open file was removed, renamed or replaced, and is no longer written to"
            )

    @property
    def readable_path(self) -> str:
        """A path that refers to the open data file, even after the file was renamed or removed."""
        return system.path_of(self.data_fd)

    def register(self) -> bool:
        """Register this process as a user of the lock file. Returns False if LMDB uses another lock file."""
        return system.keep_lmdb_locks(self.lock_fd)

    def mark_as_written(self, written: bool = True) -> None:
        """Record that this process has the file open for writing, or no longer has."""
        if written and not system.share(self.data_fd, WRITERS):
            raise LockedError(f"{self.path} is being removed")
        if not written:
            system.unlock(self.data_fd, WRITERS)

    def is_only_writer(self) -> bool:
        """Whether no other process has the file open for writing."""
        return system.find(self.data_fd, WRITERS, WRITERS + 1) is None

    def is_only_user(self) -> bool:
        """Whether no other process has the file open, apart from readers that may not write the lock file."""
        own = PAIRING + self.lock_inode % PAIRING
        return system.find(self.data_fd, own, own + 1) is None

    def wait_for_others(self, timeout: float, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true. After ``timeout`` seconds LockedError names the users of the file.

        ``what``: what they do with it.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= deadline:
                users = named_users(self.data_fd)
                raise LockedError(f"{self.path}: another process {what}{users}; this call waited {timeout:g} s")
            time.sleep(min(PAUSE_FOR_OTHERS, max(0.0, deadline - time.monotonic())))

    def unregister(self) -> None:
        """Unlock the byte of the process id before LMDB is opened again. No snapshot of this process may be open."""
        if self.lock_fd >= 0:
            system.release_lmdb_locks(self.lock_fd)

    def close(self) -> None:
        """Close the descriptors, and with them all locks of the pair. Closing twice has no effect."""
        _pairs.discard(self)
        for fd in (self.data_fd, self.lock_fd):
            if fd >= 0:
                os.close(fd)
        self.data_fd = self.lock_fd = -1

    def _connect(self, open_lmdb: OpenLmdb) -> Any:
        """Open LMDB and return its environment, or None if the name referred to another file in the meantime."""
        if not self.is_named():
            return None
        self._discard_foreign_lock_file()
        env, locked = open_lmdb()
        try:
            if self.is_named() and (not locked or self._join(env)):
                return env
        except BaseException:
            env.close()
            raise
        env.close()
        return None

    def _discard_foreign_lock_file(self) -> None:
        """Remove the name of a lock file that is in use with another data file, which this data file has replaced."""
        with contextlib.ExitStack() as stack:
            try:
                fd = system.open_file(f"{self.path}-lock")
                stack.callback(os.close, fd)
                inode = os.fstat(fd).st_ino
            except FileNotFoundError:
                fd = inode = -1
            except PermissionError:
                return  # a reader without permission to read the lock file does not use it
            if _has_other_pairing(self.data_fd, inode):
                raise LockedError(
                    f"{self.path} is in use under another name, or its lock file was removed while it was in use"
                    f"{named_users(self.data_fd)}"
                )
            if fd >= 0 and _has_other_pairing(fd, self.key[1]):
                try:
                    os.unlink(f"{self.path}-lock")
                except PermissionError as error:
                    users = named_users(fd)
                    raise LockedError(
                        f"there is no permission to remove {self.path}-lock; its users have a replaced file open{users}"
                    ) from error

    def _join(self, env: Any) -> bool:
        """Take the pairing locks. Returns False if LMDB did not open these files, or if a name has changed."""
        name = f"{self.path}-lock"
        try:
            self.lock_fd = system.open_file(name, write=True)
        except FileNotFoundError:
            return False
        self.lock_inode = os.fstat(self.lock_fd).st_ino
        shared = (
            self.register()
            and system.share(self.lock_fd, PAIRING + self.key[1] % PAIRING)
            and system.share(self.data_fd, PAIRING + self.lock_inode % PAIRING)
        )
        if not shared or not self.is_named() or not _is_name_of(name, self.lock_fd):
            return False
        if _has_other_pairing(self.lock_fd, self.key[1]) or _has_other_pairing(self.data_fd, self.lock_inode):
            return False
        return self._has_current_number(env)

    def _has_current_number(self, env: Any) -> bool:
        """Whether the lock file's transaction number belongs to this data file. If not, remove an unused lock file.

        A process that died while it opened or replaced the file may have left the number of another file. A process
        that died after it wrote the meta page and before it wrote the number has left the previous number.
        """
        before = newest_commit(self.data_fd)
        with env.begin() as txn:
            number = txn.id()
        if before - 1 <= number <= newest_commit(self.data_fd):
            return True
        self.unregister()
        env.close()
        if not system.exclude(self.lock_fd, 0):
            raise LockedError(f"{self.path}-lock belongs to another file, and is in use{named_users(self.lock_fd)}")
        os.unlink(f"{self.path}-lock")
        return False


def refuse_hard_links(path: str) -> None:
    """Raise InputError if a file has several names. Remove the second name that a process left when it was killed while
    it created or switched files.

    LMDB finds its lock file by name, so writers that use different names would not exclude each other.
    """
    directory, name = os.path.split(path)
    if os.stat(path).st_nlink > 1:
        for other in os.listdir(directory or "."):
            draft = os.path.join(directory, other)
            is_draft = other.startswith(f"{name}.") and other.endswith((".new", ".previous"))
            if is_draft and _is_same(draft, path):
                with contextlib.suppress(OSError):
                    os.unlink(draft)
    if (links := os.stat(path).st_nlink) > 1:
        raise InputError(f"{path} has {links} hard links; a file that is written to must have one name")


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def _is_name_of(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def _open_data(path: str) -> int:
    try:
        try:
            return system.open_file(path, write=True)
        except OSError:
            return system.open_file(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise ReadOnlyError(f"there is no permission to read {path}") from error


@contextlib.contextmanager
def _opening(fd: int, path: str, deadline: float) -> Iterator[None]:
    """Let one process at a time open a data file."""
    while not system.lock_file(fd):
        if time.monotonic() > deadline:
            raise LockedError(f"{path}: another process has been opening the file for {PATIENCE:.0f} s")
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        system.unlock_file(fd)


def _has_other_pairing(fd: int, inode: int) -> bool:
    """Whether a file has a pairing lock for another file than the one with this inode (-1: for any file)."""
    own = PAIRING + (inode % PAIRING if inode >= 0 else PAIRING)
    ranges = (PAIRING, min(own, 2 * PAIRING)), (own + 1, 2 * PAIRING)
    return any(system.find(fd, start, stop) is not None for start, stop in ranges)


def named_users(fd: int) -> str:
    """Name the other processes that have the file of a descriptor open, for a message. Empty if none can be found."""
    found = system.users_of(fd)
    return f" (by process {', '.join(map(str, found))})" if found else ""


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _after_fork() -> None:
    """In a forked child: close the copies of the parent's descriptors. The parent keeps its locks."""
    for pair in list(_pairs):
        pair.close()


system.after_fork(_after_fork)
