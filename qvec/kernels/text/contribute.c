/* Scores of postings, equal to the last bit at each SIMD level. */
#include "codec/simd.h"
#include "text/score.h"

static void contribute_scalar(const uint32_t *rows, const uint32_t *values, uint32_t n, uint32_t start,
                              const float *norms, float weight, float *scores) {
    for (uint32_t i = 0; i < n; i++) {
        float value = (float)values[i];
        scores[i] = norms ? weight * (value / (value + norms[(rows[i] - start) & (QV_WINDOW - 1)])) : weight * value;
    }
}

#if defined(__x86_64__)
QV_TARGET_AVX2 static void contribute_avx2(const uint32_t *rows, const uint32_t *values, uint32_t n, uint32_t start,
                                           const float *norms, float weight, float *scores) {
    const __m256 w = _mm256_set1_ps(weight);
    const __m256i first = _mm256_set1_epi32((int)start), mask = _mm256_set1_epi32(QV_WINDOW - 1);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 value = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(values + i)));
        if (norms) {
            __m256i at =
                _mm256_and_si256(_mm256_sub_epi32(_mm256_loadu_si256((const __m256i *)(rows + i)), first), mask);
            __m256 norm = _mm256_i32gather_ps(norms, at, 4);
            value = _mm256_div_ps(value, _mm256_add_ps(value, norm));
        }
        _mm256_storeu_ps(scores + i, _mm256_mul_ps(w, value));
    }
    contribute_scalar(rows + i, values + i, n - i, start, norms, weight, scores + i);
}

QV_TARGET_AVX512 static void contribute_avx512(const uint32_t *rows, const uint32_t *values, uint32_t n, uint32_t start,
                                               const float *norms, float weight, float *scores) {
    const __m512 w = _mm512_set1_ps(weight);
    const __m512i first = _mm512_set1_epi32((int)start), mask = _mm512_set1_epi32(QV_WINDOW - 1);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 value = _mm512_cvtepi32_ps(_mm512_loadu_si512(values + i));
        if (norms) {
            __m512i at = _mm512_and_si512(_mm512_sub_epi32(_mm512_loadu_si512(rows + i), first), mask);
            __m512 norm = _mm512_i32gather_ps(at, norms, 4);
            value = _mm512_div_ps(value, _mm512_add_ps(value, norm));
        }
        _mm512_storeu_ps(scores + i, _mm512_mul_ps(w, value));
    }
    contribute_scalar(rows + i, values + i, n - i, start, norms, weight, scores + i);
}
#elif defined(__aarch64__)
static void contribute_neon(const uint32_t *rows, const uint32_t *values, uint32_t n, uint32_t start,
                            const float *norms, float weight, float *scores) {
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t value = vcvtq_f32_s32(vreinterpretq_s32_u32(vld1q_u32(values + i)));
        if (norms) {
            float near[4];
            for (int j = 0; j < 4; j++) near[j] = norms[(rows[i + j] - start) & (QV_WINDOW - 1)];
            value = vdivq_f32(value, vaddq_f32(value, vld1q_f32(near)));
        }
        vst1q_f32(scores + i, vmulq_n_f32(value, weight));
    }
    contribute_scalar(rows + i, values + i, n - i, start, norms, weight, scores + i);
}
#endif

qv_contribute_fn *const qv_contribute[QV_SIMD_LEVELS] =
    QV_BY_LEVEL(contribute_scalar, contribute_avx2, contribute_avx512, contribute_neon);
