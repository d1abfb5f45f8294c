/* CumSum and CumProd along an axis, inclusive or exclusive, from either end, and CumProd's gradient. */
#include "runtime/ops/ops.h"

#include <string.h>

typedef struct Scan {
    int64_t outer, dim, inner;
    bool reverse, exclusive, product;
    DType dtype;
} Scan;

static Status scan_read(const Node *node, int rank, const int64_t *dims, DType dtype, int64_t wanted, Scan *scan,
                        Error *err)
{
    int axis = 0;
    TRY(axis_normalize(node, wanted, rank, &axis, err));
    *scan = (Scan){.outer = dims_count(axis, dims),
                   .dim = dims[axis],
                   .inner = dims_count(rank - axis - 1, dims + axis + 1),
                   .reverse = node_int(node, "reverse", 0) != 0,
                   .exclusive = node_int(node, "exclusive", 0) != 0,
                   .product = strncmp(node->op_type, "CumProd", 7) == 0,
                   .dtype = dtype};
    return STATUS_OK;
}

/* One line: y[i] = x[0] op .. op x[i], without x[i] when exclusive; `step` is negative from the back. */
#define DEFINE_SCAN(name, type)                                                                                        \
    static void name(const Scan *s, const type *x, type *y, int64_t step)                                              \
    {                                                                                                                  \
        type sum = s->product ? 1 : 0;                                                                                 \
        for (int64_t i = 0; i < s->dim; i++) {                                                                         \
            type next = (type)(s->product ? sum * x[i * step] : sum + x[i * step]);                                    \
            y[i * step] = s->exclusive ? sum : next;                                                                   \
            sum = next;                                                                                                \
        }                                                                                                              \
    }
DEFINE_SCAN(scan_f32, float)
DEFINE_SCAN(scan_f64, double)
DEFINE_SCAN(scan_u32, uint32_t) /* signed sums wrap alike */
DEFINE_SCAN(scan_u64, uint64_t)

typedef struct ScanJob {
    Scan scan;
    const char *x;
    char *y;
} ScanJob;

static void scan_range(int64_t begin, int64_t end, void *context)
{
    const ScanJob *job = context;
    const Scan *s = &job->scan;
    const size_t size = dtype_size(s->dtype);
    for (int64_t line = begin; line < end && s->dim > 0; line++) {
        int64_t first = line / s->inner * s->dim * s->inner + line % s->inner;
        first += s->reverse ? (s->dim - 1) * s->inner : 0;
        const int64_t step = s->reverse ? -s->inner : s->inner;
        const void *x = job->x + (size_t)first * size;
        void *y = job->y + (size_t)first * size;
        if (s->dtype == DTYPE_F32)
            scan_f32(s, x, y, step);
        else if (s->dtype == DTYPE_F64)
            scan_f64(s, x, y, step);
        else if (size == 4)
            scan_u32(s, x, y, step);
        else
            scan_u64(s, x, y, step);
    }
}

static Status scan_check(const Node *node, DType dtype, Error *err)
{
    if (!dtype_is_float(dtype) && (!dtype_is_integer(dtype) || dtype_size(dtype) < 4))
        return infer_fail(node, err, "%s cannot be cumulated", dtype_name(dtype));
    return STATUS_OK;
}

static Status scan_infer(Node *node, Error *err)
{
    const Type *axis = &node->inputs[1]->type;
    TRY(scan_check(node, node->inputs[0]->type.dtype, err));
    TRY(index_check_dtype(node, axis->dtype, err));
    if (type_count(axis) != 1)
        return infer_fail(node, err, "the axis has %lld elements", (long long)type_count(axis));
    return infer_same(node, err);
}

static Status scan_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    ScanJob job = {.x = x->data};
    Array *y;
    TRY(scan_check(context->node, x->dtype, err));
    TRY(scan_read(context->node, x->rank, x->dims, x->dtype, eval_int_or(context, 1, 0), &job.scan, err));
    TRY(eval_output_like(context, 0, x, &y, err));
    job.y = y->data;
    scan_range(0, job.scan.outer * job.scan.inner, &job);
    return STATUS_OK;
}

static Status scan_run(Step *step, Error *err)
{
    const Slot *x = step->in[0], *axis = step->in[1];
    ScanJob job = {.x = x->data, .y = step->out[0]->data};
    TRY(scan_read(step->node, x->rank, x->dims, x->dtype, index_at(axis->dtype, axis->data, 0), &job.scan, err));
    parallel_for(job.scan.outer * job.scan.inner, 4096 / (job.scan.dim + 1) + 1, scan_range, &job);
    return STATUS_OK;
}

