/* Search of inverted lists: scan the nearest lists in order, and score by its code each entry whose lower bound is
 * below the k-th best key so far (a later place if many candidates are wanted).
 *
 * Codes of one bit per dimension are as inexact as entries, and their errors are independent, because lists have their
 * own rotation. The mean of both estimates, weighted by the inverse of their variances, is more exact than either. */
#include "ivf/lists.h"

#include "codec/lanes.h"
#include "codec/rows.h"

#include <stdlib.h>

#define STAGED_MIN 8   /* staged rows that are worth a scoring call */
#define FIRST_READS 32 /* originals that are requested together before there is a bound, and after that */
#define MORE_READS 64
/* Factor of the margin below estimates. Searches in memory score entries before their bound is tight, and find some whose
 * margin is too small. With this factor, the recall from the disk is lower by about .001 (docs/adr/0034). */
#define DISK_MARGIN 1.15f
#define ENTRY_SIGMA 1.9f /* the error of an entry is this many standard deviations (fastscan.c) */
/* A randomly rotated y of d dimensions has sum |y_i| = sqrt(2 d / pi) |y|, nearly. By RaBitQ's bound (theorem 3.2), the
 * estimate of <q, y> from signs, with the scale s = |y|^2 / sum |y_i|, then has the standard deviation
 * |q| s sqrt(1 - 2 / pi), and |y|^2 = 2 / pi * d s^2. */
#define CODE_SIGMA 0.6028f
#define CODE_NORM2 0.6366f

/* State of one search. */
typedef struct {
    qv_ivf *ivf;
    const qv_search_params *params;
    qv_scratch *s;
    qv_coarse_query coarse;
    const qv_codec *codec;
    const qv_query *query;
    qv_column *rows;
    float share, offset; /* key of a code = share * key of a list + offset */
    int rank;            /* slot of the key that is the bound */
    float seed; /* bound from the estimates in the nearest list, used until the candidate list has a better one */
    int stage, staged, aged;                             /* aged: rows staged before, whose codes have arrived */
    int averages;                                        /* whether keys are means of the code's and the entry's */
    float estimate[2][QV_HOP_MAX], error[2][QV_HOP_MAX]; /* of staged entries, as keys of lists */
} search;

/* Upper limit for the lower bounds of entries, as a key of lists. */
static float entry_bound(const search *f) {
    const qv_pool *pool = &f->s->pool;
    if (pool->size <= f->rank || !f->ivf->comparable) return f->seed;
    float bound = (qv_candidate_key(pool->slots[f->rank]) - f->offset) / f->share;
    return bound < f->seed ? bound : f->seed;
}

/* The mean of the key of a code and the estimate of its entry, both keys of codes, by the inverse of their variances. */
static float average(const search *f, float key, const uint8_t *code, float estimate, float error) {
    int ip = f->codec->metric == QV_IP;
    float scale = qv_row_factors(f->codec, code).scale, entry = f->share * estimate + f->offset;
    float distance2 = f->coarse.norm2; /* of the query from what the code is relative to, at most */
    float near = key / f->share + CODE_NORM2 * (float)f->codec->dim * scale * scale;
    if (!ip && near < distance2) distance2 = near > 0 ? near : 0;
    float deviation = (ip ? 1 : 2) * f->share * CODE_SIGMA * scale, own = f->share * error / ENTRY_SIGMA;
    float of_code = distance2 * deviation * deviation, of_entry = own * own;
    if (ip && of_entry < of_code) of_entry = of_code; /* errors of inexact vectors are not counted under ip */
    float sum = of_code + of_entry;
    if (!(sum > 0) || !isfinite(sum)) return key;
    float mean = key + of_code / sum * (entry - key);
    return mean > 0 || ip ? mean : 0;
}

static void score_aged(search *f) {
    int stage = f->stage ^ 1, n = f->aged;
    f->aged = 0;
    if (n && !f->averages) qv_score_staged(f->codec, NULL, f->query, stage, n, f->s);
    if (n == 0 || !f->averages) return;
    qv_scratch *s = f->s;
    f->codec->score(f->codec, f->query, s->address[stage], n, s->key);
    s->evaluations += (uint64_t)n;
    for (int i = 0; i < n; i++) {
        float key = average(f, s->key[i], s->address[stage][i], f->estimate[stage][i], f->error[stage][i]);
        if (key <= qv_pool_bound(&s->pool)) qv_pool_insert(&s->pool, qv_candidate(key, s->row[stage][i]));
    }
}

/* Staged rows are scored after the next group is staged, when their prefetched codes have arrived. */
static void turn_stages(search *f) {
    score_aged(f);
    f->aged = f->staged;
    f->staged = 0;
    f->stage ^= 1;
}

