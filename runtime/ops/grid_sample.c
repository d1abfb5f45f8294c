/* Family: sampling at computed places. GridSample reads its input where a grid in [-1, 1] points, AffineGrid makes such
 * a grid from a matrix. Gradients are internal rows: GridSampleGrad(dy, x, grid): dx, dgrid, and AffineGridGrad(dgrid,
 * theta). Coordinates, padding and the order of both follow GridSample-22 and its reference implementation, but for
 * cubic taps beyond a border: these are clamped one by one, as PyTorch and ONNX Runtime do, where the reference clamps
 * the coordinate (and sees no slope there). Everything runs through eval. */
#include <math.h>
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/sample.h"
#include "runtime/ops/wide.h"

/* ---- taps ------------------------------------------------------------------------------------------------------ */

Taps taps_linear(double x, int64_t length)
{
    double low = floor(x), ratio = x - low;
    Taps taps = {.count = 2};
    if (!(x > -1 && x < (double)length)) /* NaN too */
        return (Taps){.items = {{-1, 0, 0}}, .count = 1};
    int64_t left = (int64_t)low;
    taps.items[0] = (Tap){left < 0 ? -1 : left, 1 - ratio, -1};
    taps.items[1] = (Tap){left + 1 >= length ? -1 : left + 1, ratio, 1};
    return taps;
}

int64_t taps_product(const Taps *axes, int rank, const int64_t *dims, Pixel *pixels)
{
    int64_t total = 1, used = 0;
    for (int d = 0; d < rank; d++)
        total *= axes[d].count;
    for (int64_t i = 0; i < total; i++) {
        Pixel pixel = {.weight = 1};
        int64_t rest = i, step = 1;
        bool inside = true;
        for (int d = 0; d < rank; d++)
            pixel.slope[d] = 1;
        for (int d = rank - 1; d >= 0; d--) {
            const Tap *tap = &axes[d].items[rest % axes[d].count];
            rest /= axes[d].count;
            inside = inside && tap->index >= 0;
            pixel.at += tap->index * step;
            step *= dims[d];
            pixel.weight *= tap->weight;
            for (int k = 0; k < rank; k++)
                pixel.slope[k] *= k == d ? tap->slope : tap->weight;
        }
        if (inside)
            pixels[used++] = pixel;
    }
    return used;
}

/* ---- coordinates of GridSample ----------------------------------------------------------------------------------- */

typedef enum Padding { PADDING_ZEROS, PADDING_BORDER, PADDING_REFLECTION } Padding;
typedef enum Mode { MODE_NEAREST, MODE_LINEAR, MODE_CUBIC } Mode;

typedef struct GridMode {
    Mode mode;
    Padding padding;
    bool align;
} GridMode;

static Status read_mode(const Node *node, GridMode *m, Error *err)
{
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    const char *mode = node_string(node, "mode", "linear"), *padding = node_string(node, "padding_mode", "zeros");
    int found = -1, padded = -1;
    for (int i = 0; i < 3; i++) {
        found = strcmp(mode, modes[i]) == 0 ? i : found;
        padded = strcmp(padding, paddings[i]) == 0 ? i : padded;
    }
    if (found < 0 || padded < 0)
        return infer_fail(node, err, "mode '%s' with padding '%s'", mode, padding);
    *m = (GridMode){(Mode)found, (Padding)padded, node_int(node, "align_corners", 0) != 0};
    return STATUS_OK;
}

/* Folds `x` back between the borders; *sign becomes the derivative. */
static double reflect(double x, double low, double high, double *sign)
{
    double range = high - low, over = x < low ? low - x : x - high;
    *sign = 1;
    if (x >= low && x <= high)
        return x;
    if (!(range > 0) || !isfinite(over)) {
        *sign = 0;
        return low;
    }
    double turns = floor(over / range), rest = over - turns * range;
    bool even = fmod(turns, 2) == 0;
    *sign = even ? -1 : 1;
    return (x < low) == even ? low + rest : high - rest;
}

typedef struct Borders {
    double low, high;
} Borders;

