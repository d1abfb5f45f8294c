/* Family: pooling over regions of interest. RoiAlign samples each bin at fixed points by bilinear interpolation,
 * MaxRoiPool takes the maximum of each bin's whole pixels. Both walk regions, channels and bins the same way; gradients
 * (RoiAlignGrad, MaxRoiPoolGrad: inputs dy and those of the row) walk it again and scatter. Regions themselves carry no
 * gradient. Rare on trained paths, so everything runs through eval. */
#include <math.h>
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/wide.h"

/* ---- shapes --------------------------------------------------------------------------------------------------- */

static Status roi_dims(const Node *node, const Type *x, const Type *rois, int64_t dims[4], Error *err)
{
    bool align = strncmp(node->op_type, "RoiAlign", 8) == 0;
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != (align ? 4 : 5))
        return infer_fail(node, err, "input %s with regions %s", type_text(&node->graph->model->arena, x),
                          type_text(&node->graph->model->arena, rois));
    dims[0] = rois->dims[0];
    dims[1] = x->dims[1];
    dims[2] = node_int(node, "output_height", 1);
    dims[3] = node_int(node, "output_width", 1);
    if (!align) {
        size_t count = 0;
        const int64_t *shape = node_ints(node, "pooled_shape", &count);
        if (count != 2)
            return infer_fail(node, err, "attribute pooled_shape has %zu elements", count);
        dims[2] = shape[0];
        dims[3] = shape[1];
    }
    if (dims[2] < 1 || dims[3] < 1)
        return infer_fail(node, err, "regions become %lld x %lld", (long long)dims[2], (long long)dims[3]);
    return STATUS_OK;
}

static Status roi_infer(Node *node, Error *err)
{
    int64_t dims[4];
    TRY(roi_dims(node, &node->inputs[0]->type, &node->inputs[1]->type, dims, err));
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, 4, dims);
    return STATUS_OK;
}

static Status roi_grad_infer(Node *node, Error *err)
{
    (void)err;
    node->outputs[0]->type = node->inputs[1]->type;
    return STATUS_OK;
}

/* Up to opset 15 coordinates were not shifted by half a pixel. */
static Status roi_align_upgrade(Node *node, Error *err)
{
    (void)err;
    if (node->opset < 16 && node_attr(node, "coordinate_transformation_mode") == NULL)
        node_set_string(node, "coordinate_transformation_mode", "output_half_pixel");
    return STATUS_OK;
}

/* ---- walking -------------------------------------------------------------------------------------------------- */

/* One plane of x and one bin of one region. */
typedef struct Bin {
    double top, left, height, width; /* in pixels of x */
    int64_t rows, columns;           /* of the plane */
    int64_t down, across;            /* RoiAlign: sampling points */
    bool maximum;
} Bin;

typedef struct Sample {
    int64_t at[4];
    double weight[4];
} Sample;

