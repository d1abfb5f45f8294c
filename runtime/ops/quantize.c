/* Quantisation: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear; per tensor, per axis and in blocks.
 *
 *   q = saturate(round(x / scale) + zero),  x' = (q - zero) scale
 *
 * Integers carry no gradient. So that one flows through a trunk quantised in training, a DequantizeLinear that reads a
 * QuantizeLinear of the same scale expands into FakeQuantize, which goes from float to float and passes the gradient
 * straight through where nothing was clipped, as torch's fake_quantize does. */
#include "runtime/ops/elementwise.h"

#include <inttypes.h>

/* ---- where an element finds its scale ---------------------------------------------------------------------------- */

/* Scale and zero point are indexed by (outer, axis / block, inner) of the quantised tensor's shape. */
typedef struct Grid {
    int64_t outer, axis, inner; /* product of the dims before the axis, the axis, product of those behind */
    int64_t block;              /* elements of the axis that share a scale */
    int64_t parts;              /* scales along the axis */
    bool by_outer, by_inner;    /* blocked: the scale varies along the other dims, too */
} Grid;

static Status grid_make(const Node *node, int rank, const int64_t *dims, int scale_rank, const int64_t *scale_dims,
                        Grid *grid, Error *err)
{
    *grid = (Grid){.outer = 1, .axis = 1, .inner = dims_count(rank, dims), .block = 1, .parts = 1};
    int64_t scales = dims_count(scale_rank, scale_dims);
    if (scale_rank == 0 || (scale_rank == 1 && scales == 1))
        return STATUS_OK;
    int axis = 0;
    if (rank != 1 || scale_rank > 1) /* of rank 1 there is but one axis */
        TRY(axis_normalize(node, node_int(node, "axis", 1), rank, &axis, err));
    grid->outer = dims_count(axis, dims);
    grid->axis = dims[axis];
    grid->inner = dims_count(rank - axis - 1, dims + axis + 1);
    bool blocked = scale_rank == rank && rank > 1;
    grid->parts = blocked ? scale_dims[axis] : scales;
    int64_t block = node_int(node, "block_size", 0);
    if (blocked && block <= 0)
        block = grid->parts > 0 && grid->axis > 0 ? (grid->axis + grid->parts - 1) / grid->parts : 1;
    grid->block = blocked ? block : 1;
    grid->by_outer = grid->by_inner = blocked;
    bool fits = blocked ? (grid->axis + block - 1) / block == grid->parts : grid->parts == grid->axis;
    for (int i = 0; blocked && i < rank; i++)
        fits = fits && (i == axis || scale_dims[i] == dims[i]);
    if (!fits)
        return infer_fail(node, err, "a scale of shape %s does not fit %s at axis %d",
                          dims_text(&node->graph->model->arena, scale_rank, scale_dims),
                          dims_text(&node->graph->model->arena, rank, dims), axis);
    return STATUS_OK;
}

static int64_t grid_index(const Grid *grid, int64_t i)
{
    int64_t inner = i % grid->inner, part = i / grid->inner % grid->axis / grid->block,
            outer = i / grid->inner / grid->axis;
    if (grid->parts == 1 && !grid->by_outer)
        return 0;
    if (!grid->by_outer)
        return part;
    return (outer * grid->parts + part) * grid->inner + inner;
}

/* `zero` is counted, -1 when omitted. */
static Status zero_check(const Node *node, int64_t scale, int64_t zero, Error *err)
{
    return zero == scale || zero < 0
               ? STATUS_OK
               : infer_fail(node, err, "%lld scales and %lld zero points", (long long)scale, (long long)zero);
}

static bool is_number(DType dtype)
{
    return dtype_is_float(dtype) || dtype_is_integer(dtype);
}

