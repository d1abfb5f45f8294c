/* Batch normalisation: what its rows (batchnorm.c), its planned steps (batchnorm_kernel.c) and its loops
 * (batchnorm_train.c) share.
 *     x_hat = (x - mean) / sqrt(var + epsilon),   y = f(scale * x_hat + bias) */
#ifndef REGRAFT_RUNTIME_OPS_BATCHNORM_H
#define REGRAFT_RUNTIME_OPS_BATCHNORM_H

#include "runtime/ops/channel.h"

/* Inputs of BatchNormalization and BatchNormTrain, by position. */
enum { BATCHNORM_X, BATCHNORM_SCALE, BATCHNORM_BIAS, BATCHNORM_MEAN, BATCHNORM_VAR };
/* Outputs of BatchNormTrain. */
enum { BATCHNORM_Y, BATCHNORM_SAVED_MEAN, BATCHNORM_SAVED_VAR };
/* Inputs of the gradient rows (Fixed has no bias). */
enum {
    BATCHNORM_GRAD_DY,
    BATCHNORM_GRAD_X,
    BATCHNORM_GRAD_SCALE,
    BATCHNORM_GRAD_MEAN,
    BATCHNORM_GRAD_VAR,
    BATCHNORM_GRAD_BIAS
};

/* f of the training rows: attribute `activation` (an operator's name; none: linear); Clip has `low` <= 0 <= `high`. */
typedef enum BatchNormActivation {
    BATCHNORM_LINEAR,
    BATCHNORM_RELU,
    BATCHNORM_CLIP,
    BATCHNORM_SWISH,
    BATCHNORM_HARD_SWISH
} BatchNormActivation;

BatchNormActivation batchnorm_activation(const Node *node);

/* One pass of batchnorm_train.c. */
typedef struct BatchNormLoop {
    const ChannelView *view;
    BatchNormActivation activation;
    float low, high, epsilon;
    const float *scale, *bias; /* [C] */
    const void *x;             /* f32 or bf16, as the view says; dy and y alike */
    const void *dy;            /* backward */
    void *y;                   /* forward; backward: dx, which may be dy */
    float *mean, *var;         /* [C]: written by forward, read by backward */
    float *dscale, *dbias;     /* [C] or NULL */
    double *first, *second;    /* the loops' own */
} BatchNormLoop;

void batchnorm_forward(BatchNormLoop *loop, void *scratch);
/* y once more, from the mean and var that forward has written: the same bits. */
void batchnorm_again(BatchNormLoop *loop, void *scratch);
void batchnorm_backward(BatchNormLoop *loop, void *scratch);
size_t batchnorm_scratch(const ChannelView *view);

Status batchnorm_prepare(PlanContext *context, Error *err);            /* BatchNormalization */
Status batchnorm_fixed_grad_prepare(PlanContext *context, Error *err); /* BatchNormFixedGrad */
Status batchnorm_train_prepare(PlanContext *context, Error *err);      /* BatchNormTrain */
Status batchnorm_replay_prepare(PlanContext *context, Error *err);     /* BatchNormReplay */
Status batchnorm_train_grad_prepare(PlanContext *context, Error *err); /* BatchNormTrainGrad */

#endif
