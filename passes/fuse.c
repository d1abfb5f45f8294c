/* Patterns that are one operator, with a gradient of its own; before autodiff.
 * does: recognises what exporters wrote out (GELU by erf and by tanh, LayerNormalization, RMSNormalization, x
 * sigmoid(x), x tanh(softplus(x)), hard swish, log of softmax) and training BatchNorm before an activation. Each is
 * replaced only when the operator has a row. needs: inferred shapes, newest forms. keeps: names of results that
 * something else reads. breaks: nothing; what the pattern leaves behind is dead and goes with pass_clean.
 *
 * A matcher starts at the one node that gives the pattern away (Erf, Sqrt, Sigmoid ...) and finds the rest around it.
 */
#include <math.h>
#include <string.h>

#include "passes/passes.h"

/* ---- looking around a node -------------------------------------------------------------------------------- */

static Node *producer_of(const Value *value, const char *op_type)
{
    return value != NULL && value->producer != NULL && node_is(value->producer, op_type) ? value->producer : NULL;
}

/* The only reader of `value`, when it is an `op_type`. */
static Node *reader_of(const Value *value, const char *op_type)
{
    bool one =
        value != NULL && value->use_count == 1 && !value->is_output && value->graph == value->uses[0].node->graph;
    return one && node_is(value->uses[0].node, op_type) ? value->uses[0].node : NULL;
}

/* Of a node with two inputs, the one that is not `value`; NULL when it is not one of them. */
static Value *other_input(const Node *node, const Value *value)
{
    if (node == NULL || node->input_count != 2)
        return NULL;
    return node->inputs[0] == value ? node->inputs[1] : node->inputs[1] == value ? node->inputs[0] : NULL;
}

/* The number a fixed value of one element holds; NaN when it is something else. */
static double number_of(const Value *value)
{
    bool fixed = value != NULL && value->constant != NULL && value->role != ROLE_PARAMETER && value->role != ROLE_STATE;
    return fixed && dtype_is_float(value->type.dtype) && tensor_count(value->constant) == 1
               ? tensor_f64_at(value->constant, 0)
               : NAN;
}

/* Exporters round constants to what their float type or their author held: four digits say enough. */
static bool is_number(const Value *value, double expected)
{
    return fabs(number_of(value) - expected) <= 5e-4 * fabs(expected);
}

/* x in x * factor or factor * x. */
static Value *scaled(const Node *node, double factor)
{
    if (node == NULL || node->input_count != 2)
        return NULL;
    return is_number(node->inputs[1], factor)   ? node->inputs[0]
           : is_number(node->inputs[0], factor) ? node->inputs[1]
                                                : NULL;
}

static bool same_shape(const Value *a, const Value *b)
{
    return type_known(&a->type) && type_known(&b->type) && a->type.rank == b->type.rank &&
           (a->type.rank == 0 ||
            memcmp(a->type.dims, b->type.dims, (size_t)a->type.rank * sizeof a->type.dims[0]) == 0);
}

/* ---- replacing ---------------------------------------------------------------------------------------------- */

typedef struct Fuser {
    Graph *graph;
    Error *err;
} Fuser;

/* `last` becomes `op_type` of these inputs: the new node stands in its place and gives its output. NULL when the
 * operator has no row. */
static Node *replace(const Fuser *f, Node *last, const char *op_type, Value *const *inputs, int count)
{
    Value *result = last->outputs[0];
    if (opset_find(f->graph->model->ops, "", op_type, OPSET_NEWEST) == NULL || !same_shape(inputs[0], result))
        return NULL;
    Node *node = graph_add_node(f->graph, last, "", op_type, OPSET_NEWEST, last->name, inputs, count, 0);
    node->document_node = last->document_node;
    node_set_output(last, 0, NULL);
    node_set_output(node, 0, result);
    node_remove(last);
    return node;
}

/* ---- GELU (Hendrycks & Gimpel 2016) ------------------------------------------------------------------------- */

