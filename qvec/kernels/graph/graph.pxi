# cython: language_level=3
# The graph: its walk as a finder, and the steps of linking a batch. Relies on search.pxi.

from libc.stdlib cimport calloc, free, malloc, qsort

cdef extern from "graph/graph.h" nogil:
    const uint32_t QV_NO_ROW
    const uint32_t QV_DEGREE_MAX
    ctypedef struct qv_graph:
        qv_codec *codec
        qv_column *codes
        qv_column *adjacency
        uint32_t n
        uint32_t degree
        const uint32_t *entries
        uint32_t n_entries
        uint32_t root
        float alpha
        float fill
        const uint64_t *deleted
        const uint64_t *removing
        uint32_t *heirs
        const uint64_t *repeats
        int distinct
        uint8_t *changed
    ctypedef struct qv_link:
        uint32_t row
        uint32_t target
        float key
    int qv_walk_find(const void *graph, const qv_search_params *params, const float *original, const float *transformed,
                qv_scratch *s) noexcept
    int qv_link_out(const qv_graph *graph, uint32_t row, const uint32_t *batch, uint32_t n_batch, int ef, qv_scratch *s,
                    qv_link *links, uint32_t *equal)
    int qv_pending_links(const qv_graph *graph, uint32_t row, uint32_t first, uint32_t stop, qv_scratch *s, qv_link *links)
    int qv_link_in(const qv_graph *graph, const qv_link *links, int n, qv_scratch *s)
    int qv_link_tree(const qv_graph *graph, uint32_t row, uint32_t fallback, const uint64_t *excluded)
    int qv_link_duplicate(const qv_graph *graph, uint32_t row, uint32_t first)
    int64_t qv_reachable(const qv_graph *graph, int tree_only, uint64_t *reached, uint32_t *queue)

cdef extern from *:
    """
    static int qv_link_order(const void *a, const void *b) {
        const qv_link *x = (const qv_link *)a, *y = (const qv_link *)b;
        if (x->target != y->target) return x->target < y->target ? -1 : 1;
        if (x->key != y->key) return x->key < y->key ? -1 : 1;
        return x->row < y->row ? -1 : x->row > y->row;
    }
    static uint32_t qv_claim(uint32_t *next, uint32_t count) { return __atomic_fetch_add(next, count, __ATOMIC_RELAXED); }
    """
    int qv_link_order(const void *a, const void *b) noexcept nogil
    uint32_t qv_claim(uint32_t *next, uint32_t count) nogil


cdef _fill_graph(qv_graph *graph, Column adjacency, Column codes, Codec codec, uint32_t n, cnp.ndarray entries, float alpha):
    _check_rows(codec, codes, n)
    _check_room(adjacency, n)
    memset(graph, 0, sizeof(graph[0]))
    graph.codec, graph.codes, graph.adjacency = &codec.c, &codes.c, &adjacency.c
    graph.n = n
    graph.alpha = alpha
    graph.degree = adjacency.c.stride // 4
    if graph.degree > QV_DEGREE_MAX:
        raise ValueError(f"lists of {graph.degree} neighbors; the limit is {QV_DEGREE_MAX}")
    if entries.dtype != np.uint32 or not entries.flags.c_contiguous:
        raise TypeError("entries must be a contiguous uint32 array")
    graph.entries = <const uint32_t *>cnp.PyArray_DATA(entries)
    graph.n_entries = <uint32_t>entries.shape[0]


cdef class GraphFinder(Finder):
    """Searches a graph over n rows of codes, starting from the entries, uint32 rows."""

    cdef qv_graph g
    cdef object _kept

    def __init__(self, Codec codec not None, Column codes not None, Column adjacency not None, n, cnp.ndarray entries):
        _fill_graph(&self.g, adjacency, codes, codec, n, entries, 1.0)
        self._kept = (codec, codes, adjacency, entries)
        self.columns = [adjacency, codes]
        self.f.find, self.f.index = qv_walk_find, &self.g


