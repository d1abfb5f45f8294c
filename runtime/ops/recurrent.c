/* Family: recurrent. RNN, GRU and LSTM: rows, shapes, attributes, and gradients as one internal operator each (RNNGrad,
 * GRUGrad, LSTMGrad) that undoes the whole sequence. The equations are in recurrent_eval.c, the planned kernels in
 * recurrent_kernel.h and the files it names. */
#include "runtime/ops/recurrent.h"

#include "runtime/ops/ops.h"

#include <strings.h>

/* ---- attributes --------------------------------------------------------------------------------------------- */

typedef struct ActivationName {
    const char *name;
    bool has_alpha, has_beta;
    double alpha, beta; /* defaults: those of the operators of the same name */
} ActivationName;

static const ActivationName activation_names[] = {
    [ACT_SIGMOID] = {"Sigmoid", false, false, 0, 0},
    [ACT_TANH] = {"Tanh", false, false, 0, 0},
    [ACT_RELU] = {"Relu", false, false, 0, 0},
    [ACT_AFFINE] = {"Affine", true, true, 1, 0},
    [ACT_LEAKY_RELU] = {"LeakyRelu", true, false, 0.01, 0},
    [ACT_THRESHOLDED_RELU] = {"ThresholdedRelu", true, false, 1, 0},
    [ACT_SCALED_TANH] = {"ScaledTanh", true, true, 1, 1},
    [ACT_HARD_SIGMOID] = {"HardSigmoid", true, true, 0.2, 0.5},
    [ACT_ELU] = {"Elu", true, false, 1, 0},
    [ACT_SOFTSIGN] = {"Softsign", false, false, 0, 0},
    [ACT_SOFTPLUS] = {"Softplus", false, false, 0, 0},
};

/* The lists of alphas and betas are used up in the order of the functions that have such a number. */
typedef struct Numbers {
    const float *alphas, *betas;
    size_t alpha_count, beta_count, alpha_next, beta_next;
} Numbers;

static Status activation_read(const Node *node, const char *name, Numbers *numbers, Activation *out, Error *err)
{
    for (int kind = 0; kind < (int)(sizeof activation_names / sizeof activation_names[0]); kind++) {
        const ActivationName *known = &activation_names[kind];
        if (strcasecmp(known->name, name) != 0)
            continue;
        *out = (Activation){(ActivationKind)kind, known->alpha, known->beta};
        if (known->has_alpha && numbers->alpha_next < numbers->alpha_count)
            out->alpha = (double)numbers->alphas[numbers->alpha_next++];
        if (known->has_beta && numbers->beta_next < numbers->beta_count)
            out->beta = (double)numbers->betas[numbers->beta_next++];
        return STATUS_OK;
    }
    return infer_fail(node, err, "unknown activation '%s'", name);
}

static Status activations_init(const Node *node, Recurrence *r, Error *err)
{
    static const char *const defaults[][RECURRENT_ACTIVATIONS_MAX] = {
        [CELL_RNN] = {"Tanh"}, [CELL_GRU] = {"Sigmoid", "Tanh"}, [CELL_LSTM] = {"Sigmoid", "Tanh", "Tanh"}};
    static const int counts[] = {[CELL_RNN] = 1, [CELL_GRU] = 2, [CELL_LSTM] = 3};
    const Attr *names = node_attr(node, "activations");
    int count = counts[r->kind];
    Numbers numbers = {0};
    numbers.alphas = node_floats(node, "activation_alpha", &numbers.alpha_count);
    numbers.betas = node_floats(node, "activation_beta", &numbers.beta_count);
    bool given = names != NULL && names->count > 0;
    if (given && names->type != ATTR_STRINGS)
        return infer_fail(node, err, "attribute activations is no list of names");
    if (given && names->count < (size_t)(count * r->directions))
        return infer_fail(node, err, "%zu activations for %d directions of %d", names->count, r->directions, count);
    for (int d = 0; d < r->directions; d++)
        for (int i = 0; i < count; i++) {
            const char *name = given ? names->strings[d * count + i].data : defaults[r->kind][i];
            TRY(activation_read(node, name, &numbers, &r->activations[d][i], err));
        }
    return STATUS_OK;
}

static Status direction_init(const Node *node, Recurrence *r, Error *err)
{
    const char *direction = node_string(node, "direction", "forward");
    bool both = strcasecmp(direction, "bidirectional") == 0;
    r->directions = both ? 2 : 1;
    r->reverse[0] = strcasecmp(direction, "reverse") == 0;
    r->reverse[1] = both;
    if (!both && !r->reverse[0] && strcasecmp(direction, "forward") != 0)
        return infer_fail(node, err, "direction '%s' is none of forward, reverse, bidirectional", direction);
    return STATUS_OK;
}

