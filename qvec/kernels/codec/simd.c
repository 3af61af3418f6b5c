/* Detection of instruction sets, once, when the library is loaded. */
#include "codec/simd.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

const char *const qv_simd_names[QV_SIMD_LEVELS] = {"scalar", "avx2", "avx512", "neon", "neon_dot", "neon_i8mm"};

static int supported[QV_SIMD_LEVELS];
static int crc32c;

int qv_simd_compiled(int level) {
#if defined(__x86_64__)
    return level >= QV_SCALAR && level <= QV_AVX512;
#elif defined(__aarch64__)
    return level == QV_SCALAR || level >= QV_NEON;
#else
    return level == QV_SCALAR;
#endif
}

/* Level named by QVEC_SIMD; the highest if it is not set; -1 if it names no level of this build. */
static int level_cap(void) {
    const char *name = getenv("QVEC_SIMD");
    if (name == NULL || *name == '\0') return QV_SIMD_LEVELS - 1;
    for (int level = 0; level < QV_SIMD_LEVELS; level++) {
        if (qv_simd_compiled(level) && strcmp(name, qv_simd_names[level]) == 0) return level;
    }
    return -1;
}

#if defined(__x86_64__)
/* __builtin_cpu_supports also checks the operating system's XGETBV state. Only new compilers know f16c; the bit
 * requires the AVX state, which the check for avx2 includes. */
static int has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

static int machine_has(int level) {
#if defined(QV_EMULATED)
    return qv_simd_compiled(level);
#endif
    if (level == QV_SCALAR) return 1;
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt") &&
               has_f16c();
    if (level == QV_AVX2) return avx2;
    return level == QV_AVX512 && avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vpopcntdq");
}

static int machine_has_crc32c(void) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") ? 2 : 0;
}
#elif defined(__aarch64__)
/* What the system says (Linux: arch/arm64/include/uapi/asm/hwcap.h), or else what the compiler may assume. */
enum { HAS_PMULL = 1, HAS_CRC32 = 2, HAS_DOT = 4, HAS_I8MM = 8 };

static int machine_features(void) {
    int found = 0;
#if defined(__linux__)
    unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    if (first & (1UL << 4)) found |= HAS_PMULL;
    if (first & (1UL << 7)) found |= HAS_CRC32;
    if (first & (1UL << 20)) found |= HAS_DOT; /* HWCAP_ASIMDDP */
    if (second & (1UL << 13)) found |= HAS_I8MM;
#else
#if defined(__ARM_FEATURE_AES) || defined(__ARM_FEATURE_CRYPTO)
    found |= HAS_PMULL;
#endif
#if defined(__ARM_FEATURE_CRC32)
    found |= HAS_CRC32;
#endif
#if defined(__ARM_FEATURE_DOTPROD)
    found |= HAS_DOT;
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
    found |= HAS_I8MM;
#endif
#endif
    return found;
}

static int machine_has(int level) {
    int found = machine_features();
    if (level == QV_NEON_DOT) return (found & HAS_DOT) != 0;
    if (level == QV_NEON_I8MM) return (found & HAS_DOT) && (found & HAS_I8MM);
    return level == QV_SCALAR || level == QV_NEON;
}

static int machine_has_crc32c(void) {
    int found = machine_features();
    return found & HAS_CRC32 ? 1 + (found & HAS_PMULL) : 0;
}
#else
static int machine_has(int level) { return level == QV_SCALAR; }

static int machine_has_crc32c(void) { return 0; }
#endif

__attribute__((constructor)) static void detect(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    int cap = level_cap();
    for (int level = 0; level < QV_SIMD_LEVELS; level++) supported[level] = level <= cap && machine_has(level);
    crc32c = cap > QV_SCALAR ? machine_has_crc32c() : 0;
}

int qv_simd_supported(int level) { return level >= 0 && level < QV_SIMD_LEVELS && supported[level]; }

int qv_simd_best(void) {
    int level = QV_SIMD_LEVELS - 1;
    while (level >= 0 && !supported[level]) level--;
    return level;
}

int qv_simd_crc32c(void) { return crc32c; }