/* Numbers on both sides, and a narrow type for the quantised one. */
static Status types_check(const Node *node, DType wide, DType scale, DType quantized, Error *err)
{
    bool narrow = dtype_is_integer(quantized) ? dtype_bits(quantized) <= 32
                                              : dtype_is_float(quantized) && dtype_bits(quantized) <= 8;
    if (is_number(wide) && is_number(scale) && narrow)
        return STATUS_OK;
    return infer_fail(node, err, "%s with scales of %s, quantised as %s", dtype_name(wide), dtype_name(scale),
                      dtype_name(quantized));
}

/* ---- one number -------------------------------------------------------------------------------------------------- */

static bool integer_range(DType dtype, double *low, double *high)
{
    if (!dtype_is_integer(dtype))
        return false;
    int bits = (int)dtype_bits(dtype);
    bool is_signed =
        dtype == DTYPE_I2 || dtype == DTYPE_I4 || dtype == DTYPE_I8 || dtype == DTYPE_I16 || dtype == DTYPE_I32;
    *low = is_signed ? -ldexp(1, bits - 1) : 0;
    *high = ldexp(1, is_signed ? bits - 1 : bits) - 1;
    return true;
}

/* A quotient as it comes out of a division in that precision. */
static double rounded_to(DType precision, double x)
{
    switch (precision) {
    case DTYPE_F16:
        return (double)f16_to_f32(f32_to_f16((float)x));
    case DTYPE_BF16:
        return (double)bf16_to_f32(f32_to_bf16((float)x));
    case DTYPE_F64:
        return x;
    default:
        return (double)(float)x;
    }
}

/* The quantised number, in double; *inside: nothing was clipped. */
static double quantize(double ratio, double zero, DType to, bool saturate, bool *inside)
{
    double low, high;
    if (integer_range(to, &low, &high)) {
        double q = rint(ratio) + zero;
        *inside = q >= low && q <= high;
        return !(q >= low) ? low : q > high ? high : q;
    }
    float q = f8_to_f32(f32_to_f8((float)(ratio + zero), to, saturate), to);
    float beyond = f8_to_f32(f32_to_f8(HUGE_VALF, to, true), to);
    *inside = fabs(ratio + zero) <= (double)beyond;
    return (double)q;
}

/* ---- QuantizeLinear ---------------------------------------------------------------------------------------------- */

static DType quantized_dtype(const Node *node, DType zero_dtype)
{
    if (zero_dtype != DTYPE_UNDEFINED)
        return zero_dtype;
    int64_t wanted = node_int(node, "output_dtype", 0);
    return wanted > 0 && wanted < DTYPE_COUNT ? (DType)wanted : DTYPE_U8;
}

static Status quantize_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *scale = &node->inputs[1]->type;
    Grid grid;
    TRY(grid_make(node, x->rank, x->dims, scale->rank, scale->dims, &grid, err));
    const Value *zero = node_input(node, 2);
    DType to = quantized_dtype(node, zero == NULL ? DTYPE_UNDEFINED : zero->type.dtype);
    TRY(types_check(node, x->dtype, scale->dtype, to, err));
    TRY(zero_check(node, type_count(scale), zero == NULL ? -1 : type_count(&zero->type), err));
    type_set(&node->outputs[0]->type, to, x->rank, x->dims);
    return STATUS_OK;
}

/* What division x / scale rounds to. */
static DType division_precision(const Node *node, DType x, DType scale)
{
    int64_t asked = node_int(node, "precision", 0);
    if (asked != 0)
        return (DType)asked;
    return dtype_is_float(scale) && scale != DTYPE_F8E8M0 ? scale : dtype_is_float(x) ? x : DTYPE_F32;
}

