/* Centroids that vectors are encoded relative to: one for all, or for each vector the nearest of up to 256 local ones.
 *
 * A local centroid is an offset from the common center, stored as an INT8 row o. With x' = x - center, r = x' - o,
 * and g v the decoded r, <q', x'> is estimated as <q', o> + g <q', v> + <o, r - g v>. The first term comes from a
 * table in the query; twice the last one is subtracted from the row's norm2. What remains is <q' - o, r - g v>, an
 * error relative to the distance from the centroid only (RaBitQ, arXiv:2405.12497, section 3.1, encodes relative to
 * the centroids of an inverted file in the same way). */
#ifndef QV_CENTROIDS_H
#define QV_CENTROIDS_H

#include "codec/rows.h"

/* The table is at the end of a prepared query and has an entry for every possible number, so that no row can exceed
 * it. Before it is the query in the form that scores offsets. Entries are computed when first needed: a graph search
 * meets few of the centroids. */
#define QV_TABLE_SIZE ((int)sizeof(float) * QV_MAX_CENTROIDS)

/* Bytes of a query for the table and the offset query. */
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

/* The nearest float to `scale` that has the centroid's number in its lowest byte; relative error at most 2^-16. */
float qv_with_centroid(float scale, int center);

/* x as a source, before a centroid is chosen; unit: see qv_unit_of. */
qv_source qv_source_of(const qv_codec *codec, const float *x, double unit);

/* Make the source relative to the centroid `number`, if the codec has one of that number. */
void qv_move_source(const qv_codec *codec, int number, qv_source *source);

/* |x|^2 of a vector, and the number of its nearest centroid; 0 without centroids. */
typedef struct {
    double norm2;
    int center;
} qv_located;

/* Vectors that qv_locate takes at once: as many as its buffer holds, one of QV_MAX_DIM dims at least. */
#define QV_LOCATED_MAX 16
int qv_located_at_once(const qv_codec *codec);

/* Find the centroids of n vectors. */
void qv_locate(const qv_codec *codec, const float *x, int n, qv_located *located);

/* Initialize the table of a query, with no entry known; `source`: the query. */
void qv_open_table(const qv_codec *codec, const qv_source *source, qv_query *query);

/* Compute an entry: -<q, offset>, weighted as in keys. */
float qv_table_entry(const qv_codec *codec, const qv_query *query, int number);

/* Contribution of the row's centroid to its key. */
QV_INLINE float qv_centroid_key(const qv_codec *codec, const qv_query *query, float scale) {
    int number = qv_row_centroid(scale);
    float key = qv_table(codec, query)[number];
    return key == key ? key : qv_table_entry(codec, query, number);
}

/* Contributions for four rows. Entries are below 2^127, so their sum is NaN only if one of them is. */
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

/* Add the center and the row's centroid to a decoded vector. */
void qv_add_centroid(const qv_codec *codec, float scale, float *x);

double qv_source_norm2(const qv_source *source);

/* The values of a source, padded with zeros to whole blocks. A source of more than QV_FLAT_MAX dims is not copied. */
#define QV_FLAT_MAX 8192
typedef struct {
    _Alignas(64) float values[QV_FLAT_MAX];
    qv_source source; /* the copy, or the source itself; with the centroid's offset */
    double norm2;
} qv_flat;

void qv_flatten(const qv_source *source, qv_flat *flat);

/* Result of encoding a source r = x' - o: scale: step of the codes v; along: <o, v> in steps of both; norm2: |r|^2. */
typedef struct {
    int center;
    double norm2, scale, along;
} qv_coded;

void qv_put_centered(const qv_codec *codec, const qv_source *source, const qv_coded *coded, uint8_t *row);

#endif
