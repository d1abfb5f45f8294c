/* Operators that make a tensor from attributes or a few numbers: Constant, ConstantOfShape, Range, EyeLike. In a
 * working graph all of them are folded before anything runs. */
#include "runtime/ops/ops.h"

#include <math.h>
#include <string.h>

/* ---- Constant: exactly one of eight attributes holds the value ---------------------------------------- */

static Tensor *constant_floats(Arena *arena, const float *values, size_t count, int rank)
{
    const int64_t dim = (int64_t)count;
    void *data;
    Tensor *tensor = tensor_new(arena, NULL, DTYPE_F32, rank, &dim, &data);
    memcpy(data, values, count * sizeof *values);
    return tensor;
}

static Tensor *constant_strings(Arena *arena, const Bytes *values, size_t count, int rank)
{
    const int64_t dim = (int64_t)count;
    void *data;
    Tensor *tensor = tensor_new(arena, NULL, DTYPE_STRING, rank, &dim, &data);
    if (count > 0)
        memcpy(data, values, count * sizeof *values);
    return tensor;
}

/* Index of a sparse value in the flat dense tensor: indices are flat [n] or by axis [n, rank]. */
static int64_t sparse_position(const SparseTensor *sparse, int64_t i)
{
    int64_t at = 0;
    if (sparse->indices->rank < 2)
        return tensor_i64_at(sparse->indices, i);
    for (int d = 0; d < sparse->rank; d++)
        at = at * sparse->dims[d] + tensor_i64_at(sparse->indices, i * sparse->rank + d);
    return at;
}

static Status constant_sparse(const Node *node, const SparseTensor *sparse, Arena *arena, Tensor **out, Error *err)
{
    const int64_t total = dims_count(sparse->rank, sparse->dims), count = tensor_count(sparse->values);
    const size_t size = dtype_size(sparse->values->dtype);
    void *data;
    const int64_t expected = sparse->indices && sparse->indices->rank == 2 ? count * sparse->rank : count;
    if (total < 0 || total > (int64_t)1 << 31 || dtype_bits(sparse->values->dtype) < 8)
        return infer_fail(node, err, "sparse_value of %lld elements of %s", (long long)total,
                          dtype_name(sparse->values->dtype));
    if (!sparse->indices || tensor_count(sparse->indices) != expected)
        return infer_fail(node, err, "sparse_value has %lld values and other indices", (long long)count);
    *out = tensor_new(arena, NULL, sparse->values->dtype, sparse->rank, sparse->dims, &data);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = sparse_position(sparse, i);
        if (at < 0 || at >= total)
            return infer_fail(node, err, "sparse index %lld of %lld elements", (long long)at, (long long)total);
        memcpy((char *)data + (size_t)at * size, (const char *)sparse->values->data + (size_t)i * size, size);
    }
    return STATUS_OK;
}

static Status constant_tensor(const Node *node, Arena *arena, Tensor **out, Error *err)
{
    for (size_t i = 0; i < node->attr_count; i++) {
        const Attr *attr = node->attrs[i];
        const int64_t count = (int64_t)attr->count;
        *out = NULL;
        if (strcmp(attr->name, "value") == 0 && attr->type == ATTR_TENSOR)
            *out = attr->t;
        else if (strcmp(attr->name, "sparse_value") == 0 && attr->sparse)
            return constant_sparse(node, attr->sparse, arena, out, err);
        else if (strcmp(attr->name, "value_int") == 0)
            *out = tensor_new_i64(arena, NULL, 0, NULL, &attr->i);
        else if (strcmp(attr->name, "value_ints") == 0)
            *out = tensor_new_i64(arena, NULL, 1, &count, attr->ints);
        else if (strcmp(attr->name, "value_float") == 0)
            *out = constant_floats(arena, &attr->f, 1, 0);
        else if (strcmp(attr->name, "value_floats") == 0)
            *out = constant_floats(arena, attr->floats, attr->count, 1);
        else if (strcmp(attr->name, "value_string") == 0)
            *out = constant_strings(arena, &attr->s, 1, 0);
        else if (strcmp(attr->name, "value_strings") == 0)
            *out = constant_strings(arena, attr->strings, attr->count, 1);
        if (*out)
            return STATUS_OK;
    }
    return infer_fail(node, err, "no value");
}

