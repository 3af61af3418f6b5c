"""LMDB environments. A process has one for each file, which all handles of that file share."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import lmdb

from qvec import _kernels
from qvec._kernels import Deadline, fork_epoch
from qvec.common import system
from qvec.common.errors import FormatError, LockedError, MapFullError, ReplacedError
from qvec.storage import header, keys
from qvec.storage.file_pair import FilePair, named_users
from qvec.storage.lmdb_errors import MAX_READERS, is_busy, is_denied, translate, translated
from qvec.storage.pages import PAGE_HEADER
from qvec.storage.write_queue import WriteQueue

MAP_SIZE = 1 << 40
PATIENCE = 5.0  # seconds that a replacement of the file waits for snapshots to end, and an opening for a new child
_PAUSE = 0.001
_LIB_VERSION = 0  # py-lmdb's number for LMDB 0.9, whose pages docs/format.md describes

_registry: dict[tuple[int, int], Environment] = {}
_registry_lock = threading.RLock()  # re-entrant: a store may be closed by the garbage collector, anywhere
reopen_lock = threading.Lock()  # held while a forked child reopens a handle that it inherited


class Environment(_kernels.EnvironmentBase):
    """An open LMDB environment and the number of snapshots that depend on its map.

    ``lock``: guards the counts and the views; held for microseconds, never during a search. ``base``: the address of
    the map. ``addressable``: whether an address can be computed from a page number; if not, blocks are located by key.
    ``dependents``: the views whose columns point into the map.
    """

    def __init__(self, path: str, *, map_size: int) -> None:
        self.path, self.durable = path, True
        self.readonly = not may_be_written(path)
        self.lmdb, self.pair = self._open(map_size)
        self.queue, self._writing_handles = WriteQueue(path, self.pair), 0
        self.psize: int = self.lmdb.stat()["psize"]
        self.lock = threading.RLock()
        self.idle = threading.Condition(self.lock)
        self.handles = self.base = 0
        self.addressable = True
        self.dependents: weakref.WeakSet[Any] = weakref.WeakSet()
        try:
            with self.lmdb.begin(buffers=True) as txn:
                self._locate(txn)
                relaxed = header.durability(txn.get(keys.CONFIG), path) == "relaxed"
            if relaxed and not self.readonly:
                self.durable = False
                self.lmdb.close()
                self._open_same(map_size)
        except BaseException:
            self.close()
            raise
        if not self.readonly:
            self.lmdb.reader_check()

    def begin(self, deadline: Deadline | None = None) -> Any:
        """Begin a read transaction, whatever has to be done before. The caller holds ``lock``."""
        while self.is_exclusive:
            if not self.idle.wait(None if deadline is None else max(0.0, deadline.left)) and deadline is not None:
                deadline.check()
        try:
            return self.lmdb.begin(buffers=True)
        except lmdb.MapResizedError:
            self._remap(0)
            return self.lmdb.begin(buffers=True)
        except lmdb.Error as error:
            raise translate(error, self.path) from error

    def begin_write(self) -> Any:
        """Begin a write transaction. The caller holds the write lock of the file."""
        self.lmdb.reader_check()  # frees the reader slots of killed processes, and thus the pages that they used
        try:
            return self.lmdb.begin(write=True, buffers=True)
        except lmdb.MapResizedError:
            with self.lock:
                self._remap(0)
            return self.lmdb.begin(write=True, buffers=True)
        except lmdb.Error as error:
            raise translate(error, self.path) from error

    def grow(self) -> None:
        """Double the map between transactions.

        Raises MapFullError if snapshots are open or the address space is full.
        """
        with self.lock:
            size = 2 * self.lmdb.info()["map_size"]
            if not system.has_address_space(size):
                raise MapFullError(f"{self.path}: no address space for a map of {size} bytes")
            self._remap(size)

    def wait(self, condition: Callable[[], bool], patience: float | None = None) -> bool:
        """Wait until a condition is true, and test it when a read ends. Return its value. The caller holds ``lock``."""
        self.waiting += 1
        try:
            return self.idle.wait_for(condition, patience)
        finally:
            self.waiting -= 1

    @contextlib.contextmanager
    def exclusive_map(self) -> Iterator[None]:
        """Exclude all snapshots of this process during the ``with`` block. Raises LockedError if some stay open."""
        with self.lock:
            self.is_exclusive = True
            try:
                if not self.wait(lambda: self.open_reads == 0, PATIENCE):
                    raise LockedError(f"{self.path}: {self.open_reads} snapshots of this process are open")
                yield
            finally:
                self.is_exclusive = False
                self.idle.notify_all()

    def replace(self, draft: str, path: str) -> None:
        """Replace the file with the one at ``draft``, for all handles of this process. The caller excludes writers.

        Every process that has the file open shares a lock on byte 0 of the lock file; this call locks it exclusively.
        It removes the lock file first, because the lock file has the transaction number of the old data file. Another
        process that opens the files at this moment finds that a name has changed, and starts again (`FilePair.open`).

        Raises LockedError if another process has the file open, or if snapshots of this process stay open.
        """
        with self.exclusive_map(), _registry_lock:
            map_size = self.lmdb.info()["map_size"]
            self.pair.check_named(path)
            self.lmdb.close()
            if not system.exclude(self.pair.lock_fd, 0):
                self._open_same(map_size)
                raise LockedError(f"{path} is open in another process{named_users(self.pair.data_fd)}")
            try:
                os.unlink(f"{path}-lock")
                system.replace(draft, path)
                system.flush_directory(os.path.dirname(path))
            finally:
                _registry.pop(self.pair.key, None)
                self.pair.close()
                self.path = path
                self.lmdb, self.pair = self._open(map_size)
                _registry[self.pair.key] = self
                if self._writing_handles:
                    self.pair.mark_as_written()
                self._reset_views()
                self.queue.move_to(self.pair, PATIENCE)

    def reopen(self) -> None:
        """Close LMDB and open it again, because its buffers contain earlier pages. The caller excludes writers."""
        with self.exclusive_map(), _registry_lock:
            map_size = self.lmdb.info()["map_size"]
            self.pair.check_named(self.path)
            self.lmdb.close()
            self._open_same(map_size)

    def _open(self, map_size: int) -> tuple[Any, FilePair]:
        with translated(self.path):
            return FilePair.open(self.path, lambda: _open(self.path, self.readonly, self.durable, map_size))

    def _open_same(self, map_size: int) -> None:
        """Open LMDB again with the same pair of files, which this process has kept locked."""
        self.pair.unregister()
        self.lmdb, _ = _open(self.path, self.readonly, self.durable, map_size)
        if not self.pair.is_named() or not self.pair.register():
            self.lmdb.close()
            self.pair.check_named(self.path)
            raise ReplacedError(f"{self.path}-lock was replaced while the file was open")
        self._reset_views()

    def _reset_views(self) -> None:
        with self.lmdb.begin(buffers=True) as txn:
            self._locate(txn)
        for view in self.dependents:
            view.reset()

    def close(self) -> None:
        """Close the file."""
        self.lmdb.close()
        self.pair.close()

    def add_writing_handle(self) -> None:
        """Count one more handle that is open for writing. While there is one, the file cannot be removed."""
        with self.lock:
            self._writing_handles += 1
            self.pair.mark_as_written()

    def remove_writing_handle(self) -> None:
        """Count one handle less that is open for writing."""
        with self.lock:
            self._writing_handles -= 1
            if self._writing_handles == 0:
                self.pair.mark_as_written(False)

    def used_bytes(self) -> int:
        """Bytes of the file up to the last page that a commit has used."""
        last: int = self.lmdb.info()["last_pgno"]
        return (last + 1) * self.psize

    def free_map_bytes(self) -> int:
        """Bytes of the map that no commit has used."""
        size: int = self.lmdb.info()["map_size"]
        return size - self.used_bytes()

    def tree_bytes(self) -> int:
        """Bytes of the pages that contain the data of the newest commit.

        Other pages are free, or snapshots read them.
        """
        pages: dict[str, int] = self.lmdb.stat()
        return self.psize * sum(pages[kind] for kind in ("branch_pages", "leaf_pages", "overflow_pages"))

    def reader_commits(self) -> list[int]:
        """Return the transaction ids of the commits that snapshots in all processes read."""
        rows = (line.split() for line in self.lmdb.readers().splitlines())
        return [int(row[2]) for row in rows if len(row) == 3 and row[2].isdigit()]

    def agrees(self, value: memoryview) -> bool:
        """Test the page arithmetic: whether the address of an overflow value follows from its page number."""
        address, pgno = _kernels.page_of(value)
        return address - PAGE_HEADER - pgno * self.psize == self.base

    def _locate(self, txn: Any) -> None:
        """Find the map's base address from the configuration record, an overflow value that every file has."""
        value = txn.get(keys.CONFIG)
        if value is None or len(value) < self.psize - PAGE_HEADER:
            raise FormatError(f"{self.path} is an LMDB file, but not a qvec file")
        address, pgno = _kernels.page_of(value)
        base = address - PAGE_HEADER - pgno * self.psize
        self.addressable = base % self.psize == 0 and 2 <= pgno < self.used_bytes() // self.psize
        self.base = base if self.addressable else 0  # blocks are then located by key

    def _remap(self, size: int) -> None:
        """Change the size of the map (0: to the size that another process set).

        Pointers into the map become invalid.
        """
        if self.open_reads:
            raise MapFullError(
                f"{self.path}: the map of {self.lmdb.info()['map_size']} bytes is full and cannot grow"
                f" while {self.open_reads} snapshots of this process are open"
            )
        with translated(self.path):
            self.lmdb.set_mapsize(size)
        with self.lmdb.begin(buffers=True) as txn:
            self._locate(txn)
        for view in self.dependents:
            view.txn_id = 0


