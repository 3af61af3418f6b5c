"""Blocks of input. Each block is written to one file with its own name, which is renamed when it is complete.

A repeated task writes a file of the same name and so replaces its earlier file. A task that dies leaves a draft, which
nothing reads. With partition="block", the file is a shard. With "cluster", the file contains the rows of each cluster,
and :func:`merge` makes a shard from the rows of one cluster in all blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qvec.collection.collection import Collection
from qvec.collection.open import create as create_collection
from qvec.common.errors import InputError, NotFoundError
from qvec.common.types import Int64Array, NDArray, Payload
from qvec.schema.validation import as_float32, as_ids, as_payloads, as_vectors, check_unique
from qvec.shards import manifest as manifests
from qvec.shards.folder import MAP_SIZE, STAGED, SUFFIX, move
from qvec.shards.manifest import Manifest, check_key
from qvec.shards.partition import assign
from qvec.storage import records
from qvec.storage.atomic_file import discard
from qvec.storage.store import Store

BLOCK_SUFFIX = ".block"  # files of rows that are divided by cluster


class Block(NamedTuple):
    """A finished file that no manifest lists yet. ``key``: the name of the block, or of the cluster's shard."""

    key: str
    rows: int


def write_block(
    folder: str | os.PathLike[str],
    key: str,
    vectors: Any,
    ids: Any,
    payloads: Sequence[Payload | None] | None = None,
    *,
    threads: int | None = None,
) -> Block:
    """Write one block of the input of a set of shards; any number of processes may write blocks at the same time.

    key: the name of the block, 1 to 64 letters, digits, "_" and "-". If a block is written again, it must have the same
    key. vectors, ids, payloads: as in :meth:`Collection.add`; ids are required and unique in the whole set.

    Returns what :func:`commit` (by block) or :func:`merge` (by cluster) needs. Raises InputError and DuplicateIdError.
    """
    path, manifest = Path(os.path.realpath(folder)), manifests.read(folder)
    check_key(key)
    _check_writable(path, manifest)
    if manifest.partition == "cluster":
        return _write_divided(path, manifest, key, vectors, ids, payloads)

    def fill(db: Collection) -> None:
        db.add(vectors, as_ids(ids, manifest.ids), payloads, threads=threads)

    return _write_shard(path, manifest, key, fill)


def merge(
    folder: str | os.PathLike[str], number: int, blocks: Iterable[Block | str], *, threads: int | None = None
) -> Block:
    """Make the shard of one cluster from its rows in all blocks. Any number of processes may do this at the same time.

    number: the number of the cluster, 0 to shards - 1. blocks: the results of :func:`write_block`, or their keys; the
    same for every cluster. Returns what :func:`commit` needs. Raises NotFoundError, which names a missing block.
    """
    path, manifest = Path(os.path.realpath(folder)), manifests.read(folder)
    _check_writable(path, manifest)
    if manifest.clusters is None:
        raise InputError("merge() is for partition='cluster': by block, each block is a shard")
    count = manifest.clusters.count
    if not 0 <= number < count:
        raise InputError(f"cluster {number} is not one of 0 to {count - 1}")
    keys = sorted({block if isinstance(block, str) else block.key for block in blocks})

    def fill(db: Collection) -> None:
        for key in keys:
            ids, vectors, payloads = _read_divided(path / STAGED / f"{key}{BLOCK_SUFFIX}", number, manifest)
            if len(vectors):
                db.add(vectors, ids, payloads, threads=threads)

    return _write_shard(path, manifest, cluster_key(number), fill)


def cluster_key(number: int) -> str:
    """Return the key of a cluster's shard."""
    return f"cluster-{number:05d}"


def _check_writable(path: Path, manifest: Manifest) -> None:
    if manifest.is_copy:
        raise InputError(f"{path} is a fetched copy: write to the set that it was published from")


def _write_shard(path: Path, manifest: Manifest, key: str, fill: Any) -> Block:
    target = path / STAGED / f"{key}{SUFFIX}"
    draft = path / STAGED / f"{key}.{os.urandom(6).hex()}.draft"
    try:
        with create_collection(draft, manifest.dim, map_size=MAP_SIZE, **manifest.creation) as db:
            if manifest.calibration is not None:
                db.import_calibration(manifest.calibration, activate=True)
            fill(db)
            rows = len(db)
        move(draft, target)
    finally:
        discard(str(draft))
    return Block(key, rows)


def _write_divided(
    path: Path, manifest: Manifest, key: str, vectors: Any, ids: Any, payloads: Sequence[Payload | None] | None
) -> Block:
    assert manifest.clusters is not None
    x = as_float32(as_vectors("vectors", vectors, manifest.dim, manifest.metric))
    names = as_ids(ids, manifest.ids)
    if len(names) != len(x):
        raise InputError(f"{len(names)} ids for {len(x)} vectors: give one a vector")
    check_unique(names)
    listed, texts = as_payloads(payloads, len(x)), names if isinstance(names, list) else names.tolist()
    owners = assign(x, manifest.clusters, manifest.metric)
    draft = path / STAGED / f"{key}.{os.urandom(6).hex()}.draft"
    try:
        with Store.create(draft, {}, {"block": key}, map_size=MAP_SIZE) as store, store.write() as txn:
            txn.put_entries(
                (_name(shard), _packed_rows(np.flatnonzero(owners == shard), x, texts, listed))
                for shard in np.unique(owners).tolist()
            )
        move(draft, path / STAGED / f"{key}{BLOCK_SUFFIX}")
    finally:
        discard(str(draft))
    return Block(key, len(x))


def _packed_rows(rows: Int64Array, x: NDArray[np.float32], ids: list[Any], payloads: list[Payload | None]) -> bytes:
    chosen = rows.tolist()
    plain = {
        "ids": [ids[i] for i in chosen],
        "vectors": x[rows].astype("<f4").tobytes(),
        "payloads": [payloads[i] for i in chosen],
    }
    return records.pack(plain, "the rows of a cluster in one block")


def _read_divided(path: Path, number: int, manifest: Manifest) -> tuple[Any, NDArray[np.float32], list[Payload | None]]:
    if not path.exists():
        raise NotFoundError(f"there is no block {path}: write it (again)")
    with Store.open(path, "r", map_size=MAP_SIZE) as store, store.read() as snap:
        data = snap.entry(_name(number))
        if data is None:
            return [], np.zeros((0, manifest.dim), np.float32), []
        plain = records.unpack(data)
    vectors = np.frombuffer(plain["vectors"], "<f4").reshape(-1, manifest.dim)
    return plain["ids"], vectors.astype(np.float32), plain["payloads"]


def _name(number: int) -> bytes:
    return number.to_bytes(4, "big")
