"""Several collections searched as one: shards, and the merge of what each of them finds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from qvec.collection.collection import Collection
from qvec.collection.open import open as open_collection
from qvec.common.errors import InputError, MissingIdError
from qvec.common.types import ArrayLike, Int64Array, MemoryMode, NDArray
from qvec.rows.results import Records
from qvec.schema.validation import MAX_K, check_count
from qvec.search.results import Hits

_WITHIN_ONE = (
    "id",
    "mmr",
    "fetch_k",
    "group_by",
    "explain",
)  # options of a search that one collection alone can answer


@dataclass(slots=True, eq=False, repr=False)
class MergedHits(Hits):
    """Hits of several shards. ``shards``: int64, shape of ``ids``: which shard a hit is of, -1 where there is none."""

    shards: Int64Array | None = None


def merge_topk(parts: Sequence[Hits], k: int | None = None, *, offset: int = 0, unique: bool = False) -> MergedHits:
    """The k nearest of what several collections found for the same queries.

    parts: hits of searches with the same queries and metric, nearest first. k: default, the largest k of the parts.
    offset: leave out the nearest ``offset``. unique: keep each id once, at its smallest distance: for shards that
    overlap; by default, an id that two shards have is two vectors.
    The result depends on the parts and their order alone: equal distances go to the earlier shard, then to the hit
    that was nearer in it.

    Raises InputError where the parts are of different queries, metrics or kinds of ids.
    """
    _check_parts(parts)
    wanted = max(part.ids.shape[-1] for part in parts) if k is None else check_count("k", k, 1, MAX_K)
    end = check_count("offset", offset, 0, MAX_K) + wanted
    batches = [_as_batch(part) for part in parts]
    if (missing := end - sum(part.ids.shape[1] for part in batches)) > 0:
        batches.append(_empty_like(batches[0], missing))
    ids, distances = (np.concatenate([getattr(p, name) for p in batches], 1) for name in ("ids", "distances"))
    found = np.concatenate([np.arange(part.ids.shape[1]) < part.counts[:, None] for part in batches], 1)
    if unique:
        _keep_nearest(ids, distances, found)
    order = np.lexsort((distances, ~found))[:, offset:end]
    merged = _gathered(batches, ids, distances, found, order)
    return merged if parts[0].ids.ndim == 2 else _only(merged)


class ShardedIndex:
    """Collections of one metric, dimension and kind of ids, open for reading, searched as one.

    Each is a file of its own, with a writer of its own; shards are how a store grows beyond one file, on one machine or
    on several (:mod:`qvec.ray`). Distances compare across shards: they are of the stored vectors where those are kept,
    else shards should share one calibration (:meth:`Collection.import_calibration`).
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], *, memory: MemoryMode = "mmap") -> None:
        """Raises what :func:`qvec.open` raises, and InputError naming the shard that differs from the first."""
        if not paths:
            raise InputError("an index of shards needs at least one")
        with ExitStack() as stack:
            self.shards = tuple(stack.enter_context(open_collection(path, mode="r", memory=memory)) for path in paths)
            _check_alike(self.shards)
            self._open = stack.pop_all()

    def search(
        self, queries: ArrayLike, k: int = 10, *, offset: int = 0, unique: bool = False, **options: Any
    ) -> MergedHits:
        """The k nearest of all shards; see :meth:`Collection.search` for the options, and :func:`merge_topk`."""
        if refused := [name for name in _WITHIN_ONE if options.get(name) not in (None, False)]:
            raise InputError(f"{refused[0]} is for a search of one collection, not of several shards")
        depth = check_count("offset", offset, 0, MAX_K - check_count("k", k, 1, MAX_K)) + k
        parts = [shard.search(queries, depth, **options) for shard in self.shards]
        return merge_topk(parts, k, offset=offset, unique=unique)

    def get(self, ids: Any) -> Records:
        """Stored records in the order asked for, of the first shard that has each; MissingIdError where none has."""
        wanted = [ids] if np.ndim(ids) == 0 else list(ids)
        parts = [self._holder(id).get([id]) for id in wanted] or [self.shards[0].get([])]
        names, vectors = (np.concatenate([getattr(part, field) for part in parts]) for field in ("ids", "vectors"))
        return Records(names, vectors, [payload for part in parts for payload in part.payloads])

    def _holder(self, id: Any) -> Collection:
        for shard in self.shards:
            if id in shard:
                return shard
        raise MissingIdError(f"no shard has the id {id!r}")

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def __contains__(self, id: object) -> bool:
        return any(id in shard for shard in self.shards)

    def close(self) -> None:
        """Close every shard."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as the paths of its shards."""
        return type(self), ([os.path.abspath(shard.stats().path) for shard in self.shards],)

    def __repr__(self) -> str:
        return f"<qvec.ShardedIndex of {len(self.shards)} shards, {len(self)} vectors>"


