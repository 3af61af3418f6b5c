/* Search effort for each query: a search runs in stages of growing width, and ends after the stage whose features say that
 * more work would find too little. */
#ifndef QV_EFFORT_H
#define QV_EFFORT_H

#include "search/pool.h"

#define QV_STAGES_MAX 32
#define QV_STAGES_AHEAD 2 /* stages whose candidates the pool keeps */
#define QV_FEATURES 8
#define QV_EFFORT_K_MAX 1024 /* hits whose changes are counted */

/* Widths are those of a pool, or numbers of lists, in units of the last: a search with another width scales them all.
 * After stage i the search goes on if the sum of go_on[i] times the features is positive. The expected recall of a
 * search that ends there is the sum of recall[i] times the features, between 0 and 1. */
typedef struct {
    int n_stages, k; /* k: hits whose keys are features */
    float scanned;   /* recall to expect of a scan */
    int width[QV_STAGES_MAX];
    float go_on[QV_STAGES_MAX][QV_FEATURES], recall[QV_STAGES_MAX][QV_FEATURES];
} qv_effort;

/* Progress of one query. */
typedef struct {
    const qv_effort *effort;                  /* NULL: a fixed width */
    int k, keep, last_width, stage, n_before; /* keep: least size of the pool */
    float features[QV_FEATURES];
    float expected;                   /* recall */
    uint64_t before[QV_EFFORT_K_MAX]; /* the nearest k after the last stage */
} qv_stages;

/* Begin; `last_width` is the width of the last stage. Returns the stages, or NULL if there is no effort table. */
qv_stages *qv_stages_begin(qv_stages *stages, const qv_effort *effort, int keep, int last_width);

/* Width of a stage; stages after the last have its width. */
int qv_stage_width(const qv_stages *stages, int stage);

static inline int qv_stage_is_last(const qv_stages *stages) { return stages->stage + 1 >= stages->effort->n_stages; }

/* Begin the stage that is next: make room in the pool for it and for those after it. Returns its width. */
int qv_stages_enter(const qv_stages *stages, qv_pool *pool);

/* qv_stage_goes_on, if some candidates of the pool are not expanded. */
int qv_pool_stage_goes_on(qv_stages *stages, qv_pool *pool, uint64_t work);

/* End a stage: compute the features, and return whether to go on with the next. `pool`: the nearest rows found.
 * `frontier`: key of the nearest candidate that is not expanded, or of the next list; infinite: there is none. `work`:
 * hops, or lists. With d_i, the i-th least key, the features are: 1; the share of the nearest k that are new since the
 * stage before; d_k; log(frontier - d_k); log(d_k - d_1); (d_k - d_(k/2)) / (d_k - d_1); log(work / width); d_1. */
int qv_stage_goes_on(qv_stages *stages, const qv_pool *pool, float frontier, uint64_t work);

#endif
