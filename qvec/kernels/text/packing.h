/* Packed bits of posting lists: 128 values in four lanes, or fewer in one stream (docs/format.md). */
#ifndef QV_PACKING_H
#define QV_PACKING_H

#include <stdint.h>
#include <string.h>

#include "codec/simd.h"

typedef uint32_t qv_words4 __attribute__((vector_size(16), aligned(4), may_alias));

static inline unsigned qv_bits_of(uint32_t value) { return value ? 32 - (unsigned)__builtin_clz(value) : 0; }

/* Bytes of n packed values. */
static inline uint32_t qv_packed_bytes(uint32_t n, unsigned bits) { return (n * bits + 31) / 32 * 4; }

static inline void qv_pack128(const uint32_t *values, unsigned bits, uint8_t *to) {
    uint64_t lane[4] = {0};
    unsigned filled = 0, word = 0;
    for (int i = 0; i < 32 && bits; i++) {
        for (int j = 0; j < 4; j++) lane[j] |= (uint64_t)values[4 * i + j] << filled;
        filled += bits;
        if (filled >= 32) {
            for (int j = 0; j < 4; j++) {
                uint32_t low = (uint32_t)lane[j];
                memcpy(to + 16 * word + 4 * j, &low, 4);
                lane[j] >>= 32;
            }
            filled -= 32;
            word++;
        }
    }
}

/* Unpack four values of a known number of bits: steps of different i do not depend on each other. */
#define QV_UNPACK4(i)                                                       \
    {                                                                       \
        const unsigned at = (i) * bits / 32, used = (i) * bits % 32;        \
        qv_words4 value = words[at] >> used;                                \
        if (used + bits > 32) value |= words[at + 1] << ((32 - used) & 31); \
        *(qv_words4 *)(values + 4 * (i)) = value & mask;                    \
    }
#define QV_UNPACK16(i) QV_UNPACK4(i) QV_UNPACK4(i + 1) QV_UNPACK4(i + 2) QV_UNPACK4(i + 3)

QV_INLINE void qv_unpack_bits(const uint8_t *from, const unsigned bits, uint32_t *values) {
    const qv_words4 mask = (qv_words4){} + (uint32_t)((1ull << bits) - 1);
    const qv_words4 *words = (const qv_words4 *)from;
    QV_UNPACK16(0)
    QV_UNPACK16(4) QV_UNPACK16(8) QV_UNPACK16(12) QV_UNPACK16(16) QV_UNPACK16(20) QV_UNPACK16(24) QV_UNPACK16(28)
}

QV_INLINE void qv_unpack_any(const uint8_t *from, unsigned bits, uint32_t *values) {
    const qv_words4 mask = (qv_words4){} + (uint32_t)((1ull << bits) - 1);
    const qv_words4 *words = (const qv_words4 *)from;
    for (unsigned i = 0; i < 32; i++) QV_UNPACK4(i)
}

#define QV_UNPACK_CASE(n)                \
    case n:                              \
        qv_unpack_bits(from, n, values); \
        return;

QV_INLINE void qv_unpack128(const uint8_t *from, unsigned bits, uint32_t *values) {
    switch (bits) {
    case 0:
        memset(values, 0, 128 * sizeof *values);
        return;
        QV_UNPACK_CASE(1)
        QV_UNPACK_CASE(2)
        QV_UNPACK_CASE(3)
        QV_UNPACK_CASE(4)
        QV_UNPACK_CASE(5)
        QV_UNPACK_CASE(6)
        QV_UNPACK_CASE(7)
        QV_UNPACK_CASE(8)
        QV_UNPACK_CASE(9)
        QV_UNPACK_CASE(10)
    default:
        qv_unpack_any(from, bits, values);
    }
}

static inline void qv_pack_tail(const uint32_t *values, uint32_t n, unsigned bits, uint8_t *to) {
    uint64_t word = 0;
    unsigned filled = 0;
    for (uint32_t i = 0; i < n && bits; i++) {
        word |= (uint64_t)values[i] << filled;
        filled += bits;
        if (filled >= 32) {
            uint32_t low = (uint32_t)word;
            memcpy(to, &low, 4);
            to += 4, word >>= 32, filled -= 32;
        }
    }
    if (filled) {
        uint32_t low = (uint32_t)word;
        memcpy(to, &low, 4);
    }
}

static inline void qv_unpack_tail(const uint8_t *from, uint32_t n, unsigned bits, uint32_t *values) {
    uint64_t word = 0;
    unsigned filled = 0;
    const uint32_t mask = (uint32_t)((1ull << bits) - 1);
    for (uint32_t i = 0; i < n; i++) {
        if (filled < bits) {
            uint32_t more;
            memcpy(&more, from, 4);
            from += 4, word |= (uint64_t)more << filled, filled += 32;
        }
        values[i] = (uint32_t)word & mask;
        word >>= bits, filled -= bits;
    }
}

/* values[i] = start + the sum of values[0..i], modulo 2^32. */
QV_INLINE void qv_sum128(uint32_t *values, uint32_t start) {
    qv_words4 carry = (qv_words4){} + start;
    const qv_words4 zero = {0};
    for (int i = 0; i < 128; i += 4) {
        qv_words4 v = *(qv_words4 *)(values + i);
        v += __builtin_shufflevector(zero, v, 0, 4, 5, 6);
        v += __builtin_shufflevector(zero, v, 0, 1, 4, 5);
        v += carry;
        *(qv_words4 *)(values + i) = v;
        carry = __builtin_shufflevector(v, v, 3, 3, 3, 3);
    }
}

#endif
