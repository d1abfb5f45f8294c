/* Convolutions that take up what follows them; after autodiff.
 * does: folds a fixed BatchNormalization into a fixed convolution before it, and makes one internal FusedConv of a
 * convolution, the addition of an equally shaped tensor and an activation. needs: inferred shapes. keeps: names of
 * results that something else reads. breaks: a FusedConv has no gradient, so `all` says that gradients are in the
 * graph already, or never will be; else only what no trainable parameter reaches is touched.
 *
 * A result in between must have one reader. That is what keeps gradients right: where one needs an intermediate result,
 * it reads it, and the pattern is not there. */
#include <math.h>
#include <string.h>

#include "passes/passes.h"

static bool is_fixed(const Value *value)
{
    return value != NULL && value->constant != NULL && value->role != ROLE_PARAMETER && value->role != ROLE_STATE;
}

static Node *only_reader(const Value *value)
{
    bool one = value->use_count == 1 && !value->is_output && value->gradient == NULL;
    return one && value->uses[0].node->graph == value->graph ? value->uses[0].node : NULL;
}

static Node *conv_reader(const Node *conv)
{
    return only_reader(conv->outputs[0]);
}

/* The convolution gives `last`'s result, and `last` goes. */
static void take_over(Node *conv, Node *last)
{
    Value *result = last->outputs[0];
    node_set_output(last, 0, NULL);
    node_set_output(conv, 0, NULL);
    node_remove(last);
    node_set_output(conv, 0, result);
}

/* ---- BatchNormalization --------------------------------------------------------------------------------------- */

static Value *new_constant(Graph *graph, const char *stem, Tensor *tensor)
{
    tensor->name = graph_unique_name(graph, stem);
    Value *value = graph_add_initializer(graph, tensor);
    value->role = ROLE_CONSTANT;
    type_set(&value->type, tensor->dtype, tensor->rank, tensor->dims);
    return value;
}

static bool can_fold(const Node *conv, const Node *norm)
{
    bool fits = node_is(norm, "BatchNormalization") && norm->input_count == 5 && is_fixed(conv->inputs[1]) &&
                norm->inputs[0] == conv->outputs[0] && node_int(norm, "training_mode", 0) == 0 &&
                conv->inputs[1]->type.dtype == DTYPE_F32 && (node_input(conv, 2) == NULL || is_fixed(conv->inputs[2]));
    for (int i = 1; i < norm->output_count; i++)
        fits = fits && norm->outputs[i] == NULL;
    for (int i = 1; i < 5 && fits; i++)
        fits = is_fixed(norm->inputs[i]) && norm->inputs[i]->type.dtype == DTYPE_F32 &&
               tensor_count(norm->inputs[i]->constant) == conv->inputs[1]->type.dims[0];
    return fits;
}

/* factor = scale / sqrt(var + epsilon);  w' = w * factor,  b' = (b - mean) * factor + bias  (in double). */
static void fold_batchnorm(Node *conv, Node *norm)
{
    Graph *graph = conv->graph;
    const Tensor *w = conv->inputs[1]->constant, *b = node_input(conv, 2) == NULL ? NULL : conv->inputs[2]->constant;
    double epsilon = (double)node_float(norm, "epsilon", 1e-5f);
    float *weight, *shift;
    Tensor *new_weight = tensor_new(&graph->model->arena, NULL, DTYPE_F32, w->rank, w->dims, (void **)&weight);
    Tensor *new_bias = tensor_new(&graph->model->arena, NULL, DTYPE_F32, 1, w->dims, (void **)&shift);
    memcpy(weight, w->data, new_weight->bytes); /* the file's bytes may lie at any address */
    int64_t channels = w->dims[0], each = channels == 0 ? 0 : tensor_count(w) / channels;
    for (int64_t c = 0; c < channels; c++) {
        double factor =
            tensor_f64_at(norm->inputs[1]->constant, c) / sqrt(tensor_f64_at(norm->inputs[4]->constant, c) + epsilon);
        double before = (b == NULL ? 0 : tensor_f64_at(b, c)) - tensor_f64_at(norm->inputs[3]->constant, c);
        shift[c] = (float)(before * factor + tensor_f64_at(norm->inputs[2]->constant, c));
        for (int64_t i = c * each; i < (c + 1) * each; i++)
            weight[i] = (float)((double)weight[i] * factor);
    }
    node_set_input(conv, 1, new_constant(graph, conv->inputs[1]->name, new_weight));
    node_set_input(conv, 2, new_constant(graph, norm->inputs[2]->name, new_bias));
    take_over(conv, norm);
}