static Status constant_infer(Node *node, Error *err)
{
    Tensor *tensor = NULL;
    TRY(constant_tensor(node, &node->graph->model->arena, &tensor, err));
    if (tensor->rank > RANK_MAX)
        return infer_fail(node, err, "value has %d dims; at most %d can be run", tensor->rank, RANK_MAX);
    type_set(&node->outputs[0]->type, tensor->dtype, tensor->rank, tensor->dims);
    return STATUS_OK;
}

static Status constant_eval(EvalContext *context, Error *err)
{
    Tensor *tensor = NULL;
    Array *value;
    TRY(constant_tensor(context->node, context->arena, &tensor, err));
    TRY(array_from_tensor(context->arena, tensor, &value, err));
    return eval_output_same(context, 0, value, err);
}

/* ---- ConstantOfShape: every element is the attribute's, 0 in float32 without one ---------------------- */

static Status filled_infer(Node *node, Error *err)
{
    const Tensor *value = node_tensor(node, "value");
    const DType dtype = value ? value->dtype : DTYPE_F32;
    const int64_t *dims;
    size_t rank;
    if (!infer_has_ints(node, 0)) {
        type_set(&node->outputs[0]->type, dtype, -1, NULL);
        return STATUS_OK;
    }
    TRY(infer_ints(node, 0, &dims, &rank, err));
    if (rank > RANK_MAX || dims_count((int)rank, dims) < 0)
        return infer_fail(node, err, "shape of %zu dims is negative, too large or has more than %d dims", rank,
                          RANK_MAX);
    type_set(&node->outputs[0]->type, dtype, (int)rank, dims);
    return STATUS_OK;
}

static Status filled_eval(EvalContext *context, Error *err)
{
    const Tensor *value = node_tensor(context->node, "value");
    const int64_t *dims;
    size_t rank;
    Array *out, *element = NULL;
    TRY(eval_ints(context, 0, &dims, &rank, err));
    if (rank > RANK_MAX || dims_count((int)rank, dims) < 0)
        return eval_fail(context, err, "shape of %zu dims is negative, too large or has more than %d dims", rank,
                         RANK_MAX);
    if (value && tensor_count(value) != 1)
        return eval_fail(context, err, "value has %lld elements", (long long)tensor_count(value));
    if (value)
        TRY(array_from_tensor(context->arena, value, &element, err));
    TRY(eval_output(context, 0, value ? value->dtype : DTYPE_F32, (int)rank, dims, &out, err));
    const float zero = 0;
    const int64_t stride[1] = {0}, to[1] = {1};
    StridedCopy copy = strided_make(1, &out->count, stride, to, dtype_size(out->dtype));
    strided_run(&copy, element ? element->data : &zero, out->data);
    return STATUS_OK;
}

/* ---- Range: start + i * delta for every i that stays below (above) limit ------------------------------ */

/* max(ceil((limit - start) / delta), 0) (ONNX Range-27); integers are counted exactly. */
static Status range_count(const Node *node, bool integers, const double f[3], const int64_t i[3], int64_t *count,
                          Error *err)
{
    if (integers ? i[2] == 0 : f[2] == 0)
        return infer_fail(node, err, "delta is 0");
    if (integers) {
        int64_t span, step = i[2] > 0 ? i[2] : -i[2];
        if (i[2] == INT64_MIN || __builtin_sub_overflow(i[2] > 0 ? i[1] : i[0], i[2] > 0 ? i[0] : i[1], &span))
            return infer_fail(node, err, "from %lld to %lld overflows", (long long)i[0], (long long)i[1]);
        *count = span > 0 ? (span - 1) / step + 1 : 0;
        return STATUS_OK;
    }
    double n = ceil((f[1] - f[0]) / f[2]);
    if (!(n < 4e18))
        return infer_fail(node, err, "from %g to %g in steps of %g", f[0], f[1], f[2]);
    *count = n > 0 ? (int64_t)n : 0;
    return STATUS_OK;
}

static Status range_infer(Node *node, Error *err)
{
    const DType dtype = node->inputs[0]->type.dtype;
    double f[3];
    int64_t i[3], count = 0;
    int rank = 1;
    for (int k = 0; k < 3; k++) {
        const Tensor *value = node->inputs[k]->constant;
        if (!value || tensor_count(value) != 1) {
            rank = -1;
            break;
        }
        f[k] = tensor_f64_at(value, 0);
        i[k] = dtype_is_integer(value->dtype) ? tensor_i64_at(value, 0) : 0;
    }
    if (rank == 1)
        TRY(range_count(node, dtype_is_integer(dtype), f, i, &count, err));
    type_set(&node->outputs[0]->type, dtype, rank, &count);
    return STATUS_OK;
}

