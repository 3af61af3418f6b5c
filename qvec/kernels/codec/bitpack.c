/* Encoding and decoding of bit-packed rows. Compiled for the baseline: rows are equal on every machine. */
#include "codec/bitpack.h"

#include "codec/centroids.h"

/* Widths of a step in standard deviations that lose least of a Gaussian, 1 to 8 bits (Max, IRE Trans. Inf. Theory 6,
 * 1960, table II, even levels; 7 and 8 bits found by the same integral). */
static const double GAUSSIAN_STEP[9] = {0, 1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0568, 0.0308};

/* Steps that are tried, relative to the Gaussian one; a vector's best step is within (docs/quantization.md). */
static const double TRIALS[] = {0.80, 0.88, 0.94, 1.0, 1.06, 1.13, 1.22, 1.34};
#define N_TRIALS ((int)(sizeof TRIALS / sizeof *TRIALS))

/* Result of encoding y as values v: <y, v>, |y|^2 of the dims that have bits, and <o, v>. */
typedef struct {
    double along, norm2, offset;
} fit;

/* Values floor(y / step) + 1/2 of a block, within the width's range. */
QV_INLINE void block_values(const float *y, const float *per_step, int width, float *values) {
    float high = (float)((1 << (width - 1)) - 1), low = -high - 1;
    for (int j = 0; j < QV_BLOCK; j++) {
        values[j] = (float)qv_round(qv_clamp(y[j] * per_step[j] - 0.5f, low, high)) + 0.5f;
    }
}

/* Pack one part of codes that are shifted to it: bit j % 8 of byte j / 8 is the lowest bit of code j. */
QV_INLINE void pack_bits(const uint8_t *codes, uint8_t *data) {
    for (int j = 0; j < QV_BLOCK / 8; j++) {
        uint64_t eight;
        memcpy(&eight, codes + 8 * j, sizeof eight);
        data[j] = (uint8_t)((eight & 0x0101010101010101u) * 0x0102040810204080u >> 56);
    }
}

/* Pack the lowest `part` bits, 2 or 4, of each code: byte j has those of codes j, j + 8 part, ... */
QV_INLINE void pack_part(const uint8_t *codes, int part, uint8_t *data) {
    int bytes = 8 * part, mask = (1 << part) - 1;
    for (int j = 0; j < bytes; j++) {
        int byte = 0;
        for (int up = 0; up < 8 / part; up++) byte |= (codes[up * bytes + j] & mask) << up * part;
        data[j] = (uint8_t)byte;
    }
}

QV_INLINE void pack(const float *values, int width, uint8_t *data) {
    float middle = (float)((1 << width) - 1) / 2;
    uint8_t codes[QV_BLOCK];
    for (int j = 0; j < QV_BLOCK; j++) codes[j] = (uint8_t)(int32_t)(values[j] + middle);
    if (width == 8) {
        memcpy(data, codes, QV_BLOCK);
        return;
    }
    if (width & 4) {
        pack_part(codes, 4, data);
        data += 32;
        for (int j = 0; j < QV_BLOCK; j++) codes[j] >>= 4;
    }
    if (width & 2) {
        pack_part(codes, 2, data);
        data += 16;
        for (int j = 0; j < QV_BLOCK; j++) codes[j] >>= 2;
    }
    if (width & 1) pack_bits(codes, data);
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
    fit f = {0, 0, 0};
    for (int i = 0, b = 0; i < codec->dim; i += QV_BLOCK, b++) {
        int width = codec->widths[b];
        if (width == 0) continue;
        const float *block = qv_source_block(source, i, buffer);
        block_per_step(codec, i, inverse, per_step);
        block_values(block, per_step, width, values);
        pack(values, width, row);
        row += 8 * width;
        for (int j = 0; j < QV_BLOCK; j++) values[j] = i + j < codec->dim ? values[j] : 0;
        for (int j = 0; codec->step != NULL && j < QV_BLOCK; j++) values[j] *= codec->step[i + j];
        f.along += qv_dot64(block, values);
        f.norm2 += qv_dot64(block, block);
        f.offset += values_dot_offset(source, i, values);
    }
    return f;
}

QV_DEFINE_WIDE(static, fit, put, (const qv_codec *codec, const qv_source *source, float inverse, uint8_t *row),
               (codec, source, inverse, row), code_vector)

