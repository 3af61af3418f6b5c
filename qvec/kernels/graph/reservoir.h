/* Reservoirs: the nearest candidates of each row, which all threads add to. The order of additions has no effect. */
#ifndef QV_RESERVOIR_H
#define QV_RESERVOIR_H

#include "graph/partition.h"

/* The reservoirs of a part, which are allocated when they are first needed; NULL: no memory. */
qv_reservoir *qv_reservoirs_of(qv_partition *p, uint32_t part);

/* Add n candidates to a reservoir that the caller has locked. near: their keys and their numbers in the leaf; places: of
 * all rows of the leaf. */
typedef void (*qv_give_fn)(qv_reservoir *r, const uint32_t *places, const qv_near *near, int n);
qv_give_fn qv_give_of(int simd);

/* Keep the nearest QV_CANDIDATES candidates; of equal keys, those of the lowest places. */
void qv_cut(int simd, qv_reservoir *r);

static inline void qv_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static inline void qv_lock(qv_reservoir *r) {
    while (__atomic_exchange_n(&r->lock, 1, __ATOMIC_ACQUIRE)) qv_pause();
}

static inline void qv_unlock(qv_reservoir *r) { __atomic_store_n(&r->lock, 0, __ATOMIC_RELEASE); }

#endif
