/* Family: normalisation of rows. LayerNormalization and RMSNormalization, and the forms that other exporters write.
 *     x_hat = (x - mean) / sqrt(var + epsilon)   (RMS: x / sqrt(mean of x^2 + epsilon)),   y = scale * x_hat + bias
 * Their gradient is one internal row, LayerNormGrad(dy, x [, scale]) with attributes axis, epsilon, rms: dx [, dscale,
 * dbias]; it computes the statistics anew, which costs a pass over a row that is in the cache anyway. Kernels are in
 * layernorm_kernel.c. */
#include <math.h>
#include <string.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/wide.h"

/* ---- shapes --------------------------------------------------------------------------------------------------- */

Status row_shape(const Node *node, int rank, const int64_t *dims, RowShape *shape, Error *err)
{
    TRY(axis_normalize(node, node_int(node, "axis", -1), rank, &shape->axis, err));
    shape->rows = dims_count(shape->axis, dims);
    shape->length = dims_count(rank - shape->axis, dims + shape->axis);
    return STATUS_OK;
}

bool covers_row(const RowShape *shape, int rank, const int64_t *dims, int scale_rank, const int64_t *scale)
{
    int shift = rank - scale_rank;
    if (shift < 0 || dims_count(scale_rank, scale) != shape->length)
        return false;
    for (int i = 0; i < rank; i++) {
        int64_t dim = i < shift ? 1 : scale[i - shift];
        if (dim != (i < shape->axis ? 1 : dims[i]))
            return false;
    }
    return true;
}

static bool is_rms(const Node *node)
{
    return strcmp(node->op_type, "RMSNormalization") == 0 || node_int(node, "rms", 0) != 0;
}

static Status check_scale(const Node *node, int index, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const Value *scale = node_input(node, index);
    int64_t dims[RANK_MAX];
    int rank = 0;
    if (scale == NULL)
        return STATUS_OK;
    bool fits = dims_broadcast(x->rank, x->dims, scale->type.rank, scale->type.dims, &rank, dims) && rank == x->rank;
    for (int i = 0; fits && i < rank; i++)
        fits = dims[i] == x->dims[i];
    if (fits)
        return STATUS_OK;
    Arena *arena = &node->graph->model->arena;
    return infer_fail(node, err, "input %d %s does not broadcast to %s", index, type_text(arena, &scale->type),
                      type_text(arena, x));
}

static Status layer_norm_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    int64_t dims[RANK_MAX];
    RowShape shape;
    TRY(row_shape(node, x->rank, x->dims, &shape, err));
    TRY(check_scale(node, 1, err));
    TRY(check_scale(node, 2, err));
    for (int i = 0; i < x->rank; i++)
        dims[i] = i < shape.axis ? x->dims[i] : 1;
    node->outputs[0]->type = *x;
    for (int i = 1; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            type_set(&node->outputs[i]->type, x->dtype, x->rank, dims);
    return STATUS_OK;
}

static Status layer_norm_grad_infer(Node *node, Error *err)
{
    (void)err;
    node->outputs[0]->type = node->inputs[1]->type;
    for (int i = 1; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            node->outputs[i]->type = node->inputs[2]->type;
    return STATUS_OK;
}

/* ---- eval ---------------------------------------------------------------------------------------------------- */

typedef struct Statistics {
    double mean, inverse; /* inverse = 1 / sqrt(var + epsilon) */
} Statistics;

static Statistics row_statistics(const double *x, int64_t length, double epsilon, bool rms)
{
    Statistics s = {0, 0};
    double square = 0, count = (double)length;
    for (int64_t i = 0; i < length && !rms; i++)
        s.mean += x[i] / count;
    for (int64_t i = 0; i < length; i++)
        square += (x[i] - s.mean) * (x[i] - s.mean) / count;
    s.inverse = 1 / sqrt(square + epsilon);
    return s;
}

/* Where element `at` of x finds its scale when that is broadcast to x's shape. */
static int64_t broadcast_index(const Array *x, const Array *scale, int64_t at)
{
    int64_t index = 0, step = 1;
    for (int i = x->rank - 1, j = scale->rank - 1; j >= 0; i--, j--) {
        int64_t place = at % x->dims[i];
        at /= x->dims[i];
        index += scale->dims[j] == 1 ? 0 : place * step;
        step *= scale->dims[j];
    }
    return index;
}

static Status store_statistics(EvalContext *context, int index, const RowShape *shape, const Statistics *rows,
                               Error *err)
{
    const Array *x = eval_input(context, 0);
    int64_t dims[RANK_MAX];
    WideOutput out;
    if (node_output(context->node, index) == NULL)
        return STATUS_OK;
    for (int i = 0; i < x->rank; i++)
        dims[i] = i < shape->axis ? x->dims[i] : 1;
    TRY(wide_output(context, index, x->dtype, x->rank, dims, &out, err));
    for (int64_t r = 0; r < shape->rows; r++)
        out.data[r] = index == 1 ? rows[r].mean : rows[r].inverse;
    wide_store(&out);
    return STATUS_OK;
}

static Status layer_norm_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0), *scale = eval_input(context, 1), *bias = eval_input(context, 2);
    const double *from, *scales, *biases, epsilon = (double)node_float(context->node, "epsilon", 1e-5f);
    RowShape shape;
    WideOutput y;
    TRY(row_shape(context->node, x->rank, x->dims, &shape, err));
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_input(context, 1, &scales, err));
    TRY(wide_input(context, 2, &biases, err));
    TRY(wide_output_like(context, 0, x, &y, err));
    Statistics *rows = arena_array(context->arena, Statistics, (size_t)shape.rows);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t r = i / shape.length;
        if (i % shape.length == 0)
            rows[r] = row_statistics(from + i, shape.length, epsilon, is_rms(context->node));
        y.data[i] = (from[i] - rows[r].mean) * rows[r].inverse * scales[broadcast_index(x, scale, i)];
        if (biases != NULL)
            y.data[i] += biases[broadcast_index(x, bias, i)];
    }
    wide_store(&y);
    TRY(store_statistics(context, 1, &shape, rows, err));
    return store_statistics(context, 2, &shape, rows, err);
}

