/* Graph construction: pruned out-links, reverse edges, and the tree that keeps every row reachable.
 *
 * A batch is linked in three steps, so that threads need no locks and the result does not depend on their number:
 *   1. qv_link_out  each new row searches the graph as it stood before the batch       parallel over new rows
 *   2. qv_link_in   each target takes its reverse edges, nearest first                  parallel over targets
 *   3. qv_link_tree each new row gets one in-edge that pruning never removes            in row order
 * Pruning is the rule of HNSW and Vamana: Malkov & Yashunin 2018 (alg. 4), Subramanya et al. 2019 (RobustPrune).
 */
#include <stdlib.h>

#include "graph.h"
#include "simd.h"

#define QV_PRUNE_MAX 512   /* candidates looked at */
#define QV_SLACK 8          /* a full list is pruned to leave this part of it free for the next reverse edges */
#define QV_TWINS 1e-6f     /* d <= this share of |x|^2: the same vector */

typedef struct {
    uint32_t row; /* with QV_TREE where the edge is pinned */
    float key;
} qv_edge;

static int by_key(const void *a, const void *b) {
    const qv_edge *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    uint32_t i = x->row & QV_ROW_MASK, j = y->row & QV_ROW_MASK;
    return i < j ? -1 : i > j;
}

static uint32_t list_size(const uint32_t *list, uint32_t degree) {
    uint32_t n = 0;
    while (n < degree && list[n] != QV_NO_ROW) n++;
    return n;
}

/* Mark the candidates after `from` that edge `from` hides: alpha * d(from, e) <= d(u, e). */
static int hide_behind(const qv_graph *graph, const qv_edge *edges, int from, int n, uint8_t *hidden, qv_scratch *s) {
    const uint8_t *node = qv_row(graph->codes, edges[from].row & QV_ROW_MASK);
    if (!node) return QV_DAMAGED;
    qv_prepare_row(graph->codec, node, (qv_query *)s->other);
    for (int i = from + 1; i < n;) {
        int staged = 0;
        for (; i < n && staged < QV_HOP_MAX; i++) {
            if (hidden[i]) continue;
            const uint8_t *address = qv_row(graph->codes, edges[i].row & QV_ROW_MASK);
            if (!address) return QV_DAMAGED;
            s->row[0][staged] = (uint32_t)i;
            s->address[0][staged++] = address;
        }
        graph->codec->score(graph->codec, (qv_query *)s->other, s->address[0], staged, s->key);
        s->evaluations += (uint64_t)staged;
        for (int j = 0; j < staged; j++) hidden[s->row[0][j]] = graph->alpha * s->key[j] <= edges[s->row[0][j]].key;
    }
    return QV_OK;
}

/* Keep a diverse subset of n edges sorted by key, pinned ones in any case, at most `limit`; returns how many.
 * Twins of the node hide nothing and take at most an eighth of the list: a heap of equal vectors stays connected. */
static int prune(const qv_graph *graph, qv_edge *edges, int n, int limit, float norm2, qv_scratch *s) {
    uint8_t hidden[QV_PRUNE_MAX] = {0};
    int kept = 0, pinned = 0, twins = (int)graph->degree / 8;
    for (int i = 0; i < n; i++) pinned += (edges[i].row & QV_TREE) != 0;
    for (int i = 0; i < n; i++) {
        int pin = (edges[i].row & QV_TREE) != 0, twin = edges[i].key <= QV_TWINS * norm2;
        if (!pin && (hidden[i] || kept + pinned >= limit || (twin && twins-- <= 0))) continue;
        pinned -= pin;
        if (!twin && !hidden[i] && kept + pinned + 1 < limit) {
            int status = hide_behind(graph, edges, i, n, hidden, s);
            if (status) return status;
        }
        edges[kept++] = edges[i];
    }
    return kept;
}

