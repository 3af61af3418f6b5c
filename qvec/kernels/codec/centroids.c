/* Centroids: the nearest one of a vector, and their table in a query. Integer sums only, so equal on every level. */
#include "codec/centroids.h"

#include "codec/score_common.h"

#define TILE 64

int qv_codec_centroid(qv_codec *codec, const float *center, const qv_codec *offset_codec, const uint8_t *offsets,
                      int n) {
    int own_scale = codec->kind == QV_RABITQ || codec->kind == QV_MIXED ||
                    ((codec->kind == QV_INT4 || codec->kind == QV_TERNARY) && codec->step == NULL);
    if (!own_scale || center == NULL || n < 0 || n == 1 || n > QV_MAX_CENTROIDS) return -1;
    if (n > 0 && (offset_codec == NULL || offsets == NULL || offset_codec->kind != QV_INT8 ||
                  offset_codec->step != NULL || offset_codec->metric != QV_IP || offset_codec->dim != codec->dim)) {
        return -1;
    }
    int fresh = codec->center == NULL && codec->widths == NULL; /* bit-packed queries are large enough already */
    if (fresh) codec->query_size += (int)sizeof(float) * (codec->query_size - (int)sizeof(qv_query));
    codec->center = center;
    codec->n_offsets = n;
    codec->offset_codec = offset_codec;
    codec->offsets = offsets;
    if (n > 0) codec->query_size += qv_table_bytes(codec);
    return 0;
}

float qv_with_centroid(float scale, int center) {
    uint32_t bits, number = (uint32_t)center;
    memcpy(&bits, &scale, sizeof bits);
    bits =
        bits < QV_MAX_CENTROIDS ? number : ((bits - number + QV_MAX_CENTROIDS / 2) & ~(QV_MAX_CENTROIDS - 1u)) | number;
    memcpy(&scale, &bits, sizeof bits);
    return scale;
}

qv_source qv_source_of(const qv_codec *codec, const float *x, double unit) {
    qv_source source = qv_plain_source(codec, x);
    if (qv_is_centered(codec)) source.unit = unit;
    source.center = codec->center;
    return source;
}

static const uint8_t *offset_row(const qv_codec *codec, int number) {
    return codec->offsets + (size_t)number * (size_t)codec->offset_codec->stride;
}

void qv_move_source(const qv_codec *codec, int number, qv_source *source) {
    if (number >= codec->n_offsets) return;
    source->offset = offset_row(codec, number);
    source->offset_step = qv_row_factors(codec->offset_codec, source->offset).scale;
}

/* norm2 is |x'|^2 less twice the error r - g v along the offset o, r = x' - o: |r|^2 + 2 <o, g v> + |o|^2. */
void qv_put_centered(const qv_codec *codec, const qv_source *source, const qv_coded *coded, uint8_t *row) {
    double norm2 = coded->norm2;
    float scale = codec->n_offsets > 0 ? qv_with_centroid((float)coded->scale, coded->center) : (float)coded->scale;
    if (source->offset != NULL) {
        norm2 += 2 * (double)scale * source->offset_step * coded->along;
        norm2 += qv_row_factors(codec->offset_codec, source->offset).norm2;
    }
    qv_put_factors(codec, row, scale, qv_is_shifted(codec) ? norm2 : qv_norm2(source->x, source->dim));
}

/* -<x', offset> of centroids `first` to `first + count - 1`, count at most TILE; x' has 8 bits. */
static void score_tile(const qv_codec *codec, const qv_query *query, int first, int count, float *keys) {
    const uint8_t *rows[TILE];
    for (int i = 0; i < count; i++) rows[i] = offset_row(codec, first + i);
    codec->offset_codec->score(codec->offset_codec, query, rows, count, keys);
}

static void code_source(const qv_source *source, qv_query *query) {
    qv_code code = qv_quantize(source, (int8_t *)(query + 1));
    *query = (qv_query){.per_scale = -code.scale, .floor = -INFINITY, .offset = QV_MIDPOINT * code.sum};
}

QV_INLINE double flatten(const qv_source *source, float *values) {
    float buffer[QV_BLOCK];
    double norm2 = 0;
    for (int i = 0; i < source->dim; i += QV_BLOCK) {
        const float *block = qv_source_block(source, i, buffer);
        for (int j = 0; j < QV_BLOCK; j++) values[i + j] = block[j];
        norm2 += qv_dot64(block, block);
    }
    return norm2;
}

QV_DEFINE_WIDE(static, double, flatten_best, (const qv_source *source, float *values), (source, values), flatten)

void qv_flatten(const qv_source *source, qv_flat *flat) {
    flat->source = *source;
    if (source->dim > QV_FLAT_MAX) {
        flat->norm2 = qv_source_norm2(source);
        return;
    }
    flat->norm2 = flatten_best(source, flat->values);
    flat->source.x = flat->values;
    flat->source.dim = (int)qv_round_up((size_t)source->dim, QV_BLOCK);
    flat->source.center = NULL;
    flat->source.unit = 1;
}

