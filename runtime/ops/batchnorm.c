/* Family: batch normalisation.
 *
 * A file's BatchNormalization either uses the statistics it is given (inference form) or those of the batch
 * (training_mode). Training goes through an internal row instead, which passes put in its place:
 *     BatchNormTrain(x, scale, bias, mean_state, var_state)          y, saved_mean, saved_var
 *     BatchNormReplay(x, scale, bias, saved_mean, saved_var)         y again, states left alone
 *     BatchNormTrainGrad(dy, x, scale, saved_mean, saved_var, bias)  dx [, dscale, dbias]
 *     BatchNormFixedGrad(dy, x, scale, mean, var)                    dx [, dscale, dbias]; statistics are constants
 * Attributes epsilon, momentum; of the training rows also `activation`, the operator that follows (passes/fuse.c puts
 * it there), with low and high when it is Clip. Variances are the population's, as ONNX says. The kernel updates the
 * states in place, `state = state * momentum + statistic * (1 - momentum)`; eval, which is a function of its inputs,
 * leaves them alone. Kernels are in batchnorm_kernel.c. */
#include "runtime/ops/batchnorm.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/wide.h"

/* ---- shapes --------------------------------------------------------------------------------------------------- */

/* [N, C, S]; one channel when the rank is 1. */
typedef struct Extent {
    int64_t batch, channels, spatial;
} Extent;

static Extent extent_of(int rank, const int64_t *dims)
{
    Extent extent = {rank > 0 ? dims[0] : 1, rank > 1 ? dims[1] : 1, 1};
    if (rank > 2)
        extent.spatial = dims_count(rank - 2, dims + 2);
    return extent;
}

static Status check_channels(const Node *node, int first, int last, int64_t channels, Error *err)
{
    for (int i = first; i <= last; i++) {
        const Type *type = &node->inputs[i]->type;
        if (type->rank != 1 || type->dims[0] != channels)
            return infer_fail(node, err, "input %d is %s where [%lld] is expected", i,
                              type_text(&node->graph->model->arena, type), (long long)channels);
    }
    return STATUS_OK;
}

static Status batchnorm_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[BATCHNORM_X]->type;
    Extent extent = extent_of(x->rank, x->dims);
    TRY(check_channels(node, BATCHNORM_SCALE, BATCHNORM_VAR, extent.channels, err));
    if (node->output_count > 1 && node_output(node, 1) != NULL && node_int(node, "training_mode", 0) == 0 &&
        node->domain[0] == '\0')
        return infer_fail(node, err, "running statistics are outputs although training_mode is 0");
    node->outputs[0]->type = *x;
    for (int i = 1; i < node->output_count; i++) {
        if (node->outputs[i] == NULL)
            continue;
        type_set(&node->outputs[i]->type, node->inputs[BATCHNORM_MEAN]->type.dtype, 1, &extent.channels);
    }
    return STATUS_OK;
}

static Status grad_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[BATCHNORM_GRAD_X]->type;
    Extent extent = extent_of(x->rank, x->dims);
    TRY(check_channels(node, BATCHNORM_GRAD_SCALE, BATCHNORM_GRAD_VAR, extent.channels, err));
    for (int i = 1; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            type_set(&node->outputs[i]->type, node->inputs[BATCHNORM_GRAD_SCALE]->type.dtype, 1, &extent.channels);
    if (node->outputs[0] != NULL)
        node->outputs[0]->type = *x;
    return STATUS_OK;
}

/* Up to opset 13 more than one output meant training; opset 1 to 8 could normalise each position alone (spatial=0). */
static Status batchnorm_upgrade(Node *node, Error *err)
{
    if (node->opset >= 14)
        return STATUS_OK;
    if (node_int(node, "spatial", 1) == 0)
        return node_unsupported(node, err, "attribute spatial=0 (statistics of each position) is not supported");
    for (int i = 3; i < node->output_count; i++)
        if (node->outputs[i] != NULL && (node->outputs[i]->use_count > 0 || node->outputs[i]->is_output))
            return node_unsupported(node, err, "output %d (saved statistics of opset %d) is used", i, node->opset);
    for (int i = 3; i < node->output_count; i++)
        node_set_output(node, i, NULL);
    bool training = node->output_count > 1;
    node->output_count = node->output_count > 3 ? 3 : node->output_count;
    node_set_int(node, "training_mode", training);
    node_remove_attr(node, "spatial");
    node_remove_attr(node, "is_test");
    node_remove_attr(node, "consumed_inputs");
    return STATUS_OK;
}

