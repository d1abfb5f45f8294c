/* Operators that search or pick: ArgMax, ArgMin, TopK, OneHot, NonZero, Compress, Unique.
 *
 * Most results are indices and carry no gradient; the picked values of TopK and Compress do. What depends on data for
 * its shape (NonZero, Unique, Compress with a computed condition) runs in the interpreter only. */
#include "runtime/ops/ops.h"

#include <string.h>

/* A tensor seen along one axis: [outer, dim, inner]. */
typedef struct Lines {
    int64_t outer, dim, inner;
} Lines;

static Lines lines_along(int rank, const int64_t *dims, int axis)
{
    return (Lines){dims_count(axis, dims), dims[axis], dims_count(rank - axis - 1, dims + axis + 1)};
}

/* ---- ArgMax, ArgMin ----------------------------------------------------------------------------------- */

static Status arg_shape(const Node *node, int rank, const int64_t *dims, int *axis, int *out_rank, int64_t *out,
                        Error *err)
{
    bool keep = node_int(node, "keepdims", 1) != 0;
    TRY(axis_normalize(node, node_int(node, "axis", 0), rank, axis, err));
    if (dims[*axis] == 0)
        return infer_fail(node, err, "axis %d is empty", *axis);
    *out_rank = 0;
    for (int i = 0; i < rank; i++)
        if (i != *axis || keep)
            out[(*out_rank)++] = i == *axis ? 1 : dims[i];
    return STATUS_OK;
}

static Status arg_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    int axis = 0, rank = 0;
    int64_t dims[RANK_MAX];
    TRY(arg_shape(node, x->rank, x->dims, &axis, &rank, dims, err));
    type_set(&node->outputs[0]->type, DTYPE_I64, rank, dims);
    return STATUS_OK;
}

static Status arg_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const bool largest = node_is(context->node, "ArgMax");
    const bool last = node_int(context->node, "select_last_index", 0) != 0;
    int axis = 0, rank = 0;
    int64_t dims[RANK_MAX];
    Array *out;
    TRY(arg_shape(context->node, x->rank, x->dims, &axis, &rank, dims, err));
    TRY(eval_output(context, 0, DTYPE_I64, rank, dims, &out, err));
    const Lines lines = lines_along(x->rank, x->dims, axis);
    const size_t size = dtype_size(x->dtype);
    for (int64_t line = 0; line < lines.outer * lines.inner; line++) {
        const int64_t first = line / lines.inner * lines.dim * lines.inner + line % lines.inner;
        const char *base = (const char *)x->data + (size_t)first * size;
        int64_t best = 0;
        for (int64_t i = 1; i < lines.dim; i++) {
            int order = element_compare(x->dtype, base + (size_t)(i * lines.inner) * size,
                                        base + (size_t)(best * lines.inner) * size);
            order = largest ? order : -order;
            best = order > 0 || (last && order == 0) ? i : best;
        }
        ((int64_t *)out->data)[line] = best;
    }
    return STATUS_OK;
}

/* ---- TopK --------------------------------------------------------------------------------------------- */

typedef struct Ranking {
    const char *base; /* of the line */
    int64_t step;     /* bytes */
    DType dtype;
    bool largest;
} Ranking;

/* Equal values keep their order (TopK-24). */
static int rank_compare(const void *a, const void *b, void *context)
{
    const Ranking *r = context;
    int64_t i = *(const int64_t *)a, k = *(const int64_t *)b;
    int order = element_compare(r->dtype, r->base + i * r->step, r->base + k * r->step);
    if (order != 0)
        return r->largest ? -order : order;
    return (i > k) - (i < k);
}

static Status topk_shape(const Node *node, int rank, const int64_t *in, int64_t k, int *axis, int64_t *dims, Error *err)
{
    TRY(axis_normalize(node, node_int(node, "axis", -1), rank, axis, err));
    if (k < 0 || k > in[*axis])
        return infer_fail(node, err, "k is %lld, the axis has %lld", (long long)k, (long long)in[*axis]);
    memcpy(dims, in, (size_t)rank * sizeof *dims);
    dims[*axis] = k;
    return STATUS_OK;
}

