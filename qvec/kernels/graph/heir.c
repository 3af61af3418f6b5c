/* The row that takes the place of a removed row which has duplicates attached below it. See repair.c. */
#include "graph/edges.h"

#define QV_HEIR_MAX 65536 /* removed duplicates that are passed; a damaged tree may have cycles */
#define NO_HEIR 1         /* in graph->heirs, which are rows + 2; 0: not searched for yet */

/* Search the tree below a removed row, breadth first. Only removed rows with equal codes are passed. */
static int64_t search(const qv_graph *graph, uint32_t removed) {
    uint32_t *queue = NULL, n = 1, capacity = 0;
    const uint8_t *code = qv_row(graph->codes, removed);
    int64_t found = code ? (int64_t)QV_NO_ROW : QV_DAMAGED;
    for (uint32_t i = 0; i < n && found == QV_NO_ROW; i++) {
        const uint32_t *list = (const uint32_t *)qv_row(graph->adjacency, i == 0 ? removed : queue[i]);
        if (!list) found = QV_DAMAGED;
        for (uint32_t j = 0; list && j < graph->degree && list[j] != QV_NO_ROW && found == QV_NO_ROW; j++) {
            uint32_t row = list[j] & QV_ROW_MASK;
            if (!(list[j] & QV_TREE) || row >= graph->n) continue;
            const uint8_t *other = qv_row(graph->codes, row);
            if (!other) found = QV_DAMAGED;
            else if (!qv_equal_codes(graph->codec, code, other)) continue;
            else if (!qv_is_set(graph->deleted, row)) found = row;
            else if (qv_is_set(graph->removing, row) && n < QV_HEIR_MAX) {
                if (n >= capacity) {
                    capacity = 4 * n + QV_DEGREE_MAX;
                    uint32_t *larger = realloc(queue, capacity * sizeof *queue);
                    if (!larger) {
                        found = QV_NO_MEMORY;
                        break;
                    }
                    queue = larger;
                }
                queue[n++] = row;
            }
        }
    }
    free(queue);
    return found;
}

int64_t qv_heir_of(const qv_graph *graph, uint32_t removed) {
    if (!graph->heirs) return QV_NO_ROW;
    uint32_t known = __atomic_load_n(&graph->heirs[removed], __ATOMIC_RELAXED);
    if (known) return known == NO_HEIR ? QV_NO_ROW : known - 2;
    int64_t found = search(graph, removed);
    if (found >= 0) /* threads that search at the same time find the same row: these lists do not change */
        __atomic_store_n(&graph->heirs[removed], found == QV_NO_ROW ? NO_HEIR : (uint32_t)found + 2, __ATOMIC_RELAXED);
    return found;
}
