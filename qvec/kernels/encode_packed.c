/* INT4 and TERNARY rows: with the ranges of a calibration, or with each vector's own scale. */
#include "encode.h"
#include "packed.h"

#include <float.h>

#define FIT_ROUNDS 4 /* more change no code of one vector in a hundred */

/* Towards the middle, (v - 128 as an integer) + 128 in single precision: the last bit of the difference is part of the rule. */
static int32_t truncated(float level, int top) {
    float middle = (float)((top + 1) / 2);
    return (int32_t)(level - middle) + (top + 1) / 2;
}

void qv_static_block(const qv_source *source, int i, int top, uint8_t *codes) {
    const qv_codec *codec = source->codec;
    const float *lower = codec->lower + i, *step = codec->step + i;
    float buffer[QV_BLOCK];
    const float *block = qv_block(source->x, codec->dim, i, buffer);
    for (int j = 0; j < QV_BLOCK; j++) {
        float offset = (float)(block[j] * source->unit) - lower[j];
        float level = qv_clamp(offset / step[j], 0, (float)top);
        level = step[j] > 0 ? level : 0;
        codes[j] = (uint8_t)(codec->rounding == QV_TRUNCATE ? truncated(level, top) : qv_round(level));
    }
}

/* 64 values from dim i on, zeros past the end. */
static const float *source_block(const qv_source *source, int i, float *buffer) {
    const qv_codec *codec = source->codec;
    const float *block = qv_block(source->x, codec->dim, i, buffer);
    if (!qv_is_centred(codec)) return block;
    for (int j = 0; j < QV_BLOCK; j++) buffer[j] = (float)(block[j] * source->unit) - codec->lower[i + j];
    return buffer;
}

static void nearest_codes(const qv_levels *levels, const float *block, float step, uint8_t *codes) {
    for (int j = 0; j < QV_BLOCK; j++) {
        codes[j] = (uint8_t)qv_round(qv_clamp(block[j] / step + levels->centre, 0, (float)levels->top));
    }
}

typedef struct {
    float step;
    double along; /* <x, k> */
    double power; /* |k|^2 */
} fit;

/* <x, k> and |k|^2 of the codes nearest to x at fit->step. */
static void measure(const qv_source *source, const qv_levels *levels, fit *f) {
    int dim = source->codec->dim;
    float buffer[QV_BLOCK], k[QV_BLOCK];
    uint8_t codes[QV_BLOCK];
    int64_t power = 0;
    f->along = 0;
    for (int i = 0; i < dim; i += QV_BLOCK) {
        const float *block = source_block(source, i, buffer);
        int count = dim - i < QV_BLOCK ? dim - i : QV_BLOCK;
        nearest_codes(levels, block, f->step, codes);
        for (int j = 0; j < QV_BLOCK; j++) {
            int32_t value = levels->factor * codes[j] - levels->middle;
            k[j] = (float)value;
            power += j < count ? value * value : 0;
        }
        f->along += qv_dot64(block, k);
    }
    f->power = (double)power;
}

static float in_range(double step) { return step < FLT_MAX ? (float)step : FLT_MAX; }

/* The step of least |x - step * (c - centre)|: codes and step in turn, each the best for the other (Lloyd 1982; for three
 * levels it is the threshold of half the scale of ternary weight networks, Li, Zhang and Liu, arXiv:1605.04711, eq. 5). */
static fit fit_step(const qv_source *source, const qv_levels *levels, double norm2) {
    fit f = {in_range(levels->start * sqrt(norm2 / source->codec->dim)), 0, 0};
    for (int round = 0; round < FIT_ROUNDS; round++) {
        measure(source, levels, &f);
        f.step = in_range(levels->factor * f.along / f.power);
    }
    measure(source, levels, &f);
    return f;
}

static double source_norm2(const qv_source *source) {
    float buffer[QV_BLOCK];
    double sum = 0;
    for (int i = 0; i < source->codec->dim; i += QV_BLOCK) {
        const float *block = source_block(source, i, buffer);
        sum += qv_dot64(block, block);
    }
    return sum;
}

/* Codes of the row's dims, packed; `step` 0: by the codec's own ranges. */
static void put_codes(const qv_source *source, const qv_levels *levels, float step, uint8_t *row) {
    const qv_codec *codec = source->codec;
    float buffer[QV_BLOCK];
    for (int start = 0, first = 0; start < codec->data_size; start += QV_BLOCK, first += qv_group_dims(levels)) {
        uint8_t codes[4 * QV_BLOCK] = {0};
        int count = codec->dim - first < qv_group_dims(levels) ? codec->dim - first : qv_group_dims(levels);
        for (int i = 0; i < count; i += QV_BLOCK) {
            if (step > 0) nearest_codes(levels, source_block(source, first + i, buffer), step, codes + i);
            else qv_static_block(source, first + i, levels->top, codes + i);
        }
        memset(codes + count, 0, sizeof codes - (size_t)count);
        qv_pack(levels, codes, qv_packed_width(codec, start), row + start);
    }
}

/* A vector that counts as zero has scale 0, so that its codes mean nothing. */
void qv_encode_packed(const qv_codec *codec, const float *x, uint8_t *row) {
    const qv_levels *levels = qv_levels_of(codec->kind);
    double norm2 = qv_norm2(x, codec->dim);
    qv_source source = {codec, x, qv_unit_of(codec, norm2)};
    if (qv_is_static(codec)) {
        put_codes(&source, levels, 0, row);
        qv_put_factors(codec, row, 1.0f, norm2);
        return;
    }
    double coded_norm2 = qv_is_centred(codec) ? source_norm2(&source) : norm2, scale = 0;
    if (sqrt(coded_norm2) >= QV_TINY_NORM) {
        fit f = fit_step(&source, levels, coded_norm2);
        put_codes(&source, levels, f.step, row);
        scale = coded_norm2 / f.along; /* |x|^2 / <x, k> in place of the step: see qv_quantise */
    }
    if (codec->metric == QV_COSINE && !qv_is_centred(codec)) scale *= qv_inverse_norm(norm2);
    qv_put_factors(codec, row, (float)scale, qv_is_shifted(codec) ? coded_norm2 : norm2);
}

static float decoded(const qv_codec *codec, const qv_levels *levels, int i, int code, float scale) {
    if (qv_is_static(codec)) return codec->lower[i] + codec->step[i] * (float)code;
    float value = scale * (float)(levels->factor * code - levels->middle);
    return codec->lower ? codec->lower[i] + value : value;
}

void qv_decode_packed(const qv_codec *codec, const uint8_t *row, float *x) {
    const qv_levels *levels = qv_levels_of(codec->kind);
    float scale = qv_row_factors(codec, row).scale;
    uint8_t codes[4 * QV_BLOCK];
    for (int start = 0, first = 0; start < codec->data_size; start += QV_BLOCK, first += qv_group_dims(levels)) {
        int width = qv_packed_width(codec, start), count = width * levels->planes;
        qv_unpack(levels, row + start, width, codes);
        if (count > codec->dim - first) count = codec->dim - first;
        for (int j = 0; j < count; j++) x[first + j] = decoded(codec, levels, first + j, codes[j], scale);
    }
}
