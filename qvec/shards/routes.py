"""The map from ids to shards: one file with buckets of sorted keys (docs/format.md).

The hash of a key determines its bucket. An integer id is its own key; the key of a string is a digest of 16 bytes
(BLAKE2b). A bucket is one entry of the file, so a change of a few ids rewrites a few entries.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np

from qvec.common.errors import CorruptError, DuplicateIdError
from qvec.common.plain_state import Between, decode, encode
from qvec.common.types import IdKind, Ids, Int64Array, Mode, NDArray
from qvec.shards.folder import MAP_SIZE
from qvec.storage.copies import copy_to
from qvec.storage.store import TIMEOUT, Snapshot, StateCodec, Store

KEYS_PER_BUCKET = 256  # when the file is made
KEYS_PER_PASS = 1 << 24  # held in memory while the file is made
_DIGEST = 16
_KEY_TYPES: dict[IdKind, str] = {"int64": "<i8", "str": f"S{_DIGEST}"}
Part = Callable[[], Iterable[Ids]]
"""Yields the ids of one shard, in parts; called once for each pass."""


def keys_of(ids: Ids, kind: IdKind) -> NDArray[Any]:
    """The keys of ids: int64, or digests of strings as S16."""
    if kind == "int64":
        return np.asarray(ids, "<i8")
    return np.array([hashlib.blake2b(id.encode(), digest_size=_DIGEST).digest() for id in ids], _KEY_TYPES["str"])


def _buckets(keys: NDArray[Any], count: int) -> Int64Array:
    """The bucket of each key: by the mixer of splitmix64 (Steele et al. 2014), or by the digest's first 8 bytes."""
    if keys.dtype.kind == "S":
        mixed = np.frombuffer(keys.tobytes(), "<u8")[::2]
    else:
        mixed = keys.astype(np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed % np.uint64(count)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class RoutesState:
    """``logged``: the number of the last routed write that the map and all shards contain."""

    logged: Annotated[int, Between(0, 1 << 62)]
    kind: Literal["routes"] = "routes"


def _codec(config: Mapping[str, Any]) -> StateCodec:
    return StateCodec(lambda stored, columns: decode(RoutesState, stored, "the state of the routes"), encode)


class Routes:
    """An open map. Any number of processes may read it while one writes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kind: IdKind = store.config["ids"]
        self.count: int = store.config["buckets"]

    @classmethod
    def open(cls, path: str | os.PathLike[str], mode: Mode, timeout: float = TIMEOUT) -> Self:
        """Open the file. Raises NotFoundError, FormatError or CorruptError."""
        store = Store.open(path, mode, state_codec=_codec, map_size=MAP_SIZE, timeout=timeout)
        if set(store.config) != {"ids", "buckets"}:
            store.close()
            raise CorruptError(f"{path} is no map from ids to shards")
        return cls(store)

    @classmethod
    def create(cls, path: str, kind: IdKind, parts: Mapping[str, Part], rows: int, logged: int) -> None:
        """Write the ids of each shard, given by name. Raises DuplicateIdError naming an id of two of them.

        rows: about how many ids there are. logged: as of :attr:`logged`.
        """
        count = max(1, rows // KEYS_PER_BUCKET)
        passes = max(1, -(-rows // KEYS_PER_PASS))
        bounds = [count * i // passes for i in range(passes + 1)]
        config = {"ids": kind, "buckets": count}
        state = RoutesState(logged)
        with Store.create(path, {}, config, state=state, state_codec=_codec, map_size=MAP_SIZE) as store:
            for low, high in itertools.pairwise(bounds):
                _write_pass(store, kind, parts, count, low, high)

    def find(self, ids: Ids) -> Int64Array:
        """The shard of each id: int64 [n], -1 for an id that has none."""
        with self.store.read() as snap:
            return self._find(snap, keys_of(ids, self.kind))

    def _find(self, snap: Snapshot, keys: NDArray[Any]) -> Int64Array:
        found = np.full(len(keys), -1, np.int64)
        for bucket, members in _grouped(_buckets(keys, self.count)):
            own, shards = self._read(snap, bucket)
            places = np.searchsorted(own, keys[members])
            places = np.minimum(places, max(0, len(own) - 1))
            known = (own[places] == keys[members]) if len(own) else np.zeros(len(members), bool)
            found[members[known]] = shards[places[known]]
        return found

    def put(self, ids: Ids, shards: Int64Array, logged: int) -> None:
        """Set the shard of ids, and note the routed write that this belongs to, in one commit."""
        keys = keys_of(ids, self.kind)
        with self.store.write() as txn:
            changed = np.flatnonzero(self._find(txn, keys) != shards)
            entries = []
            for bucket, members in _grouped(_buckets(keys[changed], self.count)):
                rows = changed[members]
                own, before = self._read(txn, bucket)
                kept = ~np.isin(own, keys[rows])
                merged = np.concatenate([own[kept], keys[rows]]), np.concatenate([before[kept], shards[rows]])
                order = np.argsort(merged[0], kind="stable")
                entries.append((_name(bucket), _packed(merged[0][order], merged[1][order])))
            txn.put_entries(entries)
            txn.state = RoutesState(logged)

    @property
    def logged(self) -> int:
        """The number of the last routed write that the map and all shards contain."""
        with self.store.read() as snap:
            state: RoutesState = snap.state
            return state.logged

    def copy(self, path: str) -> None:
        """Copy the last commit to a new file."""
        copy_to(self.store, path)

    def check(self) -> list[str]:
        """Read everything, and describe what is damaged."""
        with self.store.read() as snap:
            return [f"{self.store.path}: {problem}" for problem in snap.check()]

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, snap: Snapshot, bucket: int) -> tuple[NDArray[Any], Int64Array]:
        data = snap.entry(_name(bucket))
        key_type = np.dtype(_KEY_TYPES[self.kind])
        if data is None:
            return np.zeros(0, key_type), np.zeros(0, np.int64)
        n = len(data) // (key_type.itemsize + 4)
        if len(data) != n * (key_type.itemsize + 4):
            raise CorruptError(f"{self.store.path}: bucket {bucket} has {len(data)} bytes")
        keys = np.frombuffer(data, key_type, n).copy()
        return keys, np.frombuffer(data, "<u4", n, n * key_type.itemsize).astype(np.int64)


def _name(bucket: int) -> bytes:
    return bucket.to_bytes(4, "big")


def _packed(keys: NDArray[Any], shards: NDArray[Any]) -> bytes:
    return keys.tobytes() + shards.astype("<u4").tobytes()


def _grouped(buckets: Int64Array) -> Iterator[tuple[int, Int64Array]]:
    """Each bucket with the positions of its keys."""
    order = np.argsort(buckets, kind="stable")
    distinct, starts = np.unique(buckets[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(order, starts[1:]) if len(order) else (), strict=True)


def _write_pass(store: Store, kind: IdKind, parts: Mapping[str, Part], count: int, low: int, high: int) -> None:
    """Write the buckets ``low`` to ``high`` - 1."""
    keys, shards, buckets = [], [], []
    for number, part in enumerate(parts.values()):
        for ids in part():
            own = keys_of(ids, kind)
            where = _buckets(own, count)
            mine = (where >= low) & (where < high)
            keys.append(own[mine])
            buckets.append(where[mine])
            shards.append(np.full(len(keys[-1]), number, np.int64))
    if not keys:
        return
    all_keys, all_shards, all_buckets = (np.concatenate(column) for column in (keys, shards, buckets))
    order = np.lexsort((all_keys, all_buckets))
    all_keys, all_shards, all_buckets = all_keys[order], all_shards[order], all_buckets[order]
    _refuse_duplicates(all_keys, all_shards, kind, parts)
    distinct, starts = np.unique(all_buckets, return_index=True)
    stops = [*starts[1:].tolist(), len(all_keys)]
    with store.write() as txn:
        txn.put_entries(
            (_name(bucket), _packed(all_keys[start:stop], all_shards[start:stop]))
            for bucket, start, stop in zip(distinct.tolist(), starts.tolist(), stops, strict=True)
        )


def _refuse_duplicates(keys: NDArray[Any], shards: Int64Array, kind: IdKind, parts: Mapping[str, Part]) -> None:
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    if not len(repeated):
        return
    first, second = ([*parts][shard] for shard in shards[repeated[0] : repeated[0] + 2])
    ids = np.concatenate([*parts[first]()])
    (place,) = np.flatnonzero(keys_of(ids, kind) == keys[repeated[0]])[:1]
    raise DuplicateIdError(f"id {ids.item(place)!r} is in {first} and in {second}")
