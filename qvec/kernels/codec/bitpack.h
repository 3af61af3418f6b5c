/* BITPACK codes (RABITQ and MIXED): 64 dims at a time are a block of `width` bits each, 0 to 8, in 8 * width bytes.
 *
 * A block of width 8 is 64 bytes. Any other is the parts that its width is made of, 4 + 2 + 1 bits, low bits first:
 *   4 bits: 32 bytes; byte j holds dims j, j + 32 from its low bits up
 *   2 bits: 16 bytes; byte j holds dims j, j + 16, j + 32, j + 48
 *   1 bit:   8 bytes; byte j holds dims 8j .. 8j + 7
 * so that one load, one shift by lane and one mask unpack a part.
 *
 * A code c of a block stands for the value c - (2^width - 1) / 2, times the dimension's step; a block of width 0 for
 * 0. */
#ifndef QV_BITPACK_H
#define QV_BITPACK_H

#include "codec/centroids.h"

QV_INLINE int qv_is_bitpacked(const qv_codec *codec) { return codec->widths != NULL; }

QV_INLINE int qv_bitpack_blocks(int dim) { return (dim + QV_BLOCK - 1) / QV_BLOCK; }

/* Code of dim j of the block at `data`. */
QV_INLINE int qv_bitpack_code(const uint8_t *data, int width, int j) {
    int code = 0, shift = 0;
    if (width == 8) return data[j];
    if (width & 4) {
        code = data[j % 32] >> (j / 32 * 4) & 15;
        data += 32;
        shift = 4;
    }
    if (width & 2) {
        code |= (data[j % 16] >> (j / 16 * 2) & 3) << shift;
        data += 16;
        shift += 2;
    }
    if (width & 1) code |= (data[j / 8] >> (j % 8) & 1) << shift;
    return code;
}

/* Rows of 1 bit per dim are scored like TERNARY: the query's signed values are stored in planes. The values of bit p
 * of 64 bytes start at 64 p of each QV_BIT_GROUP; values past the last dim are 0. */
#define QV_BIT_GROUP (8 * QV_BLOCK)

/* Reorder the values of `dims` dims, a multiple of 8, into planes. */
static inline void qv_spread_bits(const int8_t *values, int dims, int8_t *planes) {
    memset(planes, 0, qv_round_up((size_t)dims, QV_BIT_GROUP));
    for (int first = 0; first < dims; first += QV_BIT_GROUP, planes += QV_BIT_GROUP) {
        int bytes = dims - first < QV_BIT_GROUP ? (dims - first) / 8 : QV_BLOCK;
        for (int p = 0; p < 8; p++) {
            for (int j = 0; j < bytes; j++) planes[QV_BLOCK * p + j] = values[first + 8 * j + p];
        }
    }
}

void qv_encode_bitpack(const qv_codec *codec, const float *x, const qv_located *located, uint8_t *row);
void qv_decode_bitpack(const qv_codec *codec, const uint8_t *row, float *x);

#endif
