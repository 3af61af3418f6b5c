/* Merging of segments: term by term, the postings of valid rows. */
#include <stdlib.h>

#include "text/encode.h"

/* The postings of one term, of all segments. */
typedef struct {
    uint32_t *rows, *values;
    size_t n, capacity;
} postings;

typedef struct {
    uint32_t row, value;
} posting;

static int reserve(postings *of, size_t n) {
    if (n <= of->capacity) return 0;
    size_t capacity = 2 * n;
    uint32_t *rows = realloc(of->rows, capacity * sizeof *rows);
    if (rows) of->rows = rows;
    uint32_t *values = realloc(of->values, capacity * sizeof *values);
    if (values) of->values = values;
    if (rows == NULL || values == NULL) return QV_ENCODE_NO_MEMORY;
    of->capacity = capacity;
    return 0;
}

/* Keep the postings of valid rows among n new ones at the end. */
static void keep_valid(postings *of, int n, const qv_rows *valid) {
    if (valid->words == NULL) {
        of->n += (size_t)n;
        return;
    }
    size_t kept = of->n;
    for (int i = 0; i < n; i++) {
        uint32_t row = of->rows[of->n + i];
        if (qv_rows_have(valid, row)) {
            of->rows[kept] = row;
            of->values[kept++] = of->values[of->n + i];
        }
    }
    of->n = kept;
}

static int append_list(postings *of, const qv_segment *segment, const qv_plist *list, const qv_rows *valid) {
    if (list->count > (uint64_t)segment->last_row - segment->first_row + 1) return QV_ENCODE_DAMAGED;
    if (reserve(of, of->n + list->count + QV_POSTINGS)) return QV_ENCODE_NO_MEMORY;
    if (list->inline_at) {
        int n = qv_plist_inline(segment, list, of->rows + of->n, of->values + of->n);
        if (n < 0) return QV_ENCODE_DAMAGED;
        keep_valid(of, n, valid);
        return 0;
    }
    const uint8_t *directory = qv_plist_directory(segment, list);
    if (directory == NULL) return QV_ENCODE_DAMAGED;
    for (uint32_t block = 0; block < qv_plist_blocks(list); block++) {
        int n = qv_plist_block(segment, list, directory, block, of->rows + of->n, of->values + of->n);
        if (n < 0) return QV_ENCODE_DAMAGED;
        keep_valid(of, n, valid);
    }
    return 0;
}

static int by_row(const void *a, const void *b) {
    uint32_t x = ((const posting *)a)->row, y = ((const posting *)b)->row;
    return (x > y) - (x < y);
}

/* Sort postings by row, unless they are. Returns QV_ENCODE_DAMAGED if a row is there twice. */
static int sort_rows(postings *of) {
    int sorted = 1;
    for (size_t i = 1; i < of->n && sorted; i++) sorted = of->rows[i] > of->rows[i - 1];
    if (sorted) return 0;
    posting *all = malloc(of->n * sizeof *all);
    if (all == NULL) return QV_ENCODE_NO_MEMORY;
    for (size_t i = 0; i < of->n; i++) all[i] = (posting){of->rows[i], of->values[i]};
    qsort(all, of->n, sizeof *all, by_row);
    int status = 0;
    for (size_t i = 0; i < of->n; i++) {
        of->rows[i] = all[i].row, of->values[i] = all[i].value;
        if (i && all[i].row == all[i - 1].row) status = QV_ENCODE_DAMAGED;
    }
    free(all);
    return status;
}

static int order_of(const qv_dictionary *a, const qv_dictionary *b) {
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    int order = memcmp(a->term, b->term, a->size < b->size ? a->size : b->size);
    return order ? order : (int)a->size - (int)b->size;
}

/* Weights of lists with different scales: in units of the largest scale, at least 1. */
static void scale_values(postings *of, size_t from, float scale, float target) {
    if (scale == target) return;
    float ratio = scale / target;
    for (size_t i = from; i < of->n; i++) {
        float value = (float)of->values[i] * ratio + 0.5f;
        of->values[i] = value < 1 ? 1 : value > 255 ? 255 : (uint32_t)value;
    }
}

