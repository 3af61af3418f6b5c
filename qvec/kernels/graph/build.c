/* Graph construction by insertion: pruned out-edges, reverse edges, and the spanning tree that keeps every row reachable.
 *
 * A batch of rows is linked in three steps. Threads need no locks, and the result does not depend on their number:
 *   1. qv_link_out    finds the neighbors of a new row by a search of the graph as it     parallel over new rows
 *                     was before the batch
 *   2. qv_link_in     adds the reverse edges of a row, nearest first                       parallel over these rows
 *   3. qv_link_tree   adds one tree edge to a new row, which pruning never removes         in row order
 * Pruning follows HNSW and Vamana: Malkov & Yashunin 2018 (alg. 4), Subramanya et al. 2019 (RobustPrune).
 */
#include "graph/edges.h"
#include "codec/simd.h"

/* Mark the candidates after `from` that edge `from` occludes: alpha * d(from, e) <= d(u, e). */
static int mark_occluded(const qv_graph *graph, const qv_edge *edges, int from, int n, uint8_t *occluded,
                         qv_scratch *s) {
    const uint8_t *node = qv_row(graph->codes, edges[from].row & QV_ROW_MASK);
    if (!node) return QV_DAMAGED;
    qv_prepare_row(graph->codec, node, (qv_query *)s->other);
    for (int i = from + 1; i < n;) {
        int staged = 0;
        for (; i < n && staged < QV_HOP_MAX; i++) {
            if (occluded[i]) continue;
            const uint8_t *address = qv_row(graph->codes, edges[i].row & QV_ROW_MASK);
            if (!address) return QV_DAMAGED;
            s->row[0][staged] = (uint32_t)i;
            s->address[0][staged++] = address;
        }
        graph->codec->score(graph->codec, (qv_query *)s->other, s->address[0], staged, s->key);
        s->evaluations += (uint64_t)staged;
        for (int j = 0; j < staged; j++) occluded[s->row[0][j]] = graph->alpha * s->key[j] <= edges[s->row[0][j]].key;
    }
    return QV_OK;
}

/* Duplicates of the node occlude nothing and take at most an eighth of the list, so that a cluster of equal vectors
 * stays connected to other rows. */
int qv_prune(const qv_graph *graph, qv_edge *edges, int n, int limit, const qv_duplicates *duplicates, qv_scratch *s) {
    uint8_t occluded[QV_PRUNE_MAX] = {0};
    qv_edge unused[QV_PRUNE_MAX];
    int kept = 0, n_unused = 0, n_tree = 0, duplicates_left = (int)graph->degree / 8;
    for (int i = 0; i < n; i++) n_tree += (edges[i].row & QV_TREE) != 0;
    for (int i = 0; i < n; i++) {
        int is_tree = (edges[i].row & QV_TREE) != 0, duplicate = qv_is_duplicate(duplicates, edges[i].key);
        if (!is_tree && occluded[i] && !duplicate) unused[n_unused++] = edges[i];
        if (!is_tree && (occluded[i] || kept + n_tree >= limit || (duplicate && duplicates_left-- <= 0))) continue;
        n_tree -= is_tree;
        if (!duplicate && !occluded[i] && kept + n_tree + 1 < limit) {
            int status = mark_occluded(graph, edges, i, n, occluded, s);
            if (status) return status;
        }
        edges[kept++] = edges[i];
    }
    for (int i = 0; i < n_unused && kept < (int)(graph->fill * (float)limit); i++) edges[kept++] = unused[i];
    return kept;
}

/* Score all rows of the batch. A search cannot find these, because they are not linked yet; in sorted data, they are the
 * nearest neighbors of each other. */
static int score_batch(const qv_graph *graph, uint32_t row, const uint32_t *batch, uint32_t n, const qv_query *query,
                       qv_scratch *s) {
    for (uint32_t i = 0; i < n;) {
        int staged = 0;
        for (; i < n && staged < QV_HOP_MAX; i++) {
            if (batch[i] == row) continue;
            const uint8_t *address = qv_row(graph->codes, batch[i]);
            if (!address) return QV_DAMAGED;
            s->row[0][staged] = batch[i];
            s->address[0][staged++] = address;
        }
        qv_score_staged(graph->codec, NULL, query, 0, staged, s);
    }
    return QV_OK;
}