static int stage_entries(search *f, const qv_list_block *block, uint32_t places, const qv_estimate_terms *terms,
                         const float *estimates) {
    qv_scratch *s = f->s;
    for (; places; places &= places - 1) {
        int place = __builtin_ctz(places);
        uint32_t row = block->rows[place];
        if (row >= f->ivf->lists.n || qv_is_excluded(&f->params->selection, row) || qv_visit(&s->visited, row))
            continue;
        const uint8_t *address = s->requests ? qv_lone_row(f->rows, row) : qv_row(f->rows, row);
        if (!address) return QV_DAMAGED;
        qv_prefetch_row(address, (size_t)f->codec->stride);
        f->estimate[f->stage][f->staged] = estimates[place];
        f->error[f->stage][f->staged] = terms->distance * block->error[place];
        s->row[f->stage][f->staged] = row;
        s->address[f->stage][f->staged++] = address;
    }
    if (f->staged >= STAGED_MIN) turn_stages(f);
    return QV_OK;
}

/* Under inner product, <q, v> = <q, c> + t <c, r> + <q - t c, r> for any t. The t that makes q - t
 * c shortest has the least error. */
static qv_estimate_terms terms_of(const search *f, const qv_list *list, float key) {
    const qv_coarse_query *coarse = &f->coarse;
    if (f->ivf->lists.metric != QV_IP) {
        key -= list->spread;
        return (qv_estimate_terms){key, 1, coarse->unit, sqrtf(key > 0 ? key : 0)};
    }
    float along = list->norm2 > 0 ? -key / list->norm2 : 0, rest = coarse->norm2 + along * key;
    return (qv_estimate_terms){key, along, coarse->unit, sqrtf(rest > 0 ? rest : 0)};
}

/* Address of a block, NULL if the number is out of range. */
static const qv_list_block *block_at(qv_lists *lists, uint32_t block) {
    return block < lists->n_blocks ? (const qv_list_block *)qv_row(lists->blocks, block) : NULL;
}

static int scan_list(search *f, uint32_t number, float key) {
    qv_lists *lists = &f->ivf->lists;
    const qv_list *list = (const qv_list *)qv_row(lists->lists, number);
    if (!list || list->n > lists->n) return QV_DAMAGED;
    qv_estimate_terms terms = terms_of(f, list, key);
    size_t bytes = sizeof(qv_list_block) + qv_fs_bytes(lists->dims);
    const qv_list_block *block = list->n ? block_at(lists, list->head) : NULL;
    for (uint32_t left = list->n ? (list->n - 1) / QV_FS_VECTORS + 1 : 0; left; left--) {
        if (!block) return QV_DAMAGED;
        if (qv_is_late(f->s, bytes)) return QV_LATE;
        const qv_list_block *next = left > 1 ? block_at(lists, block->next) : NULL;
        if (next) qv_prefetch_row(next, bytes);
        float estimates[QV_FS_VECTORS];
        uint32_t places = qv_list_below(lists, block, f->coarse.table, &terms, entry_bound(f), estimates);
        if (places && stage_entries(f, block, places, &terms, estimates)) return QV_DAMAGED;
        block = next;
    }
    return QV_OK;
}

/* Prefetch the first block of the next list during the scan of a list. */
static void fetch_list(search *f, uint32_t number) {
    qv_lists *lists = &f->ivf->lists;
    const qv_list *list = (const qv_list *)qv_row(lists->lists, number);
    const qv_list_block *block = list ? block_at(lists, list->head) : NULL;
    if (block) qv_prefetch_row(block, sizeof *block + qv_fs_bytes(lists->dims));
}

/* Derive a first bound from the nearest list: the rank-th smallest upper bound of its keys. Without it, all rows of
 * the first blocks would be scored. */
static int seed_bound(search *f) {
    qv_lists *lists = &f->ivf->lists;
    uint64_t nearest = f->coarse.near.slots[0];
    const qv_list *list = (const qv_list *)qv_row(lists->lists, qv_candidate_row(nearest));
    if (!list || list->n > lists->n) return QV_DAMAGED;
    qv_estimate_terms terms = terms_of(f, list, qv_candidate_key(nearest));
    uint32_t number = list->head;
    qv_pool_reset(&f->s->pool, f->rank + 1);
    for (uint32_t left = list->n ? (list->n - 1) / QV_FS_VECTORS + 1 : 0; left; left--) {
        const qv_list_block *block = block_at(lists, number);
        if (!block) return QV_DAMAGED;
        if (qv_is_late(f->s, sizeof *block + qv_fs_bytes(lists->dims))) return QV_LATE;
        float estimates[QV_FS_VECTORS];
        qv_list_estimates(lists, block, f->coarse.table, &terms, estimates);
        for (int i = 0; i < QV_FS_VECTORS; i++) {
            float upper = estimates[i] + terms.distance * block->error[i];
            if (!(upper < qv_pool_bound(&f->s->pool))) continue;
            if (block->rows[i] >= lists->n || qv_is_excluded(&f->params->selection, block->rows[i])) continue;
            qv_pool_insert(&f->s->pool, qv_candidate(upper, block->rows[i]));
        }
        number = block->next;
    }
    f->seed = qv_pool_bound(&f->s->pool);
    return QV_OK;
}

