/* Reading ahead: requests of rows, and copies of columns in the order of the file. */
#include "column/block.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "column/memory.h"

#define AHEAD ((uint64_t)8 << 20)   /* bytes that are requested before they are copied */
#define AT_ONCE ((uint64_t)1 << 20) /* of them in one request, if they are adjacent */

void qv_request(const uint8_t *bytes, size_t n) {
    size_t page = qv_page_size();
    uintptr_t start = (uintptr_t)bytes / page * page, end = (uintptr_t)bytes + n;
    madvise((void *)start, end - start, MADV_WILLNEED); /* advice only: its failure changes nothing */
}

void qv_request_row(const qv_column *col, uint32_t row) {
    uint32_t block = qv_block_of(col, row);
    if (block >= col->n_blocks || col->entries[block].pgno == 0) return;
    const uint8_t *first = __atomic_load_n(&col->table[block], __ATOMIC_RELAXED), *value = qv_stored_value(col, block);
    if (value == NULL || (first && !qv_in_map(col, first))) return;
    if (first == NULL && !col->row_sums) qv_request(value - QV_PAGE_HEADER, qv_slot_size(col));
    else qv_request(value + QV_BLOCK_HEADER + (size_t)(row - block * col->rows_per_block) * col->stride, col->stride);
}

typedef struct {
    uint32_t pgno, copy, block;
} place;

static int by_page(const void *a, const void *b) {
    const place *x = a, *y = b;
    return x->pgno < y->pgno ? -1 : x->pgno > y->pgno;
}

/* The stored blocks to copy, in the order of the file; their number, or -1 if out of memory. */
static int64_t collect(const qv_copy *copies, uint32_t n, place **places) {
    size_t most = 1, found = 0;
    for (uint32_t i = 0; i < n; i++) most += copies[i].n_blocks;
    *places = malloc(most * sizeof **places);
    if (*places == NULL) return -1;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t block = 0; block < copies[i].n_blocks; block++)
            (*places)[found++] = (place){copies[i].col->entries[block].pgno, i, block};
    qsort(*places, found, sizeof **places, by_page);
    return (int64_t)found;
}

/* Request the places from `next` on, up to AHEAD bytes past `now`; adjacent ones together. Returns the next place. */
static int64_t request_ahead(const qv_copy *copies, const place *places, int64_t n, int64_t now, int64_t next) {
    uint64_t psize = copies[0].col->psize, limit = places[now].pgno * psize + AHEAD;
    while (next < n && places[next].pgno * psize < limit) {
        const qv_column *col = copies[places[next].copy].col;
        const uint8_t *first = qv_stored_value(col, places[next].block);
        size_t bytes = 0;
        uint64_t end = places[next].pgno * psize;
        for (; next < n && places[next].pgno * psize == end && bytes < AT_ONCE; next++) {
            bytes += qv_slot_size(copies[places[next].copy].col);
            end = places[next].pgno * psize + qv_slot_size(copies[places[next].copy].col);
        }
        if (first && (uint64_t)(first - col->map) + bytes <= col->map_size) qv_request(first - QV_PAGE_HEADER, bytes);
    }
    return next;
}

/* Unmap the pages of a block that was read once, so that they do not count as memory of this process. */
static void unmap_block(const qv_column *col, const uint8_t *first) {
    size_t page = qv_page_size();
    uintptr_t start = (uintptr_t)first / page * page,
              end = (uintptr_t)first + (size_t)col->stride * col->rows_per_block;
    madvise((void *)start, end - start, MADV_DONTNEED); /* the page cache still has them */
}

static int copy_block(const qv_copy *copy, uint32_t block) {
    qv_column *col = copy->col;
    const uint8_t *first = col->table[block] ? col->table[block] : qv_resolve(col, block);
    if (first == NULL) return -1;
    uint8_t *to = copy->region + block * copy->pitch;
    memcpy(to, first, (size_t)col->stride * col->rows_per_block);
    if (qv_in_map(col, first)) unmap_block(col, first);
    col->table[block] = to;
    return 0;
}

int qv_columns_copy(const qv_copy *copies, uint32_t n) {
    place *places;
    int64_t found = collect(copies, n, &places), next = 0;
    int status = found < 0 ? -1 : 0;
    for (int64_t now = 0; now < found && !status; now++) {
        if (now >= next) next = now;
        next = request_ahead(copies, places, found, now, next);
        status = copy_block(&copies[places[now].copy], places[now].block);
    }
    free(places);
    return status;
}
