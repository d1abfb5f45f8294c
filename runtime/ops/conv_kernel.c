/* Convolutions planned on oneDNN.
 *
 * Layouts first: the plan's family, then channels last, then plain; the first whose implementation is generated code
 * wins, a reference implementation only when nothing else exists. The first convolution of a net (at most four
 * channels) reads its image plain. Backward primitives get the forward's activation layouts and choose only their
 * weights': what the library would choose itself there costs hidden reorders. A parameter's home is the forward's
 * weight layout. In a bf16 plan the same is tried in bf16 first and taken where code is generated for it; weights are
 * then reordered from their f32 home at every step, and their gradients come out in f32, in the layout that is their
 * home. Where the plan allows it the library may take Winograd's algorithm (oneDNN before 3.2, AVX-512: half the time
 * of a 3x3 kernel for a rounding error of 1e-6). ConvTranspose is a convolution's backward-data primitive with its own
 * bias loop. */
#include "runtime/ops/conv.h"

#include <string.h>

#include "runtime/ops/channel.h"

typedef enum Direction { DIRECTION_FORWARD, DIRECTION_INPUT, DIRECTION_WEIGHTS } Direction;

/* What one attempt needs and yields. */
typedef struct Attempt {
    PlanContext *context;
    const ConvShape *shape;
    Direction direction;
    bool bias; /* forward: a bias is added; weights: its gradient is wanted */
    dnnl_prop_kind_t kind;
    const_dnnl_primitive_attr_t attr;
    DType dtype;
    dnnl_alg_kind_t algorithm;
    Layout x, y;
    dnnl_primitive_desc_t descriptor;
} Attempt;

typedef struct Descriptors {
    dnnl_md x, y, w, dw, bias;
    dnnl_dims_t stride, dilation, begin, end;
} Descriptors;

static void descriptors_release(Descriptors *d)
{
    dnnl_md mds[] = {d->x, d->y, d->w, d->dw, d->bias};
    for (int i = 0; i < 5; i++)
        if (mds[i] != NULL)
            dnnl_memory_desc_destroy(mds[i]);
}

static Status descriptors_make(const Attempt *attempt, Descriptors *d, Error *err)
{
    const ConvShape *shape = attempt->shape;
    const Window *window = &shape->window;
    int64_t x[RANK_MAX], y[RANK_MAX], w[RANK_MAX], grouped[RANK_MAX];
    int rank = window->rank + 2;
    bool groups = shape->groups > 1;
    memset(d, 0, sizeof *d);
    conv_shape_x(shape, x);
    conv_shape_y(shape, y);
    conv_shape_w(shape, w);
    grouped[0] = shape->groups;
    grouped[1] = w[0] / shape->groups;
    memcpy(grouped + 2, w + 1, (size_t)(rank - 1) * sizeof w[0]);
    TRY(channel_md(attempt->context, attempt->x, attempt->dtype, rank, x, &d->x, err));
    TRY(channel_md(attempt->context, attempt->y, attempt->dtype, rank, y, &d->y, err));
    TRY(dnnl_md_tag(&d->w, attempt->dtype, rank + groups, groups ? grouped : w, dnnl_format_tag_any, err));
    TRY(dnnl_md_tag(&d->dw, DTYPE_F32, rank + groups, groups ? grouped : w, dnnl_format_tag_any, err));
    if (attempt->bias)
        TRY(dnnl_md_plain(&d->bias, DTYPE_F32, 1, &shape->out_channels, err));
    for (int i = 0; i < window->rank; i++) {
        d->stride[i] = window->stride[i];
        d->dilation[i] = window->dilation[i] - 1;
        d->begin[i] = window->begin[i]; /* the end as the last window reaches it, often less than the file's */
        d->end[i] = (window->out[i] - 1) * window->stride[i] + window_extent(window, i) - window->in[i] - d->begin[i];
    }
    return STATUS_OK;
}

static dnnl_status_t describe_input(const Attempt *attempt, const Descriptors *d, dnnl_primitive_desc_t forward,
                                    dnnl_primitive_desc_t *descriptor)
{
    return dnnl_convolution_backward_data_primitive_desc_create(
        descriptor, attempt->context->dnnl->engine, attempt->algorithm, d->x, d->w, d->y, d->stride, d->dilation,
        d->begin, d->end, forward, attempt->context->dnnl->user_scratchpad);
}

