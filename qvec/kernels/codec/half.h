/* IEEE 754 binary16 and bfloat16 (the upper half of binary32) in plain C, without branches so that loops vectorize;
 * equal to what F16C and NEON convert. */
#ifndef QV_HALF_H
#define QV_HALF_H

#include "codec/simd.h"

#include <string.h>

QV_INLINE uint32_t qv_float_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

QV_INLINE float qv_bits_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Nearest, ties to even; beyond +-65504 it saturates. */
QV_INLINE uint16_t qv_half(float f) {
    const uint32_t largest = 0x477FE000, smallest_normal = 113u << 23, rebias = 112u << 23;
    uint32_t bits = qv_float_bits(f);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    magnitude = magnitude > largest ? largest : magnitude;
    uint32_t normal = (magnitude - rebias + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
    /* one unit in the last place of 0.5f is the unit of subnormal halves */
    uint32_t subnormal = qv_float_bits(qv_bits_float(magnitude) + 0.5f) - qv_float_bits(0.5f);
    return (uint16_t)(sign | (magnitude < smallest_normal ? subnormal : normal));
}

QV_INLINE float qv_from_half(uint16_t h) {
    const uint32_t exponents = 0x0F800000u, rebias = 112u << 23, one = 1u << 23;
    uint32_t magnitude = (uint32_t)(h & 0x7FFFu) << 13;
    uint32_t exponent = magnitude & exponents;
    uint32_t normal = magnitude + rebias + (exponent == exponents ? rebias : 0);
    uint32_t subnormal = qv_float_bits(qv_bits_float(magnitude + rebias + one) - qv_bits_float(rebias + one));
    return qv_bits_float((uint32_t)(h & 0x8000u) << 16 | (exponent == 0 ? subnormal : normal));
}

/* Nearest, ties to even; values that would round to infinity saturate. */
QV_INLINE uint16_t qv_bf16(float f) {
    const uint32_t largest = 0x7F7F0000u;
    uint32_t bits = qv_float_bits(f), magnitude = bits & 0x7FFFFFFFu;
    magnitude = magnitude > largest ? largest : magnitude;
    return (uint16_t)((bits & 0x80000000u) >> 16 | (magnitude + 0x7FFFu + (magnitude >> 16 & 1u)) >> 16);
}

QV_INLINE float qv_from_bf16(uint16_t h) { return qv_bits_float((uint32_t)h << 16); }

#endif