/* The four pixels around (y, x) with their weights; all zero outside. */
static Sample sample_at(const Bin *bin, double y, double x)
{
    Sample s = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    if (y < -1 || y > (double)bin->rows || x < -1 || x > (double)bin->columns)
        return s;
    y = fmin(fmax(y, 0), (double)(bin->rows - 1));
    x = fmin(fmax(x, 0), (double)(bin->columns - 1));
    int64_t top = (int64_t)y, left = (int64_t)x;
    int64_t bottom = top + 1 < bin->rows ? top + 1 : top, right = left + 1 < bin->columns ? left + 1 : left;
    double down = y - (double)top, across = x - (double)left;
    s = (Sample){{top * bin->columns + left, top * bin->columns + right, bottom * bin->columns + left,
                  bottom * bin->columns + right},
                 {(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across}};
    return s;
}

static Sample bin_sample(const Bin *bin, int64_t i)
{
    double y = bin->top + ((double)(i / bin->across) + 0.5) * bin->height / (double)bin->down;
    double x = bin->left + ((double)(i % bin->across) + 0.5) * bin->width / (double)bin->across;
    return sample_at(bin, y, x);
}

/* Average: mean of the samples. Maximum: of every weighted corner, as the reference of ONNX has it. With `dx` it
 * scatters `dy` instead of reading. */
static double align_bin(const Bin *bin, const double *x, double dy, double *dx)
{
    int64_t points = bin->down * bin->across, best = -1;
    double sum = 0, highest = 0, share = dy / (double)(points > 0 ? points : 1);
    for (int64_t i = 0; i < points; i++) {
        Sample s = bin_sample(bin, i);
        for (int k = 0; k < 4; k++) {
            double value = s.weight[k] * x[s.at[k]];
            sum += value;
            if (dx != NULL && !bin->maximum)
                dx[s.at[k]] += share * s.weight[k];
            if (best < 0 || value > highest) {
                best = 4 * i + k;
                highest = value;
            }
        }
    }
    if (dx != NULL && bin->maximum && best >= 0) {
        Sample s = bin_sample(bin, best / 4);
        dx[s.at[best % 4]] += dy * s.weight[best % 4];
    }
    return bin->maximum ? highest : points > 0 ? sum / (double)points : 0;
}

static int64_t clamp(double value, int64_t high)
{
    return value < 0 ? 0 : value > (double)high ? high : (int64_t)value;
}

/* Pixels from floor of the bin's begin to ceil of its end; an empty bin gives 0. */
static double max_bin(const Bin *bin, const double *x, double dy, double *dx)
{
    int64_t top = clamp(floor(bin->top), bin->rows), bottom = clamp(ceil(bin->top + bin->height), bin->rows);
    int64_t left = clamp(floor(bin->left), bin->columns), right = clamp(ceil(bin->left + bin->width), bin->columns);
    int64_t best = -1;
    for (int64_t r = top; r < bottom; r++)
        for (int64_t c = left; c < right; c++)
            if (best < 0 || x[r * bin->columns + c] > x[best])
                best = r * bin->columns + c;
    if (best >= 0 && dx != NULL)
        dx[best] += dy;
    return best >= 0 ? x[best] : 0;
}

enum { SIDE_MOST = 1 << 16 };

/* One for each pixel of a bin's side; -1: no image has such a side. */
static int64_t sampling_points(double side)
{
    return side <= 0 ? 0 : side <= (double)SIDE_MOST ? (int64_t)ceil(side) : -1;
}

/* The bin of region `rois` at (row, column) of an output of `dims`. */
static Bin align_bin_at(const Node *node, const double *roi, const int64_t dims[4], int64_t row, int64_t column)
{
    bool shifted = strcmp(node_string(node, "coordinate_transformation_mode", "half_pixel"), "half_pixel") == 0;
    double scale = (double)node_float(node, "spatial_scale", 1.0f), shift = shifted ? 0.5 : 0;
    int64_t ratio = node_int(node, "sampling_ratio", 0);
    double left = roi[0] * scale - shift, top = roi[1] * scale - shift;
    double width = roi[2] * scale - shift - left, height = roi[3] * scale - shift - top;
    Bin bin = {.maximum = strcmp(node_string(node, "mode", "avg"), "max") == 0};
    if (!shifted) {
        width = fmax(width, 1);
        height = fmax(height, 1);
    }
    bin.height = height / (double)dims[2];
    bin.width = width / (double)dims[3];
    bin.top = top + (double)row * bin.height;
    bin.left = left + (double)column * bin.width;
    bin.down = ratio > 0 ? ratio : sampling_points(bin.height);
    bin.across = ratio > 0 ? ratio : sampling_points(bin.width);
    return bin;
}

static Bin max_bin_at(const Node *node, const double *roi, const int64_t dims[4], int64_t row, int64_t column)
{
    double scale = (double)node_float(node, "spatial_scale", 1.0f);
    double left = round(roi[1] * scale), top = round(roi[2] * scale);
    double width = fmax(round(roi[3] * scale) - left + 1, 1), height = fmax(round(roi[4] * scale) - top + 1, 1);
    Bin bin = {.height = height / (double)dims[2], .width = width / (double)dims[3]};
    bin.top = top + floor((double)row * bin.height);
    bin.left = left + floor((double)column * bin.width);
    bin.height = top + ceil((double)(row + 1) * bin.height) - bin.top;
    bin.width = left + ceil((double)(column + 1) * bin.width) - bin.left;
    return bin;
}

/* Walks all bins: fills `y`, or scatters `dy` into `dx`. */
static Status walk(EvalContext *context, int first, const int64_t dims[4], double *y, const double *dy, double *dx,
                   Error *err)
{
    const Node *node = context->node;
    const Array *x = eval_input(context, first), *batch = eval_input(context, first + 2);
    const double *from, *rois;
    bool align = strncmp(node->op_type, "RoiAlign", 8) == 0;
    TRY(wide_input(context, first, &from, err));
    TRY(wide_input(context, first + 1, &rois, err));
    for (int64_t i = 0; i < dims[0] * dims[1] * dims[2] * dims[3]; i++) {
        int64_t column = i % dims[3], row = i / dims[3] % dims[2], c = i / dims[3] / dims[2] % dims[1];
        int64_t region = i / dims[3] / dims[2] / dims[1];
        int64_t n = align ? array_i64_at(batch, region) : (int64_t)rois[region * 5];
        if (n < 0 || n >= x->dims[0])
            return eval_fail(context, err, "region %lld lies in image %lld of %lld", (long long)region, (long long)n,
                             (long long)x->dims[0]);
        Bin bin = align ? align_bin_at(node, rois + region * 4, dims, row, column)
                        : max_bin_at(node, rois + region * 5, dims, row, column);
        if (bin.down < 0 || bin.across < 0)
            return eval_fail(context, err, "region %lld is %g x %g pixels a bin", (long long)region, bin.height,
                             bin.width);
        bin.rows = x->dims[2];
        bin.columns = x->dims[3];
        int64_t plane = (n * dims[1] + c) * bin.rows * bin.columns;
        double given = dy == NULL ? 0 : dy[i];
        double value = align ? align_bin(&bin, from + plane, given, dx == NULL ? NULL : dx + plane)
                             : max_bin(&bin, from + plane, given, dx == NULL ? NULL : dx + plane);
        if (y != NULL)
            y[i] = value;
    }
    return STATUS_OK;
}

/* ---- eval, grad ------------------------------------------------------------------------------------------------ */

static void dims_of(const Node *node, const Array *x, const Array *rois, int64_t dims[4])
{
    size_t count = 0;
    const int64_t *shape = node_ints(node, "pooled_shape", &count);
    dims[0] = rois->dims[0];
    dims[1] = x->dims[1];
    dims[2] = count == 2 ? shape[0] : node_int(node, "output_height", 1);
    dims[3] = count == 2 ? shape[1] : node_int(node, "output_width", 1);
}

static Status roi_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    int64_t dims[4];
    WideOutput y;
    dims_of(context->node, x, eval_input(context, 1), dims);
    TRY(wide_output(context, 0, x->dtype, 4, dims, &y, err));
    TRY(walk(context, 0, dims, y.data, NULL, NULL, err));
    wide_store(&y);
    return STATUS_OK;
}

