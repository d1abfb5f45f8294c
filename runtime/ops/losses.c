/* Family: losses over classes. ONNX's NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss, and what training uses:
 * the internal SoftmaxCrossEntropyLoss (logits, integer target, optional class weights; label smoothing), a scalar mean
 * with PyTorch's meaning, with the operator that is its gradient, and ClassTargets, the guard before a loss that is
 * built of plain operators (Dice, passes/loss.c). Yes or no for each number: losses_bce.c.
 *
 * Scores are [N, C, d1..] seen as [outer, C, inner] around the class axis; sample s = (o, i) has the scores at o C
 * inner + c inner + i. */
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/vector.h"

#include <math.h>

enum { COLUMNS = 64, GRAIN = 4096 };

/* ---- what all of them read ---------------------------------------------------------------------------------- */

typedef enum Reduction { REDUCTION_NONE, REDUCTION_SUM, REDUCTION_MEAN } Reduction;

typedef struct LossSetup {
    Reduction reduction;
    bool ignores;
    int64_t ignore_index;
    double smoothing;
} LossSetup;

static Status loss_setup(const Node *node, LossSetup *setup, Error *err)
{
    const char *reduction = node_string(node, "reduction", "mean");
    setup->reduction = strcmp(reduction, "none") == 0  ? REDUCTION_NONE
                       : strcmp(reduction, "sum") == 0 ? REDUCTION_SUM
                                                       : REDUCTION_MEAN;
    if (setup->reduction == REDUCTION_MEAN && strcmp(reduction, "mean") != 0)
        return infer_fail(node, err, "reduction '%s' is none of none, sum, mean", reduction);
    setup->ignores = node_attr(node, "ignore_index") != NULL;
    setup->ignore_index = node_int(node, "ignore_index", 0);
    setup->smoothing = (double)node_float(node, "label_smoothing", 0);
    return STATUS_OK;
}

static bool counts(const LossSetup *setup, int64_t target)
{
    return !setup->ignores || target != setup->ignore_index;
}

static int64_t target_at(const void *targets, DType dtype, int64_t i)
{
    return dtype == DTYPE_I32 ? ((const int32_t *)targets)[i] : ((const int64_t *)targets)[i];
}

/* Every target that counts must be a class. */
static Status check_targets(const Node *node, const LossSetup *setup, const void *targets, DType dtype, int64_t samples,
                            int64_t classes, Error *err)
{
    for (int64_t s = 0; s < samples; s++) {
        int64_t target = target_at(targets, dtype, s);
        if (counts(setup, target) && (target < 0 || target >= classes))
            return fail(err, STATUS_REJECTED, "%s: target %lld at %lld is outside [0, %lld)", node_text(node),
                        (long long)target, (long long)s, (long long)classes);
    }
    return STATUS_OK;
}

/* The class axis: 1, or 0 for a single sample [C]. */
static int class_axis(const Node *node, int rank)
{
    int64_t axis = node_int(node, "axis", 1);
    return rank < 2 ? 0 : (int)(axis < 0 ? axis + rank : axis);
}

/* Scores without the class axis must be the targets; weights are one a class. */
static Status check_shapes(const Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *t = &node->inputs[1]->type;
    const Value *w = node_input(node, 2);
    Arena *arena = &node->graph->model->arena;
    int axis = class_axis(node, x->rank);
    bool fits = x->rank >= 1 && axis >= 0 && axis < x->rank && t->rank == x->rank - 1;
    for (int i = 0; fits && i < t->rank; i++)
        fits = t->dims[i] == x->dims[i < axis ? i : i + 1];
    if (!fits || (t->dtype != DTYPE_I64 && t->dtype != DTYPE_I32))
        return infer_fail(node, err, "targets %s do not fit scores %s", type_text(arena, t), type_text(arena, x));
    if (w != NULL && (w->type.rank != 1 || w->type.dims[0] != x->dims[axis]))
        return infer_fail(node, err, "class weights %s do not fit scores %s", type_text(arena, &w->type),
                          type_text(arena, x));
    return STATUS_OK;
}

/* ---- the reference, in double ---------------------------------------------------------------------------------- */

