/* Vectors to packed rows and back, and queries for them. Compiled once for the baseline: rows are the same everywhere. */
#include "packed.h"

/* Widths of a step in standard deviations that lose least of a Gaussian, 1 to 8 bits (Max, IRE Trans. Inf. Theory 6,
 * 1960, table II, even levels; 7 and 8 bits found by the same integral). */
static const double GAUSSIAN_STEP[9] = {0, 1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0568, 0.0308};

/* Steps tried around that one: a vector's own best lies within, see docs/quantization.md. */
static const double TRIALS[] = {0.80, 0.88, 0.94, 1.0, 1.06, 1.13, 1.22, 1.34};
#define N_TRIALS ((int)(sizeof TRIALS / sizeof *TRIALS))

/* What a coding of y gives: <y, v> and |v|^2 of its values v, and |y|^2 of the dims that have bits. */
typedef struct {
    double along, size, norm2;
} fit;

/* Values floor(y / step) + 1/2 of a block, within the width's range. */
QV_INLINE void block_values(const float *y, const float *per_step, int width, float *values) {
    float high = (float)((1 << (width - 1)) - 1), low = -high - 1;
    for (int j = 0; j < QV_BLOCK; j++) {
        values[j] = (float)qv_round(qv_clamp(y[j] * per_step[j] - 0.5f, low, high)) + 0.5f;
    }
}

static void pack(const float *values, int width, uint8_t *data) {
    float middle = (float)((1 << width) - 1) / 2;
    int shift = 0;
    uint8_t codes[QV_BLOCK];
    for (int j = 0; j < QV_BLOCK; j++) codes[j] = (uint8_t)(values[j] + middle);
    if (width == 8) {
        memcpy(data, codes, QV_BLOCK);
        return;
    }
    for (int part = 4; part > 0; part /= 2) {
        if (!(width & part)) continue;
        for (int j = 0; j < QV_BLOCK; j++) {
            int bits = codes[j] >> shift & ((1 << part) - 1);
            int place = part == 1 ? j / 8 : j % (8 * part), up = part == 1 ? j % 8 : j / (8 * part) * part;
            data[place] |= (uint8_t)(bits << up);
        }
        data += 8 * part;
        shift += part;
    }
}

/* 1 / step of a block's dims: one for all, or (MIXED) the calibrated ones, which are relative to the vector's length. */
QV_INLINE void block_per_step(const qv_codec *codec, int i, float inverse, float *per_step) {
    for (int j = 0; j < QV_BLOCK; j++) {
        float step = codec->step == NULL ? 1.0f : codec->step[i + j];
        per_step[j] = step > 0 ? inverse / step : 0;
    }
}

/* Dims beyond the vector's are values of 1/2 that nothing is multiplied with; they must not count in its length. */
static fit code_vector(const qv_codec *codec, const float *x, float inverse, uint8_t *row) {
    float buffer[QV_BLOCK], per_step[QV_BLOCK], values[QV_BLOCK];
    fit f = {0, 0, 0};
    for (int i = 0, b = 0; i < codec->dim; i += QV_BLOCK, b++) {
        int width = codec->widths[b];
        if (width == 0) continue;
        const float *block = qv_block(x, codec->dim, i, buffer);
        block_per_step(codec, i, inverse, per_step);
        block_values(block, per_step, width, values);
        if (row != NULL) {
            pack(values, width, row);
            row += 8 * width;
        }
        for (int j = 0; j < QV_BLOCK; j++) values[j] = i + j < codec->dim ? values[j] : 0;
        for (int j = 0; codec->step != NULL && j < QV_BLOCK; j++) values[j] *= codec->step[i + j];
        f.along += qv_dot64(block, values);
        f.size += qv_dot64(values, values);
        f.norm2 += qv_dot64(block, block);
    }
    return f;
}

/* RABITQ: the step whose values point most nearly along the vector (arXiv:2409.09913, section 3.2, which sweeps all of
 * them). One bit has no choice: the values are signs. */
static float best_inverse(const qv_codec *codec, const float *x, double norm2) {
    double sigma = sqrt(norm2 / codec->dim), best = -1;
    float chosen = (float)(1 / (GAUSSIAN_STEP[codec->bits] * sigma));
    for (int t = 0; codec->bits > 1 && t < N_TRIALS; t++) {
        float inverse = (float)(1 / (TRIALS[t] * GAUSSIAN_STEP[codec->bits] * sigma));
        fit f = code_vector(codec, x, inverse, NULL);
        double cosine2 = f.along * f.along / f.size;
        if (cosine2 > best) {
            best = cosine2;
            chosen = inverse;
        }
    }
    return chosen;
}

/* |x'|^2 of the vector that x is a residual of, x = R(x' - mean): |x|^2 + 2 <x, R mean> + |R mean|^2. */
static double whole_norm2(const qv_codec *codec, const float *x, double norm2) {
    float buffer[QV_BLOCK];
    for (int i = 0; codec->centre != NULL && i < codec->dim; i += QV_BLOCK) {
        const float *block = qv_block(x, codec->dim, i, buffer), *centre = codec->centre + i;
        norm2 += 2 * qv_dot64(block, centre) + qv_dot64(centre, centre);
    }
    return norm2 > 0 ? norm2 : 0;
}

/* <q, v> is half of 2 * dot - offset; times |y|^2 / <y, v>, over the dims that have bits, it estimates <q, y> without
 * bias under a random rotation (RaBitQ, arXiv:2405.12497, theorem 3.2). */
float qv_encode_packed(const qv_codec *codec, const float *x, uint8_t *row, double *whole) {
    double norm2 = qv_norm2(x, codec->dim), inverse_norm = qv_inverse_norm(norm2);
    double unit = codec->metric == QV_COSINE && codec->centre == NULL ? inverse_norm : 1;
    float inverse = 0;
    if (inverse_norm > 0) inverse = codec->step != NULL ? (float)inverse_norm : best_inverse(codec, x, norm2);
    fit f = code_vector(codec, x, inverse, row);
    *whole = whole_norm2(codec, x, norm2);
    return inverse > 0 && f.along > 0 ? (float)(f.norm2 / f.along * unit / 2) : 0;
}

void qv_decode_packed(const qv_codec *codec, const uint8_t *row, float *x) {
    float scale = qv_row_factors(codec, row).scale;
    for (int i = 0, b = 0; i < codec->dim; i += QV_BLOCK, b++) {
        int width = codec->widths[b], count = codec->dim - i < QV_BLOCK ? codec->dim - i : QV_BLOCK;
        for (int j = 0; j < count; j++) {
            int doubled = width == 0 ? 0 : 2 * qv_packed_code(row, width, j) - ((1 << width) - 1);
            x[i + j] = scale * (float)doubled * (codec->step == NULL ? 1.0f : codec->step[i + j]);
        }
        row += 8 * width;
    }
}

qv_code qv_fill_packed(const qv_codec *codec, const float *y, double unit, float *scratch, int8_t *codes, int32_t *offset) {
    for (int i = 0; i < codec->dim; i++) {
        double step = codec->widths[i / QV_BLOCK] == 0 ? 0 : codec->step == NULL ? 1 : codec->step[i];
        scratch[i] = (float)(y[i] * unit * step);
    }
    qv_code code = qv_quantise(scratch, codec->dim, codes);
    *offset = 0;
    for (int b = 0; b < qv_packed_blocks(codec->dim); b++) {
        int32_t sum = 0;
        for (int j = 0; j < QV_BLOCK; j++) sum += codes[b * QV_BLOCK + j];
        *offset += ((1 << codec->widths[b]) - 1) * sum;
    }
    return code;
}
