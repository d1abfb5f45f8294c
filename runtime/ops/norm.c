/* Family: normalisation within a sample, over groups of channels or along axes. InstanceNormalization is
 * GroupNormalization with as many groups as channels; both are differentiated by GroupNormGrad(dy, x, scale) with
 * attributes num_groups, epsilon: dx [, dscale, dbias]. MeanVarianceNormalization and LpNormalization are written in
 * other operators. Kernels are in groupnorm_kernel.c. */
#include "runtime/ops/norm.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/wide.h"

/* ---- shapes --------------------------------------------------------------------------------------------------- */

static Status group_shape(const Node *node, int rank, const int64_t *dims, int64_t scales, GroupShape *shape,
                          Error *err)
{
    if (rank < 2)
        return infer_fail(node, err, "input of rank %d where at least [N, C] is expected", rank);
    shape->batch = dims[0];
    shape->channels = dims[1];
    shape->spatial = dims_count(rank - 2, dims + 2);
    shape->groups = node_int(node, "num_groups", strcmp(node->op_type, "InstanceNormalization") == 0 ? dims[1] : 0);
    if (shape->groups < 1 || shape->channels % shape->groups != 0)
        return infer_fail(node, err, "%lld channels in %lld groups", (long long)shape->channels,
                          (long long)shape->groups);
    shape->scale_of_group = scales == shape->groups && scales != shape->channels;
    if (scales != shape->channels && !shape->scale_of_group)
        return infer_fail(node, err, "scale has %lld elements for %lld channels", (long long)scales,
                          (long long)shape->channels);
    return STATUS_OK;
}

Status group_shape_of(const Node *node, GroupShape *shape, Error *err)
{
    bool gradient = strcmp(node->op_type, "GroupNormGrad") == 0;
    const Type *x = &node->inputs[gradient ? 1 : 0]->type, *scale = &node->inputs[gradient ? 2 : 1]->type;
    if (scale->rank != 1)
        return infer_fail(node, err, "scale of rank %d", scale->rank);
    return group_shape(node, x->rank, x->dims, scale->dims[0], shape, err);
}

static Status group_norm_infer(Node *node, Error *err)
{
    GroupShape shape;
    const Type *scale = &node->inputs[1]->type, *bias = &node->inputs[2]->type;
    TRY(group_shape_of(node, &shape, err));
    if (bias->rank != 1 || bias->dims[0] != scale->dims[0])
        return infer_fail(node, err, "bias is %s, scale %s", type_text(&node->graph->model->arena, bias),
                          type_text(&node->graph->model->arena, scale));
    node->outputs[0]->type = node->inputs[0]->type;
    return STATUS_OK;
}

