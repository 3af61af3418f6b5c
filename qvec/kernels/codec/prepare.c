/* Preparation of queries: the vector in the form that the kernel reads, and the terms that turn its dot product into
 * a key. */
#include "codec/bitpack.h"
#include "codec/centroids.h"
#include "codec/packed.h"

#include <math.h>

/* <q, x> is estimated as base + scale * row.scale * (dot - offset). */
typedef struct {
    double base, norm2;
    float scale;
    int32_t offset;
} estimate;

static uint8_t *payload(qv_query *query) { return (uint8_t *)(query + 1); }

/* Terms of share * |q - x|^2 between vectors that are both centered. */
static void shifted_terms(const estimate *e, float share, qv_query *out) {
    out->bias = share * (float)(e->norm2 < QV_NORM2_MAX ? e->norm2 : QV_NORM2_MAX);
    out->per_norm2 = share;
    out->per_scale = -2 * share * e->scale;
    out->floor = 0;
    out->offset = e->offset;
}

/* Clamp dot products of huge vectors, so that sums with others stay finite. */
static float bounded(double v) {
    return (float)(v > QV_NORM2_MAX ? QV_NORM2_MAX : v < -QV_NORM2_MAX ? -QV_NORM2_MAX : v);
}

static void search_terms(const qv_codec *codec, const estimate *e, qv_query *out) {
    if (codec->metric == QV_L2) out->per_table *= 2;
    if (qv_is_shifted(codec)) {
        shifted_terms(e, codec->metric == QV_COSINE ? 0.5f : 1.0f, out);
        return;
    }
    double norm2 = e->norm2 < QV_NORM2_MAX ? e->norm2 : QV_NORM2_MAX;
    float factor = codec->metric == QV_L2 ? 2.0f : 1.0f;
    double constant = codec->metric == QV_L2 ? norm2 : codec->metric == QV_COSINE ? 1 : 0;
    out->bias = bounded(constant - factor * e->base);
    out->per_norm2 = codec->metric == QV_L2 ? 1.0f : 0.0f;
    out->per_scale = -factor * e->scale;
    out->floor = codec->metric == QV_IP ? -INFINITY : 0.0f;
    out->offset = e->offset;
}

/* Terms of graph construction: |q - x|^2, which is 2 - 2<q, x> on the unit sphere; -2<q, x> under ip. */
static void build_terms(const qv_codec *codec, const estimate *e, qv_query *out) {
    search_terms(codec, e, out);
    if (codec->metric != QV_L2) out->per_table *= 2;
    if (qv_is_shifted(codec)) shifted_terms(e, 1, out);
    if (codec->metric == QV_L2 || qv_is_shifted(codec)) return;
    out->bias = bounded((codec->metric == QV_COSINE ? 2 : 0) - 2 * e->base);
    out->per_scale = -2 * e->scale;
    out->floor = codec->metric == QV_COSINE ? 0.0f : -INFINITY;
}

static double unit_of(const qv_codec *codec, double norm2) {
    return codec->metric == QV_COSINE ? qv_inverse_norm(norm2) : 1;
}

/* `q` may be the payload itself. */
static void fill_float(const qv_codec *codec, const float *q, estimate *e, qv_query *out) {
    float *y = (float *)payload(out);
    e->norm2 = qv_norm2(q, codec->dim);
    qv_scale(q, codec->dim, unit_of(codec, e->norm2), y);
    e->scale = 1;
    out->op = codec->metric == QV_L2 ? QV_OP_L2 : QV_OP_DOT;
}

static int32_t midpoint(const qv_codec *codec) {
    return qv_is_packed(codec->kind) ? qv_levels_of(codec)->middle : QV_MIDPOINT;
}

/* Offset of the codes, which are in dim order, and their order for the kernel. */
static void finish_codes(const qv_codec *codec, int32_t sum, estimate *e, qv_query *out) {
    e->offset = midpoint(codec) * sum;
    if (qv_is_packed(codec->kind)) qv_spread(codec, (int8_t *)payload(out));
}

