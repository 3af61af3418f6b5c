#include "column/column.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "column/crc32c.h"
#include "column/memory.h"

#define BLOCK_MAGIC "QVB1"
#define CHUNK_MAGIC "QVD1"
#define BLOCK_VERSION 1
#define ARENA_CHUNK QV_HUGE_PAGE

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
    block_header head = {.column = col->id,
                         .version = BLOCK_VERSION,
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

static void lock(qv_arena *arena) {
    while (__atomic_exchange_n(&arena->lock, 1, __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(&arena->lock, __ATOMIC_RELAXED)) {
        }
    }
}

static void unlock(qv_arena *arena) { __atomic_store_n(&arena->lock, 0, __ATOMIC_RELEASE); }

/* value_size plus the page header: rows then lie on a 64-byte boundary, as in the file. */
static size_t slot_size(const qv_column *col) { return (size_t)col->value_size + QV_PAGE_HEADER; }

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
    uint32_t slots = (uint32_t)(ARENA_CHUNK / slot_size(col));
    uint8_t *value = NULL;
    lock(arena);
    if ((arena->n_chunks > 0 && arena->used < slots) || add_chunk(arena) == 0)
        value = arena->chunks[arena->n_chunks - 1] + arena->used++ * slot_size(col) + QV_PAGE_HEADER;
    unlock(arena);
    return value;
}

int qv_column_init(qv_column *col, uint8_t id, uint16_t generation, uint32_t stride, uint32_t rows_per_block,
                   uint32_t pages, uint32_t psize, int writable) {
    uint64_t slot = (uint64_t)pages * psize;
    if (stride == 0 || rows_per_block == 0 || slot > ARENA_CHUNK || psize < 512) return -1;
    if ((uint64_t)stride * rows_per_block + QV_BLOCK_HEADER + QV_PAGE_HEADER > slot) return -1;
    memset(col, 0, sizeof *col);
    col->id = id;
    col->generation = generation;
    col->stride = stride;
    col->rows_per_block = rows_per_block;
    col->psize = psize;
    col->value_size = (uint32_t)slot - QV_PAGE_HEADER;
    col->verify = 1;
    col->bad_block = -1;
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
    memset(col, 0, sizeof *col);
}

static int grow(void **array, size_t from, size_t to, size_t item) {
    char *grown = realloc(*array, to * item);
    if (grown == NULL) return -1;
    memset(grown + from * item, 0, (to - from) * item);
    *array = grown;
    return 0;
}

int qv_column_resize(qv_column *col, uint32_t n_blocks) {
    if (n_blocks > col->capacity) {
        uint32_t capacity = n_blocks > 2 * col->capacity ? n_blocks : 2 * col->capacity;
        if (grow((void **)&col->entries, col->capacity, capacity, sizeof *col->entries)) return -1;
        if (grow((void **)&col->table, col->capacity, capacity, sizeof *col->table)) return -1;
        if (col->scratch && grow((void **)&col->scratch, col->capacity, capacity, sizeof *col->scratch)) return -1;
        col->capacity = capacity;
    }
    for (uint32_t block = n_blocks; block < col->n_blocks; block++) {
        col->entries[block] = (qv_entry){0, 0};
        col->table[block] = NULL;
        if (col->scratch) col->scratch[block] = NULL;
    }
    col->n_blocks = n_blocks;
    return 0;
}

int qv_block_intact(const qv_column *col, uint32_t block, const uint8_t *value, uint32_t crc, int verify) {
    block_header want = header_of(col, BLOCK_MAGIC, block, col->stride, col->rows_per_block);
    return same_block(value, &want, crc) && (!verify || checksum(value, col->value_size) == crc);
}

static uint8_t *fail(qv_column *col, uint32_t block) {
    int64_t none = -1;
    __atomic_compare_exchange_n(&col->bad_block, &none, (int64_t)block, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return NULL;
}

uint8_t *qv_resolve(qv_column *col, uint32_t block) {
    if (block >= col->n_blocks) return fail(col, block);
    qv_entry entry = col->entries[block];
    if (entry.pgno == 0) return col->scratch ? qv_touch(col, block) : fail(col, block);
    uint64_t offset = (uint64_t)entry.pgno * col->psize;
    if (col->map == NULL || offset + slot_size(col) > col->map_size) return fail(col, block);
    const uint8_t *value = col->map + offset + QV_PAGE_HEADER;
    if (!qv_block_intact(col, block, value, entry.crc, col->verify)) return fail(col, block);
    uint8_t *first = (uint8_t *)value + QV_BLOCK_HEADER;
    /* a thread of the writer may have made a private copy meanwhile, which must win */
    uint8_t *unresolved = NULL;
    if (!__atomic_compare_exchange_n(&col->table[block], &unresolved, first, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        return unresolved;
    return first;
}

uint8_t *qv_touch(qv_column *col, uint32_t block) {
    if (block >= col->n_blocks) return fail(col, block);
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

uint8_t *qv_seal(qv_column *col, uint32_t block, uint64_t txn_id) {
    uint8_t *value = col->scratch[block];
    block_header head = header_of(col, BLOCK_MAGIC, block, col->stride, col->rows_per_block);
    sign(value, col->value_size, head, txn_id);
    return value;
}

void qv_set_page(qv_column *col, uint32_t block, uint32_t pgno) {
    block_header head;
    memcpy(&head, col->scratch[block], sizeof head);
    col->entries[block] = (qv_entry){pgno, head.crc};
}

void qv_discard(qv_column *col, uint32_t block) {
    madvise(col->scratch[block] - QV_PAGE_HEADER, slot_size(col), MADV_DONTNEED);
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
    return full * ARENA_CHUNK + col->arena.used * slot_size(col);
}

static int in_map(const qv_column *col, const uint8_t *first) {
    return (uintptr_t)first - (uintptr_t)col->map < col->map_size;
}

/* Unmap the pages of a block that was read once, so that they do not count as memory of this process. */
static void unmap_block(const qv_column *col, const uint8_t *first) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)first / page * page,
              end = (uintptr_t)first + (size_t)col->stride * col->rows_per_block;
    madvise((void *)start, end - start, MADV_DONTNEED); /* the page cache still has them */
}

int qv_column_copy(qv_column *col, uint8_t *region, size_t pitch) {
    size_t rows = (size_t)col->stride * col->rows_per_block;
    for (uint32_t block = 0; block < col->n_blocks; block++) {
        const uint8_t *first = col->table[block] ? col->table[block] : qv_resolve(col, block);
        if (first == NULL) return -1;
        uint8_t *copy = region + block * pitch;
        memcpy(copy, first, rows);
        if (in_map(col, first)) unmap_block(col, first);
        col->table[block] = copy;
    }
    return 0;
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
        col->table[first + i] = NULL;
    }
    return 0;
}
