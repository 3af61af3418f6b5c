"""A search of many shards: select the shards for each query, and merge their results.

The same steps are used by threads (:class:`qvec.shards.ShardSet`) and Ray actors (:mod:`qvec.ray`); only the calls
differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qvec.collection.collection import Collection
from qvec.collection.sharded_inputs import ShardedInputs, has_inputs
from qvec.collection.sharding import check_mergeable, merge_parts
from qvec.common.errors import InputError, MissingShardError
from qvec.common.types import Float32Array, Int64Array
from qvec.schema.validation import MAX_K, as_searched, check_count
from qvec.search.results import BatchHits, Extras, Hits
from qvec.shards.manifest import Manifest
from qvec.shards.partition import ranked
from qvec.text.statistics import TextStatistics


@dataclass(frozen=True)
class Call:
    """A request to one shard: ``queries`` float32 [m, dim], their ``rows`` among the search's queries, and options.

    ``queries``: None for a batch of texts or sparse vectors, which are in the options.
    """

    rows: Int64Array
    queries: Float32Array | None
    depth: int
    options: dict[str, Any]

    def run(self, shard: Collection) -> Any:
        """The hits of the shard."""
        return shard.search(self.queries, self.depth, **self.options)


@dataclass(frozen=True)
class CountCall:
    """A request for the document counts of texts."""

    texts: list[str]
    weights: Any

    def run(self, shard: Collection) -> Any:
        """The counts of the shard."""
        return shard.text_statistics(self.texts, text_weights=self.weights)


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
        q = None if self.query is None else as_searched(self.query, config.dim, config.metric, config.form)
        self._is_single = q is not None and q.ndim == 1
        self._queries = None if q is None else np.atleast_2d(q)
        batch: Any = self.options.get("text") or self.options.get("sparse")
        of_field = batch if not isinstance(batch, Mapping) else next(iter(batch.values()))
        self._n = len(of_field) if self._queries is None else len(self._queries)
        limit = MAX_K - check_count("k", self.k, 1, MAX_K)
        self._depth = self.k + check_count("offset", self.offset, 0, limit)

    def calls(self) -> dict[int, Call]:
        """Return the request to each shard, by its number."""
        n = len(self.manifest.shards)
        count = n if self._queries is None else shards_to_ask(self.manifest, self.ask)
        if count == n or self._queries is None:
            return {shard: self._call(np.arange(self._n)) for shard in range(n)}
        clusters = self.manifest.clusters
        assert clusters is not None
        asked = ranked(self._queries, clusters, self.manifest.metric, n)[:, :count]
        return {shard: self._call(np.flatnonzero((asked == shard).any(axis=1))) for shard in np.unique(asked).tolist()}

    def _call(self, rows: Int64Array) -> Call:
        options = {"threads": 1, "timeout": self.timeout, **self.options}
        if self.manifest.oversample and self._queries is not None:
            options.setdefault("oversample", self.manifest.oversample)
        if isinstance(where := options.get("where"), list | tuple):
            if len(where) != self._n:
                raise InputError(f"where has {len(where)} filters for {self._n} queries")
            options["where"] = [where[i] for i in rows.tolist()]
        return Call(rows, None if self._queries is None else self._queries[rows], self._depth, options)

    def join(self, calls: Mapping[int, Call], found: Mapping[int, BatchHits], failed: Mapping[int, str]) -> Any:
        """Merge the hits of all shards. Raises MissingShardError for shards that failed, unless ``partial``."""
        missing = missing_of(self.manifest, len(calls), found, failed, self.partial)
        numbers, n = sorted(found), self._n
        parts = [_spread(found[shard], calls[shard].rows, n) for shard in numbers]
        merged: Hits | BatchHits = merge_parts(
            parts, self.k, offset=self.offset, unique=self.unique, numbers=numbers, missing=missing
        )
        return merged[0] if self._is_single else merged


def missing_of(
    manifest: Manifest, n_calls: int, found: Mapping[int, Any], failed: Mapping[int, str], partial: bool
) -> tuple[str, ...]:
    """The names of the shards that failed. Raises MissingShardError if there are any, unless ``partial``."""
    missing = tuple(manifest.names[shard] for shard in sorted(failed))
    if failed and (not partial or not found):
        shown = "; ".join(f"{manifest.names[shard]}: {failed[shard]}" for shard in sorted(failed))
        raise MissingShardError(f"{len(failed)} of {n_calls} shards did not answer: {shown}", missing)
    return missing


Ask = Callable[[Mapping[int, Call | CountCall]], tuple[dict[int, Any], dict[int, str]]]
"""Sends requests to shards by number; their answers, and the errors of those that failed."""


def search(
    manifest: Manifest,
    send: Ask,
    query: Any,
    k: int,
    offset: int,
    unique: bool,
    ask: int | float | None,
    partial: bool,
    timeout: float | None,
    options: Mapping[str, Any],
) -> Hits | BatchHits:
    """Search the shards of a manifest by vectors, text and sparse vectors; see :class:`Fanout`.

    ``ask`` chooses shards for the vectors; every shard is asked for texts and sparse vectors.
    """

    def one_input(query: Any, k: int, unique: bool, **own: Any) -> Any:
        fanout = Fanout(manifest, query, k, 0, unique, ask, partial, timeout, own)
        calls = fanout.calls()
        return fanout.join(calls, *send(calls))

    def count(texts: list[str], weights: Any) -> TextStatistics:
        calls = {shard: CountCall(texts, weights) for shard in range(len(manifest.shards))}
        found, failed = send(calls)
        missing_of(manifest, len(calls), found, failed, partial)
        return TextStatistics.sum([found[shard] for shard in sorted(found)])

    if query is None or has_inputs(options):
        check_mergeable(options)
        config = manifest.config
        q = None if query is None else as_searched(query, config.dim, config.metric, config.form)
        return ShardedInputs.checked(q, options).search(one_input, count, k, offset, unique)
    fanout = Fanout(manifest, query, k, offset, unique, ask, partial, timeout, options)
    calls = fanout.calls()
    hits: Hits | BatchHits = fanout.join(calls, *send(calls))
    return hits


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
