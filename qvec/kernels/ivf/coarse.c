/* The coarse quantizer finds the lists near a query. Also estimates of the keys in a block. */
#include "ivf/lists.h"

#include "codec/lanes.h"

#define EXTRA_LISTS 16 /* number of scored centroids, minus twice the number of requested lists */
#define HALVINGS 24    /* bisections of the range of estimates to find a bound */

static const uint8_t *codes_of(const qv_list_block *block) { return (const uint8_t *)(block + 1); }

#define DEFINE_ESTIMATES(level, target)                                                                               \
    target static void estimates_##level(const qv_list_block *block, const int32_t *sums, const qv_estimate_terms *p, \
                                         float *out) {                                                                \
        float base = p->base, along = p->along, unit = p->unit;                                                       \
        for (int i = 0; i < QV_FS_VECTORS; i++)                                                                       \
            out[i] = base + along * block->add[i] + unit * (float)sums[i] * block->rescale[i];                        \
    }                                                                                                                 \
    target static int count_##level(const float *x, int n, float bound) {                                             \
        int count = 0;                                                                                                \
        for (int i = 0; i < n; i++) count += x[i] <= bound;                                                           \
        return count;                                                                                                 \
    }                                                                                                                 \
    target static uint32_t below_##level(const float *estimates, const float *error, float distance, float bound) {   \
        uint32_t mask = 0;                                                                                            \
        for (int i = 0; i < QV_FS_VECTORS; i++) mask |= (uint32_t)(estimates[i] - distance * error[i] < bound) << i;  \
        return mask;                                                                                                  \
    }

DEFINE_ESTIMATES(baseline, )
#if defined(__x86_64__)
DEFINE_ESTIMATES(wide, QV_TARGET_AVX2)

QV_TARGET_AVX2 static uint32_t below_avx2(const float *estimates, const float *error, float distance, float bound) {
    const __m256 scale = _mm256_set1_ps(distance), limit = _mm256_set1_ps(bound);
    uint32_t mask = 0;
    for (int i = 0; i < QV_FS_VECTORS; i += 8) {
        __m256 lower = _mm256_fnmadd_ps(scale, _mm256_loadu_ps(error + i), _mm256_loadu_ps(estimates + i));
        mask |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(lower, limit, _CMP_LT_OQ)) << i;
    }
    return mask;
}
#elif defined(__aarch64__)
static uint32_t below_neon(const float *estimates, const float *error, float distance, float bound) {
    static const uint32_t BITS[4] = {1, 2, 4, 8};
    const float32x4_t limit = vdupq_n_f32(bound);
    const uint32x4_t bits = vld1q_u32(BITS);
    uint32_t mask = 0;
    for (int i = 0; i < QV_FS_VECTORS; i += 4) {
        float32x4_t lower = vsubq_f32(vld1q_f32(estimates + i), vmulq_n_f32(vld1q_f32(error + i), distance));
        mask |= vaddvq_u32(vandq_u32(vcltq_f32(lower, limit), bits)) << i;
    }
    return mask;
}
#endif

#if defined(__x86_64__)
static int is_wide(const qv_lists *lists) { return lists->l2.simd == QV_AVX2 || lists->l2.simd == QV_AVX512; }
#endif

void qv_list_estimates(const qv_lists *lists, const qv_list_block *block, const uint8_t *table,
                       const qv_estimate_terms *terms, float *estimates) {
    int32_t sums[QV_FS_VECTORS];
    lists->sums(codes_of(block), table, lists->dims, sums);
#if defined(__x86_64__)
    if (is_wide(lists)) {
        estimates_wide(block, sums, terms, estimates);
        return;
    }
#endif
    estimates_baseline(block, sums, terms, estimates);
}

uint32_t qv_list_below(const qv_lists *lists, const qv_list_block *block, const uint8_t *table,
                       const qv_estimate_terms *terms, float bound, float *estimates) {
    qv_list_estimates(lists, block, table, terms, estimates);
#if defined(__x86_64__)
    if (is_wide(lists)) return below_avx2(estimates, block->error, terms->distance, bound);
#elif defined(__aarch64__)
    if (lists->l2.simd != QV_SCALAR) return below_neon(estimates, block->error, terms->distance, bound);
#endif
    return below_baseline(estimates, block->error, terms->distance, bound);
}

static int count_below(const qv_lists *lists, const float *x, int n, float bound) {
#if defined(__x86_64__)
    if (is_wide(lists)) return count_wide(x, n, bound);
#else
    (void)lists;
#endif
    return count_baseline(x, n, bound);
}

/* --- coarse search --- */

static uint8_t *take(uint8_t **at, size_t bytes) {
    uint8_t *taken = *at;
    *at += qv_round_up(bytes, 64);
    return taken;
}

