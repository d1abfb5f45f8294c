/* Softmax along one axis, as softmax.c does it, for losses that contain it. */
#ifndef REGRAFT_RUNTIME_SOFTMAX_H
#define REGRAFT_RUNTIME_SOFTMAX_H

#include <stdint.h>

/* A tensor around one of its axes: [outer, n, inner]. */
typedef struct Span {
    int64_t outer, n, inner;
} Span;

Span span_around(int axis, int rank, const int64_t *dims);

/* MASKED: a line of minus infinities gives zeros instead of NaN, as attention wants it. */
typedef enum SoftmaxKind { SOFTMAX_PLAIN, SOFTMAX_LOG, SOFTMAX_HARD, SOFTMAX_MASKED } SoftmaxKind;

/* On the pool: `to` = softmax or log softmax of `x` along the span; with `y` (outputs of the forward) `x` is dY and
 * `to` its dX. `to` may be `x`. Not for SOFTMAX_HARD. */
void softmax_run(SoftmaxKind kind, Span span, const float *x, const float *y, float *to);

#endif
