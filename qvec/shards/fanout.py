"""A search of many shards: select the shards for each query, and merge their results.

The same steps are used by threads (:class:`qvec.shards.ShardSet`) and Ray actors (:mod:`qvec.ray`); only the calls
differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qvec.collection.sharding import check_mergeable, merge_parts
from qvec.common.errors import InputError, MissingShardError
from qvec.common.types import Float32Array, Int64Array
from qvec.schema.validation import MAX_K, as_searched, check_count
from qvec.search.results import BatchHits, Extras, Hits
from qvec.shards.manifest import Manifest
from qvec.shards.partition import ranked


@dataclass(frozen=True)
class Call:
    """A request to one shard: ``queries`` float32 [m, dim], their ``rows`` among the search's queries, and options."""

    rows: Int64Array
    queries: Float32Array
    depth: int
    options: dict[str, Any]


@dataclass
class Fanout:
    """A search of the shards of a manifest.

    ask: each query is sent to this many nearest shards; a fraction: to the fewest shards that have reached this recall
    in measurements (:meth:`ShardSet.measure`); None: to all. partial: name shards that do not answer in the result.
    timeout: seconds; each shard also ends its own search after this time.
    """

    manifest: Manifest
    query: Any
    k: int
    offset: int = 0
    unique: bool = False
    ask: int | float | None = None
    partial: bool = False
    timeout: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_mergeable(self.options)
        config = self.manifest.config
        if not self.manifest.shards:
            raise InputError("the set has no shards yet: write blocks and commit() them")
        q = as_searched(self.query, config.dim, config.metric, config.form)
        self._is_single = q.ndim == 1
        self._queries = np.atleast_2d(q)
        limit = MAX_K - check_count("k", self.k, 1, MAX_K)
        self._depth = self.k + check_count("offset", self.offset, 0, limit)

    def calls(self) -> dict[int, Call]:
        """Return the request to each shard, by its number."""
        n = len(self.manifest.shards)
        count = shards_to_ask(self.manifest, self.ask)
        if count == n:
            return {shard: self._call(np.arange(len(self._queries))) for shard in range(n)}
        clusters = self.manifest.clusters
        assert clusters is not None
        asked = ranked(self._queries, clusters, self.manifest.metric, n)[:, :count]
        return {shard: self._call(np.flatnonzero((asked == shard).any(axis=1))) for shard in np.unique(asked).tolist()}

    def _call(self, rows: Int64Array) -> Call:
        options = {"threads": 1, "timeout": self.timeout, **self.options}
        if self.manifest.oversample:
            options.setdefault("oversample", self.manifest.oversample)
        if isinstance(where := options.get("where"), list | tuple):
            if len(where) != len(self._queries):
                raise InputError(f"where has {len(where)} filters for {len(self._queries)} queries")
            options["where"] = [where[i] for i in rows.tolist()]
        return Call(rows, self._queries[rows], self._depth, options)

    def join(self, calls: Mapping[int, Call], found: Mapping[int, BatchHits], failed: Mapping[int, str]) -> Any:
        """Merge the hits of all shards. Raises MissingShardError for shards that failed, unless ``partial``."""
        names = self.manifest.names
        missing = tuple(names[shard] for shard in sorted(failed))
        if failed and (not self.partial or not found):
            shown = "; ".join(f"{names[shard]}: {failed[shard]}" for shard in sorted(failed))
            raise MissingShardError(f"{len(failed)} of {len(calls)} shards did not answer: {shown}", missing)
        numbers, n = sorted(found), len(self._queries)
        parts = [_spread(found[shard], calls[shard].rows, n) for shard in numbers]
        merged: Hits | BatchHits = merge_parts(
            parts, self.k, offset=self.offset, unique=self.unique, numbers=numbers, missing=missing
        )
        return merged[0] if self._is_single else merged


def shards_to_ask(manifest: Manifest, ask: int | float | None) -> int:
    """Return the number of shards for each query.

    Raises InputError, which names the limit or the missing measurement.
    """
    n = len(manifest.shards)
    if ask is None:
        return n
    if manifest.clusters is None:
        raise InputError("ask is for partition='cluster': by block, any shard may have the neighbors of a query")
    if isinstance(ask, int) and not isinstance(ask, bool):
        return min(n, check_count("ask", ask, 1, 1 << 30))
    if not isinstance(ask, float) or not 0.0 < ask < 1.0:
        raise InputError(f"ask must be a number of shards or a recall between 0 and 1, got {ask!r}")
    recalls = manifest.clusters.recalls
    if not recalls:
        raise InputError("the recall of searches that ask some shards is not known: measure() it first")
    return next((count for count, recall in enumerate(recalls, 1) if recall >= ask), n)


def _spread(part: BatchHits, rows: Int64Array, n: int) -> BatchHits:
    """Convert the hits of some of ``n`` queries to hits of all; the other queries have none."""
    if len(rows) == n:
        return part
    k = part.ids.shape[1]
    ids = np.full((n, k), "" if part.ids.dtype == object else -1, part.ids.dtype)
    distances, counts = np.full((n, k), np.inf, np.float32), np.zeros(n, np.int64)
    ids[rows], distances[rows], counts[rows] = part.ids, part.distances, part.counts
    payloads: list[Any] | None = None
    if "payloads" in part.included:
        payloads = [[None] * k for _ in range(n)]
        for row, own in zip(rows.tolist(), part.payloads, strict=True):
            payloads[row] = own
    vectors = None
    if "vectors" in part.included:
        vectors = np.zeros((n, *part.vectors.shape[1:]), part.vectors.dtype)
        vectors[rows] = part.vectors
    return BatchHits(ids, distances, counts, payloads, part.zero_score, Extras(vectors))
