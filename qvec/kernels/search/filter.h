/* Selection of the rows in a group that are near enough for the candidate list. */
#ifndef QV_FILTER_H
#define QV_FILTER_H

#include "codec/simd.h"

/* Move the keys that are at most `bound` to the front, and their rows to `kept`, both in order. Returns their
 * number. Arrays must have space for n rounded up to 16. */
typedef int (*qv_filter_fn)(float *key, const uint32_t *row, int n, float bound, uint32_t *kept);

/* Branch-free: which keys are near cannot be predicted. */
QV_INLINE int filter_rest(float *key, const uint32_t *row, int start, int stop, float bound, uint32_t *kept,
                          int count) {
    for (int i = start; i < stop; i++) {
        float k = key[i];
        key[count] = k;
        kept[count] = row[i];
        count += k <= bound;
    }
    return count;
}

static int filter_scalar(float *key, const uint32_t *row, int n, float bound, uint32_t *kept) {
    return filter_rest(key, row, 0, n, bound, kept, 0);
}

#if defined(__x86_64__)
QV_TARGET_AVX2 static int filter_avx2(float *key, const uint32_t *row, int n, float bound, uint32_t *kept) {
    int count = 0;
    for (int i = 0; i < n; i += 8) {
        __m256 near = _mm256_cmp_ps(_mm256_loadu_ps(key + i), _mm256_set1_ps(bound), _CMP_LE_OQ);
        if (_mm256_testz_ps(near, near)) continue; /* mostly, in a scan */
        count = filter_rest(key, row, i, n < i + 8 ? n : i + 8, bound, kept, count);
    }
    return count;
}

QV_TARGET_AVX512 static int filter_avx512(float *key, const uint32_t *row, int n, float bound, uint32_t *kept) {
    int count = 0;
    for (int i = 0; i < n; i += 16) {
        __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xFFFF;
        __m512 keys = _mm512_loadu_ps(key + i);
        __mmask16 near = _mm512_mask_cmp_ps_mask(some, keys, _mm512_set1_ps(bound), _CMP_LE_OQ);
        if (!near) continue;
        /* compressed in registers: compressing stores are slow on some machines */
        _mm512_storeu_ps(key + count, _mm512_maskz_compress_ps(near, keys));
        _mm512_storeu_si512(kept + count, _mm512_maskz_compress_epi32(near, _mm512_loadu_si512(row + i)));
        count += __builtin_popcount(near);
    }
    return count;
}
#elif defined(__aarch64__)
static int filter_neon(float *key, const uint32_t *row, int n, float bound, uint32_t *kept) {
    const float32x4_t limit = vdupq_n_f32(bound);
    int count = 0;
    for (int i = 0; i < n; i += 16) {
        uint32x4_t a = vcleq_f32(vld1q_f32(key + i), limit), b = vcleq_f32(vld1q_f32(key + i + 4), limit);
        uint32x4_t c = vcleq_f32(vld1q_f32(key + i + 8), limit), d = vcleq_f32(vld1q_f32(key + i + 12), limit);
        if (vmaxvq_u32(vorrq_u32(vorrq_u32(a, b), vorrq_u32(c, d))) == 0) continue; /* mostly, in a scan */
        count = filter_rest(key, row, i, n < i + 16 ? n : i + 16, bound, kept, count);
    }
    return count;
}
#endif

static const qv_filter_fn QV_FILTERS[QV_SIMD_LEVELS] =
    QV_BY_LEVEL(filter_scalar, filter_avx2, filter_avx512, filter_neon);

#endif
