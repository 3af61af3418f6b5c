# cython: language_level=3
# Packed nodes: made from lists and codes, and walked. Relies on graph.pxi.

from libc.string cimport memcmp

cdef extern from "graph/nodes.h" nogil:
    ctypedef struct qv_node_layout:
        int dims
        uint32_t degree
        size_t stride
    ctypedef struct qv_nodes:
        qv_node_layout layout
        qv_column *nodes
        uint32_t n
        qv_node_layout start_layout
        const uint8_t *start
    int qv_node_layout_init(qv_node_layout *layout, const qv_codec *codec, uint32_t degree, const uint8_t *signs)
    int qv_node_encode(const qv_node_layout *layout, qv_column *codes, uint32_t n, const uint32_t *list,
                       const uint8_t *code, float *scratch, uint8_t *node)
    int qv_nodes_find(const void *nodes, const qv_search_params *params, const float *original, const float *transformed,
                      qv_scratch *s) noexcept


cdef int _init_layout(qv_node_layout *layout, Codec codec, degree, cnp.ndarray signs) except -1:
    if qv_node_layout_init(layout, &codec.c, degree, NULL):
        raise ValueError(f"packed nodes need lists of 32, 64, 96 or 128 neighbors and codes that estimate distances, "
                         f"not {degree} and {codec.kind}")
    if signs is not None:
        _vector(signs, "signs", cnp.NPY_UINT8, layout.dims // 2)
        qv_node_layout_init(layout, &codec.c, degree, <const uint8_t *>cnp.PyArray_DATA(signs))
    return 0


def node_shape(Codec codec not None, degree):
    """Dimensions of a node's neighbor codes, after a rotation, and bytes of a node."""
    cdef qv_node_layout layout
    _init_layout(&layout, codec, degree, None)
    return layout.dims, layout.stride


cdef class Packer:
    """Encodes the packed nodes of rows from their lists and the codes of n rows.

    signs: of the rotation, uint8 [dims / 2], with the dims of `node_shape`. Call begin, then run on any number of threads;
    the result does not depend on their number.
    """

    cdef qv_node_layout layout
    cdef Codec _codec
    cdef Column _codes, _adjacency, _nodes
    cdef cnp.ndarray _signs, _rows
    cdef uint32_t _n, _next

    def __init__(self, Codec codec not None, Column codes not None, Column adjacency not None, Column nodes not None,
                 n, cnp.ndarray signs not None):
        _check_rows(codec, codes, n)
        _check_room(adjacency, n)
        _init_layout(&self.layout, codec, adjacency.c.stride // 4, signs)
        if nodes.c.stride != self.layout.stride:
            raise CorruptError(f"nodes have a stride of {nodes.c.stride} bytes, the layout of {self.layout.stride}")
        self._codec, self._codes, self._adjacency, self._nodes, self._signs = codec, codes, adjacency, nodes, signs
        self._n = n

    def begin(self, rows):
        """Start with rows, uint32 [m]."""
        cdef cnp.ndarray checked = np.ascontiguousarray(rows, np.uint32)
        if len(checked) and int(checked.max()) >= self._n:
            raise ValueError(f"row {checked.max()} is not below {self._n}")
        if len(checked):
            _check_room(self._nodes, int(checked.max()) + 1)
        self._rows, self._next = checked, 0

    def run(self):
        """Encode nodes until all rows are done."""
        cdef const uint32_t *rows = <const uint32_t *>cnp.PyArray_DATA(self._rows)
        cdef uint32_t i, j, count = <uint32_t>self._rows.shape[0]
        cdef cnp.ndarray scratch = np.empty(3 * self.layout.dims, np.float32)
        cdef float *floats = <float *>cnp.PyArray_DATA(scratch)
        cdef int status = 0
        with nogil:
            while status >= 0:
                i = qv_claim(&self._next, 16)
                if i >= count:
                    break
                for j in range(i, min(i + 16, count)):
                    status = self._make(rows[j], floats)
                    if status < 0:
                        break
        if status < 0:
            _raise_status(status, [self._nodes, self._adjacency, self._codes])

    cdef int _make(self, uint32_t row, float *scratch) noexcept nogil:
        cdef uint8_t *node = qv_row_mut(&self._nodes.c, row)
        return QV_DAMAGED if node == NULL else self._encode(row, scratch, node)

    cdef int _encode(self, uint32_t row, float *scratch, uint8_t *node) noexcept nogil:
        cdef const uint8_t *list = qv_row(&self._adjacency.c, row)
        cdef const uint8_t *code = qv_row(&self._codes.c, row)
        if list == NULL or code == NULL:
            return QV_DAMAGED
        return qv_node_encode(&self.layout, &self._codes.c, self._n, <const uint32_t *>list, code, scratch, node)

    def wrong(self, uint32_t start, uint32_t stop):
        """Rows of start..stop - 1, uint32, whose node differs from the encoding of their list and codes."""
        if stop > self._n:
            raise ValueError(f"rows {start}..{stop} are not within {self._n}")
        _check_room(self._nodes, stop)
        cdef cnp.ndarray scratch = np.empty(3 * self.layout.dims, np.float32)
        cdef cnp.ndarray fresh = _aligned(1, self.layout.stride)
        cdef float *floats = <float *>cnp.PyArray_DATA(scratch)
        cdef uint8_t *made = <uint8_t *>cnp.PyArray_DATA(fresh)
        cdef const uint8_t *node
        cdef uint32_t row
        found = []
        for row in range(start, stop):
            node = qv_row(&self._nodes.c, row)
            if node == NULL or self._encode(row, floats, made):
                _raise_status(QV_DAMAGED, [self._nodes, self._adjacency, self._codes])
            if memcmp(made, node, self.layout.stride):
                found.append(row)
        return np.array(found, np.uint32)


cdef class PackedFinder(Finder):
    """Searches n packed nodes, starting from the entries, uint32 rows. `codes`: what the nodes were encoded from."""

    cdef qv_nodes g
    cdef object _kept

    def __init__(self, Codec codec not None, Column codes not None, Column nodes not None, n, degree,
                 cnp.ndarray signs not None, cnp.ndarray entries not None):
        _check_rows(codec, codes, n)
        _check_room(nodes, n)
        _init_layout(&self.g.layout, codec, degree, signs)
        if nodes.c.stride != self.g.layout.stride:
            raise CorruptError(f"nodes have a stride of {nodes.c.stride} bytes, the layout of {self.g.layout.stride}")
        self.g.nodes, self.g.n = &nodes.c, n
        self._kept = (codec, codes, nodes, signs, self._start(codec, codes, entries[entries < n], signs))
        self.columns = [nodes]
        self.f.find, self.f.index = qv_nodes_find, &self.g

    cdef _start(self, Codec codec, Column codes, cnp.ndarray entries, cnp.ndarray signs):
        """Encode the node that searches start from: the mean of the entries, with the entries as neighbors."""
        cdef uint32_t degree = max(32, (len(entries) + 31) // 32 * 32)
        cdef cnp.ndarray rows = np.full(degree, QV_NO_ROW, np.uint32)
        rows[:len(entries)] = entries
        cdef cnp.ndarray center = codec.decode(codes.read(entries)).mean(axis=0, keepdims=True)
        cdef cnp.ndarray code = codec.encode(center)
        _init_layout(&self.g.start_layout, codec, degree, signs)
        cdef cnp.ndarray start = _aligned(1, self.g.start_layout.stride)
        cdef cnp.ndarray scratch = np.empty(3 * self.g.start_layout.dims, np.float32)
        if qv_node_encode(&self.g.start_layout, &codes.c, self.g.n, <const uint32_t *>cnp.PyArray_DATA(rows),
                          <const uint8_t *>cnp.PyArray_DATA(code), <float *>cnp.PyArray_DATA(scratch),
                          <uint8_t *>cnp.PyArray_DATA(start)):
            _raise_status(QV_DAMAGED, [codes])
        self.g.start = <const uint8_t *>cnp.PyArray_DATA(start)
        return start
