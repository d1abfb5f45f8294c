/* Family: matmul_integer. MatMulInteger and QLinearMatMul: products of quantized matrices, exact in 32-bit integers.
 * They run in quantized models; nothing is trained through them. */
#include "runtime/ops/ops.h"
#include "runtime/ops/product.h"

#include <math.h>

#define NOT_TRAINED "quantized values are integers and carry no gradient"

static Status matmul_shape(const Node *node, int b_index, Product *p, Error *err)
{
    const Type *a = &node->inputs[0]->type, *b = &node->inputs[b_index]->type;
    Arena *arena = &node->graph->model->arena;
    const char *reason = product_init(p, a, NULL, b, NULL, NULL);
    return reason == NULL ? STATUS_OK
                          : infer_fail(node, err, "%s: %s times %s", reason, type_text(arena, a), type_text(arena, b));
}

static Type array_type(const Array *array)
{
    Type type = {.kind = TYPE_TENSOR};
    type_set(&type, array->dtype, array->rank, array->dims);
    return type;
}

/* Which element of a parameter belongs to element `i` of matrix x: one for all; one a row (operand A) or column (B), as
 * a vector or as [.., M, 1] or [.., 1, N]. */
static int64_t parameter_index(const Array *x, const Array *parameter, bool per_row, int64_t i)
{
    if (parameter->count <= 1)
        return 0;
    int64_t n = x->dims[x->rank - 1], m = x->rank > 1 ? x->dims[x->rank - 2] : 1;
    int64_t line = per_row ? i / n % m : i % n, lines = per_row ? m : n;
    return parameter->rank <= 1 ? line : i / (n * m) * lines % parameter->count + line;
}

static Status check_parameter(EvalContext *context, const Array *x, const Array *parameter, bool per_row, Error *err)
{
    if (x->rank < 1 || (parameter != NULL && parameter->count == 0))
        return eval_fail(context, err, "an operand of no dims, or a scale or zero point without elements");
    if (parameter == NULL || parameter->count <= 1)
        return STATUS_OK;
    int64_t lines = per_row ? (x->rank > 1 ? x->dims[x->rank - 2] : 1) : x->dims[x->rank - 1];
    if (lines == 0 || parameter->count % lines != 0 || (parameter->rank <= 1 && parameter->count != lines))
        return eval_fail(context, err, "%lld scales or zero points for %lld %s", (long long)parameter->count,
                         (long long)lines, per_row ? "rows" : "columns");
    return STATUS_OK;
}

/* ---- MatMulInteger ---------------------------------------------------------------------------------------------- */

static Status integer_infer(Node *node, Error *err)
{
    Product p;
    TRY(matmul_shape(node, 1, &p, err));
    type_set(&node->outputs[0]->type, DTYPE_I32, p.y_rank, p.y_dims);
    return STATUS_OK;
}

/* x - zero as int32 */
static Status centred(EvalContext *context, const Array *x, const Array *zero, bool per_row, int32_t **out, Error *err)
{
    const Array *parts[] = {x, zero};
    for (int i = 0; i < 2; i++)
        if (parts[i] != NULL && parts[i]->dtype != DTYPE_I8 && parts[i]->dtype != DTYPE_U8)
            return eval_fail(context, err, "of %s; int8 and uint8 are expected", dtype_name(parts[i]->dtype));
    TRY(check_parameter(context, x, zero, per_row, err));
    *out = arena_array(context->arena, int32_t, (size_t)x->count + 1);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t shift = zero == NULL ? 0 : array_i64_at(zero, parameter_index(x, zero, per_row, i));
        (*out)[i] = (int32_t)(array_i64_at(x, i) - shift);
    }
    return STATUS_OK;
}

static Status integer_eval(EvalContext *context, Error *err)
{
    const Array *a = eval_input(context, 0), *b = eval_input(context, 1);
    Type type_a = array_type(a), type_b = array_type(b);
    int32_t *wide_a, *wide_b;
    Product p;
    Array *y;
    const char *reason = product_init(&p, &type_a, NULL, &type_b, NULL, NULL);
    if (reason != NULL)
        return eval_fail(context, err, "%s", reason);
    TRY(centred(context, a, eval_input(context, 2), true, &wide_a, err));
    TRY(centred(context, b, eval_input(context, 3), false, &wide_b, err));
    TRY(eval_output(context, 0, DTYPE_I32, p.y_rank, p.y_dims, &y, err));
    return product_eval(&p, context, DTYPE_I32, wide_a, wide_b, NULL, y->data, 1, 1, err);
}