typedef struct LossReference {
    LossSetup setup;
    Span span;
    int64_t samples;
    const double *x, *weights; /* weights: NULL means one each */
    const void *targets;
    DType target_dtype, dtype;
} LossReference;

static Status as_f64(EvalContext *context, const Array *array, const double **data, Error *err)
{
    Array *wide = NULL;
    *data = NULL;
    if (array == NULL)
        return STATUS_OK;
    TRY(array_convert(context->arena, array, DTYPE_F64, &wide, err));
    *data = wide->data;
    return STATUS_OK;
}

/* Scores, targets and weights are the inputs `scores`, `scores` + 1 and `scores` + 2. */
static Status reference_read(EvalContext *context, int scores, LossReference *r, Error *err)
{
    const Array *x = eval_input(context, scores), *t = eval_input(context, scores + 1);
    TRY(loss_setup(context->node, &r->setup, err));
    TRY(as_f64(context, x, &r->x, err));
    TRY(as_f64(context, eval_input(context, scores + 2), &r->weights, err));
    r->span = span_around(class_axis(context->node, x->rank), x->rank, x->dims);
    r->samples = r->span.outer * r->span.inner;
    r->targets = t->data;
    r->target_dtype = t->dtype;
    r->dtype = x->dtype;
    if (t->count != r->samples)
        return eval_fail(context, err, "%lld targets for %lld samples", (long long)t->count, (long long)r->samples);
    return check_targets(context->node, &r->setup, r->targets, r->target_dtype, r->samples, r->span.n, err);
}

static int64_t score_index(const Span *span, int64_t sample, int64_t class)
{
    return (sample / span->inner * span->n + class) * span->inner + sample % span->inner;
}

static double weight_of(const double *weights, int64_t class)
{
    return weights == NULL ? 1 : weights[class];
}

static int64_t reference_target(const LossReference *r, int64_t sample)
{
    return target_at(r->targets, r->target_dtype, sample);
}

/* The divisor of a mean: the weights of the targets that count. */
static double reference_total(const LossReference *r)
{
    double total = 0;
    for (int64_t s = 0; s < r->samples; s++)
        if (counts(&r->setup, reference_target(r, s)))
            total += weight_of(r->weights, reference_target(r, s));
    return total;
}

static void store_f64(Array *array, int64_t i, double value)
{
    if (array->dtype == DTYPE_F32)
        ((float *)array->data)[i] = (float)value;
    else
        ((double *)array->data)[i] = value;
}

/* Log softmax of r->x, which becomes it. */
static void reference_log_softmax(EvalContext *context, LossReference *r)
{
    double *y = arena_array(context->arena, double, (size_t)(r->samples * r->span.n));
    for (int64_t s = 0; s < r->samples; s++) {
        double max = -INFINITY, sum = 0;
        for (int64_t c = 0; c < r->span.n; c++)
            max = fmax(max, r->x[score_index(&r->span, s, c)]);
        for (int64_t c = 0; c < r->span.n; c++)
            sum += exp(r->x[score_index(&r->span, s, c)] - max);
        for (int64_t c = 0; c < r->span.n; c++)
            y[score_index(&r->span, s, c)] = r->x[score_index(&r->span, s, c)] - max - log(sum);
    }
    r->x = y;
}

/* The loss of one sample from its log-probabilities: (1 - e) w_t nll + e/C sum_c w_c nll_c; 0 when it does not count.
 */
static double reference_sample(const LossReference *r, int64_t s)
{
    int64_t target = reference_target(r, s);
    double e = r->setup.smoothing, smooth = 0;
    if (!counts(&r->setup, target))
        return 0;
    for (int64_t c = 0; c < r->span.n && e != 0; c++)
        smooth -= weight_of(r->weights, c) * r->x[score_index(&r->span, s, c)];
    double nll = -weight_of(r->weights, target) * r->x[score_index(&r->span, s, target)];
    return (1 - e) * nll + e / (double)r->span.n * smooth;
}

