/* Pad in every mode, CenterCropPad, and the gradient of the modes that repeat elements.
 *
 * Every mode is the same thing: along each axis a map says which input index an output index shows, or -1 for the
 * constant. The maps of different axes are independent, so the adjoint of a repeating mode is one PadGrad an axis,
 * which sums what an input element was shown as. In constant mode the adjoint is a Pad with negated pads. */
#include "runtime/ops/ops.h"

#include <string.h>

typedef enum PadMode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP } PadMode;

typedef struct Padding {
    PadMode mode;
    int rank, last; /* last: the last axis that is padded or cropped, -1 when none is */
    int64_t in[RANK_MAX + 1], out[RANK_MAX + 1], before[RANK_MAX + 1];
    int64_t inner; /* elements behind `last`, moved as one run */
    size_t size;
    int64_t *map[RANK_MAX + 1]; /* of each axis up to `last`: input index or -1 */
} Padding;

static Status pad_mode(const Node *node, PadMode *mode, Error *err)
{
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    const char *name = node_string(node, "mode", "constant");
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *mode = (PadMode)i;
            return STATUS_OK;
        }
    return infer_fail(node, err, "mode '%s'", name);
}

/* The elements first .. end of an axis that negative pads leave. */
typedef struct Kept {
    int64_t first, end;
} Kept;

static Kept pad_kept(int64_t before, int64_t dim, int64_t padded)
{
    int64_t after = padded - dim - before;
    return (Kept){before < 0 ? -before : 0, after < 0 ? dim + after : dim};
}

/* Where output index `i` of `padded` comes from on an axis of `dim` elements with `before` added in front (ONNX Pad-25;
 * numpy.pad). What is cropped at one end is not there to be wrapped around at the other. */
static int64_t pad_source(PadMode mode, int64_t i, int64_t before, int64_t dim, int64_t padded)
{
    int64_t at = i - before;
    Kept kept = pad_kept(before, dim, padded);
    if (at >= 0 && at < dim)
        return at;
    switch (mode) {
    case PAD_EDGE:
        return at < 0 ? 0 : dim - 1;
    case PAD_WRAP:
        dim = kept.end - kept.first;
        return kept.first + (((at - kept.first) % dim) + dim) % dim;
    case PAD_REFLECT: {
        int64_t period = dim > 1 ? 2 * (dim - 1) : 1;
        at = ((at % period) + period) % period;
        return at < dim ? at : period - at;
    }
    case PAD_CONSTANT:
        break;
    }
    return -1;
}

/* ---- reading the node --------------------------------------------------------------------------------- */

typedef struct Ints {
    const int64_t *values;
    size_t count;
} Ints;

/* Fills in, out and before from (pads, axes). */
static Status padding_read(const Node *node, int rank, const int64_t *dims, Ints pads, Ints axes, Padding *p,
                           Error *err)
{
    size_t named = axes.values ? axes.count : (size_t)rank;
    TRY(pad_mode(node, &p->mode, err));
    p->rank = rank;
    memcpy(p->in, dims, (size_t)rank * sizeof *dims);
    memcpy(p->out, dims, (size_t)rank * sizeof *dims);
    memset(p->before, 0, sizeof p->before);
    if (pads.count != 2 * named)
        return infer_fail(node, err, "%zu pads for %zu axes", pads.count, named);
    for (size_t i = 0; i < named; i++) {
        int axis;
        TRY(axis_normalize(node, axes.values ? axes.values[i] : (int64_t)i, rank, &axis, err));
        p->before[axis] = pads.values[i];
        if (__builtin_add_overflow(dims[axis], pads.values[i], &p->out[axis]) ||
            __builtin_add_overflow(p->out[axis], pads.values[named + i], &p->out[axis]) || p->out[axis] < 0)
            return infer_fail(node, err, "pads %lld and %lld of axis %d, which has %lld elements",
                              (long long)pads.values[i], (long long)pads.values[named + i], axis,
                              (long long)dims[axis]);
        Kept kept = pad_kept(p->before[axis], dims[axis], p->out[axis]);
        if (p->mode != PAD_CONSTANT && kept.first >= kept.end && p->out[axis] > 0)
            return infer_fail(node, err, "nothing is left of axis %d that could be repeated", axis);
    }
    return STATUS_OK;
}

/* CenterCropPad-18: each named axis gets the wanted size, what is cut or added shared by both ends (the larger half
 * behind). */
