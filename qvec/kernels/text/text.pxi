# cython: language_level=3
# Posting lists of text and sparse fields: batches of terms, segments, searches. Relies on Column (column.pxi) and the pool
# of a search (search.pxi).

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport log1p
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcpy, memset

cdef extern from "text/segment.h" nogil:
    enum: QV_TEXT
    enum: QV_SPARSE
    enum: QV_TERM_MAX
    enum: QV_SEGMENT_STRIDE
    enum: QV_LENGTHS
    ctypedef struct qv_segment:
        uint32_t n_terms, n_docs, first_row, last_row
        uint64_t n_postings
        int kind
    ctypedef struct qv_plist:
        uint32_t count
        float scale
    ctypedef struct qv_dictionary:
        uint8_t term[256]
        unsigned size
        qv_plist list
    ctypedef struct qv_rows:
        const uint64_t *words
        uint32_t first, n
    int qv_segment_open(qv_segment *, qv_column *)
    int qv_segment_find(const qv_segment *, const uint8_t *, unsigned, qv_plist *)
    void qv_dictionary_begin(qv_dictionary *, const qv_segment *)
    int qv_dictionary_next(qv_dictionary *)

cdef extern from "text/encode.h" nogil:
    ctypedef struct qv_bytes:
        uint8_t *data
        size_t size
    ctypedef struct qv_encoder:
        qv_bytes lists
        int failed, damaged
    void qv_encoder_begin(qv_encoder *, int, uint32_t, uint32_t, uint32_t, qv_column *)
    int qv_encoder_end(qv_encoder *, uint32_t)
    void qv_encoder_free(qv_encoder *)
    enum: QV_ENCODE_NO_MEMORY
    int qv_merge(qv_encoder *, const qv_segment *, const qv_rows *, int)

cdef extern from "text/terms.h" nogil:
    ctypedef struct qv_span:
        uint32_t first, last
    ctypedef struct qv_terms:
        uint32_t n_terms, first_row, last_row, n_docs
        size_t n_pairs
        int failed
    int64_t qv_split_ascii(const uint8_t *, size_t, uint8_t *, qv_span *)
    void qv_terms_free(qv_terms *)
    uint32_t qv_terms_number(qv_terms *, const uint8_t *, unsigned)
    int qv_terms_add(qv_terms *, uint32_t, uint32_t, uint32_t)
    int qv_terms_encode(const qv_terms *, qv_encoder *)

cdef extern from "search/pool.h" nogil:
    ctypedef struct qv_pool:
        uint64_t *slots
        int size
    uint32_t qv_candidate_row(uint64_t)
    float qv_candidate_key(uint64_t)

cdef extern from "text/score.h" nogil:
    ctypedef struct qv_text_field:
        qv_column *lengths
        float base, slope
    ctypedef struct qv_query_list:
        const qv_segment *segment
        qv_plist list
        qv_rows valid
        float weight
        uint32_t field
    ctypedef struct qv_text_query:
        const qv_text_field *fields
        uint32_t n_fields, n_lists
        const qv_query_list *lists
        const uint64_t *excluded
        uint32_t n
        int simd
        uint64_t deadline
    ctypedef struct qv_text_work:
        uint64_t windows, blocks, postings
    int qv_text_search(const qv_text_query *, qv_pool *, int, qv_text_work *)
    int64_t qv_list_count "qv_plist_count"(const qv_segment *, const qv_plist *, const qv_rows *)
    int qv_list_bits "qv_plist_bits"(const qv_segment *, const qv_plist *, const qv_rows *, uint32_t, uint64_t *)

MAX_TERM_BYTES = QV_TERM_MAX
SEGMENT_STRIDE = QV_SEGMENT_STRIDE
LENGTHS_PER_ROW = QV_LENGTHS
_POSTING_KINDS = ("text", "sparse")


