/* Construction of a graph of many rows at once, by partitions instead of searches (PiPNN, arXiv:2602.21247).
 *
 *   1. qv_partition_assign   each row goes to the clusters of its nearest leaders          parallel over blocks of rows
 *      qv_partition_group    rows are numbered by cluster; from here on, places             once
 *   2. qv_partition_cluster  each cluster is divided again into leaves of about 240 places; parallel over clusters
 *                            all pairs of a leaf are scored, and the nearest of each place
 *                            go to its reservoir, and it to theirs
 *   3. qv_partition_prune    the nearest candidates of each place are pruned to a list      parallel over parts of places
 *      qv_partition_reverse  edges are grouped by target                                    once
 *   4. qv_partition_write    lists and reverse edges, pruned, are stored as lists of rows   parallel over parts of places
 *   5. qv_partition_tree     a breadth-first search marks the tree edges                    once
 *
 * Nothing depends on the threads: a reservoir is a set, the nearest candidates by (key, place) of all that it was given. */
#ifndef QV_PARTITION_H
#define QV_PARTITION_H

#include "graph/edges.h"
#include "graph/tile.h"

#define QV_ASSIGN_ROWS 1536 /* rows or places of a unit of work */
#define QV_PRUNE_ROWS 512
#define QV_CANDIDATES 40 /* of a row that are pruned */
#define QV_RESERVOIR 48  /* places of a reservoir: the farthest are dropped when it is full */
#define QV_FANOUT_MAX 16

typedef struct {
    int32_t bound; /* keys above it cannot be among the nearest */
    uint16_t n;
    uint8_t lock, unused;
    int32_t key[QV_RESERVOIR];
    uint32_t place[QV_RESERVOIR]; /* QV_NO_ROW from n on */
} qv_reservoir;

typedef struct {
    int fanout;      /* clusters that a row belongs to */
    int leaf_fanout; /* leaves of a cluster that a row of it belongs to */
    int nearest;     /* rows of a leaf that each of its rows gives to its reservoir */
    uint32_t n_leaders;
    uint64_t seed;
} qv_partition_options;

typedef struct {
    const qv_graph *graph; /* codes of kind INT8 with a scale for each row, under l2 or cosine */
    const qv_tile_kernels *kernels;
    qv_partition_options options;
    uint32_t n;
    uint32_t *rows;  /* [n] row of each place */
    uint32_t *owner; /* [n][fanout] clusters of each row, nearest first */
    qv_tile_set leaders;
    void *leader_memory;
    uint64_t *first;           /* [n_leaders + 1] where the members of a cluster begin */
    uint32_t *members;         /* places, ascending in each cluster */
    uint32_t *largest;         /* [n_leaders] clusters by their sizes, descending */
    uint32_t n_parts;          /* of QV_PRUNE_ROWS places */
    uint32_t n_in_memory;      /* the other parts, from this one on, are in `spill` */
    uint8_t *spill;            /* qv_part_bytes for each of them */
    qv_reservoir **reservoirs; /* [n_parts]; NULL: not used yet, or pruned */
    uint32_t **lists;          /* [n_parts] degree rows for each place, after pruning */
    uint64_t *reverse_first;   /* [n + 1] where the reverse edges to a place begin */
    uint32_t *reverse;         /* rows */
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

/* Initialize for n rows, at least 2, whose array is kept and permuted. Choose the leaders. Returns QV_OK or an error. */
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

/* Hang rows with equal codes below the one of them that took part: a few in its list, the others in theirs. */
int qv_hang_duplicates(const qv_graph *graph, uint32_t row, const uint32_t *duplicates, uint32_t n);

/* Mark tree edges from the root on, in a breadth-first order, and attach the rows that are not reached. waiting: bitmap
 * of the rows of the graph; queue: one place for each row. */
int qv_partition_tree(const qv_graph *graph, const uint32_t *rows, uint32_t n, uint64_t *waiting, uint32_t *queue);

/* For each of n rows, the index of the first with an equal code, which may be its own. Returns QV_OK or an error. */
int qv_first_equals(const qv_codec *codec, qv_column *codes, const uint32_t *rows, uint32_t n, uint32_t *first);

#endif
