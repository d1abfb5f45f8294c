/* Batch normalisation planned: own loops throughout, in whatever layout and precision channel tensors have in the plan.
 * With fixed statistics it is one affine map a channel (channel_affine.c). With the batch's own, batchnorm_train.c does
 * it together with the activation; oneDNN's primitive reads once more for the variance, fuses no activation but ReLU,
 * and keeps a mask for that one. Running statistics are updated in place by the forward step. */
#include <math.h>
#include <string.h>

#include "runtime/ops/batchnorm.h"

/* ---- what all steps keep -------------------------------------------------------------------------------------- */

typedef struct BatchNormState {
    ChannelView view;
    BatchNormActivation activation;
    float epsilon, momentum, low, high;
} BatchNormState;

static BatchNormState *state_make(PlanContext *context, const ChannelView *view)
{
    BatchNormState *state = kernel_state(context, sizeof *state);
    state->view = *view;
    state->epsilon = node_float(context->node, "epsilon", 1e-5f);
    state->momentum = node_float(context->node, "momentum", 0.9f);
    state->activation = batchnorm_activation(context->node);
    state->low = node_float(context->node, "low", -INFINITY);
    state->high = node_float(context->node, "high", INFINITY);
    return state;
}

/* Scratch of the fixed kernels: two double sums for each sample and channel, three float coefficients for each channel.
 */
typedef struct Scratch {
    double *first, *second;
    float *a, *b, *c;
} Scratch;

static size_t scratch_bytes(const ChannelView *view)
{
    return (size_t)(view->batch * view->channels) * 2 * sizeof(double) + (size_t)view->channels * 3 * sizeof(float);
}

static Scratch scratch_take(const Step *step, const ChannelView *view)
{
    Scratch s = {.first = step->scratch};
    s.second = s.first + view->batch * view->channels;
    s.a = (float *)(s.second + view->batch * view->channels);
    s.b = s.a + view->channels;
    s.c = s.b + view->channels;
    return s;
}

/* Adds the samples' sums up into those of the first. */
static void sum_samples(const ChannelView *view, double *sums)
{
    for (int64_t n = 1; n < view->batch; n++)
        for (int64_t c = 0; c < view->channels; c++)
            sums[c] += sums[n * view->channels + c];
}

/* ---- fixed statistics ------------------------------------------------------------------------------------------- */

static Status run_fixed(Step *step, Error *err)
{
    (void)err;
    const BatchNormState *state = step->state;
    const ChannelView *view = &state->view;
    const float *scale = step->in[BATCHNORM_SCALE]->data, *bias = step->in[BATCHNORM_BIAS]->data;
    const float *mean = step->in[BATCHNORM_MEAN]->data, *var = step->in[BATCHNORM_VAR]->data;
    Scratch s = scratch_take(step, view);
    for (int64_t c = 0; c < view->channels; c++)
        s.a[c] = (float)((double)scale[c] / sqrt((double)var[c] + (double)state->epsilon));
    const ChannelMap map = {
        .u = step->in[0]->data, .y = step->out[0]->data, .a = {s.a, 0}, .p = {mean, 0}, .c = {bias, 0}};
    channel_affine(view, &map);
    return STATUS_OK;
}

/* The layout of an input that own loops take as it lies. */
static Layout own_layout(PlanContext *context, int index)
{
    Layout layout = kernel_input_layout(context, index);
    return layout == LAYOUT_OPAQUE || !channel_fits(context, &context->node->inputs[index]->type) ? LAYOUT_PLAIN
                                                                                                  : layout;
}

static ChannelView own_view(const PlanContext *context, const Slot *slot)
{
    if (slot->layout != LAYOUT_PLAIN)
        return channel_view(context, slot);
    ChannelView view = channel_view_plain(slot->rank, slot->dims);
    view.narrow = slot->dtype == DTYPE_BF16;
    return view;
}

static bool all_f32(const Node *node)
{
    for (int i = 0; i < 5; i++)
        if (node->inputs[i]->type.dtype != DTYPE_F32)
            return false;
    return true;
}

