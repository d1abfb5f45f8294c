/* Batch normalisation planned.
 *
 * With the batch's statistics the library does it, ReLU included, when it has generated code for the plan's family;
 * else own loops on plain slots, which are also what `plain_only` compares it with. With fixed statistics it is one
 * affine map a channel: own loops in whatever layout and precision the input lies. Statistics are f32 in any plan. Running statistics are updated in place by the
 * forward step. */
#include <math.h>
#include <string.h>

#include "runtime/ops/batchnorm.h"
#include "runtime/ops/channel.h"
#include "runtime/ops/vector.h"

/* ---- what all steps keep -------------------------------------------------------------------------------------- */

typedef struct BatchNormState {
    DnnlEngine *dnnl;
    DnnlCall *call; /* NULL: own loops */
    ChannelView view;
    float epsilon, momentum;
    bool relu;
} BatchNormState;

static BatchNormState *state_make(PlanContext *context, const ChannelView *view)
{
    BatchNormState *state = kernel_state(context, sizeof *state);
    state->dnnl = context->dnnl;
    state->view = *view;
    state->epsilon = node_float(context->node, "epsilon", 1e-5f);
    state->momentum = node_float(context->node, "momentum", 0.9f);
    state->relu = strcmp(context->node->op_type, "BatchNormTrainRelu") == 0;
    return state;
}

/* Scratch of the own loops: two double sums for each sample and channel, three float coefficients for each channel. */
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

