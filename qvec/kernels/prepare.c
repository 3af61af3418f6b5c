/* Queries: the vector in the form that the kernel eats, and the terms that turn its dot product into a key. */
#include "bitpack.h"
#include "packed.h"

#include <math.h>

/* <q, x> is estimated as base + scale * row.scale * (dot - offset). */
typedef struct {
    double base, norm2;
    float scale;
    int32_t offset;
} estimate;

static uint8_t *payload(qv_query *query) { return (uint8_t *)(query + 1); }

/* `share` of |q - x|^2 between vectors that are both centred. */
static void shifted_terms(const estimate *e, float share, qv_query *out) {
    out->bias = share * (float)(e->norm2 < QV_NORM2_MAX ? e->norm2 : QV_NORM2_MAX);
    out->per_norm2 = share;
    out->per_scale = -2 * share * e->scale;
    out->floor = 0;
    out->offset = e->offset;
}

static void search_terms(const qv_codec *codec, const estimate *e, qv_query *out) {
    if (qv_is_shifted(codec)) {
        shifted_terms(e, codec->metric == QV_COSINE ? 0.5f : 1.0f, out);
        return;
    }
    double norm2 = e->norm2 < QV_NORM2_MAX ? e->norm2 : QV_NORM2_MAX;
    float factor = codec->metric == QV_L2 ? 2.0f : 1.0f;
    double constant = codec->metric == QV_L2 ? norm2 : codec->metric == QV_COSINE ? 1 : 0;
    out->bias = (float)(constant - factor * e->base);
    out->per_norm2 = codec->metric == QV_L2 ? 1.0f : 0.0f;
    out->per_scale = -factor * e->scale;
    out->floor = codec->metric == QV_IP ? -INFINITY : 0.0f;
    out->offset = e->offset;
}

/* |q - x|^2 where the graph is built: 2 - 2<q, x> on the unit sphere; under ip both vectors carry one more coordinate
 * sqrt(lift2 - |x|^2) that puts them on a sphere of radius^2 lift2 (Bachrach et al., RecSys 2014, eq. 3). */
static void build_terms(const qv_codec *codec, const estimate *e, qv_query *out) {
    search_terms(codec, e, out);
    if (qv_is_shifted(codec)) shifted_terms(e, 1, out);
    if (codec->metric == QV_L2 || qv_is_shifted(codec)) return;
    double constant = codec->metric == QV_COSINE ? 2 : 2.0 * codec->lift2;
    out->bias = (float)(constant - 2 * e->base);
    out->per_scale = -2 * e->scale;
    out->floor = 0;
    if (codec->metric == QV_COSINE || e->norm2 >= codec->lift2) return;
    out->lift = (float)sqrt(codec->lift2 - e->norm2);
    out->lift2 = codec->lift2;
}

static double unit_of(const qv_codec *codec, double norm2) {
    return codec->metric == QV_COSINE ? qv_inverse_norm(norm2) : 1;
}

/* `q` may be the payload itself. */
static void fill_float(const qv_codec *codec, const float *q, estimate *e, qv_query *out) {
    float *y = (float *)payload(out);
    e->norm2 = qv_norm2(q, codec->dim);
    double unit = unit_of(codec, e->norm2);
    for (int i = 0; i < codec->dim; i++) y[i] = (float)(q[i] * unit);
    e->scale = 1;
    out->op = codec->metric == QV_L2 ? QV_OP_L2 : QV_OP_DOT;
}

static int32_t midpoint(const qv_codec *codec) {
    return qv_is_packed(codec->kind) ? qv_levels_of(codec->kind)->middle : QV_MIDPOINT;
}

/* The code of the payload's kernel from its dims in order. */
static void finish_codes(const qv_codec *codec, int32_t sum, estimate *e, qv_query *out) {
    e->offset = midpoint(codec) * sum;
    if (qv_is_packed(codec->kind)) qv_spread(codec, (int8_t *)payload(out));
}

static void fill_dynamic(const qv_codec *codec, const float *q, estimate *e, qv_query *out) {
    qv_code code;
    int8_t *k = (int8_t *)payload(out);
    if (!codec->integers || !qv_take_integers(q, codec->dim, k, &code)) code = qv_quantise(q, codec->dim, k);
    e->norm2 = code.norm2;
    e->scale = (float)(code.scale * unit_of(codec, code.norm2));
    finish_codes(codec, code.sum, e, out);
}

/* Room for the float weights of a query that something is folded into, behind its codes: a fifth of it is codes. */
static float *scratch(const qv_codec *codec, qv_query *out) {
    size_t size = (size_t)codec->query_size - sizeof *out;
    return (float *)(payload(out) + size / 5);
}

/* The step of the signed codes that kernels add up: INT4 counts in half steps, 2c - 15. */
static double signed_step(const qv_codec *codec, int i) {
    return codec->kind == QV_INT8 ? codec->step[i] : codec->step[i] / 2.0;
}

/* x = lower + step * c, so <y, x> = <y, lower + 128 step> + <w, c - 128> with w = step * y: the data's per-dimension
 * step goes into the query, which is then coded as any vector is. Under ip a centre is a lower end without a
 * step: <y, x> = <y, centre> + <y, x - centre>. `y` may be the scratch itself. */
static void fill_folded(const qv_codec *codec, const float *y, double unit, estimate *e, qv_query *out) {
    float *weights = scratch(codec, out);
    double lanes[8] = {0};
    for (int i = 0; i < codec->dim; i++) {
        double step = qv_is_static(codec) ? signed_step(codec, i) : 1;
        double middle = codec->lower[i] + (qv_is_static(codec) ? midpoint(codec) * step : 0);
        lanes[i % 8] += y[i] * unit * middle;
        weights[i] = (float)(y[i] * unit * step);
    }
    qv_code code = qv_quantise(weights, codec->dim, (int8_t *)payload(out));
    e->base = qv_fold_lanes(lanes);
    e->scale = code.scale;
    finish_codes(codec, code.sum, e, out);
}

