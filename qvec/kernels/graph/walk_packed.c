/* Search over packed nodes: neighbors are scored by estimates, expanded nodes by their own codes. */
#include "graph/beam.h"
#include "codec/half.h"
#include "codec/lanes.h"
#include "graph/nodes.h"

/* A node is prefetched in three parts, with work in between: more lines at once would exceed the miss buffers and
 * stall. */
#define FIRST_PART (8 * 64)
#define SECOND_PART (8 * 64)

/* State of one search. */
typedef struct {
    const qv_nodes *index;
    const qv_node_layout *layout;
    const qv_query *query;
    const uint8_t *table;
    float delta;
    qv_fs_sums_fn sums;
    qv_beam beam;
    const uint8_t *coming, *coming_end; /* part of the next node that is not prefetched yet */
    qv_scratch *s;
    qv_stages *stages;                 /* effort for each query; NULL: the same for all */
    int width, pool_capacity, is_over; /* of the stage; of the pool; whether the last stage has ended */
    uint64_t began;                    /* hops before the search */
} walk;

QV_INLINE void fetch(walk *w, size_t bytes) {
    const uint8_t *line = w->coming, *end = (size_t)(w->coming_end - line) > bytes ? line + bytes : w->coming_end;
    for (; line < end; line += 64) qv_prefetch_t1(line);
    w->coming = line;
}

/* Entries of 32 neighbors, without their places, from their sums; bit i of the result: neighbor i is a row, and its
 * key is below the bound. The order of operations is the same on every level. A NaN of a damaged file is below
 * nothing. */
typedef uint32_t estimate_fn(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale, const int32_t *sums,
                             float base, qv_node_units units, const qv_beam *beam, uint32_t n, int32_t *entries);

QV_INLINE uint32_t estimate_scalar(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale, const int32_t *sums,
                                   float base, qv_node_units units, const qv_beam *beam, uint32_t n, int32_t *entries) {
    uint32_t mask = 0;
    for (int i = 0; i < QV_FS_VECTORS; i++) {
        uint16_t half[2];
        uint32_t row;
        memcpy(&row, rows + 4 * i, sizeof row);
        memcpy(&half[0], add + 2 * i, sizeof half[0]);
        memcpy(&half[1], rescale + 2 * i, sizeof half[1]);
        float slope = qv_from_half(half[1]) * units.rescale;
        float key = (base + qv_from_half(half[0]) * units.add) + slope * (float)sums[i];
        entries[i] = qv_beam_entry(beam, key);
        mask |= (uint32_t)(key < beam->bound && row < n) << i;
    }
    return mask;
}

#if defined(__x86_64__)
QV_TARGET_AVX2 QV_INLINE uint32_t estimate_avx2(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale,
                                                const int32_t *sums, float base, qv_node_units units,
                                                const qv_beam *beam, uint32_t n, int32_t *entries) {
    uint32_t mask = 0;
    const __m256i last = _mm256_set1_epi32((int32_t)(n - 1)), kept = _mm256_set1_epi32(~beam->places);
    for (int i = 0; i < QV_FS_VECTORS; i += 8) {
        __m256 adds = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(add + 2 * i)));
        __m256 slopes = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(rescale + 2 * i)));
        __m256 counts = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(sums + i)));
        slopes = _mm256_mul_ps(slopes, _mm256_set1_ps(units.rescale));
        adds = _mm256_add_ps(_mm256_set1_ps(base), _mm256_mul_ps(adds, _mm256_set1_ps(units.add)));
        __m256 key = _mm256_add_ps(adds, _mm256_mul_ps(slopes, counts));
        __m256i row = _mm256_loadu_si256((const __m256i *)(rows + 4 * i));
        __m256i is_row = _mm256_cmpeq_epi32(_mm256_min_epu32(row, last), row);
        __m256 near = _mm256_cmp_ps(key, _mm256_set1_ps(beam->bound), _CMP_LT_OQ);
        __m256i bits = _mm256_castps_si256(key);
        bits = _mm256_xor_si256(bits, _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1));
        _mm256_storeu_si256((__m256i *)(entries + i), _mm256_and_si256(bits, kept));
        mask |= (uint32_t)_mm256_movemask_ps(_mm256_and_ps(near, _mm256_castsi256_ps(is_row))) << i;
    }
    return mask;
}
#elif defined(__aarch64__)
QV_INLINE uint32_t estimate_neon(const uint8_t *rows, const uint8_t *add, const uint8_t *rescale, const int32_t *sums,
                                 float base, qv_node_units units, const qv_beam *beam, uint32_t n, int32_t *entries) {
    const uint32x4_t bits = {1, 2, 4, 8};
    uint32_t mask = 0;
    for (int i = 0; i < QV_FS_VECTORS; i += 4) {
        float32x4_t adds = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(add + 2 * i)));
        float32x4_t slopes = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(rescale + 2 * i)));
        slopes = vmulq_n_f32(slopes, units.rescale);
        adds = vaddq_f32(vdupq_n_f32(base), vmulq_n_f32(adds, units.add));
        float32x4_t key = vaddq_f32(adds, vmulq_f32(slopes, vcvtq_f32_s32(vld1q_s32(sums + i))));
        uint32x4_t row = vreinterpretq_u32_u8(vld1q_u8(rows + 4 * i));
        uint32x4_t near = vandq_u32(vcltq_f32(key, vdupq_n_f32(beam->bound)), vcltq_u32(row, vdupq_n_u32(n)));
        uint32x4_t signs = vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_f32(key), 31));
        uint32x4_t ordered = veorq_u32(vreinterpretq_u32_f32(key), vshrq_n_u32(signs, 1));
        vst1q_s32(entries + i, vreinterpretq_s32_u32(vbicq_u32(ordered, vdupq_n_u32((uint32_t)beam->places))));
        mask |= vaddvq_u32(vandq_u32(near, bits)) << i;
    }
    return mask;
}
#endif

