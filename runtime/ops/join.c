/* Putting tensors together and taking them apart: Concat, Split, Slice, and Slice's gradient.
 *
 * Each is a handful of strided copies. Planned, they work on the bytes as they lie: in a channel layout a piece of the
 * channel axis that starts and ends at a block's border is a piece of the physical tensor, so DenseNet's and
 * ShuffleNet's joints cost no reorder. */
#include "runtime/ops/ops.h"

#include <string.h>

/* Copies of one step: copy i moves input i (Concat) or to output i (Split); `from` and `to` are byte offsets. */
typedef struct Pieces {
    int count;
    struct Piece {
        StridedCopy copy;
        size_t from, to;
    } * items;
} Pieces;

/* A box of `dims` inside a dense tensor of `whole` dims beginning at `offset` along `axis`: copied out of it, or into
 * it. */
static struct Piece piece_make(int rank, const int64_t *dims, const int64_t *whole, int axis, int64_t offset, bool into,
                               size_t size)
{
    int64_t small[STRIDED_MAX], large[STRIDED_MAX];
    strides_dense(rank, dims, small);
    strides_dense(rank, whole, large);
    struct Piece piece = {.copy = strided_make(rank, dims, into ? small : large, into ? large : small, size)};
    size_t bytes = (size_t)(offset * (rank > 0 ? large[axis] : 0)) * size;
    piece.from = into ? 0 : bytes;
    piece.to = into ? bytes : 0;
    return piece;
}

/* ---- Concat ------------------------------------------------------------------------------------------- */

static Status concat_infer(Node *node, Error *err)
{
    const Type *first = &node->inputs[0]->type;
    int axis;
    TRY(axis_normalize(node, node_int(node, "axis", 1), first->rank, &axis, err));
    int64_t dims[RANK_MAX];
    memcpy(dims, first->dims, sizeof dims);
    for (int i = 1; i < node->input_count; i++) {
        const Type *type = &node->inputs[i]->type;
        bool fits = type->rank == first->rank && type->dtype == first->dtype;
        for (int d = 0; d < first->rank && fits; d++)
            fits = d == axis || type->dims[d] == dims[d];
        Arena *arena = &node->graph->model->arena;
        if (!fits)
            return infer_fail(node, err, "input %d is %s, which does not fit %s along axis %d", i,
                              type_text(arena, type), type_text(arena, first), axis);
        dims[axis] += type->dims[axis];
    }
    type_set(&node->outputs[0]->type, first->dtype, first->rank, dims);
    return STATUS_OK;
}

static Status concat_shape(EvalContext *context, int *axis, int64_t *dims, Error *err)
{
    const Array *first = context->in[0];
    TRY(axis_normalize(context->node, node_int(context->node, "axis", 1), first->rank, axis, err));
    memcpy(dims, first->dims, sizeof first->dims);
    for (int i = 1; i < context->in_count; i++) {
        const Array *x = context->in[i];
        bool fits = x->rank == first->rank && x->dtype == first->dtype;
        for (int d = 0; d < first->rank && fits; d++)
            fits = d == *axis || x->dims[d] == dims[d];
        if (!fits)
            return eval_fail(context, err, "input %d is %s%s, which does not fit %s%s along axis %d", i,
                             dtype_name(x->dtype), dims_text(context->arena, x->rank, x->dims),
                             dtype_name(first->dtype), dims_text(context->arena, first->rank, first->dims), *axis);
        dims[*axis] += x->dims[*axis];
    }
    return STATUS_OK;
}

static Status concat_eval(EvalContext *context, Error *err)
{
    int axis;
    int64_t dims[RANK_MAX], offset = 0;
    Array *out;
    TRY(concat_shape(context, &axis, dims, err));
    TRY(eval_output(context, 0, context->in[0]->dtype, context->in[0]->rank, dims, &out, err));
    for (int i = 0; i < context->in_count; i++) {
        const Array *x = context->in[i];
        struct Piece piece = piece_make(x->rank, x->dims, out->dims, axis, offset, true, dtype_size(x->dtype));
        strided_run(&piece.copy, x->data, (char *)out->data + piece.to);
        offset += x->dims[axis];
    }
    return STATUS_OK;
}

