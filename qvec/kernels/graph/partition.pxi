# cython: language_level=3
# Build of a graph from partitions. Relies on graph.pxi.

cdef extern from "graph/partition.h" nogil:
    const int QV_ASSIGN_ROWS
    const int QV_PRUNE_ROWS
    const int QV_FANOUT_MAX
    const int QV_NEAREST_MAX
    ctypedef struct qv_partition_options:
        int fanout, leaf_fanout, nearest
        uint32_t n_leaders
        uint64_t seed
    ctypedef struct qv_partition:
        qv_partition_options options
        uint32_t n_parts
    ctypedef struct qv_partition_buffers:
        void *memory
        size_t bytes
        qv_scratch *scratch
    int qv_partition_init(qv_partition *p, const qv_graph *graph, uint32_t *rows, uint32_t n,
                          const qv_partition_options *options)
    void qv_partition_free(qv_partition *p)
    void qv_partition_spill(qv_partition *p, uint32_t n_in_memory, uint8_t *spill)
    size_t qv_part_bytes(const qv_partition *p)
    int qv_partition_assign(qv_partition *p, uint32_t unit, qv_partition_buffers *buffers)
    int qv_partition_group(qv_partition *p)
    int qv_partition_cluster(qv_partition *p, uint32_t unit, qv_partition_buffers *buffers)
    int qv_partition_prune(qv_partition *p, uint32_t part, qv_partition_buffers *buffers)
    int qv_partition_reverse(qv_partition *p)
    int qv_partition_write(qv_partition *p, uint32_t part, qv_partition_buffers *buffers)
    int qv_attach_duplicates(const qv_graph *graph, uint32_t row, const uint32_t *duplicates, uint32_t n)
    int qv_partition_tree(const qv_graph *graph, const uint32_t *rows, uint32_t n, uint64_t *waiting, uint32_t *queue)
    int qv_first_equals(const qv_codec *codec, qv_column *codes, const uint32_t *rows, uint32_t n, uint32_t *first)

ctypedef int (*_unit_fn)(qv_partition *p, uint32_t unit, qv_partition_buffers *buffers) noexcept nogil


