/* INT8: sums of u8 data times s8 query, exact in 32 bits (255 * 128 * 65536 < 2^31), so equal on every level. */
#ifndef QV_SCORE_INT8_H
#define QV_SCORE_INT8_H

#include "codec/score_common.h"

QV_INLINE void int8_keys(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, const int32_t *sums,
                         float *keys) {
    qv_mask4 dots = *(const qv_mask4 *)sums - query->offset;
    qv_keys(codec, query, rows, __builtin_convertvector(dots, qv_lanes4), keys);
}

static void int8_dots_scalar(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int32_t *out) {
    const int8_t *q = qv_payload(query);
    for (int r = 0; r < QV_GROUP; r++) {
        int32_t sum = 0;
        for (int i = 0; i < codec->data_size; i++) sum += rows[r][i] * q[i];
        out[r] = sum;
    }
}

QV_DEFINE_SCORE(int8_score_scalar, , int32_t, int8_dots_scalar, int8_keys)

#if defined(__x86_64__)
/* Widened to 16 bits: vpmaddubsw would saturate, 2 * 255 * 127 > 2^15. */
QV_TARGET_AVX2 static inline void int8_dots_avx2(const qv_codec *codec, const qv_query *query,
                                                 const uint8_t *const *rows, int32_t *out) {
    const int8_t *q = qv_payload(query);
    __m256i sums[QV_GROUP] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                              _mm256_setzero_si256()};
    for (int i = 0; i < codec->data_size; i += 16) {
        __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(q + i)));
        for (int r = 0; r < QV_GROUP; r++) {
            __m256i codes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(rows[r] + i)));
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(codes, wide));
        }
    }
    _mm_storeu_si128((__m128i *)out, sum_lanes_avx2(sums));
}

/* A row alone: four chains of additions along it, where a group would score it four times. */
QV_TARGET_AVX2 static inline int32_t int8_dot_avx2(const qv_codec *codec, const int8_t *q, const uint8_t *row) {
    __m256i sums[QV_GROUP] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                              _mm256_setzero_si256()};
    for (int i = 0; i < codec->data_size; i += 64) {
        for (int j = 0; j < QV_GROUP; j++) {
            __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(q + i + 16 * j)));
            __m256i codes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + i + 16 * j)));
            sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(codes, wide));
        }
    }
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    return _mm_cvtsi128_si32(half) + _mm_extract_epi32(half, 1);
}

QV_DEFINE_SCORE(int8_group_score_avx2, QV_TARGET_AVX2, int32_t, int8_dots_avx2, int8_keys)

QV_TARGET_AVX2 static void int8_score_avx2(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                                           int n, float *keys) {
    if (n == 1)
        *keys = qv_key(codec, query, *rows, (float)(int8_dot_avx2(codec, qv_payload(query), *rows) - query->offset));
    else int8_group_score_avx2(codec, query, rows, n, keys);
}

QV_TARGET_AVX512 static inline void int8_dots_avx512(const qv_codec *codec, const qv_query *query,
                                                     const uint8_t *const *rows, int32_t *out) {
    const int8_t *q = qv_payload(query);
    __m512i sums[QV_GROUP] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                              _mm512_setzero_si512()};
    for (int i = 0; i < codec->data_size; i += 64) {
        __m512i signed_codes = _mm512_loadu_si512(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_loadu_si512(rows[r] + i), signed_codes);
        }
    }
    _mm_storeu_si128((__m128i *)out, sum_lanes_avx512(sums));
}

QV_DEFINE_SCORE(int8_score_avx512, QV_TARGET_AVX512, int32_t, int8_dots_avx512, int8_keys)

#elif defined(__aarch64__)
/* sum + the products of 16 s8 values, by fours. Assembly, because intrinsics of clang below 16 depend on the options
 * of the whole file. */
QV_INLINE int32x4_t int8_step_neon(int32x4_t sum, int8x16_t data, int8x16_t q) {
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(data), vget_low_s8(q)));
    return vpadalq_s16(sum, vmull_high_s8(data, q));
}

QV_TARGET_DOT QV_INLINE int32x4_t int8_step_neon_dot(int32x4_t sum, int8x16_t data, int8x16_t q) {
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(data), "w"(q));
    return sum;
}

/* The same of u8 data. */
QV_TARGET_I8MM QV_INLINE int32x4_t int8_wide_step_neon_i8mm(int32x4_t sum, uint8x16_t data, int8x16_t q) {
    __asm__("usdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(data), "w"(q));
    return sum;
}

/* The data's sign bit is flipped to make it signed, which subtracts the midpoint; the offset puts it back. */
static inline void int8_dots_neon(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                                  int32_t *out) {
    const int8_t *q = qv_payload(query);
    const uint8x16_t midpoint = vdupq_n_u8(QV_MIDPOINT);
    int32x4_t sums[QV_GROUP] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int i = 0; i < codec->data_size; i += 16) {
        int8x16_t signed_codes = vld1q_s8(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            int8x16_t data = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(rows[r] + i), midpoint));
            sums[r] = int8_step_neon(sums[r], data, signed_codes);
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = vaddvq_s32(sums[r]) + query->offset;
}

/* 64 bytes at a time, which one instruction loads. */
QV_TARGET_DOT static inline void int8_dots_neon_dot(const qv_codec *codec, const qv_query *query,
                                                    const uint8_t *const *rows, int32_t *out) {
    const int8_t *q = qv_payload(query);
    const uint8x16_t midpoint = vdupq_n_u8(QV_MIDPOINT);
    int32x4_t sums[QV_GROUP] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int i = 0; i < codec->data_size; i += 64) {
        int8x16x4_t signed_codes = vld1q_s8_x4(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            uint8x16x4_t data = vld1q_u8_x4(rows[r] + i);
            for (int j = 0; j < 4; j++) {
                int8x16_t own = vreinterpretq_s8_u8(veorq_u8(data.val[j], midpoint));
                sums[r] = int8_step_neon_dot(sums[r], own, signed_codes.val[j]);
            }
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = vaddvq_s32(sums[r]) + query->offset;
}

QV_TARGET_I8MM static inline void int8_dots_neon_i8mm(const qv_codec *codec, const qv_query *query,
                                                      const uint8_t *const *rows, int32_t *out) {
    const int8_t *q = qv_payload(query);
    int32x4_t sums[QV_GROUP] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int i = 0; i < codec->data_size; i += 64) {
        int8x16x4_t signed_codes = vld1q_s8_x4(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            uint8x16x4_t data = vld1q_u8_x4(rows[r] + i);
            for (int j = 0; j < 4; j++) sums[r] = int8_wide_step_neon_i8mm(sums[r], data.val[j], signed_codes.val[j]);
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = vaddvq_s32(sums[r]);
}

QV_DEFINE_SCORE(int8_score_neon, , int32_t, int8_dots_neon, int8_keys)
QV_DEFINE_SCORE(int8_score_neon_dot, QV_TARGET_DOT, int32_t, int8_dots_neon_dot, int8_keys)
QV_DEFINE_SCORE(int8_score_neon_i8mm, QV_TARGET_I8MM, int32_t, int8_dots_neon_i8mm, int8_keys)
#endif

#endif
