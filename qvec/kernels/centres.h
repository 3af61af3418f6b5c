/* Centres that vectors are coded around: one for all, or for each vector the nearest of up to 256 local ones.
 *
 * A local centre is an offset from the common one, held as an INT8 row o. With x' = x - centre, r = x' - o and the code's
 * g v for r, <q', x'> is estimated as <q', o> + g <q', v> + <o, r - g v>: the first term comes from a table in the query,
 * the last one, twice, is taken from the row's norm2. What is left is <q' - o, r - g v>, an error of the distance from the
 * local centre only (RaBitQ, arXiv:2405.12497, section 3.1, codes around the centroids of an inverted file so). */
#ifndef QV_CENTRES_H
#define QV_CENTRES_H

#include "rows.h"

/* The table lies at the end of a prepared query, whole, so that any number a row may hold is within it. */
#define QV_TABLE_SIZE ((int)sizeof(float) * QV_MAX_CENTRES)

QV_INLINE const float *qv_table(const qv_codec *codec, const qv_query *query) {
    return (const float *)((const uint8_t *)query + codec->query_size - QV_TABLE_SIZE);
}

QV_INLINE int qv_row_centre(float scale) {
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    return (int)(bits & (QV_MAX_CENTRES - 1));
}

/* The float nearest to `scale` that holds the number in its lowest byte: off by 2^-16 of it at most. */
float qv_with_centre(float scale, int centre);

/* x as the codec codes it, before a local centre is chosen; `unit` as qv_unit_of says. */
qv_source qv_source_of(const qv_codec *codec, const float *x, double unit);

/* Puts the local centre `number` into the source: none where the codec has none, or not so many. */
void qv_move_source(const qv_codec *codec, int number, qv_source *source);

/* The number of the local centre nearest to the source, 0 without any. */
int qv_nearest_centre(const qv_codec *codec, const qv_source *source);

/* -<q, offset> of every local centre into the first entries of the table. */
void qv_fill_table(const qv_codec *codec, const qv_source *query, float *table);

/* Puts back what was subtracted from the vector of a row with this scale, if anything was. */
void qv_add_centre(const qv_codec *codec, float scale, float *x);

double qv_source_norm2(const qv_source *source);

#endif
