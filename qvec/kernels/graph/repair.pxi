# cython: language_level=3
# Graph repair, see mend.c. Relies on graph.pxi.

cdef extern from "graph/graph.h" nogil:
    const int QV_REPAIR_POOL
    int qv_relink(const qv_graph *graph, uint32_t row, qv_scratch *s)
    ctypedef struct qv_detach_buffers:
        uint64_t *detached
        uint64_t *excluded
        uint32_t *stack
    int qv_reparent_children(const qv_graph *graph, uint32_t row, const qv_detach_buffers *buffers)
    int64_t qv_replace_root(const qv_graph *graph, const qv_detach_buffers *buffers)


cdef class GraphRepair:
    """Takes condemned rows out of a graph.

    reroot once; then for some lists at a time begin, relink (any number of threads), hand_on. n: every row is below.
    deleted, condemned: uint64 bitmaps of n bits; condemned rows must be deleted.
    """

    cdef qv_graph g
    cdef Codec _codec
    cdef Column _adjacency, _codes
    cdef object _kept
    cdef list _idle
    cdef const uint32_t[::1] _rows
    cdef cnp.ndarray _changed
    cdef qv_detach_buffers _buffers
    cdef uint32_t _next
    cdef readonly unsigned long long evaluations

    def __init__(self, Codec codec, Column codes, Column adjacency, n, root, alpha, deleted, removing):
        entries = np.zeros(0, np.uint32)
        self._codec, self._codes, self._adjacency = codec, codes, adjacency
        cdef cnp.ndarray detached = np.zeros((n + 63) // 64, np.uint64), excluded = np.zeros((n + 63) // 64, np.uint64)
        cdef cnp.ndarray stack = np.empty(int(np.bitwise_count(removing).sum()) + 1, np.uint32)
        self._kept = (entries, deleted, removing, detached, excluded, stack)
        self._buffers.detached = <uint64_t *>cnp.PyArray_DATA(detached)
        self._buffers.excluded = <uint64_t *>cnp.PyArray_DATA(excluded)
        self._buffers.stack = <uint32_t *>cnp.PyArray_DATA(stack)
        self._idle = []
        _fill_graph(&self.g, adjacency, codes, codec, n, entries, alpha)
        if not 0 <= root < n:
            raise CorruptError(f"the graph's root is row {root} of {n}")
        self._changed = np.zeros(n, np.uint8)
        self.g.changed = <uint8_t *>cnp.PyArray_DATA(self._changed)
        self.g.root = root
        self.g.deleted, self.g.removing = _bitmap(deleted, n), _bitmap(removing, n)

    @property
    def changed(self):
        """Rows whose lists changed since this mender was made, uint32, ascending."""
        return np.flatnonzero(self._changed).astype(np.uint32)

    def replace_root(self):
        """The root of the tree from now on; None where every row that is linked is condemned."""
        cdef int64_t root
        with nogil:
            root = qv_replace_root(&self.g, &self._buffers)
        if root < 0:
            _raise_status(<int>root, [self._adjacency])
        if root == QV_NO_ROW:
            return None
        self.g.root = <uint32_t>root
        return root

    def begin(self, rows):
        """Take up the lists of rows, uint32, that are linked and not condemned."""
        self._rows = np.ascontiguousarray(rows, np.uint32)
        self._next = 0
        if len(rows) and int(np.max(rows)) >= self.g.n:
            raise ValueError(f"row {np.max(rows)} is not below {self.g.n}")

    def relink(self):
        """Join lists anew until none is left."""
        cdef Scratch scratch = self._idle.pop() if self._idle else Scratch()
        cdef uint32_t i, j, count = <uint32_t>self._rows.shape[0]
        cdef int status = 0
        if qv_scratch_reserve(&scratch.s, QV_REPAIR_POOL, self.g.n, <size_t>self._codec.c.query_size):
            raise MemoryError("no memory for the buffers of a repair")
        with nogil:
            while status >= 0:
                i = qv_claim(&self._next, 4)
                if i >= count:
                    break
                for j in range(i, min(i + 4, count)):
                    status = qv_relink(&self.g, self._rows[j], &scratch.s)
                    if status < 0:
                        break
        self.evaluations += scratch.s.evaluations
        scratch.s.evaluations = 0
        self._idle.append(scratch)
        if status < 0:
            _raise_status(status, [self._adjacency, self._codes])

    def reparent_children(self):
        """Hang in the lists what hung below condemned rows; these are then out of the tree."""
        cdef uint32_t i
        cdef int status = 0
        with nogil:
            for i in range(<uint32_t>self._rows.shape[0]):
                status = qv_reparent_children(&self.g, self._rows[i], &self._buffers)
                if status < 0:
                    break
        if status < 0:
            _raise_status(status, [self._adjacency])
