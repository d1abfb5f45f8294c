/* Optimizer steps as nodes: Adagrad, Adam, Momentum of ai.onnx.preview.training; and Gradient, which passes/gradient.c
 * writes out. A step updates n tensors: inputs are the rate R, the count of updates T, then n tensors X, n gradients G
 * and n of each state; outputs are the new X and states in the same order. Formulas are those of the operators' texts,
 * computed in double. */
#include "runtime/ops/ops.h"

#include <math.h>
#include <string.h>

#define TRAINING_DOMAIN "ai.onnx.preview.training"

typedef enum Rule { ADAGRAD, ADAM, MOMENTUM, NESTEROV } Rule;

typedef struct Update {
    Rule rule;
    double rate, alpha, beta, epsilon, norm, norm_after;
} Update;

static int state_count(const Node *node)
{
    return strcmp(node->op_type, "Adam") == 0 ? 2 : 1;
}

/* How many tensors the node updates. */
static Status tensor_total(const Node *node, int in_count, int out_count, int *n, Error *err)
{
    const int each = 2 + state_count(node);
    *n = (in_count - 2) / each;
    if (*n < 1 || in_count != 2 + *n * each || out_count > *n * (each - 1))
        return infer_fail(node, err, "%d inputs and %d outputs", in_count, out_count);
    return STATUS_OK;
}

static Status training_infer(Node *node, Error *err)
{
    int n = 0;
    TRY(tensor_total(node, node->input_count, node->output_count, &n, err));
    for (int i = 0; i < node->output_count; i++) {
        const Type *from = &node->inputs[i < n ? 2 + i : 2 + n + i]->type;
        if (node->outputs[i])
            type_set(&node->outputs[i]->type, from->dtype, from->rank, from->dims);
    }
    return STATUS_OK;
}

static Status update_read(EvalContext *context, Update *u, Error *err)
{
    const Node *node = context->node;
    *u = (Update){0};
    if (context->in[0]->count < 1 || context->in[1]->count < 1)
        return eval_fail(context, err, "a rate and a count of updates are expected");
    const double rate = array_f64_at(context->in[0], 0), count = array_f64_at(context->in[1], 0);
    *u = (Update){.epsilon = (double)node_float(node, "epsilon", 0),
                  .norm = (double)node_float(node, "norm_coefficient", 0)};
    if (strcmp(node->op_type, "Adagrad") == 0) {
        u->rule = ADAGRAD; /* r = R / (1 + T decay) */
        u->rate = rate / (1 + count * (double)node_float(node, "decay_factor", 0));
        return STATUS_OK;
    }
    if (strcmp(node->op_type, "Adam") == 0) {
        u->rule = ADAM; /* r = R sqrt(1 - beta^T) / (1 - alpha^T) for T > 0 */
        u->alpha = (double)node_float(node, "alpha", 0.9f);
        u->beta = (double)node_float(node, "beta", 0.999f);
        u->norm_after = (double)node_float(node, "norm_coefficient_post", 0);
        u->rate = count > 0 ? rate * sqrt(1 - pow(u->beta, count)) / (1 - pow(u->alpha, count)) : rate;
        return STATUS_OK;
    }
    const char *mode = node_string(node, "mode", "");
    if (strcmp(mode, "standard") != 0 && strcmp(mode, "nesterov") != 0)
        return eval_fail(context, err, "mode '%s'", mode);
    u->rule = strcmp(mode, "nesterov") == 0 ? NESTEROV : MOMENTUM;
    u->rate = rate;
    u->alpha = (double)node_float(node, "alpha", 0);
    u->beta = count > 0 ? (double)node_float(node, "beta", 0) : 1;
    return STATUS_OK;
}

/* One element: g is regularised as g + norm x, states are updated in place, the new x is returned. */
static double update_element(const Update *u, double x, double gradient, double *first, double *second)
{
    const double g = gradient + u->norm * x;
    switch (u->rule) {
    case ADAGRAD:
        *first += g * g;
        return x - u->rate * g / (sqrt(*first) + u->epsilon);
    case ADAM:
        *first = u->alpha * *first + (1 - u->alpha) * g;
        *second = u->beta * *second + (1 - u->beta) * g * g;
        return (1 - u->norm_after) * (x - u->rate * *first / (sqrt(*second) + u->epsilon));
    case MOMENTUM:
        *first = u->alpha * *first + u->beta * g;
        return x - u->rate * *first;
    case NESTEROV:
        *first = u->alpha * *first + u->beta * g;
        return x - u->rate * (g + u->alpha * *first);
    }
    return x;
}

