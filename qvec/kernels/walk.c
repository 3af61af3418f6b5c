#include "graph.h"

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

void qv_scratch_free(qv_scratch *s) {
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

/* Rows of a list that were not visited yet, marked as visited now. Which were cannot be predicted: no branch on it. */
static int unvisited(const qv_graph *graph, const uint32_t *list, qv_visited *visited, uint32_t *rows) {
    int n = 0;
    for (uint32_t i = 0; i < graph->degree; i++) {
        uint32_t row = list[i] & QV_ROW_MASK;
        if (row >= graph->n) { /* empty slot, or a hostile file */
            if (list[i] == QV_NO_ROW) break;
            continue;
        }
        uint64_t word = visited->bits[row >> 6], bit = 1ull << (row & 63);
        visited->bits[row >> 6] = word | bit;
        rows[n] = row;
        n += (word & bit) == 0;
    }
    qv_visited_touch(visited, rows, n);
    return n;
}

/* Collect the unvisited neighbours of a row and prefetch their codes. */
static int stage_hop(const qv_graph *graph, uint32_t node, int stage, qv_scratch *s) {
    const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, node);
    if (!list) return QV_DAMAGED;
    uint32_t *rows = s->row[stage];
    int n = unvisited(graph, list, &s->visited, rows);
    for (int i = 0; i < n; i++) {
        const uint8_t *address = qv_row(graph->codes, rows[i]);
        if (!address) return QV_DAMAGED;
        qv_prefetch_row(address, (size_t)graph->codec->stride);
        s->address[stage][i] = address;
    }
    s->hops++;
    return n;
}

/* The lists of the nearest open candidates, one of which is next unless this hop finds a nearer one. */
static inline void fetch_lists(qv_column *adjacency, const qv_pool *pool) {
    for (int i = pool->cursor; i < pool->size && i < pool->cursor + 2; i++) {
        const uint8_t *list = qv_row(adjacency, qv_candidate_row(pool->slots[i]));
        if (list) qv_prefetch_row(list, adjacency->stride);
    }
}

static int seed_pool(const qv_graph *graph, const qv_query *query, qv_scratch *s) {
    for (uint32_t i = 0; i < graph->n_entries;) {
        int n = 0;
        for (; i < graph->n_entries && n < QV_HOP_MAX; i++) {
            uint32_t row = graph->entries[i];
            if (row >= graph->n || qv_visit(&s->visited, row)) continue;
            const uint8_t *address = qv_row(graph->codes, row);
            if (!address) return QV_DAMAGED;
            s->row[0][n] = row;
            s->address[0][n++] = address;
        }
        qv_score_staged(graph->codec, graph->adjacency, query, 0, n, s);
    }
    return QV_OK;
}

/* The nearest open candidate's list and code rows are on their way while the hop before it is scored: its neighbours
 * are staged before the pool knows the current hop's results, which costs a few more hops and hides the misses. */
int qv_walk(const qv_graph *graph, const qv_query *query, int ef, qv_scratch *s) {
    int stage = 0, waiting = 0;
    qv_visited_reset(&s->visited);
    qv_pool_reset(&s->pool, ef);
    int status = seed_pool(graph, query, s);
    if (status) return status;
    for (;;) {
        uint64_t next = qv_pool_pop(&s->pool);
        int staged = 0;
        if (next) {
            staged = stage_hop(graph, qv_candidate_row(next), stage, s);
            if (staged < 0) return staged;
            fetch_lists(graph->adjacency, &s->pool);
        } else if (!waiting) {
            return QV_OK;
        }
        if (waiting) qv_score_staged(graph->codec, graph->adjacency, query, stage ^ 1, waiting, s);
        waiting = staged;
        stage ^= 1;
    }
}

int qv_scan(const qv_codec *codec, qv_column *codes, uint32_t n, const uint64_t *excluded,
            const qv_query *query, int keep, qv_scratch *s) {
    qv_pool_reset(&s->pool, keep);
    for (uint32_t row = 0; row < n;) {
        int staged = 0;
        for (; row < n && staged < 64; row++) {
            if (excluded && excluded[row >> 6] >> (row & 63) & 1) continue;
            const uint8_t *address = qv_row(codes, row);
            if (!address) return QV_DAMAGED;
            s->row[0][staged] = row;
            s->address[0][staged++] = address;
        }
        qv_score_staged(codec, NULL, query, 0, staged, s);
    }
    return QV_OK;
}