/* Append the neighbors in a mask to the beam, except expanded ones. */
QV_INLINE void append(walk *w, uint32_t mask, const int32_t *entries, const uint8_t *rows) {
    const uint64_t *expanded = w->s->visited.bits;
    int32_t *open = w->beam.open;
    uint32_t *row = w->beam.row;
    int n = w->beam.n_open;
    for (; mask; mask &= mask - 1) {
        int i = __builtin_ctz(mask);
        open[n] = entries[i] | n;
        memcpy(row + n, rows + 4 * i, sizeof *row);
        n += !(expanded[row[n] >> 6] >> (row[n] & 63) & 1);
    }
    w->beam.n_open = n;
    qv_beam_commit(&w->beam);
}

/* Score the neighbors of a node, whose key is `base`, and append the near ones. */
QV_INLINE void scan_neighbors(walk *w, const qv_node_layout *layout, const uint8_t *node, float base,
                              estimate_fn estimate) {
    qv_node_units units;
    memcpy(&units, node + layout->at_units, sizeof units);
    units.rescale *= w->delta;
    for (uint32_t g = 0; g < layout->degree; g += QV_FS_VECTORS) {
        int32_t sums[QV_FS_VECTORS], entries[QV_FS_VECTORS];
        const uint8_t *rows = node + layout->at_rows + 4 * g;
        w->sums(node + g / QV_FS_VECTORS * qv_fs_bytes(layout->coded), w->table, layout->coded, sums);
        fetch(w, layout->stride);
        uint32_t mask = estimate(rows, node + layout->at_add + 2 * g, node + layout->at_rescale + 2 * g, sums, base,
                                 units, &w->beam, w->index->n, entries);
        append(w, mask, entries, rows);
    }
    w->s->evaluations += layout->degree;
}

static void enter_stage(walk *w) {
    w->width = qv_stages_enter(w->stages, &w->s->pool);
    w->beam.width = w->s->pool.capacity;
    if (w->beam.n_open + w->beam.n_taken < w->beam.width) w->beam.bound = INFINITY;
    w->s->pool.capacity = w->pool_capacity;
}

/* Whether the nearest open candidate is to be expanded: end each stage that has expanded the nodes nearest to the query,
 * as many as its width. The last stage ends when no candidates are left. */
static int stages_go_on(walk *w) {
    qv_beam *beam = &w->beam;
    int32_t nearest = qv_beam_least(beam->open, beam->n_open, QV_BEAM_NONE);
    qv_beam_pad(beam->taken, beam->n_taken);
    while (!w->is_over && !qv_stage_is_last(w->stages) &&
           qv_beam_count(beam->taken, beam->n_taken, nearest) >= w->width) {
        float frontier = nearest == QV_BEAM_NONE ? INFINITY : qv_beam_float(nearest);
        if (qv_stage_goes_on(w->stages, &w->s->pool, frontier, w->s->hops - w->began)) enter_stage(w);
        else w->is_over = 1;
    }
    return !w->is_over;
}