static void write_list(uint32_t *list, uint32_t degree, const qv_edge *edges, int n) {
    for (int i = 0; i < n; i++) list[i] = edges[i].row;
    for (uint32_t i = (uint32_t)n; i < degree; i++) list[i] = QV_NO_ROW;
}

/* Rows of a batch cannot find each other by a walk: score them all, so that sorted data is linked like any other. */
static int score_batch(const qv_graph *graph, uint32_t row, uint32_t batch, const qv_query *query, qv_scratch *s) {
    for (uint32_t other = graph->n; other < graph->n + batch;) {
        int staged = 0;
        for (; other < graph->n + batch && staged < QV_HOP_MAX; other++) {
            if (other == row) continue;
            const uint8_t *address = qv_row(graph->codes, other);
            if (!address) return QV_DAMAGED;
            s->row[0][staged] = other;
            s->address[0][staged++] = address;
        }
        qv_score_staged(graph->codec, NULL, query, 0, staged, s);
    }
    return QV_OK;
}

int qv_link_out(const qv_graph *graph, uint32_t row, uint32_t batch, int ef, qv_scratch *s, qv_link *links) {
    qv_edge edges[QV_PRUNE_MAX];
    const uint8_t *code = qv_row(graph->codes, row);
    uint32_t *list = (uint32_t *)qv_row(graph->adjacency, row);
    if (!code || !list) return QV_DAMAGED;
    qv_query *query = (qv_query *)s->query;
    qv_prepare_row(graph->codec, code, query);
    int status = qv_walk(graph, query, ef, s);
    if (!status) status = score_batch(graph, row, batch, query, s);
    if (status) return status;
    int n = s->pool.size < QV_PRUNE_MAX ? s->pool.size : QV_PRUNE_MAX;
    for (int i = 0; i < n; i++)
        edges[i] = (qv_edge){qv_candidate_row(s->pool.slots[i]), qv_candidate_key(s->pool.slots[i])};
    n = prune(graph, edges, n, (int)graph->degree, query->bias, s);
    if (n < 0) return n;
    write_list(list, graph->degree, edges, n);
    for (int i = 0; i < n; i++) links[i] = (qv_link){row, edges[i].row, edges[i].key};
    return n;
}

/* Keys of a list's rows seen from the node that owns it. */
static int score_list(const qv_graph *graph, const qv_query *query, const uint32_t *list, int n, qv_edge *edges, qv_scratch *s) {
    for (int i = 0; i < n; i++) {
        uint32_t row = list[i] & QV_ROW_MASK;
        s->address[0][i] = row < graph->codes->n_blocks * graph->codes->rows_per_block ? qv_row(graph->codes, row) : NULL;
        if (!s->address[0][i]) return QV_DAMAGED;
        qv_prefetch_row(s->address[0][i], (size_t)graph->codec->stride);
    }
    graph->codec->score(graph->codec, query, s->address[0], n, s->key);
    for (int i = 0; i < n; i++) edges[i] = (qv_edge){list[i], s->key[i]};
    return QV_OK;
}

int qv_link_in(const qv_graph *graph, const qv_link *links, int n, qv_scratch *s) {
    uint32_t target = links[0].target;
    uint32_t *list = (uint32_t *)qv_row(graph->adjacency, target);
    if (!list) return QV_DAMAGED;
    int size = (int)list_size(list, graph->degree);
    if (size + n <= (int)graph->degree) {
        for (int i = 0; i < n; i++) list[size + i] = links[i].row;
        return QV_OK;
    }
    const uint8_t *code = qv_row(graph->codes, target);
    if (!code) return QV_DAMAGED;
    qv_edge edges[QV_PRUNE_MAX];
    qv_query *query = (qv_query *)s->query;
    qv_prepare_row(graph->codec, code, query);
    int status = score_list(graph, query, list, size, edges, s);
    if (status) return status;
    if (n > QV_PRUNE_MAX - size) n = QV_PRUNE_MAX - size; /* links come nearest first */
    for (int i = 0; i < n; i++) edges[size + i] = (qv_edge){links[i].row, links[i].key};
    qsort(edges, (size_t)(size + n), sizeof *edges, by_key);
    int kept = prune(graph, edges, size + n, (int)(graph->degree - graph->degree / QV_SLACK), query->bias, s);
    if (kept < 0) return kept;
    write_list(list, graph->degree, edges, kept);
    return QV_OK;
}

