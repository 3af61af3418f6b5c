#include "column/block.h"

#include <stdlib.h>
#include <string.h>

#include "column/crc32c.h"

#define BLOCK_MAGIC "QVB1"
#define CHUNK_MAGIC "QVD1"
#define BLOCK_VERSION 1
#define ROW_SUMS_VERSION 2 /* of blocks whose rows have checksums */

/* All fields little-endian; see docs/format.md. */
typedef struct {
    char magic[4];
    uint8_t column, version;
    uint16_t generation;
    uint32_t number, crc;
    uint64_t txn_id;
    uint32_t stride, rows;
    uint8_t zeros[16];
} block_header;

_Static_assert(sizeof(block_header) == QV_BLOCK_HEADER, "header size");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian and read in place");

/* Checksum of a value except its crc field. */
static uint32_t checksum(const uint8_t *value, size_t size) {
    const size_t at = offsetof(block_header, crc), after = at + sizeof(uint32_t);
    return qv_crc32c(qv_crc32c(0, value, at), value + after, size - after);
}

static block_header header_of(const qv_column *col, const char *magic, uint32_t number, uint32_t stride,
                              uint32_t rows) {
    int sums = col->row_sums && memcmp(magic, BLOCK_MAGIC, 4) == 0;
    block_header head = {.column = col->id,
                         .version = sums ? ROW_SUMS_VERSION : BLOCK_VERSION,
                         .generation = col->generation,
                         .number = number,
                         .stride = stride,
                         .rows = rows};
    memcpy(head.magic, magic, sizeof head.magic);
    return head;
}

static int same_block(const uint8_t *value, const block_header *want, uint32_t crc) {
    block_header head;
    memcpy(&head, value, sizeof head);
    return memcmp(head.magic, want->magic, 4) == 0 && head.column == want->column && head.version == want->version &&
           head.generation == want->generation && head.number == want->number && head.stride == want->stride &&
           head.rows == want->rows && head.crc == crc;
}

static uint32_t sign(uint8_t *value, size_t size, block_header head, uint64_t txn_id) {
    head.txn_id = txn_id;
    memcpy(value, &head, sizeof head);
    head.crc = checksum(value, size);
    memcpy(value, &head, sizeof head);
    return head.crc;
}

/* --- row sums: crc32c of the row, xor crc32c of its number that continues from the block's checksum --- */

static uint32_t sum_of_row(const qv_column *col, const uint8_t *row) {
    return qv_crc32c(0, row, col->stride - QV_ROW_SUM);
}

static uint32_t load_sum(const qv_column *col, const uint8_t *row) {
    uint32_t sum;
    memcpy(&sum, row + col->stride - QV_ROW_SUM, sizeof sum);
    return sum;
}

static void store_sum(const qv_column *col, uint8_t *row, uint32_t sum) {
    memcpy(row + col->stride - QV_ROW_SUM, &sum, sizeof sum);
}

/* Binds the sum of row `at` of a block to this version of the block. */
static uint32_t binding(uint32_t crc, uint32_t at) { return qv_crc32c(crc, &at, sizeof at); }

int qv_row_intact(const qv_column *col, const uint8_t *row, uint32_t crc, uint32_t at) {
    return (sum_of_row(col, row) ^ binding(crc, at)) == load_sum(col, row);
}

/* Checksum of a block with row sums: that of its header, the sums of its rows, and the zeros at the end. */
static uint32_t checksum_of_rows(const qv_column *col, const uint8_t *value, const uint32_t *sums) {
    size_t rows = (size_t)col->stride * col->rows_per_block;
    const size_t at = offsetof(block_header, crc), after = at + sizeof(uint32_t);
    uint32_t crc = qv_crc32c(qv_crc32c(0, value, at), value + after, QV_BLOCK_HEADER - after);
    crc = qv_crc32c(crc, sums, col->rows_per_block * sizeof *sums);
    return qv_crc32c(crc, value + QV_BLOCK_HEADER + rows, col->value_size - QV_BLOCK_HEADER - rows);
}

