/* Operators that keep, drop or reorder elements by their place: Trilu, ReverseSequence, TensorScatter. */
#include "runtime/ops/ops.h"

#include <string.h>

/* ---- Trilu: the upper or lower triangle of the last two dims, the rest zero --------------------------- */

typedef struct Triangle {
    int64_t rows, columns, k; /* |k| at most rows + columns: set by triangle_offset */
    bool upper;
    size_t size;
    const char *x;
    char *y;
} Triangle;

/* Upper keeps column >= row + k, lower keeps column <= row + k. */
static void triangle_range(int64_t begin, int64_t end, void *context)
{
    const Triangle *t = context;
    const size_t bytes = (size_t)t->columns * t->size;
    for (int64_t line = begin; line < end; line++) {
        int64_t border = line % t->rows + t->k + (t->upper ? 0 : 1);
        border = border < 0 ? 0 : border > t->columns ? t->columns : border;
        const size_t at = (size_t)line * bytes, left = (size_t)border * t->size;
        if (t->y != t->x)
            memcpy(t->y + at, t->x + at, bytes);
        if (t->upper)
            memset(t->y + at, 0, left);
        else
            memset(t->y + at + left, 0, bytes - left);
    }
}

static void triangle_offset(Triangle *t, int64_t k)
{
    const int64_t limit = t->rows + t->columns;
    t->k = k < -limit ? -limit : k > limit ? limit : k;
}

static int64_t triangle_lines(const Triangle *t, int64_t count)
{
    return t->columns > 0 ? count / t->columns : 0;
}

static Status trilu_check(const Node *node, int rank, Error *err)
{
    const Value *k = node_input(node, 1);
    bool one = k == NULL || !type_known(&k->type) || (k->type.dtype == DTYPE_I64 && type_count(&k->type) == 1);
    if (!one)
        return infer_fail(node, err, "k is %s, one int64 is expected", type_text(&node->graph->model->arena, &k->type));
    return rank >= 2 ? STATUS_OK : infer_fail(node, err, "input has rank %d, at least 2 expected", rank);
}

static Status trilu_infer(Node *node, Error *err)
{
    TRY(trilu_check(node, node->inputs[0]->type.rank, err));
    return infer_same(node, err);
}

static Status trilu_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    Array *y;
    TRY(trilu_check(context->node, x->rank, err));
    TRY(eval_output_like(context, 0, x, &y, err));
    Triangle t = {.rows = x->dims[x->rank - 2],
                  .columns = x->dims[x->rank - 1],

                  .upper = node_int(context->node, "upper", 1) != 0,
                  .size = dtype_size(x->dtype),
                  .x = x->data,
                  .y = y->data};
    triangle_offset(&t, eval_int_or(context, 1, 0));
    triangle_range(0, triangle_lines(&t, x->count), &t);
    return STATUS_OK;
}

static Status trilu_run(Step *step, Error *err)
{
    (void)err;
    const Slot *x = step->in[0];
    Triangle t = {.rows = x->dims[x->rank - 2],
                  .columns = x->dims[x->rank - 1],
                  .upper = node_int(step->node, "upper", 1) != 0,
                  .size = dtype_size(x->dtype),
                  .x = x->data,
                  .y = step->out[0]->data};
    if (step->in_count > 1 && step->in[1])
        triangle_offset(&t, *(const int64_t *)step->in[1]->data);
    parallel_for(triangle_lines(&t, slot_count(x)), 4096 / (t.columns + 1) + 1, triangle_range, &t);
    return STATUS_OK;
}

static Status trilu_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_inputs_plain(context);
    kernel_output_in_place(context, 0, 0, LAYOUT_PLAIN);
    kernel_run(context, trilu_run, "own");
    return STATUS_OK;
}

/* Trilu and ReverseSequence are their own adjoints. */
static Status self_adjoint_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    Value *inputs[] = {context->dy[0], node_input(forward, 1)};
    Node *node = build_node(&context->b, "", forward->op_type, inputs, 2, 1);
    if (!node)
        return context->b.status;
    node_copy_attrs(node, forward);
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

/* ---- ReverseSequence: the first lens[b] steps of sample b backwards ----------------------------------- */

