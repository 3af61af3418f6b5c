#include "text/segment.h"

#include "text/packing.h"

static const uint8_t *part_of(const qv_segment *segment, uint32_t part) {
    if (part >= segment->n_parts) return NULL;
    return qv_row(segment->column, part * segment->column->rows_per_block);
}

/* Address of `bytes` bytes at a position, if they lie in one part. */
static const uint8_t *address_of(const qv_segment *segment, uint32_t at, uint32_t bytes) {
    uint64_t byte = 4ull * at;
    uint32_t part = (uint32_t)(byte / segment->part_bytes), offset = (uint32_t)(byte % segment->part_bytes);
    if (byte / segment->part_bytes >= segment->n_parts || bytes > segment->part_bytes - offset) return NULL;
    const uint8_t *first = part_of(segment, part);
    return first == NULL ? NULL : first + offset;
}

int qv_segment_open(qv_segment *segment, qv_column *column) {
    memset(segment, 0, sizeof *segment);
    if (column->stride != QV_SEGMENT_STRIDE || column->n_blocks == 0) return -1;
    segment->column = column;
    segment->part_bytes = column->rows_per_block * QV_SEGMENT_STRIDE;
    segment->n_parts = column->n_blocks;
    const uint8_t *header = part_of(segment, 0);
    if (header == NULL || memcmp(header, "QVT1", 4) != 0 || header[4] > QV_SPARSE) return -1;
    segment->kind = header[4];
    segment->n_terms = qv_get32(header + 8);
    segment->n_docs = qv_get32(header + 12);
    segment->first_row = qv_get32(header + 16);
    segment->last_row = qv_get32(header + 20);
    segment->n_dictionary = qv_get32(header + 24);
    segment->dictionary = qv_get32(header + 28);
    memcpy(&segment->n_postings, header + 32, 8);
    if (segment->last_row >= QV_MAX_ROWS || segment->first_row > segment->last_row) return -1;
    if (segment->dictionary == 0 || segment->dictionary > segment->n_parts) return -1;
    return segment->n_dictionary > segment->n_parts - segment->dictionary ? -1 : 0;
}

/* The groups of a part of the dictionary: their number and the address of one; -1 if they do not fit. */
static int groups_of(const qv_segment *segment, uint32_t part, const uint8_t **first, uint32_t *n_groups) {
    *first = part_of(segment, segment->dictionary + part);
    if (*first == NULL) return -1;
    *n_groups = qv_get32(*first);
    return *n_groups == 0 || *n_groups > (segment->part_bytes - 4) / 4 ? -1 : 0;
}

static const uint8_t *group_at(const qv_segment *segment, const uint8_t *first, uint32_t n_groups, uint32_t group) {
    uint32_t offset = qv_get32(first + 4 + 4 * group);
    return offset < 4 + 4 * n_groups || offset >= segment->part_bytes ? NULL : first + offset;
}

/* Skip inline postings. */
static const uint8_t *skip_inline(const uint8_t *at, const uint8_t *end, uint32_t count, int kind) {
    uint64_t value;
    for (uint32_t i = 0; i < count && at; i++) {
        at = qv_get_varint(at, end, &value);
        if (at == NULL) return NULL;
        if (kind == QV_SPARSE) at = at < end ? at + 1 : NULL;
        else if (value & 1) at = qv_get_varint(at, end, &value);
    }
    return at;
}

/* Read one term of a group into `term`, which holds the term before. Returns the address after it, or NULL. */
static const uint8_t *read_term(const uint8_t *at, const uint8_t *end, int kind, uint8_t *term, unsigned *size,
                                qv_plist *list) {
    uint64_t count;
    if (end - at < 2) return NULL;
    unsigned shared = at[0], more = at[1];
    at += 2;
    if (shared > *size || shared + more > QV_TERM_MAX || end - at < (ptrdiff_t)more) return NULL;
    memcpy(term + shared, at, more);
    *size = shared + more;
    at = qv_get_varint(at + more, end, &count);
    if (at == NULL || count == 0 || count > QV_MAX_ROWS) return NULL;
    list->count = (uint32_t)count;
    list->scale = 1;
    if (kind == QV_SPARSE) {
        if (end - at < 4) return NULL;
        memcpy(&list->scale, at, 4);
        if (!(list->scale > 0 && list->scale < __builtin_inff())) return NULL;
        at += 4;
    }
    list->inline_at = list->inline_end = NULL;
    list->at = 0;
    if (count <= QV_INLINE_MAX) {
        list->inline_at = at, list->inline_end = end;
        return skip_inline(at, end, list->count, kind);
    }
    if (end - at < 4) return NULL;
    list->at = qv_get32(at);
    return at + 4;
}

static int compare(const uint8_t *a, unsigned a_size, const uint8_t *b, unsigned b_size) {
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (int)a_size - (int)b_size;
}

/* Compare a term with the first of a group. Returns -2 if the group is damaged, else the sign of the comparison. */
static int compare_first(const qv_segment *segment, const uint8_t *first, uint32_t n_groups, uint32_t group,
                         const uint8_t *term, unsigned size) {
    const uint8_t *at = group_at(segment, first, n_groups, group), *end = first + segment->part_bytes;
    if (at == NULL || end - at < 3 || at[1] != 0 || end - at - 3 < at[2]) return -2;
    int order = compare(term, size, at + 3, at[2]);
    return (order > 0) - (order < 0);
}