static Status quantize_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const Array *x = context->in[0], *scale = context->in[1], *zero = eval_input(context, 2);
    DType to = quantized_dtype(node, zero == NULL ? DTYPE_UNDEFINED : zero->dtype);
    DType precision = division_precision(node, x->dtype, scale->dtype);
    bool saturate = node_int(node, "saturate", 1) != 0, inside;
    Grid grid;
    TRY(types_check(node, x->dtype, scale->dtype, to, err));
    TRY(zero_check(node, scale->count, zero == NULL ? -1 : zero->count, err));
    TRY(grid_make(node, x->rank, x->dims, scale->rank, scale->dims, &grid, err));
    Array *numbers;
    TRY(array_new(context->arena, DTYPE_F64, x->rank, x->dims, &numbers, err));
    double *q = numbers->data;
    for (int64_t i = 0; i < x->count; i++) {
        int64_t at = grid_index(&grid, i);
        double s = rounded_to(precision, array_f64_at(scale, at));
        double ratio = rounded_to(precision, rounded_to(precision, array_f64_at(x, i)) / s);
        double z = zero == NULL ? 0 : array_f64_at(zero, at);
        q[i] = dtype_is_integer(to) ? quantize(ratio, z, to, saturate, &inside) : ratio + z;
    }
    if (dtype_is_integer(to))
        return array_convert(context->arena, numbers, to, &context->out[0], err);
    Array *out;
    TRY(eval_output(context, 0, to, x->rank, x->dims, &out, err));
    for (int64_t i = 0; i < x->count; i++)
        ((uint8_t *)out->data)[i] = f32_to_f8((float)q[i], to, saturate);
    return STATUS_OK;
}

/* ---- DequantizeLinear -------------------------------------------------------------------------------------------- */

static DType dequantized_dtype(const Node *node, DType scale)
{
    int64_t wanted = node_int(node, "output_dtype", 0);
    if (wanted > 0 && wanted < DTYPE_COUNT)
        return (DType)wanted;
    return scale == DTYPE_F8E8M0 ? DTYPE_F32 : scale;
}

static Status dequantize_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *scale = &node->inputs[1]->type;
    const Value *zero = node_input(node, 2);
    Grid grid;
    TRY(types_check(node, dequantized_dtype(node, scale->dtype), scale->dtype, x->dtype, err));
    TRY(zero_check(node, type_count(scale), zero == NULL ? -1 : type_count(&zero->type), err));
    TRY(grid_make(node, x->rank, x->dims, scale->rank, scale->dims, &grid, err));
    type_set(&node->outputs[0]->type, dequantized_dtype(node, scale->dtype), x->rank, x->dims);
    return STATUS_OK;
}

static Status dequantize_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *scale = context->in[1], *zero = eval_input(context, 2);
    Grid grid;
    TRY(types_check(context->node, dequantized_dtype(context->node, scale->dtype), scale->dtype, x->dtype, err));
    TRY(zero_check(context->node, scale->count, zero == NULL ? -1 : zero->count, err));
    TRY(grid_make(context->node, x->rank, x->dims, scale->rank, scale->dims, &grid, err));
    Array *numbers;
    TRY(array_new(context->arena, DTYPE_F64, x->rank, x->dims, &numbers, err));
    for (int64_t i = 0; i < x->count; i++) {
        int64_t at = grid_index(&grid, i);
        double z = zero == NULL ? 0 : array_f64_at(zero, at);
        ((double *)numbers->data)[i] = (array_f64_at(x, i) - z) * array_f64_at(scale, at);
    }
    DType to = dequantized_dtype(context->node, scale->dtype);
    if (to == DTYPE_F64) {
        context->out[0] = numbers;
        return STATUS_OK;
    }
    return array_convert(context->arena, numbers, to, &context->out[0], err);
}

