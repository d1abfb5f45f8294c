/* Family: linear attention. A state S [dk, dv] for each sample and key head, carried from token to token:
 *     P_t = exp(g_t) S_(t-1)                      (gated rules; else P_t = S_(t-1); g one number a head or a row)
 *     u_t = beta_t (v_t - P_t' k_t)               (delta rules; else u_t = v_t)
 *     S_t = P_t + k_t u_t',   o_t = scale S_t' q_t
 * (LinearAttention-27; Yang et al., "Gated Delta Networks", 2024). Query heads share key heads in groups. The gradient
 * walks the same tokens backwards over the stored states. Runs through eval, in double. */
#include <math.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/wide.h"

enum { IN_Q, IN_K, IN_V, IN_PAST, IN_DECAY, IN_BETA, IN_COUNT };

typedef struct Shape {
    int64_t batch, length, q_heads, heads, dk, dv;
    int64_t decay_width, beta_width; /* last dims of decay and beta; 0: not there */
    double scale;
} Shape;

/* ---- shapes ----------------------------------------------------------------------------------------------------- */

/* What both infer and eval look at: rank and dims of input `index`; false when it is omitted. */
typedef struct Dims {
    int rank;
    const int64_t *dims;
} Dims;

static Status check_rule(const Node *node, const Dims *in, Error *err)
{
    const char *rule = node_string(node, "update_rule", "gated_delta");
    bool gated = strcmp(rule, "gated") == 0 || strcmp(rule, "gated_delta") == 0;
    bool delta = strcmp(rule, "delta") == 0 || strcmp(rule, "gated_delta") == 0;
    if (!gated && !delta && strcmp(rule, "linear") != 0)
        return infer_fail(node, err, "attribute update_rule is '%s'", rule);
    if (gated != (in[IN_DECAY].dims != NULL) || delta != (in[IN_BETA].dims != NULL))
        return infer_fail(node, err, "the rule %s goes %s decay and %s beta", rule, gated ? "with" : "without",
                          delta ? "with" : "without");
    return STATUS_OK;
}

static bool is_packed(const Dims *in, const Shape *s, int64_t width)
{
    return in->rank == 3 && in->dims[0] == s->batch && in->dims[1] == s->length && in->dims[2] == width;
}

static Status shape_read(const Node *node, const Dims *in, Shape *s, Error *err)
{
    TRY(check_rule(node, in, err));
    s->q_heads = node_int(node, "q_num_heads", 0);
    s->heads = node_int(node, "kv_num_heads", 0);
    for (int i = IN_Q; i <= IN_V; i++)
        if (in[i].rank != 3)
            return infer_fail(node, err, "input %d has %d dims, three are expected", i, in[i].rank);
    if (s->q_heads < 1 || s->heads < 1 || s->q_heads % s->heads != 0)
        return infer_fail(node, err, "%lld query heads do not share %lld key heads", (long long)s->q_heads,
                          (long long)s->heads);
    s->batch = in[IN_Q].dims[0];
    s->length = in[IN_Q].dims[1];
    s->dk = in[IN_Q].dims[2] / s->q_heads;
    s->dv = in[IN_V].dims[2] / s->heads;
    s->decay_width = in[IN_DECAY].dims == NULL ? 0 : in[IN_DECAY].rank == 3 ? in[IN_DECAY].dims[2] : -1;
    s->beta_width = in[IN_BETA].dims == NULL ? 0 : in[IN_BETA].rank == 3 ? in[IN_BETA].dims[2] : -1;
    bool fits = is_packed(&in[IN_Q], s, s->q_heads * s->dk) && is_packed(&in[IN_K], s, s->heads * s->dk) &&
                is_packed(&in[IN_V], s, s->heads * s->dv);
    if (s->decay_width != 0)
        fits = fits && is_packed(&in[IN_DECAY], s, s->decay_width) &&
               (s->decay_width == s->heads || s->decay_width == s->heads * s->dk);
    if (s->beta_width != 0)
        fits = fits && is_packed(&in[IN_BETA], s, s->beta_width) && (s->beta_width == s->heads || s->beta_width == 1);
    if (in[IN_PAST].dims != NULL) {
        const int64_t state[4] = {s->batch, s->heads, s->dk, s->dv};
        fits = fits && in[IN_PAST].rank == 4 && memcmp(in[IN_PAST].dims, state, sizeof state) == 0;
    }
    if (!fits)
        return infer_fail(
            node, err, "its inputs do not fit each other (%lld query heads of %lld, %lld of %lld and %lld)",
            (long long)s->q_heads, (long long)s->dk, (long long)s->heads, (long long)s->dk, (long long)s->dv);
    s->scale = (double)node_float(node, "scale", 0);
    if (s->scale == 0)
        s->scale = 1 / sqrt((double)(s->dk > 0 ? s->dk : 1));
    return STATUS_OK;
}