static Status topk_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const int64_t *k;
    size_t count;
    int axis = 0, rank = x->rank;
    int64_t dims[RANK_MAX];
    if (infer_has_ints(node, 1)) {
        TRY(infer_ints(node, 1, &k, &count, err));
        if (count != 1)
            return infer_fail(node, err, "K has %zu elements", count);
        TRY(topk_shape(node, x->rank, x->dims, *k, &axis, dims, err));
    } else {
        rank = -1;
    }
    if (node->outputs[0])
        type_set(&node->outputs[0]->type, x->dtype, rank, dims);
    if (node_output(node, 1))
        type_set(&node->outputs[1]->type, DTYPE_I64, rank, dims);
    return STATUS_OK;
}

static Status topk_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const int64_t k = eval_int_or(context, 1, 0);
    int axis = 0;
    int64_t dims[RANK_MAX];
    Array *values, *indices;
    TRY(topk_shape(context->node, x->rank, x->dims, k, &axis, dims, err));
    TRY(eval_output(context, 0, x->dtype, x->rank, dims, &values, err));
    TRY(eval_output(context, 1, DTYPE_I64, x->rank, dims, &indices, err));
    const Lines lines = lines_along(x->rank, x->dims, axis);
    const size_t size = dtype_size(x->dtype);
    int64_t *order = arena_array(context->arena, int64_t, (size_t)lines.dim + 1);
    for (int64_t line = 0; line < lines.outer * lines.inner; line++) {
        const int64_t outer = line / lines.inner, inner = line % lines.inner;
        Ranking ranking = {(const char *)x->data + (size_t)(outer * lines.dim * lines.inner + inner) * size,
                           lines.inner * (int64_t)size, x->dtype, node_int(context->node, "largest", 1) != 0};
        for (int64_t i = 0; i < lines.dim; i++)
            order[i] = i;
        qsort_r(order, (size_t)lines.dim, sizeof *order, rank_compare, &ranking);
        for (int64_t i = 0; i < k; i++) {
            const int64_t to = (outer * k + i) * lines.inner + inner;
            memcpy((char *)values->data + (size_t)to * size, ranking.base + order[i] * ranking.step, size);
            ((int64_t *)indices->data)[to] = order[i];
        }
    }
    return STATUS_OK;
}

/* k was an attribute in TopK-1. */
static Status topk_upgrade(Node *node, Error *err)
{
    (void)err;
    upgrade_ints_to_input(node, "k", 1);
    return STATUS_OK;
}

/* dx = dy at the indices that were picked, zero elsewhere. */
static Status topk_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    Builder *b = &context->b;
    if (!context->dy[0])
        return STATUS_OK;
    while (node->output_count < 2)
        node_add_output(node, graph_unique_name(node->graph, "indices"));
    if (!node->outputs[1])
        node_set_output(node, 1, graph_add_value(node->graph, graph_unique_name(node->graph, "indices")));
    TRY(node_infer(node, err));
    Value *inputs[] = {build_zeros(b, &node->inputs[0]->type), node->outputs[1], context->dy[0]};
    Node *back = build_node(b, "", "ScatterElements", inputs, 3, 1);
    if (!back)
        return b->status;
    node_set_int(back, "axis", node_int(node, "axis", -1));
    context->dx[0] = build_finish(b, back);
    return b->status;
}

/* ---- OneHot ------------------------------------------------------------------------------------------- */

static Status onehot_shape(const Node *node, int rank, const int64_t *in, int64_t depth, int *axis, int64_t *dims,
                           Error *err)
{
    if (rank + 1 > RANK_MAX)
        return infer_fail(node, err, "result would have more than %d dims", RANK_MAX);
    TRY(axis_normalize(node, node_int(node, "axis", -1), rank + 1, axis, err));
    if (depth < 0)
        return infer_fail(node, err, "depth %lld", (long long)depth);
    for (int i = 0; i <= rank; i++)
        dims[i] = i < *axis ? in[i] : i == *axis ? depth : in[i - 1];
    return STATUS_OK;
}

