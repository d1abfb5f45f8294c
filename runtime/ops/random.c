/* Operators that draw numbers: RandomNormal, RandomUniform and their ...Like forms, Bernoulli, Multinomial.
 *
 * What is drawn depends on (seed, node, step, element) alone. ONNX leaves the generator open, so values agree with no
 * other implementation; shapes, types and distributions do. */
#include "runtime/ops/ops.h"

#include <math.h>
#include <string.h>

#include "onnx/base/rng.h"

static Rng eval_rng(const EvalContext *context)
{
    union {
        float f;
        uint32_t bits;
    } own = {.f = node_float(context->node, "seed", 0)};
    return rng_at(rng_mix(context->seed, own.bits), rng_mix(node_stream(context->node), context->step));
}

static bool has_like(const Node *node)
{
    return node_is(node, "RandomNormalLike") || node_is(node, "RandomUniformLike");
}

/* dtype: the attribute's; else that of the input (Like, Bernoulli), int32 (Multinomial) or float32. */
static DType random_dtype(const Node *node, DType input)
{
    DType absent = has_like(node) || node_is(node, "Bernoulli") ? input : DTYPE_F32;
    if (node_is(node, "Multinomial"))
        absent = DTYPE_I32;
    return (DType)node_int(node, "dtype", absent);
}

static Status random_infer(Node *node, Error *err)
{
    size_t rank;
    const int64_t *dims = node_ints(node, "shape", &rank);
    if (node->input_count > 0) {
        const Type *x = &node->inputs[0]->type;
        rank = (size_t)x->rank;
        dims = x->dims;
    }
    if (rank > RANK_MAX || dims_count((int)rank, dims) < 0)
        return infer_fail(node, err, "shape of %zu dims is negative, too large or has more than %d dims", rank,
                          RANK_MAX);
    DType input = node->input_count > 0 ? node->inputs[0]->type.dtype : DTYPE_F32;
    type_set(&node->outputs[0]->type, random_dtype(node, input), (int)rank, dims);
    return STATUS_OK;
}

/* Claims output 0 in its type and returns a buffer of doubles to fill; random_store converts. */
static Status random_output(EvalContext *context, int rank, const int64_t *dims, Array **out, Array **draws, Error *err)
{
    DType input = context->in_count > 0 ? context->in[0]->dtype : DTYPE_F32;
    TRY(eval_output(context, 0, random_dtype(context->node, input), rank, dims, out, err));
    return array_new(context->arena, DTYPE_F64, rank, dims, draws, err);
}

static Status random_store(EvalContext *context, const Array *draws, Array *out, Error *err)
{
    Array *converted;
    TRY(array_convert(context->arena, draws, out->dtype, &converted, err));
    if (out->count > 0)
        memcpy(out->data, converted->data, (size_t)out->count * dtype_size(out->dtype));
    return STATUS_OK;
}

static Status random_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const bool normal = node_is(node, "RandomNormal") || node_is(node, "RandomNormalLike");
    const double low = (double)node_float(node, normal ? "mean" : "low", 0);
    const double width = (double)node_float(node, normal ? "scale" : "high", 1) - (normal ? 0 : low);
    size_t rank;
    const int64_t *dims = node_ints(node, "shape", &rank);
    Array *out, *draws;
    if (context->in_count > 0) {
        rank = (size_t)context->in[0]->rank;
        dims = context->in[0]->dims;
    }
    TRY(random_output(context, (int)rank, dims, &out, &draws, err));
    Rng rng = eval_rng(context);
    for (int64_t i = 0; i < draws->count; i++)
        ((double *)draws->data)[i] = low + width * (normal ? rng_normal(&rng) : rng_uniform(&rng));
    return random_store(context, draws, out, err);
}

static Status bernoulli_eval(EvalContext *context, Error *err)
{
    const Array *p = context->in[0];
    Array *out, *draws;
    TRY(random_output(context, p->rank, p->dims, &out, &draws, err));
    Rng rng = eval_rng(context);
    for (int64_t i = 0; i < p->count; i++)
        ((double *)draws->data)[i] = rng_uniform(&rng) < array_f64_at(p, i) ? 1 : 0;
    return random_store(context, draws, out, err);
}

