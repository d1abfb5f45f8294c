/* Family: convolutions. Conv and ConvTranspose, their gradients as internal rows, and fused forms.
 *
 * Internal rows (domain ai.regraft), attributes as Conv's with explicit pads:
 *     ConvGradInput(dy, w)   x_shape          dx
 *     ConvGradWeight(x, dy)  w_shape          dw [, db]
 *     ChannelSum(dy)                          sum over all dims but 1: the gradient of a bias alone
 *     FusedConv(x, w, b, residual)            activation(conv + b + residual), for frozen trunks
 * The sums are in conv_wide.c, the kernels in conv_kernel.c. */
#include "runtime/ops/conv.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/wide.h"

/* ---- infer --------------------------------------------------------------------------------------------------- */

static Status check_bias(const Node *node, int index, int64_t channels, Error *err)
{
    const Value *bias = node_input(node, index);
    if (bias != NULL && (bias->type.rank != 1 || bias->type.dims[0] != channels))
        return infer_fail(node, err, "bias %s where [%lld] is expected",
                          type_text(&node->graph->model->arena, &bias->type), (long long)channels);
    return STATUS_OK;
}

static Status conv_infer(Node *node, Error *err)
{
    ConvShape shape;
    int64_t dims[RANK_MAX];
    TRY(conv_shape_of(node, &shape, err));
    TRY(check_bias(node, 2, shape.out_channels, err));
    conv_shape_y(&shape, dims);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, node->inputs[0]->type.rank, dims);
    return STATUS_OK;
}

static Status conv_transpose_infer(Node *node, Error *err)
{
    ConvShape shape;
    int64_t dims[RANK_MAX];
    TRY(conv_shape_of(node, &shape, err));
    TRY(check_bias(node, 2, shape.in_channels, err));
    conv_shape_x(&shape, dims);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, node->inputs[0]->type.rank, dims);
    return STATUS_OK;
}

/* The gradient that a row is given must have the shape of the convolution's output. */
static Status check_gradient(const Node *node, const ConvShape *shape, int index, Error *err)
{
    int64_t dims[RANK_MAX];
    const Type *type = &node->inputs[index]->type;
    conv_shape_y(shape, dims);
    if (memcmp(dims, type->dims, (size_t)type->rank * sizeof dims[0]) != 0)
        return infer_fail(node, err, "gradient %s where %s is expected", type_text(&node->graph->model->arena, type),
                          dims_text(&node->graph->model->arena, type->rank, dims));
    return STATUS_OK;
}

static Status conv_grad_input_infer(Node *node, Error *err)
{
    ConvShape shape;
    int64_t dims[RANK_MAX];
    TRY(conv_shape_of(node, &shape, err));
    TRY(check_gradient(node, &shape, 0, err));
    conv_shape_x(&shape, dims);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, node->inputs[0]->type.rank, dims);
    return STATUS_OK;
}

static Status conv_grad_weight_infer(Node *node, Error *err)
{
    ConvShape shape;
    int64_t dims[RANK_MAX];
    TRY(conv_shape_of(node, &shape, err));
    TRY(check_gradient(node, &shape, 1, err));
    conv_shape_w(&shape, dims);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, node->inputs[0]->type.rank, dims);
    if (node_output(node, 1) != NULL)
        type_set(&node->outputs[1]->type, node->inputs[0]->type.dtype, 1, &shape.out_channels);
    return STATUS_OK;
}

static Status channel_sum_infer(Node *node, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    if (type->rank < 2)
        return infer_fail(node, err, "input of rank %d has no channels", type->rank);
    type_set(&node->outputs[0]->type, type->dtype, 1, &type->dims[1]);
    return STATUS_OK;
}

/* ---- eval ---------------------------------------------------------------------------------------------------- */

typedef enum Activation {
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_LEAKY_RELU,
    ACTIVATION_CLIP,
    ACTIVATION_SIGMOID,
    ACTIVATION_TANH,
    ACTIVATION_HARD_SIGMOID,
    ACTIVATION_HARD_SWISH,
    ACTIVATION_SWISH
} Activation;

