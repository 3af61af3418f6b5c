/* Instruction sets: those that kernels may use, detection on this machine, and prefetching. */
#ifndef QV_SIMD_H
#define QV_SIMD_H

#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "rows are stored little-endian and read in place"
#endif

/* NEON_DOT has the dot products of s8 (FEAT_DotProd), NEON_I8MM those of u8 and s8 as well (FEAT_I8MM). */
typedef enum { QV_SCALAR = 0, QV_AVX2 = 1, QV_AVX512 = 2, QV_NEON = 3, QV_NEON_DOT = 4, QV_NEON_I8MM = 5 } qv_simd;
#define QV_SIMD_LEVELS 6
#define QV_INLINE static inline __attribute__((always_inline))

/* Defines `linkage type name params`, which gives the same bits on every machine, from an inline function `body` of
 * fixed lanes: compiled for the baseline, and where there is a wider instruction set for that too. */
#if defined(__x86_64__)
#define QV_DEFINE_WIDE(linkage, type, name, params, arguments, body)         \
    static type name##_baseline params { return body arguments; }            \
    QV_TARGET_AVX2 static type name##_avx2 params { return body arguments; } \
    linkage type name params { return qv_simd_supported(QV_AVX2) ? name##_avx2 arguments : name##_baseline arguments; }
#else
#define QV_DEFINE_WIDE(linkage, type, name, params, arguments, body) \
    linkage type name params { return body arguments; }
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(QV_EMULATED) /* intrinsics are functions in C: tests/emulated */
#define QV_TARGET_AVX2
#define QV_TARGET_AVX512
#else
#define QV_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,popcnt")))
#define QV_TARGET_AVX512 \
    __attribute__((target("avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512vl,avx512vnni,avx512vpopcntdq")))
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
/* Functions of these levels. GCC names an architecture, which must have all that the rest is compiled for. */
#if defined(__ARM_FEATURE_DOTPROD)
#define QV_TARGET_DOT
#elif defined(__clang__)
#define QV_TARGET_DOT __attribute__((target("dotprod")))
#else
#define QV_TARGET_DOT __attribute__((target("arch=armv8.2-a+crypto+dotprod")))
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define QV_TARGET_I8MM
#elif defined(__clang__)
#define QV_TARGET_I8MM __attribute__((target("dotprod,i8mm")))
#elif defined(__ARM_FEATURE_DOTPROD)
#define QV_TARGET_I8MM __attribute__((target("+i8mm")))
#else
#define QV_TARGET_I8MM __attribute__((target("arch=armv8.2-a+crypto+dotprod+i8mm")))
#endif
#endif

/* Initializer of a table by level. The levels of other architectures are left out. */
#if defined(__x86_64__)
#define QV_BY_LEVEL(scalar, avx2, avx512, neon) {[QV_SCALAR] = scalar, [QV_AVX2] = avx2, [QV_AVX512] = avx512}
#define QV_BY_EACH_LEVEL(of) {[QV_SCALAR] = of(scalar), [QV_AVX2] = of(avx2), [QV_AVX512] = of(avx512)}
#elif defined(__aarch64__)
#define QV_BY_LEVEL(scalar, avx2, avx512, neon) \
    {[QV_SCALAR] = scalar, [QV_NEON] = neon, [QV_NEON_DOT] = neon, [QV_NEON_I8MM] = neon}
#define QV_BY_EACH_LEVEL(of) \
    {[QV_SCALAR] = of(scalar), [QV_NEON] = of(neon), [QV_NEON_DOT] = of(neon_dot), [QV_NEON_I8MM] = of(neon_i8mm)}
#else
#define QV_BY_LEVEL(scalar, avx2, avx512, neon) {[QV_SCALAR] = scalar}
#define QV_BY_EACH_LEVEL(of) {[QV_SCALAR] = of(scalar)}
#endif

/* Names by level, as QVEC_SIMD spells them. */
extern const char *const qv_simd_names[QV_SIMD_LEVELS];

/* The best level that this machine and QVEC_SIMD allow; -1: QVEC_SIMD names none. */
int qv_simd_best(void);

/* Whether kernels of the level can run here. */
int qv_simd_supported(int level);

/* Whether this build contains kernels of the level, on any machine. */
int qv_simd_compiled(int level);

/* Which instructions may be used for CRC32C: 0: none, 1: the processor's own, 2: its carry-less product too. */
int qv_simd_crc32c(void);

/* One cache line towards L2: rows fetched for a whole hop overflow the few L1 miss buffers.
 * Inline assembly because GCC drops calls of functions that do nothing but __builtin_prefetch. */
QV_INLINE void qv_prefetch_t1(const void *address) {
#if defined(__x86_64__)
    __asm__ volatile("prefetcht1 %0" : : "m"(*(const char *)address));
#elif defined(__aarch64__)
    __asm__ volatile("prfm pldl2keep, [%0]" : : "r"(address));
#else
    __builtin_prefetch(address, 0, 2);
#endif
}

/* Every line that [row, row + bytes) touches. */
QV_INLINE void qv_prefetch_row(const void *row, size_t bytes) {
    const char *end = (const char *)row + bytes;
    for (const char *line = (const char *)((uintptr_t)row & ~(uintptr_t)63); line < end; line += 64) {
        qv_prefetch_t1(line);
    }
}

#endif