static Status onehot_infer(Node *node, Error *err)
{
    const Type *indices = &node->inputs[0]->type, *values = &node->inputs[2]->type;
    const int64_t *depth;
    size_t count;
    int axis = 0, rank = indices->rank + 1;
    int64_t dims[RANK_MAX];
    if (infer_has_ints(node, 1)) {
        TRY(infer_ints(node, 1, &depth, &count, err));
        if (count != 1)
            return infer_fail(node, err, "depth has %zu elements", count);
        TRY(onehot_shape(node, indices->rank, indices->dims, *depth, &axis, dims, err));
    } else {
        rank = -1;
    }
    type_set(&node->outputs[0]->type, values->dtype, rank, dims);
    return STATUS_OK;
}

/* Indices count from the back when negative; one that fits nowhere leaves its line off. */
static Status onehot_eval(EvalContext *context, Error *err)
{
    const Array *indices = context->in[0], *depth_in = context->in[1], *values = context->in[2];
    if (depth_in->count != 1 || values->count != 2)
        return eval_fail(context, err, "depth has %lld elements, values %lld", (long long)depth_in->count,
                         (long long)values->count);
    const int64_t depth = array_i64_at(depth_in, 0);
    int axis = 0;
    int64_t dims[RANK_MAX];
    Array *out;
    TRY(onehot_shape(context->node, indices->rank, indices->dims, depth, &axis, dims, err));
    TRY(eval_output(context, 0, values->dtype, indices->rank + 1, dims, &out, err));
    const size_t size = dtype_size(values->dtype);
    const char *off = values->data, *on = off + size;
    const int64_t inner = dims_count(indices->rank - axis, indices->dims + axis);
    for (int64_t i = 0; i < out->count; i++)
        memcpy((char *)out->data + (size_t)i * size, off, size);
    for (int64_t i = 0; i < indices->count; i++) {
        int64_t at = array_i64_at(indices, i);
        at += at < 0 ? depth : 0;
        if (at >= 0 && at < depth)
            memcpy((char *)out->data + (size_t)((i / inner * depth + at) * inner + i % inner) * size, on, size);
    }
    return STATUS_OK;
}

static Value *build_total(Builder *b, Value *x)
{
    Node *node = build_node(b, "", "ReduceSum", &x, 1, 1);
    if (!node)
        return NULL;
    node_set_int(node, "keepdims", 0);
    return build_finish(b, node);
}

/* d values = [sum of dy where off, sum of dy where on] */
static Status onehot_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *node = context->node;
    Builder *b = &context->b;
    Value *dy = context->dy[0];
    if (!context->wants[2])
        return STATUS_OK;
    const int64_t two = 2, one = 1;
    void *data;
    Arena *arena = &node->graph->model->arena;
    Tensor *flags = tensor_new(arena, NULL, DTYPE_BOOL, 1, &two, &data);
    ((uint8_t *)data)[1] = 1;
    Value *inputs[] = {node->inputs[0], node->inputs[1], build_constant(b, flags)};
    Node *hot = build_node(b, "", "OneHot", inputs, 3, 1);
    if (!hot)
        return b->status;
    node_set_int(hot, "axis", node_int(node, "axis", -1));
    Value *zero = build_scalar(b, dy->type.dtype, 0);
    Value *on = build_total(b, build3(b, "Where", build_finish(b, hot), dy, zero));
    Value *off = build2(b, "Sub", build_total(b, dy), on);
    Value *parts[] = {build_reshape(b, off, 1, &one), build_reshape(b, on, 1, &one)};
    Node *join = build_node(b, "", "Concat", parts, 2, 1);
    if (!join)
        return b->status;
    node_set_int(join, "axis", 0);
    context->dx[2] = build_finish(b, join);
    return b->status;
}

/* ---- NonZero ------------------------------------------------------------------------------------------ */

