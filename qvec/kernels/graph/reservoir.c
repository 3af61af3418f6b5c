#include "graph/reservoir.h"

#include <string.h>

/* See qv_cut. A bisection finds the largest key that stays. */
QV_INLINE void cut(qv_reservoir *r) {
    int32_t low = 0, high = r->bound;
    while (low < high) {
        int32_t middle = low + (high - low) / 2, count = 0;
        for (int i = 0; i < QV_RESERVOIR; i++) count += r->key[i] <= middle;
        if (count >= QV_CANDIDATES) high = middle;
        else low = middle + 1;
    }
    int n = 0, ties = 0;
    uint32_t tied[QV_RESERVOIR];
    for (int i = 0; i < r->n; i++) {
        if (r->key[i] == high) tied[ties++] = r->place[i];
        if (r->key[i] >= high) continue;
        r->key[n] = r->key[i];
        r->place[n++] = r->place[i];
    }
    while (n < QV_CANDIDATES && ties > 0) {
        int least = 0;
        for (int i = 1; i < ties; i++) least = tied[i] < tied[least] ? i : least;
        r->key[n] = high;
        r->place[n++] = tied[least];
        tied[least] = tied[--ties];
    }
    for (int i = n; i < QV_RESERVOIR; i++) {
        r->key[i] = QV_NO_KEY;
        r->place[i] = QV_NO_ROW;
    }
    r->n = (uint16_t)n;
    r->bound = high;
}

QV_INLINE void offer(qv_reservoir *r, int32_t key, uint32_t place) {
    if (key > r->bound) return;
    int known = 0;
    for (int i = 0; i < QV_RESERVOIR; i++) known |= r->place[i] == place;
    if (known) return;
    r->key[r->n] = key;
    r->place[r->n++] = place;
    if (r->n == QV_RESERVOIR) cut(r);
}

static void empty(qv_reservoir *reservoirs) {
    memset(reservoirs, 0xFF, QV_PRUNE_ROWS * sizeof *reservoirs);
    for (int i = 0; i < QV_PRUNE_ROWS; i++) {
        reservoirs[i].bound = QV_NO_KEY - 1;
        reservoirs[i].n = reservoirs[i].lock = 0;
        for (int j = 0; j < QV_RESERVOIR; j++) reservoirs[i].key[j] = QV_NO_KEY;
    }
}

/* The first thread that needs the reservoirs of a part makes them; others wait for it. */
qv_reservoir *qv_reservoirs_of(qv_partition *p, uint32_t part) {
    static qv_reservoir being_made;
    qv_reservoir **place = &p->reservoirs[part], *found = __atomic_load_n(place, __ATOMIC_ACQUIRE);
    if (found && found != &being_made) return found;
    if (!found && __atomic_compare_exchange_n(place, &found, &being_made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        found = part < p->n_in_memory ? malloc(QV_PRUNE_ROWS * sizeof *found)
                                      : (qv_reservoir *)(p->spill + (part - p->n_in_memory) * qv_part_bytes(p));
        if (found) empty(found);
        __atomic_store_n(place, found, __ATOMIC_RELEASE);
        return found;
    }
    while ((found = __atomic_load_n(place, __ATOMIC_ACQUIRE)) == &being_made) qv_pause();
    return found;
}

#define DEFINE_GIVE(level, target)                                                                         \
    target static void give_##level(qv_reservoir *r, const uint32_t *places, const qv_near *near, int n) { \
        for (int q = 0; q < n; q++) offer(r, near[q].key, places[near[q].column]);                         \
    }                                                                                                      \
    target static void cut_##level(qv_reservoir *r) { cut(r); }

DEFINE_GIVE(baseline, )
#if defined(__x86_64__)
DEFINE_GIVE(avx2, QV_TARGET_AVX2)
DEFINE_GIVE(avx512, QV_TARGET_AVX512)
#endif

qv_give_fn qv_give_of(int simd) {
#if defined(__x86_64__)
    if (simd == QV_AVX512) return give_avx512;
    if (simd == QV_AVX2) return give_avx2;
#endif
    (void)simd;
    return give_baseline;
}

void qv_cut(int simd, qv_reservoir *r) {
#if defined(__x86_64__)
    if (simd == QV_AVX512) {
        cut_avx512(r);
        return;
    }
    if (simd == QV_AVX2) {
        cut_avx2(r);
        return;
    }
#endif
    (void)simd;
    cut_baseline(r);
}
