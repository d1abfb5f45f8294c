/* Writing by index: ScatterElements (Scatter), ScatterND, with every reduction.
 *
 * Updates are applied in their order, so the result does not depend on threads. Reductions on 16-bit floats run in f32.
 * Gradients (G is the gather that reads what this scatter writes):
 *   none      d data = scatter(dy, 0)              d updates = G(dy)
 *   add       d data = dy                          d updates = G(dy)
 *   mul       d data = scatter_mul(dy, updates)    d updates = G(dy * y) / updates
 *   max, min  dy goes, in equal shares, to whoever equals y */
#include "runtime/ops/ops.h"

#include <string.h>

typedef enum Reduction { REDUCE_NONE, REDUCE_ADD, REDUCE_MUL, REDUCE_MAX, REDUCE_MIN } Reduction;

static Status reduction_read(const Node *node, Reduction *reduction, Error *err)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const char *name = node_string(node, "reduction", "none");
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *reduction = (Reduction)i;
            return STATUS_OK;
        }
    return infer_fail(node, err, "reduction '%s'", name);
}

/* ---- one run of elements into another ----------------------------------------------------------------- */

#define DEFINE_COMBINE(name, type)                                                                                     \
    static void name(Reduction reduction, type *y, const type *x, int64_t n)                                           \
    {                                                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            if (reduction == REDUCE_ADD)                                                                               \
                y[i] = (type)(y[i] + x[i]);                                                                            \
            else if (reduction == REDUCE_MUL)                                                                          \
                y[i] = (type)(y[i] * x[i]);                                                                            \
            else if (reduction == REDUCE_MAX)                                                                          \
                y[i] = y[i] < x[i] ? x[i] : y[i];                                                                      \
            else                                                                                                       \
                y[i] = x[i] < y[i] ? x[i] : y[i];                                                                      \
        }                                                                                                              \
    }
DEFINE_COMBINE(combine_f32, float)
DEFINE_COMBINE(combine_f64, double)
DEFINE_COMBINE(combine_i8, int8_t)
DEFINE_COMBINE(combine_u8, uint8_t)
DEFINE_COMBINE(combine_i16, int16_t)
DEFINE_COMBINE(combine_u16, uint16_t)
DEFINE_COMBINE(combine_u32, uint32_t)
DEFINE_COMBINE(combine_u64, uint64_t)

typedef struct Writer {
    Reduction reduction;
    DType dtype;
    size_t size;
    const char *updates;
    char *y;
} Writer;

/* Signed 32- and 64-bit sums wrap like unsigned ones; only their order is signed. */
static void combine_signed(Reduction reduction, DType dtype, char *y, const char *x, int64_t n)
{
    bool ordered = reduction == REDUCE_MAX || reduction == REDUCE_MIN;
    if (!ordered && dtype == DTYPE_I32) {
        combine_u32(reduction, (uint32_t *)(void *)y, (const uint32_t *)(const void *)x, n);
    } else if (!ordered) {
        combine_u64(reduction, (uint64_t *)(void *)y, (const uint64_t *)(const void *)x, n);
    } else {
        size_t size = dtype_size(dtype);
        for (int64_t i = 0; i < n; i++) {
            int order = element_compare(dtype, x + (size_t)i * size, y + (size_t)i * size);
            if (reduction == REDUCE_MAX ? order > 0 : order < 0)
                memcpy(y + (size_t)i * size, x + (size_t)i * size, size);
        }
    }
}