typedef struct RowGradient {
    const double *dy, *x, *scale; /* of one row; scale may be NULL */
    double *dx, *dscale, *dbias;
    int64_t length;
    Statistics statistics;
    bool rms;
} RowGradient;

/* With g = dy * scale and means over the row:  dx = inverse * (g - mean(g) - x_hat * mean(g * x_hat));  RMS has no
 * mean(g). */
static void row_gradient(const RowGradient *row)
{
    double sum = 0, product = 0, count = (double)row->length;
    for (int64_t i = 0; i < row->length; i++) {
        double x_hat = (row->x[i] - row->statistics.mean) * row->statistics.inverse;
        double g = row->scale != NULL ? row->dy[i] * row->scale[i] : row->dy[i];
        sum += row->rms ? 0 : g;
        product += g * x_hat;
        if (row->dscale != NULL)
            row->dscale[i] += row->dy[i] * x_hat;
        if (row->dbias != NULL)
            row->dbias[i] += row->dy[i];
    }
    for (int64_t i = 0; i < row->length; i++) {
        double x_hat = (row->x[i] - row->statistics.mean) * row->statistics.inverse;
        double g = row->scale != NULL ? row->dy[i] * row->scale[i] : row->dy[i];
        row->dx[i] = row->statistics.inverse * (g - sum / count - x_hat * product / count);
    }
}

static Status layer_norm_grad_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 1), *scale = eval_input(context, 2);
    const double *dy, *from, *scales, epsilon = (double)node_float(context->node, "epsilon", 1e-5f);
    RowShape shape;
    WideOutput dx, extra[2] = {{0}};
    TRY(row_shape(context->node, x->rank, x->dims, &shape, err));
    TRY(wide_input(context, 0, &dy, err));
    TRY(wide_input(context, 1, &from, err));
    TRY(wide_input(context, 2, &scales, err));
    TRY(wide_output_like(context, 0, x, &dx, err));
    for (int i = 0; i < 2; i++)
        if (node_output(context->node, i + 1) != NULL)
            TRY(wide_output_like(context, i + 1, scale, &extra[i], err));
    for (int64_t r = 0; r < shape.rows; r++) {
        RowGradient row = {.dy = dy + r * shape.length,
                           .x = from + r * shape.length,
                           .scale = scales,
                           .dx = dx.data + r * shape.length,
                           .dscale = extra[0].data,
                           .dbias = extra[1].data,
                           .length = shape.length,
                           .rms = is_rms(context->node)};
        row.statistics = row_statistics(row.x, shape.length, epsilon, row.rms);
        row_gradient(&row);
    }
    wide_store(&dx);
    for (int i = 0; i < 2; i++)
        if (extra[i].array != NULL)
            wide_store(&extra[i]);
    return STATUS_OK;
}

/* ---- grad ---------------------------------------------------------------------------------------------------- */

static Node *build_gradient(GradContext *context, Value *dy, Value *scale, int outputs)
{
    const Node *node = context->node;
    Value *inputs[] = {dy, node->inputs[0], scale};
    Node *made = build_node(&context->b, DOMAIN_INTERNAL, "LayerNormGrad", inputs, scale != NULL ? 3 : 2, outputs);
    if (made == NULL)
        return NULL;
    node_set_int(made, "axis", node_int(node, "axis", -1));
    node_set_float(made, "epsilon", node_float(node, "epsilon", 1e-5f));
    node_set_int(made, "rms", is_rms(node));
    return build_finish(&context->b, made) == NULL ? NULL : made;
}

