/* Reading by index: Gather, GatherElements, GatherND, and the gradients of the first and the last.
 *
 * A gradient adds up what every index took. It runs over pieces of the output that no two threads share and takes
 * indices in their order, so sums are the same at any number of threads. Indices outside their axis are an error that
 * names node and value, also in a planned step. */
#include "runtime/ops/ops.h"

#include <stdlib.h>
#include <string.h>

/* ---- Gather: [outer, dim, inner] by [count] -> [outer, count, inner] ---------------------------------- */

typedef struct GatherShape {
    int64_t outer, dim, count, inner;
} GatherShape;

typedef struct GatherJob {
    GatherShape shape;
    const int64_t *indices; /* checked, [count] */
    size_t size;            /* of an element */
    DType dtype;
    const char *from; /* forward: x; backward: dy */
    char *to;
    int64_t chunk;   /* backward: columns a piece */
    int64_t padding; /* backward: index that is passed over */
} GatherJob;

static Status gather_shape(const Node *node, int rank, const int64_t *dims, int index_rank, const int64_t *index_dims,
                           int *out_rank, int64_t *out, GatherShape *shape, Error *err)
{
    int axis;
    TRY(axis_normalize(node, node_int(node, "axis", 0), rank, &axis, err));
    if (rank - 1 + index_rank > RANK_MAX)
        return infer_fail(node, err, "result would have more than %d dims", RANK_MAX);
    *out_rank = rank - 1 + index_rank;
    for (int i = 0; i < axis; i++)
        out[i] = dims[i];
    for (int i = 0; i < index_rank; i++)
        out[axis + i] = index_dims[i];
    for (int i = axis + 1; i < rank; i++)
        out[index_rank + i - 1] = dims[i];
    *shape = (GatherShape){dims_count(axis, dims), dims[axis], dims_count(index_rank, index_dims),
                           dims_count(rank - axis - 1, dims + axis + 1)};
    return STATUS_OK;
}

static void gather_range(int64_t begin, int64_t end, void *context)
{
    const GatherJob *job = context;
    const GatherShape *s = &job->shape;
    const size_t run = (size_t)s->inner * job->size;
    for (int64_t at = begin; at < end; at++) {
        int64_t row = at / s->count * s->dim + job->indices[at % s->count];
        memcpy(job->to + (size_t)at * run, job->from + (size_t)row * run, run);
    }
}

static Status gather_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *indices = &node->inputs[1]->type;
    int rank = 0;
    int64_t dims[RANK_MAX];
    GatherShape shape;
    TRY(index_check_dtype(node, indices->dtype, err));
    TRY(gather_shape(node, x->rank, x->dims, indices->rank, indices->dims, &rank, dims, &shape, err));
    type_set(&node->outputs[0]->type, x->dtype, rank, dims);
    return STATUS_OK;
}

static Status gather_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *indices = context->in[1];
    int rank = 0;
    int64_t dims[RANK_MAX];
    GatherJob job = {.size = dtype_size(x->dtype), .from = x->data};
    Array *y;
    TRY(gather_shape(context->node, x->rank, x->dims, indices->rank, indices->dims, &rank, dims, &job.shape, err));
    int64_t *list = arena_array(context->arena, int64_t, (size_t)indices->count + 1);
    TRY(index_list(context->node, indices->dtype, indices->data, indices->count, job.shape.dim, list, err));
    TRY(eval_output(context, 0, x->dtype, rank, dims, &y, err));
    job.indices = list;
    job.to = y->data;
    if (y->count > 0)
        gather_range(0, job.shape.outer * job.shape.count, &job);
    return STATUS_OK;
}

static Status gather_run(Step *step, Error *err)
{
    GatherJob job = *(const GatherJob *)step->state;
    const GatherShape *s = &job.shape;
    const Slot *indices = step->in[1];
    TRY(index_list(step->node, indices->dtype, indices->data, s->count, s->dim, step->scratch, err));
    job.indices = step->scratch;
    job.from = step->in[0]->data;
    job.to = step->out[0]->data;
    if (s->inner > 0)
        parallel_for(s->outer * s->count, (1 << 15) / (s->inner * (int64_t)job.size) + 1, gather_range, &job);
    return STATUS_OK;
}

