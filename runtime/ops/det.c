/* Family: det. The determinant of square matrices, and its gradient through cofactors, which exist for singular
 * matrices too. */
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"

#include <math.h>

/* x [.., n, n] -> [..] */
static Status det_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    if (x->rank < 2 || x->dims[x->rank - 1] != x->dims[x->rank - 2])
        return infer_fail(node, err, "%s is not made of square matrices", type_text(&node->graph->model->arena, x));
    type_set(&node->outputs[0]->type, x->dtype, x->rank - 2, x->dims);
    return STATUS_OK;
}

/* Gaussian elimination with partial pivoting; destroys a [n, n]. */
static double determinant(double *a, int64_t n)
{
    double product = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t pivot = i;
        for (int64_t k = i + 1; k < n; k++)
            pivot = fabs(a[k * n + i]) > fabs(a[pivot * n + i]) ? k : pivot;
        if (a[pivot * n + i] == 0)
            return 0;
        for (int64_t j = 0; j < n && pivot != i; j++) {
            double swapped = a[i * n + j];
            a[i * n + j] = a[pivot * n + j];
            a[pivot * n + j] = swapped;
        }
        product *= pivot != i ? -a[i * n + i] : a[i * n + i];
        for (int64_t k = i + 1; k < n; k++) {
            double factor = a[k * n + i] / a[i * n + i];
            for (int64_t j = i; j < n; j++)
                a[k * n + j] -= factor * a[i * n + j];
        }
    }
    return product;
}

static void store(Array *array, int64_t i, double value)
{
    if (array->dtype == DTYPE_F32)
        ((float *)array->data)[i] = (float)value;
    else
        ((double *)array->data)[i] = value;
}

static Status det_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    Array *y, *wide;
    if (x->rank < 2 || x->dims[x->rank - 1] != x->dims[x->rank - 2])
        return eval_fail(context, err, "not square matrices");
    int64_t n = x->dims[x->rank - 1];
    TRY(eval_output(context, 0, x->dtype, x->rank - 2, x->dims, &y, err));
    TRY(array_convert(context->arena, x, DTYPE_F64, &wide, err));
    double *copy = arena_array(context->arena, double, (size_t)(n * n) + 1);
    for (int64_t i = 0; i < y->count; i++) {
        memcpy(copy, (double *)wide->data + i * n * n, (size_t)(n * n) * sizeof *copy);
        store(y, i, determinant(copy, n));
    }
    return STATUS_OK;
}

static Status det_grad(GradContext *context, Error *err)
{
    (void)err;
    Value *inputs[] = {context->dy[0], context->node->inputs[0]};
    context->dx[0] = build_finish(&context->b, build_node(&context->b, DOMAIN_INTERNAL, "DetGrad", inputs, 2, 1));
    return context->b.status;
}

static Status det_grad_infer(Node *node, Error *err)
{
    (void)err;
    const Type *x = &node->inputs[1]->type;
    type_set(&node->outputs[0]->type, x->dtype, x->rank, x->dims);
    return STATUS_OK;
}

/* The matrix without one row and one column; the result stands in `minor`. */
static double minor_of(const double *a, int64_t n, int64_t row, int64_t column, double *minor)
{
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            if (i != row && j != column)
                minor[at++] = a[i * n + j];
    return determinant(minor, n - 1);
}

/* y = det X: dX_ij = dy (-1)^(i+j) M_ij, the cofactors (Jacobi's formula; Magnus and Neudecker, "Matrix Differential
 * Calculus", section 8.3). */
static Status det_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = eval_input(context, 0), *x = eval_input(context, 1);
    Array *dx, *wide;
    int64_t n = x->dims[x->rank - 1];
    TRY(eval_output_like(context, 0, x, &dx, err));
    TRY(array_convert(context->arena, x, DTYPE_F64, &wide, err));
    double *minor = arena_array(context->arena, double, (size_t)(n * n) + 1);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t matrix = i / (n * n), row = i / n % n, column = i % n;
        double cofactor = minor_of((double *)wide->data + matrix * n * n, n, row, column, minor);
        store(dx, i, array_f64_at(dy, matrix) * ((row + column) % 2 != 0 ? -cofactor : cofactor));
    }
    return STATUS_OK;
}

const OpDef ops_det[] = {
    {.name = "Det",
     .since = 11,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_FLOATS,
     .infer = det_infer,
     .eval = det_eval,
     .grad = det_grad},
    {.domain = DOMAIN_INTERNAL,
     .name = "DetGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = det_grad_infer,
     .eval = det_grad_eval,
     .no_gradient = "gradients are not differentiated again",
     .no_case = "internal; covered by the gradient cases of Det"},
    {0},
};