/* d scale = sum of dy (q - zero) over what shares the scale. */
static Status dequantize_grad(GradContext *context, Error *err)
{
    Builder *b = &context->b;
    const Node *node = context->node;
    if (context->dy[0] == NULL || !context->wants[1])
        return STATUS_OK;
    const Type *x = &node->inputs[0]->type, *scale = &node->inputs[1]->type;
    Grid grid;
    TRY(grid_make(node, x->rank, x->dims, scale->rank, scale->dims, &grid, err));
    if (grid.by_outer)
        return fail(err, STATUS_UNSUPPORTED, "%s: scales in blocks cannot be trained", node_text(node));
    Value *one = build2(b, "Expand", build_scalar(b, scale->dtype, 1), build_ints(b, scale->dims, (size_t)scale->rank));
    Value *inputs[] = {node->inputs[0], one, node_input(node, 2)};
    Node *ones = build_node(b, "", "DequantizeLinear", inputs, 3, 1);
    if (ones == NULL)
        return b->status;
    node_copy_attrs(ones, node);
    Value *each = build2(b, "Mul", context->dy[0], build_finish(b, ones)); /* dy (q - zero) */
    /* [outer, axis, inner] summed to [axis], or to one number */
    int64_t folded[3] = {grid.outer, grid.axis, grid.inner}, kept[3] = {1, grid.axis, 1};
    Value *flat = build_reshape(b, each, 3, folded);
    Value *sum =
        build_finish(b, build_node(b, DOMAIN_INTERNAL, "ReduceTo", (Value *[]){flat, build_ints(b, kept, 3)}, 2, 1));
    context->dx[1] = build_reshape(b, sum, scale->rank, scale->dims);
    return b->status;
}

/* ---- FakeQuantize: both in one, with the gradient straight through ----------------------------------------------- */

static DType fake_dtype(const Node *node)
{
    return (DType)node_int(node, "to", DTYPE_U8);
}

/* (x, scale, zero) -> x'; with `back` (dy, x, scale, zero) -> dy where nothing was clipped */
static Status fake_eval_as(EvalContext *context, bool back, Error *err)
{
    const Array *const *in = context->in + (back ? 1 : 0);
    const Array *x = in[0], *scale = in[1], *zero = eval_input(context, back ? 3 : 2);
    Grid grid;
    TRY(grid_make(context->node, x->rank, x->dims, scale->rank, scale->dims, &grid, err));
    Array *out;
    TRY(eval_output_like(context, 0, context->in[0], &out, err));
    DType precision = x->dtype, to = fake_dtype(context->node);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t at = grid_index(&grid, i);
        double s = array_f64_at(scale, at), z = zero == NULL ? 0 : array_f64_at(zero, at);
        bool inside;
        double q = quantize(rounded_to(precision, array_f64_at(x, i) / s), z, to, true, &inside);
        double y = !back ? (q - z) * s : inside ? array_f64_at(context->in[0], i) : 0;
        if (out->dtype == DTYPE_F64)
            ((double *)out->data)[i] = y;
        else
            ((float *)out->data)[i] = (float)y;
    }
    return STATUS_OK;
}

static Status fake_eval(EvalContext *context, Error *err)
{
    return fake_eval_as(context, false, err);
}

static Status fake_back_eval(EvalContext *context, Error *err)
{
    return fake_eval_as(context, true, err);
}

static Status fake_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    const Node *node = context->node;
    if (context->dy[0] == NULL || !context->wants[0])
        return STATUS_OK;
    Value *inputs[] = {context->dy[0], node->inputs[0], node->inputs[1], node_input(node, 2)};
    Node *back = build_node(b, DOMAIN_INTERNAL, "FakeQuantizeGrad", inputs, 4, 1);
    if (back != NULL)
        node_copy_attrs(back, node);
    context->dx[0] = build_finish(b, back);
    return b->status;
}

static bool same_constant(const Value *a, const Value *b)
{
    if (a == NULL || b == NULL || a == b)
        return a == b;
    return a->constant != NULL && b->constant != NULL && tensor_equal(a->constant, b->constant);
}

