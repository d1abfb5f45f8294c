/* Family: deformable convolution (Dai et al. 2017; with a mask Zhu et al. 2018), for any number of spatial dims. Each
 * kernel element reads its input at the usual place plus an offset, between pixels, and outside reads zero:
 *     y[n,o,p] = bias[o] + sum over i, k of  w[o,i,k] * mask[n,g,k,p] * x[n,i, p*stride - begin + k*dilation +
 * offset[n,g,k,:,p]] where g is the offset group of channel i. The gradient DeformConvGrad(dy, x, w, offset, mask)
 * gives dx, dw, doffset, dmask. Runs through eval. */
#include <string.h>

#include "runtime/ops/conv.h"
#include "runtime/ops/sample.h"
#include "runtime/ops/wide.h"

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

enum { AT_X, AT_W, AT_OFFSET, AT_BIAS, AT_MASK }; /* inputs of DeformConv */

static Status offset_groups(const Node *node, const ConvShape *shape, int64_t *groups, Error *err)
{
    *groups = node_int(node, "offset_group", 1);
    if (*groups < 1 || shape->in_channels % *groups != 0)
        return infer_fail(node, err, "%lld channels in %lld offset groups", (long long)shape->in_channels,
                          (long long)*groups);
    return STATUS_OK;
}

/* [N, channels, out...] is what offset and mask must be. */
static Status check_field(const Node *node, int index, const ConvShape *shape, int64_t channels, Error *err)
{
    const Value *value = node_input(node, index);
    int64_t dims[RANK_MAX];
    if (value == NULL)
        return STATUS_OK;
    conv_shape_y(shape, dims);
    dims[1] = channels;
    int rank = shape->window.rank + 2;
    if (value->type.rank != rank || memcmp(value->type.dims, dims, (size_t)rank * sizeof dims[0]) != 0)
        return infer_fail(node, err, "input %d is %s where %s is expected", index,
                          type_text(&node->graph->model->arena, &value->type),
                          dims_text(&node->graph->model->arena, rank, dims));
    return STATUS_OK;
}

static Status deform_conv_infer(Node *node, Error *err)
{
    ConvShape shape;
    int64_t dims[RANK_MAX], groups = 0;
    TRY(conv_shape_of(node, &shape, err));
    TRY(offset_groups(node, &shape, &groups, err));
    TRY(check_field(node, AT_OFFSET, &shape, groups * shape.window.kernel_count * shape.window.rank, err));
    TRY(check_field(node, AT_MASK, &shape, groups * shape.window.kernel_count, err));
    conv_shape_y(&shape, dims);
    type_set(&node->outputs[0]->type, node->inputs[AT_X]->type.dtype, shape.window.rank + 2, dims);
    return STATUS_OK;
}

static Status deform_conv_grad_infer(Node *node, Error *err)
{
    (void)err;
    for (int i = 0; i < node->output_count; i++)
        node->outputs[i]->type = node->inputs[i + 1]->type;
    return STATUS_OK;
}

/* ---- walking ----------------------------------------------------------------------------------------------------- */

typedef struct Walk {
    ConvShape shape;
    int64_t groups, each; /* offset groups, channels of one */
    const double *x, *w, *offset, *mask, *dy;
    double *y, *dx, *dw, *doffset, *dmask;
    Pixel *pixels;
} Walk;

static Status walk_make(EvalContext *context, int first, int mask_index, Walk *walk, Error *err)
{
    const Array *x = eval_input(context, first), *w = eval_input(context, first + 1);
    *walk = (Walk){0};
    TRY(conv_shape(context->node, x->rank, x->dims, w->dims, &walk->shape, err));
    TRY(offset_groups(context->node, &walk->shape, &walk->groups, err));
    walk->each = walk->shape.in_channels / walk->groups;
    TRY(wide_input(context, first, &walk->x, err));
    TRY(wide_input(context, first + 1, &walk->w, err));
    TRY(wide_input(context, first + 2, &walk->offset, err));
    TRY(wide_input(context, mask_index, &walk->mask, err));
    walk->pixels = arena_array(context->arena, Pixel, (size_t)1 << walk->shape.window.rank);
    return STATUS_OK;
}

