/* Normalizing, centering and rotating. Eight floats at a time, by the same operations in the same order whatever the
 * instruction set, so that every machine gives the same bits.
 *
 * The rotation is the fast Hadamard form of Kac's walk: four rounds of random signs, a Walsh-Hadamard transform of the
 * first (odd rounds: last) 2^k dims, and one butterfly between the two halves, which mixes what the transform left out
 * (Fino and Algazi 1976; Ailon and Chazelle 2009 for random signs before the transform). */
#include "codec/codec.h"
#include "codec/lanes.h"

#define ROUNDS 4

/* x with its sign flipped where a bit is set. */
QV_INLINE void flip(qv_lanes8 *x, uint8_t signs) {
    const qv_mask8 each = {1, 2, 4, 8, 16, 32, 64, 128};
    qv_mask8 bits = ((qv_mask8){0} + signs) & each;
    *x = (qv_lanes8)((qv_mask8)*x ^ ((bits == each) & INT32_MIN));
}

/* Stages 1, 2 and 4 inside eight floats, scaled by the transform's 1/sqrt(n). Negation is exact: x - y = x + -y. */
QV_INLINE void hadamard_within(qv_lanes8 *v, float scale) {
    const qv_mask8 odd = {0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN};
    const qv_mask8 upper = {0, 0, INT32_MIN, INT32_MIN, 0, 0, INT32_MIN, INT32_MIN};
    const qv_mask8 last = {0, 0, 0, 0, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
    qv_lanes8 x = *v * scale;
    x = __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6) + (qv_lanes8)((qv_mask8)x ^ odd);
    x = __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5) + (qv_lanes8)((qv_mask8)x ^ upper);
    *v = __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3) + (qv_lanes8)((qv_mask8)x ^ last);
}

QV_INLINE void butterfly(qv_lanes8 *a, qv_lanes8 *b) {
    qv_lanes8 sum = *a + *b, difference = *a - *b;
    *a = sum;
    *b = difference;
}

/* Two stages, between a and b, c and d, then a and c, b and d. */
QV_INLINE void butterflies(qv_lanes8 *a, qv_lanes8 *b, qv_lanes8 *c, qv_lanes8 *d) {
    butterfly(a, b);
    butterfly(c, d);
    butterfly(a, c);
    butterfly(b, d);
}

/* Signs and the first five stages in one pass over memory. */
QV_INLINE void hadamard_start(qv_lanes8 *v, int n, const uint8_t *signs, float scale) {
    for (int i = 0; i < n; i += 4) {
        qv_lanes8 x[4];
        for (int j = 0; j < 4; j++) {
            x[j] = v[i + j];
            flip(&x[j], signs[i + j]);
            hadamard_within(&x[j], scale);
        }
        butterflies(&x[0], &x[1], &x[2], &x[3]);
        for (int j = 0; j < 4; j++) v[i + j] = x[j];
    }
}

QV_INLINE void hadamard_pair(qv_lanes8 *v, int n, int half) {
    for (int i = 0; i < n; i += 4 * half) {
        for (int j = i; j < i + half; j++) {
            qv_lanes8 a = v[j], b = v[j + half], c = v[j + 2 * half], d = v[j + 3 * half];
            butterflies(&a, &b, &c, &d);
            v[j] = a;
            v[j + half] = b;
            v[j + 2 * half] = c;
            v[j + 3 * half] = d;
        }
    }
}

QV_INLINE void butterfly_halves(qv_lanes8 *v, int n, float scale) {
    for (int j = 0; j < n / 2; j++) {
        butterfly(&v[j], &v[j + n / 2]);
        v[j] *= scale;
        v[j + n / 2] *= scale;
    }
}

/* Signs, and the orthonormal Walsh-Hadamard transform, of n = 2^k >= 32 floats. */
QV_INLINE void hadamard(float *x, int n, const uint8_t *signs) {
    qv_lanes8 *v = (qv_lanes8 *)x;
    int blocks = n / 8, half = 4;
    hadamard_start(v, blocks, signs, (float)(1 / sqrt(n)));
    for (; 4 * half <= blocks; half *= 4) hadamard_pair(v, blocks, half);
    if (half < blocks) butterfly_halves(v, blocks, 1);
}