/* `n` elements of the updates from `from` on, into y from `to` on. */
static void write_run(const Writer *w, int64_t to, int64_t from, int64_t n)
{
    char *y = w->y + (size_t)to * w->size;
    const char *x = w->updates + (size_t)from * w->size;
    if (w->reduction == REDUCE_NONE) {
        memcpy(y, x, (size_t)n * w->size);
        return;
    }
    switch ((int)w->dtype) {
    case DTYPE_F32:
        combine_f32(w->reduction, (float *)(void *)y, (const float *)(const void *)x, n);
        break;
    case DTYPE_F64:
        combine_f64(w->reduction, (double *)(void *)y, (const double *)(const void *)x, n);
        break;
    case DTYPE_I8:
        combine_i8(w->reduction, (int8_t *)(void *)y, (const int8_t *)(const void *)x, n);
        break;
    case DTYPE_U8:
    case DTYPE_BOOL:
        combine_u8(w->reduction, (uint8_t *)(void *)y, (const uint8_t *)(const void *)x, n);
        break;
    case DTYPE_I16:
        combine_i16(w->reduction, (int16_t *)(void *)y, (const int16_t *)(const void *)x, n);
        break;
    case DTYPE_U16:
        combine_u16(w->reduction, (uint16_t *)(void *)y, (const uint16_t *)(const void *)x, n);
        break;
    case DTYPE_U32:
        combine_u32(w->reduction, (uint32_t *)(void *)y, (const uint32_t *)(const void *)x, n);
        break;
    case DTYPE_U64:
        combine_u64(w->reduction, (uint64_t *)(void *)y, (const uint64_t *)(const void *)x, n);
        break;
    default:
        combine_signed(w->reduction, w->dtype, y, x, n);
    }
}

/* ---- where updates go --------------------------------------------------------------------------------- */

typedef struct Indexed {
    int rank, index_rank, update_rank;
    const int64_t *dims, *index_dims, *update_dims;
    DType index_dtype;
    const void *indices;
} Indexed;

static Status elements_check(const Node *node, const Indexed *in, int *axis, Error *err)
{
    TRY(index_check_dtype(node, in->index_dtype, err));
    TRY(axis_normalize(node, node_int(node, "axis", 0), in->rank, axis, err));
    if (in->index_rank != in->rank || in->update_rank != in->rank)
        return infer_fail(node, err, "data, indices and updates have ranks %d, %d, %d", in->rank, in->index_rank,
                          in->update_rank);
    for (int i = 0; i < in->rank; i++)
        if (in->index_dims[i] != in->update_dims[i] || (i != *axis && in->index_dims[i] > in->dims[i]))
            return infer_fail(node, err, "dim %d: data %lld, indices %lld, updates %lld", i, (long long)in->dims[i],
                              (long long)in->index_dims[i], (long long)in->update_dims[i]);
    return STATUS_OK;
}

static Status elements_write(const Node *node, const Indexed *in, const Writer *w, Error *err)
{
    int axis = 0;
    int64_t strides[RANK_MAX], count = dims_count(in->rank, in->index_dims);
    TRY(elements_check(node, in, &axis, err));
    strides_dense(in->rank, in->dims, strides);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0;
        TRY(index_check(node, index_at(in->index_dtype, in->indices, i), i, in->dims[axis], &at, err));
        write_run(w, elements_offset(i, in->rank, in->index_dims, strides, axis, at), i, 1);
    }
    return STATUS_OK;
}

/* updates [index_dims without the last.., dims behind the indexed ones..] */
static Status nd_check(const Node *node, const Indexed *in, Error *err)
{
    TRY(index_check_dtype(node, in->index_dtype, err));
    if (in->rank < 1 || in->index_rank < 1)
        return infer_fail(node, err, "data of rank %d, indices of rank %d", in->rank, in->index_rank);
    const int64_t depth = in->index_dims[in->index_rank - 1];
    const int rows = in->index_rank - 1;
    if (depth < 0 || depth > in->rank || in->update_rank != rows + in->rank - (int)depth)
        return infer_fail(node, err, "data of rank %d, indices that name %lld axes, updates of rank %d", in->rank,
                          (long long)depth, in->update_rank);
    for (int i = 0; i < in->update_rank; i++) {
        int64_t expected = i < rows ? in->index_dims[i] : in->dims[(int)depth + i - rows];
        if (in->update_dims[i] != expected)
            return infer_fail(node, err, "dim %d of updates is %lld, %lld expected", i, (long long)in->update_dims[i],
                              (long long)expected);
    }
    return STATUS_OK;
}

