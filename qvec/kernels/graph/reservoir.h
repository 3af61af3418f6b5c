/* The nearest candidates of a row, gathered by all threads. A reservoir is a set: the order of arrivals has no effect. */
#ifndef QV_RESERVOIR_H
#define QV_RESERVOIR_H

#include "graph/partition.h"

/* Reservoirs of a part of the places, allocated when the first candidate arrives; NULL: no memory. */
qv_reservoir *qv_reservoirs_of(qv_partition *p, uint32_t part);

/* Offer n rows of a leaf to a reservoir that the caller has locked. places: those of the leaf's rows. */
typedef void (*qv_give_fn)(qv_reservoir *r, const uint32_t *places, const qv_near *near, int n);
qv_give_fn qv_give_of(int simd);

/* Keep the nearest QV_CANDIDATES, ties by place. */
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