/* ---- QLinearMatMul ---------------------------------------------------------------------------------------------- */

enum { A, A_SCALE, A_ZERO, B, B_SCALE, B_ZERO, Y_SCALE, Y_ZERO };

static Status qlinear_infer(Node *node, Error *err)
{
    Product p;
    TRY(matmul_shape(node, B, &p, err));
    type_set(&node->outputs[0]->type, node->inputs[Y_ZERO]->type.dtype, p.y_rank, p.y_dims);
    return STATUS_OK;
}

/* (x - zero) * scale in double */
static Status dequantized(EvalContext *context, int index, bool per_row, double **out, Error *err)
{
    const Array *x = eval_input(context, index), *scale = eval_input(context, index + 1),
                *zero = eval_input(context, index + 2);
    TRY(check_parameter(context, x, scale, per_row, err));
    TRY(check_parameter(context, x, zero, per_row, err));
    *out = arena_array(context->arena, double, (size_t)x->count + 1);
    for (int64_t i = 0; i < x->count; i++)
        (*out)[i] = (array_f64_at(x, i) - array_f64_at(zero, parameter_index(x, zero, per_row, i))) *
                    array_f64_at(scale, parameter_index(x, scale, per_row, i));
    return STATUS_OK;
}

/* y = saturate(round(value / scale) + zero), ties to even; narrow floats are rounded by whoever called. */
static void quantize(Array *y, int64_t i, double value, double scale, double zero)
{
    double q = y->dtype == DTYPE_F32 ? value / scale + zero : nearbyint(value / scale) + zero;
    if (y->dtype == DTYPE_U8)
        ((uint8_t *)y->data)[i] = (uint8_t)fmin(fmax(q, 0), UINT8_MAX);
    else if (y->dtype == DTYPE_I8)
        ((int8_t *)y->data)[i] = (int8_t)fmin(fmax(q, INT8_MIN), INT8_MAX);
    else
        ((float *)y->data)[i] = (float)q;
}

static Status qlinear_eval(EvalContext *context, Error *err)
{
    const Array *a = eval_input(context, A), *b = eval_input(context, B), *zero = eval_input(context, Y_ZERO);
    const Array *scale = eval_input(context, Y_SCALE);
    Type type_a = array_type(a), type_b = array_type(b);
    double *wide_a, *wide_b;
    Product p;
    Array *y;
    const char *reason = product_init(&p, &type_a, NULL, &type_b, NULL, NULL);
    if (reason != NULL)
        return eval_fail(context, err, "%s", reason);
    if (zero->dtype != DTYPE_U8 && zero->dtype != DTYPE_I8 && zero->dtype != DTYPE_F32)
        return eval_fail(context, err, "no quantized product in %s", dtype_name(zero->dtype));
    TRY(dequantized(context, A, true, &wide_a, err));
    TRY(dequantized(context, B, false, &wide_b, err));
    TRY(eval_output(context, 0, zero->dtype, p.y_rank, p.y_dims, &y, err));
    double *values = arena_array(context->arena, double, (size_t)y->count + 1);
    TRY(product_eval(&p, context, DTYPE_F64, wide_a, wide_b, NULL, values, 1, 1, err));
    TRY(check_parameter(context, y, scale, true, err));
    TRY(check_parameter(context, y, zero, true, err));
    for (int64_t i = 0; i < y->count; i++)
        quantize(y, i, values[i], array_f64_at(scale, parameter_index(y, scale, true, i)),
                 array_f64_at(zero, parameter_index(y, zero, true, i)));
    return STATUS_OK;
}

const OpDef ops_matmul_integer[] = {
    {.name = "MatMulInteger",
     .since = 10,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = integer_infer,
     .eval = integer_eval,
     .no_gradient = NOT_TRAINED},
    {.name = "QLinearMatMul",
     .since = 10,
     .last = 28,
     .min_inputs = 8,
     .max_inputs = 8,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = qlinear_infer,
     .eval = qlinear_eval,
     .no_gradient = NOT_TRAINED},
    {0},
};
