/* Arithmetic with broadcasting: Add to Mod, the n-ary Sum, Mean, Min, Max, Clip, Where and the bitwise operators.
 *
 * Gradients sum over what broadcasting had repeated (build_reduce_to). Integers wrap as two's complement; dividing an
 * integer by zero gives 0, where the standard says nothing. */
#include "runtime/ops/elementwise.h"

/* ---- rows with formulas in double, int64 and uint64 ----------------------------------------------------------- */

/* <name>_eval from three references, <name>_prepare from a kernel; the formulas see x, y (z). */
#define ARITHMETIC(name, inputs, params, reference, whole, natural, fast)                                              \
    ELEMENTWISE_REFERENCE(name, double, f64, inputs(double), reference)                                                \
    ELEMENTWISE_REFERENCE(name, int64_t, i64, inputs(int64_t), whole)                                                  \
    ELEMENTWISE_REFERENCE(name, uint64_t, u64, inputs(uint64_t), natural)                                              \
    ELEMENTWISE_KERNEL(name, inputs(float), fast)                                                                      \
    static Status name##_eval(EvalContext *context, Error *err)                                                        \
    {                                                                                                                  \
        static const Formula formula = {name##_f64, name##_i64, name##_u64};                                           \
        return elementwise_eval(context, &formula, DTYPE_UNDEFINED, params, err);                                      \
    }                                                                                                                  \
    static Status name##_prepare(PlanContext *context, Error *err)                                                     \
    {                                                                                                                  \
        return elementwise_prepare(context, name##_kernel, params, err);                                               \
    }

#define WRAP(expression) (int64_t)(expression) /* of uint64 arithmetic, which does not overflow */
#define U(x) ((uint64_t)(x))

static int64_t divide(int64_t x, int64_t y) /* towards zero */
{
    if (y == 0)
        return 0;
    return y == -1 ? WRAP(0 - U(x)) : x / y;
}

ARITHMETIC(add, XY_OF, NO_PARAMS, x + y, WRAP(U(x) + U(y)), x + y, x + y)
ARITHMETIC(sub, XY_OF, NO_PARAMS, x - y, WRAP(U(x) - U(y)), x - y, x - y)
ARITHMETIC(mul, XY_OF, NO_PARAMS, x *y, WRAP(U(x) * U(y)), x *y, x *y)
ARITHMETIC(div, XY_OF, NO_PARAMS, x / y, divide(x, y), y == 0 ? 0 : x / y, x / y)

/* The gradient that reaches input `index`, if it is wanted: `each` (in the output's shape) summed to the input's. */
static void give(GradContext *context, int index, Value *each)
{
    context->dx[index] = build_reduce_to(&context->b, each, context->node->inputs[index]);
}

static Status add_grad(GradContext *context, Error *err)
{
    (void)err;
    for (int i = 0; i < context->node->input_count && context->dy[0] != NULL; i++)
        if (context->wants[i])
            give(context, i, context->dy[0]);
    return context->b.status;
}

static Status sub_grad(GradContext *context, Error *err)
{
    (void)err;
    if (context->dy[0] != NULL && context->wants[0])
        give(context, 0, context->dy[0]);
    if (context->dy[0] != NULL && context->wants[1]) {
        give(context, 1, context->dy[0]);
        context->dx[1] = build1(&context->b, "Neg", context->dx[1]);
    }
    return context->b.status;
}

static Status mul_grad(GradContext *context, Error *err)
{
    (void)err;
    for (int i = 0; i < 2 && context->dy[0] != NULL; i++)
        if (context->wants[i])
            give(context, i, build2(&context->b, "Mul", context->dy[0], context->node->inputs[1 - i]));
    return context->b.status;
}

/* q = a / b: da = dy / b, db = -dy q / b */
static Status div_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    Value *dy = context->dy[0], *divisor = context->node->inputs[1];
    if (dy != NULL && context->wants[0])
        give(context, 0, build2(b, "Div", dy, divisor));
    if (dy != NULL && context->wants[1])
        give(context, 1, build1(b, "Neg", build2(b, "Div", build2(b, "Mul", dy, context->node->outputs[0]), divisor)));
    return b->status;
}

/* ---- Pow ------------------------------------------------------------------------------------------------------ */

static uint64_t power(uint64_t x, uint64_t y)
{
    uint64_t result = 1;
    for (; y > 0; y >>= 1, x *= x)
        if (y & 1)
            result *= x;
    return result;
}

static int64_t whole_power(int64_t x, int64_t y)
{
    if (y >= 0)
        return WRAP(power(U(x), U(y)));
    return x == 1 ? 1 : x == -1 ? (y & 1 ? -1 : 1) : 0;
}

ARITHMETIC(pow, XY_OF, NO_PARAMS, pow(x, y), whole_power(x, y), power(x, y), powf(x, y))
ELEMENTWISE_KERNEL(square, X_OF(float), x *x)
ELEMENTWISE_KERNEL(cube, X_OF(float), x *x *x)
ELEMENTWISE_KERNEL(root, X_OF(float), sqrtf(x))
ELEMENTWISE_KERNEL(inverse, X_OF(float), 1.0F / x)
ELEMENTWISE_KERNEL(pow_constant, X_OF(float), powf(x, p[0]))

/* An exponent known while planning: nearly all of them, and nearly always 2. */
static bool constant_exponent(const Node *node, int index, double *exponent)
{
    const Value *value = node->inputs[index];
    if (value->constant == NULL || type_count(&value->type) != 1 || value->type.rank > node->inputs[0]->type.rank)
        return false;
    *exponent = tensor_f64_at(value->constant, 0);
    return true;
}

static Status pow_prepare_any(PlanContext *context, Error *err)
{
    double exponent;
    if (!constant_exponent(context->node, 1, &exponent))
        return pow_prepare(context, err);
    Kernel kernel = exponent == 2      ? square_kernel
                    : exponent == 3    ? cube_kernel
                    : exponent == 0.5  ? root_kernel
                    : exponent == -1.0 ? inverse_kernel
                                       : pow_constant_kernel;
    return elementwise_prepare_with(context, kernel, (double[ELEMENTWISE_PARAMS]){exponent}, 1, err);
}

/* (dy, base, exponent): dy e b^(e-1), 0 for e = 0; and dy b^e ln b, 0 for b = 0 and e >= 0. As torch has it. */
ELEMENTWISE(pow_base, XYZ_OF, NO_PARAMS, z == 0 ? 0 : x * z * pow(y, z - 1), z == 0 ? 0 : x * z * powf(y, z - 1.0F))
ELEMENTWISE(pow_exponent, XYZ_OF, NO_PARAMS, y == 0 && z >= 0 ? 0 : x * pow(y, z) * log(y),
            y == 0 && z >= 0 ? 0 : x * powf(y, z) * logf(y))
ELEMENTWISE_KERNEL(square_base, XY_OF(float), x * 2.0F * y)
ELEMENTWISE_KERNEL(cube_base, XY_OF(float), x * 3.0F * y * y)
ELEMENTWISE_KERNEL(root_base, XY_OF(float), x * 0.5F / sqrtf(y))
ELEMENTWISE_KERNEL(pow_constant_base, XY_OF(float), p[0] == 0 ? 0 : x * p[0] * powf(y, p[0] - 1.0F))

static Status pow_base_prepare_any(PlanContext *context, Error *err)
{
    double exponent;
    if (!constant_exponent(context->node, 2, &exponent))
        return pow_base_prepare(context, err);
    Kernel kernel = exponent == 2     ? square_base_kernel
                    : exponent == 3   ? cube_base_kernel
                    : exponent == 0.5 ? root_base_kernel
                                      : pow_constant_base_kernel;
    return elementwise_prepare_with(context, kernel, (double[ELEMENTWISE_PARAMS]){exponent}, 2, err);
}

static Status pow_grad(GradContext *context, Error *err)
{
    (void)err;
    static const char *const ops[] = {"PowBaseGrad", "PowExponentGrad"};
    const Node *node = context->node;
    for (int i = 0; i < 2 && context->dy[0] != NULL; i++)
        if (context->wants[i]) {
            Value *inputs[] = {context->dy[0], node->inputs[0], node->inputs[1]};
            give(context, i, build_finish(&context->b, build_node(&context->b, DOMAIN_INTERNAL, ops[i], inputs, 3, 1)));
        }
    return context->b.status;
}

/* ---- Mod: the sign of the divisor, or with fmod = 1 that of the dividend ---------------------------------------- */

static void mod_params(const Node *node, double *p)
{
    p[0] = (double)node_int(node, "fmod", 0);
}

static double floor_mod(double x, double y)
{
    double r = fmod(x, y);
    if (r == 0)
        return copysign(0, y);
    return (r < 0) != (y < 0) ? r + y : r;
}

static int64_t whole_mod(int64_t x, int64_t y, bool truncate)
{
    if (y == 0 || y == -1)
        return 0;
    int64_t r = x % y;
    return !truncate && r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

ARITHMETIC(mod, XY_OF, mod_params, p[0] != 0 ? fmod(x, y) : floor_mod(x, y), whole_mod(x, y, p[0] != 0),
           y == 0 ? 0 : x % y, p[0] != 0 ? fmodf(x, y) : (float)floor_mod((double)x, (double)y))

/* da = dy, db = -dy floor(a / b), trunc with fmod */
ELEMENTWISE(mod_divisor, XYZ_OF, mod_params, -x *(p[0] != 0 ? trunc(y / z) : floor(y / z)),
            -x *(p[0] != 0 ? truncf(y / z) : floorf(y / z)))

static Status mod_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    const Node *node = context->node;
    if (context->dy[0] != NULL && context->wants[0])
        give(context, 0, context->dy[0]);
    if (context->dy[0] != NULL && context->wants[1]) {
        Value *inputs[] = {context->dy[0], node->inputs[0], node->inputs[1]};
        Node *made = build_node(b, DOMAIN_INTERNAL, "ModDivisorGrad", inputs, 3, 1);
        if (made != NULL)
            node_copy_attrs(made, node);
        give(context, 1, build_finish(b, made));
    }
    return b->status;
}

/* ---- Sum, Mean, Min, Max: any number of inputs ------------------------------------------------------------------ */

/* Folds the inputs from the left: r is the result so far, v the next input. `last` finishes. */
#define FOLD_LOOP(type, step, last)                                                                                    \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type r = in[0][i];                                                                                             \
        for (int k = 1; k < count; k++) {                                                                              \
            type v = in[k][i];                                                                                         \
            r = (type)(step);                                                                                          \
        }                                                                                                              \
        out[i] = (type)(last);                                                                                         \
    }