/* ---- residual and activation ------------------------------------------------------------------------------------ */

static void become_fused(Node *conv)
{
    if (strcmp(conv->op_type, "FusedConv") != 0)
        node_set_op(conv, DOMAIN_INTERNAL, "FusedConv", 0);
}

/* The other operand of an addition without broadcasting; NULL when `add` is none. */
static Value *residual_of(const Node *conv, const Node *add)
{
    const Value *y = conv->outputs[0];
    if (!node_is(add, "Add") || add->inputs[0] == add->inputs[1])
        return NULL;
    Value *other = add->inputs[add->inputs[0] == y ? 1 : 0];
    const Type *a = &y->type, *b = &other->type;
    bool same = type_known(a) && type_known(b) && a->dtype == b->dtype && a->rank == b->rank && !is_fixed(other) &&
                memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
    return same ? other : NULL;
}

/* The residual is there when the addition runs, so the convolution moves to its place. */
static void take_residual(Node *conv, Node *add, Value *residual)
{
    become_fused(conv);
    if (node_input(conv, 2) == NULL)
        node_set_input(conv, 2, NULL);
    node_set_input(conv, 3, residual);
    node_move_before(conv, add);
    take_over(conv, add);
}

/* A limit of Clip; `absent` when omitted, NaN when it is not known. */
static double limit_of(const Node *clip, int index, double absent)
{
    const Value *value = node_input(clip, index);
    if (value == NULL)
        return absent;
    return is_fixed(value) && tensor_count(value->constant) == 1 ? tensor_f64_at(value->constant, 0) : NAN;
}

/* Sets the attributes for an activation that a FusedConv knows. */
static bool set_activation(Node *conv, const Node *node)
{
    static const char *const plain[] = {"Relu", "Sigmoid", "Tanh", "HardSwish"};
    double alpha = 0, beta = 0;
    bool known = false;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        known = known || node_is(node, plain[i]);
    if (node_is(node, "LeakyRelu")) {
        alpha = (double)node_float(node, "alpha", 0.01f);
    } else if (node_is(node, "HardSigmoid")) {
        alpha = (double)node_float(node, "alpha", 0.2f);
        beta = (double)node_float(node, "beta", 0.5f);
    } else if (node_is(node, "Clip")) {
        alpha = limit_of(node, 1, -INFINITY);
        beta = limit_of(node, 2, INFINITY);
    } else if (!known && !(node_is(node, "Swish") && node_float(node, "alpha", 1) == 1)) {
        return false;
    }
    if (isnan(alpha) || isnan(beta) || isinf(alpha) || isinf(beta))
        return false;
    become_fused(conv);
    node_set_string(conv, "activation", node->op_type);
    node_set_float(conv, "alpha", (float)alpha);
    node_set_float(conv, "beta", (float)beta);
    return true;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static bool is_trained(const Value *value)
{
    return value != NULL && (value->role == ROLE_PARAMETER || (value->producer != NULL && value->producer->mark == 1));
}

static void fuse_conv(Node *conv, bool all)
{
    Node *next;
    while ((next = conv_reader(conv)) != NULL && node_is(conv, "Conv") && can_fold(conv, next))
        fold_batchnorm(conv, next);
    if (opset_find(conv->graph->model->ops, DOMAIN_INTERNAL, "FusedConv", 0) == NULL ||
        conv->outputs[0]->type.dtype != DTYPE_F32)
        return;
    Value *residual = next == NULL ? NULL : residual_of(conv, next);
    if (residual != NULL && (all || !is_trained(residual)))
        take_residual(conv, next, residual);
    next = conv_reader(conv);
    if (next != NULL && set_activation(conv, next))
        take_over(conv, next);
}

/* Node.mark: 1 after a trainable parameter. Of all nodes first: what is added to a convolution may come after it. */
static void mark_trained(Graph *graph, bool all)
{
    for (Node *node = graph->first; node != NULL; node = node->next) {
        node->mark = 0;
        for (int i = 0; i < node->input_count && !all; i++)
            node->mark |= is_trained(node->inputs[i]);
    }
}

Status pass_fuse_conv(Graph *graph, bool all, Error *err)
{
    mark_trained(graph, all);
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        if (!node_is(node, "Conv") || node->mark != 0)
            continue;
        fuse_conv(node, all);
        next = node->next;
    }
    return pass_clean(graph, err);
}
