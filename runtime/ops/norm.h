/* Normalisations within a sample: what their rows and kernels share. */
#ifndef REGRAFT_RUNTIME_OPS_NORM_H
#define REGRAFT_RUNTIME_OPS_NORM_H

#include "runtime/ops/ops.h"

/* LayerNormalization and RMSNormalization see their input as rows of everything from `axis` on. */
typedef struct RowShape {
    int axis;
    int64_t rows, length;
} RowShape;

Status row_shape(const Node *node, int rank, const int64_t *dims, RowShape *shape, Error *err);
/* `scale` covers a whole row, one element each: its shape is that of the row, perhaps behind ones. */
bool covers_row(const RowShape *shape, int rank, const int64_t *dims, int scale_rank, const int64_t *scale);

/* InstanceNormalization and GroupNormalization see theirs as [N, groups, C/groups, S]. */
typedef struct GroupShape {
    int64_t batch, channels, groups, spatial;
    bool scale_of_group; /* one scale and bias a group (opset 18), not a channel */
} GroupShape;

Status group_shape_of(const Node *node, GroupShape *shape, Error *err); /* gradient rows too */

/* layernorm_kernel.c */
Status layer_norm_prepare(PlanContext *context, Error *err);      /* LayerNormalization, RMSNormalization */
Status layer_norm_grad_prepare(PlanContext *context, Error *err); /* LayerNormGrad */
/* groupnorm_kernel.c */
Status group_norm_prepare(PlanContext *context, Error *err);      /* InstanceNormalization, GroupNormalization */
Status group_norm_grad_prepare(PlanContext *context, Error *err); /* GroupNormGrad */

#endif
