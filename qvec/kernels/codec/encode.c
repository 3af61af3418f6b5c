/* Encoding and decoding: the kinds f32, f16, bf16, int8 and binary, and the dispatch to the other kinds. */
#include "codec/bitpack.h"
#include "codec/half.h"
#include "codec/packed.h"

#include <math.h>

/* Factors of a row that stores x / unit; norm2: of x / unit. */
static void put_plain_factors(const qv_codec *codec, uint8_t *row, double norm2, float unit) {
    float scale = codec->metric == QV_COSINE ? (float)qv_inverse_norm(norm2) : unit;
    qv_put_factors(codec, row, scale, norm2 * unit * unit);
}

static void encode_f32(const qv_codec *codec, const float *x, uint8_t *row) {
    memcpy(row, x, (size_t)codec->dim * sizeof *x);
    put_plain_factors(codec, row, qv_norm2(x, codec->dim), 1);
}

/* The unit of an F16 row: the power of two that puts the largest value in 2^14..2^15, so that halves lose no range. It
 * is at least 2^-126, where halves have the steps of the smallest floats. */
static float unit_of_halves(const qv_codec *codec, const float *x) {
    const int lowest = -126;
    float buffer[QV_BLOCK], max = 0;
    int exponent;
    for (int i = 0; i < codec->dim; i += QV_BLOCK) {
        float block_max = qv_max_abs64(qv_block(x, codec->dim, i, buffer));
        max = block_max > max ? block_max : max;
    }
    if (max == 0 || max == INFINITY || (codec->metric == QV_COSINE && max < (float)QV_TINY_NORM)) return 1;
    frexpf(max, &exponent);
    return ldexpf(1, exponent - 15 > lowest ? exponent - 15 : lowest);
}

/* |x|^2 is computed from the rounded values, because a row is scored as decoded. */
QV_INLINE void encode_short(const qv_codec *codec, const float *x, uint8_t *row, float unit, int brain) {
    float buffer[QV_BLOCK], rounded[QV_BLOCK], inverse = 1 / unit;
    uint16_t halves[QV_BLOCK];
    double norm2 = 0;
    for (int i = 0; i < codec->dim; i += QV_BLOCK) {
        const float *block = qv_block(x, codec->dim, i, buffer);
        int count = codec->dim - i < QV_BLOCK ? codec->dim - i : QV_BLOCK;
        for (int j = 0; j < QV_BLOCK; j++) {
            halves[j] = brain ? qv_bf16(block[j]) : qv_half(block[j] * inverse);
            rounded[j] = brain ? qv_from_bf16(halves[j]) : qv_from_half(halves[j]);
        }
        memcpy(row + (size_t)i * sizeof *halves, halves, (size_t)count * sizeof *halves);
        norm2 += qv_dot64(rounded, rounded);
    }
    put_plain_factors(codec, row, norm2, unit);
}

static void encode_f16(const qv_codec *codec, const float *x, uint8_t *row) {
    float unit = unit_of_halves(codec, x);
    encode_short(codec, x, row, unit, 0);
    memcpy(row + qv_half_unit_at(codec), &unit, sizeof unit);
}

static void encode_bf16(const qv_codec *codec, const float *x, uint8_t *row) { encode_short(codec, x, row, 1, 1); }

static void encode_dynamic(const qv_codec *codec, const float *x, uint8_t *row) {
    qv_code code;
    if (!codec->integers || !qv_take_integers(x, codec->dim, (int8_t *)row, &code)) {
        qv_source source = qv_plain_source(codec, x);
        code = qv_quantize(&source, (int8_t *)row);
    }
    for (int i = 0; i < codec->data_size; i++) row[i] ^= QV_MIDPOINT;
    double inverse = codec->metric == QV_COSINE ? qv_inverse_norm(code.norm2) : 1;
    qv_put_factors(codec, row, (float)(code.scale * inverse), code.norm2);
}

static void encode_static(const qv_codec *codec, const float *x, uint8_t *row) {
    double norm2 = qv_norm2(x, codec->dim), unit = qv_unit_of(codec, norm2);
    for (int i = 0; i < codec->dim; i += QV_BLOCK) qv_static_block(codec, x, unit, i, 255, row + i);
    qv_put_factors(codec, row, 1.0f, norm2);
}

