/* Segments of posting lists: sorted terms, and for each the rows that have it with a value (docs/format.md).
 *
 * A value is the frequency of a term under text, and a weight of 1 to 255 times a scale under sparse. Nothing in a segment
 * is trusted: every position and size is checked before it is used. */
#ifndef QV_SEGMENT_H
#define QV_SEGMENT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "column/column.h"

#define QV_POSTINGS 128  /* postings of a packed block */
#define QV_INLINE_MAX 16 /* longest list that is stored in the dictionary */
#define QV_GROUP_TERMS 16
#define QV_TERM_MAX 200
#define QV_SEGMENT_HEADER 64
#define QV_SEGMENT_STRIDE 64
#define QV_DIRECTORY_ENTRY 16
#define QV_LENGTHS 64 /* lengths in a row of their column */
#define QV_VALUE_MAX 65535

enum { QV_TEXT = 0, QV_SPARSE = 1 };

typedef struct {
    qv_column *column;
    uint32_t part_bytes, n_parts;
    int kind;
    uint32_t n_terms, n_docs, first_row, last_row, n_dictionary,
        dictionary; /* parts of the dictionary: number, first */
    uint64_t n_postings;
} qv_segment;

/* A list, as the dictionary describes it. Inline postings lie from `inline_at` on; otherwise that is NULL. */
typedef struct {
    uint32_t count;
    float scale;
    const uint8_t *inline_at, *inline_end;
    uint32_t at;
} qv_plist;

/* The term at which a reader of the dictionary stands. */
typedef struct {
    const qv_segment *segment;
    uint32_t part, group, n_groups, left; /* terms left in the group */
    const uint8_t *first, *end, *next;    /* of the part; the next term */
    uint8_t term[256];
    unsigned size;
    uint64_t head; /* of the term */
    qv_plist list;
} qv_dictionary;

/* Read the header. Returns 0, or -1 if it is malformed or damaged. Rows of a segment need not exist. */
int qv_segment_open(qv_segment *segment, qv_column *column);

/* Find a term. Returns 1 and the list, 0 if it is not there, or -1 if the dictionary is damaged. */
int qv_segment_find(const qv_segment *segment, const uint8_t *term, unsigned size, qv_plist *list);

/* Walk the dictionary: returns 1 at a term, 0 at the end, -1 if it is damaged. */
void qv_dictionary_begin(qv_dictionary *dictionary, const qv_segment *segment);
int qv_dictionary_next(qv_dictionary *dictionary);

/* The directory of a list that is not inline; NULL if it is damaged. */
const uint8_t *qv_plist_directory(const qv_segment *segment, const qv_plist *list);

/* Decode an inline list, or block `block` of another: at most QV_POSTINGS rows and values. Returns their number, or -1. */
int qv_plist_inline(const qv_segment *segment, const qv_plist *list, uint32_t *rows, uint32_t *values);
int qv_plist_block(const qv_segment *segment, const qv_plist *list, const uint8_t *directory, uint32_t block,
                   uint32_t *rows, uint32_t *values);

static inline uint32_t qv_get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void qv_put32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }

/* The first eight bytes of a term as a number, whose order is that of the bytes; zeros follow a shorter term. */
static inline uint64_t qv_head_of(const uint8_t *term, unsigned size) {
    uint64_t head = 0;
    if (size >= 8) {
        memcpy(&head, term, 8);
    } else if (size >= 4) {
        uint32_t first, last;
        memcpy(&first, term, 4), memcpy(&last, term + size - 4, 4);
        head = first | (uint64_t)last << (8 * size - 32);
    } else {
        for (unsigned i = 0; i < size; i++) head |= (uint64_t)term[i] << 8 * i;
    }
    return __builtin_bswap64(head);
}

static inline uint32_t qv_plist_blocks(const qv_plist *list) { return (list->count + QV_POSTINGS - 1) / QV_POSTINGS; }

/* Read a varint of at most 35 bits. Returns the address after it, or NULL. */
static inline const uint8_t *qv_get_varint(const uint8_t *at, const uint8_t *end, uint64_t *value) {
    uint64_t sum = 0;
    if (at < end && *at < 128) { /* most have one byte */
        *value = *at;
        return at + 1;
    }
    for (int shift = 0; shift < 35; shift += 7) {
        if (at >= end) return NULL;
        sum |= (uint64_t)(*at & 127) << shift;
        if (*at++ < 128) {
            *value = sum;
            return at;
        }
    }
    return NULL;
}

/* Some rows of a collection: bit r of `words` is row first + r; rows outside are not in it. words NULL: all rows. */
typedef struct {
    const uint64_t *words;
    uint32_t first, n;
} qv_rows;

static inline int qv_rows_have(const qv_rows *rows, uint32_t row) {
    if (rows->words == NULL) return 1;
    uint32_t at = row - rows->first;
    return at < rows->n && rows->words[at >> 6] >> (at & 63) & 1;
}

/* The length of a row: 0 if the column does not have it, -1 if a block is damaged. */
int64_t qv_length_of(qv_column *lengths, uint32_t row);

#endif
