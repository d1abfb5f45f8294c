/* Operators that change or read a shape: Reshape, Flatten, Squeeze, Unsqueeze, Identity, Shape, Size, Expand, Tile.
 *
 * The first five are views: planned, they cost nothing. Expand and Tile repeat elements by a strided copy, and their
 * gradients sum over what was repeated. Every dtype is moved by the size of its elements. */
#include "runtime/ops/ops.h"

#include <string.h>

/* ---- what infer and eval share: the output's shape ---------------------------------------------------- */

typedef struct Shape {
    int rank;
    int64_t dims[RANK_MAX];
} Shape;

/* Dims named 0 copy those of the input, one dim may be -1 (ONNX Reshape-25). */
static Status reshape_shape(const Node *node, const Shape *in, const int64_t *wanted, size_t count, Shape *out,
                            Error *err)
{
    bool allow_zero = node_int(node, "allowzero", 0) != 0;
    int open = -1;
    int64_t known = 1, total = dims_count(in->rank, in->dims);
    if (count > RANK_MAX)
        return infer_fail(node, err, "shape of %zu dims; at most %d can be run", count, RANK_MAX);
    out->rank = (int)count;
    for (int i = 0; i < out->rank; i++) {
        int64_t dim = wanted[i];
        if (dim == 0 && !allow_zero) {
            if (i >= in->rank)
                return infer_fail(node, err, "dim %d is 0 (copy), but the input has rank %d", i, in->rank);
            dim = in->dims[i];
        }
        if (dim < -1 || (dim == -1 && open >= 0))
            return infer_fail(node, err, "shape has dim %lld at %d", (long long)dim, i);
        if (dim == -1)
            open = i;
        else if (__builtin_mul_overflow(known, dim, &known))
            return infer_fail(node, err, "the shape's product overflows");
        out->dims[i] = dim;
    }
    if (open >= 0) {
        if (known == 0 || total % known != 0)
            return infer_fail(node, err, "%lld elements do not divide into a shape whose other dims have %lld",
                              (long long)total, (long long)known);
        out->dims[open] = total / known;
    } else if (known != total) {
        return infer_fail(node, err, "%lld elements cannot take a shape of %lld", (long long)total, (long long)known);
    }
    return STATUS_OK;
}

static Status flatten_shape(const Node *node, const Shape *in, Shape *out, Error *err)
{
    int64_t axis = node_int(node, "axis", 1);
    if (axis < -in->rank || axis > in->rank)
        return infer_fail(node, err, "axis %lld is outside an input of rank %d", (long long)axis, in->rank);
    if (axis < 0)
        axis += in->rank;
    out->rank = 2;
    out->dims[0] = dims_count((int)axis, in->dims);
    out->dims[1] = dims_count(in->rank - (int)axis, in->dims + axis);
    return STATUS_OK;
}

/* Marks `axes` of a tensor of `rank` dims; a repeated axis is an error. */
static Status mark_axes(const Node *node, const int64_t *axes, size_t count, int rank, bool *marked, Error *err)
{
    memset(marked, 0, RANK_MAX * sizeof *marked);
    for (size_t i = 0; i < count; i++) {
        int axis;
        TRY(axis_normalize(node, axes[i], rank, &axis, err));
        if (marked[axis])
            return infer_fail(node, err, "axis %d is named twice", axis);
        marked[axis] = true;
    }
    return STATUS_OK;
}

static Status squeeze_shape(const Node *node, const Shape *in, const int64_t *axes, size_t count, Shape *out,
                            Error *err)
{
    bool drop[RANK_MAX];
    TRY(mark_axes(node, axes, count, in->rank, drop, err));
    out->rank = 0;
    for (int i = 0; i < in->rank; i++) {
        if (!axes)
            drop[i] = in->dims[i] == 1;
        if (drop[i] && in->dims[i] != 1)
            return infer_fail(node, err, "dim %d to squeeze is %lld, not 1", i, (long long)in->dims[i]);
        if (!drop[i])
            out->dims[out->rank++] = in->dims[i];
    }
    return STATUS_OK;
}

