/* The loss as nodes of the graph.
 * does: adds a target input and loss nodes for each spec, sums them into one scalar, the last output "loss". Where the
 * output that the loss reads ends in what the loss contains itself (Softmax, LogSoftmax, Sigmoid), it reads what is
 * before. needs: inferred shapes. keeps: all other outputs. Definitions are torch.nn.functional's with reduction
 * "mean". */
#include <string.h>

#include "passes/passes.h"

static Value *behind(Value *value, const char *op_type)
{
    return value->producer != NULL && node_is(value->producer, op_type) ? value->producer->inputs[0] : value;
}

int loss_class_axis(const LossSpec *spec, const Type *scores)
{
    return spec->kind == LOSS_LM ? scores->rank - 1 : scores->rank > 1 ? 1 : 0;
}

/* What is before a Softmax or LogSoftmax over the classes; one over another axis is part of the model. */
static Value *behind_softmax(const LossSpec *spec, Value *value, const char *op_type)
{
    Value *before = behind(value, op_type);
    if (before == value || !type_known(&value->type))
        return value;
    int64_t axis = node_int(value->producer, "axis", -1);
    return (axis < 0 ? axis + value->type.rank : axis) == loss_class_axis(spec, &value->type) ? before : value;
}

static Value *logits_of(const LossSpec *spec, Value *output)
{
    switch (spec->kind) {
    case LOSS_SOFTMAX_CE:
    case LOSS_LM:
    case LOSS_DICE:
        return behind_softmax(spec, behind_softmax(spec, output, "Softmax"), "LogSoftmax");
    case LOSS_BCE:
        return behind(output, "Sigmoid");
    case LOSS_MSE:
    case LOSS_L1:
    case LOSS_HUBER:
    case LOSS_LINEAR:
        return output;
    }
    return output;
}

static Value *add_target(Graph *graph, const LossSpec *spec, const Type *logits)
{
    Value *target = graph_add_value(graph, spec->target_name == NULL ? "target" : spec->target_name);
    int64_t dims[RANK_MAX];
    int rank = 0;
    bool classes = spec->kind == LOSS_SOFTMAX_CE || spec->kind == LOSS_LM || spec->kind == LOSS_DICE;
    for (int i = 0; i < logits->rank; i++)
        if (!classes || i != loss_class_axis(spec, logits))
            dims[rank++] = logits->dims[i];
    type_set(&target->type, classes ? DTYPE_I64 : DTYPE_F32, rank, dims);
    target->role = ROLE_INPUT;
    graph_add_input(graph, target);
    return target;
}

static Value *mean_all(Builder *b, Value *x)
{
    Node *node = build_node(b, "", "ReduceMean", &x, 1, 1);
    if (node != NULL)
        node_set_int(node, "keepdims", 0);
    return build_finish(b, node);
}

static Value *sum_all(Builder *b, Value *x)
{
    Node *node = build_node(b, "", "ReduceSum", &x, 1, 1);
    if (node != NULL)
        node_set_int(node, "keepdims", 0);
    return build_finish(b, node);
}

static Value *cross_entropy(Builder *b, const LossSpec *spec, Value *logits, Value *target)
{
    int64_t axis = loss_class_axis(spec, &logits->type);
    int64_t classes = logits->type.dims[axis];
    Value *weights = NULL;
    if (spec->class_weights != NULL) {
        void *data;
        Tensor *tensor = tensor_new(&b->graph->model->arena, NULL, DTYPE_F32, 1, &classes, &data);
        memcpy(data, spec->class_weights, (size_t)classes * sizeof(float));
        weights = build_constant(b, tensor);
    }
    Node *node = build_node(b, DOMAIN_INTERNAL, "SoftmaxCrossEntropyLoss", (Value *[]){logits, target, weights}, 3, 1);
    if (node == NULL)
        return NULL;
    node_set_int(node, "axis", axis);
    node_set_int(node, "ignore_index", spec->ignore_index);
    node_set_float(node, "label_smoothing", (float)spec->label_smoothing);
    return build_finish(b, node);
}

/* |d| < delta: d^2 / 2; else delta (|d| - delta / 2) */
static Value *huber(Builder *b, const LossSpec *spec, Value *difference)
{
    DType dtype = difference->type.dtype;
    double delta = spec->delta > 0 ? spec->delta : 1;
    Value *size = build1(b, "Abs", difference), *half = build_scalar(b, dtype, 0.5),
          *limit = build_scalar(b, dtype, delta);
    Value *square = build2(b, "Mul", half, build2(b, "Mul", difference, difference));
    Value *line = build2(b, "Mul", limit, build2(b, "Sub", size, build_scalar(b, dtype, delta / 2)));
    return mean_all(b, build3(b, "Where", build2(b, "Less", size, limit), square, line));
}

static Value *reduce_sum(Builder *b, Value *x, const int64_t *axes, size_t count)
{
    Node *node = build_node(b, "", "ReduceSum", (Value *[]){x, build_ints(b, axes, count)}, 2, 1);
    if (node != NULL)
        node_set_int(node, "keepdims", 0);
    return build_finish(b, node);
}

/* 1 - mean over samples and classes of (2 sum p t + 1) / (sum p + sum t + 1), p = softmax over axis 1, t one-hot
 * (Milletari et al., V-Net, 2016; +1 against empty classes). Where the target is the index to ignore, p and t are 0. */