BatchNormActivation batchnorm_activation(const Node *node)
{
    static const char *const names[] = {"", "Relu", "Clip", "Swish", "HardSwish"};
    const char *name = node_string(node, "activation", "");
    for (int i = BATCHNORM_RELU; i <= BATCHNORM_HARD_SWISH; i++)
        if (strcmp(name, names[i]) == 0)
            return (BatchNormActivation)i;
    return BATCHNORM_LINEAR;
}

/* ---- eval ---------------------------------------------------------------------------------------------------- */

/* Mean and population variance of each channel. */
static void batch_statistics(Extent e, const double *x, double *mean, double *var)
{
    double count = (double)(e.batch * e.spatial);
    for (int64_t c = 0; c < e.channels; c++)
        mean[c] = var[c] = 0;
    for (int64_t i = 0; i < e.batch * e.channels * e.spatial; i++)
        mean[i / e.spatial % e.channels] += x[i] / count;
    for (int64_t i = 0; i < e.batch * e.channels * e.spatial; i++) {
        int64_t c = i / e.spatial % e.channels;
        var[c] += (x[i] - mean[c]) * (x[i] - mean[c]) / count;
    }
}

typedef struct Inputs {
    const Array *x;
    const double *data[6];
    Extent extent;
    double epsilon;
} Inputs;

static Status read_inputs(EvalContext *context, int x_index, Inputs *in, Error *err)
{
    in->x = eval_input(context, x_index);
    in->extent = extent_of(in->x->rank, in->x->dims);
    in->epsilon = (double)node_float(context->node, "epsilon", 1e-5f);
    for (int i = 0; i < 6; i++) {
        in->data[i] = NULL;
        if (i < context->in_count)
            TRY(wide_input(context, i, &in->data[i], err));
    }
    return STATUS_OK;
}

static void normalise(const Inputs *in, const double *mean, const double *var, double *y)
{
    Extent e = in->extent;
    for (int64_t i = 0; i < in->x->count; i++) {
        int64_t c = i / e.spatial % e.channels;
        double x_hat = (in->data[BATCHNORM_X][i] - mean[c]) / sqrt(var[c] + in->epsilon);
        y[i] = in->data[BATCHNORM_SCALE][c] * x_hat + in->data[BATCHNORM_BIAS][c];
    }
}

/* f and f' of the training rows; at kinks the derivative is that of the operator's own row. */
static double activate(const Node *node, double z)
{
    double low = (double)node_float(node, "low", -INFINITY), high = (double)node_float(node, "high", INFINITY);
    switch (batchnorm_activation(node)) {
    case BATCHNORM_LINEAR:
        return z;
    case BATCHNORM_RELU:
        return z < 0 ? 0 : z;
    case BATCHNORM_CLIP:
        return z < low ? low : z > high ? high : z;
    case BATCHNORM_SWISH:
        return z / (1 + exp(-z));
    case BATCHNORM_HARD_SWISH:
        return z * fmin(fmax(z / 6 + 0.5, 0), 1);
    }
    return z;
}

static double slope(const Node *node, double z)
{
    double low = (double)node_float(node, "low", -INFINITY), high = (double)node_float(node, "high", INFINITY);
    double s = 1 / (1 + exp(-z));
    switch (batchnorm_activation(node)) {
    case BATCHNORM_LINEAR:
        return 1;
    case BATCHNORM_RELU:
        return z > 0;
    case BATCHNORM_CLIP:
        return z > low && z < high;
    case BATCHNORM_SWISH:
        return s + z * s * (1 - s);
    case BATCHNORM_HARD_SWISH:
        return z <= -3 ? 0 : z < 3 ? z / 3 + 0.5 : 1;
    }
    return 1;
}

