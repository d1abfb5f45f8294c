/* Activations: elementwise functions of one input (two where a slope or bias comes along), with the derivative of each
 * as one internal operator (dy, x) -> dx or (dy, y) -> dx. Where the output is enough, the gradient reads the output:
 * the next layer keeps that anyway, and the forward step may then run in place.
 *
 * At kinks gradients take the value that PyTorch takes; the comments say which. */
#include "runtime/ops/elementwise.h"

/* ---- Relu: max(x, 0); NaN stays NaN; relu'(0) = 0 ---------------------------------------------------------- */

ELEMENTWISE_REFERENCE(relu, double, f64, X_OF(double), x < 0 ? 0 : x)
ELEMENTWISE_REFERENCE(relu, int64_t, i64, X_OF(int64_t), x < 0 ? 0 : x)
ELEMENTWISE_KERNEL(relu, X_OF(float), x < 0 ? 0 : x)

static Status relu_eval(EvalContext *context, Error *err)
{
    static const Formula formula = {relu_f64, relu_i64, NULL};
    return elementwise_eval(context, &formula, DTYPE_UNDEFINED, NO_PARAMS, err);
}

static Status relu_prepare(PlanContext *context, Error *err)
{
    return elementwise_prepare(context, relu_kernel, NO_PARAMS, err);
}

static Status relu_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_output(context, "ReluGrad");
}

ELEMENTWISE(relu_back, GRAD_OF, NO_PARAMS, x > 0 ? dy : 0, x > 0 ? dy : 0)

/* ---- LeakyRelu: alpha x below 0; at 0 the slope is alpha ----------------------------------------------------- */

static void leaky_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "alpha", 0.01F);
}

ELEMENTWISE(leaky, X_OF, leaky_params, x < 0 ? p[0] * x : x, x < 0 ? p[0] * x : x)
ELEMENTWISE(leaky_back, GRAD_OF, leaky_params, x > 0 ? dy : p[0] * dy, x > 0 ? dy : p[0] * dy)

static Status leaky_grad(GradContext *context, Error *err)
{
    (void)err; /* with alpha >= 0 the output has the sign of the input */
    bool same_sign = node_float(context->node, "alpha", 0.01F) >= 0;
    return same_sign ? grad_from_output(context, "LeakyReluGrad") : grad_from_input(context, "LeakyReluGrad");
}

/* ---- PRelu: slope x below 0, the slope broadcasting to x; at 0 the derivative is the slope ------------------- */

ELEMENTWISE_REFERENCE(prelu, double, f64, XY_OF(double), x < 0 ? x * y : x)
ELEMENTWISE_REFERENCE(prelu, int64_t, i64, XY_OF(int64_t), x < 0 ? (int64_t)((uint64_t)x * (uint64_t)y) : x)
ELEMENTWISE_REFERENCE(prelu, uint64_t, u64, X_OF(uint64_t), x)
ELEMENTWISE_KERNEL(prelu, XY_OF(float), x < 0 ? x * y : x)

static Status prelu_eval(EvalContext *context, Error *err)
{
    static const Formula formula = {prelu_f64, prelu_i64, prelu_u64};
    return elementwise_eval(context, &formula, DTYPE_UNDEFINED, NO_PARAMS, err);
}

static Status prelu_prepare(PlanContext *context, Error *err)
{
    return elementwise_prepare(context, prelu_kernel, NO_PARAMS, err);
}

/* x = in[0] is dy here, y the input, z the slope */
ELEMENTWISE(prelu_back, XYZ_OF, NO_PARAMS, y > 0 ? x : x * z, y > 0 ? x : x * z)
ELEMENTWISE(prelu_slope_back, GRAD_OF, NO_PARAMS, x > 0 ? 0 : dy * x, x > 0 ? 0 : dy * x)

static Status prelu_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    Value *dy = context->dy[0], *x = context->node->inputs[0], *slope = context->node->inputs[1];
    if (dy == NULL)
        return STATUS_OK;
    if (context->wants[0])
        context->dx[0] = build_finish(b, build_node(b, DOMAIN_INTERNAL, "PReluGrad", (Value *[]){dy, x, slope}, 3, 1));
    if (context->wants[1]) {
        Value *each = build_finish(b, build_node(b, DOMAIN_INTERNAL, "PReluSlopeGrad", (Value *[]){dy, x}, 2, 1));
        context->dx[1] = build_reduce_to(b, each, slope);
    }
    return b->status;
}