static void strides_init(Recurrence *r)
{
    int64_t h = r->hidden, d = r->directions, t = r->steps, b = r->batch;
    bool first = r->batch_first;
    r->row_t = first ? 1 : b;
    r->row_b = first ? t : 1;
    r->y_t = d * h * (first ? 1 : b);
    r->y_b = first ? t * d * h : h;
    r->y_d = first ? h : b * h;
    r->state_d = first ? h : b * h;
    r->state_b = first ? d * h : h;
}

Status recurrence_init(const Node *node, CellKind kind, const Type *x, const Type *w, const Type *r, Recurrence *out,
                       Error *err)
{
    static const int gates[] = {[CELL_RNN] = 1, [CELL_GRU] = 3, [CELL_LSTM] = 4};
    static const int saved[] = {[CELL_RNN] = 0, [CELL_GRU] = 4, [CELL_LSTM] = 5};
    Arena *arena = &node->graph->model->arena;
    *out = (Recurrence){.kind = kind, .gates = gates[kind], .saved = saved[kind]};
    TRY(direction_init(node, out, err));
    if (x->rank != 3 || w->rank != 3 || r->rank != 3)
        return infer_fail(node, err, "X %s, W %s and R %s must have three dims", type_text(arena, x),
                          type_text(arena, w), type_text(arena, r));
    out->batch_first = node_int(node, "layout", 0) != 0;
    out->coupled = node_int(node, "input_forget", 0) != 0;
    out->linear_before_reset = node_int(node, "linear_before_reset", 0) != 0;
    out->clip = (double)node_float(node, "clip", 0);
    out->steps = x->dims[out->batch_first ? 1 : 0];
    out->batch = x->dims[out->batch_first ? 0 : 1];
    out->inputs = x->dims[2];
    out->hidden = r->dims[2];
    int64_t rows = out->gates * out->hidden;
    bool fits = w->dims[0] == out->directions && r->dims[0] == out->directions && w->dims[1] == rows &&
                r->dims[1] == rows && w->dims[2] == out->inputs;
    if (!fits)
        return infer_fail(node, err, "W %s and R %s do not fit X %s in %d directions with %d gates",
                          type_text(arena, w), type_text(arena, r), type_text(arena, x), out->directions, out->gates);
    strides_init(out);
    return activations_init(node, out, err);
}

/* ---- shapes --------------------------------------------------------------------------------------------------- */

static Status check_optional(const Node *node, const Recurrence *r, Error *err)
{
    const int64_t sizes[RECURRENT_INPUTS] = {[IN_B] = r->directions * 2 * r->gates * r->hidden,
                                             [IN_LENGTHS] = r->batch,
                                             [IN_H] = r->directions * r->batch * r->hidden,
                                             [IN_C] = r->directions * r->batch * r->hidden,
                                             [IN_P] = r->directions * 3 * r->hidden};
    for (int i = IN_B; i < RECURRENT_INPUTS; i++) {
        const Value *value = node_input(node, i);
        DType dtype = i == IN_LENGTHS ? DTYPE_I32 : node->inputs[IN_X]->type.dtype;
        if (value != NULL && value->type.dtype != dtype)
            return infer_fail(node, err, "input '%s' is %s, %s expected", value->name, dtype_name(value->type.dtype),
                              dtype_name(dtype));
        if (value != NULL && type_count(&value->type) != sizes[i])
            return infer_fail(node, err, "input '%s' is %s, %lld elements expected", value->name,
                              type_text(&node->graph->model->arena, &value->type), (long long)sizes[i]);
    }
    return STATUS_OK;
}

static void set_if(Node *node, int index, DType dtype, int rank, const int64_t *dims)
{
    if (node_output(node, index) != NULL)
        type_set(&node->outputs[index]->type, dtype, rank, dims);
}