/* Pop the nearest candidate and prefetch its node. Returns 1, 0 if there is none, or an error. */
QV_INLINE int take_next(walk *w, uint32_t *row, const uint8_t **node) {
    if (w->stages && !stages_go_on(w)) return 0;
    if (!qv_beam_pop(&w->beam, row)) return 0;
    *node = qv_row(w->index->nodes, *row);
    if (!*node) return QV_DAMAGED;
    w->coming = *node;
    w->coming_end = *node + w->layout->stride;
    fetch(w, FIRST_PART);
    qv_visit(&w->s->visited, *row);
    return 1;
}

QV_INLINE float own_key(const walk *w, const qv_node_layout *layout, const uint8_t *node) {
    const uint8_t *code = node + layout->at_code;
    float key;
    layout->codec->score(layout->codec, w->query, &code, 1, &key);
    return key;
}

/* Score a node by its own code, add it to the pool if it is near enough, and score its neighbors. */
QV_INLINE void expand(walk *w, uint32_t row, const uint8_t *node, estimate_fn estimate) {
    float key = own_key(w, w->layout, node);
    if (key <= qv_pool_bound(&w->s->pool)) qv_pool_insert(&w->s->pool, qv_candidate(key, row));
    fetch(w, SECOND_PART);
    scan_neighbors(w, w->layout, node, key, estimate);
    w->s->hops++;
}

/* The next node is chosen before the current one is scanned, so that it arrives meanwhile. This costs a few more
 * hops. */
QV_INLINE int run(walk *w, estimate_fn estimate) {
    const qv_nodes *index = w->index;
    uint32_t row = 0, next_row = 0;
    const uint8_t *node = NULL, *next = NULL;
    scan_neighbors(w, &index->start_layout, index->start, own_key(w, &index->start_layout, index->start), estimate);
    int status = take_next(w, &row, &node);
    while (status > 0) {
        status = take_next(w, &next_row, &next);
        if (status < 0) return status;
        if (qv_is_late(w->s, w->layout->stride)) return QV_LATE;
        expand(w, row, node, estimate);
        if (!status) status = take_next(w, &next_row, &next);
        row = next_row;
        node = next;
    }
    return status;
}

typedef int run_fn(walk *w);

static int run_scalar(walk *w) { return run(w, estimate_scalar); }
#if defined(__x86_64__)
QV_TARGET_AVX2 static int run_avx2(walk *w) { return run(w, estimate_avx2); }
QV_TARGET_AVX512 static int run_avx512(walk *w) { return run(w, estimate_avx2); }
#elif defined(__aarch64__)
static int run_neon(walk *w) { return run(w, estimate_neon); }
#endif

static run_fn *const RUNS[QV_SIMD_LEVELS] = QV_BY_LEVEL(run_scalar, run_avx2, run_avx512, run_neon);

/* Buffers in the scratch, in this order: the table, the rotated query, the beam. */
int qv_nodes_find(const void *nodes, const qv_search_params *params, const float *original, const float *transformed,
                  qv_scratch *s) {
    (void)original;
    const qv_nodes *index = nodes;
    const qv_node_layout *layout = &index->layout;
    const qv_codec *codec = layout->codec;
    size_t table = qv_fs_bytes(layout->coded), floats = qv_round_up((size_t)layout->dims * sizeof(float), 64);
    uint8_t *buffer = qv_scratch_bytes(s, table + floats + qv_beam_bytes(params->ef));
    if (!buffer) return QV_NO_MEMORY;
    float *query = (float *)(buffer + table);
    walk w = {.index = index, .layout = layout, .query = (const qv_query *)s->query, .table = buffer, .s = s};
    qv_transform(transformed, 1, codec->dim, layout->dims, codec->metric == QV_COSINE, NULL, layout->signs, query);
    w.delta = qv_fs_table(query, layout->coded, buffer);
    w.sums = qv_fs_sums(codec->simd);
    qv_beam_reset(&w.beam, buffer + table + floats, params->ef);
    int candidates = params->candidates > params->k ? params->candidates : params->k;
    qv_visited_reset(&s->visited);
    qv_pool_reset(&s->pool, params->selection.excluded && params->ef > candidates ? params->ef : candidates);
    w.stages = qv_stages_begin(&s->stages, params->effort, candidates, params->ef);
    w.pool_capacity = s->pool.capacity;
    w.began = s->hops;
    if (w.stages) enter_stage(&w);
    int status = RUNS[codec->simd](&w);
    if (w.stages && !w.is_over) qv_stage_goes_on(w.stages, &s->pool, INFINITY, s->hops - w.began);
    return status;
}