@cython.final
cdef class PartitionLinker(_GraphWriter):
    """Builds the graph of all its rows at once. partition.h describes the steps, which are called in this order:

    assign (each of n_assign units), group, cluster (n_clusters), prune (n_parts), reverse, write (n_parts), tree. Units
    of a step may run on any number of threads.
    codec: int8 with a scale for each row, not under "ip". n, root, alpha, fill: as of a Linker. rows: uint32, distinct.
    fanout: number of clusters that a row belongs to; leaf_fanout: number of leaves in each of them. nearest: number of
    candidates that a row gets from a leaf. n_leaders: number of clusters.
    """

    cdef qv_partition _p
    cdef bint _initialized
    cdef cnp.ndarray _places
    cdef readonly uint32_t n_assign, n_clusters, n_parts
    cdef list _buffers
    cdef object _spilled

    def __cinit__(self):
        self._initialized = False

    def __init__(self, Codec codec, Column codes, Column adjacency, n, rows, root, alpha, fill, *, int fanout,
                 int leaf_fanout, int nearest, uint32_t n_leaders, uint64_t seed):
        cdef qv_partition_options options
        self._init(codec, codes, adjacency, n, np.array([root], np.uint32), root, alpha, None)
        self.g.fill = fill
        if codec.kind != "int8" or codec.c.lower != NULL or codec.metric == "ip":
            raise ValueError(f"codes of kind {codec.kind} under {codec.metric} cannot be linked by partitions")
        self._take(rows)
        if self._count < 2 or not 2 <= n_leaders <= self._count:
            raise ValueError(f"{n_leaders} leaders of {self._count} rows; at least two, and one for each row")
        if not (1 <= fanout <= QV_FANOUT_MAX and 1 <= leaf_fanout <= QV_FANOUT_MAX and 1 <= nearest <= QV_NEAREST_MAX):
            raise ValueError(f"fan-outs {fanout}, {leaf_fanout} and {nearest} neighbors; each is 1 to {QV_FANOUT_MAX}")
        self._places = np.array(rows, np.uint32)
        options.fanout, options.leaf_fanout, options.nearest = fanout, leaf_fanout, nearest
        options.n_leaders, options.seed = n_leaders, seed
        self._buffers = []
        self._initialized = True
        self._check(qv_partition_init(&self._p, &self.g, <uint32_t *>cnp.PyArray_DATA(self._places), self._count, &options))
        self.n_assign = (self._count + QV_ASSIGN_ROWS - 1) // QV_ASSIGN_ROWS
        self.n_clusters, self.n_parts = n_leaders, self._p.n_parts

    def __dealloc__(self):
        if self._initialized:
            qv_partition_free(&self._p)

    cdef _run(self, _unit_fn step, uint32_t unit, uint32_t n_units):
        if unit >= n_units:
            raise ValueError(f"unit {unit} of {n_units}")
        cdef _PartitionBuffers buffers = self._buffers.pop() if self._buffers else _PartitionBuffers()
        cdef Scratch scratch = self._scratch(1)
        cdef int status
        buffers.b.scratch = &scratch.s
        with nogil:
            status = step(&self._p, unit, &buffers.b)
        self._buffers.append(buffers)
        self._done(scratch, status)

    @property
    def part_bytes(self):
        """Bytes of the candidates and lists of one of n_parts parts of the rows."""
        return qv_part_bytes(&self._p)

    @property
    def cluster_bytes(self):
        """Bytes of the rows and of the members of all clusters."""
        return self._count * (1 + self._p.options.fanout) * sizeof(uint32_t)

    def spill(self, uint32_t n_in_memory, buffer):
        """Keep the parts from n_in_memory on in a writable buffer of part_bytes for each."""
        cdef uint8_t[::1] spilled = buffer
        if n_in_memory < self.n_parts and spilled.shape[0] < (self.n_parts - n_in_memory) * self.part_bytes:
            raise ValueError(f"{spilled.shape[0]} bytes for {self.n_parts - n_in_memory} parts of {self.part_bytes}")
        self._spilled = spilled
        qv_partition_spill(&self._p, n_in_memory, &spilled[0])

    def assign(self, uint32_t unit):
        """Find the clusters of a block of rows."""
        self._run(<_unit_fn>qv_partition_assign, unit, self.n_assign)

    def group(self):
        """Group rows by cluster."""
        cdef int status
        with nogil:
            status = qv_partition_group(&self._p)
        self._check(status)

    def cluster(self, uint32_t unit):
        """Find candidates among the rows of a cluster. Unit 0 is the largest cluster, unit 1 the next."""
        self._run(<_unit_fn>qv_partition_cluster, unit, self.n_clusters)

    def prune(self, uint32_t unit):
        """Prune the candidates of a part of the rows."""
        self._run(<_unit_fn>qv_partition_prune, unit, self.n_parts)

    def reverse(self):
        """Group edges by their targets."""
        cdef int status
        with nogil:
            status = qv_partition_reverse(&self._p)
        self._check(status)

    def write(self, uint32_t unit):
        """Store the lists of a part of the rows, with reverse edges."""
        self._run(<_unit_fn>qv_partition_write, unit, self.n_parts)

    def tree(self, equal, first):
        """Attach `equal`, uint32 rows, below `first`, ascending rows with the same codes, and mark the tree edges."""
        cdef const uint32_t[::1] below = np.ascontiguousarray(equal, np.uint32)
        cdef const uint32_t[::1] above = np.ascontiguousarray(first, np.uint32)
        cdef uint32_t n_below = <uint32_t>below.shape[0], i = 0, stop
        if above.shape[0] != n_below or n_below and max(np.max(equal), np.max(first)) >= self.g.n:
            raise ValueError("duplicates and the rows above them must be as many, and below n")
        cdef cnp.ndarray bits = np.zeros((self.g.n + 63) // 64, np.uint64)
        cdef uint64_t *waiting = <uint64_t *>cnp.PyArray_DATA(bits)
        cdef uint32_t *queue = <uint32_t *>malloc((<size_t>self.g.n + 1) * sizeof(uint32_t))
        cdef int status = 0
        if not queue:
            raise MemoryError("no memory for the tree of the graph")
        with nogil:
            for i in range(self._count):
                waiting[self._rows[i] >> 6] |= <uint64_t>1 << (self._rows[i] & 63)
            i = 0
            while i < n_below and status >= 0:
                stop = i
                while stop < n_below and above[stop] == above[i]:
                    waiting[below[stop] >> 6] |= <uint64_t>1 << (below[stop] & 63)
                    stop += 1
                status = qv_attach_duplicates(&self.g, above[i], &below[i], stop - i)
                i = stop
            if status >= 0:
                status = qv_partition_tree(&self.g, &self._rows[0], self._count, waiting, queue)
        free(queue)
        self._check(status)


@cython.internal
@cython.final
cdef class _PartitionBuffers:
    cdef qv_partition_buffers b

    def __cinit__(self):
        memset(&self.b, 0, sizeof(self.b))

    def __dealloc__(self):
        qv_aligned_free(self.b.memory)


def first_equals(Codec codec, Column codes, rows):
    """For each of the rows, uint32, the index of the first with an equal code; uint32."""
    cdef const uint32_t[::1] given = np.ascontiguousarray(rows, np.uint32)
    cdef uint32_t n = <uint32_t>given.shape[0]
    cdef uint32_t[::1] first = np.empty(n, np.uint32)
    cdef int status = 0
    if n:
        _check_rows(codec, codes, int(np.max(rows)) + 1)
        with nogil:
            status = qv_first_equals(&codec.c, &codes.c, &given[0], n, &first[0])
    if status < 0:
        _raise_status(status, [codes])
    return np.asarray(first)


cdef extern from "graph/tile.h" nogil:
    const int QV_TILE_ROWS
    const int QV_TILE_COLUMNS
    const int32_t QV_NO_KEY
    ctypedef struct qv_tile_set:
        int n
    ctypedef struct qv_near:
        int32_t key
        uint32_t column
    ctypedef struct qv_tile_kernels:
        void (*keys)(const qv_tile_set *rows, int i, const qv_tile_set *columns, int first, int stop, int32_t *keys,
                     size_t pitch) noexcept
        int (*nearest)(const int32_t *keys, int n_panels, int k, qv_near *near) noexcept
        void (*leaf)(const int32_t *keys, size_t pitch, int m, int k, int32_t *minima, qv_near *near,
                     uint8_t *found) noexcept
    const qv_tile_kernels *qv_tile_kernels_of(int simd)
    int qv_panels(int n)
    size_t qv_leaf_minima(int m)
    size_t qv_tile_set_bytes(const qv_tile_kernels *kernels, int n, int dims)
    void qv_tile_set_init(qv_tile_set *set, const qv_tile_kernels *kernels, int n, int dims, void *memory)
    void qv_tile_set_load(qv_tile_set *set, const qv_tile_kernels *kernels, const qv_codec *codec,
                          const uint8_t **codes, int n, int panels)


def pair_keys(Codec codec, cnp.ndarray rows, int k):
    """Squared distances among int8 codes, uint8 [n, stride], and the k nearest of each by whole rows and by a leaf.

    Returns float32 [n, n]; and two arrays int32 [n, k], nearest first, ties by row, -1 where there are fewer. The first
    counts a row as its own neighbor. For tests of the kernels of partitions.
    """
    cdef int n = rows.shape[0], i, j, found
    if rows.dtype != np.uint8 or not rows.flags.c_contiguous or rows.shape[1] != codec.c.stride or codec.kind != "int8":
        raise ValueError("rows must be contiguous int8 codes")
    if not 1 <= k <= QV_NEAREST_MAX or n < 1:
        raise ValueError(f"{k} nearest of {n} rows")
    cdef const qv_tile_kernels *kernels = qv_tile_kernels_of(codec.c.simd)
    cdef int pitch = qv_panels(n) * QV_TILE_COLUMNS, dims = codec.c.data_size
    cdef size_t bytes = qv_tile_set_bytes(kernels, n, dims) + 64
    cdef cnp.ndarray memory = np.zeros(bytes, np.uint8)
    cdef int32_t[:, ::1] keys = np.zeros((n + QV_TILE_ROWS, pitch), np.int32)
    cdef int32_t[::1] minima = np.zeros(qv_leaf_minima(n), np.int32)
    cdef cnp.ndarray near = np.zeros((n, k, 2), np.int32)
    cdef cnp.ndarray counts = np.zeros(n, np.uint8)
    cdef qv_near *nearest = <qv_near *>cnp.PyArray_DATA(near)
    cdef const uint8_t **codes = <const uint8_t **>malloc(n * sizeof(uint8_t *))
    cdef size_t at = (<size_t>cnp.PyArray_DATA(memory) + 63) // 64 * 64
    cdef qv_tile_set tiles
    if not codes:
        raise MemoryError("no memory for the rows")
    for i in range(n):
        codes[i] = <const uint8_t *>cnp.PyArray_DATA(rows) + <size_t>i * codec.c.stride
    qv_tile_set_init(&tiles, kernels, n, dims, <void *>at)
    qv_tile_set_load(&tiles, kernels, &codec.c, codes, n, 1)
    free(codes)
    for i in range(0, n, QV_TILE_ROWS):
        kernels.keys(&tiles, i, &tiles, 0, qv_panels(n), &keys[i, 0], pitch)
    pairs = np.asarray(keys)[:n, :n].copy().view(np.float32)
    whole, leaf = np.full((n, k), -1, np.int32), np.full((n, k), -1, np.int32)
    for i in range(n):
        found = kernels.nearest(&keys[i, 0], qv_panels(n), k, nearest)
        whole[i, :found] = near.reshape(-1, 2)[:found, 1]
        for j in range(i + 1):
            keys[i, j] = QV_NO_KEY
    kernels.leaf(&keys[0, 0], pitch, n, k, &minima[0], nearest, <uint8_t *>cnp.PyArray_DATA(counts))
    for i in range(n):
        leaf[i, :counts[i]] = near[i, :counts[i], 1]
    return pairs, whole, leaf