static double activate(Activation kind, double alpha, double beta, double x)
{
    switch (kind) {
    case ACTIVATION_NONE:
        return x;
    case ACTIVATION_RELU:
        return fmax(x, 0);
    case ACTIVATION_LEAKY_RELU:
        return x < 0 ? alpha * x : x;
    case ACTIVATION_CLIP:
        return fmin(fmax(x, alpha), beta);
    case ACTIVATION_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACTIVATION_TANH:
        return tanh(x);
    case ACTIVATION_HARD_SIGMOID:
        return fmin(fmax(alpha * x + beta, 0), 1);
    case ACTIVATION_HARD_SWISH:
        return x * fmin(fmax(x / 6 + 0.5, 0), 1);
    case ACTIVATION_SWISH:
        return x / (1 + exp(-x));
    }
    return x;
}

static Status activation_read(const Node *node, Activation *kind, Error *err)
{
    static const char *const names[] = {"",     "Relu",        "LeakyRelu", "Clip", "Sigmoid",
                                        "Tanh", "HardSigmoid", "HardSwish", "Swish"};
    const char *name = node_string(node, "activation", "");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *kind = (Activation)i;
            return STATUS_OK;
        }
    }
    return infer_fail(node, err, "activation '%s' is not one this build can fuse", name);
}

static Status conv_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0), *w = eval_input(context, 1);
    const double *from, *weights, *bias;
    int64_t dims[RANK_MAX];
    ConvShape shape;
    WideOutput y;
    TRY(conv_shape(context->node, x->rank, x->dims, w->dims, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_input(context, 1, &weights, err));
    TRY(wide_input(context, 2, &bias, err));
    conv_shape_y(&shape, dims);
    TRY(wide_output(context, 0, x->dtype, x->rank, dims, &y, err));
    conv_wide_forward(&shape, from, weights, y.data);
    if (bias != NULL)
        conv_wide_bias(shape.batch, shape.out_channels, shape.window.out_count, bias, y.data);
    if (strcmp(context->node->op_type, "FusedConv") == 0) {
        const double *residual;
        Activation kind = ACTIVATION_NONE;
        TRY(wide_input(context, 3, &residual, err));
        TRY(activation_read(context->node, &kind, err));
        double alpha = node_float(context->node, "alpha", 0), beta = node_float(context->node, "beta", 0);
        for (int64_t i = 0; i < y.array->count; i++)
            y.data[i] = activate(kind, alpha, beta, y.data[i] + (residual != NULL ? residual[i] : 0));
    }
    wide_store(&y);
    return STATUS_OK;
}

/* ConvTranspose(x, w, b) and ConvGradInput(dy, w) are the same sum. */
static Status conv_input_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const Array *dy = eval_input(context, 0), *w = eval_input(context, 1);
    const double *from, *weights, *bias;
    int64_t dims[RANK_MAX];
    size_t count = 0;
    ConvShape shape;
    WideOutput dx;
    if (strcmp(node->op_type, "ConvTranspose") == 0)
        TRY(conv_shape_transposed(node, dy->rank, dy->dims, w->dims, &shape, err));
    else
        TRY(conv_shape(node, dy->rank, node_ints(node, "x_shape", &count), w->dims, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_input(context, 1, &weights, err));
    TRY(wide_input(context, 2, &bias, err));
    conv_shape_x(&shape, dims);
    TRY(wide_output(context, 0, dy->dtype, dy->rank, dims, &dx, err));
    conv_wide_input(&shape, from, weights, dx.data);
    if (bias != NULL)
        conv_wide_bias(shape.batch, shape.in_channels, shape.window.in_count, bias, dx.data);
    wide_store(&dx);
    return STATUS_OK;
}

/* sum[c] += over n, p of y[n, c, p] */
static void channel_sum(int64_t batch, int64_t channels, int64_t spatial, const double *y, double *sum)
{
    for (int64_t nc = 0; nc < batch * channels; nc++)
        for (int64_t i = 0; i < spatial; i++)
            sum[nc % channels] += y[nc * spatial + i];
}