static Status unsqueeze_shape(const Node *node, const Shape *in, const int64_t *axes, size_t count, Shape *out,
                              Error *err)
{
    bool added[RANK_MAX];
    if (count > RANK_MAX || in->rank + (int)count > RANK_MAX)
        return infer_fail(node, err, "result would have more than %d dims", RANK_MAX);
    out->rank = in->rank + (int)count;
    TRY(mark_axes(node, axes, count, out->rank, added, err));
    int from = 0;
    for (int i = 0; i < out->rank; i++)
        out->dims[i] = added[i] ? 1 : in->dims[from++];
    return STATUS_OK;
}

static Status expand_shape(const Node *node, const Shape *in, const int64_t *wanted, size_t count, Shape *out,
                           Error *err)
{
    if (count > RANK_MAX)
        return infer_fail(node, err, "shape of %zu dims; at most %d can be run", count, RANK_MAX);
    if (!dims_broadcast(in->rank, in->dims, (int)count, wanted, &out->rank, out->dims))
        return infer_fail(node, err, "input and shape do not broadcast");
    return dims_count(out->rank, out->dims) >= 0 ? STATUS_OK : infer_fail(node, err, "the shape's product overflows");
}

static Status tile_shape(const Node *node, const Shape *in, const int64_t *repeats, size_t count, Shape *out,
                         Error *err)
{
    if ((int)count != in->rank)
        return infer_fail(node, err, "%zu repeats for an input of rank %d", count, in->rank);
    out->rank = in->rank;
    for (int i = 0; i < in->rank; i++)
        if (repeats[i] < 0 || __builtin_mul_overflow(in->dims[i], repeats[i], &out->dims[i]))
            return infer_fail(node, err, "cannot repeat dim %d %lld times", i, (long long)repeats[i]);
    return dims_count(out->rank, out->dims) >= 0 ? STATUS_OK : infer_fail(node, err, "the shape's product overflows");
}

static Status shape_of(const Node *node, const Shape *in, const int64_t *values, size_t count, Shape *out, Error *err)
{
    if (node_is(node, "Flatten"))
        return flatten_shape(node, in, out, err);
    if (node_is(node, "Squeeze"))
        return squeeze_shape(node, in, values, count, out, err);
    if (!values)
        return infer_fail(node, err, "input 1 is missing");
    if (node_is(node, "Unsqueeze"))
        return unsqueeze_shape(node, in, values, count, out, err);
    if (node_is(node, "Expand"))
        return expand_shape(node, in, values, count, out, err);
    if (node_is(node, "Tile"))
        return tile_shape(node, in, values, count, out, err);
    return reshape_shape(node, in, values, count, out, err);
}

static Status shape_infer(Node *node, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    Shape in = {.rank = type->rank}, out;
    memcpy(in.dims, type->dims, sizeof in.dims);
    const int64_t *values;
    size_t count;
    if (!infer_has_ints(node, 1)) {
        type_set(&node->outputs[0]->type, type->dtype, -1, NULL);
        return STATUS_OK;
    }
    TRY(infer_ints(node, 1, &values, &count, err));
    TRY(shape_of(node, &in, values, count, &out, err));
    type_set(&node->outputs[0]->type, type->dtype, out.rank, out.dims);
    return STATUS_OK;
}

/* Claims output 0 with its shape. */
static Status shape_output(EvalContext *context, const int64_t **values, Array **out, Error *err)
{
    const Array *x = context->in[0];
    Shape in = {.rank = x->rank}, shape;
    memcpy(in.dims, x->dims, sizeof in.dims);
    size_t count;
    TRY(eval_ints(context, 1, values, &count, err));
    TRY(shape_of(context->node, &in, *values, count, &shape, err));
    return eval_output(context, 0, x->dtype, shape.rank, shape.dims, out, err);
}

/* ---- views -------------------------------------------------------------------------------------------- */

static Status view_eval(EvalContext *context, Error *err)
{
    const int64_t *values;
    Array *out;
    TRY(shape_output(context, &values, &out, err));
    if (out->count > 0)
        memcpy(out->data, context->in[0]->data, (size_t)out->count * dtype_size(out->dtype));
    return STATUS_OK;
}

static Status view_run(Step *step, Error *err)
{
    (void)step;
    (void)err;
    return STATUS_OK;
}

static Status view_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_output_view(context, 0, 0);
    kernel_run(context, view_run, "view");
    return STATUS_OK;
}

static Status reshape_upgrade(Node *node, Error *err)
{
    (void)err;
    upgrade_ints_to_input(node, "shape", 1);
    node_remove_attr(node, "consumed_inputs");
    return STATUS_OK;
}

