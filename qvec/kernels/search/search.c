#include <math.h>

#include "search/search.h"
#include "codec/simd.h"

#define QV_AHEAD 16 /* rows that are prefetched before they are re-ranked */
#define WIDER 4     /* factor of the candidate list's size when a narrower search has found too few */

/* Add the time since the last phase ended to `phase`; QV_PHASES: start the clock only. */
static void end_phase(const qv_searcher *searcher, qv_scratch *s, int phase) {
    if (!searcher->timed) return;
    uint64_t now = qv_now();
    if (phase < QV_PHASES) s->phase_ns[phase] += now - s->phase_began;
    s->phase_began = now;
}

/* Remove excluded rows from the candidate list and keep the nearest `keep`. */
static void filter_results(qv_pool *pool, const qv_selection *selection, int keep) {
    int kept = 0;
    for (int i = 0; i < pool->size && kept < keep; i++) {
        if (qv_is_excluded(selection, qv_candidate_row(pool->slots[i]))) continue;
        pool->slots[kept++] = pool->slots[i] & ~1ull;
    }
    pool->size = kept;
}

static int row_addresses(qv_column *vectors, const uint64_t *slots, int n, size_t bytes, int requests,
                         const uint8_t **address) {
    for (int i = 0; requests && i < n; i++) qv_request_row(vectors, qv_candidate_row(slots[i]));
    for (int i = 0; i < n; i++) {
        uint32_t row = qv_candidate_row(slots[i]);
        address[i] = requests ? qv_lone_row(vectors, row) : qv_row(vectors, row);
        if (!address[i]) return QV_DAMAGED;
        if (i < QV_AHEAD) qv_prefetch_row(address[i], bytes);
    }
    return QV_OK;
}

/* Replace the keys of the candidates with those of the originals, and sort again. */
static int rerank_pool(const qv_searcher *searcher, const qv_query *query, qv_scratch *s) {
    const qv_codec *codec = searcher->rerank;
    qv_pool *pool = &s->pool;
    for (int start = 0; start < pool->size; start += QV_HOP_MAX) {
        int n = pool->size - start < QV_HOP_MAX ? pool->size - start : QV_HOP_MAX;
        const uint8_t **address = s->address[0];
        if (qv_is_late(s, (size_t)n * (size_t)codec->stride)) return QV_LATE;
        const uint64_t *slots = pool->slots + start;
        if (row_addresses(searcher->vectors, slots, n, (size_t)codec->stride, s->requests, address)) return QV_DAMAGED;
        for (int i = 0; i < n; i += 4) {
            for (int j = i + QV_AHEAD; j < n && j < i + QV_AHEAD + 4; j++)
                qv_prefetch_row(address[j], (size_t)codec->stride);
            codec->score(codec, query, address + i, n - i < 4 ? n - i : 4, s->key + i);
        }
        for (int i = 0; i < n; i++)
            pool->slots[start + i] = qv_candidate(s->key[i], qv_candidate_row(pool->slots[start + i]));
    }
    int size = pool->size;
    s->reranked += (uint64_t)size;
    qv_pool_reset(pool, size);
    for (int i = 0; i < size; i++) { /* insertion in place: slot i is read before the sorted part reaches it */
        if (i % QV_HOP_MAX == 0 && qv_is_late(s, (size_t)i * QV_HOP_MAX * sizeof *pool->slots)) return QV_LATE;
        uint64_t candidate = pool->slots[i];
        qv_pool_insert(pool, candidate);
    }
    return QV_OK;
}

/* `ceiling`: the largest distance of the metric; rounding may exceed it. */
static void write_results(const qv_pool *pool, int k, float ceiling, const qv_batch *batch, size_t q) {
    int64_t *rows = batch->rows + q * (size_t)k;
    float *distances = batch->distances + q * (size_t)k;
    int n = pool->size < k ? pool->size : k;
    for (int i = 0; i < n; i++) {
        rows[i] = qv_candidate_row(pool->slots[i]);
        float key = qv_candidate_key(pool->slots[i]);
        distances[i] = key > ceiling ? ceiling : key;
    }
    for (int i = n; i < k; i++) {
        rows[i] = -1;
        distances[i] = INFINITY;
    }
    batch->counts[q] = n;
}

static int reranks(const qv_searcher *searcher, const qv_search_params *p) {
    return searcher->rerank && p->candidates > 0 && !p->exact;
}

