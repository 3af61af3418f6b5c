/* Encoding and decoding of INT4 and TERNARY rows, with calibrated ranges or with a scale for each vector. */
#include "codec/packed.h"

#include "codec/centroids.h"

#include <float.h>

#define ROUNDS 2

/* Steps that are tried around the fitted one; more trials reduce the squared error by less than 1 %. */
static const double TRIALS[] = {0.88, 0.94, 1.0, 1.06, 1.13};
#define N_TRIALS ((int)(sizeof TRIALS / sizeof *TRIALS))

/* Values are symmetric, in steps. The codes from `above` on stand for positive values, which grow by `gap`. A value
 * of x is rounded to the nearest, of two equally near ones to the one nearer to 0. */
typedef struct {
    int n, above, below; /* above, below: the middle codes of either sign; equal if there is a code for 0 */
    float first, half[8], gap[8];
} ladder;

static ladder ladder_of(const qv_levels *levels) {
    ladder l = {.above = (levels->top + 1) / 2, .below = levels->top / 2};
    const uint8_t *table = levels->table + l.above;
    l.n = levels->top - l.above;
    l.first = (float)(table[0] - levels->middle);
    for (int i = 0; i < l.n; i++) {
        l.gap[i] = (float)(table[i + 1] - table[i]);
        l.half[i] = (float)(table[i + 1] + table[i]) / 2 - (float)levels->middle;
    }
    return l;
}

QV_INLINE void nearest_codes(const ladder *l, const float *block, float per_step, uint8_t *codes) {
    int32_t passed[QV_BLOCK] = {0};
    for (int i = 0; i < l->n; i++) {
        float half = l->half[i];
        for (int j = 0; j < QV_BLOCK; j++) passed[j] += fabsf(block[j] * per_step) > half;
    }
    for (int j = 0; j < QV_BLOCK; j++) codes[j] = (uint8_t)(block[j] < 0 ? l->below - passed[j] : l->above + passed[j]);
}

/* Absolute values of the nearest codes. */
QV_INLINE void nearest_sizes(const ladder *l, const float *size, float *k) {
    for (int j = 0; j < QV_BLOCK; j++) k[j] = l->first;
    for (int i = 0; i < l->n; i++) {
        float half = l->half[i], gap = l->gap[i];
        for (int j = 0; j < QV_BLOCK; j++) k[j] += size[j] > half ? gap : 0.0f;
    }
}

typedef struct {
    float step;
    double along; /* <x, k> */
    double power; /* |k|^2 */
} fit;

QV_INLINE float in_range(double step) { return step < FLT_MAX ? (float)step : FLT_MAX; }

/* <x, k> and |k|^2 of the values k nearest to x at a step. Signs cancel in both. */
QV_INLINE fit fit_levels(const qv_source *source, const ladder *l, double step) {
    float buffer[QV_BLOCK], size[QV_BLOCK], scaled[QV_BLOCK], k[QV_BLOCK];
    fit f = {in_range(step), 0, 0};
    float per_step = 1 / f.step;
    for (int i = 0; i < source->dim; i += QV_BLOCK) {
        const float *block = qv_source_block(source, i, buffer);
        for (int j = 0; j < QV_BLOCK; j++) size[j] = fabsf(block[j]);
        for (int j = 0; j < QV_BLOCK; j++) scaled[j] = fabsf(block[j] * per_step);
        nearest_sizes(l, scaled, k);
        for (int j = source->dim - i; j < QV_BLOCK; j++) k[j] = 0;
        f.along += qv_dot64(size, k);
        f.power += qv_dot64(k, k);
    }
    return f;
}

/* Find the step whose values point most nearly along x. First, alternate between codes and step, each optimal for
 * the other (Lloyd 1982; for three levels this is the threshold of ternary weight networks, Li, Zhang and Liu,
 * arXiv:1605.04711, eq. 5). This finds the scale of any distribution, but only a local optimum, so the best of some
 * steps around it is taken. */
QV_INLINE fit fit_step(const qv_source *source, const qv_levels *levels, double norm2) {
    const ladder l = ladder_of(levels);
    fit f = {.step = in_range(levels->start * sqrt(norm2 / source->dim))}, best = {0, 0, 0};
    for (int round = 0; round < ROUNDS; round++) {
        f = fit_levels(source, &l, f.step);
        f.step = in_range(f.along / f.power);
    }
    for (int t = 0; t < N_TRIALS; t++) {
        fit tried = fit_levels(source, &l, TRIALS[t] * f.step);
        if (t == 0 || tried.along * tried.along * best.power > best.along * best.along * tried.power) best = tried;
    }
    return best;
}

QV_DEFINE_WIDE(static, fit, wide_fit, (const qv_source *source, const qv_levels *levels, double norm2),
               (source, levels, norm2), fit_step)

