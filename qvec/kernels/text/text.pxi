# cython: language_level=3
# Posting lists of text and sparse fields: what the kernels in C offer. Relies on Column (column.pxi) and the pool of a search
# (search.pxi).

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
    int qv_terms_add_words(qv_terms *, uint32_t, const uint8_t *, const qv_span *, size_t)
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