int qv_coarse_query_init(qv_coarse_query *coarse, const qv_lists *lists, int n_near, qv_scratch *s) {
    size_t dims = (size_t)lists->dims, n = qv_round_up(lists->n_lists, QV_FS_VECTORS);
    size_t bytes = 2 * dims * sizeof(float) + qv_fs_bytes(lists->dims) + n * sizeof(float) +
                   (size_t)lists->l2.query_size + ((size_t)n_near + 1) * sizeof(uint64_t) + 6 * 64;
    uint8_t *at = qv_scratch_bytes(s, bytes);
    if (!at) return QV_NO_MEMORY;
    coarse->y = (float *)take(&at, dims * sizeof(float));
    coarse->residual = (float *)take(&at, dims * sizeof(float));
    coarse->table = take(&at, qv_fs_bytes(lists->dims));
    coarse->estimates = (float *)take(&at, n * sizeof(float));
    coarse->query = (qv_query *)take(&at, (size_t)lists->l2.query_size);
    coarse->near.slots = (uint64_t *)take(&at, ((size_t)n_near + 1) * sizeof(uint64_t));
    return QV_OK;
}

void qv_coarse_query_prepare(qv_coarse_query *coarse, const qv_lists *lists) {
    coarse->unit = qv_fs_table(coarse->y, lists->dims, coarse->table);
    coarse->norm2 = (float)qv_norm2(coarse->y, lists->dims);
}

/* Estimate the keys of all centroids. Their codes are for squared L2, from which -dot follows. */
static int estimate_centroids(qv_coarse_query *coarse, qv_lists *lists, int metric) {
    qv_estimate_terms terms = {coarse->norm2, 1, coarse->unit, 0};
    if (metric == QV_IP) terms = (qv_estimate_terms){0, 0, coarse->unit / 2, 0};
    for (uint32_t i = 0; i * QV_FS_VECTORS < lists->n_lists; i++) {
        const qv_list_block *block = (const qv_list_block *)qv_row(lists->blocks, i);
        if (!block) return QV_DAMAGED;
        qv_list_estimates(lists, block, coarse->table, &terms, coarse->estimates + i * QV_FS_VECTORS);
    }
    return QV_OK;
}

/* A bound that at least `n` estimates, and about as many, do not exceed. */
static float estimate_bound(const qv_coarse_query *coarse, const qv_lists *lists, int n) {
    int count = (int)lists->n_lists;
    float low = INFINITY, high = -INFINITY;
    for (int i = 0; i < count; i++) {
        low = coarse->estimates[i] < low ? coarse->estimates[i] : low;
        high = coarse->estimates[i] > high ? coarse->estimates[i] : high;
    }
    for (int i = 0; i < HALVINGS && n < count; i++) {
        float middle = low + (high - low) / 2;
        int below = count_below(lists, coarse->estimates, count, middle);
        if (below < n) {
            low = middle;
            continue;
        }
        high = middle;
        if (below <= n + n / 8) break;
    }
    return high;
}

/* Score staged centroids and insert them into coarse->near. */
static int rank_staged(qv_coarse_query *coarse, qv_lists *lists, const qv_codec *codec, int spread, int n,
                       qv_scratch *s) {
    codec->score(codec, coarse->query, s->address[0], n, s->key);
    for (int i = 0; i < n; i++) {
        uint32_t list = s->row[0][i];
        const qv_list *entry = spread ? (const qv_list *)qv_row(lists->lists, list) : NULL;
        if (spread && !entry) return QV_DAMAGED;
        qv_pool_insert(&coarse->near, qv_candidate(s->key[i] + (spread ? entry->spread : 0), list));
    }
    return QV_OK;
}

int qv_coarse_search(qv_coarse_query *coarse, qv_lists *lists, int n, int metric, int spread, qv_scratch *s) {
    const qv_codec *codec = metric == QV_IP ? &lists->dot : &lists->l2;
    if (estimate_centroids(coarse, lists, metric)) return QV_DAMAGED;
    float bound = estimate_bound(coarse, lists, 2 * n + EXTRA_LISTS);
    qv_prepare(codec, coarse->y, coarse->query);
    qv_pool_reset(&coarse->near, n);
    int staged = 0;
    for (uint32_t list = 0; list < lists->n_lists; list++) {
        if (coarse->estimates[list] > bound) continue;
        const uint8_t *address = qv_row(lists->centroids, list);
        if (!address) return QV_DAMAGED;
        qv_prefetch_row(address, (size_t)codec->stride);
        s->row[0][staged] = list;
        s->address[0][staged++] = address;
        if (staged == 8) {
            size_t bytes = 8 * ((size_t)codec->stride + (size_t)coarse->near.size * sizeof *coarse->near.slots);
            if (qv_is_late(s, bytes)) return QV_LATE;
            if (rank_staged(coarse, lists, codec, spread, staged, s)) return QV_DAMAGED;
            staged = 0;
        }
    }
    return rank_staged(coarse, lists, codec, spread, staged, s);
}