static void fill_shifted(const qv_codec *codec, const float *q, double unit, estimate *e, qv_query *out) {
    float *weights = scratch(codec, out);
    for (int i = 0; i < codec->dim; i++) weights[i] = (float)(q[i] * unit) - codec->lower[i];
    qv_code code = qv_quantise(weights, codec->dim, (int8_t *)payload(out));
    *e = (estimate){.norm2 = code.norm2, .scale = code.scale};
    finish_codes(codec, code.sum, e, out);
}

/* A row's codes are symmetric already: c - 128 is the signed form. */
static void fill_dynamic_row(const qv_codec *codec, const uint8_t *row, estimate *e, qv_query *out) {
    uint8_t *codes = payload(out);
    int32_t sum = 0;
    for (int i = 0; i < codec->data_size; i++) {
        codes[i] = row[i] ^ QV_MIDPOINT;
        sum += row[i] - QV_MIDPOINT;
    }
    qv_factors factors = qv_row_factors(codec, row);
    *e = (estimate){.norm2 = factors.norm2, .scale = factors.scale, .offset = QV_MIDPOINT * sum};
}

static void fill_packed_row(const qv_codec *codec, const uint8_t *row, estimate *e, qv_query *out) {
    const qv_levels *levels = qv_levels_of(codec->kind);
    int8_t *k = (int8_t *)payload(out);
    int32_t sum = 0;
    for (int start = 0, first = 0; start < codec->data_size; start += QV_BLOCK, first += qv_group_dims(levels)) {
        uint8_t codes[4 * QV_BLOCK];
        int width = qv_packed_width(codec, start), count = width * levels->planes;
        qv_unpack(levels, row + start, width, codes);
        if (count > codec->dim - first) count = codec->dim - first;
        for (int j = 0; j < count; j++) {
            k[first + j] = (int8_t)(levels->factor * codes[j] - levels->middle);
            sum += k[first + j];
        }
    }
    qv_factors factors = qv_row_factors(codec, row);
    *e = (estimate){.norm2 = factors.norm2, .scale = factors.scale};
    finish_codes(codec, sum, e, out);
}

static int has_integer_codes(const qv_codec *codec) { return codec->kind == QV_INT8 || qv_is_packed(codec->kind); }

/* `y` may be the scratch. Vectors are residuals of the centre: <y, x' + centre> = <y, centre> + <y, x'>. */
static void fill_bitpack(const qv_codec *codec, const float *y, double unit, estimate *e, qv_query *out) {
    int8_t *codes = (int8_t *)payload(out);
    for (int i = 0; codec->centre != NULL && i < codec->dim; i++) e->base += y[i] * unit * codec->centre[i];
    float *weights = (float *)(codes + qv_round_up((size_t)codec->dim, QV_BLOCK));
    e->scale = qv_fill_bitpack(codec, y, unit, weights, codes, &e->offset).scale;
}

static void fill_bitpack_row(const qv_codec *codec, const uint8_t *row, estimate *e, qv_query *out) {
    float *y = (float *)(payload(out) + qv_round_up((size_t)codec->dim, QV_BLOCK));
    qv_decode(codec, row, 1, y);
    for (int i = 0; codec->centre != NULL && i < codec->dim; i++) y[i] += codec->centre[i];
    e->norm2 = qv_row_factors(codec, row).norm2;
    fill_bitpack(codec, y, 1, e, out);
}

void qv_prepare(const qv_codec *codec, const float *q, qv_query *out) {
    estimate e = {0};
    memset(out, 0, (size_t)codec->query_size);
    if (codec->kind == QV_BINARY) {
        qv_encode(codec, q, 1, payload(out));
        return;
    }
    if (qv_is_shifted(codec)) {
        fill_shifted(codec, q, qv_unit_of(codec, qv_norm2(q, codec->dim)), &e, out);
    } else if (qv_is_bitpacked(codec)) {
        e.norm2 = qv_norm2(q, codec->dim);
        fill_bitpack(codec, q, unit_of(codec, e.norm2), &e, out);
    } else if (codec->lower) {
        e.norm2 = qv_norm2(q, codec->dim);
        fill_folded(codec, q, unit_of(codec, e.norm2), &e, out);
    } else if (has_integer_codes(codec)) {
        fill_dynamic(codec, q, &e, out);
    } else {
        fill_float(codec, q, &e, out);
    }
    search_terms(codec, &e, out);
}

void qv_prepare_row(const qv_codec *codec, const uint8_t *row, qv_query *out) {
    estimate e = {0};
    memset(out, 0, (size_t)codec->query_size);
    if (codec->kind == QV_BINARY) {
        memcpy(payload(out), row, (size_t)codec->data_size);
        return;
    }
    if (qv_is_bitpacked(codec)) {
        fill_bitpack_row(codec, row, &e, out);
    } else if (codec->lower && !qv_is_shifted(codec)) {
        qv_decode(codec, row, 1, scratch(codec, out));
        e.norm2 = qv_row_factors(codec, row).norm2;
        fill_folded(codec, scratch(codec, out), 1, &e, out);
    } else if (codec->kind == QV_INT8) {
        fill_dynamic_row(codec, row, &e, out);
    } else if (qv_is_packed(codec->kind)) {
        fill_packed_row(codec, row, &e, out);
    } else {
        qv_decode(codec, row, 1, (float *)payload(out));
        fill_float(codec, (float *)payload(out), &e, out);
    }
    build_terms(codec, &e, out);
}
