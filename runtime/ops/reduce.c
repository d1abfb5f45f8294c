/* Family: reduce. ONNX's ten Reduce operators with axes as an input, and the internal rows around them: ReduceTo sums
 * what broadcasting had repeated, ReduceSpread is the gradient of sums and means, ReduceProdGrad that of products.
 * Rows, shapes, reference evaluation and gradients are here; the planned kernels are in reduce_kernel.c. */
#include "runtime/ops/reduce.h"

#include <math.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"

/* ---- shapes ----------------------------------------------------------------------------------------------- */

static const char *const reduce_names[] = {"ReduceSum",    "ReduceMean",     "ReduceMax", "ReduceMin",
                                           "ReduceProd",   "ReduceL1",       "ReduceL2",  "ReduceSumSquare",
                                           "ReduceLogSum", "ReduceLogSumExp"};

static ReduceKind kind_of(const Node *node)
{
    for (int i = 0; i < (int)(sizeof reduce_names / sizeof reduce_names[0]); i++)
        if (strcmp(node->op_type, reduce_names[i]) == 0)
            return (ReduceKind)i;
    return REDUCE_SUM;
}

static Status reduction_init(const Node *node, int rank, const int64_t *dims, const int64_t *axes, size_t axis_count,
                             Reduction *r, Error *err)
{
    *r = (Reduction){.kind = kind_of(node), .rank = rank, .count = 1};
    bool keep = node_int(node, "keepdims", 1) != 0, noop = node_int(node, "noop_with_empty_axes", 0) != 0;
    for (size_t i = 0; i < axis_count; i++) {
        int axis;
        TRY(axis_normalize(node, axes[i], rank, &axis, err));
        r->reduced[axis] = true;
    }
    for (int i = 0; i < rank; i++) {
        r->reduced[i] = r->reduced[i] || (axis_count == 0 && !noop);
        r->dims[i] = dims[i];
        r->kept[i] = r->reduced[i] ? 1 : dims[i];
        r->count *= r->reduced[i] ? dims[i] : 1;
        if (!r->reduced[i] || keep)
            r->out_dims[r->out_rank++] = r->kept[i];
    }
    return STATUS_OK;
}

/* ReduceTo: everything that `target` has as 1, or not at all, is summed. */
static Status reduce_to_init(const Node *node, int rank, const int64_t *dims, const int64_t *target, size_t target_rank,
                             Reduction *r, Error *err)
{
    *r = (Reduction){.kind = REDUCE_SUM, .rank = rank, .count = 1, .out_rank = (int)target_rank};
    int shift = rank - (int)target_rank;
    for (int i = 0; i < rank; i++) {
        int64_t wanted = i < shift ? 1 : target[i - shift];
        if (shift < 0 || (wanted != 1 && wanted != dims[i]))
            return infer_fail(node, err, "a shape of %d dims does not broadcast to its input", (int)target_rank);
        r->reduced[i] = wanted != dims[i];
        r->dims[i] = dims[i];
        r->kept[i] = wanted;
        r->count *= r->reduced[i] ? dims[i] : 1;
    }
    for (size_t i = 0; i < target_rank; i++)
        r->out_dims[i] = target[i];
    return STATUS_OK;
}

static bool is_reduce_to(const Node *node)
{
    return strcmp(node->op_type, "ReduceTo") == 0;
}

/* From the node's types and constants. */
static Status node_reduction(const Node *node, Reduction *r, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const int64_t *values;
    size_t count;
    TRY(infer_ints(node, 1, &values, &count, err));
    return is_reduce_to(node) ? reduce_to_init(node, x->rank, x->dims, values, count, r, err)
                              : reduction_init(node, x->rank, x->dims, values, count, r, err);
}

static Status reduce_infer(Node *node, Error *err)
{
    Reduction r;
    const Type *x = &node->inputs[0]->type;
    if (!infer_has_ints(node, 1)) {
        node->outputs[0]->type.dtype = x->dtype;
        return STATUS_OK;
    }
    TRY(node_reduction(node, &r, err));
    type_set(&node->outputs[0]->type, x->dtype, r.out_rank, r.out_dims);
    return STATUS_OK;
}

