/* Vectors to rows and back, by arithmetic in fixed lanes: rows are the same on all levels. */
#include "codec/encode.h"

#include "codec/bitpack.h"
#include "codec/half.h"
#include "codec/packed.h"

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

void qv_put_factors(const qv_codec *codec, uint8_t *row, float scale, double norm2) {
    double kept = codec->metric == QV_COSINE && !qv_is_centered(codec) ? 1 : norm2 < QV_NORM2_MAX ? norm2 : QV_NORM2_MAX;
    qv_factors factors = {scale, (float)kept};
    memcpy(row + codec->data_size, &factors, sizeof factors);
}

/* norm2 is |x'|^2 less twice the error r - g v along the offset o, r = x' - o: |r|^2 + 2 <o, g v> + |o|^2. */
void qv_put_centered(const qv_codec *codec, const qv_source *source, const qv_coded *coded, uint8_t *row) {
    double norm2 = coded->norm2;
    float scale = codec->n_offsets > 0 ? qv_with_centroid((float)coded->scale, coded->center) : (float)coded->scale;
    if (source->offset != NULL) {
        norm2 += 2 * (double)scale * source->offset_step * coded->along;
        norm2 += qv_row_factors(codec->offset_codec, source->offset).norm2;
    }
    qv_put_factors(codec, row, scale, qv_is_shifted(codec) ? norm2 : qv_norm2(source->x, source->dim));
}

/* Factors of a row that holds the vector itself. */
static void put_plain_factors(const qv_codec *codec, uint8_t *row, double norm2) {
    qv_put_factors(codec, row, codec->metric == QV_COSINE ? (float)qv_inverse_norm(norm2) : 1.0f, norm2);
}

static void encode_f32(const qv_codec *codec, const float *x, uint8_t *row) {
    memcpy(row, x, (size_t)codec->dim * sizeof *x);
    put_plain_factors(codec, row, qv_norm2(x, codec->dim));
}

/* |x|^2 is that of the rounded values: a row is scored as what it holds, also where it saturated. */
QV_INLINE void encode_short(const qv_codec *codec, const float *x, uint8_t *row, int brain) {
    float buffer[QV_BLOCK], rounded[QV_BLOCK];
    uint16_t halves[QV_BLOCK];
    double norm2 = 0;
    for (int i = 0; i < codec->dim; i += QV_BLOCK) {
        const float *block = qv_block(x, codec->dim, i, buffer);
        int count = codec->dim - i < QV_BLOCK ? codec->dim - i : QV_BLOCK;
        for (int j = 0; j < QV_BLOCK; j++) {
            halves[j] = brain ? qv_bf16(block[j]) : qv_half(block[j]);
            rounded[j] = brain ? qv_from_bf16(halves[j]) : qv_from_half(halves[j]);
        }
        memcpy(row + (size_t)i * sizeof *halves, halves, (size_t)count * sizeof *halves);
        norm2 += qv_dot64(rounded, rounded);
    }
    put_plain_factors(codec, row, norm2);
}

static void encode_f16(const qv_codec *codec, const float *x, uint8_t *row) { encode_short(codec, x, row, 0); }

static void encode_bf16(const qv_codec *codec, const float *x, uint8_t *row) { encode_short(codec, x, row, 1); }

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

/* The nearest integers to sixteen x / step within -127..127, as qv_round and qv_clamp give them: three times. */
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

void qv_encode(const qv_codec *codec, const float *x, size_t n, uint8_t *rows) {
    static void (*const encoders[])(const qv_codec *, const float *, uint8_t *) = {
        [QV_F32] = encode_f32,           [QV_F16] = encode_f16,       [QV_BF16] = encode_bf16,
        [QV_INT8] = encode_dynamic,      [QV_INT4] = qv_encode_packed, [QV_TERNARY] = qv_encode_packed,
        [QV_BINARY] = encode_binary,    [QV_RABITQ] = qv_encode_bitpack, [QV_MIXED] = qv_encode_bitpack};
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

static void decode_row(const qv_codec *codec, const uint8_t *row, float *x) {
    switch (codec->kind) {
    case QV_F32:
        memcpy(x, row, (size_t)codec->dim * sizeof *x);
        break;
    case QV_F16:
    case QV_BF16:
        for (int i = 0; i < codec->dim; i++) {
            uint16_t half;
            memcpy(&half, row + (size_t)i * sizeof half, sizeof half);
            x[i] = codec->kind == QV_F16 ? qv_from_half(half) : qv_from_bf16(half);
        }
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
