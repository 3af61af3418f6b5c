/* Writes inverted lists: stores centroids, appends and removes entries. */
#include "ivf/lists.h"

#include <float.h>
#include <stdlib.h>

#include "codec/lanes.h"

#define NEAR_LISTS 32    /* candidates for a vector's second list */
#define LEAST_LOSS 1e-12 /* of an entry, relative to the squared length of its centroid: no weight is infinite */
#define SPREAD 0.5f      /* factor of the mean |residual|^2 that ranks lists best (docs/adr/0006) */

static qv_list *list_of(qv_lists *lists, uint32_t list) { return (qv_list *)qv_row_mut(lists->lists, list); }

static qv_list_block *block_of(qv_lists *lists, uint32_t block) {
    if (block >= lists->n_blocks) return NULL;
    return (qv_list_block *)qv_row_mut(lists->blocks, block);
}

static const float *centroid_of(qv_lists *lists, uint32_t list) {
    return (const float *)qv_row(lists->centroids, list);
}

static uint32_t block_capacity(const qv_lists *lists) {
    return lists->blocks->n_blocks * lists->blocks->rows_per_block;
}

static void clear_place(qv_list_block *block, int place) {
    block->rows[place] = 0xFFFFFFFFu;
    block->add[place] = INFINITY;
    block->rescale[place] = block->error[place] = 0;
}

static void clear_block(qv_list_block *block, int dims, uint32_t list, uint32_t next) {
    memset(block, 0, sizeof *block + qv_fs_bytes(dims));
    for (int i = 0; i < QV_FS_VECTORS; i++) clear_place(block, i);
    block->list = list;
    block->next = next;
}

/* In the list of centroids, factors are those of squared L2 for every metric. loss: of the vector, which is not counted
 * under inner product, because an entry's error must then tell the length of its residual (decode_entry). */
static void put_entry(const qv_lists *lists, qv_list_block *block, int place, uint32_t row, const float *residual,
                      const float *center, float loss) {
    int metric = lists->metric == QV_IP && block->list != lists->n_lists ? QV_IP : QV_L2;
    qv_fs_factors factors = qv_fs_factors_of(metric, residual, center, lists->dims, lists->dims);
    if (metric == QV_L2) qv_fs_widen(&factors, loss, lists->dims);
    qv_fs_put(residual, lists->dims, place, (uint8_t *)(block + 1));
    block->rows[place] = row;
    block->add[place] = factors.add;
    block->rescale[place] = factors.rescale;
    block->error[place] = factors.error;
    for (int i = 0; factors.rescale == 0 && i < lists->dims; i++) {
        if (residual[i] != 0) block->error[place] = FLT_MAX; /* outside the range of floats: no bound is known */
    }
}

/* --- centroids --- */

static int begin_list(qv_lists *lists, uint32_t list, const float *centroid, float spread) {
    qv_list *entry = list_of(lists, list);
    if (!entry) return QV_DAMAGED;
    *entry = (qv_list){.head = QV_NO_BLOCK, .spread = SPREAD * spread};
    if (!centroid) return QV_OK;
    entry->norm2 = (float)qv_norm2(centroid, lists->dims);
    uint8_t *row = qv_row_mut(lists->centroids, list);
    if (!row) return QV_DAMAGED;
    qv_encode(&lists->l2, centroid, 1, row);
    return QV_OK;
}

/* The codes of centroids: residuals of the origin, which is the mean; the spread is a part of their keys. */
static int fill_centroids(qv_lists *lists, const float *centroids, const float *spreads, const float *origin) {
    for (uint32_t list = 0; list < lists->n_lists; list++) {
        const float *centroid = centroids + (size_t)list * (size_t)lists->dims;
        qv_list_block *block = block_of(lists, list / QV_FS_VECTORS);
        int place = (int)(list % QV_FS_VECTORS);
        if (!block || begin_list(lists, list, centroid, spreads[list])) return QV_DAMAGED;
        put_entry(lists, block, place, list, centroid, origin, 0);
        block->add[place] += SPREAD * spreads[list];
    }
    return begin_list(lists, lists->n_lists, NULL, 0);
}

