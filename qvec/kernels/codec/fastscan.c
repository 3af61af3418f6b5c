#include "codec/fastscan.h"

#include "codec/lanes.h"

#include <float.h>

#define GROUP 4          /* dims of a nibble */
#define BIAS 32          /* of a table's entries */
#define ENTRY_MAX 31     /* less the bias */
#define FRACTION 8       /* bits of a query's value below an entry's unit */
#define CHUNK_LINES 256  /* lines whose sums fit into 16 bits: 256 * 4 * 63 < 2^16 */
#define ERROR_SIGMA 1.9f /* RaBitQ's e0 */

/* --- encoding --- */

static int place(int vector) { return vector < 8 ? 2 * vector : 2 * (vector - 8) + 1; }

/* Bit i: whether dim i of 16 is above zero. */
static uint32_t signs_of(const float *x) {
    uint32_t bits = 0;
#if defined(__x86_64__)
    for (int i = 0; i < QV_FS_DIMS; i += 4)
        bits |= (uint32_t)_mm_movemask_ps(_mm_cmpgt_ps(_mm_loadu_ps(x + i), _mm_setzero_ps())) << i;
#else
    for (int i = 0; i < QV_FS_DIMS; i++) bits |= (uint32_t)(x[i] > 0) << i;
#endif
    return bits;
}

void qv_fs_put(const float *residual, int dims, int slot, uint8_t *codes) {
    int shift = slot < 16 ? 0 : 4;
    uint8_t kept = (uint8_t)(0xF0 >> shift), *at = codes + place(slot % 16);
    for (int i = 0; i < dims; i += QV_FS_DIMS, at += QV_FS_LINE) {
        uint32_t bits = signs_of(residual + i);
        for (int g = 0; g < 4; g++) at[16 * g] = (uint8_t)((at[16 * g] & kept) | (bits >> GROUP * g & 15) << shift);
    }
}

void qv_fs_add(const uint8_t *codes, int dims, int slot, float amplitude, float *out) {
    int shift = slot < 16 ? 0 : 4;
    codes += place(slot % 16);
    for (int i = 0; i < dims; i += GROUP, codes += 16) {
        for (int j = 0; j < GROUP; j++) out[i + j] += codes[0] >> (shift + j) & 1 ? amplitude : -amplitude;
    }
}

void qv_fs_copy(const uint8_t *source, int from, uint8_t *target, int to, int dims) {
    int down = from < 16 ? 0 : 4, up = to < 16 ? 0 : 4;
    uint8_t kept = (uint8_t)(0xF0 >> up);
    source += place(from % 16);
    target += place(to % 16);
    for (int i = 0; i < dims / GROUP * 16; i += 16)
        target[i] = (uint8_t)((target[i] & kept) | (source[i] >> down & 15) << up);
}

void qv_fs_clear(uint8_t *target, int to, int dims) {
    uint8_t kept = (uint8_t)(to < 16 ? 0xF0 : 0x0F);
    target += place(to % 16);
    for (int i = 0; i < dims / GROUP * 16; i += 16) target[i] &= kept;
}

typedef struct {
    float norm2, along, centroid_along, centroid_dot; /* |r|^2, <r, b>, <c, b>, <c, r> */
} products;

