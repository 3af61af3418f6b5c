/* Graph repair: removes deleted rows from the graph and reconnects their neighbors.
 *
 * The rows to remove are fixed when a repair begins (graph->removing). The work can stop after any list and continue
 * later:
 *   qv_replace_root        replaces a root that is being removed by a row below it             once
 *   qv_relink              replaces removed rows in a list by their heirs, or by the best      parallel over lists
 *                          of their neighbors
 *   qv_reparent_children   gives the children of removed rows new parents in the tree          in row order
 * Lists are reconnected as in FreshDiskANN (Singh et al. 2021, arXiv 2105.09613, algorithm 4). When the repair ends,
 * only the lists of removed rows name a removed row. Exactly one tree edge leads to each remaining row, and the tree has
 * no cycle: the new parent of a subtree is an ancestor of it, or was checked to be outside of it.
 *
 * Duplicates are attached below the linked row of their group, and only that row has good edges to other rows. If it is
 * removed, one of the duplicates becomes its heir: it takes the removed row's place in all lists, and the removed row's
 * neighbors. Without heirs, duplicates would be linked to each other, and searches that meet them would find no other
 * rows.
 */
#include "graph/edges.h"
#include "codec/simd.h"

#define QV_SUBTREE_MAX 64  /* rows of a subtree that are checked; larger subtrees go below the parent */
#define QV_REMOVING_MAX 64 /* removed rows whose neighbors are candidates for one list */

static const uint32_t *read_list(const qv_graph *graph, uint32_t row) {
    return row < graph->n ? (const uint32_t *)qv_row(graph->adjacency, row) : NULL;
}

/* The parts of a list: edges that stay, tree edges to removed rows, and removed rows whose neighbors are candidates. */
typedef struct {
    qv_edge kept[QV_DEGREE_MAX];
    uint32_t tree[QV_DEGREE_MAX], removing[QV_REMOVING_MAX];
    int n_kept, n_tree, n_removing;
    int inherits; /* whether the row is the heir of a removed one */
} list_parts;

/* Replace a removed neighbor by its heir. Returns 1 if that was done, 0 if it has none or is replaced by candidates, or
 * an error. An heir is not added to rows with its code that had a tree edge to the removed row: they have an edge to
 * another row with this code. */
static int replace_by_heir(const qv_graph *graph, uint32_t row, uint32_t edge, int most, list_parts *parts,
                           qv_scratch *s) {
    uint32_t removed = edge & QV_ROW_MASK;
    int64_t heir = qv_heir_of(graph, removed);
    if (heir < 0) return (int)heir;
    if (heir == QV_NO_ROW) return 0;
    if (heir == row) {
        parts->inherits = 1;
        return 0;
    }
    const uint8_t *code = qv_row(graph->codes, row), *other = qv_row(graph->codes, removed);
    if (!code || !other) return QV_DAMAGED;
    if (edge & QV_TREE && qv_equal_codes(graph->codec, code, other)) return 1;
    if (qv_visit(&s->visited, (uint32_t)heir)) return 1;
    if (parts->n_kept >= most) return 0;
    parts->kept[parts->n_kept++].row = (uint32_t)heir;
    return 1;
}

/* Returns the number of removed rows in the list, or an error. */
static int split_list(const qv_graph *graph, uint32_t row, const uint32_t *list, list_parts *parts, qv_scratch *s) {
    uint32_t removed[QV_DEGREE_MAX];
    int n_removed = 0;
    parts->n_kept = parts->n_tree = parts->n_removing = parts->inherits = 0;
    qv_visited_reset(&s->visited);
    qv_visit(&s->visited, row);
    for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++) {
        uint32_t neighbor = list[i] & QV_ROW_MASK;
        if (neighbor >= graph->n) continue;
        qv_visit(&s->visited, neighbor);
        if (!qv_is_set(graph->removing, neighbor)) {
            parts->kept[parts->n_kept++].row = list[i];
            continue;
        }
        if (list[i] & QV_TREE) parts->tree[parts->n_tree++] = list[i];
        removed[n_removed++] = list[i];
    }
    for (int i = 0; i < n_removed; i++) {
        int replaced = replace_by_heir(graph, row, removed[i], (int)graph->degree - parts->n_tree, parts, s);
        if (replaced < 0) return replaced;
        if (!replaced && parts->n_removing < QV_REMOVING_MAX)
            parts->removing[parts->n_removing++] = removed[i] & QV_ROW_MASK;
    }
    return n_removed;
}

