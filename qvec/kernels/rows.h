/* What encoding, decoding and preparing share: factors of a row, and the INT8 code. */
#ifndef QV_ROWS_H
#define QV_ROWS_H

#include "lanes.h"

#define QV_MIDPOINT 128

static inline qv_factors qv_row_factors(const qv_codec *codec, const uint8_t *row) {
    qv_factors factors;
    memcpy(&factors, row + codec->data_size, sizeof factors);
    return factors;
}

static inline int qv_is_static(const qv_codec *codec) { return codec->step != NULL; }

/* Whether rows carry their scale around a common centre. */
static inline int qv_is_centred(const qv_codec *codec) { return codec->lower != NULL && codec->step == NULL; }

/* Whether both sides are centred, and keys are distances there: |q - x| does not change when both move, and 1 - cosine is
 * half of |q - x|^2 of unit vectors. The error of a code is then that of the distance from the centre, with the query's own
 * part along the centre left out. Dot products do change, so under ip queries stay where they are. */
static inline int qv_is_shifted(const qv_codec *codec) { return qv_is_centred(codec) && codec->metric != QV_IP; }

/* What the values of x are multiplied by before they meet ranges or a centre: 1/|x| under cosine, and exactly 1 where x has
 * unit length already, so that its codes are those of the values given. */
static inline double qv_unit_of(const qv_codec *codec, double norm2) {
    if (codec->metric != QV_COSINE || fabs(norm2 - 1) <= QV_UNIT_ERROR) return 1;
    return qv_inverse_norm(norm2);
}

/* Symmetric 8-bit code of one vector: k = rint(x / step) in -127..127, step = max|x| / 127.
 * scale = |x|^2 / <x, k> instead of the step makes <x, scale * k> = |x|^2, an unbiased length (RaBitQ, arXiv
 * 2405.12497, divides its estimate by <o, o-bar> for the same reason). */
typedef struct {
    float scale;
    double norm2;
    int32_t sum; /* of k */
} qv_code;

/* Fills k to a multiple of 64 dims with zeros. A vector that counts as zero gets k = 0, scale = 0. */
qv_code qv_quantise(const float *x, int dim, int8_t *k);

/* 1 if every value is an integer in -128..127: then k = x, scale = 1, and k is filled as above. */
int qv_take_integers(const float *x, int dim, int8_t *k, qv_code *code);

#endif
