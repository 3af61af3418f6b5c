/* Graph walk, flat scan, re-rank and graph construction over columns of codes. */
#ifndef QV_GRAPH_H
#define QV_GRAPH_H

#include "codec.h"
#include "column.h"
#include "pool.h"

#define QV_NO_ROW 0xFFFFFFFFu   /* an empty slot of a neighbour list; empty slots come last */
#define QV_ROW_MASK 0x7FFFFFFFu
#define QV_TREE 0x80000000u     /* this edge keeps its target reachable and is never pruned */
#define QV_DEGREE_MAX 128
#define QV_HOP_MAX 128          /* rows scored in one call */

enum { QV_OK = 0, QV_DAMAGED = -1, QV_NO_MEMORY = -2 };

typedef struct {
    qv_codec *codec;
    qv_column *codes, *adjacency;
    uint32_t n;        /* rows that are linked: every id in a list is below */
    uint32_t degree;   /* slots of a list */
    const uint32_t *entries;
    uint32_t n_entries;
    float alpha;       /* pruning: a kept neighbour s hides e where alpha * d(s,e) <= d(u,e), squared distances */
} qv_graph;

/* Buffers of one thread, grown to the largest query seen. */
typedef struct {
    qv_pool pool;
    qv_visited visited;
    int pool_room;
    uint32_t rows_room;
    uint8_t *query, *other; /* prepared queries: the walk's, and the re-rank's or the pruned node's */
    size_t query_room;
    const uint8_t *address[2][QV_HOP_MAX];
    uint32_t row[2][QV_HOP_MAX];
    float key[QV_HOP_MAX];
    uint64_t hops, evaluations;
} qv_scratch;

int qv_scratch_reserve(qv_scratch *s, int pool, uint32_t rows, size_t query_size);
void qv_scratch_free(qv_scratch *s);

/* Score n rows at s->row[stage], s->address[stage] and put those below the pool's bound into it; the lists of those
 * that will soon be expanded are fetched (adjacency NULL: there are none). */
void qv_score_staged(const qv_codec *codec, qv_column *adjacency, const qv_query *query, int stage, int n, qv_scratch *s);

/* Best-first walk with a pool of ef; the pool holds the nearest rows found, sorted. */
int qv_walk(const qv_graph *graph, const qv_query *query, int ef, qv_scratch *s);

/* Scan rows [0, n) that are not excluded; the pool holds the nearest `keep`. */
int qv_scan(const qv_codec *codec, qv_column *codes, uint32_t n, const uint64_t *excluded,
            const qv_query *query, int keep, qv_scratch *s);

/* What a query runs against. */
typedef struct {
    qv_graph graph;           /* graph.adjacency NULL: flat */
    qv_codec *rerank;         /* NULL: keys of the codes are the result */
    qv_column *vectors, *ids; /* ids NULL: rows are the result */
    const uint64_t *excluded; /* bit set: never a result; NULL: none */
    uint32_t n_live;
} qv_searcher;

typedef struct {
    int k, ef, candidates; /* candidates: how many of the pool are re-ranked */
    int exact;             /* scan the originals instead */
} qv_search_params;

/* One query: k ids and distances, padded with -1 and +inf; the count, or an error below zero. */
int qv_search(qv_searcher *searcher, const qv_search_params *params, const float *original, const float *transformed,
              qv_scratch *s, int64_t *ids, float *distances);

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

/* Give a new row its tree edge from one of its neighbours, or from below them. */
int qv_link_tree(const qv_graph *graph, uint32_t row);

/* Rows that no walk from the entries reaches are left unmarked in `reached` (n bits); the count of reached rows. */
int64_t qv_reach(const qv_graph *graph, uint64_t *reached, uint32_t *queue);

#endif
