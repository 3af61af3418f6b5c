/* Stored blocks: their checksums, where they are in the map, and requests to read them. */
#ifndef QV_BLOCK_STORED_H
#define QV_BLOCK_STORED_H

#include "column/column.h"

/* Bytes of a block's pages: rows then lie on a 64-byte boundary, in private copies as in the file. */
static inline size_t qv_slot_size(const qv_column *col) { return (size_t)col->value_size + QV_PAGE_HEADER; }

/* Whether an address is in the file map. */
static inline int qv_in_map(const qv_column *col, const uint8_t *address) {
    return (uintptr_t)address - (uintptr_t)col->map < col->map_size;
}

/* The value of a stored block in the map, not verified; NULL if it would be outside. */
static inline const uint8_t *qv_stored_value(const qv_column *col, uint32_t block) {
    uint64_t offset = (uint64_t)col->entries[block].pgno * col->psize;
    if (col->map == NULL || offset + qv_slot_size(col) > col->map_size) return NULL;
    return col->map + offset + QV_PAGE_HEADER;
}

/* The checksum in the header of a value. */
uint32_t qv_block_crc(const uint8_t *value);

/* With row sums: whether a row is that of position `at` in the block with checksum `crc`. */
int qv_row_intact(const qv_column *col, const uint8_t *row, uint32_t crc, uint32_t at);

/* Note the first block that failed to resolve. Returns NULL. */
uint8_t *qv_fail(qv_column *col, uint32_t block);

/* Verify a block and its rows again when they are read next. */
void qv_forget(qv_column *col, uint32_t block);

#endif