Status batchnorm_prepare(PlanContext *context, Error *err)
{
    if (!all_f32(context->node) || node_int(context->node, "training_mode", 0) != 0)
        return kernel_eval(context, err);
    Layout layout = own_layout(context, BATCHNORM_X);
    for (int i = BATCHNORM_SCALE; i <= BATCHNORM_VAR; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    DType dtype = kernel_input_dtype(context, BATCHNORM_X);
    Slot *y = kernel_output_in_place_as(context, 0, BATCHNORM_X, layout, dtype);
    ChannelView view = own_view(context, y);
    state_make(context, &view);
    kernel_scratch(context, scratch_bytes(&view));
    kernel_run(context, run_fixed, "own");
    return STATUS_OK;
}

static Status run_fixed_grad(Step *step, Error *err)
{
    (void)err;
    const BatchNormState *state = step->state;
    const ChannelView *view = &state->view;
    const void *dy = step->in[BATCHNORM_GRAD_DY]->data, *x = step->in[BATCHNORM_GRAD_X]->data;
    const float *scale = step->in[BATCHNORM_GRAD_SCALE]->data, *mean = step->in[BATCHNORM_GRAD_MEAN]->data;
    const float *var = step->in[BATCHNORM_GRAD_VAR]->data;
    Scratch s = scratch_take(step, view);
    const ChannelTerm none = {0}, shift = {mean, 0};
    if (step->out_count > 1) {
        channel_moments(view, dy, none, x, shift, s.first, s.second);
        sum_samples(view, s.first);
        sum_samples(view, s.second);
        for (int64_t c = 0; c < view->channels; c++) {
            double inverse = 1 / sqrt((double)var[c] + (double)state->epsilon);
            if (step->out[1] != NULL)
                ((float *)step->out[1]->data)[c] = (float)(s.second[c] * inverse);
            if (step->out[2] != NULL)
                ((float *)step->out[2]->data)[c] = (float)s.first[c];
        }
    }
    for (int64_t c = 0; c < view->channels; c++)
        s.a[c] = (float)((double)scale[c] / sqrt((double)var[c] + (double)state->epsilon));
    const ChannelMap map = {.u = dy, .y = step->out[0]->data, .a = {s.a, 0}};
    channel_affine(view, &map);
    return STATUS_OK;
}

Status batchnorm_fixed_grad_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    if (!all_f32(node))
        return kernel_eval(context, err);
    Layout layout = own_layout(context, BATCHNORM_GRAD_DY);
    DType dtype = kernel_input_dtype(context, BATCHNORM_GRAD_DY);
    kernel_input_as(context, BATCHNORM_GRAD_X, layout, dtype);
    for (int i = BATCHNORM_GRAD_SCALE; i <= BATCHNORM_GRAD_VAR; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    Slot *dx = kernel_output_in_place_as(context, 0, BATCHNORM_GRAD_DY, layout, dtype);
    for (int i = 1; i < node->output_count; i++)
        kernel_output(context, i, LAYOUT_PLAIN);
    ChannelView view = own_view(context, dx);
    state_make(context, &view);
    kernel_scratch(context, scratch_bytes(&view));
    kernel_run(context, run_fixed_grad, "own");
    return STATUS_OK;
}

/* ---- training ------------------------------------------------------------------------------------------------- */

static BatchNormLoop loop_of(const BatchNormState *state)
{
    return (BatchNormLoop){.view = &state->view,
                           .activation = state->activation,
                           .low = state->low,
                           .high = state->high,
                           .epsilon = state->epsilon};
}

/* state = state * momentum + statistic * (1 - momentum); at a momentum of 1 states are only read, and may be constants.
 */
static void update_states(const Step *step, const BatchNormState *state)
{
    if (state->momentum == 1)
        return;
    for (int i = 0; i < 2; i++) {
        const float *statistic = step->out[BATCHNORM_SAVED_MEAN + i]->data;
        float *running = step->in[BATCHNORM_MEAN + i]->data;
        for (int64_t c = 0; c < state->view.channels; c++)
            running[c] = running[c] * state->momentum + statistic[c] * (1 - state->momentum);
    }
}

static Status run_train(Step *step, Error *err)
{
    (void)err;
    const BatchNormState *state = step->state;
    BatchNormLoop loop = loop_of(state);
    loop.x = step->in[BATCHNORM_X]->data;
    loop.scale = step->in[BATCHNORM_SCALE]->data;
    loop.bias = step->in[BATCHNORM_BIAS]->data;
    loop.y = step->out[BATCHNORM_Y]->data;
    loop.mean = step->out[BATCHNORM_SAVED_MEAN]->data;
    loop.var = step->out[BATCHNORM_SAVED_VAR]->data;
    batchnorm_forward(&loop, step->scratch);
    update_states(step, state);
    return STATUS_OK;
}

static Layout train_layout(const PlanContext *context, int x)
{
    return channel_fits(context, &context->node->inputs[x]->type) ? context->family : LAYOUT_PLAIN;
}

static void plan_train(PlanContext *context, const Slot *x, Status (*run)(Step *step, Error *err))
{
    ChannelView view = own_view(context, x);
    state_make(context, &view);
    kernel_scratch(context, batchnorm_scratch(&view));
    kernel_run(context, run, "own:batchnorm");
}

Status batchnorm_train_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    if (!all_f32(node))
        return kernel_fail(context, err, "training in %s", dtype_name(node->inputs[0]->type.dtype));
    for (int i = BATCHNORM_MEAN; i <= BATCHNORM_VAR; i++)
        if (node->inputs[i]->producer != NULL)
            return kernel_fail(context, err, "running statistics are computed, not kept");
    Layout layout = train_layout(context, BATCHNORM_X);
    DType dtype = layout == LAYOUT_PLAIN ? DTYPE_F32 : context->compute;
    const Slot *x = kernel_input_as(context, BATCHNORM_X, layout, dtype);
    for (int i = BATCHNORM_SCALE; i <= BATCHNORM_VAR; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    kernel_output_in_place_as(context, BATCHNORM_Y, BATCHNORM_X, layout, dtype);
    kernel_output(context, BATCHNORM_SAVED_MEAN, LAYOUT_PLAIN);
    kernel_output(context, BATCHNORM_SAVED_VAR, LAYOUT_PLAIN);
    plan_train(context, x, run_train);
    return STATUS_OK;
}

static Status run_replay(Step *step, Error *err)
{
    (void)err;
    const BatchNormState *state = step->state;
    BatchNormLoop loop = loop_of(state);
    loop.x = step->in[BATCHNORM_X]->data;
    loop.scale = step->in[BATCHNORM_SCALE]->data;
    loop.bias = step->in[BATCHNORM_BIAS]->data;
    loop.mean = step->in[BATCHNORM_MEAN]->data;
    loop.var = step->in[BATCHNORM_VAR]->data;
    loop.y = step->out[BATCHNORM_Y]->data;
    batchnorm_again(&loop, step->scratch);
    return STATUS_OK;
}

Status batchnorm_replay_prepare(PlanContext *context, Error *err)
{
    if (!all_f32(context->node))
        return kernel_eval(context, err);
    Layout layout = train_layout(context, BATCHNORM_X);
    DType dtype = layout == LAYOUT_PLAIN ? DTYPE_F32 : context->compute;
    const Slot *x = kernel_input_as(context, BATCHNORM_X, layout, dtype);
    for (int i = BATCHNORM_SCALE; i <= BATCHNORM_VAR; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    kernel_output_in_place_as(context, BATCHNORM_Y, BATCHNORM_X, layout, dtype);
    plan_train(context, x, run_replay);
    return STATUS_OK;
}

static Status run_train_grad(Step *step, Error *err)
{
    (void)err;
    const BatchNormState *state = step->state;
    BatchNormLoop loop = loop_of(state);
    loop.dy = step->in[BATCHNORM_GRAD_DY]->data;
    loop.x = step->in[BATCHNORM_GRAD_X]->data;
    loop.scale = step->in[BATCHNORM_GRAD_SCALE]->data;
    loop.bias = step->in[BATCHNORM_GRAD_BIAS]->data;
    loop.mean = step->in[BATCHNORM_GRAD_MEAN]->data;
    loop.var = step->in[BATCHNORM_GRAD_VAR]->data;
    loop.y = step->out[0]->data;
    loop.dscale = step->out_count > 1 && step->out[1] != NULL ? step->out[1]->data : NULL;
    loop.dbias = step->out_count > 2 && step->out[2] != NULL ? step->out[2]->data : NULL;
    batchnorm_backward(&loop, step->scratch);
    return STATUS_OK;
}

Status batchnorm_train_grad_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    if (!all_f32(node))
        return kernel_eval(context, err);
    Layout layout = train_layout(context, BATCHNORM_GRAD_X);
    DType dtype = layout == LAYOUT_PLAIN ? DTYPE_F32 : context->compute;
    const Slot *x = kernel_input_as(context, BATCHNORM_GRAD_X, layout, dtype);
    kernel_input_as(context, BATCHNORM_GRAD_DY, layout, dtype);
    for (int i = BATCHNORM_GRAD_SCALE; i <= BATCHNORM_GRAD_BIAS; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    kernel_output_in_place_as(context, 0, BATCHNORM_GRAD_DY, layout, dtype);
    for (int i = 1; i < node->output_count; i++)
        kernel_output(context, i, LAYOUT_PLAIN);
    plan_train(context, x, run_train_grad);
    return STATUS_OK;
}
