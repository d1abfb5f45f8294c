/* Family: resizing. Resize in all its modes, Upsample as its older name, and ResizeGrad(dy, roi, scales, sizes) with
 * the attributes of the Resize and x_shape. The coordinates follow Resize-19 and its reference implementation: the two
 * neighbours of x are ceil(x)-1 and ceil(x), so the ratio between them is in (0, 1]. */
#include "runtime/ops/resize.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/wide.h"

/* ---- what a node asks for ---------------------------------------------------------------------------------------- */

/* The optional inputs as numbers; count 0: omitted or empty. */
typedef struct ResizeInputs {
    const double *roi, *scales, *sizes;
    size_t roi_count, scale_count, size_count;
} ResizeInputs;

typedef struct AxisSpec { /* one axis */
    int64_t in, out;
    double scale, start, end; /* start, end: region of interest */
} AxisSpec;

typedef enum Coordinates {
    HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    PYTORCH_HALF_PIXEL,
    ALIGN_CORNERS,
    ASYMMETRIC,
    TF_CROP_AND_RESIZE,
    TF_HALF_PIXEL_FOR_NN /* opsets 11 and 12 */
} Coordinates;

typedef enum Mode { MODE_NEAREST, MODE_LINEAR, MODE_CUBIC } Mode;

/* SIMPLE is Resize-10 and Upsample: down to the left neighbour when enlarging, up to the right one when shrinking. */
typedef enum Nearest { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, NEAREST_FLOOR, NEAREST_CEIL, NEAREST_SIMPLE } Nearest;

typedef struct ResizeMode {
    Mode mode;
    Coordinates coordinates;
    Nearest nearest;
    bool antialias, exclude_outside;
    double cubic_a;
} ResizeMode;

static Status choice(const Node *node, const char *attr, const char *absent, const char *const *names, int count,
                     int *found, Error *err)
{
    const char *text = node_string(node, attr, absent);
    for (int i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *found = i;
            return STATUS_OK;
        }
    }
    return infer_fail(node, err, "attribute %s is '%s'", attr, text);
}

static const double ROI_MAX = 1e6, SCALE_MIN = 1e-6; /* beyond, an index would not be a number any more */
static const double WEIGHTS_MAX = 1 << 28;

static Status read_mode(const Node *node, ResizeMode *m, Error *err)
{
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    static const char *const coordinates[] = {"half_pixel",          "half_pixel_symmetric", "pytorch_half_pixel",
                                              "align_corners",       "asymmetric",           "tf_crop_and_resize",
                                              "tf_half_pixel_for_nn"};
    static const char *const nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"};
    int found = 0;
    TRY(choice(node, "mode", "nearest", modes, 3, &found, err));
    m->mode = (Mode)found;
    TRY(choice(node, "coordinate_transformation_mode", "half_pixel", coordinates, 7, &found, err));
    m->coordinates = (Coordinates)found;
    TRY(choice(node, "nearest_mode", "round_prefer_floor", nearest, 5, &found, err));
    m->nearest = (Nearest)found;
    m->antialias = node_int(node, "antialias", 0) != 0;
    m->exclude_outside = node_int(node, "exclude_outside", 0) != 0;
    m->cubic_a = (double)node_float(node, "cubic_coeff_a", -0.75f);
    return STATUS_OK;
}

/* The axes that the inputs speak of: attribute `axes`, or all. */
static Status read_axes(const Node *node, int rank, int axes[RANK_MAX], size_t *count, Error *err)
{
    const int64_t *written = node_ints(node, "axes", count);
    if (written == NULL)
        *count = (size_t)rank;
    if (*count > (size_t)rank)
        return infer_fail(node, err, "%zu axes for rank %d", *count, rank);
    for (size_t i = 0; i < *count; i++)
        TRY(axis_normalize(node, written != NULL ? written[i] : (int64_t)i, rank, &axes[i], err));
    return STATUS_OK;
}

/* -1 for what is no length: NaN, negative, beyond any memory. */
static int64_t length_of(double x)
{
    return x >= 0 && x <= INT32_MAX ? (int64_t)x : -1;
}

