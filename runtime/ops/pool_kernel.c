/* Poolings planned: the library's where it has generated code, own loops for means over all positions.
 *
 * Layouts and precision are tried as for convolutions: as the input lies, the family, channels last, plain. A
 * MaxPoolTrain keeps the library's workspace as its third output; its gradient sees from the layout of that input which
 * of both wrote it. */
#include "runtime/ops/pool.h"

#include <string.h>

#include "runtime/ops/channel.h"
#include "runtime/ops/vector.h"

/* ---- through the library -------------------------------------------------------------------------------------- */

typedef struct Attempt {
    PlanContext *context;
    const PoolShape *shape;
    dnnl_alg_kind_t algorithm;
    dnnl_prop_kind_t kind;
    bool backward;
    DType dtype;
    Layout layout;
    dnnl_primitive_desc_t descriptor; /* of the wanted direction; NULL: none */
    size_t workspace;
} Attempt;

static Status describe(Attempt *attempt, Error *err)
{
    const Window *w = &attempt->shape->window;
    DnnlEngine *dnnl = attempt->context->dnnl;
    int64_t large[RANK_MAX] = {attempt->shape->batch, attempt->shape->channels};
    int64_t small[RANK_MAX] = {attempt->shape->batch, attempt->shape->channels};
    dnnl_dims_t stride, kernel, dilation, begin, end;
    dnnl_md x = NULL, y = NULL;
    dnnl_primitive_desc_t forward = NULL;
    Status status = STATUS_OK;
    for (int i = 0; i < w->rank; i++) {
        large[i + 2] = w->in[i];
        small[i + 2] = w->out[i];
        stride[i] = w->stride[i];
        kernel[i] = w->kernel[i];
        dilation[i] = w->dilation[i] - 1;
        begin[i] = w->begin[i];
        end[i] = pool_reached_end(w, i);
    }
    attempt->descriptor = NULL;
    TRY_DONE(channel_md(attempt->context, attempt->layout, attempt->dtype, w->rank + 2, large, &x, err));
    TRY_DONE(channel_md(attempt->context, attempt->layout, attempt->dtype, w->rank + 2, small, &y, err));
    if (dnnl_pooling_forward_primitive_desc_create(&forward, dnnl->engine, attempt->kind, attempt->algorithm, x, y,
                                                   stride, kernel, dilation, begin, end,
                                                   dnnl->user_scratchpad) != dnnl_success)
        goto done;
    attempt->workspace = dnnl_md_bytes(dnnl_query_md(forward, dnnl_query_workspace_md, 0));
    if (!attempt->backward) {
        attempt->descriptor = forward;
        forward = NULL;
    } else if (dnnl_pooling_backward_primitive_desc_create(&attempt->descriptor, dnnl->engine, attempt->algorithm, x, y,
                                                           stride, kernel, dilation, begin, end, forward,
                                                           dnnl->user_scratchpad) != dnnl_success) {
        attempt->descriptor = NULL;
    }
done:
    if (forward != NULL)
        dnnl_primitive_desc_destroy(forward);
    if (x != NULL)
        dnnl_memory_desc_destroy(x);
    if (y != NULL)
        dnnl_memory_desc_destroy(y);
    return status;
}

/* Generated code in the first layout that has it, else a reference of the library, which still runs on all cores. */
static Status choose_layout(Attempt *attempt, Layout first, Error *err)
{
    const Layout order[] = {first, attempt->context->family, LAYOUT_NHWC, LAYOUT_PLAIN};
    Attempt kept = *attempt;
    for (int i = 0; i < 4; i++) {
        attempt->layout = order[i];
        TRY(describe(attempt, err));
        if (attempt->descriptor == NULL)
            continue;
        if (!dnnl_is_reference(attempt->descriptor)) {
            if (kept.descriptor != NULL)
                dnnl_primitive_desc_destroy(kept.descriptor);
            return STATUS_OK;
        }
        if (kept.descriptor == NULL)
            kept = *attempt;
        else
            dnnl_primitive_desc_destroy(attempt->descriptor);
    }
    *attempt = kept;
    return STATUS_OK;
}

