/* Partitions of rows: leaders, clusters, leaves, and the reservoirs of nearest candidates. See partition.h. */
#include "graph/partition.h"

#include <string.h>

#include "codec/lanes.h"

#define LEAF_TARGET 256 /* rows of a leaf on average, before small leaves are put together */
#define LEAF_MIN 64
#define LEAF_MAX 512
#define SPLITS_MAX 4 /* divisions of a leaf before it is cut: equal rows cannot be told apart */
#define BLOCK 96     /* rows that are assigned to leaders at a time */

static uint64_t mixed(uint64_t x) { /* splitmix64 */
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

/* A random element of part i of n_parts equal parts of 0..n - 1. */
static uint32_t sampled(uint64_t seed, uint32_t i, uint32_t n_parts, uint32_t n) {
    uint64_t first = (uint64_t)i * n / n_parts, stop = (uint64_t)(i + 1) * n / n_parts;
    return (uint32_t)(first + mixed(seed * 0x9E3779B97F4A7C15ull + i) % (stop - first));
}

static int reserve(qv_partition_buffers *b, size_t bytes) {
    if (b->bytes >= bytes) return QV_OK;
    free(b->memory);
    b->bytes = 0;
    b->memory = aligned_alloc(64, qv_round_up(bytes + bytes / 4, 64));
    if (!b->memory) return QV_NO_MEMORY;
    b->bytes = bytes + bytes / 4;
    return QV_OK;
}

static void *take(uint8_t **at, size_t bytes) {
    uint8_t *taken = *at;
    *at += qv_round_up(bytes, 64);
    return taken;
}

static int dims(const qv_partition *p) { return p->graph->codec->data_size; }

/* Addresses of the codes of n places. */
static int addresses(const qv_partition *p, const uint32_t *places, int n, const uint8_t **codes) {
    for (int i = 0; i < n; i++)
        if (!(codes[i] = qv_row(p->graph->codes, p->rows[places[i]]))) return QV_DAMAGED;
    return QV_OK;
}

int qv_partition_init(qv_partition *p, const qv_graph *graph, uint32_t *rows, uint32_t n,
                      const qv_partition_options *options) {
    *p = (qv_partition){.graph = graph, .rows = rows, .n = n, .options = *options};
    p->kernels = qv_tile_kernels_of(graph->codec->simd);
    uint32_t n_leaders = options->n_leaders;
    p->n_parts = (n + QV_PRUNE_ROWS - 1) / QV_PRUNE_ROWS;
    p->owner = malloc((size_t)n * (size_t)options->fanout * sizeof *p->owner);
    p->leader_memory = aligned_alloc(64, qv_round_up(qv_tile_set_bytes(p->kernels, (int)n_leaders, dims(p)), 64));
    p->first = calloc((size_t)n_leaders + 1, sizeof *p->first);
    p->reservoirs = calloc(p->n_parts, sizeof *p->reservoirs);
    p->lists = calloc(p->n_parts, sizeof *p->lists);
    const uint8_t **codes = malloc(n_leaders * sizeof *codes);
    uint32_t *places = malloc(n_leaders * sizeof *places);
    int status = QV_NO_MEMORY;
    if (p->owner && p->leader_memory && p->first && p->reservoirs && p->lists && codes && places) {
        for (uint32_t i = 0; i < n_leaders; i++) places[i] = sampled(options->seed, i, n_leaders, n);
        status = addresses(p, places, (int)n_leaders, codes);
    }
    if (!status) {
        qv_tile_set_init(&p->leaders, p->kernels, (int)n_leaders, dims(p), p->leader_memory);
        qv_tile_set_load(&p->leaders, p->kernels, graph->codec, codes, (int)n_leaders, 1);
    }
    free(codes);
    free(places);
    return status;
}

static void free_parts(void *parts, uint32_t n) {
    void **each = parts;
    for (uint32_t i = 0; each && i < n; i++) free(each[i]);
    free(parts);
}

void qv_partition_free(qv_partition *p) {
    free_parts(p->reservoirs, p->n_parts);
    free_parts(p->lists, p->n_parts);
    free(p->owner);
    free(p->leader_memory);
    free(p->first);
    free(p->members);
    free(p->largest);
    free(p->reverse_first);
    free(p->reverse);
}

/* Buffers of `assign_places`, for blocks of at most BLOCK places and n_leaders leaders. */
static size_t assign_bytes(const qv_partition *p, int n_leaders) {
    return qv_tile_set_bytes(p->kernels, BLOCK, dims(p)) +
           (size_t)QV_TILE_ROWS * (size_t)qv_panels(n_leaders) * QV_TILE_COLUMNS * sizeof(int32_t) +
           BLOCK * sizeof(void *) + 3 * 64;
}

/* The `fanout` nearest leaders of each of n places, nearest first; owner[n][fanout]. */
static int assign_places(const qv_partition *p, const qv_tile_set *leaders, const uint32_t *places, uint32_t n,
                         int fanout, uint32_t *owner, uint8_t *memory) {
    int n_panels = qv_panels(leaders->n);
    size_t pitch = (size_t)n_panels * QV_TILE_COLUMNS;
    qv_tile_set block;
    const uint8_t **codes = take(&memory, BLOCK * sizeof *codes);
    int32_t *keys = take(&memory, QV_TILE_ROWS * pitch * sizeof *keys);
    qv_tile_set_init(&block, p->kernels, BLOCK, dims(p), memory);
    for (uint32_t start = 0; start < n; start += BLOCK) {
        int count = n - start < BLOCK ? (int)(n - start) : BLOCK;
        if (addresses(p, places + start, count, codes)) return QV_DAMAGED;
        qv_tile_set_load(&block, p->kernels, p->graph->codec, codes, count, 0);
        for (int i = 0; i < count; i += QV_TILE_ROWS) {
            p->kernels->keys(&block, i, leaders, 0, n_panels, keys, pitch);
            for (int r = 0; r < QV_TILE_ROWS && i + r < count; r++) {
                qv_near near[QV_NEAREST_MAX];
                uint32_t *own = owner + (size_t)(start + (uint32_t)(i + r)) * (size_t)fanout;
                int found = p->kernels->nearest(keys + (size_t)r * pitch, n_panels, fanout, near);
                for (int f = 0; f < fanout; f++) own[f] = f < found ? near[f].column : QV_NO_ROW;
            }
        }
    }
    return QV_OK;
}

int qv_partition_assign(qv_partition *p, uint32_t unit, qv_partition_buffers *b) {
    uint32_t places[QV_ASSIGN_ROWS], first = unit * QV_ASSIGN_ROWS;
    uint32_t n = p->n - first < QV_ASSIGN_ROWS ? p->n - first : QV_ASSIGN_ROWS;
    if (reserve(b, assign_bytes(p, p->leaders.n))) return QV_NO_MEMORY;
    for (uint32_t i = 0; i < n; i++) places[i] = first + i;
    size_t fanout = (size_t)p->options.fanout;
    return assign_places(p, &p->leaders, places, n, p->options.fanout, p->owner + first * fanout, b->memory);
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

/* Put sums of counts[0..n - 1] into counts, moved by one place: counts[i + 1] = number of elements before group i + 1. */
static void accumulate(uint64_t *counts, size_t n) {
    for (size_t i = 0; i < n; i++) counts[i + 1] += counts[i];
}

/* Rows get places in the order of their nearest leader, so that candidates are near in memory. */
static int number_by_cluster(qv_partition *p) {
    size_t n = p->n, fanout = (size_t)p->options.fanout, n_leaders = p->options.n_leaders;
    uint64_t *next = calloc(n_leaders + 1, sizeof *next);
    uint32_t *rows = malloc(n * sizeof *rows), *owner = malloc(n * fanout * sizeof *owner);
    int status = next && rows && owner ? QV_OK : QV_NO_MEMORY;
    if (!status) {
        for (size_t i = 0; i < n; i++)
            if (p->owner[i * fanout] + 1 < n_leaders) next[p->owner[i * fanout] + 1]++;
        accumulate(next, n_leaders - 1);
        for (size_t i = 0; i < n; i++) {
            size_t place = next[p->owner[i * fanout]]++;
            rows[place] = p->rows[i];
            memcpy(owner + place * fanout, p->owner + i * fanout, fanout * sizeof *owner);
        }
        memcpy(p->rows, rows, n * sizeof *rows);
        memcpy(p->owner, owner, n * fanout * sizeof *owner);
    }
    free(next);
    free(rows);
    free(owner);
    return status;
}

int qv_partition_group(qv_partition *p) {
    size_t n = p->n, fanout = (size_t)p->options.fanout, n_leaders = p->options.n_leaders;
    if (number_by_cluster(p)) return QV_NO_MEMORY;
    for (size_t i = 0; i < n * fanout; i++)
        if (p->owner[i] < n_leaders) p->first[p->owner[i] + 1]++;
    accumulate(p->first, n_leaders);
    uint64_t *next = malloc(n_leaders * sizeof *next);
    cluster_size *sizes = malloc(n_leaders * sizeof *sizes);
    p->members = malloc((p->first[n_leaders] + 1) * sizeof *p->members);
    p->largest = malloc(n_leaders * sizeof *p->largest);
    int status = next && sizes && p->members && p->largest ? QV_OK : QV_NO_MEMORY;
    if (!status) {
        memcpy(next, p->first, n_leaders * sizeof *next);
        for (size_t i = 0; i < n * fanout; i++)
            if (p->owner[i] < n_leaders) p->members[next[p->owner[i]]++] = (uint32_t)(i / fanout);
        for (uint32_t c = 0; c < n_leaders; c++) sizes[c] = (cluster_size){p->first[c + 1] - p->first[c], c};
        qsort(sizes, n_leaders, sizeof *sizes, by_size);
        for (uint32_t c = 0; c < n_leaders; c++) p->largest[c] = sizes[c].cluster;
        free(p->owner);
        p->owner = NULL;
    }
    free(next);
    free(sizes);
    return status;
}

/* --- reservoirs --- */

/* Keep the nearest QV_CANDIDATES, ties by place. */
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

static void lock(qv_reservoir *r) {
    while (__atomic_exchange_n(&r->lock, 1, __ATOMIC_ACQUIRE)) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

static void unlock(qv_reservoir *r) { __atomic_store_n(&r->lock, 0, __ATOMIC_RELEASE); }

/* Reservoirs of a part, allocated when the first candidate arrives. */
static qv_reservoir *reservoirs_of(qv_partition *p, uint32_t part) {
    qv_reservoir *first = __atomic_load_n(&p->reservoirs[part], __ATOMIC_ACQUIRE);
    if (first) return first;
    qv_reservoir *made = malloc(QV_PRUNE_ROWS * sizeof *made);
    if (!made) return NULL;
    memset(made, 0xFF, QV_PRUNE_ROWS * sizeof *made);
    for (int i = 0; i < QV_PRUNE_ROWS; i++) {
        made[i].bound = QV_NO_KEY - 1;
        made[i].n = made[i].lock = 0;
        for (int j = 0; j < QV_RESERVOIR; j++) made[i].key[j] = QV_NO_KEY;
    }
    if (__atomic_compare_exchange_n(&p->reservoirs[part], &first, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return made;
    free(made);
    return first;
}

/* --- leaves --- */

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
    return sizeof(leaf_buffers) + qv_tile_set_bytes(p->kernels, LEAF_MAX, dims(p)) + LEAF_MAX * sizeof(void *) +
           LEAF_KEY_ROWS * LEAF_PITCH * sizeof(int32_t) + qv_leaf_minima(LEAF_MAX) * sizeof(int32_t) + 2 * near +
           (LEAF_MAX + 1) * sizeof(uint32_t) + 8 * 64;
}

static leaf_buffers *leaf_init(qv_partition *p, uint8_t **at) {
    size_t near = (size_t)LEAF_MAX * QV_NEAREST_MAX * sizeof(qv_near);
    leaf_buffers *leaf = take(at, sizeof *leaf);
    leaf->p = p;
    leaf->codes = take(at, LEAF_MAX * sizeof *leaf->codes);
    leaf->keys = take(at, LEAF_KEY_ROWS * LEAF_PITCH * sizeof(int32_t));
    leaf->minima = take(at, qv_leaf_minima(LEAF_MAX) * sizeof(int32_t));
    leaf->near = take(at, near);
    leaf->back = take(at, near);
    leaf->back_first = take(at, (LEAF_MAX + 1) * sizeof(uint32_t));
    size_t bytes = qv_tile_set_bytes(p->kernels, LEAF_MAX, dims(p));
    qv_tile_set_init(&leaf->set, p->kernels, LEAF_MAX, dims(p), take(at, bytes));
    return leaf;
}

static int is_near(const leaf_buffers *leaf, int k, uint32_t of, uint32_t other) {
    for (int i = 0; i < leaf->found[of]; i++)
        if (leaf->near[of * (uint32_t)k + (uint32_t)i].column == other) return 1;
    return 0;
}

/* Group the ways back: of each edge i -> j of `near`, j -> i unless it is there. */
static void turn_back(leaf_buffers *leaf, int m, int k) {
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

typedef void (*give_fn)(qv_reservoir *r, const uint32_t *places, const qv_near *near, int n);

static give_fn give_of(int simd) {
#if defined(__x86_64__)
    if (simd == QV_AVX512) return give_avx512;
    if (simd == QV_AVX2) return give_avx2;
#endif
    (void)simd;
    return give_baseline;
}

static void cut_of(int simd, qv_reservoir *r) {
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

/* Score all pairs of m places, ascending, and give the nearest to the reservoirs. */
static int join_leaf(leaf_buffers *leaf, const uint32_t *places, int m) {
    qv_partition *p = leaf->p;
    int k = p->options.nearest, n_panels = qv_panels(m);
    if (m < 2) return QV_OK;
    for (int i = 0; i < m; i++) {
        qv_reservoir *all = reservoirs_of(p, places[i] / QV_PRUNE_ROWS);
        if (!all) return QV_NO_MEMORY;
        qv_prefetch_row(&all[places[i] % QV_PRUNE_ROWS], sizeof *all);
    }
    if (addresses(p, places, m, leaf->codes)) return QV_DAMAGED;
    qv_tile_set_load(&leaf->set, p->kernels, p->graph->codec, leaf->codes, m, 1);
    for (int i = 0; i < m; i += QV_TILE_ROWS) {
        int first = i / QV_TILE_COLUMNS;
        int32_t *keys = leaf->keys + (size_t)i * LEAF_PITCH;
        p->kernels->keys(&leaf->set, i, &leaf->set, first, n_panels, keys, LEAF_PITCH);
        for (int r = 0; r < QV_TILE_ROWS && i + r < m; r++)
            for (int j = first * QV_TILE_COLUMNS; j <= i + r; j++) keys[(size_t)r * LEAF_PITCH + (size_t)j] = QV_NO_KEY;
    }
    p->kernels->leaf(leaf->keys, LEAF_PITCH, m, k, leaf->minima, leaf->near, leaf->found);
    turn_back(leaf, m, k);
    give_fn give = give_of(p->graph->codec->simd);
    for (int i = 0; i < m; i++) {
        qv_reservoir *r = p->reservoirs[places[i] / QV_PRUNE_ROWS] + places[i] % QV_PRUNE_ROWS;
        const uint32_t *first = leaf->back_first + i;
        lock(r);
        give(r, places, leaf->near + (size_t)i * (size_t)k, leaf->found[i]);
        give(r, places, leaf->back + first[0], (int)(first[1] - first[0]));
        unlock(r);
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

/* Divide places into lists by their nearest leaders among them, and join those: small ones together, large ones divided
 * again. The memory of a division is freed when it ends. */
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
    size_t set_bytes = qv_tile_set_bytes(p->kernels, (int)n_leaders, dims(p)), edges = (size_t)n * (size_t)fanout;
    size_t bytes = set_bytes + n_leaders * sizeof(void *) + 2 * edges * sizeof(uint32_t) +
                   (n_leaders + 1) * sizeof(uint32_t) + LEAF_MAX * sizeof(uint32_t) + assign_bytes(p, (int)n_leaders) +
                   7 * 64;
    uint8_t *memory = aligned_alloc(64, qv_round_up(bytes, 64)), *at = memory;
    if (!memory) return QV_NO_MEMORY;
    qv_tile_set leaders;
    qv_tile_set_init(&leaders, p->kernels, (int)n_leaders, dims(p), take(&at, set_bytes));
    const uint8_t **codes = take(&at, n_leaders * sizeof *codes);
    uint32_t *owner = take(&at, edges * sizeof *owner), *lists = take(&at, edges * sizeof *lists);
    uint32_t *first = take(&at, (n_leaders + 1) * sizeof *first), *merged = take(&at, LEAF_MAX * sizeof *merged);
    for (uint32_t i = 0; i < n_leaders; i++) lists[i] = places[sampled(seed, i, n_leaders, n)];
    int status = addresses(p, lists, (int)n_leaders, codes);
    if (!status) {
        qv_tile_set_load(&leaders, p->kernels, p->graph->codec, codes, (int)n_leaders, 1);
        status = assign_places(p, &leaders, places, n, fanout, owner, at);
    }
    if (!status) {
        memset(first, 0, (n_leaders + 1) * sizeof *first);
        for (size_t i = 0; i < edges; i++)
            if (owner[i] < n_leaders) first[owner[i] + 1]++;
        for (uint32_t i = 0; i < n_leaders; i++) first[i + 1] += first[i];
        for (size_t i = 0; i < edges; i++)
            if (owner[i] < n_leaders) lists[first[owner[i]]++] = places[i / (size_t)fanout];
        for (uint32_t i = n_leaders; i > 0; i--) first[i] = first[i - 1];
        first[0] = 0;
        int waiting = 0;
        for (uint32_t i = 0; i < n_leaders && !status; i++) {
            uint32_t size = first[i + 1] - first[i];
            if (size >= LEAF_MIN) {
                status = divide(leaf, lists + first[i], size, 1, mixed(seed + i), depth + 1);
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
    free(memory);
    return status;
}

int qv_partition_cluster(qv_partition *p, uint32_t unit, qv_partition_buffers *b) {
    uint32_t cluster = p->largest[unit];
    if (reserve(b, leaf_bytes(p))) return QV_NO_MEMORY;
    uint8_t *at = b->memory;
    leaf_buffers *leaf = leaf_init(p, &at);
    const uint32_t *members = p->members + p->first[cluster];
    uint32_t n = (uint32_t)(p->first[cluster + 1] - p->first[cluster]);
    return divide(leaf, members, n, p->options.leaf_fanout, mixed(p->options.seed + 1 + cluster), 0);
}

/* --- lists --- */

static int prune_place(qv_partition *p, const qv_reservoir *r, uint32_t place, uint32_t *list, qv_scratch *s) {
    const qv_graph *graph = p->graph;
    qv_edge edges[QV_RESERVOIR];
    const uint8_t *code = qv_row(graph->codes, p->rows[place]);
    if (!code) return QV_DAMAGED;
    for (int i = 0; i < r->n; i++) {
        float key;
        memcpy(&key, &r->key[i], sizeof key);
        edges[i] = (qv_edge){p->rows[r->place[i]], key};
        const uint8_t *other = qv_row(graph->codes, edges[i].row);
        if (!other) return QV_DAMAGED;
        qv_prefetch_row(other, (size_t)graph->codec->stride);
    }
    qv_sort_edges(edges, r->n);
    qv_query *query = (qv_query *)s->query;
    qv_prepare_row(graph->codec, code, query);
    qv_duplicates duplicates = qv_duplicates_of(graph->codec, query, code);
    int n = qv_prune(graph, edges, r->n, (int)graph->degree, &duplicates, s);
    if (n < 0) return n;
    qv_write_list(list, graph->degree, edges, n);
    return QV_OK;
}

int qv_partition_prune(qv_partition *p, uint32_t part, qv_partition_buffers *b) {
    uint32_t first = part * QV_PRUNE_ROWS, n = p->n - first < QV_PRUNE_ROWS ? p->n - first : QV_PRUNE_ROWS;
    size_t degree = p->graph->degree;
    uint32_t *lists = malloc(n * degree * sizeof *lists);
    if (!lists) return QV_NO_MEMORY;
    p->lists[part] = lists;
    memset(lists, 0xFF, n * degree * sizeof *lists);
    qv_reservoir *reservoirs = p->reservoirs[part];
    for (uint32_t i = 0; i < n && reservoirs; i++) {
        if (reservoirs[i].n > QV_CANDIDATES) cut_of(p->graph->codec->simd, &reservoirs[i]);
        int status = prune_place(p, &reservoirs[i], first + i, lists + i * degree, b->scratch);
        if (status) return status;
    }
    free(reservoirs);
    p->reservoirs[part] = NULL;
    return QV_OK;
}