/* In the type of input `like`. */
static Status store_channels(EvalContext *context, int index, int64_t channels, const double *values, int like,
                             Error *err)
{
    WideOutput out;
    if (node_output(context->node, index) == NULL)
        return STATUS_OK;
    TRY(wide_output(context, index, eval_input(context, like)->dtype, 1, &channels, &out, err));
    memcpy(out.data, values, (size_t)channels * sizeof(double));
    wide_store(&out);
    return STATUS_OK;
}

static Status batchnorm_eval(EvalContext *context, Error *err)
{
    Inputs in;
    WideOutput y;
    TRY(read_inputs(context, BATCHNORM_X, &in, err));
    TRY(wide_output_like(context, 0, in.x, &y, err));
    int64_t channels = in.extent.channels;
    const double *given_mean = in.data[BATCHNORM_MEAN], *given_var = in.data[BATCHNORM_VAR];
    if (node_int(context->node, "training_mode", 0) == 0) {
        normalise(&in, given_mean, given_var, y.data);
        wide_store(&y);
        return STATUS_OK;
    }
    double *mean = arena_array(context->arena, double, (size_t)channels);
    double *var = arena_array(context->arena, double, (size_t)channels);
    double keep = (double)node_float(context->node, "momentum", 0.9f);
    batch_statistics(in.extent, in.data[BATCHNORM_X], mean, var);
    normalise(&in, mean, var, y.data);
    wide_store(&y);
    for (int64_t c = 0; c < channels; c++) {
        mean[c] = given_mean[c] * keep + mean[c] * (1 - keep);
        var[c] = given_var[c] * keep + var[c] * (1 - keep);
    }
    TRY(store_channels(context, 1, channels, mean, BATCHNORM_MEAN, err));
    return store_channels(context, 2, channels, var, BATCHNORM_MEAN, err);
}

static Status batchnorm_train_eval(EvalContext *context, Error *err)
{
    Inputs in;
    WideOutput y;
    TRY(read_inputs(context, BATCHNORM_X, &in, err));
    double *mean = arena_array(context->arena, double, (size_t)in.extent.channels);
    double *var = arena_array(context->arena, double, (size_t)in.extent.channels);
    batch_statistics(in.extent, in.data[BATCHNORM_X], mean, var);
    TRY(wide_output_like(context, BATCHNORM_Y, in.x, &y, err));
    normalise(&in, mean, var, y.data);
    for (int64_t i = 0; i < in.x->count; i++)
        y.data[i] = activate(context->node, y.data[i]);
    wide_store(&y);
    TRY(store_channels(context, BATCHNORM_SAVED_MEAN, in.extent.channels, mean, BATCHNORM_MEAN, err));
    return store_channels(context, BATCHNORM_SAVED_VAR, in.extent.channels, var, BATCHNORM_MEAN, err);
}

static Status replay_eval(EvalContext *context, Error *err)
{
    Inputs in;
    WideOutput y;
    TRY(read_inputs(context, BATCHNORM_X, &in, err));
    TRY(wide_output_like(context, BATCHNORM_Y, in.x, &y, err));
    normalise(&in, in.data[BATCHNORM_MEAN], in.data[BATCHNORM_VAR], y.data);
    for (int64_t i = 0; i < in.x->count; i++)
        y.data[i] = activate(context->node, y.data[i]);
    wide_store(&y);
    return STATUS_OK;
}

/* With M elements a channel, Ioffe & Szegedy 2015:
 *     dbias = sum dy,   dscale = sum dy * x_hat
 *     dx = scale / sqrt(var + epsilon) * (dy - dbias/M - x_hat * dscale/M);   statistics fixed: without the two means
 */
