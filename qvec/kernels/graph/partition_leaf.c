/* Build of a graph from partitions: dividing clusters into leaves, and the candidates that rows get from a leaf. */
#include <string.h>

#include "graph/partition_common.h"
#include "graph/reservoir.h"

#define LEAF_TARGET 256 /* average rows of a leaf, before small leaves are merged */
#define LEAF_MIN 64     /* smaller leaves are merged */
#define LEAF_MAX 512    /* larger leaves are divided again ... */
#define SPLITS_MAX 4    /* ... up to this many times, then cut into pieces: leaders cannot divide rows that are equal */

typedef struct {
    qv_partition *p;
    qv_tile_set set;
    const uint8_t **codes; /* [LEAF_MAX] */
    int32_t *keys, *minima;
    qv_near *near, *back;    /* [LEAF_MAX * QV_NEAREST_MAX] */
    uint32_t *back_first;    /* [LEAF_MAX + 1] */
    uint8_t found[LEAF_MAX]; /* rows in near */
} leaf_buffers;

#define LEAF_PITCH ((size_t)LEAF_MAX)
#define LEAF_KEY_ROWS ((size_t)(LEAF_MAX + QV_TILE_ROWS))

static size_t leaf_bytes(const qv_partition *p) {
    size_t near = (size_t)LEAF_MAX * QV_NEAREST_MAX * sizeof(qv_near);
    return sizeof(leaf_buffers) + qv_tile_set_bytes(p->kernels, LEAF_MAX, qv_partition_dims(p)) +
           LEAF_MAX * sizeof(void *) + LEAF_KEY_ROWS * LEAF_PITCH * sizeof(int32_t) +
           qv_leaf_minima(LEAF_MAX) * sizeof(int32_t) + 2 * near + (LEAF_MAX + 1) * sizeof(uint32_t) + 8 * 64;
}

static leaf_buffers *leaf_init(qv_partition *p, uint8_t **at) {
    size_t near = (size_t)LEAF_MAX * QV_NEAREST_MAX * sizeof(qv_near);
    leaf_buffers *leaf = qv_take(at, sizeof *leaf);
    leaf->p = p;
    leaf->codes = qv_take(at, LEAF_MAX * sizeof *leaf->codes);
    leaf->keys = qv_take(at, LEAF_KEY_ROWS * LEAF_PITCH * sizeof(int32_t));
    leaf->minima = qv_take(at, qv_leaf_minima(LEAF_MAX) * sizeof(int32_t));
    leaf->near = qv_take(at, near);
    leaf->back = qv_take(at, near);
    leaf->back_first = qv_take(at, (LEAF_MAX + 1) * sizeof(uint32_t));
    size_t bytes = qv_tile_set_bytes(p->kernels, LEAF_MAX, qv_partition_dims(p));
    qv_tile_set_init(&leaf->set, p->kernels, LEAF_MAX, qv_partition_dims(p), qv_take(at, bytes));
    return leaf;
}

static int is_near(const leaf_buffers *leaf, int k, uint32_t of, uint32_t other) {
    for (int i = 0; i < leaf->found[of]; i++)
        if (leaf->near[of * (uint32_t)k + (uint32_t)i].column == other) return 1;
    return 0;
}

/* For each row of the leaf, list in `back` the rows that have it among their nearest, except its own nearest. */
static void collect_back(leaf_buffers *leaf, int m, int k) {
    uint32_t *first = leaf->back_first;
    memset(first, 0, ((size_t)m + 1) * sizeof *first);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < m; i++)
            for (int q = 0; q < leaf->found[i]; q++) {
                qv_near edge = leaf->near[i * k + q];
                if (is_near(leaf, k, edge.column, (uint32_t)i)) continue;
                if (pass) leaf->back[first[edge.column]++] = (qv_near){edge.key, (uint32_t)i};
                else first[edge.column + 1]++;
            }
        for (int i = 0; i < m && !pass; i++) first[i + 1] += first[i];
    }
    for (int i = m; i > 0; i--) first[i] = first[i - 1];
    first[0] = 0;
}

/* Score all pairs of a leaf of m places, ascending. Each row and its nearest become candidates of each other. */
static int join_leaf(leaf_buffers *leaf, const uint32_t *places, int m) {
    qv_partition *p = leaf->p;
    int k = p->options.nearest, n_panels = qv_panels(m);
    if (m < 2) return QV_OK;
    for (int i = 0; i < m; i++) {
        qv_reservoir *all = qv_reservoirs_of(p, places[i] / QV_PRUNE_ROWS);
        if (!all) return QV_NO_MEMORY;
        qv_prefetch_row(&all[places[i] % QV_PRUNE_ROWS], sizeof *all);
    }
    if (qv_addresses(p, places, m, leaf->codes)) return QV_DAMAGED;
    qv_tile_set_load(&leaf->set, p->kernels, p->graph->codec, leaf->codes, m, 1);
    for (int i = 0; i < m; i += QV_TILE_ROWS) {
        int first = i / QV_TILE_COLUMNS;
        int32_t *keys = leaf->keys + (size_t)i * LEAF_PITCH;
        p->kernels->keys(&leaf->set, i, &leaf->set, first, n_panels, keys, LEAF_PITCH);
        for (int r = 0; r < QV_TILE_ROWS && i + r < m; r++)
            for (int j = first * QV_TILE_COLUMNS; j <= i + r; j++) keys[(size_t)r * LEAF_PITCH + (size_t)j] = QV_NO_KEY;
    }
    p->kernels->leaf(leaf->keys, LEAF_PITCH, m, k, leaf->minima, leaf->near, leaf->found);
    collect_back(leaf, m, k);
    qv_give_fn give = qv_give_of(p->graph->codec->simd);
    for (int i = 0; i < m; i++) {
        qv_reservoir *r = p->reservoirs[places[i] / QV_PRUNE_ROWS] + places[i] % QV_PRUNE_ROWS;
        const uint32_t *first = leaf->back_first + i;
        qv_lock(r);
        give(r, places, leaf->near + (size_t)i * (size_t)k, leaf->found[i]);
        give(r, places, leaf->back + first[0], (int)(first[1] - first[0]));
        qv_unlock(r);
    }
    return QV_OK;
}