static int scan_lists(search *f) {
    const qv_pool *near = &f->coarse.near;
    for (int i = 0; i < near->size; i++) {
        if (i + 1 < near->size) fetch_list(f, qv_candidate_row(near->slots[i + 1]));
        int status = scan_list(f, qv_candidate_row(near->slots[i]), qv_candidate_key(near->slots[i]));
        if (status) return status;
    }
    turn_stages(f);
    turn_stages(f);
    return QV_OK;
}

/* --- searches that read originals from the disk: entries are ranked before any original is read --- */

/* Collect the entries of a list whose lower bounds are below the bound: with `bounded`, the rank-th smallest upper
 * bound so far, which is kept in the candidate list. */
static int collect_list(search *f, uint32_t number, float key, int bounded) {
    qv_scratch *s = f->s;
    qv_lists *lists = &f->ivf->lists;
    const qv_list *list = (const qv_list *)qv_row(lists->lists, number);
    if (!list || list->n > lists->n) return QV_DAMAGED;
    qv_estimate_terms terms = terms_of(f, list, key), wide = terms;
    wide.distance *= DISK_MARGIN;
    uint32_t at = list->head;
    for (uint32_t left = list->n ? (list->n - 1) / QV_FS_VECTORS + 1 : 0; left; left--) {
        const qv_list_block *block = block_at(lists, at);
        if (!block) return QV_DAMAGED;
        if (qv_is_late(s, sizeof *block + qv_fs_bytes(lists->dims))) return QV_LATE;
        const qv_list_block *next = left > 1 ? block_at(lists, block->next) : NULL;
        if (next) qv_prefetch_row(next, sizeof *next + qv_fs_bytes(lists->dims));
        float estimates[QV_FS_VECTORS];
        uint32_t places = qv_list_below(lists, block, f->coarse.table, &wide, f->seed, estimates);
        for (; places; places &= places - 1) {
            int i = __builtin_ctz(places);
            uint32_t row = block->rows[i];
            float margin = terms.distance * block->error[i];
            if (row >= lists->n || qv_is_excluded(&f->params->selection, row) || qv_visit(&s->visited, row)) continue;
            if (qv_put_later(s, qv_candidate(estimates[i] - DISK_MARGIN * margin, row))) return QV_NO_MEMORY;
            if (!bounded) continue;
            qv_pool_insert(&s->pool, qv_candidate(estimates[i] + margin, row));
            f->seed = qv_pool_bound(&s->pool);
        }
        at = block->next;
    }
    return QV_OK;
}

