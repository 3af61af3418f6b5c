"""The collection: one file of vectors, their codes, an index and payloads, behind the public calls."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

import numpy as np

from qvec.collection.deleting import Deleting
from qvec.collection.handle import worker_threads
from qvec.collection.measuring import SAMPLED_CALLS
from qvec.common.errors import InputError
from qvec.common.types import (
    ArrayLike,
    Float32Array,
    Include,
    Missing,
    OnConflict,
    Payload,
    Where,
    check_choice,
    check_flag,
)
from qvec.index import Progress
from qvec.rows.reader import id_array
from qvec.rows.results import AddResult, Records
from qvec.schema.validation import (
    MAX_K,
    MAX_ROWS,
    as_ids,
    as_payloads,
    as_searched,
    as_stored,
    check_count,
    check_unique,
    id_keys,
)
from qvec.search.curves import outdated
from qvec.search.hits import HitMaker
from qvec.search.options import SearchOptions, search_options
from qvec.search.results import Hits
from qvec.search.search import keep_ready, run_search
from qvec.storage.store import Snapshot, Store

if TYPE_CHECKING:
    from qvec.quality.drift import OnDrift
    from qvec.search.grouping import Grouping
    from qvec.search.row_selection import Selected


NOTHING_ASKED = (None, 0, None, None, None, 1)  # max_distance, offset, mmr, fetch_k, group_by, group_size


class Collection(Deleting):
    """Vectors of one dimension under one metric. Made by :func:`qvec.create` and :func:`qvec.open`.

    Any number of threads and processes may search while one handle writes; a search sees the last commit, whole.
    """

    def __init__(self, store: Store, on_drift: OnDrift = None) -> None:
        super().__init__(store, on_drift)
        self._hits = HitMaker(self._config.ids, self._config.metric)

    # --- writing ---

    def add(
        self,
        vectors: ArrayLike,
        ids: Any = None,
        payload: Sequence[Payload | None] | Payload | None = None,
        *,
        on_conflict: OnConflict = "error",
        progress: Progress | None = None,
        threads: int | None = None,
        model: str | None = None,
    ) -> AddResult:
        """Store a batch, all of it or nothing; durable when the call returns.

        vectors: array-like [n, dim] or [dim] of real numbers, finite, at most 1e18 in magnitude; in a collection
        of :class:`qvec.Prequantized` codes, integers in that form.
        ids: n integers in [0, 2^63) or n strings, as the collection was created for; None numbers them on.
        payload: a dict (or None) a vector, of msgpack-able values.
        on_conflict: what to do where an id is stored already: "error", "skip" or "replace".
        progress: called with (done, total) rows while an index is built. threads: default, all cores.
        model: the tag of the vectors' model; refused where it is not the collection's.

        Raises InputError (also a ValueError) naming the row and the limit, DuplicateIdError, ReadOnlyError,
        DiskFullError; nothing was written then.
        """
        config = self._config
        self._check_model(model)
        check_choice("on_conflict", on_conflict, ("error", "skip", "replace"))
        x = as_stored("vectors", vectors, config.dim, config.metric, config.form)
        checked = None if ids is None else as_ids(ids, config.ids)
        if checked is not None:
            if len(checked) != len(x):
                raise InputError(f"{len(checked)} ids for {len(x)} vectors: give one a vector")
            check_unique(checked)
        payloads = as_payloads(payload, len(x))
        workers = worker_threads(threads)
        with self._store.write() as txn:
            writer = self._writer(txn)
            untrained = writer.quantizer is None
            stored, added, replaced, skipped = writer.add(x, checked, payloads, on_conflict, workers, progress)
            drift = self._check_drift(txn, untrained, x)
            due, untuned = replaced > 0 and writer.is_mending_due, outdated(txn.state)
        if due:
            self._maintenance.mend(replaced, workers)
        self._announce(drift)
        if untuned:
            self._keep_tuned(threads)
        return AddResult(id_array(stored), added, replaced, skipped)

    def upsert(
        self,
        vectors: ArrayLike,
        ids: Any,
        payload: Sequence[Payload | None] | Payload | None = None,
        *,
        progress: Progress | None = None,
        threads: int | None = None,
        model: str | None = None,
    ) -> AddResult:
        """Add, replacing the vectors whose ids are stored already; see :meth:`add`."""
        return self.add(vectors, ids, payload, on_conflict="replace", progress=progress, threads=threads, model=model)

    # --- several calls together ---

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Self]:
        """All that this thread changes inside the ``with`` block becomes visible together at its end, or never.

        An exception that leaves the block undoes everything, and so does the death of the process. Reading and
        searching inside it see what it has written; other threads and processes see the last commit, and wait to write.
        Blocks inside a block are parts of it. What it changes is held in memory until its end.

        Raises ReadOnlyError, and AbortedError where an exception was caught after a call or a block inside had
        failed half-way: then everything is undone too.
        """
        with self._store.transaction():
            yield self

    def snapshot(self) -> Collection:
        """The collection as of now, to read as often as one likes while others write: ``with db.snapshot() as s: ...``

        It answers every call that reads, from any thread; those that write raise ReadOnlyError. Close it soon: pages
        that it may read are not used again before, and the file grows (:meth:`stats` tells).
        """
        from qvec.storage.snapshot_store import PinnedStore

        if self._store.in_transaction:
            raise InputError("a snapshot is of a commit; what a transaction writes is none before its end")
        return Collection(cast(Store, PinnedStore(self._store)))

    # --- searching ---

    def search(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        *,
        id: Any = None,
        max_distance: float | None = None,
        offset: int = 0,
        mmr: float | None = None,
        fetch_k: int | None = None,
        include: Include = ("payload",),
        where: Where | Sequence[Where | None] | None = None,
        ids_in: Any = None,
        group_by: str | None = None,
        group_size: int = 1,
        explain: bool = False,
        ef: int | None = None,
        nprobe: int | None = None,
        oversample: float | Literal["auto"] = "auto",
        rescore: bool | Literal["auto"] = "auto",
        exact: bool = False,
        threads: int | None = None,
        model: str | None = None,
        recall: float | None = None,
    ) -> Hits:
        """The k nearest neighbors of one query (1-D in, 1-D out) or of a batch (2-D in, 2-D out).

        id: look for the neighbors of a stored vector (1-D out) or of several (2-D out) instead of ``queries``; a
        vector is not its own neighbor.
        max_distance: only hits at this distance or nearer, in the metric's own measure (l2: squared); at most k.
        offset: leave out the nearest ``offset`` hits: the next page.
        mmr: choose k of the ``fetch_k`` nearest (default: 5 k, 20 at least) by maximal marginal relevance: 1 weighs
        nothing but nearness to the query, 0 nothing but distance from the hits chosen before.
        include: what hits bring along: "payload", "vector". explain: and how they were found, as ``explanation``.

        where: only vectors whose payload fulfils a filter on declared fields (docs/filters.md), as in
        ``{"lang": "en", "year": {"$gte": 2020}}``. ids_in: only vectors with one of these ids; or, as a 1-D array of
        booleans, whether each integer id may be found. With both, both must hold. A list of filters: one for each query
        of the batch, None for none.
        group_by: a declared field; k (and ``offset``) count groups of vectors that hold the same value, nearest group
        first, and each brings its ``group_size`` nearest: k * group_size places, whose values ``groups`` gives.

        ef: candidates a graph walk keeps; nprobe: inverted lists that are scanned, 1 to all (default: the root of their
        number); more is slower and finds more. Each is refused where the index is of the other kind; a scan, which an
        "auto" collection begins with, has no use for ef. oversample: candidates re-ranked per hit;
        "auto": what the code needs, of a given ``ef`` all at most.
        rescore: whether candidates are re-ranked with the stored originals; "auto": where there are any.
        recall: in place of these, the share of the true neighbors to find: the cheapest search that :meth:`tune`
        measured to reach it.
        exact: score every original instead. threads: for a batch; default, all cores. model: the tag of the
        queries' model; refused where it is not the collection's.
        Fewer than k vectors stored: what there is, padded as :class:`Hits` says.
        """
        given = (k, ef, nprobe, oversample, rescore, exact, include, recall, id, max_distance, offset, mmr, fetch_k, group_by,
                 group_size, explain, where, ids_in, threads, model)  # fmt: skip
        self._asked += 1
        found = self._store.quick(queries, given) if self._asked % SAMPLED_CALLS else None
        if found is not None:
            return Hits(*found)
        config = self._config
        if model is not None:
            self._check_model(model)
        if (queries is None) == (id is None):
            raise InputError("give either queries or the id of a stored vector")
        options = search_options(k, ef, nprobe, oversample, rescore, exact, include, recall)
        asked = max_distance, offset, mmr, fetch_k, group_by, group_size
        beyond = asked != NOTHING_ASKED or id is not None or explain or options.vectors
        if beyond or isinstance(where, (list, tuple)):
            return self._search_beyond(queries, id, options, asked, threads, explain, where, ids_in)
        q = as_searched(queries, config.dim, config.metric, config.form)
        if (q.ndim == 2 or not self._asked % SAMPLED_CALLS) and config.form is None:
            self._queries.take(q)
        workers = 1 if threads is None and q.ndim == 1 else worker_threads(threads)
        snap = self._store.begin()
        try:
            engine = snap.derived.get("engine") or self._make_engine(snap)
            selected = None
            if where is not None or ids_in is not None:
                selected = self._select(snap, cast("Where | None", where), ids_in)
                engine = engine if selected.count else None
            if engine is None:
                return self._hits.none((*q.shape[:-1], options.k), options.payloads)
            if q is queries and q.ndim == 1 and selected is None and type(include) is tuple:
                keep_ready(snap, engine, self._hits, options, given)
            return run_search(snap, engine, self._hits, q, options, workers, selected)
        finally:
            self._store.end(snap)

    def _search_beyond(
        self,
        queries: Any,
        id: Any,
        options: SearchOptions,
        asked: tuple[Any, ...],
        threads: int | None,
        explain: bool,
        where: Where | Sequence[Where | None] | None,
        ids_in: Any,
    ) -> Hits:
        """A search for something else than the nearest k."""
        from qvec.search.pipeline import Request, run_request  # late: seldom, and a tenth of the import's time
        from qvec.search.refine import refinement

        config = self._config
        check_flag("explain", explain)
        *wanted, group_by, group_size = asked
        refined = refinement(options.k, config.metric, *wanted)
        with self._store.read() as snap:
            reader, own = self._reader(snap), None
            if id is not None:
                own = reader.rows(id)
                queries = reader.vectors(own)
                queries = queries[0] if np.ndim(id) == 0 else queries
            q = as_searched(queries, config.dim, config.metric, config.form)
            workers = 1 if threads is None and q.ndim == 1 else worker_threads(threads)
            engine = snap.derived.get("engine") or self._make_engine(snap)
            filters = _filters(where, q)
            selected = None
            if where is not None or ids_in is not None:
                selected = [self._select(snap, one, ids_in, name) for name, one in filters]
            by = self._grouping(snap, group_by, group_size, options.k, refined.mmr)

            def select(query: int, condition: dict[str, Any]) -> Selected:
                both = [part for part in (filters[query][1], condition) if part]
                return self._select(snap, {"$and": both}, ids_in)

            request = Request(q, options, refined, workers, own, explain, selected, by, select)
            return run_request(reader, engine, self._hits, request)

    def _grouping(self, snap: Snapshot, name: Any, size: Any, k: int, mmr: float | None) -> Grouping | None:
        from qvec.filters.schema import stored_schema
        from qvec.search.grouping import grouping

        if name is None:
            if size != 1:
                raise InputError("group_size is how many hits each group has: give group_by too")
            return None
        if mmr is not None:
            raise InputError("mmr chooses among single hits, group_by among groups: give one or the other")
        return grouping(name, size, k, stored_schema(snap.state))

    def get(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        limit: int | None = None,
        offset: int = 0,
        missing: Missing = "error",
    ) -> Records:
        """Stored vectors and payloads: of ids, in the order asked for, or of what fulfils a filter, oldest first.

        limit, offset: of what fulfils the filter, leave out the first ``offset`` and give at most ``limit``.
        missing: what to do with an id that is not stored: MissingIdError, which names the first, or nothing ("ignore").
        """
        check_choice("missing", missing, get_args(Missing))
        if (ids is None) == (where is None):
            raise InputError("give either ids or where")
        start = check_count("offset", offset, 0, MAX_ROWS)
        stop = MAX_ROWS if limit is None else start + check_count("limit", limit, 0, MAX_ROWS)
        with self._store.read() as snap:
            if where is None:
                if start or limit is not None:
                    raise InputError("limit and offset go with where; ids say themselves how many they are")
                return self._reader(snap).by_ids(ids, missing)
            return self._reader(snap).by_rows(self._matching_rows(snap, where)[start:stop])

    def scan(self, batch_size: int = 8192, *, where: Where | None = None) -> Generator[Records, None, None]:
        """Every live vector, or those that fulfil a filter, in batches, as of the commit at the first step.

        Close the iterator to end it early.
        """
        size = check_count("batch_size", batch_size, 1, MAX_K)
        with self._store.read() as snap:
            version = snap.version
            for records in self._reader(snap).in_batches(self._matching_rows(snap, where), size):
                if snap.version != version:
                    raise InputError("the transaction has changed the collection since this scan of it began")
                yield records

    def __len__(self) -> int:
        with self._store.read() as snap:
            return int(snap.state["live"])

    def __contains__(self, id: object) -> bool:
        try:
            key = id_keys(as_ids([id], self._config.ids))[0]
        except InputError:
            return False
        with self._store.read() as snap:
            return snap.row_of(key) is not None


def _filters(where: Any, queries: Float32Array) -> list[tuple[str, Any]]:
    """The filter of each query, and what errors call it."""
    n = 1 if queries.ndim == 1 else len(queries)
    if not isinstance(where, (list, tuple)):
        return [("where", where)] * n
    if queries.ndim == 1 or len(where) != n:
        raise InputError(
            f"where must be a mapping, or a list with a filter for each query of a batch; got {len(where)} for "
            f"{'one query' if queries.ndim == 1 else f'a batch of {n}'}"
        )
    return [(f"where[{i}]", one) for i, one in enumerate(where)]