def may_be_written(path: str) -> bool:
    """Whether this process may write a file, and its lock file or, if there is none, the directory."""
    lock_file = f"{path}-lock"
    locked = lock_file if os.path.exists(lock_file) else os.path.dirname(path) or "."
    return os.access(path, os.W_OK) and os.access(locked, os.W_OK)


def acquire(path: str, *, map_size: int) -> Environment:
    """Return the environment of a file. Open it if this process does not have it open."""
    with _registry_lock:
        env = _registry.get(_identity(path))
        if env is None:
            with translated(path):
                env = Environment(path, map_size=map_size)
            _registry[env.pair.key] = env
        env.handles += 1
        return env


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def release(env: Environment) -> None:
    """Release an environment. Close it if no other handle uses it."""
    with _registry_lock:
        env.handles -= 1
        if env.handles == 0:
            _registry.pop(env.pair.key, None)
            env.close()


def create(path: str, fill: Callable[[Any, int], None]) -> None:
    """Create an LMDB file. ``fill(txn, psize)`` stores the content of its first commit."""
    with translated(path):
        env = _open_lmdb(path, MAP_SIZE, readonly=False, lock=True, sync=True)
    try:
        with translated(path), env.begin(write=True, buffers=True) as txn:
            fill(txn, env.stat()["psize"])
    finally:
        env.close()


