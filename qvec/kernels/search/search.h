/* Searching: buffers, parameters, the interface of an index (qv_finder), the scan, and the steps of a query. */
#ifndef QV_FIND_H
#define QV_FIND_H

#include "codec/codec.h"
#include "column/column.h"
#include "search/pool.h"
#include "system/system.h"

#define QV_HOP_MAX 128 /* rows scored in one call */
#define QV_TILE 8      /* queries of a batch that share a scan */

enum { QV_OK = 0, QV_RANKED = 1, QV_TOO_FEW = 2, QV_DAMAGED = -1, QV_NO_MEMORY = -2, QV_LATE = -3 };
enum { QV_PREPARE, QV_FIND, QV_RERANK, QV_WRITE, QV_PHASES }; /* of a search */

/* Buffers of one thread, grown to the largest query seen. */
typedef struct {
    qv_pool pool;
    qv_visited visited;
    int pool_capacity;
    uint32_t rows_capacity;
    uint8_t *query,
        *other; /* queries prepared for the codes; for the originals, or for the node that is being pruned */
    size_t query_capacity;
    float *mapped; /* the query transformed for the codes */
    size_t mapped_capacity;
    uint8_t *index_buffer; /* buffer of the index: qv_scratch_bytes */
    size_t index_buffer_bytes;
    qv_pool tile[QV_TILE]; /* a scan for several queries at once: their candidate lists, in memory of tile[0].slots, */
    uint8_t *tile_queries; /* and the queries, prepared, tile_query_size bytes apart */
    size_t tile_query_size;
    int tile_capacity;
    const uint8_t *address[2][QV_HOP_MAX];
    uint32_t row[2][QV_HOP_MAX], kept[QV_HOP_MAX];
    float key[QV_HOP_MAX];
    uint64_t hops, evaluations, reranked;
    uint64_t phase_ns[QV_PHASES], phase_began; /* if the searcher is timed */
    uint64_t deadline;                         /* of the search, in nanoseconds of qv_now; 0: none */
    size_t unchecked;                          /* bytes that were read since the clock was last read */
    uint64_t *later;                           /* candidates that wait for their originals */
    size_t n_later, later_capacity;
    int requests, since;    /* whether originals are requested before they are read; queries since this was decided */
    uint64_t reads, faults; /* of the process (qv_count_reads), when it was decided */
} qv_scratch;

/* Let the search end at a deadline, in nanoseconds of qv_now; 0: at none. */
void qv_set_deadline(qv_scratch *s, uint64_t deadline);
int qv_reads_clock_late(qv_scratch *s, size_t bytes);

/* Whether the deadline has passed, before work on about this many bytes. Reads the clock once in QV_UNTIMED bytes. */
static inline int qv_is_late(qv_scratch *s, size_t bytes) {
    return __builtin_expect(s->deadline != 0, 0) && qv_reads_clock_late(s, bytes);
}

/* Decide from time to time whether queries read from the disk. If they do, each requests the pages of its originals
 * together. A request of a page that is in memory takes half a microsecond, which other queries should not pay. */
void qv_begin_query(qv_scratch *s);

/* Add to the candidates that wait. Returns QV_OK or QV_NO_MEMORY. */
int qv_put_later(qv_scratch *s, uint64_t candidate);

int qv_scratch_reserve(qv_scratch *s, int pool, uint32_t rows, size_t query_size);
int qv_scratch_reserve_map(qv_scratch *s, size_t floats);
int qv_scratch_reserve_tile(qv_scratch *s, int pool, size_t query_size);
void qv_scratch_free(qv_scratch *s);

/* Uninitialized buffer of `bytes` for the index, on a 64-byte boundary; NULL if out of memory. */
uint8_t *qv_scratch_bytes(qv_scratch *s, size_t bytes);

/* Which rows can be results. */
typedef struct {
    const uint64_t *excluded; /* bit set: never a result; NULL: every row can be */
    uint32_t n_allowed;       /* number of rows that can be results */
    const uint32_t *rows;     /* not NULL: only these rows are scored, and `excluded` is not checked */
    uint32_t n_rows;
    const uint32_t
        *seeds; /* not NULL: most rows are excluded; a graph search starts here, too, and stays among the others */
    uint32_t n_seeds;
} qv_selection;

typedef struct {
    int k;
    int ef;         /* graphs: size of the candidate list */
    int nprobe;     /* inverted lists: number that is scanned */
    int candidates; /* candidates that are re-ranked; 0: none */
    int exact;      /* scan the originals instead */
    qv_selection selection;
} qv_search_params;

static inline int qv_is_excluded(const qv_selection *selection, uint32_t row) {
    return selection->excluded && selection->excluded[row >> 6] >> (row & 63) & 1;
}

/* Interface of an index. `find` leaves the nearest rows by their codes in s->pool, sorted, possibly with excluded
 * ones. The query is prepared for the codes in s->query and for the originals in s->other. It is also given as
 * floats, as passed and transformed for the codes. Returns QV_OK, QV_RANKED if the keys are those of the originals,
 * or an error below zero. */
typedef struct {
    int (*find)(const void *index, const qv_search_params *params, const float *original, const float *transformed,
                qv_scratch *s);
    const void *index;
} qv_finder;

/* Score n rows at s->row[stage], s->address[stage] and insert those below the bound into s->pool. Prefetches the
 * lists of candidates that will soon be expanded (adjacency NULL: none). */
void qv_score_staged(const qv_codec *codec, qv_column *adjacency, const qv_query *query, int stage, int n,
                     qv_scratch *s);

/* Input of a scan: the selected rows of [0, n). */
typedef struct {
    const qv_codec *codec;
    qv_column *codes;
    uint32_t n;
    const qv_selection *selection;
} qv_scan_source;

/* Fill pool i with the nearest rows to the query at queries + i * query_size, up to its capacity. QV_OK, or an error. */
int qv_scan(const qv_scan_source *source, const uint8_t *queries, size_t query_size, qv_pool *pools, int n_queries,
            qv_scratch *s);

/* Data that queries are run against. */
typedef struct {
    qv_codec *codec;
    const qv_map *map; /* transformation of queries before they are prepared for the codes; NULL: none */
    qv_column *codes;
    uint32_t n;
    qv_finder finder;          /* finder.find NULL: a scan */
    const uint32_t *unindexed; /* rows that the finder's index does not contain; they are scored one by one */
    uint32_t n_unindexed;
    qv_codec *rerank;   /* NULL: keys of the codes are the result */
    qv_column *vectors; /* what it scores */
    int timed;          /* whether the phases of a search are timed */
} qv_searcher;

/* Queries and results of a batch: rows of `dim` floats; k rows and distances of each query, padded with -1 and +inf,
 * and how many there are. */
typedef struct {
    const float *queries;
    size_t dim, n;
    int64_t *rows, *counts;
    float *distances;
} qv_batch;

/* QV_OK, or an error below zero. */
int qv_search(const qv_searcher *searcher, const qv_search_params *params, const qv_batch *batch, qv_scratch *s);

#endif
