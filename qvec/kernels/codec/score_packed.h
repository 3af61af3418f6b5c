/* INT4, TERNARY and RABITQ of 1 bit: sums of small unsigned data times s8 query, exact in 32 bits,
 * so equal on every level. Codes of INT4 are looked up in a table of their values, 1..127; other
 * codes are their own values. */
#ifndef QV_SCORE_PACKED_H
#define QV_SCORE_PACKED_H

#include "codec/bitpack.h"
#include "codec/packed.h"
#include "codec/score_common.h"
#include "codec/score_int8.h"

/* In double, because twice a sum may exceed 32 bits. */
QV_INLINE void bitpack_keys(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                            const int32_t *sums, float *keys) {
    qv_doubles4 dots = 2 * __builtin_convertvector(*(const qv_mask4 *)sums, qv_doubles4) - query->offset;
    qv_keys(codec, query, rows, __builtin_convertvector(dots, qv_lanes4), keys);
}

/* All kinds at one level; `packed_sums_level` has the four rows' kernel for a number of planes. */
#define QV_DEFINE_PACKED_KIND(kind, level, target, planes, finish)                              \
    target static inline void kind##_dots_##level(const qv_codec *codec, const qv_query *query, \
                                                  const uint8_t *const *rows, int32_t *out) {   \
        packed_sums_##level(codec, query, rows, planes, out);                                   \
    }                                                                                           \
    QV_DEFINE_SCORE(kind##_score_##level, target, int32_t, kind##_dots_##level, finish)

#define QV_DEFINE_PACKED(level, target)                         \
    QV_DEFINE_PACKED_KIND(int4, level, target, 2, int8_keys)    \
    QV_DEFINE_PACKED_KIND(ternary, level, target, 4, int8_keys) \
    QV_DEFINE_PACKED_KIND(bit, level, target, 8, bitpack_keys)

QV_INLINE int32_t packed_sum(const uint8_t *table, const int8_t *q, const uint8_t *group, int width, int planes) {
    const int bits = 8 / planes, mask = (1 << bits) - 1;
    int32_t sum = 0;
    for (int p = 0; p < planes; p++) {
        for (int j = 0; j < width; j++) sum += table[group[j] >> p * bits & mask] * q[p * QV_BLOCK + j];
    }
    return sum;
}

QV_INLINE void packed_sums_scalar(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int planes,
                                  int32_t *out) {
    const uint8_t *table = planes == 2 ? qv_levels_of(codec)->table : QV_TERNARY_TABLE;
    for (int r = 0; r < QV_GROUP; r++) {
        const int8_t *q = qv_payload(query);
        out[r] = 0;
        for (int i = 0; i < codec->data_size; i += QV_BLOCK, q += QV_BLOCK * planes) {
            out[r] += packed_sum(table, q, rows[r] + i, qv_packed_width(codec, i), planes);
        }
    }
}

QV_DEFINE_PACKED(scalar, )

#if defined(__x86_64__)
/* The table of 16 values, in each 128 bits. INT4 alone has one. */
QV_TARGET_AVX2 QV_INLINE __m256i packed_table_avx2(const qv_codec *codec, int planes) {
    if (planes != 2) return _mm256_setzero_si256();
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)qv_levels_of(codec)->table));
}

/* All planes of 32 bytes. Sums of pairs stay in 16 bits: 2 * 127 * 128 < 2^15 in a plane of INT4, and in all of
 * TERNARY. */
QV_TARGET_AVX2 QV_INLINE __m256i packed_step_avx2(const int8_t *q, __m256i data, __m256i table, int planes) {
    const int bits = 8 / planes;
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1)), ones = _mm256_set1_epi16(1);
    __m256i pairs[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int p = 0; p < planes; p++) {
        __m256i signed_codes = _mm256_loadu_si256((const __m256i *)(q + p * QV_BLOCK));
        __m256i values = _mm256_and_si256(data, mask);
        if (planes == 2) values = _mm256_shuffle_epi8(table, values);
        pairs[p & 1] = _mm256_add_epi16(pairs[p & 1], _mm256_maddubs_epi16(values, signed_codes));
        data = _mm256_srli_epi16(data, bits);
    }
    return _mm256_add_epi32(_mm256_madd_epi16(pairs[0], ones), _mm256_madd_epi16(pairs[1], ones));
}

#define QV_BIT_GROUPS 4 /* of 64 bytes, whose sums stay in 16 bits: 2 * 2 * 8 * 2 * 127 * 4 < 2^15 */

/* Single bits of 32 bytes. The bits of a nibble are not shifted down but summed separately, as 1,
 * 2, 4 and 8 times their sums. */
QV_TARGET_AVX2 QV_INLINE void bit_step_avx2(__m256i *apart, __m256i low, const int8_t *q) {
    const __m256i high = _mm256_srli_epi16(low, 4);
    for (int j = 0; j < 4; j++) {
        const __m256i bit = _mm256_set1_epi8((char)(1 << j));
        const __m256i *planes = (const __m256i *)(q + j * QV_BLOCK), *above = (const __m256i *)(q + (j + 4) * QV_BLOCK);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_and_si256(low, bit), _mm256_loadu_si256(planes));
        __m256i others = _mm256_maddubs_epi16(_mm256_and_si256(high, bit), _mm256_loadu_si256(above));
        apart[j] = _mm256_add_epi16(apart[j], _mm256_add_epi16(pairs, others));
    }
}

