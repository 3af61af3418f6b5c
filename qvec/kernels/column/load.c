/* Reading ahead: requests of rows, and copies of columns in the order of the file. */
#include "column/block.h"

#include <stdlib.h>
#include <string.h>

#include "system/system.h"

#define AHEAD ((uint64_t)8 << 20)   /* bytes that are requested before they are copied */
#define AT_ONCE ((uint64_t)1 << 20) /* of them in one call, if blocks are adjacent */
#define LARGEST_RUN QV_HUGE_PAGE    /* the limit for a single block */

void qv_request_row(const qv_column *col, uint32_t row) {
    uint32_t block = qv_block_of(col, row);
    if (block >= col->n_blocks || col->entries[block].pgno == 0) return;
    const uint8_t *first = __atomic_load_n(&col->table[block], __ATOMIC_RELAXED), *value = qv_stored_value(col, block);
    if (value == NULL || (first && !qv_in_map(col, first))) return;
    if (first == NULL && !col->row_sums) qv_request_pages(value - QV_PAGE_HEADER, qv_slot_size(col));
    else
        qv_request_pages(value + QV_BLOCK_HEADER + (size_t)(row - block * col->rows_per_block) * col->stride,
                         col->stride);
}

typedef struct {
    uint32_t pgno, copy, block;
} place;

static int by_page(const void *a, const void *b) {
    const place *x = a, *y = b;
    return x->pgno < y->pgno ? -1 : x->pgno > y->pgno;
}

/* The blocks to copy, in the order of the file; their number, or -1 if out of memory. */
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

/* A run of adjacent blocks that are read together: their places, and their bytes in the file. */
typedef struct {
    int64_t first, n;
    uint64_t offset, bytes;
} run;

static run run_from(const qv_copy *copies, const place *places, int64_t n, int64_t first) {
    run r = {.first = first, .offset = (uint64_t)places[first].pgno * copies[0].col->psize};
    for (int64_t i = first; i < n; i++) {
        size_t bytes = qv_slot_size(copies[places[i].copy].col);
        if ((uint64_t)places[i].pgno * copies[0].col->psize != r.offset + r.bytes) break;
        if (r.n > 0 && r.bytes + bytes > AT_ONCE) break;
        r.n++;
        r.bytes += bytes;
    }
    return r;
}

/* The open file twice: `direct` reads around the system's cache, or is -1. What is copied need not be in the cache, too,
 * and to bring it there takes more CPU time than to verify and copy it. */
typedef struct {
    int cached, direct;
} file_pair;

/* Read a run, around the cache if it is not there. A file system that refuses this is read as usual. */
static int read_run(file_pair *files, const uint8_t *mapped, run r, uint8_t *buffer) {
    if (files->direct >= 0 && !qv_is_cached(mapped, r.bytes)) {
        if (!qv_read_file(files->direct, buffer, r.bytes, r.offset)) return 0;
        qv_close_direct(files->direct);
        files->direct = -1;
    }
    return qv_read_file(files->cached, buffer, r.bytes, r.offset);
}

/* Request the runs from place `next` on, up to AHEAD bytes past the offset `now`. Returns the next place. Every thread
 * requests the runs of all: a second request of the same pages costs little. */
static int64_t request_ahead(const qv_copy *copies, const place *places, int64_t n, uint64_t now, int64_t next,
                             file_pair files) {
    if (files.direct >= 0) return n;
    while (next < n) {
        run r = run_from(copies, places, n, next);
        if (r.offset >= now + AHEAD) break;
        qv_request_file(files.cached, r.offset, r.bytes);
        next += r.n;
    }
    return next;
}

static int is_stored(const qv_column *col, uint32_t block) {
    return col->entries[block].pgno != 0 && qv_stored_value(col, block) != NULL;
}

/* Verify a block that was read from the file, and copy it. */
static int keep_block(const qv_copy *copy, uint32_t block, const uint8_t *slot) {
    qv_column *col = copy->col;
    const uint8_t *value = slot + QV_PAGE_HEADER;
    if (!qv_block_intact(col, block, value, col->entries[block].crc, col->verify)) return -1;
    uint8_t *to = copy->region + block * copy->pitch;
    memcpy(to, value + QV_BLOCK_HEADER, (size_t)col->stride * col->rows_per_block);
    __atomic_store_n(&col->table[block], to, __ATOMIC_RELEASE);
    return 0;
}

static int copy_run(const qv_copy *copies, const place *places, run r, uint8_t *buffer, file_pair *files) {
    for (int64_t i = r.first; i < r.first + r.n; i++) {
        qv_column *col = copies[places[i].copy].col;
        if (!is_stored(col, places[i].block)) return qv_fail(col, places[i].block), -1;
    }
    const uint8_t *first = qv_stored_value(copies[places[r.first].copy].col, places[r.first].block);
    if (read_run(files, first - QV_PAGE_HEADER, r, buffer))
        return qv_fail(copies[places[r.first].copy].col, places[r.first].block), -1;
    for (int64_t i = r.first; i < r.first + r.n; i++) {
        const qv_copy *copy = &copies[places[i].copy];
        if (keep_block(copy, places[i].block, buffer)) return qv_fail(copy->col, places[i].block), -1;
        buffer += qv_slot_size(copy->col);
    }
    /* A search by another handle may have mapped the pages: they no longer count as memory of this process. */
    qv_drop_pages(first - QV_PAGE_HEADER, r.bytes);
    return 0;
}

int qv_columns_copy(const qv_copy *copies, uint32_t n, int fd, uint32_t part, uint32_t parts) {
    place *places = NULL;
    int64_t found = collect(copies, n, &places), next = 0;
    uint8_t *buffer = qv_huge_alloc(LARGEST_RUN); /* at a multiple of a page, as direct reads need */
    file_pair files = {fd, qv_open_direct(fd)};
    int status = found < 0 || buffer == NULL ? -1 : 0;
    uint32_t number = 0;
    for (int64_t now = 0; now < found && !status; number++) {
        run r = run_from(copies, places, found, now);
        next = request_ahead(copies, places, found, r.offset, next < now ? now : next, files);
        if (number % parts == part) status = copy_run(copies, places, r, buffer, &files);
        now += r.n;
    }
    qv_close_direct(files.direct);
    qv_huge_free(buffer, LARGEST_RUN);
    free(places);
    return status;
}
