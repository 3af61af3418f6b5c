#include "graph/graph.h"
#include "codec/simd.h"

#define DEFERRED_MAX 256

/* Unvisited rows of a list, which are marked as visited. Branch-free: which rows were visited cannot be predicted. */
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

/* Request the rows of blocks that were not verified yet, so that the first searches read the codes of a list together.
 * If memory is too small for the codes, also those that were. */
static void request_rows(const qv_column *column, const uint32_t *rows, int n) {
    for (int i = 0; i < n; i++)
        if (column->partly_copied || column->table[qv_block_of(column, rows[i])] == NULL)
            qv_request_row(column, rows[i]);
}

/* Collect the unvisited neighbors of a row and prefetch their codes. */
static int stage_hop(const qv_graph *graph, uint32_t node, int stage, qv_scratch *s) {
    if (s->requests) request_rows(graph->adjacency, &node, 1);
    const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, node);
    if (!list) return QV_DAMAGED;
    uint32_t *rows = s->row[stage];
    int n = unvisited(graph, list, &s->visited, rows);
    if (s->requests) request_rows(graph->codes, rows, n);
    for (int i = 0; i < n; i++) {
        const uint8_t *address = qv_lone_row(graph->codes, rows[i]);
        if (!address) return QV_DAMAGED;
        qv_prefetch_row(address, (size_t)graph->codec->stride);
        s->address[stage][i] = address;
    }
    s->hops++;
    return n;
}

/* Whether the pool has a candidate with this key and an equal code. */
static int is_known(const qv_graph *graph, const qv_pool *pool, float key, const uint8_t *code) {
    uint64_t first = qv_candidate(key, 0);
    int low = 0, high = pool->size;
    while (low < high) {
        int middle = (low + high) / 2;
        if (pool->slots[middle] < first) low = middle + 1;
        else high = middle;
    }
    for (; low < pool->size && pool->slots[low] >> 32 == first >> 32; low++) {
        const uint8_t *other = qv_row(graph->codes, qv_candidate_row(pool->slots[low]));
        if (other && qv_equal_codes(graph->codec, code, other)) return 1;
    }
    return 0;
}

static void score_distinct(const qv_graph *graph, const qv_query *query, int stage, int n, qv_scratch *s) {
    graph->codec->score(graph->codec, query, s->address[stage], n, s->key);
    s->evaluations += (uint64_t)n;
    for (int i = 0; i < n; i++)
        if (s->key[i] <= qv_pool_bound(&s->pool) && !is_known(graph, &s->pool, s->key[i], s->address[stage][i]))
            qv_pool_insert(&s->pool, qv_candidate(s->key[i], s->row[stage][i]));
}

static void score_hop(const qv_graph *graph, const qv_query *query, int stage, int n, qv_scratch *s) {
    if (graph->distinct) score_distinct(graph, query, stage, n, s);
    else qv_score_staged(graph->codec, graph->adjacency, query, stage, n, s);
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
        score_hop(graph, query, 0, n, s);
    }
    return QV_OK;
}

/* Candidates that wait until no other one is open. */
typedef struct {
    uint64_t slots[DEFERRED_MAX];
    int n, closed;           /* closed: no more candidates are deferred */
    uint32_t last, deferred; /* keys of the candidates that were expanded and deferred last */
} deferred_candidates;

/* Whether to expand a candidate later, because one with the same key was expanded. Rows with equal codes have equal keys,
 * and each has edges to more of them. They would fill the pool before the walk reaches other rows. */
static int defer(deferred_candidates *later, uint64_t candidate) {
    uint32_t key = (uint32_t)(candidate >> 32);
    int known = key == later->last || (later->n && key == later->deferred);
    if (!known || later->closed || later->n == DEFERRED_MAX) {
        later->last = key;
        return 0;
    }
    later->deferred = key;
    later->slots[later->n++] = candidate;
    return 1;
}

/* The nearest candidate that is not deferred; if there is none and no hop is waiting, one that was deferred; else 0. */
static uint64_t next_candidate(qv_pool *pool, deferred_candidates *later, int waiting) {
    uint64_t next = qv_pool_pop(pool);
    while (next && defer(later, next)) next = qv_pool_pop(pool);
    if (next || waiting || later->n == 0) return next;
    later->closed = 1;
    return later->slots[--later->n];
}

/* The list and codes of the nearest open candidate are prefetched while the previous hop is scored: its neighbors
 * are staged before the pool contains the current hop's results. This costs a few more hops and hides the cache
 * misses. */
int qv_walk(const qv_graph *graph, const qv_query *query, int ef, qv_scratch *s) {
    int stage = 0, waiting = 0;
    deferred_candidates later; /* binary codes of different rows often have equal keys */
    later.n = 0;
    later.closed = graph->codec->kind == QV_BINARY;
    later.last = UINT32_MAX; /* the key of no candidate */
    qv_visited_reset(&s->visited);
    for (uint32_t i = 0; graph->repeats && i < (graph->n + 63) / 64; i++) s->visited.bits[i] |= graph->repeats[i];
    qv_pool_reset(&s->pool, ef);
    int status = seed_pool(graph, query, s);
    if (status) return status;
    for (;;) {
        uint64_t next = next_candidate(&s->pool, &later, waiting);
        int staged = 0;
        if (next) {
            staged = stage_hop(graph, qv_candidate_row(next), stage, s);
            if (staged < 0) return staged;
            if (qv_is_late(s, (size_t)staged * (size_t)graph->codec->stride)) return QV_LATE;
            qv_fetch_lists(graph->adjacency, &s->pool);
        } else if (!waiting) {
            return QV_OK;
        }
        if (waiting) score_hop(graph, query, stage ^ 1, waiting, s);
        waiting = staged;
        stage ^= 1;
    }
}

int qv_walk_find(const void *graph, const qv_search_params *params, const float *original, const float *transformed,
                 qv_scratch *s) {
    (void)original;
    (void)transformed;
    const qv_selection *selection = &params->selection;
    const qv_query *query = (const qv_query *)s->query;
    if (selection->seeds && selection->excluded) return qv_walk_filtered(graph, query, selection, params->ef, s);
    return qv_walk(graph, query, params->ef, s);
}