static void sizes_to_scales(const Node *node, const ResizeInputs *given, const int *axes, size_t count, AxisSpec *specs)
{
    const char *policy = node_string(node, "keep_aspect_ratio_policy", "stretch");
    bool larger = strcmp(policy, "not_smaller") == 0;
    double common = larger ? 0 : INFINITY;
    for (size_t i = 0; i < count; i++) {
        AxisSpec *axis = &specs[axes[i]];
        axis->out = length_of(given->sizes[i]);
        axis->scale = (double)axis->out / (double)axis->in;
        common = larger ? fmax(common, axis->scale) : fmin(common, axis->scale);
    }
    for (size_t i = 0; i < count && strcmp(policy, "stretch") != 0; i++) {
        AxisSpec *axis = &specs[axes[i]];
        axis->scale = common;
        axis->out = length_of(floor(common * (double)axis->in + 0.5));
    }
}

static Status read_specs(const Node *node, const int64_t *dims, int rank, const ResizeInputs *given, AxisSpec *specs,
                         Error *err)
{
    int axes[RANK_MAX];
    size_t count = 0;
    bool crop = strcmp(node_string(node, "coordinate_transformation_mode", "half_pixel"), "tf_crop_and_resize") == 0;
    TRY(read_axes(node, rank, axes, &count, err));
    for (int i = 0; i < rank; i++)
        specs[i] = (AxisSpec){.in = dims[i], .out = dims[i], .scale = 1, .start = 0, .end = 1};
    if ((given->scale_count == 0) == (given->size_count == 0))
        return infer_fail(node, err, "one of scales and sizes is expected");
    if (given->scale_count + given->size_count != count)
        return infer_fail(node, err, "%zu scales or sizes for %zu axes", given->scale_count + given->size_count, count);
    if (crop && given->roi_count != 2 * count)
        return infer_fail(node, err, "roi has %zu elements for %zu axes", given->roi_count, count);
    for (size_t i = 0; i < count && crop; i++) {
        specs[axes[i]].start = given->roi[i];
        specs[axes[i]].end = given->roi[count + i];
    }
    if (given->size_count > 0)
        sizes_to_scales(node, given, axes, count, specs);
    for (size_t i = 0; i < count && given->scale_count > 0; i++) { /* in float, as everyone computes it */
        AxisSpec *axis = &specs[axes[i]];
        axis->scale = given->scales[i];
        axis->out = length_of((double)floorf((float)axis->in * (float)(axis->end - axis->start) * (float)axis->scale));
    }
    for (int i = 0; i < rank; i++) {
        bool far = !(fabs(specs[i].start) <= ROI_MAX && fabs(specs[i].end) <= ROI_MAX);
        if (specs[i].out < 0 || far || (specs[i].in > 0 && specs[i].out > 0 && !(specs[i].scale > SCALE_MIN)) ||
            (specs[i].in == 0 && specs[i].out > 0))
            return infer_fail(node, err, "dim %d of %lld cannot become %lld (scale %g)", i, (long long)specs[i].in,
                              (long long)specs[i].out, specs[i].scale);
    }
    return STATUS_OK;
}

/* ---- the matrix of one axis -------------------------------------------------------------------------------------- */

/* Where output o lies in the input. */
static double original(const ResizeMode *m, const AxisSpec *a, int64_t o)
{
    double x = (double)o, in = (double)a->in, wide = a->scale * in; /* wide: the output's length before rounding */
    switch (m->coordinates) {
    case HALF_PIXEL:
        return (x + 0.5) / a->scale - 0.5;
    case HALF_PIXEL_SYMMETRIC:
        return in / 2 * (1 - (double)a->out / wide) + (x + 0.5) / a->scale - 0.5;
    case PYTORCH_HALF_PIXEL:
        return a->out > 1 ? (x + 0.5) / a->scale - 0.5 : 0;
    case ALIGN_CORNERS:
        return wide == 1 ? 0 : x * (in - 1) / (wide - 1);
    case ASYMMETRIC:
        return x / a->scale;
    case TF_CROP_AND_RESIZE:
        if (a->out > 1)
            return a->start * (in - 1) + x * (a->end - a->start) * (in - 1) / ((double)a->out - 1);
        return 0.5 * (a->start + a->end) * (in - 1);
    case TF_HALF_PIXEL_FOR_NN:
        return (x + 0.5) / a->scale;
    }
    return 0;
}