static Status nonzero_infer(Node *node, Error *err)
{
    (void)err;
    type_set(&node->outputs[0]->type, DTYPE_I64, -1, NULL);
    return STATUS_OK;
}

static bool element_is_zero(const Array *x, int64_t i)
{
    if (x->dtype == DTYPE_STRING)
        return ((const Bytes *)x->data)[i].length == 0;
    return array_f64_at(x, i) == 0;
}

static Status nonzero_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const int rank = x->rank > 0 ? x->rank : 1;
    int64_t count = 0, column = 0;
    Array *out;
    for (int64_t i = 0; i < x->count; i++)
        count += !element_is_zero(x, i);
    TRY(eval_output(context, 0, DTYPE_I64, 2, (int64_t[]){rank, count}, &out, err));
    for (int64_t i = 0; i < x->count; i++) {
        if (element_is_zero(x, i))
            continue;
        int64_t rest = i;
        for (int d = rank - 1; d >= 0; d--) {
            int64_t dim = x->rank > 0 ? x->dims[d] : 1;
            ((int64_t *)out->data)[d * count + column] = rest % dim;
            rest /= dim;
        }
        column++;
    }
    return STATUS_OK;
}

/* ---- Compress ----------------------------------------------------------------------------------------- */

/* The picked indices along the axis (of the flattened input without one). */
static Status compress_pick(const Node *node, int64_t dim, const uint8_t *condition, int64_t length, int64_t *picked,
                            int64_t *count, Error *err)
{
    *count = 0;
    for (int64_t i = 0; i < length; i++) {
        if (!condition[i])
            continue;
        if (i >= dim)
            return infer_fail(node, err, "condition picks index %lld of an axis of %lld", (long long)i, (long long)dim);
        picked[(*count)++] = i;
    }
    return STATUS_OK;
}

static Status compress_shape(const Node *node, int rank, const int64_t *in, Lines *lines, int *axis, Error *err)
{
    *axis = -1;
    *lines = (Lines){1, dims_count(rank, in), 1};
    if (!node_attr(node, "axis"))
        return STATUS_OK;
    TRY(axis_normalize(node, node_int(node, "axis", 0), rank, axis, err));
    *lines = lines_along(rank, in, *axis);
    return STATUS_OK;
}

static void compress_dims(int rank, const int64_t *in, int axis, int64_t count, int *out_rank, int64_t *out)
{
    *out_rank = axis < 0 ? 1 : rank;
    memcpy(out, in, (size_t)rank * sizeof *out);
    out[axis < 0 ? 0 : axis] = count;
}

static Status compress_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const Tensor *condition = node->inputs[1]->constant;
    Lines lines;
    int axis = -1, rank = -1;
    int64_t dims[RANK_MAX], count = 0;
    TRY(compress_shape(node, x->rank, x->dims, &lines, &axis, err));
    if (condition) {
        int64_t *picked = arena_array(&node->graph->model->arena, int64_t, (size_t)tensor_count(condition) + 1);
        TRY(compress_pick(node, lines.dim, condition->data, tensor_count(condition), picked, &count, err));
        compress_dims(x->rank, x->dims, axis, count, &rank, dims);
    }
    type_set(&node->outputs[0]->type, x->dtype, rank, dims);
    return STATUS_OK;
}

static Status compress_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *condition = context->in[1];
    Lines lines;
    int axis = -1, rank = 0;
    int64_t dims[RANK_MAX], count = 0;
    Array *out;
    if (condition->dtype != DTYPE_BOOL || condition->rank != 1)
        return eval_fail(context, err, "condition is %s of rank %d, bool of rank 1 expected",
                         dtype_name(condition->dtype), condition->rank);
    TRY(compress_shape(context->node, x->rank, x->dims, &lines, &axis, err));
    int64_t *picked = arena_array(context->arena, int64_t, (size_t)condition->count + 1);
    TRY(compress_pick(context->node, lines.dim, condition->data, condition->count, picked, &count, err));
    compress_dims(x->rank, x->dims, axis, count, &rank, dims);
    TRY(eval_output(context, 0, x->dtype, rank, dims, &out, err));
    const size_t run = (size_t)lines.inner * dtype_size(x->dtype);
    for (int64_t o = 0; o < lines.outer; o++)
        for (int64_t i = 0; i < count; i++)
            memcpy((char *)out->data + (size_t)(o * count + i) * run,
                   (const char *)x->data + (size_t)(o * lines.dim + picked[i]) * run, run);
    return STATUS_OK;
}