static Status roi_grad_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 1);
    const double *dy;
    int64_t dims[4];
    WideOutput dx;
    dims_of(context->node, x, eval_input(context, 2), dims);
    TRY(wide_input(context, 0, &dy, err));
    TRY(wide_output_like(context, 0, x, &dx, err));
    TRY(walk(context, 1, dims, NULL, dy, dx.data, err));
    wide_store(&dx);
    return STATUS_OK;
}

static Status roi_grad(GradContext *context, Error *err)
{
    const Node *node = context->node;
    bool align = strcmp(node->op_type, "RoiAlign") == 0;
    Value *inputs[] = {context->dy[0], node->inputs[0], node->inputs[1], align ? node->inputs[2] : NULL};
    for (int i = 1; i < node->input_count; i++)
        if (context->wants[i])
            return node_unsupported(node, err, "no gradient with respect to the regions");
    if (!context->wants[0])
        return STATUS_OK;
    Node *gradient =
        build_node(&context->b, DOMAIN_INTERNAL, align ? "RoiAlignGrad" : "MaxRoiPoolGrad", inputs, align ? 4 : 3, 1);
    if (gradient == NULL)
        return context->b.status;
    node_copy_attrs(gradient, node);
    context->dx[0] = build_finish(&context->b, gradient);
    return context->b.status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

const OpDef ops_roi[] = {
    {.name = "RoiAlign",
     .since = 10,
     .last = 28,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = roi_infer,
     .eval = roi_eval,
     .grad = roi_grad,
     .upgrade = roi_align_upgrade},
    {.name = "MaxRoiPool",
     .since = 1,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = roi_infer,
     .eval = roi_eval,
     .grad = roi_grad,
     .no_case = "ONNX has no node test of it"},
    {.domain = DOMAIN_INTERNAL,
     .name = "RoiAlignGrad",
     .min_inputs = 4,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = roi_grad_infer,
     .eval = roi_grad_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of RoiAlign"},
    {.domain = DOMAIN_INTERNAL,
     .name = "MaxRoiPoolGrad",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = roi_grad_infer,
     .eval = roi_grad_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of MaxRoiPool"},
    {0},
};