/* oneDNN 3.2 takes the gradient of a depthwise convolution with strides in bf16 and channels last (which it prefers on
 * processors with AMX) for matrix products, one channel each (brgconv_strided: 56 ms where its depthwise code takes 2).
 * Goes on to that code where there is some. */
static void prefer_depthwise(Attempt *attempt, const Descriptors *d, dnnl_primitive_desc_t forward)
{
#if DNNL_VERSION_MAJOR >= 3
    const ConvShape *shape = attempt->shape;
    dnnl_primitive_desc_t other = NULL;
    if (shape->groups < 2 || shape->groups != shape->out_channels ||
        strncmp(dnnl_implementation(attempt->descriptor), "brg", 3) != 0 ||
        describe_input(attempt, d, forward, &other) != dnnl_success)
        return;
    while (dnnl_primitive_desc_next_impl(other) == dnnl_success)
        if (strncmp(dnnl_implementation(other), "jit_dw", 6) == 0) {
            dnnl_primitive_desc_destroy(attempt->descriptor);
            attempt->descriptor = other;
            return;
        }
    dnnl_primitive_desc_destroy(other);
#else
    (void)attempt, (void)d, (void)forward;
#endif
}

/* Creates the attempt's primitive descriptor; NULL when the library has none for these layouts. */
static void describe(Attempt *attempt, const Descriptors *d)
{
    dnnl_engine_t engine = attempt->context->dnnl->engine;
    const_dnnl_primitive_attr_t user = attempt->context->dnnl->user_scratchpad;
    dnnl_primitive_desc_t forward = NULL;
    dnnl_status_t status = dnnl_convolution_forward_primitive_desc_create(
        &forward, engine, attempt->kind, attempt->algorithm, d->x, d->w,
        attempt->direction == DIRECTION_FORWARD ? d->bias : NULL, d->y, d->stride, d->dilation, d->begin, d->end,
        attempt->direction == DIRECTION_FORWARD ? attempt->attr : user);
    attempt->descriptor = NULL;
    if (status != dnnl_success)
        return;
    if (attempt->direction == DIRECTION_FORWARD) {
        attempt->descriptor = forward;
        return;
    }
    if (attempt->direction == DIRECTION_INPUT)
        status = describe_input(attempt, d, forward, &attempt->descriptor);
    else
        status = dnnl_convolution_backward_weights_primitive_desc_create(
            &attempt->descriptor, engine, attempt->algorithm, d->x, d->dw, d->bias, d->y, d->stride, d->dilation,
            d->begin, d->end, forward, user);
    if (status != dnnl_success)
        attempt->descriptor = NULL;
    else if (attempt->direction == DIRECTION_INPUT)
        prefer_depthwise(attempt, d, forward);
    dnnl_primitive_desc_destroy(forward);
}

/* 0: generated code; 1: through matrix products; 2: a reference. */
static int grade(dnnl_primitive_desc_t descriptor)
{
    if (dnnl_is_reference(descriptor))
        return 2;
    return strstr(dnnl_implementation(descriptor), "gemm") != NULL ? 1 : 0;
}

/* The library has generated code for the family's layout. */
static Status generated_in_family(const Attempt *wanted, bool *generated, Error *err)
{
    Attempt attempt = *wanted;
    Descriptors d;
    attempt.x = attempt.y = attempt.context->family;
    attempt.dtype = attempt.context->compute;
    Status status = descriptors_make(&attempt, &d, err);
    if (status == STATUS_OK)
        describe(&attempt, &d);
    descriptors_release(&d);
    *generated = status == STATUS_OK && attempt.descriptor != NULL && grade(attempt.descriptor) == 0;
    if (status == STATUS_OK && attempt.descriptor != NULL)
        dnnl_primitive_desc_destroy(attempt.descriptor);
    return status;
}

static bool is_one_tap(const ConvShape *shape)
{
    int64_t taps = 1;
    for (int i = 0; i < shape->window.rank; i++)
        taps *= shape->window.kernel[i];
    return taps == 1;
}

