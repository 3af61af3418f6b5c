# cython: language_level=3
# Searches of posting lists. Relies on segments.pxi.


cdef class _QueryLists:
    """Lists of a query, which grow."""

    cdef qv_query_list *lists
    cdef uint32_t n, capacity

    def __dealloc__(self):
        free(self.lists)

    cdef qv_query_list *next(self) except NULL:
        cdef qv_query_list *grown
        if self.n == self.capacity:
            grown = <qv_query_list *>realloc(self.lists, (2 * self.capacity + 32) * sizeof(qv_query_list))
            if grown == NULL:
                raise MemoryError()
            self.lists, self.capacity = grown, 2 * self.capacity + 32
        return self.lists + self.n


cdef int _add_lists(_QueryLists lists, PostingField field, uint32_t number, bytes term, double weight) except -1:
    """Add the lists of one term of a query."""
    cdef Segment segment
    cdef qv_query_list *one
    cdef uint32_t first = lists.n
    cdef int64_t count, total = 0
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(term)
    if len(term) > QV_TERM_MAX:
        return 0
    known = field._counts.get(term)
    for segment in field.segments:
        one = lists.next()
        if not segment._find(data, <unsigned>len(term), &one.list):
            continue
        if known is None and field.is_text:
            count = qv_list_count(&segment.s, &one.list, &segment.rows)
            if count < 0:
                segment._fail()
            total += count
        one.segment, one.valid, one.field = &segment.s, segment.rows, number
        one.weight = <float>(weight * one.list.scale)
        lists.n += 1
    if not field.is_text:
        return 0
    if known is None:
        field._counts[term] = total
    else:
        total = known
    if total == 0:
        lists.n = first
    weight *= log1p((field.n_docs - <double>total + 0.5) / (<double>total + 0.5))
    for i in range(first, lists.n):
        lists.lists[i].weight = <float>weight
    return 0


def search_postings(list fields not None, list terms not None, uint32_t n, int k, const uint64_t[::1] excluded, *,
                    Deadline deadline=None, simd=None) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """The best k rows, int64, for weighted terms, their scores, float32, descending, and the work done.

    fields: PostingFields. terms: (number of the field, term, weight above zero) for each term. n: rows of the collection.
    excluded: bitmap of rows that may not be found; None: none. Equal scores: the lower row first. A row without any of the
    terms is not found. Work: windows, decoded blocks and scored postings. Raises SearchTimeoutError after the deadline.
    """
    cdef _QueryLists lists = _QueryLists()
    cdef PostingField field
    cdef qv_text_query query
    cdef qv_text_work work
    cdef qv_pool pool
    cdef int status = 0, i
    cdef cnp.npy_intp found
    if k < 1:
        raise ValueError(f"k is {k}")
    if excluded is not None and <uint64_t>excluded.shape[0] * 64 < n:
        raise ValueError(f"a bitmap of {excluded.shape[0]} words does not hold {n} rows")
    for number, term, weight in terms:
        _add_lists(lists, <PostingField?>fields[number], number, term, weight)
    cdef qv_text_field *of = <qv_text_field *>calloc(len(fields) + 1, sizeof(qv_text_field))
    memset(&pool, 0, sizeof(pool))
    memset(&work, 0, sizeof(work))
    if k > <int64_t>n:
        k = <int>n if n else 1
    pool.slots = <uint64_t *>malloc((<size_t>k + 1) * sizeof(uint64_t))
    try:
        if of == NULL or pool.slots == NULL:
            raise MemoryError()
        for i in range(len(fields)):
            field = fields[i]
            of[i] = field.f
        query.fields, query.n_fields, query.lists, query.n_lists = of, <uint32_t>len(fields), lists.lists, lists.n
        query.excluded = NULL
        if excluded is not None and excluded.shape[0]:
            query.excluded = &excluded[0]
        query.n, query.simd = n, _level(simd)
        query.deadline = deadline.at if deadline is not None else 0
        if lists.n:
            with nogil:
                status = qv_text_search(&query, &pool, k, &work)
        if status == QV_LATE:
            deadline.fail()
        if status == QV_DAMAGED:
            raise CorruptError("a posting list or the lengths of a text field are damaged")
        if status:
            raise MemoryError()
        found = pool.size
        rows = cnp.PyArray_SimpleNew(1, &found, cnp.NPY_INT64)
        scores = cnp.PyArray_SimpleNew(1, &found, cnp.NPY_FLOAT32)
        for i in range(<int>found):
            (<int64_t *>cnp.PyArray_DATA(<cnp.ndarray>rows))[i] = qv_candidate_row(pool.slots[i])
            (<float *>cnp.PyArray_DATA(<cnp.ndarray>scores))[i] = -qv_candidate_key(pool.slots[i])
        return rows, scores, (work.windows, work.blocks, work.postings)
    finally:
        free(of)
        free(pool.slots)