static Status center_read(const Node *node, int rank, const int64_t *dims, Ints shape, Padding *p, Error *err)
{
    size_t named;
    const int64_t *axes = node_ints(node, "axes", &named);
    if (!axes)
        named = (size_t)rank;
    p->mode = PAD_CONSTANT;
    p->rank = rank;
    memcpy(p->in, dims, (size_t)rank * sizeof *dims);
    memcpy(p->out, dims, (size_t)rank * sizeof *dims);
    memset(p->before, 0, sizeof p->before);
    if (shape.count != named)
        return infer_fail(node, err, "shape has %zu entries for %zu axes", shape.count, named);
    for (size_t i = 0; i < named; i++) {
        int axis;
        TRY(axis_normalize(node, axes ? axes[i] : (int64_t)i, rank, &axis, err));
        int64_t difference = shape.values[i] - dims[axis];
        if (shape.values[i] < 0)
            return infer_fail(node, err, "axis %d should become %lld", axis, (long long)shape.values[i]);
        p->out[axis] = shape.values[i];
        p->before[axis] = difference >= 0 ? difference / 2 : -(-difference / 2);
    }
    return STATUS_OK;
}

static Status padding_infer(const Node *node, Padding *p, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    Ints pads, axes = {0};
    TRY(infer_ints(node, 1, &pads.values, &pads.count, err));
    if (node_is(node, "CenterCropPad"))
        return center_read(node, type->rank, type->dims, pads, p, err);
    TRY(infer_ints(node, 3, &axes.values, &axes.count, err));
    if (!pads.values)
        return infer_fail(node, err, "pads are missing");
    return padding_read(node, type->rank, type->dims, pads, axes, p, err);
}

/* Builds the maps; dims behind the last padded one become the inner run. */
static void padding_finish(Padding *p, Arena *arena, DType dtype)
{
    p->size = dtype_size(dtype);
    p->last = -1;
    p->inner = 1;
    for (int a = 0; a < p->rank; a++)
        if (p->before[a] != 0 || p->in[a] != p->out[a])
            p->last = a;
    for (int a = 0; a < p->rank; a++) {
        if (a > p->last) {
            p->inner *= p->in[a];
            continue;
        }
        p->map[a] = arena_array(arena, int64_t, (size_t)p->out[a] + 1);
        for (int64_t i = 0; i < p->out[a]; i++)
            p->map[a][i] = pad_source(p->mode, i, p->before[a], p->in[a], p->out[a]);
    }
}

/* ---- running ------------------------------------------------------------------------------------------ */

typedef struct PadJob {
    const Padding *padding;
    const char *x;
    char *y;
    const char *value; /* one element */
} PadJob;

static void fill_run(char *y, const char *value, size_t size, int64_t n)
{
    bool zero = true;
    for (size_t i = 0; i < size; i++)
        zero = zero && value[i] == 0;
    if (zero && n > 0)
        memset(y, 0, (size_t)n * size);
    for (int64_t i = 0; !zero && i < n; i++)
        memcpy(y + (size_t)i * size, value, size);
}

/* One row: axis `last` of the output with the inner run behind each index. `x` is NULL when an outer index shows the
 * constant. Neighbours in the input are copied together. */
static void pad_row(const PadJob *job, const char *x, char *y)
{
    const Padding *p = job->padding;
    const int64_t *map = p->map[p->last], n = p->out[p->last];
    const size_t run = (size_t)p->inner * p->size;
    for (int64_t i = 0; i < n;) {
        int64_t length = 1;
        if (!x || map[i] < 0) {
            while (i + length < n && (!x || map[i + length] < 0))
                length++;
            fill_run(y + (size_t)i * run, job->value, p->size, length * p->inner);
        } else {
            while (i + length < n && map[i + length] == map[i] + length)
                length++;
            memcpy(y + (size_t)i * run, x + (size_t)map[i] * run, (size_t)length * run);
        }
        i += length;
    }
}

static void pad_range(int64_t begin, int64_t end, void *context)
{
    const PadJob *job = context;
    const Padding *p = job->padding;
    const size_t run = (size_t)p->inner * p->size;
    for (int64_t row = begin; row < end; row++) {
        int64_t rest = row, at = 0, stride = p->in[p->last];
        bool shown = true;
        for (int a = p->last - 1; a >= 0; a--) {
            int64_t source = p->map[a][rest % p->out[a]];
            rest /= p->out[a];
            shown = shown && source >= 0;
            at += source * stride;
            stride *= p->in[a];
        }
        pad_row(job, shown ? job->x + (size_t)at * run : NULL, job->y + (size_t)(row * p->out[p->last]) * run);
    }
}