/* With a constant condition, Compress is a Gather of constant indices. */
static Status compress_grad(GradContext *context, Error *err)
{
    const Node *forward = context->node;
    const Type *x = &forward->inputs[0]->type;
    const Tensor *condition = forward->inputs[1]->constant;
    Builder *b = &context->b;
    Lines lines;
    int axis = -1;
    int64_t count = 0;
    if (!condition)
        return fail(err, STATUS_UNSUPPORTED, "%s: no gradient when the condition depends on data", node_text(forward));
    TRY(compress_shape(forward, x->rank, x->dims, &lines, &axis, err));
    int64_t *picked = arena_array(&forward->graph->model->arena, int64_t, (size_t)tensor_count(condition) + 1);
    TRY(compress_pick(forward, lines.dim, condition->data, tensor_count(condition), picked, &count, err));
    Value *inputs[] = {context->dy[0], build_ints(b, picked, (size_t)count)};
    Node *node = build_node(b, DOMAIN_INTERNAL, "GatherGrad", inputs, 2, 1);
    if (!node)
        return b->status;
    node_set_int(node, "axis", axis < 0 ? 0 : axis);
    if (axis < 0)
        node_set_ints(node, "dims", &lines.dim, 1);
    else
        node_set_ints(node, "dims", x->dims, (size_t)x->rank);
    context->dx[0] = build_reshape(b, build_finish(b, node), x->rank, x->dims);
    return b->status;
}

/* ---- Unique ------------------------------------------------------------------------------------------- */

/* Subtensors behind each other: [count, length] elements. */
typedef struct Items {
    const char *data;
    int64_t count, length;
    DType dtype;
    size_t size;
} Items;

static int items_order(const Items *items, int64_t a, int64_t b)
{
    const size_t bytes = (size_t)items->length * items->size;
    const char *x = items->data + (size_t)a * bytes, *y = items->data + (size_t)b * bytes;
    for (int64_t i = 0; i < items->length; i++) {
        int order = element_compare(items->dtype, x + (size_t)i * items->size, y + (size_t)i * items->size);
        if (order != 0)
            return order;
    }
    return 0;
}

static int items_compare(const void *a, const void *b, void *context)
{
    int64_t i = *(const int64_t *)a, k = *(const int64_t *)b;
    int order = items_order(context, i, k);
    return order != 0 ? order : (i > k) - (i < k);
}

static int int_compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

typedef struct Groups {
    int64_t *first, *counts, *inverse; /* [groups], [groups], [items] */
    int64_t count;
} Groups;

/* Equal items form a group, known by its first item; groups are in order of their value or of that item. */
static void items_group(Arena *arena, Items *items, bool sorted, Groups *groups)
{
    const size_t n = (size_t)items->count + 1;
    int64_t *order = arena_array(arena, int64_t, n), *place = arena_array(arena, int64_t, n);
    groups->first = arena_array(arena, int64_t, n);
    groups->counts = arena_array(arena, int64_t, n);
    groups->inverse = arena_array(arena, int64_t, n);
    groups->count = 0;
    for (int64_t i = 0; i < items->count; i++)
        order[i] = i;
    qsort_r(order, (size_t)items->count, sizeof *order, items_compare, items);
    int64_t first = 0;
    for (int64_t i = 0; i < items->count; i++) { /* inverse holds the group's first item for now */
        if (i == 0 || items_order(items, order[i - 1], order[i]) != 0) {
            first = order[i];
            groups->first[groups->count++] = first;
        }
        groups->inverse[order[i]] = first;
    }
    if (!sorted)
        qsort(groups->first, (size_t)groups->count, sizeof *groups->first, int_compare);
    for (int64_t g = 0; g < groups->count; g++)
        place[groups->first[g]] = g;
    for (int64_t i = 0; i < items->count; i++) {
        groups->inverse[i] = place[groups->inverse[i]];
        groups->counts[groups->inverse[i]]++;
    }
}