@cython.internal
cdef class _GraphWriter:
    """Base of classes that change the lists of a graph over n rows of codes."""

    cdef qv_graph g
    cdef Codec _codec
    cdef Column _adjacency, _codes
    cdef object _borrowed
    cdef cnp.ndarray _changed
    cdef list _idle
    cdef const uint32_t[::1] _rows
    cdef uint32_t _count, _next

    cdef _init(self, Codec codec, Column codes, Column adjacency, n, entries, root, float alpha, deleted):
        self._codec, self._codes, self._adjacency = codec, codes, adjacency
        self._borrowed = (entries, deleted)
        self._idle = []
        _fill_graph(&self.g, adjacency, codes, codec, n, entries, alpha)
        if n and not 0 <= root < n:
            raise CorruptError(f"the graph's root is row {root} of {n}")
        self.g.root, self.g.deleted = root, _bitmap(deleted, n)
        self._changed = np.zeros(n, np.uint8)
        self.g.changed = <uint8_t *>cnp.PyArray_DATA(self._changed)

    @property
    def changed(self):
        """Rows whose lists this object has changed, uint32, ascending."""
        return np.flatnonzero(self._changed).astype(np.uint32)

    cdef _take(self, rows):
        """Make rows, uint32, those of the next step."""
        self._rows = np.ascontiguousarray(rows, np.uint32)
        self._count, self._next = <uint32_t>self._rows.shape[0], 0
        if self._count and np.max(self._rows) >= self.g.n:
            raise ValueError(f"row {np.max(self._rows)} is not below {self.g.n}")

    cdef Scratch _scratch(self, int pool):
        cdef Scratch scratch = self._idle.pop() if self._idle else Scratch()
        if qv_scratch_reserve(&scratch.s, pool, self.g.n, <size_t>self._codec.c.query_size):
            raise MemoryError("not enough memory for the buffers of a graph's construction")
        return scratch

    cdef _done(self, Scratch scratch, int status):
        self._idle.append(scratch)
        self._check(status)

    cdef _check(self, int status):
        if status < 0:
            _raise_status(status, [self._adjacency, self._codes])


