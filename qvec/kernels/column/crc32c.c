/* CRC-32C (Castagnoli, reflected polynomial 0x82F63B78): the processor's instruction over three interleaved streams,
 * or slicing by eight tables (Kounavis and Berry 2005). */
#include "column/crc32c.h"

#include "codec/simd.h"

#include <string.h>

#define POLYNOMIAL 0x82F63B78u

static uint32_t tables[8][256];

__attribute__((constructor)) static void fill_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        tables[0][byte] = crc;
    }
    for (int t = 1; t < 8; t++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t previous = tables[t - 1][byte];
            tables[t][byte] = previous >> 8 ^ tables[0][previous & 255];
        }
    }
}

static uint32_t crc_tables(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^
              tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^ tables[0][p[7]];
    }
    for (; n > 0; p++, n--) crc = crc >> 8 ^ tables[0][(crc ^ *p) & 255];
    return crc;
}

#if defined(__x86_64__)
#define QV_TARGET_CRC __attribute__((target("sse4.2,crc32,pclmul")))
#define HAVE_CRC_INSTRUCTIONS 1

QV_TARGET_CRC static inline uint64_t crc_word(uint64_t crc, uint64_t word) { return _mm_crc32_u64(crc, word); }

QV_TARGET_CRC static inline uint64_t crc_byte(uint64_t crc, uint8_t byte) { return _mm_crc32_u8((uint32_t)crc, byte); }

QV_TARGET_CRC static inline uint64_t carryless(uint32_t a, uint32_t b) {
    return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0));
}
#elif defined(__aarch64__)
#define QV_TARGET_CRC
#define HAVE_CRC_INSTRUCTIONS 1

/* Assembly, because compilers disagree on how a function asks for the extension. */
static inline uint64_t crc_word(uint64_t crc, uint64_t word) {
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}

static inline uint64_t crc_byte(uint64_t crc, uint8_t byte) {
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
    return crc;
}

static inline uint64_t carryless(uint32_t a, uint32_t b) {
    uint64x2_t product;
    __asm__(".arch_extension crypto\n\tpmull %0.1q, %1.1d, %2.1d"
            : "=w"(product)
            : "w"(vcreate_u64(a)), "w"(vcreate_u64(b)));
    return vgetq_lane_u64(product, 0);
}
#endif

#if HAVE_CRC_INSTRUCTIONS
QV_TARGET_CRC static uint32_t crc_stream(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t state = crc, word;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, sizeof word);
        state = crc_word(state, word);
    }
    for (; n > 0; p++, n--) state = crc_byte(state, *p);
    return (uint32_t)state;
}

/* The instruction has a latency of three cycles: three streams of `length` bytes, a multiple of 64, keep it busy.
 * They are joined by moving a state over m bytes, a product with x^(8m - 33) mod P (reflected) that the instruction
 * itself reduces. Streams of a page are too short for the processor to foresee, so the next three are fetched
 * meanwhile. */
QV_TARGET_CRC static uint32_t crc_three(uint32_t crc, const uint8_t *p, size_t length, uint32_t past_one,
                                        uint32_t past_two) {
    uint64_t a = crc, b = 0, c = 0, word[3];
    for (size_t i = 0; i < length; i += 8) {
        if (i % 64 == 0)
            for (size_t stream = 3; stream < 6; stream++) __builtin_prefetch(p + stream * length + i);
        memcpy(&word[0], p + i, 8);
        memcpy(&word[1], p + length + i, 8);
        memcpy(&word[2], p + 2 * length + i, 8);
        a = crc_word(a, word[0]);
        b = crc_word(b, word[1]);
        c = crc_word(c, word[2]);
    }
    uint64_t joined = carryless((uint32_t)a, past_two) ^ carryless((uint32_t)b, past_one);
    return (uint32_t)(crc_word(0, joined) ^ c);
}

static uint32_t crc_instructions(uint32_t crc, const uint8_t *p, size_t n, int streams) {
    if (streams == 1) return crc_stream(crc, p, n);
    for (; n >= 3 * 4096; p += 3 * 4096, n -= 3 * 4096) crc = crc_three(crc, p, 4096, 0x82F89C77u, 0x54A86326u);
    for (; n >= 3 * 256; p += 3 * 256, n -= 3 * 256) crc = crc_three(crc, p, 256, 0xB9E02B86u, 0xDD7E3B0Cu);
    return crc_stream(crc, p, n);
}
#endif

uint32_t qv_crc32c(uint32_t crc, const void *data, size_t n) {
#if HAVE_CRC_INSTRUCTIONS
    int instructions = qv_simd_crc32c();
    if (instructions) return ~crc_instructions(~crc, data, n, instructions == 2 ? 3 : 1);
#endif
    return ~crc_tables(~crc, data, n);
}
