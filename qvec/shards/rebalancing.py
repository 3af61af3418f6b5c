"""Rebalancing: divide the vectors of a set among new shards, while searches and routed writes continue.

The new shards are built from a snapshot, in a folder inside the set. Batches that are written in the meantime stay in
the log and are also applied to the new shards. The last of these batches are applied under the lock of the set; then
renaming a new manifest replaces the old shards with the new ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Payload
from qvec.rows.results import Records
from qvec.schema.validation import check_count
from qvec.shards import manifest as manifests
from qvec.shards.blocks import merge, write_block
from qvec.shards.committing import commit, remove_old
from qvec.shards.creating import MAX_CLUSTERS
from qvec.shards.folder import LOG, REBALANCE_LOCK, STAGED, SUFFIX, locked, move
from qvec.shards.log import Batch, Log
from qvec.shards.manifest import Manifest
from qvec.shards.partition import CENTROIDS, MAX_CENTROIDS, ROWS, learn
from qvec.shards.quality import draw
from qvec.shards.shard_set import ShardSet
from qvec.shards.writing import Writer, place, writer
from qvec.storage.store import TIMEOUT

FOLDER = "rebalance"
SCANNED_ROWS = 8192
BLOCK_BYTES = 32 << 20  # bytes of vectors in a block that is divided by cluster
FEW_BATCHES = 1  # at most this many batches of the log are applied under the lock
MAX_ROUNDS = 50


def rebalance(
    folder: str | os.PathLike[str], shards: int, *, seed: int = 0, threads: int | None = None, timeout: float = TIMEOUT
) -> Manifest:
    """Divide the vectors of a set among ``shards`` new shards. Returns the new manifest.

    With partition="block", the shards get equal numbers of rows. With "cluster", centroids are trained again on stored
    vectors. Searches and routed writes continue; writes wait while the last batches are applied to the new shards. The
    set needs twice its space during the call. After a crash the old shards are unchanged; call again.

    Raises InputError, or LockedError if another process rebalances the set.
    """
    path = Path(os.path.realpath(folder))
    work = path / FOLDER
    with locked(path, 0.0, REBALANCE_LOCK):
        shutil.rmtree(work, ignore_errors=True)
        try:
            with writer(path, timeout) as current:
                done = current.routes.logged
            with ShardSet.opened(path, "r", timeout) as index, index.snapshot() as snapshot:
                _build(work, snapshot, check_count("shards", shards, 1, MAX_CLUSTERS), seed, threads)
            return _replace(path, work, done, timeout)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _build(work: Path, snapshot: ShardSet, count: int, seed: int, threads: int | None) -> None:
    """A set of the vectors of a snapshot, in a folder of its own."""
    before, rows = snapshot.manifest, len(snapshot)
    if rows < count:
        raise InputError(f"{rows} vectors are too few for {count} shards")
    clusters = before.clusters
    if clusters is not None:
        sample = draw([*snapshot.shards()], count * min(CENTROIDS, MAX_CENTROIDS // count) * ROWS, seed)
        clusters = learn(sample, count, before.metric, seed)
    for name in ("", STAGED, LOG):
        (work / name).mkdir()
    manifests.write(work, replace(before, clusters=clusters, shards=(), routes=None))
    size = -(-rows // count) if clusters is None else max(1, BLOCK_BYTES // (4 * before.dim))
    blocks = [
        write_block(work, f"rows-{number:06d}", part.vectors, part.ids, part.payloads, threads=threads)
        for number, part in enumerate(_regrouped(snapshot, size))
    ]
    if clusters is not None:
        blocks = [merge(work, number, blocks, threads=threads) for number in range(count)]
    commit(work, blocks)


def _regrouped(snapshot: ShardSet, size: int) -> Iterator[Records]:
    """All vectors, ``size`` at a time."""
    waiting: list[Records] = []
    for batch in snapshot.scan(min(size, SCANNED_ROWS)):
        waiting.append(batch)
        while sum(map(len, waiting)) >= size:
            together = _joined(waiting)
            yield together[:size]
            waiting = [together[size:]]
    if sum(map(len, waiting)):
        yield _joined(waiting)


def _joined(parts: list[Records]) -> Records:
    ids, vectors = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "vectors"))
    payloads: list[Payload | None] = [payload for part in parts for payload in part.payloads]
    return Records(ids, vectors, payloads)


def _replace(path: Path, work: Path, done: int, timeout: float) -> Manifest:
    """Apply what was written meanwhile, and put the new shards in the place of the old ones."""
    log = Log(path)
    for _ in range(MAX_ROUNDS):
        waiting = [number for number in log.numbers() if number > done]
        if len(waiting) <= FEW_BATCHES:
            break
        done = _catch_up(work, log, waiting[:-1])  # the last one may not be finished yet
    with writer(path, timeout) as current:
        _catch_up(work, log, [number for number in log.numbers() if number > done])
        before, logged = current.manifest, current.routes.logged
        after = _moved(path, work, before, logged)
        manifests.write(path, after)
    with locked(path, timeout):
        for number in log.numbers():
            if number <= logged:
                log.remove(number)
        remove_old(path, before, after)
    return after


def _catch_up(work: Path, log: Log, numbers: list[int]) -> int:
    """Apply batches to the new shards; the number of the last one."""
    with writer(work, TIMEOUT) as new:
        for number in numbers:
            _apply(new, log.read(number))
    return numbers[-1] if numbers else 0


def _apply(new: Writer, batch: Batch) -> None:
    """A batch has other shards here than in the set that it was written to."""
    old = new.routes.find(batch.ids)
    if batch.kind == "upsert":
        to: Any = place(new.manifest, old, batch.vectors, new.sizes)
        new.write(replace(batch, old=old, new=to))
    else:
        new.write(replace(batch, old=old, new=old).part(np.flatnonzero(old >= 0)))


def _moved(path: Path, work: Path, before: Manifest, logged: int) -> Manifest:
    """Move the new files into the folder of the set, where no manifest lists them yet."""
    made, generation = manifests.read(work), before.generation + 1
    with writer(work, TIMEOUT) as new:
        new.routes.put(
            np.zeros(0, np.int64) if made.ids == "int64" else np.zeros(0, object), np.zeros(0, np.int64), logged
        )
    shards = []
    for number, shard in enumerate(made.shards):
        name = f"part-{number:05d}-{generation}{SUFFIX}"
        move(work / shard.name, path / name)
        shards.append(replace(shard, name=name, generation=generation))
    routes = f"routes-{generation}{SUFFIX}"
    move(work / str(made.routes), path / routes)
    return replace(made, generation=generation, shards=tuple(shards), routes=routes)