static Status unique_ints(EvalContext *context, int index, const int64_t *values, int64_t count, Error *err)
{
    Array *out;
    TRY(eval_output(context, index, DTYPE_I64, 1, &count, &out, err));
    if (count > 0)
        memcpy(out->data, values, (size_t)count * sizeof *values);
    return STATUS_OK;
}

static Status unique_infer(Node *node, Error *err)
{
    (void)err;
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i])
            type_set(&node->outputs[i]->type, i == 0 ? node->inputs[0]->type.dtype : DTYPE_I64, -1, NULL);
    return STATUS_OK;
}

static Status unique_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    Lines lines;
    int axis = -1, rank = 0;
    int64_t dims[RANK_MAX];
    Groups groups;
    Array *out;
    TRY(compress_shape(context->node, x->rank, x->dims, &lines, &axis, err));
    const size_t size = dtype_size(x->dtype);
    char *moved = arena_calloc(context->arena, (size_t)x->count + 1, size); /* [dim, outer, inner] */
    const int64_t by_item[3] = {lines.dim, lines.outer, lines.inner},
                  from[3] = {lines.inner, lines.dim * lines.inner, 1};
    const int64_t to[3] = {lines.outer * lines.inner, lines.inner, 1};
    StridedCopy copy = strided_make(3, by_item, from, to, size);
    strided_run(&copy, x->data, moved);
    Items items = {moved, lines.dim, lines.outer * lines.inner, x->dtype, size};
    items_group(context->arena, &items, node_int(context->node, "sorted", 1) != 0, &groups);
    compress_dims(x->rank, x->dims, axis, groups.count, &rank, dims);
    TRY(eval_output(context, 0, x->dtype, rank, dims, &out, err));
    const size_t run = (size_t)lines.inner * size;
    for (int64_t o = 0; o < lines.outer; o++)
        for (int64_t g = 0; g < groups.count; g++)
            memcpy((char *)out->data + (size_t)(o * groups.count + g) * run,
                   (const char *)x->data + (size_t)(o * lines.dim + groups.first[g]) * run, run);
    TRY(unique_ints(context, 1, groups.first, groups.count, err));
    TRY(unique_ints(context, 2, groups.inverse, lines.dim, err));
    return unique_ints(context, 3, groups.counts, groups.count, err);
}

/* clang-format off */
const OpDef ops_select[] = {
    {.name = "ArgMax", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .infer = arg_infer, .eval = arg_eval, .no_gradient = "its result is an index"},
    {.name = "ArgMin", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .infer = arg_infer, .eval = arg_eval, .no_gradient = "its result is an index"},
    {.name = "TopK", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1, .max_outputs = 2,
     .traits = OP_ANY_DTYPE, .infer = topk_infer, .eval = topk_eval, .grad = topk_grad, .upgrade = topk_upgrade},
    {.name = "OneHot", .since = 9, .last = 28, .min_inputs = 3, .max_inputs = 3, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = onehot_infer, .eval = onehot_eval, .grad = onehot_grad},
    {.name = "NonZero", .since = 9, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .infer = nonzero_infer, .eval = nonzero_eval, .no_gradient = "its result is an index"},
    {.name = "Compress", .since = 9, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = compress_infer, .eval = compress_eval, .grad = compress_grad},
    {.name = "Unique", .since = 11, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 4,
     .traits = OP_ANY_DTYPE, .infer = unique_infer, .eval = unique_eval,
     .no_gradient = "which elements are equal is not differentiable"},
    {0},
};
/* clang-format on */
