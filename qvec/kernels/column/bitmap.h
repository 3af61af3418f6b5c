/* Sets of rows as bitmaps: bit r of word w is row 64 w + r; bits past the last row are zero. */
#ifndef QV_BITMAP_H
#define QV_BITMAP_H

#include "column/column.h"

#define QV_WORD_ROWS 64 /* rows of one word, and u64 values in one row of a column of values */
#define QV_CHUNK_ROWS 65536

/* Set the bits of rows below n whose value lies in one of n_ranges ranges. bounds: lowest and highest value of each
 * range, ascending, not overlapping. values: row w contains the u64 values of the rows of word w. Returns -1 if a
 * block is damaged. */
int qv_bits_between(qv_column *values, uint32_t n, const uint64_t *bounds, uint32_t n_ranges, int simd,
                    uint64_t *words);

/* Set the bits of a serialized CRoaring bitmap (github.com/RoaringBitmap/RoaringFormatSpec) of one chunk of rows,
 * all below n. Returns 0, or -1 for any other data; some bits may then be set. */
int qv_bits_roaring(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, uint64_t *words);

/* Count the rows of a serialized bitmap, as above, whose bits are set. Returns -1 for any other data. */
int64_t qv_roaring_count(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, const uint64_t *words);

/* Set the values of the rows of a serialized bitmap, as above. values: of the chunk's rows. Returns 0, or -1 for any
 * other data; some values may then be set. */
int qv_roaring_fill(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, uint32_t value, uint32_t *values);

/* Count the values of the rows whose bits are set. Returns -1 if a value is not below n_values. */
int qv_bits_histogram(const uint32_t *values, const uint64_t *words, uint32_t n_words, uint32_t n_values,
                      int64_t *counts);

uint32_t qv_bits_count(const uint64_t *words, uint32_t n_words);

/* List the rows of a bitmap, ascending. `rows` must fit all of them. */
void qv_bits_rows(const uint64_t *words, uint32_t n_words, uint32_t *rows);

#endif
