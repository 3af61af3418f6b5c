/* Graph walk and graph construction over columns of codes. */
#ifndef QV_GRAPH_H
#define QV_GRAPH_H

#include "find.h"

#define QV_NO_ROW 0xFFFFFFFFu   /* an empty slot of a neighbour list; empty slots come last */
#define QV_ROW_MASK 0x7FFFFFFFu
#define QV_TREE 0x80000000u     /* this edge keeps its target reachable and is never pruned */
#define QV_DEGREE_MAX 128

typedef struct {
    qv_codec *codec;
    qv_column *codes, *adjacency;
    uint32_t n;        /* rows that are linked: every id in a list is below */
    uint32_t degree;   /* slots of a list */
    const uint32_t *entries;
    uint32_t n_entries;
    float alpha;       /* pruning: a kept neighbour s hides e where alpha * d(s,e) <= d(u,e), squared distances */
} qv_graph;

/* Best-first walk with a pool of ef; the pool holds the nearest rows found, sorted. */
int qv_walk(const qv_graph *graph, const qv_query *query, int ef, qv_scratch *s);

/* The same as the `find` of a qv_finder whose index is a qv_graph. */
int qv_walk_find(const void *graph, const qv_search_params *params, const float *transformed, qv_scratch *s);

/* --- construction --- */

typedef struct {
    uint32_t row, target;
    float key;
} qv_link;

/* Out-links of one new row (already stored in codes): search, look at the other rows of its batch [graph->n,
 * graph->n + batch), prune, write its list; the links that want a reverse edge go to `links` [degree]. Returns how
 * many, or an error. The row's list must be private (qv_row_mut). */
int qv_link_out(const qv_graph *graph, uint32_t row, uint32_t batch, int ef, qv_scratch *s, qv_link *links);

/* Reverse edges of one target, n links with the same target: append, or prune when its list is full. */
int qv_link_in(const qv_graph *graph, const qv_link *links, int n, qv_scratch *s);

/* Give a new row its tree edge from one of its neighbours, or from below them; the row that holds it, or an error. */
int64_t qv_link_tree(const qv_graph *graph, uint32_t row);

/* Rows that no walk from the entries reaches are left unmarked in `reached` (n bits); the count of reached rows. */
int64_t qv_reach(const qv_graph *graph, uint64_t *reached, uint32_t *queue);

#endif