/* Keys 1981, equation (4). */
static double cubic(double x, double a)
{
    x = fabs(x);
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Elements of a row: 1 for nearest, else the filter's footprint, stretched when antialiasing shrinks. */
static int64_t row_length(const ResizeMode *m, const AxisSpec *a)
{
    double reach = m->mode == MODE_CUBIC ? 2 : 1, squeeze = m->antialias && a->scale < 1 ? a->scale : 1;
    double before = fmin(ceil(reach / squeeze), (double)(1 << 30)); /* a scale may be next to nothing */
    return m->mode == MODE_NEAREST ? 1 : 2 * (int64_t)before;
}

static int64_t nearest_index(const ResizeMode *m, const AxisSpec *a, int64_t left, double ratio)
{
    if (ratio == 1)
        return left + 1;
    switch (m->nearest) {
    case ROUND_PREFER_FLOOR:
        return ratio <= 0.5 ? left : left + 1;
    case ROUND_PREFER_CEIL:
        return ratio < 0.5 ? left : left + 1;
    case NEAREST_FLOOR:
        return left;
    case NEAREST_CEIL:
        return left + 1;
    case NEAREST_SIMPLE:
        return a->scale < 1 ? left + 1 : left;
    }
    return left;
}

static void fill_row(const ResizeMode *m, const AxisSpec *a, double x, int64_t length, int64_t *index, double *weight)
{
    int64_t left = (int64_t)ceil(x) - 1;
    double ratio = x - (double)left, squeeze = m->antialias && a->scale < 1 ? a->scale : 1, sum = 0;
    for (int64_t t = 0; t < length; t++) {
        int64_t step = t + 1 - length / 2; /* from the left neighbour */
        double distance = ((double)step - ratio) * squeeze;
        index[t] = m->mode == MODE_NEAREST ? nearest_index(m, a, left, ratio) : left + step;
        weight[t] = m->mode == MODE_NEAREST  ? 1
                    : m->mode == MODE_LINEAR ? fmax(1 - fabs(distance), 0)
                                             : cubic(distance, m->cubic_a);
        bool inside = index[t] >= 0 && index[t] < a->in;
        if (m->exclude_outside && m->mode != MODE_NEAREST && !inside)
            weight[t] = 0;
        index[t] = index[t] < 0 ? 0 : index[t] >= a->in ? a->in - 1 : index[t];
        sum += weight[t];
    }
    for (int64_t t = 0; t < length && sum != 0 && sum != 1; t++)
        weight[t] /= sum;
}

static AxisMap axis_map(const ResizeMode *m, const AxisSpec *a, Arena *arena)
{
    int64_t length = row_length(m, a), used = 0;
    AxisMap map = {.in = a->in, .out = a->out};
    bool whole = a->start == 0 && a->end == 1;
    map.identity = a->in == a->out && a->scale == 1 && (m->coordinates != TF_CROP_AND_RESIZE || whole);
    if (map.identity)
        return map;
    map.start = arena_array(arena, int64_t, (size_t)a->out + 1);
    map.index = arena_array(arena, int64_t, (size_t)(a->out * length));
    map.weight = arena_array(arena, double, (size_t)(a->out * length));
    if (m->coordinates == TF_CROP_AND_RESIZE)
        map.outside = arena_array(arena, bool, (size_t)a->out);
    for (int64_t o = 0; o < a->out; o++) {
        double x = original(m, a, o);
        map.start[o] = used;
        if (map.outside != NULL && (x < 0 || x > (double)(a->in - 1))) {
            map.outside[o] = true;
            continue;
        }
        fill_row(m, a, x, length, map.index + used, map.weight + used);
        used += length;
    }
    map.start[a->out] = used;
    return map;
}

AxisMap axis_map_transpose(const AxisMap *map, Arena *arena)
{
    AxisMap turned = {.in = map->out, .out = map->in, .identity = map->identity};
    if (map->identity)
        return turned;
    int64_t count = map->start[map->out];
    turned.start = arena_array(arena, int64_t, (size_t)map->in + 2);
    turned.index = arena_array(arena, int64_t, (size_t)count);
    turned.weight = arena_array(arena, double, (size_t)count);
    for (int64_t t = 0; t < count; t++)
        turned.start[map->index[t] + 2]++;
    for (int64_t i = 0; i < map->in; i++)
        turned.start[i + 2] += turned.start[i + 1];
    for (int64_t o = 0; o < map->out; o++) {
        for (int64_t t = map->start[o]; t < map->start[o + 1]; t++) {
            int64_t at = turned.start[map->index[t] + 1]++;
            turned.index[at] = o;
            turned.weight[at] = map->weight[t];
        }
    }
    return turned;
}

static Status resize_spec(const Node *node, const int64_t *dims, int rank, const ResizeInputs *given, Arena *arena,
                          ResizeSpec *spec, Error *err)
{
    AxisSpec axes[RANK_MAX];
    ResizeMode mode;
    TRY(read_mode(node, &mode, err));
    TRY(read_specs(node, dims, rank, given, axes, err));
    spec->rank = rank;
    for (int i = 0; i < rank; i++) {
        spec->in[i] = axes[i].in;
        spec->out[i] = axes[i].out;
        if ((double)axes[i].out * (double)row_length(&mode, &axes[i]) > WEIGHTS_MAX)
            return infer_fail(node, err, "dim %d of %lld to %lld takes more weights than memory holds", i,
                              (long long)axes[i].in, (long long)axes[i].out);
        spec->maps[i] = axis_map(&mode, &axes[i], arena);
    }
    return STATUS_OK;
}

/* ---- reading the inputs ------------------------------------------------------------------------------------------ */

static Status read_array(const Array *array, Arena *arena, const double **data, size_t *count, Error *err)
{
    Array *wide = NULL;
    *data = NULL;
    *count = 0;
    if (array == NULL || array->count == 0)
        return STATUS_OK;
    TRY(array_convert(arena, array, DTYPE_F64, &wide, err));
    *data = wide->data;
    *count = (size_t)wide->count;
    return STATUS_OK;
}

static Status read_inputs(const Array *const arrays[3], Arena *arena, ResizeInputs *given, Error *err)
{
    TRY(read_array(arrays[0], arena, &given->roi, &given->roi_count, err));
    TRY(read_array(arrays[1], arena, &given->scales, &given->scale_count, err));
    return read_array(arrays[2], arena, &given->sizes, &given->size_count, err);
}

Status resize_spec_constant(const Node *node, const int64_t *dims, int rank, int first, Arena *arena, ResizeSpec *spec,
                            bool *known, Error *err)
{
    const Array *arrays[3] = {NULL, NULL, NULL};
    ResizeInputs given;
    *known = true;
    for (int i = 0; i < 3; i++) {
        const Value *value = node_input(node, first + i);
        Array *array = NULL;
        if (value == NULL || (value->type.rank == 1 && value->type.dims[0] == 0))
            continue;
        if (!value_is_constant(value)) {
            *known = false;
            return STATUS_OK;
        }
        TRY(array_from_tensor(arena, value->constant, &array, err));
        arrays[i] = array;
    }
    TRY(read_inputs(arrays, arena, &given, err));
    return resize_spec(node, dims, rank, &given, arena, spec, err);
}

/* ---- infer, upgrade ---------------------------------------------------------------------------------------------- */

static Status resize_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    Arena arena;
    ResizeSpec spec;
    bool known = false;
    arena_init(&arena);
    Status status = resize_spec_constant(node, x->dims, x->rank, 1, &arena, &spec, &known, err);
    if (status == STATUS_OK && known)
        type_set(&node->outputs[0]->type, x->dtype, x->rank, spec.out);
    else if (status == STATUS_OK)
        node->outputs[0]->type = (Type){.kind = TYPE_TENSOR, .dtype = x->dtype, .rank = -1};
    arena_release(&arena);
    return status;
}

