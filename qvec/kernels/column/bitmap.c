#include "column/bitmap.h"

#include <string.h>

#include "codec/simd.h"

#define QV_FEW_RANGES 8 /* up to this number, ranges are tested in sequence; otherwise by binary search */

/* One bit per value: whether it lies in low..low + span. One comparison suffices, since smaller values wrap. */
typedef uint64_t (*word_fn)(const uint64_t *values, uint64_t low, uint64_t span);

static uint64_t word_scalar(const uint64_t *values, uint64_t low, uint64_t span) {
    uint64_t word = 0;
    for (int i = 0; i < QV_WORD_ROWS; i++) word |= (uint64_t)(values[i] - low <= span) << i;
    return word;
}

#if defined(__x86_64__)
/* AVX2 has signed comparison only: flipping the top bit makes it order unsigned values. */
QV_TARGET_AVX2 static uint64_t word_avx2(const uint64_t *values, uint64_t low, uint64_t span) {
    const __m256i flip = _mm256_set1_epi64x((long long)(1ull << 63)), lows = _mm256_set1_epi64x((long long)low);
    const __m256i spans = _mm256_set1_epi64x((long long)(span ^ 1ull << 63));
    uint64_t beyond = 0;
    for (int i = 0; i < QV_WORD_ROWS; i += 4) {
        __m256i from = _mm256_sub_epi64(_mm256_loadu_si256((const __m256i *)(values + i)), lows);
        __m256i above = _mm256_cmpgt_epi64(_mm256_xor_si256(from, flip), spans);
        beyond |= (uint64_t)(uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(above)) << i;
    }
    return ~beyond;
}