static Status grad_eval(EvalContext *context, Error *err)
{
    bool fixed = strcmp(context->node->op_type, "BatchNormFixedGrad") == 0;
    Inputs in;
    WideOutput dx;
    TRY(read_inputs(context, BATCHNORM_GRAD_X, &in, err));
    TRY(wide_output_like(context, 0, in.x, &dx, err));
    Extent e = in.extent;
    double *dscale = arena_array(context->arena, double, (size_t)e.channels);
    double *dbias = arena_array(context->arena, double, (size_t)e.channels);
    const double *mean = in.data[BATCHNORM_GRAD_MEAN], *var = in.data[BATCHNORM_GRAD_VAR];
    double count = fixed ? INFINITY : (double)(e.batch * e.spatial);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < in.x->count; i++) {
            int64_t c = i / e.spatial % e.channels;
            double inverse = 1 / sqrt(var[c] + in.epsilon);
            double x_hat = (in.data[BATCHNORM_GRAD_X][i] - mean[c]) * inverse;
            double dy = in.data[BATCHNORM_GRAD_DY][i];
            if (!fixed)
                dy *= slope(context->node, in.data[BATCHNORM_GRAD_SCALE][c] * x_hat + in.data[BATCHNORM_GRAD_BIAS][c]);
            if (pass == 0) {
                dbias[c] += dy;
                dscale[c] += dy * x_hat;
            } else {
                dx.data[i] = in.data[BATCHNORM_GRAD_SCALE][c] * inverse * (dy - (dbias[c] + x_hat * dscale[c]) / count);
            }
        }
    }
    wide_store(&dx);
    TRY(store_channels(context, 1, e.channels, dscale, BATCHNORM_GRAD_SCALE, err));
    return store_channels(context, 2, e.channels, dbias, BATCHNORM_GRAD_SCALE, err);
}

/* ---- grad ---------------------------------------------------------------------------------------------------- */

/* The gradient row with as many outputs as are wanted: dx alone, or dx, dscale, dbias. */
static Node *build_grad(GradContext *context, const char *op_type, Value *const *inputs, int count, bool scale_or_bias)
{
    Node *node = build_node(&context->b, DOMAIN_INTERNAL, op_type, inputs, count, scale_or_bias ? 3 : 1);
    if (node == NULL)
        return NULL;
    node_set_float(node, "epsilon", node_float(context->node, "epsilon", 1e-5f));
    return build_finish(&context->b, node) == NULL ? NULL : node;
}

static void take_gradients(GradContext *context, const Node *gradient)
{
    for (int i = 0; i < 3; i++)
        if (gradient != NULL && context->wants[i])
            context->dx[i] = node_output(gradient, i);
}

/* dmean = -dbias * scale / sqrt(var + epsilon);   dvar = -dscale * scale / (2 (var + epsilon)) */
static void statistic_gradients(GradContext *context, const Node *gradient)
{
    Builder *b = &context->b;
    Value *scale = context->node->inputs[BATCHNORM_SCALE], *var = context->node->inputs[BATCHNORM_VAR];
    double epsilon = (double)node_float(context->node, "epsilon", 1e-5f);
    if (gradient == NULL)
        return;
    Value *shifted = build2(b, "Add", var, build_scalar(b, var->type.dtype, epsilon));
    if (context->wants[BATCHNORM_MEAN] && shifted != NULL) {
        Value *slope = build2(b, "Div", scale, build1(b, "Sqrt", shifted));
        context->dx[BATCHNORM_MEAN] = build1(b, "Neg", build2(b, "Mul", gradient->outputs[2], slope));
    }
    if (context->wants[BATCHNORM_VAR] && shifted != NULL) {
        Value *slope = build2(b, "Div", scale, shifted);
        context->dx[BATCHNORM_VAR] = compose_scale(b, build2(b, "Mul", gradient->outputs[1], slope), -0.5);
    }
}

/* The batch's statistics with one number a channel, [1, C, 1, ...], and what is reduced for them. */
typedef struct Batchwise {
    Value *mean, *centred, *var;
    int64_t axes[RANK_MAX], dims[RANK_MAX];
    size_t axis_count;
    double count; /* elements of a channel */
} Batchwise;