int qv_segment_find(const qv_segment *segment, const uint8_t *term, unsigned size, qv_plist *list) {
    const uint8_t *first;
    uint32_t low = 0, high = segment->n_dictionary, n_groups;
    while (low < high) { /* the first part that begins after the term */
        uint32_t middle = low + (high - low) / 2;
        if (groups_of(segment, middle, &first, &n_groups)) return -1;
        int order = compare_first(segment, first, n_groups, 0, term, size);
        if (order == -2) return -1;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    if (low == 0) return 0;
    if (groups_of(segment, low - 1, &first, &n_groups)) return -1;
    for (low = 0, high = n_groups; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_first(segment, first, n_groups, middle, term, size);
        if (order == -2) return -1;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    if (low == 0) return -1; /* the part begins with a term that is not after this one */
    const uint8_t *at = group_at(segment, first, n_groups, low - 1), *end = first + segment->part_bytes;
    if (at == NULL) return -1;
    uint8_t found[256];
    unsigned found_size = 0;
    unsigned n = *at++;
    for (unsigned i = 0; i < n; i++) {
        at = read_term(at, end, segment->kind, found, &found_size, list);
        if (at == NULL) return -1;
        int order = compare(found, found_size, term, size);
        if (order >= 0) return order == 0;
    }
    return 0;
}

void qv_dictionary_begin(qv_dictionary *dictionary, const qv_segment *segment) {
    memset(dictionary, 0, sizeof *dictionary);
    dictionary->segment = segment;
}

int qv_dictionary_next(qv_dictionary *d) {
    const qv_segment *segment = d->segment;
    if (d->left == 0) {
        if (d->group == d->n_groups) {
            if (d->part == segment->n_dictionary) return 0;
            if (groups_of(segment, d->part, &d->first, &d->n_groups)) return -1;
            d->end = d->first + segment->part_bytes;
            d->part++, d->group = 0;
        }
        const uint8_t *at = group_at(segment, d->first, d->n_groups, d->group++);
        if (at == NULL || *at == 0 || *at > QV_GROUP_TERMS) return -1;
        d->left = *at, d->next = at + 1, d->size = 0;
    }
    d->next = read_term(d->next, d->end, segment->kind, d->term, &d->size, &d->list);
    d->left--;
    d->head = qv_head_of(d->term, d->size);
    return d->next == NULL ? -1 : 1;
}

const uint8_t *qv_plist_directory(const qv_segment *segment, const qv_plist *list) {
    uint64_t bytes = (uint64_t)QV_DIRECTORY_ENTRY * qv_plist_blocks(list);
    return bytes > segment->part_bytes ? NULL : address_of(segment, list->at, (uint32_t)bytes);
}

int qv_plist_inline(const qv_segment *segment, const qv_plist *list, uint32_t *rows, uint32_t *values) {
    const uint8_t *at = list->inline_at, *end = list->inline_end;
    uint64_t number, value, row = segment->first_row;
    for (uint32_t i = 0; i < list->count; i++) {
        at = qv_get_varint(at, end, &number);
        if (at == NULL) return -1;
        value = 1;
        if (segment->kind == QV_SPARSE) {
            if (at >= end) return -1;
            value = *at++;
            row += number;
        } else {
            if (number & 1) at = qv_get_varint(at, end, &value);
            if (at == NULL) return -1;
            row += number >> 1;
        }
        if (row > segment->last_row || value == 0 || value > UINT32_MAX || (i && row <= rows[i - 1])) return -1;
        rows[i] = (uint32_t)row, values[i] = (uint32_t)value;
    }
    return (int)list->count;
}

QV_INLINE int decode_block(const uint8_t *data, uint32_t n, unsigned row_bits, unsigned value_bits, uint32_t before,
                           uint32_t *rows, uint32_t *values) {
    uint32_t row_bytes = qv_packed_bytes(n, row_bits);
    if (n == QV_POSTINGS) {
        qv_unpack128(data, row_bits, rows);
        qv_unpack128(data + row_bytes, value_bits, values);
        qv_sum128(rows, before);
        for (int i = 0; i < QV_POSTINGS; i++) values[i]++;
        return 0;
    }
    qv_unpack_tail(data, n, row_bits, rows);
    qv_unpack_tail(data + row_bytes, n, value_bits, values);
    for (uint32_t i = 0; i < n; i++) {
        before += rows[i];
        rows[i] = before;
        values[i]++;
    }
    return 0;
}

QV_DEFINE_WIDE(static, int, unpack,
               (const uint8_t *data, uint32_t n, unsigned row_bits, unsigned value_bits, uint32_t before,
                uint32_t *rows, uint32_t *values),
               (data, n, row_bits, value_bits, before, rows, values), decode_block)

int qv_plist_block(const qv_segment *segment, const qv_plist *list, const uint8_t *directory, uint32_t block,
                   uint32_t *rows, uint32_t *values) {
    const uint8_t *entry = directory + (size_t)QV_DIRECTORY_ENTRY * block;
    uint32_t before = block ? qv_get32(entry - QV_DIRECTORY_ENTRY) : segment->first_row, last = qv_get32(entry);
    uint32_t left = list->count - block * QV_POSTINGS, n = left < QV_POSTINGS ? left : QV_POSTINGS;
    unsigned row_bits = entry[8], value_bits = entry[9];
    if (row_bits > 32 || value_bits > 32) return -1;
    const uint8_t *data =
        address_of(segment, qv_get32(entry + 4), qv_packed_bytes(n, row_bits) + qv_packed_bytes(n, value_bits));
    if (data == NULL) return -1;
    unpack(data, n, row_bits, value_bits, before, rows, values);
    return rows[n - 1] != last || last > segment->last_row ? -1 : (int)n;
}

int64_t qv_length_of(qv_column *lengths, uint32_t row) {
    if (row / QV_LENGTHS >= (uint64_t)lengths->n_blocks * lengths->rows_per_block) return 0;
    const uint8_t *first = qv_row(lengths, row / QV_LENGTHS);
    return first == NULL ? -1 : (int64_t)qv_get32(first + 4 * (row % QV_LENGTHS));
}