static void pad_run(const Padding *p, const void *x, void *y, const void *value)
{
    PadJob job = {p, x, y, value};
    int64_t rows = 1;
    if (p->last < 0) {
        if (p->inner > 0)
            memcpy(y, x, (size_t)p->inner * p->size);
        return;
    }
    for (int a = 0; a < p->last; a++)
        rows *= p->out[a];
    int64_t row_bytes = p->out[p->last] * p->inner * (int64_t)p->size;
    if (row_bytes > 0)
        parallel_for(rows, (1 << 15) / row_bytes + 1, pad_range, &job);
}

/* ---- Pad, CenterCropPad ------------------------------------------------------------------------------- */

static Status pad_infer(Node *node, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    Padding padding;
    if (!infer_has_ints(node, 1) || (node_is(node, "Pad") && !infer_has_ints(node, 3))) {
        type_set(&node->outputs[0]->type, type->dtype, -1, NULL);
        return STATUS_OK;
    }
    TRY(padding_infer(node, &padding, err));
    type_set(&node->outputs[0]->type, type->dtype, type->rank, padding.out);
    return STATUS_OK;
}

/* The constant as one element of `dtype`. */
static Status pad_value(Arena *arena, const Array *constant, DType dtype, const void **value, Error *err)
{
    *value = arena_alloc(arena, 16);
    if (dtype == DTYPE_STRING)
        *value = arena_copy(arena, &(Bytes){"", 0}, sizeof(Bytes));
    if (!constant || constant->count == 0)
        return STATUS_OK;
    Array *converted = NULL;
    *value = constant->data;
    if (constant->dtype != dtype) {
        TRY(array_convert(arena, constant, dtype, &converted, err));
        *value = converted->data;
    }
    return STATUS_OK;
}

static Status pad_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *constant = NULL;
    Ints pads, axes = {0};
    Padding padding;
    Array *out;
    const void *value;
    TRY(eval_ints(context, 1, &pads.values, &pads.count, err));
    if (node_is(context->node, "CenterCropPad")) {
        TRY(center_read(context->node, x->rank, x->dims, pads, &padding, err));
    } else {
        constant = eval_input(context, 2);
        TRY(eval_ints(context, 3, &axes.values, &axes.count, err));
        TRY(padding_read(context->node, x->rank, x->dims, pads, axes, &padding, err));
    }
    TRY(pad_value(context->arena, constant, x->dtype, &value, err));
    TRY(eval_output(context, 0, x->dtype, x->rank, padding.out, &out, err));
    padding_finish(&padding, context->arena, x->dtype);
    pad_run(&padding, x->data, out->data, value);
    return STATUS_OK;
}

/* Pad-1 called its list paddings; up to 2 list and value were attributes. */
static Status pad_upgrade(Node *node, Error *err)
{
    (void)err;
    upgrade_ints_to_input(node, "paddings", 1);
    upgrade_ints_to_input(node, "pads", 1);
    if (node_attr(node, "value"))
        node_set_input(node, 2, node_float_value(node, "value", DTYPE_F32, node_float(node, "value", 0)));
    node_remove_attr(node, "value");
    return STATUS_OK;
}

/* In the layout the input lies in, if channels are not padded; a block of channels is one more dim behind. */
static void padding_physical(Padding *p, Layout layout, int block)
{
    const Padding logical = *p;
    if (layout == LAYOUT_BLOCKED) {
        p->rank++;
        p->in[1] = p->out[1] = logical.in[1] / block;
        p->in[logical.rank] = p->out[logical.rank] = block;
        p->before[logical.rank] = 0;
    }
    for (int i = 0; i < logical.rank && layout == LAYOUT_NHWC; i++) {
        int to = physical_axis(layout, logical.rank, i);
        p->in[to] = logical.in[i];
        p->out[to] = logical.out[i];
        p->before[to] = logical.before[i];
    }
}

typedef struct PadStep {
    Padding padding;
    double zero; /* bytes of an absent constant */
} PadStep;

static Status pad_step_run(Step *step, Error *err)
{
    (void)err;
    const PadStep *state = step->state;
    const void *value = &state->zero;
    if (node_is(step->node, "Pad") && step->in_count > 2 && step->in[2])
        value = step->in[2]->data;
    pad_run(&state->padding, step->in[0]->data, step->out[0]->data, value);
    return STATUS_OK;
}

