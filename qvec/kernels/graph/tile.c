/* Tiles of squared distances among INT8 codes. */
#include "graph/tile.h"

#include <string.h>

#include "codec/rows.h"

/* The k-th smallest of 16 keys, less than QV_NO_KEY. */
static int32_t kth_smallest(const int32_t *keys, int k) {
    int32_t best = QV_NO_KEY - 1;
    for (int i = 0; i < QV_TILE_COLUMNS; i++) {
        int below = 0;
        for (int j = 0; j < QV_TILE_COLUMNS; j++) below += keys[j] <= keys[i];
        if (below >= k && keys[i] < best) best = keys[i];
    }
    return best;
}

/* Insert into the k nearest found so far, by key and column. Returns their number. */
QV_INLINE int insert_near(qv_near *near, int n, int k, int32_t key, uint32_t column) {
    int i = n;
    if (n == k) {
        if (key > near[k - 1].key || (key == near[k - 1].key && column > near[k - 1].column)) return n;
        i = k - 1;
    }
    for (; i > 0 && (near[i - 1].key > key || (near[i - 1].key == key && near[i - 1].column > column)); i--)
        near[i] = near[i - 1];
    near[i] = (qv_near){key, column};
    return n < k ? n + 1 : n;
}

QV_INLINE int32_t key_bits(float norm2, float other_norm2, float scale, float other_scale, int32_t dot) {
    float both = scale * other_scale;
    float key = (norm2 + other_norm2) - (both + both) * (float)dot;
    int32_t bits;
    key = key > 0 ? key : 0;
    memcpy(&bits, &key, sizeof bits);
    return bits;
}

/* --- baseline: int16 rows and panels --- */

static void load_wide(qv_tile_set *set, int i, const uint8_t *code) {
    int16_t *out = (int16_t *)set->rows + (size_t)i * (size_t)set->dims;
    for (int d = 0; d < set->dims; d++) out[d] = (int16_t)(code[d] - QV_MIDPOINT);
    set->shift[i] = 0;
}

static void keys_baseline(const qv_tile_set *rows, int i, const qv_tile_set *columns, int first, int stop,
                          int32_t *keys, size_t pitch) {
    for (int r = 0; r < QV_TILE_ROWS; r++) {
        const int16_t *row = (const int16_t *)rows->rows + (size_t)(i + r) * (size_t)rows->dims;
        for (int g = first; g < stop; g++) {
            const int16_t *panel = (const int16_t *)columns->panels + (size_t)g * (size_t)rows->dims * QV_TILE_COLUMNS;
            int32_t dot[QV_TILE_COLUMNS] = {0};
            for (int d = 0; d < rows->dims; d += 2, panel += 2 * QV_TILE_COLUMNS)
                for (int l = 0; l < QV_TILE_COLUMNS; l++)
                    dot[l] += panel[2 * l] * row[d] + panel[2 * l + 1] * row[d + 1];
            for (int l = 0; l < QV_TILE_COLUMNS; l++) {
                int j = g * QV_TILE_COLUMNS + l;
                keys[(size_t)r * pitch + (size_t)j] =
                    key_bits(rows->norm2[i + r], columns->norm2[j], rows->scale[i + r], columns->scale[j], dot[l]);
            }
        }
    }
}

static uint32_t mask_baseline(const int32_t *keys, const int32_t *limits) {
    uint32_t mask = 0;
    for (int l = 0; l < QV_TILE_COLUMNS; l++) mask |= (uint32_t)(keys[l] <= limits[l]) << l;
    return mask;
}

#define TARGET
#define LEVEL(name) name##_baseline
#define MASK mask_baseline
#include "graph/tile_level.h"

#if defined(__x86_64__)
/* --- AVX2: the same data, pairs of dims multiplied and added at once --- */

QV_TARGET_AVX2 static void load_avx2(qv_tile_set *set, int i, const uint8_t *code) {
    int16_t *out = (int16_t *)set->rows + (size_t)i * (size_t)set->dims;
    const __m256i midpoint = _mm256_set1_epi16(QV_MIDPOINT);
    for (int d = 0; d < set->dims; d += 16) {
        __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(code + d)));
        _mm256_storeu_si256((__m256i *)(out + d), _mm256_sub_epi16(wide, midpoint));
    }
    set->shift[i] = 0;
}

QV_TARGET_AVX2 QV_INLINE void store_avx2(const qv_tile_set *rows, int i, const qv_tile_set *columns, int j,
                                         __m256i dots, int32_t *keys) {
    __m256 both = _mm256_mul_ps(_mm256_set1_ps(rows->scale[i]), _mm256_loadu_ps(columns->scale + j));
    __m256 norms = _mm256_add_ps(_mm256_set1_ps(rows->norm2[i]), _mm256_loadu_ps(columns->norm2 + j));
    __m256 key = _mm256_sub_ps(norms, _mm256_mul_ps(_mm256_add_ps(both, both), _mm256_cvtepi32_ps(dots)));
    _mm256_storeu_ps((float *)keys, _mm256_max_ps(key, _mm256_setzero_ps()));
}

