/* Construction of a graph of many rows at once, from partitions instead of searches (PiPNN, arXiv:2602.21247).
 *
 * Randomly chosen rows are the leaders of clusters. A place is the number of a row in an order in which rows with the
 * same nearest leader follow each other, so that rows that are scored together are near in memory. The reservoir of a
 * row is the set of its nearest candidates. The steps:
 *
 *   1. qv_partition_assign   find the clusters of each row: those of its nearest leaders   parallel over blocks of rows
 *      qv_partition_group    number the rows by cluster: these numbers are the places       once
 *   2. qv_partition_cluster  divide a cluster into leaves of about 240 rows. In each leaf,  parallel over clusters
 *                            score all pairs; each row and its nearest rows become
 *                            candidates of each other, in their reservoirs
 *   3. qv_partition_prune    prune the candidates of each row to a list                     parallel over parts of places
 *      qv_partition_reverse  group all edges by target                                      once
 *   4. qv_partition_write    join each list with its reverse edges, prune it if it is too   parallel over parts of places
 *                            long, and store it
 *   5. qv_partition_tree     mark the tree edges in a breadth-first search                  once
 *
 * The result does not depend on the threads: a reservoir keeps the nearest, by (key, place), of all candidates that it
 * was given, in whatever order they came. */
#ifndef QV_PARTITION_H
#define QV_PARTITION_H

#include "graph/edges.h"
#include "graph/tile.h"

#define QV_ASSIGN_ROWS 1536 /* rows or places of a unit of work */
#define QV_PRUNE_ROWS 512
#define QV_CANDIDATES 48 /* nearest candidates of a row, which are pruned to its list */
#define QV_RESERVOIR 64  /* slots of a reservoir: a full one is reduced to QV_CANDIDATES */
#define QV_FANOUT_MAX 16

typedef struct {
    int32_t bound; /* candidates with larger keys are refused */
    uint16_t n;
    uint8_t lock, unused;
    int32_t key[QV_RESERVOIR];
    uint32_t place[QV_RESERVOIR]; /* of the candidates; QV_NO_ROW from n on */
} qv_reservoir;

typedef struct {
    int fanout;      /* number of clusters that a row belongs to */
    int leaf_fanout; /* number of leaves of a cluster that each of its rows belongs to */
    int nearest;     /* number of candidates that a row gets from a leaf */
    uint32_t n_leaders;
    uint64_t seed;
} qv_partition_options;

typedef struct {
    const qv_graph *graph; /* codes of kind INT8 with a scale for each row, under l2 or cosine */
    const qv_tile_kernels *kernels;
    qv_partition_options options;
    uint32_t n;
    uint32_t *rows;         /* [n] row of each place */
    uint32_t *row_clusters; /* [n][fanout] clusters of each row, nearest first */
    qv_tile_set leaders;
    void *leader_memory;
    uint64_t *first;           /* [n_leaders + 1] where the members of a cluster begin */
    uint32_t *members;         /* places, ascending in each cluster */
    uint32_t *largest;         /* [n_leaders] clusters, the largest first */
    uint32_t n_parts;          /* of QV_PRUNE_ROWS places */
    uint32_t n_in_memory;      /* parts before this one are in memory, the others in `spill` */
    uint8_t *spill;            /* qv_part_bytes for each of them */
    qv_reservoir **reservoirs; /* [n_parts]; NULL before a part has candidates, and after it is pruned */
    uint32_t **lists;          /* [n_parts] of pruned parts: `degree` rows for each place */
    uint64_t *reverse_first;   /* [n + 1] where the edges to a place begin in `reverse` */
    uint32_t *reverse;         /* rows that have an edge to a place, place by place */
} qv_partition;

/* Buffers of one thread. */
typedef struct {
    void *memory;
    size_t bytes;
    qv_scratch *scratch;
} qv_partition_buffers;

/* Bytes of the reservoirs and lists of a part. */
static inline size_t qv_part_bytes(const qv_partition *p) {
    return QV_PRUNE_ROWS * (sizeof(qv_reservoir) + (size_t)p->graph->degree * sizeof(uint32_t));
}

/* Sort edges by key and row. */
void qv_sort_edges(qv_edge *edges, int n);

/* Initialize a build of n rows, at least 2, and choose the leaders. `rows` is borrowed and reordered. Returns QV_OK or
 * an error. */
int qv_partition_init(qv_partition *p, const qv_graph *graph, uint32_t *rows, uint32_t n,
                      const qv_partition_options *options);
void qv_partition_free(qv_partition *p);

/* Keep the first n_in_memory parts in memory, and the others in a given buffer. */
void qv_partition_spill(qv_partition *p, uint32_t n_in_memory, uint8_t *spill);

int qv_partition_assign(qv_partition *p, uint32_t unit, qv_partition_buffers *buffers);
int qv_partition_group(qv_partition *p);
int qv_partition_cluster(qv_partition *p, uint32_t unit, qv_partition_buffers *buffers);
int qv_partition_prune(qv_partition *p, uint32_t part, qv_partition_buffers *buffers);
int qv_partition_reverse(qv_partition *p);
int qv_partition_write(qv_partition *p, uint32_t part, qv_partition_buffers *buffers);

/* Attach duplicates, in the spanning tree, below the linked row that has the same code: a few of them to the row, the
 * others to duplicates. */
int qv_attach_duplicates(const qv_graph *graph, uint32_t row, const uint32_t *duplicates, uint32_t n);

/* Mark the edges of a spanning tree: those by which a breadth-first search from the root first reaches each row. Attach
 * the rows that it does not reach. waiting: bitmap of all rows of the graph; queue: room for all of them. */
int qv_partition_tree(const qv_graph *graph, const uint32_t *rows, uint32_t n, uint64_t *waiting, uint32_t *queue);

/* For each of n rows, find the index of the first one with an equal code, which may be the row itself. Returns QV_OK or
 * an error. */
int qv_first_equals(const qv_codec *codec, qv_column *codes, const uint32_t *rows, uint32_t n, uint32_t *first);

#endif
