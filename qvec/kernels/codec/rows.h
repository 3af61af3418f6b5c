/* Functions that encoding, decoding and preparing share: factors of a row, and the INT8 code. */
#ifndef QV_ROWS_H
#define QV_ROWS_H

#include "codec/codec.h"
#include "codec/lanes.h"

#define QV_MIDPOINT 128

static inline qv_factors qv_row_factors(const qv_codec *codec, const uint8_t *row) {
    qv_factors factors;
    memcpy(&factors, row + codec->data_size, sizeof factors);
    return factors;
}

/* Where the unit of an F16 row is: behind the factors, where the padding has room for it. */
static inline size_t qv_half_unit_at(const qv_codec *codec) { return (size_t)codec->data_size + sizeof(qv_factors); }

static inline float qv_half_unit(const qv_codec *codec, const uint8_t *row) {
    float unit;
    memcpy(&unit, row + qv_half_unit_at(codec), sizeof unit);
    return unit;
}

static inline int qv_is_static(const qv_codec *codec) { return codec->step != NULL; }

static inline int qv_is_centered(const qv_codec *codec) { return codec->center != NULL; }

/* Whether queries are centered as well as rows. Under l2 and cosine, |q - x| does not change when both move (1 -
 * cosine is half of |q - x|^2 of unit vectors), and the code's error then concerns the distance from the center
 * only. Dot products do change, so queries are not centered under ip. */
static inline int qv_is_shifted(const qv_codec *codec) { return qv_is_centered(codec) && codec->metric != QV_IP; }

/* Factor of x before ranges or a center apply: 1/|x| under cosine, and exactly 1 if x has unit length already, so
 * that given values are not rounded again. */
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

/* Input of an encoder: x * unit, less a center, less the offset of a centroid, where the codec has them. */
typedef struct {
    const float *x, *center; /* center: padded with 0, or NULL */
    const uint8_t *offset;   /* codes of the centroid's offset, around QV_MIDPOINT; or NULL */
    double unit;
    float offset_step;
    int dim;
} qv_source;

/* 64 values of the source from dim i on, padded with zeros. */
QV_INLINE const float *qv_source_block(const qv_source *source, int i, float *buffer) {
    const float *block = qv_block(source->x, source->dim, i, buffer);
    if (source->center == NULL && source->unit == 1) return block;
    if (source->unit != 1) {
        for (int j = 0; j < QV_BLOCK; j++) buffer[j] = (float)(block[j] * source->unit);
        block = buffer;
    }
    if (source->center == NULL) return buffer;
    for (int j = 0; j < QV_BLOCK; j++) buffer[j] = block[j] - source->center[i + j];
    if (source->offset == NULL) return buffer;
    for (int j = 0; j < QV_BLOCK; j++) buffer[j] -= source->offset_step * (float)(source->offset[i + j] - QV_MIDPOINT);
    return buffer;
}

/* Quantize a source; k is padded with zeros to a multiple of 64 dims. A zero vector gets k = 0, scale = 0. */
qv_code qv_quantize(const qv_source *source, int8_t *k);

/* A source that is x unchanged. */
static inline qv_source qv_plain_source(const qv_codec *codec, const float *x) {
    return (qv_source){.x = x, .unit = 1, .dim = codec->dim};
}

/* Returns 1 if every value is an integer in -128..127; then k = x, scale = 1, padded as above. */
int qv_take_integers(const float *x, int dim, int8_t *k, qv_code *code);

/* Write the factors behind a row's data; norm2 saturates, and is 1 under cosine where rows are not centered. */
void qv_put_factors(const qv_codec *codec, uint8_t *row, float scale, double norm2);

/* Codes 0..top of 64 dims of x from dim i on, by the codec's lower and step. */
void qv_static_block(const qv_codec *codec, const float *x, double unit, int i, int top, uint8_t *codes);

/* |x|^2 in single precision; not finite if a value is not, or if the sum exceeds float32. */
float qv_plain_norm2(const float *x, int dim);

#endif