/* Concat-1 joined along axis 1 unless told otherwise; since 4 the axis is always given. */
static Status concat_upgrade(Node *node, Error *err)
{
    (void)err;
    if (!node_attr(node, "axis"))
        node_set_int(node, "axis", 1);
    return STATUS_OK;
}

/* x[.., start : start + size, ..] along one axis. */
static Value *build_slice(Builder *b, Value *x, int64_t axis, int64_t start, int64_t size)
{
    int64_t end = start + size;
    Value *inputs[] = {x, build_ints(b, &start, 1), build_ints(b, &end, 1), build_ints(b, &axis, 1)};
    Node *node = build_node(b, "", "Slice", inputs, 4, 1);
    return build_finish(b, node);
}

static Status concat_grad(GradContext *context, Error *err)
{
    const Node *node = context->node;
    int axis;
    int64_t offset = 0;
    TRY(axis_normalize(node, node_int(node, "axis", 1), node->outputs[0]->type.rank, &axis, err));
    for (int i = 0; i < node->input_count; i++) {
        int64_t size = node->inputs[i]->type.dims[axis];
        if (context->wants[i])
            context->dx[i] = build_slice(&context->b, context->dy[0], axis, offset, size);
        offset += size;
    }
    return context->b.status;
}

/* ---- Split -------------------------------------------------------------------------------------------- */

/* Sizes of the outputs along the axis: given, or equal ones of which the last may be smaller (Split-18). */
static Status split_sizes(const Node *node, int64_t dim, const int64_t *given, size_t given_count, int count,
                          int64_t *sizes, Error *err)
{
    int64_t total = 0;
    if (given && (int)given_count != count)
        return infer_fail(node, err, "%zu sizes for %d outputs", given_count, count);
    int64_t chunk = count > 0 ? (dim + count - 1) / count : 0;
    for (int i = 0; i < count; i++) {
        int64_t left = dim - total;
        sizes[i] = given ? given[i] : left < chunk ? left : chunk;
        if (sizes[i] < 0 || sizes[i] > left)
            return infer_fail(node, err, "size %lld of output %d does not fit, %lld of %lld are left",
                              (long long)sizes[i], i, (long long)left, (long long)dim);
        total += sizes[i];
    }
    if (total != dim)
        return infer_fail(node, err, "sizes sum to %lld, the axis has %lld", (long long)total, (long long)dim);
    return STATUS_OK;
}

static Status split_infer(Node *node, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    const int64_t *given;
    size_t count;
    int axis;
    int64_t dims[RANK_MAX], *sizes = arena_array(&node->graph->model->arena, int64_t, (size_t)node->output_count + 1);
    TRY(axis_normalize(node, node_int(node, "axis", 0), type->rank, &axis, err));
    if (!infer_has_ints(node, 1)) {
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i])
                type_set(&node->outputs[i]->type, type->dtype, -1, NULL);
        return STATUS_OK;
    }
    TRY(infer_ints(node, 1, &given, &count, err));
    TRY(split_sizes(node, type->dims[axis], given, count, node->output_count, sizes, err));
    memcpy(dims, type->dims, sizeof dims);
    for (int i = 0; i < node->output_count; i++) {
        dims[axis] = sizes[i];
        if (node->outputs[i])
            type_set(&node->outputs[i]->type, type->dtype, type->rank, dims);
    }
    return STATUS_OK;
}

static Status split_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const int64_t *given;
    size_t count;
    int axis;
    int64_t dims[RANK_MAX], offset = 0, *sizes = arena_array(context->arena, int64_t, (size_t)context->out_count + 1);
    TRY(axis_normalize(context->node, node_int(context->node, "axis", 0), x->rank, &axis, err));
    TRY(eval_ints(context, 1, &given, &count, err));
    TRY(split_sizes(context->node, x->dims[axis], given, count, context->out_count, sizes, err));
    memcpy(dims, x->dims, sizeof dims);
    for (int i = 0; i < context->out_count; i++) {
        Array *out;
        dims[axis] = sizes[i];
        TRY(eval_output(context, i, x->dtype, x->rank, dims, &out, err));
        struct Piece piece = piece_make(x->rank, dims, x->dims, axis, offset, false, dtype_size(x->dtype));
        strided_run(&piece.copy, (const char *)x->data + piece.from, out->data);
        offset += sizes[i];
    }
    return STATUS_OK;
}

/* Sizes were an attribute up to 11. */
static Status split_upgrade(Node *node, Error *err)
{
    (void)err;
    upgrade_ints_to_input(node, "split", 1);
    return STATUS_OK;
}

