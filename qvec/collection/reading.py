"""The calls of a collection that read: searches and stored records."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args, overload

from qvec.collection.handle import CollectionHandle
from qvec.common.errors import InputError
from qvec.common.types import (
    ArrayLike,
    Ids,
    Include,
    Missing,
    Where,
    check_choice,
)
from qvec.rows.lookup import id_array, ids_of_rows, live_rows
from qvec.rows.results import Records
from qvec.schema.validation import MAX_K, MAX_ROWS, as_ids, check_count, id_keys
from qvec.search.results import BatchHits, Hits

if TYPE_CHECKING:  # imported by the calls that need them, to keep `import qvec` fast
    from qvec.common.types import (
        Batch,
        Boost,
        GroupKeywords,
        HybridKeywords,
        ManyIds,
        Query,
        SearchKeywords,
        UnknownArray,
    )
    from qvec.text.statistics import TextStatistics

MAYBE_TEXTS = (str, list, tuple)  # a query of another type is an array: it is searched without a call of `_as_vectors`


class ReadableCollection(CollectionHandle):
    """The calls that search, and that return stored records."""

    # --- searching ---

    @overload
    def search(self, query: None = None, k: int = 10, **options: Unpack[HybridKeywords]) -> Any: ...
    @overload
    def search(self, query: str, k: int = 10, **options: Unpack[HybridKeywords]) -> Hits: ...
    @overload
    def search(self, query: list[str], k: int = 10, **options: Unpack[HybridKeywords]) -> BatchHits: ...
    @overload
    def search(self, query: UnknownArray, k: int = 10, **options: Unpack[HybridKeywords]) -> Any: ...
    @overload
    def search(self, query: Query, k: int = 10, **options: Unpack[HybridKeywords]) -> Hits: ...
    @overload
    def search(self, query: Batch, k: int = 10, **options: Unpack[HybridKeywords]) -> BatchHits: ...
    @overload
    def search(self, query: ArrayLike, k: int = 10, **options: Unpack[HybridKeywords]) -> Hits | BatchHits: ...
    def search(
        self,
        query: Any = None,
        k: int = 10,
        *,
        text: str | Sequence[str] | None = None,
        sparse: Any = None,
        fusion: Literal["rrf", "weighted"] | Mapping[str, float] | None = None,
        fusion_depth: int | None = None,
        text_weights: Mapping[str, float] | None = None,
        statistics: TextStatistics | None = None,
        highlight: bool = False,
        boost: Boost | None = None,
        where: Where | Sequence[Where | None] | None = None,
        ids_in: Any = None,
        include: Include = ("payloads",),
        max_distance: float | None = None,
        offset: int = 0,
        mmr: float | tuple[float, int] | None = None,
        ef: int | None = None,
        nprobe: int | None = None,
        oversample: float | Literal["auto"] = "auto",
        exact: bool = False,
        recall: float | None = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> Hits | BatchHits:
        """Find the k nearest neighbors of one query [dim] (returns Hits) or of a batch [n, dim] (returns BatchHits).

        query: a vector or vectors; or, if the collection was opened with ``embed=``, a text or a list of texts.
        where: find only vectors whose payload matches a filter on declared fields (docs/filters.md), such as
        ``{"lang": "en", "year": {"$gte": 2020}}``. For a batch also a list with a filter, or None, for each query.
        ids_in: find only vectors with one of these ids; or a 1-D array of booleans, in which element i tells whether
        the vector with the integer id i may be found. Both ``where`` and ``ids_in`` must match.
        include: what hits include: "payloads", "vectors", "explanation" (counts and times of the search).
        max_distance: return only hits at this distance or nearer, in the unit of the metric (l2: squared); at most k.
        offset: skip the nearest ``offset`` hits, for the next page.
        mmr: select k diverse hits by maximal marginal relevance. The weight is from 0 (only the distance from already
        selected hits counts) to 1 (only the distance from the query counts). ``(weight, n)`` selects from the n
        nearest; default: 5 k, at least 20.

        ef: size of the candidate list of a graph walk. nprobe: number of inverted lists to scan; default: the square
        root of their number. Larger values are slower and find more. Each option is refused if the index is of the
        other kind; a scan ignores ef.
        oversample: candidates per hit that are re-ranked with the originals; 0: none; "auto": as many as the code
        needs, but at most a given ``ef``.
        recall: use the cheapest search that has reached this recall in the measurements of :meth:`tune`, instead of the
        options above. exact: score every original.
        threads: number of threads for a batch; default, one for each core.
        timeout: seconds after which the search raises SearchTimeoutError, at most a few milliseconds late.

        text, sparse: search by these, alone or together with ``query``; hits then have scores (``distances`` are minus
        the scores) and ``parts``, their score by each input. text: a string, searched in all text fields by BM25; a
        list for a batch. sparse: a dict of ids and weights, a pair of arrays, or CSR rows; ``{"field": ...}`` if there
        are several sparse fields. Rows without a term of the text, or an id of the sparse vector, are not listed.
        fusion: how the lists of several inputs are joined: "rrf" (reciprocal ranks), "weighted" (scaled scores), or the
        weights of scaled scores, ``{"vector": 0.6, "text": 0.4}``. fusion_depth: length of the lists; default: 100.
        text_weights: of text fields, 1 if not named. highlight: find the words of the text in the hits' payloads.
        boost: ``{"field": ("decay", "7d")}`` prefers recent hits: the scores of the ``fusion_depth`` best, scaled from
        0 to 1, are averaged with 2^(-age / half-life) of a datetime field; ``("decay", "7d", 0.2)`` has another weight
        than 0.5. ``parts`` then has "decay".
        statistics: document counts of several collections, for comparable scores (:meth:`text_statistics`).

        If there are fewer than k vectors, all are returned, and the arrays are padded (:class:`Hits`).
        """
        options = (k, include, max_distance, offset, mmr, None, 1, ef, nprobe, oversample, exact, recall)
        plain = text is None and sparse is None and fusion is None and fusion_depth is None and text_weights is None
        if plain and statistics is None and highlight is False and boost is None and query is not None:
            if where is None and ids_in is None and threads is None and timeout is None:
                hits: Hits | None = self._search_prepared(query, options)
                if hits is not None:
                    return hits
            else:
                self._store.searches += 1
            q = self._as_vectors(query) if isinstance(query, MAYBE_TEXTS) else query
            return self._searches.search(q, options, where, ids_in, threads, timeout)
        given = text, sparse, fusion, fusion_depth, text_weights, highlight, statistics, boost
        return self._searches.search_inputs(self._as_vectors(query), options, given, where, ids_in, threads, timeout)

    @overload
    def search_by_id(self, ids: int | str, k: int = 10, **options: Unpack[SearchKeywords]) -> Hits: ...
    @overload
    def search_by_id(self, ids: ManyIds, k: int = 10, **options: Unpack[SearchKeywords]) -> BatchHits: ...
    def search_by_id(
        self,
        ids: Any,
        k: int = 10,
        *,
        where: Where | Sequence[Where | None] | None = None,
        ids_in: Any = None,
        include: Include = ("payloads",),
        max_distance: float | None = None,
        offset: int = 0,
        mmr: float | tuple[float, int] | None = None,
        ef: int | None = None,
        nprobe: int | None = None,
        oversample: float | Literal["auto"] = "auto",
        exact: bool = False,
        recall: float | None = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> Hits | BatchHits:
        """Find the k nearest neighbors of a stored vector (returns Hits) or of several (returns BatchHits).

        A vector is not its own neighbor. Options are as in :meth:`search`. Raises MissingIdError.
        """
        options = (k, include, max_distance, offset, mmr, None, 1, ef, nprobe, oversample, exact, recall)
        return self._searches.search_by_id(ids, options, where, ids_in, threads, timeout)

    @overload
    def search_groups(self, query: None = None, k: int = 10, **options: Unpack[GroupKeywords]) -> Any: ...
    @overload
    def search_groups(self, query: UnknownArray, k: int = 10, **options: Unpack[GroupKeywords]) -> Any: ...
    @overload
    def search_groups(self, query: Query, k: int = 10, **options: Unpack[GroupKeywords]) -> Hits: ...
    @overload
    def search_groups(self, query: Batch, k: int = 10, **options: Unpack[GroupKeywords]) -> BatchHits: ...
    @overload
    def search_groups(self, query: ArrayLike, k: int = 10, **options: Unpack[GroupKeywords]) -> Hits | BatchHits: ...
    def search_groups(
        self,
        query: Any = None,
        k: int = 10,
        *,
        group_by: str,
        group_size: int = 1,
        text: str | Sequence[str] | None = None,
        sparse: Any = None,
        fusion: Literal["rrf", "weighted"] | Mapping[str, float] | None = None,
        fusion_depth: int | None = None,
        text_weights: Mapping[str, float] | None = None,
        highlight: bool = False,
        boost: Boost | None = None,
        where: Where | Sequence[Where | None] | None = None,
        ids_in: Any = None,
        include: Include = ("payloads",),
        max_distance: float | None = None,
        offset: int = 0,
        ef: int | None = None,
        nprobe: int | None = None,
        oversample: float | Literal["auto"] = "auto",
        exact: bool = False,
        recall: float | None = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> Hits | BatchHits:
        """Find the nearest k groups of vectors with the same value of a field, with ``group_size`` nearest vectors
        each.

        group_by: a declared field with single values. ``k`` and ``offset`` count groups. The result has length
        k * group_size, and groups are ordered by their nearest vectors; ``groups`` contains the value of each hit's
        group. A vector without a value belongs to no group. Other options are as in :meth:`search`.
        """
        if not isinstance(group_by, str):
            raise InputError(f"group_by must be the name of a declared field, got {group_by!r}")
        groups = group_by, group_size
        options = (k, include, max_distance, offset, None, *groups, ef, nprobe, oversample, exact, recall)
        plain = text is None and sparse is None and fusion is None and fusion_depth is None and text_weights is None
        if plain and highlight is False and boost is None and query is not None:
            self._store.searches += 1
            q = self._as_vectors(query) if isinstance(query, MAYBE_TEXTS) else query
            return self._searches.search(q, options, where, ids_in, threads, timeout)
        given = text, sparse, fusion, fusion_depth, text_weights, highlight, None, boost
        return self._searches.search_inputs(self._as_vectors(query), options, given, where, ids_in, threads, timeout)

    # --- reading ---

    def get(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        limit: int | None = None,
        offset: int = 0,
        order_by: str | tuple[str, Literal["asc", "desc"]] | None = None,
        missing: Missing = "error",
    ) -> Records:
        """Return stored vectors and payloads: of the given ids, in this order, or of rows that match a filter, in row
        order or in that of a field.

        order_by: a declared field with single values; with ``("year", "desc")`` the largest values are first. Rows
        without a value are last, and rows with equal values are in row order.
        limit, offset: skip the first ``offset`` vectors that match the filter, and return at most ``limit``.
        missing: "error" raises MissingIdError naming the first id that is not stored, "ignore" skips such ids.
        """
        check_choice("missing", missing, get_args(Missing))
        if (ids is None) == (where is None):
            raise InputError("give either ids or where")
        start = check_count("offset", offset, 0, MAX_ROWS)
        stop = MAX_ROWS if limit is None else start + check_count("limit", limit, 0, MAX_ROWS)
        with self._reading() as snap:
            reader = self._access.reader(snap)
            if where is None:
                if start or limit is not None or order_by is not None:
                    raise InputError("limit, offset and order_by need where; they cannot be combined with ids")
                return reader.by_ids(ids, missing)
            from qvec.search.facets import ordered_rows

            return reader.by_rows(ordered_rows(snap, where, order_by)[start:stop])

    def scan(self, batch_size: int = 8192, *, where: Where | None = None) -> Generator[Records, None, None]:
        """Yield all vectors, or those that match a filter, in batches, from the commit that was the last at the first
        step.

        Close the iterator to end the scan early.
        """
        from qvec.search.row_selection import scan

        size = check_count("batch_size", batch_size, 1, MAX_K)
        yield from scan(self._store, self._access, self._visibility, where, size)

    def ids(self) -> Ids:
        """The ids of all stored vectors, oldest first: int64 [n], or [n] of str."""
        with self._reading() as snap:
            rows = live_rows(snap)
            return ids_of_rows(snap, rows) if len(rows) else id_array(as_ids([], self._config.ids))

    def text_statistics(
        self, texts: Sequence[str], *, text_weights: Mapping[str, float] | None = None
    ) -> TextStatistics:
        """The counts of documents that the scores of some texts depend on.

        Sets of shards add up those of all shards (``TextStatistics.sum``) and search each with ``statistics=``.
        text_weights: of the search. Raises InputError without a text field.
        """
        from qvec.search.inputs import statistics_of

        with self._store.read() as snap:
            return statistics_of(snap, texts, text_weights)

    def count(self, where: Where | None = None) -> int:
        """Return the number of stored vectors, or of those that match a filter; see :meth:`search` for ``where``."""
        if where is None:
            return len(self)
        from qvec.search.row_selection import selector_of

        with self._reading() as snap:
            return selector_of(snap).select(snap, where, None, self._config.ids).count

    def facets(self, field: str, *, where: Where | None = None, limit: int | None = None) -> dict[Any, int]:
        """Return the number of stored vectors by value of a declared field, the most frequent values first.

        where: count only vectors that match a filter. limit: the number of values; default: all. Equal counts are in
        the order of the values' keys. A vector with a list of values counts for each of them, and one without a value
        for none. Values are those of payloads; datetimes are in UTC.

        Raises InputError for a field that is not declared, and for a text or sparse field.
        """
        from qvec.search.facets import facets

        most = None if limit is None else check_count("limit", limit, 1, MAX_ROWS)
        with self._reading() as snap:
            return facets(snap, field, where, most)

    def __contains__(self, id: object) -> bool:
        scalar = getattr(id, "ndim", None) == 0 or hasattr(id, "as_py")
        try:
            key = id_keys(as_ids(id if scalar else [id], self._config.ids))[0]
        except InputError:
            return False
        with self._reading() as snap:
            return snap.row_of(key) is not None

    def _as_vectors(self, query: Any) -> Any:
        """Embed a query that is a text, or a list of texts."""
        if not isinstance(query, MAYBE_TEXTS):
            return query
        from qvec.collection.embedding import query_vectors

        return query_vectors(self._embedding, query)