static Status pad_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    const Value *constant = node_is(node, "Pad") ? node_input(node, 2) : NULL;
    if (dtype_size(x->dtype) > sizeof(double) || (constant && constant->type.dtype != x->dtype))
        return kernel_fail(context, err, "%s padded with %s has no planned form", dtype_name(x->dtype),
                           constant ? dtype_name(constant->type.dtype) : "nothing");
    PadStep *state = kernel_state(context, sizeof *state);
    TRY(padding_infer(node, &state->padding, err));
    Layout layout = kernel_input_layout(context, 0);
    bool channels = x->rank > 1 && (state->padding.before[1] != 0 || state->padding.in[1] != state->padding.out[1]);
    if (layout != context->family || !kernel_family_fits(context, x) || channels)
        layout = LAYOUT_PLAIN;
    kernel_input(context, 0, layout);
    if (constant)
        kernel_input(context, 2, LAYOUT_PLAIN);
    kernel_output(context, 0, layout);
    padding_physical(&state->padding, layout, context->block);
    padding_finish(&state->padding, &node->graph->model->arena, x->dtype);
    kernel_run(context, pad_step_run, "own");
    return STATUS_OK;
}

/* ---- gradients ---------------------------------------------------------------------------------------- */

/* dx = Pad(dy, -pads): what was added is cut off, what was cropped comes back as zeros. */
static Value *pad_adjoint(Builder *b, Value *dy, const Padding *p)
{
    int64_t pads[2 * RANK_MAX];
    for (int a = 0; a < p->rank; a++) {
        pads[a] = -p->before[a];
        pads[p->rank + a] = -(p->out[a] - p->in[a] - p->before[a]);
    }
    return build2(b, "Pad", dy, build_ints(b, pads, 2 * (size_t)p->rank));
}

/* PadGrad(dy) {mode, axis, before, dim}: undoes one axis. */
static Value *pad_axis_adjoint(Builder *b, Value *dy, const char *mode, int axis, const Padding *p)
{
    Node *node = build_node(b, DOMAIN_INTERNAL, "PadGrad", &dy, 1, 1);
    if (!node)
        return NULL;
    node_set_string(node, "mode", mode);
    node_set_int(node, "axis", axis);
    node_set_int(node, "before", p->before[axis]);
    node_set_int(node, "dim", p->in[axis]);
    return build_finish(b, node);
}

/* The constant was written wherever dx did not come from: its gradient is sum(dy) - sum(dx). */
static Value *pad_constant_adjoint(Builder *b, Value *dy, Value *dx, const Type *constant)
{
    Node *all = build_node(b, "", "ReduceSum", &dy, 1, 1);
    if (all)
        node_set_int(all, "keepdims", 0);
    Value *total = build_finish(b, all);
    Node *inside = build_node(b, "", "ReduceSum", &dx, 1, 1);
    if (inside)
        node_set_int(inside, "keepdims", 0);
    Value *shown = build_finish(b, inside);
    return build_reshape(b, build2(b, "Sub", total, shown), constant->rank, constant->dims);
}

static Status pad_grad(GradContext *context, Error *err)
{
    const Node *node = context->node;
    Builder *b = &context->b;
    Padding padding;
    TRY(padding_infer(node, &padding, err));
    Value *dx = context->dy[0];
    if (padding.mode == PAD_CONSTANT)
        dx = pad_adjoint(b, dx, &padding);
    for (int a = 0; a < padding.rank && padding.mode != PAD_CONSTANT; a++)
        if (padding.before[a] != 0 || padding.in[a] != padding.out[a])
            dx = pad_axis_adjoint(b, dx, node_string(node, "mode", ""), a, &padding);
    if (context->wants[0])
        context->dx[0] = dx;
    if (node_is(node, "Pad") && node_input(node, 2) && context->wants[2] && padding.mode == PAD_CONSTANT)
        context->dx[2] = pad_constant_adjoint(b, context->dy[0], dx, &node->inputs[2]->type);
    return b->status;
}

/* ---- PadGrad ------------------------------------------------------------------------------------------ */

/* dx[o, i, r] = sum of dy[o, k, r] over every k that shows i: places[first[i]] .. places[first[i + 1]]. */
typedef struct Fold {
    int64_t outer, dim, padded, inner;
    int64_t *first, *places;
    DType dtype;
    const void *dy;
    void *dx;
} Fold;

