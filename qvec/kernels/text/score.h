/* The best rows for a query of terms, exactly, by bounds of blocks of postings. */
#ifndef QV_TEXT_SCORE_H
#define QV_TEXT_SCORE_H

#include "search/pool.h"
#include "text/segment.h"

#define QV_WINDOW 4096 /* rows that are added up together */

/* A text field: the score of a posting is weight * value / (value + base + slope * length of the row). lengths NULL: a
 * sparse field, where it is weight * value. */
typedef struct {
    qv_column *lengths;
    float base, slope;
} qv_text_field;

/* One list of a query. */
typedef struct {
    const qv_segment *segment;
    qv_plist list;
    qv_rows valid;
    float weight; /* above zero */
    uint32_t field;
} qv_query_list;

typedef struct {
    const qv_text_field *fields;
    uint32_t n_fields, n_lists;
    const qv_query_list *lists;
    const uint64_t *excluded; /* rows below n that may not be found; NULL: none */
    uint32_t n;               /* rows of the collection */
    int simd;
    uint64_t deadline; /* in nanoseconds of qv_now; 0: none */
} qv_text_query;

typedef struct {
    uint64_t windows, blocks, postings; /* work done */
} qv_text_work;

/* The best k rows, in pool->slots: keys are minus the scores. Returns QV_OK, QV_DAMAGED, QV_NO_MEMORY or QV_LATE. */
int qv_text_search(const qv_text_query *query, qv_pool *pool, int k, qv_text_work *work);

/* Number of postings of rows that are valid; -1 if the list is damaged. */
int64_t qv_plist_count(const qv_segment *segment, const qv_plist *list, const qv_rows *valid);

/* Set the bits of the valid rows of a list, which are below n. Returns 0, or -1 if the list is damaged. */
int qv_plist_bits(const qv_segment *segment, const qv_plist *list, const qv_rows *valid, uint32_t n, uint64_t *bits);

/* scores[i] = weight * values[i] / (values[i] + norms[(rows[i] - start) % QV_WINDOW]); without norms, weight * values[i]. */
typedef void qv_contribute_fn(const uint32_t *rows, const uint32_t *values, uint32_t n, uint32_t start,
                              const float *norms, float weight, float *scores);
extern qv_contribute_fn *const qv_contribute[];

#endif