def split_ascii(text: str) -> list[str] | None:
    """The words of a text, in lower case. None: the text is not ASCII, or has a word longer than MAX_TERM_BYTES."""
    cdef Py_ssize_t size
    if not text.isascii():
        return None
    cdef const char *data = PyUnicode_AsUTF8AndSize(text, &size)
    cdef bytes lower = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(lower)
    cdef qv_span *spans = <qv_span *>malloc((size // 2 + 1) * sizeof(qv_span))
    if spans == NULL:
        raise MemoryError()
    cdef int64_t n = qv_split_ascii(<const uint8_t *>data, size, to, spans), i
    try:
        return None if n < 0 else [lower[spans[i].first:spans[i].last].decode() for i in range(n)]
    finally:
        free(spans)


cdef class TermBatch:
    """The terms of a batch of rows, which become a segment. Rows are added in ascending order.

    kind: "text" or "sparse". term_of: under text, called once for each different word (str): the term to store (str of at
    most MAX_TERM_BYTES in UTF-8), or None to leave the word out; None: words are terms.
    """

    cdef qv_terms words, terms
    cdef uint32_t *numbers
    cdef uint32_t n_numbers, numbers_capacity
    cdef object term_of
    cdef readonly str kind
    cdef bytearray _lower
    cdef qv_span *_spans
    cdef size_t _room

    def __cinit__(self, str kind not None, term_of=None):
        if kind not in _POSTING_KINDS:
            raise ValueError(f"kind must be text or sparse, got {kind!r}")
        self.kind, self.term_of = kind, term_of
        memset(&self.words, 0, sizeof(self.words))
        memset(&self.terms, 0, sizeof(self.terms))

    def __dealloc__(self):
        qv_terms_free(&self.words)
        qv_terms_free(&self.terms)
        free(self.numbers)
        free(self._spans)

    @property
    def n_docs(self) -> int:
        """Rows with terms."""
        return self.terms.n_docs

    @property
    def n_postings(self) -> int:
        """Pairs of a term and a row, repeated terms included."""
        return self.terms.n_pairs

    @property
    def first_row(self) -> int:
        return self.terms.first_row

    @property
    def last_row(self) -> int:
        return self.terms.last_row

    cdef uint32_t _number(self, const uint8_t *word, unsigned size) except? 0xFFFFFFFE:
        """The number of the term of a word; UINT32_MAX: none."""
        cdef uint32_t number
        cdef uint32_t *grown
        cdef const char *data
        cdef Py_ssize_t length
        if self.term_of is None:
            number = qv_terms_number(&self.terms, word, size)
            if self.terms.failed:
                raise MemoryError()
            return number
        number = qv_terms_number(&self.words, word, size)
        if self.words.failed:
            raise MemoryError()
        if number < self.n_numbers:
            return self.numbers[number]
        if self.n_numbers == self.numbers_capacity:
            grown = <uint32_t *>realloc(self.numbers, (2 * self.numbers_capacity + 1024) * sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError()
            self.numbers, self.numbers_capacity = grown, 2 * self.numbers_capacity + 1024
        term = self.term_of((<const char *>word)[:size].decode("utf-8"))
        if term is None or term == "":
            self.numbers[number] = 0xFFFFFFFF
        else:
            data = PyUnicode_AsUTF8AndSize(term, &length)
            if length > QV_TERM_MAX:
                raise ValueError(f"a term of {length} bytes is longer than {QV_TERM_MAX}")
            self.numbers[number] = qv_terms_number(&self.terms, <const uint8_t *>data, <unsigned>length)
            if self.terms.failed:
                raise MemoryError()
        self.n_numbers = number + 1
        return self.numbers[number]

    cdef int _begin(self, uint32_t row) except -1:
        if self.terms.n_docs and row <= self.terms.last_row:
            raise ValueError(f"row {row} does not follow row {self.terms.last_row}")
        return 0

    cdef int _end(self, uint32_t row) except -1:
        if self.terms.n_docs == 0:
            self.terms.first_row = row
        self.terms.last_row = row
        self.terms.n_docs += 1
        return 0

    cdef int _reserve(self, size_t size) except -1:
        if size > self._room:
            free(self._spans)
            self._spans = <qv_span *>malloc((size // 2 + 1) * sizeof(qv_span))
            if self._spans == NULL:
                self._room = 0
                raise MemoryError()
            self._lower = bytearray(size)
            self._room = size
        return 0

    def add_text(self, uint32_t row, str text not None) -> int:
        """Add the words of ASCII text; returns the number of terms, or -1 if the text must be split by other means."""
        cdef Py_ssize_t size
        cdef int64_t n, i
        cdef uint32_t number
        cdef int count = 0
        if not text.isascii():
            return -1
        self._begin(row)
        cdef const char *data = PyUnicode_AsUTF8AndSize(text, &size)
        if size == 0:
            return 0
        self._reserve(size)
        cdef uint8_t *lower = <uint8_t *>self._lower
        n = qv_split_ascii(<const uint8_t *>data, size, lower, self._spans)
        for i in range(n):
            number = self._number(lower + self._spans[i].first, self._spans[i].last - self._spans[i].first)
            if number != 0xFFFFFFFF:
                if qv_terms_add(&self.terms, number, row, 1):
                    raise MemoryError()
                count += 1
        if count:
            self._end(row)
        return -1 if n < 0 else count

    def add_words(self, uint32_t row, words) -> int:
        """Add words (a sequence of str without the character 0); returns the number of terms."""
        cdef int count = 0
        cdef uint32_t number
        cdef Py_ssize_t size, length
        self._begin(row)
        if not words:
            return 0
        cdef bytes joined = "\0".join(words).encode()
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(joined)
        cdef const uint8_t *end = at + len(joined)
        cdef const uint8_t *next
        while at <= end:
            next = <const uint8_t *>memchr(at, 0, end - at)
            if next == NULL:
                next = end
            length = next - at
            if length > QV_TERM_MAX:
                raise ValueError(f"a word of {length} bytes is longer than {QV_TERM_MAX}")
            if length:
                number = self._number(at, <unsigned>length)
                if number != 0xFFFFFFFF:
                    if qv_terms_add(&self.terms, number, row, 1):
                        raise MemoryError()
                    count += 1
            at = next + 1
        if count:
            self._end(row)
        return count

    def add_weights(self, uint32_t row, const uint32_t[::1] ids not None, const float[::1] weights not None) -> None:
        """Add the ids of a sparse vector, each once, with weights above zero."""
        cdef uint32_t id, bits, number
        cdef float weight
        cdef Py_ssize_t i
        cdef uint8_t key[4]
        self._begin(row)
        if ids.shape[0] != weights.shape[0]:
            raise ValueError(f"{weights.shape[0]} weights for {ids.shape[0]} ids")
        for i in range(ids.shape[0]):
            id, weight = ids[i], weights[i]
            if not weight > 0:
                raise ValueError(f"weight {weight} is not above zero")
            key[0], key[1], key[2], key[3] = id >> 24, id >> 16 & 255, id >> 8 & 255, id & 255
            number = qv_terms_number(&self.terms, key, 4)
            memcpy(&bits, &weight, 4)
            if number == 0xFFFFFFFF or qv_terms_add(&self.terms, number, row, bits):
                raise MemoryError()
        if ids.shape[0]:
            self._end(row)

    def encode(self, uint32_t part_bytes, Column lengths) -> np.ndarray:
        """The segment of all rows: uint8, a whole number of parts. lengths: of the rows, under text."""
        cdef qv_encoder encoder
        cdef int status
        if self.terms.n_docs == 0:
            raise ValueError("a segment needs a row with terms")
        qv_encoder_begin(&encoder, QV_TEXT if self.kind == "text" else QV_SPARSE, part_bytes, self.terms.first_row,
                         self.terms.last_row, NULL if lengths is None else &lengths.c)
        with nogil:
            status = qv_terms_encode(&self.terms, &encoder) or qv_encoder_end(&encoder, self.terms.n_docs)
        return _encoded(&encoder, status, lengths)


cdef object _encoded(qv_encoder *encoder, int status, Column lengths):
    cdef int damaged = encoder.damaged
    cdef cnp.npy_intp size = encoder.lists.size
    try:
        if damaged:
            lengths._fail()
        if status == QV_ENCODE_NO_MEMORY or encoder.failed:
            raise MemoryError()
        if status:
            raise CorruptError("a segment of posting lists is damaged")
        data = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_UINT8)
        memcpy(cnp.PyArray_DATA(<cnp.ndarray>data), encoder.lists.data, size)
        return data
    finally:
        qv_encoder_free(encoder)


cdef class Segment:
    """A segment of posting lists in a column.

    valid: bitmap of the rows whose postings count, uint64; bit 0 is row ``first``. None: all count.
    Raises CorruptError if the header is malformed.
    """

    cdef qv_segment s
    cdef qv_rows rows
    cdef Column column
    cdef object _valid

    def __init__(self, Column column not None, str kind not None, const uint64_t[::1] valid, uint32_t first):
        if qv_segment_open(&self.s, &column.c) or _POSTING_KINDS[self.s.kind] != kind:
            raise CorruptError(f"column {column.name!r} is not a segment of a {kind} field")
        self.column, self._valid = column, valid
        self.rows.words, self.rows.first, self.rows.n = NULL, first, 0
        if valid is not None and valid.shape[0]:
            self.rows.words, self.rows.n = &valid[0], <uint32_t>valid.shape[0] * 64
        elif valid is not None:
            raise CorruptError(f"column {column.name!r} has no bitmap of valid rows")

    @property
    def n_terms(self) -> int:
        """Number of terms."""
        return self.s.n_terms

    @property
    def n_docs(self) -> int:
        """Rows with terms when the segment was written."""
        return self.s.n_docs

    @property
    def first_row(self) -> int:
        return self.s.first_row

    @property
    def last_row(self) -> int:
        return self.s.last_row

    @property
    def n_postings(self) -> int:
        return self.s.n_postings

    def terms(self) -> list[tuple[bytes, int]]:
        """All terms in the order of their bytes, and the number of valid postings of each."""
        cdef qv_dictionary dictionary
        cdef int found
        cdef int64_t count
        qv_dictionary_begin(&dictionary, &self.s)
        listed = []
        while True:
            found = qv_dictionary_next(&dictionary)
            if found <= 0:
                break
            count = qv_list_count(&self.s, &dictionary.list, &self.rows)
            if count < 0:
                self._fail()
            listed.append(((<const char *>dictionary.term)[:dictionary.size], count))
        if found < 0:
            self._fail()
        return listed

    cdef int _find(self, const uint8_t *term, unsigned size, qv_plist *found) except -1:
        cdef int status = qv_segment_find(&self.s, term, size, found)
        if status < 0:
            self._fail()
        return status

    def _fail(self):
        raise CorruptError(f"column {self.column.name!r} holds a damaged posting list")


def merge_segments(list segments not None, str kind not None, uint32_t part_bytes, uint32_t first_row, uint32_t last_row,
                   uint32_t n_docs, Column lengths) -> np.ndarray:
    """The segment of the valid postings of some segments, all of rows first_row to last_row."""
    cdef int n = <int>len(segments), i, status
    cdef qv_segment *s = <qv_segment *>calloc(n + 1, sizeof(qv_segment))
    cdef qv_rows *rows = <qv_rows *>calloc(n + 1, sizeof(qv_rows))
    cdef qv_encoder encoder
    cdef Segment segment
    try:
        if s == NULL or rows == NULL:
            raise MemoryError()
        for i in range(n):
            segment = segments[i]
            s[i], rows[i] = segment.s, segment.rows
        qv_encoder_begin(&encoder, QV_TEXT if kind == "text" else QV_SPARSE, part_bytes, first_row, last_row,
                         NULL if lengths is None else &lengths.c)
        with nogil:
            status = qv_merge(&encoder, s, rows, n)
            if status == 0:
                status = qv_encoder_end(&encoder, n_docs)
    finally:
        free(s)
        free(rows)
    return _encoded(&encoder, status, lengths)


cdef class PostingField:
    """The posting lists of a field as of one commit.

    n_docs: rows with terms. Under text, the score of a posting is idf * f / (f + k1 * (1 - b + b * length / mean)), with
    idf = ln(1 + (n_docs - df + .5) / (df + .5)): BM25 as Lucene computes it, without the constant factor k1 + 1
    (Robertson and Zaragoza, 2009). Under sparse it is the weight.
    """

    cdef list segments
    cdef Column lengths
    cdef qv_text_field f
    cdef readonly uint64_t n_docs
    cdef readonly bint is_text
    cdef dict _counts

    def __init__(self, list segments not None, Column lengths, uint64_t n_docs, double tokens, double k1, double b):
        self.segments, self.lengths, self.n_docs, self.is_text = segments, lengths, n_docs, lengths is not None
        self._counts = {}
        self.f.lengths = NULL
        if lengths is not None:
            if lengths.c.stride != 4 * QV_LENGTHS:
                raise CorruptError(f"column {lengths.name!r} does not hold lengths")
            self.f.lengths = &lengths.c
            self.f.base = <float>(k1 * (1 - b))
            self.f.slope = <float>(k1 * b * n_docs / tokens) if tokens > 0 else 0

    def document_frequency(self, bytes term not None) -> int:
        """Number of rows with the term."""
        cdef Segment segment
        cdef qv_plist found
        cdef int64_t count, total = 0
        known = self._counts.get(term)
        if known is not None:
            return known
        if len(term) > QV_TERM_MAX:
            return 0
        for segment in self.segments:
            if segment._find(<const uint8_t *>PyBytes_AS_STRING(term), <unsigned>len(term), &found):
                count = qv_list_count(&segment.s, &found, &segment.rows)
                if count < 0:
                    segment._fail()
                total += count
        self._counts[term] = total
        return total

    def set_bits(self, bytes term not None, uint32_t n, bits) -> None:
        """Set in ``bits`` the rows, below n, with the term."""
        cdef Segment segment
        cdef qv_plist found
        cdef uint64_t[::1] words = _words(bits, n)
        if len(term) > QV_TERM_MAX or n == 0:
            return
        for segment in self.segments:
            if segment._find(<const uint8_t *>PyBytes_AS_STRING(term), <unsigned>len(term), &found):
                if qv_list_bits(&segment.s, &found, &segment.rows, n, &words[0]) < 0:
                    segment._fail()


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