QV_INLINE float fold8(const qv_lanes8 *lanes) {
    const qv_lanes8 v = *lanes;
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

QV_INLINE products multiply(const float *residual, const float *center, int dims, int coded) {
    qv_lanes8 norm2 = {0}, along = {0}, centroid_along = {0}, centroid_dot = {0};
    for (int i = 0; i < coded; i += 8) {
        qv_lanes8 r = *(const qv_lanes8 *)(residual + i), c = *(const qv_lanes8 *)(center + i);
        qv_mask8 flip = (r <= 0) & INT32_MIN;
        norm2 += r * r;
        along += (qv_lanes8)((qv_mask8)r & INT32_MAX);
        centroid_along += (qv_lanes8)((qv_mask8)c ^ flip);
        centroid_dot += c * r;
    }
    for (int i = coded; i < dims; i += 8) {
        qv_lanes8 r = *(const qv_lanes8 *)(residual + i), c = *(const qv_lanes8 *)(center + i);
        norm2 += r * r;
        centroid_dot += c * r;
    }
    return (products){fold8(&norm2), fold8(&along) / 2, fold8(&centroid_along) / 2, fold8(&centroid_dot)};
}

QV_DEFINE_WIDE(static, products, multiply_best, (const float *residual, const float *center, int dims, int coded),
               (residual, center, dims, coded), multiply)

/* With s = |r|^2 / <r, b>, <q - c, r> is estimated as s <q - c, b>: |q - v|^2 = |q - c|^2 + |r|^2 - 2 <q - c, r>, and
 * -<q, v> = -<q, c> - <c, r> - <q - c, r>. The bound is that of theorem 3.2. A vector whose products exceed float32 is
 * treated as its center. b is zero in dims whose sign is not stored, so <q, b> does not need them. */
qv_fs_factors qv_fs_factors_of(int metric, const float *residual, const float *center, int dims, int coded) {
    products p = multiply_best(residual, center, dims, coded);
    float factor = metric == QV_L2 ? 2 : 1, scale = p.norm2 / p.along;
    float excess = scale * ((float)coded / 4 / p.along) - 1;
    float add = (metric == QV_L2 ? p.norm2 : -p.centroid_dot) + factor * scale * p.centroid_along;
    float error = factor * ERROR_SIGMA * sqrtf(p.norm2 * (excess > 0 ? excess : 0) / (float)(dims - 1));
    if (!isfinite(add) || !isfinite(error)) return (qv_fs_factors){0, 0, 0};
    return (qv_fs_factors){.add = add, .rescale = -factor * scale, .error = error};
}

void qv_fs_widen(qv_fs_factors *factors, float loss, int dims) {
    if (!(loss > 0)) return;
    if (loss >= FLT_MAX) { /* nothing is known of the vector */
        factors->error = FLT_MAX;
        return;
    }
    float more = 2 * ERROR_SIGMA * sqrtf(loss / (float)dims);
    factors->add += loss;
    factors->error = sqrtf(factors->error * factors->error + more * more);
}

/* With L = sum |r_i|, s = 2 |r|^2 / L, and e the bound without its factors:
 *     e^2 = (s^2 dims / 4 - |r|^2) / (dims - 1) + w / dims     w: the loss of qv_fs_widen, 0 under QV_IP
 *     add - 2 s <c, b> = |r|^2 + w                             under QV_L2
 * which give |r|^2, w and L. The signs times L / dims are nearest to r, at the squared distance |r|^2 - L^2 / dims. */
float qv_fs_amplitude(int metric, const qv_fs_factors *factors, double along, int dims, double *loss) {
    double factor = metric == QV_L2 ? 2 : 1, scale = -factors->rescale / factor;
    double error = factors->error / (factor * ERROR_SIGMA), square = scale * scale * dims / 4;
    double norm2 = square - error * error * (dims - 1), widened = 0;
    if (metric == QV_L2) {
        double both = factors->add - 2 * scale * along;
        widened = (error * error - (square - both) / (dims - 1)) / (1.0 / dims + 1.0 / (dims - 1));
        if (widened < 0) widened = 0;
        norm2 = both - widened;
    }
    *loss = 0;
    if (!(scale > 0) || !(norm2 > 0)) {
        *loss = error > 0 ? INFINITY : 0; /* a vector that is treated as its center, and one that equals it */
        return 0;
    }
    if (norm2 > square) norm2 = square;
    *loss = norm2 * (1 - norm2 / square) + widened;
    return (float)(2 * norm2 / (scale * dims));
}

/* --- the table --- */

typedef int16_t entries16 __attribute__((vector_size(32)));
typedef uint8_t bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

QV_INLINE qv_lanes4 add_neighbors(qv_lanes4 a, qv_lanes4 b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}

QV_INLINE qv_lanes4 absolute(const float *x) {
    const qv_mask4 rest = {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX};
    return (qv_lanes4)((qv_mask4) * (const qv_lanes4 *)x & rest);
}

/* The largest sum of a group's absolute values. */
QV_INLINE float largest_group(const float *q, int dims) {
    qv_lanes4 largest = {0};
    for (int i = 0; i < dims; i += QV_FS_DIMS) {
        qv_lanes4 low = add_neighbors(absolute(q + i), absolute(q + i + 4));
        qv_lanes4 sums = add_neighbors(low, add_neighbors(absolute(q + i + 8), absolute(q + i + 12)));
        qv_mask4 more = sums > largest;
        largest = (qv_lanes4)(((qv_mask4)sums & more) | ((qv_mask4)largest & ~more));
    }
    float low = largest[0] > largest[1] ? largest[0] : largest[1];
    float high = largest[2] > largest[3] ? largest[2] : largest[3];
    return low > high ? low : high;
}

#define SIGN(p, j) ((p) >> (j) & 1 ? 1 : -1)
#define SIGNS(j)                                                                                          \
    {SIGN(0, j), SIGN(1, j), SIGN(2, j),  SIGN(3, j),  SIGN(4, j),  SIGN(5, j),  SIGN(6, j),  SIGN(7, j), \
     SIGN(8, j), SIGN(9, j), SIGN(10, j), SIGN(11, j), SIGN(12, j), SIGN(13, j), SIGN(14, j), SIGN(15, j)}

/* Entry p of a group: the bias, and the sum of its dims by the bits of p, rounded. */
QV_INLINE void fill_entries(const int16_t *k, uint8_t *entries) {
    const entries16 first = SIGNS(0), second = SIGNS(1), third = SIGNS(2), fourth = SIGNS(3);
    entries16 sums = (first * k[0] + second * k[1]) + (third * k[2] + fourth * k[3]);
    sums = (sums + ((BIAS << FRACTION) + (1 << (FRACTION - 1)))) >> FRACTION;
    *(bytes16 *)entries = __builtin_convertvector(sums, bytes16);
}

QV_INLINE float fill_table(const float *q, int dims, uint8_t *table) {
    float delta = largest_group(q, dims) / (2 * ENTRY_MAX);
    float scale = delta > 0x1p-120f ? (1 << FRACTION) / (2 * delta) : 0; /* its inverse is finite */
    for (int i = 0; i < dims; i += QV_FS_DIMS) {
        qv_shorts16 k;
        qv_mask8 whole[2];
        for (int half = 0; half < 2; half++) {
            qv_lanes8 shifted = *(const qv_lanes8 *)(q + i + 8 * half) * scale + QV_MAGIC;
            whole[half] = (qv_mask8)shifted; /* qv_round, whose offset has no bits in the low half */
        }
        qv_low_halves(whole, &k);
        for (int j = 0; j < QV_FS_DIMS; j += GROUP) fill_entries((const int16_t *)&k + j, table + (i + j) * GROUP);
    }
    return scale > 0 ? delta : 0;
}

QV_DEFINE_WIDE(, float, qv_fs_table, (const float *q, int dims, uint8_t *table), (q, dims, table), fill_table)

/* --- sums --- */

/* qv_fs_sums_fn `name` over `chunk(codes, table, lines, sums)`, which adds the entries of at most CHUNK_LINES lines. */
#define QV_DEFINE_SUMS(name, target, chunk)                                                        \
    target static void name(const uint8_t *codes, const uint8_t *table, int dims, int32_t *sums) { \
        int lines = dims / QV_FS_DIMS;                                                             \
        for (int v = 0; v < QV_FS_VECTORS; v++) sums[v] = -BIAS * GROUP * lines;                   \
        for (int at = 0; at < lines; at += CHUNK_LINES) {                                          \
            int count = lines - at < CHUNK_LINES ? lines - at : CHUNK_LINES;                       \
            chunk(codes + (size_t)at * QV_FS_LINE, table + (size_t)at * QV_FS_LINE, count, sums);  \
        }                                                                                          \
    }

static void chunk_scalar(const uint8_t *codes, const uint8_t *table, int lines, int32_t *sums) {
    for (int i = 0; i < lines * QV_FS_LINE; i += 16) {
        for (int v = 0; v < 16; v++) {
            uint8_t pair = codes[i + place(v)];
            sums[v] += table[i + (pair & 15)];
            sums[v + 16] += table[i + (pair >> 4)];
        }
    }
}

QV_DEFINE_SUMS(sums_scalar, , chunk_scalar)

#if defined(__x86_64__)

/* Bytes are summed in 16 bits: `even` adds whole words, whose upper bytes are subtracted at the end. */
typedef struct {
    __m256i even, odd;
} words_avx2;

QV_TARGET_AVX2 QV_INLINE void widen_avx2(words_avx2 *words, __m256i bytes) {
    words->even = _mm256_add_epi16(words->even, bytes);
    words->odd = _mm256_add_epi16(words->odd, _mm256_srli_epi16(bytes, 8));
}

QV_TARGET_AVX2 QV_INLINE void add_words_avx2(__m256i words, int32_t *sums) {
    __m128i folded = _mm_add_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    __m256i old = _mm256_loadu_si256((const __m256i *)sums);
    _mm256_storeu_si256((__m256i *)sums, _mm256_add_epi32(old, _mm256_cvtepu16_epi32(folded)));
}

QV_TARGET_AVX2 QV_INLINE void finish_avx2(words_avx2 words, int32_t *sums) {
    add_words_avx2(_mm256_sub_epi16(words.even, _mm256_slli_epi16(words.odd, 8)), sums);
    add_words_avx2(words.odd, sums + 8);
}

/* Add the table entries of two of a line's groups to bytes of the low and of the high nibble. */
QV_TARGET_AVX2 QV_INLINE void look_up_avx2(const uint8_t *codes, const uint8_t *table, __m256i *low, __m256i *high) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i pairs = _mm256_loadu_si256((const __m256i *)codes), entries = _mm256_loadu_si256((const __m256i *)table);
    __m256i upper = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), mask);
    *low = _mm256_add_epi8(*low, _mm256_shuffle_epi8(entries, _mm256_and_si256(pairs, mask)));
    *high = _mm256_add_epi8(*high, _mm256_shuffle_epi8(entries, upper));
}