/* Output 0 from log-probabilities. The samples' shape is that of input `targets`. */
static Status reference_losses(EvalContext *context, const LossReference *r, int targets, Error *err)
{
    Array *out;
    const Array *t = eval_input(context, targets);
    bool each = r->setup.reduction == REDUCTION_NONE;
    double sum = 0;
    TRY(eval_output(context, 0, r->dtype, each ? t->rank : 0, t->dims, &out, err));
    for (int64_t s = 0; s < r->samples; s++) {
        double loss = reference_sample(r, s);
        sum += loss;
        if (each)
            store_f64(out, s, loss);
    }
    if (!each)
        store_f64(out, 0, r->setup.reduction == REDUCTION_SUM ? sum : sum / reference_total(r));
    return STATUS_OK;
}

static Status nll_eval(EvalContext *context, Error *err)
{
    LossReference r;
    TRY(reference_read(context, 0, &r, err));
    return reference_losses(context, &r, 1, err);
}

/* Both SoftmaxCrossEntropyLoss: output 1, when somebody takes it, is the log-probabilities. */
static Status cross_entropy_eval(EvalContext *context, Error *err)
{
    LossReference r;
    Array *log_prob;
    TRY(reference_read(context, 0, &r, err));
    reference_log_softmax(context, &r);
    TRY(reference_losses(context, &r, 1, err));
    if (context->out_count < 2)
        return STATUS_OK;
    TRY(eval_output_like(context, 1, eval_input(context, 0), &log_prob, err));
    for (int64_t i = 0; i < log_prob->count; i++)
        store_f64(log_prob, i, r.x[i]);
    return STATUS_OK;
}

/* ---- NegativeLogLikelihoodLoss and ONNX's SoftmaxCrossEntropyLoss ------------------------------------------------ */

static Status onnx_loss_infer(Node *node, Error *err)
{
    LossSetup setup;
    const Type *x = &node->inputs[0]->type, *t = &node->inputs[1]->type;
    TRY(loss_setup(node, &setup, err));
    TRY(check_shapes(node, err));
    type_set(&node->outputs[0]->type, x->dtype, setup.reduction == REDUCTION_NONE ? t->rank : 0, t->dims);
    if (node_output(node, 1) != NULL)
        type_set(&node->outputs[1]->type, x->dtype, x->rank, x->dims);
    return STATUS_OK;
}

/* Scores -> LogSoftmax -> NegativeLogLikelihoodLoss, as the operator's text defines it. Narrow floats stay one
 * operator, which rounds only once. */
static Status onnx_cross_entropy_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    if (node->inputs[0]->type.dtype != DTYPE_F32 && node->inputs[0]->type.dtype != DTYPE_F64)
        return STATUS_OK;
    Value *log_prob = compose_axis(b, "", "LogSoftmax", &node->inputs[0], 1, 1);
    Value *inputs[] = {log_prob, node->inputs[1], node_input(node, 2)};
    Node *pick = build_node(b, "", "NegativeLogLikelihoodLoss", inputs, 3, 1);
    if (pick != NULL)
        node_copy_attrs(pick, node);
    Value *loss = build_finish(b, pick);
    compose_replace(b, node->outputs[0], loss);
    compose_replace(b, node_output(node, 1), log_prob);
    return b->status;
}

static Value *build_nll(Builder *b, const Node *node, Value *x, Value *weights, const char *reduction)
{
    Node *made = build_node(b, "", "NegativeLogLikelihoodLoss", (Value *[]){x, node->inputs[1], weights}, 3, 1);
    if (made != NULL) {
        node_copy_attrs(made, node);
        node_set_string(made, "reduction", reduction);
    }
    return build_finish(b, made);
}

/* With l_s = -x_st: dw_c = sum over the samples of class c of dloss_s l_s; for a mean of (l_s - loss) dloss / W, W
 * being the sum of weights. The sum by classes is that of the gradient by x. */