/* Before opset 7 a slope of C elements meant one a channel. */
static Status prelu_upgrade(Node *node, Error *err)
{
    (void)err;
    if (node->opset < 7)
        upgrade_axis_broadcast(node, 1);
    return STATUS_OK;
}

/* ---- ThresholdedRelu: x above alpha, else 0 ------------------------------------------------------------------ */

static void threshold_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "alpha", 1);
}

ELEMENTWISE(threshold, X_OF, threshold_params, x <= p[0] ? 0 : x, x <= p[0] ? 0 : x)
ELEMENTWISE(threshold_back, GRAD_OF, threshold_params, x > p[0] ? dy : 0, x > p[0] ? dy : 0)

static Status threshold_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "ThresholdedReluGrad");
}

/* ---- Elu, Selu, Celu: exponentials below 0; at 0 the derivative from below ------------------------------------ */

static void elu_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "alpha", 1);
}

static void selu_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "alpha", 1.67326319217681884765625F);
    p[1] = (double)node_float(node, "gamma", 1.05070102214813232421875F);
}

/* alpha (e^x - 1) */
ELEMENTWISE(elu, X_OF, elu_params, x > 0 ? x : p[0] * expm1(x), x > 0 ? x : p[0] * vector_expm1(x))
ELEMENTWISE(elu_back, GRAD_OF, elu_params, x > 0 ? dy : dy * p[0] * exp(x), x > 0 ? dy : dy * p[0] * vector_exp(x))
/* gamma x, gamma alpha (e^x - 1) */
ELEMENTWISE(selu, X_OF, selu_params, p[1] * (x > 0 ? x : p[0] * expm1(x)), p[1] * (x > 0 ? x : p[0] * vector_expm1(x)))
ELEMENTWISE(selu_back, GRAD_OF, selu_params, dy *p[1] * (x > 0 ? 1 : p[0] * exp(x)),
            dy *p[1] * (x > 0 ? 1 : p[0] * vector_exp(x)))
/* alpha (e^(x / alpha) - 1) */
ELEMENTWISE(celu, X_OF, elu_params, x > 0 ? x : p[0] * expm1(x / p[0]), x > 0 ? x : p[0] * vector_expm1(x / p[0]))
ELEMENTWISE(celu_back, GRAD_OF, elu_params, x > 0 ? dy : dy * exp(x / p[0]), x > 0 ? dy : dy * vector_exp(x / p[0]))

static Status elu_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "EluGrad");
}

static Status selu_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "SeluGrad");
}

static Status celu_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "CeluGrad");
}

/* ---- Sigmoid, Tanh: derivatives from the output ---------------------------------------------------------------- */

ELEMENTWISE(sigmoid, X_OF, NO_PARAMS, 1 / (1 + exp(-x)), vector_sigmoid(x))
ELEMENTWISE(sigmoid_back, GRAD_OF, NO_PARAMS, dy *x *(1 - x), dy *x *(1 - x))
ELEMENTWISE(tanh, X_OF, NO_PARAMS, tanh(x), vector_tanh(x))
ELEMENTWISE(tanh_back, GRAD_OF, NO_PARAMS, dy *(1 - x * x), dy *(1 - x * x))

static Status sigmoid_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_output(context, "SigmoidGrad");
}

static Status tanh_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_output(context, "TanhGrad");
}

/* ---- HardSigmoid, HardSwish: pieces of lines; derivative 0 at both ends of the ramp, as torch has it ------------ */

static void hard_sigmoid_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "alpha", 0.2F);
    p[1] = (double)node_float(node, "beta", 0.5F);
}

#define RAMP(x) ((x) < 0 ? 0 : (x) > 1 ? 1 : (x))

/* max(0, min(1, alpha x + beta)) */
ELEMENTWISE(hard_sigmoid, X_OF, hard_sigmoid_params, RAMP(p[0] * x + p[1]), RAMP(p[0] * x + p[1]))
ELEMENTWISE(hard_sigmoid_back, GRAD_OF, hard_sigmoid_params, p[0] * x + p[1] > 0 && p[0] * x + p[1] < 1 ? dy * p[0] : 0,
            p[0] * x + p[1] > 0 && p[0] * x + p[1] < 1 ? dy * p[0] : 0)
