"""LMDB environments: one a file and process, shared by its handles; guarded, grown, kept apart by forks."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import lmdb

from qvec import _kernels
from qvec._kernels import fork_epoch
from qvec.common.errors import FormatError, InputError, LockedError, MapFullError
from qvec.storage import atomic_file, keys
from qvec.storage.lmdb_errors import MAX_READERS, is_denied, translate, translated

MAP_SIZE = 1 << 40
PATIENCE = 5.0  # seconds that a replacement of the file waits for snapshots to end
_PAGE_HEADER = 16
_NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0)
_ENGINE = 0  # of the LMDBs that py-lmdb brings: 0.9, whose pages docs/format.md describes

_registry: dict[tuple[int, int], Environment] = {}
_registry_lock = threading.RLock()  # re-entrant: a store may be closed by the garbage collector, anywhere
revival = threading.Lock()  # held while a handle that a child inherited is opened anew


class Environment(_kernels.Mapped):
    """An open LMDB environment, and the count of what depends on its map.

    `lock` guards the counts and the views; it is held for microseconds, never during a search.
    """

    def __init__(self, path: str, key: tuple[int, int], *, durable: bool, map_size: int) -> None:
        self.path, self.key, self.durable = path, key, durable
        self.readonly = not os.access(path, os.W_OK)
        self.lmdb = _open(path, self.readonly, durable, map_size)
        self.psize: int = self.lmdb.stat()["psize"]
        self.lock = threading.RLock()
        self.idle = threading.Condition(self.lock)
        self.handles = self.base = 0
        self._changing = False  # the file is about to be replaced: new snapshots wait
        self._gate = -1
        self.sound = True
        self.dependents: weakref.WeakSet[Any] = weakref.WeakSet()
        try:
            with self.lmdb.begin(buffers=True) as txn:
                self._locate(txn)
        except BaseException:
            self.lmdb.close()
            raise
        if not self.readonly:
            self.lmdb.reader_check()

    def begin(self) -> Any:
        """A read transaction; the caller holds `lock`."""
        while self._changing:
            self.idle.wait()
        try:
            return self.lmdb.begin(None, None, False, True)  # of no database, no parent; not to write; buffers
        except lmdb.MapResizedError:
            self._remap(0)
            return self.lmdb.begin(buffers=True)
        except lmdb.Error as error:
            raise translate(error, self.path) from error

    def begin_write(self) -> Any:
        """A write transaction; the caller holds the file lock."""
        self.lmdb.reader_check()  # the pages that a killed reader held may be used again
        try:
            return self.lmdb.begin(write=True, buffers=True)
        except lmdb.MapResizedError:
            with self.lock:
                self._remap(0)
            return self.lmdb.begin(write=True, buffers=True)
        except lmdb.Error as error:
            raise translate(error, self.path) from error

    def grow(self) -> None:
        """Double the map, between transactions; MapFullError while snapshots are open, or without room."""
        with self.lock:
            size = 2 * self.lmdb.info()["map_size"]
            try:
                mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=0).close()
            except (OSError, OverflowError, ValueError) as error:
                raise MapFullError(f"{self.path}: no address space for a map of {size} bytes") from error
            self._remap(size)

    def wait(self, condition: Callable[[], bool], patience: float | None = None) -> bool:
        """Wait until what reads have ended makes a condition true; the caller holds `lock`. False: it did not."""
        self.waiting += 1
        try:
            return self.idle.wait_for(condition, patience)
        finally:
            self.waiting -= 1

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No thread of this process has a snapshot inside the ``with`` block; LockedError if some stay open."""
        with self.lock:
            self._changing = True
            try:
                if not self.wait(lambda: self.open_reads == 0, PATIENCE):
                    raise LockedError(f"{self.path}: {self.open_reads} snapshots of this process are open")
                yield
            finally:
                self._changing = False
                self.idle.notify_all()

    def replace(self, draft: str) -> None:
        """Put the file at ``draft`` in the place of this one, for all handles of this process, none of which writes.

        LockedError while another process has the file open, or snapshots of this process stay open.
        """
        with self.alone():
            self._replace(draft)

    def renew(self) -> None:
        """Have LMDB give up its buffers, which keep what was on the pages that they held; nobody writes meanwhile."""
        with self.alone(), _registry_lock:
            map_size = self.lmdb.info()["map_size"]
            self.close()
            self._reopen(map_size)

    def _replace(self, draft: str) -> None:
        """Replace the file when nobody else has it: each process that does holds a byte of LMDB's lock file.

        Who opens it meanwhile waits for that byte, and only then opens the file itself (mdb_env_excl_lock in mdb.c).
        The descriptor stays open as long as the environment, for closing any gives up the process's locks on the file.
        """
        map_size = self.lmdb.info()["map_size"]
        with _registry_lock:
            self.lmdb.close()
            self._close_gate()
            self._gate = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.lockf(self._gate, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
                os.replace(draft, self.path)
                atomic_file.flush_directory(os.path.dirname(self.path))
            except BlockingIOError:
                self._close_gate()
                raise LockedError(f"{self.path} is open in another process") from None
            finally:
                self._reopen(map_size)

    def _reopen(self, map_size: int) -> None:
        _registry.pop(self.key, None)
        self.key = _identity(self.path)
        self.lmdb = _open(self.path, self.readonly, self.durable, map_size)
        _registry[self.key] = self
        with self.lmdb.begin(buffers=True) as txn:
            self._locate(txn)
        for view in self.dependents:
            view.forget()

    def close(self) -> None:
        """Give the file up."""
        self.lmdb.close()
        self._close_gate()

    def _close_gate(self) -> None:
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def reaches(self) -> int:
        """Bytes of the map that the newest commit uses."""
        last: int = self.lmdb.info()["last_pgno"]
        return (last + 1) * self.psize

    def room(self) -> int:
        """Bytes of the map that no commit has used."""
        size: int = self.lmdb.info()["map_size"]
        return size - self.reaches()

    def used(self) -> int:
        """Bytes of the pages that hold what the newest commit stored; the others are free, or kept by snapshots."""
        pages: dict[str, int] = self.lmdb.stat()
        return self.psize * sum(pages[kind] for kind in ("branch_pages", "leaf_pages", "overflow_pages"))

    def reader_commits(self) -> list[int]:
        """Commits that open snapshots of all processes read."""
        rows = (line.split() for line in self.lmdb.readers().splitlines())
        return [int(row[2]) for row in rows if len(row) == 3 and row[2].isdigit()]

    def agrees(self, value: memoryview) -> bool:
        """Whether an overflow value lies where its page number says: the self-test of the page arithmetic."""
        address, pgno = _kernels.page_of(value)
        return address - _PAGE_HEADER - pgno * self.psize == self.base

    def _locate(self, txn: Any) -> None:
        """Find the map's base from the configuration record, the one overflow value that every file has."""
        value = txn.get(keys.CONFIG)
        if value is None or len(value) < self.psize - _PAGE_HEADER:
            raise FormatError(f"{self.path} is an LMDB file, but not a qvec file")
        address, pgno = _kernels.page_of(value)
        base = address - _PAGE_HEADER - pgno * self.psize
        self.sound = base % self.psize == 0 and 2 <= pgno < self.reaches() // self.psize
        self.base = base if self.sound else 0  # blocks are then found by their keys alone

    def _remap(self, size: int) -> None:
        """Change the map (0: to what another process made it); every pointer into the old one dies."""
        if self.open_reads:
            raise MapFullError(
                f"{self.path}: the map of {self.lmdb.info()['map_size']} bytes is full, and cannot grow"
                f" while {self.open_reads} snapshots of this process are open"
            )
        with translated(self.path):
            self.lmdb.set_mapsize(size)
        with self.lmdb.begin(buffers=True) as txn:
            self._locate(txn)
        for view in self.dependents:
            view.txn_id = 0


def acquire(path: str, *, durable: bool | None, map_size: int) -> Environment:
    """The environment of a file, opened if this process has it not open; ``durable`` None: as it is."""
    with _registry_lock:
        key = _identity(path)
        env = _registry.get(key)
        while env is None:
            with translated(path):
                env = Environment(path, key, durable=durable is not False, map_size=map_size)
            if _identity(path) == key:
                _registry[key] = env
            else:  # another file has taken the name while this one was opened
                env.close()
                key, env = _identity(path), None
        if durable and not env.durable:
            raise InputError(f"{path} is open in this process with durability='relaxed'; close that handle first")
        env.handles += 1
        return env


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def release(env: Environment) -> None:
    """Give an environment back; the last handle closes it."""
    with _registry_lock:
        env.handles -= 1
        if env.handles == 0:
            _registry.pop(env.key, None)
            env.close()


def create(path: str, fill: Callable[[Any, int], None]) -> None:
    """Make a new LMDB file whose first commit is what ``fill(txn, psize)`` puts."""
    with translated(path):
        env = _open_lmdb(path, MAP_SIZE, readonly=False, lock=True, sync=True)
    try:
        with translated(path), env.begin(write=True, buffers=True) as txn:
            fill(txn, env.stat()["psize"])
    finally:
        env.close()


def _open(path: str, readonly: bool, durable: bool, map_size: int) -> Any:
    own = any(env.path == path for env in _registry.values())  # the parent's may be of a file that was replaced since
    with _beside_inherited() if fork_epoch() and not own else contextlib.nullcontext():
        try:
            return _open_lmdb(path, map_size, readonly=readonly, lock=True, sync=durable)
        except lmdb.Error as error:
            if not (readonly and is_denied(error)):
                raise translate(error, path) from error
        # The lock file cannot be written either: whoever writes will not see this reader.
        with translated(path):
            return _open_lmdb(path, map_size, readonly=True, lock=False, sync=durable)


def _open_lmdb(path: str, map_size: int, *, readonly: bool, lock: bool, sync: bool) -> Any:
    """Reserve ``map_size`` bytes of address space, or as much as half, a quarter... of it as there is."""
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
                lib_version=_ENGINE,
            )
        except lmdb.MemoryError as error:
            if map_size // 2 < max(least, 1 << 20):
                raise MapFullError(f"{path}: no address space for a map of {map_size} bytes") from error
            map_size //= 2


@contextlib.contextmanager
def _beside_inherited() -> Iterator[None]:
    """Let a forked child open a file that its parent has open.

    py-lmdb refuses a second open in one process because LMDB's fcntl locks belong to the process. Its list of
    open files is copied by fork; the locks are not (fcntl(2)). The inherited environment is never used or
    closed here (`_after_fork`), so the child's own stands alone, and the list is kept from refusing it.
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
    """In the child: leave the parent's environments alone for ever.

    Closing one, or ending one of its transactions, would clear reader slots in the shared lock file that the
    parent still relies on. One that a thread of the parent was just opening is not in the registry yet.
    """
    global _registry_lock, revival
    _kernels.count_fork()
    _registry_lock, revival = threading.RLock(), threading.Lock()
    for env in _registry.values():
        _kernels.keep_forever(env.lmdb)
    _registry.clear()


os.register_at_fork(after_in_child=_after_fork)