static Borders borders_of(const GridMode *m, int64_t length)
{
    return m->align ? (Borders){0, (double)(length - 1)} : (Borders){-0.5, (double)length - 0.5};
}

/* The pixel that stands at place `i` along an axis; -1: none. */
static int64_t padded_index(const GridMode *m, int64_t i, int64_t length)
{
    double sign;
    if (i >= 0 && i < length)
        return i;
    if (m->padding == PADDING_ZEROS)
        return -1;
    if (m->padding == PADDING_BORDER)
        return i < 0 ? 0 : length - 1;
    Borders b = borders_of(m, length);
    int64_t at = (int64_t)reflect((double)i, b.low, b.high, &sign);
    return at < 0 ? 0 : at >= length ? length - 1 : at;
}

/* Keys 1981 with a = -0.75: weight and slope at signed distance t. */
static void cubic(double t, double *weight, double *slope)
{
    const double a = -0.75, x = fabs(t), sign = t < 0 ? -1 : 1;
    if (x <= 1) {
        *weight = ((a + 2) * x - (a + 3)) * x * x + 1;
        *slope = sign * (3 * (a + 2) * x - 2 * (a + 3)) * x;
    } else {
        *weight = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
        *slope = sign * ((3 * a * x - 10 * a) * x + 8 * a);
    }
}

/* Taps along one axis for the grid's number `g`; slopes are by g. */
static Taps grid_taps(const GridMode *m, double g, int64_t length)
{
    double scale = m->align ? (double)(length - 1) / 2 : (double)length / 2, sign = 1;
    double x = m->align ? (g + 1) * scale : (g + 1) * scale - 0.5;
    Borders b = borders_of(m, length);
    Taps taps = {.count = m->mode == MODE_NEAREST ? 1 : m->mode == MODE_LINEAR ? 2 : 4};
    if (m->mode == MODE_NEAREST)
        x = rint(x);
    if (!(x >= b.low && x <= b.high)) {
        if (m->padding == PADDING_BORDER && m->mode == MODE_CUBIC && fabs(x) < 1e15) {
            sign = 1; /* x stays: each tap takes the border's pixel, so the curve goes on beyond the border */
        } else if (m->padding == PADDING_BORDER) {
            x = x < b.low ? 0 : (double)(length - 1);
            sign = 0;
        } else if (m->padding == PADDING_REFLECTION) {
            x = reflect(x, b.low, b.high, &sign);
        }
    }
    if (!(fabs(x) < 1e15)) /* too far, or NaN: nothing is there */
        return (Taps){.items = {{-1, 0, 0}}, .count = 1};
    double low = m->mode == MODE_NEAREST ? trunc(x) : floor(x);
    for (int i = 0; i < taps.count; i++) {
        Tap *tap = &taps.items[i];
        int64_t place = (int64_t)low + (m->mode == MODE_CUBIC ? i - 1 : i);
        double distance = x - (double)place;
        tap->index = padded_index(m, place, length);
        if (m->mode == MODE_NEAREST) {
            *tap = (Tap){tap->index, 1, 0};
        } else if (m->mode == MODE_LINEAR) {
            tap->weight = 1 - fabs(distance);
            tap->slope = (i == 0 ? -1 : 1) * scale * sign;
        } else {
            cubic(distance, &tap->weight, &tap->slope);
            tap->slope *= scale * sign;
        }
    }
    return taps;
}

/* ---- GridSample -------------------------------------------------------------------------------------------------- */

static Status grid_sample_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type, *grid = &node->inputs[1]->type;
    int64_t dims[RANK_MAX];
    GridMode mode;
    TRY(read_mode(node, &mode, err));
    if (x->rank < 3 || grid->rank != x->rank || grid->dims[grid->rank - 1] != x->rank - 2 ||
        grid->dims[0] != x->dims[0])
        return infer_fail(node, err, "input %s with grid %s", type_text(&node->graph->model->arena, x),
                          type_text(&node->graph->model->arena, grid));
    dims[0] = x->dims[0];
    dims[1] = x->dims[1];
    for (int i = 2; i < x->rank; i++)
        dims[i] = grid->dims[i - 1];
    type_set(&node->outputs[0]->type, x->dtype, x->rank, dims);
    return STATUS_OK;
}