static Status conv_weight_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *from, *dy;
    int64_t dims[RANK_MAX];
    size_t count = 0;
    ConvShape shape;
    WideOutput dw, db;
    TRY(conv_shape(context->node, x->rank, x->dims, node_ints(context->node, "w_shape", &count), &shape, err));
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_input(context, 1, &dy, err));
    conv_shape_w(&shape, dims);
    TRY(wide_output(context, 0, x->dtype, x->rank, dims, &dw, err));
    conv_wide_weights(&shape, from, dy, dw.data);
    wide_store(&dw);
    if (context->out_count < 2)
        return STATUS_OK;
    TRY(wide_output(context, 1, x->dtype, 1, &shape.out_channels, &db, err));
    channel_sum(shape.batch, shape.out_channels, shape.window.out_count, dy, db.data);
    wide_store(&db);
    return STATUS_OK;
}

static Status channel_sum_eval(EvalContext *context, Error *err)
{
    const Array *y = eval_input(context, 0);
    const double *from;
    WideOutput sum;
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_output(context, 0, y->dtype, 1, &y->dims[1], &sum, err));
    channel_sum(y->dims[0], y->dims[1], dims_count(y->rank - 2, y->dims + 2), from, sum.data);
    wide_store(&sum);
    return STATUS_OK;
}

/* ---- grad ---------------------------------------------------------------------------------------------------- */

static void write_shape(const ConvShape *shape, Node *node)
{
    window_write(&shape->window, node);
    node_set_int(node, "group", shape->groups);
}

/* One of the three directions as a node; attribute `attr` (may be NULL) says the shape its inputs do not. */
static Value *build_direction(Builder *b, const ConvShape *shape, const char *op_type, Value *first, Value *second,
                              const char *attr, int output_count)
{
    Value *inputs[] = {first, second};
    int64_t dims[RANK_MAX];
    bool plain = strcmp(op_type, "Conv") == 0;
    Node *node = build_node(b, plain ? "" : DOMAIN_INTERNAL, op_type, inputs, 2, output_count);
    if (node == NULL)
        return NULL;
    write_shape(shape, node);
    if (attr != NULL) {
        if (attr[0] == 'x')
            conv_shape_x(shape, dims);
        else
            conv_shape_w(shape, dims);
        node_set_ints(node, attr, dims, (size_t)shape->window.rank + 2);
    }
    return build_finish(b, node);
}

static Value *build_channel_sum(Builder *b, Value *x)
{
    Node *node = build_node(b, DOMAIN_INTERNAL, "ChannelSum", &x, 1, 1);
    return node == NULL ? NULL : build_finish(b, node);
}

static Status conv_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    Value *dy = context->dy[0], *x = node->inputs[0], *w = node->inputs[1];
    bool wants_bias = node_input(node, 2) != NULL && context->wants[2];
    ConvShape shape;
    TRY(conv_shape_of(node, &shape, err));
    if (context->wants[1]) {
        Value *dw = build_direction(&context->b, &shape, "ConvGradWeight", x, dy, "w_shape", wants_bias ? 2 : 1);
        context->dx[1] = dw;
        if (wants_bias && dw != NULL)
            context->dx[2] = dw->producer->outputs[1];
    } else if (wants_bias) {
        context->dx[2] = build_channel_sum(&context->b, dy);
    }
    if (context->wants[0])
        context->dx[0] = build_direction(&context->b, &shape, "ConvGradInput", dy, w, "x_shape", 1);
    return context->b.status;
}

/* y = ConvTranspose(x, w) is the input gradient of a convolution whose output gradient is x; so dx is that convolution
 * of dy, and in dw x and dy change places. */
static Status conv_transpose_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    Value *dy = context->dy[0], *x = node->inputs[0], *w = node->inputs[1];
    ConvShape shape;
    TRY(conv_shape_of(node, &shape, err));
    if (context->wants[1])
        context->dx[1] = build_direction(&context->b, &shape, "ConvGradWeight", dy, x, "w_shape", 1);
    if (node_input(node, 2) != NULL && context->wants[2])
        context->dx[2] = build_channel_sum(&context->b, dy);
    if (context->wants[0])
        context->dx[0] = build_direction(&context->b, &shape, "Conv", dy, w, NULL, 1);
    return context->b.status;
}