/* Cosine distances end at 2. Keys of binary codes count bits. */
static float ceiling_of(const qv_searcher *searcher, const qv_search_params *p) {
    const qv_codec *codec = searcher->rerank && (p->exact || p->candidates > 0) ? searcher->rerank : searcher->codec;
    return codec->metric == QV_COSINE && codec->kind != QV_BINARY ? 2.0f : INFINITY;
}

static void prepare_original(const qv_searcher *searcher, const qv_batch *batch, size_t q, qv_scratch *s) {
    qv_prepare(searcher->rerank, batch->queries + q * batch->dim, (qv_query *)s->other);
}

/* The query, transformed for the codes; valid until the next call. */
static const float *mapped(const qv_searcher *searcher, const qv_batch *batch, size_t q, qv_scratch *s) {
    const float *query = batch->queries + q * batch->dim;
    return searcher->map ? qv_map_query(searcher->map, query, s->mapped) : query;
}

/* Re-rank s->pool with the query in s->other, unless `ranked`, and write the results. */
static int finish(const qv_searcher *searcher, const qv_search_params *p, const qv_batch *batch, size_t q, int ranked,
                  qv_scratch *s) {
    if (reranks(searcher, p) && !ranked) {
        int status = rerank_pool(searcher, (const qv_query *)s->other, s);
        if (status) return status;
    }
    end_phase(searcher, s, QV_RERANK);
    write_results(&s->pool, p->k, ceiling_of(searcher, p), batch, q);
    end_phase(searcher, s, QV_WRITE);
    return QV_OK;
}

static int n_candidates(const qv_search_params *p) { return p->candidates > p->k ? p->candidates : p->k; }

/* Whether a scan reads the originals: if an exact search is wanted and originals are stored. */
static int scans_originals(const qv_searcher *searcher, const qv_search_params *p) {
    return p->exact && searcher->rerank;
}

static qv_scan_source source_of(const qv_searcher *searcher, const qv_search_params *p) {
    int fine = scans_originals(searcher, p);
    return (qv_scan_source){fine ? searcher->rerank : searcher->codec, fine ? searcher->vectors : searcher->codes,
                            searcher->n, &p->selection};
}

/* Scan for up to QV_TILE queries from q on; each row is read from memory once for all of them. */
static int scan_tile(const qv_searcher *searcher, const qv_search_params *p, const qv_batch *batch, size_t q,
                     qv_scratch *s) {
    qv_scan_source source = source_of(searcher, p);
    int fine = scans_originals(searcher, p), n = batch->n - q < QV_TILE ? (int)(batch->n - q) : QV_TILE;
    int keep = fine ? p->k : n_candidates(p);
    if (qv_scratch_reserve_tile(s, keep, (size_t)source.codec->query_size)) return QV_NO_MEMORY;
    qv_begin_query(s);
    for (int i = 0; i < n; i++) {
        const float *x =
            fine ? batch->queries + (q + (size_t)i) * batch->dim : mapped(searcher, batch, q + (size_t)i, s);
        qv_prepare(source.codec, x, (qv_query *)(s->tile_queries + (size_t)i * s->tile_query_size));
        qv_pool_reset(&s->tile[i], keep);
    }
    end_phase(searcher, s, QV_PREPARE);
    int status = qv_scan(&source, s->tile_queries, s->tile_query_size, s->tile, n, s);
    end_phase(searcher, s, QV_FIND);
    qv_pool own = s->pool;
    for (int i = 0; i < n && !status; i++) {
        s->pool = s->tile[i];
        if (reranks(searcher, p)) prepare_original(searcher, batch, q + (size_t)i, s);
        status = finish(searcher, p, batch, q + (size_t)i, 0, s);
    }
    s->pool = own;
    return status;
}

/* Whether a filtered search ended with too few rows, because its start rows are not connected to the others. */
static int is_cut_off(const qv_selection *selection, const qv_pool *pool) {
    uint32_t capacity = (uint32_t)pool->capacity,
             enough = selection->n_allowed < capacity ? selection->n_allowed : capacity;
    return selection->seeds && (uint32_t)pool->size < enough;
}

static int reserve(const qv_searcher *searcher, const qv_search_params *p, qv_scratch *s) {
    int pool = p->ef > n_candidates(p) ? p->ef : n_candidates(p);
    size_t query_size = (size_t)searcher->codec->query_size;
    if (searcher->rerank && (size_t)searcher->rerank->query_size > query_size)
        query_size = (size_t)searcher->rerank->query_size;
    if (searcher->map && qv_scratch_reserve_map(s, qv_map_floats(searcher->map))) return QV_NO_MEMORY;
    return qv_scratch_reserve(s, pool, searcher->n, query_size);
}