static Status grid_sample_grad_infer(Node *node, Error *err)
{
    (void)err;
    node->outputs[0]->type = node->inputs[1]->type;
    node->outputs[1]->type = node->inputs[2]->type;
    return STATUS_OK;
}

static Status grid_sample_upgrade(Node *node, Error *err)
{
    (void)err;
    const char *mode = node_string(node, "mode", "bilinear");
    if (strcmp(mode, "bilinear") == 0)
        node_set_string(node, "mode", "linear");
    else if (strcmp(mode, "bicubic") == 0)
        node_set_string(node, "mode", "cubic");
    return STATUS_OK;
}

/* What both directions walk: every output position of every sample. */
typedef struct Walk {
    int rank; /* spatial dims */
    const int64_t *dims;
    int64_t batch, channels, plane, points; /* plane: of x; points: of y */
    const double *x, *grid, *dy;
    double *y, *dx, *dgrid;
    GridMode mode;
    Pixel *pixels;
} Walk;

static Status walk_make(EvalContext *context, int first, Walk *w, Error *err)
{
    const Array *x = eval_input(context, first), *grid = eval_input(context, first + 1);
    int64_t most = 1;
    *w = (Walk){.rank = x->rank - 2, .dims = x->dims + 2, .batch = x->dims[0], .channels = x->dims[1]};
    w->plane = dims_count(w->rank, w->dims);
    w->points = dims_count(w->rank, grid->dims + 1);
    TRY(read_mode(context->node, &w->mode, err));
    TRY(wide_input(context, first, &w->x, err));
    TRY(wide_input(context, first + 1, &w->grid, err));
    for (int i = 0; i < w->rank; i++)
        most *= 4;
    w->pixels = arena_array(context->arena, Pixel, (size_t)most);
    return STATUS_OK;
}

/* The pixels that output `point` of sample `n` reads. The grid lists the innermost axis first. */
static int64_t pixels_at(const Walk *w, int64_t n, int64_t point)
{
    const double *place = w->grid + (n * w->points + point) * w->rank;
    Taps axes[RANK_MAX];
    for (int d = 0; d < w->rank; d++)
        axes[d] = grid_taps(&w->mode, place[w->rank - 1 - d], w->dims[d]);
    return taps_product(axes, w->rank, w->dims, w->pixels);
}

static void sample_point(const Walk *w, int64_t n, int64_t point)
{
    int64_t count = pixels_at(w, n, point);
    for (int64_t c = 0; c < w->channels; c++) {
        const double *x = w->x + (n * w->channels + c) * w->plane;
        double sum = 0;
        for (int64_t i = 0; i < count; i++)
            sum += w->pixels[i].weight * x[w->pixels[i].at];
        w->y[(n * w->channels + c) * w->points + point] = sum;
    }
}

static void scatter_point(const Walk *w, int64_t n, int64_t point)
{
    int64_t count = pixels_at(w, n, point);
    double *dgrid = w->dgrid + (n * w->points + point) * w->rank;
    for (int64_t c = 0; c < w->channels; c++) {
        int64_t plane = (n * w->channels + c) * w->plane;
        double dy = w->dy[(n * w->channels + c) * w->points + point];
        for (int64_t i = 0; i < count; i++) {
            const Pixel *pixel = &w->pixels[i];
            w->dx[plane + pixel->at] += dy * pixel->weight;
            for (int d = 0; d < w->rank; d++)
                dgrid[w->rank - 1 - d] += dy * pixel->slope[d] * w->x[plane + pixel->at];
        }
    }
}