static Status axes_upgrade(Node *node, Error *err)
{
    (void)err;
    upgrade_ints_to_input(node, "axes", 1);
    return STATUS_OK;
}

static Status identity_eval(EvalContext *context, Error *err)
{
    return eval_output_same(context, 0, context->in[0], err);
}

static Status identity_grad(GradContext *context, Error *err)
{
    (void)err;
    context->dx[0] = context->dy[0];
    return STATUS_OK;
}

static Status identity_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_output_view(context, 0, 0);
    kernel_run(context, view_run, "view");
    return STATUS_OK;
}

/* ---- Shape, Size -------------------------------------------------------------------------------------- */

/* The dims [first, last) that Shape-15 reads: start and end are clamped, negative ones count from the back. */
static void shape_window(const Node *node, int rank, int *first, int *last)
{
    int64_t start = node_int(node, "start", 0), end = node_int(node, "end", rank);
    start += start < 0 ? rank : 0;
    end += end < 0 ? rank : 0;
    *first = (int)(start < 0 ? 0 : start > rank ? rank : start);
    *last = (int)(end < *first ? *first : end > rank ? rank : end);
}

static Status dims_infer(Node *node, Error *err)
{
    (void)err;
    int first, last;
    shape_window(node, node->inputs[0]->type.rank, &first, &last);
    const int64_t dim = last > first ? last - first : 0;
    type_set(&node->outputs[0]->type, DTYPE_I64, 1, &dim);
    return STATUS_OK;
}

static Status dims_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    int first, last;
    shape_window(context->node, x->rank, &first, &last);
    const int64_t dim = last > first ? last - first : 0;
    Array *out;
    TRY(eval_output(context, 0, DTYPE_I64, 1, &dim, &out, err));
    for (int i = 0; i < (int)dim; i++)
        ((int64_t *)out->data)[i] = x->dims[first + i];
    return STATUS_OK;
}

static Status size_infer(Node *node, Error *err)
{
    (void)err;
    type_set(&node->outputs[0]->type, DTYPE_I64, 0, NULL);
    return STATUS_OK;
}

static Status size_eval(EvalContext *context, Error *err)
{
    Array *out;
    TRY(eval_output(context, 0, DTYPE_I64, 0, NULL, &out, err));
    *(int64_t *)out->data = context->in[0]->count;
    return STATUS_OK;
}

/* ---- Expand, Tile ------------------------------------------------------------------------------------- */

static StridedCopy expand_copy(int rank, const int64_t *out, int in_rank, const int64_t *in, DType dtype)
{
    int64_t from[RANK_MAX] = {0}, to[RANK_MAX], dense[RANK_MAX];
    strides_dense(in_rank, in, dense);
    strides_dense(rank, out, to);
    for (int i = 0; i < in_rank; i++)
        from[rank - in_rank + i] = in[i] == 1 ? 0 : dense[i];
    return strided_make(rank, out, from, to, dtype_size(dtype));
}

/* Tile as a copy of [r0, d0, r1, d1, ..]: stride 0 over the repeats. */
static StridedCopy tile_copy(int rank, const int64_t *out, const int64_t *in, DType dtype)
{
    int64_t dims[STRIDED_MAX], from[STRIDED_MAX], to[STRIDED_MAX], in_stride[RANK_MAX], out_stride[RANK_MAX];
    strides_dense(rank, in, in_stride);
    strides_dense(rank, out, out_stride);
    for (int i = 0; i < rank; i++) {
        dims[2 * i] = in[i] > 0 ? out[i] / in[i] : 0;
        dims[2 * i + 1] = in[i];
        from[2 * i] = 0;
        from[2 * i + 1] = in_stride[i];
        to[2 * i] = in[i] * out_stride[i];
        to[2 * i + 1] = out_stride[i];
    }
    return strided_make(2 * rank, dims, from, to, dtype_size(dtype));
}

static StridedCopy repeat_copy(const Node *node, int rank, const int64_t *out, int in_rank, const int64_t *in,
                               DType dtype)
{
    return node_is(node, "Tile") ? tile_copy(rank, out, in, dtype) : expand_copy(rank, out, in_rank, in, dtype);
}