/* The node whose result is factor * x * 0.5, however the three are associated. */
static Node *half_product(const Value *factor, const Value *x)
{
    bool needs_x = true, needs_half = true;
    const Value *at = factor;
    while (needs_x || needs_half) {
        Node *product = reader_of(at, "Mul");
        const Value *other = other_input(product, at);
        if (other == NULL)
            return NULL;
        if (other == x && needs_x)
            needs_x = false;
        else if (is_number(other, 0.5) && needs_half)
            needs_half = false;
        else if (needs_x && needs_half && scaled(producer_of(other, "Mul"), 0.5) == x)
            needs_x = needs_half = false;
        else
            return NULL;
        at = product->outputs[0];
    }
    return at->producer;
}

/* 0.5 x (1 + erf(x / sqrt 2)) */
static Node *fuse_gelu_erf(const Fuser *f, Node *erf)
{
    const Value *inside = erf->inputs[0];
    Node *divide = producer_of(inside, "Div");
    Value *x = divide != NULL && is_number(divide->inputs[1], 1.4142135623730951)
                   ? divide->inputs[0]
                   : scaled(producer_of(inside, "Mul"), 0.7071067811865476);
    Node *plus = reader_of(erf->outputs[0], "Add");
    if (x == NULL || plus == NULL || !is_number(other_input(plus, erf->outputs[0]), 1))
        return NULL;
    Node *last = half_product(plus->outputs[0], x);
    return last == NULL ? NULL : replace(f, last, "Gelu", &x, 1);
}

/* x in x^3. */
static Value *cubed(const Value *value)
{
    const Node *power = producer_of(value, "Pow"), *product = producer_of(value, "Mul");
    if (power != NULL)
        return is_number(power->inputs[1], 3) ? power->inputs[0] : NULL;
    for (int i = 0; product != NULL && i < 2; i++) {
        const Node *square = producer_of(product->inputs[i], "Mul");
        Value *x = product->inputs[1 - i];
        if (square != NULL && square->inputs[0] == x && square->inputs[1] == x)
            return x;
    }
    return NULL;
}

/* x in x + 0.044715 x^3. */
static Value *gelu_polynomial(const Node *sum)
{
    for (int i = 0; sum != NULL && i < 2; i++) {
        const Value *cube = scaled(producer_of(sum->inputs[i], "Mul"), 0.044715);
        Value *x = sum->inputs[1 - i];
        if (cube != NULL && cubed(cube) == x)
            return x;
    }
    return NULL;
}

