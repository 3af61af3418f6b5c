/* Search over packed nodes by codes: estimates select the neighbors to score, and their codes determine the next row.
 * It takes fewer hops than a walk by estimates, and every row that it scores may be a result. Each score costs the
 * lines of a code, which lies in its own node; estimates save those of three neighbors in four. A row may be estimated
 * again, from another node, until it is scored. */
#include "graph/packed_walk.h"

typedef struct {
    uint64_t candidate; /* 0: none */
    const uint8_t *node;
} step;

/* Stage the neighbors of a node that are not yet scored and whose estimates are below the bound, and prefetch their
 * codes. Returns their number, or an error. */
QV_INLINE int stage_neighbors(qv_packed_walk *w, const qv_node_layout *layout, const uint8_t *node, float base,
                              int stage, qv_estimate_fn estimate) {
    qv_scratch *s = w->s;
    qv_node_units units;
    float bound = qv_pool_bound(&s->pool);
    int n = 0;
    memcpy(&units, node + layout->at_units, sizeof units);
    units.rescale *= w->delta;
    for (uint32_t g = 0; g < layout->degree; g += QV_FS_VECTORS) {
        int32_t sums[QV_FS_VECTORS], unused[QV_FS_VECTORS];
        const uint8_t *rows = node + layout->at_rows + 4 * g;
        w->sums(node + g / QV_FS_VECTORS * qv_fs_bytes(layout->coded), w->table, layout->coded, sums);
        qv_fetch_part(w, layout->stride);
        uint32_t mask = estimate(rows, node + layout->at_add + 2 * g, node + layout->at_rescale + 2 * g, sums, base,
                                 units, bound, 0, w->index->n, unused);
        for (; mask; mask &= mask - 1) {
            uint32_t row;
            memcpy(&row, rows + 4 * __builtin_ctz(mask), sizeof row);
            if (qv_visit(&s->visited, row)) continue;
            const uint8_t *address = qv_row(w->index->nodes, row);
            if (!address) return QV_DAMAGED;
            address += w->layout->at_code;
            qv_prefetch_row(address, w->layout->at_units - w->layout->at_code);
            s->row[stage][n] = row;
            s->address[stage][n++] = address;
        }
    }
    s->evaluations += layout->degree;
    return n;
}

/* The nearest open candidate. Its node is prefetched in parts; this call prefetches the first part. */
QV_INLINE int take_next(qv_packed_walk *w, step *next) {
    *next = (step){.candidate = qv_pool_pop(&w->s->pool)};
    w->coming = w->coming_end = NULL;
    if (!next->candidate) return QV_OK;
    next->node = qv_row(w->index->nodes, qv_candidate_row(next->candidate));
    if (!next->node) return QV_DAMAGED;
    w->coming = next->node;
    w->coming_end = next->node + w->layout->stride;
    qv_fetch_part(w, QV_FIRST_PART);
    return QV_OK;
}

QV_INLINE int start(qv_packed_walk *w, qv_estimate_fn estimate) {
    const qv_nodes *index = w->index;
    float base = qv_own_key(w, &index->start_layout, index->start);
    int n = stage_neighbors(w, &index->start_layout, index->start, base, 0, estimate);
    if (n > 0) qv_score_staged(w->layout->codec, NULL, w->query, 0, n, w->s);
    return n < 0 ? n : QV_OK;
}

/* Three steps overlap, so that what they read has arrived: the node of the nearest candidate is prefetched, the one
 * before it is estimated, and the codes found by the one before that are scored. This costs a few more hops. */
QV_INLINE int run(qv_packed_walk *w, qv_estimate_fn estimate) {
    step next, current = {0};
    int stage = 0, waiting = 0, staged, status = start(w, estimate);
    for (; !status; stage ^= 1, waiting = staged, current = next) {
        status = take_next(w, &next);
        if (status || (!next.candidate && !current.candidate && !waiting)) break;
        if (qv_is_late(w->s, w->layout->stride)) return QV_LATE;
        staged = 0;
        if (current.candidate) {
            float key = qv_candidate_key(current.candidate);
            staged = stage_neighbors(w, w->layout, current.node, key, stage, estimate);
            if (staged < 0) return staged;
            w->s->hops++;
        }
        qv_fetch_part(w, QV_SECOND_PART);
        if (waiting) qv_score_staged(w->layout->codec, NULL, w->query, stage ^ 1, waiting, w->s);
        qv_fetch_part(w, w->layout->stride);
    }
    return status;
}

typedef int run_fn(qv_packed_walk *w);

static int run_scalar(qv_packed_walk *w) { return run(w, qv_estimate_scalar); }
#if defined(__x86_64__)
QV_TARGET_AVX2 static int run_avx2(qv_packed_walk *w) { return run(w, qv_estimate_avx2); }
QV_TARGET_AVX512 static int run_avx512(qv_packed_walk *w) { return run(w, qv_estimate_avx2); }
#elif defined(__aarch64__)
static int run_neon(qv_packed_walk *w) { return run(w, qv_estimate_neon); }
#endif

static run_fn *const RUNS[QV_SIMD_LEVELS] = QV_BY_LEVEL(run_scalar, run_avx2, run_avx512, run_neon);

int qv_walk_by_codes(qv_packed_walk *w) { return RUNS[w->layout->codec->simd](w); }