/* Axes were an attribute before 13 (ReduceSum) and 18 (the others). */
static Status reduce_upgrade(Node *node, Error *err)
{
    (void)err;
    upgrade_ints_to_input(node, "axes", 1);
    return STATUS_OK;
}

/* ---- eval ------------------------------------------------------------------------------------------------- */

/* Some dims of a tensor, walked by one number. */
typedef struct Walk {
    int rank;
    int64_t dims[RANK_MAX], strides[RANK_MAX], count;
} Walk;

static int64_t walk_offset(const Walk *walk, int64_t i)
{
    int64_t offset = 0;
    for (int d = walk->rank - 1; d >= 0; d--) {
        offset += i % walk->dims[d] * walk->strides[d];
        i /= walk->dims[d];
    }
    return offset;
}

static Walk walk_over(const Reduction *r, bool reduced)
{
    Walk walk = {.count = 1};
    int64_t strides[RANK_MAX];
    strides_dense(r->rank, r->dims, strides);
    for (int i = 0; i < r->rank; i++)
        if (r->reduced[i] == reduced) {
            walk.dims[walk.rank] = r->dims[i];
            walk.strides[walk.rank++] = strides[i];
            walk.count *= r->dims[i];
        }
    return walk;
}

#define ADD_FLOAT(a, b) ((a) + (b))
#define MUL_FLOAT(a, b) ((a) * (b))
#define ADD_SIGNED(a, b) ((int64_t)((uint64_t)(a) + (uint64_t)(b)))
#define MUL_SIGNED(a, b) ((int64_t)((uint64_t)(a) * (uint64_t)(b)))

/* One output: x walked over the reduced dims. Floats are summed in double; integers wrap, and their means truncate. */
#define REDUCE_EVAL(NAME, TYPE, SUM, ADD, MUL, LOWEST, HIGHEST)                                                        \
    static TYPE reduce_##NAME(ReduceKind kind, const TYPE *x, const Walk *walk)                                        \
    {                                                                                                                  \
        bool down = kind == REDUCE_MAX || kind == REDUCE_LOG_SUM_EXP;                                                  \
        SUM sum = (SUM)(kind == REDUCE_PROD ? 1 : 0);                                                                  \
        TYPE best = down ? (LOWEST) : (HIGHEST);                                                                       \
        double exps = 0;                                                                                               \
        for (int64_t i = 0; i < walk->count; i++) {                                                                    \
            TYPE v = x[walk_offset(walk, i)];                                                                          \
            SUM wide = (SUM)v;                                                                                         \
            best = (down ? v > best : v < best) || v != v ? v : best;                                                  \
            if (kind == REDUCE_PROD)                                                                                   \
                sum = MUL(sum, wide);                                                                                  \
            else if (kind == REDUCE_L1)                                                                                \
                sum = ADD(sum, v > (TYPE)0 ? wide : MUL(wide, (SUM)-1));                                               \
            else if (kind == REDUCE_L2 || kind == REDUCE_SUM_SQUARE)                                                   \
                sum = ADD(sum, MUL(wide, wide));                                                                       \
            else                                                                                                       \
                sum = ADD(sum, wide);                                                                                  \
        }                                                                                                              \
        if (kind == REDUCE_MAX || kind == REDUCE_MIN)                                                                  \
            return best;                                                                                               \
        if (kind == REDUCE_MEAN)                                                                                       \
            return (TYPE)(sum / (SUM)walk->count);                                                                     \
        if (kind == REDUCE_L2)                                                                                         \
            return (TYPE)sqrt((double)sum);                                                                            \
        if (kind == REDUCE_LOG_SUM)                                                                                    \
            return (TYPE)log((double)sum);                                                                             \
        if (kind != REDUCE_LOG_SUM_EXP)                                                                                \
            return (TYPE)sum;                                                                                          \
        double shift = isinf((double)best) ? 0 : (double)best;                                                         \
        for (int64_t i = 0; i < walk->count; i++)                                                                      \
            exps += exp((double)x[walk_offset(walk, i)] - shift);                                                      \
        return walk->count == 0 ? (LOWEST) : (TYPE)(log(exps) + shift);                                                \
    }

