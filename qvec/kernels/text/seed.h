/* A limit of scores before a search begins. */
#ifndef QV_TEXT_SEED_H
#define QV_TEXT_SEED_H

#include "search/pool.h"
#include "text/cursor.h"

/* The k-th best score that rows have in the shortest lists alone, a little less: a row of the k best of all lists has more.
 * 0: the lists do not have k rows, or all of them are long. `pool`: empty before and after, of capacity k. Returns QV_OK or
 * QV_DAMAGED. */
int qv_text_seed(const qv_text_query *query, const cursor *cursors, qv_pool *pool, float *limit);

#endif