/* dx joins the outputs' gradients; an output that the loss does not reach contributes zeros. */
static Status split_grad(GradContext *context, Error *err)
{
    const Node *node = context->node;
    Builder *b = &context->b;
    Value **pieces = arena_array(&node->graph->model->arena, Value *, (size_t)node->output_count);
    for (int i = 0; i < node->output_count; i++) {
        if (!node->outputs[i])
            return node_unsupported(node, err, "output %d is omitted; the gradient does not know its size", i);
        pieces[i] = context->dy[i] ? context->dy[i] : build_zeros(b, &node->outputs[i]->type);
    }
    Node *join = build_node(b, "", "Concat", pieces, node->output_count, 1);
    if (!join)
        return b->status;
    node_set_int(join, "axis", node_int(node, "axis", 0));
    context->dx[0] = build_finish(b, join);
    return b->status;
}

/* ---- planned Concat and Split ------------------------------------------------------------------------- */

static Status pieces_run(Step *step, Error *err)
{
    (void)err;
    const Pieces *pieces = step->state;
    bool joins = node_is(step->node, "Concat");
    for (int i = 0; i < pieces->count; i++) {
        const struct Piece *piece = &pieces->items[i];
        const Slot *from = joins ? step->in[i] : step->in[0], *to = joins ? step->out[0] : step->out[i];
        if (to)
            strided_run(&piece->copy, (const char *)from->data + piece->from, (char *)to->data + piece->to);
    }
    return STATUS_OK;
}

/* The layout in which all of `values` and `whole` can be cut along `axis`: the family's if one of them lies in it. */
static Layout pieces_layout(PlanContext *context, const Value *whole, Value *const *values, int count)
{
    bool found = false;
    if (!kernel_family_fits(context, &whole->type))
        return LAYOUT_PLAIN;
    for (int i = 0; i < count; i++)
        if (values[i] && !kernel_family_fits(context, &values[i]->type))
            return LAYOUT_PLAIN;
    for (int i = 0; i < context->node->input_count; i++)
        found = found || (context->node->inputs[i] && kernel_input_layout(context, i) == context->family);
    return found ? context->family : LAYOUT_PLAIN;
}

/* Bytes are moved in the precision in which most of them lie. */
static DType pieces_dtype(PlanContext *context)
{
    DType found = DTYPE_UNDEFINED;
    int64_t most = -1;
    for (int i = 0; i < context->node->input_count; i++) {
        int64_t count = context->node->inputs[i] == NULL ? -1 : type_count(&context->node->inputs[i]->type);
        if (count <= most)
            continue;
        found = kernel_input_dtype(context, i);
        most = count;
    }
    return found;
}

static Status concat_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    const Type *y = &node->outputs[0]->type;
    int axis;
    TRY(axis_normalize(node, node_int(node, "axis", 1), y->rank, &axis, err));
    Layout layout = pieces_layout(context, node->outputs[0], node->inputs, node->input_count);
    DType dtype = pieces_dtype(context);
    Slot *out = kernel_output_as(context, 0, layout, dtype);
    Pieces *pieces = kernel_state(context, sizeof *pieces + (size_t)node->input_count * sizeof pieces->items[0]);
    pieces->items = (struct Piece *)(pieces + 1);
    pieces->count = node->input_count;
    int64_t whole[RANK_MAX + 1], dims[RANK_MAX + 1], offset = 0;
    int rank = slot_physical(out, layout, context->block, y->rank, whole);
    axis = physical_axis(layout, y->rank, axis);
    for (int i = 0; i < node->input_count; i++) {
        slot_physical(kernel_input_as(context, i, layout, dtype), layout, context->block, y->rank, dims);
        pieces->items[i] = piece_make(rank, dims, whole, axis, offset, true, dtype_size(out->dtype));
        offset += dims[axis];
    }
    kernel_run(context, pieces_run, "own:strided");
    return STATUS_OK;
}