REDUCE_EVAL(f32, float, double, ADD_FLOAT, MUL_FLOAT, -INFINITY, INFINITY)
REDUCE_EVAL(f64, double, double, ADD_FLOAT, MUL_FLOAT, (double)-INFINITY, (double)INFINITY)
REDUCE_EVAL(i8, int8_t, int64_t, ADD_SIGNED, MUL_SIGNED, INT8_MIN, INT8_MAX)
REDUCE_EVAL(i32, int32_t, int64_t, ADD_SIGNED, MUL_SIGNED, INT32_MIN, INT32_MAX)
REDUCE_EVAL(i64, int64_t, int64_t, ADD_SIGNED, MUL_SIGNED, INT64_MIN, INT64_MAX)
REDUCE_EVAL(u8, uint8_t, uint64_t, ADD_FLOAT, MUL_FLOAT, 0, UINT8_MAX)
REDUCE_EVAL(u32, uint32_t, uint64_t, ADD_FLOAT, MUL_FLOAT, 0, UINT32_MAX)
REDUCE_EVAL(u64, uint64_t, uint64_t, ADD_FLOAT, MUL_FLOAT, 0, UINT64_MAX)
REDUCE_EVAL(bool, uint8_t, uint64_t, ADD_FLOAT, MUL_FLOAT, 0, 1)

#define REDUCE_CASE(DTYPE, NAME, TYPE)                                                                                 \
    case DTYPE:                                                                                                        \
        for (int64_t i = 0; i < outer.count; i++)                                                                      \
            ((TYPE *)y->data)[i] = reduce_##NAME(r->kind, (const TYPE *)x->data + walk_offset(&outer, i), &inner);     \
        return STATUS_OK;

static Status reduce_run(EvalContext *context, const Reduction *r, const Array *x, Array *y, Error *err)
{
    Walk outer = walk_over(r, false), inner = walk_over(r, true);
    if (outer.count > 0 && inner.count == 0 && r->kind == REDUCE_MEAN && !dtype_is_float(x->dtype))
        return eval_fail(context, err, "the mean of no %s values", dtype_name(x->dtype));
    switch ((int)x->dtype) {
        REDUCE_CASE(DTYPE_F32, f32, float)
        REDUCE_CASE(DTYPE_F64, f64, double)
        REDUCE_CASE(DTYPE_I8, i8, int8_t)
        REDUCE_CASE(DTYPE_I32, i32, int32_t)
        REDUCE_CASE(DTYPE_I64, i64, int64_t)
        REDUCE_CASE(DTYPE_U8, u8, uint8_t)
        REDUCE_CASE(DTYPE_U32, u32, uint32_t)
        REDUCE_CASE(DTYPE_U64, u64, uint64_t)
        REDUCE_CASE(DTYPE_BOOL, bool, uint8_t)
    default:
        return eval_fail(context, err, "no reduction of %s", dtype_name(x->dtype));
    }
}

static Status reduce_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const Array *x = eval_input(context, 0);
    const int64_t *values;
    size_t count;
    Reduction r;
    Array *y;
    TRY(eval_ints(context, 1, &values, &count, err));
    if (is_reduce_to(node))
        TRY(reduce_to_init(node, x->rank, x->dims, values, count, &r, err));
    else
        TRY(reduction_init(node, x->rank, x->dims, values, count, &r, err));
    TRY(eval_output(context, 0, x->dtype, r.out_rank, r.out_dims, &y, err));
    return reduce_run(context, &r, x, y, err);
}

/* ---- gradients -------------------------------------------------------------------------------------------- */

/* dy repeated over the reduced dims of x, for a mean divided by their number; x gives only its shape and layout. */
static Value *build_spread(Builder *b, const Reduction *r, Value *dy, Value *x, bool mean)
{
    Value *inputs[] = {compose_reshape(b, dy, r->rank, r->kept), x};
    Node *node = build_node(b, DOMAIN_INTERNAL, "ReduceSpread", inputs, 2, 1);
    if (node != NULL && mean)
        node_set_int(node, "mean", 1);
    return build_finish(b, node);
}

