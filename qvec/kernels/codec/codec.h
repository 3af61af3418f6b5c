/* A codec turns float32 vectors into fixed-stride rows of bytes, and scores rows against a prepared query.
 *
 * Everything above (graph walk, flat scan, re-rank, build) sees only this face: bytes, strides and keys.
 * Smaller keys are nearer, always.
 *
 * Row:    data[data_size] then, for kinds with factors, { float scale; float norm2; }, padded with zeros to `stride`.
 *         Rows start on a 16-byte boundary at least; kernels use unaligned loads.
 * Query:  qv_query header (64 bytes), then the query in the form that the kernel eats, padded to 64 bytes.
 *         Prepared queries start on a 64-byte boundary.
 * Values: finite. |x| below 2^-100 counts as a zero vector where a length divides (cosine, INT8 dynamic); |x|^2 is kept
 *         up to 2^126. Codes saturate. Rows, queries and rotated vectors are the same to the last bit on every level.
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

/* How a static code is rounded: to the nearest step, or towards the middle code as sentence-transformers' astype(int8) does. */
typedef enum { QV_NEAREST = 0, QV_TRUNCATE = 1 } qv_rounding;

typedef enum { QV_L2 = 0, QV_IP = 1, QV_COSINE = 2 } qv_metric;

typedef struct {
    float scale; /* what a dot product with the stored data is multiplied by: 1/|x| and the code's step, folded. Where there
                    are centroids, its lowest byte is the number of the row's own */
    float norm2; /* |x|^2 of the vector the row stands for (1 under cosine); less the center, where both sides have one, and
                    less twice the error of the code along its centroid */
} qv_factors;

/* key = bias + per_norm2 * row.norm2 + per_scale * row.scale * (dot - offset) + table[row's centroid]
 * (op QV_OP_DOT), |q - x|^2 (op QV_OP_L2, float kinds only) or the number of differing bits (QV_BINARY). */
typedef enum { QV_OP_DOT = 0, QV_OP_L2 = 1 } qv_op;

typedef struct {
    float bias, per_norm2, per_scale;
    float floor;        /* keys are never below: 0 where they are distances, -infinity where they are negated dots */
    int32_t offset;     /* integer kinds: the data's midpoint times the sum of the query's s8 values */
    int32_t op;
    float per_table;    /* share of <q, x> in keys: what entries of the table are multiplied by */
    int32_t reserved[9];
} qv_query;             /* 64 bytes */

typedef struct qv_codec qv_codec;

/* Keys of n rows (any addresses) against one prepared query, which remembers what it works out about centroids: one thread
 * at a time. */
typedef void (*qv_score_fn)(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int n, float *keys);

struct qv_codec {
    int32_t kind, metric, simd;
    int32_t dim;        /* float values in */
    int32_t data_size;  /* bytes of data in a row, dims padded as the kind needs */
    int32_t stride;     /* bytes from row to row */
    int32_t query_size; /* bytes of a prepared query */
    int32_t has_factors;
    const float *lower, *step; /* INT8, INT4 static: x = lower + step * c, per dimension (padded with 0); MIXED: step alone,
                                  as a share of the vector's length; else NULL */
    int32_t rounding;   /* static, set after qv_codec_init: a qv_rounding */
    int32_t integers;   /* INT8, set after qv_codec_init: vectors are integers in -128..127 and stored as they are */
    const uint8_t *widths; /* RABITQ, MIXED: bits of each block of 64 dims (bitpack.h); else NULL */
    int32_t bits;          /* RABITQ: of every block, 1..8; else 0 */
    int32_t n_offsets;     /* centroids, 0 or 2..QV_MAX_CENTROIDS */
    const float *center;   /* what is subtracted before a vector is coded (padded with 0), or NULL */
    const struct qv_codec *offset_codec; /* centroids less `center`: INT8 rows under ip */
    const uint8_t *offsets;
    qv_score_fn score;
};

#define QV_MAX_DIM 65536
#define QV_MAX_CENTROIDS 256

/* 0, or -1 where kind, metric, dim, lower, step or level do not go together. lower/step are borrowed and must outlive the codec. */
int qv_codec_init(qv_codec *codec, int kind, int metric, int dim, const float *lower, const float *step, int simd);

/* The same for RABITQ (step NULL: each vector's own) and MIXED (step relative to the vector's length), with `widths`
 * of ceil(dim / 64) blocks, 0..8 and not all 0, and `step` padded with 0 to whole blocks; both are borrowed. */
int qv_codec_init_bitpack(qv_codec *codec, int kind, int metric, int dim, const uint8_t *widths, const float *step, int simd);

/* Code vectors around a center (INT4, TERNARY, RABITQ, MIXED, each with a vector's own scale), which is padded with 0 to
 * whole blocks, or around the nearest of `n` local ones: center + offset, offsets being rows of an INT8 codec of the same
 * dim and level under ip whose norm2 is that of what the row holds. n = 0: the center alone. All are borrowed.
 * 0, or -1 where these do not go together. */
int qv_codec_centroid(qv_codec *codec, const float *center, const qv_codec *offset_codec, const uint8_t *offsets, int n);

void qv_encode(const qv_codec *codec, const float *x, size_t n, uint8_t *rows);
void qv_decode(const qv_codec *codec, const uint8_t *rows, size_t n, float *x);

/* A query for search: keys come out as the public distance (squared l2; -dot; 1 - cosine; differing bits). */
void qv_prepare(const qv_codec *codec, const float *q, qv_query *out);

/* A stored row as the query of a build: keys come out as squared L2 (cosine: on the unit sphere), under ip as -2 dot. */
void qv_prepare_row(const qv_codec *codec, const uint8_t *row, qv_query *out);

/* out = R(x - mean) over n vectors: optional normalization, optional mean (NULL), seeded fast Hadamard rotation
 * (4 rounds of signs, `signs` holds 4 * padded/8 bytes; NULL: no rotation). */
void qv_transform(const float *x, size_t n, int dim, int padded, int normalize, const float *mean,
                  const uint8_t *signs, float *out);

/* out = x * M over n vectors. M [dim, n_panels * QV_PANEL] comes in panels of QV_PANEL columns, each [dim, QV_PANEL]. */
#define QV_PANEL 32
void qv_project(const float *x, size_t n, int dim, const float *panels, int n_panels, int simd, float *out);

/* All that is done to a query before it is coded: both of these, or one. What is pointed at is borrowed. */
typedef struct {
    int dim;           /* values that are used of a query */
    int width, padded; /* of what M gives, and of the result */
    int normalize, n_panels, simd;
    const float *mean, *panels; /* NULL: none; without panels, width is dim */
    const uint8_t *signs;       /* NULL: no rotation */
} qv_map;

/* Floats that qv_map_query needs at `room`, where it leaves its result: `padded` of them. */
size_t qv_map_floats(const qv_map *map);
const float *qv_map_query(const qv_map *map, const float *q, float *buffer);

#endif
