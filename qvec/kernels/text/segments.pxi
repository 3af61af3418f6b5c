# cython: language_level=3
# Segments of posting lists, and the fields that they belong to. Relies on text.pxi and batch.pxi.


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
    counts: known numbers df of rows with a term, by term; others are counted.
    """

    cdef list segments
    cdef Column lengths
    cdef qv_text_field f
    cdef readonly uint64_t n_docs
    cdef readonly bint is_text
    cdef dict _counts

    def __init__(self, list segments not None, Column lengths, uint64_t n_docs, double tokens, double k1, double b,
                 dict counts=None):
        self.segments, self.lengths, self.n_docs, self.is_text = segments, lengths, n_docs, lengths is not None
        self._counts = {} if counts is None else counts
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
