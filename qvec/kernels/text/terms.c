#include "text/terms.h"

#include <stdlib.h>

enum { OTHER, LETTER, DIGIT, UNDERSCORE, MIDDLE, COMMA };

static const uint8_t CLASSES[256] = {
    ['a' ... 'z'] = LETTER, ['A' ... 'Z'] = LETTER, ['0' ... '9'] = DIGIT, ['_'] = UNDERSCORE,
    ['.'] = MIDDLE,         ['\''] = MIDDLE,        [','] = COMMA,         [';'] = COMMA,
};

static inline int in_word(unsigned class) { return class - LETTER <= UNDERSCORE - LETTER; }

/* Whether a character of class `class` is part of the word that has a character of class `before` on both sides. */
static inline int joins(unsigned class, unsigned before, unsigned after) {
    if (before != after) return 0;
    return class == MIDDLE ? before == LETTER || before == DIGIT : class == COMMA && before == DIGIT;
}

int64_t qv_split_ascii(const uint8_t *text, size_t size, uint8_t *lower, qv_span *spans) {
    int64_t count = 0;
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) any |= text[i];
    if (any & 128) return -1;
    for (size_t i = 0; i < size;) {
        unsigned class = CLASSES[text[i]];
        if (!in_word(class)) {
            i++;
            continue;
        }
        size_t first = i;
        int letters = 0;
        for (;;) {
            unsigned before;
            do {
                letters |= class != UNDERSCORE;
                lower[i] = text[i] | (uint8_t)((class == LETTER) << 5);
                before = class;
                class = ++i < size ? CLASSES[text[i]] : OTHER;
            } while (in_word(class));
            if (i + 1 >= size || !joins(class, before, CLASSES[text[i + 1]])) break;
            lower[i] = text[i];
            class = CLASSES[text[++i]];
        }
        if (i - first > QV_TERM_MAX) return -1;
        if (letters) spans[count++] = (qv_span){(uint32_t)first, (uint32_t)i};
    }
    return count;
}

void qv_terms_free(qv_terms *terms) {
    free(terms->bytes.data);
    free(terms->entries);
    free(terms->table);
    free(terms->pair_terms);
    free(terms->pair_rows);
    free(terms->pair_values);
    memset(terms, 0, sizeof *terms);
}

static uint32_t hash_of(uint64_t head, const uint8_t *term, unsigned size) {
    uint64_t hash = (head ^ size * 0x9E3779B97F4A7C15ull) * 0xFF51AFD7ED558CCDull;
    while (size > 8) {
        unsigned step = size - 8 < 8 ? size - 8 : 8;
        uint64_t word;
        memcpy(&word, term + step, 8);
        hash = (hash ^ hash >> 32 ^ word) * 0xC4CEB9FE1A85EC53ull;
        term += step, size -= step;
    }
    return (uint32_t)(hash >> 32 ^ hash >> 13);
}

static int grow_table(qv_terms *terms) {
    uint32_t size = terms->table_size ? 2 * terms->table_size : 4096;
    uint32_t *table = calloc(size, sizeof *table);
    if (table == NULL) return -1;
    for (uint32_t i = 0; i < terms->n_terms; i++) {
        const qv_term *entry = terms->entries + i;
        uint32_t at = hash_of(entry->head, terms->bytes.data + entry->start, entry->size) & (size - 1);
        while (table[at]) at = (at + 1) & (size - 1);
        table[at] = i + 1;
    }
    free(terms->table);
    terms->table = table, terms->table_size = size;
    return 0;
}

static uint32_t new_term(qv_terms *terms, uint64_t head, const uint8_t *term, unsigned size, uint32_t at) {
    if (terms->n_terms == terms->terms_capacity) {
        uint32_t capacity = 2 * terms->terms_capacity + 1024;
        qv_term *entries = realloc(terms->entries, capacity * sizeof *entries);
        if (entries == NULL) return UINT32_MAX;
        terms->entries = entries, terms->terms_capacity = capacity;
    }
    qv_bytes *bytes = &terms->bytes;
    if (bytes->size + size > UINT32_MAX) return UINT32_MAX;
    if (bytes->size + size > bytes->capacity) {
        size_t capacity = 2 * bytes->capacity + 65536;
        uint8_t *data = realloc(bytes->data, capacity);
        if (data == NULL) return UINT32_MAX;
        bytes->data = data, bytes->capacity = capacity;
    }
    memcpy(bytes->data + bytes->size, term, size);
    terms->entries[terms->n_terms] = (qv_term){head, (uint32_t)bytes->size, size};
    bytes->size += size;
    terms->table[at] = terms->n_terms + 1;
    return terms->n_terms++;
}

static inline uint32_t number_of(qv_terms *terms, uint64_t head, const uint8_t *term, unsigned size) {
    if (2 * (uint64_t)terms->n_terms >= terms->table_size && grow_table(terms)) {
        terms->failed = 1;
        return UINT32_MAX;
    }
    uint32_t at = hash_of(head, term, size) & (terms->table_size - 1);
    for (; terms->table[at]; at = (at + 1) & (terms->table_size - 1)) {
        const qv_term *entry = terms->entries + terms->table[at] - 1;
        if (entry->head != head || entry->size != size) continue;
        if (size <= 8 || memcmp(terms->bytes.data + entry->start + 8, term + 8, size - 8) == 0)
            return terms->table[at] - 1;
    }
    uint32_t number = new_term(terms, head, term, size, at);
    if (number == UINT32_MAX) terms->failed = 1;
    return number;
}

