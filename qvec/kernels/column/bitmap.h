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

uint32_t qv_bits_count(const uint64_t *words, uint32_t n_words);

/* List the rows of a bitmap, ascending. `rows` must fit all of them. */
void qv_bits_rows(const uint64_t *words, uint32_t n_words, uint32_t *rows);

#endif
