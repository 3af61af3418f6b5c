# cython: language_level=3
# Inverted lists: their columns, entries in and out, and the search over them as a finder. Relies on search.pxi.

from libc.stdint cimport uint8_t, uint32_t

cdef extern from "ivf/lists.h" nogil:
    const uint32_t QV_NO_BLOCK
    enum: QV_COPIES_MAX
    enum: QV_LIST_BYTES "sizeof(qv_list)"
    enum: QV_LIST_BLOCK_BYTES "sizeof(qv_list_block)"
    ctypedef struct qv_lists:
        qv_column *blocks
        qv_column *lists
        qv_column *centroids
        qv_column *slots
        int dim, dims, metric, copies
        uint32_t n_lists, n, n_blocks, n_free, free_block
        const uint8_t *signs
        const float *mean
        qv_codec l2, dot
        qv_fs_sums_fn sums
    ctypedef struct qv_ivf:
        qv_lists lists
        const qv_codec *codec
        qv_column *codes
        const qv_codec *original
        qv_column *originals
        int comparable
    int qv_lists_begin(qv_lists *lists, const float *centroids, const float *spreads)
    int qv_lists_assign(qv_lists *lists, const float *y, int copies, uint32_t *owners, float *distance, qv_scratch *s)
    int qv_lists_append(qv_lists *lists, uint32_t list, const uint32_t *rows, const float *y, const float *losses,
                        uint32_t n, const uint8_t *copies)
    int qv_lists_remove(qv_lists *lists, uint32_t slot)
    int qv_lists_entry_is(qv_lists *lists, uint32_t slot, uint32_t row, const float *y)
    int qv_lists_move(qv_lists *lists, uint32_t source, uint32_t target)
    int qv_lists_decode(qv_lists *lists, const uint32_t *slots, float *y, float *loss)
    int qv_ivf_find(const void *index, const qv_search_params *params, const float *original, const float *transformed,
                qv_scratch *s) noexcept

LIST_BYTES = QV_LIST_BYTES
MAX_COPIES = QV_COPIES_MAX


def list_block_bytes(int dims):
    """Bytes of a block of 32 entries with codes of `dims` dimensions."""
    return <size_t>QV_LIST_BLOCK_BYTES + qv_fs_bytes(dims)


