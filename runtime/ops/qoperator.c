/* Family: operators on quantised numbers in onnxruntime's domain, as its quantiser writes them in the format
 * "QOperator" (docs/ContribOperators.md). Each is what its document says: the inputs dequantised, the operator on
 * floats, the result quantised; so each expands into that, and a pair of QuantizeLinear and DequantizeLinear between
 * two of them becomes FakeQuantize. Convolutions and products without a bias are ONNX's own: conv_integer.c,
 * matmul_integer.c. */
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"

#define DOMAIN_MICROSOFT "com.microsoft"

/* ---- to floats and back ---------------------------------------------------------------------------------- */

/* Zero points may be omitted in the middle of the inputs: what may not be is asked for where it is read. */
static bool there(Builder *b, const Node *node, int index)
{
    if (b->status == STATUS_OK && node_input(node, index) == NULL)
        b->status = infer_fail(node, b->err, "input %d is missing", index);
    return b->status == STATUS_OK;
}

/* Input `index`, whose scale and zero point (may be omitted) follow it. Scales of several elements lie along `axis`; 1,
 * as of a QuantizeLinear, where there is one: else the two were no pair. */
static Value *dequantized(Builder *b, const Node *node, int index, int axis)
{
    Value *inputs[] = {node_input(node, index), node_input(node, index + 1), node_input(node, index + 2)};
    if (!there(b, node, index) || !there(b, node, index + 1))
        return NULL;
    DType dtype = inputs[0]->type.dtype;
    if (dtype != DTYPE_U8 && dtype != DTYPE_I8) {
        b->status = infer_fail(node, b->err, "input %d is %s, 8-bit integers expected", index, dtype_name(dtype));
        return NULL;
    }
    return compose_axis(b, "", "DequantizeLinear", inputs, inputs[2] != NULL ? 3 : 2, axis);
}

/* `y` with the scale that is input `index` and the zero point behind it; without one in the type of `like`. */
static Status requantize(Builder *b, Node *node, Value *y, int index, const Value *like)
{
    if (!there(b, node, index))
        return b->status;
    Value *inputs[] = {y, node_input(node, index), node_input(node, index + 1)};
    Node *quantize = build_node(b, "", "QuantizeLinear", inputs, inputs[2] != NULL ? 3 : 2, 1);
    if (quantize != NULL && inputs[2] == NULL)
        node_set_int(quantize, "output_dtype", (int64_t)like->type.dtype);
    compose_replace(b, node->outputs[0], build_finish(b, quantize));
    return b->status;
}

/* ---- elementwise ----------------------------------------------------------------------------------------- */

static Status binary_expand(Node *node, Builder *b, const char *op_type)
{
    Value *y = build2(b, op_type, dequantized(b, node, 0, 1), dequantized(b, node, 3, 1));
    return requantize(b, node, y, 6, node->inputs[0]);
}

static Status add_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    return binary_expand(node, b, "Add");
}

static Status mul_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    return binary_expand(node, b, "Mul");
}

static Status sigmoid_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    return requantize(b, node, build1(b, "Sigmoid", dequantized(b, node, 0, 1)), 3, node->inputs[0]);
}

static Status leaky_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    Value *x = dequantized(b, node, 0, 1);
    Node *leaky = build_node(b, "", "LeakyRelu", &x, 1, 1);
    if (leaky != NULL)
        node_set_float(leaky, "alpha", node_float(node, "alpha", 0.01f));
    return requantize(b, node, build_finish(b, leaky), 3, node->inputs[0]);
}

static Status where_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    Value *y = build3(b, "Where", node->inputs[0], dequantized(b, node, 1, 1), dequantized(b, node, 4, 1));
    return requantize(b, node, y, 7, node->inputs[1]);
}

/* Before opset 13 of the Softmax it was made of, over all dims from the axis on. */
static Status softmax_expand(Node *node, Builder *b, Error *err)
{
    const Type *type = &node->inputs[0]->type;
    bool flat = node_int(node, "opset", 13) < 13;
    int axis;
    TRY(axis_normalize(node, node_int(node, "axis", -1), type->rank, &axis, err));
    Value *x = dequantized(b, node, 0, 1), *like = x;
    if (flat)
        x = compose_reshape(
            b, x, 2, (const int64_t[]){dims_count(axis, type->dims), dims_count(type->rank - axis, type->dims + axis)});
    Value *y = compose_axis(b, "", "Softmax", &x, 1, flat ? 1 : axis);
    if (flat)
        y = compose_like(b, y, like);
    return requantize(b, node, y, 3, node->inputs[0]);
}

/* ---- joining, pooling, means ----------------------------------------------------------------------------- */

