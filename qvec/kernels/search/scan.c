/* Buffers of a search, staged scoring into its candidate list, and the scan. */
#include "search/filter.h"
#include "search/search.h"

#include <stdlib.h>

#include "codec/simd.h"

#define QV_DISTANCE 4096 /* bytes that a scan fetches ahead */
#define QV_RUN 16        /* rows that it scores between fetches */
#define QV_SOON 3        /* slots from the cursor: lists of candidates nearer than this are prefetched at once */

#define QV_UNTIMED ((size_t)64 << 10) /* bytes: several microseconds of work; reading the clock takes 25 ns */

void qv_set_deadline(qv_scratch *s, uint64_t deadline) {
    s->deadline = deadline;
    s->unchecked = QV_UNTIMED;
}

int qv_reads_clock_late(qv_scratch *s, size_t bytes) {
    s->unchecked += bytes;
    if (s->unchecked < QV_UNTIMED) return 0;
    s->unchecked = 0;
    return qv_now() >= s->deadline;
}

static void *grown(void *old, size_t bytes, int *failed) {
    void *fresh = qv_aligned_alloc(bytes);
    if (fresh == NULL) {
        *failed = 1;
        return old;
    }
    qv_aligned_free(old);
    return fresh;
}

int qv_scratch_reserve(qv_scratch *s, int pool, uint32_t rows, size_t query_size) {
    int failed = 0;
    if (pool > s->pool_capacity) {
        s->pool.slots = grown(s->pool.slots, ((size_t)pool + 1) * sizeof *s->pool.slots, &failed);
        if (!failed) s->pool_capacity = pool;
    }
    if (rows > s->rows_capacity || !s->visited.bits) {
        uint32_t words =
            rows / 64 + 1 + rows / 512; /* more than needed, so that a growing index does not reallocate each time */
        s->visited.bits = grown(s->visited.bits, words * sizeof(uint64_t), &failed);
        if (!s->visited.touched) s->visited.touched = grown(NULL, QV_TOUCHED_MAX * sizeof(uint32_t), &failed);
        if (failed) return QV_NO_MEMORY;
        memset(s->visited.bits, 0, words * sizeof(uint64_t));
        s->visited.n_words = words;
        s->visited.n_touched = 0;
        s->rows_capacity = words * 64 - 1;
    }
    if (query_size > s->query_capacity) {
        s->query = grown(s->query, query_size, &failed);
        s->other = grown(s->other, query_size, &failed);
        if (!failed) s->query_capacity = query_size;
    }
    return failed ? QV_NO_MEMORY : QV_OK;
}

int qv_scratch_reserve_map(qv_scratch *s, size_t floats) {
    int failed = 0;
    if (floats > s->mapped_capacity) {
        s->mapped = grown(s->mapped, floats * sizeof *s->mapped, &failed);
        if (!failed) s->mapped_capacity = floats;
    }
    return failed ? QV_NO_MEMORY : QV_OK;
}

uint8_t *qv_scratch_bytes(qv_scratch *s, size_t bytes) {
    int failed = 0;
    if (bytes > s->index_buffer_bytes) {
        s->index_buffer = grown(s->index_buffer, bytes, &failed);
        if (!failed) s->index_buffer_bytes = bytes;
    }
    return failed ? NULL : s->index_buffer;
}

int qv_scratch_reserve_tile(qv_scratch *s, int pool, size_t query_size) {
    int failed = 0;
    size_t slots = (size_t)pool + 1;
    if (pool > s->tile_capacity) {
        s->tile[0].slots = grown(s->tile[0].slots, QV_TILE * slots * sizeof *s->tile[0].slots, &failed);
        if (failed) return QV_NO_MEMORY;
        s->tile_capacity = pool;
    }
    if (query_size > s->tile_query_size) {
        s->tile_queries = grown(s->tile_queries, QV_TILE * query_size, &failed);
        if (failed) return QV_NO_MEMORY;
        s->tile_query_size = query_size;
    }
    for (int i = 1; i < QV_TILE; i++) s->tile[i].slots = s->tile[0].slots + (size_t)i * ((size_t)s->tile_capacity + 1);
    return QV_OK;
}

void qv_scratch_free(qv_scratch *s) {
    qv_aligned_free(s->pool.slots);
    qv_aligned_free(s->visited.bits);
    qv_aligned_free(s->visited.touched);
    qv_aligned_free(s->query);
    qv_aligned_free(s->mapped);
    qv_aligned_free(s->other);
    qv_aligned_free(s->index_buffer);
    free(s->later);
    qv_aligned_free(s->tile[0].slots);
    qv_aligned_free(s->tile_queries);
    memset(s, 0, sizeof *s);
}

void qv_score_staged(const qv_codec *codec, qv_column *adjacency, const qv_query *query, int stage, int n,
                     qv_scratch *s) {
    codec->score(codec, query, s->address[stage], n, s->key);
    s->evaluations += (uint64_t)n;
    int kept = QV_FILTERS[codec->simd](s->key, s->row[stage], n, qv_pool_bound(&s->pool), s->kept);
    for (int i = 0; i < kept; i++) {
        int place = qv_pool_insert(&s->pool, qv_candidate(s->key[i], s->kept[i]));
        if (place >= QV_SOON || !adjacency) continue;
        const uint8_t *list = qv_row(adjacency, s->kept[i]);
        if (list) qv_prefetch_row(list, adjacency->stride);
    }
}