uint32_t qv_terms_number(qv_terms *terms, const uint8_t *term, unsigned size) {
    return number_of(terms, qv_head_of(term, size), term, size);
}

static int reserve_pairs(qv_terms *terms, size_t more) {
    if (terms->n_pairs + more <= terms->pairs_capacity) return 0;
    size_t capacity = 2 * terms->pairs_capacity + more + 4096;
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
    return 0;
}

int qv_terms_add(qv_terms *terms, uint32_t term, uint32_t row, uint32_t value) {
    if (reserve_pairs(terms, 1)) return -1;
    terms->pair_terms[terms->n_pairs] = term;
    terms->pair_rows[terms->n_pairs] = row;
    terms->pair_values[terms->n_pairs++] = value;
    return 0;
}

int qv_terms_add_words(qv_terms *terms, uint32_t row, const uint8_t *text, const qv_span *spans, size_t n) {
    if (reserve_pairs(terms, n)) return -1;
    for (size_t i = 0; i < n; i++) {
        unsigned size = spans[i].last - spans[i].first;
        const uint8_t *term = text + spans[i].first;
        uint64_t head;
        memcpy(&head, term, 8); /* without a branch on the size: the text has room behind it */
        head = __builtin_bswap64(head) & (size >= 8 ? ~0ull : ~(~0ull >> 8 * size));
        uint32_t number = number_of(terms, head, term, size);
        if (number == UINT32_MAX) return -1;
        terms->pair_terms[terms->n_pairs] = number;
        terms->pair_rows[terms->n_pairs] = row;
        terms->pair_values[terms->n_pairs++] = 1;
    }
    return 0;
}

/* A term to sort: its first eight bytes, and its number. */
typedef struct {
    uint64_t head;
    uint32_t number;
} sorted_term;

static int is_before(const qv_terms *terms, const sorted_term *a, const sorted_term *b) {
    if (a->head != b->head) return a->head < b->head;
    const qv_term *x = terms->entries + a->number, *y = terms->entries + b->number;
    unsigned shorter = x->size < y->size ? x->size : y->size;
    int order =
        shorter <= 8 ? 0 : memcmp(terms->bytes.data + x->start + 8, terms->bytes.data + y->start + 8, shorter - 8);
    return order ? order < 0 : x->size < y->size;
}

/* Merge sort, with calls of is_before that are inline; `spare`: room for n. */
static void sort_run(const qv_terms *terms, sorted_term *sorted, sorted_term *spare, uint32_t n) {
    enum { SHORT = 8 };
    for (uint32_t first = 0; first < n; first += SHORT) {
        for (uint32_t i = first + 1; i < n && i < first + SHORT; i++) {
            sorted_term moved = sorted[i];
            uint32_t j = i;
            for (; j > first && is_before(terms, &moved, sorted + j - 1); j--) sorted[j] = sorted[j - 1];
            sorted[j] = moved;
        }
    }
    for (uint64_t run = SHORT; run < n; run *= 2) {
        for (uint64_t first = 0; first + run < n; first += 2 * run) {
            uint64_t i = 0, j = first + run, end = j + run < n ? j + run : n;
            memcpy(spare, sorted + first, run * sizeof *sorted);
            for (uint64_t k = first; i < run && k < end; k++)
                sorted[k] = j < end && is_before(terms, sorted + j, spare + i) ? sorted[j++] : spare[i++];
        }
    }
}

#define PREFIXES 65536 /* of two bytes */
#define MANY_TERMS 2048

/* Terms in the order of their bytes: many are first divided by their first two bytes. NULL if out of memory. */
static sorted_term *sort_terms(const qv_terms *terms) {
    uint32_t n = terms->n_terms, *starts = n < MANY_TERMS ? NULL : calloc(PREFIXES + 1, sizeof *starts);
    sorted_term *sorted = malloc(((size_t)n + 1) * sizeof *sorted), *spare = malloc(((size_t)n + 1) * sizeof *spare);
    int failed = sorted == NULL || spare == NULL || (n >= MANY_TERMS && starts == NULL);
    if (!failed && starts == NULL) {
        for (uint32_t i = 0; i < n; i++) sorted[i] = (sorted_term){terms->entries[i].head, i};
        sort_run(terms, sorted, spare, n);
    } else if (!failed) {
        for (uint32_t i = 0; i < n; i++) starts[(terms->entries[i].head >> 48) + 1]++;
        for (uint32_t i = 0; i < PREFIXES; i++) starts[i + 1] += starts[i];
        for (uint32_t i = 0; i < n; i++) { /* the start of a prefix becomes that of the next */
            uint64_t head = terms->entries[i].head;
            sorted[starts[head >> 48]++] = (sorted_term){head, i};
        }
        for (uint32_t prefix = 0, first = 0; prefix < PREFIXES; first = starts[prefix++])
            if (starts[prefix] > first + 1) sort_run(terms, sorted + first, spare, starts[prefix] - first);
    }
    free(spare), free(starts);
    if (failed) free(sorted), sorted = NULL;
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
            const qv_term *entry = terms->entries + number;
            qv_encoder_add(encoder, terms->bytes.data + entry->start, entry->size, scale, rows + first, values + first,
                           count);
        }
        status = encoder->failed ? -1 : 0;
    }
    free(starts), free(rows), free(values), free(sorted);
    return status;
}
