# cython: language_level=3
# Words of a batch of rows, and the segment that they become. Relies on text.pxi.


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


_MAX_PARTS = 65536


cdef class TermBatch:
    """The terms of a batch of rows, which become a segment. Rows are added in ascending order.

    kind: "text" or "sparse". words_of: under text, splits text that is not ASCII, or has a word longer than
    MAX_TERM_BYTES; a part between spaces is split as it is in the whole text. term_of: under text, called once for each different word (str): the term to store (str of at
    most MAX_TERM_BYTES in UTF-8), or None to leave the word out; None: words are terms.
    """

    cdef qv_terms words, terms
    cdef uint32_t *numbers
    cdef uint32_t n_numbers, numbers_capacity
    cdef object term_of, words_of
    cdef dict _parts  # parts of texts that words_of has split: the numbers of their terms
    cdef readonly str kind
    cdef bytearray _lower
    cdef qv_span *_spans
    cdef size_t _room

    def __cinit__(self, str kind not None, words_of=None, term_of=None):
        if kind not in _POSTING_KINDS:
            raise ValueError(f"kind must be text or sparse, got {kind!r}")
        self.kind, self.words_of, self.term_of, self._parts = kind, words_of, term_of, {}
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
            self._lower = bytearray(size + 8)
            self._room = size
        return 0

    def add_text(self, uint32_t row, str text not None) -> int:
        """Add the words of a text; returns the number of terms."""
        cdef Py_ssize_t size
        self._begin(row)
        cdef const uint8_t *data = <const uint8_t *>PyUnicode_AsUTF8AndSize(text, &size)
        if size == 0:
            return 0
        self._reserve(size)
        cdef int64_t count = self._add_ascii(row, data, size) if text.isascii() else -1
        if count < 0:
            count = self._add_parts(row, data, size)
        if count:
            self._end(row)
        return count

    cdef int64_t _add_ascii(self, uint32_t row, const uint8_t *data, size_t size) except -2:
        """Add the words of ASCII text; returns the number of terms, or -1 if a word is too long."""
        cdef uint8_t *lower = <uint8_t *>self._lower
        cdef int64_t n = qv_split_ascii(data, size, lower, self._spans), i, count = 0
        cdef uint32_t number
        if n > 0 and self.term_of is None:
            if qv_terms_add_words(&self.terms, row, lower, self._spans, n):
                raise MemoryError()
            return n
        for i in range(n):
            number = self._number(lower + self._spans[i].first, self._spans[i].last - self._spans[i].first)
            if number != 0xFFFFFFFF:
                if qv_terms_add(&self.terms, number, row, 1):
                    raise MemoryError()
                count += 1
        return -1 if n < 0 else count

    cdef int64_t _add_parts(self, uint32_t row, const uint8_t *data, size_t size) except -2:
        """Add the words of a text whose parts between spaces are split one by one, since some are not ASCII."""
        cdef size_t first, at = 0
        cdef int64_t count = 0, added
        cdef uint8_t any
        while at < size:
            first, any = at, 0
            while at < size and data[at] != 32:
                any |= data[at]
                at += 1
            if at > first:
                added = -1 if any & 128 else self._add_ascii(row, data + first, at - first)
                if added < 0:
                    added = self._add_split(row, (<const char *>data)[first:at])
                count += added
            at += 1
        return count

    cdef int64_t _add_split(self, uint32_t row, bytes part) except -2:
        """Add the words of a part that words_of splits."""
        numbers = self._parts.get(part)
        if numbers is None:
            numbers = []
            for word in self.words_of(part.decode()):
                data = word.encode()
                if len(data) > QV_TERM_MAX:
                    raise ValueError(f"a word of {len(data)} bytes is longer than {QV_TERM_MAX}")
                number = self._number(<const uint8_t *>PyBytes_AS_STRING(data), <unsigned>len(data))
                if number != 0xFFFFFFFF:
                    numbers.append(number)
            if len(self._parts) == _MAX_PARTS:
                self._parts.clear()
            self._parts[part] = numbers
        for number in <list>numbers:
            if qv_terms_add(&self.terms, number, row, 1):
                raise MemoryError()
        return len(numbers)

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
