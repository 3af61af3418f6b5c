"""Whose turn it is to write a file: that of one thread, of one handle, of one process."""

from __future__ import annotations

import threading

from qvec.common.errors import InputError
from qvec.storage.file_lock import FileLock


class Turn:
    """A handle's turns: its threads take them one after the other; the file's lock keeps others out meanwhile."""

    def __init__(self, path: str) -> None:
        """Of a handle that has not locked the file yet."""
        self._path = path
        self._file: FileLock | None = None
        self._free = threading.Lock()
        self._thread = 0

    @property
    def mine(self) -> bool:
        """Whether it is the calling thread's turn."""
        return self._thread == threading.get_ident()

    def take(self) -> None:
        """Wait until no other thread of this handle writes; InputError when this one does already."""
        if self.mine:
            raise InputError("this thread has a write transaction open already")
        self._free.acquire()
        self._thread = threading.get_ident()

    def pass_on(self) -> None:
        """Let the next thread write. The file stays locked."""
        self._thread = 0
        self._free.release()

    def wait(self) -> None:
        """Return once a moment has come in which no thread writes."""
        with self._free:
            pass

    def lock(self) -> None:
        """Hold the file's write lock, as long as the handle lives; LockedError, ReadOnlyError: see `FileLock`."""
        if self._file is None or not self._file.held:
            self._file = FileLock(self._path)

    def move_to(self, lock: FileLock) -> None:
        """Hold this lock, of a file that has taken the place of the other."""
        self.unlock()
        self._file = lock

    def unlock(self) -> None:
        """Give the file's write lock back; twice is fine."""
        if self._file is not None:
            self._file.release()