/* Pin `row` in the list at `list`: an edge that is there, a free slot, or the last edge that is not pinned.
 * Half of a list stays free for pruning. 0 when the list has no place. */
static int pin(uint32_t *list, uint32_t degree, uint32_t row) {
    uint32_t size = list_size(list, degree), pinned = 0, place = QV_NO_ROW;
    for (uint32_t i = 0; i < size; i++) {
        pinned += (list[i] & QV_TREE) != 0;
        if (!(list[i] & QV_TREE)) place = i;
        if ((list[i] & QV_ROW_MASK) == row) {
            list[i] |= QV_TREE;
            return 1;
        }
    }
    if (pinned >= degree / 2) return 0;
    if (size < degree) place = size;
    list[place] = row | QV_TREE;
    return 1;
}

static int has_edge(const uint32_t *list, uint32_t degree, uint32_t row) {
    for (uint32_t i = 0; i < degree && list[i] != QV_NO_ROW; i++)
        if (list[i] == row) return 1;
    return 0;
}

/* Hosts: first the neighbours that kept an edge to the row, then any neighbour, then whatever hangs below them. The
 * tree below a full host has a list with room, because every tree has leaves. */
int64_t qv_link_tree(const qv_graph *graph, uint32_t row) {
    const uint32_t *own = (const uint32_t *)qv_row(graph->adjacency, row);
    if (!own) return QV_DAMAGED;
    uint32_t n = list_size(own, graph->degree);
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < n; i++) {
            if ((own[i] & QV_ROW_MASK) > row) continue; /* of the same batch, and not in the tree yet */
            uint32_t *list = (uint32_t *)qv_row_mut(graph->adjacency, own[i] & QV_ROW_MASK);
            if (!list) return QV_DAMAGED;
            if ((pass || has_edge(list, graph->degree, row)) && pin(list, graph->degree, row)) return own[i] & QV_ROW_MASK;
        }
    uint32_t host = n && (own[0] & QV_ROW_MASK) < row ? own[0] & QV_ROW_MASK : 0; /* row 0 is the root */
    for (uint32_t depth = 0; depth <= graph->n; depth++) {
        uint32_t *list = (uint32_t *)qv_row_mut(graph->adjacency, host), next = QV_NO_ROW;
        if (!list) return QV_DAMAGED;
        if (pin(list, graph->degree, row)) return host;
        for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++) /* descend by the row, to spread the load */
            if (list[i] & QV_TREE && (next == QV_NO_ROW || i % 16 == row % 16)) next = list[i] & QV_ROW_MASK;
        if (next == QV_NO_ROW || next >= graph->codes->n_blocks * graph->codes->rows_per_block) return QV_DAMAGED;
        host = next;
    }
    return QV_DAMAGED;
}

int64_t qv_reach(const qv_graph *graph, uint64_t *reached, uint32_t *queue) {
    int64_t head = 0, tail = 0;
    for (uint32_t i = 0; i < graph->n_entries; i++) {
        uint32_t row = graph->entries[i];
        if (row >= graph->n || reached[row >> 6] >> (row & 63) & 1) continue;
        reached[row >> 6] |= 1ull << (row & 63);
        queue[tail++] = row;
    }
    while (head < tail) {
        const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, queue[head++]);
        if (!list) return QV_DAMAGED;
        for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++) {
            uint32_t row = list[i] & QV_ROW_MASK;
            if (row >= graph->n || reached[row >> 6] >> (row & 63) & 1) continue;
            reached[row >> 6] |= 1ull << (row & 63);
            queue[tail++] = row;
        }
    }
    return tail;
}
