/* A list during a search: its position, and the bounds of its blocks. */
#ifndef QV_TEXT_CURSOR_H
#define QV_TEXT_CURSOR_H

#include "search/search.h"
#include "text/score.h"

/* Sums of bounds are compared in float arithmetic: this much more is added to them. */
#define SLACK 1.00001f

/* A list during a search. */
typedef struct {
    const qv_query_list *query_list;
    const uint8_t *directory; /* NULL: inline */
    uint32_t n_blocks, block; /* the first block that does not end before the window */
    uint32_t decoded;         /* the block in rows and values */
    uint32_t n, at;           /* postings in rows, the first that was not used */
    float bound;              /* in the window */
    uint32_t rows[QV_POSTINGS], values[QV_POSTINGS];
} cursor;

static inline float bound_of(const qv_text_field *field, float weight, uint32_t value, uint32_t length) {
    if (field->lengths == NULL) return weight * (float)value * SLACK;
    if (value == QV_VALUE_MAX) return weight * SLACK;
    return weight * ((float)value / ((float)value + field->base + field->slope * (float)length)) * SLACK;
}

static inline float block_bound(const cursor *c, const qv_text_field *field, uint32_t block) {
    const uint8_t *entry = c->directory + (size_t)QV_DIRECTORY_ENTRY * block;
    uint16_t most;
    memcpy(&most, entry + 10, 2);
    return bound_of(field, c->query_list->weight, most, qv_get32(entry + 12));
}

static inline uint32_t last_of(const cursor *c, uint32_t block) {
    return c->directory ? qv_get32(c->directory + (size_t)QV_DIRECTORY_ENTRY * block) : c->rows[c->n - 1];
}

/* The least row that a block may have. */
static inline uint32_t first_of(const cursor *c, uint32_t block) {
    if (c->directory == NULL) return c->rows[0];
    return block ? last_of(c, block - 1) + 1 : c->query_list->segment->first_row;
}

static inline int begin(cursor *c, const qv_query_list *query_list) {
    c->query_list = query_list;
    c->block = c->at = c->n = 0, c->decoded = UINT32_MAX;
    c->directory = NULL;
    c->n_blocks = query_list->list.inline_at ? 1 : qv_plist_blocks(&query_list->list);
    if (query_list->list.inline_at) {
        int n = qv_plist_inline(query_list->segment, &query_list->list, c->rows, c->values);
        if (n <= 0) return QV_DAMAGED;
        c->n = (uint32_t)n, c->decoded = 0;
        return QV_OK;
    }
    c->directory = qv_plist_directory(query_list->segment, &query_list->list);
    return c->directory == NULL ? QV_DAMAGED : QV_OK;
}

/* The bound of a list in the window [start, stop); below zero: it has no rows there. */
static inline float window_bound(const cursor *c, const qv_text_field *field, uint32_t stop) {
    float bound = -1;
    if (c->directory == NULL) {
        if (c->rows[0] >= stop) return -1;
        uint32_t most = 0;
        for (uint32_t i = 0; i < c->n; i++) most = c->values[i] > most ? c->values[i] : most;
        return bound_of(field, c->query_list->weight, most < QV_VALUE_MAX ? most : QV_VALUE_MAX, 0);
    }
    for (uint32_t block = c->block; block < c->n_blocks && first_of(c, block) < stop; block++) {
        float of = block_bound(c, field, block);
        bound = of > bound ? of : bound;
    }
    return bound;
}

/* Blocks of a list in the window that ends before `stop`. */
static inline uint32_t blocks_in(const cursor *c, uint32_t stop) {
    uint32_t block = c->block;
    while (block < c->n_blocks && first_of(c, block) < stop) block++;
    return block - c->block;
}

/* About how many postings a list has in the window. */
static inline uint64_t postings_in(const cursor *c, uint32_t start, uint32_t stop) {
    if (c->directory == NULL) return c->n;
    uint32_t block = c->block;
    while (block < c->n_blocks && first_of(c, block) < stop) block++;
    uint64_t span = (uint64_t)last_of(c, block - 1) - first_of(c, c->block) + 1,
             n = (uint64_t)(block - c->block) * QV_POSTINGS;
    uint32_t size = stop - start;
    return span > size ? n * size / span : n;
}

#endif