static Status forward_infer(Node *node, CellKind kind, Error *err)
{
    Recurrence r;
    const Type *x = &node->inputs[IN_X]->type;
    TRY(recurrence_init(node, kind, x, &node->inputs[IN_W]->type, &node->inputs[IN_R]->type, &r, err));
    for (int i = IN_W; i <= IN_R; i++)
        if (node->inputs[i]->type.dtype != x->dtype)
            return infer_fail(node, err, "input '%s' is %s, X is %s", node->inputs[i]->name,
                              dtype_name(node->inputs[i]->type.dtype), dtype_name(x->dtype));
    TRY(check_optional(node, &r, err));
    int64_t d = r.directions, h = r.hidden, b = r.batch, t = r.steps;
    const int64_t y_steps[] = {t, d, b, h}, y_batch[] = {b, t, d, h};
    const int64_t state_steps[] = {d, b, h}, state_batch[] = {b, d, h};
    const int64_t saved[] = {d, x->dims[0], x->dims[1], r.saved * h};
    const int64_t *state = r.batch_first ? state_batch : state_steps;
    set_if(node, 0, x->dtype, 4, r.batch_first ? y_batch : y_steps);
    set_if(node, 1, x->dtype, 3, state);
    if (kind == CELL_LSTM)
        set_if(node, 2, x->dtype, 3, state);
    if (kind != CELL_RNN)
        set_if(node, kind == CELL_LSTM ? 3 : 2, x->dtype, 4, saved);
    return STATUS_OK;
}

static Status rnn_infer(Node *node, Error *err)
{
    return forward_infer(node, CELL_RNN, err);
}

static Status gru_infer(Node *node, Error *err)
{
    return forward_infer(node, CELL_GRU, err);
}

static Status lstm_infer(Node *node, Error *err)
{
    return forward_infer(node, CELL_LSTM, err);
}

/* Each gradient has the type of what it is the gradient of. */
static Status backward_infer(Node *node, Error *err)
{
    static const int of[GRAD_OUTPUT_COUNT] = {[GRAD_DX] = IN_X, [GRAD_DW] = IN_W, [GRAD_DR] = IN_R, [GRAD_DB] = IN_B,
                                              [GRAD_DH] = IN_H, [GRAD_DC] = IN_C, [GRAD_DP] = IN_P};
    for (int i = 0; i < node->output_count; i++) {
        const Value *like = node_input(node, GRAD_INPUTS + of[i]);
        if (node->outputs[i] == NULL)
            continue;
        if (like == NULL)
            return infer_fail(node, err, "a gradient for an input that is not there");
        type_set(&node->outputs[i]->type, like->type.dtype, like->type.rank, like->type.dims);
    }
    return STATUS_OK;
}

/* ---- gradient --------------------------------------------------------------------------------------------------- */

/* The forward must give Y and, but for RNN, what the backward wants to know of the gates. */
static Status add_saved(Node *node, CellKind kind, int saved_index, Error *err)
{
    const int wanted[] = {0, saved_index};
    bool added = false;
    for (int i = 0; i < (kind == CELL_RNN ? 1 : 2); i++)
        if (node_output(node, wanted[i]) == NULL) {
            const char *name = graph_unique_name(node->graph, i == 0 ? "recurrent_states" : "recurrent_gates");
            node_set_output(node, wanted[i], graph_add_value(node->graph, name));
            added = true;
        }
    return added ? node_infer(node, err) : STATUS_OK;
}

static Status recurrent_grad(GradContext *context, CellKind kind, const char *op_type, Error *err)
{
    static const int of[GRAD_OUTPUT_COUNT] = {[GRAD_DX] = IN_X, [GRAD_DW] = IN_W, [GRAD_DR] = IN_R, [GRAD_DB] = IN_B,
                                              [GRAD_DH] = IN_H, [GRAD_DC] = IN_C, [GRAD_DP] = IN_P};
    Node *node = context->node;
    Value *inputs[GRAD_INPUT_COUNT] = {0};
    int saved = kind == CELL_LSTM ? 3 : 2, given = kind == CELL_LSTM ? 3 : 2;
    for (int i = 0; i < given && i < node->output_count; i++)
        inputs[GRAD_DY + i] = context->dy[i];
    TRY(add_saved(node, kind, saved, err));
    for (int i = 0; i < RECURRENT_INPUTS; i++)
        inputs[GRAD_INPUTS + i] = node_input(node, i);
    inputs[GRAD_Y] = node->outputs[0];
    inputs[GRAD_SAVED] = kind == CELL_RNN ? NULL : node->outputs[saved];
    Node *made = build_node(&context->b, DOMAIN_INTERNAL, op_type, inputs, GRAD_INPUT_COUNT, GRAD_OUTPUT_COUNT);
    if (made == NULL)
        return context->b.status;
    node_copy_attrs(made, node);
    for (int i = 0; i < GRAD_OUTPUT_COUNT; i++) {
        bool wanted = of[i] < node->input_count && node->inputs[of[i]] != NULL && context->wants[of[i]];
        if (!wanted)
            node_set_output(made, i, NULL);
        else
            context->dx[of[i]] = made->outputs[i];
    }
    build_finish(&context->b, made);
    return context->b.status;
}

