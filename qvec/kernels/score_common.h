/* From dot products to keys, and the loop that hands rows to a kernel in groups of four.
 *
 * A group shares each load of the query and has four independent chains of additions. A short last group repeats its
 * last row: the extra lanes cost little next to the chain's latency, and a row's key never depends on its neighbours. */
#ifndef QV_SCORE_COMMON_H
#define QV_SCORE_COMMON_H

#include "centres.h"

#define QV_GROUP 4

QV_INLINE const void *qv_payload(const qv_query *query) { return query + 1; }

QV_INLINE int qv_group(const uint8_t *const *rows, int left, const uint8_t **group) {
    int count = left < QV_GROUP ? left : QV_GROUP;
    for (int r = 0; r < QV_GROUP; r++) group[r] = rows[r < count ? r : count - 1];
    return count;
}

/* `dot` has the query's offset subtracted. The order of operations is part of the contract: all levels share it, and
 * scale * dot comes first because both are in range for every finite vector. */
QV_INLINE float qv_key(const qv_codec *codec, const qv_query *query, const uint8_t *row, float dot) {
    qv_factors factors = qv_row_factors(codec, row);
    float key = query->bias + query->per_norm2 * factors.norm2 + factors.scale * dot * query->per_scale;
    if (codec->n_offsets > 0) key += qv_centre_key(codec, query, factors.scale);
    return key < query->floor ? query->floor : key;
}

/* qv_score_fn `name` over a kernel `dots(codec, query, group, out)` of four rows; `finish` makes one key. */
#define QV_DEFINE_SCORE(name, target, type, dots, finish)                                                       \
    target static void name(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int n,     \
                            float *keys) {                                                                       \
        for (int i = 0; i < n; i += QV_GROUP) {                                                                  \
            const uint8_t *group[QV_GROUP];                                                                      \
            type out[QV_GROUP];                                                                                  \
            int count = qv_group(rows + i, n - i, group);                                                        \
            dots(codec, query, group, out);                                                                      \
            for (int r = 0; r < count; r++) keys[i + r] = finish(codec, query, group[r], out[r]);                \
        }                                                                                                        \
    }

#endif