/* Pictures of few channels are read as they come. Not by 1x1 convolutions that write channels last: oneDNN 3.6 takes
 * them for products with wrong strides (jit_uni_ncsp_convolution:matmul gives zeros). */
/* Tries the layouts in order of preference and keeps the best grade; descriptor NULL: the library cannot do it. */
static Status choose_layouts(Attempt *attempt, int *grade_of_best, Error *err)
{
    Layout family = attempt->context->family;
    bool image = attempt->shape->in_channels <= 4 && attempt->shape->groups == 1 &&
                 !(family == LAYOUT_NHWC && is_one_tap(attempt->shape));
    const Layout order[][2] = {{image ? LAYOUT_PLAIN : family, family},
                               {family, family},
                               {LAYOUT_NHWC, LAYOUT_NHWC},
                               {LAYOUT_PLAIN, LAYOUT_PLAIN}};
    Attempt best = *attempt;
    int best_grade = 3;
    for (int i = 0; i < 4 && best_grade > 0; i++) {
        Descriptors d;
        attempt->x = order[i][0];
        attempt->y = order[i][1];
        Status status = descriptors_make(attempt, &d, err);
        if (status == STATUS_OK)
            describe(attempt, &d);
        descriptors_release(&d);
        TRY(status);
        int found = attempt->descriptor == NULL ? 3 : grade(attempt->descriptor);
        dnnl_primitive_desc_t worse = found < best_grade ? best.descriptor : attempt->descriptor;
        if (found < best_grade) {
            best = *attempt;
            best_grade = found;
        }
        if (worse != NULL)
            dnnl_primitive_desc_destroy(worse);
    }
    *attempt = best;
    *grade_of_best = best_grade;
    return STATUS_OK;
}

/* In the plan's precision when code is generated for it, else in f32. */
static Status choose(Attempt *attempt, Error *err)
{
    int found = 3;
    const Attempt wanted = *attempt;
    attempt->dtype = attempt->context->compute;
    if (attempt->dtype == DTYPE_BF16) {
        TRY(choose_layouts(attempt, &found, err));
        if (found == 0)
            return STATUS_OK;
        if (attempt->descriptor != NULL)
            dnnl_primitive_desc_destroy(attempt->descriptor);
    }
    *attempt = wanted;
    attempt->dtype = DTYPE_F32;
    return choose_layouts(attempt, &found, err);
}

/* To infer, Winograd's algorithm wants weights transformed beforehand: constants can be, a parameter cannot live so. */
static dnnl_prop_kind_t forward_kind(const PlanContext *context)
{
    bool constant = context->node->inputs[1]->role != ROLE_PARAMETER;
    return constant ? dnnl_forward_inference : dnnl_forward_training;
}

static Status attempt_make(PlanContext *context, ConvShape *shape, Direction direction, bool bias, Attempt *attempt,
                           Error *err)
{
    TRY(conv_shape_of(context->node, shape, err));
    *attempt = (Attempt){.context = context,
                         .shape = shape,
                         .direction = direction,
                         .bias = bias,
                         .dtype = DTYPE_F32,
                         .algorithm = context->winograd ? dnnl_convolution_auto : dnnl_convolution_direct,
                         .kind = direction == DIRECTION_FORWARD ? forward_kind(context) : dnnl_forward_training,
                         .attr = context->dnnl->user_scratchpad};
    return STATUS_OK;
}

/* Shapes that the library takes: 1 to 3 spatial dims, nothing empty, left padding not negative. */
static bool fits(const PlanContext *context)
{
    for (int i = 0; i < 2; i++)
        if (!channel_fits(context, &context->node->inputs[i]->type) && context->node->inputs[i]->type.rank >= 3)
            return false;
    return channel_fits(context, &context->node->inputs[0]->type) &&
           channel_fits(context, &context->node->outputs[0]->type);
}

/* The layout in which the gradient of the weights comes out: where they live when the forward reads them in bf16. NULL:
 * the library has no such gradient. */
