/* Initialization of codecs: sizes, and the scoring kernel. */
#include "codec/rows.h"
#include "codec/score_float.h"
#include "codec/score_hamming.h"
#include "codec/score_int8.h"
#include "codec/score_bitpack.h"
#include "codec/score_packed.h"

#define KERNELS(level)                                                                                             \
    {                                                                                                              \
        [QV_F32] = f32_score_##level,        [QV_F16] = f16_score_##level,   [QV_BF16] = bf16_score_##level,       \
        [QV_INT8] = int8_score_##level,      [QV_INT4] = int4_score_##level, [QV_TERNARY] = ternary_score_##level, \
        [QV_BINARY] = hamming_score_##level,                                                                       \
    }

#if defined(__aarch64__) /* kernels that gain nothing from dot products of bytes */
#define f32_score_neon_dot f32_score_neon
#define f16_score_neon_dot f16_score_neon
#define bf16_score_neon_dot bf16_score_neon
#define hamming_score_neon_dot hamming_score_neon
#define f32_score_neon_i8mm f32_score_neon
#define f16_score_neon_i8mm f16_score_neon
#define bf16_score_neon_i8mm bf16_score_neon
#define hamming_score_neon_i8mm hamming_score_neon
#define int4_score_neon_i8mm int4_score_neon_dot
#define ternary_score_neon_i8mm ternary_score_neon_dot
#define bit_score_neon_i8mm bit_score_neon_dot
#endif

static const qv_score_fn SCORES[QV_SIMD_LEVELS][QV_TERNARY + 1] = QV_BY_EACH_LEVEL(KERNELS);

enum { BIT, BITS, MIXED }; /* RABITQ of 1 bit and of more, MIXED */
#define BITPACK_KERNELS(level) {bit_score_##level, bitpack_score_##level, mixed_score_##level}

static const qv_score_fn BITPACK_SCORES[QV_SIMD_LEVELS][3] = QV_BY_EACH_LEVEL(BITPACK_KERNELS);

static int data_size(const qv_codec *codec) {
    int dim = codec->dim;
    switch (codec->kind) {
    case QV_F32:
        return (int)qv_round_up((size_t)dim * sizeof(float), 16);
    case QV_F16:
    case QV_BF16:
        return (int)qv_round_up((size_t)dim * sizeof(uint16_t), 16);
    case QV_INT8:
        return (int)qv_round_up((size_t)dim, QV_BLOCK);
    case QV_INT4:
    case QV_TERNARY:
        return qv_packed_size(codec);
    default:
        return (int)qv_round_up(((size_t)dim + 7) / 8, 16);
    }
}

/* Bytes of a prepared query's signed codes; packed kinds use whole groups. */
static int codes_size(const qv_codec *codec) {
    if (!qv_is_packed(codec->kind)) return codec->data_size;
    return (int)qv_round_up((size_t)codec->dim, (size_t)qv_group_dims(qv_levels_of(codec)));
}

/* Bytes after the header: floats, signed codes (plus the weights that they are computed from, if any), or bits. */
static int payload_size(const qv_codec *codec) {
    switch (codec->kind) {
    case QV_F32:
    case QV_F16:
    case QV_BF16:
        return (int)qv_round_up((size_t)codec->dim * sizeof(float), 64);
    case QV_INT8:
    case QV_INT4:
    case QV_TERNARY:
        return codes_size(codec) * (codec->lower ? 1 + (int)sizeof(float) : 1);
    default:
        return (int)qv_round_up((size_t)codec->data_size, 64);
    }
}

int qv_codec_init(qv_codec *codec, int kind, int metric, int dim, const float *lower, const float *step, int simd) {
    if (kind < QV_F32 || kind > QV_TERNARY || metric < QV_L2 || metric > QV_COSINE) return -1;
    if (dim < 1 || dim > QV_MAX_DIM || !qv_simd_supported(simd)) return -1;
    if (step != NULL && (lower == NULL || (kind != QV_INT8 && kind != QV_INT4))) return -1;
    if (step == NULL && lower != NULL) return -1;
    *codec = (qv_codec){.kind = kind, .metric = metric, .simd = simd, .dim = dim, .lower = lower, .step = step};
    codec->data_size = data_size(codec);
    codec->has_factors = kind != QV_BINARY;
    codec->stride = codec->data_size;
    if (codec->has_factors) {
        size_t unit = kind == QV_INT8 ? 64 : 16;
        codec->stride = (int)qv_round_up((size_t)codec->data_size + sizeof(qv_factors), unit);
    }
    codec->query_size = (int)sizeof(qv_query) + payload_size(codec);
    codec->score = SCORES[simd][kind];
    return 0;
}

/* Sum of the widths, or -1 if one is out of range for the kind. */
static int total_width(int kind, int blocks, const uint8_t *widths) {
    int total = 0;
    for (int b = 0; b < blocks; b++) {
        if (widths[b] > 8 || (kind == QV_RABITQ && (widths[b] == 0 || widths[b] != widths[0]))) return -1;
        total += widths[b];
    }
    return total > 0 ? total : -1;
}

int qv_codec_init_bitpack(qv_codec *codec, int kind, int metric, int dim, const uint8_t *widths, const float *step,
                          int simd) {
    if ((kind != QV_RABITQ && kind != QV_MIXED) || metric < QV_L2 || metric > QV_COSINE) return -1;
    if (dim < 1 || dim > QV_MAX_DIM || !qv_simd_supported(simd)) return -1;
    if ((step != NULL) != (kind == QV_MIXED)) return -1;
    int blocks = qv_bitpack_blocks(dim), total = total_width(kind, blocks, widths);
    if (total < 0) return -1;
    *codec = (qv_codec){.kind = kind, .metric = metric, .simd = simd, .dim = dim, .has_factors = 1, .step = step};
    codec->widths = widths;
    codec->bits = kind == QV_RABITQ ? widths[0] : 0;
    codec->data_size = 8 * total;
    codec->stride = (int)qv_round_up((size_t)codec->data_size + sizeof(qv_factors), 16);
    int codes = codec->bits == 1 ? (int)qv_round_up((size_t)dim, QV_BIT_GROUP) : blocks * QV_BLOCK;
    codec->query_size = (int)sizeof(qv_query) + codes * (1 + (int)sizeof(float)); /* codes, their weights */
    codec->score = BITPACK_SCORES[simd][kind == QV_MIXED ? MIXED : codec->bits == 1 ? BIT : BITS];
    return 0;
}