int qv_lists_begin(qv_lists *lists, const float *centroids, const float *spreads) {
    uint32_t n = lists->n_lists, first = (n + QV_FS_VECTORS - 1) / QV_FS_VECTORS;
    if (first > block_capacity(lists)) return QV_DAMAGED;
    lists->n_blocks = first;
    lists->n_free = 0;
    lists->free_block = QV_NO_BLOCK;
    for (uint32_t i = 0; i < first; i++) {
        qv_list_block *block = block_of(lists, i);
        if (!block) return QV_DAMAGED;
        clear_block(block, lists->dims, n, i + 1 < first ? i + 1 : QV_NO_BLOCK);
    }
    float *origin = calloc((size_t)lists->dims, sizeof *origin);
    if (!origin) return QV_NO_MEMORY;
    int status = fill_centroids(lists, centroids, spreads, origin);
    free(origin);
    return status;
}

/* --- which lists --- */

static double dot(const float *x, const float *y, int dims) {
    double sum = 0;
    for (int i = 0; i < dims; i += QV_BLOCK) sum += qv_dot64(x + i, y + i);
    return sum;
}

/* Of the near lists but the first, the one with the least |r'|^2 + <r', r>^2 / |r|^2, where r = y - first centroid. */
static int spill_list(qv_coarse_query *coarse, qv_lists *lists, float *residual, uint32_t *owner, qv_scratch *s) {
    int n = coarse->near.size - 1, dims = lists->dims;
    const float *first = centroid_of(lists, qv_candidate_row(coarse->near.slots[0]));
    double norm2 = 0;
    for (int i = 0; i < dims; i++) residual[i] = coarse->y[i] - first[i];
    norm2 = dot(residual, residual, dims);
    double own = dot(coarse->y, residual, dims), best = INFINITY;
    qv_prepare(&lists->dot, residual, coarse->query);
    for (int i = 0; i < n; i++) {
        s->address[0][i] = (const uint8_t *)centroid_of(lists, qv_candidate_row(coarse->near.slots[i + 1]));
        if (!s->address[0][i]) return QV_DAMAGED;
    }
    lists->dot.score(&lists->dot, coarse->query, s->address[0], n, s->key);
    for (int i = 0; i < n; i++) {
        double parallel = own + s->key[i], loss = qv_candidate_key(coarse->near.slots[i + 1]);
        if (norm2 > 0) loss += parallel * parallel / norm2;
        if (!(loss < best)) continue;
        best = loss;
        *owner = qv_candidate_row(coarse->near.slots[i + 1]);
    }
    return QV_OK;
}

int qv_lists_assign(qv_lists *lists, const float *y, int copies, uint32_t *owners, float *distance, qv_scratch *s) {
    qv_coarse_query coarse;
    int near = copies > 1 ? NEAR_LISTS : 1;
    if ((uint32_t)near > lists->n_lists) near = (int)lists->n_lists;
    if (qv_coarse_query_init(&coarse, lists, near, s)) return QV_NO_MEMORY;
    memcpy(coarse.y, y, (size_t)lists->dims * sizeof *y);
    qv_coarse_query_prepare(&coarse, lists);
    if (qv_coarse_search(&coarse, lists, near, QV_L2, 0, s)) return QV_DAMAGED;
    owners[0] = qv_candidate_row(coarse.near.slots[0]);
    *distance = qv_candidate_key(coarse.near.slots[0]);
    return copies > 1 && near > 1 ? spill_list(&coarse, lists, coarse.residual, owners + 1, s) : QV_OK;
}

/* --- entries --- */

static qv_list_block *allocate(qv_lists *lists, uint32_t *number) {
    if (lists->n_free == 0) {
        if (lists->n_blocks >= block_capacity(lists)) return NULL;
        *number = lists->n_blocks++;
        return block_of(lists, *number);
    }
    *number = lists->free_block;
    qv_list_block *block = block_of(lists, *number);
    if (!block) return NULL;
    lists->free_block = block->next;
    lists->n_free--;
    return block;
}

/* Prepend an empty block to a list. */
static int new_head(qv_lists *lists, uint32_t list, qv_list *entry) {
    uint32_t number;
    qv_list_block *block = allocate(lists, &number);
    if (!block) return QV_DAMAGED;
    clear_block(block, lists->dims, list, entry->head);
    entry->head = number;
    return QV_OK;
}

