/* Arithmetic over blocks of 64 floats in fixed lanes. The operations and their order do not depend
 * on the compiler's vector width or on the machine, so codes are equal to the last bit
 * everywhere. */
#ifndef QV_LANES_H
#define QV_LANES_H

#include <math.h>
#include <string.h>

#include "codec/simd.h"

#define QV_BLOCK 64

/* Vectors shorter than this have no direction in float32 (1/|x| and |x|^2 leave its range): they count as zero. */
#define QV_TINY_NORM 0x1p-100

/* |x|^2 saturates here, a quarter of FLT_MAX, so that |q|^2 + |x|^2 - 2<q, x> stays finite. */
#define QV_NORM2_MAX 0x1p126

/* |x|^2 of a vector normalized in float32 is this near to 1. */
#define QV_UNIT_ERROR 1e-6

/* Four floats and eight, and the integers of their bits; at any address. */
typedef float qv_lanes4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t qv_mask4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef double qv_doubles4 __attribute__((vector_size(32)));
typedef float qv_lanes8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t qv_mask8 __attribute__((vector_size(32)));
typedef int16_t qv_shorts16 __attribute__((vector_size(32)));
typedef int8_t qv_bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

static inline size_t qv_round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* Dims i..i+63 of x; past the end of the vector they are zeros, in `buffer`. */
QV_INLINE const float *qv_block(const float *x, int dim, int i, float *buffer) {
    if (dim - i >= QV_BLOCK) return x + i;
    memset(buffer, 0, QV_BLOCK * sizeof *buffer);
    memcpy(buffer, x + i, (size_t)(dim - i) * sizeof *buffer);
    return buffer;
}

QV_INLINE double qv_fold_lanes(const double *lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* <x, y> over one block; in double, so that squares of any float neither overflow nor vanish. */
QV_INLINE double qv_dot64(const float *x, const float *y) {
    double lanes[8] = {0};
    for (int i = 0; i < QV_BLOCK; i += 8) {
        for (int j = 0; j < 8; j++) lanes[j] += (double)x[i + j] * (double)y[i + j];
    }
    return qv_fold_lanes(lanes);
}

/* The larger of a and b, lane by lane; b if either is NaN. */
QV_INLINE void qv_raise(qv_lanes8 *b, const qv_lanes8 *a) {
    qv_mask8 more = *a > *b;
    *b = (qv_lanes8)(((qv_mask8)*a & more) | ((qv_mask8)*b & ~more));
}

QV_INLINE float qv_max_abs64(const float *x) {
    qv_lanes8 lanes = {0};
    for (int i = 0; i < QV_BLOCK; i += 8) {
        qv_lanes8 size = (qv_lanes8)((qv_mask8) * (const qv_lanes8 *)(x + i) & INT32_MAX);
        qv_raise(&lanes, &size);
    }
    float max = 0;
    for (int j = 0; j < 8; j++) max = lanes[j] > max ? lanes[j] : max;
    return max;
}

#define QV_MAGIC 0x1.8p23f

/* The nearest integer, ties to even, of |v| < 2^22: adding 1.5 * 2^23 leaves it in the low bits of the mantissa. */
QV_INLINE int32_t qv_round(float v) {
    const int32_t magic_bits = 0x4B400000;
    float shifted = v + QV_MAGIC;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return bits - magic_bits;
}

/* The low halves of sixteen integers, and the low bytes of sixteen of these. GCC's own conversion
 * would split vectors. */
QV_INLINE void qv_low_halves(const qv_mask8 *whole, qv_shorts16 *halves) {
    *halves = __builtin_shufflevector((qv_shorts16)whole[0], (qv_shorts16)whole[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18,
                                      20, 22, 24, 26, 28, 30);
}

QV_INLINE void qv_put_low_bytes(const qv_shorts16 *halves, int8_t *k) {
    typedef int8_t pairs __attribute__((vector_size(32)));
    pairs v = (pairs)*halves;
    *(qv_bytes16 *)k = __builtin_shufflevector(v, v, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}

QV_INLINE float qv_clamp(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

/* |x|^2. */
double qv_norm2(const float *x, int dim);

/* `out` = x * unit, rounded once; it may be x itself. */
void qv_scale(const float *x, int dim, double unit, float *out);

/* 1/|x|, 0 for vectors that count as zero. */
static inline double qv_inverse_norm(double norm2) {
    double norm = sqrt(norm2);
    return norm < QV_TINY_NORM ? 0 : 1 / norm;
}

#endif
