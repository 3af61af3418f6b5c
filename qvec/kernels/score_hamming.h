/* BINARY: differing bits, rows of a multiple of 16 bytes. */
#ifndef QV_SCORE_HAMMING_H
#define QV_SCORE_HAMMING_H

#include "score_common.h"

QV_INLINE float hamming_key(const qv_codec *codec, const qv_query *query, const uint8_t *row, uint64_t count) {
    (void)codec, (void)query, (void)row;
    return (float)count;
}

/* One body for the baseline and for machines with the popcnt instruction. */
QV_INLINE void hamming_words(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, uint64_t *out) {
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
    memcpy(out, counts, sizeof counts);
}

QV_DEFINE_SCORE(hamming_score_scalar, , uint64_t, hamming_words, hamming_key)

#if defined(__x86_64__)
QV_DEFINE_SCORE(hamming_score_avx2, QV_TARGET_AVX2, uint64_t, hamming_words, hamming_key)

QV_TARGET_AVX512 static inline void hamming_dots_avx512(const qv_codec *codec, const qv_query *query,
                                                        const uint8_t *const *rows, uint64_t *out) {
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
    for (int r = 0; r < QV_GROUP; r++) out[r] = (uint64_t)_mm512_reduce_add_epi64(counts[r]);
}

QV_DEFINE_SCORE(hamming_score_avx512, QV_TARGET_AVX512, uint64_t, hamming_dots_avx512, hamming_key)

#elif defined(__aarch64__)
static inline void hamming_dots_neon(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                                     uint64_t *out) {
    const uint8_t *q = qv_payload(query);
    uint32x4_t counts[QV_GROUP] = {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)};
    for (int i = 0; i < codec->data_size; i += 16) {
        uint8x16_t bits = vld1q_u8(q + i);
        for (int r = 0; r < QV_GROUP; r++) {
            uint8x16_t ones = vcntq_u8(veorq_u8(vld1q_u8(rows[r] + i), bits));
            counts[r] = vpadalq_u16(counts[r], vpaddlq_u8(ones));
        }
    }
    for (int r = 0; r < QV_GROUP; r++) out[r] = vaddvq_u32(counts[r]);
}

QV_DEFINE_SCORE(hamming_score_neon, , uint64_t, hamming_dots_neon, hamming_key)
#endif

#endif