static void fill_dynamic(const qv_codec *codec, const float *q, estimate *e, qv_query *out) {
    qv_code code;
    int8_t *k = (int8_t *)payload(out);
    if (!codec->integers || !qv_take_integers(q, codec->dim, k, &code)) {
        qv_source source = qv_plain_source(codec, q);
        code = qv_quantize(&source, k);
    }
    e->norm2 = code.norm2;
    e->scale = (float)(code.scale * unit_of(codec, code.norm2));
    finish_codes(codec, code.sum, e, out);
}

/* Space for float weights of a query that is changed before it is coded; it is behind the codes,
 * which take a fifth. */
static float *scratch(const qv_codec *codec, qv_query *out) {
    size_t size = (size_t)codec->query_size - sizeof *out - (size_t)qv_table_bytes(codec);
    return (float *)(payload(out) + size / 5);
}

/* Kernels sum signed codes: c - 128, and for INT4, in half steps, 2c - 15. */
static double signed_step(const qv_codec *codec, int i) {
    return codec->kind == QV_INT8 ? codec->step[i] : codec->step[i] / 2.0;
}

static int signed_middle(const qv_codec *codec) { return codec->kind == QV_INT8 ? QV_MIDPOINT : 15; }

/* x = lower + step * c, so <y, x> = <y, lower + 128 step> + <w, c - 128> with w = step * y: the
 * step of each dimension is multiplied into the query, which is then coded like any vector. `y`
 * may be the scratch itself. */
static void fill_folded(const qv_codec *codec, const float *y, double unit, estimate *e, qv_query *out) {
    float *weights = scratch(codec, out);
    double lanes[8] = {0};
    for (int i = 0; i < codec->dim; i++) {
        double step = signed_step(codec, i);
        lanes[i % 8] += y[i] * unit * (codec->lower[i] + signed_middle(codec) * step);
        weights[i] = (float)(y[i] * unit * step);
    }
    qv_source source = qv_plain_source(codec, weights);
    qv_code code = qv_quantize(&source, (int8_t *)payload(out));
    e->base = qv_fold_lanes(lanes);
    e->scale = code.scale;
    finish_codes(codec, code.sum, e, out);
}

static double dot_centroid(const qv_codec *codec, const qv_source *query) {
    float buffer[QV_BLOCK];
    double sum = 0;
    for (int i = 0; i < codec->dim; i += QV_BLOCK)
        sum += qv_dot64(qv_source_block(query, i, buffer), codec->center + i);
    return sum;
}

/* The query as weights of the decoded codes, padded with 0. `query` may be in the scratch
 * itself. */
static void put_weights(const qv_codec *codec, const qv_source *query, float *weights) {
    float buffer[QV_BLOCK];
    for (int i = 0; i < codec->dim; i += QV_BLOCK) {
        memmove(weights + i, qv_source_block(query, i, buffer), QV_BLOCK * sizeof *weights);
        if (!qv_is_bitpacked(codec) || codec->step == NULL) continue;
        int live = codec->widths[i / QV_BLOCK] > 0;
        for (int j = 0; j < QV_BLOCK; j++) weights[i + j] = live ? weights[i + j] * codec->step[i + j] : 0;
    }
}

/* Codes of a block of w bits are 2 c - (2^w - 1), so their offsets differ. */
static int32_t bitpack_offset(const qv_codec *codec, const int8_t *codes) {
    int32_t offset = 0;
    for (int b = 0; b < qv_bitpack_blocks(codec->dim); b++) {
        int32_t sum = 0;
        for (int j = 0; j < QV_BLOCK; j++) sum += codes[b * QV_BLOCK + j];
        offset += ((1 << codec->widths[b]) - 1) * sum;
    }
    return offset;
}

/* Vectors are residuals of a center: <y, x' + center> = <y, center> + <y, x'>. If both sides are
 * shifted, y is a residual too, and the first term is absent. */
