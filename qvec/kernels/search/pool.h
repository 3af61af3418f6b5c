/* The candidate list (qv_pool) and the set of visited rows of one search: no allocation per query.
 *
 * A candidate is one u64: the key in an order-preserving form, then the row, then whether it was expanded.
 * In sorted u64s the nearest come first, ties in the order of rows; inserting takes comparisons and one memmove.
 */
#ifndef QV_POOL_H
#define QV_POOL_H

#include <stdint.h>
#include <string.h>

#define QV_TOUCHED_MAX 65536

typedef struct {
    uint64_t *slots; /* sorted ascending, [capacity + 1] */
    int size, capacity, cursor;
} qv_pool;

static inline uint32_t qv_ordered(float key) {
    uint32_t bits;
    memcpy(&bits, &key, 4);
    return bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
}

static inline float qv_unordered(uint32_t bits) {
    float key;
    bits ^= (bits >> 31) ? 0x80000000u : 0xFFFFFFFFu;
    memcpy(&key, &bits, 4);
    return key;
}

static inline uint64_t qv_candidate(float key, uint32_t row) {
    return (uint64_t)qv_ordered(key) << 32 | (uint64_t)row << 1;
}
static inline uint32_t qv_candidate_row(uint64_t candidate) { return (uint32_t)candidate >> 1; }
static inline float qv_candidate_key(uint64_t candidate) { return qv_unordered((uint32_t)(candidate >> 32)); }

static inline void qv_pool_reset(qv_pool *pool, int capacity) {
    pool->size = pool->cursor = 0;
    pool->capacity = capacity;
}

/* Upper limit of keys that enter: +inf while there are free slots. */
static inline float qv_pool_bound(const qv_pool *pool) {
    return pool->size < pool->capacity ? __builtin_inff() : qv_candidate_key(pool->slots[pool->size - 1]);
}

/* Insert a candidate. Returns its slot relative to the cursor; the capacity if it is too far away. */
static inline int qv_pool_insert(qv_pool *pool, uint64_t candidate) {
    uint64_t *slots = pool->slots;
    int low = 0, count = pool->size;
    if (count == pool->capacity) {
        if (candidate >= slots[count - 1]) return pool->capacity;
        pool->size = --count;
    }
    while (count > 0) { /* lower bound without a branch: which half is taken cannot be predicted */
        int half = (count + 1) >> 1;
        low += half & -(int)(slots[low + half - 1] < candidate);
        count -= half;
    }
    memmove(slots + low + 1, slots + low, (size_t)(pool->size - low) * sizeof *slots);
    slots[low] = candidate;
    pool->size++;
    if (low < pool->cursor) pool->cursor = low;
    return low - pool->cursor;
}

/* Return the nearest candidate that is not expanded, marked as expanded; 0 if there is none. */
static inline uint64_t qv_pool_pop(qv_pool *pool) {
    while (pool->cursor < pool->size && (pool->slots[pool->cursor] & 1)) pool->cursor++;
    if (pool->cursor == pool->size) return 0;
    pool->slots[pool->cursor] |= 1;
    return pool->slots[pool->cursor++];
}

typedef struct {
    uint64_t *bits;
    uint32_t n_words;
    uint32_t *touched; /* rows set since the last reset, the first QV_TOUCHED_MAX of them */
    uint32_t n_touched;
} qv_visited;

static inline void qv_visited_reset(qv_visited *visited) {
    if (visited->n_touched >= QV_TOUCHED_MAX) memset(visited->bits, 0, visited->n_words * sizeof *visited->bits);
    else
        for (uint32_t i = 0; i < visited->n_touched; i++) visited->bits[visited->touched[i] >> 6] = 0;
    visited->n_touched = 0;
}

/* Record rows that were marked, for the next reset. */
static inline void qv_visited_touch(qv_visited *visited, const uint32_t *rows, int n) {
    if (visited->n_touched + (uint32_t)n > QV_TOUCHED_MAX) {
        visited->n_touched = QV_TOUCHED_MAX;
        return;
    }
    memcpy(visited->touched + visited->n_touched, rows, (size_t)n * sizeof *rows);
    visited->n_touched += (uint32_t)n;
}

/* Mark a row. Returns 1 if it was already marked. */
static inline int qv_visit(qv_visited *visited, uint32_t row) {
    uint64_t *word = visited->bits + (row >> 6), bit = 1ull << (row & 63);
    if (*word & bit) return 1;
    *word |= bit;
    if (visited->n_touched < QV_TOUCHED_MAX) visited->touched[visited->n_touched++] = row;
    return 0;
}

#endif