QV_TARGET_AVX2 static void keys_avx2(const qv_tile_set *rows, int i, const qv_tile_set *columns, int first, int stop,
                                     int32_t *keys, size_t pitch) {
    size_t dims = (size_t)rows->dims;
    const int32_t *row = (const int32_t *)rows->rows + (size_t)i * dims / 2;
    for (int g = first; g < stop; g++) {
        const __m256i *panel = (const __m256i *)(columns->panels + (size_t)g * dims * 2 * QV_TILE_COLUMNS);
        __m256i low[QV_TILE_ROWS], high[QV_TILE_ROWS];
#pragma GCC unroll 6
        for (int r = 0; r < QV_TILE_ROWS; r++) low[r] = high[r] = _mm256_setzero_si256();
        for (size_t d = 0; d < dims / 2; d++) {
            __m256i left = _mm256_load_si256(panel + 2 * d), right = _mm256_load_si256(panel + 2 * d + 1);
#pragma GCC unroll 6
            for (int r = 0; r < QV_TILE_ROWS; r++) {
                __m256i pair = _mm256_set1_epi32(row[(size_t)r * (dims / 2) + d]);
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(left, pair));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(right, pair));
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < QV_TILE_ROWS; r++) {
            int32_t *out = keys + (size_t)r * pitch + (size_t)g * QV_TILE_COLUMNS;
            store_avx2(rows, i + r, columns, g * QV_TILE_COLUMNS, low[r], out);
            store_avx2(rows, i + r, columns, g * QV_TILE_COLUMNS + 8, high[r], out + 8);
        }
    }
}

QV_TARGET_AVX2 QV_INLINE uint32_t mask8_avx2(const int32_t *keys, const int32_t *limits) {
    __m256i above =
        _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)keys), _mm256_loadu_si256((const __m256i *)limits));
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(above)) ^ 0xFF;
}

QV_TARGET_AVX2 QV_INLINE uint32_t mask_avx2(const int32_t *keys, const int32_t *limits) {
    return mask8_avx2(keys, limits) | mask8_avx2(keys + 8, limits + 8) << 8;
}

#define TARGET QV_TARGET_AVX2
#define LEVEL(name) name##_avx2
#define MASK mask_avx2
#include "graph/tile_level.h"

/* --- AVX-512 VNNI: s8 rows, u8 panels --- */

QV_TARGET_AVX512 static void load_avx512(qv_tile_set *set, int i, const uint8_t *code) {
    uint8_t *out = set->rows + (size_t)i * (size_t)set->dims;
    const __m512i sign = _mm512_set1_epi8((char)0x80), ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    for (int d = 0; d < set->dims; d += 64) {
        __m512i data = _mm512_loadu_si512(code + d);
        sum = _mm512_dpbusd_epi32(sum, data, ones);
        _mm512_storeu_si512(out + d, _mm512_xor_si512(data, sign));
    }
    set->shift[i] = QV_MIDPOINT * (_mm512_reduce_add_epi32(sum) - QV_MIDPOINT * set->dims);
}

#define QV_DEFINE_TILE(width)                                                                                      \
    QV_TARGET_AVX512 static void tile_avx512_##width(const qv_tile_set *rows, int i, const qv_tile_set *columns,   \
                                                     int g, int32_t *keys, size_t pitch) {                         \
        size_t dims = (size_t)rows->dims;                                                                          \
        const int8_t *row = (const int8_t *)rows->rows + (size_t)i * dims;                                         \
        const uint8_t *panel = columns->panels + (size_t)g * dims * QV_TILE_COLUMNS;                               \
        __m512i sums[QV_TILE_ROWS][width];                                                                         \
        _Pragma("GCC unroll 6") for (int r = 0; r < QV_TILE_ROWS; r++)                                             \
            _Pragma("GCC unroll 4") for (int c = 0; c < width; c++) sums[r][c] =                                   \
                _mm512_set1_epi32(-rows->shift[i + r]);                                                            \
        for (size_t d = 0; d < dims; d += 4) {                                                                     \
            __m512i data[width];                                                                                   \
            _Pragma("GCC unroll 4") for (int c = 0; c < width; c++) data[c] =                                      \
                _mm512_load_si512(panel + ((size_t)c * dims + d) * QV_TILE_COLUMNS);                               \
            _Pragma("GCC unroll 6") for (int r = 0; r < QV_TILE_ROWS; r++) {                                       \
                int32_t four;                                                                                      \
                memcpy(&four, row + (size_t)r * dims + d, sizeof four);                                            \
                __m512i all = _mm512_set1_epi32(four);                                                             \
                _Pragma("GCC unroll 4") for (int c = 0; c < width; c++) sums[r][c] =                               \
                    _mm512_dpbusd_epi32(sums[r][c], data[c], all);                                                 \
            }                                                                                                      \
        }                                                                                                          \
        _Pragma("GCC unroll 6") for (int r = 0; r < QV_TILE_ROWS; r++)                                             \
            _Pragma("GCC unroll 4") for (int c = 0; c < width; c++) {                                              \
            int j = (g + c) * QV_TILE_COLUMNS;                                                                     \
            __m512 both = _mm512_mul_ps(_mm512_set1_ps(rows->scale[i + r]), _mm512_loadu_ps(columns->scale + j));  \
            __m512 norms = _mm512_add_ps(_mm512_set1_ps(rows->norm2[i + r]), _mm512_loadu_ps(columns->norm2 + j)); \
            __m512 dots = _mm512_cvtepi32_ps(sums[r][c]);                                                          \
            __m512 key = _mm512_sub_ps(norms, _mm512_mul_ps(_mm512_add_ps(both, both), dots));                     \
            _mm512_storeu_ps(keys + (size_t)r * pitch + j, _mm512_max_ps(key, _mm512_setzero_ps()));               \
        }                                                                                                          \
    }

