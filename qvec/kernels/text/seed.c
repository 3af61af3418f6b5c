#include "text/seed.h"

#include <string.h>

#define SEED_POSTINGS 512 /* of the shortest lists together */
#define SEED_LISTS 64     /* a query with more lists begins without a limit */
#define ROUNDING 0.99999f /* the same score may be added up in another order later */

typedef struct {
    uint32_t row;
    float score;
} scored;

/* Append the scores of a list's rows; returns their number, or -1 if something is damaged. */
static int score_list(const qv_text_query *query, const cursor *c, scored *to) {
    const qv_text_field *field = query->fields + c->query_list->field;
    uint32_t rows[QV_POSTINGS], values[QV_POSTINGS];
    int count = 0;
    for (uint32_t block = 0; block < c->n_blocks; block++) {
        int n = (int)c->n;
        if (c->directory == NULL) {
            memcpy(rows, c->rows, c->n * sizeof *rows);
            memcpy(values, c->values, c->n * sizeof *values);
        } else {
            n = qv_plist_block(c->query_list->segment, &c->query_list->list, c->directory, block, rows, values);
        }
        if (n <= 0) return -1;
        for (int i = 0; i < n; i++) {
            uint32_t row = rows[i];
            if (row >= query->n || !qv_rows_have(&c->query_list->valid, row)) continue;
            if (query->excluded && query->excluded[row >> 6] >> (row & 63) & 1) continue;
            float value = (float)values[i];
            if (field->lengths) {
                int64_t length = qv_length_of(field->lengths, row);
                if (length < 0) return -1;
                value /= value + field->base + field->slope * (float)length;
            }
            to[count++] = (scored){row, c->query_list->weight * value};
        }
    }
    return count;
}

/* Merge two lists of ascending rows; the scores of a row in both are added. Returns the number of rows. */
static int merge(const scored *a, int n, const scored *b, int m, scored *to) {
    int i = 0, j = 0, count = 0;
    while (i < n && j < m) {
        if (a[i].row == b[j].row) {
            to[count++] = (scored){a[i].row, a[i].score + b[j].score};
            i++, j++;
        } else {
            to[count++] = a[i].row < b[j].row ? a[i++] : b[j++];
        }
    }
    memcpy(to + count, a + i, (size_t)(n - i) * sizeof *to);
    count += n - i;
    memcpy(to + count, b + j, (size_t)(m - j) * sizeof *to);
    return count + m - j;
}

/* The shortest list that was not taken and has at most `room` postings; n_lists if there is none. */
static uint32_t shortest(const qv_text_query *query, uint64_t taken, uint32_t room) {
    uint32_t best = query->n_lists;
    for (uint32_t i = 0; i < query->n_lists; i++) {
        uint32_t count = query->lists[i].list.count;
        if (taken >> i & 1 || count > room) continue;
        if (best == query->n_lists || count < query->lists[best].list.count) best = i;
    }
    return best;
}

int qv_text_seed(const qv_text_query *query, const cursor *cursors, qv_pool *pool, float *limit) {
    scored sums[SEED_POSTINGS], list[SEED_POSTINGS], merged[SEED_POSTINGS];
    uint32_t room = SEED_POSTINGS;
    uint64_t taken = 0;
    int n = 0;
    *limit = 0;
    if (query->n_lists > SEED_LISTS || query->n_lists < 2) return QV_OK;
    for (uint32_t i; (i = shortest(query, taken, room)) < query->n_lists; room -= query->lists[i].list.count) {
        int count = score_list(query, cursors + i, list);
        if (count < 0) return QV_DAMAGED;
        taken |= 1ull << i;
        n = merge(sums, n, list, count, merged);
        memcpy(sums, merged, (size_t)n * sizeof *sums);
    }
    if (n < pool->capacity) return QV_OK;
    for (int i = 0; i < n; i++) qv_pool_insert(pool, qv_candidate(-sums[i].score, sums[i].row));
    *limit = -qv_pool_bound(pool) * ROUNDING;
    qv_pool_reset(pool, pool->capacity);
    return QV_OK;
}