static size_t reduced_axes(const Reduction *r, int64_t *axes)
{
    size_t count = 0;
    for (int i = 0; i < r->rank; i++)
        if (r->reduced[i])
            axes[count++] = i;
    return count;
}

/* Elements that share the extremum share its gradient: dx = dy [x = y] / count [x = y] (torch.amax). */
static Value *extremum_gradient(Builder *b, const Reduction *r, Value *x, Value *y, Value *dy)
{
    int64_t axes[RANK_MAX];
    size_t count = reduced_axes(r, axes);
    Value *winners = compose_cast(b, build2(b, "Equal", x, y), dy != NULL ? dy->type.dtype : DTYPE_F32);
    Value *sharing = compose_reduce(b, "ReduceSum", winners, axes, count, true);
    return build2(b, "Mul", winners, build2(b, "Div", dy, sharing));
}

/* ||x||: dx = dy x / ||x||, and 0 where the norm is (torch.linalg.vector_norm). */
static Value *norm_gradient(Builder *b, Value *x, Value *y, Value *dy)
{
    if (b->status != STATUS_OK)
        return NULL;
    Value *zero = build_scalar(b, dy->type.dtype, 0);
    return build2(b, "Mul", x, build3(b, "Where", build2(b, "Equal", y, zero), zero, build2(b, "Div", dy, y)));
}

static Value *product_gradient(Builder *b, const Reduction *r, Value *x, Value *dy)
{
    int64_t axes[RANK_MAX];
    size_t count = reduced_axes(r, axes);
    Value *inputs[] = {dy, x};
    Node *node = build_node(b, DOMAIN_INTERNAL, "ReduceProdGrad", inputs, 2, 1);
    if (node != NULL)
        node_set_ints(node, "axes", axes, count);
    return build_finish(b, node);
}

/* With y and dy in the rank of x: sum dx = dy; mean dx = dy/n; L1 dx = dy sign x; sum of squares dx = 2 x dy;
 * log sum dx = dy / e^y; log sum exp dx = dy e^(x - y). */
static Status reduce_grad(GradContext *context, Error *err)
{
    Builder *b = &context->b;
    Reduction r;
    TRY(node_reduction(context->node, &r, err));
    Value *x = context->node->inputs[0];
    Value *dy = compose_reshape(b, context->dy[0], r.rank, r.kept);
    Value *y = r.kind == REDUCE_SUM || r.kind == REDUCE_MEAN
                   ? NULL
                   : compose_reshape(b, context->node->outputs[0], r.rank, r.kept);
    if (b->status != STATUS_OK || !context->wants[0])
        return b->status;
    switch (r.kind) {
    case REDUCE_SUM:
        context->dx[0] = build_spread(b, &r, dy, x, false);
        break;
    case REDUCE_MEAN:
        context->dx[0] = build_spread(b, &r, dy, x, true);
        break;
    case REDUCE_MAX:
    case REDUCE_MIN:
        context->dx[0] = extremum_gradient(b, &r, x, y, dy);
        break;
    case REDUCE_PROD:
        context->dx[0] = product_gradient(b, &r, x, dy);
        break;
    case REDUCE_L1:
        context->dx[0] = build2(b, "Mul", build1(b, "Sign", x), dy);
        break;
    case REDUCE_L2:
        context->dx[0] = norm_gradient(b, x, y, dy);
        break;
    case REDUCE_SUM_SQUARE:
        context->dx[0] = build2(b, "Mul", x, compose_scale(b, dy, 2));
        break;
    case REDUCE_LOG_SUM:
        context->dx[0] = build_spread(b, &r, build2(b, "Div", dy, build1(b, "Exp", y)), x, false);
        break;
    case REDUCE_LOG_SUM_EXP:
        context->dx[0] = build2(b, "Mul", build1(b, "Exp", build2(b, "Sub", x, y)), dy);
        break;
    }
    return b->status;
}

/* ---- ReduceSpread ------------------------------------------------------------------------------------------- */

