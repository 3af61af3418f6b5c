/* What the encoders of different kinds share. */
#ifndef QV_ENCODE_H
#define QV_ENCODE_H

#include "rows.h"

/* What is coded: x, made a unit vector where `unit` says so, less the codec's centre if it has one. */
typedef struct {
    const qv_codec *codec;
    const float *x;
    double unit;
} qv_source;

void qv_put_factors(const qv_codec *codec, uint8_t *row, float scale, double norm2);

/* Codes 0..top of 64 dims from dim i on, by the codec's lower and step. */
void qv_static_block(const qv_source *source, int i, int top, uint8_t *codes);

void qv_encode_packed(const qv_codec *codec, const float *x, uint8_t *row);
void qv_decode_packed(const qv_codec *codec, const uint8_t *row, float *x);

#endif
