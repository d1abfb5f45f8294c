/* Resizing as a product of sparse matrices, one an axis: what the rows (resize.c) and the kernel (resize_kernel.c)
 * share. Every mode of Resize is linear in its input and separable, so along each axis output o is a weighted sum of
 * inputs, y[o] = sum over t in [start[o], start[o+1]) of  weight[t] * x[index[t]], and the gradient is the transposed
 * matrices. */
#ifndef REGRAFT_RUNTIME_OPS_RESIZE_H
#define REGRAFT_RUNTIME_OPS_RESIZE_H

#include "runtime/ops/ops.h"

typedef struct AxisMap {
    int64_t in, out;
    int64_t *start, *index; /* start: out + 1 elements */
    double *weight;
    bool *outside; /* outputs that get extrapolation_value; NULL: none */
    bool identity;
} AxisMap;

typedef struct ResizeSpec {
    int rank;
    int64_t in[RANK_MAX], out[RANK_MAX];
    AxisMap maps[RANK_MAX];
} ResizeSpec;

/* From constants of the node: inputs `first`, first+1, first+2 are roi, scales, sizes. *known is false when one of them
 * is no constant. */
Status resize_spec_constant(const Node *node, const int64_t *dims, int rank, int first, Arena *arena, ResizeSpec *spec,
                            bool *known, Error *err);
AxisMap axis_map_transpose(const AxisMap *map, Arena *arena);

Status resize_prepare(PlanContext *context, Error *err);      /* Resize */
Status resize_grad_prepare(PlanContext *context, Error *err); /* ResizeGrad */

#endif
