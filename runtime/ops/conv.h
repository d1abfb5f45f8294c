/* A convolution's shape, and its three directions in double. Shared by conv.c (rows), conv_kernel.c (oneDNN) and
 * conv_integer.c (quantized rows).
 *
 * ConvTranspose is the same map read backwards: its input is a convolution's output gradient. So every row of the
 * family is one of three computations over one ConvShape, always seen from the convolution's forward direction:
 *     forward   y[n,o,p]    = sum over i, k of  x[n,i,p*stride - begin + k*dilation] * w[o,i,k]
 *     input     dx          = the same sum, scattered from dy through w
 *     weights   dw[o,i,k]   = sum over n, p of  x[...] * dy[n,o,p]                                                  */
#ifndef REGRAFT_RUNTIME_OPS_CONV_H
#define REGRAFT_RUNTIME_OPS_CONV_H

#include "runtime/ops/ops.h"
#include "runtime/ops/window.h"

typedef struct ConvShape {
    Window window;
    int64_t batch, groups, in_channels, out_channels; /* of all groups together */
} ConvShape;

/* x [N, C, in...], w [O, C/groups, kernel...]: Conv and its likes. */
Status conv_shape(const Node *node, int rank, const int64_t *x, const int64_t *w, ConvShape *shape, Error *err);
/* x [N, O, out...], w [O, C/groups, kernel...]: ConvTranspose; shape->in_channels and window.in are its output's. */
Status conv_shape_transposed(const Node *node, int rank, const int64_t *x, const int64_t *w, ConvShape *shape,
                             Error *err);
/* Of any node of the family, from its inputs' types: of Conv, ConvTranspose and the internal gradient rows. */
Status conv_shape_of(const Node *node, ConvShape *shape, Error *err);
void conv_shape_x(const ConvShape *shape, int64_t dims[RANK_MAX]); /* [N, C, in...] */
void conv_shape_y(const ConvShape *shape, int64_t dims[RANK_MAX]); /* [N, O, out...] */
void conv_shape_w(const ConvShape *shape, int64_t dims[RANK_MAX]); /* [O, C/groups, kernel...] */

/* Each adds to its result. */
void conv_wide_forward(const ConvShape *shape, const double *x, const double *w, double *y);
void conv_wide_input(const ConvShape *shape, const double *dy, const double *w, double *dx);
void conv_wide_weights(const ConvShape *shape, const double *x, const double *dy, double *dw);
/* y[n, c, ...] += bias[c] */
void conv_wide_bias(int64_t batch, int64_t channels, int64_t spatial, const double *bias, double *y);

/* conv_kernel.c */
Status conv_prepare(PlanContext *context, Error *err);
Status conv_transpose_prepare(PlanContext *context, Error *err);
Status conv_grad_input_prepare(PlanContext *context, Error *err);
Status conv_grad_weight_prepare(PlanContext *context, Error *err);
Status fused_conv_prepare(PlanContext *context, Error *err);
Status channel_sum_prepare(PlanContext *context, Error *err);

/* depthwise_kernel.c: weight gradients where the library has no generated code */
bool depthwise_weight_fits(const PlanContext *context, const ConvShape *shape);
Status depthwise_weight_prepare(PlanContext *context, const ConvShape *shape, Error *err);

#endif
