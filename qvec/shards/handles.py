"""The open shards of a folder. A shard is opened when it is first used, and closed when no manifest lists it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qvec.collection.collection import Collection
from qvec.collection.open import open as open_collection
from qvec.common.errors import ClosedError, InputError, QvecError
from qvec.common.types import Memory
from qvec.shards import manifest as manifests
from qvec.shards.fanout import Call, CountCall
from qvec.shards.folder import MAP_SIZE
from qvec.shards.manifest import MANIFEST, Manifest
from qvec.shards.routes import Routes

THREADS = 4  # at least this many, otherwise one for each core


class Handles:
    """The manifest and the open shards of a folder, for many threads."""

    def __init__(self, folder: Path, memory: Memory, manifest: Manifest | None = None) -> None:
        self.folder, self.memory = folder, memory
        self._lock = threading.RLock()
        self._shards: dict[str, Collection] = {}
        self._late: dict[str, Future[Any]] = {}  # calls that a search has stopped waiting for
        self._routes: tuple[str, Routes] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._stamp: tuple[int, int] = (-1, -1)
        self.is_closed = False
        self._manifest = manifests.read(folder) if manifest is None else manifest

    @property
    def manifest(self) -> Manifest:
        """The newest manifest. One system call tells whether it has changed."""
        if self.is_closed:
            raise ClosedError(f"the set of shards {self.folder} is closed")
        info = os.stat(self.folder / MANIFEST)
        stamp = info.st_ino, info.st_mtime_ns
        if stamp != self._stamp:
            with self._lock:
                self._manifest, self._stamp = manifests.read(self.folder), stamp
                self._close_old()
        return self._manifest

    def shard(self, name: str) -> Collection:
        """A shard of the folder, open for reading. Raises the errors of :func:`qvec.open`."""
        with self._lock:
            if (db := self._shards.get(name)) is None:
                db = open_collection(self.folder / name, "r", memory=self.memory, map_size=MAP_SIZE)
                self._shards[name] = db
            return db

    @contextmanager
    def routes(self) -> Iterator[Routes]:
        """The map from ids to shards of the newest manifest. Raises InputError if there are no shards."""
        manifest = self.manifest
        if manifest.routes is None:
            raise InputError("the set has no shards yet: write blocks and commit() them")
        with self._lock:
            if self._routes is None or self._routes[0] != manifest.routes:
                if self._routes is not None:
                    self._routes[1].close()
                self._routes = manifest.routes, Routes.open(self.folder / manifest.routes, "r")
        yield self._routes[1]

    def ask(
        self,
        names: tuple[str, ...],
        calls: Mapping[int, Call | CountCall],
        timeout: float | None,
        deadline: float | None = None,
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Search shards in parallel: hits and errors by number. Errors of the input itself are raised.

        ``deadline``: of the monotonic clock, for a search of several steps; default, ``timeout`` seconds from now.
        """
        found: dict[int, Any] = {}
        failed: dict[int, str] = {}
        running: dict[Future[Any], int] = {}
        for number, call in calls.items():
            if (late := self._late.get(names[number])) is not None and not late.done():
                failed[number] = "an earlier search still runs"
                continue
            self._late.pop(names[number], None)
            running[self._threads().submit(self._search, names[number], call)] = number
        done, late_ones = wait(running, timeout if deadline is None else max(0.0, deadline - time.monotonic()))
        for future in late_ones:
            if not future.cancel():
                self._late[names[running[future]]] = future
            failed[running[future]] = f"no answer within {timeout:g} s"
        for future in done:
            error = future.exception()
            if isinstance(error, InputError) or not (error is None or isinstance(error, QvecError | OSError)):
                raise error
            if error is None:
                found[running[future]] = future.result()
            else:
                failed[running[future]] = str(error)
        return found, failed

    def close(self) -> None:
        """Close everything."""
        self.is_closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for db in self._shards.values():
                db.close()
            if self._routes is not None:
                self._routes[1].close()

    def _search(self, name: str, call: Call | CountCall) -> Any:
        return call.run(self.shard(name))

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                count = max(THREADS, os.cpu_count() or 1)
                self._pool = ThreadPoolExecutor(count, thread_name_prefix="qvec-shard")
            return self._pool

    def _close_old(self) -> None:
        for name in set(self._shards) - set(self._manifest.names):
            self._shards.pop(name).close()