static Status weight_home(const Attempt *forward, dnnl_md *home, Error *err)
{
    Attempt attempt = *forward;
    Descriptors d;
    *home = NULL;
    attempt.direction = DIRECTION_WEIGHTS;
    attempt.bias = false;
    attempt.kind = dnnl_forward_training;
    attempt.attr = forward->context->dnnl->user_scratchpad;
    Status status = descriptors_make(&attempt, &d, err);
    if (status == STATUS_OK)
        describe(&attempt, &d);
    descriptors_release(&d);
    if (status != STATUS_OK || attempt.descriptor == NULL)
        return status;
    status =
        dnnl_fail(err, dnnl_memory_desc_clone(home, dnnl_query_md(attempt.descriptor, dnnl_query_diff_weights_md, 0)),
                  "the layout of weights");
    dnnl_primitive_desc_destroy(attempt.descriptor);
    return status;
}

/* The weights of a forward or backward-data primitive, input 1, in the layout and precision it wants. */
static Status weight_slot(const Attempt *attempt, Slot **slot, Error *err)
{
    const_dnnl_md wanted = dnnl_query_md(attempt->descriptor, dnnl_query_weights_md, 0);
    dnnl_md home = NULL;
    if (attempt->dtype == DTYPE_F32) {
        *slot = kernel_weight(attempt->context, 1, wanted);
        return STATUS_OK;
    }
    if (attempt->context->node->inputs[1]->role == ROLE_PARAMETER)
        TRY(weight_home(attempt, &home, err));
    *slot = kernel_weight_from(attempt->context, 1, wanted, home);
    if (home != NULL)
        dnnl_memory_desc_destroy(home);
    return STATUS_OK;
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

Status conv_prepare(PlanContext *context, Error *err)
{
    ConvShape shape;
    Attempt attempt;
    bool bias = node_input(context->node, 2) != NULL;
    if (!fits(context))
        return kernel_eval(context, err);
    TRY(attempt_make(context, &shape, DIRECTION_FORWARD, bias, &attempt, err));
    TRY(choose(&attempt, err));
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    Slot *weights = NULL;
    TRY(weight_slot(&attempt, &weights, err));
    DnnlArg args[4] = {{DNNL_ARG_SRC, kernel_input_as(context, 0, attempt.x, attempt.dtype)},
                       {DNNL_ARG_WEIGHTS, weights},
                       {DNNL_ARG_DST, kernel_output_as(context, 0, attempt.y, attempt.dtype)},
                       {DNNL_ARG_BIAS, kernel_input(context, 2, LAYOUT_PLAIN)}};
    return kernel_primitive(context, attempt.descriptor, args, bias ? 4 : 3, err);
}

/* ---- forward, fused with an activation and a residual ------------------------------------------------------------ */

static dnnl_status_t append_activation(dnnl_post_ops_t ops, const Node *node)
{
    const char *name = node_string(node, "activation", "");
    float alpha = node_float(node, "alpha", 0), beta = node_float(node, "beta", 0);
    if (name[0] == '\0')
        return dnnl_success;
    if (strcmp(name, "Relu") == 0)
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, 0.0f, 0.0f);
    if (strcmp(name, "LeakyRelu") == 0)
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, alpha, 0.0f);
    if (strcmp(name, "Clip") == 0)
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_clip, alpha, beta);
    if (strcmp(name, "Sigmoid") == 0)
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_logistic, 0.0f, 0.0f);
    if (strcmp(name, "Tanh") == 0)
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_tanh, 0.0f, 0.0f);
    if (strcmp(name, "HardSwish") == 0)
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_hardswish, 1.0f / 6.0f, 0.5f);
    if (strcmp(name, "Swish") == 0)
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_swish, 1.0f, 0.0f);
    if (strcmp(name, "HardSigmoid") != 0)
        return dnnl_unimplemented;
    dnnl_status_t status = dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, alpha, beta);
    return status == dnnl_success ? dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_clip, 0.0f, 1.0f) : status;
}

static Status fused_attributes(PlanContext *context, bool residual, dnnl_primitive_attr_t *attr, Error *err)
{
    dnnl_post_ops_t ops = NULL;
    Status status = STATUS_OK;
    *attr = NULL;
    TRY_DONE(dnnl_fail(err, dnnl_post_ops_create(&ops), "post-ops"));
    if (residual)
        TRY_DONE(dnnl_fail(err, dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef), "a sum post-op"));
    TRY_DONE(dnnl_fail(err, append_activation(ops, context->node), "an activation post-op"));
    TRY_DONE(dnnl_fail(err, dnnl_primitive_attr_clone(attr, context->dnnl->user_scratchpad), "attributes"));
    TRY_DONE(dnnl_fail(err, dnnl_primitive_attr_set_post_ops(*attr, ops), "post-ops"));