static Status group_norm_grad_infer(Node *node, Error *err)
{
    GroupShape shape;
    TRY(group_shape_of(node, &shape, err));
    node->outputs[0]->type = node->inputs[1]->type;
    for (int i = 1; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            node->outputs[i]->type = node->inputs[2]->type;
    return STATUS_OK;
}

/* ---- eval ---------------------------------------------------------------------------------------------------- */

typedef struct GroupRow { /* one group of one sample: consecutive elements */
    const double *x;
    int64_t count;
    double mean, inverse;
} GroupRow;

static GroupRow group_row(const GroupShape *s, const double *x, int64_t index, double epsilon)
{
    GroupRow row = {.count = s->channels / s->groups * s->spatial};
    double square = 0;
    row.x = x + index * row.count;
    for (int64_t i = 0; i < row.count; i++)
        row.mean += row.x[i] / (double)row.count;
    for (int64_t i = 0; i < row.count; i++)
        square += (row.x[i] - row.mean) * (row.x[i] - row.mean) / (double)row.count;
    row.inverse = 1 / sqrt(square + epsilon);
    return row;
}

/* Index of the scale of element `at` of the whole tensor. */
static int64_t scale_index(const GroupShape *s, int64_t at)
{
    int64_t channel = at / s->spatial % s->channels;
    return s->scale_of_group ? channel / (s->channels / s->groups) : channel;
}

static Status group_norm_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *from, *scale, *bias, epsilon = (double)node_float(context->node, "epsilon", 1e-5f);
    GroupShape shape;
    WideOutput y;
    TRY(group_shape(context->node, x->rank, x->dims, eval_input(context, 1)->count, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_input(context, 1, &scale, err));
    TRY(wide_input(context, 2, &bias, err));
    TRY(wide_output_like(context, 0, x, &y, err));
    for (int64_t g = 0; g < shape.batch * shape.groups; g++) {
        GroupRow row = group_row(&shape, from, g, epsilon);
        for (int64_t i = 0; i < row.count; i++) {
            int64_t at = g * row.count + i, c = scale_index(&shape, at);
            y.data[at] = (row.x[i] - row.mean) * row.inverse * scale[c] + bias[c];
        }
    }
    wide_store(&y);
    return STATUS_OK;
}

/* As for rows (layernorm.c), a row being a group:  dx = inverse * (g - mean(g) - x_hat * mean(g * x_hat)). */
static Status group_norm_grad_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 1), *scale = eval_input(context, 2);
    const double *dy, *from, *scales, epsilon = (double)node_float(context->node, "epsilon", 1e-5f);
    GroupShape shape;
    WideOutput dx, extra[2];
    TRY(group_shape(context->node, x->rank, x->dims, scale->count, &shape, err));
    TRY(wide_input(context, 0, &dy, err));
    TRY(wide_input(context, 1, &from, err));
    TRY(wide_input(context, 2, &scales, err));
    TRY(wide_output_like(context, 0, x, &dx, err));
    for (int i = 0; i < 2; i++) /* claimed also when omitted: then thrown away */
        TRY(wide_output_like(context, i + 1, scale, &extra[i], err));
    for (int64_t g = 0; g < shape.batch * shape.groups; g++) {
        GroupRow row = group_row(&shape, from, g, epsilon);
        double sum = 0, product = 0, count = (double)row.count;
        for (int64_t i = 0; i < row.count; i++) {
            int64_t at = g * row.count + i, c = scale_index(&shape, at);
            double x_hat = (row.x[i] - row.mean) * row.inverse;
            sum += dy[at] * scales[c];
            product += dy[at] * scales[c] * x_hat;
            extra[0].data[c] += dy[at] * x_hat;
            extra[1].data[c] += dy[at];
        }
        for (int64_t i = 0; i < row.count; i++) {
            int64_t at = g * row.count + i;
            double x_hat = (row.x[i] - row.mean) * row.inverse;
            dx.data[at] = row.inverse * (dy[at] * scales[scale_index(&shape, at)] - (sum + x_hat * product) / count);
        }
    }
    wide_store(&dx);
    wide_store(&extra[0]);
    wide_store(&extra[1]);
    return STATUS_OK;
}

static Status group_norm_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    GroupShape shape;
    TRY(group_shape_of(node, &shape, err));
    Value *inputs[] = {context->dy[0], node->inputs[0], node->inputs[1]};
    bool more = context->wants[1] || context->wants[2];
    Node *gradient = build_node(&context->b, DOMAIN_INTERNAL, "GroupNormGrad", inputs, 3, more ? 3 : 1);
    if (gradient == NULL)
        return context->b.status;
    node_set_int(gradient, "num_groups", shape.groups);
    node_set_float(gradient, "epsilon", node_float(node, "epsilon", 1e-5f));
    if (build_finish(&context->b, gradient) == NULL)
        return context->b.status;
    for (int i = 0; i < gradient->output_count; i++)
        if (context->wants[i])
            context->dx[i] = gradient->outputs[i];
    return STATUS_OK;
}

/* ---- written in other operators ---------------------------------------------------------------------------------- */

