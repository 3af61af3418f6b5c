/* The best k rows for several posting lists: MaxScore over windows of rows (Turtle and Flood, 1995; windows as in Lucene's
 * MaxScoreBulkScorer).
 *
 * A window is a range of QV_WINDOW rows. In a window, each list has a bound: no row there has a higher score by this list.
 * The lists are sorted by their bounds. As many lists with low bounds as possible are set apart, as long as the sum of
 * their bounds is below the k-th best score so far: a row that is in no other list cannot be a result. Then the scores by
 * the other lists are added up for all rows of the window, and the lists that were set apart are only looked up, for rows
 * that can still be results. Rows are visited in ascending order, so of equal scores the lower rows are returned.
 *
 * BM25 of a term is weight * tf / (tf + base + slope * length): the norm of a row is base + slope * length. For sparse
 * vectors there are no norms, and the score is weight * value. */
#include "text/score.h"

#include <stdlib.h>

#include "codec/simd.h"
#include "search/search.h"
#include "text/collect.h"
#include "text/cursor.h"
#include "text/seed.h"

#define POSTINGS_PER_LOOKUP 20 /* postings that are added in the time of one look-up */
/* If a window has fewer postings than this, the rows that have a sum are noted in a bitmap. Otherwise all of its sums are
 * tested. */
#define FEW_POSTINGS 200
#define MANY_LISTS 32 /* more are sorted by qsort */

typedef struct {
    const qv_text_query *query;
    cursor *cursors;
    cursor **open; /* lists with blocks in the window, by ascending bound */
    uint32_t n_open;
    float sums[QV_WINDOW], *norms;       /* of the rows of the window: scores so far; for each field the norms */
    uint32_t candidates[QV_WINDOW + 16]; /* 16 more, because kernels store whole SIMD registers */
    float scores[QV_WINDOW + 16];
    uint64_t *filled;                 /* for each field, the groups of 64 rows whose norms are there */
    uint64_t touched[QV_WINDOW / 64]; /* bitmap of the rows with a sum, if has_few */
    int has_few;                      /* whether the window has fewer than FEW_POSTINGS postings */
    float seed; /* a lower limit of the scores of results, known before the first window (seed.h) */
    qv_contribute_fn *contribute;
    qv_text_work *work;
} window;

/* Unpack a block of a list into its cursor, unless it is there already. */
static int decode(window *w, cursor *c, uint32_t block) {
    if (c->decoded == block) return QV_OK;
    int n = qv_plist_block(c->query_list->segment, &c->query_list->list, c->directory, block, c->rows, c->values);
    if (n <= 0) return QV_DAMAGED;
    c->n = (uint32_t)n, c->at = 0, c->decoded = block;
    w->work->blocks++;
    return QV_OK;
}

static int by_bound(const void *a, const void *b) {
    float x = (*(cursor *const *)a)->bound, y = (*(cursor *const *)b)->bound;
    return (x > y) - (x < y);
}

/* Find the lists with rows in the window, sorted by bound; returns the sum of their bounds. */
static float open_lists(window *w, uint32_t stop) {
    const qv_text_query *q = w->query;
    float total = 0;
    w->n_open = 0;
    for (uint32_t i = 0; i < q->n_lists; i++) {
        cursor *c = w->cursors + i;
        if (c->block == c->n_blocks) continue;
        c->bound = window_bound(c, q->fields + c->query_list->field, stop);
        if (c->bound < 0) continue; /* no row of the list is in the window */
        total += c->bound;
        w->open[w->n_open++] = c;
    }
    if (w->n_open > MANY_LISTS) {
        qsort(w->open, w->n_open, sizeof *w->open, by_bound);
        return total;
    }
    for (uint32_t i = 1; i < w->n_open; i++) { /* insertion sort */
        cursor *c = w->open[i];
        uint32_t place = i;
        for (; place && w->open[place - 1]->bound > c->bound; place--) w->open[place] = w->open[place - 1];
        w->open[place] = c;
    }
    return total;
}

