/* A codec encodes float32 vectors as fixed-stride rows of bytes and scores rows against a prepared query.
 *
 * Graph search, flat scan, re-ranking and graph construction use this interface only: bytes, strides and keys.
 * A smaller key always means a nearer vector.
 *
 * Row:    data[data_size], then, for kinds with factors, { float scale; float norm2; }, padded with zeros to `stride`.
 *         Rows start at least on a 16-byte boundary; kernels use unaligned loads.
 *         F16: data is x / unit, and `float unit`, a power of two, follows the factors.
 * Query:  a qv_query header (64 bytes), then the query in the form that the kernel reads, padded to 64 bytes.
 *         Prepared queries start on a 64-byte boundary.
 * Values: finite. A vector with |x| below 2^-100 is treated as zero where its length divides (cosine, dynamic INT8).
 *         |x|^2 saturates at 2^126. Codes saturate. Rows, queries and rotated vectors are equal to the last bit on
 *         every SIMD level.
 */
#ifndef QV_CODEC_H
#define QV_CODEC_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    QV_F32 = 0,
    QV_F16 = 1,
    QV_INT8 = 2,
    QV_BINARY = 3,
    QV_BF16 = 4,
    QV_INT4 = 5,
    QV_TERNARY = 6,
    QV_RABITQ = 7,
    QV_MIXED = 8,
} qv_kind;

/* Rounding of static codes: to the nearest step, or towards the middle code, as sentence-transformers' astype(int8). */
typedef enum { QV_NEAREST = 0, QV_TRUNCATE = 1 } qv_rounding;

typedef enum { QV_L2 = 0, QV_IP = 1, QV_COSINE = 2 } qv_metric;

/* Factors at the end of a row.
 *
 * scale: factor of a dot product with the stored data: 1/|x| and the code's step, folded. With centroids, the lowest
 *        byte is the number of the row's centroid.
 * norm2: |x|^2 of the decoded vector (1 under cosine). Where query and row are both centered, |x - center|^2, less
 *        twice the code's error along its centroid. */
typedef struct {
    float scale, norm2;
} qv_factors;

/* QV_OP_DOT: key = bias + per_norm2 * row.norm2 + per_scale * row.scale * (dot - offset) + table[centroid of the row].
 * QV_OP_L2 (float kinds only): key = |q - x|^2. QV_BINARY: key = number of differing bits. */
typedef enum { QV_OP_DOT = 0, QV_OP_L2 = 1 } qv_op;

typedef struct {
    float bias, per_norm2, per_scale;
    float floor;    /* lower bound of keys: 0 for distances, -infinity for negated dot products */
    int32_t offset; /* integer kinds: the data's midpoint times the sum of the query's s8 values */
    int32_t op;
    float per_table; /* factor of the table's entries: the weight of <q, x> in keys */
    int32_t reserved[9];
} qv_query; /* 64 bytes */

typedef struct qv_codec qv_codec;

/* Keys of n rows (any addresses) against one prepared query. The query caches table entries of centroids, so only one
 * thread at a time may use it. */
typedef void (*qv_score_fn)(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int n,
                            float *keys);

struct qv_codec {
    int32_t kind, metric, simd;
    int32_t dim;        /* float values in */
    int32_t data_size;  /* bytes of data in a row, dims padded as the kind needs */
    int32_t stride;     /* bytes from row to row */
    int32_t query_size; /* bytes of a prepared query */
    int32_t has_factors;
    /* Static INT8 and INT4: x = lower + step * c per dimension, padded with 0. MIXED: step alone, as a fraction of the
     * vector's length. Else NULL. */
    const float *lower, *step;
    int32_t rounding;                    /* static codes, set after qv_codec_init: a qv_rounding */
    int32_t integers;                    /* INT8, set after qv_codec_init: integers in -128..127 are stored unchanged */
    const uint8_t *widths;               /* RABITQ, MIXED: bits of each block of 64 dims (bitpack.h); else NULL */
    int32_t bits;                        /* RABITQ: of every block, 1..8; else 0 */
    int32_t n_offsets;                   /* centroids, 0 or 2..QV_MAX_CENTROIDS */
    const float *center;                 /* subtracted before a vector is encoded (padded with 0), or NULL */
    const struct qv_codec *offset_codec; /* codec of `offsets`: INT8 under ip */
    const uint8_t *offsets;              /* rows of the centroids less `center` */
    qv_score_fn score;
};