static Status reverse_axes(const Node *node, int rank, int *batch, int *time, Error *err)
{
    *batch = (int)node_int(node, "batch_axis", 1);
    *time = (int)node_int(node, "time_axis", 0);
    bool valid = (*batch == 0 && *time == 1) || (*batch == 1 && *time == 0);
    if (!valid || rank < 2)
        return infer_fail(node, err, "batch_axis %d and time_axis %d of an input of rank %d", *batch, *time, rank);
    return STATUS_OK;
}

static Status reverse_infer(Node *node, Error *err)
{
    int batch, time;
    TRY(reverse_axes(node, node->inputs[0]->type.rank, &batch, &time, err));
    return infer_same(node, err);
}

static Status reverse_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const int64_t *lens;
    size_t count;
    int batch, time;
    Array *y;
    TRY(reverse_axes(context->node, x->rank, &batch, &time, err));
    TRY(eval_ints(context, 1, &lens, &count, err));
    TRY(eval_output_like(context, 0, x, &y, err));
    if (count != (size_t)x->dims[batch])
        return eval_fail(context, err, "%zu lengths for a batch of %lld", count, (long long)x->dims[batch]);
    const int64_t inner = dims_count(x->rank - 2, x->dims + 2), steps = x->dims[time];
    const int64_t batch_stride = batch == 0 ? steps : 1, time_stride = batch == 0 ? 1 : x->dims[batch];
    const size_t run = (size_t)inner * dtype_size(x->dtype);
    for (int64_t b = 0; b < x->dims[batch]; b++) {
        if (lens[b] < 0 || lens[b] > steps)
            return eval_fail(context, err, "length %lld of sample %lld is outside [0, %lld]", (long long)lens[b],
                             (long long)b, (long long)steps);
        for (int64_t t = 0; t < steps; t++) {
            int64_t from = t < lens[b] ? lens[b] - 1 - t : t;
            memcpy((char *)y->data + (size_t)(b * batch_stride + t * time_stride) * run,
                   (const char *)x->data + (size_t)(b * batch_stride + from * time_stride) * run, run);
        }
    }
    return STATUS_OK;
}

/* ---- TensorScatter: `update` written into a cache along one axis, from write_indices[b] on ------------ */

typedef struct Cache {
    int64_t batch, outer, length, update, inner; /* [batch, outer, length | update, inner] */
    bool circular;
    const int64_t *start; /* [batch] or NULL */
} Cache;

static Status cache_read(const Node *node, int rank, const int64_t *past, const int64_t *update, Cache *cache,
                         Error *err)
{
    int axis;
    const char *mode = node_string(node, "mode", "linear");
    TRY(axis_normalize(node, node_int(node, "axis", -2), rank, &axis, err));
    if (axis == 0)
        return infer_fail(node, err, "axis 0 is the batch");
    for (int i = 0; i < rank; i++)
        if (i != axis && past[i] != update[i])
            return infer_fail(node, err, "dim %d of update is %lld, the cache has %lld", i, (long long)update[i],
                              (long long)past[i]);
    cache->circular = strcmp(mode, "circular") == 0;
    if (!cache->circular && strcmp(mode, "linear") != 0)
        return infer_fail(node, err, "mode '%s'", mode);
    if (update[axis] > past[axis])
        return infer_fail(node, err, "update of %lld positions, the cache has %lld", (long long)update[axis],
                          (long long)past[axis]);
    cache->batch = past[0];
    cache->outer = dims_count(axis - 1, past + 1);
    cache->length = past[axis];
    cache->update = update[axis];
    cache->inner = dims_count(rank - axis - 1, past + axis + 1);
    return STATUS_OK;
}

static Status cache_indices(EvalContext *context, int index, Cache *cache, Error *err)
{
    size_t count;
    TRY(eval_ints(context, index, &cache->start, &count, err));
    if (cache->start && count != (size_t)cache->batch)
        return eval_fail(context, err, "%zu write_indices for a batch of %lld", count, (long long)cache->batch);
    for (int64_t b = 0; cache->start && b < cache->batch; b++)
        if (cache->start[b] < 0 || (!cache->circular && cache->start[b] > cache->length - cache->update))
            return eval_fail(context, err, "write index %lld of sample %lld: %lld positions do not fit into %lld",
                             (long long)cache->start[b], (long long)b, (long long)cache->update,
                             (long long)cache->length);
    return STATUS_OK;
}

