/* Batch normalisation: what its rows (batchnorm.c) and its kernels (batchnorm_kernel.c) share.
 *     x_hat = (x - mean) / sqrt(var + epsilon),   y = scale * x_hat + bias */
#ifndef REGRAFT_RUNTIME_OPS_BATCHNORM_H
#define REGRAFT_RUNTIME_OPS_BATCHNORM_H

#include "runtime/ops/ops.h"

/* Inputs of BatchNormalization, BatchNormTrain and BatchNormTrainRelu, by position. */
enum { BATCHNORM_X, BATCHNORM_SCALE, BATCHNORM_BIAS, BATCHNORM_MEAN, BATCHNORM_VAR };
/* Outputs of the training rows. */
enum { BATCHNORM_Y, BATCHNORM_SAVED_MEAN, BATCHNORM_SAVED_VAR, BATCHNORM_MASK };
/* Inputs of the gradient rows (Fixed has no mask). */
enum {
    BATCHNORM_GRAD_DY,
    BATCHNORM_GRAD_X,
    BATCHNORM_GRAD_SCALE,
    BATCHNORM_GRAD_MEAN,
    BATCHNORM_GRAD_VAR,
    BATCHNORM_GRAD_MASK
};

Status batchnorm_prepare(PlanContext *context, Error *err);            /* BatchNormalization */
Status batchnorm_fixed_grad_prepare(PlanContext *context, Error *err); /* BatchNormFixedGrad */
Status batchnorm_train_prepare(PlanContext *context, Error *err);      /* BatchNormTrain, BatchNormTrainRelu */
Status batchnorm_train_grad_prepare(PlanContext *context, Error *err); /* BatchNormTrainGrad */

#endif
