/* Packed nodes: all that a walk reads of a row in one block, so that a hop costs one miss (SymphonyQG, arXiv:2411.12229).
 *
 *   signs of the residuals v - u of the neighbors v of u, in groups of 32 (fastscan.h)    4 * coded each
 *   neighbors u32[degree], then f16[degree] add, f16[degree] rescale
 *   the node's own code as its column has it, without padding
 *   { float add, rescale } units of the two factors; zeros to a multiple of 64
 *
 * Vectors are what the codes decode to, rotated: a node can be made anew from its list and the codes alone. An empty slot
 * has neighbor QV_NO_ROW and add = +inf. */
#ifndef QV_NODES_H
#define QV_NODES_H

#include "codec/fastscan.h"
#include "graph/graph.h"

#define QV_NODE_DIMS_MIN 64     /* fewer signs than that tell too little: short vectors are rotated into more dims */
#define QV_NODE_DIMS_ENOUGH 384 /* and more of them than these, of long ones, more than a walk needs */

typedef struct {
    float add, rescale;
} qv_node_units;

typedef struct {
    const qv_codec *codec; /* of the node's own code; QV_BINARY has no estimates */
    int dims;              /* of the rotated space, */
    int coded;             /* and how many of them, from the first, signs are kept of */
    uint32_t degree;       /* a multiple of 32 */
    const uint8_t *signs;  /* of the rotation, 4 * dims / 8 */
    size_t at_rows, at_add, at_rescale, at_code, at_units, stride;
} qv_node_layout;

/* 0, or -1 where codec and degree do not go together. `codec` and `signs` are borrowed; signs may come later. */
int qv_node_layout_init(qv_node_layout *layout, const qv_codec *codec, uint32_t degree, const uint8_t *signs);

/* The node of a code and the neighbors that its list names among n rows of codes, into stride bytes at `node`, with `room`
 * for 3 * dims floats. */
int qv_node_encode(const qv_node_layout *layout, qv_column *codes, uint32_t n, const uint32_t *list,
                   const uint8_t *code, float *scratch, uint8_t *node);

/* --- the walk --- */

typedef struct {
    qv_node_layout layout;
    qv_column *nodes;
    uint32_t n; /* rows that have a node: every neighbor is below */
    qv_node_layout start_layout;
    const uint8_t *start; /* a node that is no row's: its neighbors are the rows that a walk may begin with */
} qv_nodes;

/* The `find` of a qv_finder whose index is a qv_nodes. */
int qv_nodes_find(const void *nodes, const qv_search_params *params, const float *original, const float *transformed,
                  qv_scratch *s);

#endif