static Status gather_prepare(PlanContext *context, Error *err)
{
    int rank = 0;
    int64_t dims[RANK_MAX];
    const Slot *x = kernel_input(context, 0, LAYOUT_PLAIN), *indices = kernel_input(context, 1, LAYOUT_PLAIN);
    kernel_output(context, 0, LAYOUT_PLAIN);
    GatherJob *job = kernel_state(context, sizeof *job);
    TRY(gather_shape(context->node, x->rank, x->dims, indices->rank, indices->dims, &rank, dims, &job->shape, err));
    job->size = dtype_size(x->dtype);
    kernel_scratch(context, (size_t)job->shape.count * sizeof(int64_t));
    kernel_run(context, gather_run, "own");
    return STATUS_OK;
}

/* PyTorch's exporter notes the call a node comes from: "...aten.embedding.default](args = (%weight, %ids, 0), ...". The
 * third argument, where there is one, is the row that gets no gradient (padding_idx); ONNX has no other place for it.
 */
static int64_t padding_row(const Node *node)
{
    static const char call[] = "aten.embedding.default](args = (";
    const char *text = extra_metadata(&node->extra, "pkg.torch.onnx.fx_node");
    const char *at = text == NULL ? NULL : strstr(text, call);
    if (at == NULL)
        return -1;
    at += sizeof call - 1;
    const char *end = strchr(at, ')');
    for (int argument = 0; argument < 2 && at != NULL; argument++) {
        at = strchr(at, ',');
        at = at == NULL || end == NULL || at > end ? NULL : at + 1;
    }
    return at == NULL ? -1 : strtoll(at, NULL, 10);
}

/* GatherGrad(dy, indices) {axis, dims, padding}: dx[o, indices[k], r] += dy[o, k, r], where indices[k] is not
 * `padding`. */
static Status gather_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    const Type *x = &forward->inputs[0]->type;
    Value *inputs[] = {context->dy[0], forward->inputs[1]};
    Node *node = build_node(&context->b, DOMAIN_INTERNAL, "GatherGrad", inputs, 2, 1);
    if (!node)
        return context->b.status;
    node_set_int(node, "axis", node_int(forward, "axis", 0));
    node_set_ints(node, "dims", x->dims, (size_t)x->rank);
    if (padding_row(forward) >= 0)
        node_set_int(node, "padding", padding_row(forward));
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

/* ---- GatherGrad --------------------------------------------------------------------------------------- */

static Status grad_dims_infer(Node *node, Error *err)
{
    (void)err;
    size_t rank;
    const int64_t *dims = node_ints(node, "dims", &rank);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, (int)rank, dims);
    return STATUS_OK;
}

/* Columns [first, first + chunk) of one outer slice: cleared, then every index in order. */
#define DEFINE_GATHER_ADD(name, type)                                                                                  \
    static void name(const GatherJob *job, int64_t outer, int64_t first, int64_t columns)                              \
    {                                                                                                                  \
        const GatherShape *s = &job->shape;                                                                            \
        const type *dy = (const type *)(const void *)job->from + outer * s->count * s->inner + first;                  \
        type *dx = (type *)(void *)job->to + outer * s->dim * s->inner + first;                                        \
        for (int64_t i = 0; i < s->dim; i++)                                                                           \
            memset(dx + i * s->inner, 0, (size_t)columns * sizeof *dx);                                                \
        for (int64_t k = 0; k < s->count; k++) {                                                                       \
            if (job->indices[k] == job->padding)                                                                       \
                continue;                                                                                              \
            type *to = dx + job->indices[k] * s->inner;                                                                \
            const type *from = dy + k * s->inner;                                                                      \
            for (int64_t r = 0; r < columns; r++)                                                                      \
                to[r] += from[r];                                                                                      \
        }                                                                                                              \
    }
DEFINE_GATHER_ADD(gather_add_f32, float)
DEFINE_GATHER_ADD(gather_add_f64, double)

static void gather_add_range(int64_t begin, int64_t end, void *context)
{
    const GatherJob *job = context;
    const int64_t chunks = (job->shape.inner + job->chunk - 1) / job->chunk;
    for (int64_t at = begin; at < end; at++) {
        int64_t first = at % chunks * job->chunk, left = job->shape.inner - first;
        int64_t columns = left < job->chunk ? left : job->chunk;
        if (job->dtype == DTYPE_F64)
            gather_add_f64(job, at / chunks, first, columns);
        else
            gather_add_f32(job, at / chunks, first, columns);
    }
}