/* Compute the keys of the edges that stay. */
static int score_kept(const qv_graph *graph, const qv_query *query, qv_edge *kept, int n, qv_scratch *s) {
    for (int i = 0; i < n; i++) {
        s->address[0][i] = qv_row(graph->codes, kept[i].row & QV_ROW_MASK);
        if (!s->address[0][i]) return QV_DAMAGED;
        qv_prefetch_row(s->address[0][i], (size_t)graph->codec->stride);
    }
    graph->codec->score(graph->codec, query, s->address[0], n, s->key);
    s->evaluations += (uint64_t)n;
    for (int i = 0; i < n; i++) kept[i].key = s->key[i];
    return QV_OK;
}

/* Stage the candidates in the list of a removed row. Removed rows among them are appended to parts->removing. */
static int stage_list(const qv_graph *graph, const uint32_t *list, list_parts *parts, qv_scratch *s) {
    int staged = 0;
    for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++) {
        uint32_t row = list[i] & QV_ROW_MASK;
        if (row >= graph->n || qv_visit(&s->visited, row)) continue;
        if (qv_is_set(graph->removing, row) && parts->n_removing < QV_REMOVING_MAX)
            parts->removing[parts->n_removing++] = row;
        if (qv_is_set(graph->deleted, row)) continue;
        s->row[0][staged] = row;
        s->address[0][staged] = qv_row(graph->codes, row);
        if (!s->address[0][staged]) return QV_DAMAGED;
        qv_prefetch_row(s->address[0][staged++], (size_t)graph->codec->stride);
    }
    return staged;
}

/* Fill the pool with the nearest neighbors of the removed rows. If they do not fill it, continue with the neighbors of
 * removed rows that those name. */
static int find_replacements(const qv_graph *graph, const qv_query *query, list_parts *parts, qv_scratch *s) {
    int own = parts->n_removing;
    for (int i = 0; i < parts->n_removing && (i < own || s->pool.size < s->pool.capacity); i++) {
        const uint32_t *list = read_list(graph, parts->removing[i]);
        int staged = list ? stage_list(graph, list, parts, s) : QV_DAMAGED;
        if (staged < 0) return staged;
        qv_score_staged(graph->codec, NULL, query, 0, staged, s);
    }
    return QV_OK;
}

/* Whether one of n edges occludes a row (DiskANN): the edge is nearer to the node, and alpha * d(edge, row) <= key,
 * where key = d(node, row). Duplicates of the node occlude nothing. Returns 1, 0 or an error. */
static int is_occluded(const qv_graph *graph, const qv_edge *edges, int n, uint32_t row, float key,
                       const qv_duplicates *duplicates, qv_scratch *s) {
    const uint8_t *code = qv_row(graph->codes, row);
    if (!code) return QV_DAMAGED;
    qv_prepare_row(graph->codec, code, (qv_query *)s->other);
    for (int i = 0; i < n; i++) {
        s->address[0][i] = qv_row(graph->codes, edges[i].row & QV_ROW_MASK);
        if (!s->address[0][i]) return QV_DAMAGED;
    }
    graph->codec->score(graph->codec, (qv_query *)s->other, s->address[0], n, s->key);
    s->evaluations += (uint64_t)n;
    for (int i = 0; i < n; i++)
        if (!qv_is_duplicate(duplicates, edges[i].key) && edges[i].key <= key && graph->alpha * s->key[i] <= key)
            return 1;
    return 0;
}