/* Drop the collected entries that are not below the last bound. */
static void drop_collected(search *f) {
    qv_scratch *s = f->s;
    size_t kept = 0;
    for (size_t i = 0; i < s->n_later; i++) {
        s->later[kept] = s->later[i];
        kept += qv_candidate_key(s->later[i]) < f->seed;
    }
    s->n_later = kept;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Score the collected entries in the order of their lower bounds, until these exceed the bound. Their originals are
 * requested many at a time, so that the disk reads them together. */
static int score_collected(search *f) {
    qv_scratch *s = f->s;
    drop_collected(f);
    qsort(s->later, s->n_later, sizeof *s->later, ascending);
    for (size_t at = 0, most = FIRST_READS; at < s->n_later; most = MORE_READS) {
        float bound = entry_bound(f);
        int n = 0;
        while (at + (size_t)n < s->n_later && (size_t)n < most && qv_candidate_key(s->later[at + (size_t)n]) < bound)
            n++;
        for (int i = 0; s->requests && i < n; i++) qv_request_row(f->rows, qv_candidate_row(s->later[at + (size_t)i]));
        if (n == 0) break;
        if (qv_is_late(s, (size_t)n * (size_t)f->codec->stride)) return QV_LATE;
        for (int i = 0; i < n; i++) {
            s->row[0][i] = qv_candidate_row(s->later[at + (size_t)i]);
            s->address[0][i] = qv_lone_row(f->rows, s->row[0][i]);
            if (!s->address[0][i]) return QV_DAMAGED;
            qv_prefetch_row(s->address[0][i], (size_t)f->codec->stride);
        }
        qv_score_staged(f->codec, NULL, f->query, 0, n, s);
        at += (size_t)n;
    }
    return QV_OK;
}

/* Request the first blocks of the lists that are scanned, if they were never read. */
static void request_lists(search *f) {
    qv_lists *lists = &f->ivf->lists;
    for (int i = 0; i < f->coarse.near.size; i++) {
        const qv_list *list = (const qv_list *)qv_row(lists->lists, qv_candidate_row(f->coarse.near.slots[i]));
        if (!list || list->n == 0 || list->head >= lists->n_blocks) continue;
        if (lists->blocks->table[qv_block_of(lists->blocks, list->head)] == NULL)
            qv_request_row(lists->blocks, list->head);
    }
}

/* first: the candidate list is empty; otherwise it contains fewer rows than wanted, and there is no bound. */
static int scan_for_disk(search *f, int first, int keep) {
    const qv_pool *near = &f->coarse.near;
    f->s->n_later = 0;
    if (first) qv_pool_reset(&f->s->pool, f->rank + 1);
    for (int i = 0; i < near->size; i++) {
        if (i + 1 < near->size) fetch_list(f, qv_candidate_row(near->slots[i + 1]));
        int status = collect_list(f, qv_candidate_row(near->slots[i]), qv_candidate_key(near->slots[i]), first);
        if (status) return status;
    }
    if (first) qv_pool_reset(&f->s->pool, keep);
    return score_collected(f);
}

/* Rotate and center the query as the lists' vectors are. Under cosine, 1 - dot is half of the squared distance of unit
 * vectors. Under ip, queries are not centered: the mean's part of the dot product is a constant. */
static void take_query(search *f, const float *original) {
    const qv_lists *lists = &f->ivf->lists;
    float *y = f->coarse.y;
    qv_transform(original, 1, lists->dim, lists->dims, lists->metric == QV_COSINE, NULL, lists->signs, y);
    f->share = lists->metric == QV_COSINE ? 0.5f : 1;
    if (lists->metric == QV_IP) {
        double constant = 0;
        for (int i = 0; i < lists->dims; i += QV_BLOCK) constant -= qv_dot64(y + i, lists->mean + i);
        f->offset = (float)constant;
    } else {
        for (int i = 0; i < lists->dims; i++) y[i] -= lists->mean[i];
    }
    qv_coarse_query_prepare(&f->coarse, lists);
}

static void choose_scorer(search *f) {
    qv_ivf *ivf = f->ivf;
    int by_original = ivf->original != NULL && f->params->candidates > 0;
    f->codec = by_original ? ivf->original : ivf->codec;
    f->rows = by_original ? ivf->originals : ivf->codes;
    f->query = (const qv_query *)(by_original ? f->s->other : f->s->query);
    f->averages = !by_original && f->codec->kind == QV_RABITQ && f->codec->bits == 1;
}

/* If the nprobe lists contain too few results, the search is repeated with more lists. */
int qv_ivf_find(const void *index, const qv_search_params *params, const float *original, const float *transformed,
                qv_scratch *s) {
    (void)transformed; /* lists have their own transformation */
    qv_ivf *ivf = (qv_ivf *)index;
    search f = {.ivf = ivf, .params = params, .s = s, .rank = params->k - 1};
    int n_lists = (int)ivf->lists.n_lists, nprobe = params->nprobe < n_lists ? params->nprobe : n_lists;
    if (nprobe < 1) nprobe = 1;
    int keep = params->candidates > params->k ? params->candidates : params->k, wanted = params->k;
    if ((uint32_t)wanted > params->selection.n_allowed) wanted = (int)params->selection.n_allowed;
    choose_scorer(&f);
    if (f.codec == ivf->original) keep = params->k;
    if (keep / 2 > params->k) f.rank = keep / 2 - 1;
    qv_visited_reset(&s->visited);
    f.seed = INFINITY;
    /* Not s->requests, which depends on earlier queries: both ways may find slightly different rows. */
    int seeded = 0, from_disk = f.codec == ivf->original && ivf->originals->partly_copied;
    for (;; nprobe = nprobe > n_lists / 4 ? n_lists : 4 * nprobe) {
        if (qv_coarse_query_init(&f.coarse, &ivf->lists, nprobe, s)) return QV_NO_MEMORY;
        take_query(&f, original);
        int metric = ivf->lists.metric == QV_IP ? QV_IP : QV_L2;
        int status = qv_coarse_search(&f.coarse, &ivf->lists, nprobe, metric, metric == QV_L2, s);
        if (!status && s->requests) request_lists(&f);
        if (!status && !seeded && ivf->comparable && !from_disk) status = seed_bound(&f);
        if (status) return status;
        if (!seeded && !from_disk) qv_pool_reset(&s->pool, keep);
        status = from_disk ? scan_for_disk(&f, !seeded, keep) : scan_lists(&f);
        seeded = 1;
        if (status) return status;
        if (s->pool.size >= wanted || nprobe == n_lists) break;
    }
    return f.codec == ivf->original ? QV_RANKED : QV_OK;
}
