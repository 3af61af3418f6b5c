"""A search of several collections by vectors, text and sparse vectors: lists of each input, merged, then fused.

The lists of one input are merged over all collections before fusion, and the scores of texts use the document counts of
all collections together. The result is that of one collection with all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Float32Array, NDArray
from qvec.schema.validation import MAX_K, check_count
from qvec.search.fusion import DEFAULT_DEPTH, SPARSE, TEXT, VECTOR, Fusion, Listed, check_fusion, fuse
from qvec.search.results import BatchHits, Extras, Hits
from qvec.text.sparse import rows_of
from qvec.text.statistics import TextStatistics

OF_INPUTS = ("text", "sparse", "fusion", "fusion_depth", "text_weights", "highlight", "statistics")

SearchAll = Callable[..., BatchHits]
"""``(query, k, unique=, **options)``: the merged hits of all collections for a batch of one input."""
CountAll = Callable[[list[str], Any], TextStatistics]
"""``(texts, text_weights)``: the counts of all collections together."""


def has_inputs(options: Mapping[str, Any]) -> bool:
    """Whether a search has text, sparse vectors, or options of these."""
    return any(options.get(name) not in (None, False) for name in OF_INPUTS)


@dataclass(frozen=True)
class ShardedInputs:
    """The inputs of one search of ``n`` queries. ``values``: for each input, one a query; of sparse vectors, a map from
    fields (None: the only one) to them. ``is_single``: the call has one query.
    """

    n: int
    values: Mapping[str, Any]
    is_single: bool
    fusion: Fusion
    depth: int
    text_weights: Any
    options: Mapping[str, Any]

    @classmethod
    def checked(cls, query: NDArray[Any] | None, options: Mapping[str, Any]) -> ShardedInputs:
        """Check the options of a call. ``query``: float32 [n, dim] or [dim]. Raises InputError."""
        own = {name: options.get(name) for name in OF_INPUTS}
        if own["highlight"]:
            raise InputError("highlight is for a search of one collection, not of several shards")
        if own["statistics"] is not None:
            raise InputError("a search of several shards counts documents itself: statistics= is for one collection")
        text, sparse = own["text"], _by_field(own["sparse"])
        if text is None and not sparse:
            raise InputError("give text or sparse: fusion, text_weights and fusion_depth are for them")
        is_single = _is_single(query, text, sparse)
        values: dict[str, Any] = {} if query is None else {VECTOR: np.atleast_2d(query)}
        if text is not None:
            if is_single != isinstance(text, str):
                raise InputError("text must be a string for one query, and a list of strings for a batch")
            values[TEXT] = [text] if isinstance(text, str) else list(text)
        n = len(next(iter(values.values()))) if values else 1 if is_single else _count(next(iter(sparse.values())))
        if wrong := [name for name, of in values.items() if len(of) != n]:
            raise InputError(f"there are {n} queries, and {len(values[wrong[0]])} of {wrong[0]}")
        if sparse:
            values[SPARSE] = {field: rows_of(of, n, "sparse", "queries") for field, of in sparse.items()}
        depth = own["fusion_depth"]
        depth = DEFAULT_DEPTH if depth is None else check_count("fusion_depth", depth, 1, MAX_K)
        fusion = check_fusion(own["fusion"], tuple(values))
        rest = {name: value for name, value in options.items() if name not in OF_INPUTS}
        return cls(n, values, is_single, fusion, depth, own["text_weights"], rest)

    def search(self, search: SearchAll, count: CountAll, k: int, offset: int, unique: bool) -> Hits | BatchHits:
        """Hits of all collections, with the scores of each input in ``parts``."""
        check_count("offset", offset, 0, MAX_K - check_count("k", k, 1, MAX_K))
        wanted = k + offset
        depth = wanted if len(self.values) == 1 else max(wanted, self.depth)
        found = {}
        for name in self.values:
            query, options = self._asked(name, count)
            found[name] = search(query, depth, unique=unique, **options, **self.options)
        hits = _fused(found, self.fusion, k, offset, unique)
        return hits[0] if self.is_single else hits

    def _asked(self, name: str, count: CountAll) -> tuple[Any, dict[str, Any]]:
        """The query and the options of a search by one input."""
        values = self.values[name]
        if name == VECTOR:
            return values, {}
        if name == TEXT:
            statistics = count(values, self.text_weights)
            return None, {"text": values, "text_weights": self.text_weights, "statistics": statistics}
        return None, {"sparse": values.get(None, values)}


def _by_field(value: Any) -> dict[str | None, Any]:
    """The sparse vectors for each field that a query names; None: it names none."""
    if value is None:
        return {}
    names_fields = isinstance(value, Mapping) and bool(value) and all(isinstance(name, str) for name in value)
    return dict(value) if names_fields and set(value) != {"ids", "weights"} else {None: value}


def _is_single(query: NDArray[Any] | None, text: Any, sparse: Mapping[str | None, Any]) -> bool:
    if query is not None:
        return query.ndim == 1
    if text is not None:
        return not isinstance(text, list | tuple)
    value = next(iter(sparse.values()))
    return bool(value.shape[0] == 1) if hasattr(value, "indptr") else not isinstance(value, list)


def _count(sparse: Any) -> int:
    return int(sparse.shape[0]) if hasattr(sparse, "indptr") else len(sparse)


def _fused(found: Mapping[str, BatchHits], fusion: Fusion, k: int, offset: int, unique: bool) -> BatchHits:
    """Fuse merged hits of each input, query by query."""
    first = next(iter(found.values()))
    n = len(first)
    missing: tuple[str, ...] | None = None
    if "missing" in first.included:
        missing = tuple(dict.fromkeys(name for hits in found.values() for name in hits.missing))
    made = [_Fused(found, fusion, query, k, offset, unique) for query in range(n)]
    ids = np.full((n, k), "" if first.ids.dtype == object else -1, first.ids.dtype)
    shards, scores = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
    parts = {name: np.full((n, k), np.nan, np.float32) for name in found}
    payloads = [[None] * k for _ in range(n)] if "payloads" in first.included else None
    vectors = None
    if "vectors" in first.included:
        vectors = np.zeros((n, k, first.vectors.shape[2]), first.vectors.dtype)
    for query, one in enumerate(made):
        for place, (score, (hits, at)) in enumerate(zip(one.scores.tolist(), one.places, strict=True)):
            ids[query, place], shards[query, place] = hits.ids[query, at], hits.shards[query, at]
            scores[query, place] = score
            if payloads is not None:
                payloads[query][place] = hits.payloads[query][at]
            if vectors is not None:
                vectors[query, place] = hits.vectors[query, at]
        for name, part in one.parts.items():
            parts[name][query, : len(part)] = part
    counts = np.array([len(one.places) for one in made], np.int64)
    extras = Extras(vectors, shards=shards, missing=missing, parts=parts)
    return BatchHits(ids, -scores, counts, payloads, 0.0, extras)


class _Fused:
    """The fused hits of one query: their scores, where each is in the lists, and their scores by input."""

    def __init__(
        self, found: Mapping[str, BatchHits], fusion: Fusion, query: int, k: int, offset: int, unique: bool
    ) -> None:
        numbers: dict[Any, int] = {}
        where: list[tuple[BatchHits, int]] = []
        lists: dict[str, Listed] = {}
        for name, hits in found.items():
            rows = []
            for at in range(int(hits.counts[query])):
                id, shard = hits.ids[query, at], int(hits.shards[query, at])
                key = id if unique else (shard, id)
                if key not in numbers:
                    numbers[key] = len(where)
                    where.append((hits, at))
                rows.append(numbers[key])
            lists[name] = np.array(rows, np.int64), hits.scores[query][: len(rows)]
        best, scores = fuse(lists, fusion, k + offset)
        self.scores: Float32Array = scores[offset:]
        self.places = [where[row] for row in best[offset:].tolist()]
        self.parts = {name: _scores_of(best[offset:], *listed) for name, listed in lists.items()}


def _scores_of(wanted: NDArray[np.int64], rows: NDArray[np.int64], scores: Float32Array) -> list[float]:
    known = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    return [known.get(row, float("nan")) for row in wanted.tolist()]
