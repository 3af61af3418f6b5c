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
    int distinct;             /* whether walks skip rows with the code of another row in the pool */
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

/* qv_walk or qv_walk_filtered, as the `find` of a qv_finder whose index is a qv_graph. */
int qv_walk_find(const void *graph, const qv_search_params *params, const float *original, const float *transformed,
                 qv_scratch *s);

/* --- construction --- */

typedef struct {
    uint32_t row, target;
    float key;
} qv_link;

/* Find the out-edges of one new row, whose code is stored: search, score the other rows of the batch, prune, write
 * the list. The edges go to `links` [degree] as candidates for reverse edges. Returns their number, or an error. The
 * row's list must be private (qv_row_mut). With graph->distinct, rows of the batch have different codes; if the search
 * meets a row with an equal code, that goes to `equal`, and the list stays empty. */
int qv_link_out(const qv_graph *graph, uint32_t row, const uint32_t *batch, uint32_t n_batch, int ef, qv_scratch *s,
                qv_link *links, uint32_t *equal);

/* Collect the edges of a linked row to rows first..stop - 1 that have no reverse edge yet, as links (at most
 * `degree`). Returns their number, or an error. */
int qv_pending_links(const qv_graph *graph, uint32_t row, uint32_t first, uint32_t stop, qv_scratch *s, qv_link *links);

/* Add n reverse edges to one target: append them, or prune if the list is full. */
int qv_link_in(const qv_graph *graph, const qv_link *links, int n, qv_scratch *s);

/* Give a row a tree edge from one of its neighbors, or from below the nearest one, but not from `excluded` rows. If
 * all neighbors are excluded, from below `fallback`. */
int qv_link_tree(const qv_graph *graph, uint32_t row, uint32_t fallback, const uint64_t *excluded);

/* Attach a new row below a linked row with an equal code: the row gets edges to the neighbors of that row, and a tree
 * edge from it, or from another row that is attached below it when these fill an eighth of its list. */
int qv_link_duplicate(const qv_graph *graph, uint32_t row, uint32_t first);

/* --- repair (repair.c) --- */

#define QV_REPAIR_TRIES 8 /* candidates for each place in a list */
#define QV_REPAIR_POOL (QV_REPAIR_TRIES * QV_DEGREE_MAX)

/* Replace removed rows in a list by near neighbors. The scratch's pool must fit QV_REPAIR_POOL candidates. */
int qv_relink(const qv_graph *graph, uint32_t row, qv_scratch *s);

/* Buffers for removing rows from the tree. */
typedef struct {
    uint64_t *detached; /* [n bits] removed rows that are already out of the tree */
    uint64_t *excluded; /* [n bits] clear between calls */
    uint32_t *stack;    /* one place for each removed row */
} qv_detach_buffers;

/* Drop removed rows from a list and reattach the children of those that had a tree edge from the list. */
int qv_reparent_children(const qv_graph *graph, uint32_t row, const qv_detach_buffers *buffers);

/* Return the root, or the row that replaces a removed one; QV_NO_ROW if all linked rows are removed; or an error. */
int64_t qv_replace_root(const qv_graph *graph, const qv_detach_buffers *buffers);

/* Mark in `reached` (n bits) the rows that are reachable from the root and the entries; with tree_only, from the
 * root by tree edges. Returns their number, or an error. */
int64_t qv_reachable(const qv_graph *graph, int tree_only, uint64_t *reached, uint32_t *queue);

#endif