/* Append to n edges the nearest rows of the pool that no edge occludes, up to `limit` edges in all, and up to
 * duplicates_left edges to duplicates. Returns the number of edges. */
static int fill_list(const qv_graph *graph, qv_edge *edges, int n, int limit, int duplicates_left,
                     const qv_duplicates *duplicates, qv_scratch *s) {
    for (int i = 0; i < n; i++) duplicates_left -= qv_is_duplicate(duplicates, edges[i].key);
    for (int i = 0; i < s->pool.size && n < limit; i++) {
        uint32_t row = qv_candidate_row(s->pool.slots[i]);
        float key = qv_candidate_key(s->pool.slots[i]);
        int duplicate = qv_is_duplicate(duplicates, key);
        if (duplicate && duplicates_left-- <= 0) continue;
        int occluded = duplicate ? 0 : is_occluded(graph, edges, n, row, key, duplicates, s);
        if (occluded < 0) return occluded;
        if (!occluded) edges[n++] = (qv_edge){row, key};
    }
    return n;
}

/* Edges that are still valid stay; removed ones are replaced by heirs, or by near neighbors of the removed rows. The list
 * of an heir, which may have few edges, is filled with the neighbors of the removed row. */
int qv_relink(const qv_graph *graph, uint32_t row, qv_scratch *s) {
    list_parts parts;
    const uint32_t *list = read_list(graph, row);
    const uint8_t *code = list ? qv_row(graph->codes, row) : NULL;
    if (!code) return QV_DAMAGED;
    int status = split_list(graph, row, list, &parts, s), size = (int)qv_list_size(list, graph->degree);
    if (status <= 0) return status;
    int least = parts.inherits ? (int)(graph->degree - graph->degree / QV_SLACK) : 0;
    int limit = (size > least ? size : least) - parts.n_tree;
    qv_query *query = (qv_query *)s->query;
    qv_prepare_row(graph->codec, code, query);
    qv_pool_reset(&s->pool, QV_REPAIR_TRIES * (limit > parts.n_kept ? limit - parts.n_kept : 1));
    status = score_kept(graph, query, parts.kept, parts.n_kept, s);
    if (!status) status = find_replacements(graph, query, &parts, s);
    if (status) return status;
    qv_duplicates duplicates = qv_duplicates_of(graph->codec, query, code);
    int duplicates_left = parts.inherits ? 0 : (int)graph->degree / 8;
    int n = fill_list(graph, parts.kept, parts.n_kept, limit, duplicates_left, &duplicates, s);
    uint32_t *own = n < 0 ? NULL : (uint32_t *)qv_row_mut(graph->adjacency, row);
    if (!own) return QV_DAMAGED;
    qv_note_change(graph, row);
    qv_write_list(own, graph->degree, parts.kept, n);
    for (int i = 0; i < parts.n_tree; i++) own[n + i] = parts.tree[i]; /* until qv_reparent_children */
    return QV_OK;
}

static void set(uint64_t *bits, uint32_t row) { bits[row >> 6] |= 1ull << (row & 63); }

/* List the subtree of a row, the row first, at most QV_SUBTREE_MAX rows. Returns the number, or an error. */
static int subtree(const qv_graph *graph, uint32_t row, uint32_t *rows) {
    int n = 1;
    rows[0] = row;
    for (int i = 0; i < n; i++) {
        const uint32_t *list = read_list(graph, rows[i]);
        if (!list) return QV_DAMAGED;
        for (uint32_t j = 0; j < graph->degree && list[j] != QV_NO_ROW && n < QV_SUBTREE_MAX; j++)
            if (list[j] & QV_TREE) rows[n++] = list[j] & QV_ROW_MASK;
    }
    return n;
}