QV_TARGET_AVX2 QV_INLINE void lines_avx2(const uint8_t *codes, const uint8_t *table, int bytes, words_avx2 *words) {
    __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
    for (int i = 0; i < bytes; i += 32) look_up_avx2(codes + i, table + i, &low, &high);
    widen_avx2(&words[0], low);
    widen_avx2(&words[1], high);
}

QV_TARGET_AVX2 static inline void chunk_avx2(const uint8_t *codes, const uint8_t *table, int lines, int32_t *sums) {
    words_avx2 words[2] = {{_mm256_setzero_si256(), _mm256_setzero_si256()},
                           {_mm256_setzero_si256(), _mm256_setzero_si256()}};
    int i = 0, pairs = lines / 2 * 2 * QV_FS_LINE;
    for (; i < pairs; i += 2 * QV_FS_LINE) lines_avx2(codes + i, table + i, 2 * QV_FS_LINE, words);
    if (lines % 2) lines_avx2(codes + i, table + i, QV_FS_LINE, words);
    finish_avx2(words[0], sums);
    finish_avx2(words[1], sums + 16);
}

QV_DEFINE_SUMS(sums_avx2, QV_TARGET_AVX2, chunk_avx2)

typedef struct {
    __m512i even, odd;
} words_avx512;

QV_TARGET_AVX512 QV_INLINE void widen_avx512(words_avx512 *words, __m512i bytes) {
    words->even = _mm512_add_epi16(words->even, bytes);
    words->odd = _mm512_add_epi16(words->odd, _mm512_srli_epi16(bytes, 8));
}

