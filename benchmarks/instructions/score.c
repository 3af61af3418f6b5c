/* score KIND LEVEL DIM N: score N groups of four rows of a kind of code, to count the instructions of a row. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/bitpack.h"
#include "codec/rows.h"
#include "codec/simd.h"

#define ROWS 4

static int level_of(const char *name) {
    for (int level = 0; level < QV_SIMD_LEVELS; level++)
        if (strcmp(name, qv_simd_names[level]) == 0 && qv_simd_supported(level)) return level;
    fprintf(stderr, "%s is no level of this machine\n", name);
    exit(2);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int dim = atoi(argv[3]), n = atoi(argv[4]), level = level_of(argv[2]), bits = atoi(argv[1]);
    uint8_t widths[1024];
    qv_codec codec;
    memset(widths, bits, sizeof widths);
    if (bits ? qv_codec_init_bitpack(&codec, QV_RABITQ, QV_COSINE, dim, widths, NULL, level)
             : qv_codec_init(&codec, strcmp(argv[1], "int4") ? QV_INT8 : QV_INT4, QV_COSINE, dim, NULL, NULL, level))
        return 2;
    float *x = malloc(ROWS * (size_t)dim * sizeof *x), keys[ROWS], sum = 0;
    for (int i = 0; i < ROWS * dim; i++) x[i] = (float)(i * 7919 % 1000) / 500 - 1;
    uint8_t *rows = aligned_alloc(64, qv_round_up(ROWS * (size_t)codec.stride, 64));
    qv_query *query = aligned_alloc(64, qv_round_up((size_t)codec.query_size, 64));
    qv_encode(&codec, x, ROWS, rows);
    qv_prepare(&codec, x, query);
    const uint8_t *address[ROWS];
    for (int r = 0; r < ROWS; r++) address[r] = rows + (size_t)r * (size_t)codec.stride;
    for (int i = 0; i < n; i++) {
        codec.score(&codec, query, address, ROWS, keys);
        sum += keys[0];
    }
    printf("%g\n", (double)sum);
    return 0;
}
