/* Writing of segments: terms in ascending order, each with its postings; and merging of segments. */
#ifndef QV_ENCODE_H
#define QV_ENCODE_H

#include "text/segment.h"

/* Bytes that grow. */
typedef struct {
    uint8_t *data;
    size_t size, capacity;
} qv_bytes;

typedef struct {
    int kind, failed; /* out of memory: everything after it is without effect */
    uint32_t part_bytes, first_row, last_row, n_docs, n_terms;
    uint64_t n_postings;
    qv_column *lengths;         /* of the rows, under text */
    int damaged;                /* a block of lengths is damaged */
    qv_bytes lists, dictionary; /* parts; those of the dictionary are put behind the lists */
    qv_bytes part, group;       /* groups and terms that are not yet in the dictionary */
    uint32_t *offsets, n_offsets, offsets_capacity, n_dictionary, in_group;
    uint8_t last[256];
    unsigned last_size;
    uint64_t last_head;
} qv_encoder;

/* Begin a segment of rows first to last. lengths: NULL under sparse. */
void qv_encoder_begin(qv_encoder *encoder, int kind, uint32_t part_bytes, uint32_t first_row, uint32_t last_row,
                      qv_column *lengths);

/* Add a term, greater than those before, with its rows, ascending, and their values from 1 on. */
void qv_encoder_add(qv_encoder *encoder, const uint8_t *term, unsigned size, float scale, const uint32_t *rows,
                    const uint32_t *values, uint32_t n);

/* Complete the segment, which is then in encoder->lists, a whole number of parts. Returns 0, or -1 (failed, damaged). */
int qv_encoder_end(qv_encoder *encoder, uint32_t n_docs);
void qv_encoder_free(qv_encoder *encoder);

/* Merge segments: the postings of valid[i] of segments[i]. Returns 0, QV_ENCODE_DAMAGED or QV_ENCODE_NO_MEMORY. */
enum { QV_ENCODE_DAMAGED = -1, QV_ENCODE_NO_MEMORY = -2 };
int qv_merge(qv_encoder *encoder, const qv_segment *segments, const qv_rows *valid, int n);

#endif
