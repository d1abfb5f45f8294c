/* Mathematical functions of one input: roots, exponentials, trigonometric and hyperbolic functions, rounding, tests.
 * Each derivative is one internal operator, (dy, x) -> dx or (dy, y) -> dx, whose formula stands beside the function's.
 */
#include "runtime/ops/elementwise.h"

/* ---- of integers too: Abs, Neg, Sign ---------------------------------------------------------------------------- */

#define WITH_INTEGERS(name, reference, whole, natural, fast)                                                           \
    ELEMENTWISE_REFERENCE(name, double, f64, X_OF(double), reference)                                                  \
    ELEMENTWISE_REFERENCE(name, int64_t, i64, X_OF(int64_t), whole)                                                    \
    ELEMENTWISE_REFERENCE(name, uint64_t, u64, X_OF(uint64_t), natural)                                                \
    ELEMENTWISE_KERNEL(name, X_OF(float), fast)                                                                        \
    static Status name##_eval(EvalContext *context, Error *err)                                                        \
    {                                                                                                                  \
        static const Formula formula = {name##_f64, name##_i64, name##_u64};                                           \
        return elementwise_eval(context, &formula, DTYPE_UNDEFINED, NO_PARAMS, err);                                   \
    }                                                                                                                  \
    static Status name##_prepare(PlanContext *context, Error *err)                                                     \
    {                                                                                                                  \
        return elementwise_prepare(context, name##_kernel, NO_PARAMS, err);                                            \
    }

#define MINUS(x) (int64_t)(0 - (uint64_t)(x))      /* wraps */
#define SIGN(x) ((x) > 0 ? 1 : (x) < 0 ? -1 : (x)) /* NaN stays NaN */

WITH_INTEGERS(abs, fabs(x), x < 0 ? MINUS(x) : x, x, fabsf(x))
WITH_INTEGERS(neg, -x, MINUS(x), 0 - x, -x)
WITH_INTEGERS(sign, SIGN(x), SIGN(x), x > 0, SIGN(x))

/* abs'(0) = 0 */
ELEMENTWISE(abs_back, GRAD_OF, NO_PARAMS, x > 0 ? dy : x < 0 ? -dy : 0, x > 0 ? dy : (x < 0 ? -dy : 0))

static Status abs_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "AbsGrad");
}

static Status neg_grad(GradContext *context, Error *err)
{
    (void)err;
    if (context->dy[0] != NULL && context->wants[0])
        context->dx[0] = build1(&context->b, "Neg", context->dy[0]);
    return context->b.status;
}

/* ---- functions with a derivative --------------------------------------------------------------------------------- */