static Status grid_sample_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0), *grid = eval_input(context, 1);
    int64_t dims[RANK_MAX] = {x->dims[0], x->dims[1]};
    Walk w;
    WideOutput y;
    TRY(walk_make(context, 0, &w, err));
    memcpy(dims + 2, grid->dims + 1, (size_t)w.rank * sizeof dims[0]);
    TRY(wide_output(context, 0, x->dtype, x->rank, dims, &y, err));
    w.y = y.data;
    for (int64_t i = 0; i < w.batch * w.points; i++)
        sample_point(&w, i / w.points, i % w.points);
    for (int64_t i = 0; i < y.array->count && !dtype_is_float(x->dtype); i++)
        y.data[i] = trunc(y.data[i]);
    wide_store(&y);
    return STATUS_OK;
}

static Status grid_sample_grad_eval(EvalContext *context, Error *err)
{
    Walk w;
    WideOutput dx, dgrid;
    TRY(walk_make(context, 1, &w, err));
    TRY(wide_input(context, 0, &w.dy, err));
    TRY(wide_output_like(context, 0, eval_input(context, 1), &dx, err));
    TRY(wide_output_like(context, 1, eval_input(context, 2), &dgrid, err));
    w.dx = dx.data;
    w.dgrid = dgrid.data;
    for (int64_t i = 0; i < w.batch * w.points; i++)
        scatter_point(&w, i / w.points, i % w.points);
    wide_store(&dx);
    wide_store(&dgrid);
    return STATUS_OK;
}

static Status grid_sample_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *node = context->node;
    Value *inputs[] = {context->dy[0], node->inputs[0], node->inputs[1]};
    Node *gradient = build_node(&context->b, DOMAIN_INTERNAL, "GridSampleGrad", inputs, 3, 2);
    if (gradient == NULL)
        return context->b.status;
    node_copy_attrs(gradient, node);
    if (build_finish(&context->b, gradient) != NULL)
        for (int i = 0; i < 2; i++)
            if (context->wants[i])
                context->dx[i] = gradient->outputs[i];
    return context->b.status;
}

/* ---- AffineGrid -------------------------------------------------------------------------------------------------- */

/* Place i of `length` between -1 and 1. */
static double base_coordinate(int64_t i, int64_t length, bool align)
{
    if (align)
        return length > 1 ? -1 + 2 * (double)i / (double)(length - 1) : 0;
    return (2 * (double)i + 1) / (double)length - 1;
}

/* [x, y(, z), 1] of position `point` of an image of `dims` (outermost first). */
static void base_point(int rank, const int64_t *dims, int64_t point, bool align, double *place)
{
    for (int d = rank - 1; d >= 0; d--) {
        place[rank - 1 - d] = base_coordinate(point % dims[d], dims[d], align);
        point /= dims[d];
    }
    place[rank] = 1;
}

static Status check_theta(const Node *node, const Type *theta, Error *err)
{
    if (theta->rank != 3 || theta->dims[1] < 2 || theta->dims[1] > 3 || theta->dims[2] != theta->dims[1] + 1)
        return infer_fail(node, err, "theta %s where [N,2,3] or [N,3,4] is expected",
                          type_text(&node->graph->model->arena, theta));
    return STATUS_OK;
}

static Status affine_grid_infer(Node *node, Error *err)
{
    const Type *theta = &node->inputs[0]->type;
    const int64_t *size = NULL;
    size_t count = 0;
    int64_t dims[RANK_MAX];
    TRY(check_theta(node, theta, err));
    int rank = (int)theta->dims[1];
    if (!infer_has_ints(node, 1)) {
        node->outputs[0]->type = (Type){.kind = TYPE_TENSOR, .dtype = theta->dtype, .rank = -1};
        return STATUS_OK;
    }
    TRY(infer_ints(node, 1, &size, &count, err));
    if (count != (size_t)rank + 2 || size[0] != theta->dims[0])
        return infer_fail(node, err, "size has %zu elements, batch %lld, for theta %s", count,
                          (long long)(count > 0 ? size[0] : 0), type_text(&node->graph->model->arena, theta));
    dims[0] = size[0];
    memcpy(dims + 1, size + 2, (size_t)rank * sizeof dims[0]);
    dims[rank + 1] = rank;
    type_set(&node->outputs[0]->type, theta->dtype, rank + 2, dims);
    return STATUS_OK;
}

