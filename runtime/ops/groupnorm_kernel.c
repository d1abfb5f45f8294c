/* Instance and group normalisation planned: sums of each sample's channel, then a map that is affine in each sample's
 * channel (channel_affine.c), in whatever layout the input lies. Groups are put together from their channels in double.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/channel.h"
#include "runtime/ops/norm.h"

typedef struct GroupState {
    GroupShape shape;
    ChannelView view;
    double epsilon;
} GroupState;

/* Scratch: sums for each sample and channel (double), coefficients for the same (float). */
typedef struct Scratch {
    double *first, *second;
    float *mean, *inverse, *a, *b, *c;
} Scratch;

static size_t scratch_bytes(const GroupShape *shape)
{
    return (size_t)(shape->batch * shape->channels) * (2 * sizeof(double) + 5 * sizeof(float));
}

static Scratch scratch_take(const Step *step, const GroupShape *shape)
{
    int64_t count = shape->batch * shape->channels;
    Scratch s = {.first = step->scratch};
    s.second = s.first + count;
    s.mean = (float *)(s.second + count);
    s.inverse = s.mean + count;
    s.a = s.inverse + count;
    s.b = s.a + count;
    s.c = s.b + count;
    return s;
}

/* Mean and 1/sqrt(var + epsilon) of one group, written to all its channels. A channel's sums are distances from its
 * first element (in s->mean), so nothing cancels:
 *     M2 of a group = sum over its channels of M2 + S * (mean of channel - mean of group)^2      (Chan et al. 1979) */
static void group_statistics(const GroupState *state, const Scratch *s, int64_t first, int64_t channels)
{
    double spatial = (double)state->shape.spatial, mean = 0, square = 0;
    for (int64_t i = first; i < first + channels; i++)
        mean += ((double)s->mean[i] + s->first[i] / spatial) / (double)channels;
    for (int64_t i = first; i < first + channels; i++) {
        double distance = (double)s->mean[i] + s->first[i] / spatial - mean;
        square += s->second[i] - s->first[i] * s->first[i] / spatial + spatial * distance * distance;
    }
    double variance = square / (spatial * (double)channels);
    double inverse = 1 / sqrt((variance > 0 ? variance : 0) + state->epsilon);
    for (int64_t i = first; i < first + channels; i++) {
        s->mean[i] = (float)mean;
        s->inverse[i] = (float)inverse;
    }
}

static void statistics(const GroupState *state, const float *x, const Scratch *s)
{
    const GroupShape *shape = &state->shape;
    int64_t each = shape->channels / shape->groups;
    for (int64_t i = 0; i < shape->batch * shape->channels; i++)
        s->mean[i] = x[channel_offset(&state->view, i / shape->channels, i % shape->channels)];
    const ChannelTerm shift = {s->mean, shape->channels};
    channel_moments(&state->view, x, shift, x, shift, s->first, s->second);
    for (int64_t g = 0; g < shape->batch * shape->groups; g++)
        group_statistics(state, s, g * each, each);
}