/* Only where the pair is float to float in f32; else the node stays what it is. */
static Status dequantize_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    const Node *source = node->inputs[0]->producer;
    if (source == NULL || !node_is(source, "QuantizeLinear"))
        return STATUS_OK;
    bool alike = same_constant(node->inputs[1], source->inputs[1]) &&
                 same_constant(node_input(node, 2), node_input(source, 2)) &&
                 node_int(node, "axis", 1) == node_int(source, "axis", 1) &&
                 node_int(node, "block_size", 0) == node_int(source, "block_size", 0) &&
                 node_int(source, "precision", 0) == 0;
    Value *x = source->inputs[0];
    const Type *scale = &node->inputs[1]->type, *out = &node->outputs[0]->type;
    if (!alike || x->type.dtype != scale->dtype || out->dtype != scale->dtype || !type_known(&source->outputs[0]->type))
        return STATUS_OK;
    Value *inputs[] = {x, source->inputs[1], node_input(source, 2)};
    Node *fake = build_node(b, DOMAIN_INTERNAL, "FakeQuantize", inputs, 3, 1);
    if (fake == NULL)
        return b->status;
    node_set_int(fake, "axis", node_int(node, "axis", 1));
    node_set_int(fake, "block_size", node_int(node, "block_size", 0));
    node_set_int(fake, "to", (int64_t)source->outputs[0]->type.dtype);
    Value *y = build_finish(b, fake);
    if (y != NULL)
        value_replace_uses(node->outputs[0], y);
    return b->status;
}

/* ---- DynamicQuantizeLinear: to uint8 with the range found in x --------------------------------------------------- */

static Status dynamic_infer(Node *node, Error *err)
{
    (void)err;
    const Type *x = &node->inputs[0]->type;
    const DType dtypes[] = {DTYPE_U8, DTYPE_F32, DTYPE_U8};
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            type_set(&node->outputs[i]->type, dtypes[i], i == 0 ? x->rank : 0, x->dims);
    return STATUS_OK;
}

static Status dynamic_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const float *values = x->data;
    if (x->dtype != DTYPE_F32)
        return eval_fail(context, err, "%s arrived, float32 expected", dtype_name(x->dtype));
    float low = 0, high = 0;
    for (int64_t i = 0; i < x->count; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    Array *y, *scale, *zero;
    TRY(eval_output(context, 0, DTYPE_U8, x->rank, x->dims, &y, err));
    TRY(eval_output(context, 1, DTYPE_F32, 0, NULL, &scale, err));
    TRY(eval_output(context, 2, DTYPE_U8, 0, NULL, &zero, err));
    float s = (high - low) / 255, z = s == 0 ? 0 : rintf(-low / s);
    bool inside;
    *(float *)scale->data = s;
    *(uint8_t *)zero->data = (uint8_t)z;
    for (int64_t i = 0; i < x->count; i++) {
        double ratio = s == 0 ? 0 : (double)(values[i] / s);
        ((uint8_t *)y->data)[i] = (uint8_t)quantize(ratio, (double)z, DTYPE_U8, true, &inside);
    }
    return STATUS_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

const OpDef ops_quantize[] = {
    {.name = "QuantizeLinear",
     .since = 10,
     .last = OPSET_NEWEST,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ANY_DTYPE,
     .infer = quantize_infer,
     .eval = quantize_eval,
     .no_gradient = "integers carry no gradient; with its DequantizeLinear it becomes FakeQuantize"},
    {.name = "DequantizeLinear",
     .since = 10,
     .last = OPSET_NEWEST,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ANY_DTYPE,
     .infer = dequantize_infer,
     .eval = dequantize_eval,
     .grad = dequantize_grad,
     .expand = dequantize_expand},
    {.name = "DynamicQuantizeLinear",
     .since = 11,
     .last = OPSET_NEWEST,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 3,
     .max_outputs = 3,
     .traits = OP_ANY_DTYPE,
     .infer = dynamic_infer,
     .eval = dynamic_eval,
     .no_gradient = "integers carry no gradient"},
    {.domain = DOMAIN_INTERNAL,
     .name = "FakeQuantize",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ANY_DTYPE,
     .infer = infer_same,
     .eval = fake_eval,
     .grad = fake_grad,
     .no_case = "a step function: its gradient is declared, not a difference; tests/test_quantize.c"},
    {.domain = DOMAIN_INTERNAL,
     .name = "FakeQuantizeGrad",
     .min_inputs = 3,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .traits = OP_ANY_DTYPE,
     .infer = infer_same,
     .eval = fake_back_eval,
     .no_gradient = NO_SECOND_ORDER,
     .no_case = NO_CASE_OF_ITS_OWN},
    {0},
};
