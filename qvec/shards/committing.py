"""Commit finished blocks: renaming a new manifest makes them shards of the set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from qvec.collection.collection import Collection
from qvec.collection.open import open as open_collection
from qvec.common.errors import DuplicateIdError, InputError, LockedError, NotFoundError
from qvec.common.types import IdKind, Ids
from qvec.shards import manifest as manifests
from qvec.shards.blocks import BLOCK_SUFFIX, Block, cluster_key
from qvec.shards.folder import MAP_SIZE, REBALANCE_LOCK, STAGED, SUFFIX, checksum, drafts_of, locked, move
from qvec.shards.log import Log
from qvec.shards.manifest import Manifest, Shard
from qvec.shards.routes import Part, Routes
from qvec.storage.atomic_file import discard
from qvec.storage.store import TIMEOUT


def commit(
    folder: str | os.PathLike[str], blocks: Iterable[Block | tuple[str, int]], *, timeout: float = TIMEOUT
) -> Manifest:
    """Make finished blocks shards of the set, all or none of them. Returns the new manifest.

    blocks: the results of :func:`write_block` or, with partition="cluster", of :func:`merge`; repeated tasks may report
    a key several times. Written blocks that are not passed do not belong to the set. Searches see the shards after the
    call. If a call dies, repeat it with the same blocks. Routed writes continue meanwhile.

    Raises NotFoundError, which names a missing block; DuplicateIdError, which names an id that is in two shards;
    InputError if the rows differ from those that were reported, LockedError after ``timeout`` seconds.
    """
    path = Path(os.path.realpath(folder))
    wanted = _distinct(blocks)
    with locked(path, timeout, REBALANCE_LOCK):  # excludes other commits; routed writes continue and stay in the log
        with locked(path, timeout):
            before, done = manifests.read(path), _finished(path)
        if before.is_copy:
            raise InputError(f"{path} is a fetched copy: write to the set that it was published from")
        _check_clusters(before, wanted)
        shards = (*before.shards, *(_placed(path, block, before) for block in wanted))
        generation = before.generation + 1
        routes = f"routes-{generation}{SUFFIX}"
        write_routes(path, before.ids, shards, routes, done)
        with locked(path, timeout):
            _add_logged(path, routes, len(before.shards), done)
            now = manifests.read(path)
            if now.generation != before.generation:
                raise LockedError(f"{path} was changed meanwhile: commit the blocks again")
            after = replace(now, generation=generation, shards=shards, routes=routes)
            manifests.write(path, after)
            remove_old(path, before, after)
            _clean(path, wanted, after)
    return after


def _finished(path: Path) -> int:
    """The number of the last routed write. Raises InputError if a writer has died and left one unfinished."""
    name, logged = manifests.read(path).routes, 0
    if name is not None:
        with Routes.open(path / name, "r") as routes:
            logged = routes.logged
    if any(number > logged for number in Log(path).numbers()):
        raise InputError(f"{path} has a routed write that is not finished: open the set for writing first")
    return logged


def _add_logged(path: Path, name: str, n_before: int, done: int) -> None:
    """Add routed writes of the meantime to the new map. Raises DuplicateIdError if one has stored an id of a block."""
    _finished(path)
    log = Log(path)
    with Routes.open(path / name, "rw") as routes:
        for number in log.numbers():
            if number <= done:
                continue
            batch = log.read(number)
            if len(clash := np.flatnonzero((batch.new >= 0) & (routes.find(batch.ids) >= n_before))):
                raise DuplicateIdError(f"id {batch.ids.item(clash[0])!r} of a block was stored by an upsert meanwhile")
            stays = batch.new >= 0
            routes.put(batch.ids[stays], batch.new[stays], number)


def discard_staged(folder: str | os.PathLike[str], *, timeout: float = TIMEOUT) -> int:
    """Remove blocks, drafts and files of shards that no manifest lists. Returns the number of removed files.

    No task may write blocks during the call.
    """
    path = Path(os.path.realpath(folder))
    with locked(path, timeout, REBALANCE_LOCK), locked(path, timeout):
        manifest = manifests.read(path)
        kept = {*manifest.names, manifest.routes}
        found = [file for file in path.glob(f"*{SUFFIX}*") if file.name.removesuffix("-lock") not in kept]
        found += path.glob(f"{manifests.MANIFEST}.*")
        found += [file for file in (path / STAGED).iterdir() if file.is_file()]
        for file in found:
            file.unlink(missing_ok=True)
    return len(found)


def _distinct(blocks: Iterable[Block | tuple[str, int]]) -> list[Block]:
    found: dict[str, Block] = {}
    for given in blocks:
        block = Block(*given)
        manifests.check_key(block.key)
        if found.setdefault(block.key, block).rows != int(block.rows):
            raise InputError(
                f"block {block.key!r} was reported with {found[block.key].rows} and with {block.rows} rows: "
                "the same key must stand for the same rows"
            )
    if not found:
        raise InputError("there are no blocks to commit")
    return [found[key] for key in sorted(found)]


def _check_clusters(manifest: Manifest, blocks: list[Block]) -> None:
    """Order the shards of all clusters, which are committed together: the number of a shard is that of its cluster."""
    if manifest.clusters is None:
        return
    if manifest.shards:
        raise InputError("the set has its shards by cluster already: upsert into it, or rebalance() it")
    needed = [cluster_key(number) for number in range(manifest.clusters.count)]
    if missing := sorted(set(needed) - {block.key for block in blocks}):
        raise InputError(f"cluster {missing[0]!r} is missing: merge() each of the {len(needed)} clusters before")
    if extra := sorted({block.key for block in blocks} - set(needed)):
        raise InputError(f"block {extra[0]!r} is no cluster: commit() takes what merge() returned")


def _placed(path: Path, block: Block, before: Manifest) -> Shard:
    """Rename a finished block to its final name, unless a commit that died has done it.

    Returns the manifest's entry.
    """
    generation = before.generation + 1
    placed = path / f"{block.key}-{generation}{SUFFIX}"
    name = re.compile(rf"{re.escape(block.key)}-[0-9]+{re.escape(SUFFIX)}")
    moved = [file for file in path.iterdir() if name.fullmatch(file.name) and file.name not in before.names]
    found = [file for file in (path / STAGED / f"{block.key}{SUFFIX}", *moved) if file.exists()]
    if not found:
        raise NotFoundError(f"block {block.key!r} is not there: write it (again)")
    if found[0] != placed:
        move(found[0], placed)
    return describe(placed, generation, block.rows)


def describe(path: Path, generation: int, rows: int | None = None) -> Shard:
    """Make the manifest's entry for a shard file. Raises InputError if the file has another number of rows."""
    with opened(path) as db:
        ids = db.ids()
        if rows is not None and len(ids) != rows:
            raise InputError(f"{path} has {len(ids)} rows, {rows} were reported")
        first, last = (min(ids.tolist()), max(ids.tolist())) if len(ids) else (None, None)
    size, crc = checksum(path)
    return Shard(path.name, len(ids), size, crc, first, last, generation)


