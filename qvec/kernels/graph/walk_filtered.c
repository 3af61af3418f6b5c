/* Filtered search: a walk among rows that may be results.
 *
 * The pool contains only rows that may be results, so a pool of ef finds as much as without a filter. If too few
 * neighbors of a row may be results, the lists of its other neighbors are read: the two-hop neighborhood of ACORN
 * (Patel et al. 2024, arXiv:2403.04871), taken from the unchanged graph.
 */
#include "graph/graph.h"
#include "codec/simd.h"

/* Rows that one hop should stage, half the usual degree. Below it, lists of excluded neighbors are read until there
 * are as many. */
#define QV_ENOUGH 16

typedef struct {
    const qv_graph *graph;
    const qv_selection *selection;
    qv_scratch *s;
    uint32_t *rows; /* rows of this hop, not visited before */
    int n;
} hop;

/* Take the unvisited rows of a list that may be results; excluded ones go to `through` [degree]. Returns the number
 * of those. Branch-free: which rows are excluded cannot be predicted. */
static int take_list(hop *h, const uint32_t *list, uint32_t *through) {
    uint64_t *visited = h->s->visited.bits;
    const uint64_t *excluded = h->selection->excluded;
    uint32_t *rows = h->rows + h->n;
    int n = 0, n_through = 0, left = QV_HOP_MAX - h->n;
    for (uint32_t i = 0; i < h->graph->degree && n < left; i++) {
        uint32_t row = list[i] & QV_ROW_MASK;
        if (row >= h->graph->n) { /* empty slot, or a hostile file */
            if (list[i] == QV_NO_ROW) break;
            continue;
        }
        uint64_t bit = 1ull << (row & 63), seen = visited[row >> 6], out = excluded[row >> 6] & bit;
        visited[row >> 6] = seen | (bit & ~out);
        rows[n] = through[n_through] = row;
        n += ((seen | out) & bit) == 0;
        n_through += out != 0;
    }
    qv_visited_touch(&h->s->visited, rows, n);
    h->n += n;
    return n_through;
}

static int take_hop(const qv_graph *graph, const qv_selection *selection, uint32_t node, int stage, qv_scratch *s) {
    hop h = {graph, selection, s, s->row[stage], 0};
    uint32_t through[QV_DEGREE_MAX], beyond[QV_DEGREE_MAX];
    const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, node);
    if (!list) return QV_DAMAGED;
    s->hops++;
    int n_through = take_list(&h, list, through);
    if (h.n < QV_ENOUGH) {
        for (int i = 0; i < n_through; i++) {
            list = (const uint32_t *)qv_row(graph->adjacency, through[i]);
            if (!list) return QV_DAMAGED;
            qv_prefetch_row((const uint8_t *)list, graph->adjacency->stride);
        }
        for (int i = 0; i < n_through && h.n < QV_ENOUGH; i++) {
            if (qv_visit(&s->visited, through[i])) continue;
            take_list(&h, (const uint32_t *)qv_row(graph->adjacency, through[i]), beyond);
            s->hops++;
        }
    }
    for (int i = 0; i < h.n; i++) {
        const uint8_t *address = qv_row(graph->codes, h.rows[i]);
        if (!address) return QV_DAMAGED;
        qv_prefetch_row(address, (size_t)graph->codec->stride);
        s->address[stage][i] = address;
    }
    return h.n;
}

static int score_rows(const qv_graph *graph, const qv_query *query, const qv_selection *selection, const uint32_t *rows,
                      uint32_t count, qv_scratch *s) {
    for (uint32_t i = 0; i < count;) {
        int n = 0;
        for (; i < count && n < QV_HOP_MAX; i++) {
            if (rows[i] >= graph->n) continue;
            if (!qv_is_excluded(selection, rows[i]) && qv_visit(&s->visited, rows[i]))
                continue; /* excluded rows can be entered later */
            const uint8_t *address = qv_row(graph->codes, rows[i]);
            if (!address) return QV_DAMAGED;
            s->row[0][n] = rows[i];
            s->address[0][n++] = address;
        }
        qv_score_staged(graph->codec, graph->adjacency, query, 0, n, s);
    }
    return QV_OK;
}

/* Remove excluded rows from the pool. Returns the nearest of them, or the graph's n. */
static uint32_t drop_excluded(const qv_graph *graph, const qv_selection *selection, qv_pool *pool) {
    uint32_t nearest = graph->n;
    int kept = 0;
    for (int i = 0; i < pool->size; i++) {
        uint32_t row = qv_candidate_row(pool->slots[i]);
        if (!qv_is_excluded(selection, row)) pool->slots[kept++] = pool->slots[i];
        else if (nearest == graph->n) nearest = row;
    }
    pool->size = kept;
    return nearest;
}

/* Start from the entries and the seeds, and from the neighborhood of the nearest entry if that is excluded. */
static int enter(const qv_graph *graph, const qv_query *query, const qv_selection *selection, qv_scratch *s) {
    int status = score_rows(graph, query, selection, graph->entries, graph->n_entries, s);
    if (!status) status = score_rows(graph, query, selection, selection->seeds, selection->n_seeds, s);
    if (status) return status;
    uint32_t nearest = drop_excluded(graph, selection, &s->pool);
    return nearest < graph->n ? take_hop(graph, selection, nearest, 0, s) : 0;
}

int qv_walk_filtered(const qv_graph *graph, const qv_query *query, const qv_selection *selection, int ef,
                     qv_scratch *s) {
    qv_visited_reset(&s->visited);
    qv_pool_reset(&s->pool, ef);
    int waiting = enter(graph, query, selection, s);
    for (int stage = 1;; stage ^= 1) {
        if (waiting < 0) return waiting;
        uint64_t next = qv_pool_pop(&s->pool);
        if (!next && !waiting) return QV_OK;
        int staged = next ? take_hop(graph, selection, qv_candidate_row(next), stage, s) : 0;
        if (qv_is_late(s, QV_HOP_MAX * (size_t)graph->codec->stride)) return QV_LATE;
        qv_fetch_lists(graph->adjacency, &s->pool);
        if (waiting) qv_score_staged(graph->codec, graph->adjacency, query, stage ^ 1, waiting, s);
        waiting = staged;
    }
}
