/* Family: softmax. Softmax, LogSoftmax and Hardmax along one axis, and the gradients of the first two from their
 * outputs alone. A tensor is seen as [outer, n, inner] around the axis: with inner 1 a row is contiguous and threads
 * share rows; else threads share blocks of inner columns and walk them row by row, so that memory is still read in
 * order. */
#include "runtime/ops/softmax.h"
#include "runtime/ops/bf16.h"
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"

#include <math.h>

enum { COLUMNS = 64, ROW_GRAIN = 4096 }; /* inner columns worked on at once; elements a thread takes at least */

Span span_around(int axis, int rank, const int64_t *dims)
{
    Span s = {1, rank > 0 ? dims[axis] : 1, 1};
    for (int i = 0; i < axis; i++)
        s.outer *= dims[i];
    for (int i = axis + 1; i < rank; i++)
        s.inner *= dims[i];
    return s;
}

/* ---- shapes and versions ----------------------------------------------------------------------------------- */

/* Newest forms: the axis is one dim, by default the last. */
static Status softmax_axis(const Node *node, int rank, int *axis, Error *err)
{
    *axis = 0;
    return rank == 0 ? STATUS_OK : axis_normalize(node, node_int(node, "axis", -1), rank, axis, err);
}

static Status softmax_infer(Node *node, Error *err)
{
    int axis;
    TRY(softmax_axis(node, node->inputs[0]->type.rank, &axis, err));
    return infer_same(node, err);
}

/* Before 13 the axis (by default 1) split the shape into a matrix: y = Reshape(Softmax(Flatten(x, axis), -1),
 * Shape(x)). Where the axis is the last one anyway, that is the newest form. */
static Status softmax_upgrade(Node *node, Error *err)
{
    (void)err;
    if (node->opset >= 13)
        return STATUS_OK;
    Value *x = node->inputs[0], *y = node->outputs[0];
    int64_t axis = node_int(node, "axis", 1);
    int rank = x->type.rank;
    node_set_int(node, "axis", -1);
    if (axis == -1 || (rank > 0 && axis == rank - 1))
        return STATUS_OK;
    Graph *graph = node->graph;
    Node *shape = graph_add_node(graph, node, "", "Shape", OPSET_NEWEST, node->name, &x, 1, 1);
    Node *flat = graph_add_node(graph, node, "", "Flatten", OPSET_NEWEST, node->name, &x, 1, 1);
    node_set_int(flat, "axis", axis);
    node_set_input(node, 0, flat->outputs[0]);
    node->outputs[0] = NULL;
    y->producer = NULL;
    node_set_output(node, 0, graph_add_value(graph, graph_unique_name(graph, y->name)));
    Value *inputs[] = {node->outputs[0], shape->outputs[0]};
    Node *back = graph_add_node(graph, node->next, "", "Reshape", OPSET_NEWEST, node->name, inputs, 2, 0);
    node_set_output(back, 0, y);
    return STATUS_OK;
}

/* ---- eval --------------------------------------------------------------------------------------------------- */

/* Along elements at x, x + stride, ..: softmax x_i = e^(x_i - m) / sum e^(x_j - m), its logarithm, or 1 at the first
 * maximum. */
#define SOFTMAX_EVAL(NAME, TYPE)                                                                                       \
    static void softmax_line_##NAME(SoftmaxKind kind, const TYPE *x, TYPE *y, int64_t n, int64_t stride)               \
    {                                                                                                                  \
        int64_t top = 0;                                                                                               \
        double sum = 0;                                                                                                \
        for (int64_t i = 1; i < n; i++)                                                                                \
            if (x[i * stride] > x[top * stride])                                                                       \
                top = i;                                                                                               \
        double max = (double)x[top * stride];                                                                          \
        for (int64_t i = 0; i < n; i++)                                                                                \
            sum += exp((double)x[i * stride] - max);                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            double above = (double)x[i * stride] - max;                                                                \
            y[i * stride] = kind == SOFTMAX_HARD                                 ? (TYPE)(i == top)                    \
                            : kind == SOFTMAX_LOG                                ? (TYPE)(above - log(sum))            \
                            : kind == SOFTMAX_MASKED && max == (double)-INFINITY ? (TYPE)0                             \
                                                                                 : (TYPE)(exp(above) / sum);           \
        }                                                                                                              \
    }                                                                                                                  \
    static void softmax_grad_line_##NAME(SoftmaxKind kind, const TYPE *dy, const TYPE *y, TYPE *dx, int64_t n,         \
                                         int64_t stride)                                                               \
    {                                                                                                                  \
        double sum = 0;                                                                                                \
        for (int64_t i = 0; i < n * stride; i += stride)                                                               \
            sum += kind == SOFTMAX_LOG ? (double)dy[i] : (double)dy[i] * (double)y[i];                                 \
        for (int64_t i = 0; i < n * stride; i += stride)                                                               \
            dx[i] = kind == SOFTMAX_LOG ? (TYPE)((double)dy[i] - exp((double)y[i]) * sum)                              \
                                        : (TYPE)((double)y[i] * ((double)dy[i] - sum));                                \
    }

