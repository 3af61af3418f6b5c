#include "text/encode.h"

#include <stdlib.h>

#include "text/packing.h"

/* Room for `more` bytes behind the end. Returns -1 if out of memory. */
static int reserve(qv_encoder *encoder, qv_bytes *bytes, size_t more) {
    if (encoder->failed) return -1;
    if (bytes->size + more <= bytes->capacity) return 0;
    size_t capacity = 2 * bytes->capacity + more + 4096;
    uint8_t *data = realloc(bytes->data, capacity);
    if (data == NULL) {
        encoder->failed = 1;
        return -1;
    }
    bytes->data = data, bytes->capacity = capacity;
    return 0;
}

/* `more` bytes at the end, which are zero; NULL if out of memory. */
static uint8_t *grow(qv_encoder *encoder, qv_bytes *bytes, size_t more) {
    if (reserve(encoder, bytes, more)) return NULL;
    uint8_t *at = bytes->data + bytes->size;
    memset(at, 0, more);
    bytes->size += more;
    return at;
}

/* Room for bytes that lie in one part, at a multiple of 4. */
static uint8_t *grow_in_part(qv_encoder *encoder, size_t more, uint32_t *at) {
    qv_bytes *lists = &encoder->lists;
    size_t left = encoder->part_bytes - lists->size % encoder->part_bytes;
    if (more > left && grow(encoder, lists, left) == NULL) return NULL;
    *at = (uint32_t)(lists->size / 4);
    return grow(encoder, lists, more);
}

static inline uint8_t *put_varint(uint8_t *to, uint64_t value) {
    for (; value > 127; value >>= 7) *to++ = (uint8_t)(value | 128);
    *to++ = (uint8_t)value;
    return to;
}

void qv_encoder_begin(qv_encoder *encoder, int kind, uint32_t part_bytes, uint32_t first_row, uint32_t last_row,
                      qv_column *lengths) {
    memset(encoder, 0, sizeof *encoder);
    encoder->kind = kind, encoder->part_bytes = part_bytes, encoder->lengths = lengths;
    encoder->first_row = first_row, encoder->last_row = last_row;
    grow(encoder, &encoder->lists, QV_SEGMENT_HEADER);
}

/* Put the groups that are complete into a part of the dictionary. */
static void end_part(qv_encoder *encoder) {
    if (encoder->n_offsets == 0) return;
    size_t table = 4 + 4 * (size_t)encoder->n_offsets;
    uint8_t *to = grow(encoder, &encoder->dictionary, encoder->part_bytes);
    if (to == NULL) return;
    qv_put32(to, encoder->n_offsets);
    for (uint32_t i = 0; i < encoder->n_offsets; i++) qv_put32(to + 4 + 4 * i, (uint32_t)(encoder->offsets[i] + table));
    memcpy(to + table, encoder->part.data, encoder->part.size);
    encoder->part.size = encoder->n_offsets = 0;
    encoder->n_dictionary++;
}

static void end_group(qv_encoder *encoder) {
    qv_bytes *group = &encoder->group, *part = &encoder->part;
    if (encoder->in_group == 0 || encoder->failed) return;
    group->data[0] = (uint8_t)encoder->in_group;
    if (4 + 4 * ((size_t)encoder->n_offsets + 1) + part->size + group->size > encoder->part_bytes) end_part(encoder);
    if (encoder->n_offsets == encoder->offsets_capacity) {
        uint32_t capacity = 2 * encoder->offsets_capacity + 64;
        uint32_t *offsets = realloc(encoder->offsets, capacity * sizeof *offsets);
        if (offsets == NULL) {
            encoder->failed = 1;
            return;
        }
        encoder->offsets = offsets, encoder->offsets_capacity = capacity;
    }
    encoder->offsets[encoder->n_offsets++] = (uint32_t)part->size;
    uint8_t *to = grow(encoder, part, group->size);
    if (to) memcpy(to, group->data, group->size);
    group->size = encoder->in_group = 0;
}

static uint8_t *put_inline(const qv_encoder *encoder, uint8_t *to, const uint32_t *rows, const uint32_t *values,
                           uint32_t n) {
    uint32_t before = encoder->first_row;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t step = rows[i] - before;
        before = rows[i];
        if (encoder->kind == QV_SPARSE) {
            to = put_varint(to, step);
            *to++ = (uint8_t)values[i];
        } else {
            to = put_varint(to, 2 * step + (values[i] > 1));
            if (values[i] > 1) to = put_varint(to, values[i]);
        }
    }
    return to;
}