/* Add |y_i / step| v_i and v_i^2 of a block to the sums of a trial; v as in block_values, but without its sign. */
QV_INLINE void add_trial(const qv_lanes8 *sizes, float inverse, float most, qv_lanes8 *along, qv_lanes8 *size) {
    const qv_lanes8 half = (qv_lanes8){0} + 0.5f, high = (qv_lanes8){0} + most;
    qv_lanes8 a = *along, s = *size;
    for (int j = 0; j < QV_BLOCK / 8; j++) {
        qv_lanes8 y = sizes[j] * inverse, v = y - half;
        v = (v + QV_MAGIC) - QV_MAGIC + half;
        qv_mask8 below = v < high;
        v = (qv_lanes8)(((qv_mask8)v & below) | ((qv_mask8)high & ~below));
        a += y * v;
        s += v * v;
    }
    *along = a;
    *size = s;
}

QV_INLINE double sum_of(const qv_lanes8 *lanes) {
    double wide[8];
    for (int j = 0; j < 8; j++) wide[j] = (double)(*lanes)[j];
    return qv_fold_lanes(wide);
}

/* The trial whose values point most nearly along the vector, all of them in one pass. inverses: 1 / step of each. */
QV_INLINE int choose_trial(const qv_codec *codec, const qv_source *source, const float *inverses) {
    qv_lanes8 along[N_TRIALS] = {{0}}, size[N_TRIALS] = {{0}}, sizes[QV_BLOCK / 8];
    float buffer[QV_BLOCK], most = (float)(1 << (codec->bits - 1)) - 0.5f;
    for (int i = 0; i < codec->dim; i += QV_BLOCK) {
        const float *block = qv_source_block(source, i, buffer);
        for (int j = 0; j < QV_BLOCK / 8; j++)
            sizes[j] = (qv_lanes8)((qv_mask8) * (const qv_lanes8 *)(block + 8 * j) & INT32_MAX);
        for (int t = 0; t < N_TRIALS; t++) add_trial(sizes, inverses[t], most, &along[t], &size[t]);
    }
    double padding = 0.25 * (double)(qv_round_up((size_t)codec->dim, QV_BLOCK) - (size_t)codec->dim), best = -1;
    int chosen = 0;
    for (int t = 0; t < N_TRIALS; t++) {
        double sum = sum_of(&along[t]) * TRIALS[t], cosine2 = sum * sum / (sum_of(&size[t]) - padding);
        chosen = cosine2 > best ? t : chosen;
        best = cosine2 > best ? cosine2 : best;
    }
    return chosen;
}

QV_DEFINE_WIDE(static, int, best_trial, (const qv_codec *codec, const qv_source *source, const float *inverses),
               (codec, source, inverses), choose_trial)

/* RABITQ: the step whose values point most nearly along the vector (arXiv:2409.09913, section 3.2, which sweeps all of
 * them). One bit has no choice: the values are signs. */
static float best_inverse(const qv_codec *codec, const qv_source *source, double norm2) {
    double sigma = sqrt(norm2 / codec->dim);
    float inverses[N_TRIALS];
    if (codec->bits == 1) return (float)(1 / (GAUSSIAN_STEP[1] * sigma));
    for (int t = 0; t < N_TRIALS; t++) inverses[t] = (float)(1 / (TRIALS[t] * GAUSSIAN_STEP[codec->bits] * sigma));
    return inverses[best_trial(codec, source, inverses)];
}

/* <q, v> is half of 2 * dot - offset; times |y|^2 / <y, v>, over the dims that have bits, it estimates <q, y> without
 * bias under a random rotation (RaBitQ, arXiv:2405.12497, theorem 3.2). */
void qv_encode_bitpack(const qv_codec *codec, const float *x, const qv_located *located, uint8_t *row) {
    double whole = located->norm2;
    qv_source source = qv_source_of(codec, x, qv_unit_of(codec, whole));
    qv_coded coded = {.center = located->center};
    qv_move_source(codec, coded.center, &source);
    qv_flat flat;
    qv_flatten(&source, &flat);
    coded.norm2 = flat.norm2;
    double inverse_norm = qv_inverse_norm(coded.norm2);
    float inverse = 0;
    if (inverse_norm > 0)
        inverse = codec->step != NULL ? (float)inverse_norm : best_inverse(codec, &flat.source, coded.norm2);
    fit f = put(codec, &flat.source, inverse, row);
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
