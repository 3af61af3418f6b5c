# cython: language_level=3
# Searches over columns: finders of candidates, selections of rows, search parameters and searchers.
# Relies on Codec (codec.pxi) and Column (column.pxi).

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from qvec.common.errors import CorruptError, SearchTimeoutError

cdef extern from "search/search.h" nogil:
    const int QV_DAMAGED, QV_LATE
    enum: QV_PREPARE, QV_FIND, QV_RERANK, QV_WRITE, QV_PHASES
    ctypedef struct qv_scratch:
        uint64_t hops
        uint64_t evaluations
        uint64_t reranked
        uint64_t phase_ns[QV_PHASES]
    ctypedef struct qv_selection:
        const uint64_t *excluded
        uint32_t n_allowed
        const uint32_t *rows
        uint32_t n_rows
        const uint32_t *seeds
        uint32_t n_seeds
    ctypedef struct qv_search_params:
        int k
        int ef
        int nprobe
        int candidates
        int exact
        qv_selection selection
    ctypedef struct qv_finder:
        int (*find)(const void *, const qv_search_params *, const float *, const float *, qv_scratch *) noexcept
        const void *index
    ctypedef struct qv_searcher:
        qv_codec *codec
        const qv_map *map
        qv_column *codes
        uint32_t n
        qv_finder finder
        const uint32_t *unindexed
        uint32_t n_unindexed
        qv_codec *rerank
        qv_column *vectors
        int timed
    uint64_t qv_now()
    void qv_set_deadline(qv_scratch *s, uint64_t deadline)
    int qv_scratch_reserve(qv_scratch *s, int pool, uint32_t rows, size_t query_size)
    void qv_scratch_free(qv_scratch *s)
    ctypedef struct qv_batch:
        const float *queries
        size_t dim, n
        int64_t *rows
        int64_t *counts
        float *distances
    int qv_search(const qv_searcher *searcher, const qv_search_params *params, const qv_batch *batch, qv_scratch *s)


cdef class Deadline:
    """The time at which a search ends: ``seconds`` from now, by the monotonic clock."""

    cdef uint64_t at
    cdef readonly double seconds

    def __init__(self, double seconds):
        cdef double longest = 1e9
        self.seconds = seconds
        self.at = qv_now() + <uint64_t>(min(max(seconds, 0.0), longest) * 1e9)

    @property
    def left(self):
        """Seconds until the deadline; negative after it."""
        return (<double>self.at - <double>qv_now()) / 1e9

    def watch(self, items):
        """Yield the items of an iterable. After the deadline, raise SearchTimeoutError instead of the next item."""
        for item in items:
            self.check()
            yield item

    cpdef int check(self) except -1:
        """Raise SearchTimeoutError if the deadline has passed."""
        if qv_now() >= self.at:
            self.fail()
        return 0

    cdef int acquire(self, lock) except -1:
        """Acquire a lock. Raises SearchTimeoutError if it is not free before the deadline."""
        if not lock.acquire(True, max(0.0, self.left)):
            self.fail()
        return 0

    def fail(self):
        """Raise SearchTimeoutError."""
        raise SearchTimeoutError(f"the search did not end within its timeout of {self.seconds:g} s")


cdef class Scratch:
    """Buffers of one searching or building thread."""

    cdef qv_scratch s

    def __cinit__(self):
        memset(&self.s, 0, sizeof(self.s))

    def __dealloc__(self):
        qv_scratch_free(&self.s)


cdef _raise_status(int status, list columns):
    """Convert an engine status into the exception that names the damaged block."""
    if status != QV_DAMAGED:
        raise MemoryError("not enough memory for the buffers of a search")
    cdef Column column
    for column in columns:
        if column is not None and column.c.bad_block >= 0:
            column._fail()
    raise CorruptError("the index is damaged: it points at rows that do not exist; run verify()")


cdef _check_rows(Codec codec, Column codes, uint32_t n):
    if codes.c.stride != <uint32_t>codec.c.stride:
        raise ValueError(f"codes have a stride of {codes.c.stride} bytes, the codec of {codec.c.stride}")
    _check_room(codes, n)


cdef int _check_room(Column column, uint32_t n) except -1:
    if n > <uint64_t>column.c.n_blocks * column.c.rows_per_block:
        raise ValueError(f"n = {n} exceeds the rows of the {column.name} column")
    return 0


cdef class Finder:
    """Base class of the objects with which a search uses an index. ``columns``: the columns that it reads."""

    cdef qv_finder f
    cdef readonly list columns


cdef _check_listed(str name, rows, n):
    if rows is None:
        return None
    if rows.dtype != np.uint32 or rows.ndim != 1 or (len(rows) and int(rows.max()) >= n):
        raise ValueError(f"{name} must be uint32 below n")
    return np.ascontiguousarray(rows)


