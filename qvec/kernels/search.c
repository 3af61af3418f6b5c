#include <math.h>

#include "find.h"
#include "simd.h"

#define QV_AHEAD 16 /* re-rank rows whose lines are on their way */

/* Drop excluded rows from the pool, keep the nearest `keep`. */
static void keep_results(qv_pool *pool, const qv_selection *selection, int keep) {
    int kept = 0;
    for (int i = 0; i < pool->size && kept < keep; i++) {
        if (qv_is_excluded(selection, qv_candidate_row(pool->slots[i]))) continue;
        pool->slots[kept++] = pool->slots[i] & ~1ull;
    }
    pool->size = kept;
}

static int row_addresses(qv_column *vectors, const uint64_t *slots, int n, size_t bytes, const uint8_t **address) {
    for (int i = 0; i < n; i++) {
        address[i] = qv_row(vectors, qv_candidate_row(slots[i]));
        if (!address[i]) return QV_DAMAGED;
        if (i < QV_AHEAD) qv_prefetch_row(address[i], bytes);
    }
    return QV_OK;
}

/* Replace the keys of the pool's candidates by those of the originals, and sort again. */
static int rerank_pool(const qv_searcher *searcher, const qv_query *query, qv_scratch *s) {
    const qv_codec *codec = searcher->rerank;
    qv_pool *pool = &s->pool;
    for (int start = 0; start < pool->size; start += QV_HOP_MAX) {
        int n = pool->size - start < QV_HOP_MAX ? pool->size - start : QV_HOP_MAX;
        const uint8_t **address = s->address[0];
        if (row_addresses(searcher->vectors, pool->slots + start, n, (size_t)codec->stride, address)) return QV_DAMAGED;
        for (int i = 0; i < n; i += 4) {
            for (int j = i + QV_AHEAD; j < n && j < i + QV_AHEAD + 4; j++) qv_prefetch_row(address[j], (size_t)codec->stride);
            codec->score(codec, query, address + i, n - i < 4 ? n - i : 4, s->key + i);
        }
        for (int i = 0; i < n; i++)
            pool->slots[start + i] = qv_candidate(s->key[i], qv_candidate_row(pool->slots[start + i]));
    }
    int size = pool->size;
    qv_pool_reset(pool, size);
    for (int i = 0; i < size; i++) { /* insertion in place: slot i is read before the sorted part reaches it */
        uint64_t candidate = pool->slots[i];
        qv_pool_insert(pool, candidate);
    }
    return QV_OK;
}

static int write_results(const qv_searcher *searcher, const qv_pool *pool, int k, int64_t *ids, float *distances) {
    int n = pool->size < k ? pool->size : k;
    for (int i = 0; i < n; i++) {
        uint32_t row = qv_candidate_row(pool->slots[i]);
        distances[i] = qv_candidate_key(pool->slots[i]);
        if (!searcher->ids) {
            ids[i] = row;
            continue;
        }
        const uint8_t *address = qv_row(searcher->ids, row);
        if (!address) return QV_DAMAGED;
        memcpy(ids + i, address, sizeof *ids);
    }
    for (int i = n; i < k; i++) {
        ids[i] = -1;
        distances[i] = INFINITY;
    }
    return n;
}

/* By the index; by a scan where there is none, where rows are named, and where too few of what an index finds may be
 * results: k come back whenever k are allowed. */
static int find_candidates(const qv_searcher *searcher, const qv_search_params *p, const float *original, int candidates,
                           qv_scratch *s) {
    const qv_selection *selection = &p->selection;
    if (searcher->finder.find && !p->exact && !selection->rows) {
        int status = searcher->finder.find(searcher->finder.index, p, original, s);
        if (status < 0) return status;
        keep_results(&s->pool, selection, candidates);
        uint32_t wanted = (uint32_t)p->k < selection->n_allowed ? (uint32_t)p->k : selection->n_allowed;
        if ((uint32_t)s->pool.size >= wanted) return status;
    }
    return qv_scan(searcher->codec, searcher->codes, searcher->n, selection, (const qv_query *)s->query, candidates, s);
}

static int reserve(const qv_searcher *searcher, const qv_search_params *p, int candidates, qv_scratch *s) {
    int pool = p->ef > candidates ? p->ef : candidates;
    size_t query_size = (size_t)searcher->codec->query_size;
    if (searcher->rerank && (size_t)searcher->rerank->query_size > query_size) query_size = (size_t)searcher->rerank->query_size;
    return qv_scratch_reserve(s, pool, searcher->n, query_size);
}

int qv_search(qv_searcher *searcher, const qv_search_params *p, const float *original, const float *transformed,
              qv_scratch *s, int64_t *ids, float *distances) {
    int candidates = p->candidates > p->k ? p->candidates : p->k, status;
    if (reserve(searcher, p, candidates, s)) return QV_NO_MEMORY;
    const qv_query *fine = (const qv_query *)s->other;
    if (searcher->rerank) qv_prepare(searcher->rerank, original, (qv_query *)s->other);
    if (p->exact && searcher->rerank) {
        status = qv_scan(searcher->rerank, searcher->vectors, searcher->n, &p->selection, fine, p->k, s);
    } else {
        qv_prepare(searcher->codec, transformed, (qv_query *)s->query);
        status = find_candidates(searcher, p, original, candidates, s);
        if (status == QV_OK && searcher->rerank && p->candidates > 0) status = rerank_pool(searcher, fine, s);
    }
    return status < 0 ? status : write_results(searcher, &s->pool, p->k, ids, distances);
}
