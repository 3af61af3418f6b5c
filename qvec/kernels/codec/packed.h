/* INT4 and TERNARY: codes of 4 or 2 bits, several to a byte, so that unpacking is a shift and an `and`.
 *
 * A group of 64 bytes holds 64 dims a plane: byte j has dim j of the group in its lowest bits, dim j + 64 in the
 * next, and so on. The last group is cut to `width` bytes, a multiple of 16: byte j has dims j, j + width, ... Pads
 * are 0. Prepared queries hold the planes one after the other, 64 s8 each, with zeros where there is no dim. */
#ifndef QV_PACKED_H
#define QV_PACKED_H

#include "codec/centroids.h"

/* A code c in 0..top stands for k = table[c] - middle steps. */
typedef struct {
    int planes, bits, top, middle;
    const uint8_t *table;
    float start; /* a step in standard deviations: that of the least squared error over a normal distribution */
} qv_levels;

/* Max, "Quantizing for minimum distortion" (IRE Trans. Inf. Theory, 1960), tables I and II: the 16 levels of the
 * least error over a normal distribution, in 63rds of the outermost, 2.733 standard deviations; 16 uniform levels,
 * in half steps, for the calibrated ranges that give the step; 3 levels. */
static const uint8_t QV_INT4_TABLE[16] = {1, 16, 27, 35, 42, 49, 55, 61, 67, 73, 79, 86, 93, 101, 112, 127};
static const uint8_t QV_UNIFORM_TABLE[16] = {49, 51, 53, 55, 57, 59, 61, 63, 65, 67, 69, 71, 73, 75, 77, 79};
static const uint8_t QV_TERNARY_TABLE[4] = {0, 1, 2, 3};
static const qv_levels QV_INT4_LEVELS = {2, 4, 15, 64, QV_INT4_TABLE, 2.733f / 63};
static const qv_levels QV_UNIFORM_LEVELS = {2, 4, 15, 64, QV_UNIFORM_TABLE, 0};
static const qv_levels QV_TERNARY_LEVELS = {4, 2, 2, 1, QV_TERNARY_TABLE, 1.224f};

static inline int qv_is_packed(int kind) { return kind == QV_INT4 || kind == QV_TERNARY; }

static inline const qv_levels *qv_levels_of(const qv_codec *codec) {
    if (codec->kind == QV_TERNARY) return &QV_TERNARY_LEVELS;
    return codec->step == NULL ? &QV_INT4_LEVELS : &QV_UNIFORM_LEVELS;
}

/* Dims of a whole group. */
static inline int qv_group_dims(const qv_levels *levels) { return QV_BLOCK * levels->planes; }

static inline int qv_packed_size(const qv_codec *codec) {
    const qv_levels *levels = qv_levels_of(codec);
    int dim = codec->dim, group = qv_group_dims(levels), rest = dim % group;
    return dim / group * QV_BLOCK + (int)qv_round_up((size_t)((rest + levels->planes - 1) / levels->planes), 16);
}

/* Bytes of the group that starts at byte `start` of a row. */
static inline int qv_packed_width(const qv_codec *codec, int start) {
    int left = codec->data_size - start;
    return left < QV_BLOCK ? left : QV_BLOCK;
}

/* Dims of the group that begins at dim `first`. */
static inline int qv_group_count(const qv_codec *codec, const qv_levels *levels, int first) {
    int left = codec->dim - first, whole = qv_group_dims(levels);
    return left < whole ? left : whole;
}

/* Unpack the codes of one group, planes * width of them. */
static inline void qv_unpack(const qv_levels *levels, const uint8_t *group, int width, uint8_t *codes) {
    for (int p = 0; p < levels->planes; p++) {
        int shift = p * levels->bits, mask = (1 << levels->bits) - 1;
        for (int j = 0; j < width; j++) codes[p * width + j] = (uint8_t)(group[j] >> shift & mask);
    }
}

static inline void qv_pack(const qv_levels *levels, const uint8_t *codes, int width, uint8_t *group) {
    memset(group, 0, (size_t)width);
    for (int p = 0; p < levels->planes; p++) {
        for (int j = 0; j < width; j++) group[j] |= (uint8_t)(codes[p * width + j] << p * levels->bits);
    }
}

/* Reorder the signed values of a query from dim order into planes. Only the last group changes. `q` fits whole
 * groups. */
static inline void qv_spread(const qv_codec *codec, int8_t *q) {
    const qv_levels *levels = qv_levels_of(codec);
    int last = (codec->data_size - 1) / QV_BLOCK, width = codec->data_size - last * QV_BLOCK;
    if (width == QV_BLOCK) return;
    int8_t *group = q + (size_t)last * (size_t)qv_group_dims(levels);
    for (int p = levels->planes - 1; p >= 0; p--) {
        memmove(group + p * QV_BLOCK, group + p * width, (size_t)width);
        memset(group + p * QV_BLOCK + width, 0, (size_t)(QV_BLOCK - width));
    }
}

void qv_encode_packed(const qv_codec *codec, const float *x, const qv_located *located, uint8_t *row);
void qv_decode_packed(const qv_codec *codec, const uint8_t *row, float *x);

#endif
