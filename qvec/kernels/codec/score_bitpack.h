/* BITPACK: codes are unpacked to bytes and multiplied with the s8 query. Sums of at most 255 * 128 * 65536 < 2^31 are
 * exact, so equal on every level. The width of a block is a constant wherever a step is inlined. */
#ifndef QV_SCORE_BITPACK_H
#define QV_SCORE_BITPACK_H

#include "codec/bitpack.h"
#include "codec/score_common.h"
#include "codec/score_packed.h"

/* Both kinds at a level whose `step` adds one block of four rows at `at` to sums of type `vector`, and whose
 * `finish` adds up the lanes. RABITQ has one width, 2 or more here, and its loop is unrolled for it; MIXED turns at
 * each block. */
#define QV_BITPACK_MANY(use) use(2) use(3) use(4) use(5) use(6) use(7) use(8)
#define QV_BITPACK_WIDTHS(use) use(1) QV_BITPACK_MANY(use)

#define QV_DEFINE_BITPACK(level, target, vector, zero, step, finish)                                                  \
    target QV_INLINE void bitpack_loop_##level(const qv_codec *codec, const qv_query *query,                          \
                                               const uint8_t *const *rows, int width, int32_t *out) {                 \
        const int8_t *q = qv_payload(query);                                                                          \
        vector sums[QV_GROUP] = {zero, zero, zero, zero};                                                             \
        for (int at = 0; at < codec->data_size; at += 8 * width, q += QV_BLOCK) step(sums, rows, at, q, width);       \
        finish(sums, out);                                                                                            \
    }                                                                                                                 \
    target static void bitpack_dots_##level(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, \
                                            int32_t *out) {                                                           \
        switch (codec->bits) { QV_BITPACK_MANY(QV_BITPACK_LOOP_##level) }                                             \
    }                                                                                                                 \
    target static void mixed_dots_##level(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,   \
                                          int32_t *out) {                                                             \
        const int8_t *q = qv_payload(query);                                                                          \
        vector sums[QV_GROUP] = {zero, zero, zero, zero};                                                             \
        const uint8_t *widths = codec->widths;                                                                        \
        for (int at = 0; at < codec->data_size; at += 8 * *widths++, q += QV_BLOCK) {                                 \
            switch (*widths) { QV_BITPACK_WIDTHS(QV_BITPACK_STEP_##level) }                                           \
        }                                                                                                             \
        finish(sums, out);                                                                                            \
    }                                                                                                                 \
    QV_DEFINE_SCORE(bitpack_score_##level, target, int32_t, bitpack_dots_##level, bitpack_keys)                       \
    QV_DEFINE_SCORE(mixed_score_##level, target, int32_t, mixed_dots_##level, bitpack_keys)

#define QV_BITPACK_LOOP(level, w)                         \
    case w:                                               \
        bitpack_loop_##level(codec, query, rows, w, out); \
        break;
#define QV_BITPACK_STEP(step, w)    \
    case w:                         \
        step(sums, rows, at, q, w); \
        break;

QV_INLINE void bitpack_step_scalar(int32_t *sums, const uint8_t *const *rows, int at, const int8_t *q, int width) {
    for (int r = 0; r < QV_GROUP; r++) {
        for (int j = 0; j < QV_BLOCK; j++) sums[r] += qv_bitpack_code(rows[r] + at, width, j) * q[j];
    }
}

QV_INLINE void bitpack_finish_scalar(const int32_t *sums, int32_t *out) { memcpy(out, sums, QV_GROUP * sizeof *out); }

#define QV_BITPACK_LOOP_scalar(w) QV_BITPACK_LOOP(scalar, w)
#define QV_BITPACK_STEP_scalar(w) QV_BITPACK_STEP(bitpack_step_scalar, w)
QV_DEFINE_BITPACK(scalar, , int32_t, 0, bitpack_step_scalar, bitpack_finish_scalar)

#if defined(__x86_64__)
/* Dims 32 half .. 32 half + 31 of a block, each in a byte; width below 8. */
QV_TARGET_AVX2 QV_INLINE __m256i bitpack_load_avx2(const uint8_t *data, int width, int half) {
    __m256i codes = _mm256_setzero_si256();
    int shift = 0;
    if (width & 4) {
        __m256i nibbles = _mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)data), 4 * half);
        codes = _mm256_and_si256(nibbles, _mm256_set1_epi8(15));
        data += 32;
        shift = 4;
    }
    if (width & 2) {
        __m256i pairs = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)data));
        pairs = _mm256_srlv_epi64(pairs, _mm256_set_epi64x(4 * half + 2, 4 * half + 2, 4 * half, 4 * half));
        pairs = _mm256_slli_epi16(_mm256_and_si256(pairs, _mm256_set1_epi8(3)), shift);
        codes = _mm256_or_si256(codes, pairs);
        data += 16;
        shift += 2;
    }
    if (width & 1) {
        const __m256i byte = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                              3, 3, 3, 3, 3, 3, 3);
        const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
        int32_t word;
        memcpy(&word, data + 4 * half, sizeof word);
        __m256i ones = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), byte), bit);
        __m256i set = _mm256_and_si256(_mm256_cmpeq_epi8(ones, bit), _mm256_set1_epi8((char)(1 << shift)));
        codes = _mm256_or_si256(codes, set);
    }
    return codes;
}

