/* Inverted lists: vectors by their nearest centroid, as sign codes of what is left of them (fastscan.h), 32 in a block.
 *
 * Vectors are rotated and, but for queries under inner product, centered on the mean of the collection; under cosine they
 * have unit length. Keys of lists are squared L2, under cosine too, or -dot under inner product.
 *
 * A list is a chain of blocks. All are full but the first, whose places are taken from 0 on. The list after the last is
 * that of the centroids themselves, residuals of the mean: which lists are near is found as near vectors are.
 *
 * A row is in `copies` lists, one or two. The second is the one whose residual is least parallel to the first's (SOAR, Sun
 * et al., NeurIPS 2023): where the first list is missed because of the direction of its residual, the second is not. */
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
    float spread; /* added to the key of the centroid when lists are ranked: half the mean |residual|^2 of its sample */
    float norm2;  /* of the centroid */
} qv_list;

typedef struct {
    qv_column *blocks, *lists, *centroids, *slots; /* slots: by row, u32[copies], 32 * block + place in it */
    int dim, dims, metric, copies;                 /* dims: of rotated vectors */
    uint32_t n_lists, n;                           /* n: rows that may be in lists */
    uint32_t n_blocks, n_free, free_block; /* blocks in use and free ones together; free ones, the first of them */
    const uint8_t *signs;                  /* of the rotation */
    const float *mean;                     /* rotated */
    qv_codec l2, dot;                      /* of centroids, which are stored as f32 codes */
    qv_fs_sums_fn sums;
} qv_lists;

/* What turns sums of a block into estimates of keys: base + along * add + unit * sum * rescale, within distance * error. */
typedef struct {
    float base, along, unit, distance;
} qv_estimate_terms;

/* Estimates of a block's 32 keys. */
void qv_list_estimates(const qv_lists *lists, const qv_list_block *block, const uint8_t *table,
                       const qv_estimate_terms *terms, float *estimates);

/* The places of a block whose keys may be below the bound, a bit each. */
uint32_t qv_list_below(const qv_lists *lists, const qv_list_block *block, const uint8_t *table,
                       const qv_estimate_terms *terms, float bound);

/* A query, or a vector that looks for its lists. */
typedef struct {
    float *y;        /* [dims] rotated */
    float *residual; /* [dims] */
    uint8_t *table;  /* qv_fs_bytes(dims) */
    float unit, norm2;
    float *estimates; /* [n_lists, rounded up to 32] */
    qv_query *query;  /* y for the codec of centroids */
    qv_pool near;     /* lists, nearest first */
} qv_coarse_query;

/* Buffers for at most `n_near` lists, in the scratch; QV_OK or QV_NO_MEMORY. */
int qv_coarse_query_init(qv_coarse_query *coarse, const qv_lists *lists, int n_near, qv_scratch *s);

/* Fill everything but `near` from aim->y. */
void qv_coarse_query_prepare(qv_coarse_query *coarse, const qv_lists *lists);

/* The `n` nearest lists of what is aimed at go to aim->near with the keys of their centroids, ranked with their spread where
 * `spread` is set, by `metric` QV_L2 or QV_IP. QV_OK or QV_DAMAGED. */
int qv_coarse_search(qv_coarse_query *coarse, qv_lists *lists, int n, int metric, int spread, qv_scratch *s);

/* --- writing --- */

/* Centroids float32 [n_lists, dims] and their spreads, stored; every list is empty after that, and all blocks but those of
 * the centroids are unused. There must be room for these. */
int qv_lists_begin(qv_lists *lists, const float *centroids, const float *spreads);

/* The `copies` lists of a vector y [dims], the nearest first; its squared distance from the first centroid. */
int qv_lists_assign(qv_lists *lists, const float *y, int copies, uint32_t *owners, float *distance, qv_scratch *s);

/* Put rows with vectors y [n, dims] into a list, each as its copy of that number. Blocks must be there for them. */
int qv_lists_append(qv_lists *lists, uint32_t list, const uint32_t *rows, const float *y, uint32_t n,
                    const uint8_t *copies);

/* Take one entry out; the last of its list takes its place. */
int qv_lists_remove(qv_lists *lists, uint32_t slot);

/* Whether the entry in a slot is the one that a vector has in its list: 1, 0, or QV_DAMAGED. */
int qv_lists_entry_is(qv_lists *lists, uint32_t slot, uint32_t row, const float *y);

/* --- searching --- */

typedef struct {
    qv_lists lists;
    const qv_codec *codec; /* codes in force */
    qv_column *codes;
    const qv_codec *original; /* not NULL: codes say no more than estimates, survivors are scored by their originals */
    qv_column *originals;
    int comparable; /* whether keys of codes are distances, as estimates are */
} qv_ivf;

int qv_ivf_find(const void *index, const qv_search_params *params, const float *original, const float *transformed,
                qv_scratch *s);

#endif
