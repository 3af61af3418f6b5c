"""Search several collections (shards) as one, and merge their hits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from qvec.collection.collection import Collection
from qvec.collection.open import open as open_collection
from qvec.collection.sharded_inputs import ShardedInputs, has_inputs
from qvec.common.errors import InputError, MissingIdError
from qvec.common.types import ArrayLike, Memory, NDArray
from qvec.rows.lookup import id_array
from qvec.rows.results import Records
from qvec.schema.validation import MAX_K, as_ids, as_searched, check_count
from qvec.search.options import deadline_after
from qvec.search.results import BatchHits, Extras, Hits
from qvec.text.statistics import TextStatistics

if TYPE_CHECKING:
    from qvec.common.types import Batch, Query, UnknownArray

NOT_MERGED = ("mmr", "explanation")  # options for searches of one collection only


@overload
def merge_topk(parts: Sequence[Hits], k: int | None = None, *, offset: int = 0, unique: bool = False) -> Hits: ...
@overload
def merge_topk(
    parts: Sequence[BatchHits], k: int | None = None, *, offset: int = 0, unique: bool = False
) -> BatchHits: ...
def merge_topk(
    parts: Sequence[Hits] | Sequence[BatchHits], k: int | None = None, *, offset: int = 0, unique: bool = False
) -> Hits | BatchHits:
    """Return the k nearest of the hits that several collections have found for the same queries.

    parts: hits of searches for the same queries under the same metric, nearest first. k: default, the largest k of the
    parts. offset: skip the nearest ``offset`` hits. unique: return each id once, at its smallest distance, for shards
    that overlap; by default, the same id in two shards means two different vectors. The result includes ``shards``.

    The result depends on the parts and their order only: hits at equal distances are ordered by shard, then by their
    order in the shard. Raises InputError if the parts have different numbers of queries, metrics or kinds of ids.
    """
    return merge_parts(parts, k, offset=offset, unique=unique)


def merge_parts(
    parts: Sequence[Hits] | Sequence[BatchHits],
    k: int | None = None,
    *,
    offset: int = 0,
    unique: bool = False,
    numbers: Sequence[int] | None = None,
    missing: tuple[str, ...] | None = None,
) -> Hits | BatchHits:
    """As :func:`merge_topk`. numbers: the shard of each part; default 0, 1, ... missing: shards without a part."""
    _check_parts(parts)
    wanted = max(part.ids.shape[-1] for part in parts) if k is None else check_count("k", k, 1, MAX_K)
    end = check_count("offset", offset, 0, MAX_K) + wanted
    batches = [part if isinstance(part, BatchHits) else _as_batch(part) for part in parts]
    if (short := end - sum(part.ids.shape[1] for part in batches)) > 0:
        batches.append(_empty_like(batches[0], short))
    ids, distances = (np.concatenate([getattr(p, name) for p in batches], 1) for name in ("ids", "distances"))
    found = np.concatenate([np.arange(part.ids.shape[1]) < part.counts[:, None] for part in batches], 1)
    if unique:
        _keep_nearest(ids, distances, found)
    order = np.lexsort((distances, ~found))[:, offset:end]
    shards = np.array([*(range(len(parts)) if numbers is None else numbers), -1], np.int64)
    merged = _gathered(batches, ids, distances, found, order, shards, missing)
    return merged if isinstance(parts[0], BatchHits) else merged[0]


class ShardedIndex:
    """Collections of one metric, dimension and kind of ids, open for reading and searched as one.

    Each shard is a file that is written independently. Shards let a store grow beyond one file, on one machine or on
    several (:mod:`qvec.ray`). Distances are comparable between shards if the originals are stored; otherwise the shards
    should share one calibration (:meth:`Collection.import_calibration`).
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], *, memory: Memory = "mmap") -> None:
        """Raises the errors of :func:`qvec.open`, and InputError naming a shard that differs from the first."""
        if not paths:
            raise InputError("an index of shards needs at least one")
        with ExitStack() as stack:
            self.shards = tuple(stack.enter_context(open_collection(path, mode="r", memory=memory)) for path in paths)
            _check_alike(self.shards)
            self._open = stack.pop_all()

    @overload
    def search(self, query: None = None, k: int = 10, **options: Any) -> Any: ...
    @overload
    def search(self, query: UnknownArray, k: int = 10, **options: Any) -> Any: ...
    @overload
    def search(self, query: Query, k: int = 10, *, offset: int = 0, unique: bool = False, **options: Any) -> Hits: ...
    @overload
    def search(
        self, query: Batch, k: int = 10, *, offset: int = 0, unique: bool = False, **options: Any
    ) -> BatchHits: ...
    @overload
    def search(
        self, query: ArrayLike, k: int = 10, *, offset: int = 0, unique: bool = False, **options: Any
    ) -> Hits | BatchHits: ...
    def search(
        self, query: Any = None, k: int = 10, *, offset: int = 0, unique: bool = False, **options: Any
    ) -> Hits | BatchHits:
        """Find the k nearest in all shards. See :meth:`Collection.search` for options, and :func:`merge_topk`.

        Searches by text and sparse vectors find what one collection with all rows finds.
        """
        check_mergeable(options)
        if options.get("timeout") is not None:
            options["timeout"] = deadline_after(options["timeout"])
        if query is None or has_inputs(options):
            config = self.shards[0]._config
            q = None if query is None else as_searched(query, config.dim, config.metric, config.form)
            return ShardedInputs.checked(q, options).search(self._search, self._count, k, offset, unique)
        depth = check_count("offset", offset, 0, MAX_K - check_count("k", k, 1, MAX_K)) + k
        parts: Any = [shard.search(query, depth, **options) for shard in self.shards]
        return merge_parts(parts, k, offset=offset, unique=unique)

    def _search(self, query: Any, k: int, unique: bool, **options: Any) -> BatchHits:
        parts: Any = [shard.search(query, k, **options) for shard in self.shards]
        merged = merge_parts(parts, k, unique=unique)
        assert isinstance(merged, BatchHits)
        return merged

    def _count(self, texts: list[str], weights: Any) -> TextStatistics:
        return TextStatistics.sum([shard.text_statistics(texts, text_weights=weights) for shard in self.shards])

    def get(self, ids: Any) -> Records:
        """Return stored records in the order of ``ids``, from the first shard that has each.

        MissingIdError: none has it.
        """
        wanted = id_array(as_ids(ids, self.shards[0]._config.ids)).tolist()
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
        """Pickle the paths of the shards."""
        return type(self), ([os.path.abspath(shard.path) for shard in self.shards],)

    def __repr__(self) -> str:
        if any(shard.closed for shard in self.shards):
            return f"<qvec.ShardedIndex of {len(self.shards)} shards, closed>"
        first = self.shards[0]
        kind = f"dim {first.dim}, {first.metric}"
        return f"<qvec.ShardedIndex of {len(self.shards)} shards: {len(self):,} vectors of {kind}>"