QV_TARGET_AVX512 static uint64_t word_avx512(const uint64_t *values, uint64_t low, uint64_t span) {
    const __m512i lows = _mm512_set1_epi64((long long)low), spans = _mm512_set1_epi64((long long)span);
    uint64_t word = 0;
    for (int i = 0; i < QV_WORD_ROWS; i += 8) {
        __m512i from = _mm512_sub_epi64(_mm512_loadu_si512(values + i), lows);
        word |= (uint64_t)_mm512_cmple_epu64_mask(from, spans) << i;
    }
    return word;
}
#elif defined(__aarch64__)
static uint64_t word_neon(const uint64_t *values, uint64_t low, uint64_t span) {
    static const uint16_t BITS[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint64x2_t lows = vdupq_n_u64(low), spans = vdupq_n_u64(span);
    const uint16x8_t bits = vld1q_u16(BITS);
    uint64_t word = 0;
    for (int i = 0; i < QV_WORD_ROWS; i += 8) {
        uint32x4_t in[4];
        for (int j = 0; j < 4; j++)
            in[j] = vreinterpretq_u32_u64(vcleq_u64(vsubq_u64(vld1q_u64(values + i + 2 * j), lows), spans));
        uint16x8_t first = vreinterpretq_u16_u32(vuzp1q_u32(in[0], in[1]));
        uint16x8_t second = vreinterpretq_u16_u32(vuzp1q_u32(in[2], in[3]));
        word |= (uint64_t)vaddvq_u16(vandq_u16(vuzp1q_u16(first, second), bits)) << i;
    }
    return word;
}
#endif

static const word_fn WORDS[QV_SIMD_LEVELS] = QV_BY_LEVEL(word_scalar, word_avx2, word_avx512, word_neon);

/* Find the last range that begins at or below the value, by binary search; whether it contains the value. */
static uint64_t is_within(uint64_t value, const uint64_t *bounds, uint32_t n_ranges) {
    uint32_t first = 0;
    for (uint32_t left = n_ranges; left > 1;) {
        uint32_t half = left / 2;
        first += half & -(uint32_t)(bounds[2 * (first + half)] <= value);
        left -= half;
    }
    return bounds[2 * first] <= value && value <= bounds[2 * first + 1];
}

static uint64_t word_of(const uint64_t *values, const uint64_t *bounds, uint32_t n_ranges, word_fn within) {
    uint64_t word = 0;
    if (n_ranges <= QV_FEW_RANGES) {
        for (uint32_t r = 0; r < n_ranges; r++)
            word |= within(values, bounds[2 * r], bounds[2 * r + 1] - bounds[2 * r]);
    } else {
        for (int i = 0; i < QV_WORD_ROWS; i++) word |= is_within(values[i], bounds, n_ranges) << i;
    }
    return word;
}

int qv_bits_between(qv_column *values, uint32_t n, const uint64_t *bounds, uint32_t n_ranges, int simd,
                    uint64_t *words) {
    for (uint32_t w = 0; w < (n + QV_WORD_ROWS - 1) / QV_WORD_ROWS; w++) {
        const uint64_t *row = (const uint64_t *)qv_row(values, w);
        if (!row) return -1;
        words[w] |= word_of(row, bounds, n_ranges, WORDS[simd]);
    }
    if (n % QV_WORD_ROWS) words[n / QV_WORD_ROWS] &= (1ull << n % QV_WORD_ROWS) - 1;
    return 0;
}

/* --- CRoaring's portable format, one container --- */

enum { COOKIE_WITH_RUNS = 12347, COOKIE = 12346, ARRAY_MAX = 4096, BITSET_BYTES = QV_CHUNK_ROWS / 8 };

static uint16_t u16_at(const uint8_t *data) {
    uint16_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static void set_bit(uint64_t *words, uint32_t row) { words[row / 64] |= 1ull << (row % 64); }

static int set_array(const uint8_t *data, size_t size, uint32_t count, uint32_t limit, uint64_t *words) {
    if (size != 2 * (size_t)count) return -1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = u16_at(data + 2 * (size_t)i);
        if (row >= limit) return -1;
        set_bit(words, row);
    }
    return 0;
}

static int set_bitset(const uint8_t *data, size_t size, uint32_t limit, uint64_t *words) {
    if (size != BITSET_BYTES) return -1;
    for (uint32_t w = 0; w < BITSET_BYTES / 8; w++) {
        uint64_t word;
        memcpy(&word, data + 8 * (size_t)w, sizeof word);
        uint32_t left = limit > w * 64 ? limit - w * 64 : 0;
        if (left < 64 && word >> left) return -1;
        if (left) words[w] |= word;
    }
    return 0;
}

static int set_runs(const uint8_t *data, size_t size, uint32_t limit, uint64_t *words) {
    if (size < 2 || size != 2 + 4 * (size_t)u16_at(data)) return -1;
    for (size_t at = 2; at < size; at += 4) {
        uint32_t row = u16_at(data + at), end = row + u16_at(data + at + 2);
        if (end >= limit) return -1;
        for (; row <= end && row % 64; row++) set_bit(words, row);
        for (; row + 63 <= end; row += 64) words[row / 64] = ~0ull;
        for (; row <= end; row++) set_bit(words, row);
    }
    return 0;
}

typedef enum { ARRAY, BITSET, RUNS } container_kind;

/* `count`: rows, of arrays and bitsets. `first`: the first row of the chunk; `limit`: rows in the chunk. */
typedef struct {
    container_kind kind;
    const uint8_t *data;
    size_t size;
    uint32_t count, first, limit;
} container;

/* Find the container of a serialized bitmap. Returns -1 if it does not have exactly one. */
static int find_container(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, container *found) {
    uint32_t cookie, first = chunk * QV_CHUNK_ROWS;
    if (chunk >= QV_CHUNK_ROWS || first >= n || size < 11) return -1;
    found->first = first;
    found->limit = n - first < QV_CHUNK_ROWS ? n - first : QV_CHUNK_ROWS;
    memcpy(&cookie, data, sizeof cookie);
    if (cookie == COOKIE_WITH_RUNS) { /* of one container: it has no table of offsets, and one byte of flags */
        found->kind = data[4] & 1 ? RUNS : ARRAY, found->count = u16_at(data + 7) + 1u;
        found->data = data + 9, found->size = size - 9;
        return u16_at(data + 5) != chunk || (found->kind == ARRAY && found->count > ARRAY_MAX) ? -1 : 0;
    }
    if (cookie != COOKIE || size < 18) return -1;
    uint32_t containers, offset;
    memcpy(&containers, data + 4, sizeof containers);
    memcpy(&offset, data + 12, sizeof offset);
    if (containers != 1 || offset != 16 || u16_at(data + 8) != chunk) return -1;
    found->count = u16_at(data + 10) + 1u, found->data = data + 16, found->size = size - 16;
    found->kind = found->count > ARRAY_MAX ? BITSET : ARRAY;
    return 0;
}

int qv_bits_roaring(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, uint64_t *words) {
    container rows;
    if (find_container(data, size, chunk, n, &rows)) return -1;
    words += rows.first / 64;
    if (rows.kind == RUNS) return set_runs(rows.data, rows.size, rows.limit, words);
    if (rows.kind == BITSET) return set_bitset(rows.data, rows.size, rows.limit, words);
    return set_array(rows.data, rows.size, rows.count, rows.limit, words);
}

static int64_t count_array(const container *rows, const uint64_t *words) {
    int64_t count = 0;
    if (rows->size != 2 * (size_t)rows->count) return -1;
    for (uint32_t i = 0; i < rows->count; i++) {
        uint32_t row = u16_at(rows->data + 2 * (size_t)i);
        if (row >= rows->limit) return -1;
        count += words[row / 64] >> (row % 64) & 1;
    }
    return count;
}

/* Set the bits of a container, of a bitset or runs, in a bitmap of its chunk. */
static int unpack_bits(const container *rows, uint64_t bits[QV_CHUNK_ROWS / 64]) {
    memset(bits, 0, QV_CHUNK_ROWS / 8);
    return rows->kind == RUNS ? set_runs(rows->data, rows->size, rows->limit, bits)
                              : set_bitset(rows->data, rows->size, rows->limit, bits);
}

int qv_roaring_fill(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, uint32_t value, uint32_t *values) {
    uint64_t bits[QV_CHUNK_ROWS / 64];
    container rows;
    if (find_container(data, size, chunk, n, &rows)) return -1;
    if (rows.kind != ARRAY) {
        if (unpack_bits(&rows, bits)) return -1;
        for (uint32_t w = 0; w < (rows.limit + 63) / 64; w++)
            for (uint64_t left = bits[w]; left; left &= left - 1) values[w * 64 + __builtin_ctzll(left)] = value;
        return 0;
    }
    if (rows.size != 2 * (size_t)rows.count) return -1;
    for (uint32_t i = 0; i < rows.count; i++) {
        uint32_t row = u16_at(rows.data + 2 * (size_t)i);
        if (row >= rows.limit) return -1;
        values[row] = value;
    }
    return 0;
}

int qv_bits_histogram(const uint32_t *values, const uint64_t *words, uint32_t n_words, uint32_t n_values,
                      int64_t *counts) {
    for (uint32_t w = 0; w < n_words; w++) {
        for (uint64_t left = words[w]; left; left &= left - 1) {
            uint32_t value = values[w * 64 + (uint32_t)__builtin_ctzll(left)];
            if (value >= n_values) return -1;
            counts[value]++;
        }
    }
    return 0;
}

int64_t qv_roaring_count(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, const uint64_t *words) {
    uint64_t bits[QV_CHUNK_ROWS / 64];
    container rows;
    if (find_container(data, size, chunk, n, &rows)) return -1;
    words += rows.first / 64;
    if (rows.kind == ARRAY) return count_array(&rows, words);
    if (unpack_bits(&rows, bits)) return -1;
    uint32_t n_words = (rows.limit + 63) / 64;
    for (uint32_t w = 0; w < n_words; w++) bits[w] &= words[w];
    return qv_bits_count(bits, n_words);
}

/* --- counting and listing --- */

#if defined(__x86_64__)
__attribute__((target("popcnt"))) static uint32_t count_popcnt(const uint64_t *words, uint32_t n_words) {
    uint32_t count = 0;
    for (uint32_t w = 0; w < n_words; w++) count += (uint32_t)__builtin_popcountll(words[w]);
    return count;
}
#endif

uint32_t qv_bits_count(const uint64_t *words, uint32_t n_words) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("popcnt")) return count_popcnt(words, n_words);
#endif
    uint32_t count = 0;
    for (uint32_t w = 0; w < n_words; w++) count += (uint32_t)__builtin_popcountll(words[w]);
    return count;
}

void qv_bits_rows(const uint64_t *words, uint32_t n_words, uint32_t *rows) {
    for (uint32_t w = 0; w < n_words; w++) {
        for (uint64_t left = words[w]; left; left &= left - 1) *rows++ = w * 64 + (uint32_t)__builtin_ctzll(left);
    }
}