/* x in 1 + 0.044715 x x, as (0.044715 x) x or 0.044715 (x x). */
static bool is_gelu_factor(const Node *sum, const Value *x)
{
    const Value *rest = scaled(sum, 1);
    const Node *product = producer_of(rest, "Mul");
    if (product == NULL)
        return false;
    const Value *inner = other_input(product, x);
    if (inner != NULL && scaled(producer_of(inner, "Mul"), 0.044715) == x)
        return true;
    const Node *square = producer_of(scaled(product, 0.044715), "Mul");
    return square != NULL && square->inputs[0] == x && square->inputs[1] == x;
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static Node *fuse_gelu_tanh(const Fuser *f, Node *tanh)
{
    const double root = 0.7978845608028654; /* sqrt(2 / pi) */
    const Node *product = producer_of(tanh->inputs[0], "Mul");
    Node *plus = reader_of(tanh->outputs[0], "Add");
    if (product == NULL || plus == NULL || !is_number(other_input(plus, tanh->outputs[0]), 1))
        return NULL;
    Value *x = gelu_polynomial(producer_of(scaled(product, root), "Add"));
    for (int i = 0; x == NULL && i < 2; i++) {
        Value *candidate = scaled(producer_of(product->inputs[i], "Mul"), root);
        if (candidate != NULL && is_gelu_factor(producer_of(product->inputs[1 - i], "Add"), candidate))
            x = candidate;
    }
    Node *last = x == NULL ? NULL : half_product(plus->outputs[0], x);
    Node *gelu = last == NULL ? NULL : replace(f, last, "Gelu", &x, 1);
    if (gelu != NULL)
        node_set_string(gelu, "approximate", "tanh");
    return gelu;
}

/* ---- x times a gate of x ------------------------------------------------------------------------------------- */

/* x sigmoid(alpha x) (Ramachandran et al. 2017) */
static Node *fuse_swish(const Fuser *f, Node *sigmoid)
{
    Value *inside = sigmoid->inputs[0];
    Node *last = reader_of(sigmoid->outputs[0], "Mul");
    Value *x = other_input(last, sigmoid->outputs[0]);
    double alpha = 1;
    if (x != inside) {
        const Node *product = producer_of(inside, "Mul");
        alpha = number_of(other_input(product, x));
        if (x == NULL || isnan(alpha))
            return NULL;
    }
    Node *swish = replace(f, last, "Swish", &x, 1);
    if (swish != NULL)
        node_set_float(swish, "alpha", (float)alpha);
    return swish;
}

/* x tanh(softplus(x)) (Misra 2019) */
static Node *fuse_mish(const Fuser *f, Node *softplus)
{
    Value *x = softplus->inputs[0];
    const Node *tanh = reader_of(softplus->outputs[0], "Tanh");
    Node *last = tanh == NULL ? NULL : reader_of(tanh->outputs[0], "Mul");
    return other_input(last, tanh == NULL ? NULL : tanh->outputs[0]) == x ? replace(f, last, "Mish", &x, 1) : NULL;
}

/* x hardsigmoid(x), alpha 1/6 and beta 1/2 (Howard et al. 2019) */
static Node *fuse_hard_swish(const Fuser *f, Node *gate)
{
    Value *x = gate->inputs[0];
    Node *last = reader_of(gate->outputs[0], "Mul");
    bool six = fabsf(node_float(gate, "alpha", 0.2f) - 1.0f / 6.0f) < 1e-4f && node_float(gate, "beta", 0.5f) == 0.5f;
    return six && other_input(last, gate->outputs[0]) == x ? replace(f, last, "HardSwish", &x, 1) : NULL;
}

/* x clip(x + 3, 0, 6) / 6, divided before or after */
static Node *fuse_hard_swish_clip(const Fuser *f, Node *clip)
{
    Value *x = scaled(producer_of(clip->inputs[0], "Add"), 3);
    if (x == NULL || number_of(node_input(clip, 1)) != 0 || number_of(node_input(clip, 2)) != 6)
        return NULL;
    bool needs_x = true, needs_six = true;
    const Value *at = clip->outputs[0];
    while (needs_x || needs_six) {
        Node *product = reader_of(at, "Mul"), *quotient = reader_of(at, "Div");
        const Value *other = other_input(product, at);
        if (needs_x && other == x && x != NULL)
            needs_x = false;
        else if (needs_six && other != NULL && is_number(other, 1.0 / 6))
            needs_six = false;
        else if (needs_six && quotient != NULL && quotient->inputs[0] == at && is_number(quotient->inputs[1], 6))
            needs_six = false;
        else
            return NULL;
        at = (product != NULL ? product : quotient)->outputs[0];
    }
    return replace(f, at->producer, "HardSwish", &x, 1);
}

/* log(softmax(x)): as one it does not lose small probabilities. */
static Node *fuse_log_softmax(const Fuser *f, Node *softmax)
{
    Value *x = softmax->inputs[0];
    Node *last = reader_of(softmax->outputs[0], "Log");
    int64_t axis = node_int(softmax, "axis", -1);
    Node *fused = last == NULL ? NULL : replace(f, last, "LogSoftmax", &x, 1);
    if (fused != NULL)
        node_set_int(fused, "axis", axis);
    return fused;
}

/* ---- LayerNormalization (Ba et al. 2016), RMSNormalization (Zhang & Sennrich 2019) ------------------------------ */

/* x in mean(x) over the last axes; *axis is the first of them. */
static Value *mean_of(const Value *value, int *axis)
{
    const Node *mean = producer_of(value, "ReduceMean");
    if (mean == NULL || node_int(mean, "keepdims", 1) == 0 || !type_known(&mean->inputs[0]->type))
        return NULL;
    const Value *axes = node_input(mean, 1);
    int rank = mean->inputs[0]->type.rank;
    if (axes == NULL || axes->constant == NULL)
        return NULL;
    int64_t count = tensor_count(axes->constant);
    unsigned last = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = tensor_i64_at(axes->constant, i);
        last |= 1u << (rank - 1 - (at < 0 ? at + rank : at));
    }
    if (count == 0 || last != (1u << count) - 1)
        return NULL;
    *axis = rank - (int)count;
    return mean->inputs[0];
}

