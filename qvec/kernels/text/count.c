/* Numbers and bitmaps of the valid rows of a posting list. */
#include "text/score.h"

/* Whether all rows from one to another, included, are valid. */
static int all_valid(const qv_rows *valid, uint32_t first, uint32_t last) {
    if (valid->words == NULL) return 1;
    for (uint32_t row = first; row <= last;) {
        uint32_t at = row - valid->first;
        if (at >= valid->n) return 0;
        if ((at & 63) == 0 && last - row >= 63) {
            if (~valid->words[at >> 6]) return 0;
            row += 64;
        } else {
            if (!(valid->words[at >> 6] >> (at & 63) & 1)) return 0;
            row++;
        }
    }
    return 1;
}

typedef struct {
    uint32_t rows[QV_POSTINGS], values[QV_POSTINGS];
} block_buffer;

int64_t qv_plist_count(const qv_segment *segment, const qv_plist *list, const qv_rows *valid) {
    block_buffer buffer;
    int64_t count = 0;
    if (valid->words == NULL) return list->count;
    const uint8_t *directory = list->inline_at ? NULL : qv_plist_directory(segment, list);
    if (directory == NULL && list->inline_at == NULL) return -1;
    uint32_t n_blocks = directory ? qv_plist_blocks(list) : 1;
    for (uint32_t block = 0; block < n_blocks; block++) {
        if (directory) {
            uint32_t last = qv_get32(directory + (size_t)QV_DIRECTORY_ENTRY * block);
            uint32_t first =
                block ? qv_get32(directory + (size_t)QV_DIRECTORY_ENTRY * (block - 1)) : segment->first_row;
            if (first <= last && all_valid(valid, first, last)) {
                uint32_t left = list->count - block * QV_POSTINGS;
                count += left < QV_POSTINGS ? left : QV_POSTINGS;
                continue;
            }
        }
        int n = directory ? qv_plist_block(segment, list, directory, block, buffer.rows, buffer.values)
                          : qv_plist_inline(segment, list, buffer.rows, buffer.values);
        if (n < 0) return -1;
        for (int i = 0; i < n; i++) count += qv_rows_have(valid, buffer.rows[i]);
    }
    return count;
}

int qv_plist_bits(const qv_segment *segment, const qv_plist *list, const qv_rows *valid, uint32_t n, uint64_t *bits) {
    block_buffer buffer;
    const uint8_t *directory = list->inline_at ? NULL : qv_plist_directory(segment, list);
    if (directory == NULL && list->inline_at == NULL) return -1;
    uint32_t n_blocks = directory ? qv_plist_blocks(list) : 1;
    for (uint32_t block = 0; block < n_blocks; block++) {
        int count = directory ? qv_plist_block(segment, list, directory, block, buffer.rows, buffer.values)
                              : qv_plist_inline(segment, list, buffer.rows, buffer.values);
        if (count < 0) return -1;
        for (int i = 0; i < count; i++) {
            uint32_t row = buffer.rows[i];
            if (row < n && qv_rows_have(valid, row)) bits[row >> 6] |= 1ull << (row & 63);
        }
    }
    return 0;
}
