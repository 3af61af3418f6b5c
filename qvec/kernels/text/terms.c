#include "text/terms.h"

#include <stdlib.h>

enum { OTHER, LETTER, DIGIT, UNDERSCORE, MIDDLE, COMMA };

static int class_of(uint8_t c) {
    if ((c | 32) >= 'a' && (c | 32) <= 'z') return LETTER;
    if (c >= '0' && c <= '9') return DIGIT;
    if (c == '_') return UNDERSCORE;
    if (c == '.' || c == '\'') return MIDDLE;
    return c == ',' || c == ';' ? COMMA : OTHER;
}

int64_t qv_split_ascii(const uint8_t *text, size_t size, uint8_t *lower, qv_span *spans) {
    int64_t count = 0;
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = text[i];
        any |= c;
        lower[i] = c >= 'A' && c <= 'Z' ? c | 32 : c;
    }
    if (any & 128) return -1;
    for (size_t i = 0; i < size;) {
        int class = class_of(text[i]);
        if (class < LETTER || class > UNDERSCORE) {
            i++;
            continue;
        }
        size_t first = i;
        int letters = 0;
        for (;; i++) {
            if (i == size) break;
            int before = class;
            class = class_of(text[i]);
            letters |= class == LETTER || class == DIGIT;
            if (class >= LETTER && class <= UNDERSCORE) continue;
            int after = i + 1 < size ? class_of(text[i + 1]) : OTHER;
            int joins =
                i > first && before == after &&
                ((class == MIDDLE && (before == LETTER || before == DIGIT)) || (class == COMMA && before == DIGIT));
            if (!joins) break;
        }
        if (i - first > QV_TERM_MAX) return -1;
        if (letters) spans[count++] = (qv_span){(uint32_t)first, (uint32_t)i};
    }
    return count;
}

void qv_terms_free(qv_terms *terms) {
    free(terms->bytes.data);
    free(terms->starts);
    free(terms->table);
    free(terms->pair_terms);
    free(terms->pair_rows);
    free(terms->pair_values);
    memset(terms, 0, sizeof *terms);
}

static uint64_t hash_of(const uint8_t *term, unsigned size) {
    uint64_t hash = size * 0x9E3779B97F4A7C15ull;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, term, 8);
        hash = (hash ^ word) * 0xFF51AFD7ED558CCDull;
        hash ^= hash >> 32;
        term += 8, size -= 8;
    }
    uint64_t word = 0;
    memcpy(&word, term, size);
    hash = (hash ^ word) * 0xC4CEB9FE1A85EC53ull;
    return hash ^ hash >> 29;
}

static const uint8_t *term_of(const qv_terms *terms, uint32_t number, unsigned *size) {
    *size = (unsigned)(terms->starts[number] >> 48);
    return terms->bytes.data + (terms->starts[number] & 0xFFFFFFFFFFFFull);
}

static int grow_table(qv_terms *terms) {
    uint32_t size = terms->table_size ? 2 * terms->table_size : 4096;
    uint32_t *table = calloc(size, sizeof *table);
    if (table == NULL) return -1;
    for (uint32_t i = 0; i < terms->n_terms; i++) {
        unsigned bytes;
        const uint8_t *term = term_of(terms, i, &bytes);
        uint32_t at = (uint32_t)hash_of(term, bytes) & (size - 1);
        while (table[at]) at = (at + 1) & (size - 1);
        table[at] = i + 1;
    }
    free(terms->table);
    terms->table = table, terms->table_size = size;
    return 0;
}

static uint32_t new_term(qv_terms *terms, const uint8_t *term, unsigned size, uint32_t at) {
    if (terms->n_terms == terms->terms_capacity) {
        uint32_t capacity = 2 * terms->terms_capacity + 1024;
        uint64_t *starts = realloc(terms->starts, capacity * sizeof *starts);
        if (starts == NULL) return UINT32_MAX;
        terms->starts = starts, terms->terms_capacity = capacity;
    }
    qv_bytes *bytes = &terms->bytes;
    if (bytes->size + size > bytes->capacity) {
        size_t capacity = 2 * bytes->capacity + 65536;
        uint8_t *data = realloc(bytes->data, capacity);
        if (data == NULL) return UINT32_MAX;
        bytes->data = data, bytes->capacity = capacity;
    }
    memcpy(bytes->data + bytes->size, term, size);
    terms->starts[terms->n_terms] = bytes->size | (uint64_t)size << 48;
    bytes->size += size;
    terms->table[at] = terms->n_terms + 1;
    return terms->n_terms++;
}

uint32_t qv_terms_number(qv_terms *terms, const uint8_t *term, unsigned size) {
    if (2 * (uint64_t)terms->n_terms >= terms->table_size && grow_table(terms)) {
        terms->failed = 1;
        return UINT32_MAX;
    }
    uint32_t at = (uint32_t)hash_of(term, size) & (terms->table_size - 1);
    for (; terms->table[at]; at = (at + 1) & (terms->table_size - 1)) {
        unsigned other;
        const uint8_t *found = term_of(terms, terms->table[at] - 1, &other);
        if (other == size && memcmp(found, term, size) == 0) return terms->table[at] - 1;
    }
    uint32_t number = new_term(terms, term, size, at);
    if (number == UINT32_MAX) terms->failed = 1;
    return number;
}