static int64_t scale_index(const GroupShape *shape, int64_t channel)
{
    return shape->scale_of_group ? channel / (shape->channels / shape->groups) : channel;
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

static Status run_forward(Step *step, Error *err)
{
    (void)err;
    const GroupState *state = step->state;
    const GroupShape *shape = &state->shape;
    const float *x = step->in[0]->data, *scale = step->in[1]->data, *bias = step->in[2]->data;
    Scratch s = scratch_take(step, shape);
    statistics(state, x, &s);
    for (int64_t i = 0; i < shape->batch * shape->channels; i++) { /* y = a*(x - mean) + c */
        int64_t k = scale_index(shape, i % shape->channels);
        s.a[i] = scale[k] * s.inverse[i];
        s.c[i] = bias[k];
    }
    const int64_t each = shape->channels;
    const ChannelMap map = {.u = x, .y = step->out[0]->data, .a = {s.a, each}, .p = {s.mean, each}, .c = {s.c, each}};
    channel_affine(&state->view, &map);
    return STATUS_OK;
}

static Layout own_layout(PlanContext *context, int index)
{
    Layout layout = kernel_input_layout(context, index);
    return layout == LAYOUT_OPAQUE || !channel_fits(context, &context->node->inputs[index]->type) ? LAYOUT_PLAIN
                                                                                                  : layout;
}

static void state_make(PlanContext *context, const GroupShape *shape, const Slot *slot)
{
    GroupState *state = kernel_state(context, sizeof *state);
    state->shape = *shape;
    state->epsilon = (double)node_float(context->node, "epsilon", 1e-5f);
    state->view =
        slot->layout == LAYOUT_PLAIN ? channel_view_plain(slot->rank, slot->dims) : channel_view(context, slot);
    kernel_scratch(context, scratch_bytes(shape));
}

static bool fits(const Node *node, const GroupShape *shape)
{
    bool f32 = true;
    for (int i = 0; i < node->input_count; i++)
        f32 = f32 && node->inputs[i]->type.dtype == DTYPE_F32;
    return f32 && shape->batch * shape->channels * shape->spatial > 0;
}

Status group_norm_prepare(PlanContext *context, Error *err)
{
    GroupShape shape;
    TRY(group_shape_of(context->node, &shape, err));
    if (context->plain_only || !fits(context->node, &shape))
        return kernel_eval(context, err);
    kernel_input(context, 1, LAYOUT_PLAIN);
    kernel_input(context, 2, LAYOUT_PLAIN);
    Slot *y = kernel_output_in_place(context, 0, 0, own_layout(context, 0));
    state_make(context, &shape, y);
    kernel_run(context, run_forward, "own");
    return STATUS_OK;
}

/* ---- gradient ---------------------------------------------------------------------------------------------------- */

/* Of one group, with g = dy * scale and M its elements, the formula of norm.c with x_hat written out:
 *     dx = inverse*scale * dy  +  b * x  +  c,    b = -inverse^2 / M * sum(g * x_hat),    c = -inverse / M * sum(g) - b
 * * mean */
static void group_coefficients(const GroupState *state, const Scratch *s, const float *scale, int64_t first,
                               int64_t channels)
{
    const GroupShape *shape = &state->shape;
    double sum = 0, product = 0, count = (double)(channels * shape->spatial);
    for (int64_t i = first; i < first + channels; i++) {
        double factor = (double)scale[scale_index(shape, i % shape->channels)];
        sum += factor * s->first[i];
        product += factor * s->second[i] * (double)s->inverse[i];
    }
    for (int64_t i = first; i < first + channels; i++) {
        double inverse = (double)s->inverse[i], b = -inverse * inverse * product / count;
        s->a[i] = s->inverse[i] * scale[scale_index(shape, i % shape->channels)];
        s->b[i] = (float)b;
        s->c[i] = (float)(-inverse * sum / count);
    }
}

/* dscale = sum of dy * x_hat, dbias = sum of dy, over samples and, where a group has one scale, over its channels. */
static void parameter_gradients(const Step *step, const GroupState *state, const Scratch *s)
{
    const GroupShape *shape = &state->shape;
    int64_t scales = shape->scale_of_group ? shape->groups : shape->channels, each = shape->channels / scales;
    for (int64_t k = 0; k < scales; k++) {
        double dscale = 0, dbias = 0;
        for (int64_t n = 0; n < shape->batch; n++) {
            for (int64_t i = n * shape->channels + k * each; i < n * shape->channels + (k + 1) * each; i++) {
                dscale += s->second[i] * (double)s->inverse[i];
                dbias += s->first[i];
            }
        }
        if (step->out[1] != NULL)
            ((float *)step->out[1]->data)[k] = (float)dscale;
        if (step->out[2] != NULL)
            ((float *)step->out[2]->data)[k] = (float)dbias;
    }
}

static Status run_gradient(Step *step, Error *err)
{
    (void)err;
    const GroupState *state = step->state;
    const GroupShape *shape = &state->shape;
    const float *dy = step->in[0]->data, *x = step->in[1]->data, *scale = step->in[2]->data;
    int64_t each = shape->channels / shape->groups;
    Scratch s = scratch_take(step, shape);
    statistics(state, x, &s);
    const ChannelTerm none = {0}, mean = {s.mean, shape->channels};
    channel_moments(&state->view, dy, none, x, mean, s.first, s.second);
    for (int64_t g = 0; g < shape->batch * shape->groups; g++)
        group_coefficients(state, &s, scale, g * each, each);
    if (step->out_count > 1)
        parameter_gradients(step, state, &s);
    const ChannelTerm a = {s.a, shape->channels}, b = {s.b, shape->channels}, c = {s.c, shape->channels};
    const ChannelMap map = {.u = dy, .v = x, .y = step->out[0]->data, .a = a, .b = b, .q = mean, .c = c};
    channel_affine(&state->view, &map);
    return STATUS_OK;
}

Status group_norm_grad_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    GroupShape shape;
    TRY(group_shape_of(node, &shape, err));
    if (context->plain_only || !fits(node, &shape))
        return kernel_eval(context, err);
    Layout layout = own_layout(context, 1);
    kernel_input(context, 1, layout);
    kernel_input(context, 2, LAYOUT_PLAIN);
    Slot *dx = kernel_output_in_place(context, 0, 0, layout);
    for (int i = 1; i < node->output_count; i++)
        kernel_output(context, i, LAYOUT_PLAIN);
    state_make(context, &shape, dx);
    kernel_run(context, run_gradient, "own");
    return STATUS_OK;
}
