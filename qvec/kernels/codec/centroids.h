/* Centroids that vectors are coded around: one for all, or for each vector the nearest of up to 256 local ones.
 *
 * A centroid is an offset from the common one, held as an INT8 row o. With x' = x - center, r = x' - o and the code's
 * g v for r, <q', x'> is estimated as <q', o> + g <q', v> + <o, r - g v>: the first term comes from a table in the query,
 * the last one, twice, is taken from the row's norm2. What is left is <q' - o, r - g v>, an error of the distance from the
 * centroid only (RaBitQ, arXiv:2405.12497, section 3.1, codes around the centroids of an inverted file so). */
#ifndef QV_CENTROIDS_H
#define QV_CENTROIDS_H

#include "codec/rows.h"

/* The table lies at the end of a prepared query, whole, so that any number a row may hold is within it; before it, the query
 * in the form that scores offsets. An entry is worked out when a row first asks for it: a walk meets few of the centroids. */
#define QV_TABLE_SIZE ((int)sizeof(float) * QV_MAX_CENTROIDS)

/* Bytes of a query for both. */
QV_INLINE int qv_table_bytes(const qv_codec *codec) {
    return codec->n_offsets > 0 ? codec->offset_codec->query_size + QV_TABLE_SIZE : 0;
}

QV_INLINE const float *qv_table(const qv_codec *codec, const qv_query *query) {
    return (const float *)((const uint8_t *)query + codec->query_size - QV_TABLE_SIZE);
}

QV_INLINE int qv_row_centroid(float scale) {
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    return (int)(bits & (QV_MAX_CENTROIDS - 1));
}

/* The float nearest to `scale` that holds the number in its lowest byte: off by 2^-16 of it at most. */
float qv_with_centroid(float scale, int center);

/* x as the codec codes it, before a centroid is chosen; `unit` as qv_unit_of says. */
qv_source qv_source_of(const qv_codec *codec, const float *x, double unit);

/* Puts the centroid `number` into the source: none where the codec has none, or not so many. */
void qv_move_source(const qv_codec *codec, int number, qv_source *source);

/* The number of the centroid nearest to the source, 0 without any. */
int qv_nearest_centroid(const qv_codec *codec, const qv_source *source);

/* Makes the table of a query ready: no entry is known yet. `source` is what codes are weighted by. */
void qv_open_table(const qv_codec *codec, const qv_source *source, qv_query *query);

/* Works out an entry: -<q, offset>, by its share in keys. */
float qv_table_entry(const qv_codec *codec, const qv_query *query, int number);

/* What the centroid of a row with this scale adds to its key. */
QV_INLINE float qv_centroid_key(const qv_codec *codec, const qv_query *query, float scale) {
    int number = qv_row_centroid(scale);
    float key = qv_table(codec, query)[number];
    return key == key ? key : qv_table_entry(codec, query, number);
}

/* The same of four rows. Entries are below 2^127, so their sum is no number only where one of them is none. */
QV_INLINE qv_lanes4 qv_centroid_keys(const qv_codec *codec, const qv_query *query, const float *scales) {
    const float *table = qv_table(codec, query);
    qv_lanes4 keys;
    float entry[4];
    for (int r = 0; r < 4; r++) entry[r] = table[qv_row_centroid(scales[r])];
    if (isnan((entry[0] + entry[1]) + (entry[2] + entry[3]))) {
        for (int r = 0; r < 4; r++) entry[r] = qv_centroid_key(codec, query, scales[r]);
    }
    memcpy(&keys, entry, sizeof keys);
    return keys;
}

/* Puts back what was subtracted from the vector of a row with this scale, if anything was. */
void qv_add_centroid(const qv_codec *codec, float scale, float *x);

double qv_source_norm2(const qv_source *source);

/* How a source r = x' - o was coded: `scale` is a step of the codes v, `along` is <o, v> in steps of both, norm2 |r|^2. */
typedef struct {
    int center;
    double norm2, scale, along;
} qv_coded;

void qv_put_centered(const qv_codec *codec, const qv_source *source, const qv_coded *coded, uint8_t *row);

#endif
