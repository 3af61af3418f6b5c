/* Build of a graph from partitions (partition.h has all steps). This file has the first: it chooses random rows as the
 * leaders of clusters, assigns each row to the clusters of its `fanout` nearest leaders, and numbers the rows by cluster.
 * A place is the number of a row in this order; before the rows are numbered, it is their position in p->rows. A part is a range of
 * QV_PRUNE_ROWS places: the unit of memory in which candidates and lists are allocated, spilled and pruned. */
#include <string.h>

#include "graph/partition_common.h"

/* The old contents are not needed. A quarter more than is asked for saves later calls. */
int qv_partition_reserve(qv_partition_buffers *b, size_t bytes) {
    if (b->bytes >= bytes) return QV_OK;
    qv_aligned_free(b->memory);
    b->bytes = 0;
    b->memory = qv_aligned_alloc(bytes + bytes / 4);
    if (!b->memory) return QV_NO_MEMORY;
    b->bytes = bytes + bytes / 4;
    return QV_OK;
}

/* After an error, too, the caller calls qv_partition_free. */
int qv_partition_init(qv_partition *p, const qv_graph *graph, uint32_t *rows, uint32_t n,
                      const qv_partition_options *options) {
    *p = (qv_partition){.graph = graph, .rows = rows, .n = n, .options = *options};
    p->kernels = qv_tile_kernels_of(graph->codec->simd);
    uint32_t n_leaders = options->n_leaders;
    p->n_parts = p->n_in_memory = (n + QV_PRUNE_ROWS - 1) / QV_PRUNE_ROWS;
    p->row_clusters = malloc((size_t)n * (size_t)options->fanout * sizeof *p->row_clusters);
    p->leader_memory = qv_aligned_alloc(qv_tile_set_bytes(p->kernels, (int)n_leaders, qv_partition_dims(p)));
    p->first = calloc((size_t)n_leaders + 1, sizeof *p->first);
    p->reservoirs = calloc(p->n_parts, sizeof *p->reservoirs);
    p->lists = calloc(p->n_parts, sizeof *p->lists);
    const uint8_t **codes = malloc(n_leaders * sizeof *codes);
    uint32_t *places = malloc(n_leaders * sizeof *places);
    int status = QV_NO_MEMORY;
    if (p->row_clusters && p->leader_memory && p->first && p->reservoirs && p->lists && codes && places) {
        for (uint32_t i = 0; i < n_leaders; i++) places[i] = qv_sampled(options->seed, i, n_leaders, n);
        status = qv_addresses(p, places, (int)n_leaders, codes);
    }
    if (!status) {
        qv_tile_set_init(&p->leaders, p->kernels, (int)n_leaders, qv_partition_dims(p), p->leader_memory);
        qv_tile_set_load(&p->leaders, p->kernels, graph->codec, codes, (int)n_leaders,
                         1); /* with panels: the columns of the product */
    }
    free(codes);
    free(places);
    return status;
}

/* Free the first n parts, which are in memory. The others are in the buffer that was given to qv_partition_spill. */
static void free_parts(void *parts, uint32_t n) {
    void **each = parts;
    for (uint32_t i = 0; each && i < n; i++) free(each[i]);
    free(parts);
}

void qv_partition_spill(qv_partition *p, uint32_t n_in_memory, uint8_t *spill) {
    p->n_in_memory = n_in_memory < p->n_parts ? n_in_memory : p->n_parts;
    p->spill = spill;
}

void qv_partition_free(qv_partition *p) {
    free_parts(p->reservoirs, p->n_in_memory);
    free_parts(p->lists, p->n_in_memory);
    free(p->row_clusters);
    qv_aligned_free(p->leader_memory);
    free(p->first);
    free(p->members);
    free(p->largest);
    free(p->reverse_first);
    free(p->reverse);
}

/* Bytes of the three buffers of qv_assign_places: codes of a block, keys (distances that can be compared) from some of its
 * rows to all leaders, and addresses. 64 bytes for the alignment of each. */
size_t qv_assign_bytes(const qv_partition *p, int n_leaders) {
    return qv_tile_set_bytes(p->kernels, QV_ASSIGN_BLOCK, qv_partition_dims(p)) +
           (size_t)QV_TILE_ROWS * (size_t)qv_panels(n_leaders) * QV_TILE_COLUMNS * sizeof(int32_t) +
           QV_ASSIGN_BLOCK * sizeof(void *) + 3 * 64;
}

