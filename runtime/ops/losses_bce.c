/* Family: the internal BCEWithLogitsLoss that training uses for targets between 0 and 1, one for each number: a scalar
 * mean with PyTorch's meaning, with the operator that is its gradient. Losses over classes: losses.c. */
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"
#include "runtime/ops/vector.h"
#include "runtime/ops/wide.h"

#include <math.h>

enum { BLOCK = 4096 };

static Status bce_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *t = &node->inputs[1]->type;
    Arena *arena = &node->graph->model->arena;
    bool same = x->rank == t->rank;
    for (int i = 0; same && i < x->rank; i++)
        same = x->dims[i] == t->dims[i];
    if (!same)
        return infer_fail(node, err, "targets %s do not fit logits %s", type_text(arena, t), type_text(arena, x));
    type_set(&node->outputs[0]->type, x->dtype, 0, NULL);
    return STATUS_OK;
}

/* mean of max(x, 0) - x t + log(1 + e^-|x|) (torch.nn.BCEWithLogitsLoss, in its stable form). */
static Status bce_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *xs, *ts;
    WideOutput out;
    double sum = 0;
    TRY(wide_input(context, 0, &xs, err));
    TRY(wide_input(context, 1, &ts, err));
    TRY(wide_output(context, 0, x->dtype, 0, NULL, &out, err));
    for (int64_t i = 0; i < x->count; i++)
        sum += fmax(xs[i], 0) - xs[i] * ts[i] + log1p(exp(-fabs(xs[i])));
    out.data[0] = sum / (double)x->count;
    wide_store(&out);
    return STATUS_OK;
}

/* dx = dloss/n (sigmoid x - t), dt = -dloss/n x (the derivative of the line above). */
static Status bce_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    Value *x = context->node->inputs[0], *t = context->node->inputs[1], *dy = context->dy[0];
    if (context->wants[0]) {
        Value *inputs[] = {dy, x, t};
        context->dx[0] = build_finish(b, build_node(b, DOMAIN_INTERNAL, "BCEWithLogitsLossGrad", inputs, 3, 1));
    }
    if (context->wants[1])
        context->dx[1] = build2(b, "Mul", x, compose_scale(b, dy, -1.0 / (double)type_count(&x->type)));
    return b->status;
}

static Status bce_grad_infer(Node *node, Error *err)
{
    (void)err;
    const Type *x = &node->inputs[1]->type;
    type_set(&node->outputs[0]->type, x->dtype, x->rank, x->dims);
    return STATUS_OK;
}

static Status bce_grad_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 1);
    const double *dy, *xs, *ts;
    WideOutput dx;
    TRY(wide_input(context, 0, &dy, err));
    TRY(wide_input(context, 1, &xs, err));
    TRY(wide_input(context, 2, &ts, err));
    TRY(wide_output_like(context, 0, x, &dx, err));
    for (int64_t i = 0; i < x->count; i++)
        dx.data[i] = dy[0] / (double)x->count * (1 / (1 + exp(-xs[i])) - ts[i]);
    wide_store(&dx);
    return STATUS_OK;
}

typedef struct Bce {
    const float *x, *t;
    float *dx, scale;
    double *sums; /* one a block, in scratch */
    int64_t count;
} Bce;

VECTOR_CLONES static float bce_sum(const float *x, const float *t, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float e = vector_exp(x[i] > 0 ? -x[i] : x[i]), u = 1.0F + e;
        float log1p_e = u == 1.0F ? e : vector_log(u) * (e / (u - 1.0F)); /* Kahan: exact where 1 + e rounds */
        sum += (x[i] > 0 ? x[i] : 0.0F) - x[i] * t[i] + log1p_e;
    }
    return sum;
}

VECTOR_CLONES static void bce_differences(const float *x, const float *t, float *dx, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = scale * (vector_sigmoid(x[i]) - t[i]);
}

static void bce_blocks(int64_t begin, int64_t end, void *context)
{
    Bce *work = context;
    for (int64_t b = begin; b < end; b++) {
        int64_t at = b * BLOCK, n = work->count - at < BLOCK ? work->count - at : BLOCK;
        if (work->dx == NULL)
            work->sums[b] = (double)bce_sum(work->x + at, work->t + at, n);
        else
            bce_differences(work->x + at, work->t + at, work->dx + at, n, work->scale);
    }
}

static Status run_bce(Step *step, Error *err)
{
    (void)err;
    Bce work = {
        .x = step->in[0]->data, .t = step->in[1]->data, .sums = step->scratch, .count = slot_count(step->in[0])};
    int64_t blocks = (work.count + BLOCK - 1) / BLOCK;
    double sum = 0;
    parallel_for(blocks, 1, bce_blocks, &work);
    for (int64_t b = 0; b < blocks; b++)
        sum += work.sums[b];
    *(float *)step->out[0]->data = (float)(sum / (double)work.count);
    return STATUS_OK;
}

static Status run_bce_grad(Step *step, Error *err)
{
    (void)err;
    Bce work = {
        .x = step->in[1]->data, .t = step->in[2]->data, .dx = step->out[0]->data, .count = slot_count(step->in[1])};
    work.scale = *(const float *)step->in[0]->data / (float)work.count;
    parallel_for((work.count + BLOCK - 1) / BLOCK, 1, bce_blocks, &work);
    return STATUS_OK;
}

static Status bce_prepare(PlanContext *context, Error *err)
{
    const Type *type = &context->node->inputs[0]->type;
    if (type->dtype != DTYPE_F32 || context->plain_only)
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    kernel_output(context, 0, LAYOUT_PLAIN);
    kernel_scratch(context, (size_t)((type_count(type) + BLOCK - 1) / BLOCK) * sizeof(double));
    kernel_run(context, run_bce, "own");
    return STATUS_OK;
}

static Status bce_grad_prepare(PlanContext *context, Error *err)
{
    if (context->node->outputs[0]->type.dtype != DTYPE_F32 || context->plain_only)
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    kernel_output_in_place(context, 0, 1, LAYOUT_PLAIN);
    kernel_run(context, run_bce_grad, "own");
    return STATUS_OK;
}

const OpDef ops_losses_bce[] = {
    {.domain = DOMAIN_INTERNAL,
     .name = "BCEWithLogitsLoss",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = bce_infer,
     .eval = bce_eval,
     .grad = bce_grad,
     .prepare = bce_prepare,
     .no_case = "internal; covered by its gradient cases"},
    {.domain = DOMAIN_INTERNAL,
     .name = "BCEWithLogitsLossGrad",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = bce_grad_infer,
     .eval = bce_grad_eval,
     .prepare = bce_grad_prepare,
     .no_gradient = "gradients are not differentiated again",
     .no_case = "internal; covered by the gradient cases of BCEWithLogitsLoss"},
    {0},
};