/* u8 codes below 128 times s8: pairs stay within 2 * 127 * 128 < 2^15. */
QV_TARGET_AVX2 QV_INLINE __m256i bitpack_add_avx2(__m256i sum, __m256i codes, __m256i q) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, q), _mm256_set1_epi16(1)));
}

QV_TARGET_AVX2 QV_INLINE void bitpack_step_avx2(__m256i *sums, const uint8_t *const *rows, int at, const int8_t *q,
                                                int width) {
    for (int half = 0; half < 2; half++) {
        __m256i signed_codes = _mm256_loadu_si256((const __m256i *)(q + 32 * half));
        for (int r = 0; r < QV_GROUP; r++) {
            if (width < 8) {
                sums[r] = bitpack_add_avx2(sums[r], bitpack_load_avx2(rows[r] + at, width, half), signed_codes);
                continue;
            }
            __m256i codes = _mm256_loadu_si256((const __m256i *)(rows[r] + at + 32 * half));
            __m256i low = _mm256_and_si256(codes, _mm256_set1_epi8(127));
            __m256i top = _mm256_and_si256(_mm256_srli_epi16(codes, 1), _mm256_set1_epi8(64));
            sums[r] = bitpack_add_avx2(sums[r], low, signed_codes);
            sums[r] = bitpack_add_avx2(sums[r], top, signed_codes);
            sums[r] = bitpack_add_avx2(sums[r], top, signed_codes);
        }
    }
}

QV_TARGET_AVX2 QV_INLINE void bitpack_finish_avx2(const __m256i *sums, int32_t *out) {
    _mm_storeu_si128((__m128i *)out, sum_lanes_avx2(sums));
}

#define QV_BITPACK_LOOP_avx2(w) QV_BITPACK_LOOP(avx2, w)
#define QV_BITPACK_STEP_avx2(w) QV_BITPACK_STEP(bitpack_step_avx2, w)
QV_DEFINE_BITPACK(avx2, QV_TARGET_AVX2, __m256i, _mm256_setzero_si256(), bitpack_step_avx2, bitpack_finish_avx2)

/* All 64 dims of a block, each in a byte: a part is repeated in every lane that its bytes serve, and each lane rotates
 * its own bits into place. */
QV_TARGET_AVX512 QV_INLINE __m512i bitpack_load_avx512(const uint8_t *data, int width) {
    __m512i codes = _mm512_setzero_si512();
    int shift = 0;
    if (width == 8) return _mm512_loadu_si512(data);
    if (width & 4) {
        const __m512i turns = _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0);
        __m512i nibbles = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)data));
        codes = _mm512_and_si512(_mm512_srlv_epi64(nibbles, turns), _mm512_set1_epi8(15));
        data += 32;
        shift = 4;
    }
    if (width & 2) {
        const __m512i turns = _mm512_set_epi64(58, 58, 60, 60, 62, 62, 0, 0);
        __m512i pairs = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)data));
        pairs = _mm512_rolv_epi64(pairs, _mm512_add_epi64(turns, _mm512_set1_epi64(shift)));
        codes = _mm512_or_si512(codes, _mm512_and_si512(pairs, _mm512_set1_epi8((char)(3 << shift))));
        data += 16;
        shift += 2;
    }
    if (width & 1) {
        uint64_t set;
        memcpy(&set, data, sizeof set);
        codes = _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8((char)(1 << shift)));
    }
    return codes;
}

QV_TARGET_AVX512 QV_INLINE void bitpack_step_avx512(__m512i *sums, const uint8_t *const *rows, int at, const int8_t *q,
                                                    int width) {
    __m512i signed_codes = _mm512_loadu_si512(q);
    for (int r = 0; r < QV_GROUP; r++) {
        sums[r] = _mm512_dpbusd_epi32(sums[r], bitpack_load_avx512(rows[r] + at, width), signed_codes);
    }
}

QV_TARGET_AVX512 QV_INLINE void bitpack_finish_avx512(const __m512i *sums, int32_t *out) {
    _mm_storeu_si128((__m128i *)out, sum_lanes_avx512(sums));
}

#define QV_BITPACK_LOOP_avx512(w) QV_BITPACK_LOOP(avx512, w)
#define QV_BITPACK_STEP_avx512(w) QV_BITPACK_STEP(bitpack_step_avx512, w)
QV_DEFINE_BITPACK(avx512, QV_TARGET_AVX512, __m512i, _mm512_setzero_si512(), bitpack_step_avx512, bitpack_finish_avx512)