/* x max(0, min(1, x/6 + 1/2)); derivative 0 up to -3, x/3 + 1/2 below 3, then 1 */
ELEMENTWISE(hard_swish, X_OF, NO_PARAMS, x *RAMP(x / 6 + 0.5), x *RAMP(x *(1.0F / 6.0F) + 0.5F))
ELEMENTWISE(hard_swish_back, GRAD_OF, NO_PARAMS,
            x <= -3 ? 0
            : x < 3 ? dy * (x / 3 + 0.5)
                    : dy,
            x <= -3 ? 0 : (x < 3 ? dy * (x * (1.0F / 3.0F) + 0.5F) : dy))

static Status hard_sigmoid_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "HardSigmoidGrad");
}

static Status hard_swish_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "HardSwishGrad");
}

/* ---- Softplus: ln(1 + e^x); Softsign: x / (1 + |x|) -------------------------------------------------------------- */

ELEMENTWISE(softplus, X_OF, NO_PARAMS, (x > 0 ? x : 0) + log1p(exp(-fabs(x))), vector_softplus(x))
ELEMENTWISE(softplus_back, GRAD_OF, NO_PARAMS, dy / (1 + exp(-x)), dy *vector_sigmoid(x))
ELEMENTWISE(softsign, X_OF, NO_PARAMS, x / (1 + fabs(x)), x / (1.0F + fabsf(x)))
ELEMENTWISE(softsign_back, GRAD_OF, NO_PARAMS, dy / ((1 + fabs(x)) * (1 + fabs(x))),
            dy / ((1.0F + fabsf(x)) * (1.0F + fabsf(x))))

static Status softplus_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "SoftplusGrad");
}

static Status softsign_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "SoftsignGrad");
}

/* ---- Shrink: towards 0 by bias outside [-lambd, lambd], 0 inside ------------------------------------------------- */

static void shrink_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "lambd", 0.5F);
    p[1] = (double)node_float(node, "bias", 0);
}

ELEMENTWISE_REFERENCE(shrink, double, f64, X_OF(double), x<-p[0] ? x + p[1] : x> p[0] ? x - p[1] : 0)
ELEMENTWISE_REFERENCE(shrink, int64_t, i64, X_OF(int64_t),
                      (double)x<-p[0] ? (double)x + p[1] : (double)x> p[0] ? (double)x - p[1] : 0)
ELEMENTWISE_KERNEL(shrink, X_OF(float), x < -p[0] ? x + p[1] : (x > p[0] ? x - p[1] : 0))
ELEMENTWISE(shrink_back, GRAD_OF, shrink_params, x<-p[0] || x> p[0] ? dy : 0, x<-p[0] || x> p[0] ? dy : 0)

static Status shrink_eval(EvalContext *context, Error *err)
{
    static const Formula formula = {shrink_f64, shrink_i64, NULL};
    return elementwise_eval(context, &formula, DTYPE_UNDEFINED, shrink_params, err);
}

static Status shrink_prepare(PlanContext *context, Error *err)
{
    return elementwise_prepare(context, shrink_kernel, shrink_params, err);
}

static Status shrink_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "ShrinkGrad");
}

/* ---- Swish: x sigmoid(alpha x); SwiGLU: swish(a) b; Mish: x tanh(softplus(x)) ------------------------------------ */

static void swish_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "alpha", 1);
}

static void quick_params(const Node *node, double *p)
{
    p[0] = (double)node_float(node, "alpha", 1.702F);
}

VECTOR_INLINE double swish_slope(double x, double alpha) /* s + alpha x s (1 - s) */
{
    double s = 1 / (1 + exp(-alpha * x));
    return s + alpha * x * s * (1 - s);
}

VECTOR_INLINE float vector_swish_slope(float x, float alpha)
{
    float s = vector_sigmoid(alpha * x);
    return s + alpha * x * s * (1.0F - s);
}

ELEMENTWISE(swish, X_OF, swish_params, x / (1 + exp(-p[0] * x)), x *vector_sigmoid(p[0] * x))
ELEMENTWISE(swish_back, GRAD_OF, swish_params, dy *swish_slope(x, p[0]), dy *vector_swish_slope(x, p[0]))
ELEMENTWISE(quick_gelu, X_OF, quick_params, x / (1 + exp(-p[0] * x)), x *vector_sigmoid(p[0] * x))
ELEMENTWISE(quick_gelu_back, GRAD_OF, quick_params, dy *swish_slope(x, p[0]), dy *vector_swish_slope(x, p[0]))
ELEMENTWISE(swiglu, XY_OF, swish_params, x *y / (1 + exp(-p[0] * x)), x *y *vector_sigmoid(p[0] * x))
/* (dy, a, b) -> da */
ELEMENTWISE(swiglu_back, XYZ_OF, swish_params, x *z *swish_slope(y, p[0]), x *z *vector_swish_slope(y, p[0]))

