/* Search over packed nodes: neighbors are scored by estimates, expanded nodes by their own codes. */
#include "graph/packed_walk.h"

#define BY_CODES_CANDIDATES 96
#define BY_CODES_POOL 512

/* Append the neighbors in a mask to the beam, except expanded ones. */
typedef void append_fn(qv_packed_walk *w, uint32_t mask, const int32_t *entries, const uint8_t *rows);

QV_INLINE void append(qv_packed_walk *w, uint32_t mask, const int32_t *entries, const uint8_t *rows) {
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
    qv_beam_commit(&w->beam, qv_beam_keep);
}

#if defined(__x86_64__)
QV_TARGET_AVX512 QV_INLINE void append_avx512(qv_packed_walk *w, uint32_t mask, const int32_t *entries,
                                              const uint8_t *rows) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    qv_beam *beam = &w->beam;
    for (int i = 0; mask; i += QV_BEAM_GROUP, mask >>= QV_BEAM_GROUP) {
        __mmask16 near = (__mmask16)mask;
        __m512i row = _mm512_loadu_si512(rows + 4 * i), words = _mm512_srli_epi32(row, 5);
        __m512i bits = _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_and_si512(row, _mm512_set1_epi32(31)));
        words = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), near, words, w->s->visited.bits, 4);
        near = _mm512_mask_testn_epi32_mask(near, words, bits);
        __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(beam->n_open));
        __m512i kept = _mm512_maskz_compress_epi32(near, _mm512_loadu_si512(entries + i));
        _mm512_storeu_si512(beam->open + beam->n_open, _mm512_or_si512(kept, numbers));
        _mm512_storeu_si512(beam->row + beam->n_open, _mm512_maskz_compress_epi32(near, row));
        beam->n_open += __builtin_popcount(near);
    }
    qv_beam_commit(beam, qv_beam_keep_avx512);
}
#endif

/* Score the neighbors of a node, whose key is `base`, and append the near ones. */
QV_INLINE void scan_neighbors(qv_packed_walk *w, const qv_node_layout *layout, const uint8_t *node, float base,
                              qv_estimate_fn estimate, append_fn append_near) {
    qv_node_units units;
    memcpy(&units, node + layout->at_units, sizeof units);
    units.rescale *= w->delta;
    for (uint32_t g = 0; g < layout->degree; g += QV_FS_VECTORS) {
        int32_t sums[QV_FS_VECTORS], entries[QV_FS_VECTORS];
        const uint8_t *rows = node + layout->at_rows + 4 * g;
        w->sums(node + g / QV_FS_VECTORS * qv_fs_bytes(layout->coded), w->table, layout->coded, sums);
        qv_fetch_part(w, layout->stride);
        uint32_t mask = estimate(rows, node + layout->at_add + 2 * g, node + layout->at_rescale + 2 * g, sums, base,
                                 units, w->beam.bound, w->beam.places, w->index->n, entries);
        append_near(w, mask, entries, rows);
    }
    w->s->evaluations += layout->degree;
}

/* Pop the nearest candidate and prefetch its node. Returns 1, 0 if there is none, or an error. */
QV_INLINE int take_next(qv_packed_walk *w, uint32_t *row, const uint8_t **node) {
    if (!qv_beam_pop(&w->beam, row)) return 0;
    *node = qv_row(w->index->nodes, *row);
    if (!*node) return QV_DAMAGED;
    w->coming = *node;
    w->coming_end = *node + w->layout->stride;
    qv_fetch_part(w, QV_FIRST_PART);
    qv_visit(&w->s->visited, *row);
    return 1;
}

/* Score a row by its own code, add it to the candidate list if it is near enough, and score its neighbors. */
QV_INLINE void expand(qv_packed_walk *w, uint32_t row, const uint8_t *node, qv_estimate_fn estimate,
                      append_fn append_near) {
    float key = qv_own_key(w, w->layout, node);
    if (key <= qv_pool_bound(&w->s->pool)) qv_pool_insert(&w->s->pool, qv_candidate(key, row));
    qv_fetch_part(w, QV_SECOND_PART);
    scan_neighbors(w, w->layout, node, key, estimate, append_near);
    w->s->hops++;
}

/* The next node is chosen before the current one is scanned, so that it arrives meanwhile. This costs a few more
 * hops. */
QV_INLINE int run(qv_packed_walk *w, qv_estimate_fn estimate, append_fn append_near) {
    const qv_nodes *index = w->index;
    uint32_t row = 0, next_row = 0;
    const uint8_t *node = NULL, *next = NULL;
    scan_neighbors(w, &index->start_layout, index->start, qv_own_key(w, &index->start_layout, index->start), estimate,
                   append_near);
    int status = take_next(w, &row, &node);
    while (status > 0) {
        status = take_next(w, &next_row, &next);
        if (status < 0) return status;
        if (qv_is_late(w->s, w->layout->stride)) return QV_LATE;
        expand(w, row, node, estimate, append_near);
        if (!status) status = take_next(w, &next_row, &next);
        row = next_row;
        node = next;
    }
    return status;
}

typedef int run_fn(qv_packed_walk *w);

static int run_scalar(qv_packed_walk *w) { return run(w, qv_estimate_scalar, append); }
#if defined(__x86_64__)
QV_TARGET_AVX2 static int run_avx2(qv_packed_walk *w) { return run(w, qv_estimate_avx2, append); }
QV_TARGET_AVX512 static int run_avx512(qv_packed_walk *w) { return run(w, qv_estimate_avx2, append_avx512); }
#elif defined(__aarch64__)
static int run_neon(qv_packed_walk *w) { return run(w, qv_estimate_neon, append); }
#endif

static run_fn *const RUNS[QV_SIMD_LEVELS] = QV_BY_LEVEL(run_scalar, run_avx2, run_avx512, run_neon);

/* Whether the walk is by codes (ADR 22): for many results, because a walk by estimates has to expand each of them,
 * and for a large ef, because the distances of near rows then differ by less than the error of the estimates. */
static int is_by_codes(const qv_search_params *params, int candidates) {
    return candidates >= BY_CODES_CANDIDATES || params->ef >= BY_CODES_POOL;
}

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
    qv_packed_walk w = {.index = index, .layout = layout, .query = (const qv_query *)s->query, .table = buffer, .s = s};
    qv_transform(transformed, 1, codec->dim, layout->dims, codec->metric == QV_COSINE, NULL, layout->signs, query);
    w.delta = qv_fs_table(query, layout->coded, buffer);
    w.sums = qv_fs_sums(codec->simd);
    qv_beam_reset(&w.beam, buffer + table + floats, params->ef);
    int candidates = params->candidates > params->k ? params->candidates : params->k;
    int widest = params->ef > candidates ? params->ef : candidates, by_codes = is_by_codes(params, candidates);
    qv_visited_reset(&s->visited);
    qv_pool_reset(&s->pool, params->selection.excluded || by_codes ? widest : candidates);
    if (by_codes) return qv_walk_by_codes(&w);
    return RUNS[codec->simd](&w);
}
