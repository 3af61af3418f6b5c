/* Distances among many rows of INT8 codes at once, and the nearest of each row: the kernels of partition.c.
 *
 * A tile is QV_TILE_ROWS rows by a panel of QV_TILE_COLUMNS columns. Keys are squared distances
 *     key(i, j) = (norm2_i + norm2_j) - 2 (scale_i scale_j) <k_i, k_j>, 0 if negative
 * with k the codes less their midpoint. <k_i, k_j> is exact and the rest is symmetric in i and j, so a pair has the same
 * bits in every leaf, on every SIMD level. Keys are stored as the bits of the float: integers order them alike. */
#ifndef QV_TILE_H
#define QV_TILE_H

#include "codec/codec.h"
#include "codec/simd.h"

#define QV_TILE_ROWS 6
#define QV_TILE_COLUMNS 16
#define QV_NO_KEY 0x7F800000 /* +inf: the key of padding */
#define QV_NEAREST_MAX 16    /* rows that qv_tile_nearest and qv_leaf_nearest can find */

/* Rows in the forms that tiles need. Arrays have room for n rows rounded up to whole tiles. */
typedef struct {
    int n, dims;
    uint8_t *rows;   /* the codes row by row, as s8 or as int16, qv_tile_row_bytes each */
    uint8_t *panels; /* the same by columns: 4 bytes of 16 rows, the next 4 bytes of them, ... */
    float *norm2, *scale;
    int32_t *shift; /* of each row: subtracted from the kernel's sums to get <k_i, k_j> */
} qv_tile_set;

typedef struct {
    int32_t key;
    uint32_t column;
} qv_near;

typedef struct {
    size_t row_bytes_per_dim;
    uint32_t panel_mask; /* flips the sign bits of panels that are u8 */
    void (*load)(qv_tile_set *set, int i, const uint8_t *code);
    /* Keys of rows i .. i + QV_TILE_ROWS - 1 to columns of panels first .. stop - 1, `pitch` int32 from row to row. */
    void (*keys)(const qv_tile_set *rows, int i, const qv_tile_set *columns, int first, int stop, int32_t *keys,
                 size_t pitch);
    /* The k nearest of n_panels panels of keys, nearest first, ties by column. Returns their number. */
    int (*nearest)(const int32_t *keys, int n_panels, int k, qv_near *near);
    /* The k nearest of each of m rows, from the keys above the diagonal; all other keys must be QV_NO_KEY. */
    void (*leaf)(const int32_t *keys, size_t pitch, int m, int k, int32_t *minima, qv_near *near, uint8_t *found);
} qv_tile_kernels;

/* The kernels of a SIMD level. */
const qv_tile_kernels *qv_tile_kernels_of(int simd);

/* Take `bytes`, rounded up to a multiple of 64, from a buffer that is aligned to 64 bytes. */
static inline void *qv_take(uint8_t **at, size_t bytes) {
    uint8_t *taken = *at;
    *at += (bytes + 63) / 64 * 64;
    return taken;
}

static inline int qv_panels(int n) { return (n + QV_TILE_COLUMNS - 1) / QV_TILE_COLUMNS; }

/* Number of elements of `minima` for a leaf of m rows. */
static inline size_t qv_leaf_minima(int m) { return (size_t)qv_panels(m) * QV_TILE_COLUMNS * 25; }

/* Bytes of a set of n rows, and the initialization of a set in such memory, which is aligned to 64 bytes. */
size_t qv_tile_set_bytes(const qv_tile_kernels *kernels, int n, int dims);
void qv_tile_set_init(qv_tile_set *set, const qv_tile_kernels *kernels, int n, int dims, void *memory);

/* Load n rows of an INT8 codec and, if asked, make their panels. */
void qv_tile_set_load(qv_tile_set *set, const qv_tile_kernels *kernels, const qv_codec *codec,
                      const uint8_t *const *codes, int n, int panels);

#endif