def _open(path: str, readonly: bool, durable: bool, map_size: int) -> tuple[Any, bool]:
    """Open LMDB's environment. Returns it, and whether it uses the lock file."""
    deadline = time.monotonic() + PATIENCE
    with _inherited_allowed() if fork_epoch() else contextlib.nullcontext():
        while True:
            try:
                return _open_lmdb(path, map_size, readonly=readonly, lock=True, sync=durable), True
            except lmdb.Error as error:
                if is_busy(error):
                    if time.monotonic() >= deadline:
                        raise LockedError(f"{path}: a child of this process keeps its lock file locked") from error
                    time.sleep(_PAUSE)
                elif readonly and is_denied(error):
                    break
                else:
                    raise translate(error, path) from error
        # The lock file cannot be written, so writers will not see this reader.
        with translated(path):
            return _open_lmdb(path, map_size, readonly=True, lock=False, sync=durable), False


def _open_lmdb(path: str, map_size: int, *, readonly: bool, lock: bool, sync: bool) -> Any:
    """Open a file with a map of ``map_size`` bytes, or of half the size until there is address space for it."""
    least = 2 * os.stat(path).st_size if os.path.exists(path) else 0
    while True:
        try:
            return lmdb.open(
                path,
                map_size=map_size,
                subdir=False,
                readonly=readonly,
                lock=lock,
                sync=sync,
                max_readers=MAX_READERS,
                max_spare_txns=1,
                mode=0o644,
                lib_version=_LIB_VERSION,
            )
        except lmdb.MemoryError as error:
            if map_size // 2 < max(least, 1 << 20):
                raise MapFullError(f"{path}: no address space for a map of {map_size} bytes") from error
            map_size //= 2


@contextlib.contextmanager
def _inherited_allowed() -> Iterator[None]:
    """Let a forked child open a file that its parent has open.

    py-lmdb refuses to open a file twice in one process because LMDB's fcntl locks belong to the process. A fork copies
    py-lmdb's list of open files, but not the locks (fcntl(2)). The child never uses or closes the inherited environment
    (`_after_fork`), so a second one is safe, and the check of the list is disabled while the child opens it.
    """
    try:
        identity = importlib.import_module("lmdb._envid")
    except ImportError:
        yield
        return
    original = identity.env_keys
    identity.env_keys = lambda path, subdir: ()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        identity.env_keys = original  # type: ignore[attr-defined]


def _after_fork() -> None:
    """In a forked child: never touch the parent's environments.

    Closing an environment or ending one of its transactions would clear slots in the shared lock file that the parent
    still needs. An environment that a thread of the parent was just opening is not yet in the registry.
    """
    global _registry_lock, reopen_lock
    _kernels.count_fork()
    _registry_lock, reopen_lock = threading.RLock(), threading.Lock()
    for env in _registry.values():
        _kernels.keep_forever(env.lmdb)
    _registry.clear()


system.after_fork(_after_fork)
