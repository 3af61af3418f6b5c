"""Hits of a search: arrays, sequences of hits, lists, tables and text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from qvec._kernels import ResultArrays
from qvec.common.errors import InputError
from qvec.common.tables import SHOWN_ROWS, first_lines, short_text
from qvec.common.types import Float32Array, Ids, Int64Array, NDArray, Payload

if TYPE_CHECKING:
    from qvec.search.explain import Explanation

T = TypeVar("T")

SHOWN_QUERIES = 5  # of a repr
HOW_TO_INCLUDE = {
    "payloads": 'search with include=("payloads",)',
    "vectors": 'search with include=("vectors",)',
    "explanation": 'search with include=("explanation",)',
    "groups": "use search_groups()",
    "shards": "search a ShardedIndex",
    "missing": "search a set of shards (qvec.shards)",
    "parts": "search with text= or sparse=",
    "highlights": "search with text= and highlight=True",
}


@dataclass(slots=True)
class Extras:
    """Parts of a result that few searches include; None: not included. Shapes are as in :class:`Hits` or
    :class:`BatchHits`."""

    vectors: NDArray[Any] | None = None
    explanation: Explanation | None = None
    groups: list[Any] | None = None
    shards: Int64Array | None = None
    missing: tuple[str, ...] | None = None
    parts: Mapping[str, Float32Array] | None = None
    highlights: list[Any] | None = None

    def row(self, query: int) -> Extras:
        """Return the extras of one query of a batch."""
        vectors, groups, shards, highlights = (
            None if part is None else part[query] for part in (self.vectors, self.groups, self.shards, self.highlights)
        )
        parts = None if self.parts is None else {name: scores[query] for name, scores in self.parts.items()}
        return Extras(vectors, self.explanation, groups, shards, self.missing, parts, highlights)


NO_EXTRAS = Extras()


class SearchResult(ResultArrays):
    """The arrays of :class:`Hits` and :class:`BatchHits`. Reading an attribute that is not included raises InputError.

    ``ids``: int64 or str, shape (k,) or (n, k); -1 or "" at positions without a hit. ``distances``: float32 of the same
    shape, ascending: squared Euclidean (l2), ``-dot`` (ip), ``1 - cos`` (cosine); infinite at positions without a hit.
    ``zero_score``: the score at distance 0, which is 1 under cosine and else 0.
    """

    __slots__ = ()

    ids: Ids
    distances: Float32Array
    _payloads: list[Any] | None
    _extras: Extras

    def __init__(
        self,
        ids: Ids,
        distances: Float32Array,
        counts: Any,
        payloads: list[Any] | None = None,
        zero_score: float = 0.0,
        extras: Extras = NO_EXTRAS,
    ) -> None:
        self.ids, self.distances, self.zero_score = ids, distances, zero_score
        self._counts, self._payloads, self._extras = counts, payloads, extras

    @property
    def scores(self) -> Float32Array:
        """float32, shape of ``ids``, descending: ``-distance`` (l2), dot (ip), cos (cosine)."""
        return np.float32(self.zero_score) - self.distances

    @property
    def vectors(self) -> NDArray[Any]:
        """The vectors of the hits, as in :class:`Records`: shape (k, dim) or (n, k, dim), zeros without a hit."""
        return _included("vectors", self._extras.vectors)

    @property
    def shards(self) -> Int64Array:
        """int64, shape of ``ids``: the number of the shard that contains each hit, -1 without a hit."""
        return _included("shards", self._extras.shards)

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the shards that should have answered this search and did not; empty unless ``partial=True``."""
        return _included("missing", self._extras.missing)

    @property
    def parts(self) -> Mapping[str, Float32Array]:
        """The scores of each input ("vector", "text", "sparse"), and "decay" with ``boost``: float32, shape of ``ids``;
        NaN for hits that the input did not list, and in places without a hit."""
        return _included("parts", self._extras.parts)

    @property
    def highlights(self) -> list[Any]:
        """For each hit, by text field, the positions, from and to, of the words of the query in the payload's text."""
        return _included("highlights", self._extras.highlights)

    @property
    def explanation(self) -> Explanation:
        """How the hits of the whole call were found."""
        return _included("explanation", self._extras.explanation)

    @property
    def included(self) -> tuple[str, ...]:
        """The names of those attributes in HOW_TO_INCLUDE that this search included."""
        parts = {"payloads": self._payloads} | {name: getattr(self._extras, name) for name in Extras.__slots__}
        return tuple(name for name in HOW_TO_INCLUDE if parts[name] is not None)

    def arrays(self) -> tuple[Ids, Float32Array]:
        """``ids`` and ``distances``."""
        return self.ids, self.distances

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row for each hit (extra ``pandas``).

        Columns: ``query`` (of a batch) and ``rank``, both from 0, ``id``, ``distance``, ``score``, ``vector`` if
        included, and one for each payload key, called ``payload.KEY`` if its name is taken.
        """
        from qvec.common.tables import data_frame

        columns, payloads = self._columns()
        if "vector" in columns:
            columns["vector"] = list(columns["vector"])
        return data_frame(columns, payloads)

    def to_arrow(self) -> Any:
        """A pyarrow.Table with a row for each hit (extra ``arrow``), with the columns of :meth:`to_pandas`.

        A payload key has a column if all its values are of one type; other values are JSON in the column ``payload``.
        """
        from qvec.common.tables import arrow_table, vector_array

        columns, payloads = self._columns()
        columns["id"] = columns["id"].tolist()
        if "vector" in columns:
            columns["vector"] = vector_array(columns["vector"])
        return arrow_table(columns, columns["id"], payloads)

    @abstractmethod
    def _rows(self) -> Sequence[Hits]:
        """The hits of each query."""

    def _columns(self) -> tuple[dict[str, Any], list[Payload | None] | None]:
        """Columns of the hits of all queries, and their payloads."""
        found = np.asarray(np.arange(self.ids.shape[-1]) < np.asarray(self._counts)[..., None])
        places = np.argwhere(found)
        columns: dict[str, Any] = dict(zip(("query", "rank")[2 - places.shape[1] :], places.T, strict=True))
        columns |= {"id": self.ids[found], "distance": self.distances[found], "score": self.scores[found]}
        if self._extras.vectors is not None:
            columns["vector"] = self._extras.vectors[found]
        if self._payloads is None:
            return columns, None
        return columns, [payload for hits in self._rows() for payload in hits.payloads[: len(hits)]]


class Hit:
    """A vector that a search found. ``payload``, ``vector``, ``group`` and ``shard`` raise InputError if not included.

    ``id``: int or str. ``distance``, ``score``: as in :class:`Hits`.
    """

    __slots__ = ("_hits", "_rank")

    def __init__(self, hits: Hits, rank: int) -> None:
        self._hits, self._rank = hits, rank

    @property
    def id(self) -> Any:
        """The id of the vector, int or str."""
        return self._hits.ids.item(self._rank)

    @property
    def distance(self) -> float:
        """The distance from the query."""
        return float(self._hits.distances[self._rank])

    @property
    def score(self) -> float:
        """The score: higher is nearer."""
        return float(np.float32(self._hits.zero_score) - self._hits.distances[self._rank])

    @property
    def payload(self) -> Payload | None:
        """The payload of the vector; None if it has none."""
        return self._hits.payloads[self._rank]

    @property
    def vector(self) -> NDArray[Any]:
        """The vector, shape (dim,)."""
        vector: NDArray[Any] = self._hits.vectors[self._rank]
        return vector

    @property
    def group(self) -> Any:
        """The value of the grouping field."""
        return self._hits.groups[self._rank]

    @property
    def shard(self) -> int:
        """The number of the shard that contains the hit."""
        return int(self._hits.shards[self._rank])

    @property
    def parts(self) -> dict[str, float | None]:
        """The score of each input of the search; None if the input did not list the hit."""
        scores = {name: float(values[self._rank]) for name, values in self._hits.parts.items()}
        return {name: None if score != score else score for name, score in scores.items()}

    @property
    def highlights(self) -> dict[str, list[tuple[int, int]]]:
        """By text field, the positions, from and to, of the words of the query in the payload's text."""
        found: dict[str, list[tuple[int, int]]] = self._hits.highlights[self._rank]
        return found

    def __repr__(self) -> str:
        payload = f", payload={short_text(self.payload)}" if "payloads" in self._hits.included else ""
        return f"<qvec.Hit id={self.id!r} distance={self.distance:.6g} score={self.score:.6g}{payload}>"