cdef class Selection:
    """Which of n rows may be the results of a search.

    excluded: uint64 bitmap of n bits; rows with a set bit are never results; None: no row is excluded. n_allowed:
    number of other rows. rows: uint32, ascending: score exactly these rows, with any index; they must not be excluded.
    """

    cdef qv_selection s
    cdef readonly uint32_t n
    cdef readonly object excluded, rows, seeds

    def __init__(self, n, n_allowed, excluded=None, rows=None, seeds=None):
        self.n, self.excluded, self.rows = n, excluded, rows
        memset(&self.s, 0, sizeof(self.s))
        self.s.n_allowed = n_allowed
        if excluded is not None:
            if excluded.dtype != np.uint64 or excluded.ndim != 1 or excluded.shape[0] * 64 < n:
                raise ValueError("excluded must be a uint64 bitmap of n bits")
            self.excluded = np.ascontiguousarray(excluded)
            self.s.excluded = <const uint64_t *>cnp.PyArray_DATA(self.excluded)
        self.rows = _check_listed("rows", rows, n)
        if rows is not None:
            self.s.rows = <const uint32_t *>cnp.PyArray_DATA(self.rows)
            self.s.n_rows = <uint32_t>self.rows.shape[0]
        self.seeds = _check_listed("seeds", seeds, n)
        if seeds is not None:
            self.s.seeds = <const uint32_t *>cnp.PyArray_DATA(self.seeds)
            self.s.n_seeds = <uint32_t>self.seeds.shape[0]

    @property
    def n_allowed(self):
        return self.s.n_allowed


cdef class SearchParams:
    """Parameters of one search. Cannot be changed; may be shared by threads.

    k: hits of each query. ef: size of the candidate list of a graph walk. nprobe: inverted lists to scan. candidates: candidates to re-rank,
    0 for none. exact: score every original instead.
    """

    cdef qv_search_params p

    def __init__(self, int k, *, int ef=0, int nprobe=0, int candidates=0, bint exact=False):
        memset(&self.p, 0, sizeof(self.p))
        self.p.k, self.p.ef, self.p.nprobe, self.p.candidates, self.p.exact = k, ef, nprobe, candidates, exact

    @property
    def k(self):
        return self.p.k

    @property
    def ef(self):
        return self.p.ef

    @property
    def nprobe(self):
        return self.p.nprobe

    @property
    def candidates(self):
        return self.p.candidates

    @property
    def exact(self):
        return bool(self.p.exact)

    def replace(self, *, ef=None, nprobe=None):
        """Return a copy with other values for the given parameters."""
        return SearchParams(self.p.k, ef=self.p.ef if ef is None else ef, candidates=self.p.candidates,
                            nprobe=self.p.nprobe if nprobe is None else nprobe, exact=self.p.exact)

    cdef tuple _values(self):
        return self.p.k, self.p.ef, self.p.nprobe, self.p.candidates, self.p.exact

    def __eq__(self, other):
        return isinstance(other, SearchParams) and self._values() == (<SearchParams>other)._values()

    def __hash__(self):
        return hash(self._values())

    def __repr__(self):
        return "SearchParams(k={}, ef={}, nprobe={}, candidates={}, exact={})".format(*self._values())


