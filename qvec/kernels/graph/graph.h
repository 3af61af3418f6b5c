/* Search and construction of a graph over columns of codes. */
#ifndef QV_GRAPH_H
#define QV_GRAPH_H

#include "search/search.h"
#include "codec/simd.h"

#define QV_NO_ROW 0xFFFFFFFFu /* an empty slot of a neighbor list; empty slots come last */
#define QV_ROW_MASK 0x7FFFFFFFu
#define QV_TREE 0x80000000u /* tree edge: keeps its target reachable, is never pruned */
#define QV_DEGREE_MAX 128

typedef struct {
    qv_codec *codec;
    qv_column *codes, *adjacency;
    uint32_t n;      /* rows in lists are below */
    uint32_t degree; /* slots of a list */
    const uint32_t *entries;
    uint32_t n_entries;
    uint32_t root;            /* of the spanning tree; always an entry */
    float alpha;              /* pruning: neighbor s occludes e if alpha * d(s,e) <= d(u,e), squared distances */
    float fill;               /* occluded edges, nearest first, fill a list up to this fraction */
    const uint64_t *deleted;  /* bitmap of rows that get no new edges, or NULL */
    const uint64_t *removing; /* bitmap of rows that a repair takes out, or NULL */
    const uint64_t *repeats;  /* bitmap of rows that walks skip, because other rows have equal codes; or NULL */
    int distinct;             /* whether walks skip a row if the pool has one with an equal code */
    uint32_t *heirs;          /* [n] heirs of removed rows that are known (heir.c), 0 elsewhere; or NULL */
    uint8_t *changed;         /* [n] set to 1 for rows whose list changes, or NULL */
} qv_graph;

/* Prefetch the lists of the two nearest open candidates: one of them is usually expanded next. */
static inline void qv_fetch_lists(qv_column *adjacency, const qv_pool *pool) {
    for (int i = pool->cursor; i < pool->size && i < pool->cursor + 2; i++) {
        const uint8_t *list = qv_row(adjacency, qv_candidate_row(pool->slots[i]));
        if (list) qv_prefetch_row(list, adjacency->stride);
    }
}

/* Whether two codes are equal. Under cosine, the data say the direction; a scale differs in its last bits with the length
 * of the vector. */
static inline size_t qv_compared_bytes(const qv_codec *codec) {
    return (size_t)codec->data_size + (codec->metric == QV_COSINE || !codec->has_factors ? 0 : sizeof(qv_factors));
}

static inline int qv_equal_codes(const qv_codec *codec, const uint8_t *a, const uint8_t *b) {
    return memcmp(a, b, qv_compared_bytes(codec)) == 0;
}

/* Best-first search with a pool of ef candidates; the pool then contains the nearest rows found, sorted. */
int qv_walk(const qv_graph *graph, const qv_query *query, int ef, qv_scratch *s);

/* Best-first search among rows that are not excluded. The pool may also contain excluded start rows. */
int qv_walk_filtered(const qv_graph *graph, const qv_query *query, const qv_selection *selection, int ef,
                     qv_scratch *s);

/* The `find` function of a qv_finder whose index is a qv_graph: qv_walk or qv_walk_filtered. */
int qv_walk_find(const void *graph, const qv_search_params *params, const float *original, const float *transformed,
                 qv_scratch *s);

/* --- construction --- */

typedef struct {
    uint32_t row, target;
    float key;
} qv_link;

/* Find the out-edges of one new row, whose code is stored: search the graph, score the other rows of the batch, prune, and
 * write the list. `links` [degree] receives the edges, for which reverse edges are made later. Returns their number, or an
 * error. The row's list must be private (qv_row_mut). With graph->distinct, the rows of the batch must have different
 * codes. If the search then finds a row with an equal code, `equal` receives it, and the list stays empty. */
int qv_link_out(const qv_graph *graph, uint32_t row, const uint32_t *batch, uint32_t n_batch, int ef, qv_scratch *s,
                qv_link *links, uint32_t *equal);

/* Collect those edges of a linked row that lead to rows first..stop - 1 and have no reverse edge yet; at most `degree`.
 * Returns their number, or an error. */
int qv_pending_links(const qv_graph *graph, uint32_t row, uint32_t first, uint32_t stop, qv_scratch *s, qv_link *links);

/* Add n reverse edges to the list of one target, except those that it has already. If they do not fit, prune the list. */
int qv_link_in(const qv_graph *graph, const qv_link *links, int n, qv_scratch *s);

/* Add a tree edge to a row: from one of its neighbors that is not excluded, or from a row below the nearest of these. If
 * all neighbors are excluded, from `fallback` or a row below it. */
int qv_link_tree(const qv_graph *graph, uint32_t row, uint32_t fallback, const uint64_t *excluded);

/* Attach a new row below a row with an equal code, or below the row that this one is attached to. The new row gets
 * edges to the neighbors of that row, and a tree edge from it, or from another row that is attached below it when
 * these fill an eighth of its list. */
int qv_link_duplicate(const qv_graph *graph, uint32_t row, uint32_t first);

/* --- repair (repair.c) --- */

#define QV_REPAIR_TRIES 8 /* candidates for each place in a list */
#define QV_REPAIR_POOL (QV_REPAIR_TRIES * QV_DEGREE_MAX)

/* The heir of a removed row: the first row with an equal code below it in the tree that is not deleted. It takes the
 * place of the removed row, to which other rows with this code are attached. QV_NO_ROW: none; or an error. */
int64_t qv_heir_of(const qv_graph *graph, uint32_t removed);

/* Replace removed rows in a list by their heirs, or by near neighbors. The scratch's pool must fit QV_REPAIR_POOL candidates. */
int qv_relink(const qv_graph *graph, uint32_t row, qv_scratch *s);

/* Buffers for removing rows from the tree. */
typedef struct {
    uint64_t *detached; /* [n bits] removed rows that are already out of the tree */
    uint64_t *excluded; /* [n bits] clear between calls */
    uint32_t *stack;    /* one place for each removed row */
} qv_detach_buffers;

/* Remove deleted rows from a list. If a tree edge of the list led to one, attach its children to other rows. */
int qv_reparent_children(const qv_graph *graph, uint32_t row, const qv_detach_buffers *buffers);

/* Return the root, or the row that replaces a removed one; QV_NO_ROW if all linked rows are removed; or an error. */
int64_t qv_replace_root(const qv_graph *graph, const qv_detach_buffers *buffers);

/* Mark in `reached` (n bits) the rows that are reachable from the root and the entries; with tree_only, from the
 * root by tree edges. Returns their number, or an error. */
int64_t qv_reachable(const qv_graph *graph, int tree_only, uint64_t *reached, uint32_t *queue);

#endif
