/* BINARY: differing bits, rows of a multiple of 16 bytes. */
#ifndef QV_SCORE_HAMMING_H
#define QV_SCORE_HAMMING_H

#include "codec/score_common.h"

QV_INLINE void hamming_keys(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                            const int32_t *counts, float *keys) {
    (void)codec, (void)query, (void)rows;
    for (int r = 0; r < QV_GROUP; r++) keys[r] = (float)counts[r];
}

static inline void hamming_dots_scalar(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                                       int32_t *out) {
    const uint8_t *q = qv_payload(query);
    uint64_t counts[QV_GROUP] = {0};
    for (int i = 0; i < codec->data_size; i += 8) {
        uint64_t bits, word;
        memcpy(&bits, q + i, sizeof bits);
        for (int r = 0; r < QV_GROUP; r++) {
            memcpy(&word, rows[r] + i, sizeof word);
            counts[r] += (uint64_t)__builtin_popcountll(word ^ bits);
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = (int32_t)counts[r];
}

QV_DEFINE_SCORE(hamming_score_scalar, , int32_t, hamming_dots_scalar, hamming_keys)

#if defined(__x86_64__)
/* Ones of each byte, from a table of those of 4 bits. */
QV_TARGET_AVX2 QV_INLINE __m256i ones_avx2(__m256i bits) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4);
    __m256i ones = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, low));
    return _mm256_add_epi8(ones, _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), low)));
}

QV_TARGET_AVX2 static inline void hamming_dots_avx2(const qv_codec *codec, const qv_query *query,
                                                    const uint8_t *const *rows, int32_t *out) {
    const uint8_t *q = qv_payload(query);
    __m256i counts[QV_GROUP] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                                _mm256_setzero_si256()};
    for (int i = 0; i < codec->data_size; i += 32) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(q + i));
        for (int r = 0; r < QV_GROUP; r++) {
            __m256i ones = ones_avx2(_mm256_xor_si256(load_avx2(rows[r] + i, codec->data_size - i), bits));
            counts[r] = _mm256_add_epi64(counts[r], _mm256_sad_epu8(ones, _mm256_setzero_si256()));
        }
    }
    _mm_storeu_si128((__m128i *)out, sum_lanes_avx2(counts));
}

QV_DEFINE_SCORE(hamming_score_avx2, QV_TARGET_AVX2, int32_t, hamming_dots_avx2, hamming_keys)

QV_TARGET_AVX512 static inline void hamming_dots_avx512(const qv_codec *codec, const qv_query *query,
                                                        const uint8_t *const *rows, int32_t *out) {
    const uint8_t *q = qv_payload(query);
    __m512i counts[QV_GROUP] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                                _mm512_setzero_si512()};
    for (int i = 0; i < codec->data_size; i += 64) {
        int words = (codec->data_size - i) / 8;
        __mmask8 mask = words < 8 ? (__mmask8)((1u << words) - 1) : 0xFF;
        __m512i bits = _mm512_loadu_si512(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            __m512i differing = _mm512_xor_si512(_mm512_maskz_loadu_epi64(mask, rows[r] + i), bits);
            counts[r] = _mm512_add_epi64(counts[r], _mm512_popcnt_epi64(differing));
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = (int32_t)_mm512_reduce_add_epi64(counts[r]);
}

QV_DEFINE_SCORE(hamming_score_avx512, QV_TARGET_AVX512, int32_t, hamming_dots_avx512, hamming_keys)

#elif defined(__aarch64__)
static inline void hamming_dots_neon(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                                     int32_t *out) {
    const uint8_t *q = qv_payload(query);
    uint32x4_t counts[QV_GROUP] = {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)};
    for (int i = 0; i < codec->data_size; i += 16) {
        uint8x16_t bits = vld1q_u8(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            uint8x16_t ones = vcntq_u8(veorq_u8(vld1q_u8(rows[r] + i), bits));
            counts[r] = vpadalq_u16(counts[r], vpaddlq_u8(ones));
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = (int32_t)vaddvq_u32(counts[r]);
}

QV_DEFINE_SCORE(hamming_score_neon, , int32_t, hamming_dots_neon, hamming_keys)
#endif

#endif