/* ---- Multinomial: [batch, classes] of log-probabilities, not normalised, to [batch, samples] of classes  */

static Status multinomial_dims(const Node *node, int rank, const int64_t *in, int64_t *dims, Error *err)
{
    dims[0] = rank == 2 ? in[0] : 0;
    dims[1] = node_int(node, "sample_size", 1);
    if (rank != 2 || in[1] < 1 || dims[1] < 0)
        return infer_fail(node, err, "input of rank %d, sample_size %lld", rank, (long long)dims[1]);
    return STATUS_OK;
}

static Status multinomial_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    int64_t dims[2];
    TRY(multinomial_dims(node, x->rank, x->dims, dims, err));
    type_set(&node->outputs[0]->type, random_dtype(node, x->dtype), 2, dims);
    return STATUS_OK;
}

/* The class whose cumulated probability first exceeds u * total. */
static int64_t multinomial_pick(const double *cumulated, int64_t classes, double u)
{
    const double target = u * cumulated[classes - 1];
    for (int64_t c = 0; c < classes - 1; c++)
        if (target < cumulated[c])
            return c;
    return classes - 1;
}

static Status multinomial_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    int64_t dims[2];
    Array *out, *draws;
    TRY(multinomial_dims(context->node, x->rank, x->dims, dims, err));
    TRY(random_output(context, 2, dims, &out, &draws, err));
    const int64_t classes = x->dims[1];
    double *cumulated = arena_array(context->arena, double, (size_t)classes);
    Rng rng = eval_rng(context);
    for (int64_t b = 0; b < dims[0]; b++) {
        double top = array_f64_at(x, b * classes), sum = 0;
        for (int64_t c = 1; c < classes; c++)
            top = fmax(top, array_f64_at(x, b * classes + c));
        for (int64_t c = 0; c < classes; c++)
            cumulated[c] = sum += exp(array_f64_at(x, b * classes + c) - top);
        for (int64_t s = 0; s < dims[1]; s++)
            ((double *)draws->data)[b * dims[1] + s] = (double)multinomial_pick(cumulated, classes, rng_uniform(&rng));
    }
    return random_store(context, draws, out, err);
}

#define RANDOM_CASE                                                                                                    \
    "random: no two implementations draw the same numbers; tests/test_ops_move.c checks the distribution"

/* clang-format off */
const OpDef ops_random[] = {
    {.name = "RandomNormal", .since = 1, .last = 28, .min_inputs = 0, .max_inputs = 0, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_RANDOM | OP_ANY_DTYPE, .infer = random_infer, .eval = random_eval,
     .no_case = RANDOM_CASE},
    {.name = "RandomUniform", .since = 1, .last = 28, .min_inputs = 0, .max_inputs = 0, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_RANDOM | OP_ANY_DTYPE, .infer = random_infer, .eval = random_eval,
     .no_case = RANDOM_CASE},
    {.name = "RandomNormalLike", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_RANDOM | OP_SHAPE_ONLY | OP_ANY_DTYPE, .infer = random_infer, .eval = random_eval,
     .no_case = RANDOM_CASE},
    {.name = "RandomUniformLike", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_RANDOM | OP_SHAPE_ONLY | OP_ANY_DTYPE, .infer = random_infer, .eval = random_eval,
     .no_case = RANDOM_CASE},
    {.name = "Bernoulli", .since = 15, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_RANDOM | OP_ANY_DTYPE, .infer = random_infer, .eval = bernoulli_eval,
     .no_gradient = "what was drawn does not change smoothly with its probability", .no_case = RANDOM_CASE},
    {.name = "Multinomial", .since = 7, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_RANDOM | OP_ANY_DTYPE, .infer = multinomial_infer, .eval = multinomial_eval,
     .no_gradient = "its result is an index", .no_case = RANDOM_CASE},
    {0},
};
/* clang-format on */
