/* Terms of a batch of rows, counted and put in order. */
#ifndef QV_TERMS_H
#define QV_TERMS_H

#include "text/encode.h"

/* A token of text: bytes first to last - 1. */
typedef struct {
    uint32_t first, last;
} qv_span;

/* Split ASCII text into words, in lower case in `lower` [size]; spans: room for (size + 1) / 2. Returns their number, or
 * -1 if a byte is not ASCII or a word is longer than QV_TERM_MAX: then other code has to split it.
 *
 * Words are those of Unicode's UAX 29 for ASCII, except that a colon ends a word: runs of letters, digits and _; also a
 * full stop or an apostrophe between two letters or two digits, and a comma or a semicolon between two digits. A run of _
 * alone is no word. */
int64_t qv_split_ascii(const uint8_t *text, size_t size, uint8_t *lower, qv_span *spans);

/* A term: its first eight bytes as a big-endian number, its bytes from `start` on, and their number. */
typedef struct {
    uint64_t head;
    uint32_t start, size;
} qv_term;

/* A set of terms with numbers from 0, and pairs of terms and rows in the order in which they came. */
typedef struct {
    qv_bytes bytes; /* of all terms, less than 4 GiB */
    qv_term *entries;
    uint32_t *table; /* open addressing: number + 1 of a term, 0: free */
    uint32_t n_terms, terms_capacity, table_size;
    uint32_t *pair_terms, *pair_rows, *pair_values;
    size_t n_pairs, pairs_capacity;
    uint32_t first_row, last_row, n_docs;
    int failed;
} qv_terms;

void qv_terms_free(qv_terms *terms);

/* The number of a term of at most QV_TERM_MAX bytes, which is added if it is new; UINT32_MAX if out of memory. */
uint32_t qv_terms_number(qv_terms *terms, const uint8_t *term, unsigned size);

/* Add a pair. Rows ascend. Under text a term may come several times in a row, and value is 1; under sparse it comes once,
 * and value is the bits of its weight, a float above zero. */
int qv_terms_add(qv_terms *terms, uint32_t term, uint32_t row, uint32_t value);

/* Add pairs of words of text, which has 8 bytes of room behind them, and a row. Returns 0 or -1. */
int qv_terms_add_words(qv_terms *terms, uint32_t row, const uint8_t *text, const qv_span *spans, size_t n);

/* Write a segment of all pairs. Returns 0 or -1. */
int qv_terms_encode(const qv_terms *terms, qv_encoder *encoder);

#endif