/* x in x^2. */
static Value *squared(const Value *value)
{
    const Node *power = producer_of(value, "Pow"), *product = producer_of(value, "Mul");
    if (power != NULL && is_number(power->inputs[1], 2))
        return power->inputs[0];
    return product != NULL && product->inputs[0] == product->inputs[1] ? product->inputs[0] : NULL;
}

/* x in x - mean(x); exporters may write the difference twice, so it is told by what it is, not by which node. */
static Value *centred(const Value *value, int *axis)
{
    const Node *difference = producer_of(value, "Sub");
    return difference != NULL && mean_of(difference->inputs[1], axis) == difference->inputs[0] ? difference->inputs[0]
                                                                                               : NULL;
}

/* The node that divides by `deviation`: *numerator / deviation or *numerator * (1 / deviation). */
static Node *division_by(const Value *deviation, Value **numerator)
{
    Node *quotient = reader_of(deviation, "Div");
    if (quotient != NULL && quotient->inputs[1] == deviation && isnan(number_of(quotient->inputs[0]))) {
        *numerator = quotient->inputs[0];
        return quotient;
    }
    const Node *inverse = reader_of(deviation, "Reciprocal");
    if (inverse == NULL && quotient != NULL && quotient->inputs[1] == deviation && number_of(quotient->inputs[0]) == 1)
        inverse = quotient;
    Node *product = inverse == NULL ? NULL : reader_of(inverse->outputs[0], "Mul");
    *numerator = other_input(product, inverse == NULL ? NULL : inverse->outputs[0]);
    return *numerator == NULL ? NULL : product;
}

/* Scale and bias must have the shape of the normalised axes. */
static bool is_affine(const Value *value, const Value *x, int axis)
{
    const Type *type = value == NULL ? NULL : &value->type;
    if (type == NULL || !type_known(type) || type->rank != x->type.rank - axis)
        return false;
    return memcmp(type->dims, x->type.dims + axis, (size_t)type->rank * sizeof type->dims[0]) == 0;
}

/* The constant ones that a normalisation without scale needs. */
static Value *ones(const Fuser *f, const Value *x, int axis)
{
    void *data;
    int rank = x->type.rank - axis;
    Tensor *tensor = tensor_new(&f->graph->model->arena, graph_unique_name(f->graph, "ones"), DTYPE_F32, rank,
                                x->type.dims + axis, &data);
    for (int64_t i = 0; i < tensor_count(tensor); i++)
        ((float *)data)[i] = 1;
    Value *value = graph_add_initializer(f->graph, tensor);
    value->role = ROLE_CONSTANT;
    type_set(&value->type, DTYPE_F32, rank, tensor->dims);
    return value;
}