static Status split_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    const int64_t *given;
    size_t count;
    int axis;
    TRY(axis_normalize(node, node_int(node, "axis", 0), x->rank, &axis, err));
    int64_t *sizes = arena_array(&node->graph->model->arena, int64_t, (size_t)node->output_count + 1);
    TRY(infer_ints(node, 1, &given, &count, err));
    TRY(split_sizes(node, x->dims[axis], given, count, node->output_count, sizes, err));
    Layout layout = pieces_layout(context, node->inputs[0], node->outputs, node->output_count);
    for (int i = 0; i < node->output_count; i++)
        if (layout == LAYOUT_BLOCKED && axis == 1 && sizes[i] % context->block != 0)
            layout = LAYOUT_PLAIN;
    Slot *in = kernel_input_as(context, 0, layout, DTYPE_UNDEFINED);
    Pieces *pieces = kernel_state(context, sizeof *pieces + (size_t)node->output_count * sizeof pieces->items[0]);
    pieces->items = (struct Piece *)(pieces + 1);
    pieces->count = node->output_count;
    int64_t whole[RANK_MAX + 1], dims[RANK_MAX + 1], offset = 0;
    int rank = slot_physical(in, layout, context->block, x->rank, whole);
    int physical = physical_axis(layout, x->rank, axis);
    int64_t unit = layout == LAYOUT_BLOCKED && axis == 1 ? context->block : 1;
    memcpy(dims, whole, sizeof dims);
    for (int i = 0; i < node->output_count; i++) {
        if (node->outputs[i])
            kernel_output_as(context, i, layout, in->dtype);
        dims[physical] = sizes[i] / unit;
        pieces->items[i] = piece_make(rank, dims, whole, physical, offset, false, dtype_size(in->dtype));
        offset += dims[physical];
    }
    kernel_run(context, pieces_run, "own:strided");
    return STATUS_OK;
}

/* ---- Slice -------------------------------------------------------------------------------------------- */

/* Output element k along axis a is input element start[a] + k * step[a]. */
typedef struct Window {
    int rank;
    int64_t start[RANK_MAX + 1], step[RANK_MAX + 1], size[RANK_MAX + 1];
} Window;

typedef struct Ints {
    const int64_t *values;
    size_t count;
} Ints;

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* One axis of Slice-13: negative bounds count from the back, then both are clamped to what the step can reach. */
static void window_axis(Window *window, int axis, int64_t dim, int64_t start, int64_t end, int64_t step)
{
    start += start < 0 ? dim : 0;
    end += end < 0 ? dim : 0;
    start = step > 0 ? clamp(start, 0, dim) : clamp(start, 0, dim - 1);
    end = step > 0 ? clamp(end, 0, dim) : clamp(end, -1, dim - 1);
    int64_t span = step > 0 ? end - start : start - end, stride = step > 0 ? step : -step;
    window->start[axis] = start;
    window->step[axis] = step;
    window->size[axis] = span > 0 && dim > 0 ? (span - 1) / stride + 1 : 0;
}

static Status window_read(const Node *node, int rank, const int64_t *dims, const Ints in[5], Window *window, Error *err)
{
    size_t count = in[1].count;
    bool seen[RANK_MAX] = {false};
    window->rank = rank;
    for (int i = 0; i < rank; i++)
        window_axis(window, i, dims[i], 0, dims[i], 1);
    if (!in[1].values || !in[2].values)
        return infer_fail(node, err, "starts or ends are missing");
    if (in[2].count != count || (in[3].values && in[3].count != count) || (in[4].values && in[4].count != count))
        return infer_fail(node, err, "%zu starts, %zu ends, %zu axes, %zu steps", count, in[2].count, in[3].count,
                          in[4].count);
    if (count > (size_t)rank)
        return infer_fail(node, err, "%zu starts for an input of rank %d", count, rank);
    for (size_t i = 0; i < count; i++) {
        int axis;
        int64_t step = in[4].values ? in[4].values[i] : 1;
        TRY(axis_normalize(node, in[3].values ? in[3].values[i] : (int64_t)i, rank, &axis, err));
        if (seen[axis])
            return infer_fail(node, err, "axis %d is named twice", axis);
        if (step == 0 || step == INT64_MIN)
            return infer_fail(node, err, "step %lld", (long long)step);
        seen[axis] = true;
        window_axis(window, axis, dims[axis], in[1].values[i], in[2].values[i], step);
    }
    return STATUS_OK;
}

/* The window's elements are the outputs' (copied out of it), or the other way round. `bytes` is the offset of its
 * first. */
