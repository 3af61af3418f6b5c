/* Functions that the encoders of several kinds share: lengths, factors of a row, and integer codes. */
#include "codec/rows.h"

QV_INLINE double norm2_of(const float *x, int dim) {
    float buffer[QV_BLOCK];
    double sum = 0;
    for (int i = 0; i < dim; i += QV_BLOCK) {
        const float *block = qv_block(x, dim, i, buffer);
        sum += qv_dot64(block, block);
    }
    return sum;
}

QV_DEFINE_WIDE(, double, qv_norm2, (const float *x, int dim), (x, dim), norm2_of)

QV_INLINE void scale_by(const float *x, int dim, double unit, float *out) {
    for (int i = 0; i < dim; i++) out[i] = (float)(x[i] * unit);
}

QV_DEFINE_WIDE(, void, qv_scale, (const float *x, int dim, double unit, float *out), (x, dim, unit, out), scale_by)

/* |x|^2 in single precision, sixteen sums side by side: fast enough to run before every search. */
QV_INLINE float plain_norm2(const float *x, int dim) {
    float sums[16] = {0}, total = 0;
    for (int i = 0; i + 16 <= dim; i += 16) {
        for (int j = 0; j < 16; j++) sums[j] += x[i + j] * x[i + j];
    }
    for (int i = dim - dim % 16; i < dim; i++) sums[0] += x[i] * x[i];
    for (int j = 0; j < 16; j++) total += sums[j];
    return total;
}

QV_DEFINE_WIDE(, float, qv_plain_norm2, (const float *x, int dim), (x, dim), plain_norm2)

void qv_put_factors(const qv_codec *codec, uint8_t *row, float scale, double norm2) {
    double kept = norm2 < QV_NORM2_MAX ? norm2 : QV_NORM2_MAX;
    if (codec->metric == QV_COSINE && !qv_is_centered(codec)) kept = 1;
    qv_factors factors = {scale, (float)kept};
    memcpy(row + codec->data_size, &factors, sizeof factors);
}

int qv_take_integers(const float *x, int dim, int8_t *k, qv_code *code) {
    *code = (qv_code){1, qv_norm2(x, dim), 0};
    memset(k, 0, qv_round_up((size_t)dim, QV_BLOCK));
    for (int i = 0; i < dim; i++) {
        if (x[i] < -128 || x[i] > 127 || x[i] != (float)(int)x[i]) return 0;
        k[i] = (int8_t)x[i];
        code->sum += k[i];
    }
    return 1;
}

/* Round sixteen values x / step to integers in -127..127, as qv_round and qv_clamp do. Writes them
 * as floats and bytes, and adds them to `sums`. */
QV_INLINE void put_levels(const float *x, float step, float *levels, int8_t *k, qv_mask8 *sums) {
    const qv_lanes8 high = (qv_lanes8){0} + 127, low = -high;
    qv_mask8 whole[2];
    for (int half = 0; half < 2; half++) {
        qv_lanes8 v = *(const qv_lanes8 *)(x + 8 * half) / step;
        qv_mask8 above = v > low;
        v = (qv_lanes8)(((qv_mask8)v & above) | ((qv_mask8)low & ~above));
        qv_mask8 below = v < high;
        v = (qv_lanes8)(((qv_mask8)v & below) | ((qv_mask8)high & ~below));
        v = (v + QV_MAGIC) - QV_MAGIC;
        whole[half] = __builtin_convertvector(v, qv_mask8);
        *(qv_lanes8 *)(levels + 8 * half) = v;
        *sums += whole[half];
    }
    qv_shorts16 halves;
    qv_low_halves(whole, &halves);
    qv_put_low_bytes(&halves, k);
}

QV_INLINE qv_code quantize(const qv_source *source, int8_t *k) {
    int dim = source->dim;
    float buffer[QV_BLOCK], max = 0;
    qv_code code = {0, 0, 0};
    for (int i = 0; i < dim; i += QV_BLOCK) {
        const float *block = qv_source_block(source, i, buffer);
        float block_max = qv_max_abs64(block);
        max = block_max > max ? block_max : max;
        code.norm2 += qv_dot64(block, block);
    }
    if (sqrt(code.norm2) < QV_TINY_NORM) {
        memset(k, 0, qv_round_up((size_t)dim, QV_BLOCK));
        return code;
    }
    float step = max / 127, levels[QV_BLOCK];
    double along = 0;
    qv_mask8 sums = {0};
    for (int i = 0; i < dim; i += QV_BLOCK) {
        const float *block = qv_source_block(source, i, buffer);
        for (int j = 0; j < QV_BLOCK; j += 16) put_levels(block + j, step, levels + j, k + i + j, &sums);
        along += qv_dot64(block, levels);
    }
    for (int j = 0; j < 8; j++) code.sum += sums[j];
    code.scale = (float)(code.norm2 / along);
    return code;
}

QV_DEFINE_WIDE(, qv_code, qv_quantize, (const qv_source *source, int8_t *k), (source, k), quantize)

/* Truncate towards the middle: (v - 128 as an integer) + 128 in single precision. The rounding of the difference
 * matters. */
static int32_t truncated(float level, int top) {
    float middle = (float)((top + 1) / 2);
    return (int32_t)(level - middle) + (top + 1) / 2;
}

void qv_static_block(const qv_codec *codec, const float *x, double unit, int i, int top, uint8_t *codes) {
    const float *lower = codec->lower + i, *step = codec->step + i;
    float buffer[QV_BLOCK];
    const float *block = qv_block(x, codec->dim, i, buffer);
    for (int j = 0; j < QV_BLOCK; j++) {
        float offset = (float)(block[j] * unit) - lower[j];
        float level = qv_clamp(offset / step[j], 0, (float)top);
        level = step[j] > 0 ? level : 0;
        codes[j] = (uint8_t)(codec->rounding == QV_TRUNCATE ? truncated(level, top) : qv_round(level));
    }
}