static Status fold_make(const Node *node, const int64_t *dims, int rank, Arena *arena, Fold *fold, Error *err)
{
    PadMode mode = PAD_CONSTANT;
    int axis = (int)node_int(node, "axis", 0);
    int64_t before = node_int(node, "before", 0), count = 0;
    TRY(pad_mode(node, &mode, err));
    fold->outer = dims_count(axis, dims);
    fold->padded = dims[axis];
    fold->dim = node_int(node, "dim", 0);
    fold->inner = dims_count(rank - axis - 1, dims + axis + 1);
    fold->first = arena_array(arena, int64_t, (size_t)fold->dim + 1);
    fold->places = arena_array(arena, int64_t, (size_t)fold->padded + 1);
    for (int64_t i = 0; i < fold->dim; i++) {
        fold->first[i] = count;
        for (int64_t k = 0; k < fold->padded; k++)
            if (pad_source(mode, k, before, fold->dim, fold->padded) == i)
                fold->places[count++] = k;
    }
    fold->first[fold->dim] = count;
    return STATUS_OK;
}

#define DEFINE_FOLD(name, type)                                                                                        \
    static void name(const Fold *f, const type *dy, type *dx, int64_t i)                                               \
    {                                                                                                                  \
        for (int64_t r = 0; r < f->inner; r++)                                                                         \
            dx[r] = 0;                                                                                                 \
        for (int64_t k = f->first[i]; k < f->first[i + 1]; k++)                                                        \
            for (int64_t r = 0; r < f->inner; r++)                                                                     \
                dx[r] += dy[f->places[k] * f->inner + r];                                                              \
    }
DEFINE_FOLD(fold_f32, float)
DEFINE_FOLD(fold_f64, double)

static void fold_range(int64_t begin, int64_t end, void *context)
{
    const Fold *f = context;
    for (int64_t at = begin; at < end; at++) {
        int64_t dy = at / f->dim * f->padded * f->inner, dx = at * f->inner;
        if (f->dtype == DTYPE_F64)
            fold_f64(f, (const double *)f->dy + dy, (double *)f->dx + dx, at % f->dim);
        else
            fold_f32(f, (const float *)f->dy + dy, (float *)f->dx + dx, at % f->dim);
    }
}

static Status pad_grad_infer(Node *node, Error *err)
{
    (void)err;
    const Type *dy = &node->inputs[0]->type;
    int64_t dims[RANK_MAX];
    memcpy(dims, dy->dims, sizeof dims);
    dims[node_int(node, "axis", 0)] = node_int(node, "dim", 0);
    type_set(&node->outputs[0]->type, dy->dtype, dy->rank, dims);
    return STATUS_OK;
}

static Status pad_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = context->in[0];
    int64_t dims[RANK_MAX];
    Fold fold = {.dtype = dy->dtype, .dy = dy->data};
    Array *dx;
    memcpy(dims, dy->dims, sizeof dims);
    dims[node_int(context->node, "axis", 0)] = node_int(context->node, "dim", 0);
    TRY(fold_make(context->node, dy->dims, dy->rank, context->arena, &fold, err));
    TRY(eval_output(context, 0, dy->dtype, dy->rank, dims, &dx, err));
    fold.dx = dx->data;
    fold_range(0, fold.outer * fold.dim, &fold);
    return STATUS_OK;
}

static Status pad_grad_run(Step *step, Error *err)
{
    (void)err;
    Fold *fold = step->state;
    fold->dy = step->in[0]->data;
    fold->dx = step->out[0]->data;
    parallel_for(fold->outer * fold->dim, 4096 / (fold->inner + 1) + 1, fold_range, fold);
    return STATUS_OK;
}

static Status pad_grad_prepare(PlanContext *context, Error *err)
{
    const Slot *dy = kernel_input(context, 0, LAYOUT_PLAIN);
    kernel_output(context, 0, LAYOUT_PLAIN);
    Fold *fold = kernel_state(context, sizeof *fold);
    fold->dtype = dy->dtype;
    TRY(fold_make(context->node, dy->dims, dy->rank, &context->node->graph->model->arena, fold, err));
    kernel_run(context, pad_grad_run, "own");
    return STATUS_OK;
}

/* clang-format off */
const OpDef ops_pad[] = {
    {.name = "Pad", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 4, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = pad_infer, .eval = pad_eval, .grad = pad_grad, .upgrade = pad_upgrade,
     .prepare = pad_prepare},
    {.name = "CenterCropPad", .since = 18, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = pad_infer, .eval = pad_eval, .grad = pad_grad,
     .prepare = pad_prepare},
    {.domain = DOMAIN_INTERNAL, .name = "PadGrad", .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .infer = pad_grad_infer, .eval = pad_grad_eval, .prepare = pad_grad_prepare,
     .no_case = "internal: the gradient of Pad in repeating modes"},
    {0},
};
/* clang-format on */