/* Pack one group of codes into a row. */
static void put_group(const qv_codec *codec, const uint8_t *codes, int start, uint8_t *row) {
    qv_pack(qv_levels_of(codec), codes, qv_packed_width(codec, start), row + start);
}

/* Encode a row with the codec's ranges. */
static void put_static(const qv_codec *codec, const float *x, double unit, uint8_t *row) {
    const qv_levels *levels = qv_levels_of(codec);
    for (int start = 0, first = 0; start < codec->data_size; start += QV_BLOCK, first += qv_group_dims(levels)) {
        uint8_t codes[4 * QV_BLOCK] = {0};
        int count = qv_group_count(codec, levels, first);
        for (int i = 0; i < count; i += QV_BLOCK) qv_static_block(codec, x, unit, first + i, levels->top, codes + i);
        memset(codes + count, 0, sizeof codes - (size_t)count);
        put_group(codec, codes, start, row);
    }
}

/* <o, k> of 64 codes and the centroid's offset, in steps. */
static double codes_dot_offset(const qv_source *source, const qv_levels *levels, int i, const uint8_t *codes) {
    int32_t sum = 0;
    int count = source->dim - i < QV_BLOCK ? source->dim - i : QV_BLOCK;
    for (int j = 0; source->offset != NULL && j < count; j++) {
        sum += (source->offset[i + j] - QV_MIDPOINT) * (levels->table[codes[j]] - levels->middle);
    }
    return sum;
}

/* Encode a row with a step. Returns <o, k>. */
static double put_codes(const qv_codec *codec, const qv_source *source, float step, uint8_t *row) {
    const qv_levels *levels = qv_levels_of(codec);
    const ladder l = ladder_of(levels);
    float buffer[QV_BLOCK];
    double along = 0;
    for (int start = 0, first = 0; start < codec->data_size; start += QV_BLOCK, first += qv_group_dims(levels)) {
        uint8_t codes[4 * QV_BLOCK] = {0};
        int count = qv_group_count(codec, levels, first);
        for (int i = 0; i < count; i += QV_BLOCK) {
            nearest_codes(&l, qv_source_block(source, first + i, buffer), 1 / step, codes + i);
            along += codes_dot_offset(source, levels, first + i, codes + i);
        }
        memset(codes + count, 0, sizeof codes - (size_t)count);
        put_group(codec, codes, start, row);
    }
    return along;
}

/* A zero vector has scale 0; its codes have no meaning. */
static void encode_own_scale(const qv_codec *codec, const float *x, double unit, int center, uint8_t *row) {
    qv_source source = qv_source_of(codec, x, unit);
    qv_coded coded = {.center = center};
    qv_move_source(codec, coded.center, &source);
    coded.norm2 = qv_source_norm2(&source);
    if (sqrt(coded.norm2) >= QV_TINY_NORM) {
        fit f = wide_fit(&source, qv_levels_of(codec), coded.norm2);
        coded.along = put_codes(codec, &source, f.step, row);
        coded.scale = coded.norm2 / f.along; /* |x|^2 / <x, k> in place of the step: see qv_quantize */
    }
    if (qv_is_centered(codec)) {
        qv_put_centered(codec, &source, &coded, row);
        return;
    }
    if (codec->metric == QV_COSINE) coded.scale *= qv_inverse_norm(coded.norm2);
    qv_put_factors(codec, row, (float)coded.scale, coded.norm2);
}

void qv_encode_packed(const qv_codec *codec, const float *x, const qv_located *located, uint8_t *row) {
    double norm2 = located->norm2, unit = qv_unit_of(codec, norm2);
    if (!qv_is_static(codec)) {
        encode_own_scale(codec, x, unit, located->center, row);
        return;
    }
    put_static(codec, x, unit, row);
    qv_put_factors(codec, row, 1.0f, norm2);
}

void qv_decode_packed(const qv_codec *codec, const uint8_t *row, float *x) {
    const qv_levels *levels = qv_levels_of(codec);
    float scale = qv_row_factors(codec, row).scale;
    uint8_t codes[4 * QV_BLOCK];
    for (int start = 0, first = 0; start < codec->data_size; start += QV_BLOCK, first += qv_group_dims(levels)) {
        int count = qv_group_count(codec, levels, first);
        qv_unpack(levels, row + start, qv_packed_width(codec, start), codes);
        for (int j = 0; j < count; j++) {
            if (qv_is_static(codec)) x[first + j] = codec->lower[first + j] + codec->step[first + j] * (float)codes[j];
            else x[first + j] = scale * (float)(levels->table[codes[j]] - levels->middle);
        }
    }
    qv_add_centroid(codec, scale, x);
}
