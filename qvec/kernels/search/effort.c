#include "search/effort.h"

#include <float.h>
#include <math.h>

#define LEAST_SPAN 1e-6f /* of the k-th key: below it, equal keys */
#define LEAST_GAP 1e-3f  /* of the span */

qv_stages *qv_stages_begin(qv_stages *stages, const qv_effort *effort, int keep, int last_width) {
    stages->effort = effort;
    if (!effort) return NULL;
    stages->keep = keep;
    stages->k = effort->k;
    stages->last_width = last_width;
    stages->stage = stages->n_before = 0;
    stages->expected = 0;
    memset(stages->features, 0, sizeof stages->features);
    return stages;
}

int qv_stage_width(const qv_stages *stages, int stage) {
    const qv_effort *effort = stages->effort;
    int last = effort->n_stages - 1;
    if (stage >= last) return stages->last_width;
    int64_t width = (int64_t)effort->width[stage] * stages->last_width / effort->width[last];
    return width < 1 ? 1 : (int)width;
}

int qv_stages_enter(const qv_stages *stages, qv_pool *pool) {
    int kept = qv_stage_width(stages, stages->stage + QV_STAGES_AHEAD);
    pool->capacity = kept > stages->keep ? kept : stages->keep;
    return qv_stage_width(stages, stages->stage);
}

int qv_pool_stage_goes_on(qv_stages *stages, qv_pool *pool, uint64_t work) {
    int open = pool->cursor < pool->size;
    float frontier = open ? qv_candidate_key(pool->slots[pool->cursor]) : INFINITY;
    int goes_on = qv_stage_goes_on(stages, pool, frontier, work);
    if (goes_on && open) return 1;
    if (open) pool->capacity = pool->size; /* it has all that the stage wanted */
    return 0;
}

/* How many of the nearest k were not among them after the stage before. */
static int count_new(qv_stages *stages, const qv_pool *pool) {
    int n = pool->size < stages->k ? pool->size : stages->k, kept = 0;
    if (n == 0) return 0;
    uint64_t last = pool->slots[n - 1] | 1;
    while (kept < stages->n_before && (stages->before[kept] | 1) <= last) kept++;
    memcpy(stages->before, pool->slots, (size_t)n * sizeof *stages->before);
    stages->n_before = n;
    return n - kept;
}

static float weighted(const float *weights, const float *features) {
    float sum = 0;
    for (int i = 0; i < QV_FEATURES; i++) sum += weights[i] * features[i];
    return sum;
}

int qv_stage_goes_on(qv_stages *stages, const qv_pool *pool, float frontier, uint64_t work) {
    const qv_effort *effort = stages->effort;
    int n = pool->size < stages->k ? pool->size : stages->k, stage = stages->stage;
    float *f = stages->features;
    float first = n ? qv_candidate_key(pool->slots[0]) : 0, kth = n ? qv_candidate_key(pool->slots[n - 1]) : 0;
    float middle = n ? qv_candidate_key(pool->slots[n / 2]) : 0;
    float span = fmaxf(kth - first, LEAST_SPAN * fabsf(kth) + FLT_MIN), gap = frontier - kth;
    f[0] = 1;
    f[1] = (float)count_new(stages, pool) / (float)stages->k;
    f[2] = kth;
    f[3] = logf(isfinite(gap) ? fmaxf(gap, LEAST_GAP * span) : span);
    f[4] = logf(span);
    f[5] = (kth - middle) / span;
    f[6] = logf((float)(work + 1) / (float)qv_stage_width(stages, stage));
    f[7] = first;
    float expected = weighted(effort->recall[stage], f);
    stages->expected = expected < 0 ? 0 : expected > 1 ? 1 : expected;
    if (stage + 1 >= effort->n_stages || !(weighted(effort->go_on[stage], f) > 0)) return 0;
    stages->stage++;
    return 1;
}