/* Reattach an orphan to a near neighbor, as a new row. If its subtree is too large to prove that the neighbor is not a
 * descendant, use `parent`. excluded: n bits, all clear. */
static int reattach_subtree(const qv_graph *graph, uint32_t row, uint32_t parent, uint64_t *excluded) {
    uint32_t below[QV_SUBTREE_MAX];
    int n = subtree(graph, row, below);
    if (n < 0) return n;
    if (n == QV_SUBTREE_MAX) return qv_attach_below(graph, parent, row);
    for (int i = 0; i < n; i++) set(excluded, below[i]);
    int status = qv_link_tree(graph, row, parent, excluded);
    for (int i = 0; i < n; i++) excluded[below[i] >> 6] &= ~(1ull << (below[i] & 63));
    return status;
}

/* Remove a row, and the removed rows below it, from the tree and reattach their children, at worst below `parent`. If
 * parent is QV_NO_ROW, the first child becomes the parent. Returns the parent, or an error. */
static int64_t detach_subtree(const qv_graph *graph, uint32_t removing, uint32_t parent,
                              const qv_detach_buffers *buffers) {
    uint32_t size = 0, *stack = buffers->stack;
    uint64_t *detached = buffers->detached;
    set(detached, removing);
    stack[size++] = removing;
    while (size) {
        const uint32_t *list = read_list(graph, stack[--size]);
        if (!list) return QV_DAMAGED;
        for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++) {
            uint32_t row = list[i] & QV_ROW_MASK;
            if (!(list[i] & QV_TREE) || row >= graph->n) continue;
            if (qv_is_set(graph->removing, row)) {
                if (qv_is_set(detached, row)) continue;
                set(detached, row);
                stack[size++] = row;
            } else if (parent == QV_NO_ROW) {
                parent = row;
            } else if (reattach_subtree(graph, row, parent, buffers->excluded)) {
                return QV_DAMAGED;
            }
        }
    }
    return parent;
}

/* Drop removed rows from a list; those with a tree edge go to `tree`. Returns their number, or an error. */
static int unlink_removing(const qv_graph *graph, uint32_t row, uint32_t *tree) {
    uint32_t *list = (uint32_t *)qv_row_mut(graph->adjacency, row), kept = 0;
    if (!list) return QV_DAMAGED;
    qv_note_change(graph, row);
    int n_tree = 0;
    for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++) {
        uint32_t neighbor = list[i] & QV_ROW_MASK;
        if (neighbor >= graph->n || !qv_is_set(graph->removing, neighbor)) list[kept++] = list[i];
        else if (list[i] & QV_TREE) tree[n_tree++] = neighbor;
    }
    for (; kept < graph->degree; kept++) list[kept] = QV_NO_ROW;
    return n_tree;
}

int qv_reparent_children(const qv_graph *graph, uint32_t row, const qv_detach_buffers *buffers) {
    uint32_t tree[QV_DEGREE_MAX];
    const uint32_t *list = read_list(graph, row);
    int touched = 0;
    if (!list) return QV_DAMAGED;
    for (uint32_t i = 0; i < graph->degree && list[i] != QV_NO_ROW; i++)
        touched |= (list[i] & QV_ROW_MASK) < graph->n && qv_is_set(graph->removing, list[i] & QV_ROW_MASK);
    if (!touched) return QV_OK;
    int n = unlink_removing(graph, row, tree);
    for (int i = 0; i < n; i++)
        if (!qv_is_set(buffers->detached, tree[i]) && detach_subtree(graph, tree[i], row, buffers) < 0)
            return QV_DAMAGED;
    return n < 0 ? n : QV_OK;
}

int64_t qv_replace_root(const qv_graph *graph, const qv_detach_buffers *buffers) {
    return qv_is_set(graph->removing, graph->root) ? detach_subtree(graph, graph->root, QV_NO_ROW, buffers)
                                                   : graph->root;
}
