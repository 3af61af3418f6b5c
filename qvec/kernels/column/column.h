/* A column: fixed-stride rows in blocks, accessed through a table of addresses.
 *
 * A reader's blocks lie in the file map. `table[b]` is NULL until block b is resolved: its address computed from the
 * page table's entry, its header and checksum verified against that entry (qv_resolve). A writer works on private
 * copies: the first change of a block copies it (qv_row_mut).
 *
 * Value of a block: { header[QV_BLOCK_HEADER]; rows[rows_per_block * stride]; zeros }, value_size bytes.
 *
 * With row sums, the last four bytes of each stored row are a checksum of the row, bound to its block's checksum. A
 * row can then be verified alone (qv_lone_row), without the block's other pages, which may not be in memory. */
#ifndef QV_COLUMN_H
#define QV_COLUMN_H

#include <stddef.h>
#include <stdint.h>

#define QV_BLOCK_HEADER 48
#define QV_PAGE_HEADER 16 /* LMDB 0.9: an overflow value begins 16 bytes into its first page */
#define QV_MAX_ROWS (1u << 31)
#define QV_ROW_SUM 4 /* bytes of a row's checksum */

typedef struct {
    uint32_t pgno; /* first page of the block's value; 0: never written */
    uint32_t crc;  /* crc32c of the block, which also detects a stale but intact block */
} qv_entry;

/* Private copies of one write transaction: slots in large chunks, freed together. */
typedef struct {
    uint8_t **chunks;
    uint32_t n_chunks, capacity; /* chunks in use; length of `chunks` */
    uint32_t used;               /* slots taken from the last chunk */
    int lock;
} qv_arena;

typedef struct {
    /* geometry */
    uint32_t stride, rows_per_block, n_blocks;
    uint64_t magic; /* row / rows_per_block = row * magic >> shift, exact for rows below 2^31 */
    uint32_t shift;
    uint32_t psize, value_size; /* LMDB page; bytes of a block value, header included */
    uint8_t id;                 /* column id, part of the key */
    uint16_t generation;
    /* where blocks lie */
    const uint8_t *map; /* base of the file map, NULL while nothing is stored */
    uint64_t map_size;  /* bytes of the map that may be read */
    qv_entry *entries;  /* [n_blocks] */
    uint8_t **table;    /* [n_blocks] first row of each block, NULL: not resolved */
    uint8_t **scratch;  /* [n_blocks] writer: private copy of the value, NULL if unchanged; reader: NULL */
    uint32_t capacity;  /* length of the three arrays */
    int row_sums;       /* whether rows end with their checksums */
    uint64_t *checked;  /* with row sums: a bit for each row that was verified alone, `words` for each block */
    uint32_t words;
    int partly_copied;    /* a budget of memory did not cover all blocks: the others are read from the disk again */
    uint32_t whole_after; /* verify a block after this number of its rows was verified alone; 0: never */
    qv_arena arena;
    int verify;        /* check crc when resolving */
    int64_t bad_block; /* first block that failed to resolve, -1: none */
} qv_column;

/* Initialize an empty column. Returns 0, or -1 if no row fits or a number is out of range. */
int qv_column_init(qv_column *col, uint8_t id, uint16_t generation, uint32_t stride, uint32_t rows_per_block,
                   uint32_t pages, uint32_t psize, int writable, int row_sums);
void qv_column_free(qv_column *col);

/* Set the number of blocks. New ones are unwritten, others are dropped. Returns -1, with nothing changed, if out of
 * memory. */
int qv_column_resize(qv_column *col, uint32_t n_blocks);

/* Address of a block's first row, verified; NULL (and bad_block set) when it is damaged or missing. */
uint8_t *qv_resolve(qv_column *col, uint32_t block);

/* Address of a row of an unresolved block, verified; as qv_resolve. Without row sums, the whole block is verified. */
const uint8_t *qv_resolve_row(qv_column *col, uint32_t row);

/* Ask the system to read a row, if it is not in memory of this process, and return at once. Rows that are requested
 * together are read together, and nothing around them. */
void qv_request_row(const qv_column *col, uint32_t row);

/* Writer: make a block private (a copy, or zeros if it was never written). NULL: damaged or out of memory.
 * Safe from several threads. */
uint8_t *qv_touch(qv_column *col, uint32_t block);

/* Writer: fill in the header and checksum of a private block; its value is then ready to be stored. */
uint8_t *qv_seal(qv_column *col, uint32_t block, uint64_t txn_id);

/* Writer: set the page table entry of a sealed block, stored from page `pgno` on. */
void qv_set_page(qv_column *col, uint32_t block, uint32_t pgno);

/* Writer: free the memory of a stored block, which must not be read before qv_release. */
void qv_discard(qv_column *col, uint32_t block);

/* Writer: drop all private copies, after a commit or to abort; blocks are then resolved from their entries. */
void qv_release(qv_column *col);

/* Writer: memory of the private copies, in bytes. */
size_t qv_private_bytes(const qv_column *col);

/* Whether `value` is this block, complete, and the version with checksum `crc`. */
int qv_block_intact(const qv_column *col, uint32_t block, const uint8_t *value, uint32_t crc, int verify);

/* Encode a chunk of the page table, framed like a block: qv_chunk_entries(psize) entries. Returns its checksum. */
uint32_t qv_chunk_entries(uint32_t psize);
uint32_t qv_chunk_pack(const qv_column *col, uint32_t chunk, uint64_t txn_id, uint8_t *value);

/* Load a chunk's entries; blocks whose entry changed become unresolved. -1: damaged, or not the chunk with checksum
 * `crc`. */
int qv_chunk_load(qv_column *col, uint32_t chunk, const uint8_t *value, uint32_t crc);

/* Blocks 0 to n_blocks - 1 of a column, to be copied to `region`, `pitch` bytes from block to block. */
typedef struct {
    qv_column *col;
    uint8_t *region;
    size_t pitch;
    uint32_t n_blocks;
} qv_copy;

/* Copy blocks of columns from an open file, in its order, verified, and read them from there. -1: a block is damaged
 * (bad_block), or out of memory. The columns have the same page size. Of `parts` threads, each copies a part. */
int qv_columns_copy(const qv_copy *copies, uint32_t n, int fd, uint32_t part, uint32_t parts);

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

/* Address of one row, verified; NULL as qv_row. The rows next to it may be damaged. */
static inline const uint8_t *qv_lone_row(qv_column *col, uint32_t row) {
    uint32_t block = qv_block_of(col, row);
    const uint8_t *first = __atomic_load_n(&col->table[block], __ATOMIC_RELAXED);
    if (first == NULL) return qv_resolve_row(col, row);
    return first + (size_t)(row - block * col->rows_per_block) * col->stride;
}

/* Address of a row for writing. Threads may share blocks, but not rows. */
static inline uint8_t *qv_row_mut(qv_column *col, uint32_t row) {
    uint32_t block = qv_block_of(col, row);
    uint8_t *value = __atomic_load_n(&col->scratch[block], __ATOMIC_ACQUIRE);
    uint8_t *first = value ? value + QV_BLOCK_HEADER : qv_touch(col, block);
    if (first == NULL) return NULL;
    return first + (size_t)(row - block * col->rows_per_block) * col->stride;
}

#endif