static GatherShape gather_grad_shape(const Node *node, int64_t index_count)
{
    size_t rank;
    const int64_t *dims = node_ints(node, "dims", &rank);
    int64_t axis = node_int(node, "axis", 0);
    axis += axis < 0 ? (int64_t)rank : 0;
    return (GatherShape){dims_count((int)axis, dims), dims[axis], index_count,
                         dims_count((int)rank - (int)axis - 1, dims + axis + 1)};
}

static Status gather_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = context->in[0], *indices = context->in[1];
    size_t rank;
    const int64_t *dims = node_ints(context->node, "dims", &rank);
    GatherJob job = {.shape = gather_grad_shape(context->node, indices->count),
                     .dtype = dy->dtype,
                     .from = dy->data,
                     .padding = node_int(context->node, "padding", -1)};
    Array *dx;
    int64_t *list = arena_array(context->arena, int64_t, (size_t)indices->count + 1);
    TRY(index_list(context->node, indices->dtype, indices->data, indices->count, job.shape.dim, list, err));
    TRY(eval_output(context, 0, dy->dtype, (int)rank, dims, &dx, err));
    job.indices = list;
    job.to = dx->data;
    job.chunk = job.shape.inner > 0 ? job.shape.inner : 1;
    if (dx->count > 0)
        gather_add_range(0, job.shape.outer, &job);
    return STATUS_OK;
}

static Status gather_grad_run(Step *step, Error *err)
{
    GatherJob job = *(const GatherJob *)step->state;
    const Slot *indices = step->in[1];
    TRY(index_list(step->node, indices->dtype, indices->data, job.shape.count, job.shape.dim, step->scratch, err));
    job.indices = step->scratch;
    job.from = step->in[0]->data;
    job.to = step->out[0]->data;
    parallel_for(job.shape.outer * ((job.shape.inner + job.chunk - 1) / job.chunk), 1, gather_add_range, &job);
    return STATUS_OK;
}

/* Wide rows are shared out by columns; narrow ones run on one thread an outer slice. */
static Status gather_grad_prepare(PlanContext *context, Error *err)
{
    (void)err;
    const Slot *dy = kernel_input(context, 0, LAYOUT_PLAIN), *indices = kernel_input(context, 1, LAYOUT_PLAIN);
    kernel_output(context, 0, LAYOUT_PLAIN);
    GatherJob *job = kernel_state(context, sizeof *job);
    job->shape = gather_grad_shape(context->node, slot_count(indices));
    job->padding = node_int(context->node, "padding", -1);
    job->dtype = dy->dtype;
    job->chunk = job->shape.inner >= 128 ? 64 : job->shape.inner > 0 ? job->shape.inner : 1;
    kernel_scratch(context, (size_t)job->shape.count * sizeof(int64_t));
    kernel_run(context, gather_grad_run, "own:columns");
    return STATUS_OK;
}

/* ---- GatherElements: y[i0, .., in] = x[i0, .., indices[i0, .., in], .., in] --------------------------- */

static Status elements_check(const Node *node, int rank, const int64_t *dims, int index_rank, const int64_t *index_dims,
                             int *axis, Error *err)
{
    TRY(axis_normalize(node, node_int(node, "axis", 0), rank, axis, err));
    if (rank != index_rank)
        return infer_fail(node, err, "indices have rank %d, the data %d", index_rank, rank);
    for (int i = 0; i < rank; i++)
        if (i != *axis && index_dims[i] > dims[i])
            return infer_fail(node, err, "dim %d of indices is %lld, the data has %lld", i, (long long)index_dims[i],
                              (long long)dims[i]);
    return STATUS_OK;
}

static Status elements_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *indices = &node->inputs[1]->type;
    int axis;
    TRY(index_check_dtype(node, indices->dtype, err));
    TRY(elements_check(node, x->rank, x->dims, indices->rank, indices->dims, &axis, err));
    type_set(&node->outputs[0]->type, x->dtype, indices->rank, indices->dims);
    return STATUS_OK;
}

static Status elements_move(const Node *node, int rank, const int64_t *x_dims, const char *x, DType dtype,
                            const void *indices, const int64_t *dims, char *y, size_t size, Error *err)
{
    int axis;
    int64_t strides[RANK_MAX], count = dims_count(rank, dims);
    TRY(elements_check(node, rank, x_dims, rank, dims, &axis, err));
    TRY(index_check_dtype(node, dtype, err));
    strides_dense(rank, x_dims, strides);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0;
        TRY(index_check(node, index_at(dtype, indices, i), i, x_dims[axis], &at, err));
        memcpy(y + (size_t)i * size, x + (size_t)elements_offset(i, rank, dims, strides, axis, at) * size, size);
    }
    return STATUS_OK;
}