static void store(Array *array, int64_t i, double value)
{
    if (array->dtype == DTYPE_F64)
        ((double *)array->data)[i] = value;
    else
        ((float *)array->data)[i] = (float)value;
}

static Status update_tensor(EvalContext *context, const Update *u, int index, int n, Error *err)
{
    const int states = state_count(context->node);
    const Array *x = context->in[2 + index], *g = context->in[2 + n + index], *state[2] = {NULL, NULL};
    Array *out[3] = {NULL, NULL, NULL};
    for (int s = 0; s < states; s++)
        state[s] = context->in[2 + (2 + s) * n + index];
    bool floats = x->dtype == DTYPE_F32 || x->dtype == DTYPE_F64;
    for (int s = 0; s <= states; s++)
        floats = floats && (s == 0 ? g : state[s - 1])->dtype == x->dtype;
    if (!floats)
        return eval_fail(context, err, "tensor %d, its gradient and states are not floats of one type", index);
    bool fits = g->count == x->count && state[0]->count == x->count && (!state[1] || state[1]->count == x->count);
    if (!fits)
        return eval_fail(context, err, "tensor %d has %lld elements, its gradient or state another number", index,
                         (long long)x->count);
    for (int s = 0; s < 1 + states; s++)
        TRY(eval_output_like(context, s * n + index, x, &out[s], err));
    for (int64_t i = 0; i < x->count; i++) {
        double first = array_f64_at(state[0], i), second = state[1] ? array_f64_at(state[1], i) : 0;
        store(out[0], i, update_element(u, array_f64_at(x, i), array_f64_at(g, i), &first, &second));
        store(out[1], i, first);
        if (out[2])
            store(out[2], i, second);
    }
    return STATUS_OK;
}

static Status training_eval(EvalContext *context, Error *err)
{
    Update u;
    int n = 0;
    TRY(tensor_total(context->node, context->in_count, context->out_count, &n, err));
    TRY(update_read(context, &u, err));
    for (int i = 0; i < n; i++)
        TRY(update_tensor(context, &u, i, n, err));
    return STATUS_OK;
}

/* Its graph's pass has written it out (passes/gradient.c) unless it stands in a body. */
static Status gradient_eval(EvalContext *context, Error *err)
{
    return fail(err, STATUS_UNSUPPORTED,
                "%s: a Gradient in a body, or of a value whose shape depends on data, cannot run",
                node_text(context->node));
}

#define NO_GRADIENT "an update of parameters ends the training step"

/* clang-format off */
const OpDef ops_training[] = {
    {.domain = TRAINING_DOMAIN, .name = "Adagrad", .since = 1, .last = 1, .min_inputs = 5, .max_inputs = -1,
     .min_outputs = 1, .max_outputs = -1, .infer = training_infer, .eval = training_eval, .no_gradient = NO_GRADIENT},
    {.domain = TRAINING_DOMAIN, .name = "Adam", .since = 1, .last = 1, .min_inputs = 6, .max_inputs = -1,
     .min_outputs = 1, .max_outputs = -1, .infer = training_infer, .eval = training_eval, .no_gradient = NO_GRADIENT},
    {.domain = TRAINING_DOMAIN, .name = "Gradient", .since = 1, .last = 1, .min_inputs = 1, .max_inputs = -1,
     .min_outputs = 1, .max_outputs = -1, .eval = gradient_eval,
     .no_gradient = "a gradient is differentiated again by another Gradient node only"},
    {.domain = TRAINING_DOMAIN, .name = "Momentum", .since = 1, .last = 1, .min_inputs = 5, .max_inputs = -1,
     .min_outputs = 1, .max_outputs = -1, .infer = training_infer, .eval = training_eval, .no_gradient = NO_GRADIENT},
    {0},
};
/* clang-format on */
