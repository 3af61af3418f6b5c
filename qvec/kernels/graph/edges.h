/* Functions for graph construction and repair: edges with keys, pruning, and the spanning tree. */
#ifndef QV_EDGES_H
#define QV_EDGES_H

#include <math.h>
#include <stdlib.h>

#include "graph/graph.h"

#define QV_PRUNE_MAX 512 /* candidates that are tried */
#define QV_SLACK 8       /* a full list is pruned to leave 1/8 of its slots free for later reverse edges */
#define QV_DUPLICATE_SLACK \
    1e-6f /* tolerance for the keys of equal vectors, relative to the larger of |x|^2 and a node's key to itself */

typedef struct {
    uint32_t row; /* with QV_TREE if it is a tree edge */
    float key;
} qv_edge;

/* The key that duplicates of a node have: the node's key to itself, within a tolerance. */
typedef struct {
    float key, slack;
} qv_duplicates;

static inline qv_duplicates qv_duplicates_of(const qv_codec *codec, const qv_query *query, const uint8_t *code) {
    qv_duplicates duplicates;
    codec->score(codec, query, &code, 1, &duplicates.key);
    duplicates.slack = QV_DUPLICATE_SLACK * fmaxf(fabsf(duplicates.key), query->bias);
    return duplicates;
}

static inline int qv_is_duplicate(const qv_duplicates *duplicates, float key) {
    return fabsf(key - duplicates->key) <= duplicates->slack;
}

static inline int qv_by_key(const void *a, const void *b) {
    const qv_edge *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    uint32_t i = x->row & QV_ROW_MASK, j = y->row & QV_ROW_MASK;
    return i < j ? -1 : i > j;
}

static inline int qv_is_set(const uint64_t *bits, uint32_t row) { return bits && bits[row >> 6] >> (row & 63) & 1; }

/* Record that a row's list changed. Thread-safe for different rows. */
static inline void qv_note_change(const qv_graph *graph, uint32_t row) {
    if (graph->changed) graph->changed[row] = 1;
}

static inline uint32_t qv_list_size(const uint32_t *list, uint32_t degree) {
    uint32_t n = 0;
    while (n < degree && list[n] != QV_NO_ROW) n++;
    return n;
}

static inline void qv_write_list(uint32_t *list, uint32_t degree, const qv_edge *edges, int n) {
    for (int i = 0; i < n; i++) list[i] = edges[i].row;
    for (uint32_t i = (uint32_t)n; i < degree; i++) list[i] = QV_NO_ROW;
}

/* Prune n edges, sorted by key, to a diverse subset of at most `limit`. Tree edges always stay. Returns the number of
 * edges left, or an error. */
int qv_prune(const qv_graph *graph, qv_edge *edges, int n, int limit, const qv_duplicates *duplicates, qv_scratch *s);

/* Give a row a tree edge from `parent`, or from a descendant of it with a free slot. */
int qv_attach_below(const qv_graph *graph, uint32_t parent, uint32_t row);

#endif