QV_TARGET_AVX512 QV_INLINE void finish_avx512(words_avx512 words, int32_t *sums) {
    __m512i even = _mm512_sub_epi16(words.even, _mm512_slli_epi16(words.odd, 8)), odd = words.odd;
    add_words_avx2(_mm256_add_epi16(_mm512_castsi512_si256(even), _mm512_extracti64x4_epi64(even, 1)), sums);
    add_words_avx2(_mm256_add_epi16(_mm512_castsi512_si256(odd), _mm512_extracti64x4_epi64(odd, 1)), sums + 8);
}

QV_TARGET_AVX512 QV_INLINE void lines_avx512(const uint8_t *codes, const uint8_t *table, int lines,
                                             words_avx512 *words) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
    for (int i = 0; i < lines; i++) {
        __m512i pairs = _mm512_loadu_si512(codes + i * QV_FS_LINE),
                entries = _mm512_loadu_si512(table + i * QV_FS_LINE);
        __m512i upper = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), mask);
        low = _mm512_add_epi8(low, _mm512_shuffle_epi8(entries, _mm512_and_si512(pairs, mask)));
        high = _mm512_add_epi8(high, _mm512_shuffle_epi8(entries, upper));
    }
    widen_avx512(&words[0], low);
    widen_avx512(&words[1], high);
}