#define FILL_RANGE(type, source)                                                                                       \
    for (int64_t n = 0; n < count; n++)                                                                                \
    ((type *)out->data)[n] = (type)(source[0] + (type)n * (type)source[2])

static Status range_eval(EvalContext *context, Error *err)
{
    const DType dtype = context->in[0]->dtype;
    double f[3];
    int64_t i[3] = {0}, count = 0;
    Array *out;
    for (int k = 0; k < 3; k++) {
        const Array *in = context->in[k];
        if (in->count != 1)
            return eval_fail(context, err, "input %d has %lld elements", k, (long long)in->count);
        f[k] = array_f64_at(in, 0);
        i[k] = dtype_is_integer(in->dtype) ? array_i64_at(in, 0) : 0;
    }
    TRY(range_count(context->node, dtype_is_integer(dtype), f, i, &count, err));
    TRY(eval_output(context, 0, dtype, 1, &count, &out, err));
    const float f32[3] = {(float)f[0], (float)f[1], (float)f[2]};
    if (dtype == DTYPE_F32)
        FILL_RANGE(float, f32);
    else if (dtype == DTYPE_F64)
        FILL_RANGE(double, f);
    else if (dtype == DTYPE_I64)
        FILL_RANGE(int64_t, i);
    else if (dtype == DTYPE_I32)
        FILL_RANGE(int32_t, i);
    else if (dtype == DTYPE_I16)
        FILL_RANGE(int16_t, i);
    else
        return eval_fail(context, err, "%s has no range", dtype_name(dtype));
    return STATUS_OK;
}

/* ---- EyeLike ------------------------------------------------------------------------------------------ */

static Status eye_type(const Node *node, DType like, int rank, DType *dtype, Error *err)
{
    *dtype = (DType)node_int(node, "dtype", like);
    if (rank != 2 || dtype_size(*dtype) == 0 || *dtype == DTYPE_STRING)
        return infer_fail(node, err, "input of rank %d, dtype %s", rank, dtype_name(*dtype));
    return STATUS_OK;
}

static Status eye_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    DType dtype = DTYPE_UNDEFINED;
    TRY(eye_type(node, x->dtype, x->rank, &dtype, err));
    type_set(&node->outputs[0]->type, dtype, 2, x->dims);
    return STATUS_OK;
}

static Status eye_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const int64_t k = node_int(context->node, "k", 0), one_dim[1] = {1};
    DType dtype = DTYPE_UNDEFINED;
    Array *out, *one, *element;
    TRY(eye_type(context->node, x->dtype, x->rank, &dtype, err));
    TRY(eval_output(context, 0, dtype, 2, x->dims, &out, err));
    TRY(array_new(context->arena, DTYPE_F32, 1, one_dim, &one, err));
    *(float *)one->data = 1;
    TRY(array_convert(context->arena, one, dtype, &element, err));
    const size_t size = dtype_size(dtype);
    memset(out->data, 0, (size_t)out->count * size);
    for (int64_t i = 0; i < x->dims[0]; i++)
        if (k >= -i && k < x->dims[1] - i)
            memcpy((char *)out->data + (size_t)(i * x->dims[1] + i + k) * size, element->data, size);
    return STATUS_OK;
}

/* clang-format off */
const OpDef ops_generate[] = {
    {.name = "Constant", .since = 1, .last = 28, .min_inputs = 0, .max_inputs = 0, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_ANY_DTYPE, .infer = constant_infer, .eval = constant_eval},
    {.name = "ConstantOfShape", .since = 9, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = filled_infer, .eval = filled_eval},
    {.name = "Range", .since = 11, .last = 28, .min_inputs = 3, .max_inputs = 3, .min_outputs = 1, .max_outputs = 1,
     .infer = range_infer, .eval = range_eval, .no_gradient = "its operands decide the shape"},
    {.name = "EyeLike", .since = 9, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,
     .traits = OP_SHAPE_ONLY | OP_ANY_DTYPE, .infer = eye_infer, .eval = eye_eval},
    {0},
};
/* clang-format on */