def _check_parts(parts: Sequence[Hits]) -> None:
    if not parts:
        raise InputError("there are no hits to merge")
    first = parts[0]
    for i, part in enumerate(parts):
        if part.ids.shape[:-1] != first.ids.shape[:-1]:
            raise InputError(f"parts[{i}] is of {part.ids.shape[:-1]} queries, parts[0] of {first.ids.shape[:-1]}")
        if part.ids.dtype != first.ids.dtype or part.zero_score != first.zero_score:
            raise InputError(f"parts[{i}] has another kind of ids, or another metric, than parts[0]")
        if _brings(part) != _brings(first):
            raise InputError(f"parts[{i}] and parts[0] do not bring the same along: search with the same include=")


def _brings(part: Hits) -> tuple[bool, bool]:
    return part.payloads is not None, part.vectors is not None


def _check_alike(shards: Sequence[Collection]) -> None:
    first, *others = (shard.stats() for shard in shards)
    for stats in others:
        for name in ("dim", "metric", "ids", "model"):
            mine, other = getattr(stats, name), getattr(first, name)
            if mine != other:
                raise InputError(f"{stats.path} has {name} {mine}, {first.path} has {other}")


def _as_batch(part: Hits) -> Hits:
    if part.ids.ndim == 2:
        return part
    payloads = None if part.payloads is None else [part.payloads]
    vectors = None if part.vectors is None else part.vectors[None]
    return Hits(part.ids[None], part.distances[None], part.counts.reshape(1), payloads, part.zero_score, vectors)


def _empty_like(part: Hits, k: int) -> Hits:
    """No hits, in k places for each query of a batch."""
    n = len(part.ids)
    ids = np.full((n, k), "", object) if part.ids.dtype == object else np.full((n, k), -1, np.int64)
    payloads = None if part.payloads is None else [[None] * k for _ in range(n)]
    vectors = None if part.vectors is None else np.zeros((n, k, part.vectors.shape[2]), part.vectors.dtype)
    distances = np.full((n, k), np.inf, np.float32)
    return Hits(ids, distances, np.zeros(n, np.int64), payloads, part.zero_score, vectors)


def _only(hits: MergedHits) -> MergedHits:
    """The hits of the only query of a batch."""
    payloads = None if hits.payloads is None else hits.payloads[0]
    vectors = None if hits.vectors is None else hits.vectors[0]
    found = hits.ids[0], hits.distances[0], hits.counts.reshape(())
    return MergedHits(
        *found, payloads, hits.zero_score, vectors, shards=None if hits.shards is None else hits.shards[0]
    )


def _keep_nearest(ids: NDArray[Any], distances: NDArray[Any], found: NDArray[np.bool_]) -> None:
    """Unmark all but the nearest place of each id."""
    for row, places in enumerate(np.argsort(distances, axis=1, kind="stable").tolist()):
        seen: set[Any] = set()
        for place in places:
            if found[row, place]:
                found[row, place] = ids[row, place] not in seen
                seen.add(ids[row, place])


def _gathered(
    parts: Sequence[Hits],
    ids: NDArray[Any],
    distances: NDArray[Any],
    found: NDArray[np.bool_],
    order: NDArray[np.int64],
) -> MergedHits:
    """The places of each query that ``order`` names, of all parts side by side."""
    first, widths = parts[0], [part.ids.shape[1] for part in parts]
    valid = np.take_along_axis(found, order, 1)
    shards = np.repeat(np.arange(len(parts)), widths)[order]
    empty: Any = "" if ids.dtype == object else -1
    merged = MergedHits(
        np.where(valid, np.take_along_axis(ids, order, 1), empty),
        np.where(valid, np.take_along_axis(distances, order, 1), np.float32(np.inf)),
        valid.sum(axis=1),
        zero_score=first.zero_score,
        shards=np.where(valid, shards, -1),
    )
    if first.payloads is not None:
        rows = [[payload for part in parts for payload in (part.payloads or [])[q]] for q in range(len(ids))]
        merged.payloads = [
            [row[i] if ok else None for i, ok in zip(places, oks, strict=True)]
            for row, places, oks in zip(rows, order.tolist(), valid.tolist(), strict=True)
        ]
    if first.vectors is not None:
        beside = np.concatenate([part.vectors for part in parts if part.vectors is not None], 1)
        vectors = np.take_along_axis(beside, order[..., None], 1)
        merged.vectors = np.where(valid[..., None], vectors, vectors.dtype.type(0))
    return merged
