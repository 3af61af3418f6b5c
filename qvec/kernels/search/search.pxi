# cython: language_level=3
# Searches over columns: how candidates are found, which rows may be results, and what a query runs against.
# Relies on Codec (codec.pxi) and Column (column.pxi).

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from qvec.common.errors import CorruptError

cdef extern from "search/search.h" nogil:
    const int QV_DAMAGED
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
        qv_codec *rerank
        qv_column *vectors
        qv_column *ids
        int timed
    int qv_scratch_reserve(qv_scratch *s, int pool, uint32_t rows, size_t query_size)
    void qv_scratch_free(qv_scratch *s)
    ctypedef struct qv_batch:
        const float *queries
        size_t dim, n
        int64_t *ids
        int64_t *counts
        float *distances
    int qv_search(const qv_searcher *searcher, const qv_search_params *params, const qv_batch *batch, qv_scratch *s)


cdef inline uint64_t _now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef class Scratch:
    """Buffers of one searching or building thread."""

    cdef qv_scratch s

    def __cinit__(self):
        memset(&self.s, 0, sizeof(self.s))

    def __dealloc__(self):
        qv_scratch_free(&self.s)


cdef _raise_status(int status, list columns):
    """Turn an engine status into the exception that names the damaged block."""
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
    """An index as a search uses it; the kinds derive from it. ``columns``: what it reads."""

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

    excluded: uint64 bitmap of n bits, a set bit is never a result; None: all may be. n_allowed: how many may be. rows:
    uint32, ascending: look at these alone, and at each of them, whatever the index; none of them may be excluded.
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


cdef class Searcher:
    """All that a query needs for one view of a collection.

    finder None: every search is a scan. map: what queries go through for the codes; None: nothing. rerank/vectors None: the codes' keys are the distances. ids None: the row
    numbers are the ids. The columns' pages must stay valid (the read transaction open) while a search runs.

    timed: ``phase_ns`` sums nanoseconds of preparing queries, finding candidates, re-ranking and writing results.
    """

    cdef qv_searcher s
    cdef Codec _codec, _rerank
    cdef Column _codes, _vectors, _ids
    cdef Finder _finder
    cdef QueryMap _map
    cdef list _idle
    cdef uint64_t _phase_ns[QV_PHASES]
    cdef readonly unsigned long long hops, evaluations, reranked, kernel_ns

    def __init__(self, Codec codec not None, Column codes not None, n, Finder finder=None, Codec rerank=None,
                 Column vectors=None, Column ids=None, QueryMap map=None, bint timed=False):
        _check_rows(codec, codes, n)
        if map is not None and map.m.padded != codec.c.dim:
            raise ValueError(f"queries are mapped to {map.m.padded} values, the codec is of {codec.c.dim}")
        if rerank is not None:
            _check_rows(rerank, vectors, n)
        if ids is not None:
            _check_room(ids, n)
            if ids.c.stride != sizeof(int64_t):
                raise ValueError(f"ids have a stride of {ids.c.stride} bytes, not 8")
        self._codec, self._codes, self._finder = codec, codes, finder
        self._rerank, self._vectors, self._ids, self._map = rerank, vectors, ids, map
        self._idle = []
        memset(&self.s, 0, sizeof(self.s))
        self.s.codec, self.s.codes, self.s.n = &codec.c, &codes.c, n
        if finder is not None:
            self.s.finder = finder.f
        self.s.map = &map.m if map is not None else NULL
        self.s.rerank = &rerank.c if rerank is not None else NULL
        self.s.vectors = &vectors.c if vectors is not None else NULL
        self.s.ids = &ids.c if ids is not None else NULL
        self.s.timed = timed
        memset(self._phase_ns, 0, sizeof(self._phase_ns))

    @property
    def phase_ns(self):
        return tuple([self._phase_ns[i] for i in range(QV_PHASES)])

    def search(self, cnp.ndarray q, int k, int ef, int nprobe, int candidates, bint exact,
               Selection selection not None):
        """Ids int64 [nq, k], distances float32 [nq, k] and counts int64 [nq]; without nq where one 1-D query came in.

        q: float32 [nq, dim] or [dim], C-contiguous; candidates: how many of the walk's results are re-ranked, 0 for
        none.
        """
        cdef cnp.npy_intp shape[2]
        cdef int batch = q.ndim - 1
        shape[0] = q.shape[0]
        shape[batch] = k
        cdef cnp.ndarray ids = cnp.PyArray_EMPTY(batch + 1, shape, cnp.NPY_INT64, 0)
        cdef cnp.ndarray distances = cnp.PyArray_EMPTY(batch + 1, shape, cnp.NPY_FLOAT32, 0)
        cdef cnp.ndarray counts = cnp.PyArray_EMPTY(batch, shape, cnp.NPY_INT64, 0)
        self._run(q, k, ef, nprobe, candidates, exact, selection, ids, distances, counts, 0, q.shape[0] if batch else 1)
        return ids, distances, counts

    def search_into(self, cnp.ndarray q, int k, int ef, int nprobe, int candidates, bint exact,
                    Selection selection not None, cnp.ndarray ids, cnp.ndarray distances, cnp.ndarray counts,
                    Py_ssize_t start, Py_ssize_t stop):
        """As search, for queries [start, stop) into the given arrays; safe from several threads at once."""
        self._run(q, k, ef, nprobe, candidates, exact, selection, ids, distances, counts, start, stop)

    cdef int _run(self, cnp.ndarray q, int k, int ef, int nprobe, int candidates, bint exact, Selection selection,
                  cnp.ndarray ids, cnp.ndarray distances, cnp.ndarray counts, Py_ssize_t start,
                  Py_ssize_t stop) except -1:
        cdef qv_search_params p
        if q.shape[q.ndim - 1] < (self._codec.c.dim if self._map is None else self._map.m.dim):
            raise ValueError(f"queries have {q.shape[q.ndim - 1]} values, which is too few")
        if selection.n < self.s.n:
            raise ValueError(f"the selection is of {selection.n} rows, the index of {self.s.n}")
        p.k, p.ef, p.nprobe, p.candidates, p.exact, p.selection = k, ef, nprobe, candidates, exact, selection.s
        cdef qv_batch b
        b.dim, b.n = q.shape[q.ndim - 1], stop - start
        b.queries = <const float *>cnp.PyArray_DATA(q) + start * b.dim
        b.ids = <int64_t *>cnp.PyArray_DATA(ids) + start * k
        b.distances = <float *>cnp.PyArray_DATA(distances) + start * k
        b.counts = <int64_t *>cnp.PyArray_DATA(counts) + start
        cdef Scratch scratch = self._idle.pop() if self._idle else Scratch()
        cdef qv_scratch *work = &scratch.s
        cdef uint64_t begin, hops = work.hops, evaluations = work.evaluations, reranked = work.reranked
        cdef int status = 0, phase
        memset(work.phase_ns, 0, sizeof(work.phase_ns))
        with nogil:
            begin = _now()
            status = qv_search(&self.s, &p, &b, work)
            begin = _now() - begin
        self.kernel_ns += begin
        self.hops += work.hops - hops
        self.evaluations += work.evaluations - evaluations
        self.reranked += work.reranked - reranked
        for phase in range(QV_PHASES):
            self._phase_ns[phase] += work.phase_ns[phase]
        self._idle.append(scratch)
        if status < 0:
            own = [] if self._finder is None else self._finder.columns
            _raise_status(status, [*own, self._codes, self._vectors, self._ids])
        return 0
