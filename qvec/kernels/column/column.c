#include "column/column.h"

#include <stdlib.h>
#include <string.h>

#include "column/block.h"
#include "system/system.h"

#define ARENA_CHUNK QV_HUGE_PAGE

static void lock(qv_arena *arena) {
    while (__atomic_exchange_n(&arena->lock, 1, __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(&arena->lock, __ATOMIC_RELAXED)) {
        }
    }
}

static void unlock(qv_arena *arena) { __atomic_store_n(&arena->lock, 0, __ATOMIC_RELEASE); }

static int add_chunk(qv_arena *arena) {
    if (arena->n_chunks == arena->capacity) {
        uint32_t capacity = arena->capacity ? 2 * arena->capacity : 8;
        uint8_t **chunks = realloc(arena->chunks, capacity * sizeof *chunks);
        if (chunks == NULL) return -1;
        arena->chunks = chunks;
        arena->capacity = capacity;
    }
    uint8_t *chunk = qv_huge_alloc(ARENA_CHUNK);
    if (chunk == NULL) return -1;
    if (arena->n_chunks == 0) qv_plain_pages(chunk, ARENA_CHUNK); /* most transactions write little of most columns */
    arena->chunks[arena->n_chunks++] = chunk;
    arena->used = 0;
    return 0;
}

static uint8_t *take_slot(qv_column *col) {
    qv_arena *arena = &col->arena;
    uint32_t slots = (uint32_t)(ARENA_CHUNK / qv_slot_size(col));
    uint8_t *value = NULL;
    lock(arena);
    if ((arena->n_chunks > 0 && arena->used < slots) || add_chunk(arena) == 0)
        value = arena->chunks[arena->n_chunks - 1] + arena->used++ * qv_slot_size(col) + QV_PAGE_HEADER;
    unlock(arena);
    return value;
}

int qv_column_init(qv_column *col, uint8_t id, uint16_t generation, uint32_t stride, uint32_t rows_per_block,
                   uint32_t pages, uint32_t psize, int writable, int row_sums) {
    uint64_t slot = (uint64_t)pages * psize;
    if (stride == 0 || rows_per_block == 0 || slot > ARENA_CHUNK || psize < 512) return -1;
    if ((uint64_t)stride * rows_per_block + QV_BLOCK_HEADER + QV_PAGE_HEADER > slot) return -1;
    if (row_sums && stride <= QV_ROW_SUM) return -1;
    memset(col, 0, sizeof *col);
    col->id = id;
    col->generation = generation;
    col->stride = stride;
    col->rows_per_block = rows_per_block;
    col->psize = psize;
    col->value_size = (uint32_t)slot - QV_PAGE_HEADER;
    col->verify = 1;
    col->bad_block = -1;
    col->row_sums = row_sums;
    col->words = row_sums ? (rows_per_block + 63) / 64 : 0;
    /* Granlund and Montgomery 1994, theorem 4.2, for 31-bit numerators. */
    uint32_t log2 = 0;
    while ((1u << log2) < rows_per_block) log2++;
    col->shift = 31 + log2;
    col->magic = ((1ull << col->shift) + rows_per_block - 1) / rows_per_block;
    if (writable && (col->scratch = calloc(1, sizeof *col->scratch)) == NULL) return -1;
    return 0;
}

void qv_column_free(qv_column *col) {
    for (uint32_t i = 0; i < col->arena.n_chunks; i++) qv_huge_free(col->arena.chunks[i], ARENA_CHUNK);
    free(col->arena.chunks);
    free(col->entries);
    free(col->table);
    free(col->scratch);
    free(col->checked);
    memset(col, 0, sizeof *col);
}

static int grow(void **array, size_t from, size_t to, size_t item) {
    char *grown = realloc(*array, to * item);
    if (grown == NULL) return -1;
    memset(grown + from * item, 0, (to - from) * item);
    *array = grown;
    return 0;
}

/* Verify a block and its rows again when they are read next. */
void qv_forget(qv_column *col, uint32_t block) {
    col->table[block] = NULL;
    if (col->row_sums) memset(col->checked + (size_t)block * col->words, 0, col->words * sizeof *col->checked);
}

int qv_column_resize(qv_column *col, uint32_t n_blocks) {
    if (n_blocks > col->capacity) {
        uint32_t capacity = n_blocks > 2 * col->capacity ? n_blocks : 2 * col->capacity;
        if (grow((void **)&col->entries, col->capacity, capacity, sizeof *col->entries)) return -1;
        if (grow((void **)&col->table, col->capacity, capacity, sizeof *col->table)) return -1;
        size_t bits = col->words * sizeof *col->checked;
        if (bits && grow((void **)&col->checked, col->capacity, capacity, bits)) return -1;
        if (col->scratch && grow((void **)&col->scratch, col->capacity, capacity, sizeof *col->scratch)) return -1;
        col->capacity = capacity;
    }
    for (uint32_t block = n_blocks; block < col->n_blocks; block++) {
        col->entries[block] = (qv_entry){0, 0};
        qv_forget(col, block);
        if (col->scratch) col->scratch[block] = NULL;
    }
    col->n_blocks = n_blocks;
    return 0;
}