/* The kernel goes over the run once for each input, so that each pass is a vector loop. */
#define FOLD(name, step, whole, natural, last, fast_last)                                                              \
    static void name##_f64(const double *const *in, int count, double *out, int64_t n, const double *p)                \
    {                                                                                                                  \
        (void)p;                                                                                                       \
        FOLD_LOOP(double, step, last)                                                                                  \
    }                                                                                                                  \
    static void name##_i64(const int64_t *const *in, int count, int64_t *out, int64_t n, const double *p)              \
    {                                                                                                                  \
        (void)p;                                                                                                       \
        FOLD_LOOP(int64_t, whole, r)                                                                                   \
    }                                                                                                                  \
    static void name##_u64(const uint64_t *const *in, int count, uint64_t *out, int64_t n, const double *p)            \
    {                                                                                                                  \
        (void)p;                                                                                                       \
        FOLD_LOOP(uint64_t, natural, r)                                                                                \
    }                                                                                                                  \
    VECTOR_CLONES static void name##_kernel(const float *const *in, int count, float *out, int64_t n, const float *p)  \
    {                                                                                                                  \
        (void)p;                                                                                                       \
        for (int k = 1; k < count; k++) {                                                                              \
            const float *so_far = k == 1 ? in[0] : out, *next = in[k];                                                 \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                                        \
            {                                                                                                          \
                float r = so_far[i], v = next[i];                                                                      \
                out[i] = (step);                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
        const float *so_far = count == 1 ? in[0] : out;                                                                \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                                            \
        {                                                                                                              \
            float r = so_far[i];                                                                                       \
            out[i] = (fast_last);                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static Status name##_eval(EvalContext *context, Error *err)                                                        \
    {                                                                                                                  \
        static const Formula formula = {name##_f64, name##_i64, name##_u64};                                           \
        return elementwise_eval(context, &formula, DTYPE_UNDEFINED, NO_PARAMS, err);                                   \
    }                                                                                                                  \
    static Status name##_prepare(PlanContext *context, Error *err)                                                     \
    {                                                                                                                  \
        return elementwise_prepare(context, name##_kernel, NO_PARAMS, err);                                            \
    }

/* Max and Min of numbers of which one is NaN are NaN, as in numpy. */
FOLD(sum, r + v, WRAP(U(r) + U(v)), r + v, r, r)
FOLD(mean, r + v, WRAP(U(r) + U(v)), r + v, r / count, r / (float)count)
FOLD(max, v > r || v != v ? v : r, v > r ? v : r, v > r ? v : r, r, r)
FOLD(min, v < r || v != v ? v : r, v < r ? v : r, v < r ? v : r, r, r)

static Status mean_grad(GradContext *context, Error *err)
{
    Builder *b = &context->b;
    if (context->dy[0] != NULL)
        context->dy[0] = build_times(b, 1.0 / context->node->input_count, context->dy[0]);
    return add_grad(context, err);
}

/* (dy, y, x, x_0 .. x_n-1): dy where x = y, divided among all inputs that reached the extremum (halves for two, as
 * torch) */
#define SHARE(type)                                                                                                    \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type ties = 0;                                                                                                 \
        for (int k = 3; k < count; k++)                                                                                \
            ties += in[k][i] == in[1][i] ? (type)1 : (type)0;                                                          \
        out[i] = in[2][i] == in[1][i] ? in[0][i] / ties : 0;                                                           \
    }

static void extremum_back_f64(const double *const *in, int count, double *out, int64_t n, const double *p)
{
    (void)p;
    SHARE(double)
}

static void extremum_back_kernel(const float *const *in, int count, float *out, int64_t n, const float *p)
{
    (void)p;
    SHARE(float)
}

static Status extremum_back_eval(EvalContext *context, Error *err)
{
    static const Formula formula = {extremum_back_f64, NULL, NULL};
    return elementwise_eval(context, &formula, DTYPE_UNDEFINED, NO_PARAMS, err);
}

static Status extremum_back_prepare(PlanContext *context, Error *err)
{
    return elementwise_prepare(context, extremum_back_kernel, NO_PARAMS, err);
}

static Status extremum_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *node = context->node;
    Builder *b = &context->b;
    Value **inputs = arena_array(&b->graph->model->arena, Value *, (size_t)node->input_count + 3);
    inputs[0] = context->dy[0];
    inputs[1] = node->outputs[0];
    for (int i = 0; i < node->input_count; i++)
        inputs[3 + i] = node->inputs[i];
    for (int i = 0; i < node->input_count && context->dy[0] != NULL; i++) {
        if (!context->wants[i])
            continue;
        inputs[2] = node->inputs[i];
        Node *share = build_node(b, DOMAIN_INTERNAL, "ExtremumGrad", inputs, node->input_count + 3, 1);
        give(context, i, build_finish(b, share));
    }
    return b->status;
}

/* ---- Clip: min(high, max(x, low)); both bounds optional ---------------------------------------------------------- */

/* p: whether there is a lower bound, an upper one. The bounds are the inputs after x. */
static void clip_params(const Node *node, double *p)
{
    p[0] = node_input(node, 1) != NULL;
    p[1] = node_input(node, 2) != NULL;
}

#define CLIP_LOOP(type)                                                                                                \
    (void)count;                                                                                                       \
    bool low = p[0] != 0, high = p[1] != 0;                                                                            \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type x = in[0][i];                                                                                             \
        x = low && x < in[1][i] ? in[1][i] : x;                                                                        \
        out[i] = high && x > in[1 + low][i] ? in[1 + low][i] : x;                                                      \
    }

static void clip_f64(const double *const *in, int count, double *out, int64_t n, const double *p)
{
    CLIP_LOOP(double)
}

static void clip_i64(const int64_t *const *in, int count, int64_t *out, int64_t n, const double *p)
{
    CLIP_LOOP(int64_t)
}

static void clip_u64(const uint64_t *const *in, int count, uint64_t *out, int64_t n, const double *p)
{
    CLIP_LOOP(uint64_t)
}

static void clip_kernel(const float *const *in, int count, float *out, int64_t n, const float *p){CLIP_LOOP(float)}

ELEMENTWISE_KERNEL(clip_constant, X_OF(float), x < p[0] ? p[0] : (x > p[1] ? p[1] : x))

    static Status clip_eval(EvalContext *context, Error *err)
{
    static const Formula formula = {clip_f64, clip_i64, clip_u64};
    return elementwise_eval(context, &formula, DTYPE_UNDEFINED, clip_params, err);
}

/* The gradient flows strictly between the bounds, as torch's hardtanh and relu6 have it. (dy, x, low, high) */
static void clip_back_f64(const double *const *in, int count, double *out, int64_t n, const double *p)
{
    (void)count;
    bool low = p[0] != 0, high = p[1] != 0;
    for (int64_t i = 0; i < n; i++) {
        bool inside = (!low || in[1][i] > in[2][i]) && (!high || in[1][i] < in[2 + low][i]);
        out[i] = inside ? in[0][i] : 0;
    }
}

static void clip_back_kernel(const float *const *in, int count, float *out, int64_t n, const float *p)
{
    (void)count;
    bool low = p[0] != 0, high = p[1] != 0;
    for (int64_t i = 0; i < n; i++) {
        bool inside = (!low || in[1][i] > in[2][i]) && (!high || in[1][i] < in[2 + low][i]);
        out[i] = inside ? in[0][i] : 0;
    }
}

ELEMENTWISE_KERNEL(clip_constant_back, GRAD_OF(float), ((x > p[0]) & (x < p[1])) ? dy : 0)

static void clip_back_params(const Node *node, double *p)
{
    p[0] = node_input(node, 2) != NULL;
    p[1] = node_input(node, 3) != NULL;
}

static Status clip_back_eval(EvalContext *context, Error *err)
{
    static const Formula formula = {clip_back_f64, NULL, NULL};
    return elementwise_eval(context, &formula, DTYPE_UNDEFINED, clip_back_params, err);
}

/* Bounds from inputs `low` and low + 1 as parameters, when they are constants of one element. */
static bool constant_bounds(const Node *node, int low, double *p)
{
    p[0] = -HUGE_VAL;
    p[1] = HUGE_VAL;
    for (int i = 0; i < 2; i++) {
        const Value *bound = node_input(node, low + i);
        if (bound == NULL)
            continue;
        if (bound->constant == NULL || type_count(&bound->type) != 1)
            return false;
        p[i] = tensor_f64_at(bound->constant, 0);
    }
    return p[0] <= p[1];
}

static Status clip_prepare(PlanContext *context, Error *err)
{
    double p[ELEMENTWISE_PARAMS] = {0};
    if (constant_bounds(context->node, 1, p))
        return elementwise_prepare_with(context, clip_constant_kernel, p, 1, err);
    return elementwise_prepare(context, clip_kernel, clip_params, err);
}

static Status clip_back_prepare(PlanContext *context, Error *err)
{
    double p[ELEMENTWISE_PARAMS] = {0};
    if (constant_bounds(context->node, 2, p))
        return elementwise_prepare_with(context, clip_constant_back_kernel, p, 2, err);
    return elementwise_prepare(context, clip_back_kernel, clip_back_params, err);
}

static Status clip_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *dy = context->dy[0], *x = node->inputs[0], *low = node_input(node, 1), *high = node_input(node, 2);
    if (dy == NULL)
        return STATUS_OK;
    if (context->wants[0])
        context->dx[0] = build_finish(
            b, build_node(b, DOMAIN_INTERNAL, "ClipGrad", (Value *[]){dy, node->outputs[0], low, high}, 4, 1));
    /* y = min(max(x, low), high): where low is above high, y is high whatever x is */
    if (low != NULL && context->wants[1]) {
        Value *at_low = build2(b, "Less", x, low);
        if (high != NULL)
            at_low = build2(b, "And", at_low, build2(b, "LessOrEqual", low, high));
        give(context, 1, build3(b, "Where", at_low, dy, build_scalar(b, dy->type.dtype, 0)));
    }
    if (high != NULL && context->wants[2]) {
        Value *raised = low == NULL ? x : build2(b, "Max", x, low);
        give(context, 2,
             build3(b, "Where", build2(b, "Greater", raised, high), dy, build_scalar(b, dy->type.dtype, 0)));
    }
    return b->status;
}

/* Until opset 6 the bounds were attributes. */
static Status clip_upgrade(Node *node, Error *err)
{
    (void)err;
    static const char *const names[] = {"min", "max"};
    if (node->opset >= 11)
        return STATUS_OK;
    DType dtype = node->inputs[0]->type.dtype == DTYPE_UNDEFINED ? DTYPE_F32 : node->inputs[0]->type.dtype;
    for (int i = 0; i < 2; i++)
        if (node_attr(node, names[i]) != NULL)
            node_set_input(node, 1 + i, node_float_value(node, names[i], dtype, (double)node_float(node, names[i], 0)));
    node_remove_attr(node, "min");
    node_remove_attr(node, "max");
    node_remove_attr(node, "consumed_inputs");
    return STATUS_OK;
}

/* ---- Where: any dtype -------------------------------------------------------------------------------------------- */

static Status where_infer(Node *node, Error *err)
{
    TRY(infer_broadcast(node, err));
    node->outputs[0]->type.dtype = node->inputs[1]->type.dtype;
    return STATUS_OK;
}

static Status where_eval(EvalContext *context, Error *err)
{
    const Array *condition = context->in[0], *x = context->in[1], *y = context->in[2];
    int rank = condition->rank;
    int64_t dims[RANK_MAX], at[3];
    if (condition->dtype != DTYPE_BOOL || x->dtype != y->dtype)
        return eval_fail(context, err, "chooses by %s between %s and %s", dtype_name(condition->dtype),
                         dtype_name(x->dtype), dtype_name(y->dtype));
    memcpy(dims, condition->dims, sizeof dims);
    if (!dims_broadcast(rank, dims, x->rank, x->dims, &rank, dims) ||
        !dims_broadcast(rank, dims, y->rank, y->dims, &rank, dims))
        return eval_fail(context, err, "shapes do not broadcast");
    Array *out;
    TRY(eval_output(context, 0, x->dtype, rank, dims, &out, err));
    size_t size = dtype_size(x->dtype);
    for (int64_t i = 0; i < out->count; i++) {
        for (int k = 0; k < 3; k++)
            broadcast_offsets(rank, dims, context->in[k]->rank, context->in[k]->dims, i, 1, &at[k]);
        bool first = ((const uint8_t *)condition->data)[at[0]] != 0;
        const char *from =
            first ? (const char *)x->data + (size_t)at[1] * size : (const char *)y->data + (size_t)at[2] * size;
        memcpy((char *)out->data + (size_t)i * size, from, size);
    }
    return STATUS_OK;
}

ELEMENTWISE_KERNEL(where, XYZ_OF(float), x != 0 ? y : z)

static Status where_prepare(PlanContext *context, Error *err)
{
    return elementwise_prepare(context, where_kernel, NO_PARAMS, err);
}

static Status where_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    Value *dy = context->dy[0], *condition = context->node->inputs[0];
    if (dy == NULL || (!context->wants[1] && !context->wants[2]))
        return STATUS_OK;
    Value *zero = build_scalar(b, dy->type.dtype, 0);
    if (context->wants[1])
        give(context, 1, build3(b, "Where", condition, dy, zero));
    if (context->wants[2])
        give(context, 2, build3(b, "Where", condition, zero, dy));
    return b->status;
}

/* ---- bits -------------------------------------------------------------------------------------------------------- */

#define BITS(name, whole, natural)                                                                                     \
    ELEMENTWISE_REFERENCE(name, int64_t, i64, XY_OF(int64_t), whole)                                                   \
    ELEMENTWISE_REFERENCE(name, uint64_t, u64, XY_OF(uint64_t), natural)                                               \
    static Status name##_eval(EvalContext *context, Error *err)                                                        \
    {                                                                                                                  \
        static const Formula formula = {NULL, name##_i64, name##_u64};                                                 \
        return elementwise_eval(context, &formula, DTYPE_UNDEFINED, shift_params, err);                                \
    }

/* A shift by a negative number or by all bits leaves the sign alone: 0, or -1 to the right of a negative number. */
static int64_t shift(int64_t x, int64_t y, bool left)
{
    if (left)
        return y < 0 || y > 63 ? 0 : WRAP(U(x) << y);
    if (y < 0 || y > 63)
        return x < 0 ? -1 : 0;
    return x < 0 ? ~(~x >> y) : x >> y;
}

static void shift_params(const Node *node, double *p)
{
    p[0] = strcmp(node_string(node, "direction", "LEFT"), "LEFT") == 0;
}

BITS(bit_and, x &y, x &y)
BITS(bit_or, x | y, x | y)
BITS(bit_xor, x ^ y, x ^ y)
BITS(bit_not, ~x + 0 * y, ~x + 0 * y)
BITS(bit_shift, shift(x, y, p[0] != 0), y > 63 ? 0 : (p[0] != 0 ? x << y : x >> y))

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define PLAIN (OP_ELEMENTWISE | OP_IN_PLACE | OP_FUSES)
#define ROW(op, first, min, max, prefix, ...)                                                                          \
    {                                                                                                                  \
        .name = op, .since = first, .last = OPSET_NEWEST, .min_inputs = min, .max_inputs = max, .min_outputs = 1,      \
        .max_outputs = 1, .eval = prefix##_eval, __VA_ARGS__                                                           \
    }
#define ALIKE .traits = PLAIN | OP_ALIKE
#define BINARY_ROW(op, prefix)                                                                                         \
    ROW(op, 1, 2, 2, prefix, .infer = infer_broadcast, .grad = prefix##_grad, .upgrade = upgrade_broadcast_attrs,      \
        .prepare = prefix##_prepare, ALIKE)
#define BITS_ROW(op, first, inputs, prefix)                                                                            \
    ROW(op, first, inputs, inputs, prefix, .infer = infer_broadcast, .no_gradient = "integers carry no gradient", ALIKE)
/* Gradient rows whose inputs broadcast; `most` may be -1. */
#define INNER_ROW(op, least, most, prefix, inference, preparation)                                                     \
    {                                                                                                                  \
        .domain = DOMAIN_INTERNAL, .name = op, .min_inputs = least, .max_inputs = most, .min_outputs = 1,              \
        .max_outputs = 1, .traits = PLAIN, .infer = inference, .eval = prefix##_eval, .prepare = preparation,          \
        .no_gradient = NO_SECOND_ORDER, .no_case = NO_CASE_OF_ITS_OWN                                                  \
    }

const OpDef ops_arith[] = {
    BINARY_ROW("Add", add),
    BINARY_ROW("Sub", sub),
    BINARY_ROW("Mul", mul),
    BINARY_ROW("Div", div),
    ROW("Pow", 1, 2, 2, pow, .infer = infer_broadcast, .grad = pow_grad, .upgrade = upgrade_broadcast_attrs,
        .prepare = pow_prepare_any, .traits = PLAIN),
    ROW("Mod", 10, 2, 2, mod, .infer = infer_broadcast, .grad = mod_grad, .prepare = mod_prepare, ALIKE),
    ROW("Sum", 1, 1, -1, sum, .infer = infer_broadcast, .grad = add_grad, .prepare = sum_prepare, ALIKE),
    ROW("Mean", 1, 1, -1, mean, .infer = infer_broadcast, .grad = mean_grad, .prepare = mean_prepare, ALIKE),
    ROW("Max", 1, 1, -1, max, .infer = infer_broadcast, .grad = extremum_grad, .prepare = max_prepare, ALIKE),
    ROW("Min", 1, 1, -1, min, .infer = infer_broadcast, .grad = extremum_grad, .prepare = min_prepare, ALIKE),
    ROW("Clip", 1, 1, 3, clip, .infer = infer_like_first, .grad = clip_grad, .upgrade = clip_upgrade,
        .prepare = clip_prepare, ALIKE),
    {.name = "Where",
     .since = 9,
     .last = OPSET_NEWEST,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = PLAIN | OP_ANY_DTYPE,
     .infer = where_infer,
     .eval = where_eval,
     .grad = where_grad,
     .prepare = where_prepare},
    BITS_ROW("BitShift", 11, 2, bit_shift),
    BITS_ROW("BitwiseAnd", 18, 2, bit_and),
    BITS_ROW("BitwiseOr", 18, 2, bit_or),
    BITS_ROW("BitwiseXor", 18, 2, bit_xor),
    BITS_ROW("BitwiseNot", 18, 1, bit_not),
    INNER_ROW("PowBaseGrad", 3, 3, pow_base, infer_broadcast, pow_base_prepare_any),
    INNER_ROW("PowExponentGrad", 3, 3, pow_exponent, infer_broadcast, pow_exponent_prepare),
    INNER_ROW("ModDivisorGrad", 3, 3, mod_divisor, infer_broadcast, mod_divisor_prepare),
    INNER_ROW("ExtremumGrad", 4, -1, extremum_back, infer_broadcast, extremum_back_prepare),
    INNER_ROW("ClipGrad", 2, 4, clip_back, infer_same, clip_back_prepare),
    {0},
};