/* Make the norms of a field available for some groups of 64 rows of the window. */
static int need_norms(window *w, uint32_t number, uint64_t groups, uint32_t start) {
    const qv_text_field *field = w->query->fields + number;
    uint64_t missing = groups & ~w->filled[number];
    if (missing == 0) return QV_OK;
    uint64_t held = (uint64_t)field->lengths->n_blocks * field->lengths->rows_per_block;
    w->filled[number] |= missing;
    while (missing) { /* runs of consecutive groups */
        const uint8_t *lengths[64];
        uint32_t first = (uint32_t)__builtin_ctzll(missing), n = 0;
        for (; first + n < 64 && missing >> (first + n) & 1; n++) {
            uint32_t group =
                start / QV_LENGTHS + first + n; /* a row of the column has the lengths of QV_LENGTHS rows */
            lengths[n] = group < held ? qv_row(field->lengths, group) : NULL;
            if (lengths[n] == NULL) return QV_DAMAGED;
            missing &= ~(1ull << (first + n));
        }
        qv_fill_norms(lengths, n, field->base, field->slope,
                      w->norms + (size_t)number * QV_WINDOW + first * QV_LENGTHS);
    }
    return QV_OK;
}

/* The groups of 64 rows from one row of the window to another. */
static uint64_t groups_between(uint32_t first, uint32_t last, uint32_t start) {
    unsigned low = (first - start) / QV_LENGTHS & 63, high = (last - start) / QV_LENGTHS & 63;
    return ~0ull >> (63 - high) & ~0ull << low;
}

/* How many of n ascending rows are below a row. */
static uint32_t n_below(const uint32_t *rows, uint32_t n, uint32_t row) {
    if (rows[0] >= row) return 0;
    if (rows[n - 1] < row) return n;
    const uint32_t *at = rows;
    while (n > 1) { /* the last row that is below; without a branch that cannot be predicted */
        uint32_t half = n / 2;
        at += at[half] < row ? half : 0;
        n -= half;
    }
    return (uint32_t)(at - rows) + 1;
}

/* Add the scores of one list to the sums of the window's rows. */
static int add_list(window *w, cursor *c, uint32_t start, uint32_t stop) {
    float scores[QV_POSTINGS];
    const qv_text_field *field = w->query->fields + c->query_list->field;
    const float *norms = field->lengths ? w->norms + (size_t)c->query_list->field * QV_WINDOW : NULL;
    for (uint32_t block = c->block; block < c->n_blocks && first_of(c, block) < stop; block++) {
        int status = decode(w, c, block);
        if (status != QV_OK) return status;
        uint32_t from = n_below(c->rows, c->n, start), to = n_below(c->rows, c->n, stop);
        if (from >= to)
            continue; /* from > to only if rows of a damaged block do not ascend; masks keep others in bounds */
        const uint32_t *rows = c->rows + from;
        if (norms &&
            need_norms(w, c->query_list->field, groups_between(rows[0], c->rows[to - 1], start), start) != QV_OK)
            return QV_DAMAGED;
        w->contribute(rows, c->values + from, to - from, start, norms, c->query_list->weight, scores);
        w->work->postings += to - from;
        if (w->has_few) {
            for (uint32_t i = 0; i < to - from; i++) {
                uint32_t at = (rows[i] - start) & (QV_WINDOW - 1);
                if (!qv_rows_have(&c->query_list->valid, rows[i])) continue;
                w->touched[at >> 6] |= 1ull << (at & 63);
                w->sums[at] += scores[i];
            }
            continue;
        }
        if (c->query_list->valid.words == NULL) {
            for (uint32_t i = 0; i < to - from; i++) w->sums[(rows[i] - start) & (QV_WINDOW - 1)] += scores[i];
        } else {
            for (uint32_t i = 0; i < to - from; i++)
                if (qv_rows_have(&c->query_list->valid, rows[i]))
                    w->sums[(rows[i] - start) & (QV_WINDOW - 1)] += scores[i];
        }
    }
    return QV_OK;
}