/* Find a row of the pool with an equal code; QV_NO_ROW: none. */
static uint32_t equal_of(const qv_graph *graph, const uint8_t *code, const qv_duplicates *duplicates,
                         const qv_pool *pool) {
    for (int i = 0; i < pool->size; i++) {
        if (!qv_is_duplicate(duplicates, qv_candidate_key(pool->slots[i]))) continue;
        uint32_t row = qv_candidate_row(pool->slots[i]);
        const uint8_t *other = qv_row(graph->codes, row);
        if (other && !qv_is_set(graph->deleted, row) && qv_equal_codes(graph->codec, code, other)) return row;
    }
    return QV_NO_ROW;
}

int qv_link_out(const qv_graph *graph, uint32_t row, const uint32_t *batch, uint32_t n_batch, int ef, qv_scratch *s,
                qv_link *links, uint32_t *equal) {
    qv_edge edges[QV_PRUNE_MAX];
    const uint8_t *code = qv_row(graph->codes, row);
    uint32_t *list = (uint32_t *)qv_row(graph->adjacency, row);
    if (!code || !list) return QV_DAMAGED;
    qv_note_change(graph, row);
    qv_query *query = (qv_query *)s->query;
    qv_prepare_row(graph->codec, code, query);
    int status = qv_walk(graph, query, ef, s);
    if (!status) status = score_batch(graph, row, batch, n_batch, query, s);
    if (status) return status;
    qv_duplicates duplicates = qv_duplicates_of(graph->codec, query, code);
    *equal = graph->distinct ? equal_of(graph, code, &duplicates, &s->pool) : QV_NO_ROW;
    if (*equal != QV_NO_ROW) return 0;
    int n = 0;
    for (int i = 0; i < s->pool.size && n < QV_PRUNE_MAX; i++) {
        uint32_t found = qv_candidate_row(s->pool.slots[i]);
        if (!qv_is_set(graph->deleted, found)) edges[n++] = (qv_edge){found, qv_candidate_key(s->pool.slots[i])};
    }
    n = qv_prune(graph, edges, n, (int)graph->degree, &duplicates, s);
    if (n < 0) return n;
    qv_write_list(list, graph->degree, edges, n);
    for (int i = 0; i < n; i++) links[i] = (qv_link){row, edges[i].row, edges[i].key};
    return n;
}

/* Compute the keys of a list's rows relative to the node that owns the list. */
static int score_list(const qv_graph *graph, const qv_query *query, const uint32_t *list, int n, qv_edge *edges,
                      qv_scratch *s) {
    for (int i = 0; i < n; i++) {
        uint32_t row = list[i] & QV_ROW_MASK;
        s->address[0][i] =
            row < graph->codes->n_blocks * graph->codes->rows_per_block ? qv_row(graph->codes, row) : NULL;
        if (!s->address[0][i]) return QV_DAMAGED;
        qv_prefetch_row(s->address[0][i], (size_t)graph->codec->stride);
    }
    graph->codec->score(graph->codec, query, s->address[0], n, s->key);
    for (int i = 0; i < n; i++) edges[i] = (qv_edge){list[i], s->key[i]};
    return QV_OK;
}

static int has_edge(const uint32_t *list, uint32_t degree, uint32_t row) {
    for (uint32_t i = 0; i < degree && list[i] != QV_NO_ROW; i++)
        if ((list[i] & QV_ROW_MASK) == row) return 1;
    return 0;
}

int qv_pending_links(const qv_graph *graph, uint32_t row, uint32_t first, uint32_t stop, qv_scratch *s,
                     qv_link *links) {
    const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, row);
    if (!list) return QV_DAMAGED;
    uint32_t targets[QV_DEGREE_MAX];
    int size = (int)qv_list_size(list, graph->degree), n = 0;
    for (int i = 0; i < size; i++) {
        uint32_t target = list[i] & QV_ROW_MASK;
        if (target < first || target >= stop || target >= graph->n || qv_is_set(graph->deleted, target)) continue;
        const uint32_t *other = (const uint32_t *)qv_row(graph->adjacency, target);
        if (!other) return QV_DAMAGED;
        if (!has_edge(other, graph->degree, row)) targets[n++] = target;
    }
    if (n == 0) return 0;
    qv_edge edges[QV_DEGREE_MAX];
    const uint8_t *code = qv_row(graph->codes, row);
    if (!code) return QV_DAMAGED;
    qv_query *query = (qv_query *)s->query;
    qv_prepare_row(graph->codec, code, query);
    int status = score_list(graph, query, targets, n, edges, s);
    if (status) return status;
    for (int i = 0; i < n; i++) links[i] = (qv_link){row, edges[i].row, edges[i].key};
    return n;
}

