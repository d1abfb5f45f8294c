/* Resize planned: the axes' sparse matrices applied one after the other, on the physical shape of whatever layout the
 * input has. Everything behind the resized axis is contiguous (whole rows of pixels, blocks of channels), so the inner
 * loops are vectors; the gradient runs the same loops over the transposed matrices, gathering, so no two threads write
 * one element. */
#include <string.h>

#include "runtime/ops/channel.h"
#include "runtime/ops/resize.h"
#include "runtime/ops/vector.h"

/* One matrix along one physical axis. */
typedef struct Pass {
    int64_t outer, in, out, inner;
    const int64_t *start, *index;
    const float *weight;
} Pass;

typedef struct ResizeState {
    int pass_count;
    Pass passes[RANK_MAX];
    size_t buffer; /* floats of each of two buffers between passes */
    size_t bytes;  /* of the whole, when there is no pass */
} ResizeState;

typedef struct Job {
    const Pass *pass;
    const float *x;
    float *y;
} Job;

VECTOR_INLINE void add_scaled(float *to, const float *from, float weight, int64_t n, bool first)
{
    if (first) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = weight * from[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] += weight * from[i];
    }
}

VECTOR_CLONES
static void pass_range(int64_t first, int64_t last, void *context) /* over [outer, out] */
{
    const Job *job = context;
    const Pass *p = job->pass;
    for (int64_t oo = first; oo < last; oo++) {
        int64_t o = oo % p->out, begin = p->start[o], end = p->start[o + 1];
        const float *from = job->x + oo / p->out * p->in * p->inner;
        float *to = job->y + oo * p->inner;
        if (p->inner == 1) {
            float sum = 0;
            for (int64_t t = begin; t < end; t++)
                sum += p->weight[t] * from[p->index[t]];
            to[0] = sum;
            continue;
        }
        if (begin == end)
            memset(to, 0, (size_t)p->inner * sizeof *to);
        for (int64_t t = begin; t < end; t++)
            add_scaled(to, from + p->index[t] * p->inner, p->weight[t], p->inner, t == begin);
    }
}

static Status run_passes(Step *step, Error *err)
{
    (void)err;
    const ResizeState *state = step->state;
    float *buffers[2] = {step->scratch, (float *)step->scratch + state->buffer};
    const float *from = step->in[0]->data;
    if (state->pass_count == 0)
        memcpy(step->out[0]->data, from, state->bytes);
    for (int i = 0; i < state->pass_count; i++) {
        Job job = {&state->passes[i], from, i + 1 == state->pass_count ? step->out[0]->data : buffers[i % 2]};
        parallel_for(job.pass->outer * job.pass->out, 1 + 4096 / job.pass->inner, pass_range, &job);
        from = job.y;
    }
    return STATUS_OK;
}

/* Tables move into the plan's arena, which kernel_state hands out; the step's own state is asked for last. */
static const void *keep(PlanContext *context, const void *bytes, size_t size)
{
    void *copy = kernel_state(context, size);
    memcpy(copy, bytes, size);
    return copy;
}

static const float *keep_narrow(PlanContext *context, const double *from, int64_t count)
{
    float *to = kernel_state(context, (size_t)count * sizeof *to);
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)from[i];
    return to;
}

/* Passes from the first axis on: enlarging late keeps what lies between small. */
static void add_passes(PlanContext *context, ResizeState *state, const AxisMap *maps, const Slot *from)
{
    int64_t dims[RANK_MAX + 1];
    int rank = slot_physical(from, from->layout, context->block, from->rank, dims);
    for (int axis = 0; axis < from->rank; axis++) {
        int at = from->layout == LAYOUT_NHWC ? axis - 1 : axis; /* batch and channels only when plain */
        if (maps[axis].identity)
            continue;
        int64_t count = maps[axis].start[maps[axis].out];
        size_t outputs = (size_t)maps[axis].out + 1, elements = (size_t)count;
        state->passes[state->pass_count++] =
            (Pass){.outer = dims_count(at, dims),
                   .in = dims[at],
                   .out = maps[axis].out,
                   .inner = dims_count(rank - at - 1, dims + at + 1),
                   .start = keep(context, maps[axis].start, outputs * sizeof maps[axis].start[0]),
                   .index = keep(context, maps[axis].index, elements * sizeof maps[axis].index[0]),
                   .weight = keep_narrow(context, maps[axis].weight, count)};
        dims[at] = maps[axis].out;
        size_t floats = (size_t)dims_count(rank, dims);
        state->buffer = floats > state->buffer ? floats : state->buffer;
    }
    if (state->pass_count > 1)
        kernel_scratch(context, 2 * state->buffer * sizeof(float));
}

/* The matrices in the wanted direction; *known is false when eval has to do it. */
static Status read_spec(PlanContext *context, bool gradient, Arena *arena, ResizeSpec *spec, bool *known, Error *err)
{
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    size_t count = 0;
    const int64_t *dims = gradient ? node_ints(node, "x_shape", &count) : x->dims;
    TRY(resize_spec_constant(node, dims, x->rank, 1, arena, spec, known, err));
    for (int i = 0; *known && i < x->rank; i++) {
        if (spec->maps[i].outside != NULL) /* extrapolation: rare */
            *known = false;
        else if (gradient)
            spec->maps[i] = axis_map_transpose(&spec->maps[i], arena);
    }
    return STATUS_OK;
}

static void plan_passes(PlanContext *context, const ResizeSpec *spec)
{
    const Type *x = &context->node->inputs[0]->type;
    Layout layout = kernel_input_layout(context, 0);
    bool spatial = spec->maps[0].identity && spec->maps[1].identity;
    if (layout == LAYOUT_OPAQUE || !spatial || !channel_fits(context, x))
        layout = LAYOUT_PLAIN;
    const Slot *from = kernel_input(context, 0, layout), *to = kernel_output(context, 0, layout);
    ResizeState planned = {.bytes = to->bytes};
    add_passes(context, &planned, spec->maps, from);
    ResizeState *state = kernel_state(context, sizeof *state);
    *state = planned;
    kernel_run(context, run_passes, "own");
}

static Status prepare(PlanContext *context, bool gradient, Error *err)
{
    const Type *x = &context->node->inputs[0]->type;
    bool known = !context->plain_only && x->dtype == DTYPE_F32 && x->rank >= 2 && type_count(x) > 0 &&
                 type_count(&context->node->outputs[0]->type) > 0;
    Status status = STATUS_OK;
    ResizeSpec spec;
    Arena arena;
    arena_init(&arena);
    if (known)
        status = read_spec(context, gradient, &arena, &spec, &known, err);
    if (status == STATUS_OK && known)
        plan_passes(context, &spec);
    arena_release(&arena);
    TRY(status);
    return known ? STATUS_OK : kernel_eval(context, err);
}

Status resize_prepare(PlanContext *context, Error *err)
{
    return prepare(context, false, err);
}

Status resize_grad_prepare(PlanContext *context, Error *err)
{
    return prepare(context, true, err);
}