#define QV_MAX_DIM 65536
#define QV_MAX_CENTROIDS 256

/* Initialize a codec. Returns 0, or -1 if kind, metric, dim, lower, step and level do not fit together. `lower` and
 * `step` are borrowed and must outlive the codec. */
int qv_codec_init(qv_codec *codec, int kind, int metric, int dim, const float *lower, const float *step, int simd);

/* Initialize a codec of kind RABITQ (step NULL: each vector has its own) or MIXED (step relative to the vector's
 * length). widths: bits of each of ceil(dim / 64) blocks, 0..8 and not all 0. step: padded with 0 to whole blocks.
 * Both are borrowed. */
int qv_codec_init_bitpack(qv_codec *codec, int kind, int metric, int dim, const uint8_t *widths, const float *step,
                          int simd);

/* Encode vectors relative to `center` (n = 0) or to the nearest of n centroids center + offset. The kind must have a
 * scale for each vector (INT4 and TERNARY without ranges, RABITQ, MIXED). center: padded with 0 to whole blocks.
 * offsets: n rows of an INT8 codec under ip, of the same dim and level, with the norm2 of the decoded row. All are
 * borrowed. Returns 0, or -1 if the arguments do not fit together. */
int qv_codec_centroid(qv_codec *codec, const float *center, const qv_codec *offset_codec, const uint8_t *offsets,
                      int n);

void qv_encode(const qv_codec *codec, const float *x, size_t n, uint8_t *rows);
void qv_decode(const qv_codec *codec, const uint8_t *rows, size_t n, float *x);

/* Prepare a query for a search. Keys are the public distance: squared l2, -dot, 1 - cosine, or differing bits. */
void qv_prepare(const qv_codec *codec, const float *q, qv_query *out);

/* Prepare a stored row as a query of graph construction. Keys are squared L2 (cosine: on the unit sphere), or -2 dot
 * under ip. */
void qv_prepare_row(const qv_codec *codec, const uint8_t *row, qv_query *out);

/* out = R(x - mean) of n vectors, each normalized first if asked. mean may be NULL. R is a fast Hadamard rotation of
 * 4 rounds; signs: 4 * padded/8 bytes, NULL for no rotation. */
void qv_transform(const float *x, size_t n, int dim, int padded, int normalize, const float *mean, const uint8_t *signs,
                  float *out);

/* Append to each of n projections y of vectors x the length of what the projection leaves out, sqrt(|x|^2 - |y|^2), or 0
 * if that is not positive. out: rows of width + 1 floats. */
void qv_append_residual(const float *x, size_t n, int dim, const float *y, int width, float *out);

/* out = x * M of n vectors. M [dim, n_panels * QV_PANEL] is stored as panels of QV_PANEL columns, each [dim,
 * QV_PANEL]. */
#define QV_PANEL 32
void qv_project(const float *x, size_t n, int dim, const float *panels, int n_panels, int simd, float *out);

/* Transformation of a query before it is encoded: by a matrix, qv_transform or both. Arrays are borrowed. Columns are
 * rows of an INT8 codec under ip: the query is encoded with 8 bits, and its dot products with the columns are sums of
 * integers, so that they are equal on every level. */
typedef struct {
    int dim;           /* values of the query that are used */
    int width, padded; /* values after M, and of the result */
    int normalize, n_panels, simd;
    const float *mean, *panels;    /* NULL: none; without panels and columns, width is dim */
    const qv_codec *column_codec;  /* of columns; NULL: no columns */
    const uint8_t *const *columns; /* `width` of them; without panels */
    const uint8_t *signs;          /* NULL: no rotation */
} qv_map;

/* Floats that qv_map_query needs in `buffer`, which begins on a 64-byte boundary. */
size_t qv_map_floats(const qv_map *map);

/* Transform a query. Returns `padded` floats, in `buffer`. */
const float *qv_map_query(const qv_map *map, const float *q, float *buffer);

#endif