static Value *dice(Builder *b, const LossSpec *spec, Value *logits, Value *target)
{
    const Type *type = &logits->type;
    int64_t axes[RANK_MAX];
    size_t spatial = 0;
    for (int i = 2; i < type->rank; i++)
        axes[spatial++] = i;
    Node *softmax = build_node(b, "", "Softmax", &logits, 1, 1);
    if (softmax != NULL)
        node_set_int(softmax, "axis", 1);
    Value *p = build_finish(b, softmax);
    const float levels[] = {0, 1};
    void *data;
    Tensor *values = tensor_new(&b->graph->model->arena, NULL, type->dtype, 1, (const int64_t[]){2}, &data);
    memcpy(data, levels, sizeof levels);
    Value *depth = build_ints(b, &type->dims[1], 1);
    Node *classes = build_node(b, DOMAIN_INTERNAL, "ClassTargets", (Value *[]){logits, target}, 2, 1);
    if (classes != NULL)
        node_set_int(classes, "ignore_index", spec->ignore_index);
    target = build_finish(b, classes);
    Node *one_hot = build_node(b, "", "OneHot", (Value *[]){target, depth, build_constant(b, values)}, 3, 1);
    if (one_hot != NULL)
        node_set_int(one_hot, "axis", 1);
    Value *ignored = build2(b, "Equal", target, build_scalar(b, DTYPE_I64, (double)spec->ignore_index));
    ignored = build2(b, "Unsqueeze", ignored, build_ints(b, (const int64_t[]){1}, 1));
    Value *zero = build_scalar(b, type->dtype, 0);
    p = build3(b, "Where", ignored, zero, p);
    Value *t = build3(b, "Where", ignored, zero, build_finish(b, one_hot)), *one = build_scalar(b, type->dtype, 1),
          *two = build_scalar(b, type->dtype, 2);
    Value *both = reduce_sum(b, build2(b, "Mul", p, t), axes, spatial);
    Value *sizes = build2(b, "Add", reduce_sum(b, p, axes, spatial), reduce_sum(b, t, axes, spatial));
    Value *ratio = build2(b, "Div", build2(b, "Add", build2(b, "Mul", two, both), one), build2(b, "Add", sizes, one));
    return build2(b, "Sub", one, mean_all(b, ratio));
}

static Value *one_loss(Builder *b, const LossSpec *spec, Value *logits, Value *target)
{
    switch (spec->kind) {
    case LOSS_SOFTMAX_CE:
    case LOSS_LM:
        return cross_entropy(b, spec, logits, target);
    case LOSS_BCE:
        return build_finish(b, build_node(b, DOMAIN_INTERNAL, "BCEWithLogitsLoss", (Value *[]){logits, target}, 2, 1));
    case LOSS_DICE:
        return dice(b, spec, logits, target);
    case LOSS_LINEAR:
        return sum_all(b, build2(b, "Mul", logits, target));
    case LOSS_MSE:
    case LOSS_L1:
    case LOSS_HUBER:
        break;
    }
    Value *difference = build2(b, "Sub", logits, target);
    if (spec->kind == LOSS_HUBER)
        return huber(b, spec, difference);
    return mean_all(b, spec->kind == LOSS_L1 ? build1(b, "Abs", difference) : build2(b, "Mul", difference, difference));
}

/* Names the first node after which shapes are unknown: an operator without a row, or one whose shape depends on data.
 */
static Status no_shape(const Graph *graph, const Value *logits, Error *err)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        bool known = true;
        for (int i = 0; i < node->output_count; i++)
            known = known && (node->outputs[i] == NULL || type_known(&node->outputs[i]->type));
        if (known)
            continue;
        if (node->op == NULL)
            return node_refuse(node, err);
        return fail(err, STATUS_UNSUPPORTED, "no loss can read output '%s': the shape of %s depends on data",
                    logits->name, node_text(node));
    }
    return fail(err, STATUS_UNSUPPORTED, "no loss can read output '%s': it is one number, not a tensor", logits->name);
}

Status pass_loss(Graph *graph, const LossSpec *losses, size_t count, Value **loss, Error *err)
{
    Builder b = builder_at(graph, NULL, "loss", err);
    Value *sum = NULL;
    size_t outputs = graph->output_count;
    for (size_t i = 0; i < count; i++) {
        if (losses[i].output >= outputs)
            return fail(err, STATUS_USAGE, "loss %zu reads output %zu, the model has %zu", i, losses[i].output,
                        outputs);
        Value *logits = logits_of(&losses[i], graph->outputs[losses[i].output]);
        if (!type_known(&logits->type) || logits->type.rank == 0)
            return no_shape(graph, logits, err);
        Value *term = one_loss(&b, &losses[i], logits, add_target(graph, &losses[i], &logits->type));
        if (losses[i].weight != 1 && term != NULL)
            term = build2(&b, "Mul", term, build_scalar(&b, term->type.dtype, losses[i].weight));
        sum = sum == NULL ? term : build2(&b, "Add", sum, term);
        TRY(b.status);
    }
    if (sum == NULL)
        return fail(err, STATUS_USAGE, "no loss was given");
    graph_add_output(graph, sum);
    *loss = sum;
    return STATUS_OK;
}