static Status swish_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "SwishGrad");
}

static Status quick_gelu_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "QuickGeluGrad");
}

static Status swiglu_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    Value *dy = context->dy[0], *gate = context->node->inputs[0], *linear = context->node->inputs[1];
    if (dy == NULL)
        return STATUS_OK;
    if (context->wants[0]) {
        Node *node = build_node(b, DOMAIN_INTERNAL, "SwiGLUGrad", (Value *[]){dy, gate, linear}, 3, 1);
        if (node != NULL)
            node_copy_attrs(node, context->node);
        context->dx[0] = build_finish(b, node);
    }
    if (context->wants[1]) {
        Node *swish = build_node(b, "", "Swish", &gate, 1, 1);
        if (swish != NULL)
            node_copy_attrs(swish, context->node);
        context->dx[1] = build2(b, "Mul", dy, build_finish(b, swish));
    }
    return b->status;
}

VECTOR_INLINE double mish_slope(double x) /* t + x s (1 - t^2), t = tanh(softplus x), s = sigmoid x */
{
    double t = tanh((x > 0 ? x : 0) + log1p(exp(-fabs(x))));
    return t + x / (1 + exp(-x)) * (1 - t * t);
}

VECTOR_INLINE float vector_mish_slope(float x)
{
    float t = vector_tanh_softplus(x);
    return t + x * vector_sigmoid(x) * (1.0F - t * t);
}

ELEMENTWISE(mish, X_OF, NO_PARAMS, x *tanh((x > 0 ? x : 0) + log1p(exp(-fabs(x)))), x *vector_tanh_softplus(x))
ELEMENTWISE(mish_back, GRAD_OF, NO_PARAMS, dy *mish_slope(x), dy *vector_mish_slope(x))

static Status mish_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "MishGrad");
}

/* ---- Erf, and Gelu: x P(X <= x) for a normal X, exactly or with tanh --------------------------------------------- */

#define TWO_BY_ROOT_PI 1.1283791670955126 /* 2 / sqrt(pi) */
#define ROOT_HALF 0.70710678118654752
#define ONE_BY_ROOT_TWO_PI 0.39894228040143268
#define ROOT_TWO_BY_PI 0.79788456080286536
#define CUBIC 0.044715

ELEMENTWISE(erf, X_OF, NO_PARAMS, erf(x), vector_erf(x))
ELEMENTWISE(erf_back, GRAD_OF, NO_PARAMS, dy *TWO_BY_ROOT_PI *exp(-x *x), dy *(float)TWO_BY_ROOT_PI *vector_exp(-x *x))

static Status erf_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "ErfGrad");
}

VECTOR_INLINE double gelu_at(double x) /* x/2 (1 + erf(x / sqrt 2)) */
{
    return 0.5 * x * erfc(-x * ROOT_HALF);
}

VECTOR_INLINE float vector_gelu(float x)
{
    float bell;
    return x * vector_normal(x, &bell);
}

VECTOR_INLINE double gelu_slope(double x) /* P(x) + x p(x) */
{
    return 0.5 * erfc(-x * ROOT_HALF) + x * ONE_BY_ROOT_TWO_PI * exp(-0.5 * x * x);
}

VECTOR_INLINE float vector_gelu_slope(float x)
{
    float bell, cdf = vector_normal(x, &bell);
    return cdf + x * (float)ONE_BY_ROOT_TWO_PI * bell;
}

VECTOR_INLINE double gelu_tanh_at(double x) /* x/2 (1 + tanh(sqrt(2/pi) (x + c x^3))) */
{
    return 0.5 * x * (1 + tanh(ROOT_TWO_BY_PI * (x + CUBIC * x * x * x)));
}

/* (1 + tanh u) / 2 = 1 / (1 + e^-2u) */
VECTOR_INLINE float vector_gelu_gate(float x)
{
    return vector_sigmoid((float)(2 * ROOT_TWO_BY_PI) * (x + (float)CUBIC * x * x * x));
}