/* Whether a term follows those that the encoder has. */
static int is_after(const qv_encoder *encoder, const qv_dictionary *next) {
    if (encoder->n_terms == 0 || next->head > encoder->last_head) return 1;
    unsigned shorter = next->size < encoder->last_size ? next->size : encoder->last_size;
    int order = memcmp(next->term, encoder->last, shorter);
    return order > 0 || (order == 0 && next->size > encoder->last_size);
}

/* Merge the lists of one term: those of the dictionaries in `at`. */
static int merge_term(qv_encoder *encoder, qv_dictionary *const *at, const qv_rows *const *valid, int n, postings *of) {
    float scale = 0;
    of->n = 0;
    for (int i = 0; i < n; i++) scale = at[i]->list.scale > scale ? at[i]->list.scale : scale;
    for (int i = 0; i < n; i++) {
        size_t from = of->n;
        int status = append_list(of, at[i]->segment, &at[i]->list, valid[i]);
        if (status) return status;
        if (encoder->kind == QV_SPARSE) scale_values(of, from, at[i]->list.scale, scale);
    }
    int status = sort_rows(of);
    if (status) return status;
    if (of->n && (of->rows[0] < encoder->first_row || of->rows[of->n - 1] > encoder->last_row))
        return QV_ENCODE_DAMAGED;
    qv_encoder_add(encoder, at[0]->term, at[0]->size, scale, of->rows, of->values, (uint32_t)of->n);
    return encoder->failed ? QV_ENCODE_NO_MEMORY : 0;
}

/* The same for a list of one posting, which most lists of small segments are. */
static int merge_posting(qv_encoder *encoder, const qv_dictionary *at, const qv_rows *valid) {
    uint32_t row, value;
    if (qv_plist_inline(at->segment, &at->list, &row, &value) < 0) return QV_ENCODE_DAMAGED;
    if (!qv_rows_have(valid, row)) return 0;
    if (row < encoder->first_row || row > encoder->last_row) return QV_ENCODE_DAMAGED;
    qv_encoder_add(encoder, at->term, at->size, at->list.scale, &row, &value, 1);
    return encoder->failed ? QV_ENCODE_NO_MEMORY : 0;
}

int qv_merge(qv_encoder *encoder, const qv_segment *segments, const qv_rows *valid, int n) {
    qv_dictionary *all = calloc((size_t)n + 1, sizeof *all);
    qv_dictionary **at = malloc(((size_t)n + 1) * sizeof *at);
    const qv_rows **rows = malloc(((size_t)n + 1) * sizeof *rows);
    int *open = malloc(((size_t)n + 1) * sizeof *open), n_open = 0, status = 0;
    postings of = {0};
    if (!all || !at || !rows || !open) status = QV_ENCODE_NO_MEMORY;
    for (int i = 0; i < n && status == 0; i++) {
        qv_dictionary_begin(all + i, segments + i);
        int found = qv_dictionary_next(all + i);
        if (found < 0) status = QV_ENCODE_DAMAGED;
        if (found > 0) open[n_open++] = i;
    }
    while (n_open && status == 0) {
        int n_equal = 0, still = 0;
        for (int i = 0; i < n_open; i++) {
            qv_dictionary *one = all + open[i];
            int order = n_equal ? order_of(one, at[0]) : -1;
            if (order < 0) n_equal = 0;
            if (order <= 0) at[n_equal] = one, rows[n_equal++] = valid + open[i];
        }
        if (!is_after(encoder, at[0])) status = QV_ENCODE_DAMAGED;
        else if (n_equal == 1 && at[0]->list.count == 1) status = merge_posting(encoder, at[0], rows[0]);
        else status = merge_term(encoder, at, rows, n_equal, &of);
        for (int i = 0, used = 0; i < n_open && status == 0; i++) {
            if (used < n_equal && all + open[i] == at[used]) {
                used++;
                int found = qv_dictionary_next(all + open[i]);
                if (found < 0) status = QV_ENCODE_DAMAGED;
                if (found <= 0) continue;
            }
            open[still++] = open[i];
        }
        n_open = still;
    }
    free(all), free(at), free(rows), free(open), free(of.rows), free(of.values);
    return status;
}