/* Index of element (n, g, k) of a field with `parts` numbers for each kernel element, at output 0. */
static int64_t field_at(const Walk *walk, int64_t n, int64_t g, int64_t k, int64_t parts)
{
    const Window *window = &walk->shape.window;
    return ((n * walk->groups + g) * window->kernel_count + k) * parts * window->out_count;
}

/* The pixels that kernel element k of offset group g reads for output p of sample n. */
static int64_t pixels_at(const Walk *walk, int64_t n, int64_t g, int64_t k, int64_t p)
{
    const Window *window = &walk->shape.window;
    const double *offset = walk->offset + field_at(walk, n, g, k, window->rank) + p;
    Taps axes[RANK_MAX];
    for (int d = window->rank - 1; d >= 0; d--) {
        int64_t place =
            p % window->out[d] * window->stride[d] - window->begin[d] + k % window->kernel[d] * window->dilation[d];
        axes[d] = taps_linear((double)place + offset[d * window->out_count], window->in[d]);
        p /= window->out[d];
        k /= window->kernel[d];
    }
    return taps_product(axes, window->rank, window->in, walk->pixels);
}

/* Adds what channel i contributes through kernel element k to all output channels of its group. */
static void forward_channel(const Walk *walk, int64_t n, int64_t i, int64_t k, int64_t p, int64_t pixels, double mask)
{
    const ConvShape *s = &walk->shape;
    int64_t in_each = s->in_channels / s->groups, out_each = s->out_channels / s->groups, group = i / in_each;
    const double *x = walk->x + (n * s->in_channels + i) * s->window.in_count;
    double value = 0;
    for (int64_t t = 0; t < pixels; t++)
        value += walk->pixels[t].weight * x[walk->pixels[t].at];
    for (int64_t o = group * out_each; o < (group + 1) * out_each; o++)
        walk->y[(n * s->out_channels + o) * s->window.out_count + p] +=
            value * mask * walk->w[(o * in_each + i % in_each) * s->window.kernel_count + k];
}

static void backward_channel(const Walk *walk, int64_t n, int64_t g, int64_t i, int64_t k, int64_t p, int64_t pixels,
                             double mask)
{
    const ConvShape *s = &walk->shape;
    const Window *window = &s->window;
    int64_t in_each = s->in_channels / s->groups, out_each = s->out_channels / s->groups, group = i / in_each;
    const double *x = walk->x + (n * s->in_channels + i) * window->in_count;
    double *dx = walk->dx + (n * s->in_channels + i) * window->in_count, value = 0, dvalue = 0;
    for (int64_t t = 0; t < pixels; t++)
        value += walk->pixels[t].weight * x[walk->pixels[t].at];
    for (int64_t o = group * out_each; o < (group + 1) * out_each; o++) {
        int64_t weight = (o * in_each + i % in_each) * window->kernel_count + k;
        double dy = walk->dy[(n * s->out_channels + o) * window->out_count + p];
        walk->dw[weight] += dy * mask * value;
        dvalue += dy * walk->w[weight];
    }
    if (walk->dmask != NULL)
        walk->dmask[field_at(walk, n, g, k, 1) + p] += dvalue * value;
    double *doffset = walk->doffset + field_at(walk, n, g, k, window->rank) + p;
    for (int64_t t = 0; t < pixels; t++) {
        const Pixel *pixel = &walk->pixels[t];
        dx[pixel->at] += dvalue * mask * pixel->weight;
        for (int d = 0; d < window->rank; d++)
            doffset[d * window->out_count] += dvalue * mask * pixel->slope[d] * x[pixel->at];
    }
}