QV_TARGET_AVX512 static inline void chunk_avx512(const uint8_t *codes, const uint8_t *table, int lines, int32_t *sums) {
    words_avx512 words[2] = {{_mm512_setzero_si512(), _mm512_setzero_si512()},
                             {_mm512_setzero_si512(), _mm512_setzero_si512()}};
    int i = 0;
    for (; i + 4 <= lines; i += 4) lines_avx512(codes + i * QV_FS_LINE, table + i * QV_FS_LINE, 4, words);
    if (i < lines) lines_avx512(codes + i * QV_FS_LINE, table + i * QV_FS_LINE, lines - i, words);
    finish_avx512(words[0], sums);
    finish_avx512(words[1], sums + 16);
}

QV_DEFINE_SUMS(sums_avx512, QV_TARGET_AVX512, chunk_avx512)

#elif defined(__aarch64__)

QV_INLINE void add_words_neon(uint16x8_t words, int32_t *sums) {
    vst1q_s32(sums, vreinterpretq_s32_u32(vaddw_u16(vreinterpretq_u32_s32(vld1q_s32(sums)), vget_low_u16(words))));
    sums += 4;
    vst1q_s32(sums, vreinterpretq_s32_u32(vaddw_high_u16(vreinterpretq_u32_s32(vld1q_s32(sums)), words)));
}

static inline void chunk_neon(const uint8_t *codes, const uint8_t *table, int lines, int32_t *sums) {
    uint16x8_t even[2] = {vdupq_n_u16(0), vdupq_n_u16(0)}, odd[2] = {vdupq_n_u16(0), vdupq_n_u16(0)};
    for (int i = 0; i < lines * QV_FS_LINE; i += QV_FS_LINE) {
        uint8x16_t bytes[2] = {vdupq_n_u8(0), vdupq_n_u8(0)};
        for (int g = 0; g < QV_FS_LINE; g += 16) {
            uint8x16_t pairs = vld1q_u8(codes + i + g), entries = vld1q_u8(table + i + g);
            bytes[0] = vaddq_u8(bytes[0], vqtbl1q_u8(entries, vandq_u8(pairs, vdupq_n_u8(15))));
            bytes[1] = vaddq_u8(bytes[1], vqtbl1q_u8(entries, vshrq_n_u8(pairs, 4)));
        }
        for (int half = 0; half < 2; half++) {
            uint16x8_t words = vreinterpretq_u16_u8(bytes[half]);
            even[half] = vaddq_u16(even[half], vandq_u16(words, vdupq_n_u16(255)));
            odd[half] = vsraq_n_u16(odd[half], words, 8);
        }
    }
    for (int half = 0; half < 2; half++) {
        add_words_neon(even[half], sums + 16 * half);
        add_words_neon(odd[half], sums + 16 * half + 8);
    }
}

QV_DEFINE_SUMS(sums_neon, , chunk_neon)
#endif

qv_fs_sums_fn qv_fs_sums(int simd) {
    static const qv_fs_sums_fn levels[QV_SIMD_LEVELS] = QV_BY_LEVEL(sums_scalar, sums_avx2, sums_avx512, sums_neon);
    return levels[simd];
}