static Status resize_grad_infer(Node *node, Error *err)
{
    size_t count = 0;
    const int64_t *dims = node_ints(node, "x_shape", &count);
    if (count != (size_t)node->inputs[0]->type.rank)
        return infer_fail(node, err, "attribute x_shape has %zu elements", count);
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, (int)count, dims);
    return STATUS_OK;
}

/* Resize-10 and Upsample(x, scales): corners fixed, see SIMPLE. */
static Status make_asymmetric(Node *node, Error *err)
{
    Value *x = node->inputs[0], *scales = node_input(node, 1);
    if (scales == NULL)
        return infer_fail(node, err, "input 1, the scales, is missing");
    const char *mode = node_string(node, "mode", "nearest");
    if (strcmp(mode, "bilinear") == 0) /* Upsample-1's name */
        node_set_string(node, "mode", "linear");
    node_set_op(node, "", "Resize", OPSET_NEWEST);
    node_set_input(node, 0, x);
    node_set_input(node, 2, scales);
    node_set_input(node, 1, NULL);
    node_set_string(node, "coordinate_transformation_mode", "asymmetric");
    node_set_string(node, "nearest_mode", "simple");
    return STATUS_OK;
}

static Status resize_upgrade(Node *node, Error *err)
{
    return node->opset < 11 ? make_asymmetric(node, err) : STATUS_OK;
}

