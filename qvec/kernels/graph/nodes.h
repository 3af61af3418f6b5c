/* Packed nodes: everything that a search reads of a row, in one block, so that a hop costs one cache miss (SymphonyQG,
 * arXiv:2411.12229).
 *
 *   signs of the residuals v - u of the neighbors v of u, in groups of 32 (fastscan.h)    4 * coded each
 *   neighbors u32[degree], then f16[degree] add, f16[degree] rescale
 *   the node's own code as in its column, without padding
 *   { float add, rescale } units of the two factors; zeros to a multiple of 64
 *
 * Vectors are decoded codes, rotated, so a node follows from its list and the codes alone. An empty slot has neighbor
 * QV_NO_ROW and add = +inf. */
#ifndef QV_NODES_H
#define QV_NODES_H

#include "codec/fastscan.h"
#include "graph/graph.h"

#define QV_NODE_DIMS_MIN 64     /* fewer signs estimate too badly: shorter vectors are rotated into more dims */
#define QV_NODE_DIMS_ENOUGH 384 /* more signs than these do not improve a search */

typedef struct {
    float add, rescale;
} qv_node_units;

typedef struct {
    const qv_codec *codec; /* of the node's own code; not QV_BINARY, which estimates no distance */
    int dims;              /* of the rotated space, */
    int coded;             /* number of dims, from the first, whose signs are stored */
    uint32_t degree;       /* a multiple of 32 */
    const uint8_t *signs;  /* of the rotation, 4 * dims / 8 */
    size_t at_rows, at_add, at_rescale, at_code, at_units, stride;
} qv_node_layout;

/* Initialize a layout. Returns 0, or -1 if codec and degree do not fit. `codec` and `signs` are borrowed; signs may
 * be set later. */
int qv_node_layout_init(qv_node_layout *layout, const qv_codec *codec, uint32_t degree, const uint8_t *signs);

/* Encode the node of a code and the neighbors in its list into `stride` bytes at `node`; n: number of rows of codes.
 * scratch: 3 * dims floats. */
int qv_node_encode(const qv_node_layout *layout, qv_column *codes, uint32_t n, const uint32_t *list,
                   const uint8_t *code, float *scratch, uint8_t *node);

/* --- the walk --- */

typedef struct {
    qv_node_layout layout;
    qv_column *nodes;
    uint32_t n; /* rows with a node; neighbors are below */
    qv_node_layout start_layout;
    const uint8_t *start; /* a node of no row, whose neighbors are the rows that a search starts from */
} qv_nodes;

/* The `find` of a qv_finder whose index is a qv_nodes. */
int qv_nodes_find(const void *nodes, const qv_search_params *params, const float *original, const float *transformed,
                  qv_scratch *s);

#endif
