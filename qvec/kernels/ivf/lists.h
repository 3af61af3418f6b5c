/* Inverted lists: each vector belongs to its nearest centroid and is stored as the sign code of its residual
 * (fastscan.h), in blocks of 32 entries.
 *
 * Vectors are rotated and centered on the mean of the collection (queries under inner product are not centered); under
 * cosine they have unit length. Keys of lists are squared L2 (also under cosine), or -dot under inner product.
 *
 * A list is a chain of blocks. All blocks are full except the first, which is filled from position 0 on. One more list,
 * after the last, contains the centroids themselves as residuals of the mean: the coarse quantizer scans it like any
 * other.
 *
 * A row has one or two copies. The second goes to the list whose residual is least parallel to the first one's
 * (spilling: SOAR, Sun et al., NeurIPS 2023): if the direction of the residual hides the first list, the second is
 * still found. */
#ifndef QV_LISTS_H
#define QV_LISTS_H

#include "codec/fastscan.h"
#include "search/search.h"

#define QV_NO_BLOCK 0xFFFFFFFFu
#define QV_COPIES_MAX 2

typedef struct {
    uint32_t next, list; /* of a free block: the next free one, QV_NO_BLOCK */
    uint32_t reserved[14];
    uint32_t rows[QV_FS_VECTORS];
    float add[QV_FS_VECTORS], rescale[QV_FS_VECTORS], error[QV_FS_VECTORS]; /* empty place: add = +inf, the others 0 */
} qv_list_block;                                                            /* then the codes, qv_fs_bytes(dims) */

typedef struct {
    uint32_t head, n;
    float spread; /* added to the centroid's key when lists are ranked: half the mean |residual|^2 of its sample */
    float norm2;  /* of the centroid */
} qv_list;

typedef struct {
    qv_column *blocks, *lists, *centroids, *slots; /* slots: for each row u32[copies], 32 * block + position */
    int dim, dims, metric, copies;                 /* dims: dim after rotation */
    uint32_t n_lists, n;                           /* n: rows in lists are below */
    uint32_t n_blocks, n_free, free_block;         /* n_blocks: used and free ones; free_block: first free one */
    const uint8_t *signs;                          /* of the rotation */
    const float *mean;                             /* rotated */
    qv_codec l2, dot;                              /* of centroids, stored as f32 codes */
    qv_fs_sums_fn sums;
} qv_lists;

/* Terms of estimates: key = base + along * add + unit * sum * rescale, within distance * error. */
typedef struct {
    float base, along, unit, distance;
} qv_estimate_terms;

/* Estimates of a block's 32 keys. */
void qv_list_estimates(const qv_lists *lists, const qv_list_block *block, const uint8_t *table,
                       const qv_estimate_terms *terms, float *estimates);

/* Positions in a block whose keys may be below the bound, one bit each, and the estimates of all 32 keys. */
uint32_t qv_list_below(const qv_lists *lists, const qv_list_block *block, const uint8_t *table,
                       const qv_estimate_terms *terms, float bound, float *estimates);

/* State of the coarse quantizer for one query, or for a vector that is assigned to lists. */
typedef struct {
    float *y;        /* [dims] rotated */
    float *residual; /* [dims] */
    uint8_t *table;  /* qv_fs_bytes(dims) */
    float unit, norm2;
    float *estimates; /* [n_lists, rounded up to 32] */
    qv_query *query;  /* y for the codec of centroids */
    qv_pool near;     /* lists, nearest first */
} qv_coarse_query;

/* Allocate buffers in the scratch for at most `n_near` lists. Returns QV_OK or QV_NO_MEMORY. */
int qv_coarse_query_init(qv_coarse_query *coarse, const qv_lists *lists, int n_near, qv_scratch *s);

/* Compute the table, unit and norm from coarse->y. */
void qv_coarse_query_prepare(qv_coarse_query *coarse, const qv_lists *lists);

/* Find the `n` nearest lists. They go to coarse->near with the keys of their centroids, plus their spread if
 * `spread` is set. metric: QV_L2 or QV_IP. Returns QV_OK or QV_DAMAGED. */
int qv_coarse_search(qv_coarse_query *coarse, qv_lists *lists, int n, int metric, int spread, qv_scratch *s);

/* --- writing --- */

/* Centroids float32 [n_lists, dims] and their spreads, stored; every list is empty after that, and all blocks but
 * those of the centroids are unused. There must be enough free blocks for these. */
int qv_lists_begin(qv_lists *lists, const float *centroids, const float *spreads);

/* The `copies` lists of a vector y [dims], the nearest first; its squared distance from the first centroid. */
int qv_lists_assign(qv_lists *lists, const float *y, int copies, uint32_t *owners, float *distance, qv_scratch *s);

/* Append rows with vectors y [n, dims], of squared errors `losses` [n], to a list; copies: which copy of its row each
 * is. Free blocks must suffice. */
int qv_lists_append(qv_lists *lists, uint32_t list, const uint32_t *rows, const float *y, const float *losses,
                    uint32_t n, const uint8_t *copies);

/* Remove one entry; the last entry of the list moves to its place. */
int qv_lists_remove(qv_lists *lists, uint32_t slot);

/* Give the entries of row `from` to row `to`, which has none. Returns QV_OK or QV_DAMAGED. */
int qv_lists_move(qv_lists *lists, uint32_t from, uint32_t to);

/* Whether the entry in a slot equals the encoding of `row` with vector y: 1, 0 or an error. */
int qv_lists_entry_is(qv_lists *lists, uint32_t slot, uint32_t row, const float *y);

/* The vector y [dims], without the mean, that the entries of a row stand for, from its slots [copies]: the mean of
 * centroid and signs, scaled to be nearest to the residual, weighted by the inverse of the squared error. loss: the
 * expected squared error, if those of the copies are independent. Returns 1, 0 if the row has no entry, or an error. */
int qv_lists_decode(qv_lists *lists, const uint32_t *slots, float *y, float *loss);

/* --- searching --- */

typedef struct {
    qv_lists lists;
    const qv_codec *codec; /* codec of the active codes */
    qv_column *codes;
    const qv_codec
        *original; /* not NULL: candidates are scored by their originals, because codes are no better than estimates */
    qv_column *originals;
    int comparable; /* whether keys of codes are distances that estimates can be compared with */
} qv_ivf;

int qv_ivf_find(const void *index, const qv_search_params *params, const float *original, const float *transformed,
                qv_scratch *s);

#endif