static Batchwise compose_statistics(Builder *b, Value *x)
{
    Batchwise s = {.count = 1};
    for (int i = 0; i < x->type.rank; i++) {
        s.dims[i] = i == 1 ? x->type.dims[i] : 1;
        if (i != 1) {
            s.axes[s.axis_count++] = i;
            s.count *= (double)x->type.dims[i];
        }
    }
    s.mean = compose_reduce(b, "ReduceMean", x, s.axes, s.axis_count, true);
    s.centred = build2(b, "Sub", x, s.mean);
    s.var = compose_reduce(b, "ReduceMean", build2(b, "Mul", s.centred, s.centred), s.axes, s.axis_count, true);
    return s;
}

static Value *add_to(Builder *b, Value *sum, Value *term)
{
    return sum == NULL ? term : build2(b, "Add", sum, term);
}

/* dx = scale / deviation * (dy - mean(dy) - x_hat * mean(dy * x_hat)) */
static void batch_gradients(GradContext *context, const Batchwise *s)
{
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *dy = context->dy[0], *scale = node->inputs[BATCHNORM_SCALE];
    double epsilon = (double)node_float(node, "epsilon", 1e-5f);
    Value *deviation = build1(b, "Sqrt", build2(b, "Add", s->var, build_scalar(b, dy->type.dtype, epsilon)));
    Value *x_hat = build2(b, "Div", s->centred, deviation);
    Value *sum = compose_reduce(b, "ReduceSum", dy, s->axes, s->axis_count, true);
    Value *sum_hat = compose_reduce(b, "ReduceSum", build2(b, "Mul", dy, x_hat), s->axes, s->axis_count, true);
    Value *pulled = build2(b, "Add", compose_scale(b, sum, 1 / s->count),
                           build2(b, "Mul", x_hat, compose_scale(b, sum_hat, 1 / s->count)));
    Value *slope = build2(b, "Div", compose_reshape(b, scale, context->node->inputs[0]->type.rank, s->dims), deviation);
    context->dx[BATCHNORM_X] = build2(b, "Mul", slope, build2(b, "Sub", dy, pulled));
    if (context->wants[BATCHNORM_SCALE])
        context->dx[BATCHNORM_SCALE] = compose_like(b, sum_hat, scale);
    if (context->wants[BATCHNORM_BIAS])
        context->dx[BATCHNORM_BIAS] = compose_like(b, sum, node->inputs[BATCHNORM_BIAS]);
}

/* Training form whose moved statistics are read: moved = momentum * given + (1 - momentum) * batch's. */
static Status batchnorm_moved_grad(GradContext *context)
{
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *x = node->inputs[BATCHNORM_X];
    Value *dmean = node->output_count > 1 ? context->dy[1] : NULL,
          *dvar = node->output_count > 2 ? context->dy[2] : NULL;
    double keep = (double)node_float(node, "momentum", 0.9f);
    Batchwise s = compose_statistics(b, x);
    if (context->dy[0] != NULL)
        batch_gradients(context, &s);
    Value **dx = &context->dx[BATCHNORM_X];
    if (dmean != NULL) {
        Value *each = compose_reshape(b, compose_scale(b, dmean, (1 - keep) / s.count), x->type.rank, s.dims);
        *dx = add_to(b, *dx, compose_expand(b, each, x->type.rank, x->type.dims));
        context->dx[BATCHNORM_MEAN] = compose_scale(b, dmean, keep);
    }
    if (dvar != NULL) {
        Value *each = compose_reshape(b, compose_scale(b, dvar, 2 * (1 - keep) / s.count), x->type.rank, s.dims);
        *dx = add_to(b, *dx, build2(b, "Mul", each, s.centred));
        context->dx[BATCHNORM_VAR] = compose_scale(b, dvar, keep);
    }
    return b->status;
}