/* Scales were attributes up to opset 8: a list, or in opset 1 two for height and width. */
static Status upsample_upgrade(Node *node, Error *err)
{
    if (node->opset < 9) {
        size_t count = 0;
        const float *written = node_floats(node, "scales", &count);
        float pair[4] = {1, 1, node_float(node, "height_scale", 0), node_float(node, "width_scale", 0)};
        if (written == NULL && pair[2] > 0 && pair[3] > 0) {
            written = pair;
            count = 4;
        }
        if (written == NULL)
            return infer_fail(node, err, "attribute scales is missing");
        int64_t dim = (int64_t)count;
        void *data = NULL;
        const char *name = graph_unique_name(node->graph, "scales");
        Tensor *tensor = tensor_new(&node->graph->model->arena, name, DTYPE_F32, 1, &dim, &data);
        memcpy(data, written, count * sizeof written[0]);
        node_set_input(node, 1, graph_add_initializer(node->graph, tensor));
        node_remove_attr(node, "scales");
        node_remove_attr(node, "height_scale");
        node_remove_attr(node, "width_scale");
    }
    return make_asymmetric(node, err);
}

/* ---- eval -------------------------------------------------------------------------------------------------------- */

/* y = map applied along `axis` of x [dims]. */
static void apply_map(const AxisMap *map, int rank, const int64_t *dims, int axis, const double *x, double *y)
{
    int64_t outer = dims_count(axis, dims), inner = dims_count(rank - axis - 1, dims + axis + 1);
    for (int64_t oo = 0; oo < outer * map->out; oo++) {
        int64_t o = oo % map->out;
        double *to = y + oo * inner;
        memset(to, 0, (size_t)inner * sizeof *to);
        for (int64_t t = map->start[o]; t < map->start[o + 1]; t++) {
            const double *from = x + (oo / map->out * map->in + map->index[t]) * inner;
            for (int64_t i = 0; i < inner; i++)
                to[i] += map->weight[t] * from[i];
        }
    }
}

/* All axes in turn; *data becomes the result. */
static Status apply_maps(EvalContext *context, const AxisMap *maps, int rank, const int64_t *dims, const double **data,
                         Error *err)
{
    int64_t now[RANK_MAX];
    memcpy(now, dims, (size_t)rank * sizeof now[0]);
    for (int axis = 0; axis < rank; axis++) {
        double *next = NULL;
        if (maps[axis].identity)
            continue;
        int64_t before[RANK_MAX];
        memcpy(before, now, sizeof before);
        now[axis] = maps[axis].out;
        TRY(wide_scratch(context, dims_count(rank, now), &next, err));
        apply_map(&maps[axis], rank, before, axis, *data, next);
        *data = next;
    }
    return STATUS_OK;
}