static void encode_binary(const qv_codec *codec, const float *x, uint8_t *row) {
    float buffer[QV_BLOCK];
    for (int i = 0; i < codec->dim; i += QV_BLOCK) {
        const float *block = qv_block(x, codec->dim, i, buffer);
        int bytes = codec->data_size - i / 8 < QV_BLOCK / 8 ? codec->data_size - i / 8 : QV_BLOCK / 8;
        uint8_t bits[QV_BLOCK / 8] = {0};
        for (int j = 0; j < QV_BLOCK; j++) bits[j / 8] |= (uint8_t)((block[j] > 0) << (j % 8));
        memcpy(row + i / 8, bits, (size_t)bytes);
    }
}

/* Kinds that code vectors around centroids: the centroids of several vectors are found at a time. */
static void encode_located(const qv_codec *codec, const float *x, size_t n, uint8_t *rows) {
    size_t most = (size_t)qv_located_at_once(codec), dim = (size_t)codec->dim, stride = (size_t)codec->stride;
    for (size_t i = 0; i < n; i += most) {
        size_t count = n - i < most ? n - i : most;
        qv_located located[QV_LOCATED_MAX];
        qv_locate(codec, x + i * dim, (int)count, located);
        for (size_t j = i; j < i + count; j++) {
            memset(rows + j * stride, 0, stride);
            if (qv_is_bitpacked(codec)) qv_encode_bitpack(codec, x + j * dim, &located[j - i], rows + j * stride);
            else qv_encode_packed(codec, x + j * dim, &located[j - i], rows + j * stride);
        }
    }
}

void qv_encode(const qv_codec *codec, const float *x, size_t n, uint8_t *rows) {
    static void (*const encoders[])(const qv_codec *, const float *, uint8_t *) = {
        [QV_F32] = encode_f32,      [QV_F16] = encode_f16,       [QV_BF16] = encode_bf16,
        [QV_INT8] = encode_dynamic, [QV_BINARY] = encode_binary,
    };
    if (qv_is_bitpacked(codec) || qv_is_packed(codec->kind)) {
        encode_located(codec, x, n, rows);
        return;
    }
    void (*encode)(const qv_codec *, const float *, uint8_t *) =
        codec->kind == QV_INT8 && qv_is_static(codec) ? encode_static : encoders[codec->kind];
    for (size_t i = 0; i < n; i++) {
        uint8_t *row = rows + i * (size_t)codec->stride;
        memset(row, 0, (size_t)codec->stride);
        encode(codec, x + i * (size_t)codec->dim, row);
    }
}

static void decode_int8(const qv_codec *codec, const uint8_t *row, float *x) {
    float scale = qv_row_factors(codec, row).scale;
    for (int i = 0; i < codec->dim; i++) {
        x[i] = qv_is_static(codec) ? codec->lower[i] + codec->step[i] * row[i] : scale * (row[i] - QV_MIDPOINT);
    }
}

static void decode_short(const qv_codec *codec, const uint8_t *row, float *x) {
    float unit = codec->kind == QV_F16 ? qv_half_unit(codec, row) : 1;
    for (int i = 0; i < codec->dim; i++) {
        uint16_t half;
        memcpy(&half, row + (size_t)i * sizeof half, sizeof half);
        x[i] = codec->kind == QV_F16 ? qv_from_half(half) * unit : qv_from_bf16(half);
    }
}

static void decode_row(const qv_codec *codec, const uint8_t *row, float *x) {
    switch (codec->kind) {
    case QV_F32:
        memcpy(x, row, (size_t)codec->dim * sizeof *x);
        break;
    case QV_F16:
    case QV_BF16:
        decode_short(codec, row, x);
        break;
    case QV_INT4:
    case QV_TERNARY:
        qv_decode_packed(codec, row, x);
        break;
    case QV_INT8:
        decode_int8(codec, row, x);
        break;
    case QV_RABITQ:
    case QV_MIXED:
        qv_decode_bitpack(codec, row, x);
        break;
    default:
        for (int i = 0; i < codec->dim; i++) x[i] = row[i / 8] >> (i % 8) & 1 ? 1.0f : -1.0f;
    }
}

void qv_decode(const qv_codec *codec, const uint8_t *rows, size_t n, float *x) {
    for (size_t i = 0; i < n; i++) {
        decode_row(codec, rows + i * (size_t)codec->stride, x + i * (size_t)codec->dim);
    }
}
