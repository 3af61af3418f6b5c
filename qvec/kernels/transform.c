/* Normalising, centring and rotating. Compiled once for the baseline, four floats at a time, so that every machine
 * gives the same bits.
 *
 * The rotation is the fast Hadamard form of Kac's walk: four rounds of random signs, a Walsh-Hadamard transform of the
 * first (odd rounds: last) 2^k dims, and one butterfly between the two halves, which mixes what the transform left out
 * (Fino and Algazi 1976; Ailon and Chazelle 2009 for random signs before the transform). */
#include "lanes.h"

typedef float lanes4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t mask4 __attribute__((vector_size(16)));

#define ROUNDS 4

/* 2^31 where a bit of the nibble is set: x ^ mask flips the sign. */
#define FLIP(n, b) ((n) >> (b) & 1 ? INT32_MIN : 0)
#define MASK(n) {FLIP(n, 0), FLIP(n, 1), FLIP(n, 2), FLIP(n, 3)}
static const mask4 SIGN_MASKS[16] = {MASK(0), MASK(1), MASK(2),  MASK(3),  MASK(4),  MASK(5),  MASK(6),  MASK(7),
                                     MASK(8), MASK(9), MASK(10), MASK(11), MASK(12), MASK(13), MASK(14), MASK(15)};

static void flip_signs(float *x, int n, const uint8_t *signs) {
    lanes4 *v = (lanes4 *)x;
    for (int i = 0; i < n / 8; i++) {
        v[2 * i] = (lanes4)((mask4)v[2 * i] ^ SIGN_MASKS[signs[i] & 15]);
        v[2 * i + 1] = (lanes4)((mask4)v[2 * i + 1] ^ SIGN_MASKS[signs[i] >> 4]);
    }
}

/* Stages 1 and 2 inside each four floats, scaled by the transform's 1/sqrt(n). Negation is exact: x - y = x + -y. */
static void hadamard_within(lanes4 *v, int n, float scale) {
    const mask4 odd = MASK(10), upper = MASK(12);
    for (int i = 0; i < n; i++) {
        lanes4 x = v[i] * scale;
        x = __builtin_shufflevector(x, x, 1, 0, 3, 2) + (lanes4)((mask4)x ^ odd);
        v[i] = __builtin_shufflevector(x, x, 2, 3, 0, 1) + (lanes4)((mask4)x ^ upper);
    }
}

QV_INLINE void butterfly(lanes4 *a, lanes4 *b) {
    lanes4 sum = *a + *b, difference = *a - *b;
    *a = sum;
    *b = difference;
}

/* Two stages in one pass over memory. */
static void hadamard_pair(lanes4 *v, int n, int half) {
    for (int i = 0; i < n; i += 4 * half) {
        for (int j = i; j < i + half; j++) {
            lanes4 a = v[j], b = v[j + half], c = v[j + 2 * half], d = v[j + 3 * half];
            butterfly(&a, &b);
            butterfly(&c, &d);
            butterfly(&a, &c);
            butterfly(&b, &d);
            v[j] = a;
            v[j + half] = b;
            v[j + 2 * half] = c;
            v[j + 3 * half] = d;
        }
    }
}

static void butterfly_halves(lanes4 *v, int n, float scale) {
    for (int j = 0; j < n / 2; j++) {
        butterfly(&v[j], &v[j + n / 2]);
        v[j] *= scale;
        v[j + n / 2] *= scale;
    }
}

/* Orthonormal Walsh-Hadamard transform of n = 2^k >= 16 floats. */
static void hadamard(float *x, int n) {
    lanes4 *v = (lanes4 *)x;
    int blocks = n / 4, half = 1;
    hadamard_within(v, blocks, (float)(1 / sqrt(n)));
    for (; 4 * half <= blocks; half *= 4) hadamard_pair(v, blocks, half);
    if (half < blocks) butterfly_halves(v, blocks, 1);
}

static void rotate(float *x, int padded, const uint8_t *signs) {
    int power = 1;
    while (2 * power <= padded) power *= 2;
    for (int round = 0; round < ROUNDS; round++) {
        flip_signs(x, padded, signs + (size_t)round * (size_t)(padded / 8));
        hadamard(round % 2 ? x + padded - power : x, power);
        if (power < padded) butterfly_halves((lanes4 *)x, padded / 4, (float)sqrt(0.5));
    }
}

void qv_transform(const float *x, size_t n, int dim, int padded, int normalise, const float *mean,
                  const uint8_t *signs, float *out) {
    for (size_t row = 0; row < n; row++, x += dim, out += padded) {
        double unit = normalise ? qv_inverse_norm(qv_norm2(x, dim)) : 1;
        for (int i = 0; i < dim; i++) out[i] = (float)(x[i] * unit);
        for (int i = 0; mean != NULL && i < dim; i++) out[i] -= mean[i];
        memset(out + dim, 0, (size_t)(padded - dim) * sizeof *out);
        if (signs != NULL) rotate(out, padded, signs);
    }
}