/* The derivative's rule: `from` says whether it reads the input or the output (called x in the formula either way). */
#define DERIVATIVE(name, op_type, from, reference, fast)                                                               \
    ELEMENTWISE(name##_back, GRAD_OF, NO_PARAMS, reference, fast)                                                      \
    static Status name##_grad(GradContext *context, Error *err)                                                        \
    {                                                                                                                  \
        (void)err;                                                                                                     \
        return grad_from_##from(context, op_type);                                                                     \
    }

ELEMENTWISE(sqrt, X_OF, NO_PARAMS, sqrt(x), sqrtf(x))
DERIVATIVE(sqrt, "SqrtGrad", output, dy / (2 * x), dy / (2.0F * x))
ELEMENTWISE(reciprocal, X_OF, NO_PARAMS, 1 / x, 1.0F / x)
DERIVATIVE(reciprocal, "ReciprocalGrad", output, -dy *x *x, -dy *x *x)
ELEMENTWISE(exp, X_OF, NO_PARAMS, exp(x), vector_exp(x))
DERIVATIVE(exp, "ExpGrad", output, dy *x, dy *x)
ELEMENTWISE(log, X_OF, NO_PARAMS, log(x), vector_log(x))
DERIVATIVE(log, "LogGrad", input, dy / x, dy / x)

ELEMENTWISE(sin, X_OF, NO_PARAMS, sin(x), sinf(x))
DERIVATIVE(sin, "SinGrad", input, dy *cos(x), dy *cosf(x))
ELEMENTWISE(cos, X_OF, NO_PARAMS, cos(x), cosf(x))
DERIVATIVE(cos, "CosGrad", input, -dy *sin(x), -dy *sinf(x))
ELEMENTWISE(tan, X_OF, NO_PARAMS, tan(x), tanf(x))
DERIVATIVE(tan, "TanGrad", output, dy *(1 + x * x), dy *(1.0F + x * x))
ELEMENTWISE(asin, X_OF, NO_PARAMS, asin(x), asinf(x))
DERIVATIVE(asin, "AsinGrad", input, dy / sqrt(1 - x * x), dy / sqrtf(1.0F - x * x))
ELEMENTWISE(acos, X_OF, NO_PARAMS, acos(x), acosf(x))
DERIVATIVE(acos, "AcosGrad", input, -dy / sqrt(1 - x * x), -dy / sqrtf(1.0F - x * x))
ELEMENTWISE(atan, X_OF, NO_PARAMS, atan(x), atanf(x))
DERIVATIVE(atan, "AtanGrad", input, dy / (1 + x * x), dy / (1.0F + x * x))

ELEMENTWISE(sinh, X_OF, NO_PARAMS, sinh(x), sinhf(x))
DERIVATIVE(sinh, "SinhGrad", input, dy *cosh(x), dy *coshf(x))
ELEMENTWISE(cosh, X_OF, NO_PARAMS, cosh(x), coshf(x))
DERIVATIVE(cosh, "CoshGrad", input, dy *sinh(x), dy *sinhf(x))
ELEMENTWISE(asinh, X_OF, NO_PARAMS, asinh(x), asinhf(x))
DERIVATIVE(asinh, "AsinhGrad", input, dy / sqrt(x * x + 1), dy / sqrtf(x * x + 1.0F))
ELEMENTWISE(acosh, X_OF, NO_PARAMS, acosh(x), acoshf(x))
DERIVATIVE(acosh, "AcoshGrad", input, dy / sqrt(x * x - 1), dy / sqrtf(x * x - 1.0F))
ELEMENTWISE(atanh, X_OF, NO_PARAMS, atanh(x), atanhf(x))
DERIVATIVE(atanh, "AtanhGrad", input, dy / (1 - x * x), dy / (1.0F - x * x))

/* ---- rounding: derivative zero wherever there is one ------------------------------------------------------------- */

ELEMENTWISE(floor, X_OF, NO_PARAMS, floor(x), floorf(x))
ELEMENTWISE(ceil, X_OF, NO_PARAMS, ceil(x), ceilf(x))
ELEMENTWISE(round, X_OF, NO_PARAMS, rint(x), rintf(x)) /* halves to even: the mode that processes start in */

/* ---- tests: IsNaN, IsInf ----------------------------------------------------------------------------------------- */

static Status test_infer(Node *node, Error *err)
{
    TRY(infer_same(node, err));
    node->outputs[0]->type.dtype = DTYPE_BOOL;
    return STATUS_OK;
}

static void infinity_params(const Node *node, double *p)
{
    p[0] = (double)node_int(node, "detect_negative", 1);
    p[1] = (double)node_int(node, "detect_positive", 1);
}

#define TEST(name, params, reference, fast)                                                                            \
    ELEMENTWISE_REFERENCE(name, double, f64, X_OF(double), reference)                                                  \
    ELEMENTWISE_KERNEL(name, X_OF(float), fast)                                                                        \
    static Status name##_eval(EvalContext *context, Error *err)                                                        \
    {                                                                                                                  \
        static const Formula formula = {name##_f64, NULL, NULL};                                                       \
        return elementwise_eval(context, &formula, DTYPE_BOOL, params, err);                                           \
    }                                                                                                                  \
    static Status name##_prepare(PlanContext *context, Error *err)                                                     \
    {                                                                                                                  \
        return elementwise_prepare(context, name##_kernel, params, err);                                               \
    }

TEST(is_nan, NO_PARAMS, x != x, x != x ? 1.0F : 0.0F)
TEST(is_inf, infinity_params, (x == -HUGE_VAL && p[0] != 0) || (x == HUGE_VAL && p[1] != 0),
     (x == -HUGE_VALF && p[0] != 0) || (x == HUGE_VALF && p[1] != 0) ? 1.0F : 0.0F)

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define PLAIN (OP_ELEMENTWISE | OP_IN_PLACE | OP_FUSES)
#define MOVES (PLAIN | OP_MOVES_ZERO)
#define FUNCTION_ROW(op, first, prefix, bits) UNARY_ROW(op, first, prefix, .grad = prefix##_grad, .traits = bits)
#define STEP_ROW(op, first, prefix, bits) UNARY_ROW(op, first, prefix, .grad = grad_none, .traits = bits)
#define TEST_ROW(op, first, prefix)                                                                                    \
    {                                                                                                                  \
        .name = op, .since = first, .last = OPSET_NEWEST, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,          \
        .max_outputs = 1, .traits = OP_ELEMENTWISE, .infer = test_infer, .eval = prefix##_eval,                        \
        .prepare = prefix##_prepare, .no_gradient = "truth values carry no gradient"                                   \
    }

const OpDef ops_math[] = {
    FUNCTION_ROW("Abs", 1, abs, PLAIN),
    FUNCTION_ROW("Neg", 1, neg, PLAIN),
    STEP_ROW("Sign", 9, sign, PLAIN),
    FUNCTION_ROW("Sqrt", 1, sqrt, PLAIN),
    FUNCTION_ROW("Reciprocal", 1, reciprocal, MOVES),
    FUNCTION_ROW("Exp", 1, exp, MOVES),
    FUNCTION_ROW("Log", 1, log, MOVES),
    FUNCTION_ROW("Sin", 7, sin, PLAIN),
    FUNCTION_ROW("Cos", 7, cos, MOVES),
    FUNCTION_ROW("Tan", 7, tan, PLAIN),
    FUNCTION_ROW("Asin", 7, asin, PLAIN),
    FUNCTION_ROW("Acos", 7, acos, MOVES),
    FUNCTION_ROW("Atan", 7, atan, PLAIN),
    FUNCTION_ROW("Sinh", 9, sinh, PLAIN),
    FUNCTION_ROW("Cosh", 9, cosh, MOVES),
    FUNCTION_ROW("Asinh", 9, asinh, PLAIN),
    FUNCTION_ROW("Acosh", 9, acosh, MOVES),
    FUNCTION_ROW("Atanh", 9, atanh, PLAIN),
    STEP_ROW("Floor", 1, floor, PLAIN),
    STEP_ROW("Ceil", 1, ceil, PLAIN),
    STEP_ROW("Round", 11, round, PLAIN),
    TEST_ROW("IsNaN", 9, is_nan),
    TEST_ROW("IsInf", 10, is_inf),
    GRAD_ROW("AbsGrad", 2, abs_back),
    GRAD_ROW("SqrtGrad", 2, sqrt_back),
    GRAD_ROW("ReciprocalGrad", 2, reciprocal_back),
    GRAD_ROW("ExpGrad", 2, exp_back),
    GRAD_ROW("LogGrad", 2, log_back),
    GRAD_ROW("SinGrad", 2, sin_back),
    GRAD_ROW("CosGrad", 2, cos_back),
    GRAD_ROW("TanGrad", 2, tan_back),
    GRAD_ROW("AsinGrad", 2, asin_back),
    GRAD_ROW("AcosGrad", 2, acos_back),
    GRAD_ROW("AtanGrad", 2, atan_back),
    GRAD_ROW("SinhGrad", 2, sinh_back),
    GRAD_ROW("CoshGrad", 2, cosh_back),
    GRAD_ROW("AsinhGrad", 2, asinh_back),
    GRAD_ROW("AcoshGrad", 2, acosh_back),
    GRAD_ROW("AtanhGrad", 2, atanh_back),
    {0},
};