class Hits(SearchResult, Sequence[Hit]):
    """The hits of one query, nearest first: a sequence of :class:`Hit`, and arrays of length k.

    ``len(hits)`` is the number of found hits, which may be less than k. The arrays always have length k; if fewer hits
    were found, the last elements are without a hit (see :class:`SearchResult`). With ``mmr``, hits are in the order of
    their selection. Grouped hits are in the order of the groups.
    """

    __slots__ = ()

    @property
    def counts(self) -> int:
        """The number of hits that were found."""
        return int(self._counts)

    @property
    def payloads(self) -> list[Payload | None]:
        """k payloads, in the order of ``ids``. None for a vector without a payload, and where there is no hit."""
        return _included("payloads", self._payloads)

    @property
    def groups(self) -> list[Any]:
        """k values of the grouping field, in the order of ``ids``. None where there is no hit."""
        return _included("groups", self._extras.groups)

    def __len__(self) -> int:
        return int(self._counts)

    @overload
    def __getitem__(self, rank: int) -> Hit: ...
    @overload
    def __getitem__(self, rank: slice) -> list[Hit]: ...
    def __getitem__(self, rank: int | slice) -> Hit | list[Hit]:
        places = range(int(self._counts))[rank]
        return Hit(self, places) if isinstance(places, int) else [Hit(self, place) for place in places]

    def to_list(self) -> list[dict[str, Any]]:
        """Each hit as a dict of id, distance, score and, if included, payload, vector, group and shard."""
        n = len(self)
        columns: dict[str, Any] = {"id": self.ids, "distance": self.distances, "score": self.scores}
        columns = {name: values[:n].tolist() for name, values in columns.items()}
        extras = self._extras
        shards = None if extras.shards is None else extras.shards.tolist()
        parts = {"payload": self._payloads, "group": extras.groups, "vector": extras.vectors, "shard": shards}
        columns |= {name: list(values[:n]) for name, values in parts.items() if values is not None}
        if extras.parts is not None:
            columns["parts"] = [hit.parts for hit in self]
        if extras.highlights is not None:
            columns["highlights"] = extras.highlights[:n]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def __repr__(self) -> str:
        payloads = self._payloads or [None] * len(self)
        lines = [
            f"  {id}  {distance:.6g}  {short_text(payload)}".rstrip()
            for id, distance, payload, _ in zip(self.ids, self.distances, payloads, range(len(self)), strict=False)
        ]
        return "\n".join((f"<qvec.Hits: {len(self)} of k={len(self.ids)}>", *first_lines(lines, SHOWN_ROWS)))

    def _repr_html_(self) -> str:
        from qvec.common.tables import html_table

        rows = [
            (hit.id, f"{hit.distance:.6g}", short_text(self._payload_at(i))) for i, hit in enumerate(self[:SHOWN_ROWS])
        ]
        note = f"{len(self) - SHOWN_ROWS} more" if len(self) > SHOWN_ROWS else ""
        return html_table(f"{len(self)} hits of k={len(self.ids)}", ("id", "distance", "payload"), rows, note)

    def _payload_at(self, rank: int) -> Payload | None:
        return None if self._payloads is None else self._payloads[rank]

    def _rows(self) -> Sequence[Hits]:
        return (self,)