/* A row alone: four rows at once would need more registers than exist. */
QV_TARGET_AVX2 QV_INLINE __m256i bit_sum_avx2(const int8_t *q, const uint8_t *row, int left) {
    __m256i sum = _mm256_setzero_si256();
    while (left > 0) {
        __m256i apart[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                            _mm256_setzero_si256()};
        for (int g = 0; g < QV_BIT_GROUPS && left > 0; g++, left -= QV_BLOCK, row += QV_BLOCK, q += QV_BIT_GROUP) {
            bit_step_avx2(apart, load_avx2(row, left), q);
            if (left > 32) bit_step_avx2(apart, load_avx2(row + 32, left - 32), q + 32);
        }
        for (int j = 1; j < 4; j++) apart[0] = _mm256_add_epi16(apart[0], _mm256_srai_epi16(apart[j], j));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(apart[0], _mm256_set1_epi16(1)));
    }
    return sum;
}

QV_TARGET_AVX2 QV_INLINE void packed_sums_avx2(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows,
                                               int planes, int32_t *out) {
    const int8_t *q = qv_payload(query);
    __m256i sums[QV_GROUP] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                              _mm256_setzero_si256()};
    const __m256i table = packed_table_avx2(codec, planes);
    for (int r = 0; r < QV_GROUP && planes == 8; r++) sums[r] = bit_sum_avx2(q, rows[r], codec->data_size);
    for (int i = 0; i < codec->data_size && planes < 8; i += 32) {
        const int8_t *planes_at = q + i / QV_BLOCK * QV_BLOCK * planes + i % QV_BLOCK;
        for (int r = 0; r < QV_GROUP; r++) {
            __m256i data = load_avx2(rows[r] + i, codec->data_size - i);
            sums[r] = _mm256_add_epi32(sums[r], packed_step_avx2(planes_at, data, table, planes));
        }
    }
    _mm_storeu_si128((__m128i *)out, sum_lanes_avx2(sums));
}

QV_DEFINE_PACKED(avx2, QV_TARGET_AVX2)

QV_TARGET_AVX512 QV_INLINE __m512i packed_table_avx512(const qv_codec *codec, int planes) {
    if (planes != 2) return _mm512_setzero_si512();
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)qv_levels_of(codec)->table));
}

QV_TARGET_AVX512 QV_INLINE void packed_sums_avx512(const qv_codec *codec, const qv_query *query,
                                                   const uint8_t *const *rows, int planes, int32_t *out) {
    const int bits = 8 / planes;
    const int8_t *q = qv_payload(query);
    const __m512i low = _mm512_set1_epi8((char)((1 << bits) - 1)), table = packed_table_avx512(codec, planes);
    __m512i sums[QV_GROUP] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                              _mm512_setzero_si512()};
    for (int i = 0; i < codec->data_size; i += QV_BLOCK) {
        __mmask64 mask = ~0ull >> (QV_BLOCK - qv_packed_width(codec, i));
        __m512i data[QV_GROUP];
        for (int r = 0; r < QV_GROUP; r++) data[r] = _mm512_maskz_loadu_epi8(mask, rows[r] + i);
        for (int p = 0; p < planes; p++, q += QV_BLOCK) {
            __m512i signed_codes = _mm512_loadu_si512(q);
            for (int r = 0; r < QV_GROUP; r++) {
                __m512i values = _mm512_and_si512(data[r], low);
                if (planes == 2) values = _mm512_shuffle_epi8(table, values);
                sums[r] = _mm512_dpbusd_epi32(sums[r], values, signed_codes);
                data[r] = _mm512_srli_epi16(data[r], (unsigned)bits);
            }
        }
    }
    _mm_storeu_si128((__m128i *)out, sum_lanes_avx512(sums));
}

QV_DEFINE_PACKED(avx512, QV_TARGET_AVX512)

#elif defined(__aarch64__)
#define QV_DEFINE_PACKED_SUMS_NEON(level, target)                                                                    \
    target QV_INLINE void packed_sums_##level(const qv_codec *codec, const qv_query *query,                          \
                                              const uint8_t *const *rows, int planes, int32_t *out) {                \
        const int bits = 8 / planes;                                                                                 \
        const int8_t *q = qv_payload(query);                                                                         \
        const uint8x16_t low = vdupq_n_u8((uint8_t)((1 << bits) - 1));                                               \
        const int8x16_t right = vdupq_n_s8((int8_t)-bits);                                                           \
        const uint8x16_t table = planes == 2 ? vld1q_u8(qv_levels_of(codec)->table) : vdupq_n_u8(0);                 \
        int32x4_t sums[QV_GROUP] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};                 \
        for (int i = 0; i < codec->data_size; i += 16) {                                                             \
            const int8_t *planes_at = q + i / QV_BLOCK * QV_BLOCK * planes + i % QV_BLOCK;                           \
            for (int r = 0; r < QV_GROUP; r++) {                                                                     \
                uint8x16_t data = vld1q_u8(rows[r] + i);                                                             \
                for (int p = 0; p < planes; p++) {                                                                   \
                    uint8x16_t values = vandq_u8(data, low);                                                         \
                    if (planes == 2) values = vqtbl1q_u8(table, values);                                             \
                    sums[r] =                                                                                        \
                        int8_step_##level(sums[r], vreinterpretq_s8_u8(values), vld1q_s8(planes_at + p * QV_BLOCK)); \
                    data = vshlq_u8(data, right);                                                                    \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
        for (int r = 0; r < QV_GROUP; r++) out[r] = vaddvq_s32(sums[r]);                                             \
    }

QV_DEFINE_PACKED_SUMS_NEON(neon, )
QV_DEFINE_PACKED(neon, )
QV_DEFINE_PACKED_SUMS_NEON(neon_dot, QV_TARGET_DOT)
QV_DEFINE_PACKED(neon_dot, QV_TARGET_DOT)
#endif

#endif