static Status elements_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *indices = context->in[1];
    Array *y;
    int axis;
    TRY(elements_check(context->node, x->rank, x->dims, indices->rank, indices->dims, &axis, err));
    TRY(eval_output(context, 0, x->dtype, indices->rank, indices->dims, &y, err));
    return elements_move(context->node, x->rank, x->dims, x->data, indices->dtype, indices->data, indices->dims,
                         y->data, dtype_size(x->dtype), err);
}

static Status elements_run(Step *step, Error *err)
{
    const Slot *x = step->in[0], *indices = step->in[1];
    return elements_move(step->node, x->rank, x->dims, x->data, indices->dtype, indices->data, indices->dims,
                         step->out[0]->data, dtype_size(x->dtype), err);
}

static Status elements_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_inputs_plain(context);
    kernel_output(context, 0, LAYOUT_PLAIN);
    kernel_run(context, elements_run, "own");
    return STATUS_OK;
}

/* dx = ScatterElements(zeros, indices, dy) with sums. */
static Status elements_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    Builder *b = &context->b;
    Value *inputs[] = {build_zeros(b, &forward->inputs[0]->type), forward->inputs[1], context->dy[0]};
    Node *node = build_node(b, "", "ScatterElements", inputs, 3, 1);
    if (!node)
        return b->status;
    node_set_int(node, "axis", node_int(forward, "axis", 0));
    node_set_string(node, "reduction", "add");
    context->dx[0] = build_finish(b, node);
    return b->status;
}

/* ---- GatherND: each row of indices names a slice behind the batch dims -------------------------------- */

typedef struct NdShape {
    int64_t batch, rows, slice; /* indices [batch, rows, depth], slices of `slice` elements */
    int64_t block;              /* elements of data a batch entry */
    int depth;
    int64_t dims[RANK_MAX], strides[RANK_MAX]; /* of the indexed axes, strides in elements */
} NdShape;

static Status nd_shape(const Node *node, int rank, const int64_t *dims, int index_rank, const int64_t *index_dims,
                       int *out_rank, int64_t *out, NdShape *s, Error *err)
{
    const int batch = (int)node_int(node, "batch_dims", 0);
    if (rank < 1 || index_rank < 1 || batch < 0 || batch >= index_rank || batch >= rank)
        return infer_fail(node, err, "batch_dims %d, data of rank %d, indices of rank %d", batch, rank, index_rank);
    const int64_t depth = index_dims[index_rank - 1];
    if (depth < 1 || depth > rank - batch)
        return infer_fail(node, err, "indices name %lld axes, the data has %d behind the batch", (long long)depth,
                          rank - batch);
    for (int i = 0; i < batch; i++)
        if (dims[i] != index_dims[i])
            return infer_fail(node, err, "batch dim %d is %lld in the data and %lld in the indices", i,
                              (long long)dims[i], (long long)index_dims[i]);
    const int tail = batch + (int)depth;
    *out_rank = index_rank - 1 + rank - tail;
    if (*out_rank > RANK_MAX)
        return infer_fail(node, err, "result would have more than %d dims", RANK_MAX);
    for (int i = 0; i < index_rank - 1; i++)
        out[i] = index_dims[i];
    for (int i = tail; i < rank; i++)
        out[index_rank - 1 + i - tail] = dims[i];
    int64_t strides[RANK_MAX];
    strides_dense(rank, dims, strides);
    s->batch = dims_count(batch, dims);
    s->rows = dims_count(index_rank - 1 - batch, index_dims + batch);
    s->slice = dims_count(rank - tail, dims + tail);
    s->block = dims_count(rank - batch, dims + batch);
    s->depth = (int)depth;
    for (int i = 0; i < s->depth; i++) {
        s->dims[i] = dims[batch + i];
        s->strides[i] = strides[batch + i];
    }
    return STATUS_OK;
}

/* Offset in data, in elements, of the slice that row `row` (of batch * rows) names. */
static Status nd_offset(const Node *node, const NdShape *s, DType dtype, const void *indices, int64_t row,
                        int64_t *offset, Error *err)
{
    *offset = row / s->rows * s->block;
    for (int i = 0; i < s->depth; i++) {
        int64_t at = 0;
        TRY(index_check(node, index_at(dtype, indices, row * s->depth + i), row, s->dims[i], &at, err));
        *offset += at * s->strides[i];
    }
    return STATUS_OK;
}