QV_INLINE void rotate(float *x, int padded, const uint8_t *signs) {
    int power = 1;
    while (2 * power <= padded) power *= 2;
    for (int round = 0; round < ROUNDS; round++, signs += padded / 8) {
        int start = round % 2 ? padded - power : 0, rest = round % 2 ? 0 : power;
        for (int i = rest; i < rest + padded - power; i += 8) flip((qv_lanes8 *)(x + i), signs[i / 8]);
        hadamard(x + start, power, signs + start / 8);
        if (power < padded) butterfly_halves((qv_lanes8 *)x, padded / 8, (float)sqrt(0.5));
    }
}

QV_DEFINE_WIDE(static, void, rotate_best, (float *x, int padded, const uint8_t *signs), (x, padded, signs), rotate)

void qv_transform(const float *x, size_t n, int dim, int padded, int normalize, const float *mean, const uint8_t *signs,
                  float *out) {
    for (size_t row = 0; row < n; row++, x += dim, out += padded) {
        double unit = normalize ? qv_inverse_norm(qv_norm2(x, dim)) : 1;
        qv_scale(x, dim, unit, out);
        for (int i = 0; mean != NULL && i < dim; i++) out[i] -= mean[i];
        memset(out + dim, 0, (size_t)(padded - dim) * sizeof *out);
        if (signs != NULL) rotate_best(out, padded, signs);
    }
}

void qv_append_residual(const float *x, size_t n, int dim, const float *y, int width, float *out) {
    for (size_t row = 0; row < n; row++, x += dim, y += width, out += width + 1) {
        double rest = qv_norm2(x, dim) - qv_norm2(y, width);
        memcpy(out, y, (size_t)width * sizeof *y);
        out[width] = rest > 0 ? (float)sqrt(rest) : 0;
    }
}

size_t qv_map_floats(const qv_map *map) {
    size_t out = (size_t)map->padded, dim = (size_t)map->dim;
    if (map->column_codec)
        return (size_t)map->column_codec->query_size / sizeof(float) + out + (size_t)map->width + dim;
    return map->panels ? out + dim + (size_t)map->n_panels * QV_PANEL : out;
}

/* The query by the columns: the encoded query comes first in the buffer, because it has to be aligned. */
static const float *by_columns(const qv_map *map, const float *q, float *buffer) {
    const qv_codec *codec = map->column_codec;
    qv_query *encoded = (qv_query *)buffer;
    float *out = buffer + codec->query_size / (int)sizeof(float), *products = out + map->padded;
    if (map->normalize || map->mean) {
        float *centered = products + map->width;
        qv_transform(q, 1, map->dim, map->dim, map->normalize, map->mean, NULL, centered);
        q = centered;
    }
    qv_prepare(codec, q, encoded);
    codec->score(codec, encoded, map->columns, map->width, products);
    for (int i = 0; i < map->width; i++) products[i] = -products[i]; /* keys are negated dot products */
    qv_transform(products, 1, map->width, map->padded, 0, NULL, map->signs, out);
    return out;
}

const float *qv_map_query(const qv_map *map, const float *q, float *buffer) {
    if (map->column_codec) return by_columns(map, q, buffer);
    if (!map->panels) {
        qv_transform(q, 1, map->dim, map->padded, map->normalize, map->mean, map->signs, buffer);
        return buffer;
    }
    float *centered = buffer + map->padded, *projected = centered + map->dim;
    qv_transform(q, 1, map->dim, map->dim, map->normalize, map->mean, NULL, centered);
    qv_project(centered, 1, map->dim, map->panels, map->n_panels, map->simd, projected);
    qv_transform(projected, 1, map->width, map->padded, 0, NULL, map->signs, buffer);
    return buffer;
}