QV_DEFINE_TILE(4)
QV_DEFINE_TILE(2)
QV_DEFINE_TILE(1)

static void keys_avx512(const qv_tile_set *rows, int i, const qv_tile_set *columns, int first, int stop, int32_t *keys,
                        size_t pitch) {
    int g = first;
    for (; g + 4 <= stop; g += 4) tile_avx512_4(rows, i, columns, g, keys, pitch);
    for (; g + 2 <= stop; g += 2) tile_avx512_2(rows, i, columns, g, keys, pitch);
    for (; g < stop; g++) tile_avx512_1(rows, i, columns, g, keys, pitch);
}

QV_TARGET_AVX512 QV_INLINE uint32_t mask_avx512(const int32_t *keys, const int32_t *limits) {
    return _mm512_cmple_epi32_mask(_mm512_loadu_si512(keys), _mm512_loadu_si512(limits));
}

#define TARGET QV_TARGET_AVX512
#define LEVEL(name) name##_avx512
#define MASK mask_avx512
#include "graph/tile_level.h"
#endif

const qv_tile_kernels *qv_tile_kernels_of(int simd) {
    static const qv_tile_kernels baseline = {2, 0, load_wide, keys_baseline, nearest_baseline, leaf_baseline};
#if defined(__x86_64__)
    static const qv_tile_kernels avx2 = {2, 0, load_avx2, keys_avx2, nearest_avx2, leaf_avx2};
    static const qv_tile_kernels avx512 = {1, 0x80808080u, load_avx512, keys_avx512, nearest_avx512, leaf_avx512};
    if (simd == QV_AVX512) return &avx512;
    if (simd == QV_AVX2) return &avx2;
#endif
    (void)simd;
    return &baseline;
}

/* --- sets --- */

static size_t padded_rows(int n) { return qv_round_up((size_t)n, (size_t)QV_TILE_ROWS * QV_TILE_COLUMNS); }

size_t qv_tile_set_bytes(const qv_tile_kernels *kernels, int n, int dims) {
    return padded_rows(n) * (2 * kernels->row_bytes_per_dim * (size_t)dims + 2 * sizeof(float) + sizeof(int32_t)) +
           5 * 64;
}

void qv_tile_set_init(qv_tile_set *set, const qv_tile_kernels *kernels, int n, int dims, void *memory) {
    uint8_t *at = memory;
    size_t rows = padded_rows(n), bytes = rows * kernels->row_bytes_per_dim * (size_t)dims;
    set->n = 0;
    set->dims = dims;
    set->rows = qv_take(&at, bytes);
    set->panels = qv_take(&at, bytes);
    set->norm2 = qv_take(&at, rows * sizeof(float));
    set->scale = qv_take(&at, rows * sizeof(float));
    set->shift = qv_take(&at, rows * sizeof(int32_t));
}

void qv_tile_set_load(qv_tile_set *set, const qv_tile_kernels *kernels, const qv_codec *codec,
                      const uint8_t *const *codes, int n, int panels) {
    size_t row = kernels->row_bytes_per_dim * (size_t)set->dims, words = row / 4;
    int padded = (int)qv_round_up((size_t)n, QV_TILE_COLUMNS), tiled = (int)qv_round_up((size_t)n, QV_TILE_ROWS);
    padded = panels && padded > tiled ? padded : tiled;
    set->n = n;
    for (int i = 0; i < n; i++) {
        if (i + 8 < n) qv_prefetch_row(codes[i + 8], (size_t)codec->stride);
        kernels->load(set, i, codes[i]);
        qv_factors factors = qv_row_factors(codec, codes[i]);
        set->norm2[i] = factors.norm2;
        set->scale[i] = factors.scale;
    }
    for (int i = n; i < padded; i++) {
        memset(set->rows + (size_t)i * row, 0, row);
        set->norm2[i] = INFINITY;
        set->scale[i] = 0;
        set->shift[i] = 0;
    }
    if (!panels) return;
    for (int i = 0; i < qv_panels(n) * QV_TILE_COLUMNS; i++) {
        const uint32_t *from = (const uint32_t *)(set->rows + (size_t)i * row);
        uint32_t *to =
            (uint32_t *)set->panels + (size_t)(i / QV_TILE_COLUMNS) * words * QV_TILE_COLUMNS + i % QV_TILE_COLUMNS;
        for (size_t w = 0; w < words; w++) to[w * QV_TILE_COLUMNS] = from[w] ^ kernels->panel_mask;
    }
}