static Value *nll_weight_grad(Builder *b, const Node *node, Value *dy, bool mean)
{
    Value *x = node->inputs[0], *each = build_nll(b, node, x, NULL, "none");
    if (mean) {
        Value *minus =
            build2(b, "Expand", build_scalar(b, x->type.dtype, -1), build_ints(b, x->type.dims, (size_t)x->type.rank));
        dy = build2(b, "Div", dy, build_nll(b, node, minus, node->inputs[2], "sum"));
        each = build2(b, "Sub", each, node->outputs[0]);
    }
    Value *arriving = build1(b, "Neg", build2(b, "Mul", dy, each));
    Node *made = build_node(b, DOMAIN_INTERNAL, "NegativeLogLikelihoodLossGrad",
                            (Value *[]){arriving, x, node->inputs[1], NULL}, 4, 1);
    if (made != NULL) {
        node_copy_attrs(made, node);
        node_set_string(made, "reduction", "none");
    }
    int64_t axes[RANK_MAX];
    size_t count = 0;
    for (int i = 0; i < x->type.rank; i++)
        if (i != 1)
            axes[count++] = i;
    Node *sum = build_node(b, "", "ReduceSum", (Value *[]){build_finish(b, made), build_ints(b, axes, count)}, 2, 1);
    if (sum != NULL)
        node_set_int(sum, "keepdims", 0);
    return build_finish(b, sum);
}

/* loss_s = -w_t x_st: dx_sc = -w_t dloss_s at c = t and 0 elsewhere, divided by the sum of weights for a mean (PyTorch,
 * aten/src/ATen/native/LossNLL.cpp, says the same of nll_loss_backward). */
static Status nll_grad(GradContext *context, Error *err)
{
    LossSetup setup;
    const Node *node = context->node;
    TRY(loss_setup(node, &setup, err));
    Value *inputs[] = {context->dy[0], node->inputs[0], node->inputs[1], node_input(node, 2)};
    if (inputs[3] != NULL && context->wants[2])
        context->dx[2] = nll_weight_grad(&context->b, node, context->dy[0], setup.reduction == REDUCTION_MEAN);
    if (!context->wants[0])
        return context->b.status;
    Node *made = build_node(&context->b, DOMAIN_INTERNAL, "NegativeLogLikelihoodLossGrad", inputs, 4, 1);
    if (made != NULL)
        node_copy_attrs(made, node);
    context->dx[0] = build_finish(&context->b, made);
    return context->b.status;
}

static Status like_second_infer(Node *node, Error *err)
{
    (void)err;
    const Type *x = &node->inputs[1]->type;
    type_set(&node->outputs[0]->type, x->dtype, x->rank, x->dims);
    return STATUS_OK;
}

static Status nll_grad_eval(EvalContext *context, Error *err)
{
    LossReference r;
    const double *dy;
    Array *dx;
    TRY(reference_read(context, 1, &r, err));
    TRY(as_f64(context, eval_input(context, 0), &dy, err));
    TRY(eval_output_like(context, 0, eval_input(context, 1), &dx, err));
    double total = r.setup.reduction == REDUCTION_MEAN ? reference_total(&r) : 1;
    memset(dx->data, 0, (size_t)dx->count * dtype_size(dx->dtype));
    for (int64_t s = 0; s < r.samples; s++) {
        int64_t target = reference_target(&r, s);
        double arriving = dy[r.setup.reduction == REDUCTION_NONE ? s : 0];
        if (counts(&r.setup, target))
            store_f64(dx, score_index(&r.span, s, target), -weight_of(r.weights, target) * arriving / total);
    }
    return STATUS_OK;
}

/* ---- the internal SoftmaxCrossEntropyLoss ------------------------------------------------------------------------ */

static Status cross_entropy_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    TRY(check_shapes(node, err));
    type_set(&node->outputs[0]->type, x->dtype, 0, NULL);
    if (node_output(node, 1) != NULL)
        type_set(&node->outputs[1]->type, x->dtype, x->rank, x->dims);
    return STATUS_OK;
}

/* With p = softmax x, W the weights of all targets that count, V the sum of all class weights and e the smoothing:
 *   loss = 1/W sum_s [ (1 - e) w_t (-log p_t) + e/C sum_c w_c (-log p_c) ]
 *   dx_sc = dloss/W [ ((1 - e) w_t + e/C V) p_c - (1 - e) w_t [c = t] - e/C w_c ]
 * (torch.nn.functional.cross_entropy; aten/src/ATen/native/LossNLL.cpp, cross_entropy_loss_label_smoothing). */
