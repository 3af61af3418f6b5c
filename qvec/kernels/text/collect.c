#include "text/collect.h"

#include "codec/lanes.h"
#include "codec/simd.h"
#include "text/segment.h"

static uint32_t collect_scalar(const float *sums, uint32_t n, float limit, uint32_t *positions, float *found) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        positions[count] = i;
        found[count] = sums[i];
        count += sums[i] > limit;
    }
    return count;
}

#if defined(__x86_64__)
QV_TARGET_AVX2 static uint32_t collect_avx2(const float *sums, uint32_t n, float limit, uint32_t *positions,
                                            float *found) {
    const __m256 least = _mm256_set1_ps(limit);
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i += 8) {
        unsigned above = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(sums + i), least, _CMP_GT_OQ));
        for (; above; above &= above - 1) {
            uint32_t at = i + (uint32_t)__builtin_ctz(above);
            positions[count] = at;
            found[count++] = sums[at];
        }
    }
    return count;
}

QV_TARGET_AVX512 static uint32_t collect_avx512(const float *sums, uint32_t n, float limit, uint32_t *positions,
                                                float *found) {
    const __m512 least = _mm512_set1_ps(limit);
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 sum = _mm512_loadu_ps(sums + i);
        __mmask16 above = _mm512_cmp_ps_mask(sum, least, _CMP_GT_OQ);
        if (above) {
            _mm512_mask_compressstoreu_epi32(positions + count, above, at);
            _mm512_mask_compressstoreu_ps(found + count, above, sum);
            count += (uint32_t)__builtin_popcount(above);
        }
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
    }
    return count;
}
#elif defined(__aarch64__)
static uint32_t collect_neon(const float *sums, uint32_t n, float limit, uint32_t *positions, float *found) {
    const float32x4_t least = vdupq_n_f32(limit);
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i += 4) {
        if (vmaxvq_u32(vcgtq_f32(vld1q_f32(sums + i), least)) == 0) continue;
        for (uint32_t j = i; j < i + 4; j++) {
            positions[count] = j;
            found[count] = sums[j];
            count += sums[j] > limit;
        }
    }
    return count;
}
#endif

qv_collect_fn *const qv_collect[QV_SIMD_LEVELS] =
    QV_BY_LEVEL(collect_scalar, collect_avx2, collect_avx512, collect_neon);

typedef int32_t ints8 __attribute__((vector_size(32), aligned(4), may_alias));

QV_INLINE int fill(const uint8_t *const *lengths, uint32_t n_groups, float base, float slope, float *norms) {
    for (uint32_t group = 0; group < n_groups; group++) {
        for (int i = 0; i < QV_LENGTHS; i += 8) {
            qv_lanes8 of = __builtin_convertvector(*(const ints8 *)(lengths[group] + 4 * i), qv_lanes8);
            *(qv_lanes8 *)(norms + group * QV_LENGTHS + i) = base + slope * of;
        }
    }
    return 0;
}

QV_DEFINE_WIDE(static, int, fill_wide,
               (const uint8_t *const *lengths, uint32_t n_groups, float base, float slope, float *norms),
               (lengths, n_groups, base, slope, norms), fill)

void qv_fill_norms(const uint8_t *const *lengths, uint32_t n_groups, float base, float slope, float *norms) {
    fill_wide(lengths, n_groups, base, slope, norms);
}