/* Compute the sums of the rows of a block. Returns how many of them are those that are stored under a checksum. */
static uint32_t sum_rows(const qv_column *col, const uint8_t *value, uint32_t crc, uint32_t *sums) {
    uint32_t same = 0;
    for (uint32_t i = 0; i < col->rows_per_block; i++) {
        const uint8_t *row = value + QV_BLOCK_HEADER + (size_t)i * col->stride;
        sums[i] = sum_of_row(col, row);
        same += (sums[i] ^ binding(crc, i)) == load_sum(col, row);
    }
    return same;
}

static int rows_intact(const qv_column *col, const uint8_t *value, uint32_t crc) {
    uint32_t *sums = malloc(col->rows_per_block * sizeof *sums);
    if (sums == NULL) return 0;
    int intact = sum_rows(col, value, crc, sums) == col->rows_per_block && checksum_of_rows(col, value, sums) == crc;
    free(sums);
    return intact;
}

static int sign_rows(const qv_column *col, uint8_t *value, block_header head, uint64_t txn_id) {
    uint32_t *sums = malloc(col->rows_per_block * sizeof *sums);
    if (sums == NULL) return -1;
    head.txn_id = txn_id;
    memcpy(value, &head, sizeof head);
    sum_rows(col, value, 0, sums);
    head.crc = checksum_of_rows(col, value, sums);
    memcpy(value, &head, sizeof head);
    for (uint32_t i = 0; i < col->rows_per_block; i++)
        store_sum(col, value + QV_BLOCK_HEADER + (size_t)i * col->stride, sums[i] ^ binding(head.crc, i));
    free(sums);
    return 0;
}

uint32_t qv_block_crc(const uint8_t *value) {
    block_header head;
    memcpy(&head, value, sizeof head);
    return head.crc;
}

int qv_block_intact(const qv_column *col, uint32_t block, const uint8_t *value, uint32_t crc, int verify) {
    block_header want = header_of(col, BLOCK_MAGIC, block, col->stride, col->rows_per_block);
    if (!same_block(value, &want, crc)) return 0;
    if (!verify) return 1;
    return col->row_sums ? rows_intact(col, value, crc) : checksum(value, col->value_size) == crc;
}

uint8_t *qv_seal(qv_column *col, uint32_t block, uint64_t txn_id) {
    uint8_t *value = col->scratch[block];
    block_header head = header_of(col, BLOCK_MAGIC, block, col->stride, col->rows_per_block);
    if (col->row_sums) return sign_rows(col, value, head, txn_id) ? NULL : value;
    sign(value, col->value_size, head, txn_id);
    return value;
}

uint32_t qv_chunk_entries(uint32_t psize) {
    return (psize - QV_PAGE_HEADER - QV_BLOCK_HEADER) / (uint32_t)sizeof(qv_entry);
}

static uint32_t chunk_span(const qv_column *col, uint32_t chunk, uint32_t *first) {
    uint32_t per_chunk = qv_chunk_entries(col->psize);
    *first = chunk * per_chunk;
    uint32_t left = *first < col->n_blocks ? col->n_blocks - *first : 0;
    return left < per_chunk ? left : per_chunk;
}

uint32_t qv_chunk_pack(const qv_column *col, uint32_t chunk, uint64_t txn_id, uint8_t *value) {
    uint32_t first, n = chunk_span(col, chunk, &first);
    size_t size = col->psize - QV_PAGE_HEADER;
    memset(value, 0, size);
    memcpy(value + QV_BLOCK_HEADER, col->entries + first, n * sizeof(qv_entry));
    block_header head = header_of(col, CHUNK_MAGIC, chunk, sizeof(qv_entry), qv_chunk_entries(col->psize));
    return sign(value, size, head, txn_id);
}

int qv_chunk_load(qv_column *col, uint32_t chunk, const uint8_t *value, uint32_t crc) {
    uint32_t first, n = chunk_span(col, chunk, &first);
    block_header want = header_of(col, CHUNK_MAGIC, chunk, sizeof(qv_entry), qv_chunk_entries(col->psize));
    if (!same_block(value, &want, crc) || checksum(value, col->psize - QV_PAGE_HEADER) != crc) return -1;
    for (uint32_t i = 0; i < n; i++) {
        qv_entry entry;
        memcpy(&entry, value + QV_BLOCK_HEADER + i * sizeof entry, sizeof entry);
        qv_entry *old = &col->entries[first + i];
        if (old->pgno == entry.pgno && old->crc == entry.crc) continue;
        *old = entry;
        qv_forget(col, first + i);
    }
    return 0;
}
