/* Build of a graph from partitions: pruning, reverse edges, duplicates and the spanning tree. See partition.h. */
#include <string.h>

#include "graph/partition.h"
#include "graph/reservoir.h"

void qv_sort_edges(qv_edge *edges, int n) {
    uint64_t order[QV_PRUNE_MAX];
    for (int i = 0; i < n; i++) order[i] = qv_candidate(edges[i].key, edges[i].row);
    for (int i = 1; i < n; i++) {
        uint64_t moved = order[i];
        int j = i;
        for (; j > 0 && order[j - 1] > moved; j--) order[j] = order[j - 1];
        order[j] = moved;
    }
    for (int i = 0; i < n; i++) edges[i] = (qv_edge){qv_candidate_row(order[i]), qv_candidate_key(order[i])};
}

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

/* Memory of the lists of a part. In `spill`, they follow the reservoirs of the part. */
static uint32_t *make_lists(const qv_partition *p, uint32_t part) {
    if (part < p->n_in_memory) return malloc(QV_PRUNE_ROWS * p->graph->degree * sizeof(uint32_t));
    uint8_t *reservoirs = p->spill + (part - p->n_in_memory) * qv_part_bytes(p);
    return (uint32_t *)(reservoirs + QV_PRUNE_ROWS * sizeof(qv_reservoir));
}

int qv_partition_prune(qv_partition *p, uint32_t part, qv_partition_buffers *b) {
    uint32_t first = part * QV_PRUNE_ROWS, n = p->n - first < QV_PRUNE_ROWS ? p->n - first : QV_PRUNE_ROWS;
    size_t degree = p->graph->degree;
    uint32_t *lists = p->lists[part] = make_lists(p, part);
    if (!lists) return QV_NO_MEMORY;
    memset(lists, 0xFF, n * degree * sizeof *lists);
    qv_reservoir *reservoirs = p->reservoirs[part];
    for (uint32_t i = 0; i < n && reservoirs; i++) {
        if (reservoirs[i].n > QV_CANDIDATES) qv_cut(p->graph->codec->simd, &reservoirs[i]);
        int status = prune_place(p, &reservoirs[i], first + i, lists + i * degree, b->scratch);
        if (status) return status;
    }
    if (part < p->n_in_memory) free(reservoirs);
    p->reservoirs[part] = NULL;
    return QV_OK;
}

static uint32_t *list_of(const qv_partition *p, uint32_t place) {
    return p->lists[place / QV_PRUNE_ROWS] + (size_t)(place % QV_PRUNE_ROWS) * p->graph->degree;
}

int qv_partition_reverse(qv_partition *p) {
    uint32_t degree = p->graph->degree;
    free(p->members);
    p->members = NULL;
    uint32_t *place_of = malloc((size_t)p->graph->n * sizeof *place_of);
    uint64_t *first = p->reverse_first = calloc((size_t)p->n + 2, sizeof *first);
    if (!place_of || !first) {
        free(place_of);
        return QV_NO_MEMORY;
    }
    for (uint32_t i = 0; i < p->n; i++) place_of[p->rows[i]] = i;
    for (uint32_t i = 0; i < p->n; i++) {
        const uint32_t *list = list_of(p, i);
        for (uint32_t j = 0; j < degree && list[j] != QV_NO_ROW; j++) first[place_of[list[j]] + 2]++;
    }
    for (uint32_t i = 0; i < p->n; i++) first[i + 2] += first[i + 1];
    p->reverse = malloc((size_t)(first[p->n + 1] + 1) * sizeof *p->reverse);
    for (uint32_t i = 0; p->reverse && i < p->n;
         i++) { /* first[t + 1] starts where the edges to t begin, and ends where they end */
        const uint32_t *list = list_of(p, i);
        for (uint32_t j = 0; j < degree && list[j] != QV_NO_ROW; j++)
            p->reverse[first[place_of[list[j]] + 1]++] = p->rows[i];
    }
    free(place_of);
    return p->reverse ? QV_OK : QV_NO_MEMORY;
}

