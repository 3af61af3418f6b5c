/* The open candidates of a search over estimates: unsorted, possibly with duplicates, compacted when they exceed the
 * limit.
 *
 * A sorted list would move entries for each new candidate, and a hop adds up to 32. Here a candidate is appended,
 * and the nearest one is found by a pass over all entries, which compiles to a few vector instructions. An entry is
 * the candidate's key as an integer that orders like the float, with its low bits replaced by the entry's index. The
 * estimates are less precise than these bits. Entries are padded to whole groups of QV_BEAM_GROUP. */
#ifndef QV_BEAM_H
#define QV_BEAM_H

#include "codec/simd.h"

#include <string.h>

#define QV_BEAM_GROUP 16
#define QV_BEAM_NONE INT32_MAX /* above every key */
#define QV_BEAM_SLACK 32       /* entries above the width after which the beam is compacted */

typedef struct {
    int32_t *open;  /* entries of candidates that are not expanded yet */
    uint32_t *row;  /* their rows */
    int32_t *taken; /* keys of expanded candidates, which still count as some of the nearest `width` */
    int n_open, n_taken, width;
    int n_compacted; /* n_taken after the last compaction; each later pop left a gap among the open entries */
    int32_t places;  /* mask of the bits of an entry that contain its index */
    float bound;     /* upper limit of keys that are added: +inf until there are `width` entries */
} qv_beam;

typedef int32_t qv_beam_group __attribute__((vector_size(4 * QV_BEAM_GROUP), aligned(4), may_alias));

/* Convert a key to an integer that orders like the float. */
QV_INLINE int32_t qv_beam_ordered(float key) {
    int32_t bits;
    memcpy(&bits, &key, sizeof bits);
    return bits ^ (bits >> 31 & INT32_MAX);
}

QV_INLINE float qv_beam_float(int32_t ordered) {
    float key;
    ordered ^= ordered >> 31 & INT32_MAX;
    memcpy(&key, &ordered, sizeof key);
    return key;
}

/* Capacity of each of the three arrays, in entries. */
static inline size_t qv_beam_entries(int width) {
    size_t most = (size_t)width + 2 * QV_BEAM_SLACK + QV_BEAM_GROUP;
    return (most + QV_BEAM_GROUP - 1) / QV_BEAM_GROUP * QV_BEAM_GROUP;
}

static inline size_t qv_beam_bytes(int width) { return qv_beam_entries(width) * 3 * sizeof(int32_t); }

QV_INLINE void qv_beam_pad(int32_t *entries, int n) {
    *(qv_beam_group *)(entries + n) = (qv_beam_group){0} + QV_BEAM_NONE;
}

/* Initialize an empty beam in qv_beam_bytes(width) bytes at `buffer`. */
static inline void qv_beam_reset(qv_beam *beam, void *buffer, int width) {
    size_t each = qv_beam_entries(width);
    *beam = (qv_beam){.open = buffer, .width = width, .bound = __builtin_inff(), .places = 1};
    beam->row = (uint32_t *)(beam->open + each);
    beam->taken = (int32_t *)(beam->row + each);
    while ((size_t)beam->places < each) beam->places = 2 * beam->places + 1;
    memset(beam->row, 0xFF,
           each * sizeof *beam->row); /* whole groups are compared, so no row of an earlier search may be left */
    qv_beam_pad(beam->open, 0);
    qv_beam_pad(beam->taken, 0);
}

/* n, rounded up to whole groups. */
QV_INLINE int qv_beam_padded(int n) { return (int)((unsigned)(n + QV_BEAM_GROUP - 1) / QV_BEAM_GROUP * QV_BEAM_GROUP); }

/* The entry of a candidate, without its index. */
QV_INLINE int32_t qv_beam_entry(const qv_beam *beam, float key) { return qv_beam_ordered(key) & ~beam->places; }

/* Remove the nearest candidate and its duplicates. Returns 0 if there is none. */
QV_INLINE int qv_beam_pop(qv_beam *beam, uint32_t *row) {
    int32_t *open = beam->open, nearest = QV_BEAM_NONE;
    const uint32_t *rows = beam->row;
    int n = qv_beam_padded(beam->n_open);
    for (int i = 0; i < n; i++) nearest = open[i] < nearest ? open[i] : nearest;
    if (nearest == QV_BEAM_NONE) return 0;
    uint32_t taken = rows[nearest & beam->places];
    for (int i = 0; i < n; i++) open[i] = rows[i] == taken ? QV_BEAM_NONE : open[i];
    beam->taken[beam->n_taken++] = nearest;
    *row = taken;
    return 1;
}