/* Score the rows that the index does not contain, by originals if the candidates are `ranked` by them. */
static int add_unindexed(const qv_searcher *searcher, const qv_search_params *p, int ranked, qv_scratch *s) {
    qv_scan_source source = {ranked ? searcher->rerank : searcher->codec, ranked ? searcher->vectors : searcher->codes,
                             searcher->n, &p->selection};
    const uint8_t *query = ranked ? s->other : s->query;
    uint32_t left = searcher->n_unindexed;
    s->pool.capacity = ranked ? p->k : n_candidates(p);
    if (s->pool.size > s->pool.capacity) s->pool.size = s->pool.capacity;
    for (const uint32_t *rows = searcher->unindexed; left;) {
        uint32_t n = left < QV_HOP_MAX ? left : QV_HOP_MAX, allowed = 0;
        for (uint32_t i = 0; i < n; i++) {
            s->row[1][allowed] = rows[i];
            allowed += !qv_is_excluded(&p->selection, rows[i]);
        }
        rows += n, left -= n;
        if (!allowed) continue;
        qv_selection some = {.rows = s->row[1], .n_rows = allowed};
        source.selection = &some;
        int status = qv_scan(&source, query, 0, &s->pool, 1, s);
        if (status) return status;
    }
    return QV_OK;
}

/* Find candidates with the index. Returns QV_RANKED, QV_OK, QV_TOO_FEW if fewer than k allowed rows were found, or
 * an error. */
static int find_candidates(const qv_searcher *searcher, const qv_search_params *p, const float *query,
                           const float *as_coded, qv_scratch *s) {
    const qv_selection *selection = &p->selection;
    int status = searcher->finder.find(searcher->finder.index, p, query, as_coded, s);
    if (status < 0) return status;
    int cut_off = is_cut_off(selection, &s->pool);
    filter_results(&s->pool, selection, n_candidates(p));
    if (searcher->n_unindexed) {
        int scanned = add_unindexed(searcher, p, status == QV_RANKED, s);
        if (scanned) return scanned;
    }
    uint32_t wanted = (uint32_t)p->k < selection->n_allowed ? (uint32_t)p->k : selection->n_allowed;
    return cut_off || (uint32_t)s->pool.size < wanted ? QV_TOO_FEW : status;
}

/* Repeat with a larger candidate list: a narrow search over packed nodes may end before it has expanded k. */
static int find_wider(const qv_searcher *searcher, const qv_search_params *p, const float *query, const float *as_coded,
                      qv_scratch *s) {
    qv_search_params wider = *p;
    wider.ef = WIDER * n_candidates(p);
    if (p->nprobe || p->selection.seeds || p->ef >= wider.ef) return QV_TOO_FEW;
    return reserve(searcher, &wider, s) ? QV_NO_MEMORY : find_candidates(searcher, &wider, query, as_coded, s);
}

/* Run one query with the index. If it finds too few rows, scan: k results if k rows are allowed. */
static int find_one(const qv_searcher *searcher, const qv_search_params *p, const qv_batch *batch, size_t q,
                    qv_scratch *s) {
    const float *query = batch->queries + q * batch->dim, *as_coded = mapped(searcher, batch, q, s);
    qv_begin_query(s);
    qv_prepare(searcher->codec, as_coded, (qv_query *)s->query);
    if (reranks(searcher, p)) prepare_original(searcher, batch, q, s);
    end_phase(searcher, s, QV_PREPARE);
    int status = find_candidates(searcher, p, query, as_coded, s);
    if (status == QV_TOO_FEW) status = find_wider(searcher, p, query, as_coded, s);
    int ranked = status == QV_RANKED;
    if (status == QV_TOO_FEW) {
        qv_scan_source source = source_of(searcher, p);
        qv_pool_reset(&s->pool, n_candidates(p));
        status = qv_scan(&source, s->query, 0, &s->pool, 1, s);
        ranked = 0;
    }
    end_phase(searcher, s, QV_FIND);
    return status < 0 ? status : finish(searcher, p, batch, q, ranked, s);
}

int qv_search(const qv_searcher *searcher, const qv_search_params *p, const qv_batch *batch, qv_scratch *s) {
    int by_scan = !searcher->finder.find || p->exact || p->selection.rows;
    int status = reserve(searcher, p, s) ? QV_NO_MEMORY : QV_OK;
    end_phase(searcher, s, QV_PHASES);
    for (size_t q = 0; q < batch->n && !status; q += by_scan ? QV_TILE : 1) {
        status = by_scan ? scan_tile(searcher, p, batch, q, s) : find_one(searcher, p, batch, q, s);
    }
    return status;
}
