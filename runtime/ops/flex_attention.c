/* Family: attention whose scores and probabilities the model itself edits (FlexAttention of ai.onnx.preview):
 *     Y = prob_mod(softmax(score_mod(scale Q K'))) V,   heads of Q sharing those of K and V in groups.
 * The two bodies see [B, Hq, L, S] in the softmax's precision. `eval` runs them through the interpreter; planned or
 * differentiated, everything is written out (expand). */
#include <math.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"
#include "runtime/ops/wide.h"

typedef struct Flex {
    int64_t batch, q_heads, heads, queries, keys, size, v_size;
    double scale;
    DType precision;             /* of what the bodies see */
    Graph *score_mod, *prob_mod; /* NULL: none */
} Flex;

static Status flex_read(const Node *node, DType dtype, const int64_t *q, const int64_t *k, const int64_t *v, Flex *f,
                        Error *err)
{
    *f = (Flex){q[0], q[1], k[1], q[2], k[2], q[3], v[3], 0, DTYPE_UNDEFINED, NULL, NULL};
    bool fits = k[0] == q[0] && v[0] == q[0] && v[1] == k[1] && v[2] == k[2] && k[3] == q[3];
    if (!fits || f->heads < 1 || f->q_heads % f->heads != 0)
        return infer_fail(
            node, err, "Q [%lld,%lld,%lld,%lld], K [%lld,%lld,%lld,%lld] and V [%lld,%lld,%lld,%lld] do not fit",
            (long long)q[0], (long long)q[1], (long long)q[2], (long long)q[3], (long long)k[0], (long long)k[1],
            (long long)k[2], (long long)k[3], (long long)v[0], (long long)v[1], (long long)v[2], (long long)v[3]);
    f->precision = (DType)node_int(node, "softmax_precision", dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32);
    if (!dtype_is_float(f->precision))
        return infer_fail(node, err, "attribute softmax_precision is %lld, no float type", (long long)f->precision);
    f->scale = (double)node_float(node, "scale", (float)(1 / sqrt((double)(f->size > 0 ? f->size : 1))));
    f->score_mod = node_graph(node, "score_mod");
    f->prob_mod = node_graph(node, "prob_mod");
    for (int i = 0; i < 2; i++) {
        const Graph *body = i == 0 ? f->score_mod : f->prob_mod;
        if (body != NULL && (body->input_count != 1 || body->output_count != 1))
            return infer_fail(node, err, "body '%s' takes %zu and gives %zu values, one each is expected", body->name,
                              body->input_count, body->output_count);
    }
    return STATUS_OK;
}

static Status flex_of_node(const Node *node, Flex *f, Error *err)
{
    const Type *t[3];
    for (int i = 0; i < 3; i++) {
        t[i] = &node->inputs[i]->type;
        if (t[i]->rank != 4)
            return infer_fail(node, err, "input %d has %d dims, four are expected", i, t[i]->rank);
    }
    return flex_read(node, t[0]->dtype, t[0]->dims, t[1]->dims, t[2]->dims, f, err);
}

static Status flex_infer(Node *node, Error *err)
{
    Flex f = {0};
    TRY(flex_of_node(node, &f, err));
    const int64_t dims[4] = {f.batch, f.q_heads, f.queries, f.v_size};
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, 4, dims);
    return STATUS_OK;
}

/* ---- eval -------------------------------------------------------------------------------------------------------- */

/* values [B, Hq, L, S] through a body in the softmax's precision. */
static Status run_modifier(EvalContext *context, const Flex *f, Graph *body, Array **values, Error *err)
{
    const Array *in;
    Array *narrow, *out = NULL;
    if (body == NULL)
        return STATUS_OK;
    if (context->run_graph == NULL)
        return fail(err, STATUS_UNSUPPORTED, "%s: bodies run in the interpreter only", node_text(context->node));
    TRY(array_convert(context->arena, *values, f->precision, &narrow, err));
    in = narrow;
    TRY(context->run_graph(context, body, &in, 1, &out, 1, err));
    bool same = out->kind == ARRAY_TENSOR && out->dtype == f->precision && out->rank == 4 &&
                memcmp(out->dims, narrow->dims, 4 * sizeof out->dims[0]) == 0;
    if (!same)
        return eval_fail(context, err, "body '%s' changes shape or type of what it is given", body->name);
    return array_convert(context->arena, out, DTYPE_F64, values, err);
}

/* out[m, n] = factor * sum over k of a[m, k] b[k, n], b at strides bk and bn. */
static void product(const double *a, const double *b, int64_t m, int64_t n, int64_t k, int64_t bk, int64_t bn,
                    double factor, double *out)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += a[i * k + l] * b[l * bk + j * bn];
            out[i * n + j] = factor * sum;
        }
}