static Status cross_entropy_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    if (!context->wants[0])
        return STATUS_OK;
    if (context->dy[0] == NULL)
        return fail(err, STATUS_UNSUPPORTED, "%s: no gradient through the saved log-probabilities", node_text(node));
    if (node_output(node, 1) == NULL) {
        node_set_output(node, 1, graph_add_value(node->graph, graph_unique_name(node->graph, "log_prob")));
        TRY(node_infer(node, err));
    }
    Value *inputs[] = {context->dy[0], node->outputs[1], node->inputs[1], node_input(node, 2)};
    Node *made = build_node(&context->b, DOMAIN_INTERNAL, "SoftmaxCrossEntropyLossGrad", inputs, 4, 1);
    if (made != NULL)
        node_copy_attrs(made, node);
    context->dx[0] = build_finish(&context->b, made);
    return context->b.status;
}

static Status cross_entropy_grad_eval(EvalContext *context, Error *err)
{
    LossReference r;
    const double *dy;
    Array *dx;
    double all = 0;
    TRY(reference_read(context, 1, &r, err));
    TRY(as_f64(context, eval_input(context, 0), &dy, err));
    TRY(eval_output_like(context, 0, eval_input(context, 1), &dx, err));
    for (int64_t c = 0; c < r.span.n; c++)
        all += weight_of(r.weights, c);
    double total = reference_total(&r), e = r.setup.smoothing, each = e / (double)r.span.n;
    for (int64_t s = 0; s < r.samples; s++) {
        int64_t target = reference_target(&r, s);
        bool used = counts(&r.setup, target);
        double hit = used ? (1 - e) * weight_of(r.weights, target) : 0;
        for (int64_t c = 0; c < r.span.n; c++) {
            int64_t at = score_index(&r.span, s, c);
            double d = (hit + each * all) * exp(r.x[at]) - (c == target ? hit : 0) - each * weight_of(r.weights, c);
            store_f64(dx, at, used ? dy[0] / total * d : 0);
        }
    }
    return STATUS_OK;
}

/* ---- its planned kernels ----------------------------------------------------------------------------------------- */

typedef struct CrossEntropy {
    LossSetup setup;
    Span span;
    const float *log_prob, *weights;
    const void *targets;
    DType target_dtype;
    double *losses; /* one a sample, in scratch */
    float *dx;
    float scale, all; /* dloss / W; sum of class weights */
} CrossEntropy;

static float class_weight(const CrossEntropy *work, int64_t class)
{
    return work->weights == NULL ? 1.0F : work->weights[class];
}

/* W, the weights of the targets that count. */
static double target_weights(const CrossEntropy *work)
{
    double total = 0;
    for (int64_t s = 0; s < work->span.outer * work->span.inner; s++) {
        int64_t target = target_at(work->targets, work->target_dtype, s);
        if (counts(&work->setup, target))
            total += (double)class_weight(work, target);
    }
    return total;
}

static void sample_losses(int64_t begin, int64_t end, void *context)
{
    CrossEntropy *work = context;
    const Span *span = &work->span;
    double e = work->setup.smoothing;
    for (int64_t s = begin; s < end; s++) {
        int64_t target = target_at(work->targets, work->target_dtype, s);
        double smooth = 0;
        work->losses[s] = 0;
        if (!counts(&work->setup, target))
            continue;
        for (int64_t c = 0; c < span->n && e != 0; c++)
            smooth -= (double)class_weight(work, c) * (double)work->log_prob[score_index(span, s, c)];
        double nll = -(double)class_weight(work, target) * (double)work->log_prob[score_index(span, s, target)];
        work->losses[s] = (1 - e) * nll + e / (double)span->n * smooth;
    }
}

static Status run_cross_entropy(Step *step, Error *err)
{
    CrossEntropy *work = step->state;
    int64_t samples = work->span.outer * work->span.inner;
    const Slot *targets = step->in[1];
    float *log_prob = step->out[1] != NULL ? step->out[1]->data : (float *)((double *)step->scratch + samples);
    TRY(check_targets(step->node, &work->setup, targets->data, targets->dtype, samples, work->span.n, err));
    work->targets = targets->data;
    work->target_dtype = targets->dtype;
    work->weights = step->in_count > 2 && step->in[2] != NULL ? step->in[2]->data : NULL;
    work->losses = step->scratch;
    work->log_prob = log_prob;
    softmax_run(SOFTMAX_LOG, work->span, step->in[0]->data, NULL, log_prob);
    parallel_for(samples, work->setup.smoothing != 0 ? 1 + GRAIN / work->span.n : GRAIN, sample_losses, work);
    double sum = 0;
    for (int64_t s = 0; s < samples; s++)
        sum += work->losses[s];
    *(float *)step->out[0]->data = (float)(sum / target_weights(work));
    return STATUS_OK;
}