done:
    if (ops != NULL)
        dnnl_post_ops_destroy(ops);
    return status;
}

typedef struct CallState {
    DnnlEngine *dnnl;
    DnnlCall *call;
    ChannelView view;
} CallState;

/* The library adds to what lies in the destination: the residual, moved there unless it is already. */
static Status run_fused_sum(Step *step, Error *err)
{
    const CallState *state = step->state;
    const Slot *residual = step->in[3], *y = step->out[0];
    if (residual->data != y->data)
        memcpy(y->data, residual->data, y->bytes);
    return dnnl_call_run(state->dnnl, state->call, err);
}

Status fused_conv_prepare(PlanContext *context, Error *err)
{
    ConvShape shape;
    Attempt attempt;
    dnnl_primitive_attr_t attr;
    bool bias = node_input(context->node, 2) != NULL, residual = node_input(context->node, 3) != NULL;
    if (!fits(context))
        return kernel_eval(context, err);
    TRY(attempt_make(context, &shape, DIRECTION_FORWARD, bias, &attempt, err));
    Status status = fused_attributes(context, residual, &attr, err);
    attempt.attr = attr;
    attempt.kind = forward_kind(context);
    if (status == STATUS_OK)
        status = choose(&attempt, err);
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    TRY(status);
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    Slot *weights = NULL;
    TRY(weight_slot(&attempt, &weights, err));
    Slot *y = residual ? kernel_output_in_place_as(context, 0, 3, attempt.y, attempt.dtype)
                       : kernel_output_as(context, 0, attempt.y, attempt.dtype);
    DnnlArg args[4] = {{DNNL_ARG_SRC, kernel_input_as(context, 0, attempt.x, attempt.dtype)},
                       {DNNL_ARG_WEIGHTS, weights},
                       {DNNL_ARG_DST, y},
                       {DNNL_ARG_BIAS, kernel_input(context, 2, LAYOUT_PLAIN)}};
    if (!residual)
        return kernel_primitive(context, attempt.descriptor, args, bias ? 4 : 3, err);
    CallState *state = kernel_state(context, sizeof *state);
    state->dnnl = context->dnnl;
    TRY(kernel_call(context, attempt.descriptor, args, bias ? 4 : 3, &state->call, err));
    kernel_run(context, run_fused_sum, state->call->implementation);
    return STATUS_OK;
}

/* ---- backward through the input, and ConvTranspose --------------------------------------------------------------- */

/* The arguments of a backward-data primitive: input 0 is the gradient of y, output 0 that of x. */
static Status input_args(PlanContext *context, const Attempt *attempt, DnnlArg args[3], Error *err)
{
    Slot *weights = NULL;
    TRY(weight_slot(attempt, &weights, err));
    args[0] = (DnnlArg){DNNL_ARG_DIFF_DST, kernel_input_as(context, 0, attempt->y, attempt->dtype)};
    args[1] = (DnnlArg){DNNL_ARG_WEIGHTS, weights};
    args[2] = (DnnlArg){DNNL_ARG_DIFF_SRC, kernel_output_as(context, 0, attempt->x, attempt->dtype)};
    return STATUS_OK;
}

/* Depthwise with stride 1: dx is the convolution of dy with each channel's kernel turned round,
 *     dx[i] = sum over k of  dy[i + begin - k*dilation] * w[k],
 * and the library's forward code for that is two to three times as fast as its backward code (and right in bf16). */
typedef struct Mirror {
    DnnlEngine *dnnl;
    DnnlCall *call;
    Slot *turned; /* weights [C/b, taps, b], taps in reverse */
    int64_t taps;
    size_t lane_bytes; /* of the channels of a block */
} Mirror;