static Status spread_reduction(const Node *node, int rank, const int64_t *kept, const int64_t *dims, Reduction *r,
                               Error *err)
{
    *r = (Reduction){.kind = REDUCE_SUM, .rank = rank, .out_rank = rank, .count = 1};
    for (int i = 0; i < rank; i++) {
        if (kept[i] != dims[i] && kept[i] != 1)
            return infer_fail(node, err, "dim %d of %lld does not spread to %lld", i, (long long)kept[i],
                              (long long)dims[i]);
        r->reduced[i] = kept[i] != dims[i];
        r->dims[i] = dims[i];
        r->kept[i] = r->out_dims[i] = kept[i];
        r->count *= r->reduced[i] ? dims[i] : 1;
    }
    return STATUS_OK;
}

static Status spread_infer(Node *node, Error *err)
{
    Reduction r;
    const Type *dy = &node->inputs[0]->type, *x = &node->inputs[1]->type;
    if (dy->rank != x->rank)
        return infer_fail(node, err, "%d dims do not spread to %d", dy->rank, x->rank);
    TRY(spread_reduction(node, x->rank, dy->dims, x->dims, &r, err));
    type_set(&node->outputs[0]->type, dy->dtype, x->rank, x->dims);
    return STATUS_OK;
}

static double spread_scale(const Node *node, const Reduction *r)
{
    return node_int(node, "mean", 0) != 0 ? 1.0 / (double)r->count : 1;
}

#define SPREAD_EVAL(NAME, TYPE)                                                                                        \
    static void spread_##NAME(const Walk *outer, const Walk *inner, const TYPE *dy, TYPE *dx, double scale)            \
    {                                                                                                                  \
        for (int64_t i = 0; i < outer->count; i++)                                                                     \
            for (int64_t j = 0; j < inner->count; j++)                                                                 \
                dx[walk_offset(outer, i) + walk_offset(inner, j)] = (TYPE)((double)dy[i] * scale);                     \
    }

SPREAD_EVAL(f32, float)
SPREAD_EVAL(f64, double)

static Status spread_eval(EvalContext *context, Error *err)
{
    const Array *dy = eval_input(context, 0), *x = eval_input(context, 1);
    Array *dx;
    Reduction r;
    TRY(spread_reduction(context->node, x->rank, dy->dims, x->dims, &r, err));
    double scale = spread_scale(context->node, &r);
    TRY(eval_output(context, 0, dy->dtype, x->rank, x->dims, &dx, err));
    Walk outer = walk_over(&r, false), inner = walk_over(&r, true);
    if (dy->dtype == DTYPE_F32)
        spread_f32(&outer, &inner, dy->data, dx->data, scale);
    else if (dy->dtype == DTYPE_F64)
        spread_f64(&outer, &inner, dy->data, dx->data, scale);
    else
        return eval_fail(context, err, "no gradient of %s", dtype_name(dy->dtype));
    return STATUS_OK;
}

/* Linear: its own gradient is the sum again. */
static Status spread_grad(GradContext *context, Error *err)
{
    Reduction r;
    const Type *dy = &context->node->inputs[0]->type, *x = &context->node->inputs[1]->type;
    TRY(spread_reduction(context->node, x->rank, dy->dims, x->dims, &r, err));
    Value *sum = build_reduce_to(&context->b, context->dy[0], context->node->inputs[0]);
    context->dx[0] = compose_scale(&context->b, sum, spread_scale(context->node, &r));
    return context->b.status;
}

static Status spread_plan(PlanContext *context, Error *err)
{
    Reduction r;
    const Type *dy = &context->node->inputs[0]->type, *x = &context->node->inputs[1]->type;
    TRY(spread_reduction(context->node, x->rank, dy->dims, x->dims, &r, err));
    return spread_prepare(&r, context, spread_scale(context->node, &r), err);
}

/* ReduceTo is linear: dx is dy repeated. */
static Status reduce_to_grad(GradContext *context, Error *err)
{
    (void)err;
    const Type *x = &context->node->inputs[0]->type;
    context->dx[0] = compose_expand(&context->b, context->dy[0], x->rank, x->dims);
    return context->b.status;
}

/* ---- ReduceProdGrad ------------------------------------------------------------------------------------------- */

static Status prod_grad_infer(Node *node, Error *err)
{
    (void)err;
    const Type *x = &node->inputs[1]->type;
    type_set(&node->outputs[0]->type, x->dtype, x->rank, x->dims);
    return STATUS_OK;
}

