/* FastScan: dot products of one query with the sign codes of 32 vectors at a time, by table look-up in registers
 * (Andre et al., VLDB 2015), with RaBitQ's unbiased estimate (Gao and Long, arXiv:2405.12497).
 *
 * Vectors are residuals r = v - c of a center, in rotated space, dims a multiple of 16. Codes are their signs, which
 * stand for b = +-1/2 in every dim. Codes of 32 vectors take a line of 64 bytes for each 16 dims:
 *
 *   byte 16 g + place(v mod 16): dims 4g .. 4g+3 of vector v, the first in the lowest bit; v < 16 in the low nibble
 *   place(v) = 2 v for v < 8, else 2 (v - 8) + 1
 *
 * A query's table has a line of 64 bytes for each 16 dims, too: byte 16 g + p is 32 + the sum of +-q/2 by the bits
 * of p, in units of `delta`, within 1..63, so that the sum of four fits into a byte. */
#ifndef QV_FASTSCAN_H
#define QV_FASTSCAN_H

#include "codec/codec.h"

#define QV_FS_VECTORS 32
#define QV_FS_DIMS 16 /* of a line */
#define QV_FS_LINE 64 /* bytes */

/* est = key(c) + add + rescale * <b, q> is an unbiased estimate of the key of v; |est - key(v)| <= error * |q - c|
 * with high probability. The query is rotated like the vectors and not centered, so one table serves every center. */
typedef struct {
    float add, rescale, error;
} qv_fs_factors;

static inline size_t qv_fs_bytes(int dims) { return (size_t)dims / QV_FS_DIMS * QV_FS_LINE; }

/* Write a residual's signs to place `slot` of a group of codes. */
void qv_fs_put(const float *residual, int dims, int slot, uint8_t *codes);

/* Add `amplitude` times the signs in place `slot` of a group of codes to out [dims]. */
void qv_fs_add(const uint8_t *codes, int dims, int slot, float amplitude, float *out);

/* Copy the signs in place `from` of one group of codes to place `to` of another, or of the same. */
void qv_fs_copy(const uint8_t *source, int from, uint8_t *target, int to, int dims);

/* Clear the signs of a place. */
void qv_fs_clear(uint8_t *target, int to, int dims);

/* Factors of a residual from `center`; signs of the first `coded` of `dims` are stored. Keys are squared L2 (QV_L2)
 * or -dot (QV_IP; QV_COSINE: 1 - dot of unit vectors). */
qv_fs_factors qv_fs_factors_of(int metric, const float *residual, const float *center, int dims, int coded);

/* Change factors under QV_L2 of a vector that is itself inexact: as far from the true vector as sqrt(loss), in a random
 * direction. The true vector's squared distance from a query is larger by `loss`, in the mean. */
void qv_fs_widen(qv_fs_factors *factors, float loss, int dims);

/* Which residual do factors with all of `dims` signs stand for? Its signs times the returned amplitude are nearest to
 * it. loss: the squared distance, plus that of qv_fs_widen. along: <c, b>, where c is the center, and b are the signs.
 * Under QV_IP, factors must not be widened. */
float qv_fs_amplitude(int metric, const qv_fs_factors *factors, double along, int dims, double *loss);

/* Fill the table of a query, qv_fs_bytes(dims), equal on every machine. Returns delta: <b, q> is nearly delta * sum. */
float qv_fs_table(const float *q, int dims, uint8_t *table);

/* Sums of 32 vectors, in units of delta; equal on every level. */
typedef void (*qv_fs_sums_fn)(const uint8_t *codes, const uint8_t *table, int dims, int32_t *sums);
qv_fs_sums_fn qv_fs_sums(int simd);

#endif