SOFTMAX_EVAL(f32, float)
SOFTMAX_EVAL(f64, double)

static Status softmax_eval_kind(EvalContext *context, SoftmaxKind kind, Error *err)
{
    const Array *x = eval_input(context, 0);
    Array *y;
    int axis;
    if (x->dtype != DTYPE_F32 && x->dtype != DTYPE_F64)
        return eval_fail(context, err, "no softmax of %s", dtype_name(x->dtype));
    TRY(softmax_axis(context->node, x->rank, &axis, err));
    TRY(eval_output_like(context, 0, x, &y, err));
    Span s = span_around(axis, x->rank, x->dims);
    for (int64_t i = 0; i < s.outer * s.inner && s.n > 0; i++) {
        int64_t at = i / s.inner * s.n * s.inner + i % s.inner;
        if (x->dtype == DTYPE_F32)
            softmax_line_f32(kind, (const float *)x->data + at, (float *)y->data + at, s.n, s.inner);
        else
            softmax_line_f64(kind, (const double *)x->data + at, (double *)y->data + at, s.n, s.inner);
    }
    return STATUS_OK;
}

static Status softmax_eval(EvalContext *context, Error *err)
{
    return softmax_eval_kind(context, SOFTMAX_PLAIN, err);
}

static Status log_softmax_eval(EvalContext *context, Error *err)
{
    return softmax_eval_kind(context, SOFTMAX_LOG, err);
}

static Status masked_softmax_eval(EvalContext *context, Error *err)
{
    return softmax_eval_kind(context, SOFTMAX_MASKED, err);
}

static Status hardmax_eval(EvalContext *context, Error *err)
{
    return softmax_eval_kind(context, SOFTMAX_HARD, err);
}

static Status softmax_grad_eval_kind(EvalContext *context, SoftmaxKind kind, Error *err)
{
    const Array *dy = eval_input(context, 0), *y = eval_input(context, 1);
    Array *dx;
    int axis;
    TRY(softmax_axis(context->node, y->rank, &axis, err));
    TRY(eval_output_like(context, 0, y, &dx, err));
    Span s = span_around(axis, y->rank, y->dims);
    for (int64_t i = 0; i < s.outer * s.inner && s.n > 0; i++) {
        int64_t at = i / s.inner * s.n * s.inner + i % s.inner;
        if (y->dtype == DTYPE_F32)
            softmax_grad_line_f32(kind, (const float *)dy->data + at, (const float *)y->data + at,
                                  (float *)dx->data + at, s.n, s.inner);
        else
            softmax_grad_line_f64(kind, (const double *)dy->data + at, (const double *)y->data + at,
                                  (double *)dx->data + at, s.n, s.inner);
    }
    return STATUS_OK;
}

static Status softmax_grad_eval(EvalContext *context, Error *err)
{
    return softmax_grad_eval_kind(context, SOFTMAX_PLAIN, err);
}

static Status log_softmax_grad_eval(EvalContext *context, Error *err)
{
    return softmax_grad_eval_kind(context, SOFTMAX_LOG, err);
}

/* ---- gradients ---------------------------------------------------------------------------------------------- */

static Status softmax_grad_with(GradContext *context, const char *op_type, Error *err)
{
    int axis;
    Value *y = context->node->outputs[0];
    TRY(softmax_axis(context->node, y->type.rank, &axis, err));
    Value *inputs[] = {context->dy[0], y};
    context->dx[0] = compose_axis(&context->b, DOMAIN_INTERNAL, op_type, inputs, 2, axis);
    return context->b.status;
}