/* Fill in an entry of the directory, and pack the block that it describes. */
static void put_block(qv_encoder *encoder, size_t entry, uint32_t before, const uint32_t *rows, const uint32_t *values,
                      uint32_t n) {
    uint32_t steps[QV_POSTINGS], less[QV_POSTINGS], all_steps = 0, all_values = 0, most = 0, least = UINT32_MAX, at;
    for (uint32_t i = 0; i < n; i++) {
        steps[i] = rows[i] - (i ? rows[i - 1] : before);
        less[i] = values[i] - 1;
        all_steps |= steps[i], all_values |= less[i];
        most = values[i] > most ? values[i] : most;
        if (encoder->lengths) {
            int64_t length = qv_length_of(encoder->lengths, rows[i]);
            if (length < 0) encoder->damaged = 1;
            else if (length < least) least = (uint32_t)length;
        }
    }
    unsigned row_bits = qv_bits_of(all_steps), value_bits = qv_bits_of(all_values);
    uint32_t row_bytes = qv_packed_bytes(n, row_bits);
    uint8_t *to = grow_in_part(encoder, row_bytes + qv_packed_bytes(n, value_bits), &at);
    if (to == NULL) return;
    if (n == QV_POSTINGS) {
        qv_pack128(steps, row_bits, to);
        qv_pack128(less, value_bits, to + row_bytes);
    } else {
        qv_pack_tail(steps, n, row_bits, to);
        qv_pack_tail(less, n, value_bits, to + row_bytes);
    }
    uint8_t *of = encoder->lists.data + entry;
    uint16_t limited = most < QV_VALUE_MAX ? (uint16_t)most : QV_VALUE_MAX;
    qv_put32(of, rows[n - 1]);
    qv_put32(of + 4, at);
    of[8] = (uint8_t)row_bits, of[9] = (uint8_t)value_bits;
    memcpy(of + 10, &limited, 2);
    qv_put32(of + 12, encoder->lengths ? least : 0);
}

/* Put a list that is not inline, and return its position. */
static uint32_t put_list(qv_encoder *encoder, const uint32_t *rows, const uint32_t *values, uint32_t n) {
    uint32_t at = 0, n_blocks = (n + QV_POSTINGS - 1) / QV_POSTINGS;
    if (grow_in_part(encoder, (size_t)QV_DIRECTORY_ENTRY * n_blocks, &at) == NULL) return 0;
    for (uint32_t block = 0; block < n_blocks; block++) {
        uint32_t from = block * QV_POSTINGS, left = n - from;
        put_block(encoder, 4 * (size_t)at + (size_t)QV_DIRECTORY_ENTRY * block,
                  from ? rows[from - 1] : encoder->first_row, rows + from, values + from,
                  left < QV_POSTINGS ? left : QV_POSTINGS);
    }
    return at;
}

/* Bytes of a term in the dictionary: at most 3 of its header, 5 of its count, 4 of its scale, 4 of its position. */
#define TERM_BYTES (16 + QV_TERM_MAX)
#define INLINE_BYTES (10 * QV_INLINE_MAX)

void qv_encoder_add(qv_encoder *encoder, const uint8_t *term, unsigned size, float scale, const uint32_t *rows,
                    const uint32_t *values, uint32_t n) {
    qv_bytes *group = &encoder->group;
    if (encoder->failed || n == 0) return;
    uint32_t at = n <= QV_INLINE_MAX ? 0 : put_list(encoder, rows, values, n);
    if (reserve(encoder, group, TERM_BYTES + INLINE_BYTES)) return;
    uint8_t *to = group->data + group->size;
    unsigned shared = 0;
    if (encoder->in_group == 0) {
        *to++ = 0;
    } else {
        while (shared < size && shared < encoder->last_size && term[shared] == encoder->last[shared]) shared++;
    }
    *to++ = (uint8_t)shared;
    *to++ = (uint8_t)(size - shared);
    memcpy(to, term + shared, size - shared);
    to = put_varint(to + (size - shared), n);
    if (encoder->kind == QV_SPARSE) {
        memcpy(to, &scale, 4);
        to += 4;
    }
    if (n <= QV_INLINE_MAX) {
        to = put_inline(encoder, to, rows, values, n);
    } else {
        qv_put32(to, at);
        to += 4;
    }
    group->size = (size_t)(to - group->data);
    memcpy(encoder->last, term, size);
    encoder->last_size = size;
    encoder->last_head = qv_head_of(term, size);
    encoder->n_terms++, encoder->n_postings += n;
    if (++encoder->in_group == QV_GROUP_TERMS) end_group(encoder);
}

int qv_encoder_end(qv_encoder *encoder, uint32_t n_docs) {
    end_group(encoder);
    end_part(encoder);
    qv_bytes *lists = &encoder->lists;
    size_t unfilled = lists->size % encoder->part_bytes;
    if (unfilled) grow(encoder, lists, encoder->part_bytes - unfilled);
    uint32_t first = (uint32_t)(lists->size / encoder->part_bytes);
    uint8_t *to = encoder->dictionary.size ? grow(encoder, lists, encoder->dictionary.size) : NULL;
    if (to) memcpy(to, encoder->dictionary.data, encoder->dictionary.size);
    if (encoder->failed || encoder->damaged) return -1;
    uint8_t *header = lists->data;
    memcpy(header, "QVT1", 4);
    header[4] = (uint8_t)encoder->kind;
    qv_put32(header + 8, encoder->n_terms);
    qv_put32(header + 12, n_docs);
    qv_put32(header + 16, encoder->first_row);
    qv_put32(header + 20, encoder->last_row);
    qv_put32(header + 24, encoder->n_dictionary);
    qv_put32(header + 28, first);
    memcpy(header + 32, &encoder->n_postings, 8);
    return 0;
}

void qv_encoder_free(qv_encoder *encoder) {
    free(encoder->lists.data);
    free(encoder->dictionary.data);
    free(encoder->part.data);
    free(encoder->group.data);
    free(encoder->offsets);
    memset(encoder, 0, sizeof *encoder);
}
