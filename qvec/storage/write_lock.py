"""The write lock of a store: one thread of one handle of one process writes at a time."""

from __future__ import annotations

import threading

from qvec.common.errors import InputError
from qvec.storage.file_lock import FileLock


class WriteLock:
    """A handle's write lock. Its threads write in turn; the lock of the file excludes other handles and processes.

    A handle that is open for writing holds the file's lock until it is closed, and a thread's lock per transaction.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: FileLock | None = None
        self._thread_lock = threading.Lock()
        self._thread = 0

    @property
    def held_by_me(self) -> bool:
        """Whether the calling thread has acquired the lock."""
        return self._thread == threading.get_ident()

    def acquire(self) -> None:
        """Wait until no other thread of this handle writes. Raises InputError if the calling thread writes already."""
        if self.held_by_me:
            raise InputError("this thread has a write transaction open already")
        self._thread_lock.acquire()
        self._thread = threading.get_ident()

    def release(self) -> None:
        """Let the next thread write. The file stays locked."""
        self._thread = 0
        self._thread_lock.release()

    def wait(self) -> None:
        """Wait for a moment in which no thread writes."""
        with self._thread_lock:
            pass

    def lock_file(self) -> None:
        """Lock the file, unless this process has it locked. Raises LockedError or ReadOnlyError as `FileLock` does."""
        if self._file is None or not self._file.held:
            self._file = FileLock(self._path)

    def replace(self, lock: FileLock) -> None:
        """Hold ``lock``, of the file that replaced this one, instead of the old lock."""
        self.unlock_file()
        self._file = lock

    def unlock_file(self) -> None:
        """Unlock the file. Unlocking twice has no effect."""
        if self._file is not None:
            self._file.release()
