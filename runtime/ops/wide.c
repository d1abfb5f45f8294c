/* Widening and narrowing around references that compute in double. */
#include "runtime/ops/wide.h"

#include <math.h>
#include <string.h>

Status wide_input(EvalContext *context, int index, const double **data, Error *err)
{
    const Array *array = index < 0 ? NULL : eval_input(context, index);
    Array *wide = NULL;
    *data = NULL;
    if (array == NULL)
        return STATUS_OK;
    if (array->kind != ARRAY_TENSOR || array->dtype == DTYPE_STRING)
        return eval_fail(context, err, "input %d is no tensor of numbers", index);
    if (array->dtype == DTYPE_F64) {
        *data = array->data;
        return STATUS_OK;
    }
    TRY(array_convert(context->arena, array, DTYPE_F64, &wide, err));
    *data = wide->data;
    return STATUS_OK;
}

Status wide_scratch(EvalContext *context, int64_t count, double **data, Error *err)
{
    Array *array = NULL;
    TRY(array_new(context->arena, DTYPE_F64, 1, &count, &array, err));
    if (count > 0)
        memset(array->data, 0, (size_t)count * sizeof(double));
    *data = array->data;
    return STATUS_OK;
}

Status wide_output(EvalContext *context, int index, DType dtype, int rank, const int64_t *dims, WideOutput *out,
                   Error *err)
{
    TRY(eval_output(context, index, dtype, rank, dims, &out->array, err));
    if (dtype != DTYPE_F64)
        return wide_scratch(context, out->array->count, &out->data, err);
    out->data = out->array->data;
    if (out->array->count > 0)
        memset(out->data, 0, (size_t)out->array->count * sizeof(double));
    return STATUS_OK;
}

Status wide_output_like(EvalContext *context, int index, const Array *like, WideOutput *out, Error *err)
{
    return wide_output(context, index, like->dtype, like->rank, like->dims, out, err);
}

static double saturate(double value, double low, double high)
{
    double rounded = rint(value);
    return rounded < low ? low : rounded > high ? high : rounded;
}

#define NARROW_INTEGERS(type, low, high)                                                                               \
    do {                                                                                                               \
        type *to = out->array->data;                                                                                   \
        for (int64_t i = 0; i < out->array->count; i++)                                                                \
            to[i] = (type)saturate(out->data[i], (double)(low), (double)(high));                                       \
    } while (0)

void wide_store(const WideOutput *out)
{
    switch ((int)out->array->dtype) {
    case DTYPE_F64:
        break;
    case DTYPE_F32: {
        float *to = out->array->data;
        for (int64_t i = 0; i < out->array->count; i++)
            to[i] = (float)out->data[i];
        break;
    }
    case DTYPE_U8:
        NARROW_INTEGERS(uint8_t, 0, UINT8_MAX);
        break;
    case DTYPE_I8:
        NARROW_INTEGERS(int8_t, INT8_MIN, INT8_MAX);
        break;
    case DTYPE_U16:
        NARROW_INTEGERS(uint16_t, 0, UINT16_MAX);
        break;
    case DTYPE_I16:
        NARROW_INTEGERS(int16_t, INT16_MIN, INT16_MAX);
        break;
    case DTYPE_I32:
        NARROW_INTEGERS(int32_t, INT32_MIN, INT32_MAX);
        break;
    case DTYPE_U32:
        NARROW_INTEGERS(uint32_t, 0, UINT32_MAX);
        break;
    case DTYPE_I64:
        NARROW_INTEGERS(int64_t, -9007199254740992.0, 9007199254740992.0);
        break;
    case DTYPE_U64:
        NARROW_INTEGERS(uint64_t, 0, 9007199254740992.0);
        break;
    default: /* bool and what has no arithmetic: any non-zero is one */
        for (int64_t i = 0; i < out->array->count && dtype_size(out->array->dtype) == 1; i++)
            ((uint8_t *)out->array->data)[i] = out->data[i] != 0;
        break;
    }
}
