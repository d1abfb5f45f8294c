/* What all elementwise rows share: an eval in double and integers, and a planned kernel in float, for any number of
 * inputs that broadcast. A row brings only formulas over short runs of numbers; walking shapes, layouts and dtypes is
 * done here.
 *
 * The macros at the end expand a formula, written once or twice, into a row's eval and prepare. In a formula x, y, z
 * are the inputs (dy, x in gradient rows) and p the parameters. The reference is double arithmetic of the C library;
 * the kernel is float arithmetic that the compiler can vectorise (vector_math.h). Both round the same formula
 * differently; the suites bound by how much. */
#ifndef REGRAFT_RUNTIME_ELEMENTWISE_H
#define REGRAFT_RUNTIME_ELEMENTWISE_H

#include <math.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/vector_math.h"

enum { ELEMENTWISE_INPUTS = 8, ELEMENTWISE_PARAMS = 6 };

/* ---- eval ------------------------------------------------------------------------------------------------ */

/* Formulas over `n` elements of `count` inputs. Computed in double when any input is a float; in 64-bit integers else
 * (uint64 by `u64` when given), stored modulo the output's width. NULL: the operator does not take such dtypes. */
typedef struct Formula {
    void (*f64)(const double *const *in, int count, double *out, int64_t n, const double *p);
    void (*i64)(const int64_t *const *in, int count, int64_t *out, int64_t n, const double *p);
    void (*u64)(const uint64_t *const *in, int count, uint64_t *out, int64_t n, const double *p);
} Formula;

typedef void (*ParamsOf)(const Node *node, double *p); /* NULL: none */

/* `out`: dtype of output 0, DTYPE_UNDEFINED for that of input 0. Omitted inputs are skipped. */
Status elementwise_eval(EvalContext *context, const Formula *formula, DType out, ParamsOf params, Error *err);
/* Index, in an input of shape `dims` that broadcasts to `out_dims`, of each of the output's elements begin .. begin + n
 * - 1. */
void broadcast_offsets(int out_rank, const int64_t *out_dims, int rank, const int64_t *dims, int64_t begin, int64_t n,
                       int64_t *offsets);

/* ---- prepare ----------------------------------------------------------------------------------------------- */

/* The same in float, over runs that lie in cache. `out` may be in[0]. */
typedef void (*Kernel)(const float *const *in, int count, float *out, int64_t n, const float *p);

/* Plans the node with `kernel` over its inputs (f32, or bool read as 0 and 1; a bool output is stored as out != 0), in
 * the layout of its inputs, in place where that is legal. Anything else runs eval. */
Status elementwise_prepare(PlanContext *context, Kernel kernel, ParamsOf params, Error *err);
/* Only the first `inputs` inputs, with these parameters: when the others are constants that became parameters. */
Status elementwise_prepare_with(PlanContext *context, Kernel kernel, const double *p, int inputs, Error *err);

/* What a part of a fused node would run: filled instead of planning when PlanContext.recording is set. */
typedef struct Recording {
    Kernel kernel; /* NULL: the part cannot be fused */
    float p[ELEMENTWISE_PARAMS];
    int count;
    int inputs[ELEMENTWISE_INPUTS]; /* indices into the part's inputs */
} Recording;

/* Plans a fused node: the body's nodes, each with OP_FUSES, run one after another over the same chunk. Its inputs are
 * the body's inputs; the body may read constants of one element around it. The last node gives the output. */
Status fused_prepare(PlanContext *context, const Graph *body, Error *err);

/* ---- grad ---------------------------------------------------------------------------------------------------- */

/* dx = op(dy, x), or op(dy, y) with the node's output: an internal row with the node's attributes. */
Status grad_from_input(GradContext *context, const char *op_type);
Status grad_from_output(GradContext *context, const char *op_type);
/* A number times a value, and friends, for rules written as formulas. */
Value *build_times(Builder *b, double factor, Value *x);
Value *build_plus(Builder *b, double term, Value *x);
/* dy is integer or bool where no gradient flows; nothing to do there. */
Status grad_none(GradContext *context, Error *err); /* derivative is zero almost everywhere */

/* ---- upgrade --------------------------------------------------------------------------------------------------- */

/* Before opset 7 input 1 was aligned to input 0 from dim `axis` on: appends dims of one element to it, by operators,
 * since ranks are not known yet. */
void upgrade_axis_broadcast(Node *node, int64_t axis);
/* The same for operators that said so with attributes `broadcast` and `axis`; for use as `.upgrade`. */
Status upgrade_broadcast_attrs(Node *node, Error *err);

/* ---- rows from formulas ---------------------------------------------------------------------------------------- */