static Status scan_prepare(PlanContext *context, Error *err)
{
    (void)err;
    kernel_inputs_plain(context);
    kernel_output(context, 0, LAYOUT_PLAIN);
    kernel_run(context, scan_run, "own");
    return STATUS_OK;
}

/* The adjoint of a running sum runs the other way. */
static Status sum_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    Value *inputs[] = {context->dy[0], forward->inputs[1]};
    Node *node = build_node(&context->b, "", "CumSum", inputs, 2, 1);
    if (!node)
        return context->b.status;
    node_copy_attrs(node, forward);
    node_set_int(node, "reverse", node_int(forward, "reverse", 0) == 0);
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

static Status product_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *forward = context->node;
    Value *inputs[] = {context->dy[0], forward->inputs[0], forward->inputs[1]};
    Node *node = build_node(&context->b, DOMAIN_INTERNAL, "CumProdGrad", inputs, 3, 1);
    if (!node)
        return context->b.status;
    node_copy_attrs(node, forward);
    context->dx[0] = build_finish(&context->b, node);
    return context->b.status;
}

/* ---- CumProdGrad (dy, x, axis): no division, so zeros in x do no harm ----
 * dx[i] = prod(x[k], k < i) * s[i]
 *   inclusive: s[i] = dy[i] + x[i+1] s[i+1]
 *   exclusive: s[i] = dy[i+1] + x[i+1] s[i+1], s of the last is 0 */
#define DEFINE_PRODUCT_GRAD(name, type)                                                                                \
    static void name(const Scan *s, const type *dy, const type *x, type *dx, int64_t step)                             \
    {                                                                                                                  \
        type sum = 0, before = 1;                                                                                      \
        for (int64_t i = s->dim - 1; i >= 0; i--) {                                                                    \
            const bool last = i == s->dim - 1;                                                                         \
            const type next = last ? 0 : x[(i + 1) * step] * sum;                                                      \
            sum = next + (!s->exclusive ? dy[i * step] : last ? 0 : dy[(i + 1) * step]);                               \
            dx[i * step] = sum;                                                                                        \
        }                                                                                                              \
        for (int64_t i = 0; i < s->dim; i++) {                                                                         \
            dx[i * step] *= before;                                                                                    \
            before *= x[i * step];                                                                                     \
        }                                                                                                              \
    }
DEFINE_PRODUCT_GRAD(product_grad_f32, float)
DEFINE_PRODUCT_GRAD(product_grad_f64, double)

static Status product_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = context->in[0], *x = context->in[1];
    Scan s;
    Array *dx;
    TRY(scan_read(context->node, x->rank, x->dims, x->dtype, eval_int_or(context, 2, 0), &s, err));
    TRY(eval_output_like(context, 0, x, &dx, err));
    for (int64_t line = 0; line < s.outer * s.inner && s.dim > 0; line++) {
        int64_t at = line / s.inner * s.dim * s.inner + line % s.inner;
        at += s.reverse ? (s.dim - 1) * s.inner : 0;
        const int64_t step = s.reverse ? -s.inner : s.inner;
        if (s.dtype == DTYPE_F64)
            product_grad_f64(&s, (const double *)dy->data + at, (const double *)x->data + at, (double *)dx->data + at,
                             step);
        else
            product_grad_f32(&s, (const float *)dy->data + at, (const float *)x->data + at, (float *)dx->data + at,
                             step);
    }
    return STATUS_OK;
}

/* clang-format off */
const OpDef ops_cumulate[] = {
    {.name = "CumSum", .since = 11, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .infer = scan_infer, .eval = scan_eval, .grad = sum_grad, .prepare = scan_prepare},
    {.name = "CumProd", .since = 26, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1, .max_outputs = 1,
     .infer = scan_infer, .eval = scan_eval, .grad = product_grad, .prepare = scan_prepare},
    {.domain = DOMAIN_INTERNAL, .name = "CumProdGrad", .min_inputs = 3, .max_inputs = 3, .min_outputs = 1,
     .max_outputs = 1, .infer = infer_same, .eval = product_grad_eval,
     .no_case = "internal: the gradient of CumProd"},
    {0},
};
/* clang-format on */