static Status nd_write(const Node *node, const Indexed *in, const Writer *w, Error *err)
{
    TRY(nd_check(node, in, err));
    const int depth = (int)in->index_dims[in->index_rank - 1];
    const int64_t rows = dims_count(in->index_rank - 1, in->index_dims);
    const int64_t slice = dims_count(in->rank - depth, in->dims + depth);
    int64_t strides[RANK_MAX];
    strides_dense(in->rank, in->dims, strides);
    for (int64_t row = 0; row < rows; row++) {
        int64_t to = 0;
        for (int i = 0; i < depth; i++) {
            int64_t at = 0;
            TRY(index_check(node, index_at(in->index_dtype, in->indices, row * depth + i), row, in->dims[i], &at, err));
            to += at * strides[i];
        }
        write_run(w, to, row * slice, slice);
    }
    return STATUS_OK;
}

static Status scatter_write(const Node *node, const Indexed *in, const Writer *w, Error *err)
{
    return node_is(node, "ScatterND") ? nd_write(node, in, w, err) : elements_write(node, in, w, err);
}

/* ---- infer, eval, planned ----------------------------------------------------------------------------- */

static Status scatter_infer(Node *node, Error *err)
{
    const Type *data = &node->inputs[0]->type, *indices = &node->inputs[1]->type, *updates = &node->inputs[2]->type;
    Indexed in = {data->rank,    indices->rank, updates->rank,  data->dims,
                  indices->dims, updates->dims, indices->dtype, NULL};
    Reduction reduction;
    int axis;
    TRY(reduction_read(node, &reduction, err));
    if (updates->dtype != data->dtype)
        return infer_fail(node, err, "data is %s, updates are %s", dtype_name(data->dtype), dtype_name(updates->dtype));
    TRY(node_is(node, "ScatterND") ? nd_check(node, &in, err) : elements_check(node, &in, &axis, err));
    return infer_same(node, err);
}

static Status scatter_eval(EvalContext *context, Error *err)
{
    const Array *data = context->in[0], *indices = context->in[1], *updates = context->in[2];
    const DType dtype = data->dtype;
    Indexed in = {data->rank,    indices->rank, updates->rank,  data->dims,
                  indices->dims, updates->dims, indices->dtype, indices->data};
    Writer w = {.reduction = REDUCE_NONE};
    Array *y, *wide = NULL;
    TRY(reduction_read(context->node, &w.reduction, err));
    if (updates->dtype != dtype)
        return eval_fail(context, err, "data is %s, updates are %s", dtype_name(dtype), dtype_name(updates->dtype));
    bool narrow = w.reduction != REDUCE_NONE && dtype_is_float(dtype) && dtype != DTYPE_F32 && dtype != DTYPE_F64;
    TRY(eval_output_same(context, 0, data, err));
    y = context->out[0];
    if (narrow) {
        Array *wide_updates;
        TRY(array_convert(context->arena, data, DTYPE_F32, &wide, err));
        TRY(array_convert(context->arena, updates, DTYPE_F32, &wide_updates, err));
        updates = wide_updates;
    }
    w.dtype = narrow ? DTYPE_F32 : dtype;
    w.size = dtype_size(w.dtype);
    w.updates = updates->data;
    w.y = narrow ? wide->data : y->data;
    TRY(scatter_write(context->node, &in, &w, err));
    if (narrow) {
        TRY(array_convert(context->arena, wide, dtype, &wide, err));
        memcpy(y->data, wide->data, (size_t)y->count * dtype_size(dtype));
    }
    return STATUS_OK;
}

static Status scatter_run(Step *step, Error *err)
{
    const Slot *data = step->in[0], *indices = step->in[1], *updates = step->in[2], *y = step->out[0];
    Indexed in = {data->rank,    indices->rank, updates->rank,  data->dims,
                  indices->dims, updates->dims, indices->dtype, indices->data};
    Writer w = {.dtype = data->dtype, .size = dtype_size(data->dtype), .updates = updates->data, .y = y->data};
    TRY(reduction_read(step->node, &w.reduction, err));
    if (y->data != data->data)
        memcpy(y->data, data->data, y->bytes);
    return scatter_write(step->node, &in, &w, err);
}

static Status scatter_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_inputs_plain(context);
    kernel_output_in_place(context, 0, 0, LAYOUT_PLAIN);
    kernel_run(context, scatter_run, "own");
    return STATUS_OK;
}