@cython.final
cdef class Linker(_GraphWriter):
    """Links batches of stored rows into a graph. build.c describes the three steps.

    Per batch: begin, link_out (any number of threads), group, link_in (any number of threads), finish.
    pending, group, link_in: add reverse edges that earlier batches deferred.
    n: rows are below. entries: uint32 rows that searches start from, including `root`, the root of the spanning tree; none while the graph is
    empty. alpha, fill: parameters of pruning, see graph.h. deleted: uint64 bitmap of n bits, rows that get no new edges, or
    None.
    """

    cdef object _entries, _repeats
    cdef uint64_t[::1] _waiting
    cdef qv_link *_links
    cdef int *_n_links
    cdef uint32_t *_equal
    cdef uint32_t *_groups
    cdef uint32_t _n_groups

    def __cinit__(self):
        self._links = NULL
        self._n_links = NULL
        self._equal = NULL
        self._groups = NULL

    def __init__(self, Codec codec, Column codes, Column adjacency, n, entries, root, alpha, fill, deleted=None):
        self._init(codec, codes, adjacency, n, entries, root, alpha, deleted)
        self.g.fill = fill
        self._waiting = np.zeros((n + 63) // 64, np.uint64)

    def __dealloc__(self):
        self._release()

    cdef void _release(self) noexcept:
        free(self._links)
        free(self._n_links)
        free(self._equal)
        free(self._groups)
        self._links, self._n_links, self._equal, self._groups = NULL, NULL, NULL, NULL

    def set_entries(self, cnp.ndarray entries, uint32_t root):
        """Set the rows that searches start from; uint32, including the root of the spanning tree."""
        self._entries, self.g.root = entries, root
        self.g.entries = <const uint32_t *>cnp.PyArray_DATA(entries)
        self.g.n_entries = <uint32_t>entries.shape[0]

    def set_repeats(self, repeats):
        """Skip these rows in searches, uint64 bitmap of n bits, because other rows have equal codes."""
        self._repeats = repeats
        self.g.repeats = _bitmap(repeats, self.g.n)

    def set_distinct(self, bint distinct):
        """Pass over rows with the code of another one in the pool of a search, and hang a new row below an equal one that
        its search meets."""
        self.g.distinct = distinct

    def link_duplicates(self, rows, first):
        """Attach new rows, uint32, which are duplicates, below linked rows with equal codes."""
        cdef const uint32_t[::1] above = np.ascontiguousarray(first, np.uint32)
        cdef uint32_t i
        cdef int status = 0
        self._take(rows)
        if above.shape[0] != self._count or self._count and np.max(first) >= self.g.n:
            raise ValueError("rows and the rows above them must be as many, and below n")
        with nogil:
            for i in range(self._count):
                status = qv_link_duplicate(&self.g, self._rows[i], above[i])
                if status < 0:
                    break
        self._check(status)

    cdef _open(self, rows):
        """Allocate the links of rows, uint32."""
        self._release()
        self._take(rows)
        self._n_groups = 0
        self._links = <qv_link *>malloc(<size_t>self._count * self.g.degree * sizeof(qv_link))
        self._n_links = <int *>calloc(self._count, sizeof(int))
        self._equal = <uint32_t *>malloc(<size_t>self._count * sizeof(uint32_t))
        if not self._links or not self._n_links or not self._equal:
            raise MemoryError(f"no memory for the links of a batch of {self._count} rows")

    def begin(self, rows):
        """Start a batch of rows, uint32, that are not linked. Their codes must be stored; their lists are cleared."""
        cdef uint32_t i, row
        cdef uint32_t *own
        self._open(rows)
        for i in range(self._count):
            row = self._rows[i]
            own = <uint32_t *>qv_row_mut(&self._adjacency.c, row)
            if own == NULL:
                _raise_status(QV_DAMAGED, [self._adjacency])
            memset(own, 0xFF, self.g.degree * 4)
            self._waiting[row >> 6] |= <uint64_t>1 << (row & 63)

    def link_out(self, int ef, int n_reverse):
        """Find out-edges for rows of the batch until all are done. The nearest ``n_reverse`` neighbors get reverse edges."""
        cdef Scratch scratch = self._scratch(ef)
        cdef uint32_t i, j
        cdef int status = 0
        with nogil:
            while status >= 0:
                i = qv_claim(&self._next, 4)
                if i >= self._count:
                    break
                for j in range(i, min(i + 4, self._count)):
                    status = qv_link_out(&self.g, self._rows[j], &self._rows[0], self._count, ef, &scratch.s,
                                         self._links + <size_t>j * self.g.degree, &self._equal[j])
                    if status < 0:
                        break
                    self._n_links[j] = min(status, n_reverse)
        self._done(scratch, status)

    def pending(self, rows, uint32_t first, uint32_t stop):
        """Start a batch of missing reverse edges of edges that lead from linked rows, uint32, to rows first..stop - 1."""
        cdef Scratch scratch = self._scratch(1)
        cdef uint32_t i
        cdef int status = 0
        self._open(rows)
        for i in range(self._count):
            status = qv_pending_links(&self.g, self._rows[i], first, stop, &scratch.s,
                                   self._links + <size_t>i * self.g.degree)
            if status < 0:
                break
            self._n_links[i] = status
        self._done(scratch, status)

    def group(self):
        """Sort the links by target and make the targets' lists private."""
        cdef uint32_t i, total = 0
        cdef int j
        with nogil:
            for i in range(self._count):
                for j in range(self._n_links[i]):
                    self._links[total] = self._links[<size_t>i * self.g.degree + j]
                    total += 1
            qsort(self._links, total, sizeof(qv_link), qv_link_order)
        self._groups = <uint32_t *>malloc((total + 1) * sizeof(uint32_t))
        if not self._groups:
            raise MemoryError("no memory for the links of a batch")
        for i in range(total):
            if i == 0 or self._links[i].target != self._links[i - 1].target:
                self._groups[self._n_groups] = i
                self._n_groups += 1
                if qv_row_mut(&self._adjacency.c, self._links[i].target) == NULL:
                    _raise_status(QV_DAMAGED, [self._adjacency])
        self._groups[self._n_groups] = total
        self._next = 0

    def link_in(self):
        """Add reverse edges until all targets are done."""
        cdef Scratch scratch = self._scratch(1)
        cdef uint32_t i, j
        cdef int status = 0
        with nogil:
            while status >= 0:
                i = qv_claim(&self._next, 16)
                if i >= self._n_groups:
                    break
                for j in range(i, min(i + 16, self._n_groups)):
                    status = qv_link_in(&self.g, self._links + self._groups[j],
                                        <int>(self._groups[j + 1] - self._groups[j]), &scratch.s)
                    if status < 0:
                        break
        self._done(scratch, status)

    def finish(self):
        """Give each row of the batch except the root its tree edge; the batch is then part of the graph."""
        cdef uint32_t i, row
        cdef int status = 0
        with nogil:
            for i in range(self._count):
                row = self._rows[i]
                if self._equal[i] != QV_NO_ROW:
                    status = qv_link_duplicate(&self.g, row, self._equal[i])
                elif row != self.g.root:
                    status = qv_link_tree(&self.g, row, self.g.root, &self._waiting[0])
                if status < 0:
                    break
                self._waiting[row >> 6] &= ~(<uint64_t>1 << (row & 63))
        self._check(status)
        self._release()


cdef const uint64_t *_bitmap(object bits, n) except? NULL:
    """Return the words of a bitmap of n bits; NULL for None."""
    if bits is None:
        return NULL
    if bits.dtype != np.uint64 or not bits.flags.c_contiguous or bits.shape[0] * 64 < n:
        raise ValueError("a bitmap must be a contiguous uint64 array of n bits")
    return <const uint64_t *>cnp.PyArray_DATA(bits)


def reachable(Codec codec, Column codes, Column adjacency, n, cnp.ndarray entries, root, bint tree_only=False):
    """Bitmap (uint64 [ceil(n / 64)]) of the rows that are reachable from the entries or the root.

    tree_only: reachable from the root by tree edges.
    """
    cdef qv_graph graph
    _fill_graph(&graph, adjacency, codes, codec, n, entries, 1.0)
    graph.root = root
    cdef cnp.ndarray bits = np.zeros((n + 63) // 64, np.uint64)
    cdef uint64_t *reached = <uint64_t *>cnp.PyArray_DATA(bits)
    cdef uint32_t *queue = <uint32_t *>malloc((<size_t>n + 1) * sizeof(uint32_t))
    cdef int64_t status
    if not queue:
        raise MemoryError("no memory to walk the graph")
    with nogil:
        status = qv_reachable(&graph, tree_only, reached, queue)
    free(queue)
    if status < 0:
        _raise_status(<int>status, [adjacency])
    return bits
