/* Evaluating one node on host arrays: outputs, messages, and the widening of narrow floats around rows that compute in
 * f32 or f64 only. */
#include "onnx/op.h"

#include <stdarg.h>

Status eval_fail(EvalContext *context, Error *err, const char *format, ...)
{
    char message[700];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return fail(err, STATUS_REJECTED, "%s: %s", node_text(context->node), message);
}

const Array *eval_input(const EvalContext *context, int index)
{
    return index >= 0 && index < context->in_count ? context->in[index] : NULL;
}

static Status use_place(EvalContext *context, int index, DType dtype, int rank, const int64_t *dims, Error *err)
{
    Array *place = context->place[index];
    bool fits = place->dtype == dtype && place->rank == rank;
    for (int i = 0; i < rank && fits; i++)
        fits = place->dims[i] == dims[i];
    if (!fits)
        return eval_fail(context, err, "output %d is %s%s, planned as %s%s", index, dtype_name(dtype),
                         dims_text(context->arena, rank, dims), dtype_name(place->dtype),
                         dims_text(context->arena, place->rank, place->dims));
    context->out[index] = place;
    return STATUS_OK;
}

Status eval_output(EvalContext *context, int index, DType dtype, int rank, const int64_t *dims, Array **out, Error *err)
{
    if (index < context->out_count && context->place != NULL && context->place[index] != NULL) {
        TRY(use_place(context, index, dtype, rank, dims, err));
        *out = context->out[index];
        return STATUS_OK;
    }
    Status status = array_new(context->arena, dtype, rank, dims, out, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s", node_text(context->node));
        return status;
    }
    if (index < context->out_count)
        context->out[index] = *out;
    return STATUS_OK;
}

Status eval_output_like(EvalContext *context, int index, const Array *like, Array **out, Error *err)
{
    return eval_output(context, index, like->dtype, like->rank, like->dims, out, err);
}

static bool is_narrow(DType dtype)
{
    return dtype_is_float(dtype) && dtype != DTYPE_F32 && dtype != DTYPE_F64;
}

/* Copies of the narrow inputs in f32; returns their dtype (of the first one), UNDEFINED when there is none. */
static Status widen(EvalContext *context, const Array **wide, DType *narrow, Error *err)
{
    *narrow = DTYPE_UNDEFINED;
    for (int i = 0; i < context->in_count; i++) {
        const Array *in = wide[i] = context->in[i];
        if (in == NULL || in->kind != ARRAY_TENSOR || !is_narrow(in->dtype))
            continue;
        Array *converted;
        TRY(array_convert(context->arena, in, DTYPE_F32, &converted, err));
        wide[i] = converted;
        if (*narrow == DTYPE_UNDEFINED)
            *narrow = in->dtype;
    }
    return STATUS_OK;
}

/* Outputs that came back in f32 though their type is narrow. */
static Status narrow_outputs(EvalContext *context, DType narrow, Error *err)
{
    for (int i = 0; i < context->out_count; i++) {
        const Array *out = context->out[i];
        if (out == NULL || out->kind != ARRAY_TENSOR || out->dtype != DTYPE_F32)
            continue;
        const Value *value = node_output(context->node, i);
        DType expected = value == NULL ? DTYPE_UNDEFINED : value->type.dtype;
        if (expected == DTYPE_UNDEFINED)
            expected = narrow;
        if (is_narrow(expected))
            TRY(array_convert(context->arena, out, expected, &context->out[i], err));
    }
    return STATUS_OK;
}

/* Moves results into the caller's buffers, for evaluations that could not write there themselves. */
static Status fill_places(EvalContext *context, Error *err)
{
    for (int i = 0; i < context->out_count && context->place != NULL; i++) {
        const Array *out = context->out[i];
        if (out == NULL || context->place[i] == NULL || out == context->place[i])
            continue;
        TRY(use_place(context, i, out->dtype, out->rank, out->dims, err));
        memcpy(context->place[i]->data, out->data, (size_t)out->count * dtype_size(out->dtype));
    }
    return STATUS_OK;
}

Status node_eval(EvalContext *context, Error *err)
{
    const OpDef *op = context->node->op;
    if (op == NULL)
        return node_refuse(context->node, err);
    if (op->eval == NULL)
        return fail(err, STATUS_UNSUPPORTED, "%s: no implementation of operator %s%s%s at opset %d",
                    node_text(context->node), context->node->domain, context->node->domain[0] != '\0' ? "." : "",
                    context->node->op_type, context->node->opset);
    TRY(node_check_counts(context->node, err)); /* nobody has inferred it when shapes depend on data */
    for (int i = 0; i < context->in_count; i++)
        if (context->in[0] != NULL && context->in[i] != NULL)
            TRY(node_check_alike(context->node, i, context->in[0]->dtype, context->in[i]->dtype, err));
    for (int i = 0; i < context->out_count; i++)
        context->out[i] = NULL;
    if (op->traits & OP_ANY_DTYPE) {
        TRY(op->eval(context, err));
        return fill_places(context, err);
    }
    EvalContext inner = *context;
    const Array **wide = arena_array(context->arena, const Array *, (size_t)context->in_count + 1);
    DType narrow;
    TRY(widen(context, wide, &narrow, err));
    inner.in = wide;
    if (narrow != DTYPE_UNDEFINED)
        inner.place = NULL;
    TRY(op->eval(&inner, err));
    if (narrow != DTYPE_UNDEFINED)
        TRY(narrow_outputs(context, narrow, err));
    return fill_places(context, err);
}