int qv_terms_add(qv_terms *terms, uint32_t term, uint32_t row, uint32_t value) {
    if (terms->n_pairs == terms->pairs_capacity) {
        size_t capacity = 2 * terms->pairs_capacity + 4096;
        uint32_t *pair_terms = realloc(terms->pair_terms, capacity * sizeof *pair_terms);
        if (pair_terms) terms->pair_terms = pair_terms;
        uint32_t *pair_rows = realloc(terms->pair_rows, capacity * sizeof *pair_rows);
        if (pair_rows) terms->pair_rows = pair_rows;
        uint32_t *pair_values = realloc(terms->pair_values, capacity * sizeof *pair_values);
        if (pair_values) terms->pair_values = pair_values;
        if (!pair_terms || !pair_rows || !pair_values) {
            terms->failed = 1;
            return -1;
        }
        terms->pairs_capacity = capacity;
    }
    terms->pair_terms[terms->n_pairs] = term;
    terms->pair_rows[terms->n_pairs] = row;
    terms->pair_values[terms->n_pairs++] = value;
    return 0;
}

/* A term to sort: its first eight bytes as a number, and the rest. */
typedef struct {
    uint64_t head;
    const uint8_t *term;
    uint32_t number, size;
} sorted_term;

static int by_bytes(const void *a, const void *b) {
    const sorted_term *x = a, *y = b;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    int order = memcmp(x->term, y->term, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static sorted_term *sort_terms(const qv_terms *terms) {
    sorted_term *sorted = malloc(((size_t)terms->n_terms + 1) * sizeof *sorted);
    for (uint32_t i = 0; sorted && i < terms->n_terms; i++) {
        unsigned size;
        const uint8_t *term = term_of(terms, i, &size);
        uint64_t head = 0;
        for (unsigned j = 0; j < 8; j++) head = head << 8 | (j < size ? term[j] : 0);
        sorted[i] = (sorted_term){head, term, i, size};
    }
    if (sorted) qsort(sorted, terms->n_terms, sizeof *sorted, by_bytes);
    return sorted;
}

/* Join pairs of the same row, whose values are added; returns the number of rows. */
static uint32_t join_rows(uint32_t *rows, uint32_t *values, size_t n) {
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (count && rows[count - 1] == rows[i]) {
            values[count - 1] += values[i];
        } else {
            rows[count] = rows[i], values[count++] = values[i];
        }
    }
    return count;
}

/* Replace weights by multiples, 1 to 255, of a scale, which is returned. */
static float quantize(uint32_t *values, uint32_t n) {
    float most = 0, weight;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&weight, values + i, 4);
        most = weight > most ? weight : most;
    }
    float scale = most / 255 > 0x1p-120f ? most / 255 : 0x1p-120f;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&weight, values + i, 4);
        float steps = weight / scale + 0.5f;
        values[i] = steps < 1 ? 1 : steps > 255 ? 255 : (uint32_t)steps;
    }
    return scale;
}

int qv_terms_encode(const qv_terms *terms, qv_encoder *encoder) {
    size_t *starts = calloc((size_t)terms->n_terms + 1, sizeof *starts);
    uint32_t *rows = malloc((terms->n_pairs + 1) * sizeof *rows),
             *values = malloc((terms->n_pairs + 1) * sizeof *values);
    sorted_term *sorted = sort_terms(terms);
    int status = starts && rows && values && sorted ? 0 : -1;
    if (status == 0) {
        for (size_t i = 0; i < terms->n_pairs; i++) starts[terms->pair_terms[i] + 1]++;
        for (uint32_t i = 0; i < terms->n_terms; i++) starts[i + 1] += starts[i];
        for (size_t i = 0; i < terms->n_pairs; i++) {
            size_t at = starts[terms->pair_terms[i]]++; /* becomes the start of the next term */
            rows[at] = terms->pair_rows[i], values[at] = terms->pair_values[i];
        }
        for (uint32_t i = 0; i < terms->n_terms; i++) {
            uint32_t number = sorted[i].number;
            size_t first = number ? starts[number - 1] : 0, n = starts[number] - first;
            int is_text = encoder->kind == QV_TEXT;
            float scale = is_text ? 1 : quantize(values + first, (uint32_t)n);
            uint32_t count = is_text ? join_rows(rows + first, values + first, n) : (uint32_t)n;
            qv_encoder_add(encoder, sorted[i].term, sorted[i].size, scale, rows + first, values + first, count);
        }
        status = encoder->failed ? -1 : 0;
    }
    free(starts), free(rows), free(values), free(sorted);
    return status;
}