static Status cross_entropy_prepare(PlanContext *context, Error *err)
{
    const Type *type = &context->node->inputs[0]->type;
    if (type->dtype != DTYPE_F32 || context->plain_only)
        return kernel_eval(context, err);
    CrossEntropy *work = kernel_state(context, sizeof *work);
    TRY(loss_setup(context->node, &work->setup, err));
    work->span = span_around(class_axis(context->node, type->rank), type->rank, type->dims);
    kernel_inputs_plain(context);
    kernel_output(context, 0, LAYOUT_PLAIN);
    size_t samples = (size_t)(work->span.outer * work->span.inner) * sizeof(double);
    bool saves = node_output(context->node, 1) != NULL && kernel_output(context, 1, LAYOUT_PLAIN) != NULL;
    kernel_scratch(context, samples + (saves ? 0 : (size_t)type_count(type) * sizeof(float)));
    kernel_run(context, run_cross_entropy, "own");
    return STATUS_OK;
}

/* dx = scale [ a p_c - e/C w_c ] for one sample, a = (1 - e) w_t + e/C V, without the term at the target. */
VECTOR_CLONES static void grad_row(const CrossEntropy *work, const float *log_prob, float *dx, float a, float each)
{
    int64_t n = work->span.n;
    if (work->weights == NULL)
        for (int64_t c = 0; c < n; c++)
            dx[c] = a * vector_exp(log_prob[c]) - each;
    else
        for (int64_t c = 0; c < n; c++)
            dx[c] = a * vector_exp(log_prob[c]) - each * work->weights[c];
}

VECTOR_CLONES static void grad_columns(const CrossEntropy *work, const float *log_prob, float *dx, int64_t width,
                                       const float *a, const float *each)
{
    int64_t stride = work->span.inner;
    for (int64_t c = 0; c < work->span.n; c++) {
        float weight = work->weights == NULL ? 1.0F : work->weights[c];
        for (int64_t j = 0; j < width; j++)
            dx[c * stride + j] = a[j] * vector_exp(log_prob[c * stride + j]) - each[j] * weight;
    }
}

/* A block is one sample when rows are contiguous, else up to COLUMNS samples side by side. */
static void grad_blocks(int64_t begin, int64_t end, void *context)
{
    const CrossEntropy *work = context;
    const Span *span = &work->span;
    int64_t blocks = (span->inner + COLUMNS - 1) / COLUMNS;
    float e = (float)work->setup.smoothing, smooth = work->scale * e / (float)span->n;
    for (int64_t b = begin; b < end; b++) {
        float a[COLUMNS], each[COLUMNS], hit[COLUMNS];
        int64_t outer = b / blocks, column = b % blocks * COLUMNS, first = outer * span->inner + column;
        int64_t width = span->inner - column < COLUMNS ? span->inner - column : COLUMNS;
        int64_t at = outer * span->n * span->inner + column;
        for (int64_t j = 0; j < width; j++) {
            int64_t target = target_at(work->targets, work->target_dtype, first + j);
            bool used = counts(&work->setup, target);
            hit[j] = used ? work->scale * (1.0F - e) * class_weight(work, target) : 0.0F;
            each[j] = used ? smooth : 0.0F;
            a[j] = hit[j] + each[j] * work->all;
        }
        if (span->inner == 1)
            grad_row(work, work->log_prob + at, work->dx + at, a[0], each[0]);
        else
            grad_columns(work, work->log_prob + at, work->dx + at, width, a, each);
        for (int64_t j = 0; j < width; j++)
            if (hit[j] != 0)
                work->dx[at + j + target_at(work->targets, work->target_dtype, first + j) * span->inner] -= hit[j];
    }
}

