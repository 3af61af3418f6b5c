/* Products with a dense matrix, in the same order of operations on every machine, so that codes
 * are equal to the last bit. Each output is summed over the inputs in order; products are rounded
 * before they are added; the lanes of a vector are different outputs. */
#include "codec/codec.h"
#include "codec/simd.h"

#include <string.h>

/* One level: vectors of `bytes`, and a tile of as many rows as its registers have space for sums.
 * GCC spills sums of vectors wider than the machine's. */
#define DEFINE_PROJECT(level, target, bytes, tile)                                                            \
    typedef float lanes_##level __attribute__((vector_size(bytes), aligned(4), may_alias));                   \
    target QV_INLINE void tile_##level(const float *x, int count, int dim, const float *panel, float *out,    \
                                       size_t stride) {                                                       \
        lanes_##level sums[tile][QV_PANEL * 4 / (bytes)];                                                     \
        memset(sums, 0, sizeof sums);                                                                         \
        for (int i = 0; i < dim; i++) {                                                                       \
            const lanes_##level *weights = (const lanes_##level *)(panel + (size_t)i * QV_PANEL);             \
            for (int v = 0; v < count; v++) {                                                                 \
                float value = x[(size_t)v * (size_t)dim + (size_t)i];                                         \
                for (int j = 0; j < QV_PANEL * 4 / (bytes); j++) sums[v][j] += weights[j] * value;            \
            }                                                                                                 \
        }                                                                                                     \
        for (int v = 0; v < count; v++) memcpy(out + (size_t)v * stride, sums[v], QV_PANEL * sizeof(float));  \
    }                                                                                                         \
    target static void project_##level(const float *x, size_t n, int dim, const float *panels, int n_panels,  \
                                       float *out) {                                                          \
        size_t width = (size_t)dim, stride = (size_t)n_panels * QV_PANEL;                                     \
        for (int p = 0; p < n_panels; p++, panels += width * QV_PANEL, out += QV_PANEL) {                     \
            size_t row = 0;                                                                                   \
            for (; row + (tile) <= n; row += (tile)) {                                                        \
                tile_##level(x + row * width, tile, dim, panels, out + row * stride, stride);                 \
            }                                                                                                 \
            for (; row < n; row++) tile_##level(x + row * width, 1, dim, panels, out + row * stride, stride); \
        }                                                                                                     \
    }

DEFINE_PROJECT(baseline, , 16, 1)
#if defined(__x86_64__)
DEFINE_PROJECT(avx2, QV_TARGET_AVX2, 32, 2)
DEFINE_PROJECT(avx512, QV_TARGET_AVX512, 64, 4)
#endif

void qv_project(const float *x, size_t n, int dim, const float *panels, int n_panels, int simd, float *out) {
#if defined(__x86_64__)
    if (simd == QV_AVX512) {
        project_avx512(x, n, dim, panels, n_panels, out);
        return;
    }
    if (simd == QV_AVX2) {
        project_avx2(x, n, dim, panels, n_panels, out);
        return;
    }
#endif
    (void)simd;
    project_baseline(x, n, dim, panels, n_panels, out);
}