/* x_hat: the node itself with a scale of one. */
static Value *build_normalised(GradContext *context)
{
    const Node *node = context->node;
    Value *inputs[] = {node->inputs[0], build_scalar(&context->b, node->inputs[1]->type.dtype, 1)};
    Node *hat = build_node(&context->b, node->domain, node->op_type, inputs, 2, 1);
    if (hat == NULL)
        return NULL;
    node_copy_attrs(hat, node);
    return build_finish(&context->b, hat);
}

/* A scale that does not cover a row one to one is multiplied and summed by ordinary operators. */
static Status gradient_of_broadcast(GradContext *context)
{
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *dy = context->dy[0], *scale = node->inputs[1];
    if (context->wants[1]) {
        Value *product = build2(b, "Mul", dy, build_normalised(context));
        context->dx[1] = product == NULL ? NULL : build_reduce_to(b, product, scale);
    }
    if (node_input(node, 2) != NULL && context->wants[2])
        context->dx[2] = build_reduce_to(b, dy, node->inputs[2]);
    if (context->wants[0]) {
        Value *scaled = build2(b, "Mul", dy, scale);
        const Node *gradient = scaled == NULL ? NULL : build_gradient(context, scaled, NULL, 1);
        context->dx[0] = gradient == NULL ? NULL : gradient->outputs[0];
    }
    return b->status;
}

static Status gradient_of_rows(GradContext *context, bool wants_bias)
{
    int outputs = wants_bias ? 3 : context->wants[1] ? 2 : 1;
    const Node *gradient = build_gradient(context, context->dy[0], context->node->inputs[1], outputs);
    for (int i = 0; gradient != NULL && i < gradient->output_count; i++)
        if (context->wants[i])
            context->dx[i] = gradient->outputs[i];
    return context->b.status;
}

/* What arrives at the saved statistics of rows of n: d mean / dx = 1 / n, d r / dx = -r^2 x_hat / n, r = 1 / deviation.
 */
static Status gradient_of_statistics(GradContext *context, int64_t n)
{
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *dx = context->dx[0], *mean = node->output_count > 1 ? context->dy[1] : NULL,
          *inverse = node->output_count > 2 ? context->dy[2] : NULL;
    if (!context->wants[0])
        return b->status;
    DType dtype = node->inputs[0]->type.dtype;
    if (mean != NULL) {
        Value *part = build2(b, "Mul", mean, build_scalar(b, dtype, 1 / (double)n));
        dx = dx == NULL ? build2(b, "Expand", part,
                                 build_ints(b, node->inputs[0]->type.dims, (size_t)node->inputs[0]->type.rank))
                        : build2(b, "Add", dx, part);
    }
    if (inverse != NULL) {
        Value *r = node->outputs[2], *square = build2(b, "Mul", r, r);
        Value *factor = build2(b, "Mul", build2(b, "Mul", inverse, square), build_scalar(b, dtype, -1 / (double)n));
        Value *part = build2(b, "Mul", build_normalised(context), factor);
        dx = dx == NULL ? part : build2(b, "Add", dx, part);
    }
    context->dx[0] = dx;
    return b->status;
}

static Status layer_norm_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    const Type *x = &node->inputs[0]->type, *scale = &node->inputs[1]->type;
    const Value *bias = node_input(node, 2);
    bool wants_bias = bias != NULL && context->wants[2];
    RowShape shape;
    TRY(row_shape(node, x->rank, x->dims, &shape, err));
    if (context->dy[0] == NULL)
        return gradient_of_statistics(context, shape.length);
    if (!covers_row(&shape, x->rank, x->dims, scale->rank, scale->dims) ||
        (wants_bias && !covers_row(&shape, x->rank, x->dims, bias->type.rank, bias->type.dims)) ||
        (wants_bias && bias->type.rank != scale->rank))
        TRY(gradient_of_broadcast(context));
    else
        TRY(gradient_of_rows(context, wants_bias));
    return gradient_of_statistics(context, shape.length);
}

/* ---- forms of other exporters ------------------------------------------------------------------------------------ */

static Status skip_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    int64_t dims[RANK_MAX];
    if (x->rank < 1)
        return infer_fail(node, err, "input of rank %d", x->rank);
    TRY(infer_like_first(node, err));
    memcpy(dims, x->dims, (size_t)x->rank * sizeof dims[0]);
    dims[x->rank - 1] = 1;
    for (int i = 0; i < node->output_count; i++) {
        if (node->outputs[i] == NULL)
            continue;
        if (i == 0 || i == 3)
            node->outputs[i]->type = *x;
        else
            type_set(&node->outputs[i]->type, x->dtype, x->rank, dims);
    }
    return STATUS_OK;
}