static Status shape_of_node(const Node *node, int first, Shape *s, Error *err)
{
    Dims in[IN_COUNT] = {{0, NULL}};
    for (int i = 0; i < IN_COUNT; i++) {
        const Value *value = node_input(node, first + i);
        if (value != NULL)
            in[i] = (Dims){value->type.rank, value->type.dims};
    }
    return shape_read(node, in, s, err);
}

static Status shape_of_arrays(const EvalContext *context, int first, Shape *s, Error *err)
{
    Dims in[IN_COUNT] = {{0, NULL}};
    for (int i = 0; i < IN_COUNT; i++) {
        const Array *array = eval_input(context, first + i);
        if (array != NULL)
            in[i] = (Dims){array->rank, array->dims};
    }
    return shape_read(context->node, in, s, err);
}

static Status linear_attention_infer(Node *node, Error *err)
{
    Shape s;
    const Value *past = node_input(node, IN_PAST);
    DType dtype = node->inputs[IN_Q]->type.dtype;
    TRY(shape_of_node(node, 0, &s, err));
    const int64_t y[3] = {s.batch, s.length, s.q_heads * s.dv}, state[4] = {s.batch, s.heads, s.dk, s.dv};
    if (node_output(node, 0) != NULL)
        type_set(&node->outputs[0]->type, dtype, 3, y);
    if (node_output(node, 1) != NULL)
        type_set(&node->outputs[1]->type, past != NULL ? past->type.dtype : dtype, 4, state);
    return STATUS_OK;
}

/* ---- one head --------------------------------------------------------------------------------------------------- */

/* Everything in double; NULL where omitted. The d-pointers are the gradients of the same arrays. */
typedef struct Walk {
    Shape s;
    const double *q, *k, *v, *past, *decay, *beta;
    double *o, *present;
    const double *d_o, *d_present;
    double *dq, *dk, *dv, *d_past, *d_decay, *d_beta;
    double *states;              /* [T + 1, dk, dv] of one head */
    double *p, *u, *du, *dstate; /* [dk, dv], [dv], [dv], [dk, dv] */
} Walk;

/* Where token t of head h begins in a packed array of `width` numbers a token. */
static int64_t place(const Walk *w, int64_t n, int64_t t, int64_t width, int64_t at)
{
    return (n * w->s.length + t) * width + at;
}

static double decay_of(const Walk *w, int64_t n, int64_t t, int64_t h, int64_t i, int64_t *at)
{
    *at = -1;
    if (w->decay == NULL)
        return 1;
    bool rows = w->s.decay_width != w->s.heads || w->s.dk == 1;
    *at = place(w, n, t, w->s.decay_width, rows ? h * w->s.dk + i : h);
    return exp(w->decay[*at]);
}

static int64_t beta_place(const Walk *w, int64_t n, int64_t t, int64_t h)
{
    return place(w, n, t, w->s.beta_width, w->s.beta_width == 1 ? 0 : h);
}