/* Add the score of a row in one list, if it has the row. Rows ascend from call to call. */
QV_INLINE int add_row(window *w, cursor *c, const float *norms, uint32_t start, uint32_t row, float *score) {
    uint32_t block = c->block;
    while (block < c->n_blocks && last_of(c, block) < row) block++;
    c->block = block;
    if (block == c->n_blocks || first_of(c, block) > row) return QV_OK;
    int status = decode(w, c, block);
    if (status != QV_OK) return status;
    uint32_t low = c->at < c->n && c->rows[c->at] <= row ? c->at : 0, n = c->n - low;
    const uint32_t *rows = c->rows + low;
    while (n > 1) { /* the last row that is not above this one; without a branch that cannot be predicted */
        uint32_t half = n / 2;
        rows += rows[half] <= row ? half : 0;
        n -= half;
    }
    c->at = (uint32_t)(rows - c->rows);
    if (*rows != row || !qv_rows_have(&c->query_list->valid, row)) return QV_OK;
    if (norms && need_norms(w, c->query_list->field, 1ull << (row - start) / QV_LENGTHS, start) != QV_OK)
        return QV_DAMAGED;
    float value = (float)c->values[c->at];
    *score += c->query_list->weight * (norms ? value / (value + norms[row - start]) : value);
    w->work->postings++;
    return QV_OK;
}

/* Add the scores of one list to those of the candidates: row by row, or, if that takes less time, all its postings. */
static int add_to_candidates(window *w, cursor *c, uint32_t start, uint32_t stop, uint32_t count) {
    const float *norms =
        w->query->fields[c->query_list->field].lengths ? w->norms + (size_t)c->query_list->field * QV_WINDOW : NULL;
    int status = QV_OK;
    if ((uint64_t)blocks_in(c, stop) * QV_POSTINGS < (uint64_t)count * POSTINGS_PER_LOOKUP) {
        status = add_list(w, c, start, stop);
        for (uint32_t j = 0; j < count; j++) w->scores[j] += w->sums[w->candidates[j]];
        memset(w->sums, 0, sizeof w->sums);
        return status;
    }
    for (uint32_t j = 0; j < count && status == QV_OK; j++)
        status = add_row(w, c, norms, start, start + w->candidates[j], w->scores + j);
    return status;
}

/* Search candidates in the lists that were not added up, largest bound first, and keep those that can be results. */
static int complete(window *w, uint32_t n_left, float left, float limit, uint32_t start, uint32_t stop,
                    uint32_t *count) {
    for (uint32_t i = n_left; i-- > 0;) {
        cursor *c = w->open[i];
        float least = limit / SLACK - left;
        uint32_t kept = 0;
        for (uint32_t j = 0; j < *count; j++) {
            if (w->scores[j] <= least) continue;
            w->candidates[kept] = w->candidates[j];
            w->scores[kept++] = w->scores[j];
        }
        *count = kept;
        int status = add_to_candidates(w, c, start, stop, kept);
        if (status != QV_OK) return status;
        left = left > c->bound ? left - c->bound : 0;
    }
    return QV_OK;
}

/* The rows of the window whose sums are above a limit, ascending, as candidates; the sums are cleared. */
static uint32_t collect(window *w, uint32_t n_rows, float limit) {
    if (!w->has_few) {
        uint32_t rounded = (n_rows + 63) / 64 * 64, count;
        count = qv_collect[w->query->simd](w->sums, rounded, limit, w->candidates, w->scores);
        memset(w->sums, 0, rounded * sizeof *w->sums);
        return count;
    }
    uint32_t count = 0;
    for (uint32_t word = 0; word < QV_WINDOW / 64; word++) {
        for (uint64_t bits = w->touched[word]; bits; bits &= bits - 1) {
            uint32_t at = 64 * word + (uint32_t)__builtin_ctzll(bits);
            float sum = w->sums[at];
            w->sums[at] = 0;
            w->candidates[count] = at;
            w->scores[count] = sum;
            count += sum > limit;
        }
        w->touched[word] = 0;
    }
    w->has_few = 0;
    return count;
}

/* The score that a row must exceed. */
static float limit_of(const window *w, const qv_pool *pool) {
    float limit = pool->size < pool->capacity ? 0 : -qv_pool_bound(pool);
    return limit > w->seed ? limit : w->seed;
}