static bool mirror_shape(const ConvShape *shape, ConvShape *mirror)
{
    const Window *window = &shape->window;
    *mirror = *shape;
    if (shape->groups == 1 || shape->groups != shape->in_channels || shape->groups != shape->out_channels)
        return false;
    for (int i = 0; i < window->rank; i++) {
        int64_t reach = window_extent(window, i) - 1;
        if (window->stride[i] != 1 || window->begin[i] < 0 || window->begin[i] > reach)
            return false;
        mirror->window.in[i] = window->out[i];
        mirror->window.out[i] = window->in[i];
        mirror->window.begin[i] = reach - window->begin[i];
    }
    window_count(&mirror->window);
    return true;
}

/* Are these weights whole blocks of channels, tap after tap? */
static Status mirror_lanes(const Attempt *attempt, int *block, Error *err)
{
    static const dnnl_format_tag_t tags[2][3] = {{dnnl_Abcd16a, dnnl_Abcde16a, dnnl_Abcdef16a},
                                                 {dnnl_Abcd8a, dnnl_Abcde8a, dnnl_format_tag_undef}};
    const_dnnl_md wanted = dnnl_query_md(attempt->descriptor, dnnl_query_weights_md, 0);
    const Window *window = &attempt->shape->window;
    int64_t w[RANK_MAX] = {attempt->shape->groups, 1, 1};
    memcpy(w + 3, window->kernel, (size_t)window->rank * sizeof w[0]);
    *block = 0;
    for (int i = 0; i < 2 && *block == 0 && window->rank <= 3; i++) {
        dnnl_md md = NULL;
        dnnl_format_tag_t tag = tags[i][window->rank - 1];
        if (tag == dnnl_format_tag_undef)
            continue;
        TRY(dnnl_md_tag(&md, attempt->dtype, window->rank + 3, w, tag, err));
        if (dnnl_md_same(md, wanted))
            *block = i == 0 ? 16 : 8;
        dnnl_memory_desc_destroy(md);
    }
    return STATUS_OK;
}

static Status run_mirror(Step *step, Error *err)
{
    const Mirror *state = step->state;
    const char *from = step->in[1]->data;
    char *to = state->turned->data;
    size_t block_bytes = state->lane_bytes * (size_t)state->taps;
    for (size_t at = 0; at < state->turned->bytes; at += block_bytes)
        for (int64_t k = 0; k < state->taps; k++)
            memcpy(to + at + (size_t)(state->taps - 1 - k) * state->lane_bytes,
                   from + at + (size_t)k * state->lane_bytes, state->lane_bytes);
    return dnnl_call_run(state->dnnl, state->call, err);
}

/* *done: the step is planned so; else nothing has happened. */
static Status mirror_prepare(const Attempt *backward, bool *done, Error *err)
{
    PlanContext *context = backward->context;
    ConvShape shape;
    Attempt attempt = *backward;
    int block = 0;
    *done = false;
    if (!mirror_shape(backward->shape, &shape))
        return STATUS_OK;
    attempt.shape = &shape;
    attempt.direction = DIRECTION_FORWARD;
    TRY(choose(&attempt, err));
    if (attempt.descriptor == NULL)
        return STATUS_OK;
    if (grade(attempt.descriptor) == 0)
        TRY(mirror_lanes(&attempt, &block, err));
    if (block == 0) {
        dnnl_primitive_desc_destroy(attempt.descriptor);
        return STATUS_OK;
    }
    Slot *weights = NULL;
    TRY(weight_slot(&attempt, &weights, err));
    Mirror *state = kernel_state(context, sizeof *state);
    state->dnnl = context->dnnl;
    state->turned = kernel_temporary(context, dnnl_query_md(attempt.descriptor, dnnl_query_weights_md, 0));
    state->taps = shape.window.kernel_count;
    state->lane_bytes = (size_t)block * dtype_size(attempt.dtype);
    DnnlArg args[] = {{DNNL_ARG_SRC, kernel_input_as(context, 0, attempt.x, attempt.dtype)},
                      {DNNL_ARG_WEIGHTS, state->turned},
                      {DNNL_ARG_DST, kernel_output_as(context, 0, attempt.y, attempt.dtype)}};
    TRY(kernel_call(context, attempt.descriptor, args, 3, &state->call, err));
    kernel_run(context, run_mirror, state->call->implementation);
    *done = true;
    return STATUS_OK;
}