/* Score edges against the query in s->query. */
static int score_edges(const qv_graph *graph, qv_edge *edges, int n, qv_scratch *s) {
    for (int i = 0; i < n; i++) {
        const uint8_t *code = qv_row(graph->codes, edges[i].row);
        if (!code) return QV_DAMAGED;
        qv_prefetch_row(code, (size_t)graph->codec->stride);
    }
    for (int i = 0; i < n; i += QV_HOP_MAX) {
        int count = n - i < QV_HOP_MAX ? n - i : QV_HOP_MAX;
        for (int j = 0; j < count; j++) s->address[0][j] = qv_row(graph->codes, edges[i + j].row);
        graph->codec->score(graph->codec, (const qv_query *)s->query, s->address[0], count, s->key);
        for (int j = 0; j < count; j++) edges[i + j].key = s->key[j];
    }
    return QV_OK;
}

static int contains(const uint32_t *list, int n, uint32_t row) {
    int found = 0;
    for (int i = 0; i < n; i++) found |= list[i] == row;
    return found;
}

/* Store the list of a place with its reverse edges, pruned if there are too many. */
static int write_place(qv_partition *p, uint32_t place, qv_scratch *s) {
    const qv_graph *graph = p->graph;
    int degree = (int)graph->degree, n = 0;
    const uint32_t *own = list_of(p, place);
    uint32_t row = p->rows[place], *list = (uint32_t *)qv_row_mut(graph->adjacency, row);
    const uint8_t *code = qv_row(graph->codes, row);
    if (!list || !code) return QV_DAMAGED;
    qv_note_change(graph, row);
    qv_edge edges[QV_PRUNE_MAX];
    for (int n_own = (int)qv_list_size(own, graph->degree); n < n_own; n++) edges[n].row = own[n];
    int n_own = n, scored = 0;
    for (uint64_t i = p->reverse_first[place]; i < p->reverse_first[place + 1]; i++) {
        if (contains(own, n_own, p->reverse[i])) continue;
        if (n == QV_PRUNE_MAX ||
            (n == degree && scored == 0)) { /* no room for more: score what is there, and keep the nearest half */
            if (scored == 0) qv_prepare_row(graph->codec, code, (qv_query *)s->query);
            if (score_edges(graph, edges + scored, n - scored, s)) return QV_DAMAGED;
            scored = n;
            if (n == QV_PRUNE_MAX) {
                qv_sort_edges(edges, n);
                scored = n = QV_PRUNE_MAX / 2;
            }
        }
        edges[n++].row = p->reverse[i];
    }
    if (scored) {
        if (score_edges(graph, edges + scored, n - scored, s)) return QV_DAMAGED;
        qv_sort_edges(edges, n);
        qv_duplicates duplicates = qv_duplicates_of(graph->codec, (const qv_query *)s->query, code);
        n = qv_prune(graph, edges, n, degree, &duplicates, s);
        if (n < 0) return n;
    }
    qv_write_list(list, graph->degree, edges, n);
    return QV_OK;
}

int qv_partition_write(qv_partition *p, uint32_t part, qv_partition_buffers *b) {
    uint32_t first = part * QV_PRUNE_ROWS, n = p->n - first < QV_PRUNE_ROWS ? p->n - first : QV_PRUNE_ROWS;
    for (uint32_t i = 0; i < n; i++) {
        int status = write_place(p, first + i, b->scratch);
        if (status) return status;
    }
    if (part < p->n_in_memory) free(p->lists[part]);
    p->lists[part] = NULL;
    return QV_OK;
}

int qv_attach_duplicates(const qv_graph *graph, uint32_t row, const uint32_t *duplicates, uint32_t n) {
    uint32_t degree = graph->degree, n_first = n < degree / 8 ? n : degree / 8, fan = degree / 2;
    uint32_t *own = (uint32_t *)qv_row_mut(graph->adjacency, row);
    if (!own) return QV_DAMAGED;
    n_first = n_first ? n_first : 1;
    uint32_t size = qv_list_size(own, degree);
    size = size + n_first > degree ? degree - n_first : size;
    for (uint32_t i = 0; i < n_first; i++) own[size + i] = duplicates[i] | QV_TREE;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *list = (uint32_t *)qv_row_mut(graph->adjacency, duplicates[i]), used = 0;
        if (!list) return QV_DAMAGED;
        qv_note_change(graph, duplicates[i]);
        memset(list, 0xFF, degree * sizeof *list);
        for (uint64_t child = n_first + (uint64_t)i * fan; child < n && used < fan; child++)
            list[used++] = duplicates[child] | QV_TREE;
        list[used++] = row;
        for (uint32_t j = 0; j < size && used < degree - degree / QV_SLACK; j++) list[used++] = own[j] & QV_ROW_MASK;
    }
    return QV_OK;
}