static StridedCopy window_copy(const Window *window, const int64_t *whole, bool into, size_t size, size_t *bytes)
{
    int64_t small[RANK_MAX + 1], large[RANK_MAX + 1], offset = 0;
    strides_dense(window->rank, window->size, small);
    strides_dense(window->rank, whole, large);
    for (int i = 0; i < window->rank; i++) {
        offset += window->start[i] * large[i];
        large[i] = window->size[i] > 1 ? large[i] * window->step[i] : 0; /* a step may be beyond every axis */
    }
    StridedCopy copy = strided_make(window->rank, window->size, into ? small : large, into ? large : small, size);
    *bytes = copy.outer > 0 ? (size_t)offset * size : 0;
    return copy;
}

static Status window_infer(const Node *node, const Type *type, Window *window, Error *err)
{
    Ints in[5] = {{0}};
    for (int i = 1; i < 5; i++)
        TRY(infer_ints(node, i, &in[i].values, &in[i].count, err));
    return window_read(node, type->rank, type->dims, in, window, err);
}

static Status slice_infer(Node *node, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    Window window;
    for (int i = 1; i < 5; i++)
        if (!infer_has_ints(node, i)) {
            type_set(&node->outputs[0]->type, type->dtype, -1, NULL);
            return STATUS_OK;
        }
    TRY(window_infer(node, type, &window, err));
    type_set(&node->outputs[0]->type, type->dtype, type->rank, window.size);
    return STATUS_OK;
}

static Status slice_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    Ints in[5] = {{0}};
    Window window;
    Array *out;
    size_t offset;
    for (int i = 1; i < 5; i++)
        TRY(eval_ints(context, i, &in[i].values, &in[i].count, err));
    TRY(window_read(context->node, x->rank, x->dims, in, &window, err));
    TRY(eval_output(context, 0, x->dtype, x->rank, window.size, &out, err));
    StridedCopy copy = window_copy(&window, x->dims, false, dtype_size(x->dtype), &offset);
    strided_run(&copy, (const char *)x->data + offset, out->data);
    return STATUS_OK;
}

/* Slice-1 had its three lists as attributes. */
static Status slice_upgrade(Node *node, Error *err)
{
    (void)err;
    upgrade_ints_to_input(node, "starts", 1);
    upgrade_ints_to_input(node, "ends", 2);
    upgrade_ints_to_input(node, "axes", 3);
    return STATUS_OK;
}

/* SliceGrad(dy) {starts, steps, dims}: zeros of `dims` with dy in the window. */
static Status slice_grad(GradContext *context, Error *err)
{
    const Type *x = &context->node->inputs[0]->type;
    Window window;
    TRY(window_infer(context->node, x, &window, err));
    Node *node = build_node(&context->b, DOMAIN_INTERNAL, "SliceGrad", &context->dy[0], 1, 1);
    if (!node)
        return context->b.status;
    node_set_ints(node, "starts", window.start, (size_t)x->rank);
    node_set_ints(node, "steps", window.step, (size_t)x->rank);
    node_set_ints(node, "dims", x->dims, (size_t)x->rank);
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

/* ---- SliceGrad ---------------------------------------------------------------------------------------- */

static Status slice_grad_infer(Node *node, Error *err)
{
    (void)err;
    size_t rank;
    const int64_t *dims = node_ints(node, "dims", &rank);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, (int)rank, dims);
    return STATUS_OK;
}

static void slice_grad_window(const Node *node, const int64_t *size, Window *window)
{
    size_t rank;
    const int64_t *starts = node_ints(node, "starts", &rank), *steps = node_ints(node, "steps", &rank);
    window->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        window->start[i] = starts[i];
        window->step[i] = steps[i];
        window->size[i] = size[i];
    }
}

static Status slice_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = context->in[0];
    size_t rank, offset;
    const int64_t *dims = node_ints(context->node, "dims", &rank);
    Window window;
    Array *dx;
    slice_grad_window(context->node, dy->dims, &window);
    TRY(eval_output(context, 0, dy->dtype, (int)rank, dims, &dx, err));
    memset(dx->data, 0, (size_t)dx->count * dtype_size(dx->dtype));
    StridedCopy copy = window_copy(&window, dims, true, dtype_size(dy->dtype), &offset);
    strided_run(&copy, dy->data, (char *)dx->data + offset);
    return STATUS_OK;
}

/* ---- planned Slice and SliceGrad ---------------------------------------------------------------------- */

