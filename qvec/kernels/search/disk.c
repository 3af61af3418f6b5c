/* Searches that read from the disk: whether there are any, and candidates that wait for their originals. */
#include "search/search.h"

#include <stdlib.h>

#define DECIDE_EVERY 64 /* queries */

void qv_begin_query(qv_scratch *s) {
    if (s->since++ % DECIDE_EVERY) return;
    uint64_t reads, faults;
    if (qv_count_reads(&reads, &faults)) return;
    /* at the first query, and if one query in four reads a page, or waits for one where reads are not counted */
    const uint64_t few = DECIDE_EVERY / 4;
    s->requests = s->since == 1 || reads - s->reads >= few || faults - s->faults >= few;
    s->reads = reads;
    s->faults = faults;
}

int qv_put_later(qv_scratch *s, uint64_t candidate) {
    if (s->n_later == s->later_capacity) {
        size_t capacity = s->later_capacity ? 2 * s->later_capacity : 1024;
        uint64_t *grown = realloc(s->later, capacity * sizeof *grown);
        if (grown == NULL) return QV_NO_MEMORY;
        s->later = grown;
        s->later_capacity = capacity;
    }
    s->later[s->n_later++] = candidate;
    return QV_OK;
}