static Status repeat_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const int64_t *values;
    Array *out;
    TRY(shape_output(context, &values, &out, err));
    StridedCopy copy = repeat_copy(context->node, out->rank, out->dims, x->rank, x->dims, x->dtype);
    strided_run(&copy, x->data, out->data);
    return STATUS_OK;
}

static Status repeat_run(Step *step, Error *err)
{
    (void)err;
    strided_run(step->state, step->in[0]->data, step->out[0]->data);
    return STATUS_OK;
}

static Status repeat_prepare(PlanContext *context, Error *err)
{
    (void)err;
    const Slot *in = kernel_input(context, 0, LAYOUT_PLAIN), *out = kernel_output(context, 0, LAYOUT_PLAIN);
    StridedCopy *copy = kernel_state(context, sizeof *copy);
    *copy = repeat_copy(context->node, out->rank, out->dims, in->rank, in->dims, in->dtype);
    kernel_run(context, repeat_run, "own:strided");
    return STATUS_OK;
}

static Status expand_grad(GradContext *context, Error *err)
{
    (void)err;
    context->dx[0] = build_reduce_to(&context->b, context->dy[0], context->node->inputs[0]);
    return context->b.status;
}

/* dx = sum over the repeats of dy as [r0, d0, r1, d1, ..]; dims repeated once keep a single axis. */
static Status tile_grad(GradContext *context, Error *err)
{
    const Type *x = &context->node->inputs[0]->type, *y = &context->node->outputs[0]->type;
    Builder *b = &context->b;
    int64_t dims[STRIDED_MAX], axes[RANK_MAX];
    int rank = 0;
    size_t count = 0;
    if (type_count(x) == 0)
        return STATUS_OK;
    for (int i = 0; i < x->rank; i++) {
        if (y->dims[i] != x->dims[i]) {
            axes[count++] = rank;
            dims[rank++] = y->dims[i] / x->dims[i];
        }
        dims[rank++] = x->dims[i];
    }
    if (rank > RANK_MAX)
        return node_unsupported(context->node, err,
                                "the gradient of repeating %zu axes of rank %d needs more than %d dims", count, x->rank,
                                RANK_MAX);
    Value *sum = build_reshape(b, context->dy[0], rank, dims);
    if (count > 0)
        sum = build2(b, "ReduceSum", sum, build_ints(b, axes, count));
    context->dx[0] = build_reshape(b, sum, x->rank, x->dims);
    return b->status;
}

/* ---- rows --------------------------------------------------------------------------------------------- */

/* clang-format off */
const OpDef ops_shape[] = {
    {.name = "Reshape", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_VIEW | OP_ANY_DTYPE, .infer = shape_infer, .eval = view_eval, .grad = grad_reshape,
     .upgrade = reshape_upgrade, .prepare = view_prepare},
    {.name = "Flatten", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_VIEW | OP_ANY_DTYPE, .infer = shape_infer, .eval = view_eval, .grad = grad_reshape,
     .prepare = view_prepare},
    {.name = "Squeeze", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_VIEW | OP_ANY_DTYPE, .infer = shape_infer, .eval = view_eval, .grad = grad_reshape,
     .upgrade = axes_upgrade, .prepare = view_prepare},
    {.name = "Unsqueeze", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_VIEW | OP_ANY_DTYPE, .infer = shape_infer, .eval = view_eval,
     .grad = grad_reshape, .upgrade = axes_upgrade, .prepare = view_prepare},
    {.name = "Identity", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_VIEW | OP_ELEMENTWISE | OP_ANY_DTYPE, .infer = infer_same, .eval = identity_eval,
     .grad = identity_grad, .prepare = identity_prepare},
    {.name = "Shape", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_SHAPE_ONLY | OP_ANY_DTYPE, .infer = dims_infer, .eval = dims_eval},
    {.name = "Size", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_SHAPE_ONLY | OP_ANY_DTYPE, .infer = size_infer, .eval = size_eval},
    {.name = "Expand", .since = 8, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = shape_infer, .eval = repeat_eval, .grad = expand_grad,
     .prepare = repeat_prepare},
    /* Tile-1 had one axis and scalar inputs; exporters never wrote it. */
    {.name = "Tile", .since = 6, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = shape_infer, .eval = repeat_eval, .grad = tile_grad, .prepare = repeat_prepare},
    {0},
};
/* clang-format on */