QV_INLINE int qv_beam_count(const int32_t *entries, int n, int32_t limit) {
    int count = 0, whole = qv_beam_padded(n);
    for (int i = 0; i < whole; i++) count += entries[i] <= limit;
    return count;
}

QV_INLINE int qv_beam_within(const qv_beam *beam, int32_t limit) {
    return qv_beam_count(beam->open, beam->n_open, limit) + qv_beam_count(beam->taken, beam->n_taken, limit);
}

QV_INLINE int32_t qv_beam_least(const int32_t *entries, int n, int32_t least) {
    int whole = qv_beam_padded(n);
    for (int i = 0; i < whole; i++) least = entries[i] < least ? entries[i] : least;
    return least;
}

/* Find, by bisection, a limit that `width` to `most` entries do not exceed; the highest entry if there are fewer. */
QV_INLINE int32_t qv_beam_limit(const qv_beam *beam, int most) {
    int32_t high = qv_beam_ordered(beam->bound);
    if (qv_beam_within(beam, high) <= most) return high;
    int32_t low = qv_beam_least(beam->taken, beam->n_taken, qv_beam_least(beam->open, beam->n_open, high));
    while (low < high) {
        int32_t middle = (int32_t)(((int64_t)low + high) >> 1);
        int count = qv_beam_within(beam, middle);
        if (count > most) high = middle;
        else if (count < beam->width) low = middle + 1;
        else return middle;
    }
    return high;
}

/* Keep the first `most` of n open entries up to a limit, with their rows, and number them. Returns how many are kept. */
typedef int qv_beam_keep_fn(qv_beam *beam, int32_t limit, int most);

QV_INLINE int qv_beam_keep(qv_beam *beam, int32_t limit, int most) {
    int kept = 0;
    for (int i = 0; i < beam->n_open; i++) {
        int32_t entry = beam->open[i];
        beam->open[kept] = (entry & ~beam->places) | kept;
        beam->row[kept] = beam->row[i];
        kept += entry <= limit && kept < most;
    }
    return kept;
}

#if defined(__x86_64__)
/* A group's kept entries are stored whole, over entries that were read before. */
QV_TARGET_AVX512 QV_INLINE int qv_beam_keep_avx512(qv_beam *beam, int32_t limit, int most) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i highest = _mm512_set1_epi32(limit), places = _mm512_set1_epi32(beam->places);
    int kept = 0;
    for (int i = 0; i < beam->n_open; i += QV_BEAM_GROUP) {
        __m512i entries = _mm512_loadu_si512(beam->open + i), rows = _mm512_loadu_si512(beam->row + i);
        __mmask16 mask = _mm512_cmple_epi32_mask(entries, highest);
        __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(kept));
        entries = _mm512_maskz_compress_epi32(mask, _mm512_andnot_si512(places, entries));
        _mm512_storeu_si512(beam->open + kept, _mm512_or_si512(entries, numbers));
        _mm512_storeu_si512(beam->row + kept, _mm512_maskz_compress_epi32(mask, rows));
        kept += __builtin_popcount(mask);
    }
    return kept < most ? kept : most;
}
#endif

/* Compact: drop all but about the nearest `width` entries. */
QV_INLINE void qv_beam_compact(qv_beam *beam, qv_beam_keep_fn keep) {
    int most = beam->width + 2 + beam->width / 32;
    qv_beam_pad(beam->taken, beam->n_taken); /* entries added since the last compaction may end in a partial group */
    int32_t limit = qv_beam_limit(beam, most);
    int n_taken = 0;
    for (int i = 0; i < beam->n_taken; i++) {
        beam->taken[n_taken] = beam->taken[i];
        n_taken += beam->taken[i] <= limit && n_taken < most;
    }
    beam->n_taken = beam->n_compacted = n_taken;
    beam->n_open = keep(beam, limit, most - n_taken);
    qv_beam_pad(beam->taken, n_taken);
    if (beam->n_open + n_taken >= beam->width) beam->bound = qv_beam_float(limit);
}

/* Call after appending candidates, at most 2 * QV_BEAM_SLACK of them. */
QV_INLINE void qv_beam_commit(qv_beam *beam, qv_beam_keep_fn keep) {
    qv_beam_pad(beam->open, beam->n_open);
    if (beam->n_open + beam->n_compacted < beam->width + QV_BEAM_SLACK) return;
    qv_beam_compact(beam, keep);
    qv_beam_pad(beam->open, beam->n_open);
}

#endif