static Status choose(Attempt *attempt, Layout first, Error *err)
{
    const Attempt wanted = *attempt;
    attempt->dtype = attempt->context->compute;
    if (attempt->dtype == DTYPE_BF16) {
        TRY(choose_layout(attempt, first, err));
        if (attempt->descriptor != NULL && !dnnl_is_reference(attempt->descriptor))
            return STATUS_OK;
        if (attempt->descriptor != NULL)
            dnnl_primitive_desc_destroy(attempt->descriptor);
    }
    *attempt = wanted;
    attempt->dtype = DTYPE_F32;
    return choose_layout(attempt, first, err);
}

static Status attempt_make(PlanContext *context, PoolShape *shape, dnnl_alg_kind_t algorithm, bool backward,
                           Attempt *attempt, Error *err)
{
    TRY(pool_shape_of(context->node, shape, err));
    *attempt = (Attempt){.context = context, .shape = shape, .algorithm = algorithm, .backward = backward};
    attempt->kind = dnnl_forward_inference;
    return STATUS_OK;
}

/* Left padding below the library's, or a window that meets nothing, is left to eval. */
static bool library_takes(const PoolShape *shape)
{
    const Window *w = &shape->window;
    for (int i = 0; i < w->rank; i++)
        if (w->begin[i] < 0 || w->begin[i] >= window_extent(w, i) || pool_reached_end(w, i) >= window_extent(w, i) ||
            w->dilation[i] > 1)
            return false;
    return true;
}

static Layout first_layout(PlanContext *context)
{
    Layout layout = kernel_input_layout(context, 0);
    return layout == LAYOUT_OPAQUE || layout == LAYOUT_PLAIN ? context->family : layout;
}

/* ---- max -------------------------------------------------------------------------------------------------------- */

/* Forward and gradient must agree on whether the library does it, so both ask here. */
static bool max_fits(const PlanContext *context, const Type *type, const PoolShape *shape)
{
    return channel_fits(context, type) && library_takes(shape);
}

Status max_pool_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    PoolShape shape;
    Attempt attempt;
    bool train = node_output(node, 2) != NULL;
    TRY(attempt_make(context, &shape, dnnl_pooling_max, false, &attempt, err));
    if (!max_fits(context, &node->inputs[0]->type, &shape) || node_output(node, 1) != NULL)
        return kernel_eval(context, err);
    if (train)
        attempt.kind = dnnl_forward_training;
    TRY(choose(&attempt, first_layout(context), err));
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    DnnlArg args[3] = {{DNNL_ARG_SRC, kernel_input_as(context, 0, attempt.layout, attempt.dtype)},
                       {DNNL_ARG_DST, kernel_output_as(context, 0, attempt.layout, attempt.dtype)}};
    if (train) {
        const_dnnl_md workspace = dnnl_query_md(attempt.descriptor, dnnl_query_workspace_md, 0);
        args[2] = (DnnlArg){DNNL_ARG_WORKSPACE, kernel_output_md(context, 2, workspace)};
    }
    return kernel_primitive(context, attempt.descriptor, args, train ? 3 : 2, err);
}

Status max_pool_grad_prepare(PlanContext *context, Error *err)
{
    PoolShape shape;
    Attempt attempt;
    if (kernel_input_layout(context, 1) != LAYOUT_OPAQUE)
        return kernel_eval(context, err);
    TRY(attempt_make(context, &shape, dnnl_pooling_max, true, &attempt, err));
    attempt.kind = dnnl_forward_training;
    Slot *where = kernel_input_any(context, 1);
    const Layout layouts[] = {context->family, LAYOUT_NHWC, LAYOUT_PLAIN};
    for (int i = 0; i < 6; i++) { /* the layout whose workspace was written */
        attempt.layout = layouts[i % 3];
        attempt.dtype = i < 3 ? context->compute : DTYPE_F32;
        TRY(describe(&attempt, err));
        if (attempt.descriptor == NULL)
            continue;
        if (dnnl_md_same(dnnl_query_md(attempt.descriptor, dnnl_query_workspace_md, 0), slot_md(where)))
            break;
        dnnl_primitive_desc_destroy(attempt.descriptor);
        attempt.descriptor = NULL;
    }
    if (attempt.descriptor == NULL)
        return kernel_fail(context, err, "the library has no gradient for its own max pooling");
    const DnnlArg args[] = {{DNNL_ARG_DIFF_DST, kernel_input_as(context, 0, attempt.layout, attempt.dtype)},
                            {DNNL_ARG_WORKSPACE, where},
                            {DNNL_ARG_DIFF_SRC, kernel_output_as(context, 0, attempt.layout, attempt.dtype)}};
    return kernel_primitive(context, attempt.descriptor, args, 3, err);
}