Status conv_grad_input_prepare(PlanContext *context, Error *err)
{
    ConvShape shape;
    Attempt attempt;
    DnnlArg args[3];
    bool mirrored = false;
    if (!fits(context))
        return kernel_eval(context, err);
    TRY(attempt_make(context, &shape, DIRECTION_INPUT, false, &attempt, err));
    TRY(mirror_prepare(&attempt, &mirrored, err));
    if (mirrored)
        return STATUS_OK;
    TRY(choose(&attempt, err));
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    TRY(input_args(context, &attempt, args, err));
    return kernel_primitive(context, attempt.descriptor, args, 3, err);
}

static Status run_with_bias(Step *step, Error *err)
{
    const CallState *state = step->state;
    TRY(dnnl_call_run(state->dnnl, state->call, err));
    channel_view_add(&state->view, step->in[2]->data, step->out[0]->data);
    return STATUS_OK;
}

Status conv_transpose_prepare(PlanContext *context, Error *err)
{
    ConvShape shape;
    Attempt attempt;
    DnnlArg args[3];
    if (!fits(context))
        return kernel_eval(context, err);
    TRY(attempt_make(context, &shape, DIRECTION_INPUT, false, &attempt, err));
    TRY(choose(&attempt, err));
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    TRY(input_args(context, &attempt, args, err));
    if (kernel_input(context, 2, LAYOUT_PLAIN) == NULL)
        return kernel_primitive(context, attempt.descriptor, args, 3, err);
    CallState *state = kernel_state(context, sizeof *state);
    state->dnnl = context->dnnl;
    state->view = channel_view(context, args[2].slot);
    TRY(kernel_call(context, attempt.descriptor, args, 3, &state->call, err));
    kernel_run(context, run_with_bias, state->call->implementation);
    return STATUS_OK;
}

/* ---- backward into weights and bias ------------------------------------------------------------------------------ */

Status conv_grad_weight_prepare(PlanContext *context, Error *err)
{
    ConvShape shape;
    Attempt attempt;
    bool bias = node_output(context->node, 1) != NULL;
    if (!fits(context))
        return kernel_eval(context, err);
    TRY(attempt_make(context, &shape, DIRECTION_WEIGHTS, bias, &attempt, err));
    if (depthwise_weight_fits(context, &shape)) {
        bool generated = false;
        TRY(generated_in_family(&attempt, &generated, err));
        if (!generated)
            return depthwise_weight_prepare(context, &shape, err);
    }
    TRY(choose(&attempt, err));
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    const_dnnl_md weights = dnnl_query_md(attempt.descriptor, dnnl_query_diff_weights_md, 0);
    DnnlArg args[4] = {{DNNL_ARG_SRC, kernel_input_as(context, 0, attempt.x, attempt.dtype)},
                       {DNNL_ARG_DIFF_DST, kernel_input_as(context, 1, attempt.y, attempt.dtype)},
                       {DNNL_ARG_DIFF_WEIGHTS, kernel_output_md(context, 0, weights)}};
    if (bias)
        args[3] = (DnnlArg){DNNL_ARG_DIFF_BIAS, kernel_output(context, 1, LAYOUT_PLAIN)};
    return kernel_primitive(context, attempt.descriptor, args, bias ? 4 : 3, err);
}

/* ---- gradient of a bias alone ------------------------------------------------------------------------------------ */

static Status run_channel_sum(Step *step, Error *err)
{
    (void)err;
    channel_view_sum(step->state, step->in[0]->data, step->out[0]->data);
    return STATUS_OK;
}

Status channel_sum_prepare(PlanContext *context, Error *err)
{
    if (!channel_fits(context, &context->node->inputs[0]->type))
        return kernel_eval(context, err);
    Layout layout = kernel_input_layout(context, 0);
    Slot *y = kernel_input_as(context, 0, layout == LAYOUT_OPAQUE ? LAYOUT_PLAIN : layout, DTYPE_UNDEFINED);
    ChannelView *view = kernel_state(context, sizeof *view);
    *view = channel_view(context, y);
    kernel_output(context, 0, LAYOUT_PLAIN);
    kernel_run(context, run_channel_sum, "own");
    return STATUS_OK;
}