/* y = (x - mean) / (sqrt(mean of (x - mean)^2) + 1e-9) over `axes`,  MeanVarianceNormalization-13 */
static Status mean_variance_expand(Node *node, Builder *b, Error *err)
{
    static const int64_t usual[] = {0, 2, 3};
    size_t count = 0;
    const int64_t *axes = node_ints(node, "axes", &count);
    Value *x = node->inputs[0];
    if (axes == NULL) {
        axes = usual;
        count = 3;
    }
    for (size_t i = 0; i < count; i++) {
        int axis = 0;
        TRY(axis_normalize(node, axes[i], x->type.rank, &axis, err));
    }
    Value *mean = compose_reduce(b, "ReduceMean", x, axes, count, true);
    Value *centred = mean == NULL ? NULL : build2(b, "Sub", x, mean);
    Value *square = centred == NULL ? NULL : build2(b, "Mul", centred, centred);
    Value *variance = square == NULL ? NULL : compose_reduce(b, "ReduceMean", square, axes, count, true);
    Value *deviation = variance == NULL ? NULL : build1(b, "Sqrt", variance);
    if (deviation != NULL)
        deviation = build2(b, "Add", deviation, build_scalar(b, x->type.dtype, 1e-9));
    Value *y = deviation == NULL ? NULL : build2(b, "Div", centred, deviation);
    if (y != NULL)
        value_replace_uses(node->outputs[0], y);
    return b->status;
}

/* y = x / norm, and 0 where the norm is 0,  LpNormalization-22 */
static Status lp_normalization_expand(Node *node, Builder *b, Error *err)
{
    int64_t p = node_int(node, "p", 2), axis = 0;
    int found = 0;
    Value *x = node->inputs[0];
    if (p != 1 && p != 2)
        return infer_fail(node, err, "attribute p is %lld; 1 and 2 are possible", (long long)p);
    TRY(axis_normalize(node, node_int(node, "axis", -1), x->type.rank, &found, err));
    axis = found;
    Value *norm = compose_reduce(b, p == 1 ? "ReduceL1" : "ReduceL2", x, &axis, 1, true);
    Value *zero = norm == NULL ? NULL : build2(b, "Equal", norm, build_scalar(b, x->type.dtype, 0));
    Value *divisor = zero == NULL ? NULL : build3(b, "Where", zero, build_scalar(b, x->type.dtype, 1), norm);
    Value *y = divisor == NULL ? NULL : build2(b, "Div", x, divisor);
    if (y != NULL)
        value_replace_uses(node->outputs[0], y);
    return b->status;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

const OpDef ops_norm[] = {
    {.name = "InstanceNormalization",
     .since = 1,
     .last = 28,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .traits = OP_ALIKE | OP_FLOATS,
     .max_outputs = 1,
     .infer = group_norm_infer,
     .eval = group_norm_eval,
     .grad = group_norm_grad,
     .prepare = group_norm_prepare},
    /* Opset 18 has scale and bias for each group, 21 for each channel: told apart by their length. */
    {.name = "GroupNormalization",
     .since = 18,
     .last = 28,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .traits = OP_ALIKE | OP_FLOATS,
     .max_outputs = 1,
     .infer = group_norm_infer,
     .eval = group_norm_eval,
     .grad = group_norm_grad,
     .prepare = group_norm_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "GroupNormGrad",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 3,
     .infer = group_norm_grad_infer,
     .eval = group_norm_grad_eval,
     .prepare = group_norm_grad_prepare,
     .no_gradient = "a gradient itself"},
    {.name = "MeanVarianceNormalization",
     .since = 9,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .traits = OP_FLOATS,
     .max_outputs = 1,
     .infer = infer_same,
     .eval = eval_expanded,
     .expand = mean_variance_expand},
    {.name = "LpNormalization",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .traits = OP_FLOATS,
     .max_outputs = 1,
     .infer = infer_same,
     .eval = eval_expanded,
     .expand = lp_normalization_expand},
    {0},
};
