/* F32, F16 and BF16: dot products and squared L2 against a float32 query.
 *
 * Every level adds up 8 or 16 lanes and folds them, so with u = 2^-24 a sum is within (dim / 8 + 6) * u of exact,
 * relative to the sum of the absolute terms: 1e-5 holds to dim 1300 in the worst case, far beyond in practice. */
#ifndef QV_SCORE_FLOAT_H
#define QV_SCORE_FLOAT_H

#include "codec/half.h"
#include "codec/score_common.h"

QV_INLINE void dot_keys(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, const float *dots,
                        float *keys) {
    qv_keys(codec, query, rows, *(const qv_lanes4 *)dots, keys);
}

QV_INLINE void l2_keys(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, const float *l2,
                       float *keys) {
    (void)codec, (void)query, (void)rows;
    memcpy(keys, l2, QV_GROUP * sizeof *keys);
}

/* Both operations of a kind at one level, `sums` having the four rows' kernel with constants for kind and operation. */
#define QV_DEFINE_FLOAT(kind, level, target, format)                                                                  \
    target static inline void kind##_dots_##level(const qv_codec *codec, const qv_query *query,                       \
                                                  const uint8_t *const *rows, float *out) {                           \
        float_sums_##level(codec, query, rows, format, 0, out);                                                       \
    }                                                                                                                 \
    target static inline void kind##_l2_##level(const qv_codec *codec, const qv_query *query,                         \
                                                const uint8_t *const *rows, float *out) {                             \
        float_sums_##level(codec, query, rows, format, 1, out);                                                       \
    }                                                                                                                 \
    QV_DEFINE_SCORE(kind##_score_dot_##level, target, float, kind##_dots_##level, dot_keys)                           \
    QV_DEFINE_SCORE(kind##_score_l2_##level, target, float, kind##_l2_##level, l2_keys)                               \
    static void kind##_score_##level(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int n, \
                                     float *keys) {                                                                   \
        if (query->op == QV_OP_L2) kind##_score_l2_##level(codec, query, rows, n, keys);                              \
        else kind##_score_dot_##level(codec, query, rows, n, keys);                                                   \
    }

#define QV_DEFINE_FLOATS(level, target)         \
    QV_DEFINE_FLOAT(f32, level, target, QV_F32) \
    QV_DEFINE_FLOAT(f16, level, target, QV_F16) \
    QV_DEFINE_FLOAT(bf16, level, target, QV_BF16)

/* Dims of a row, padding included: 4 or 8 at a time. */
QV_INLINE int float_dims(const qv_codec *codec, int format) { return codec->data_size / (format == QV_F32 ? 4 : 2); }

typedef float __attribute__((aligned(1), may_alias)) unaligned_float;
typedef uint16_t __attribute__((aligned(1), may_alias)) unaligned_half;

QV_INLINE float float_at(const uint8_t *row, int i, int format) {
    if (format == QV_F32) return ((const unaligned_float *)row)[i];
    uint16_t bits = ((const unaligned_half *)row)[i];
    return format == QV_F16 ? qv_from_half(bits) : qv_from_bf16(bits);
}

/* The factors of a row's data in differences, which are of l2 alone: its scale is the unit. */
QV_INLINE void float_units(const qv_codec *codec, const uint8_t *const *rows, int format, float *units) {
    for (int r = 0; r < QV_GROUP; r++) units[r] = format == QV_F16 ? qv_row_factors(codec, rows[r]).scale : 1.0f;
}

QV_INLINE float float_term(float q, float x, float unit, int l2) {
    return l2 ? (q - x * unit) * (q - x * unit) : q * x;
}

QV_INLINE float float_sum(const float *q, const uint8_t *row, int dims, int format, float unit, int l2) {
    float lanes[16] = {0};
    int i = 0;
    for (; i + 16 <= dims; i += 16) {
        for (int j = 0; j < 16; j++) lanes[j] += float_term(q[i + j], float_at(row, i + j, format), unit, l2);
    }
    for (int j = 0; i + j < dims; j++) lanes[j] += float_term(q[i + j], float_at(row, i + j, format), unit, l2);
    for (int width = 8; width > 0; width /= 2) {
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    }
    return lanes[0];
}

QV_INLINE void float_sums_scalar(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int format,
                                 int l2, float *out) {
    float units[QV_GROUP];
    float_units(codec, rows, format, units);
    for (int r = 0; r < QV_GROUP; r++) {
        out[r] = float_sum(qv_payload(query), rows[r], float_dims(codec, format), format, units[r], l2);
    }
}

QV_DEFINE_FLOATS(scalar, )

#if defined(__x86_64__)
QV_TARGET_AVX2 QV_INLINE __m256 float_step_avx2(__m256 sum, __m256 q, __m256 x, float unit, int format, int l2) {
    if (!l2) return _mm256_fmadd_ps(q, x, sum);
    __m256 difference = format == QV_F16 ? _mm256_fnmadd_ps(x, _mm256_set1_ps(unit), q) : _mm256_sub_ps(q, x);
    return _mm256_fmadd_ps(difference, difference, sum);
}

QV_TARGET_AVX2 QV_INLINE __m256 float_load_avx2(const uint8_t *row, int i, int format) {
    if (format == QV_F32) return _mm256_loadu_ps((const float *)(row + 4 * (size_t)i));
    __m128i bits = _mm_loadu_si128((const __m128i *)(row + 2 * (size_t)i));
    if (format == QV_F16) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/* F16 and BF16 rows are whole steps of 8 dims; F32 rows may end in half a step. */
QV_TARGET_AVX2 QV_INLINE void float_sums_avx2(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                                              int format, int l2, float *out) {
    const float *q = qv_payload(query);
    int dims = float_dims(codec, format), i = 0;
    float units[QV_GROUP];
    float_units(codec, rows, format, units);
    __m256 sums[QV_GROUP] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (; i + 8 <= dims; i += 8) {
        __m256 values = _mm256_loadu_ps(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            sums[r] = float_step_avx2(sums[r], values, float_load_avx2(rows[r], i, format), units[r], format, l2);
        }
    }
    if (i < dims) {
        __m256 values = _mm256_loadu_ps(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            __m128 last = _mm_loadu_ps((const float *)(rows[r] + 4 * (size_t)i));
            sums[r] = float_step_avx2(sums[r], values, _mm256_insertf128_ps(_mm256_setzero_ps(), last, 0), units[r],
                                      format, l2);
        }
    }
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}

QV_DEFINE_FLOATS(avx2, QV_TARGET_AVX2)

QV_TARGET_AVX512 QV_INLINE __m512 float_step_avx512(__m512 sum, __m512 q, __m512 x, float unit, int format, int l2) {
    if (!l2) return _mm512_fmadd_ps(q, x, sum);
    __m512 difference = format == QV_F16 ? _mm512_fnmadd_ps(x, _mm512_set1_ps(unit), q) : _mm512_sub_ps(q, x);
    return _mm512_fmadd_ps(difference, difference, sum);
}

QV_TARGET_AVX512 QV_INLINE __m512 float_load_avx512(__mmask16 mask, const uint8_t *row, int i, int format) {
    if (format == QV_F32) return _mm512_maskz_loadu_ps(mask, row + 4 * (size_t)i);
    __m256i bits = _mm256_maskz_loadu_epi16(mask, row + 2 * (size_t)i);
    if (format == QV_F16) return _mm512_cvtph_ps(bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

QV_TARGET_AVX512 QV_INLINE void float_sums_avx512(const qv_codec *codec, const qv_query *query,
                                                  const uint8_t *const *rows, int format, int l2, float *out) {
    const float *q = qv_payload(query);
    int dims = float_dims(codec, format), whole = dims / 16 * 16;
    float units[QV_GROUP];
    float_units(codec, rows, format, units);
    __m512 sums[QV_GROUP] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int i = 0; i < whole; i += 16) {
        __m512 values = _mm512_loadu_ps(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            sums[r] =
                float_step_avx512(sums[r], values, float_load_avx512(0xFFFF, rows[r], i, format), units[r], format, l2);
        }
    }
    if (whole < dims) {
        __mmask16 mask = (__mmask16)((1u << (dims - whole)) - 1);
        __m512 values = _mm512_loadu_ps(q + whole);
        for (int r = 0; r < QV_GROUP; r++) {
            sums[r] = float_step_avx512(sums[r], values, float_load_avx512(mask, rows[r], whole, format), units[r],
                                        format, l2);
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = _mm512_reduce_add_ps(sums[r]);
}

QV_DEFINE_FLOATS(avx512, QV_TARGET_AVX512)

#elif defined(__aarch64__)
QV_INLINE float32x4_t float_load_neon(const uint8_t *row, int i, int format) {
    if (format == QV_F32) return vreinterpretq_f32_u8(vld1q_u8(row + 4 * (size_t)i));
    uint8x8_t bits = vld1_u8(row + 2 * (size_t)i);
    if (format == QV_F16) return vcvt_f32_f16(vreinterpret_f16_u8(bits));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(bits), 16));
}

QV_INLINE float32x4_t float_step_neon(float32x4_t sum, float32x4_t q, float32x4_t x, float unit, int format, int l2) {
    if (!l2) return vfmaq_f32(sum, q, x);
    float32x4_t difference = format == QV_F16 ? vfmsq_n_f32(q, x, unit) : vsubq_f32(q, x);
    return vfmaq_f32(sum, difference, difference);
}

QV_INLINE void float_sums_neon(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int format,
                               int l2, float *out) {
    const float *q = qv_payload(query);
    int dims = float_dims(codec, format), i = 0;
    float32x4_t low[QV_GROUP], high[QV_GROUP];
    float units[QV_GROUP];
    float_units(codec, rows, format, units);
    for (int r = 0; r < QV_GROUP; r++) low[r] = high[r] = vdupq_n_f32(0);
    for (; i + 8 <= dims; i += 8) {
        float32x4_t first = vld1q_f32(q + i), second = vld1q_f32(q + i + 4);
        for (int r = 0; r < QV_GROUP; r++) {
            low[r] = float_step_neon(low[r], first, float_load_neon(rows[r], i, format), units[r], format, l2);
            high[r] = float_step_neon(high[r], second, float_load_neon(rows[r], i + 4, format), units[r], format, l2);
        }
    }
    for (int r = 0; r < QV_GROUP && i < dims; r++) {
        low[r] = float_step_neon(low[r], vld1q_f32(q + i), float_load_neon(rows[r], i, format), units[r], format, l2);
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = vaddvq_f32(vaddq_f32(low[r], high[r]));
}

QV_DEFINE_FLOATS(neon, )
#endif

#endif
