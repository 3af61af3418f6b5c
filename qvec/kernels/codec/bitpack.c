/* Encoding and decoding of bit-packed rows. Compiled for the baseline: rows are equal on every machine. */
#include "codec/bitpack.h"

#include "codec/centroids.h"

/* Widths of a step in standard deviations that lose least of a Gaussian, 1 to 8 bits (Max, IRE Trans. Inf. Theory 6,
 * 1960, table II, even levels; 7 and 8 bits found by the same integral). */
static const double GAUSSIAN_STEP[9] = {0, 1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0568, 0.0308};

/* Steps that are tried, relative to the Gaussian one; a vector's best step is within (docs/quantization.md). */
static const double TRIALS[] = {0.80, 0.88, 0.94, 1.0, 1.06, 1.13, 1.22, 1.34};
#define N_TRIALS ((int)(sizeof TRIALS / sizeof *TRIALS))

/* Result of encoding y as values v: <y, v>, |v|^2, |y|^2 of the dims that have bits, and <o, v>. */
typedef struct {
    double along, size, norm2, offset;
} fit;

/* Values floor(y / step) + 1/2 of a block, within the width's range. */
QV_INLINE void block_values(const float *y, const float *per_step, int width, float *values) {
    float high = (float)((1 << (width - 1)) - 1), low = -high - 1;
    for (int j = 0; j < QV_BLOCK; j++) {
        values[j] = (float)qv_round(qv_clamp(y[j] * per_step[j] - 0.5f, low, high)) + 0.5f;
    }
}

QV_INLINE void pack(const float *values, int width, uint8_t *data) {
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

/* 1 / step of a block's dims: one for all, or (MIXED) the trained steps, which are relative to the vector's length. */
QV_INLINE void block_per_step(const qv_codec *codec, int i, float inverse, float *per_step) {
    for (int j = 0; j < QV_BLOCK; j++) {
        float step = codec->step == NULL ? 1.0f : codec->step[i + j];
        per_step[j] = step > 0 ? inverse / step : 0;
    }
}

/* <o, v> of a block of values and the centroid's offset. */
QV_INLINE double values_dot_offset(const qv_source *source, int i, const float *values) {
    float offset[QV_BLOCK];
    if (source->offset == NULL) return 0;
    for (int j = 0; j < QV_BLOCK; j++) offset[j] = (float)(source->offset[i + j] - QV_MIDPOINT);
    return qv_dot64(offset, values);
}

/* Padding dims get values of 1/2, which are set to 0 before the sums. */
QV_INLINE fit code_vector(const qv_codec *codec, const qv_source *source, float inverse, uint8_t *row) {
    float buffer[QV_BLOCK], per_step[QV_BLOCK], values[QV_BLOCK];
    fit f = {0, 0, 0, 0};
    for (int i = 0, b = 0; i < codec->dim; i += QV_BLOCK, b++) {
        int width = codec->widths[b];
        if (width == 0) continue;
        const float *block = qv_source_block(source, i, buffer);
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
        if (row != NULL) f.offset += values_dot_offset(source, i, values);
    }
    return f;
}

QV_INLINE fit try_vector(const qv_codec *codec, const qv_source *source, float inverse) {
    return code_vector(codec, source, inverse, NULL);
}

QV_DEFINE_WIDE(static, fit, fit_step, (const qv_codec *codec, const qv_source *source, float inverse),
               (codec, source, inverse), try_vector)
QV_DEFINE_WIDE(static, fit, put, (const qv_codec *codec, const qv_source *source, float inverse, uint8_t *row),
               (codec, source, inverse, row), code_vector)

/* RABITQ: the step whose values point most nearly along the vector (arXiv:2409.09913, section 3.2, which sweeps all of
 * them). One bit has no choice: the values are signs. */
static float best_inverse(const qv_codec *codec, const qv_source *source, double norm2) {
    double sigma = sqrt(norm2 / codec->dim), best = -1;
    float chosen = (float)(1 / (GAUSSIAN_STEP[codec->bits] * sigma));
    for (int t = 0; codec->bits > 1 && t < N_TRIALS; t++) {
        float inverse = (float)(1 / (TRIALS[t] * GAUSSIAN_STEP[codec->bits] * sigma));
        fit f = fit_step(codec, source, inverse);
        double cosine2 = f.along * f.along / f.size;
        if (cosine2 > best) {
            best = cosine2;
            chosen = inverse;
        }
    }
    return chosen;
}

/* <q, v> is half of 2 * dot - offset; times |y|^2 / <y, v>, over the dims that have bits, it estimates <q, y> without
 * bias under a random rotation (RaBitQ, arXiv:2405.12497, theorem 3.2). */
void qv_encode_bitpack(const qv_codec *codec, const float *x, uint8_t *row) {
    double whole = qv_norm2(x, codec->dim);
    qv_source source = qv_source_of(codec, x, qv_unit_of(codec, whole));
    qv_coded coded = {.center = qv_nearest_centroid(codec, &source)};
    qv_move_source(codec, coded.center, &source);
    coded.norm2 = qv_source_norm2(&source);
    double inverse_norm = qv_inverse_norm(coded.norm2);
    float inverse = 0;
    if (inverse_norm > 0)
        inverse = codec->step != NULL ? (float)inverse_norm : best_inverse(codec, &source, coded.norm2);
    fit f = put(codec, &source, inverse, row);
    if (inverse > 0 && f.along > 0) coded.scale = f.norm2 / f.along / 2;
    coded.along = 2 * f.offset;
    if (qv_is_centered(codec)) {
        qv_put_centered(codec, &source, &coded, row);
        return;
    }
    double unit = codec->metric == QV_COSINE ? inverse_norm : 1;
    qv_put_factors(codec, row, (float)(coded.scale * unit), whole);
}

void qv_decode_bitpack(const qv_codec *codec, const uint8_t *row, float *x) {
    float scale = qv_row_factors(codec, row).scale;
    for (int i = 0, b = 0; i < codec->dim; i += QV_BLOCK, b++) {
        int width = codec->widths[b], count = codec->dim - i < QV_BLOCK ? codec->dim - i : QV_BLOCK;
        for (int j = 0; j < count; j++) {
            int doubled = width == 0 ? 0 : 2 * qv_bitpack_code(row, width, j) - ((1 << width) - 1);
            x[i + j] = scale * (float)doubled * (codec->step == NULL ? 1.0f : codec->step[i + j]);
        }
        row += 8 * width;
    }
    qv_add_centroid(codec, scale, x);
}