static Status rnn_grad(GradContext *context, Error *err)
{
    return recurrent_grad(context, CELL_RNN, "RNNGrad", err);
}

static Status gru_grad(GradContext *context, Error *err)
{
    return recurrent_grad(context, CELL_GRU, "GRUGrad", err);
}

static Status lstm_grad(GradContext *context, Error *err)
{
    return recurrent_grad(context, CELL_LSTM, "LSTMGrad", err);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static Status rnn_eval(EvalContext *context, Error *err)
{
    return recurrent_forward_eval(context, CELL_RNN, err);
}

static Status gru_eval(EvalContext *context, Error *err)
{
    return recurrent_forward_eval(context, CELL_GRU, err);
}

static Status lstm_eval(EvalContext *context, Error *err)
{
    return recurrent_forward_eval(context, CELL_LSTM, err);
}

static Status rnn_grad_eval(EvalContext *context, Error *err)
{
    return recurrent_backward_eval(context, CELL_RNN, err);
}

static Status gru_grad_eval(EvalContext *context, Error *err)
{
    return recurrent_backward_eval(context, CELL_GRU, err);
}

static Status lstm_grad_eval(EvalContext *context, Error *err)
{
    return recurrent_backward_eval(context, CELL_LSTM, err);
}

static Status rnn_prepare(PlanContext *context, Error *err)
{
    return recurrent_forward_prepare(context, CELL_RNN, err);
}

static Status gru_prepare(PlanContext *context, Error *err)
{
    return recurrent_forward_prepare(context, CELL_GRU, err);
}

static Status lstm_prepare(PlanContext *context, Error *err)
{
    return recurrent_forward_prepare(context, CELL_LSTM, err);
}

static Status rnn_grad_prepare(PlanContext *context, Error *err)
{
    return recurrent_backward_prepare(context, CELL_RNN, err);
}

static Status gru_grad_prepare(PlanContext *context, Error *err)
{
    return recurrent_backward_prepare(context, CELL_GRU, err);
}

static Status lstm_grad_prepare(PlanContext *context, Error *err)
{
    return recurrent_backward_prepare(context, CELL_LSTM, err);
}

/* Every row of X meets W, and every hidden state R; the gradient does both twice. */
static double cell_flops(const Value *const *inputs)
{
    const Type *x = &inputs[IN_X]->type, *w = &inputs[IN_W]->type, *r = &inputs[IN_R]->type;
    return 2 * (double)(x->dims[0] * x->dims[1]) * (double)(type_count(w) + type_count(r));
}

static double recurrent_flops(const Node *node)
{
    return cell_flops((const Value *const *)node->inputs);
}

static double recurrent_grad_flops(const Node *node)
{
    return 2 * cell_flops((const Value *const *)node->inputs + GRAD_INPUTS);
}

#define FORWARD_ROW(NAME, PREFIX, INPUTS, OUTPUTS)                                                                     \
    {                                                                                                                  \
        .name = NAME, .since = 1, .last = 28, .min_inputs = 3, .max_inputs = INPUTS, .min_outputs = 0,                 \
        .max_outputs = OUTPUTS, .infer = PREFIX##_infer, .eval = PREFIX##_eval, .grad = PREFIX##_grad,                 \
        .prepare = PREFIX##_prepare, .flops = recurrent_flops                                                          \
    }
#define BACKWARD_ROW(NAME, PREFIX)                                                                                     \
    {                                                                                                                  \
        .domain = DOMAIN_INTERNAL, .name = NAME "Grad", .min_inputs = 0, .max_inputs = GRAD_INPUT_COUNT,               \
        .min_outputs = 0, .max_outputs = GRAD_OUTPUT_COUNT, .infer = backward_infer, .eval = PREFIX##_grad_eval,       \
        .prepare = PREFIX##_grad_prepare, .flops = recurrent_grad_flops,                                               \
        .no_gradient = "gradients are not differentiated again",                                                       \
        .no_case = "internal; covered by the gradient cases of " NAME                                                  \
    }

const OpDef ops_recurrent[] = {
    FORWARD_ROW("RNN", rnn, 6, 2),
    FORWARD_ROW("GRU", gru, 6, 3),
    FORWARD_ROW("LSTM", lstm, 8, 4),
    BACKWARD_ROW("RNN", rnn),
    BACKWARD_ROW("GRU", gru),
    BACKWARD_ROW("LSTM", lstm),
    {0},
};