static Status batchnorm_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    const bool *wants = context->wants;
    (void)err;
    if (node_int(node, "training_mode", 0) != 0)
        return batchnorm_moved_grad(context);
    bool statistics = wants[BATCHNORM_MEAN] || wants[BATCHNORM_VAR];
    Value *inputs[] = {context->dy[0], node->inputs[BATCHNORM_X], node->inputs[BATCHNORM_SCALE],
                       node->inputs[BATCHNORM_MEAN], node->inputs[BATCHNORM_VAR]};
    const Node *gradient = build_grad(context, "BatchNormFixedGrad", inputs, 5,
                                      wants[BATCHNORM_SCALE] || wants[BATCHNORM_BIAS] || statistics);
    take_gradients(context, gradient);
    if (statistics)
        statistic_gradients(context, gradient);
    return context->b.status;
}

static Status batchnorm_train_grad(GradContext *context, Error *err)
{
    (void)err;
    Node *node = context->node;
    Value *inputs[] = {context->dy[0],
                       node->inputs[BATCHNORM_X],
                       node->inputs[BATCHNORM_SCALE],
                       node->outputs[BATCHNORM_SAVED_MEAN],
                       node->outputs[BATCHNORM_SAVED_VAR],
                       node->inputs[BATCHNORM_BIAS]};
    Node *gradient = build_grad(context, "BatchNormTrainGrad", inputs, 6,
                                context->wants[BATCHNORM_SCALE] || context->wants[BATCHNORM_BIAS]);
    if (gradient != NULL)
        node_copy_attrs(gradient, node);
    take_gradients(context, gradient);
    return context->b.status;
}

/* ---- replay --------------------------------------------------------------------------------------------------- */

static Status batchnorm_replay(const Node *node, Node *copy, Error *err)
{
    (void)err;
    for (int i = copy->output_count - 1; i > BATCHNORM_Y; i--)
        node_set_output(copy, i, NULL);
    copy->output_count = 1;
    node_set_input(copy, BATCHNORM_MEAN, node->outputs[BATCHNORM_SAVED_MEAN]);
    node_set_input(copy, BATCHNORM_VAR, node->outputs[BATCHNORM_SAVED_VAR]);
    node_set_op(copy, DOMAIN_INTERNAL, "BatchNormReplay", 0);
    return STATUS_OK;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

const OpDef ops_batchnorm[] = {
    {.name = "BatchNormalization",
     .since = 1,
     .last = 28,
     .min_inputs = 5,
     .max_inputs = 5,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 5,
     .infer = batchnorm_infer,
     .eval = batchnorm_eval,
     .grad = batchnorm_grad,
     .upgrade = batchnorm_upgrade,
     .prepare = batchnorm_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "BatchNormTrain",
     .min_inputs = 5,
     .max_inputs = 5,
     .min_outputs = 3,
     .max_outputs = 3,
     .traits = OP_STATE,
     .infer = batchnorm_infer,
     .eval = batchnorm_train_eval,
     .grad = batchnorm_train_grad,
     .prepare = batchnorm_train_prepare,
     .replay = batchnorm_replay},
    {.domain = DOMAIN_INTERNAL,
     .name = "BatchNormReplay",
     .min_inputs = 5,
     .max_inputs = 5,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = batchnorm_infer,
     .eval = replay_eval,
     .prepare = batchnorm_replay_prepare,
     .no_gradient = "made after autodiff",
     .no_case = "internal; tests/test_recompute.c compares it with what it replays"},
    {.domain = DOMAIN_INTERNAL,
     .name = "BatchNormTrainGrad",
     .min_inputs = 6,
     .max_inputs = 6,
     .min_outputs = 1,
     .max_outputs = 3,
     .traits = OP_IN_PLACE,
     .infer = grad_infer,
     .eval = grad_eval,
     .prepare = batchnorm_train_grad_prepare,
     .no_gradient = "a gradient itself"},
    {.domain = DOMAIN_INTERNAL,
     .name = "BatchNormFixedGrad",
     .min_inputs = 5,
     .max_inputs = 5,
     .min_outputs = 1,
     .max_outputs = 3,
     .traits = OP_IN_PLACE,
     .infer = grad_infer,
     .eval = grad_eval,
     .prepare = batchnorm_fixed_grad_prepare,
     .no_gradient = "a gradient itself"},
    {0},
};