static Status run_cross_entropy_grad(Step *step, Error *err)
{
    (void)err;
    CrossEntropy *work = step->state;
    const Span *span = &work->span;
    work->log_prob = step->in[1]->data;
    work->targets = step->in[2]->data;
    work->target_dtype = step->in[2]->dtype;
    work->weights = step->in_count > 3 && step->in[3] != NULL ? step->in[3]->data : NULL;
    work->dx = step->out[0]->data;
    work->scale = (float)((double)*(const float *)step->in[0]->data / target_weights(work));
    double all = 0;
    for (int64_t c = 0; c < span->n; c++)
        all += (double)class_weight(work, c);
    work->all = (float)all;
    parallel_for(span->outer * ((span->inner + COLUMNS - 1) / COLUMNS), 1, grad_blocks, work);
    return STATUS_OK;
}

static Status cross_entropy_grad_prepare(PlanContext *context, Error *err)
{
    const Type *type = &context->node->outputs[0]->type;
    if (type->dtype != DTYPE_F32 || context->plain_only)
        return kernel_eval(context, err);
    CrossEntropy *work = kernel_state(context, sizeof *work);
    TRY(loss_setup(context->node, &work->setup, err));
    work->span = span_around(class_axis(context->node, type->rank), type->rank, type->dims);
    kernel_inputs_plain(context);
    kernel_output_in_place(context, 0, 1, LAYOUT_PLAIN);
    kernel_run(context, run_cross_entropy_grad, "own");
    return STATUS_OK;
}

/* ---- the internal ClassTargets ----------------------------------------------------------------------------------- */

/* scores [N, C, d1..], targets [N, d1..] -> the targets, each of them a class of the scores or ignore_index. */
static Status class_targets_infer(Node *node, Error *err)
{
    const Type *targets = &node->inputs[1]->type;
    TRY(check_shapes(node, err));
    type_set(&node->outputs[0]->type, targets->dtype, targets->rank, targets->dims);
    return STATUS_OK;
}

static Status class_targets_eval(EvalContext *context, Error *err)
{
    LossSetup setup;
    const Array *scores = eval_input(context, 0), *targets = eval_input(context, 1);
    int64_t classes = scores->dims[class_axis(context->node, scores->rank)];
    TRY(loss_setup(context->node, &setup, err));
    TRY(check_targets(context->node, &setup, targets->data, targets->dtype, targets->count, classes, err));
    return eval_output_same(context, 0, targets, err);
}

#define NOT_AGAIN "gradients are not differentiated again"

const OpDef ops_losses[] = {
    {.name = "NegativeLogLikelihoodLoss",
     .since = 12,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = onnx_loss_infer,
     .eval = nll_eval,
     .grad = nll_grad},
    {.name = "SoftmaxCrossEntropyLoss",
     .since = 12,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 2,
     .infer = onnx_loss_infer,
     .eval = cross_entropy_eval,
     .expand = onnx_cross_entropy_expand},
    {.domain = DOMAIN_INTERNAL,
     .name = "NegativeLogLikelihoodLossGrad",
     .min_inputs = 3,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = like_second_infer,
     .eval = nll_grad_eval,
     .no_gradient = NOT_AGAIN,
     .no_case = "internal; covered by the gradient cases of NegativeLogLikelihoodLoss"},
    {.domain = DOMAIN_INTERNAL,
     .name = "SoftmaxCrossEntropyLoss",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 2,
     .infer = cross_entropy_infer,
     .eval = cross_entropy_eval,
     .grad = cross_entropy_grad,
     .prepare = cross_entropy_prepare,
     .no_case = "internal; covered by its gradient cases"},
    {.domain = DOMAIN_INTERNAL,
     .name = "SoftmaxCrossEntropyLossGrad",
     .min_inputs = 3,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = like_second_infer,
     .eval = cross_entropy_grad_eval,
     .prepare = cross_entropy_grad_prepare,
     .no_gradient = NOT_AGAIN,
     .no_case = "internal; covered by the gradient cases of SoftmaxCrossEntropyLoss"},
    {.domain = DOMAIN_INTERNAL,
     .name = "ClassTargets",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = class_targets_infer,
     .eval = class_targets_eval,
     .no_gradient = "classes are whole numbers",
     .no_case = "internal; covered by the Dice checks of tests/cli.sh"},
    {0},
};