/* y = softmax x: dx_i = y_i (dy_i - sum_j dy_j y_j) (Bridle, "Probabilistic interpretation of feedforward
 * classification network outputs", 1990). */
static Status softmax_grad(GradContext *context, Error *err)
{
    return softmax_grad_with(context, "SoftmaxGrad", err);
}

/* y = log softmax x: dx_i = dy_i - e^y_i sum_j dy_j, from the same Jacobian. */
static Status log_softmax_grad(GradContext *context, Error *err)
{
    return softmax_grad_with(context, "LogSoftmaxGrad", err);
}

/* ---- planned kernels: contiguous rows -------------------------------------------------------------------------- */

VECTOR_CLONES static void softmax_row(const float *x, float *y, int64_t n, bool masked)
{
    float max = x[0], sum = 0;
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    if (masked && max == -INFINITY) {
        memset(y, 0, (size_t)n * sizeof *y);
        return;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float e = vector_exp(x[i] - max);
        y[i] = e;
        sum += e;
    }
    float scale = 1.0F / sum;
    for (int64_t i = 0; i < n; i++)
        y[i] *= scale;
}

VECTOR_CLONES static void log_softmax_row(const float *x, float *y, int64_t n)
{
    float max = x[0], sum = 0;
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += vector_exp(x[i] - max);
    float shift = logf(sum);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] - max - shift;
}

VECTOR_CLONES static void softmax_grad_row(const float *dy, const float *y, float *dx, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += dy[i] * y[i];
    for (int64_t i = 0; i < n; i++)
        dx[i] = y[i] * (dy[i] - sum);
}

VECTOR_CLONES static void log_softmax_grad_row(const float *dy, const float *y, float *dx, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += dy[i];
    for (int64_t i = 0; i < n; i++)
        dx[i] = dy[i] - vector_exp(y[i]) * sum;
}

/* ---- planned kernels: `width` columns side by side, n rows `stride` apart --------------------------------------- */

