/* Functions for both walks over packed nodes: state, prefetches in parts, and estimates of neighbors. */
#ifndef QV_PACKED_WALK_H
#define QV_PACKED_WALK_H

#include "graph/beam.h"
#include "codec/half.h"
#include "codec/lanes.h"
#include "graph/nodes.h"

/* A node is prefetched in three parts, with work in between: more lines at once would exceed the miss buffers and
 * stall. */
#define QV_FIRST_PART (8 * 64)
#define QV_SECOND_PART (8 * 64)

/* State of one search. */
typedef struct {
    const qv_nodes *index;
    const qv_node_layout *layout;
    const qv_query *query;
    const uint8_t *table;
    float delta;
    qv_fs_sums_fn sums;
    qv_beam beam;
    const uint8_t *coming, *coming_end; /* part of the next node that is not prefetched yet */
    qv_scratch *s;
} qv_packed_walk;

QV_INLINE void qv_fetch_part(qv_packed_walk *w, size_t bytes) {
    const uint8_t *line = w->coming, *end = (size_t)(w->coming_end - line) > bytes ? line + bytes : w->coming_end;
    for (; line < end; line += 64) qv_prefetch_t1(line);
    w->coming = line;
}

/* Entries of 32 neighbors, without their indexes, computed from their sums; bit i of the result: neighbor i is a row,
 * and its key is below the bound. The order of operations is the same on every level. A NaN in a damaged file is never
 * below the bound. */
typedef uint32_t qv_estimate_fn(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale, const int32_t *sums,
                                float base, qv_node_units units, float bound, int32_t places, uint32_t n,
                                int32_t *entries);

QV_INLINE uint32_t qv_estimate_scalar(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale,
                                      const int32_t *sums, float base, qv_node_units units, float bound, int32_t places,
                                      uint32_t n, int32_t *entries) {
    uint32_t mask = 0;
    for (int i = 0; i < QV_FS_VECTORS; i++) {
        uint16_t half[2];
        uint32_t row;
        memcpy(&row, rows + 4 * i, sizeof row);
        memcpy(&half[0], add + 2 * i, sizeof half[0]);
        memcpy(&half[1], rescale + 2 * i, sizeof half[1]);
        float slope = qv_from_half(half[1]) * units.rescale;
        float key = (base + qv_from_half(half[0]) * units.add) + slope * (float)sums[i];
        entries[i] = qv_beam_ordered(key) & ~places;
        mask |= (uint32_t)(key < bound && row < n) << i;
    }
    return mask;
}

#if defined(__x86_64__)
QV_TARGET_AVX2 QV_INLINE uint32_t qv_estimate_avx2(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale,
                                                   const int32_t *sums, float base, qv_node_units units, float bound,
                                                   int32_t places, uint32_t n, int32_t *entries) {
    uint32_t mask = 0;
    const __m256i last = _mm256_set1_epi32((int32_t)(n - 1)), kept = _mm256_set1_epi32(~places);
    for (int i = 0; i < QV_FS_VECTORS; i += 8) {
        __m256 adds = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(add + 2 * i)));
        __m256 slopes = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(rescale + 2 * i)));
        __m256 counts = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(sums + i)));
        slopes = _mm256_mul_ps(slopes, _mm256_set1_ps(units.rescale));
        adds = _mm256_add_ps(_mm256_set1_ps(base), _mm256_mul_ps(adds, _mm256_set1_ps(units.add)));
        __m256 key = _mm256_add_ps(adds, _mm256_mul_ps(slopes, counts));
        __m256i row = _mm256_loadu_si256((const __m256i *)(rows + 4 * i));
        __m256i is_row = _mm256_cmpeq_epi32(_mm256_min_epu32(row, last), row);
        __m256 near = _mm256_cmp_ps(key, _mm256_set1_ps(bound), _CMP_LT_OQ);
        __m256i bits = _mm256_castps_si256(key);
        bits = _mm256_xor_si256(bits, _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1));
        _mm256_storeu_si256((__m256i *)(entries + i), _mm256_and_si256(bits, kept));
        mask |= (uint32_t)_mm256_movemask_ps(_mm256_and_ps(near, _mm256_castsi256_ps(is_row))) << i;
    }
    return mask;
}
#elif defined(__aarch64__)
QV_INLINE uint32_t qv_estimate_neon(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale,
                                    const int32_t *sums, float base, qv_node_units units, float bound, int32_t places,
                                    uint32_t n, int32_t *entries) {
    const uint32x4_t bits = {1, 2, 4, 8};
    uint32_t mask = 0;
    for (int i = 0; i < QV_FS_VECTORS; i += 4) {
        float32x4_t adds = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(add + 2 * i)));
        float32x4_t slopes = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(rescale + 2 * i)));
        slopes = vmulq_n_f32(slopes, units.rescale);
        adds = vaddq_f32(vdupq_n_f32(base), vmulq_n_f32(adds, units.add));
        float32x4_t key = vaddq_f32(adds, vmulq_f32(slopes, vcvtq_f32_s32(vld1q_s32(sums + i))));
        uint32x4_t row = vreinterpretq_u32_u8(vld1q_u8(rows + 4 * i));
        uint32x4_t near = vandq_u32(vcltq_f32(key, vdupq_n_f32(bound)), vcltq_u32(row, vdupq_n_u32(n)));
        uint32x4_t signs = vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_f32(key), 31));
        uint32x4_t ordered = veorq_u32(vreinterpretq_u32_f32(key), vshrq_n_u32(signs, 1));
        vst1q_s32(entries + i, vreinterpretq_s32_u32(vbicq_u32(ordered, vdupq_n_u32((uint32_t)places))));
        mask |= vaddvq_u32(vandq_u32(near, bits)) << i;
    }
    return mask;
}
#endif

QV_INLINE float qv_own_key(const qv_packed_walk *w, const qv_node_layout *layout, const uint8_t *node) {
    const uint8_t *code = node + layout->at_code;
    float key;
    layout->codec->score(layout->codec, w->query, &code, 1, &key);
    return key;
}

/* The walk by codes: see walk_by_codes.c. s->pool is empty and its capacity is set. Returns QV_OK or an error. */
int qv_walk_by_codes(qv_packed_walk *w);

#endif
