/* What the encoders of different kinds share. */
#ifndef QV_ENCODE_H
#define QV_ENCODE_H

#include "codec/centroids.h"

void qv_put_factors(const qv_codec *codec, uint8_t *row, float scale, double norm2);

/* How a source r = x' - o was coded: `scale` is a step of the codes v, `along` is <o, v> in steps of both, norm2 |r|^2. */
typedef struct {
    int center;
    double norm2, scale, along;
} qv_coded;

void qv_put_centered(const qv_codec *codec, const qv_source *source, const qv_coded *coded, uint8_t *row);

/* Codes 0..top of 64 dims of x from dim i on, by the codec's lower and step. */
void qv_static_block(const qv_codec *codec, const float *x, double unit, int i, int top, uint8_t *codes);

void qv_encode_packed(const qv_codec *codec, const float *x, uint8_t *row);
void qv_decode_packed(const qv_codec *codec, const uint8_t *row, float *x);

#endif