int qv_assign_places(const qv_partition *p, const qv_tile_set *leaders, const uint32_t *places, uint32_t n, int fanout,
                     uint32_t *row_clusters, uint8_t *memory) {
    int n_panels = qv_panels(leaders->n);
    size_t pitch = (size_t)n_panels * QV_TILE_COLUMNS;
    qv_tile_set block;
    const uint8_t **addresses = qv_take(&memory, QV_ASSIGN_BLOCK * sizeof *addresses); /* of codes */
    int32_t *keys = qv_take(&memory, QV_TILE_ROWS * pitch * sizeof *keys);
    qv_tile_set_init(&block, p->kernels, QV_ASSIGN_BLOCK, qv_partition_dims(p), memory);
    for (uint32_t start = 0; start < n; start += QV_ASSIGN_BLOCK) {
        int count = n - start < QV_ASSIGN_BLOCK ? (int)(n - start) : QV_ASSIGN_BLOCK;
        if (qv_addresses(p, places + start, count, addresses)) return QV_DAMAGED;
        qv_tile_set_load(&block, p->kernels, p->graph->codec, addresses, count, 0); /* the rows of the product */
        for (int i = 0; i < count; i += QV_TILE_ROWS) {
            p->kernels->keys(&block, i, leaders, 0, n_panels, keys, pitch);
            for (int r = 0; r < QV_TILE_ROWS && i + r < count; r++) {
                qv_near near[QV_NEAREST_MAX];
                uint32_t *clusters = row_clusters + (size_t)(start + (uint32_t)(i + r)) * (size_t)fanout;
                int found = p->kernels->nearest(keys + (size_t)r * pitch, n_panels, fanout, near);
                for (int f = 0; f < fanout; f++) clusters[f] = f < found ? near[f].column : QV_NO_ROW; /* or none */
            }
        }
    }
    return QV_OK;
}

int qv_partition_assign(qv_partition *p, uint32_t unit, qv_partition_buffers *b) {
    uint32_t places[QV_ASSIGN_ROWS], first = unit * QV_ASSIGN_ROWS;
    uint32_t n = p->n - first < QV_ASSIGN_ROWS ? p->n - first : QV_ASSIGN_ROWS;
    if (qv_partition_reserve(b, qv_assign_bytes(p, p->leaders.n))) return QV_NO_MEMORY;
    for (uint32_t i = 0; i < n; i++) places[i] = first + i;
    size_t fanout = (size_t)p->options.fanout;
    return qv_assign_places(p, &p->leaders, places, n, p->options.fanout, p->row_clusters + first * fanout, b->memory);
}

typedef struct {
    uint64_t size;
    uint32_t cluster;
} cluster_size;

static int by_size(const void *a, const void *b) {
    const cluster_size *x = a, *y = b;
    if (x->size != y->size) return x->size > y->size ? -1 : 1;
    return x->cluster < y->cluster ? -1 : x->cluster > y->cluster;
}

/* Replace the sizes of groups, counts[i + 1] of group i, by the positions at which the groups begin. */
static void accumulate(uint64_t *counts, size_t n) {
    for (size_t i = 0; i < n; i++) counts[i + 1] += counts[i];
}

/* Number the rows in the order of their nearest leaders: these are their places. */
static int number_by_cluster(qv_partition *p) {
    size_t n = p->n, fanout = (size_t)p->options.fanout, n_leaders = p->options.n_leaders;
    uint64_t *next = calloc(n_leaders + 1, sizeof *next);
    uint32_t *rows = malloc(n * sizeof *rows), *row_clusters = malloc(n * fanout * sizeof *row_clusters);
    int status = next && rows && row_clusters ? QV_OK : QV_NO_MEMORY;
    if (!status) {
        for (size_t i = 0; i < n; i++)
            if (p->row_clusters[i * fanout] + 1 < n_leaders) next[p->row_clusters[i * fanout] + 1]++;
        accumulate(next, n_leaders - 1);
        for (size_t i = 0; i < n; i++) {
            size_t place = next[p->row_clusters[i * fanout]]++;
            rows[place] = p->rows[i];
            memcpy(row_clusters + place * fanout, p->row_clusters + i * fanout, fanout * sizeof *row_clusters);
        }
        memcpy(p->rows, rows, n * sizeof *rows);
        memcpy(p->row_clusters, row_clusters, n * fanout * sizeof *row_clusters);
    }
    free(next);
    free(rows);
    free(row_clusters);
    return status;
}

int qv_partition_group(qv_partition *p) {
    size_t n = p->n, fanout = (size_t)p->options.fanout, n_leaders = p->options.n_leaders;
    if (number_by_cluster(p)) return QV_NO_MEMORY;
    for (size_t i = 0; i < n * fanout; i++)
        if (p->row_clusters[i] < n_leaders) p->first[p->row_clusters[i] + 1]++;
    accumulate(p->first, n_leaders);
    uint64_t *next = malloc(n_leaders * sizeof *next);
    cluster_size *sizes = malloc(n_leaders * sizeof *sizes);
    p->members = malloc((p->first[n_leaders] + 1) * sizeof *p->members);
    p->largest = malloc(n_leaders * sizeof *p->largest);
    int status = next && sizes && p->members && p->largest ? QV_OK : QV_NO_MEMORY;
    if (!status) {
        memcpy(next, p->first, n_leaders * sizeof *next);
        for (size_t i = 0; i < n * fanout; i++)
            if (p->row_clusters[i] < n_leaders) p->members[next[p->row_clusters[i]]++] = (uint32_t)(i / fanout);
        for (uint32_t c = 0; c < n_leaders; c++) sizes[c] = (cluster_size){p->first[c + 1] - p->first[c], c};
        qsort(sizes, n_leaders, sizeof *sizes, by_size);
        for (uint32_t c = 0; c < n_leaders; c++) p->largest[c] = sizes[c].cluster;
        free(p->row_clusters);
        p->row_clusters = NULL;
    }
    free(next);
    free(sizes);
    return status;
}
