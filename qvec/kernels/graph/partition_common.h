/* Functions that the files of a build from partitions share. */
#ifndef QV_PARTITION_COMMON_H
#define QV_PARTITION_COMMON_H

#include "codec/lanes.h"
#include "graph/partition.h"

#define QV_ASSIGN_BLOCK 96 /* rows that are assigned to leaders at a time */

static inline uint64_t qv_mixed(uint64_t x) { /* splitmix64 */
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

/* A random number from part i when 0..n - 1 is cut into n_parts equal parts. */
static inline uint32_t qv_sampled(uint64_t seed, uint32_t i, uint32_t n_parts, uint32_t n) {
    uint64_t first = (uint64_t)i * n / n_parts, stop = (uint64_t)(i + 1) * n / n_parts;
    return (uint32_t)(first + qv_mixed(seed * 0x9E3779B97F4A7C15ull + i) % (stop - first));
}

static inline int qv_partition_dims(const qv_partition *p) { return p->graph->codec->data_size; }

/* Addresses of the codes of n places. */
static inline int qv_addresses(const qv_partition *p, const uint32_t *places, int n, const uint8_t **codes) {
    for (int i = 0; i < n; i++)
        if (!(codes[i] = qv_row(p->graph->codes, p->rows[places[i]]))) return QV_DAMAGED;
    return QV_OK;
}

/* Enlarge the buffer of a thread to `bytes`. Returns QV_OK or QV_NO_MEMORY. */
int qv_partition_reserve(qv_partition_buffers *buffers, size_t bytes);

/* Bytes of `memory` for qv_assign_places. */
size_t qv_assign_bytes(const qv_partition *p, int n_leaders);

/* Write the `fanout` nearest leaders of each of n places, nearest first, to row_clusters[n][fanout]. Returns QV_OK or an error. */
int qv_assign_places(const qv_partition *p, const qv_tile_set *leaders, const uint32_t *places, uint32_t n, int fanout,
                     uint32_t *row_clusters, uint8_t *memory);

#endif