def check_mergeable(options: Mapping[str, Any]) -> None:
    """Raise InputError for an option that searches of several shards do not have."""
    given = {name for name, value in options.items() if value is not None} | {*(options.get("include") or ())}
    if refused := [name for name in NOT_MERGED if name in given]:
        raise InputError(f"{refused[0]} is for a search of one collection, not of several shards")


def _check_parts(parts: Sequence[Hits | BatchHits]) -> None:
    if not parts:
        raise InputError("there are no hits to merge")
    first = parts[0]
    for i, part in enumerate(parts):
        if part.ids.shape[:-1] != first.ids.shape[:-1]:
            raise InputError(f"parts[{i}] is of {part.ids.shape[:-1]} queries, parts[0] of {first.ids.shape[:-1]}")
        if part.ids.dtype != first.ids.dtype or part.zero_score != first.zero_score:
            raise InputError(f"parts[{i}] has another kind of ids, or another metric, than parts[0]")
        if part.included != first.included:
            raise InputError(f"parts[{i}] and parts[0] do not include the same: search with the same include=")


def _check_alike(shards: Sequence[Collection]) -> None:
    first, *others = (shard.stats() for shard in shards)
    for stats in others:
        for name in ("dim", "metric", "ids", "model"):
            mine, other = getattr(stats, name), getattr(first, name)
            if mine != other:
                raise InputError(f"{stats.path} has {name} {mine}, {first.path} has {other}")


def _as_batch(part: Hits) -> BatchHits:
    payloads = [part.payloads] if "payloads" in part.included else None
    extras = Extras(part.vectors[None] if "vectors" in part.included else None)
    return BatchHits(part.ids[None], part.distances[None], np.array([len(part)]), payloads, part.zero_score, extras)


def _empty_like(part: BatchHits, k: int) -> BatchHits:
    """Make a part without hits, of length k for each query of a batch."""
    n = len(part)
    ids = np.full((n, k), "", object) if part.ids.dtype == object else np.full((n, k), -1, np.int64)
    payloads = [[None] * k for _ in range(n)] if "payloads" in part.included else None
    vectors = np.zeros((n, k, part.vectors.shape[2]), part.vectors.dtype) if "vectors" in part.included else None
    distances = np.full((n, k), np.inf, np.float32)
    return BatchHits(ids, distances, np.zeros(n, np.int64), payloads, part.zero_score, Extras(vectors))


def _keep_nearest(ids: NDArray[Any], distances: NDArray[Any], found: NDArray[np.bool_]) -> None:
    """Unmark all hits except the nearest hit of each id."""
    for row, places in enumerate(np.argsort(distances, axis=1, kind="stable").tolist()):
        seen: set[Any] = set()
        for place in places:
            if found[row, place]:
                found[row, place] = ids[row, place] not in seen
                seen.add(ids[row, place])


def _gathered(
    parts: Sequence[BatchHits],
    ids: NDArray[Any],
    distances: NDArray[Any],
    found: NDArray[np.bool_],
    order: NDArray[np.int64],
    numbers: NDArray[np.int64],
    missing: tuple[str, ...] | None,
) -> BatchHits:
    """Select hits of the concatenated parts for each query.

    ``order``: positions. ``numbers``: the shard of each part.
    """
    first, widths = parts[0], [part.ids.shape[1] for part in parts]
    valid = np.take_along_axis(found, order, 1)
    shards = np.where(valid, np.repeat(numbers[: len(parts)], widths)[order], -1)
    empty: Any = "" if ids.dtype == object else -1
    payloads: list[Any] | None = None
    if "payloads" in first.included:
        rows = [[payload for part in parts for payload in part.payloads[q]] for q in range(len(ids))]
        payloads = [
            [row[i] if ok else None for i, ok in zip(places, oks, strict=True)]
            for row, places, oks in zip(rows, order.tolist(), valid.tolist(), strict=True)
        ]
    vectors: NDArray[Any] | None = None
    if "vectors" in first.included:
        vectors = np.take_along_axis(np.concatenate([part.vectors for part in parts], 1), order[..., None], 1)
        vectors = np.where(valid[..., None], vectors, vectors.dtype.type(0))
    return BatchHits(
        np.where(valid, np.take_along_axis(ids, order, 1), empty),
        np.where(valid, np.take_along_axis(distances, order, 1), np.float32(np.inf)),
        valid.sum(axis=1),
        payloads,
        first.zero_score,
        Extras(vectors, shards=shards, missing=missing),
    )