cdef class Searcher:
    """The columns and codecs that queries run against, for one view of a collection.

    finder None: every search is a scan. unindexed: rows that the finder's index does not contain, uint32; searches score
    all of them. rerank: scores vectors, the originals; None: keys of the codes are the distances.
    map: maps queries to the space of the codes; None: nothing does. The columns' pages must stay valid (the read
    transaction open) while a search runs.

    timed: ``phase_ns`` sums nanoseconds of preparing queries, finding candidates, re-ranking and writing results.
    """

    cdef qv_searcher s
    cdef Codec _codec, _rerank
    cdef Column _codes, _vectors
    cdef Finder _finder
    cdef QueryMap _map
    cdef cnp.ndarray _unindexed
    cdef list _idle
    cdef uint64_t _phase_ns[QV_PHASES]
    cdef readonly unsigned long long hops, evaluations, reranked, kernel_ns

    def __init__(self, Codec codec not None, Column codes not None, n, Finder finder=None, Codec rerank=None,
                 Column vectors=None, QueryMap map=None, unindexed=None, bint timed=False):
        _check_rows(codec, codes, n)
        if map is not None and map.m.padded != codec.c.dim:
            raise ValueError(f"queries are mapped to {map.m.padded} values, the codec is of {codec.c.dim}")
        if rerank is not None:
            _check_rows(rerank, vectors, n)
        self._codec, self._codes, self._finder = codec, codes, finder
        self._rerank, self._vectors, self._map = rerank, vectors, map
        self._idle = []
        memset(&self.s, 0, sizeof(self.s))
        self.s.codec, self.s.codes, self.s.n = &codec.c, &codes.c, n
        if finder is not None:
            self.s.finder = finder.f
        if unindexed is not None:
            self._unindexed = np.ascontiguousarray(unindexed, np.uint32)
            if len(self._unindexed) and int(self._unindexed.max()) >= n:
                raise ValueError(f"row {self._unindexed.max()} is not below {n}")
            self.s.unindexed = <const uint32_t *>cnp.PyArray_DATA(self._unindexed)
            self.s.n_unindexed = <uint32_t>self._unindexed.shape[0]
        self.s.map = &map.m if map is not None else NULL
        self.s.rerank = &rerank.c if rerank is not None else NULL
        self.s.vectors = &vectors.c if vectors is not None else NULL
        self.s.timed = timed
        memset(self._phase_ns, 0, sizeof(self._phase_ns))

    @property
    def phase_ns(self):
        return tuple([self._phase_ns[i] for i in range(QV_PHASES)])

    cpdef tuple search(self, cnp.ndarray q, SearchParams params, Selection selection, Deadline deadline=None):
        """Rows int64 [nq, k], distances float32 [nq, k], counts int64 [nq]; without nq for one query.

        q: float32 [nq, dim] or [dim], C-contiguous. Places without a hit have row -1 and an infinite distance.
        Raises SearchTimeoutError a few milliseconds after the deadline at most.
        """
        cdef cnp.npy_intp shape[2]
        cdef int batch = q.ndim - 1
        shape[0] = q.shape[0]
        shape[batch] = params.p.k
        cdef cnp.ndarray rows = cnp.PyArray_EMPTY(batch + 1, shape, cnp.NPY_INT64, 0)
        cdef cnp.ndarray distances = cnp.PyArray_EMPTY(batch + 1, shape, cnp.NPY_FLOAT32, 0)
        cdef cnp.ndarray counts = cnp.PyArray_EMPTY(batch, shape, cnp.NPY_INT64, 0)
        self._run_arrays(q, params, selection, rows, distances, counts, 0, q.shape[0] if batch else 1, deadline)
        return rows, distances, counts

    def search_into(self, cnp.ndarray q, SearchParams params not None, Selection selection not None, cnp.ndarray rows,
                    cnp.ndarray distances, cnp.ndarray counts, Py_ssize_t start, Py_ssize_t stop,
                    Deadline deadline=None):
        """Search queries [start, stop) of q, into the given arrays; several threads may do so at once."""
        self._run_arrays(q, params, selection, rows, distances, counts, start, stop, deadline)

    cdef int _run_arrays(self, cnp.ndarray q, SearchParams params, Selection selection, cnp.ndarray rows,
                         cnp.ndarray distances, cnp.ndarray counts, Py_ssize_t start, Py_ssize_t stop,
                         Deadline deadline) except -1:
        if q is None or params is None or selection is None:
            raise TypeError("queries, parameters and a selection are needed")
        cdef qv_batch b
        b.dim, b.n = q.shape[q.ndim - 1], stop - start
        b.queries = <const float *>cnp.PyArray_DATA(q) + start * b.dim
        b.rows = <int64_t *>cnp.PyArray_DATA(rows) + start * params.p.k
        b.distances = <float *>cnp.PyArray_DATA(distances) + start * params.p.k
        b.counts = <int64_t *>cnp.PyArray_DATA(counts) + start
        return self._run(params, selection, &b, deadline)

    cdef int _run(self, SearchParams params, Selection selection, const qv_batch *b, Deadline deadline) except -1:
        cdef qv_search_params p = params.p
        if b.dim < <size_t>(self._codec.c.dim if self._map is None else self._map.m.dim):
            raise ValueError(f"queries have {b.dim} values, which is too few")
        if selection.n < self.s.n:
            raise ValueError(f"the selection is of {selection.n} rows, the index of {self.s.n}")
        p.selection = selection.s
        cdef Scratch scratch = self._idle.pop() if self._idle else Scratch()
        cdef qv_scratch *work = &scratch.s
        cdef uint64_t begin, hops = work.hops, evaluations = work.evaluations, reranked = work.reranked
        cdef int status = 0, phase
        memset(work.phase_ns, 0, sizeof(work.phase_ns))
        qv_set_deadline(work, deadline.at if deadline is not None else 0)
        with nogil:
            begin = qv_now()
            status = qv_search(&self.s, &p, b, work)
            begin = qv_now() - begin
        self.kernel_ns += begin
        self.hops += work.hops - hops
        self.evaluations += work.evaluations - evaluations
        self.reranked += work.reranked - reranked
        for phase in range(QV_PHASES):
            self._phase_ns[phase] += work.phase_ns[phase]
        self._idle.append(scratch)
        if status == QV_LATE:
            deadline.fail()
        if status < 0:
            own = [] if self._finder is None else self._finder.columns
            _raise_status(status, [*own, self._codes, self._vectors])
        return 0