/* Copy the links whose rows the list does not name yet as edges, at most `most`. Two rows of a batch may have chosen each
 * other: each list then has the other row before its reverse edge arrives. Returns the number of edges. */
static int missing_edges(const qv_graph *graph, const uint32_t *list, const qv_link *links, int n, int most,
                         qv_edge *edges) {
    int missing = 0;
    for (int i = 0; i < n && missing < most; i++)
        if (!has_edge(list, graph->degree, links[i].row)) edges[missing++] = (qv_edge){links[i].row, links[i].key};
    return missing;
}

int qv_link_in(const qv_graph *graph, const qv_link *links, int n, qv_scratch *s) {
    uint32_t target = links[0].target;
    uint32_t *list = (uint32_t *)qv_row(graph->adjacency, target);
    if (!list) return QV_DAMAGED;
    qv_edge edges[QV_PRUNE_MAX];
    int size = (int)qv_list_size(list, graph->degree);
    n = missing_edges(graph, list, links, n, QV_PRUNE_MAX - size, edges + size); /* links come nearest first */
    if (n > 0) qv_note_change(graph, target);
    if (size + n <= (int)graph->degree) {
        for (int i = size; i < size + n; i++) list[i] = edges[i].row;
        return QV_OK;
    }
    const uint8_t *code = qv_row(graph->codes, target);
    if (!code) return QV_DAMAGED;
    qv_query *query = (qv_query *)s->query;
    qv_prepare_row(graph->codec, code, query);
    int status = score_list(graph, query, list, size, edges, s);
    if (status) return status;
    qsort(edges, (size_t)(size + n), sizeof *edges, qv_by_key);
    qv_duplicates duplicates = qv_duplicates_of(graph->codec, query, code);
    int kept = qv_prune(graph, edges, size + n, (int)(graph->degree - graph->degree / QV_SLACK), &duplicates, s);
    if (kept < 0) return kept;
    qv_write_list(list, graph->degree, edges, kept);
    return QV_OK;
}

/* Add a tree edge to `row` to the parent's list. It takes the slot of an edge to the row that exists, else a free slot, else
 * the slot of the last edge that is no tree edge. Tree edges may take half of a list. Returns 0 if they do already. */
static int add_tree_edge(const qv_graph *graph, uint32_t parent, uint32_t *list, uint32_t row) {
    uint32_t degree = graph->degree, size = qv_list_size(list, degree), n_tree = 0, slot = QV_NO_ROW;
    for (uint32_t i = 0; i < size; i++) {
        n_tree += (list[i] & QV_TREE) != 0;
        if (!(list[i] & QV_TREE)) slot = i;
        if ((list[i] & QV_ROW_MASK) == row) {
            list[i] |= QV_TREE;
            qv_note_change(graph, parent);
            return 1;
        }
    }
    if (n_tree >= degree / 2) return 0;
    if (size < degree) slot = size;
    list[slot] = row | QV_TREE;
    qv_note_change(graph, parent);
    return 1;
}

/* A row with room is always found, because the leaves of the tree have no tree edges. */
int qv_attach_below(const qv_graph *graph, uint32_t parent, uint32_t row) {
    for (uint32_t depth = 0; depth <= graph->n; depth++) {
        uint32_t *list = (uint32_t *)qv_row_mut(graph->adjacency, parent), next = QV_NO_ROW;
        if (!list) return QV_DAMAGED;
        if (add_tree_edge(graph, parent, list, row)) return QV_OK;
        for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW;
             i++) /* the row chooses the branch, which spreads the load */
            if (list[i] & QV_TREE && (next == QV_NO_ROW || i % 16 == row % 16)) next = list[i] & QV_ROW_MASK;
        if (next >= graph->n) return QV_DAMAGED;
        parent = next;
    }
    return QV_DAMAGED;
}