def opened(path: Path) -> Collection:
    """A shard, open for reading."""
    return open_collection(path, "r", map_size=MAP_SIZE)


def ids_of(path: Path) -> Part:
    """A function that yields the ids of a shard."""

    def read() -> Iterator[Ids]:
        with opened(path) as db:
            yield db.ids()

    return read


def write_routes(path: Path, kind: IdKind, shards: tuple[Shard, ...], name: str, logged: int) -> None:
    """Write the map of the ids of all shards. Raises DuplicateIdError with the names of the shards that share an id."""
    draft = path / f"{name}.draft"
    discard(str(draft))
    parts = {shard.name: ids_of(path / shard.name) for shard in shards}
    try:
        Routes.create(str(draft), kind, parts, sum(shard.rows for shard in shards), logged)
        move(draft, path / name)
    finally:
        discard(str(draft))


def remove_old(path: Path, before: Manifest, after: Manifest) -> None:
    """Remove the files that only an older manifest lists. Handles that have them open can still read them."""
    for name in {*before.names, before.routes} - {*after.names, after.routes, None}:
        discard(str(path / str(name)))


def _clean(path: Path, blocks: list[Block], manifest: Manifest) -> None:
    """Remove drafts of these blocks that dead tasks have left and, with partition="cluster", the rows of all blocks."""
    for block in blocks:
        for draft in drafts_of(path / STAGED / f"{block.key}{SUFFIX}"):
            draft.unlink(missing_ok=True)
    if manifest.clusters is not None:
        for file in (path / STAGED).glob(f"*{BLOCK_SUFFIX}"):
            discard(str(file))