static int add_entry(qv_lists *lists, uint32_t list, uint32_t row, const float *y, float loss, float *residual,
                     int copy) {
    qv_list *entry = list_of(lists, list);
    const float *center = centroid_of(lists, list);
    uint32_t *slots = (uint32_t *)qv_row_mut(lists->slots, row);
    if (!entry || !center || !slots) return QV_DAMAGED;
    int place = (int)(entry->n % QV_FS_VECTORS);
    if (place == 0 && new_head(lists, list, entry)) return QV_DAMAGED;
    qv_list_block *block = block_of(lists, entry->head);
    if (!block) return QV_DAMAGED;
    for (int i = 0; i < lists->dims; i++) residual[i] = y[i] - center[i];
    put_entry(lists, block, place, row, residual, center, loss);
    slots[copy] = entry->head * QV_FS_VECTORS + (uint32_t)place;
    entry->n++;
    return QV_OK;
}

int qv_lists_append(qv_lists *lists, uint32_t list, const uint32_t *rows, const float *y, const float *losses,
                    uint32_t n, const uint8_t *copies) {
    float *residual = malloc((size_t)lists->dims * sizeof *residual);
    int status = residual ? QV_OK : QV_NO_MEMORY;
    for (uint32_t i = 0; i < n && !status; i++)
        status = add_entry(lists, list, rows[i], y + (size_t)i * (size_t)lists->dims, losses[i], residual, copies[i]);
    free(residual);
    return status;
}

/* The entry in a slot, and its list's; 0 where there is none. */
static int find_entry(qv_lists *lists, uint32_t slot, qv_list_block **block, qv_list **entry) {
    *block = block_of(lists, slot / QV_FS_VECTORS);
    if (!*block || (*block)->list >= lists->n_lists) return 0;
    *entry = list_of(lists, (*block)->list);
    return *entry && (*entry)->n > 0 && (*entry)->head < lists->n_blocks;
}

/* Move an entry to another position in its list and update the slot of its row. */
static int move_entry(qv_lists *lists, const qv_list_block *from, uint32_t old, qv_list_block *to, uint32_t slot) {
    int source = (int)(old % QV_FS_VECTORS), target = (int)(slot % QV_FS_VECTORS);
    uint32_t row = from->rows[source];
    uint32_t *slots = row < lists->n ? (uint32_t *)qv_row_mut(lists->slots, row) : NULL;
    if (!slots) return QV_DAMAGED;
    for (int copy = 0; copy < lists->copies; copy++) {
        if (slots[copy] == old) slots[copy] = slot;
    }
    to->rows[target] = row;
    to->add[target] = from->add[source];
    to->rescale[target] = from->rescale[source];
    to->error[target] = from->error[source];
    qv_fs_copy((const uint8_t *)(from + 1), source, (uint8_t *)(to + 1), target, lists->dims);
    return QV_OK;
}

static void free_head(qv_lists *lists, qv_list *entry, qv_list_block *head) {
    uint32_t freed = entry->head;
    entry->head = head->next;
    clear_block(head, lists->dims, QV_NO_BLOCK, lists->free_block);
    lists->free_block = freed;
    lists->n_free++;
}

int qv_lists_remove(qv_lists *lists, uint32_t slot) {
    qv_list_block *block;
    qv_list *entry;
    if (!find_entry(lists, slot, &block, &entry)) return QV_DAMAGED;
    qv_list_block *head = block_of(lists, entry->head);
    if (!head) return QV_DAMAGED;
    uint32_t last = entry->head * QV_FS_VECTORS + (entry->n - 1) % QV_FS_VECTORS;
    if (last != slot && move_entry(lists, head, last, block, slot)) return QV_DAMAGED;
    clear_place(head, (int)(last % QV_FS_VECTORS));
    qv_fs_clear((uint8_t *)(head + 1), (int)(last % QV_FS_VECTORS), lists->dims);
    if (--entry->n % QV_FS_VECTORS == 0) free_head(lists, entry, head);
    return QV_OK;
}

