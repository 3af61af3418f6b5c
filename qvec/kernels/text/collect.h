/* Steps over all rows of a window, equal to the last bit at each SIMD level. */
#ifndef QV_TEXT_COLLECT_H
#define QV_TEXT_COLLECT_H

#include <stdint.h>

/* Find the positions, ascending, of the n sums that are above a limit, and copy these sums; n: a multiple of 64. Returns
 * their number. */
typedef uint32_t qv_collect_fn(const float *sums, uint32_t n, float limit, uint32_t *positions, float *found);
extern qv_collect_fn *const qv_collect[];

/* norms[i] = base + slope * lengths[i], for n groups of 64 lengths. */
void qv_fill_norms(const uint8_t *const *lengths, uint32_t n_groups, float base, float slope, float *norms);

#endif