static double element_count(const ChannelView *view)
{
    return (double)(view->batch * view->spatial);
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

/* ---- the library's descriptors ------------------------------------------------------------------------------------
 */

typedef struct Descriptors {
    DType dtype;
    dnnl_primitive_desc_t forward, backward;
} Descriptors;

static void descriptors_release(Descriptors *d)
{
    if (d->forward != NULL)
        dnnl_primitive_desc_destroy(d->forward);
    if (d->backward != NULL)
        dnnl_primitive_desc_destroy(d->backward);
    d->forward = d->backward = NULL;
}

/* Both directions, in the plan's family; both NULL when the library has only a reference for one of them. Forward and
 * gradient ask alike, so they agree. */
static Status describe_as(PlanContext *context, DType dtype, const Type *x, bool relu, Descriptors *d, Error *err)
{
    dnnl_engine_t engine = context->dnnl->engine;
    const_dnnl_primitive_attr_t attr = context->dnnl->user_scratchpad;
    float epsilon = node_float(context->node, "epsilon", 1e-5f);
    unsigned flags = (unsigned)dnnl_use_scale | (unsigned)dnnl_use_shift | (relu ? (unsigned)dnnl_fuse_norm_relu : 0);
    dnnl_md md = NULL;
    *d = (Descriptors){.dtype = dtype};
    if (!channel_fits(context, x))
        return STATUS_OK;
    TRY(channel_md(context, context->family, dtype, x->rank, x->dims, &md, err));
    dnnl_status_t status = dnnl_batch_normalization_forward_primitive_desc_create(
        &d->forward, engine, dnnl_forward_training, md, md, epsilon, flags, attr);
    if (status == dnnl_success)
        status = dnnl_batch_normalization_backward_primitive_desc_create(&d->backward, engine, dnnl_backward, md, md,
                                                                         md, epsilon, flags, d->forward, attr);
    dnnl_memory_desc_destroy(md);
    if (status != dnnl_success || dnnl_is_reference(d->forward) || dnnl_is_reference(d->backward))
        descriptors_release(d);
    return STATUS_OK;
}

static Status describe(PlanContext *context, const Type *x, bool relu, Descriptors *d, Error *err)
{
    TRY(describe_as(context, context->compute, x, relu, d, err));
    return d->forward != NULL || context->compute == DTYPE_F32 ? STATUS_OK
                                                               : describe_as(context, DTYPE_F32, x, relu, d, err);
}

/* ---- training, forward ------------------------------------------------------------------------------------------- */

/* state = state * momentum + statistic * (1 - momentum) */
static void update_states(const Step *step, const BatchNormState *state)
{
    for (int i = 0; i < 2; i++) {
        const float *statistic = step->out[BATCHNORM_SAVED_MEAN + i]->data;
        float *running = step->in[BATCHNORM_MEAN + i]->data;
        for (int64_t c = 0; c < state->view.channels; c++)
            running[c] = running[c] * state->momentum + statistic[c] * (1 - state->momentum);
    }
}

static Status run_train_library(Step *step, Error *err)
{
    const BatchNormState *state = step->state;
    TRY(dnnl_call_run(state->dnnl, state->call, err));
    update_states(step, state);
    return STATUS_OK;
}

/* Mean and population variance, from sums of distances to each channel's first element: no cancellation. */
static void own_statistics(const Step *step, const ChannelView *view, const Scratch *s)
{
    const float *x = step->in[BATCHNORM_X]->data;
    float *mean = step->out[BATCHNORM_SAVED_MEAN]->data, *var = step->out[BATCHNORM_SAVED_VAR]->data;
    double count = element_count(view);
    for (int64_t c = 0; c < view->channels; c++)
        s->a[c] = x[channel_offset(view, 0, c)];
    const ChannelTerm shift = {s->a, 0};
    channel_moments(view, x, shift, x, shift, s->first, s->second);
    sum_samples(view, s->first);
    sum_samples(view, s->second);
    for (int64_t c = 0; c < view->channels; c++) {
        double distance = s->first[c] / count, square = s->second[c] / count - distance * distance;
        mean[c] = (float)((double)s->a[c] + distance);
        var[c] = (float)(square > 0 ? square : 0);
    }
}

static Status run_train_own(Step *step, Error *err)
{
    (void)err;
    const BatchNormState *state = step->state;
    const ChannelView *view = &state->view;
    const float *scale = step->in[BATCHNORM_SCALE]->data, *bias = step->in[BATCHNORM_BIAS]->data;
    const float *mean = step->out[BATCHNORM_SAVED_MEAN]->data, *var = step->out[BATCHNORM_SAVED_VAR]->data;
    float *y = step->out[BATCHNORM_Y]->data;
    Scratch s = scratch_take(step, view);
    own_statistics(step, view, &s);
    for (int64_t c = 0; c < view->channels; c++)
        s.a[c] = (float)((double)scale[c] / sqrt((double)var[c] + (double)state->epsilon));
    const ChannelMap map = {.u = step->in[BATCHNORM_X]->data, .y = y, .a = {s.a, 0}, .p = {mean, 0}, .c = {bias, 0}};
    channel_affine(view, &map);
    int64_t count = view->batch * view->channels * view->spatial;
    bool masked = step->out_count > BATCHNORM_MASK && step->out[BATCHNORM_MASK] != NULL;
    for (int64_t i = 0; i < count && masked; i++)
        ((uint8_t *)step->out[BATCHNORM_MASK]->data)[i] = y[i] > 0;
    for (int64_t i = 0; i < count && state->relu; i++)
        y[i] = y[i] > 0 ? y[i] : 0;
    update_states(step, state);
    return STATUS_OK;
}

static Status prepare_own_train(PlanContext *context, Error *err)
{
    (void)err;
    const Node *node = context->node;
    Slot *x = kernel_input(context, BATCHNORM_X, LAYOUT_PLAIN);
    ChannelView view = channel_view_plain(x->rank, x->dims);
    for (int i = BATCHNORM_SCALE; i <= BATCHNORM_VAR; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    for (int i = 0; i < node->output_count; i++)
        kernel_output(context, i, LAYOUT_PLAIN);
    state_make(context, &view);
    kernel_scratch(context, scratch_bytes(&view));
    kernel_run(context, run_train_own, "own");
    return STATUS_OK;
}

Status batchnorm_train_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    bool relu = strcmp(node->op_type, "BatchNormTrainRelu") == 0;
    Descriptors d;
    if (!all_f32(node))
        return kernel_fail(context, err, "training in %s", dtype_name(node->inputs[0]->type.dtype));
    for (int i = BATCHNORM_MEAN; i <= BATCHNORM_VAR; i++)
        if (node->inputs[i]->producer != NULL)
            return kernel_fail(context, err, "running statistics are computed, not kept");
    TRY(describe(context, &node->inputs[BATCHNORM_X]->type, relu, &d, err));
    if (d.forward == NULL)
        return prepare_own_train(context, err);
    const_dnnl_md workspace = dnnl_query_md(d.forward, dnnl_query_workspace_md, 0);
    for (int i = BATCHNORM_MEAN; i <= BATCHNORM_VAR; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    Slot *x = kernel_input_as(context, BATCHNORM_X, context->family, d.dtype), *mask = NULL;
    if (relu)
        mask = node_output(node, BATCHNORM_MASK) != NULL ? kernel_output_md(context, BATCHNORM_MASK, workspace)
                                                         : kernel_temporary(context, workspace);
    DnnlArg args[] = {{DNNL_ARG_SRC, x},
                      {DNNL_ARG_SCALE, kernel_input(context, BATCHNORM_SCALE, LAYOUT_PLAIN)},
                      {DNNL_ARG_SHIFT, kernel_input(context, BATCHNORM_BIAS, LAYOUT_PLAIN)},
                      {DNNL_ARG_DST, kernel_output_as(context, BATCHNORM_Y, context->family, d.dtype)},
                      {DNNL_ARG_MEAN, kernel_output(context, BATCHNORM_SAVED_MEAN, LAYOUT_PLAIN)},
                      {DNNL_ARG_VARIANCE, kernel_output(context, BATCHNORM_SAVED_VAR, LAYOUT_PLAIN)},
                      {DNNL_ARG_WORKSPACE, mask}};
    ChannelView view = channel_view(context, x);
    BatchNormState *state = state_make(context, &view);
    Status status = kernel_call(context, d.forward, args, relu ? 7 : 6, &state->call, err);
    d.forward = NULL; /* consumed */
    descriptors_release(&d);
    TRY(status);
    kernel_run(context, run_train_library, state->call->implementation);
    return STATUS_OK;
}

/* ---- training, gradient ---------------------------------------------------------------------------------------------
 */

static Status run_grad_library(Step *step, Error *err)
{
    const BatchNormState *state = step->state;
    return dnnl_call_run(state->dnnl, state->call, err);
}

/* dx = a*(dy - dbias/M) + b*(x - mean) with  a = scale/sqrt(var + epsilon),  b = -a*dscale/(M*sqrt(var + epsilon)): the
 * formula of batchnorm.c with x_hat written out. */
static Status run_grad_own(Step *step, Error *err)
{
    (void)err;
    const BatchNormState *state = step->state;
    const ChannelView *view = &state->view;
    const float *dy = step->in[BATCHNORM_GRAD_DY]->data, *x = step->in[BATCHNORM_GRAD_X]->data;
    const float *scale = step->in[BATCHNORM_GRAD_SCALE]->data, *mean = step->in[BATCHNORM_GRAD_MEAN]->data;
    const float *var = step->in[BATCHNORM_GRAD_VAR]->data;
    float *dx = step->out[0]->data;
    double count = element_count(view);
    Scratch s = scratch_take(step, view);
    if (step->in_count > BATCHNORM_GRAD_MASK && step->in[BATCHNORM_GRAD_MASK] != NULL) {
        const uint8_t *mask = step->in[BATCHNORM_GRAD_MASK]->data;
        for (int64_t i = 0; i < view->batch * view->channels * view->spatial; i++)
            dx[i] = mask[i] != 0 ? dy[i] : 0;
        dy = dx;
    }
    const ChannelTerm none = {0}, shift = {mean, 0};
    channel_moments(view, dy, none, x, shift, s.first, s.second);
    sum_samples(view, s.first);
    sum_samples(view, s.second);
    for (int64_t c = 0; c < view->channels; c++) {
        double inverse = 1 / sqrt((double)var[c] + (double)state->epsilon), k = (double)scale[c] * inverse;
        double dscale = s.second[c] * inverse, b = -k * dscale * inverse / count;
        s.a[c] = (float)k;
        s.b[c] = (float)b;
        s.c[c] = (float)(s.first[c] / count);
        if (step->out_count > 1 && step->out[1] != NULL)
            ((float *)step->out[1]->data)[c] = (float)dscale;
        if (step->out_count > 2 && step->out[2] != NULL)
            ((float *)step->out[2]->data)[c] = (float)s.first[c];
    }
    const ChannelMap map = {.u = dy, .v = x, .y = dx, .a = {s.a, 0}, .p = {s.c, 0}, .b = {s.b, 0}, .q = {mean, 0}};
    channel_affine(view, &map);
    return STATUS_OK;
}

static Status prepare_own_grad(PlanContext *context, Error *err)
{
    (void)err;
    const Node *node = context->node;
    for (int i = 0; i < node->input_count; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    Slot *dx = kernel_output_in_place(context, 0, BATCHNORM_GRAD_DY, LAYOUT_PLAIN);
    for (int i = 1; i < node->output_count; i++)
        kernel_output(context, i, LAYOUT_PLAIN);
    ChannelView view = channel_view_plain(dx->rank, dx->dims);
    state_make(context, &view);
    kernel_scratch(context, scratch_bytes(&view));
    kernel_run(context, run_grad_own, "own");
    return STATUS_OK;
}

/* A place for a gradient of scale or bias that nobody asked for but the library writes. */
static Slot *channel_output(PlanContext *context, int index, const_dnnl_md md)
{
    return node_output(context->node, index) != NULL ? kernel_output(context, index, LAYOUT_PLAIN)
                                                     : kernel_temporary(context, md);
}

Status batchnorm_train_grad_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    bool relu = node_input(node, BATCHNORM_GRAD_MASK) != NULL;
    Descriptors d;
    if (!all_f32(node))
        return kernel_eval(context, err);
    TRY(describe(context, &node->inputs[BATCHNORM_GRAD_X]->type, relu, &d, err));
    if (d.backward == NULL)
        return prepare_own_grad(context, err);
    Slot *scale = kernel_input(context, BATCHNORM_GRAD_SCALE, LAYOUT_PLAIN);
    const_dnnl_md channels = slot_md(scale);
    Layout family = context->family;
    DnnlArg args[] = {{DNNL_ARG_SRC, kernel_input_as(context, BATCHNORM_GRAD_X, family, d.dtype)},
                      {DNNL_ARG_DIFF_DST, kernel_input_as(context, BATCHNORM_GRAD_DY, family, d.dtype)},
                      {DNNL_ARG_SCALE, scale},
                      {DNNL_ARG_MEAN, kernel_input(context, BATCHNORM_GRAD_MEAN, LAYOUT_PLAIN)},
                      {DNNL_ARG_VARIANCE, kernel_input(context, BATCHNORM_GRAD_VAR, LAYOUT_PLAIN)},
                      {DNNL_ARG_DIFF_SRC, kernel_output_in_place_as(context, 0, BATCHNORM_GRAD_DY, family, d.dtype)},
                      {DNNL_ARG_DIFF_SCALE, channel_output(context, 1, channels)},
                      {DNNL_ARG_DIFF_SHIFT, channel_output(context, 2, channels)},
                      {0},
                      {0}};
    int count = 8;
#if DNNL_VERSION_MAJOR < 3
    args[count++] = (DnnlArg){DNNL_ARG_SHIFT, scale}; /* 2.6 counts it among the inputs and reads nothing from it */
#endif
    if (relu)
        args[count++] = (DnnlArg){DNNL_ARG_WORKSPACE, kernel_input_any(context, BATCHNORM_GRAD_MASK)};
    BatchNormState *state = kernel_state(context, sizeof *state);
    state->dnnl = context->dnnl;
    Status status = kernel_call(context, d.backward, args, count, &state->call, err);
    d.backward = NULL; /* consumed */
    descriptors_release(&d);
    TRY(status);
    kernel_run(context, run_grad_library, state->call->implementation);
    return STATUS_OK;
}