/* Visit the rows of `waiting` that are reachable from queue[head..tail - 1], mark the edges by which they are reached as
 * tree edges, and append them to the queue. At most half of a list are tree edges. Returns the new tail, or an error. */
static int64_t spread(const qv_graph *graph, uint64_t *waiting, uint32_t *queue, int64_t head, int64_t tail) {
    while (head < tail) {
        uint32_t *list = (uint32_t *)qv_row_mut(graph->adjacency, queue[head++]), n_tree = 0;
        if (!list) return QV_DAMAGED;
        uint32_t size = qv_list_size(list, graph->degree);
        for (uint32_t i = 0; i < size; i++) n_tree += (list[i] & QV_TREE) != 0;
        for (uint32_t i = 0; i < size; i++) {
            uint32_t row = list[i] & QV_ROW_MASK, is_tree = (list[i] & QV_TREE) != 0;
            if (!qv_is_set(waiting, row) || (!is_tree && n_tree >= graph->degree / 2)) continue;
            n_tree += !is_tree;
            list[i] |= QV_TREE;
            waiting[row >> 6] &= ~(1ull << (row & 63));
            queue[tail++] = row;
        }
    }
    return tail;
}

int qv_partition_tree(const qv_graph *graph, const uint32_t *rows, uint32_t n, uint64_t *waiting, uint32_t *queue) {
    queue[0] = graph->root;
    waiting[graph->root >> 6] &= ~(1ull << (graph->root & 63));
    int64_t tail = spread(graph, waiting, queue, 0, 1);
    for (uint32_t i = 0; i < n && tail >= 0; i++) {
        if (!qv_is_set(waiting, rows[i])) continue;
        int status = qv_link_tree(graph, rows[i], graph->root, waiting);
        if (status) return status;
        waiting[rows[i] >> 6] &= ~(1ull << (rows[i] & 63));
        queue[0] = rows[i];
        tail = spread(graph, waiting, queue, 0, 1);
    }
    return tail < 0 ? (int)tail : QV_OK;
}

/* --- duplicates --- */

static uint64_t hash_bytes(const uint8_t *bytes, size_t n) { /* n: a multiple of 8 */
    uint64_t lanes[4] = {1, 2, 3, 4}, word;
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int l = 0; l < 4; l++) {
            memcpy(&word, bytes + i + 8 * (size_t)l, sizeof word);
            lanes[l] = (lanes[l] ^ word) * 0x9E3779B97F4A7C15ull;
            lanes[l] ^= lanes[l] >> 29;
        }
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, bytes + i, sizeof word);
        lanes[0] = (lanes[0] ^ word) * 0xBF58476D1CE4E5B9ull;
        lanes[0] ^= lanes[0] >> 29;
    }
    uint64_t hash = lanes[0];
    for (int l = 1; l < 4; l++) hash = (hash ^ hash >> 32 ^ lanes[l]) * 0x94D049BB133111EBull;
    return hash ^ hash >> 32;
}

int qv_first_equals(const qv_codec *codec, qv_column *codes, const uint32_t *rows, uint32_t n, uint32_t *first) {
    size_t bytes = qv_compared_bytes(codec), places = 16;
    while (places < 2 * (size_t)n) places *= 2;
    uint64_t *table =
        malloc(places * sizeof *table); /* high half: of a hash; low half: index of the first row that has it */
    if (!table) return QV_NO_MEMORY;
    memset(table, 0xFF, places * sizeof *table);
    int status = QV_OK;
    for (uint32_t i = 0; i < n && !status; i++) {
        const uint8_t *code = qv_row(codes, rows[i]);
        if (!code) {
            status = QV_DAMAGED;
            break;
        }
        uint64_t hash = hash_bytes(code, bytes);
        first[i] = i;
        for (size_t at = hash & (places - 1);; at = (at + 1) & (places - 1)) {
            if (table[at] == UINT64_MAX) {
                table[at] = (hash & ~0xFFFFFFFFull) | i;
                break;
            }
            if (table[at] >> 32 != hash >> 32) continue;
            const uint8_t *other = qv_row(codes, rows[(uint32_t)table[at]]);
            if (memcmp(code, other, bytes) == 0) {
                first[i] = (uint32_t)table[at];
                break;
            }
        }
    }
    free(table);
    return status;
}