/* y = prod_i x_i: dx_i = dy prod_(j < i) x_j prod_(j > i) x_j, right with zeros too (torch.prod). */
#define PROD_GRAD(NAME, TYPE)                                                                                          \
    static void prod_grad_##NAME(const Walk *inner, TYPE dy, const TYPE *x, TYPE *dx)                                  \
    {                                                                                                                  \
        double before = (double)dy, after = 1;                                                                         \
        for (int64_t i = 0; i < inner->count; i++) {                                                                   \
            int64_t at = walk_offset(inner, i);                                                                        \
            dx[at] = (TYPE)before;                                                                                     \
            before *= (double)x[at];                                                                                   \
        }                                                                                                              \
        for (int64_t i = inner->count - 1; i >= 0; i--) {                                                              \
            int64_t at = walk_offset(inner, i);                                                                        \
            dx[at] = (TYPE)((double)dx[at] * after);                                                                   \
            after *= (double)x[at];                                                                                    \
        }                                                                                                              \
    }

PROD_GRAD(f32, float)
PROD_GRAD(f64, double)

static Status prod_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = eval_input(context, 0), *x = eval_input(context, 1);
    Array *dx;
    Reduction r = {.rank = x->rank};
    size_t count;
    const int64_t *axes = node_ints(context->node, "axes", &count);
    memcpy(r.dims, x->dims, (size_t)x->rank * sizeof r.dims[0]);
    for (size_t i = 0; i < count; i++)
        r.reduced[axes[i]] = true;
    TRY(eval_output_like(context, 0, x, &dx, err));
    Walk outer = walk_over(&r, false), inner = walk_over(&r, true);
    for (int64_t i = 0; i < outer.count; i++) {
        int64_t at = walk_offset(&outer, i);
        if (x->dtype == DTYPE_F32)
            prod_grad_f32(&inner, ((const float *)dy->data)[i], (const float *)x->data + at, (float *)dx->data + at);
        else
            prod_grad_f64(&inner, ((const double *)dy->data)[i], (const double *)x->data + at, (double *)dx->data + at);
    }
    return STATUS_OK;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static Status reduce_prepare(PlanContext *context, Error *err)
{
    Reduction r;
    TRY(node_reduction(context->node, &r, err));
    return reduction_prepare(&r, context, err);
}

#define REDUCE_ROW(NAME)                                                                                               \
    {                                                                                                                  \
        .name = NAME, .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,    \
        .infer = reduce_infer, .eval = reduce_eval, .grad = reduce_grad, .upgrade = reduce_upgrade,                    \
        .prepare = reduce_prepare                                                                                      \
    }

const OpDef ops_reduce[] = {
    REDUCE_ROW("ReduceSum"),
    REDUCE_ROW("ReduceMean"),
    REDUCE_ROW("ReduceMax"),
    REDUCE_ROW("ReduceMin"),
    REDUCE_ROW("ReduceProd"),
    REDUCE_ROW("ReduceL1"),
    REDUCE_ROW("ReduceL2"),
    REDUCE_ROW("ReduceSumSquare"),
    REDUCE_ROW("ReduceLogSum"),
    REDUCE_ROW("ReduceLogSumExp"),
    {.domain = DOMAIN_INTERNAL,
     .name = "ReduceTo",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = reduce_infer,
     .eval = reduce_eval,
     .grad = reduce_to_grad,
     .prepare = reduce_prepare,
     .no_case = "internal; part of every gradient of broadcasting"},
    {.domain = DOMAIN_INTERNAL,
     .name = "ReduceSpread",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = spread_infer,
     .eval = spread_eval,
     .grad = spread_grad,
     .prepare = spread_plan,
     .no_case = "internal; covered by the gradient cases of ReduceSum and ReduceMean"},
    {.domain = DOMAIN_INTERNAL,
     .name = "ReduceProdGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = prod_grad_infer,
     .eval = prod_grad_eval,
     .no_gradient = "gradients are not differentiated again",
     .no_case = "internal; covered by the gradient cases of ReduceProd"},
    {0},
};