/* P = exp(g) S and u of one token. */
static void prepare_token(const Walk *w, int64_t n, int64_t t, int64_t h, const double *state)
{
    const Shape *s = &w->s;
    const double *k = w->k + place(w, n, t, s->heads * s->dk, h * s->dk);
    const double *v = w->v + place(w, n, t, s->heads * s->dv, h * s->dv);
    int64_t at;
    memcpy(w->u, v, (size_t)s->dv * sizeof *v);
    for (int64_t i = 0; i < s->dk; i++) {
        double a = decay_of(w, n, t, h, i, &at);
        for (int64_t j = 0; j < s->dv; j++) {
            w->p[i * s->dv + j] = a * state[i * s->dv + j];
            if (w->beta != NULL)
                w->u[j] -= w->p[i * s->dv + j] * k[i];
        }
    }
    for (int64_t j = 0; j < s->dv && w->beta != NULL; j++)
        w->u[j] *= w->beta[beta_place(w, n, t, h)];
}

static void head_forward(const Walk *w, int64_t n, int64_t h)
{
    const Shape *s = &w->s;
    const int64_t size = s->dk * s->dv, groups = s->q_heads / s->heads;
    if (w->past != NULL)
        memcpy(w->states, w->past + (n * s->heads + h) * size, (size_t)size * sizeof *w->states);
    else
        memset(w->states, 0, (size_t)size * sizeof *w->states);
    for (int64_t t = 0; t < s->length; t++) {
        double *state = w->states + (t + 1) * size;
        const double *k = w->k + place(w, n, t, s->heads * s->dk, h * s->dk);
        prepare_token(w, n, t, h, w->states + t * size);
        for (int64_t i = 0; i < size; i++)
            state[i] = w->p[i] + k[i / s->dv] * w->u[i % s->dv];
        for (int64_t g = h * groups; g < (h + 1) * groups && w->o != NULL; g++) {
            const double *q = w->q + place(w, n, t, s->q_heads * s->dk, g * s->dk);
            double *o = w->o + place(w, n, t, s->q_heads * s->dv, g * s->dv);
            for (int64_t i = 0; i < size; i++)
                o[i % s->dv] += s->scale * state[i] * q[i / s->dv];
        }
    }
    if (w->present != NULL)
        memcpy(w->present + (n * s->heads + h) * size, w->states + s->length * size, (size_t)size * sizeof *w->states);
}

/* dq, and what o_t sends into dS_t. */
static void queries_backward(const Walk *w, int64_t n, int64_t t, int64_t h, const double *state)
{
    const Shape *s = &w->s;
    const int64_t groups = s->q_heads / s->heads;
    for (int64_t g = h * groups; g < (h + 1) * groups && w->d_o != NULL; g++) {
        const int64_t at = place(w, n, t, s->q_heads * s->dk, g * s->dk);
        const double *d_o = w->d_o + place(w, n, t, s->q_heads * s->dv, g * s->dv);
        for (int64_t i = 0; i < s->dk * s->dv; i++) {
            w->dq[at + i / s->dv] += s->scale * state[i] * d_o[i % s->dv];
            w->dstate[i] += s->scale * w->q[at + i / s->dv] * d_o[i % s->dv];
        }
    }
}