typedef struct WindowStep {
    StridedCopy copy;
    size_t from, to;
    bool clear; /* the window does not cover the output */
} WindowStep;

static void clear_range(int64_t begin, int64_t end, void *context)
{
    memset((char *)context + begin, 0, (size_t)(end - begin));
}

static Status window_run(Step *step, Error *err)
{
    (void)err;
    const WindowStep *state = step->state;
    if (state->clear)
        parallel_for((int64_t)step->out[0]->bytes, 1 << 16, clear_range, step->out[0]->data);
    strided_run(&state->copy, (const char *)step->in[0]->data + state->from, (char *)step->out[0]->data + state->to);
    return STATUS_OK;
}

/* The window in the order and units of the slot's bytes; false when it cuts through a block. */
static bool window_physical(Window *window, Layout layout, int block)
{
    const Window logical = *window;
    const int rank = logical.rank;
    if (layout == LAYOUT_PLAIN)
        return true;
    if (layout == LAYOUT_BLOCKED) {
        if (logical.start[1] % block != 0 || logical.size[1] % block != 0 || logical.step[1] != 1)
            return false;
        window->start[1] /= block;
        window->size[1] /= block;
        window->rank = rank + 1;
        window->start[rank] = 0, window->step[rank] = 1, window->size[rank] = block;
        return true;
    }
    for (int i = 0; i < rank; i++) {
        int to = physical_axis(layout, rank, i);
        window->start[to] = logical.start[i];
        window->step[to] = logical.step[i];
        window->size[to] = logical.size[i];
    }
    return true;
}

static Status window_prepare(PlanContext *context, Window *window, bool into, bool clear)
{
    const Value *whole = into ? context->node->outputs[0] : context->node->inputs[0];
    const Value *part = into ? context->node->inputs[0] : context->node->outputs[0];
    Layout layout = kernel_input_layout(context, 0);
    bool fits = kernel_family_fits(context, &whole->type) && kernel_family_fits(context, &part->type);
    if (layout != context->family || !fits || !window_physical(window, layout, context->block))
        layout = LAYOUT_PLAIN;
    const Slot *in = kernel_input_as(context, 0, layout, DTYPE_UNDEFINED);
    const Slot *out = kernel_output_as(context, 0, layout, in->dtype);
    const Slot *large = into ? out : in;
    int64_t dims[RANK_MAX + 1];
    slot_physical(large, layout, context->block, large->rank, dims);
    WindowStep *state = kernel_state(context, sizeof *state);
    size_t offset;
    state->copy = window_copy(window, dims, into, dtype_size(in->dtype), &offset);
    state->from = into ? 0 : offset;
    state->to = into ? offset : 0;
    state->clear = clear;
    kernel_run(context, window_run, "own:strided");
    return STATUS_OK;
}

static Status slice_prepare(PlanContext *context, Error *err)
{
    Window window;
    TRY(window_infer(context->node, &context->node->inputs[0]->type, &window, err));
    return window_prepare(context, &window, false, false);
}

static Status slice_grad_prepare(PlanContext *context, Error *err)
{
    (void)err;
    const Type *dy = &context->node->inputs[0]->type, *dx = &context->node->outputs[0]->type;
    Window window;
    slice_grad_window(context->node, dy->dims, &window);
    return window_prepare(context, &window, true, type_count(dy) != type_count(dx));
}

/* clang-format off */
const OpDef ops_join[] = {
    {.name = "Concat", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = -1, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE | OP_ALIKE, .infer = concat_infer, .eval = concat_eval, .grad = concat_grad,
     .upgrade = concat_upgrade, .prepare = concat_prepare},
    {.name = "Split", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 2, .min_outputs = 1, .max_outputs = -1,
     .traits = OP_ANY_DTYPE, .infer = split_infer, .eval = split_eval, .grad = split_grad, .upgrade = split_upgrade,
     .prepare = split_prepare},
    {.name = "Slice", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 5, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = slice_infer, .eval = slice_eval, .grad = slice_grad, .upgrade = slice_upgrade,
     .prepare = slice_prepare},
    {.domain = DOMAIN_INTERNAL, .name = "SliceGrad", .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = slice_grad_infer, .eval = slice_grad_eval,
     .prepare = slice_grad_prepare, .no_case = "internal: the gradient of Slice"},
    {0},
};
/* clang-format on */