/* Some axis places output `at` outside of the region. */
static bool is_outside(const ResizeSpec *spec, int64_t at)
{
    for (int i = spec->rank - 1; i >= 0; i--) {
        if (spec->maps[i].outside != NULL && spec->maps[i].outside[at % spec->out[i]])
            return true;
        at /= spec->out[i];
    }
    return false;
}

static Status eval_spec(EvalContext *context, const int64_t *dims, int rank, int first, ResizeSpec *spec, Error *err)
{
    const Array *arrays[3];
    ResizeInputs given;
    for (int i = 0; i < 3; i++)
        arrays[i] = eval_input(context, first + i);
    TRY(read_inputs(arrays, context->arena, &given, err));
    return resize_spec(context->node, dims, rank, &given, context->arena, spec, err);
}

static Status resize_eval(EvalContext *context, Error *err)
{
    const Array *x = eval_input(context, 0);
    const double *data, extrapolation = (double)node_float(context->node, "extrapolation_value", 0);
    ResizeSpec spec;
    WideOutput y;
    TRY(eval_spec(context, x->dims, x->rank, 1, &spec, err));
    TRY(wide_input(context, 0, &data, err));
    TRY(wide_output(context, 0, x->dtype, x->rank, spec.out, &y, err));
    TRY(apply_maps(context, spec.maps, spec.rank, spec.in, &data, err));
    for (int64_t i = 0; i < y.array->count; i++) {
        double value = is_outside(&spec, i) ? extrapolation : data[i];
        y.data[i] = dtype_is_float(x->dtype) ? value : trunc(value); /* integers are cut, as a C conversion does */
    }
    wide_store(&y);
    return STATUS_OK;
}

static Status resize_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = eval_input(context, 0);
    size_t count = 0;
    const int64_t *dims = node_ints(context->node, "x_shape", &count);
    const double *given;
    double *inside;
    AxisMap turned[RANK_MAX];
    ResizeSpec spec;
    WideOutput dx;
    TRY(eval_spec(context, dims, dy->rank, 1, &spec, err));
    TRY(wide_input(context, 0, &given, err));
    TRY(wide_scratch(context, dy->count, &inside, err));
    for (int64_t i = 0; i < dy->count; i++)
        inside[i] = is_outside(&spec, i) ? 0 : given[i];
    for (int i = 0; i < spec.rank; i++)
        turned[i] = axis_map_transpose(&spec.maps[i], context->arena);
    const double *data = inside;
    TRY(apply_maps(context, turned, spec.rank, spec.out, &data, err));
    TRY(wide_output(context, 0, dy->dtype, dy->rank, dims, &dx, err));
    if (dx.array->count > 0)
        memcpy(dx.data, data, (size_t)dx.array->count * sizeof(double));
    wide_store(&dx);
    return STATUS_OK;
}

static Status resize_grad(GradContext *context, Error *err)
{
    (void)err;
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    Value *inputs[] = {context->dy[0], node_input(node, 1), node_input(node, 2), node_input(node, 3)};
    if (!context->wants[0])
        return STATUS_OK;
    Node *gradient = build_node(&context->b, DOMAIN_INTERNAL, "ResizeGrad", inputs, 4, 1);
    if (gradient == NULL)
        return context->b.status;
    node_copy_attrs(gradient, node);
    node_set_ints(gradient, "x_shape", x->dims, (size_t)x->rank);
    context->dx[0] = build_finish(&context->b, gradient);
    return context->b.status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

const OpDef ops_resize[] = {
    {.name = "Resize",
     .since = 10,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = resize_infer,
     .eval = resize_eval,
     .grad = resize_grad,
     .upgrade = resize_upgrade,
     .prepare = resize_prepare},
    {.name = "Upsample",
     .since = 1,
     .last = 9,
     .min_inputs = 1,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .upgrade = upsample_upgrade,
     .no_gradient = "becomes Resize"},
    {.domain = DOMAIN_INTERNAL,
     .name = "ResizeGrad",
     .min_inputs = 1,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = resize_grad_infer,
     .eval = resize_grad_eval,
     .prepare = resize_grad_prepare,
     .no_gradient = "a gradient itself"},
    {0},
};
