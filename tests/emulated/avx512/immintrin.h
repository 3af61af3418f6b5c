/* AVX-512 as plain C, for machines without it: SIMDe (libsimde-dev), and what its releases leave out. */
#ifndef QV_EMULATED_IMMINTRIN_H
#define QV_EMULATED_IMMINTRIN_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#define SIMDE_NO_NATIVE
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/clmul.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#include <simde/x86/sse4.2.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t __mmask8;
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;
typedef uint64_t __mmask64;

static inline __m512i emulated_load(const void *at, uint64_t mask, size_t size) {
    uint8_t bytes[64] = {0};
    for (size_t i = 0; i < 64 / size; i++)
        if (mask >> i & 1) memcpy(bytes + i * size, (const uint8_t *)at + i * size, size);
    return simde_mm512_loadu_si512(bytes);
}

#undef _mm512_maskz_loadu_epi8
#undef _mm512_maskz_loadu_epi64
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_epi8(mask, at) emulated_load(at, mask, 1)
#define _mm512_maskz_loadu_epi64(mask, at) emulated_load(at, mask, 8)
#define _mm512_maskz_loadu_ps(mask, at) simde_mm512_castsi512_ps(emulated_load(at, mask, 4))

static inline int64_t emulated_sum_epi64(__m512i v) {
    int64_t lanes[8], sum = 0;
    memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < 8; i++) sum += lanes[i];
    return sum;
}

/* In the order of the compilers' own. */
static inline float emulated_sum_ps(__m512 v) {
    float lanes[16];
    memcpy(lanes, &v, sizeof lanes);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

static inline __m512 emulated_cvtph(__m256i halves) {
    __m256 parts[2] = {simde_mm256_cvtph_ps(simde_mm256_castsi256_si128(halves)),
                       simde_mm256_cvtph_ps(simde_mm256_extracti128_si256(halves, 1))};
    __m512 v;
    memcpy(&v, parts, sizeof v);
    return v;
}

static inline __m256i emulated_load_epi16(uint16_t mask, const void *at) {
    uint16_t halves[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) memcpy(halves + i, (const uint16_t *)at + i, 2);
    return simde_mm256_loadu_si256((const __m256i *)halves);
}

static inline __m512i emulated_widen(__m256i halves) {
    uint16_t narrow[16];
    uint32_t wide[16];
    memcpy(narrow, &halves, sizeof narrow);
    for (int i = 0; i < 16; i++) wide[i] = narrow[i];
    return simde_mm512_loadu_si512(wide);
}

static inline __m512 emulated_cvtepi32(__m512i v) {
    int32_t lanes[16];
    float floats[16];
    memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < 16; i++) floats[i] = (float)lanes[i];
    return simde_mm512_loadu_ps(floats);
}

static inline __m512 emulated_gather(__m512i at, const float *from) {
    int32_t lanes[16];
    float floats[16];
    memcpy(lanes, &at, sizeof lanes);
    for (int i = 0; i < 16; i++) floats[i] = from[lanes[i]];
    return simde_mm512_loadu_ps(floats);
}

static inline __m512i emulated_gather_epi32(__m512i other, __mmask16 mask, __m512i at, const void *from) {
    int32_t lanes[16], found[16];
    memcpy(lanes, &at, sizeof lanes);
    memcpy(found, &other, sizeof found);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) memcpy(found + i, (const char *)from + 4 * (ptrdiff_t)lanes[i], 4);
    return simde_mm512_loadu_si512(found);
}

static inline __mmask16 emulated_testn_epi32(__mmask16 mask, __m512i a, __m512i b) {
    uint32_t first[16], second[16];
    unsigned none = 0;
    memcpy(first, &a, sizeof first);
    memcpy(second, &b, sizeof second);
    for (int i = 0; i < 16; i++) none |= (unsigned)!(first[i] & second[i]) << i;
    return (__mmask16)(mask & none);
}

static inline int32_t emulated_sum_epi32(__m512i v) {
    uint32_t lanes[16], sum = 0;
    memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < 16; i++) sum += lanes[i];
    return (int32_t)sum;
}

#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(v) emulated_cvtepi32(v)
#undef _mm512_i32gather_ps
#define _mm512_i32gather_ps(at, from, scale) emulated_gather(at, from) /* the kernels' scale is 4 */
#undef _mm512_mask_i32gather_epi32
#define _mm512_mask_i32gather_epi32(other, mask, at, from, scale) emulated_gather_epi32(other, mask, at, from)
#undef _mm512_mask_testn_epi32_mask
#define _mm512_mask_testn_epi32_mask(mask, a, b) emulated_testn_epi32(mask, a, b)
#undef _mm512_reduce_add_epi32
#define _mm512_reduce_add_epi32(v) emulated_sum_epi32(v)
#undef _mm512_mask_cmp_ps_mask
#define _mm512_mask_cmp_ps_mask(mask, a, b, how) ((__mmask16)((mask) & simde_mm512_cmp_ps_mask(a, b, how)))
#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16(mask, at) emulated_load_epi16(mask, at)
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32(v) emulated_widen(v)
#define _mm512_reduce_add_epi64(v) emulated_sum_epi64(v)
#define _mm512_reduce_add_ps(v) emulated_sum_ps(v)
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(v) emulated_cvtph(v)

#endif