cdef class Lists:
    """Inverted lists in four columns; see lists.h.

    signs: of the rotation, uint8 [dims / 2]. n_lists: number of lists without that of the centroids. n: rows are below.
    n_blocks: used and free blocks. n_free, free_block: number of free blocks, and the first.
    """

    cdef qv_lists l
    cdef Column _blocks, _lists, _centroids, _slots
    cdef cnp.ndarray _signs, _mean
    cdef list _idle

    def __init__(self, Column blocks not None, Column lists not None, Column centroids not None, Column slots not None,
                 int dim, str metric, signs, n_lists, n, n_blocks, n_free, free_block):
        memset(&self.l, 0, sizeof(self.l))
        self._blocks, self._lists, self._centroids, self._slots = blocks, lists, centroids, slots
        self._idle = []
        self._set_shape(dim, metric, signs)
        self._set_counts(n_lists, n, n_blocks, n_free, free_block)
        self._mean = np.ascontiguousarray(self._centroids.read([n_lists])[0].view(np.float32)[:self.l.dims])
        self.l.mean = <const float *>cnp.PyArray_DATA(self._mean)

    cdef _set_shape(self, int dim, str metric, signs):
        cdef int dims = (dim + 63) // 64 * 64, level = qv_simd_best()
        self.l.blocks, self.l.lists = &self._blocks.c, &self._lists.c
        self.l.centroids, self.l.slots = &self._centroids.c, &self._slots.c
        self.l.dim, self.l.dims, self.l.metric = dim, dims, _one_of("metric", metric, _METRICS)
        self.l.copies = self._slots.c.stride // 4
        qv_codec_init(&self.l.l2, _KINDS.index("f32"), _METRICS.index("l2"), dims, NULL, NULL, level)
        qv_codec_init(&self.l.dot, _KINDS.index("f32"), _METRICS.index("ip"), dims, NULL, NULL, level)
        if self._centroids.c.stride != <uint32_t>self.l.l2.stride or self._blocks.c.stride != list_block_bytes(dims):
            raise CorruptError(f"the columns of lists do not go together: {dims} dimensions, blocks of {self._blocks.c.stride} bytes")
        if self._lists.c.stride != QV_LIST_BYTES or not 1 <= self.l.copies <= QV_COPIES_MAX:
            raise CorruptError(f"rows of {self._lists.c.stride} bytes are no lists, or {self.l.copies} copies too many")
        self._signs = _vector(signs, "signs", cnp.NPY_UINT8, dims // 2)
        self.l.signs = <const uint8_t *>cnp.PyArray_DATA(self._signs)
        self.l.sums = qv_fs_sums(level)

    cdef _set_counts(self, n_lists, n, n_blocks, n_free, free_block):
        if not 1 <= n_lists < self._lists.n_rows or n_lists >= self._centroids.n_rows:
            raise CorruptError(f"{n_lists} lists do not fit the columns, which hold {self._lists.n_rows} rows")
        if not 0 <= n <= self._slots.n_rows or not 0 <= n_blocks <= self._blocks.n_rows:
            raise CorruptError(f"{n} rows or {n_blocks} blocks are more than the columns of the lists hold")
        if not 0 <= n_free <= n_blocks:
            raise CorruptError(f"{n_free} blocks of {n_blocks} cannot be free")
        self.l.n_lists, self.l.n = n_lists, n
        self.l.n_blocks, self.l.n_free, self.l.free_block = n_blocks, n_free, free_block

    @property
    def n_lists(self):
        return self.l.n_lists

    @property
    def copies(self):
        return self.l.copies

    @property
    def dims(self):
        return self.l.dims

    @property
    def n_blocks(self):
        return self.l.n_blocks

    @property
    def n_free(self):
        return self.l.n_free

    @property
    def free_block(self):
        return self.l.free_block

    def vectors(self, x):
        """Transform vectors [n, dim] as the lists need them: float32 [n, dims], rotated and centered, normalized under cosine."""
        y = transform(x, self.l.dims, self.l.metric == _METRICS.index("cosine"), None, self._signs)
        y -= self._mean
        return y

    def begin(self, centroids, spreads):
        """Store centroids, float32 [n_lists, dims], and their spreads: the mean squared distance of each list's vectors.

        All lists are empty afterwards.
        """
        cdef cnp.ndarray c = _checked(centroids, "centroids", cnp.NPY_FLOAT32, self.l.dims)
        cdef cnp.ndarray v = _vector(spreads, "spreads", cnp.NPY_FLOAT32, self.l.n_lists)
        if _count(c) != self.l.n_lists:
            raise ValueError(f"there are {self.l.n_lists} lists, not {_count(c)}")
        cdef int status
        with nogil:
            status = qv_lists_begin(&self.l, <const float *>cnp.PyArray_DATA(c), <const float *>cnp.PyArray_DATA(v))
        self._check(status)

    def assign(self, y, int copies):
        """Assign vectors, float32 [n, dims], to lists: uint32 [n, copies], nearest first, and squared distances, [n].

        Thread-safe. With fewer lists than copies, the same list is returned twice.
        """
        cdef cnp.ndarray vectors = _checked(y, "y", cnp.NPY_FLOAT32, self.l.dims)
        cdef Py_ssize_t i, n = _count(vectors)
        cdef cnp.ndarray owners = np.zeros((n, copies), np.uint32), distances = np.empty(n, np.float32)
        cdef const float *source = <const float *>cnp.PyArray_DATA(vectors)
        cdef uint32_t *owner = <uint32_t *>cnp.PyArray_DATA(owners)
        cdef float *distance = <float *>cnp.PyArray_DATA(distances)
        if not 1 <= copies <= QV_COPIES_MAX:
            raise ValueError(f"copies must be 1 or {QV_COPIES_MAX}, not {copies}")
        cdef Scratch scratch = self._idle.pop() if self._idle else Scratch()
        cdef int status = 0
        with nogil:
            for i in range(n):
                status = qv_lists_assign(&self.l, source + i * self.l.dims, copies, owner + i * copies, distance + i, &scratch.s)
                if status < 0:
                    break
        self._idle.append(scratch)
        self._check(status)
        return owners, distances

    def append(self, rows, y, owners, copies, losses=None):
        """Append rows, uint32 [n], with vectors float32 [n, dims] to the lists uint32 [n]; copies: uint8 [n], 0 or 1.

        losses: squared errors of the vectors, float32 [n]; None: they are exact.
        """
        cdef cnp.ndarray vectors = _checked(y, "y", cnp.NPY_FLOAT32, self.l.dims)
        cdef const uint32_t[::1] row = rows, owner = owners
        cdef const uint8_t[::1] copy = copies
        cdef Py_ssize_t i = 0, end, n = _count(vectors)
        cdef cnp.ndarray lost = _vector(np.zeros(n, np.float32) if losses is None else losses, "losses", cnp.NPY_FLOAT32, n)
        cdef const float *loss = <const float *>cnp.PyArray_DATA(lost)
        cdef const float *source = <const float *>cnp.PyArray_DATA(vectors)
        cdef int status = 0
        if row.shape[0] != n or owner.shape[0] != n or copy.shape[0] != n:
            raise ValueError(f"{row.shape[0]} rows, {n} vectors, {owner.shape[0]} lists and {copy.shape[0]} copies")
        if n and (int(rows.max()) >= self.l.n or int(owners.max()) >= self.l.n_lists or int(copies.max()) >= self.l.copies):
            raise ValueError("a row, a list or a copy is out of range")
        with nogil:
            while i < n and status == 0:
                end = i + 1
                while end < n and owner[end] == owner[i]:
                    end += 1
                status = qv_lists_append(&self.l, owner[i], &row[i], source + i * self.l.dims, loss + i,
                                         <uint32_t>(end - i), &copy[i])
                i = end
        self._check(status)

    def remove(self, rows):
        """Remove rows, uint32 [n], from all their lists."""
        cdef const uint32_t[::1] row = rows
        cdef Py_ssize_t i, n = row.shape[0]
        cdef int copy, status = 0
        cdef uint32_t *slots
        if n and int(rows.max()) >= self.l.n:
            raise ValueError("a row is out of range")
        with nogil:
            for i in range(n):
                slots = <uint32_t *>qv_row_mut(self.l.slots, row[i])
                if slots == NULL:
                    status = QV_DAMAGED
                for copy in range(self.l.copies):
                    if status == 0 and slots[copy] != QV_NO_BLOCK:
                        status = qv_lists_remove(&self.l, slots[copy])
                        slots[copy] = QV_NO_BLOCK
                if status < 0:
                    break
        self._check(status)

    def move(self, old, new):
        """Give the entries of rows to other rows, which have none: uint32 [n] both."""
        cdef const uint32_t[::1] source = old, target = new
        cdef Py_ssize_t i, n = source.shape[0]
        cdef int status = 0
        if target.shape[0] != n or (n and max(int(old.max()), int(new.max())) >= self.l.n):
            raise ValueError(f"{n} rows cannot move to {target.shape[0]}, or a row is out of range")
        with nogil:
            for i in range(n):
                status = qv_lists_move(&self.l, source[i], target[i])
                if status < 0:
                    break
        self._check(status)

    def holds(self, rows, y):
        """Whether the entries of rows, uint32 [n], equal the encoding of float32 [n, dims]: bool [n, copies]."""
        cdef cnp.ndarray vectors = _checked(y, "y", cnp.NPY_FLOAT32, self.l.dims)
        cdef const uint32_t[::1] row = rows
        cdef Py_ssize_t i, n = _count(vectors)
        cdef const float *source = <const float *>cnp.PyArray_DATA(vectors)
        cdef cnp.ndarray slots = self._slots.read(rows), found = np.zeros((n, self.l.copies), np.uint8)
        cdef const uint32_t *slot = <const uint32_t *>cnp.PyArray_DATA(slots)
        cdef uint8_t *out = <uint8_t *>cnp.PyArray_DATA(found)
        cdef int status = 0
        with nogil:
            for i in range(n * self.l.copies):
                if slot[i] == QV_NO_BLOCK:
                    continue
                status = qv_lists_entry_is(&self.l, slot[i], row[i // self.l.copies], source + i // self.l.copies * self.l.dims)
                if status < 0:
                    break
                out[i] = <uint8_t>status
        self._check(status)
        return found.view(bool)

    def decode(self, rows):
        """The vectors that the entries of rows, uint32 [n], stand for: float32 [n, dims], rotated, with the mean; and
        their expected squared errors, float32 [n].

        Raises ValueError for a row that is in no list.
        """
        cdef const uint32_t[::1] row = rows
        cdef Py_ssize_t i, n = row.shape[0]
        cdef cnp.ndarray slots = self._slots.read(rows), out = np.empty((n, self.l.dims), np.float32)
        cdef const uint32_t *slot = <const uint32_t *>cnp.PyArray_DATA(slots)
        cdef cnp.ndarray losses = np.empty(n, np.float32)
        cdef float *y = <float *>cnp.PyArray_DATA(out)
        cdef float *loss = <float *>cnp.PyArray_DATA(losses)
        cdef int status = 1
        with nogil:
            for i in range(n):
                status = qv_lists_decode(&self.l, slot + i * self.l.copies, y + i * self.l.dims, loss + i)
                if status != 1:
                    break
        self._check(status)
        if status == 0:
            raise ValueError(f"row {row[i]} is in no list")
        out += self._mean
        return out, losses

    def center(self, rotated):
        """Subtract the mean from rotated vectors, float32 [n, dims], as `vectors` does."""
        return rotated - self._mean

    cdef _check(self, int status):
        if status < 0:
            _raise_status(status, [self._blocks, self._lists, self._centroids, self._slots])


cdef class ListFinder(Finder):
    """Searches inverted lists; candidates are scored by codes, or by originals if given and re-ranking is wanted.

    comparable: keys of the codes are distances, so that estimates can be compared with them.
    """

    cdef qv_ivf i
    cdef object _kept

    def __init__(self, Lists lists not None, Codec codec not None, Column codes not None, bint comparable,
                 Codec original=None, Column originals=None):
        _check_rows(codec, codes, lists.l.n)
        memset(&self.i, 0, sizeof(self.i))
        self.i.lists, self.i.codec, self.i.codes, self.i.comparable = lists.l, &codec.c, &codes.c, comparable
        if original is not None:
            _check_rows(original, originals, lists.l.n)
            self.i.original, self.i.originals, self.i.comparable = &original.c, &originals.c, True
        self._kept = (lists, codec, codes, original, originals)
        self.columns = [lists._blocks, lists._lists, lists._centroids]
        if original is None:
            self.columns.append(codes)
        self.f.find, self.f.index = qv_ivf_find, &self.i
