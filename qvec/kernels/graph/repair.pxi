# cython: language_level=3
# Graph repair, see repair.c. Relies on graph.pxi.

cdef extern from "graph/graph.h" nogil:
    const int QV_REPAIR_POOL
    int qv_relink(const qv_graph *graph, uint32_t row, qv_scratch *s)
    ctypedef struct qv_detach_buffers:
        uint64_t *detached
        uint64_t *excluded
        uint32_t *stack
    int qv_reparent_children(const qv_graph *graph, uint32_t row, const qv_detach_buffers *buffers)
    int64_t qv_replace_root(const qv_graph *graph, const qv_detach_buffers *buffers)


@cython.final
cdef class GraphRepair(_GraphWriter):
    """Removes deleted rows from a graph.

    Call replace_root once; then, for some lists at a time: begin, relink (any number of threads), reparent_children.
    n: rows are below. deleted, removing: uint64 bitmaps of n bits; rows to be removed must be deleted.
    """

    cdef object _kept
    cdef qv_detach_buffers _buffers
    cdef readonly unsigned long long evaluations

    def __init__(self, Codec codec, Column codes, Column adjacency, n, root, alpha, deleted, removing):
        cdef cnp.ndarray detached = np.zeros((n + 63) // 64, np.uint64), excluded = np.zeros((n + 63) // 64, np.uint64)
        cdef cnp.ndarray stack = np.empty(int(np.bitwise_count(removing).sum()) + 1, np.uint32)
        cdef cnp.ndarray heirs = np.zeros(n, np.uint32)
        self._kept = (removing, detached, excluded, stack, heirs)
        self._buffers.detached = <uint64_t *>cnp.PyArray_DATA(detached)
        self._buffers.excluded = <uint64_t *>cnp.PyArray_DATA(excluded)
        self._buffers.stack = <uint32_t *>cnp.PyArray_DATA(stack)
        self._init(codec, codes, adjacency, n, np.zeros(0, np.uint32), root, alpha, deleted)
        self.g.removing = _bitmap(removing, n)
        self.g.heirs = <uint32_t *>cnp.PyArray_DATA(heirs)

    def replace_root(self):
        """Replace a root that is being removed. Returns the root, None if every linked row is being removed."""
        cdef int64_t root
        with nogil:
            root = qv_replace_root(&self.g, &self._buffers)
        self._check(<int>min(root, 0))
        if root == QV_NO_ROW:
            return None
        self.g.root = <uint32_t>root
        return root

    def begin(self, rows):
        """Start with the lists of rows, uint32, that are linked and not being removed."""
        self._take(rows)

    def relink(self):
        """Replace removed rows in lists until all lists are done."""
        cdef Scratch scratch = self._scratch(QV_REPAIR_POOL)
        cdef uint32_t i, j
        cdef int status = 0
        with nogil:
            while status >= 0:
                i = qv_claim(&self._next, 4)
                if i >= self._count:
                    break
                for j in range(i, min(i + 4, self._count)):
                    status = qv_relink(&self.g, self._rows[j], &scratch.s)
                    if status < 0:
                        break
        self.evaluations += scratch.s.evaluations
        scratch.s.evaluations = 0
        self._done(scratch, status)

    def reparent_children(self):
        """Give new parents to the children of removed rows in the lists. The removed rows are then not in the spanning tree."""
        cdef uint32_t i
        cdef int status = 0
        with nogil:
            for i in range(self._count):
                status = qv_reparent_children(&self.g, self._rows[i], &self._buffers)
                if status < 0:
                    break
        self._check(status)