#elif defined(__aarch64__)
/* Dims 16 quarter .. 16 quarter + 15 of a block, each in a byte; width below 8. */
QV_INLINE uint8x16_t bitpack_load_neon(const uint8_t *data, int width, int quarter) {
    uint8x16_t codes = vdupq_n_u8(0);
    int shift = 0;
    if (width & 4) {
        uint8x16_t nibbles = vld1q_u8(data + 16 * (quarter & 1));
        codes = vandq_u8(vshlq_u8(nibbles, vdupq_n_s8((int8_t)(-4 * (quarter >> 1)))), vdupq_n_u8(15));
        data += 32;
        shift = 4;
    }
    if (width & 2) {
        uint8x16_t pairs = vshlq_u8(vld1q_u8(data), vdupq_n_s8((int8_t)(shift - 2 * quarter)));
        codes = vorrq_u8(codes, vandq_u8(pairs, vdupq_n_u8((uint8_t)(3 << shift))));
        data += 16;
        shift += 2;
    }
    if (width & 1) {
        const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
        uint8x16_t bytes = vcombine_u8(vdup_n_u8(data[2 * quarter]), vdup_n_u8(data[2 * quarter + 1]));
        codes = vorrq_u8(codes, vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8((uint8_t)(1 << shift))));
    }
    return codes;
}

/* Codes of 8 bits become signed by subtracting 64 twice from their top bit. */
#define QV_BYTE_STEP_SIGNED(level, sum, codes, q)                                           \
    int8x16_t top = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(codes, 1), vdupq_n_u8(64)));    \
    sum = int8_step_##level(sum, vreinterpretq_s8_u8(vandq_u8(codes, vdupq_n_u8(127))), q); \
    sum = int8_step_##level(int8_step_##level(sum, top, q), top, q);
#define QV_BYTE_STEP_neon(sum, codes, q) QV_BYTE_STEP_SIGNED(neon, sum, codes, q)
#define QV_BYTE_STEP_neon_dot(sum, codes, q) QV_BYTE_STEP_SIGNED(neon_dot, sum, codes, q)
#define QV_BYTE_STEP_neon_i8mm(sum, codes, q) sum = int8_wide_step_neon_i8mm(sum, codes, q);

#define QV_DEFINE_BITPACK_NEON(level, narrow, target)                                                                \
    target QV_INLINE void bitpack_step_##level(int32x4_t *sums, const uint8_t *const *rows, int at, const int8_t *q, \
                                               int width) {                                                          \
        for (int quarter = 0; quarter < 4; quarter++) {                                                              \
            int8x16_t signed_codes = vld1q_s8(q + 16 * quarter);                                                     \
            for (int r = 0; r < QV_GROUP; r++) {                                                                     \
                if (width < 8) {                                                                                     \
                    uint8x16_t codes = bitpack_load_neon(rows[r] + at, width, quarter);                              \
                    sums[r] = int8_step_##narrow(sums[r], vreinterpretq_s8_u8(codes), signed_codes);                 \
                } else {                                                                                             \
                    uint8x16_t codes = vld1q_u8(rows[r] + at + 16 * quarter);                                        \
                    QV_BYTE_STEP_##level(sums[r], codes, signed_codes)                                               \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
    }                                                                                                                \
    QV_DEFINE_BITPACK(level, target, int32x4_t, vdupq_n_s32(0), bitpack_step_##level, bitpack_finish_neon)

QV_INLINE void bitpack_finish_neon(const int32x4_t *sums, int32_t *out) {
    for (int r = 0; r < QV_GROUP; r++) out[r] = vaddvq_s32(sums[r]);
}

#define QV_BITPACK_LOOP_neon(w) QV_BITPACK_LOOP(neon, w)
#define QV_BITPACK_STEP_neon(w) QV_BITPACK_STEP(bitpack_step_neon, w)
QV_DEFINE_BITPACK_NEON(neon, neon, )
#define QV_BITPACK_LOOP_neon_dot(w) QV_BITPACK_LOOP(neon_dot, w)
#define QV_BITPACK_STEP_neon_dot(w) QV_BITPACK_STEP(bitpack_step_neon_dot, w)
QV_DEFINE_BITPACK_NEON(neon_dot, neon_dot, QV_TARGET_DOT)
#define QV_BITPACK_LOOP_neon_i8mm(w) QV_BITPACK_LOOP(neon_i8mm, w)
#define QV_BITPACK_STEP_neon_i8mm(w) QV_BITPACK_STEP(bitpack_step_neon_i8mm, w)
QV_DEFINE_BITPACK_NEON(neon_i8mm, neon_dot, QV_TARGET_I8MM)
#endif

#endif