/* Maximum and sum of e^(x - maximum) of each column. */
VECTOR_CLONES static void column_sums(const float *x, int64_t n, int64_t stride, int64_t width, float *max, float *sum)
{
    for (int64_t j = 0; j < width; j++) {
        max[j] = x[j];
        sum[j] = 0;
    }
    for (int64_t i = 1; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            max[j] = x[i * stride + j] > max[j] ? x[i * stride + j] : max[j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            sum[j] += vector_exp(x[i * stride + j] - max[j]);
}

VECTOR_CLONES static void softmax_columns(const float *x, float *y, int64_t n, int64_t stride, int64_t width,
                                          bool masked)
{
    float max[COLUMNS], sum[COLUMNS];
    column_sums(x, n, stride, width, max, sum);
    for (int64_t j = 0; j < width; j++) {
        bool empty = masked && max[j] == -INFINITY;
        max[j] = empty ? 0.0F : max[j];
        sum[j] = empty ? 0.0F : 1.0F / sum[j];
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            y[i * stride + j] = vector_exp(x[i * stride + j] - max[j]) * sum[j];
}

VECTOR_CLONES static void log_softmax_columns(const float *x, float *y, int64_t n, int64_t stride, int64_t width)
{
    float max[COLUMNS], sum[COLUMNS];
    column_sums(x, n, stride, width, max, sum);
    for (int64_t j = 0; j < width; j++)
        max[j] += logf(sum[j]);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            y[i * stride + j] = x[i * stride + j] - max[j];
}

VECTOR_CLONES static void softmax_grad_columns(const float *dy, const float *y, float *dx, int64_t n, int64_t stride,
                                               int64_t width)
{
    float sum[COLUMNS] = {0};
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            sum[j] += dy[i * stride + j] * y[i * stride + j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            dx[i * stride + j] = y[i * stride + j] * (dy[i * stride + j] - sum[j]);
}

VECTOR_CLONES static void log_softmax_grad_columns(const float *dy, const float *y, float *dx, int64_t n,
                                                   int64_t stride, int64_t width)
{
    float sum[COLUMNS] = {0};
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            sum[j] += dy[i * stride + j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            dx[i * stride + j] = dy[i * stride + j] - vector_exp(y[i * stride + j]) * sum[j];
}

/* ---- planned kernels: work shared among threads ------------------------------------------------------------------ */

typedef struct SoftmaxWork {
    SoftmaxKind kind;
    Span span;
    const float *x, *y; /* y: outputs of the forward, for gradients; else NULL */
    float *to;
} SoftmaxWork;

static void softmax_rows(int64_t begin, int64_t end, void *context)
{
    const SoftmaxWork *w = context;
    int64_t n = w->span.n;
    for (int64_t i = begin * n; i < end * n; i += n) {
        bool log = w->kind == SOFTMAX_LOG;
        if (w->y == NULL && log)
            log_softmax_row(w->x + i, w->to + i, n);
        else if (w->y == NULL)
            softmax_row(w->x + i, w->to + i, n, w->kind == SOFTMAX_MASKED);
        else if (log)
            log_softmax_grad_row(w->x + i, w->y + i, w->to + i, n);
        else
            softmax_grad_row(w->x + i, w->y + i, w->to + i, n);
    }
}

static void softmax_blocks(int64_t begin, int64_t end, void *context)
{
    const SoftmaxWork *w = context;
    int64_t n = w->span.n, inner = w->span.inner, blocks = (inner + COLUMNS - 1) / COLUMNS;
    for (int64_t b = begin; b < end; b++) {
        int64_t column = b % blocks * COLUMNS, at = b / blocks * n * inner + column;
        int64_t width = inner - column < COLUMNS ? inner - column : COLUMNS;
        bool log = w->kind == SOFTMAX_LOG;
        if (w->y == NULL && log)
            log_softmax_columns(w->x + at, w->to + at, n, inner, width);
        else if (w->y == NULL)
            softmax_columns(w->x + at, w->to + at, n, inner, width, w->kind == SOFTMAX_MASKED);
        else if (log)
            log_softmax_grad_columns(w->x + at, w->y + at, w->to + at, n, inner, width);
        else
            softmax_grad_columns(w->x + at, w->y + at, w->to + at, n, inner, width);
    }
}

void softmax_run(SoftmaxKind kind, Span span, const float *x, const float *y, float *to)
{
    SoftmaxWork work = {kind, span, x, y, to};
    if (span.n == 0)
        return;
    int64_t grain = 1 + ROW_GRAIN / span.n;
    if (span.inner == 1)
        parallel_for(span.outer, grain, softmax_rows, &work);
    else
        parallel_for(span.outer * ((span.inner + COLUMNS - 1) / COLUMNS), 1 + grain / COLUMNS, softmax_blocks, &work);
}

typedef struct SoftmaxState {
    SoftmaxKind kind;
    Span span;
    bool narrow; /* some of the tensors are bf16: contiguous rows of at most BF16_ROW */
} SoftmaxState;

/* Rows through buffers in f32. */
static void mixed_rows(int64_t begin, int64_t end, void *context)
{
    const Step *step = context;
    const SoftmaxState *state = step->state;
    const Slot *x = step->in[0], *y = step->in_count > 1 ? step->in[1] : NULL, *to = step->out[0];
    const int64_t n = state->span.n;
    float x_row[BF16_ROW], y_row[BF16_ROW], result[BF16_ROW];
    for (int64_t i = begin; i < end; i++) {
        const float *from = bf16_read(x->data, x->dtype == DTYPE_BF16, i * n, n, x_row);
        float *row = to->dtype == DTYPE_BF16 ? result : (float *)to->data + i * n;
        if (y == NULL)
            softmax_row(from, row, n, state->kind == SOFTMAX_MASKED);
        else
            softmax_grad_row(from, bf16_read(y->data, y->dtype == DTYPE_BF16, i * n, n, y_row), row, n);
        if (to->dtype == DTYPE_BF16)
            bf16_narrow(result, (uint16_t *)to->data + i * n, n);
    }
}

static Status run_softmax(Step *step, Error *err)
{
    (void)err;
    const SoftmaxState *state = step->state;
    if (state->narrow) {
        parallel_for(state->span.outer, 1 + ROW_GRAIN / state->span.n, mixed_rows, step);
        return STATUS_OK;
    }
    softmax_run(state->kind, state->span, step->in[0]->data, step->in_count > 1 ? step->in[1]->data : NULL,
                step->out[0]->data);
    return STATUS_OK;
}

/* Inputs as they lie, the result in bf16, over input 0 where that is bf16 too. */
static void place_mixed(PlanContext *context)
{
    for (int i = 1; i < context->node->input_count; i++)
        kernel_input_as(context, i, LAYOUT_PLAIN, DTYPE_UNDEFINED);
    if (kernel_input_dtype(context, 0) == DTYPE_BF16) {
        kernel_output_in_place_as(context, 0, 0, LAYOUT_PLAIN, DTYPE_BF16);
        return;
    }
    kernel_input(context, 0, LAYOUT_PLAIN);
    kernel_output_as(context, 0, LAYOUT_PLAIN, DTYPE_BF16);
}

static Status prepare_kind(PlanContext *context, SoftmaxKind kind, Error *err)
{
    const Type *type = &context->node->outputs[0]->type;
    int axis;
    if (type->dtype != DTYPE_F32 || context->plain_only)
        return kernel_eval(context, err);
    TRY(softmax_axis(context->node, type->rank, &axis, err));
    SoftmaxState *state = kernel_state(context, sizeof *state);
    state->kind = kind;
    state->span = span_around(axis, type->rank, type->dims);
    bool fits = state->span.inner == 1 && state->span.n > 0 && state->span.n <= BF16_ROW && kind != SOFTMAX_LOG;
    if (fits && kernel_output_dtype(context, 0) == DTYPE_BF16) {
        place_mixed(context);
        state->narrow = true;
    } else {
        kernel_inputs_plain(context);
        kernel_output_in_place(context, 0, 0, LAYOUT_PLAIN);
    }
    kernel_run(context, run_softmax, state->span.inner == 1 ? "own:rows" : "own:columns");
    return STATUS_OK;
}

static Status softmax_prepare(PlanContext *context, Error *err)
{
    return prepare_kind(context, SOFTMAX_PLAIN, err);
}

static Status masked_softmax_prepare(PlanContext *context, Error *err)
{
    return prepare_kind(context, SOFTMAX_MASKED, err);
}

static Status log_softmax_prepare(PlanContext *context, Error *err)
{
    return prepare_kind(context, SOFTMAX_LOG, err);
}

#define UNARY .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1
#define BINARY .min_inputs = 2, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1

const OpDef ops_softmax[] = {
    {.name = "Softmax",
     .since = 1,
     .last = 28,
     UNARY,
     .traits = OP_IN_PLACE,
     .infer = softmax_infer,
     .eval = softmax_eval,
     .grad = softmax_grad,
     .upgrade = softmax_upgrade,
     .prepare = softmax_prepare},
    {.name = "LogSoftmax",
     .since = 1,
     .last = 28,
     UNARY,
     .traits = OP_IN_PLACE,
     .infer = softmax_infer,
     .eval = log_softmax_eval,
     .grad = log_softmax_grad,
     .upgrade = softmax_upgrade,
     .prepare = log_softmax_prepare},
    {.name = "Hardmax",
     .since = 1,
     .last = 28,
     UNARY,
     .infer = softmax_infer,
     .eval = hardmax_eval,
     .upgrade = softmax_upgrade,
     .no_gradient = "a step function: its gradient is zero wherever it exists"},
    {.domain = DOMAIN_INTERNAL,
     .name = "MaskedSoftmax",
     UNARY,
     .traits = OP_IN_PLACE,
     .infer = softmax_infer,
     .eval = masked_softmax_eval,
     .grad = softmax_grad,
     .prepare = masked_softmax_prepare,
     .no_case = "internal; part of Attention"},
    {.domain = DOMAIN_INTERNAL,
     .name = "SoftmaxGrad",
     BINARY,
     .traits = OP_IN_PLACE,
     .infer = softmax_infer,
     .eval = softmax_grad_eval,
     .prepare = softmax_prepare,
     .no_gradient = "gradients are not differentiated again",
     .no_case = "internal; covered by the gradient cases of Softmax"},
    {.domain = DOMAIN_INTERNAL,
     .name = "LogSoftmaxGrad",
     BINARY,
     .traits = OP_IN_PLACE,
     .infer = softmax_infer,
     .eval = log_softmax_grad_eval,
     .prepare = log_softmax_prepare,
     .no_gradient = "gradients are not differentiated again",
     .no_case = "internal; covered by the gradient cases of LogSoftmax"},
    {0},
};