/* Scales and halves of the squared lengths of the centroids' offsets. */
typedef struct {
    float scale[QV_MAX_CENTROIDS], half[QV_MAX_CENTROIDS];
} offset_factors;

static void load_factors(const qv_codec *codec, offset_factors *loaded) {
    *loaded = (offset_factors){{0}, {0}};
    for (int i = 0; i < codec->n_offsets; i++) {
        qv_factors factors = qv_row_factors(codec->offset_codec, offset_row(codec, i));
        loaded->scale[i] = factors.scale;
        loaded->half[i] = factors.norm2 / 2;
    }
}

/* The first centroid of the least key + half of its squared length. Eight are compared at a time; the arrays have space
 * for a multiple of eight, and entries from n on do not count. */
QV_INLINE int nearest(const float *keys, const float *half, int n) {
    const qv_mask8 within = {0, 1, 2, 3, 4, 5, 6, 7};
    qv_lanes8 least = (qv_lanes8){0} + INFINITY;
    qv_mask8 first = {0};
    for (int i = 0; i < n; i += 8) {
        qv_lanes8 sum = *(const qv_lanes8 *)(keys + i) + *(const qv_lanes8 *)(half + i);
        qv_mask8 number = within + i, less = (sum < least) & (number < n);
        least = (qv_lanes8)(((qv_mask8)sum & less) | ((qv_mask8)least & ~less));
        first = (number & less) | (first & ~less);
    }
    int found = 0;
    for (int j = 1; j < 8; j++) {
        if (least[j] < least[found] || (least[j] == least[found] && first[j] < first[found])) found = j;
    }
    return first[found];
}

QV_DEFINE_WIDE(static, int, nearest_best, (const float *keys, const float *half, int n), (keys, half, n), nearest)

#define VECTORS_AT_ONCE 4 /* vectors that are scored at once */

/* Score several coded vectors against a tile of centroids. */
typedef void (*score_tiles_fn)(const qv_codec *codec, const qv_query *const *queries, int n, int first, int count,
                               const float *scales, float (*keys)[QV_MAX_CENTROIDS]);

static void score_tiles(const qv_codec *codec, const qv_query *const *queries, int n, int first, int count,
                        const float *scales, float (*keys)[QV_MAX_CENTROIDS]) {
    (void)scales;
    for (int i = 0; i < n; i++) score_tile(codec, queries[i], first, count, keys[i] + first);
}

#if defined(__x86_64__)
/* Dot products of four queries with four rows: each load of a row serves all queries. */
QV_TARGET_AVX512 static void dots_avx512(const qv_query *const *queries, const uint8_t *const *rows, int bytes,
                                         int32_t (*dots)[QV_GROUP]) {
    __m512i sums[VECTORS_AT_ONCE][QV_GROUP];
#pragma GCC unroll 4
    for (int q = 0; q < VECTORS_AT_ONCE; q++)
#pragma GCC unroll 4
        for (int r = 0; r < QV_GROUP; r++) sums[q][r] = _mm512_setzero_si512();
    for (int i = 0; i < bytes; i += 64) {
        __m512i data[QV_GROUP];
#pragma GCC unroll 4
        for (int r = 0; r < QV_GROUP; r++) data[r] = _mm512_loadu_si512(rows[r] + i);
#pragma GCC unroll 4
        for (int q = 0; q < VECTORS_AT_ONCE; q++) {
            __m512i codes = _mm512_loadu_si512((const int8_t *)(queries[q] + 1) + i);
#pragma GCC unroll 4
            for (int r = 0; r < QV_GROUP; r++) sums[q][r] = _mm512_dpbusd_epi32(sums[q][r], data[r], codes);
        }
    }
#pragma GCC unroll 4
    for (int q = 0; q < VECTORS_AT_ONCE; q++) _mm_storeu_si128((__m128i *)dots[q], sum_lanes_avx512(sums[q]));
}

/* The same keys as those of score_tile. The last group may write up to three keys that are not used. */
static void score_tiles_avx512(const qv_codec *codec, const qv_query *const *queries, int n, int first, int count,
                               const float *scales, float (*keys)[QV_MAX_CENTROIDS]) {
    for (int i = 0; i < count; i += QV_GROUP) {
        const uint8_t *rows[QV_GROUP];
        int32_t dots[VECTORS_AT_ONCE][QV_GROUP];
        for (int r = 0; r < QV_GROUP; r++) rows[r] = offset_row(codec, first + (i + r < count ? i + r : count - 1));
        dots_avx512(queries, rows, codec->offset_codec->data_size, dots);
        for (int q = 0; q < n; q++) {
            qv_mask4 dot = *(const qv_mask4 *)dots[q] - queries[q]->offset;
            qv_lanes4 scale = *(const qv_lanes4 *)(scales + first + i);
            *(qv_lanes4 *)(keys[q] + first + i) =
                scale * __builtin_convertvector(dot, qv_lanes4) * queries[q]->per_scale;
        }
    }
}
#endif

