/* Buffers of a search, staged scoring into its pool, and the scan. */
#include "find.h"

#include <stdlib.h>

#include "simd.h"

#define QV_SOON 3 /* places from the cursor: candidates whose lists are fetched as soon as they are found */

static void *grown(void *old, size_t bytes, int *failed) {
    void *fresh = NULL;
    if (posix_memalign(&fresh, 64, bytes)) {
        *failed = 1;
        return old;
    }
    free(old);
    return fresh;
}

int qv_scratch_reserve(qv_scratch *s, int pool, uint32_t rows, size_t query_size) {
    int failed = 0;
    if (pool > s->pool_room) {
        s->pool.slots = grown(s->pool.slots, ((size_t)pool + 1) * sizeof *s->pool.slots, &failed);
        if (!failed) s->pool_room = pool;
    }
    if (rows > s->rows_room || !s->visited.bits) {
        uint32_t words = rows / 64 + 1 + rows / 512; /* some room, so that a growing index does not realloc each time */
        s->visited.bits = grown(s->visited.bits, words * sizeof(uint64_t), &failed);
        if (!s->visited.touched) s->visited.touched = grown(NULL, QV_TOUCHED_MAX * sizeof(uint32_t), &failed);
        if (failed) return QV_NO_MEMORY;
        memset(s->visited.bits, 0, words * sizeof(uint64_t));
        s->visited.n_words = words;
        s->visited.n_touched = 0;
        s->rows_room = words * 64 - 1;
    }
    if (query_size > s->query_room) {
        s->query = grown(s->query, query_size, &failed);
        s->other = grown(s->other, query_size, &failed);
        if (!failed) s->query_room = query_size;
    }
    return failed ? QV_NO_MEMORY : QV_OK;
}

uint8_t *qv_scratch_own(qv_scratch *s, size_t bytes) {
    int failed = 0;
    if (bytes > s->own_room) {
        s->own = grown(s->own, bytes, &failed);
        if (!failed) s->own_room = bytes;
    }
    return failed ? NULL : s->own;
}

void qv_scratch_free(qv_scratch *s) {
    free(s->own);
    free(s->pool.slots);
    free(s->visited.bits);
    free(s->visited.touched);
    free(s->query);
    free(s->other);
    memset(s, 0, sizeof *s);
}

void qv_score_staged(const qv_codec *codec, qv_column *adjacency, const qv_query *query, int stage, int n, qv_scratch *s) {
    float *key = s->key;
    uint32_t *row = s->row[stage];
    codec->score(codec, query, s->address[stage], n, key);
    s->evaluations += (uint64_t)n;
    float bound = qv_pool_bound(&s->pool);
    int kept = 0;
    for (int i = 0; i < n; i++) { /* branch-free, so that the pool alone decides what is mispredicted */
        float k = key[i];
        key[kept] = k;
        row[kept] = row[i];
        kept += k <= bound;
    }
    for (int i = 0; i < kept; i++) {
        int place = qv_pool_insert(&s->pool, qv_candidate(key[i], row[i]));
        if (place >= QV_SOON || !adjacency) continue;
        const uint8_t *list = qv_row(adjacency, row[i]);
        if (list) qv_prefetch_row(list, adjacency->stride);
    }
}

/* Stage the next selected rows from position *at on; how many, or QV_DAMAGED. */
static int stage_rows(qv_column *codes, uint32_t n, const qv_selection *selection, uint32_t *at, qv_scratch *s) {
    uint32_t end = selection->rows ? selection->n_rows : n;
    int staged = 0;
    for (; *at < end && staged < 64; ++*at) {
        uint32_t row = selection->rows ? selection->rows[*at] : *at;
        if (!selection->rows && qv_is_excluded(selection, row)) continue;
        const uint8_t *address = qv_row(codes, row);
        if (!address) return QV_DAMAGED;
        if (selection->rows) qv_prefetch_row(address, codes->stride);
        s->row[0][staged] = row;
        s->address[0][staged++] = address;
    }
    return staged;
}

int qv_scan(const qv_codec *codec, qv_column *codes, uint32_t n, const qv_selection *selection, const qv_query *query,
            int keep, qv_scratch *s) {
    uint32_t at = 0;
    qv_pool_reset(&s->pool, keep);
    for (int staged; (staged = stage_rows(codes, n, selection, &at, s)) != 0;) {
        if (staged < 0) return staged;
        qv_score_staged(codec, NULL, query, 0, staged, s);
    }
    return QV_OK;
}
