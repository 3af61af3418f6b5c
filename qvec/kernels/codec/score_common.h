/* Conversion of dot products to keys, and the loop that passes rows to a kernel in groups of four.
 *
 * A group shares each load of the query and has four independent chains of additions. A short last group repeats its
 * last row: the extra lanes cost little next to the chain's latency, and a row's key never depends on its neighbors. */
#ifndef QV_SCORE_COMMON_H
#define QV_SCORE_COMMON_H

#include "codec/centroids.h"

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
    if (codec->n_offsets > 0) key += qv_centroid_key(codec, query, factors.scale);
    return key < query->floor ? query->floor : key;
}

/* The same of a group. */
QV_INLINE void qv_keys(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, qv_lanes4 dots,
                       float *keys) {
    float scales[QV_GROUP], norms2[QV_GROUP];
    for (int r = 0; r < QV_GROUP; r++) {
        const uint8_t *factors = rows[r] + codec->data_size;
        memcpy(scales + r, factors + offsetof(qv_factors, scale), sizeof *scales);
        memcpy(norms2 + r, factors + offsetof(qv_factors, norm2), sizeof *norms2);
    }
    qv_lanes4 scale = {scales[0], scales[1], scales[2], scales[3]};
    qv_lanes4 norm2 = {norms2[0], norms2[1], norms2[2], norms2[3]};
    qv_lanes4 key = query->bias + query->per_norm2 * norm2 + scale * dots * query->per_scale;
    if (codec->n_offsets > 0) key += qv_centroid_keys(codec, query, scales);
    qv_lanes4 floor = query->floor + (qv_lanes4){0};
    qv_mask4 below = key < floor;
    key = (qv_lanes4)(((qv_mask4)floor & below) | ((qv_mask4)key & ~below));
    memcpy(keys, &key, sizeof key);
}

#if defined(__x86_64__)
/* 32 bytes of a row, or the last 16. Data of fewer bytes is followed by the row's factors; there
 * the query has zeros. */
QV_TARGET_AVX2 QV_INLINE __m256i load_avx2(const uint8_t *data, int bytes) {
    if (bytes > 16) return _mm256_loadu_si256((const __m256i *)data);
    return _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)data));
}

/* The lane sums of each vector, as one vector of four totals. */
QV_TARGET_AVX2 QV_INLINE __m128i sum_lanes_avx2(const __m256i *v) {
    __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
    __m256i c = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    return _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
}

QV_TARGET_AVX512 QV_INLINE __m128i sum_lanes_avx512(const __m512i *v) {
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    __m256i d = _mm256_add_epi32(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
}
#endif

/* qv_score_fn `name` over a kernel `dots(codec, query, group, out)` of four rows; `finish` makes their keys. */
#define QV_DEFINE_SCORE(name, target, type, dots, finish)                                                    \
    target static void name(const qv_codec *codec, const qv_query *query, const uint8_t *const *rows, int n, \
                            float *keys) {                                                                   \
        for (int i = 0; i < n; i += QV_GROUP) {                                                              \
            const uint8_t *group[QV_GROUP];                                                                  \
            type out[QV_GROUP] = {0};                                                                        \
            float last[QV_GROUP];                                                                            \
            int count = qv_group(rows + i, n - i, group);                                                    \
            dots(codec, query, group, out);                                                                  \
            finish(codec, query, group, out, count < QV_GROUP ? last : keys + i);                            \
            if (count < QV_GROUP) memcpy(keys + i, last, (size_t)count * sizeof *last);                      \
        }                                                                                                    \
    }

#endif