#define ELEMENTWISE_LOOP(type, declarations, expression)                                                               \
    (void)count, (void)p;                                                                                              \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        declarations out[i] = (type)(expression);                                                                      \
    }

/* Parameters are copied so that the loop may read them unconditionally. */
#define ELEMENTWISE_KERNEL(name, declarations, expression)                                                             \
    VECTOR_CLONES static void name##_kernel(const float *const *in, int count, float *out, int64_t n,                  \
                                            const float *parameters)                                                   \
    {                                                                                                                  \
        const float *in0 = in[0], *in1 = count > 1 ? in[1] : in0, *in2 = count > 2 ? in[2] : in0;                      \
        const float p[] = {parameters[0], parameters[1], parameters[2]};                                               \
        (void)in1, (void)in2, (void)p;                                                                                 \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                                            \
        {                                                                                                              \
            declarations out[i] = (expression);                                                                        \
        }                                                                                                              \
    }

#define ELEMENTWISE_REFERENCE(name, type, part, declarations, expression)                                              \
    static void name##_##part(const type *const *in, int count, type *out, int64_t n, const double *p)                 \
    {                                                                                                                  \
        const type *in0 = in[0], *in1 = count > 1 ? in[1] : in0, *in2 = count > 2 ? in[2] : in0;                       \
        (void)in1, (void)in2;                                                                                          \
        ELEMENTWISE_LOOP(type, declarations, expression)                                                               \
    }

#define X_OF(type) type x = in0[i];
#define XY_OF(type)                                                                                                    \
    type x = in0[i];                                                                                                   \
    type y = in1[i];
#define XYZ_OF(type)                                                                                                   \
    type x = in0[i];                                                                                                   \
    type y = in1[i];                                                                                                   \
    type z = in2[i];
#define GRAD_OF(type)                                                                                                  \
    type dy = in0[i];                                                                                                  \
    type x = in1[i];

/* Float-only rows: <name>_eval and <name>_prepare from two spellings of one formula over `inputs` (X_OF, XY_OF, ...).
 */
#define ELEMENTWISE(name, inputs, params, reference, fast)                                                             \
    ELEMENTWISE_REFERENCE(name, double, f64, inputs(double), reference)                                                \
    ELEMENTWISE_KERNEL(name, inputs(float), fast)                                                                      \
    static Status name##_eval(EvalContext *context, Error *err)                                                        \
    {                                                                                                                  \
        static const Formula formula = {name##_f64, NULL, NULL};                                                       \
        return elementwise_eval(context, &formula, DTYPE_UNDEFINED, params, err);                                      \
    }                                                                                                                  \
    static Status name##_prepare(PlanContext *context, Error *err)                                                     \
    {                                                                                                                  \
        return elementwise_prepare(context, name##_kernel, params, err);                                               \
    }

#define NO_PARAMS ((ParamsOf)0)

/* A unary row of the default domain, all versions alike; more designators may follow. */
#define UNARY_ROW(op, first, prefix, ...)                                                                              \
    {                                                                                                                  \
        .name = op, .since = first, .last = OPSET_NEWEST, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,          \
        .max_outputs = 1, .infer = infer_like_first, .eval = prefix##_eval, .prepare = prefix##_prepare, __VA_ARGS__   \
    }

/* A row of com.microsoft with up to `most` inputs; the smaller count is one less where the last is optional. */
#define MICROSOFT_ROW(op, most, prefix, ...)                                                                           \
    {                                                                                                                  \
        .domain = "com.microsoft", .name = op, .since = 1, .last = 1, .min_inputs = 1, .max_inputs = most,             \
        .min_outputs = 1, .max_outputs = 1, .infer = infer_like_first, .eval = prefix##_eval,                          \
        .prepare = prefix##_prepare, __VA_ARGS__                                                                       \
    }

/* A gradient row (dy, x or y, ...) -> dx. */
#define GRAD_ROW(op, inputs, prefix)                                                                                   \
    {                                                                                                                  \
        .domain = DOMAIN_INTERNAL, .name = op, .min_inputs = inputs, .max_inputs = inputs, .min_outputs = 1,           \
        .max_outputs = 1, .traits = OP_ELEMENTWISE | OP_IN_PLACE | OP_FUSES, .infer = infer_same,                      \
        .eval = prefix##_eval, .prepare = prefix##_prepare, .no_gradient = NO_SECOND_ORDER,                            \
        .no_case = NO_CASE_OF_ITS_OWN                                                                                  \
    }

#define NO_SECOND_ORDER "gradients are not differentiated again"
#define NO_CASE_OF_ITS_OWN "internal: covered by the gradient cases of its operator"

#endif