static void fill_weights(const qv_codec *codec, const float *y, double unit, estimate *e, qv_query *out) {
    qv_source query = qv_plain_source(codec, y), weights = qv_plain_source(codec, scratch(codec, out));
    query.unit = unit;
    if (qv_is_shifted(codec)) query.center = codec->center;
    int8_t *codes = (int8_t *)payload(out);
    if (qv_is_shifted(codec)) e->norm2 = qv_source_norm2(&query);
    else if (qv_is_centered(codec)) e->base = dot_centroid(codec, &query);
    if (codec->n_offsets > 0) qv_open_table(codec, &query, out);
    put_weights(codec, &query, scratch(codec, out));
    qv_code code = qv_quantize(&weights, codes);
    e->scale = code.scale;
    if (!qv_is_bitpacked(codec)) finish_codes(codec, code.sum, e, out);
    else e->offset = bitpack_offset(codec, codes);
    if (codec->bits != 1) return;
    int8_t *values = (int8_t *)scratch(codec, out); /* weights are not needed from here on */
    memcpy(values, codes, (size_t)(8 * codec->data_size));
    qv_spread_bits(values, 8 * codec->data_size, codes);
}

/* A row's codes are symmetric already: c - 128 is the signed form. Values are copied to locals and pointers are
 * restrict, so that the loop vectorizes: byte pointers may alias anything. */
static void fill_dynamic_row(const qv_codec *codec, const uint8_t *restrict row, estimate *e, qv_query *out) {
    const int n = codec->data_size;
    uint8_t *restrict codes = payload(out);
    int32_t sum = 0;
    for (int i = 0; i < n; i++) {
        codes[i] = row[i] ^ QV_MIDPOINT;
        sum += row[i] - QV_MIDPOINT;
    }
    qv_factors factors = qv_row_factors(codec, row);
    *e = (estimate){.norm2 = factors.norm2, .scale = factors.scale, .offset = QV_MIDPOINT * sum};
}

static void fill_packed_row(const qv_codec *codec, const uint8_t *row, estimate *e, qv_query *out) {
    const qv_levels *levels = qv_levels_of(codec);
    const int dim = codec->dim, middle = levels->middle;
    int8_t *restrict k = (int8_t *)payload(out);
    int32_t sum = 0;
    for (int start = 0, first = 0; start < codec->data_size; start += QV_BLOCK, first += qv_group_dims(levels)) {
        uint8_t codes[4 * QV_BLOCK];
        int width = qv_packed_width(codec, start), count = width * levels->planes;
        qv_unpack(levels, row + start, width, codes);
        if (count > dim - first) count = dim - first;
        for (int j = 0; j < count; j++) {
            int32_t value = levels->table[codes[j]] - middle;
            k[first + j] = (int8_t)value;
            sum += value;
        }
    }
    qv_factors factors = qv_row_factors(codec, row);
    *e = (estimate){.norm2 = factors.norm2, .scale = factors.scale};
    finish_codes(codec, sum, e, out);
}

static int has_integer_codes(const qv_codec *codec) { return codec->kind == QV_INT8 || qv_is_packed(codec->kind); }

/* Whether queries are floats that are scaled or shifted first, for any codes of the rows. */
static int has_weights(const qv_codec *codec) { return qv_is_bitpacked(codec) || qv_is_centered(codec); }

void qv_prepare(const qv_codec *codec, const float *q, qv_query *out) {
    estimate e = {0};
    memset(out, 0, (size_t)codec->query_size);
    if (codec->kind == QV_BINARY) {
        qv_encode(codec, q, 1, payload(out));
        return;
    }
    if (has_weights(codec) || codec->lower) e.norm2 = qv_norm2(q, codec->dim);
    if (has_weights(codec)) {
        double unit = qv_is_shifted(codec) ? qv_unit_of(codec, e.norm2) : unit_of(codec, e.norm2);
        fill_weights(codec, q, unit, &e, out);
    } else if (codec->lower) {
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
    if (has_weights(codec)) {
        qv_decode(codec, row, 1, scratch(codec, out));
        fill_weights(codec, scratch(codec, out), 1, &e, out);
        e.norm2 = qv_row_factors(codec, row).norm2;
    } else if (codec->lower) {
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