int qv_lists_move(qv_lists *lists, uint32_t from, uint32_t to) {
    uint32_t *source = (uint32_t *)qv_row_mut(lists->slots, from), *target = (uint32_t *)qv_row_mut(lists->slots, to);
    if (!source || !target) return QV_DAMAGED;
    for (int copy = 0; copy < lists->copies; copy++) {
        uint32_t slot = source[copy];
        if (slot == QV_NO_BLOCK) continue;
        qv_list_block *block = block_of(lists, slot / QV_FS_VECTORS);
        if (!block || block->rows[slot % QV_FS_VECTORS] != from) return QV_DAMAGED;
        block->rows[slot % QV_FS_VECTORS] = to;
        target[copy] = slot;
        source[copy] = QV_NO_BLOCK;
    }
    return QV_OK;
}

/* Add weight * (centroid + signs) to y. Returns the weight, or a negative status. */
static double decode_entry(qv_lists *lists, uint32_t slot, float *residual, double *y) {
    uint32_t number = slot / QV_FS_VECTORS;
    int place = (int)(slot % QV_FS_VECTORS), dims = lists->dims;
    if (number >= lists->n_blocks) return QV_DAMAGED;
    const qv_list_block *block = (const qv_list_block *)qv_row(lists->blocks, number);
    if (!block || block->list >= lists->n_lists) return QV_DAMAGED;
    const float *center = centroid_of(lists, block->list);
    if (!center) return QV_DAMAGED;
    qv_fs_factors factors = {block->add[place], block->rescale[place], block->error[place]};
    memset(residual, 0, (size_t)dims * sizeof *residual);
    qv_fs_add((const uint8_t *)(block + 1), dims, place, 0.5f, residual);
    double loss, along = dot(center, residual, dims);
    float amplitude = qv_fs_amplitude(lists->metric == QV_IP ? QV_IP : QV_L2, &factors, along, dims, &loss);
    for (int i = 0; i < dims; i++) residual[i] = center[i] + 2 * amplitude * residual[i];
    double weight = 1 / (loss + LEAST_LOSS * dot(center, center, dims) + FLT_MIN);
    if (!(weight > FLT_MIN)) weight = FLT_MIN; /* nothing is known but the list */
    for (int i = 0; i < dims; i++) y[i] += weight * residual[i];
    return weight;
}

int qv_lists_decode(qv_lists *lists, const uint32_t *slots, float *y, float *loss) {
    double *sum = calloc(2 * (size_t)lists->dims, sizeof *sum);
    if (!sum) return QV_NO_MEMORY;
    double total = 0, weight = 0;
    for (int copy = 0; copy < lists->copies && weight >= 0; copy++) {
        if (slots[copy] == QV_NO_BLOCK) continue;
        weight = decode_entry(lists, slots[copy], (float *)(sum + lists->dims), sum);
        total += weight;
    }
    for (int i = 0; i < lists->dims && total > 0; i++) y[i] = (float)(sum[i] / total);
    *loss = total > 1 / (double)FLT_MAX ? (float)(1 / total) : FLT_MAX;
    free(sum);
    return weight < 0 ? (int)weight : total > 0;
}

int qv_lists_entry_is(qv_lists *lists, uint32_t slot, uint32_t row, const float *y) {
    size_t size = sizeof(qv_list_block) + qv_fs_bytes(lists->dims);
    if (slot / QV_FS_VECTORS >= lists->n_blocks) return 0;
    const qv_list_block *block = (const qv_list_block *)qv_row(lists->blocks, slot / QV_FS_VECTORS);
    if (!block) return QV_DAMAGED;
    if (block->list >= lists->n_lists) return 0;
    const float *center = centroid_of(lists, block->list);
    if (!center) return QV_DAMAGED;
    qv_list_block *expected = malloc(size);
    float *residual = malloc((size_t)lists->dims * sizeof *residual);
    int same = QV_NO_MEMORY;
    if (expected && residual) {
        memcpy(expected, block, size);
        for (int i = 0; i < lists->dims; i++) residual[i] = y[i] - center[i];
        put_entry(lists, expected, (int)(slot % QV_FS_VECTORS), row, residual, center, 0);
        same = memcmp(expected, block, size) == 0;
    }
    free(expected);
    free(residual);
    return same;
}