/* Scatter (9, deprecated since 11) is ScatterElements under its old name. */
static Status scatter_upgrade(Node *node, Error *err)
{
    (void)err;
    node_set_op(node, "", "ScatterElements", node->opset < 11 ? 11 : node->opset);
    return STATUS_OK;
}

/* ---- gradients ---------------------------------------------------------------------------------------- */

static Value *build_scatter(Builder *b, const Node *like, Value *data, Value *updates, const char *reduction)
{
    Value *inputs[] = {data, like->inputs[1], updates};
    Node *node = build_node(b, "", like->op_type, inputs, 3, 1);
    if (!node)
        return NULL;
    node_copy_attrs(node, like);
    node_set_string(node, "reduction", reduction);
    return build_finish(b, node);
}

static Value *build_gather(Builder *b, const Node *like, Value *x)
{
    bool nd = node_is(like, "ScatterND");
    Value *inputs[] = {x, like->inputs[1]};
    Node *node = build_node(b, "", nd ? "GatherND" : "GatherElements", inputs, 2, 1);
    if (!node)
        return NULL;
    if (!nd)
        node_set_int(node, "axis", node_int(like, "axis", 0));
    return build_finish(b, node);
}

static Value *build_equal(Builder *b, Value *x, Value *y, DType dtype)
{
    Value *equal = build2(b, "Equal", x, y);
    Node *node = build_node(b, "", "Cast", &equal, 1, 1);
    if (!node)
        return NULL;
    node_set_int(node, "to", dtype);
    return build_finish(b, node);
}

static Status extreme_grad(GradContext *context)
{
    const Node *node = context->node;
    Builder *b = &context->b;
    Value *data = node->inputs[0], *updates = node->inputs[2], *y = node->outputs[0];
    Value *of_data = build_equal(b, data, y, data->type.dtype);
    Value *of_updates = build_equal(b, updates, build_gather(b, node, y), data->type.dtype);
    Value *share = build2(b, "Div", context->dy[0], build_scatter(b, node, of_data, of_updates, "add"));
    if (context->wants[0])
        context->dx[0] = build2(b, "Mul", share, of_data);
    if (context->wants[2])
        context->dx[2] = build2(b, "Mul", build_gather(b, node, share), of_updates);
    return b->status;
}

static Status scatter_grad(GradContext *context, Error *err)
{
    const Node *node = context->node;
    Builder *b = &context->b;
    Value *dy = context->dy[0], *updates = node->inputs[2];
    Reduction reduction = REDUCE_NONE;
    TRY(reduction_read(node, &reduction, err));
    if (reduction == REDUCE_MAX || reduction == REDUCE_MIN)
        return extreme_grad(context);
    if (context->wants[0] && reduction == REDUCE_NONE)
        context->dx[0] = build_scatter(b, node, dy, build_zeros(b, &updates->type), "none");
    else if (context->wants[0])
        context->dx[0] = reduction == REDUCE_ADD ? dy : build_scatter(b, node, dy, updates, "mul");
    if (context->wants[2] && reduction == REDUCE_MUL)
        context->dx[2] = build2(b, "Div", build_gather(b, node, build2(b, "Mul", dy, node->outputs[0])), updates);
    else if (context->wants[2])
        context->dx[2] = build_gather(b, node, dy);
    return b->status;
}

/* clang-format off */
const OpDef ops_scatter[] = {
    {.name = "Scatter", .since = 9, .last = 28, .min_inputs = 3, .max_inputs = 3, .min_outputs = 1, .max_outputs = 1,
     .upgrade = scatter_upgrade},
    {.name = "ScatterElements", .since = 11, .last = 28, .min_inputs = 3, .max_inputs = 3, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE | OP_IN_PLACE, .infer = scatter_infer, .eval = scatter_eval,
     .grad = scatter_grad, .prepare = scatter_prepare},
    {.name = "ScatterND", .since = 11, .last = 28, .min_inputs = 3, .max_inputs = 3, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE | OP_IN_PLACE, .infer = scatter_infer, .eval = scatter_eval,
     .grad = scatter_grad, .prepare = scatter_prepare},
    {0},
};
/* clang-format on */