/* dS_t in w->dstate becomes dS_(t-1); `before` is S_(t-1). */
static void token_backward(const Walk *w, int64_t n, int64_t t, int64_t h, const double *before)
{
    const Shape *s = &w->s;
    const int64_t at_k = place(w, n, t, s->heads * s->dk, h * s->dk);
    const int64_t at_v = place(w, n, t, s->heads * s->dv, h * s->dv);
    double *dk = w->dk + at_k, *dv = w->dv + at_v;
    const double *k = w->k + at_k;
    prepare_token(w, n, t, h, before);
    memset(w->du, 0, (size_t)s->dv * sizeof *w->du);
    for (int64_t i = 0; i < s->dk; i++)
        for (int64_t j = 0; j < s->dv; j++) {
            dk[i] += w->dstate[i * s->dv + j] * w->u[j];
            w->du[j] += w->dstate[i * s->dv + j] * k[i];
        }
    if (w->beta != NULL) { /* u = beta r, r = v - P' k: du becomes dr */
        const int64_t at = beta_place(w, n, t, h);
        for (int64_t j = 0; j < s->dv; j++) {
            double r = w->v[at_v + j];
            for (int64_t i = 0; i < s->dk; i++)
                r -= w->p[i * s->dv + j] * k[i];
            w->d_beta[at] += w->du[j] * r;
            w->du[j] *= w->beta[at];
        }
        for (int64_t i = 0; i < s->dk; i++)
            for (int64_t j = 0; j < s->dv; j++) {
                dk[i] -= w->p[i * s->dv + j] * w->du[j];
                w->dstate[i * s->dv + j] -= k[i] * w->du[j];
            }
    }
    for (int64_t j = 0; j < s->dv; j++)
        dv[j] += w->du[j];
    for (int64_t i = 0; i < s->dk && w->decay != NULL; i++) {
        int64_t at;
        double a = decay_of(w, n, t, h, i, &at);
        for (int64_t j = 0; j < s->dv; j++) {
            w->d_decay[at] += w->dstate[i * s->dv + j] * w->p[i * s->dv + j];
            w->dstate[i * s->dv + j] *= a;
        }
    }
}

static void head_backward(const Walk *w, int64_t n, int64_t h)
{
    const Shape *s = &w->s;
    const int64_t size = s->dk * s->dv, at = (n * s->heads + h) * size;
    head_forward(w, n, h);
    memset(w->dstate, 0, (size_t)size * sizeof *w->dstate);
    for (int64_t i = 0; i < size && w->d_present != NULL; i++)
        w->dstate[i] = w->d_present[at + i];
    for (int64_t t = s->length - 1; t >= 0; t--) {
        queries_backward(w, n, t, h, w->states + (t + 1) * size);
        token_backward(w, n, t, h, w->states + t * size);
    }
    for (int64_t i = 0; i < size && w->d_past != NULL; i++)
        w->d_past[at + i] = w->dstate[i];
}

/* ---- eval -------------------------------------------------------------------------------------------------------- */

static Status walk_begin(EvalContext *context, int first, Walk *w, Error *err)
{
    const double **in[IN_COUNT] = {&w->q, &w->k, &w->v, &w->past, &w->decay, &w->beta};
    TRY(shape_of_arrays(context, first, &w->s, err));
    for (int i = 0; i < IN_COUNT; i++)
        TRY(wide_input(context, first + i, in[i], err));
    int64_t size = w->s.dk * w->s.dv;
    TRY(wide_scratch(context, (w->s.length + 1) * size, &w->states, err));
    TRY(wide_scratch(context, size, &w->p, err));
    TRY(wide_scratch(context, size, &w->dstate, err));
    TRY(wide_scratch(context, w->s.dv, &w->u, err));
    return wide_scratch(context, w->s.dv, &w->du, err);
}

static Status linear_attention_eval(EvalContext *context, Error *err)
{
    Walk w = {0};
    WideOutput o, present;
    const Array *past = eval_input(context, IN_PAST);
    DType dtype = eval_input(context, IN_Q)->dtype;
    TRY(walk_begin(context, 0, &w, err));
    const int64_t y[3] = {w.s.batch, w.s.length, w.s.q_heads * w.s.dv};
    const int64_t state[4] = {w.s.batch, w.s.heads, w.s.dk, w.s.dv};
    TRY(wide_output(context, 0, dtype, 3, y, &o, err));
    TRY(wide_output(context, 1, past != NULL ? past->dtype : dtype, 4, state, &present, err));
    w.o = o.data;
    w.present = present.data;
    for (int64_t i = 0; i < w.s.batch * w.s.heads; i++)
        head_forward(&w, i / w.s.heads, i % w.s.heads);
    wide_store(&o);
    wide_store(&present);
    return STATUS_OK;
}