VECTOR_INLINE float vector_gelu_tanh(float x)
{
    return x * vector_gelu_gate(x);
}

VECTOR_INLINE double gelu_tanh_slope(double x)
{
    double t = tanh(ROOT_TWO_BY_PI * (x + CUBIC * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT_TWO_BY_PI * (1 + 3 * CUBIC * x * x);
}

VECTOR_INLINE float vector_gelu_tanh_slope(float x) /* with gate g: g + 2 x g (1 - g) u' */
{
    float g = vector_gelu_gate(x);
    return g + 2.0F * x * g * (1.0F - g) * (float)ROOT_TWO_BY_PI * (1.0F + (float)(3 * CUBIC) * x * x);
}

ELEMENTWISE(gelu_erf, X_OF, NO_PARAMS, gelu_at(x), vector_gelu(x))
ELEMENTWISE(gelu_erf_back, GRAD_OF, NO_PARAMS, dy *gelu_slope(x), dy *vector_gelu_slope(x))
ELEMENTWISE(gelu_tanh, X_OF, NO_PARAMS, gelu_tanh_at(x), vector_gelu_tanh(x))
ELEMENTWISE(gelu_tanh_back, GRAD_OF, NO_PARAMS, dy *gelu_tanh_slope(x), dy *vector_gelu_tanh_slope(x))

static bool by_tanh(const Node *node)
{
    return strcmp(node_string(node, "approximate", "none"), "tanh") == 0;
}

static Status gelu_eval(EvalContext *context, Error *err)
{
    return by_tanh(context->node) ? gelu_tanh_eval(context, err) : gelu_erf_eval(context, err);
}

static Status gelu_prepare(PlanContext *context, Error *err)
{
    return by_tanh(context->node) ? gelu_tanh_prepare(context, err) : gelu_erf_prepare(context, err);
}

static Status gelu_back_eval(EvalContext *context, Error *err)
{
    return by_tanh(context->node) ? gelu_tanh_back_eval(context, err) : gelu_erf_back_eval(context, err);
}

static Status gelu_back_prepare(PlanContext *context, Error *err)
{
    return by_tanh(context->node) ? gelu_tanh_back_prepare(context, err) : gelu_erf_back_prepare(context, err);
}

static Status gelu_grad(GradContext *context, Error *err)
{
    (void)err;
    return grad_from_input(context, "GeluGrad");
}

/* com.microsoft: a bias is added first. BiasGelu is exact, FastGelu goes by tanh and its bias is optional. */
ELEMENTWISE(bias_gelu, XY_OF, NO_PARAMS, gelu_at(x + y), vector_gelu(x + y))
ELEMENTWISE(fast_gelu, XY_OF, NO_PARAMS, gelu_tanh_at(count > 1 ? x + y : x), vector_gelu_tanh(count > 1 ? x + y : x))

static Status biased_gelu_grad(GradContext *context, const char *approximate)
{
    Builder *b = &context->b;
    Value *x = context->node->inputs[0], *bias = node_input(context->node, 1);
    if (context->dy[0] == NULL)
        return STATUS_OK;
    Value *sum = bias == NULL ? x : build2(b, "Add", x, bias);
    Node *node = build_node(b, DOMAIN_INTERNAL, "GeluGrad", (Value *[]){context->dy[0], sum}, 2, 1);
    if (node != NULL)
        node_set_string(node, "approximate", approximate);
    Value *d = build_finish(b, node);
    context->dx[0] = d;
    if (bias != NULL && context->wants[1])
        context->dx[1] = build_reduce_to(b, d, bias);
    return b->status;
}

static Status bias_gelu_grad(GradContext *context, Error *err)
{
    (void)err;
    return biased_gelu_grad(context, "none");
}

static Status fast_gelu_grad(GradContext *context, Error *err)
{
    (void)err;
    return biased_gelu_grad(context, "tanh");
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define PLAIN (OP_ELEMENTWISE | OP_IN_PLACE | OP_FUSES)
#define MOVES (PLAIN | OP_MOVES_ZERO)

const OpDef ops_activation[] = {
    UNARY_ROW("Relu", 1, relu, .grad = relu_grad, .traits = PLAIN),
    UNARY_ROW("LeakyRelu", 1, leaky, .grad = leaky_grad, .traits = PLAIN),
    UNARY_ROW("ThresholdedRelu", 1, threshold, .grad = threshold_grad, .traits = PLAIN),
    UNARY_ROW("Elu", 1, elu, .grad = elu_grad, .traits = PLAIN),
    UNARY_ROW("Selu", 1, selu, .grad = selu_grad, .traits = PLAIN),
    UNARY_ROW("Celu", 12, celu, .grad = celu_grad, .traits = PLAIN),
    UNARY_ROW("Sigmoid", 1, sigmoid, .grad = sigmoid_grad, .traits = MOVES),
    UNARY_ROW("HardSigmoid", 1, hard_sigmoid, .grad = hard_sigmoid_grad, .traits = MOVES),
    UNARY_ROW("HardSwish", 14, hard_swish, .grad = hard_swish_grad, .traits = PLAIN),
    UNARY_ROW("Tanh", 1, tanh, .grad = tanh_grad, .traits = PLAIN),
    UNARY_ROW("Softplus", 1, softplus, .grad = softplus_grad, .traits = MOVES),
    UNARY_ROW("Softsign", 1, softsign, .grad = softsign_grad, .traits = PLAIN),
    UNARY_ROW("Shrink", 9, shrink, .grad = shrink_grad, .traits = PLAIN),
    UNARY_ROW("Swish", 24, swish, .grad = swish_grad, .traits = PLAIN),
    UNARY_ROW("Mish", 18, mish, .grad = mish_grad, .traits = PLAIN),
    UNARY_ROW("Erf", 9, erf, .grad = erf_grad, .traits = PLAIN),
    UNARY_ROW("Gelu", 20, gelu, .grad = gelu_grad, .traits = PLAIN),
    {.name = "PRelu",
     .since = 1,
     .last = OPSET_NEWEST,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = PLAIN | OP_ALIKE,
     .infer = infer_like_first,
     .eval = prelu_eval,
     .grad = prelu_grad,
     .upgrade = prelu_upgrade,
     .prepare = prelu_prepare},
    {.name = "SwiGLU",
     .since = 28,
     .last = OPSET_NEWEST,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = PLAIN | OP_ALIKE,
     .infer = infer_like_first,
     .eval = swiglu_eval,
     .grad = swiglu_grad,
     .prepare = swiglu_prepare},
    MICROSOFT_ROW("Gelu", 1, gelu_erf, .grad = gelu_grad, .traits = PLAIN),
    MICROSOFT_ROW("QuickGelu", 1, quick_gelu, .grad = quick_gelu_grad, .traits = PLAIN),
    MICROSOFT_ROW("BiasGelu", 2, bias_gelu, .grad = bias_gelu_grad, .traits = PLAIN | OP_ALIKE),
    MICROSOFT_ROW("FastGelu", 2, fast_gelu, .grad = fast_gelu_grad, .traits = PLAIN | OP_ALIKE),
    GRAD_ROW("ReluGrad", 2, relu_back),
    GRAD_ROW("LeakyReluGrad", 2, leaky_back),
    GRAD_ROW("PReluGrad", 3, prelu_back),
    GRAD_ROW("PReluSlopeGrad", 2, prelu_slope_back),
    GRAD_ROW("ThresholdedReluGrad", 2, threshold_back),
    GRAD_ROW("EluGrad", 2, elu_back),
    GRAD_ROW("SeluGrad", 2, selu_back),
    GRAD_ROW("CeluGrad", 2, celu_back),
    GRAD_ROW("SigmoidGrad", 2, sigmoid_back),
    GRAD_ROW("TanhGrad", 2, tanh_back),
    GRAD_ROW("HardSigmoidGrad", 2, hard_sigmoid_back),
    GRAD_ROW("HardSwishGrad", 2, hard_swish_back),
    GRAD_ROW("SoftplusGrad", 2, softplus_back),
    GRAD_ROW("SoftsignGrad", 2, softsign_back),
    GRAD_ROW("ShrinkGrad", 2, shrink_back),
    GRAD_ROW("SwishGrad", 2, swish_back),
    GRAD_ROW("QuickGeluGrad", 2, quick_gelu_back),
    GRAD_ROW("SwiGLUGrad", 3, swiglu_back),
    GRAD_ROW("MishGrad", 2, mish_back),
    GRAD_ROW("ErfGrad", 2, erf_back),
    GRAD_ROW("GeluGrad", 2, gelu_back),
    {0},
};