class BatchHits(SearchResult, Sequence[Hits]):
    """The hits of a batch of n queries: a sequence of n :class:`Hits`, and arrays of shape (n, k)."""

    __slots__ = ()

    @property
    def counts(self) -> Int64Array:
        """The number of hits that each query found, int64 (n,)."""
        counts: Int64Array = self._counts
        return counts

    @property
    def payloads(self) -> list[list[Payload | None]]:
        """For each query k payloads, as in :class:`Hits`."""
        return _included("payloads", self._payloads)

    @property
    def groups(self) -> list[list[Any]]:
        """For each query k values of the grouping field, as in :class:`Hits`."""
        return _included("groups", self._extras.groups)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, query: int) -> Hits: ...
    @overload
    def __getitem__(self, query: slice) -> list[Hits]: ...
    def __getitem__(self, query: int | slice) -> Hits | list[Hits]:
        if isinstance(query, slice):
            return [self[i] for i in range(len(self))[query]]
        payloads, extras = self._payloads, self._extras
        return Hits(
            self.ids[query],
            self.distances[query],
            self._counts[query],
            None if payloads is None else payloads[query],
            self.zero_score,
            extras if extras is NO_EXTRAS else extras.row(query),
        )

    def to_list(self) -> list[list[dict[str, Any]]]:
        """Return for each query a list, as :meth:`Hits.to_list` does."""
        return [hits.to_list() for hits in self]

    def __repr__(self) -> str:
        found = self._counts
        span = f"{found.min()} to {found.max()}" if len(self) else "0"
        lists = [
            f"  {i}: {', '.join(map(str, ids[: min(count, SHOWN_ROWS)]))}{', ...' if count > SHOWN_ROWS else ''}"
            for i, (ids, count) in enumerate(zip(self.ids.tolist(), found.tolist(), strict=True))
        ]
        head = f"<qvec.BatchHits of {len(self)} queries: {span} of k={self.ids.shape[1]}>"
        return "\n".join((head, *first_lines(lists, SHOWN_QUERIES)))

    def _repr_html_(self) -> str:
        from qvec.common.tables import html_table

        rows = [
            (i, hits.counts, ", ".join(map(str, hits.ids[: min(len(hits), SHOWN_ROWS)])))
            for i, hits in enumerate(self[:SHOWN_QUERIES])
        ]
        note = f"{len(self) - SHOWN_QUERIES} more queries" if len(self) > SHOWN_QUERIES else ""
        return html_table(f"Hits of {len(self)} queries", ("query", "hits", "nearest ids"), rows, note)

    def _rows(self) -> Sequence[Hits]:
        return self


def _included(name: str, value: T | None) -> T:
    """Return a part of a result. If it is None, raise InputError, which says how to include it."""
    if value is None:
        raise InputError(f"the hits have no {name}: {HOW_TO_INCLUDE[name]}")
    return value