static int by_place(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int join_merged(leaf_buffers *leaf, uint32_t *places, int m) {
    qsort(places, (size_t)m, sizeof *places, by_place);
    int n = 0;
    for (int i = 0; i < m; i++)
        if (n == 0 || places[n - 1] != places[i]) places[n++] = places[i];
    return join_leaf(leaf, places, n);
}

/* Choose leaders among n places, assign each place to its nearest leaders, and process the resulting leaves: small ones
 * are merged, large ones are divided again. */
static int divide(leaf_buffers *leaf, const uint32_t *places, uint32_t n, int fanout, uint64_t seed, int depth) {
    qv_partition *p = leaf->p;
    if (n <= LEAF_MAX) return join_leaf(leaf, places, (int)n);
    if (depth == SPLITS_MAX) {
        uint32_t n_pieces = (n + LEAF_MAX - 1) / LEAF_MAX;
        int status = QV_OK;
        for (uint32_t i = 0; i < n_pieces && !status; i++) {
            uint32_t first = (uint32_t)((uint64_t)n * i / n_pieces),
                     stop = (uint32_t)((uint64_t)n * (i + 1) / n_pieces);
            status = join_leaf(leaf, places + first, (int)(stop - first));
        }
        return status;
    }
    uint32_t n_leaders = (uint32_t)(((uint64_t)n * (uint32_t)fanout + LEAF_TARGET - 1) / LEAF_TARGET);
    n_leaders = n_leaders < 2 ? 2 : n_leaders;
    size_t set_bytes = qv_tile_set_bytes(p->kernels, (int)n_leaders, qv_partition_dims(p)),
           edges = (size_t)n * (size_t)fanout;
    size_t bytes = set_bytes + n_leaders * sizeof(void *) + 2 * edges * sizeof(uint32_t) +
                   (n_leaders + 1) * sizeof(uint32_t) + LEAF_MAX * sizeof(uint32_t) +
                   qv_assign_bytes(p, (int)n_leaders) + 7 * 64;
    uint8_t *memory = qv_aligned_alloc(bytes), *at = memory;
    if (!memory) return QV_NO_MEMORY;
    qv_tile_set leaders;
    qv_tile_set_init(&leaders, p->kernels, (int)n_leaders, qv_partition_dims(p), qv_take(&at, set_bytes));
    const uint8_t **codes = qv_take(&at, n_leaders * sizeof *codes);
    uint32_t *row_clusters = qv_take(&at, edges * sizeof *row_clusters), *lists = qv_take(&at, edges * sizeof *lists);
    uint32_t *first = qv_take(&at, (n_leaders + 1) * sizeof *first), *merged = qv_take(&at, LEAF_MAX * sizeof *merged);
    for (uint32_t i = 0; i < n_leaders; i++) lists[i] = places[qv_sampled(seed, i, n_leaders, n)];
    int status = qv_addresses(p, lists, (int)n_leaders, codes);
    if (!status) {
        qv_tile_set_load(&leaders, p->kernels, p->graph->codec, codes, (int)n_leaders, 1);
        status = qv_assign_places(p, &leaders, places, n, fanout, row_clusters, at);
    }
    if (!status) {
        memset(first, 0, (n_leaders + 1) * sizeof *first);
        for (size_t i = 0; i < edges; i++)
            if (row_clusters[i] < n_leaders) first[row_clusters[i] + 1]++;
        for (uint32_t i = 0; i < n_leaders; i++) first[i + 1] += first[i];
        for (size_t i = 0; i < edges; i++)
            if (row_clusters[i] < n_leaders) lists[first[row_clusters[i]]++] = places[i / (size_t)fanout];
        for (uint32_t i = n_leaders; i > 0; i--) first[i] = first[i - 1];
        first[0] = 0;
        int waiting = 0;
        for (uint32_t i = 0; i < n_leaders && !status; i++) {
            uint32_t size = first[i + 1] - first[i];
            if (size >= LEAF_MIN) {
                status = divide(leaf, lists + first[i], size, 1, qv_mixed(seed + i), depth + 1);
                continue;
            }
            if (waiting + (int)size > LEAF_TARGET) {
                status = join_merged(leaf, merged, waiting);
                waiting = 0;
            }
            memcpy(merged + waiting, lists + first[i], size * sizeof *merged);
            waiting += (int)size;
        }
        if (!status) status = join_merged(leaf, merged, waiting);
    }
    qv_aligned_free(memory);
    return status;
}

int qv_partition_cluster(qv_partition *p, uint32_t unit, qv_partition_buffers *b) {
    uint32_t cluster = p->largest[unit];
    if (qv_partition_reserve(b, leaf_bytes(p))) return QV_NO_MEMORY;
    uint8_t *at = b->memory;
    leaf_buffers *leaf = leaf_init(p, &at);
    const uint32_t *members = p->members + p->first[cluster];
    uint32_t n = (uint32_t)(p->first[cluster + 1] - p->first[cluster]);
    return divide(leaf, members, n, p->options.leaf_fanout, qv_mixed(p->options.seed + 1 + cluster), 0);
}