/* Y's scale and zero point, then three inputs for each part. */
static Status concat_expand(Node *node, Builder *b, Error *err)
{
    int parts = (node->input_count - 2) / 3;
    if (parts < 1 || node->input_count != 2 + 3 * parts)
        return infer_fail(node, err, "%d inputs, expected 2 and three for each part", node->input_count);
    Value **values = arena_array(&b->graph->model->arena, Value *, (size_t)parts);
    for (int i = 0; i < parts; i++)
        values[i] = dequantized(b, node, 2 + 3 * i, 1);
    Value *y = compose_axis(b, "", "Concat", values, parts, (int)node_int(node, "axis", 0));
    return requantize(b, node, y, 0, node->inputs[2]);
}

/* `first`: channels go behind the batch dim; else from there to the end. */
static Value *channels_to(Builder *b, Value *x, bool first)
{
    int64_t perm[RANK_MAX];
    if (b->status != STATUS_OK)
        return NULL;
    int rank = x->type.rank;
    perm_identity(rank, perm);
    for (int i = 1; i < rank; i++)
        perm[i] = first ? (i == 1 ? rank - 1 : i - 1) : (i == rank - 1 ? 1 : i + 1);
    return compose_transpose(b, x, perm);
}

static Status pool_expand(Node *node, Builder *b, const char *op_type)
{
    bool last = node_int(node, "channels_last", 0) != 0;
    Value *x = dequantized(b, node, 0, 1);
    if (last)
        x = channels_to(b, x, true);
    Node *pool = build_node(b, "", op_type, &x, 1, 1);
    if (pool == NULL)
        return b->status;
    node_copy_attrs(pool, node);
    node_remove_attr(pool, "channels_last");
    Value *y = build_finish(b, pool);
    if (last)
        y = channels_to(b, y, false);
    return requantize(b, node, y, 3, node->inputs[0]);
}

static Status average_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    return pool_expand(node, b, "AveragePool");
}

static Status global_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    return pool_expand(node, b, "GlobalAveragePool");
}

static Status mean_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    size_t count = 0;
    int64_t all[RANK_MAX];
    const int64_t *axes = node_ints(node, "axes", &count);
    if (count == 0)
        perm_identity(node->inputs[0]->type.rank, all);
    Value *y =
        compose_reduce(b, "ReduceMean", dequantized(b, node, 0, 1), count == 0 ? all : axes,
                       count == 0 ? (size_t)node->inputs[0]->type.rank : count, node_int(node, "keepdims", 1) != 0);
    return requantize(b, node, y, 3, node->inputs[0]);
}

/* ---- QGemm ----------------------------------------------------------------------------------------------- */

enum { A, A_SCALE, B = 3, B_SCALE, C = 6, Y_SCALE, Y_ZERO };

/* y = alpha A B + C;  C counts in units of alpha times both scales, of which B's may be one a column. */
static Value *gemm_bias(Builder *b, const Node *node, double alpha)
{
    Value *scale = build2(b, "Mul", node->inputs[A_SCALE], node->inputs[B_SCALE]);
    return build2(b, "Mul", compose_cast(b, node->inputs[C], DTYPE_F32), compose_scale(b, scale, alpha));
}

static Status gemm_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    bool across = node_int(node, "transB", 0) != 0;
    double alpha = (double)node_float(node, "alpha", 1);
    Value *inputs[] = {dequantized(b, node, A, 1), dequantized(b, node, B, across ? 0 : 1)};
    Node *gemm = build_node(b, "", "Gemm", inputs, 2, 1);
    if (gemm == NULL)
        return b->status;
    node_copy_attrs(gemm, node);
    Value *y = build_finish(b, gemm);
    if (node_input(node, C) != NULL)
        y = build2(b, "Add", y, gemm_bias(b, node, alpha));
    if (node_input(node, Y_ZERO) != NULL)
        return requantize(b, node, y, Y_SCALE, node->inputs[A]);
    compose_replace(b, node->outputs[0], y);
    return b->status;
}

/* ---- the table ------------------------------------------------------------------------------------------- */

#define ROW(NAME, MIN, MAX, EXPAND)                                                                                    \
    {                                                                                                                  \
        .domain = DOMAIN_MICROSOFT, .name = NAME, .since = 1, .last = 1, .min_inputs = MIN, .max_inputs = MAX,         \
        .min_outputs = 1, .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = infer_expanded, .eval = eval_expanded,    \
        .expand = EXPAND, .no_case = "not an ONNX operator; tests/test_quantized.c"                                    \
    }

const OpDef ops_qoperator[] = {
    ROW("QLinearAdd", 2, 8, add_expand),
    ROW("QLinearMul", 2, 8, mul_expand),
    ROW("QLinearSigmoid", 2, 5, sigmoid_expand),
    ROW("QLinearLeakyRelu", 2, 5, leaky_expand),
    ROW("QLinearSoftmax", 2, 5, softmax_expand),
    ROW("QLinearWhere", 3, 9, where_expand),
    ROW("QLinearConcat", 5, -1, concat_expand),
    ROW("QLinearAveragePool", 2, 5, average_expand),
    ROW("QLinearGlobalAveragePool", 2, 5, global_expand),
    ROW("QLinearReduceMean", 2, 5, mean_expand),
    ROW("QGemm", 5, 9, gemm_expand),
    {0},
};