/* ---- average ----------------------------------------------------------------------------------------------------- */

/* Windows that ceil_mode lets run beyond the padding are divided by fewer elements; the library does not know that. */
static bool average_fits(const PlanContext *context, const Type *type, const PoolShape *shape)
{
    bool padding_counts = node_int(context->node, "count_include_pad", 0) != 0;
    for (int i = 0; padding_counts && i < shape->window.rank; i++)
        if (pool_reached_end(&shape->window, i) > shape->window.end[i])
            return false;
    return channel_fits(context, type) && library_takes(shape);
}

static dnnl_alg_kind_t average_algorithm(const PlanContext *context)
{
    return node_int(context->node, "count_include_pad", 0) != 0 ? dnnl_pooling_avg_include_padding
                                                                : dnnl_pooling_avg_exclude_padding;
}

Status average_pool_prepare(PlanContext *context, Error *err)
{
    PoolShape shape;
    Attempt attempt;
    TRY(attempt_make(context, &shape, average_algorithm(context), false, &attempt, err));
    if (!average_fits(context, &context->node->inputs[0]->type, &shape))
        return kernel_eval(context, err);
    TRY(choose(&attempt, first_layout(context), err));
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    const DnnlArg args[] = {{DNNL_ARG_SRC, kernel_input_as(context, 0, attempt.layout, attempt.dtype)},
                            {DNNL_ARG_DST, kernel_output_as(context, 0, attempt.layout, attempt.dtype)}};
    return kernel_primitive(context, attempt.descriptor, args, 2, err);
}

Status average_pool_grad_prepare(PlanContext *context, Error *err)
{
    PoolShape shape;
    Attempt attempt;
    TRY(attempt_make(context, &shape, average_algorithm(context), true, &attempt, err));
    attempt.kind = dnnl_forward_training;
    if (!average_fits(context, &context->node->outputs[0]->type, &shape))
        return kernel_eval(context, err);
    TRY(choose(&attempt, first_layout(context), err));
    if (attempt.descriptor == NULL)
        return kernel_eval(context, err);
    const DnnlArg args[] = {{DNNL_ARG_DIFF_DST, kernel_input_as(context, 0, attempt.layout, attempt.dtype)},
                            {DNNL_ARG_DIFF_SRC, kernel_output_as(context, 0, attempt.layout, attempt.dtype)}};
    return kernel_primitive(context, attempt.descriptor, args, 2, err);
}

/* ---- global average: own loops, the small side always plain ------------------------------------------------------ */

static Status run_global_average(Step *step, Error *err)
{
    (void)err;
    channel_view_mean(step->state, step->in[0]->data, step->out[0]->data);
    return STATUS_OK;
}

Status global_average_prepare(PlanContext *context, Error *err)
{
    const Type *type = &context->node->inputs[0]->type;
    if (!channel_fits(context, type))
        return kernel_eval(context, err);
    Layout layout = kernel_input_layout(context, 0);
    Slot *x = kernel_input_as(context, 0, layout == LAYOUT_OPAQUE ? LAYOUT_PLAIN : layout, DTYPE_UNDEFINED);
    ChannelView *view = kernel_state(context, sizeof *view);
    *view = channel_view(context, x);
    kernel_output(context, 0, LAYOUT_PLAIN);
    kernel_run(context, run_global_average, "own");
    return STATUS_OK;
}

static Status run_global_spread(Step *step, Error *err)
{
    (void)err;
    channel_view_spread(step->state, step->in[0]->data, step->out[0]->data);
    return STATUS_OK;
}

Status global_average_grad_prepare(PlanContext *context, Error *err)
{
    if (!channel_fits(context, &context->node->outputs[0]->type))
        return kernel_eval(context, err);
    kernel_input(context, 0, LAYOUT_PLAIN);
    Slot *dx = kernel_output_as(context, 0, context->family, kernel_output_dtype(context, 0));
    ChannelView *view = kernel_state(context, sizeof *view);
    *view = channel_view(context, dx);
    kernel_run(context, run_global_spread, "own");
    return STATUS_OK;
}