static Status refuse_statistics(const Node *node, int first, int last, Error *err)
{
    for (int i = first; i <= last; i++) {
        const Value *value = node_output(node, i);
        if (value != NULL && (value->use_count > 0 || value->is_output))
            return node_unsupported(node, err, "output %d, a saved statistic, is used", i);
    }
    return STATUS_OK;
}

/* LayerNormalization (or RMSNormalization) of `x` with the attributes of `node`. */
static Value *build_norm(Builder *b, const Node *node, Value *x, Value *scale, Value *bias, bool rms, float epsilon)
{
    Value *inputs[] = {x, scale, bias};
    Node *made = build_node(b, "", rms ? "RMSNormalization" : "LayerNormalization", inputs, bias != NULL ? 3 : 2, 1);
    if (made == NULL)
        return NULL;
    node_set_int(made, "axis", node_int(node, "axis", -1));
    node_set_float(made, "epsilon", node_float(node, "epsilon", epsilon));
    return build_finish(b, made);
}

/* com.microsoft:  sum = input + skip (+ bias);  output = norm(sum).  Inputs of the plain form: input, skip, gamma,
 * beta, bias; of the simplified one: input, skip, gamma, bias. */
static Status skip_expand(Node *node, Builder *b, Error *err)
{
    bool rms = strncmp(node->op_type, "SkipSimplified", 14) == 0;
    Value *beta = rms ? NULL : node_input(node, 3), *bias = node_input(node, rms ? 3 : 4);
    TRY(refuse_statistics(node, 1, 2, err));
    Value *sum = build2(b, "Add", node->inputs[0], node->inputs[1]);
    if (sum != NULL && bias != NULL)
        sum = build2(b, "Add", sum, bias);
    Value *y = sum == NULL ? NULL : build_norm(b, node, sum, node->inputs[2], beta, rms, 1e-12f);
    if (y == NULL)
        return b->status;
    value_replace_uses(node->outputs[0], y);
    if (node_output(node, 3) != NULL)
        value_replace_uses(node->outputs[3], sum);
    return STATUS_OK;
}

static Status simplified_expand(Node *node, Builder *b, Error *err)
{
    TRY(refuse_statistics(node, 1, node->output_count - 1, err));
    Value *y = build_norm(b, node, node->inputs[0], node->inputs[1], NULL, true, 1e-5f);
    if (y != NULL)
        value_replace_uses(node->outputs[0], y);
    return b->status;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

const OpDef ops_layernorm[] = {
    /* In ONNX since 17; exporters for ONNX Runtime wrote it, alike, at any opset. */
    {.name = "LayerNormalization",
     .since = 1,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .traits = OP_ALIKE | OP_FLOATS,
     .max_outputs = 3,
     .infer = layer_norm_infer,
     .eval = layer_norm_eval,
     .grad = layer_norm_grad,
     .prepare = layer_norm_prepare},
    {.name = "RMSNormalization",
     .since = 23,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .traits = OP_ALIKE | OP_FLOATS,
     .max_outputs = 1,
     .infer = layer_norm_infer,
     .eval = layer_norm_eval,
     .grad = layer_norm_grad,
     .prepare = layer_norm_prepare},
    {.domain = DOMAIN_INTERNAL,
     .name = "LayerNormGrad",
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 3,
     .infer = layer_norm_grad_infer,
     .eval = layer_norm_grad_eval,
     .prepare = layer_norm_grad_prepare,
     .no_gradient = "a gradient itself"},
    {.name = "SimplifiedLayerNormalization",
     .since = 1,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .traits = OP_FLOATS,
     .max_outputs = 2,
     .infer = layer_norm_infer,
     .eval = eval_expanded,
     .expand = simplified_expand,
     .no_case = "an operator of ONNX Runtime, not of ONNX"},
    {.domain = "com.microsoft",
     .name = "SkipLayerNormalization",
     .since = 1,
     .last = 1,
     .min_inputs = 3,
     .max_inputs = 5,
     .min_outputs = 1,
     .traits = OP_ALIKE | OP_FLOATS,
     .max_outputs = 4,
     .infer = skip_infer,
     .eval = eval_expanded,
     .expand = skip_expand},
    {.domain = "com.microsoft",
     .name = "SkipSimplifiedLayerNormalization",
     .since = 1,
     .last = 1,
     .min_inputs = 3,
     .max_inputs = 4,
     .min_outputs = 1,
     .traits = OP_ALIKE | OP_FLOATS,
     .max_outputs = 4,
     .infer = skip_infer,
     .eval = eval_expanded,
     .expand = skip_expand},
    {0},
};