static score_tiles_fn score_tiles_of(const qv_codec *codec) {
#if defined(__x86_64__)
    if (codec->simd == QV_AVX512) return score_tiles_avx512;
#endif
    (void)codec;
    return score_tiles;
}

/* All vectors are scored against a tile of centroids while that is in the cache. */
static void find_centroids(const qv_codec *codec, const uint8_t *coded, size_t size, int n, qv_located *located) {
    float keys[QV_LOCATED_MAX][QV_MAX_CENTROIDS];
    offset_factors factors;
    score_tiles_fn score = score_tiles_of(codec);
    load_factors(codec, &factors);
    for (int first = 0; first < codec->n_offsets; first += TILE) {
        int count = codec->n_offsets - first < TILE ? codec->n_offsets - first : TILE;
        for (int i = 0; i < n; i += VECTORS_AT_ONCE) {
            const qv_query *queries[VECTORS_AT_ONCE];
            int together = n - i < VECTORS_AT_ONCE ? n - i : VECTORS_AT_ONCE;
            for (int q = 0; q < VECTORS_AT_ONCE; q++)
                queries[q] = (const qv_query *)(coded + (size_t)(i + (q < together ? q : 0)) * size);
            score(codec, queries, together, first, count, factors.scale, keys + i);
        }
    }
    for (int i = 0; i < n; i++) located[i].center = nearest_best(keys[i], factors.half, codec->n_offsets);
}

void qv_locate(const qv_codec *codec, const float *x, int n, qv_located *located) {
    _Alignas(64) uint8_t coded[sizeof(qv_query) + QV_MAX_DIM];
    size_t size = sizeof(qv_query) + qv_round_up((size_t)codec->dim, QV_BLOCK);
    qv_flat flat;
    for (int i = 0; i < n; i++) {
        located[i] = (qv_located){.norm2 = qv_norm2(x + (size_t)i * (size_t)codec->dim, codec->dim)};
        if (codec->n_offsets == 0) continue;
        qv_source source = qv_source_of(codec, x + (size_t)i * (size_t)codec->dim, qv_unit_of(codec, located[i].norm2));
        qv_flatten(&source, &flat);
        code_source(&flat.source, (qv_query *)(coded + (size_t)i * size));
    }
    if (codec->n_offsets > 0) find_centroids(codec, coded, size, n, located);
}

int qv_located_at_once(const qv_codec *codec) {
    size_t most = (sizeof(qv_query) + QV_MAX_DIM) / (sizeof(qv_query) + qv_round_up((size_t)codec->dim, QV_BLOCK));
    return most < QV_LOCATED_MAX ? (int)most : QV_LOCATED_MAX;
}

static qv_query *offset_query(const qv_codec *codec, const qv_query *query) {
    return (qv_query *)((uint8_t *)query + codec->query_size - qv_table_bytes(codec));
}

void qv_open_table(const qv_codec *codec, const qv_source *source, qv_query *query) {
    float *table = (float *)qv_table(codec, query);
    code_source(source, offset_query(codec, query));
    for (int i = 0; i < codec->n_offsets; i++) table[i] = NAN;
    query->per_table = 1;
}

float qv_table_entry(const qv_codec *codec, const qv_query *query, int number) {
    const float most = (float)QV_NORM2_MAX;
    float key;
    if (number >= codec->n_offsets) return 0;
    score_tile(codec, offset_query(codec, query), number, 1, &key);
    key = qv_clamp(key, -most, most) * query->per_table;
    ((float *)qv_table(codec, query))[number] = key;
    return key;
}

void qv_add_centroid(const qv_codec *codec, float scale, float *x) {
    qv_source source = {.offset = NULL};
    if (!qv_is_centered(codec)) return;
    if (codec->n_offsets > 0) qv_move_source(codec, qv_row_centroid(scale), &source);
    for (int i = 0; i < codec->dim; i++) {
        float offset = source.offset == NULL ? 0 : source.offset_step * (float)(source.offset[i] - QV_MIDPOINT);
        x[i] += codec->center[i] + offset;
    }
}

QV_INLINE double source_norm2(const qv_source *source) {
    float buffer[QV_BLOCK];
    double sum = 0;
    for (int i = 0; i < source->dim; i += QV_BLOCK) {
        const float *block = qv_source_block(source, i, buffer);
        sum += qv_dot64(block, block);
    }
    return sum;
}

QV_DEFINE_WIDE(, double, qv_source_norm2, (const qv_source *source), (source), source_norm2)