/* The parent is the first neighbor that already has an edge to the row, else the first that has room for a tree edge, else
 * a row below the nearest neighbor. */
int qv_link_tree(const qv_graph *graph, uint32_t row, uint32_t fallback, const uint64_t *excluded) {
    const uint32_t *own = (const uint32_t *)qv_row(graph->adjacency, row);
    if (!own) return QV_DAMAGED;
    uint32_t n = qv_list_size(own, graph->degree), nearest = QV_NO_ROW;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < n; i++) {
            uint32_t parent = own[i] & QV_ROW_MASK;
            if (parent >= graph->n || qv_is_set(excluded, parent) || qv_is_set(graph->deleted, parent)) continue;
            if (nearest == QV_NO_ROW) nearest = parent;
            uint32_t *list = (uint32_t *)qv_row_mut(graph->adjacency, parent);
            if (!list) return QV_DAMAGED;
            if ((pass || has_edge(list, graph->degree, row)) && add_tree_edge(graph, parent, list, row)) return QV_OK;
        }
    return qv_attach_below(graph, nearest == QV_NO_ROW ? fallback : nearest, row);
}

/* The row that a duplicate is attached below: the first one with an equal code to which it has an edge that is not a
 * tree edge. The row itself, if there is none. */
static uint32_t linked_row_of(const qv_graph *graph, uint32_t row) {
    const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, row);
    const uint8_t *code = qv_row(graph->codes, row);
    for (uint32_t i = 0; list && code && i < graph->degree && list[i] != QV_NO_ROW; i++) {
        if (list[i] & QV_TREE || list[i] >= graph->n || qv_is_set(graph->deleted, list[i])) continue;
        const uint8_t *other = qv_row(graph->codes, list[i]);
        if (other && qv_equal_codes(graph->codec, code, other)) return list[i];
    }
    return row;
}

int qv_link_duplicate(const qv_graph *graph, uint32_t row, uint32_t first) {
    first = linked_row_of(graph, linked_row_of(graph, first)); /* the first was deleted when a row was attached */
    uint32_t *own = (uint32_t *)qv_row_mut(graph->adjacency, row), used = 0, n_attached = 0;
    const uint32_t *above = (const uint32_t *)qv_row(graph->adjacency, first);
    const uint8_t *code = qv_row(graph->codes, row);
    if (!own || !above || !code) return QV_DAMAGED;
    uint32_t attached[QV_DEGREE_MAX], size = qv_list_size(above, graph->degree);
    qv_note_change(graph, row);
    memset(own, 0xFF, graph->degree * sizeof *own);
    own[used++] = first;
    for (uint32_t i = 0; i < size; i++) {
        uint32_t other = above[i] & QV_ROW_MASK;
        const uint8_t *other_code = other < graph->n ? qv_row(graph->codes, other) : NULL;
        if (!other_code) return QV_DAMAGED;
        if (qv_equal_codes(graph->codec, code, other_code)) {
            if (above[i] & QV_TREE) attached[n_attached++] = other;
        } else if (used < graph->degree - graph->degree / QV_SLACK) {
            own[used++] = other;
        }
    }
    return qv_attach_below(graph,
                           n_attached > 0 && n_attached >= graph->degree / 8 ? attached[row % n_attached] : first, row);
}

static int64_t mark(const qv_graph *graph, uint32_t row, uint64_t *reached, uint32_t *queue, int64_t tail) {
    if (row >= graph->n || qv_is_set(reached, row)) return tail;
    reached[row >> 6] |= 1ull << (row & 63);
    queue[tail] = row;
    return tail + 1;
}

int64_t qv_reachable(const qv_graph *graph, int tree_only, uint64_t *reached, uint32_t *queue) {
    int64_t head = 0, tail = mark(graph, graph->root, reached, queue, 0);
    for (uint32_t i = 0; i < graph->n_entries && !tree_only; i++)
        tail = mark(graph, graph->entries[i], reached, queue, tail);
    while (head < tail) {
        const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, queue[head++]);
        if (!list) return QV_DAMAGED;
        for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++)
            if (!tree_only || list[i] & QV_TREE) tail = mark(graph, list[i] & QV_ROW_MASK, reached, queue, tail);
    }
    return tail;
}
