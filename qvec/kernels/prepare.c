/* Queries: the vector in the form that the kernel eats, and the terms that turn its dot product into a key. */
#include "packed.h"
#include "rows.h"

#include <math.h>

/* <q, x> is estimated as base + scale * row.scale * (dot - offset). */
typedef struct {
    double base, norm2;
    float scale;
    int32_t offset;
} estimate;

static uint8_t *payload(qv_query *query) { return (uint8_t *)(query + 1); }

static void search_terms(const qv_codec *codec, const estimate *e, qv_query *out) {
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
    if (codec->metric == QV_L2) return;
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

static void fill_dynamic(const qv_codec *codec, const float *q, estimate *e, qv_query *out) {
    qv_code code = qv_quantise(q, codec->dim, (int8_t *)payload(out));
    e->norm2 = code.norm2;
    e->scale = (float)(code.scale * unit_of(codec, code.norm2));
    e->offset = QV_MIDPOINT * code.sum;
}

/* Room for a static query's float weights, behind its codes. */
static float *scratch(const qv_codec *codec, qv_query *out) { return (float *)(payload(out) + codec->data_size); }

/* x = lower + step * c, so <y, x> = <y, lower + 128 step> + <w, c - 128> with w = step * y: the data's per-dimension
 * step goes into the query, which is then coded as any vector is. `y` may be the scratch itself. */
static void fill_static(const qv_codec *codec, const float *y, double unit, estimate *e, qv_query *out) {
    float *weights = scratch(codec, out);
    double lanes[8] = {0};
    for (int i = 0; i < codec->dim; i++) {
        double middle = codec->lower[i] + QV_MIDPOINT * (double)codec->step[i];
        lanes[i % 8] += y[i] * unit * middle;
        weights[i] = (float)(y[i] * unit * codec->step[i]);
    }
    qv_code code = qv_quantise(weights, codec->dim, (int8_t *)payload(out));
    e->base = qv_fold_lanes(lanes);
    e->scale = code.scale;
    e->offset = QV_MIDPOINT * code.sum;
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

/* `y` may be the scratch. Vectors are residuals of the centre: <y, x' + centre> = <y, centre> + <y, x'>. */
static void fill_packed(const qv_codec *codec, const float *y, double unit, estimate *e, qv_query *out) {
    int8_t *codes = (int8_t *)payload(out);
    for (int i = 0; codec->centre != NULL && i < codec->dim; i++) e->base += y[i] * unit * codec->centre[i];
    float *weights = (float *)(codes + qv_round_up((size_t)codec->dim, QV_BLOCK));
    e->scale = qv_fill_packed(codec, y, unit, weights, codes, &e->offset).scale;
}

static void fill_packed_row(const qv_codec *codec, const uint8_t *row, estimate *e, qv_query *out) {
    float *y = (float *)(payload(out) + qv_round_up((size_t)codec->dim, QV_BLOCK));
    qv_decode(codec, row, 1, y);
    for (int i = 0; codec->centre != NULL && i < codec->dim; i++) y[i] += codec->centre[i];
    e->norm2 = qv_row_factors(codec, row).norm2;
    fill_packed(codec, y, 1, e, out);
}

void qv_prepare(const qv_codec *codec, const float *q, qv_query *out) {
    estimate e = {0};
    memset(out, 0, (size_t)codec->query_size);
    if (codec->kind == QV_BINARY) {
        qv_encode(codec, q, 1, payload(out));
        return;
    }
    if (qv_is_packed(codec)) {
        e.norm2 = qv_norm2(q, codec->dim);
        fill_packed(codec, q, unit_of(codec, e.norm2), &e, out);
    } else if (qv_is_static(codec)) {
        e.norm2 = qv_norm2(q, codec->dim);
        fill_static(codec, q, unit_of(codec, e.norm2), &e, out);
    } else if (codec->kind == QV_INT8) {
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
    if (qv_is_packed(codec)) {
        fill_packed_row(codec, row, &e, out);
    } else if (qv_is_static(codec)) {
        qv_decode(codec, row, 1, scratch(codec, out));
        e.norm2 = qv_row_factors(codec, row).norm2;
        fill_static(codec, scratch(codec, out), 1, &e, out);
    } else if (codec->kind == QV_INT8) {
        fill_dynamic_row(codec, row, &e, out);
    } else {
        qv_decode(codec, row, 1, (float *)payload(out));
        fill_float(codec, (float *)payload(out), &e, out);
    }
    build_terms(codec, &e, out);
}
