/* A column: fixed-stride rows in blocks, reached through a table of addresses.
 *
 * A reader's blocks lie in the file map. `table[b]` is NULL until block b was resolved: its address computed from the
 * page number in the directory, its header and checksum held against the directory's entry (qv_resolve).
 * A writer works on private copies: the first change of a block copies it (qv_row_mut).
 */
#ifndef QV_COLUMN_H
#define QV_COLUMN_H

#include <stddef.h>
#include <stdint.h>

#define QV_BLOCK_HEADER 48
#define QV_PAGE_HEADER 16 /* LMDB 0.9: an overflow value begins 16 bytes into its first page */

typedef struct {
    uint32_t pgno; /* first page of the block's value; 0: never written */
    uint32_t crc;  /* the block's crc32c, so that a stale but intact block is told from the right one */
} qv_entry;

typedef struct {
    /* geometry */
    uint32_t stride, rows_per_block, n_blocks;
    uint64_t magic; /* row / rows_per_block = row * magic >> shift, exact for rows below 2^31 */
    uint32_t shift;
    uint32_t psize, value_size; /* LMDB page; bytes of a block value, header included */
    uint8_t id;                 /* column id, part of the key */
    uint16_t generation;
    /* where blocks lie */
    const uint8_t *map;         /* base of the file map, NULL while nothing is stored */
    uint64_t map_size;          /* bytes that may be touched from `map` */
    qv_entry *entries;          /* [n_blocks] */
    uint8_t **table;            /* [n_blocks] first row of each block, NULL: not resolved */
    uint8_t **scratch;          /* [n_blocks] writer: the private copy of the value, NULL: clean; reader: NULL */
    int verify;                 /* check crc when resolving */
    int64_t bad_block;          /* first block that failed to resolve, -1: none */
} qv_column;

/* Address of a block's first row, verified; NULL (and bad_block set) when it is damaged or missing. */
uint8_t *qv_resolve(qv_column *col, uint32_t block);

/* Writer: make a block private (a copy, or zeros if it was never written). NULL: damaged or out of memory. */
uint8_t *qv_touch(qv_column *col, uint32_t block);

static inline uint32_t qv_block_of(const qv_column *col, uint32_t row) {
    return (uint32_t)((uint64_t)row * col->magic >> col->shift);
}

/* Address of a row, NULL when its block is damaged. The row must be below n_blocks * rows_per_block. */
static inline const uint8_t *qv_row(qv_column *col, uint32_t row) {
    uint32_t block = qv_block_of(col, row);
    const uint8_t *first = __atomic_load_n(&col->table[block], __ATOMIC_RELAXED);
    if (__builtin_expect(first == NULL, 0)) {
        first = qv_resolve(col, block);
        if (first == NULL) return NULL;
    }
    return first + (size_t)(row - block * col->rows_per_block) * col->stride;
}

/* Address of a row to change. Not safe from two threads at once on rows of one block that is still clean. */
static inline uint8_t *qv_row_mut(qv_column *col, uint32_t row) {
    uint32_t block = qv_block_of(col, row);
    uint8_t *first = col->scratch[block] ? col->table[block] : qv_touch(col, block);
    if (first == NULL) return NULL;
    return first + (size_t)(row - block * col->rows_per_block) * col->stride;
}

#endif
