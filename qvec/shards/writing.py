"""Writes to the shards of the given ids. A batch is written to all of its shards or to none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qvec.collection.collection import Collection
from qvec.collection.open import open as open_collection
from qvec.common.errors import InputError, MissingIdError
from qvec.common.types import Ids, Int64Array
from qvec.shards.folder import MAP_SIZE, is_rebalanced, locked
from qvec.shards.log import Batch, Log, pack
from qvec.shards.manifest import Manifest, read
from qvec.shards.partition import assign
from qvec.shards.routes import Routes

STEP_BYTES = 4 << 20  # bytes of vectors; a larger call consists of several batches


class Writer:
    """Changes the shards of a folder. The caller has the lock of the set. Shards are opened when they are needed."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self.folder, self.timeout = folder, timeout
        self.manifest = read(folder)
        if self.manifest.is_copy:
            raise InputError(f"{folder} is a fetched copy: write to the set that it was published from")
        if self.manifest.routes is None:
            raise InputError(f"{folder} has no shards yet: write blocks and commit() them")
        self.log = Log(folder)
        self._stack = contextlib.ExitStack()
        self._shards: dict[int, Collection] = {}
        self.routes = self._stack.enter_context(Routes.open(folder / self.manifest.routes, "rw", timeout))

    def shard(self, number: int) -> Collection:
        """A shard, open for writing."""
        if number not in self._shards:
            path = self.folder / self.manifest.shards[number].name
            opened = open_collection(path, "rw", map_size=MAP_SIZE, timeout=self.timeout)
            self._shards[number] = self._stack.enter_context(opened)
        return self._shards[number]

    def close(self) -> None:
        """Close what is open."""
        self._stack.close()

    # --- batches ---

    def recover(self) -> None:
        """Finish the batches of writers that died."""
        done = self.routes.logged
        self.log.clean()
        for number in self.log.numbers():
            if number > done:
                batch = self.log.read(number)
                with contextlib.ExitStack() as stack:
                    self._apply(batch, stack)
                self._finish(batch, number)
            elif not self.keeps_log:
                self.log.remove(number)

    def write(self, batch: Batch) -> int:
        """Change all shards of a batch, or none of them; the number of its ids that were stored before."""
        if not len(batch.ids):
            return 0
        data, number = pack(batch), self.routes.logged + 1
        with contextlib.ExitStack() as stack:
            found = self._apply(batch, stack)
            self.log.write(number, data)
        self._finish(batch, number)
        return found

    def _apply(self, batch: Batch, stack: contextlib.ExitStack) -> int:
        """Make the changes in a transaction of each shard; they commit when the stack ends, the last begun first.

        Shards from which rows are only removed begin last and commit first. A search of all shards may therefore miss a
        row that moves, but cannot find it twice, unless rows move in both directions.
        """
        found, moved = 0, (batch.old >= 0) & (batch.old != batch.new)
        entering, leaving = by_shard(batch.new), by_shard(np.where(moved, batch.old, -1))
        for shard in sorted({*entering, *leaving}, key=lambda shard: (shard not in entering, shard)):
            stack.enter_context(self.shard(shard).transaction())
        for shard, rows in leaving.items():
            found += self.shard(shard).delete(batch.ids[rows])
        for shard, rows in entering.items():
            found += _change(self.shard(shard), batch.part(rows))
        return found

    def sizes(self) -> list[int]:
        """The number of vectors of each shard."""
        return [len(self.shard(number)) for number in range(len(self.manifest.shards))]

    def refuse_missing(self, ids: Ids, shards: Int64Array) -> None:
        """Raise MissingIdError naming an id that is not stored."""
        if (shards < 0).any():
            raise MissingIdError(f"no shard has the id {ids.item(int(np.argmin(shards)))!r}")
        for shard, rows in by_shard(shards).items():
            self.shard(shard).get(ids[rows])

    def _finish(self, batch: Batch, number: int) -> None:
        stays = batch.new >= 0
        self.routes.put(batch.ids[stays], batch.new[stays], number)
        if not self.keeps_log:
            self.log.remove(number)

    @property
    def keeps_log(self) -> bool:
        """Whether a rebalance runs, which reads the log."""
        return is_rebalanced(self.folder)


@contextlib.contextmanager
def writer(folder: Path, timeout: float) -> Iterator[Writer]:
    """Wait for the lock of the set, finish what a dead writer has left, and write. Raises LockedError."""
    with locked(folder, timeout):
        made = Writer(folder, timeout)
        try:
            made.recover()
            yield made
        finally:
            made.close()


def _change(shard: Collection, batch: Batch) -> int:
    if batch.kind == "upsert":
        assert batch.vectors is not None
        result = shard.upsert(batch.vectors, batch.ids, batch.payloads)
        return result.replaced
    if batch.kind == "delete":
        return shard.delete(batch.ids)
    return shard.update_payloads(batch.ids, batch.payloads, merge=batch.merge, missing="ignore")


def by_shard(shards: Int64Array) -> dict[int, Int64Array]:
    """Yield the rows of each shard, without rows of shard -1."""
    return {int(shard): np.flatnonzero(shards == shard) for shard in np.unique(shards) if shard >= 0}


def place(manifest: Manifest, old: Int64Array, vectors: Any, sizes: Callable[[], Sequence[int]]) -> Int64Array:
    """The shard that each row of an upsert goes to: int64 [n].

    By cluster, that of the nearest centroid. By block, the one that has the id, or the smallest for new ids.
    """
    if manifest.clusters is not None:
        return assign(vectors, manifest.clusters, manifest.metric)
    if (old >= 0).all():
        return old
    return np.where(old >= 0, old, int(np.argmin(sizes())))


def steps(ids: Ids, row_bytes: int) -> Iterator[slice]:
    """Parts of a call whose vectors have at most STEP_BYTES."""
    rows = max(1, STEP_BYTES // max(1, row_bytes))
    return (slice(start, start + rows) for start in range(0, len(ids), rows))
