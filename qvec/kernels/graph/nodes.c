/* Encoding of packed nodes. */
#include "graph/nodes.h"

#include "codec/half.h"
#include "codec/lanes.h"

#define HALF_PI 1.5707963267948966
#define EMPTY_ADD 0x7C00 /* +inf as f16 */

/* Signs of d of D rotated dims estimate a dot product with an error of sqrt(pi / (2 d) - 1 / D) relative to the
 * vectors' lengths: b and r have a cosine of sqrt(2 / pi d / D). 384 of 384 dims are precise enough for a search;
 * with more dims, store as many signs as give the same error. */
static int coded_dims(int dims) {
    double enough = HALF_PI / ((HALF_PI - 1) / QV_NODE_DIMS_ENOUGH + 1.0 / dims);
    int coded = QV_FS_DIMS * (int)ceil(enough / QV_FS_DIMS);
    return dims <= QV_NODE_DIMS_ENOUGH || coded > dims ? dims : coded;
}

int qv_node_layout_init(qv_node_layout *layout, const qv_codec *codec, uint32_t degree, const uint8_t *signs) {
    if (codec->kind == QV_BINARY || degree == 0 || degree % QV_FS_VECTORS || degree > QV_DEGREE_MAX) return -1;
    int dims = (int)qv_round_up((size_t)codec->dim, QV_FS_DIMS);
    *layout = (qv_node_layout){.codec = codec, .degree = degree, .signs = signs};
    layout->dims = dims < QV_NODE_DIMS_MIN ? QV_NODE_DIMS_MIN : dims;
    layout->coded = coded_dims(layout->dims);
    layout->at_rows = degree / QV_FS_VECTORS * qv_fs_bytes(layout->coded);
    layout->at_add = layout->at_rows + degree * sizeof(uint32_t);
    layout->at_rescale = layout->at_add + degree * sizeof(uint16_t);
    layout->at_code = layout->at_rescale + degree * sizeof(uint16_t);
    size_t code = (size_t)codec->data_size + (codec->has_factors ? sizeof(qv_factors) : 0);
    layout->at_units = layout->at_code + qv_round_up(code, sizeof(float));
    layout->stride = qv_round_up(layout->at_units + sizeof(qv_node_units), 64);
    return 0;
}

/* Decode a code and rotate it. buffer: as many floats as `out`. */
static void rotated(const qv_node_layout *layout, const uint8_t *code, float *scratch, float *out) {
    qv_decode(layout->codec, code, 1, scratch);
    qv_transform(scratch, 1, layout->codec->dim, layout->dims, 0, NULL, layout->signs, out);
}

/* Convert values to f16 in a unit that puts the largest in 0.5..1. Returns the unit. */
static float to_halves(const float *values, uint32_t n, uint16_t *halves) {
    float largest = 0;
    for (uint32_t i = 0; i < n; i++) largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
    int exponent = 0;
    frexpf(largest, &exponent);
    float unit = largest > 0x1p-100f ? ldexpf(1, exponent) : 1;
    for (uint32_t i = 0; i < n; i++) halves[i] = qv_half(values[i] / unit);
    return unit;
}

static void put_neighbor(const qv_node_layout *layout, uint32_t slot, const float *residual, uint8_t *node) {
    uint8_t *group = node + slot / QV_FS_VECTORS * qv_fs_bytes(layout->coded);
    qv_fs_put(residual, layout->coded, (int)(slot % QV_FS_VECTORS), group);
}

int qv_node_encode(const qv_node_layout *layout, qv_column *codes, uint32_t n, const uint32_t *list,
                   const uint8_t *code, float *scratch, uint8_t *node) {
    float *center = scratch, *residual = scratch + layout->dims, *decoded = scratch + 2 * (size_t)layout->dims;
    float add[QV_DEGREE_MAX] = {0}, rescale[QV_DEGREE_MAX] = {0};
    uint32_t rows[QV_DEGREE_MAX];
    rotated(layout, code, decoded, center);
    memset(node, 0, layout->stride);
    for (uint32_t slot = 0; slot < layout->degree; slot++) {
        rows[slot] = list[slot] == QV_NO_ROW || (list[slot] & QV_ROW_MASK) >= n ? QV_NO_ROW : list[slot] & QV_ROW_MASK;
        if (rows[slot] == QV_NO_ROW) continue;
        const uint8_t *neighbor = qv_row(codes, rows[slot]);
        if (!neighbor) return QV_DAMAGED;
        rotated(layout, neighbor, decoded, residual);
        for (int i = 0; i < layout->dims; i++) residual[i] -= center[i];
        qv_fs_factors factors = qv_fs_factors_of(layout->codec->metric, residual, center, layout->dims, layout->coded);
        add[slot] = factors.add;
        rescale[slot] = factors.rescale;
        put_neighbor(layout, slot, residual, node);
    }
    uint16_t halves[QV_DEGREE_MAX];
    qv_node_units units;
    units.add = to_halves(add, layout->degree, halves);
    for (uint32_t slot = 0; slot < layout->degree; slot++)
        halves[slot] = rows[slot] == QV_NO_ROW ? EMPTY_ADD : halves[slot];
    memcpy(node + layout->at_add, halves, layout->degree * sizeof *halves);
    units.rescale = to_halves(rescale, layout->degree, halves);
    memcpy(node + layout->at_rescale, halves, layout->degree * sizeof *halves);
    memcpy(node + layout->at_rows, rows, layout->degree * sizeof *rows);
    memcpy(node + layout->at_code, code, layout->at_units - layout->at_code);
    memcpy(node + layout->at_units, &units, sizeof units);
    return QV_OK;
}
