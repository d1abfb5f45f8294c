/* Family: local response normalisation, LRN and its gradient LRNGrad(dy, x). The kernels run over plain slots: for a
 * stretch of positions the squares of neighbouring channels are summed, so the inner loops are contiguous. */
#include <math.h>
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/vector.h"
#include "runtime/ops/wide.h"

/* ---- local response normalisation -------------------------------------------------------------------------------- */

typedef struct LrnShape {
    int64_t batch, channels, spatial, before, after; /* neighbours that count */
    double alpha, beta, bias;                        /* alpha already divided by the size */
} LrnShape;

static Status lrn_shape(const Node *node, int rank, const int64_t *dims, LrnShape *s, Error *err)
{
    int64_t size = node_int(node, "size", 0);
    if (rank < 2 || size < 1)
        return infer_fail(node, err, "size %lld, input of rank %d", (long long)size, rank);
    *s = (LrnShape){.batch = dims[0], .channels = dims[1], .spatial = dims_count(rank - 2, dims + 2)};
    s->before = (size - 1) / 2;
    s->after = size - 1 - s->before;
    s->alpha = (double)node_float(node, "alpha", 1e-4f) / (double)size;
    s->beta = (double)node_float(node, "beta", 0.75f);
    s->bias = (double)node_float(node, "bias", 1.0f);
    return STATUS_OK;
}

static Status lrn_infer(Node *node, Error *err)
{
    LrnShape shape;
    TRY(lrn_shape(node, node->inputs[0]->type.rank, node->inputs[0]->type.dims, &shape, err));
    return infer_same(node, err);
}

/* base[n, c, s] = bias + alpha/size * sum over the neighbouring channels of x^2 */
static void lrn_base(const LrnShape *l, const double *x, double *base)
{
    for (int64_t i = 0; i < l->batch * l->channels * l->spatial; i++) {
        int64_t c = i / l->spatial % l->channels, sample = i - c * l->spatial;
        int64_t low = c > l->before ? c - l->before : 0;
        int64_t high = c + l->after < l->channels - 1 ? c + l->after : l->channels - 1;
        double sum = 0;
        for (int64_t k = low; k <= high; k++)
            sum += x[sample + k * l->spatial] * x[sample + k * l->spatial];
        base[i] = l->bias + l->alpha * sum;
    }
}

/* y = x * base^-beta,  LRN-13 */
static Status lrn_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *from;
    double *base;
    LrnShape shape;
    WideOutput y;
    TRY(lrn_shape(context->node, x->rank, x->dims, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_scratch(context, x->count, &base, err));
    TRY(wide_output_like(context, 0, x, &y, err));
    lrn_base(&shape, from, base);
    for (int64_t i = 0; i < x->count; i++)
        y.data[i] = from[i] * pow(base[i], -shape.beta);
    wide_store(&y);
    return STATUS_OK;
}

/* dx_c = dy_c * base_c^-beta - 2 alpha/size beta x_c * sum of dy_k x_k base_k^(-beta-1) over the k whose region holds c
 */
static Status lrn_grad_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 1);
    const double *dy, *from;
    double *base;
    LrnShape l;
    WideOutput dx;
    TRY(lrn_shape(context->node, x->rank, x->dims, &l, err));
    TRY(wide_input(context, 0, &dy, err));
    TRY(wide_input(context, 1, &from, err));
    TRY(wide_scratch(context, x->count, &base, err));
    TRY(wide_output_like(context, 0, x, &dx, err));
    lrn_base(&l, from, base);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t c = i / l.spatial % l.channels, sample = i - c * l.spatial;
        int64_t low = c > l.after ? c - l.after : 0;
        int64_t high = c + l.before < l.channels - 1 ? c + l.before : l.channels - 1;
        double sum = 0;
        for (int64_t k = low; k <= high; k++) {
            int64_t at = sample + k * l.spatial;
            sum += dy[at] * from[at] * pow(base[at], -l.beta - 1);
        }
        dx.data[i] = dy[i] * pow(base[i], -l.beta) - 2 * l.alpha * l.beta * from[i] * sum;
    }
    wide_store(&dx);
    return STATUS_OK;
}

static Status lrn_grad(GradContext *context, Error *err)
{
    (void)err;
    Value *inputs[] = {context->dy[0], context->node->inputs[0]};
    if (!context->wants[0])
        return STATUS_OK;
    Node *gradient = build_node(&context->b, DOMAIN_INTERNAL, "LRNGrad", inputs, 2, 1);
    if (gradient == NULL)
        return context->b.status;
    node_copy_attrs(gradient, context->node);
    context->dx[0] = build_finish(&context->b, gradient);
    return context->b.status;
}

/* ---- kernels -------------------------------------------------------------------------------------------------- */

enum { STRETCH = 256 }; /* positions at a time */

typedef struct LrnJob {
    const LrnShape *shape;
    const float *x, *dy;
    float *y;            /* y, or dx */
    float *power, *term; /* gradient, of every element: base^-beta, and dy*x*base^(-beta-1) */
} LrnJob;

/* Stretches of a sample's positions; `stretches` of them a sample. */
static int64_t stretches(const LrnShape *l)
{
    return (l->spatial + STRETCH - 1) / STRETCH;
}