/* Stage rows of one block from row *at on. No row is excluded, so addresses are a stride apart. */
static int stage_run(const qv_scan_source *source, uint32_t *at, qv_scratch *s) {
    qv_column *codes = source->codes;
    const uint8_t *address = qv_row(codes, *at);
    if (!address) return QV_DAMAGED;
    uint32_t left = codes->rows_per_block - (*at - qv_block_of(codes, *at) * codes->rows_per_block);
    if (left > source->n - *at) left = source->n - *at;
    int run = left < QV_HOP_MAX ? (int)left : QV_HOP_MAX;
    for (int i = 0; i < run; i++) {
        s->address[0][i] = address + (size_t)i * codes->stride;
        s->row[0][i] = *at + (uint32_t)i;
    }
    *at += (uint32_t)run;
    return run;
}

/* Stage selected rows from position *at on. */
static int stage_selected(const qv_scan_source *source, uint32_t *at, qv_scratch *s) {
    const qv_selection *selection = source->selection;
    uint32_t end = selection->rows ? selection->n_rows : source->n;
    int staged = 0;
    for (; *at < end && staged < QV_HOP_MAX / 2; ++*at) {
        uint32_t row = selection->rows ? selection->rows[*at] : *at;
        if (!selection->rows && qv_is_excluded(selection, row)) continue;
        const uint8_t *address = qv_row(source->codes, row);
        if (!address) return QV_DAMAGED;
        if (selection->rows) qv_prefetch_row(address, source->codes->stride);
        s->row[0][staged] = row;
        s->address[0][staged++] = address;
    }
    return staged;
}

static int stage_rows(const qv_scan_source *source, uint32_t *at, qv_scratch *s) {
    if (source->selection->rows || source->selection->excluded) return stage_selected(source, at, s);
    return *at < source->n ? stage_run(source, at, s) : 0;
}

/* Rows that come from memory are scored a few at a time, behind those that are fetched: rows side by side are more
 * streams than the processor fetches ahead of by itself. INT8 has a kernel for a row alone. */
static int rows_at_a_time(const qv_codec *codec) { return codec->kind == QV_INT8 ? 1 : QV_RUN; }

/* The lines that begin in what lies ahead of these bytes, so that of rows in order each is fetched once. Past the
 * end of a block is mostly the next one; what is not there is not fetched. */
static void fetch_ahead(const uint8_t *bytes, size_t n) {
    uintptr_t end = (uintptr_t)bytes + QV_DISTANCE + n;
    for (uintptr_t line = ((uintptr_t)bytes + QV_DISTANCE + 63) & ~(uintptr_t)63; line < end; line += 64) {
        qv_prefetch_t1((const void *)line);
    }
}

/* What follows n rows in order, whether others lie between them or not. */
static void fetch_after(const uint8_t *const *rows, int n, size_t stride) {
    if ((uintptr_t)rows[n - 1] - (uintptr_t)rows[0] == (size_t)(n - 1) * stride)
        fetch_ahead(rows[0], (size_t)n * stride);
    else
        for (int i = 0; i < n; i++) fetch_ahead(rows[i], stride);
}

static void score_in_order(const qv_scan_source *source, const qv_query *query, int staged, qv_scratch *s) {
    const qv_codec *codec = source->codec;
    const uint8_t *const *rows = s->address[0];
    int step = rows_at_a_time(codec);
    for (int i = 0; i < staged; i += step) {
        int n = staged - i < step ? staged - i : step;
        fetch_after(rows + i, n, source->codes->stride);
        codec->score(codec, query, rows + i, n, s->key + i);
    }
}

int qv_scan(const qv_scan_source *source, const uint8_t *queries, size_t query_size, qv_pool *pools, int n_queries,
            qv_scratch *s) {
    const qv_codec *codec = source->codec;
    uint32_t at = 0;
    int in_order = !source->selection->rows && codec->simd == QV_AVX2;
    for (int staged; (staged = stage_rows(source, &at, s)) != 0;) {
        if (staged < 0) return staged;
        for (int q = 0; q < n_queries; q++) {
            if (qv_is_late(s, (size_t)staged * source->codes->stride)) return QV_LATE;
            const qv_query *query = (const qv_query *)(queries + (size_t)q * query_size);
            if (q == 0 && in_order) score_in_order(source, query, staged, s);
            else codec->score(codec, query, s->address[0], staged, s->key);
            int kept = QV_FILTERS[codec->simd](s->key, s->row[0], staged, qv_pool_bound(&pools[q]), s->kept);
            for (int i = 0; i < kept; i++) qv_pool_insert(&pools[q], qv_candidate(s->key[i], s->kept[i]));
        }
        s->evaluations += (uint64_t)staged * (uint64_t)n_queries;
    }
    return QV_OK;
}