/* A row that hides every key gives NaN, as the operator's text has it. */
static void softmax_rows(double *x, int64_t rows, int64_t n)
{
    for (; rows-- > 0; x += n) {
        double most = -INFINITY, sum = 0;
        for (int64_t i = 0; i < n; i++)
            most = fmax(most, x[i]);
        for (int64_t i = 0; i < n; i++)
            sum += x[i] = exp(x[i] - most);
        for (int64_t i = 0; i < n; i++)
            x[i] /= sum;
    }
}

static Status flex_eval(EvalContext *context, Error *err)
{
    Flex f = {0};
    const Array *in[3];
    const double *data[3];
    for (int i = 0; i < 3; i++) {
        in[i] = eval_input(context, i);
        if (in[i]->rank != 4)
            return eval_fail(context, err, "input %d has %d dims, four are expected", i, in[i]->rank);
        TRY(wide_input(context, i, &data[i], err));
    }
    TRY(flex_read(context->node, in[0]->dtype, in[0]->dims, in[1]->dims, in[2]->dims, &f, err));
    const int64_t scores_dims[4] = {f.batch, f.q_heads, f.queries, f.keys};
    const int64_t dims[4] = {f.batch, f.q_heads, f.queries, f.v_size};
    const int64_t groups = f.q_heads / f.heads, all = f.batch * f.q_heads;
    Array *scores;
    WideOutput y;
    TRY(array_new(context->arena, DTYPE_F64, 4, scores_dims, &scores, err));
    for (int64_t h = 0; h < all; h++)
        product(data[0] + h * f.queries * f.size, data[1] + h / groups * f.keys * f.size, f.queries, f.keys, f.size, 1,
                f.size, f.scale, (double *)scores->data + h * f.queries * f.keys);
    TRY(run_modifier(context, &f, f.score_mod, &scores, err));
    softmax_rows(scores->data, all * f.queries, f.keys);
    TRY(run_modifier(context, &f, f.prob_mod, &scores, err));
    TRY(wide_output(context, 0, in[0]->dtype, 4, dims, &y, err));
    for (int64_t h = 0; h < all; h++)
        product((double *)scores->data + h * f.queries * f.keys, data[2] + h / groups * f.keys * f.v_size, f.queries,
                f.v_size, f.keys, f.v_size, 1, 1, y.data + h * f.queries * f.v_size);
    wide_store(&y);
    return STATUS_OK;
}

/* ---- expand ------------------------------------------------------------------------------------------------------ */

static Value *write_modifier(Builder *b, const Node *node, Graph *body, Value *x, Error *err)
{
    Value *out = NULL;
    if (body == NULL || b->status != STATUS_OK)
        return x;
    b->status = compose_body(b, body, &x, &out, err);
    bool same = b->status == STATUS_OK && out->type.dtype == x->type.dtype && out->type.rank == 4 &&
                memcmp(out->type.dims, x->type.dims, 4 * sizeof x->type.dims[0]) == 0;
    if (b->status == STATUS_OK && !same)
        b->status = infer_fail(node, err, "body '%s' changes shape or type of what it is given", body->name);
    return out;
}

static Status flex_expand(Node *node, Builder *b, Error *err)
{
    static const int64_t perm[5] = {0, 1, 2, 4, 3};
    Flex f = {0};
    TRY(flex_of_node(node, &f, err));
    const int64_t q_dims[5] = {f.batch, f.heads, f.q_heads / f.heads, f.queries, f.size};
    const int64_t k_dims[5] = {f.batch, f.heads, 1, f.keys, f.size},
                  v_dims[5] = {f.batch, f.heads, 1, f.keys, f.v_size};
    const int64_t p_dims[5] = {f.batch, f.heads, f.q_heads / f.heads, f.queries, f.keys};
    const int64_t scores_dims[4] = {f.batch, f.q_heads, f.queries, f.keys};
    Value *q = compose_reshape(b, compose_widen(b, node->inputs[0]), 5, q_dims);
    Value *k = compose_reshape(b, compose_widen(b, node->inputs[1]), 5, k_dims);
    Value *v = compose_reshape(b, compose_widen(b, node->inputs[2]), 5, v_dims);
    if (b->status != STATUS_OK)
        return b->status;
    DType dtype = q->type.dtype;
    Value *scores = compose_reshape(b, compose_strided(b, q, NULL, k, perm, NULL, 0, f.scale), 4, scores_dims);
    scores = write_modifier(b, node, f.score_mod, compose_cast(b, scores, f.precision), err);
    Value *p = write_modifier(b, node, f.prob_mod, build1(b, "Softmax", scores), err);
    p = compose_reshape(b, compose_cast(b, p, dtype), 5, p_dims);
    if (b->status != STATUS_OK)
        return b->status;
    Value *y = compose_strided(b, p, NULL, v, NULL, NULL, 0, 1);
    compose_replace(b, node->outputs[0], compose_like(b, y, node->outputs[0]));
    return b->status;
}

const OpDef ops_flex_attention[] = {
    {.domain = "ai.onnx.preview",
     .name = "FlexAttention",
     .since = 1,
     .last = 1,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_BODY,
     .infer = flex_infer,
     .eval = flex_eval,
     .expand = flex_expand},
    {0},
};
