/* Convolution shapes, and the three directions of a convolution in double, for any number of spatial dims: the
 * reference that kernels and gradients are compared with. Sums run over rows of the last axis (window_rows), so that
 * the inner loops are plain; blocks of channels are independent and run on the pool. */
#include "runtime/ops/conv.h"

#include <string.h>

/* ---- shapes --------------------------------------------------------------------------------------------------- */

static Status check_ranks(const Node *node, int rank, int other, Error *err)
{
    if (rank < 3)
        return infer_fail(node, err, "input of rank %d where at least [N, C, D] is expected", rank);
    if (other != rank)
        return infer_fail(node, err, "inputs of rank %d and %d", rank, other);
    if (node_int(node, "group", 1) < 1)
        return infer_fail(node, err, "attribute group is %lld", (long long)node_int(node, "group", 1));
    return STATUS_OK;
}

static Status check_groups(const Node *node, int64_t groups, Error *err)
{
    return groups >= 1 && groups <= INT32_MAX ? STATUS_OK
                                              : infer_fail(node, err, "attribute group is %lld", (long long)groups);
}

Status conv_shape(const Node *node, int rank, const int64_t *x, const int64_t *w, ConvShape *shape, Error *err)
{
    shape->batch = x[0];
    shape->groups = node_int(node, "group", 1);
    shape->in_channels = x[1];
    shape->out_channels = w[0];
    TRY(check_groups(node, shape->groups, err));
    if (w[1] * shape->groups != x[1] || w[0] % shape->groups != 0)
        return infer_fail(node, err, "weights [%lld, %lld, ...] in %lld groups do not fit %lld channels",
                          (long long)w[0], (long long)w[1], (long long)shape->groups, (long long)x[1]);
    return window_read(node, rank - 2, x + 2, w + 2, &shape->window, err);
}

Status conv_shape_transposed(const Node *node, int rank, const int64_t *x, const int64_t *w, ConvShape *shape,
                             Error *err)
{
    shape->batch = x[0];
    shape->groups = node_int(node, "group", 1);
    TRY(check_groups(node, shape->groups, err));
    shape->in_channels = w[1] * shape->groups;
    shape->out_channels = x[1];
    if (w[0] != x[1] || w[0] % shape->groups != 0)
        return infer_fail(node, err, "weights [%lld, %lld, ...] in %lld groups do not fit %lld channels",
                          (long long)w[0], (long long)w[1], (long long)shape->groups, (long long)x[1]);
    return window_read_transposed(node, rank - 2, x + 2, w + 2, &shape->window, err);
}

/* Of the gradient rows: the attributes `x_shape` and `w_shape` say what the inputs do not. */
static Status shape_of_gradient(const Node *node, const int64_t *x, const int64_t *w, int rank, ConvShape *shape,
                                Error *err)
{
    size_t count = 0;
    const int64_t *written = node_ints(node, x == NULL ? "x_shape" : "w_shape", &count);
    if (written == NULL || count != (size_t)rank)
        return infer_fail(node, err, "attribute %s is missing", x == NULL ? "x_shape" : "w_shape");
    return conv_shape(node, rank, x == NULL ? written : x, w == NULL ? written : w, shape, err);
}

Status conv_shape_of(const Node *node, ConvShape *shape, Error *err)
{
    const Type *a = &node->inputs[0]->type, *b = &node->inputs[1]->type;
    TRY(check_ranks(node, a->rank, b->rank, err));
    if (strcmp(node->op_type, "ConvTranspose") == 0)
        return conv_shape_transposed(node, a->rank, a->dims, b->dims, shape, err);
    if (strcmp(node->op_type, "ConvGradInput") == 0) /* (dy, w) */
        return shape_of_gradient(node, NULL, b->dims, a->rank, shape, err);
    if (strcmp(node->op_type, "ConvGradWeight") == 0) /* (x, dy) */
        return shape_of_gradient(node, a->dims, NULL, a->rank, shape, err);
    return conv_shape(node, a->rank, a->dims, b->dims, shape, err);
}

static void shape_dims(int rank, int64_t first, int64_t second, const int64_t *rest, int64_t dims[RANK_MAX])
{
    dims[0] = first;
    dims[1] = second;
    memcpy(dims + 2, rest, (size_t)rank * sizeof rest[0]);
}

void conv_shape_x(const ConvShape *shape, int64_t dims[RANK_MAX])
{
    shape_dims(shape->window.rank, shape->batch, shape->in_channels, shape->window.in, dims);
}

void conv_shape_y(const ConvShape *shape, int64_t dims[RANK_MAX])
{
    shape_dims(shape->window.rank, shape->batch, shape->out_channels, shape->window.out, dims);
}

void conv_shape_w(const ConvShape *shape, int64_t dims[RANK_MAX])
{
    shape_dims(shape->window.rank, shape->out_channels, shape->in_channels / shape->groups, shape->window.kernel, dims);
}