static void walk_all(const Walk *walk)
{
    const Window *window = &walk->shape.window;
    int64_t reads = walk->groups * window->kernel_count * window->out_count;
    for (int64_t r = 0; r < walk->shape.batch * reads; r++) {
        int64_t n = r / reads, p = r % window->out_count, k = r / window->out_count % window->kernel_count;
        int64_t g = r % reads / window->out_count / window->kernel_count;
        int64_t pixels = pixels_at(walk, n, g, k, p);
        double mask = walk->mask == NULL ? 1 : walk->mask[field_at(walk, n, g, k, 1) + p];
        for (int64_t i = g * walk->each; i < (g + 1) * walk->each; i++) {
            if (walk->y != NULL)
                forward_channel(walk, n, i, k, p, pixels, mask);
            else
                backward_channel(walk, n, g, i, k, p, pixels, mask);
        }
    }
}

/* ---- eval, grad -------------------------------------------------------------------------------------------------- */

static Status deform_conv_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, AT_X);
    const double *bias;
    int64_t dims[RANK_MAX];
    Walk walk;
    WideOutput y;
    TRY(walk_make(context, AT_X, AT_MASK, &walk, err));
    TRY(wide_input(context, AT_BIAS, &bias, err));
    conv_shape_y(&walk.shape, dims);
    TRY(wide_output(context, 0, x->dtype, x->rank, dims, &y, err));
    walk.y = y.data;
    walk_all(&walk);
    if (bias != NULL)
        conv_wide_bias(walk.shape.batch, walk.shape.out_channels, walk.shape.window.out_count, bias, y.data);
    wide_store(&y);
    return STATUS_OK;
}

static Status deform_conv_grad_eval(EvalContext *context, Error *err)
{
    Walk walk;
    WideOutput out[4];
    int count = eval_input(context, 4) != NULL ? 4 : 3;
    TRY(walk_make(context, 1, 4, &walk, err));
    TRY(wide_input(context, 0, &walk.dy, err));
    for (int i = 0; i < count; i++)
        TRY(wide_output_like(context, i, eval_input(context, i + 1), &out[i], err));
    walk.dx = out[0].data;
    walk.dw = out[1].data;
    walk.doffset = out[2].data;
    walk.dmask = count > 3 ? out[3].data : NULL;
    walk_all(&walk);
    for (int i = 0; i < count; i++)
        wide_store(&out[i]);
    return STATUS_OK;
}

static Status deform_conv_grad(GradContext *context, Error *err)
{
    (void)err;
    Builder *b = &context->b;
    const Node *node = context->node;
    Value *mask = node_input(node, AT_MASK);
    Value *inputs[] = {context->dy[0], node->inputs[AT_X], node->inputs[AT_W], node->inputs[AT_OFFSET], mask};
    if (node_input(node, AT_BIAS) != NULL && context->wants[AT_BIAS]) {
        Node *sum = build_node(b, DOMAIN_INTERNAL, "ChannelSum", &context->dy[0], 1, 1);
        context->dx[AT_BIAS] = sum == NULL ? NULL : build_finish(b, sum);
    }
    int count = mask != NULL ? 4 : 3;
    Node *gradient = build_node(b, DOMAIN_INTERNAL, "DeformConvGrad", inputs, count + 1, count);
    if (gradient == NULL)
        return b->status;
    node_copy_attrs(gradient, node);
    if (build_finish(b, gradient) == NULL)
        return b->status;
    const int places[] = {AT_X, AT_W, AT_OFFSET, AT_MASK};
    for (int i = 0; i < count; i++)
        if (context->wants[places[i]])
            context->dx[places[i]] = gradient->outputs[i];
    return STATUS_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

const OpDef ops_deform_conv[] = {
    {.name = "DeformConv",
     .since = 19,
     .last = 28,
     .min_inputs = 3,
     .max_inputs = 5,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = deform_conv_infer,
     .eval = deform_conv_eval,
     .grad = deform_conv_grad},
    {.domain = DOMAIN_INTERNAL,
     .name = "DeformConvGrad",
     .min_inputs = 4,
     .max_inputs = 5,
     .min_outputs = 3,
     .max_outputs = 4,
     .infer = deform_conv_grad_infer,
     .eval = deform_conv_grad_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of DeformConv"},
    {0},
};