static Status affine_grid_eval(EvalContext *context, Error *err)
{
    const Array *theta = eval_input(context, 0);
    int rank = (int)theta->dims[1];
    const int64_t *size;
    const double *matrix;
    size_t count = 0;
    int64_t dims[RANK_MAX];
    double place[RANK_MAX];
    bool align = node_int(context->node, "align_corners", 0) != 0;
    WideOutput grid;
    TRY(eval_ints(context, 1, &size, &count, err));
    if (count != (size_t)rank + 2)
        return eval_fail(context, err, "size has %zu elements", count);
    TRY(wide_input(context, 0, &matrix, err));
    dims[0] = theta->dims[0];
    memcpy(dims + 1, size + 2, (size_t)rank * sizeof dims[0]);
    dims[rank + 1] = rank;
    TRY(wide_output(context, 0, theta->dtype, rank + 2, dims, &grid, err));
    int64_t points = dims_count(rank, dims + 1);
    for (int64_t i = 0; i < dims[0] * points; i++) {
        base_point(rank, dims + 1, i % points, align, place);
        for (int row = 0; row < rank; row++)
            for (int k = 0; k <= rank; k++)
                grid.data[i * rank + row] += matrix[(i / points * rank + row) * (rank + 1) + k] * place[k];
    }
    wide_store(&grid);
    return STATUS_OK;
}

/* dtheta[n, row, k] = sum over points of dgrid[n, point, row] * base[point, k] */
static Status affine_grid_grad_eval(EvalContext *context, Error *err)
{
    const Array *dgrid = eval_input(context, 0), *theta = eval_input(context, 1);
    int rank = (int)theta->dims[1];
    const double *from;
    double place[RANK_MAX];
    bool align = node_int(context->node, "align_corners", 0) != 0;
    int64_t points = dims_count(rank, dgrid->dims + 1);
    WideOutput dtheta;
    TRY(wide_input(context, 0, &from, err));
    TRY(wide_output_like(context, 0, theta, &dtheta, err));
    for (int64_t i = 0; i < dgrid->dims[0] * points; i++) {
        base_point(rank, dgrid->dims + 1, i % points, align, place);
        for (int row = 0; row < rank; row++)
            for (int k = 0; k <= rank; k++)
                dtheta.data[(i / points * rank + row) * (rank + 1) + k] += from[i * rank + row] * place[k];
    }
    wide_store(&dtheta);
    return STATUS_OK;
}

static Status affine_grid_grad_infer(Node *node, Error *err)
{
    (void)err;
    node->outputs[0]->type = node->inputs[1]->type;
    return STATUS_OK;
}

static Status affine_grid_grad(GradContext *context, Error *err)
{
    (void)err;
    Value *inputs[] = {context->dy[0], context->node->inputs[0]};
    if (!context->wants[0])
        return STATUS_OK;
    Node *gradient = build_node(&context->b, DOMAIN_INTERNAL, "AffineGridGrad", inputs, 2, 1);
    if (gradient == NULL)
        return context->b.status;
    node_copy_attrs(gradient, context->node);
    context->dx[0] = build_finish(&context->b, gradient);
    return context->b.status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

const OpDef ops_grid_sample[] = {
    {.name = "GridSample",
     .since = 16,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = grid_sample_infer,
     .eval = grid_sample_eval,
     .grad = grid_sample_grad,
     .upgrade = grid_sample_upgrade},
    {.domain = DOMAIN_INTERNAL,
     .name = "GridSampleGrad",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 2,
     .max_outputs = 2,
     .infer = grid_sample_grad_infer,
     .eval = grid_sample_grad_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of GridSample"},
    {.name = "AffineGrid",
     .since = 20,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = affine_grid_infer,
     .eval = affine_grid_eval,
     .grad = affine_grid_grad},
    {.domain = DOMAIN_INTERNAL,
     .name = "AffineGridGrad",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = affine_grid_grad_infer,
     .eval = affine_grid_grad_eval,
     .no_gradient = "a gradient itself",
     .no_case = "internal: the gradient of AffineGrid"},
    {0},
};
