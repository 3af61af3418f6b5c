/* Graph walk and graph construction over columns of codes. */
#ifndef QV_GRAPH_H
#define QV_GRAPH_H

#include "search/search.h"
#include "codec/simd.h"

#define QV_NO_ROW 0xFFFFFFFFu /* an empty slot of a neighbor list; empty slots come last */
#define QV_ROW_MASK 0x7FFFFFFFu
#define QV_TREE 0x80000000u /* this edge keeps its target reachable and is never pruned */
#define QV_DEGREE_MAX 128

typedef struct {
    qv_codec *codec;
    qv_column *codes, *adjacency;
    uint32_t n;      /* every id in a list is below */
    uint32_t degree; /* slots of a list */
    const uint32_t *entries;
    uint32_t n_entries;
    uint32_t root; /* of the tree of pinned edges; always an entry */
    float alpha;   /* pruning: a kept neighbor s hides e where alpha * d(s,e) <= d(u,e), squared distances */
    float fill;    /* up to this share of what a list may hold, the nearest that others hide are kept as well */
    const uint64_t *deleted;  /* bitmap of rows that get no new edges; NULL: none */
    const uint64_t *removing; /* bitmap of rows that are leaving the graph; NULL: none */
    uint8_t *changed;         /* [n] set to 1 for rows whose list changes; NULL: nobody asks */
} qv_graph;

/* The lists of the nearest open candidates, one of which is next unless this hop finds a nearer one. */
static inline void qv_fetch_lists(qv_column *adjacency, const qv_pool *pool) {
    for (int i = pool->cursor; i < pool->size && i < pool->cursor + 2; i++) {
        const uint8_t *list = qv_row(adjacency, qv_candidate_row(pool->slots[i]));
        if (list) qv_prefetch_row(list, adjacency->stride);
    }
}

/* Best-first walk with a pool of ef; the pool holds the nearest rows found, sorted. */
int qv_walk(const qv_graph *graph, const qv_query *query, int ef, qv_scratch *s);

/* The same among rows that are not excluded: only the rows it starts from are in the pool besides. */
int qv_walk_filtered(const qv_graph *graph, const qv_query *query, const qv_selection *selection, int ef,
                     qv_scratch *s);

/* Either, as the `find` of a qv_finder whose index is a qv_graph. */
int qv_walk_find(const void *graph, const qv_search_params *params, const float *original, const float *transformed,
                 qv_scratch *s);

/* --- construction --- */

typedef struct {
    uint32_t row, target;
    float key;
} qv_link;

/* Out-links of one new row (already stored in codes): search, look at the other rows of its batch, prune, write its
 * list; the links that want a reverse edge go to `links` [degree]. Returns how many, or an error. The row's list must
 * be private (qv_row_mut). */
int qv_link_out(const qv_graph *graph, uint32_t row, const uint32_t *batch, uint32_t n_batch, int ef, qv_scratch *s,
                qv_link *links);

/* Edges of a linked row to the rows first..stop that no edge of the other row answers, as links; how many (`degree` at
 * most), or an error. */
int qv_pending_links(const qv_graph *graph, uint32_t row, uint32_t first, uint32_t stop, qv_scratch *s, qv_link *links);

/* Reverse edges of one target, n links with the same target: append, or prune when its list is full. */
int qv_link_in(const qv_graph *graph, const qv_link *links, int n, qv_scratch *s);

/* Give a row a tree edge: from one of its neighbors or from below the nearest, but not from a row that is `barred`; where
 * all are, from below `otherwise`. */
int qv_link_tree(const qv_graph *graph, uint32_t row, uint32_t fallback, const uint64_t *excluded);

/* --- repair: rows that are condemned leave (mend.c) --- */

#define QV_REPAIR_TRIES 8 /* rows that are tried for each place in a list */
#define QV_REPAIR_POOL (QV_REPAIR_TRIES * QV_DEGREE_MAX)

/* Give the places that condemned rows have in a list to others. The scratch's pool must have room for QV_REPAIR_POOL. */
int qv_relink(const qv_graph *graph, uint32_t row, qv_scratch *s);

/* What taking the tree apart needs. */
typedef struct {
    uint64_t *detached; /* [n bits] condemned rows that have left the tree */
    uint64_t *excluded; /* [n bits] clear between calls */
    uint32_t *stack;    /* room for all condemned rows */
} qv_detach_buffers;

/* Take condemned rows out of a list, and hang again what hung below those that were pinned. */
int qv_reparent_children(const qv_graph *graph, uint32_t row, const qv_detach_buffers *buffers);

/* The row that a condemned root hands the tree to, QV_NO_ROW where all that is linked is condemned; or an error. */
int64_t qv_replace_root(const qv_graph *graph, const qv_detach_buffers *buffers);

/* Mark in `reached` (n bits) the rows that edges lead to from the root, or from all entries; the count of them, or an
 * error. pinned_only: by edges of the tree alone, from the root. */
int64_t qv_reachable(const qv_graph *graph, int tree_only, uint64_t *reached, uint32_t *queue);

#endif