/* ---- com.microsoft FusedConv: Conv, Add, activation ------------------------------------------------------------ */

static Value *expand_activation(Builder *b, const Node *fused, Value *x)
{
    static const char *const plain[] = {"Relu", "Sigmoid", "Tanh"};
    const char *name = node_string(fused, "activation", "");
    size_t count = 0;
    const float *params = node_floats(fused, "activation_params", &count);
    for (int i = 0; i < 3; i++)
        if (strcmp(name, plain[i]) == 0)
            return build1(b, name, x);
    if (strcmp(name, "Clip") == 0 && count == 2)
        return build3(b, "Clip", x, build_scalar(b, x->type.dtype, (double)params[0]),
                      build_scalar(b, x->type.dtype, (double)params[1]));
    Node *node = build_node(b, "", name, &x, 1, 1);
    if (node == NULL)
        return NULL;
    if (count > 0)
        node_set_float(node, "alpha", params[0]);
    if (count > 1)
        node_set_float(node, "beta", params[1]);
    return build_finish(b, node);
}

static Status microsoft_conv_infer(Node *node, Error *err)
{
    TRY(conv_infer(node, err));
    const Type *y = &node->outputs[0]->type;
    const Value *z = node_input(node, 3);
    if (z != NULL &&
        (z->type.rank != y->rank || memcmp(z->type.dims, y->dims, (size_t)y->rank * sizeof y->dims[0]) != 0))
        return infer_fail(node, err, "adds %s to a result of %s", type_text(&node->graph->model->arena, &z->type),
                          type_text(&node->graph->model->arena, y));
    return STATUS_OK;
}

static Status fused_conv_expand(Node *node, Builder *b, Error *err)
{
    const char *activation = node_string(node, "activation", "");
    static const char *const known[] = {"", "Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "HardSigmoid"};
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        found = found || strcmp(activation, known[i]) == 0;
    if (!found)
        return infer_fail(node, err, "activation '%s' is unknown", activation);
    Value *inputs[] = {node->inputs[0], node->inputs[1], node_input(node, 2)};
    Node *conv = build_node(b, "", "Conv", inputs, inputs[2] != NULL ? 3 : 2, 1);
    if (conv == NULL)
        return b->status;
    node_copy_attrs(conv, node);
    node_remove_attr(conv, "activation");
    node_remove_attr(conv, "activation_params");
    Value *y = build_finish(b, conv);
    if (y != NULL && node_input(node, 3) != NULL)
        y = build2(b, "Add", y, node->inputs[3]);
    if (y != NULL && activation[0] != '\0')
        y = expand_activation(b, node, y);
    if (y != NULL)
        value_replace_uses(node->outputs[0], y);
    return b->status;
}

/* ---- CausalConvWithState: Concat, depthwise Conv, activation, Slice --------------------------------------------- */

static Status causal_conv_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *w = &node->inputs[1]->type;
    if (x->rank != 3 || w->rank != 3 || w->dims[0] != x->dims[1] || w->dims[1] != 1 || w->dims[2] < 1)
        return infer_fail(node, err, "input %s with weights %s", type_text(&node->graph->model->arena, x),
                          type_text(&node->graph->model->arena, w));
    const int64_t state[] = {x->dims[0], x->dims[1], w->dims[2] - 1};
    const Value *past = node_input(node, 3);
    if (past != NULL && (past->type.rank != 3 || memcmp(past->type.dims, state, sizeof state) != 0))
        return infer_fail(node, err, "a state of %s, %s expected", type_text(&node->graph->model->arena, &past->type),
                          dims_text(&node->graph->model->arena, 3, state));
    node->outputs[0]->type = *x;
    if (node_output(node, 1) != NULL)
        type_set(&node->outputs[1]->type, x->dtype, 3, state);
    return STATUS_OK;
}