/* scale * (x - mean) / sqrt(mean((x - mean)^2) + epsilon) + bias; without the mean and bias: RMSNormalization. */
static Node *fuse_normalisation(const Fuser *f, Node *root)
{
    const Node *sum = producer_of(root->inputs[0], "Add");
    int axis = 0, again = 0;
    Value *numerator = NULL;
    Node *last = division_by(root->outputs[0], &numerator);
    if (sum == NULL || last == NULL || numerator->type.dtype != DTYPE_F32)
        return NULL;
    int at = isnan(number_of(sum->inputs[1])) ? 0 : 1;
    double epsilon = number_of(sum->inputs[at]);
    const Value *power = squared(mean_of(sum->inputs[1 - at], &axis));
    if (isnan(epsilon) || power == NULL)
        return NULL;
    Value *x = centred(numerator, &again);
    bool layer = x != NULL && axis == again && centred(power, &again) == x;
    if (!layer && power != numerator)
        return NULL;
    x = layer ? x : numerator;
    Node *product = reader_of(last->outputs[0], "Mul");
    Value *scale = other_input(product, product == NULL ? NULL : last->outputs[0]), *bias = NULL;
    if (is_affine(scale, x, axis))
        last = product;
    else
        scale = NULL;
    Node *shift = scale == NULL || !layer ? NULL : reader_of(last->outputs[0], "Add");
    if (shift != NULL && is_affine(other_input(shift, last->outputs[0]), x, axis)) {
        bias = other_input(shift, last->outputs[0]);
        last = shift;
    }
    Value *inputs[] = {x, scale != NULL ? scale : ones(f, x, axis), bias};
    Node *node = replace(f, last, layer ? "LayerNormalization" : "RMSNormalization", inputs, bias != NULL ? 3 : 2);
    if (node != NULL) {
        node_set_int(node, "axis", axis);
        node_set_float(node, "epsilon", (float)epsilon);
    }
    return node;
}

/* ---- BatchNorm in training, then an activation ------------------------------------------------------------------- */

/* Bounds that zero lies between: padding channels stay zero. */
static bool clip_bounds(const Node *clip, double *low, double *high)
{
    *low = node_input(clip, 1) == NULL ? -INFINITY : number_of(clip->inputs[1]);
    *high = node_input(clip, 2) == NULL ? INFINITY : number_of(clip->inputs[2]);
    return *low <= 0 && *high >= 0;
}

static Node *activation_of(const Value *value)
{
    static const char *const names[] = {"Relu", "Clip", "Swish", "HardSwish"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Node *node = reader_of(value, names[i]);
        if (node != NULL && node->inputs[0] == value && node_float(node, "alpha", 1) == 1)
            return node;
    }
    return NULL;
}

static void fuse_batchnorm(Node *norm)
{
    double low = 0, high = 0;
    Node *activation = activation_of(norm->outputs[0]);
    bool clip = activation != NULL && node_is(activation, "Clip");
    if (activation == NULL || node_attr(norm, "activation") != NULL || (clip && !clip_bounds(activation, &low, &high)))
        return;
    Value *result = activation->outputs[0];
    node_set_string(norm, "activation", activation->op_type);
    if (clip) {
        node_set_float(norm, "low", (float)low);
        node_set_float(norm, "high", (float)high);
    }
    node_set_output(activation, 0, NULL);
    node_remove(activation);
    node_set_output(norm, 0, NULL);
    node_set_output(norm, 0, result);
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static const struct Pattern {
    const char *start; /* the node that a match starts from, of the default domain */
    Node *(*fuse)(const Fuser *f, Node *start);
} patterns[] = {
    {"Erf", fuse_gelu_erf},        {"Tanh", fuse_gelu_tanh},         {"Sigmoid", fuse_swish},
    {"Softplus", fuse_mish},       {"HardSigmoid", fuse_hard_swish}, {"Clip", fuse_hard_swish_clip},
    {"Softmax", fuse_log_softmax}, {"Sqrt", fuse_normalisation},
};

/* The walk goes on behind `node`, whatever a match took away around it. */
static Node *fuse_at(const Fuser *f, Node *node)
{
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (node_is(node, patterns[i].start) && patterns[i].fuse(f, node) != NULL)
            break;
    return node->next;
}

Status pass_fuse(Graph *graph, Error *err)
{
    Fuser fuser = {graph, err};
    for (Node *node = graph->first; node != NULL;)
        node = fuse_at(&fuser, node);
    TRY(pass_clean(graph, err)); /* activations are single nodes by now, and the only readers */
    for (Node *node = graph->first; node != NULL; node = node->next)
        if (strcmp(node->op_type, "BatchNormTrain") == 0 && strcmp(node->domain, DOMAIN_INTERNAL) == 0)
            fuse_batchnorm(node);
    return STATUS_OK;
}