/* ---- gradient ---------------------------------------------------------------------------------------------------- */

/* LinearAttentionGrad(dy, dpresent, the inputs) -> a gradient for each input; for an omitted one an empty tensor. */
static Status linear_attention_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *node = context->node;
    Builder *b = &context->b;
    Value *inputs[IN_COUNT + 2] = {context->dy[0], node->output_count > 1 ? context->dy[1] : NULL};
    for (int i = 0; i < IN_COUNT; i++)
        inputs[2 + i] = node_input(node, i);
    Node *gradient = build_node(b, DOMAIN_INTERNAL, "LinearAttentionGrad", inputs, IN_COUNT + 2, IN_COUNT);
    if (gradient == NULL)
        return b->status;
    node_copy_attrs(gradient, node);
    if (build_finish(b, gradient) == NULL)
        return b->status;
    for (int i = 0; i < node->input_count; i++)
        if (context->wants[i])
            context->dx[i] = gradient->outputs[i];
    return STATUS_OK;
}

static Status linear_attention_grad_infer(Node *node, Error *err)
{
    static const int64_t none = 0;
    Shape s;
    TRY(shape_of_node(node, 2, &s, err));
    for (int i = 0; i < IN_COUNT; i++) {
        const Value *input = node_input(node, 2 + i);
        if (node_output(node, i) != NULL && input != NULL)
            type_set(&node->outputs[i]->type, input->type.dtype, input->type.rank, input->type.dims);
        else if (node_output(node, i) != NULL)
            type_set(&node->outputs[i]->type, node->inputs[2]->type.dtype, 1, &none);
    }
    return STATUS_OK;
}

static Status linear_attention_grad_eval(EvalContext *context, Error *err)
{
    static const int64_t none = 0;
    Walk w = {0};
    WideOutput out[IN_COUNT];
    TRY(walk_begin(context, 2, &w, err));
    TRY(wide_input(context, 0, &w.d_o, err));
    TRY(wide_input(context, 1, &w.d_present, err));
    for (int i = 0; i < IN_COUNT; i++) {
        const Array *like = eval_input(context, 2 + i);
        if (like != NULL)
            TRY(wide_output_like(context, i, like, &out[i], err));
        else
            TRY(wide_output(context, i, eval_input(context, 2)->dtype, 1, &none, &out[i], err));
    }
    double **const to[IN_COUNT] = {&w.dq, &w.dk, &w.dv, &w.d_past, &w.d_decay, &w.d_beta};
    for (int i = 0; i < IN_COUNT; i++)
        *to[i] = eval_input(context, 2 + i) != NULL ? out[i].data : NULL;
    for (int64_t i = 0; i < w.s.batch * w.s.heads; i++)
        head_backward(&w, i / w.s.heads, i % w.s.heads);
    for (int i = 0; i < IN_COUNT; i++)
        wide_store(&out[i]);
    return STATUS_OK;
}

const OpDef ops_linear_attention[] = {
    {.name = "LinearAttention",
     .since = 27,
     .last = 28,
     .min_inputs = 3,
     .max_inputs = 6,
     .min_outputs = 1,
     .max_outputs = 2,
     .infer = linear_attention_infer,
     .eval = linear_attention_eval,
     .grad = linear_attention_grad},
    {.domain = DOMAIN_INTERNAL,
     .name = "LinearAttentionGrad",
     .min_inputs = 0,
     .max_inputs = IN_COUNT + 2,
     .min_outputs = IN_COUNT,
     .max_outputs = IN_COUNT,
     .infer = linear_attention_grad_infer,
     .eval = linear_attention_grad_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of LinearAttention"},
    {0},
};