/* The input behind what came before it: [N, C, k-1 + L]. */
static Value *causal_padded(Builder *b, const Node *node, int64_t before)
{
    Value *x = node->inputs[0], *state = node_input(node, 3);
    Type type = x->type;
    if (before == 0)
        return x;
    type.dims[2] = before;
    Value *parts[] = {state != NULL ? state : build_zeros(b, &type), x};
    return compose_concat(b, parts, 2, 2);
}

static Status causal_conv_expand(Node *node, Builder *b, Error *err)
{
    const char *activation = node_string(node, "activation", "none");
    const Type *x = &node->inputs[0]->type;
    int64_t before = node->inputs[1]->type.dims[2] - 1;
    bool swish = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0;
    if (!swish && strcmp(activation, "none") != 0)
        return infer_fail(node, err, "activation '%s' is unknown", activation);
    Value *padded = causal_padded(b, node, before);
    Value *inputs[] = {padded, node->inputs[1], node_input(node, 2)};
    Node *conv = build_node(b, "", "Conv", inputs, inputs[2] != NULL ? 3 : 2, 1);
    if (conv == NULL)
        return b->status;
    node_set_int(conv, "group", x->dims[1]);
    Value *y = build_finish(b, conv);
    if (y != NULL && swish)
        y = build2(b, "Mul", y, build1(b, "Sigmoid", y));
    Value *state = node_output(node, 1);
    Value *kept = state == NULL ? NULL : compose_slice(b, padded, 2, x->dims[2], x->dims[2] + before);
    if (y != NULL)
        value_replace_uses(node->outputs[0], y);
    if (kept != NULL)
        value_replace_uses(state, kept);
    return b->status;
}

/* ---- cost ---------------------------------------------------------------------------------------------------- */

/* Every direction multiplies each output position with each weight that reaches it. */
static double conv_flops(const Node *node)
{
    ConvShape shape;
    Error ignored = {0};
    int64_t y[RANK_MAX], w[RANK_MAX];
    if (conv_shape_of(node, &shape, &ignored) != STATUS_OK)
        return 0;
    conv_shape_y(&shape, y);
    conv_shape_w(&shape, w);
    int rank = node->inputs[0]->type.rank;
    return 2 * (double)dims_count(rank, y) * (double)dims_count(rank - 1, w + 1);
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

const OpDef ops_conv[] = {
    {.name = "Conv",
     .since = 1,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = conv_infer,
     .eval = conv_eval,
     .grad = conv_grad,
     .flops = conv_flops,
     .prepare = conv_prepare},
    {.name = "ConvTranspose",
     .since = 1,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = conv_transpose_infer,
     .eval = conv_input_eval,
     .grad = conv_transpose_grad,
     .flops = conv_flops,
     .prepare = conv_transpose_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "ConvGradInput",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = conv_grad_input_infer,
     .eval = conv_input_eval,
     .flops = conv_flops,
     .prepare = conv_grad_input_prepare,
     .no_gradient = "a gradient itself"},
    {.domain = DOMAIN_INTERNAL,
     .name = "ConvGradWeight",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 2,
     .infer = conv_grad_weight_infer,
     .eval = conv_weight_eval,
     .flops = conv_flops,
     .prepare = conv_grad_weight_prepare,
     .no_gradient = "a gradient itself"},
    {.domain = DOMAIN_INTERNAL,
     .name = "ChannelSum",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = channel_sum_infer,
     .eval = channel_sum_eval,
     .prepare = channel_sum_prepare,
     .no_gradient = "a gradient itself"},
    {.domain = DOMAIN_INTERNAL,
     .name = "FusedConv",
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = conv_infer,
     .eval = conv_eval,
     .flops = conv_flops,
     .prepare = fused_conv_prepare,
     .no_gradient = "made after autodiff, of frozen parts only"},
    {.name = "CausalConvWithState",
     .since = 27,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 2,
     .infer = causal_conv_infer,
     .eval = eval_expanded,
     .expand = causal_conv_expand},
    {.domain = "com.microsoft",
     .name = "FusedConv",
     .since = 1,
     .last = 1,
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = microsoft_conv_infer,
     .eval = eval_expanded,
     .expand = fused_conv_expand},
    {0},
};