static Status nd_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *indices = &node->inputs[1]->type;
    int rank = 0;
    int64_t dims[RANK_MAX];
    NdShape shape;
    TRY(index_check_dtype(node, indices->dtype, err));
    TRY(nd_shape(node, x->rank, x->dims, indices->rank, indices->dims, &rank, dims, &shape, err));
    type_set(&node->outputs[0]->type, x->dtype, rank, dims);
    return STATUS_OK;
}

static Status nd_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *indices = context->in[1];
    int rank = 0;
    int64_t dims[RANK_MAX];
    NdShape s;
    Array *y;
    TRY(index_check_dtype(context->node, indices->dtype, err));
    TRY(nd_shape(context->node, x->rank, x->dims, indices->rank, indices->dims, &rank, dims, &s, err));
    TRY(eval_output(context, 0, x->dtype, rank, dims, &y, err));
    const size_t run = (size_t)s.slice * dtype_size(x->dtype);
    for (int64_t row = 0; row < s.batch * s.rows; row++) {
        int64_t offset;
        TRY(nd_offset(context->node, &s, indices->dtype, indices->data, row, &offset, err));
        memcpy((char *)y->data + (size_t)row * run, (const char *)x->data + (size_t)offset * dtype_size(x->dtype), run);
    }
    return STATUS_OK;
}

/* GatherNDGrad(dy, indices) {batch_dims, dims} */
static Status nd_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    const Type *x = &forward->inputs[0]->type;
    Value *inputs[] = {context->dy[0], forward->inputs[1]};
    Node *node = build_node(&context->b, DOMAIN_INTERNAL, "GatherNDGrad", inputs, 2, 1);
    if (!node)
        return context->b.status;
    node_set_int(node, "batch_dims", node_int(forward, "batch_dims", 0));
    node_set_ints(node, "dims", x->dims, (size_t)x->rank);
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

#define DEFINE_ADD(name, type)                                                                                         \
    static void name(const void *from, int64_t from_at, void *to, int64_t to_at, int64_t n)                            \
    {                                                                                                                  \
        const type *x = (const type *)from + from_at;                                                                  \
        type *y = (type *)to + to_at;                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                                \
            y[i] += x[i];                                                                                              \
    }
DEFINE_ADD(add_f32, float)
DEFINE_ADD(add_f64, double)

static Status nd_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = context->in[0], *indices = context->in[1];
    size_t x_rank;
    const int64_t *x_dims = node_ints(context->node, "dims", &x_rank);
    int rank = 0;
    int64_t dims[RANK_MAX];
    NdShape s;
    Array *dx;
    TRY(nd_shape(context->node, (int)x_rank, x_dims, indices->rank, indices->dims, &rank, dims, &s, err));
    TRY(eval_output(context, 0, dy->dtype, (int)x_rank, x_dims, &dx, err));
    memset(dx->data, 0, (size_t)dx->count * dtype_size(dx->dtype));
    for (int64_t row = 0; row < s.batch * s.rows; row++) {
        int64_t offset;
        TRY(nd_offset(context->node, &s, indices->dtype, indices->data, row, &offset, err));
        if (dy->dtype == DTYPE_F64)
            add_f64(dy->data, row * s.slice, dx->data, offset, s.slice);
        else
            add_f32(dy->data, row * s.slice, dx->data, offset, s.slice);
    }
    return STATUS_OK;
}

/* clang-format off */
const OpDef ops_index[] = {
    {.name = "Gather", .since = 1, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = gather_infer, .eval = gather_eval, .grad = gather_grad,
     .prepare = gather_prepare},
    {.name = "GatherElements", .since = 11, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = elements_infer, .eval = elements_eval, .grad = elements_grad,
     .prepare = elements_prepare},
    {.name = "GatherND", .since = 11, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = nd_infer, .eval = nd_eval, .grad = nd_grad},
    {.domain = DOMAIN_INTERNAL, .name = "GatherGrad", .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .infer = grad_dims_infer, .eval = gather_grad_eval, .prepare = gather_grad_prepare,
     .no_case = "internal: the gradient of Gather"},
    {.domain = DOMAIN_INTERNAL, .name = "GatherNDGrad", .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .infer = grad_dims_infer, .eval = nd_grad_eval,
     .no_case = "internal: the gradient of GatherND"},
    {0},
};
/* clang-format on */
