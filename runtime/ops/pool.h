/* Pooling: what its rows (pool.c) and its kernels (pool_kernel.c) share. */
#ifndef REGRAFT_RUNTIME_OPS_POOL_H
#define REGRAFT_RUNTIME_OPS_POOL_H

#include "runtime/ops/ops.h"
#include "runtime/ops/window.h"

typedef struct PoolShape {
    Window window;
    int64_t batch, channels;
} PoolShape;

/* Of a pooling row whose input has these dims. Global rows pool over everything. */
Status pool_shape(const Node *node, int rank, const int64_t *dims, PoolShape *shape, Error *err);
/* Of any row of the family, gradients too (their attribute x_shape says the pooled tensor's). */
Status pool_shape_of(const Node *node, PoolShape *shape, Error *err);
/* The end padding that the last window reaches; more than window.end when ceil_mode lets it run over. */
int64_t pool_reached_end(const Window *window, int axis);

Status max_pool_prepare(PlanContext *context, Error *err);            /* MaxPool, MaxPoolTrain */
Status max_pool_grad_prepare(PlanContext *context, Error *err);       /* MaxPoolGrad */
Status average_pool_prepare(PlanContext *context, Error *err);        /* AveragePool */
Status average_pool_grad_prepare(PlanContext *context, Error *err);   /* AveragePoolGrad */
Status global_average_prepare(PlanContext *context, Error *err);      /* GlobalAveragePool */
Status global_average_grad_prepare(PlanContext *context, Error *err); /* GlobalAveragePoolGrad */

#endif
