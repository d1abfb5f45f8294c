/* Comparisons and boolean operators, with broadcasting. Results are bool; no gradient flows through any of them. */
#include "runtime/ops/elementwise.h"

/* ---- comparisons: in double, int64 or uint64 as the inputs need ------------------------------------------------- */

static Status compare_infer(Node *node, Error *err)
{
    TRY(infer_broadcast(node, err));
    node->outputs[0]->type.dtype = DTYPE_BOOL;
    return STATUS_OK;
}

#define COMPARISON(name, inputs, expression)                                                                           \
    ELEMENTWISE_REFERENCE(name, double, f64, inputs(double), expression)                                               \
    ELEMENTWISE_REFERENCE(name, int64_t, i64, inputs(int64_t), expression)                                             \
    ELEMENTWISE_REFERENCE(name, uint64_t, u64, inputs(uint64_t), expression)                                           \
    ELEMENTWISE_KERNEL(name, inputs(float), (expression) ? 1.0F : 0.0F)                                                \
    static Status name##_eval(EvalContext *context, Error *err)                                                        \
    {                                                                                                                  \
        static const Formula formula = {name##_f64, name##_i64, name##_u64};                                           \
        return elementwise_eval(context, &formula, DTYPE_BOOL, NO_PARAMS, err);                                        \
    }                                                                                                                  \
    static Status name##_prepare(PlanContext *context, Error *err)                                                     \
    {                                                                                                                  \
        return elementwise_prepare(context, name##_kernel, NO_PARAMS, err);                                            \
    }

COMPARISON(equal, XY_OF, x == y)
COMPARISON(greater, XY_OF, x > y)
COMPARISON(less, XY_OF, x < y)
COMPARISON(greater_or_equal, XY_OF, x >= y)
COMPARISON(less_or_equal, XY_OF, x <= y)

static bool same_text(Bytes a, Bytes b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

/* Equal compares strings, too. */
static Status equal_any_eval(EvalContext *context, Error *err)
{
    const Array *a = context->in[0], *b = context->in[1];
    if (a->dtype != DTYPE_STRING || b->dtype != DTYPE_STRING)
        return equal_eval(context, err);
    int rank;
    int64_t dims[RANK_MAX], at[2];
    if (!dims_broadcast(a->rank, a->dims, b->rank, b->dims, &rank, dims))
        return eval_fail(context, err, "shapes %s and %s do not broadcast", dims_text(context->arena, a->rank, a->dims),
                         dims_text(context->arena, b->rank, b->dims));
    Array *out;
    TRY(eval_output(context, 0, DTYPE_BOOL, rank, dims, &out, err));
    for (int64_t i = 0; i < out->count; i++) {
        broadcast_offsets(rank, dims, a->rank, a->dims, i, 1, &at[0]);
        broadcast_offsets(rank, dims, b->rank, b->dims, i, 1, &at[1]);
        ((uint8_t *)out->data)[i] = same_text(((const Bytes *)a->data)[at[0]], ((const Bytes *)b->data)[at[1]]);
    }
    return STATUS_OK;
}

/* ---- And, Or, Xor, Not: of bools --------------------------------------------------------------------------------- */

COMPARISON(logical_and, XY_OF, x != 0 && y != 0)
COMPARISON(logical_or, XY_OF, x != 0 || y != 0)
COMPARISON(logical_xor, XY_OF, (x != 0) != (y != 0))
COMPARISON(logical_not, X_OF, x == 0)

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define NO_GRADIENT "truth values carry no gradient"
#define LOGIC_ROW(op, first, inputs, evaluation, preparation, upgrading)                                               \
    {                                                                                                                  \
        .name = op, .since = first, .last = OPSET_NEWEST, .min_inputs = inputs, .max_inputs = inputs,                  \
        .min_outputs = 1, .max_outputs = 1, .traits = OP_ELEMENTWISE, .infer = compare_infer, .eval = evaluation,      \
        .upgrade = upgrading, .prepare = preparation, .no_gradient = NO_GRADIENT                                       \
    }

const OpDef ops_logic[] = {
    LOGIC_ROW("Equal", 1, 2, equal_any_eval, equal_prepare, upgrade_broadcast_attrs),
    LOGIC_ROW("Greater", 1, 2, greater_eval, greater_prepare, upgrade_broadcast_attrs),
    LOGIC_ROW("Less", 1, 2, less_eval, less_prepare, upgrade_broadcast_attrs),
    LOGIC_ROW("GreaterOrEqual", 12, 2, greater_or_equal_eval, greater_or_equal_prepare, NULL),
    LOGIC_ROW("LessOrEqual", 12, 2, less_or_equal_eval, less_or_equal_prepare, NULL),
    LOGIC_ROW("And", 1, 2, logical_and_eval, logical_and_prepare, upgrade_broadcast_attrs),
    LOGIC_ROW("Or", 1, 2, logical_or_eval, logical_or_prepare, upgrade_broadcast_attrs),
    LOGIC_ROW("Xor", 1, 2, logical_xor_eval, logical_xor_prepare, upgrade_broadcast_attrs),
    LOGIC_ROW("Not", 1, 1, logical_not_eval, logical_not_prepare, NULL),
    {0},
};
