/* What rows of several families share: attributes that became inputs, integer inputs of evals, small pieces of
 * gradients. Nothing here belongs to one operator. */
#include "runtime/ops/ops.h"

#include <string.h>

Value *node_ints_value(Node *node, const char *stem, const int64_t *values, size_t count)
{
    const int64_t dim = (int64_t)count;
    const char *name = graph_unique_name(node->graph, stem);
    return graph_add_initializer(node->graph, tensor_new_i64(&node->graph->model->arena, name, 1, &dim, values));
}

Value *node_float_value(Node *node, const char *stem, DType dtype, double value)
{
    const char *name = graph_unique_name(node->graph, stem);
    return graph_add_initializer(node->graph, tensor_new_scalar(&node->graph->model->arena, name, dtype, value));
}

void upgrade_ints_to_input(Node *node, const char *attr, int index)
{
    const Attr *found = node_attr(node, attr);
    if (!found)
        return;
    const int64_t *values = found->type == ATTR_INT ? &found->i : found->ints;
    size_t count = found->type == ATTR_INT ? 1 : found->count;
    node_set_input(node, index, node_ints_value(node, attr, values, count));
    node_remove_attr(node, attr);
}

Status eval_ints(EvalContext *context, int index, const int64_t **values, size_t *count, Error *err)
{
    const Array *array = eval_input(context, index);
    *values = NULL;
    *count = 0;
    if (!array)
        return STATUS_OK;
    if (!dtype_is_integer(array->dtype))
        return eval_fail(context, err, "input %d is %s where integers are expected", index, dtype_name(array->dtype));
    int64_t *copy = arena_array(context->arena, int64_t, (size_t)array->count + 1);
    for (int64_t i = 0; i < array->count; i++)
        copy[i] = array_i64_at(array, i);
    *values = copy;
    *count = (size_t)array->count;
    return STATUS_OK;
}

int64_t eval_int_or(EvalContext *context, int index, int64_t absent)
{
    const Array *array = eval_input(context, index);
    return array && array->count > 0 ? array_i64_at(array, 0) : absent;
}

Status eval_output_same(EvalContext *context, int index, const Array *array, Error *err)
{
    if (array->kind != ARRAY_TENSOR) {
        context->out[index] = arena_copy(context->arena, array, sizeof *array);
        return STATUS_OK;
    }
    Array *out;
    TRY(eval_output_like(context, index, array, &out, err));
    if (out->count > 0)
        memcpy(out->data, array->data, (size_t)out->count * dtype_size(out->dtype));
    return STATUS_OK;
}

Value *build_reshape(Builder *b, Value *x, int rank, const int64_t *dims)
{
    Value *inputs[] = {x, build_ints(b, dims, (size_t)rank)};
    Node *node = build_node(b, "", "Reshape", inputs, 2, 1);
    if (!node)
        return NULL;
    node_set_int(node, "allowzero", 1);
    return build_finish(b, node);
}

Value *build_zeros(Builder *b, const Type *type)
{
    return build2(b, "Expand", build_scalar(b, type->dtype, 0), build_ints(b, type->dims, (size_t)type->rank));
}

Status grad_reshape(GradContext *context, Error *err)
{
    (void)err;
    const Type *type = &context->node->inputs[0]->type;
    if (context->wants[0] && context->dy[0])
        context->dx[0] = build_reshape(&context->b, context->dy[0], type->rank, type->dims);
    return context->b.status;
}

bool kernel_family_fits(const PlanContext *context, const Type *type)
{
    if (context->plain_only || context->family == LAYOUT_PLAIN || type->dtype != DTYPE_F32)
        return false;
    if (type->rank < 3 || type->rank > 5)
        return false;
    return context->family == LAYOUT_NHWC || (context->block > 0 && type->dims[1] % context->block == 0);
}

int physical_axis(Layout layout, int rank, int axis)
{
    if (layout != LAYOUT_NHWC || axis == 0)
        return axis;
    return axis == 1 ? rank - 1 : axis - 1;
}

