/* Small steps that gradient rules and expansions take often, on top of the builder of onnx/op.h. All of them return
 * NULL once the builder has failed, and `x` itself where there is nothing to do. */
#ifndef REGRAFT_RUNTIME_COMPOSE_H
#define REGRAFT_RUNTIME_COMPOSE_H

#include "onnx/op.h"

Value *compose_reshape(Builder *b, Value *x, int rank, const int64_t *dims);
Value *compose_like(Builder *b, Value *x, const Value *like);        /* reshaped to the shape of `like` */
Value *compose_transpose(Builder *b, Value *x, const int64_t *perm); /* perm has x's rank */
Value *compose_expand(Builder *b, Value *x, int rank, const int64_t *dims);
Value *compose_cast(Builder *b, Value *x, DType dtype);
Value *compose_widen(Builder *b, Value *x); /* f16 and bf16 to f32: expansions compute in f32, as evals do */
Value *compose_scale(Builder *b, Value *x, double factor); /* x * factor */
Value *compose_slice(Builder *b, Value *x, int axis, int64_t begin, int64_t end);
Value *compose_concat(Builder *b, Value *const *parts, int count, int axis);
/* A Reduce* operator with constant axes. No axes: `x` as it is. */
Value *compose_reduce(Builder *b, const char *op_type, Value *x, const int64_t *axes, size_t count, bool keepdims);
/* One output, one integer attribute (axis); in `domain`. Trailing inputs may be NULL. */
Value *compose_axis(Builder *b, const char *domain, const char *op_type, Value *const *inputs, int count, int axis);

/* MatMulStrided: alpha times the product of x and y as they look through their permutations (NULL: as they are), stored
 * through perm_out, which has out_rank entries. */
Value *compose_strided(Builder *b, Value *x, const int64_t *perm_x, Value *y, const int64_t *perm_y,
                       const int64_t *perm_out, int out_rank, double alpha);
/* For expansions: every use of `old`, an output of the node being expanded, means `made`, which takes its name when
 * that is a name of the graph's outputs. */
void compose_replace(Builder *b, Value *old, Value *made);

/* Writes `body` out before b->before with `in` bound to its inputs; out[i] is where its output i is found. */
Status compose_body(Builder *b, Graph *body, Value *const *in, Value **out, Error *err);

/* The eval of a row that only knows how to expand: expands a copy of the node in a graph of its own and lets the
 * interpreter run that. Fails where no interpreter stands behind the context (folding). */
Status eval_expanded(EvalContext *context, Error *err);

/* The infer of such a row, where no formula is at hand: the types that the expansion has. Every output must be replaced
 * by it. */
Status infer_expanded(Node *node, Error *err);

void perm_identity(int rank, int64_t *perm);
bool perm_is_identity(int rank, const int64_t *perm);
void perm_invert(int rank, const int64_t *perm, int64_t *inverse);

#endif