/* Walks the update's runs; `into` copies them into the cache, else out of it. */
static void cache_move(const Cache *c, char *cache, char *update, size_t size, bool into)
{
    const size_t run = (size_t)c->inner * size;
    for (int64_t line = 0; line < c->batch * c->outer; line++) {
        int64_t start = c->start && c->length > 0 ? c->start[line / c->outer] % c->length : 0;
        for (int64_t t = 0; t < c->update; t++) {
            char *at = cache + (size_t)(line * c->length + (start + t) % c->length) * run;
            char *part = update + (size_t)(line * c->update + t) * run;
            memcpy(into ? at : part, into ? part : at, run);
        }
    }
}

static Status cache_infer(Node *node, Error *err)
{
    const Type *past = &node->inputs[0]->type, *update = &node->inputs[1]->type;
    Cache cache;
    if (past->rank != update->rank)
        return infer_fail(node, err, "cache of rank %d, update of rank %d", past->rank, update->rank);
    TRY(cache_read(node, past->rank, past->dims, update->dims, &cache, err));
    return infer_same(node, err);
}

static Status cache_eval(EvalContext *context, Error *err)
{
    const Array *past = context->in[0], *update = context->in[1];
    Cache cache;
    Array *present;
    if (past->rank != update->rank || past->dtype != update->dtype)
        return eval_fail(context, err, "cache of %d dims of %s, update of %d of %s", past->rank,
                         dtype_name(past->dtype), update->rank, dtype_name(update->dtype));
    TRY(cache_read(context->node, past->rank, past->dims, update->dims, &cache, err));
    TRY(cache_indices(context, 2, &cache, err));
    TRY(eval_output_same(context, 0, past, err));
    present = context->out[0];
    cache_move(&cache, present->data, update->data, dtype_size(past->dtype), true);
    return STATUS_OK;
}

/* d past: dy with zeros where update was written; d update: what dy has there (TensorScatterGrad). */
static Status cache_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    Builder *b = &context->b;
    Value *start = node_input(forward, 2);
    if (context->wants[0]) {
        Value *inputs[] = {context->dy[0], build_zeros(b, &forward->inputs[1]->type), start};
        Node *node = build_node(b, "", "TensorScatter", inputs, 3, 1);
        if (node)
            node_copy_attrs(node, forward);
        context->dx[0] = build_finish(b, node);
    }
    if (context->wants[1]) {
        Value *inputs[] = {context->dy[0], start};
        Node *node = build_node(b, DOMAIN_INTERNAL, "TensorScatterGrad", inputs, 2, 1);
        if (!node)
            return b->status;
        node_copy_attrs(node, forward);
        node_set_ints(node, "dims", forward->inputs[1]->type.dims, (size_t)forward->inputs[1]->type.rank);
        context->dx[1] = build_finish(b, node);
    }
    return b->status;
}

static Status cache_grad_infer(Node *node, Error *err)
{
    (void)err;
    size_t rank;
    const int64_t *dims = node_ints(node, "dims", &rank);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, (int)rank, dims);
    return STATUS_OK;
}

static Status cache_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = context->in[0];
    size_t rank;
    const int64_t *dims = node_ints(context->node, "dims", &rank);
    Cache cache;
    Array *update;
    TRY(cache_read(context->node, dy->rank, dy->dims, dims, &cache, err));
    TRY(cache_indices(context, 1, &cache, err));
    TRY(eval_output(context, 0, dy->dtype, (int)rank, dims, &update, err));
    cache_move(&cache, dy->data, update->data, dtype_size(dy->dtype), false);
    return STATUS_OK;
}

/* clang-format off */
const OpDef ops_rearrange[] = {
    {.name = "Trilu", .since = 14, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE | OP_IN_PLACE, .infer = trilu_infer, .eval = trilu_eval, .grad = self_adjoint_grad,
     .prepare = trilu_prepare},
    {.name = "ReverseSequence", .since = 10, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = reverse_infer, .eval = reverse_eval,
     .grad = self_adjoint_grad},
    {.name = "TensorScatter", .since = 24, .last = 28, .min_inputs = 2, .max_inputs = 3, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = cache_infer, .eval = cache_eval, .grad = cache_grad},
    {.domain = DOMAIN_INTERNAL, .name = "TensorScatterGrad", .min_inputs = 1, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = cache_grad_infer, .eval = cache_grad_eval,
     .no_case = "internal: the gradient of TensorScatter"},
    {0},
};
/* clang-format on */