/* ---- the three directions ------------------------------------------------------------------------------------ */

typedef struct Wide {
    const ConvShape *shape;
    const double *x, *w, *y; /* what is read */
    double *result;
    int64_t in_each, out_each; /* channels a group */
} Wide;

static Wide wide_make(const ConvShape *shape, const double *x, const double *w, const double *y, double *result)
{
    return (Wide){shape, x, w, y, result, shape->in_channels / shape->groups, shape->out_channels / shape->groups};
}

/* One plane (all spatial positions of one channel of one sample) meeting one kernel element. */
typedef struct Plane {
    const double *from, *with;
    double *to, weight, sum;
} Plane;

static void row_forward(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    Plane *plane = context;
    for (int64_t i = 0; i < count; i++)
        plane->to[out + i] += plane->weight * plane->from[in + i * step];
}

static void row_input(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    Plane *plane = context;
    for (int64_t i = 0; i < count; i++)
        plane->to[in + i * step] += plane->weight * plane->from[out + i];
}

static void row_weights(void *context, int64_t out, int64_t in, int64_t count, int64_t step)
{
    Plane *plane = context;
    for (int64_t i = 0; i < count; i++)
        plane->sum += plane->from[in + i * step] * plane->with[out + i];
}

static void forward_range(int64_t first, int64_t last, void *context) /* over [N, O] */
{
    const Wide *c = context;
    const ConvShape *s = c->shape;
    const Window *window = &s->window;
    for (int64_t no = first; no < last; no++) {
        int64_t n = no / s->out_channels, o = no % s->out_channels, group = o / c->out_each;
        for (int64_t ik = 0; ik < c->in_each * window->kernel_count; ik++) {
            int64_t i = group * c->in_each + ik / window->kernel_count;
            Plane plane = {.from = c->x + (n * s->in_channels + i) * window->in_count,
                           .to = c->result + no * window->out_count,
                           .weight = c->w[o * c->in_each * window->kernel_count + ik]};
            window_rows(window, ik % window->kernel_count, row_forward, &plane);
        }
    }
}

static void input_range(int64_t first, int64_t last, void *context) /* over [N, C] */
{
    const Wide *c = context;
    const ConvShape *s = c->shape;
    const Window *window = &s->window;
    for (int64_t ni = first; ni < last; ni++) {
        int64_t n = ni / s->in_channels, i = ni % s->in_channels, group = i / c->in_each;
        for (int64_t ok = 0; ok < c->out_each * window->kernel_count; ok++) {
            int64_t o = group * c->out_each + ok / window->kernel_count, k = ok % window->kernel_count;
            Plane plane = {.from = c->y + (n * s->out_channels + o) * window->out_count,
                           .to = c->result + ni * window->in_count,
                           .weight = c->w[(o * c->in_each + i % c->in_each) * window->kernel_count + k]};
            window_rows(window, k, row_input, &plane);
        }
    }
}

static void weights_range(int64_t first, int64_t last, void *context) /* over [O, C/groups] */
{
    const Wide *c = context;
    const ConvShape *s = c->shape;
    const Window *window = &s->window;
    for (int64_t oi = first; oi < last; oi++) {
        int64_t o = oi / c->in_each, i = o / c->out_each * c->in_each + oi % c->in_each;
        for (int64_t nk = 0; nk < s->batch * window->kernel_count; nk++) {
            int64_t n = nk / window->kernel_count, k = nk % window->kernel_count;
            Plane plane = {.from = c->x + (n * s->in_channels + i) * window->in_count,
                           .with = c->y + (n * s->out_channels + o) * window->out_count};
            window_rows(window, k, row_weights, &plane);
            c->result[oi * window->kernel_count + k] += plane.sum;
        }
    }
}

void conv_wide_forward(const ConvShape *shape, const double *x, const double *w, double *y)
{
    Wide wide = wide_make(shape, x, w, NULL, y);
    parallel_for(shape->batch * shape->out_channels, 1, forward_range, &wide);
}

void conv_wide_input(const ConvShape *shape, const double *dy, const double *w, double *dx)
{
    Wide wide = wide_make(shape, NULL, w, dy, dx);
    parallel_for(shape->batch * shape->in_channels, 1, input_range, &wide);
}

void conv_wide_weights(const ConvShape *shape, const double *x, const double *dy, double *dw)
{
    Wide wide = wide_make(shape, x, NULL, dy, dw);
    parallel_for(shape->out_channels * wide.in_each, 1, weights_range, &wide);
}

void conv_wide_bias(int64_t batch, int64_t channels, int64_t spatial, const double *bias, double *y)
{
    for (int64_t nc = 0; nc < batch * channels; nc++)
        for (int64_t i = 0; i < spatial; i++)
            y[nc * spatial + i] += bias[nc % channels];
}