static int search_window(window *w, uint32_t start, uint32_t stop, qv_pool *pool) {
    const qv_text_query *q = w->query;
    float limit = limit_of(w, pool);
    float total = open_lists(w, stop), left = 0;
    if (w->n_open == 0 || total * SLACK <= limit) return QV_OK;
    memset(w->filled, 0, q->n_fields * sizeof *w->filled);
    w->work->windows++;
    uint32_t n_left = 0; /* lists that are not added up */
    while (n_left + 1 < w->n_open && (left + w->open[n_left]->bound) * SLACK <= limit) left += w->open[n_left++]->bound;
    uint64_t postings = 0;
    for (uint32_t i = n_left; i < w->n_open && postings < FEW_POSTINGS; i++)
        postings += postings_in(w->open[i], start, stop);
    w->has_few = postings < FEW_POSTINGS;
    for (uint32_t i = n_left; i < w->n_open; i++) {
        int status = add_list(w, w->open[i], start, stop);
        if (status != QV_OK) return status;
    }
    float least = limit - left * SLACK;
    uint32_t kept = 0, count = collect(w, stop - start, least > 0 ? least : 0);
    if (q->excluded) {
        for (uint32_t i = 0; i < count; i++) {
            uint32_t row = start + w->candidates[i];
            if (q->excluded[row >> 6] >> (row & 63) & 1) continue;
            w->candidates[kept] = w->candidates[i];
            w->scores[kept++] = w->scores[i];
        }
        count = kept;
    }
    if (n_left) {
        int status = complete(w, n_left, left, limit, start, stop, &count);
        if (status != QV_OK) return status;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (w->scores[i] <= limit || start + w->candidates[i] >= stop) continue;
        qv_pool_insert(pool, qv_candidate(-w->scores[i], start + w->candidates[i]));
        limit = limit_of(w, pool);
    }
    return QV_OK;
}

/* Move lists on to blocks that do not end before a row; returns the least row that is still ahead, or n. */
static uint32_t advance(window *w, uint32_t row) {
    const qv_text_query *q = w->query;
    uint32_t next = q->n;
    for (uint32_t i = 0; i < q->n_lists; i++) {
        cursor *c = w->cursors + i;
        while (c->block < c->n_blocks && last_of(c, c->block) < row) c->block++;
        if (c->block == c->n_blocks) continue;
        uint32_t first = first_of(c, c->block);
        first = first > row ? first : row;
        next = first < next ? first : next;
    }
    return next;
}

static int any_allowed(const qv_text_query *q, uint32_t start, uint32_t stop) {
    if (q->excluded == NULL) return 1;
    for (uint32_t word = start / 64; word < (stop + 63) / 64; word++)
        if (~q->excluded[word]) return 1;
    return 0;
}

/* The memory of a search, in one piece; NULL if there is none. */
static window *allocate(const qv_text_query *query) {
    size_t norms = (size_t)query->n_fields * (QV_WINDOW * sizeof(float) + sizeof(uint64_t));
    size_t cursors = query->n_lists * sizeof(cursor);
    uint8_t *data = malloc(sizeof(window) + query->n_lists * sizeof(cursor *) + cursors + norms);
    if (data == NULL) return NULL;
    window *w = (window *)data;
    w->query = query;
    w->open = (cursor **)(data + sizeof *w);
    w->cursors = (cursor *)(w->open + query->n_lists);
    w->norms = (float *)((uint8_t *)w->cursors + cursors);
    memset(w->sums, 0, sizeof w->sums);
    memset(w->touched, 0, sizeof w->touched);
    w->filled = (uint64_t *)(w->norms + (size_t)query->n_fields * QV_WINDOW);
    w->has_few = 0;
    memset(w->norms, 0, norms);
    return w;
}

int qv_text_search(const qv_text_query *query, qv_pool *pool, int k, qv_text_work *work) {
    window *w = allocate(query);
    qv_pool_reset(pool, k);
    if (w == NULL) return QV_NO_MEMORY;
    w->work = work;
    w->contribute = qv_contribute[query->simd];
    int status = QV_OK;
    for (uint32_t i = 0; i < query->n_lists && status == QV_OK; i++) status = begin(w->cursors + i, query->lists + i);
    if (status == QV_OK) status = qv_text_seed(query, w->cursors, pool, &w->seed);
    uint32_t row = 0;
    while (status == QV_OK && (row = advance(w, row)) < query->n) {
        uint32_t start = row / QV_WINDOW * QV_WINDOW, left = query->n - start;
        uint32_t stop = start + (left < QV_WINDOW ? left : QV_WINDOW);
        if (query->deadline && qv_now() >= query->deadline) status = QV_LATE;
        else if (any_allowed(query, start, stop)) status = search_window(w, start, stop, pool);
        row = stop;
    }
    free(w);
    return status;
}