uint8_t *qv_fail(qv_column *col, uint32_t block) {
    int64_t none = -1;
    __atomic_compare_exchange_n(&col->bad_block, &none, (int64_t)block, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return NULL;
}

uint8_t *qv_resolve(qv_column *col, uint32_t block) {
    if (block >= col->n_blocks) return qv_fail(col, block);
    qv_entry entry = col->entries[block];
    if (entry.pgno == 0) return col->scratch ? qv_touch(col, block) : qv_fail(col, block);
    const uint8_t *value = qv_stored_value(col, block);
    if (value == NULL) return qv_fail(col, block);
    qv_request_pages(value - QV_PAGE_HEADER, qv_slot_size(col));
    if (!qv_block_intact(col, block, value, entry.crc, col->verify)) return qv_fail(col, block);
    uint8_t *first = (uint8_t *)value + QV_BLOCK_HEADER;
    /* a thread of the writer may have made a private copy meanwhile, which must win */
    uint8_t *unresolved = NULL;
    if (!__atomic_compare_exchange_n(&col->table[block], &unresolved, first, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        return unresolved;
    return first;
}

/* Mark a row as verified. Returns how many rows of its block are. */
static uint32_t mark_checked(qv_column *col, uint32_t block, uint32_t at) {
    uint64_t *words = col->checked + (size_t)block * col->words;
    __atomic_fetch_or(words + at / 64, 1ull << (at % 64), __ATOMIC_RELAXED);
    uint32_t n = 0;
    for (uint32_t i = 0; i < col->words; i++)
        n += (uint32_t)__builtin_popcountll(__atomic_load_n(words + i, __ATOMIC_RELAXED));
    return n;
}

static int is_checked(const qv_column *col, uint32_t block, uint32_t at) {
    const uint64_t *words = col->checked + (size_t)block * col->words;
    return __atomic_load_n(words + at / 64, __ATOMIC_RELAXED) >> (at % 64) & 1;
}

const uint8_t *qv_resolve_row(qv_column *col, uint32_t row) {
    uint32_t block = qv_block_of(col, row), at = row - block * col->rows_per_block;
    int alone = block < col->n_blocks && col->row_sums && col->verify && col->entries[block].pgno != 0;
    const uint8_t *value = alone ? qv_stored_value(col, block) : NULL;
    if (value == NULL) {
        const uint8_t *first = qv_resolve(col, block);
        return first ? first + (size_t)at * col->stride : NULL;
    }
    const uint8_t *address = value + QV_BLOCK_HEADER + (size_t)at * col->stride;
    if (is_checked(col, block, at)) return address;
    if (!qv_row_intact(col, address, col->entries[block].crc, at)) return qv_fail(col, block);
    if (mark_checked(col, block, at) >= col->whole_after && col->whole_after && !qv_resolve(col, block)) return NULL;
    return address;
}

uint8_t *qv_touch(qv_column *col, uint32_t block) {
    if (block >= col->n_blocks) return qv_fail(col, block);
    const uint8_t *rows = __atomic_load_n(&col->table[block], __ATOMIC_RELAXED);
    if (rows == NULL && col->entries[block].pgno != 0 && (rows = qv_resolve(col, block)) == NULL) return NULL;
    uint8_t *value = take_slot(col);
    if (value == NULL) return NULL;
    size_t used = rows ? (size_t)col->stride * col->rows_per_block : 0;
    memset(value, 0, QV_BLOCK_HEADER);
    if (rows) memcpy(value + QV_BLOCK_HEADER, rows, used);
    memset(value + QV_BLOCK_HEADER + used, 0, col->value_size - QV_BLOCK_HEADER - used);
    lock(&col->arena);
    if (col->scratch[block] == NULL) {
        __atomic_store_n(&col->table[block], value + QV_BLOCK_HEADER, __ATOMIC_RELEASE);
        __atomic_store_n(&col->scratch[block], value, __ATOMIC_RELEASE);
    }
    value = col->scratch[block];
    unlock(&col->arena);
    return value + QV_BLOCK_HEADER;
}

void qv_set_page(qv_column *col, uint32_t block, uint32_t pgno) {
    col->entries[block] = (qv_entry){pgno, qv_block_crc(col->scratch[block])};
    if (col->row_sums) memset(col->checked + (size_t)block * col->words, 0, col->words * sizeof *col->checked);
}

void qv_discard(qv_column *col, uint32_t block) {
    qv_drop_pages(col->scratch[block] - QV_PAGE_HEADER, qv_slot_size(col));
}

void qv_release(qv_column *col) {
    for (uint32_t block = 0; block < col->n_blocks; block++) {
        if (col->scratch[block] == NULL) continue;
        col->scratch[block] = NULL;
        col->table[block] = NULL;
    }
    /* keep one chunk: the next transaction is likely to be as small */
    while (col->arena.n_chunks > 1) qv_huge_free(col->arena.chunks[--col->arena.n_chunks], ARENA_CHUNK);
    col->arena.used = 0;
}

size_t qv_private_bytes(const qv_column *col) {
    size_t full = col->arena.n_chunks > 0 ? col->arena.n_chunks - 1 : 0;
    return full * ARENA_CHUNK + col->arena.used * qv_slot_size(col);
}