void kernel_inputs_plain(PlanContext *context)
{
    for (int i = 0; i < context->node->input_count; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
}

uint64_t node_stream(const Node *node)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    const char *own = node->output_count > 0 && node->outputs[0] ? node->outputs[0]->name : node->name;
    const char *name = node_string(node, "stream", own); /* of the original, in a copy that is to draw the same */
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

/* ---- indices ------------------------------------------------------------------------------------------ */

int64_t index_at(DType dtype, const void *data, int64_t i)
{
    return dtype == DTYPE_I32 ? ((const int32_t *)data)[i] : ((const int64_t *)data)[i];
}

Status index_check_dtype(const Node *node, DType dtype, Error *err)
{
    if (dtype != DTYPE_I32 && dtype != DTYPE_I64)
        return infer_fail(node, err, "indices are %s, int32 or int64 expected", dtype_name(dtype));
    return STATUS_OK;
}

Status index_check(const Node *node, int64_t at, int64_t i, int64_t dim, int64_t *out, Error *err)
{
    if (at < -dim || at >= dim)
        return infer_fail(node, err, "index %lld at position %lld is outside an axis of %lld", (long long)at,
                          (long long)i, (long long)dim);
    *out = at < 0 ? at + dim : at;
    return STATUS_OK;
}

Status index_list(const Node *node, DType dtype, const void *data, int64_t count, int64_t dim, int64_t *out, Error *err)
{
    TRY(index_check_dtype(node, dtype, err));
    for (int64_t i = 0; i < count; i++)
        TRY(index_check(node, index_at(dtype, data, i), i, dim, &out[i], err));
    return STATUS_OK;
}

int64_t elements_offset(int64_t i, int rank, const int64_t *dims, const int64_t *strides, int axis, int64_t at)
{
    int64_t offset = at * strides[axis];
    for (int d = rank - 1; d >= 0; d--) {
        if (d != axis)
            offset += i % dims[d] * strides[d];
        i /= dims[d];
    }
    return offset;
}

/* ---- order -------------------------------------------------------------------------------------------- */

static int order_of(double a, double b)
{
    if (a != a || b != b)
        return (a != a) - (b != b);
    return (a > b) - (a < b);
}

static int order_of_bytes(const Bytes *a, const Bytes *b)
{
    size_t shared = a->length < b->length ? a->length : b->length;
    int order = shared > 0 ? memcmp(a->data, b->data, shared) : 0;
    return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

#define COMPARE(type) ((*(const type *)a > *(const type *)b) - (*(const type *)a < *(const type *)b))

int element_compare(DType dtype, const void *a, const void *b)
{
    switch ((int)dtype) {
    case DTYPE_F32:
        return order_of((double)*(const float *)a, (double)*(const float *)b);
    case DTYPE_F64:
        return order_of(*(const double *)a, *(const double *)b);
    case DTYPE_I64:
        return COMPARE(int64_t);
    case DTYPE_U64:
        return COMPARE(uint64_t);
    case DTYPE_I32:
        return COMPARE(int32_t);
    case DTYPE_U32:
        return COMPARE(uint32_t);
    case DTYPE_I16:
        return COMPARE(int16_t);
    case DTYPE_U16:
        return COMPARE(uint16_t);
    case DTYPE_I8:
    case DTYPE_I4:
    case DTYPE_I2:
        return COMPARE(int8_t);
    case DTYPE_F16:
        return order_of((double)f16_to_f32(*(const uint16_t *)a), (double)f16_to_f32(*(const uint16_t *)b));
    case DTYPE_BF16:
        return order_of((double)bf16_to_f32(*(const uint16_t *)a), (double)bf16_to_f32(*(const uint16_t *)b));
    case DTYPE_STRING:
        return order_of_bytes(a, b);
    default:
        return memcmp(a, b, dtype_size(dtype));
    }
}