/* base of `count` positions of channel c, from the sample's first channel at `x`. */
VECTOR_INLINE void stretch_base(const LrnShape *l, const float *x, int64_t c, int64_t count, float *base)
{
    int64_t low = c > l->before ? c - l->before : 0;
    int64_t high = c + l->after < l->channels - 1 ? c + l->after : l->channels - 1;
    float alpha = (float)l->alpha, bias = (float)l->bias;
    for (int64_t i = 0; i < count; i++)
        base[i] = 0;
    for (int64_t k = low; k <= high; k++)
        for (int64_t i = 0; i < count; i++)
            base[i] += x[k * l->spatial + i] * x[k * l->spatial + i];
    for (int64_t i = 0; i < count; i++)
        base[i] = bias + alpha * base[i];
}

VECTOR_CLONES
static void forward_range(int64_t first, int64_t last, void *context) /* over [N, stretches] */
{
    const LrnJob *job = context;
    const LrnShape *l = job->shape;
    int64_t each = stretches(l);
    float base[STRETCH], beta = (float)l->beta;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t at = unit % each * STRETCH, count = l->spatial - at < STRETCH ? l->spatial - at : STRETCH;
        const float *x = job->x + unit / each * l->channels * l->spatial + at;
        float *y = job->y + unit / each * l->channels * l->spatial + at;
        for (int64_t c = 0; c < l->channels; c++) {
            stretch_base(l, x, c, count, base);
            for (int64_t i = 0; i < count; i++)
                y[c * l->spatial + i] = x[c * l->spatial + i] * vector_exp(-beta * vector_log(base[i]));
        }
    }
}

VECTOR_CLONES
static void term_range(int64_t first, int64_t last, void *context) /* over [N, stretches] */
{
    const LrnJob *job = context;
    const LrnShape *l = job->shape;
    int64_t each = stretches(l);
    float base[STRETCH], beta = (float)l->beta;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t at = unit % each * STRETCH, count = l->spatial - at < STRETCH ? l->spatial - at : STRETCH;
        int64_t sample = unit / each * l->channels * l->spatial + at;
        for (int64_t c = 0; c < l->channels; c++) {
            int64_t row = sample + c * l->spatial;
            stretch_base(l, job->x + sample, c, count, base);
            for (int64_t i = 0; i < count; i++) {
                float power = vector_exp(-beta * vector_log(base[i]));
                job->power[row + i] = power;
                job->term[row + i] = job->dy[row + i] * job->x[row + i] * power / base[i];
            }
        }
    }
}

VECTOR_CLONES
static void gradient_range(int64_t first, int64_t last, void *context) /* over [N, C] */
{
    const LrnJob *job = context;
    const LrnShape *l = job->shape;
    float factor = (float)(2 * l->alpha * l->beta);
    for (int64_t nc = first; nc < last; nc++) {
        int64_t c = nc % l->channels, sample = (nc - c) * l->spatial;
        int64_t low = c > l->after ? c - l->after : 0;
        int64_t high = c + l->before < l->channels - 1 ? c + l->before : l->channels - 1;
        const float *x = job->x + nc * l->spatial, *dy = job->dy + nc * l->spatial, *p = job->power + nc * l->spatial;
        float *dx = job->y + nc * l->spatial;
        for (int64_t i = 0; i < l->spatial; i++) {
            float sum = 0;
            for (int64_t k = low; k <= high; k++)
                sum += job->term[sample + k * l->spatial + i];
            dx[i] = dy[i] * p[i] - factor * x[i] * sum;
        }
    }
}

static Status run_lrn(Step *step, Error *err)
{
    (void)err;
    const LrnShape *shape = step->state;
    LrnJob job = {.shape = shape, .x = step->in[0]->data, .y = step->out[0]->data};
    parallel_for(shape->batch * stretches(shape), 1, forward_range, &job);
    return STATUS_OK;
}

static Status run_lrn_grad(Step *step, Error *err)
{
    (void)err;
    const LrnShape *shape = step->state;
    LrnJob job = {.shape = shape, .dy = step->in[0]->data, .x = step->in[1]->data, .y = step->out[0]->data};
    job.power = step->scratch;
    job.term = job.power + shape->batch * shape->channels * shape->spatial;
    parallel_for(shape->batch * stretches(shape), 1, term_range, &job);
    parallel_for(shape->batch * shape->channels, 1, gradient_range, &job);
    return STATUS_OK;
}

static Status prepare(PlanContext *context, Status (*run)(Step *step, Error *err), size_t scratch, Error *err)
{
    const Type *x = &context->node->inputs[0]->type;
    LrnShape shape;
    TRY(lrn_shape(context->node, x->rank, x->dims, &shape, err));
    if (context->plain_only || x->dtype != DTYPE_F32 || type_count(x) == 0 || shape.bias <= 0 || shape.alpha < 0)
        return kernel_eval(context, err); /* the logarithm wants a positive base */
    for (int i = 0; i < context->node->input_count; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    kernel_output(context, 0, LAYOUT_PLAIN);
    LrnShape *state = kernel_state(context, sizeof *state);
    *state = shape;
    kernel_scratch(context, scratch * (size_t)type_count(x) * sizeof(float));
    kernel_run(context, run, "own");
    return STATUS_OK;
}

static Status lrn_prepare(PlanContext *context, Error *err)
{
    return prepare(context, run_lrn, 0, err);
}

static Status lrn_grad_prepare(PlanContext *context, Error *err)
{
    return prepare(context, run_lrn_grad, 2, err);
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

const OpDef ops_lrn[] = {
    {.name = "LRN",
     .since = 1,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = lrn_infer,
     .eval = lrn_eval,
     .grad = lrn_grad,
     .prepare = lrn_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "LRNGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = infer_same,
     .eval = lrn_grad_eval,
     .prepare = lrn_grad_prepare,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of LRN"},
    {0},
};
