/* Family: convolutions of quantized tensors. Both rows subtract zero points, convolve in double (exact: every product
 * is below 2^16 and sums stay below 2^53) and, for QLinearConv, scale and round back. They run through eval: quantized
 * nets are read, folded and evaluated here, not trained. */
#include <math.h>

#include "runtime/ops/conv.h"
#include "runtime/ops/wide.h"

/* Where each row has its inputs; -1: it has none of that kind. */
typedef struct Places {
    int x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias;
} Places;

static const Places places_integer = {0, -1, 2, 1, -1, 3, -1, -1, -1};
static const Places places_qlinear = {0, 1, 2, 3, 4, 5, 6, 7, 8};

/* ---- infer --------------------------------------------------------------------------------------------------- */

static Status shape_at(const Node *node, const Places *at, ConvShape *shape, Error *err)
{
    const Type *x = &node->inputs[at->x]->type, *w = &node->inputs[at->w]->type;
    if (x->rank < 3 || w->rank != x->rank)
        return infer_fail(node, err, "input of rank %d and weights of rank %d", x->rank, w->rank);
    if (node_int(node, "group", 1) < 1)
        return infer_fail(node, err, "attribute group is %lld", (long long)node_int(node, "group", 1));
    return conv_shape(node, x->rank, x->dims, w->dims, shape, err);
}

static Status conv_integer_infer(Node *node, Error *err)
{
    ConvShape shape;
    int64_t dims[RANK_MAX];
    TRY(shape_at(node, &places_integer, &shape, err));
    conv_shape_y(&shape, dims);
    type_set(&node->outputs[0]->type, DTYPE_I32, shape.window.rank + 2, dims);
    return STATUS_OK;
}

static Status qlinear_conv_infer(Node *node, Error *err)
{
    ConvShape shape;
    int64_t dims[RANK_MAX];
    TRY(shape_at(node, &places_qlinear, &shape, err));
    conv_shape_y(&shape, dims);
    type_set(&node->outputs[0]->type, node->inputs[places_qlinear.y_zero]->type.dtype, shape.window.rank + 2, dims);
    return STATUS_OK;
}

/* ---- eval ---------------------------------------------------------------------------------------------------- */

/* Input `index` less its zero point: one for all, or one for each index of the first dim. A copy. */
static Status centred(EvalContext *context, int index, int zero_index, double **out, Error *err)
{
    const Array *array = eval_input(context, index);
    const Array *zero = zero_index >= 0 ? eval_input(context, zero_index) : NULL;
    const double *values, *zeros;
    TRY(wide_input(context, index, &values, err));
    TRY(wide_input(context, zero_index, &zeros, err));
    TRY(wide_scratch(context, array->count, out, err));
    bool each = zero != NULL && zero->count > 1;
    if (zero != NULL && zero->count == 0)
        return eval_fail(context, err, "input %d has no elements", zero_index);
    if (each && zero->count != array->dims[0])
        return eval_fail(context, err, "%lld zero points for %lld filters", (long long)zero->count,
                         (long long)array->dims[0]);
    int64_t run = each && array->dims[0] > 0 ? array->count / array->dims[0] : array->count;
    for (int64_t i = 0; i < array->count; i++)
        (*out)[i] = values[i] - (zeros == NULL ? 0 : zeros[each ? i / run : 0]);
    return STATUS_OK;
}

/* The convolution of centred inputs into `sum`, with QLinearConv's integer bias. */
static Status convolve(EvalContext *context, const Places *at, ConvShape *shape, double **sum, Error *err)
{
    const Array *x = eval_input(context, at->x), *w = eval_input(context, at->w);
    double *from, *weights;
    const double *bias = NULL;
    TRY(conv_shape(context->node, x->rank, x->dims, w->dims, shape, err));
    TRY(centred(context, at->x, at->x_zero, &from, err));
    TRY(centred(context, at->w, at->w_zero, &weights, err));
    if (at->bias >= 0)
        TRY(wide_input(context, at->bias, &bias, err));
    TRY(wide_scratch(context, shape->batch * shape->out_channels * shape->window.out_count, sum, err));
    conv_wide_forward(shape, from, weights, *sum);
    if (bias != NULL)
        conv_wide_bias(shape->batch, shape->out_channels, shape->window.out_count, bias, *sum);
    return STATUS_OK;
}

static Status conv_integer_eval(EvalContext *context, Error *err)
{
    ConvShape shape;
    double *sum;
    int64_t dims[RANK_MAX];
    Array *y;
    TRY(convolve(context, &places_integer, &shape, &sum, err));
    conv_shape_y(&shape, dims);
    TRY(eval_output(context, 0, DTYPE_I32, shape.window.rank + 2, dims, &y, err));
    for (int64_t i = 0; i < y->count; i++)
        ((int32_t *)y->data)[i] = (int32_t)(uint32_t)(int64_t)sum[i]; /* wraps as 32-bit accumulators do */
    return STATUS_OK;
}

/* y = saturate(round(sum * x_scale * w_scale / y_scale) + y_zero),  QLinearConv-10 */
static Status qlinear_conv_eval(EvalContext *context, Error *err)
{
    const Places *at = &places_qlinear;
    const double *x_scale, *w_scale, *y_scale, *y_zero;
    ConvShape shape;
    double *sum;
    int64_t dims[RANK_MAX];
    WideOutput y;
    TRY(convolve(context, at, &shape, &sum, err));
    TRY(wide_input(context, at->x_scale, &x_scale, err));
    TRY(wide_input(context, at->w_scale, &w_scale, err));
    TRY(wide_input(context, at->y_scale, &y_scale, err));
    TRY(wide_input(context, at->y_zero, &y_zero, err));
    int64_t scales = eval_input(context, at->w_scale)->count;
    if (scales != 1 && scales != shape.out_channels)
        return eval_fail(context, err, "%lld weight scales for %lld filters", (long long)scales,
                         (long long)shape.out_channels);
    conv_shape_y(&shape, dims);
    TRY(wide_output(context, 0, eval_input(context, at->y_zero)->dtype, shape.window.rank + 2, dims, &y, err));
    for (int64_t i = 0; i < y.array->count; i++) {
        int64_t channel = i / shape.window.out_count % shape.out_channels;
        y.data[i] = rint(sum[i] * (x_scale[0] * w_scale[scales == 1 ? 0 : channel] / y_scale[0])) + y_zero[0];
    }
    wide_store(&y);
    return STATUS_OK;
}

const OpDef ops_conv_integer[] = {
    {.name = "ConvInteger",
     .since = 10,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = conv_integer_infer,
     .eval = conv_integer_eval,
     .no_gradient = "integers carry no gradient"},
    {.name = "QLinearConv",
     .since = 10,
     .last = 28,
     .min_inputs = 8,
     .max_inputs = 9,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = qlinear_conv_infer,
     .eval = qlinear_conv_eval,
     .no_gradient = "integers carry no gradient"},
    {0},
};
