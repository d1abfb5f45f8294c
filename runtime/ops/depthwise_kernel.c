/* Weight gradients of depthwise convolutions on blocked layouts, for the kernels that the library generates no code for
 * (5x5 and wider: it falls back to a general kernel that is ten times slower).
 *     dw[c, kh, kw] = sum over n, oh, ow of  x[n, c, oh*stride - begin + kh*dilation, ow*... + kw*...] * dy[n, c, oh,
 * ow] One block of channels is one vector. A unit of work is one block and one kernel row, so nothing is shared; its
 * sums stay in registers along a row of the image, and move into doubles after each sample. The result lies as the
 * forward convolution's weights do (Goihw16g, Goihw8g): [C/b, kh, kw, b], in f32 also when x and dy are bf16. */
#include <string.h>

#include "runtime/ops/bf16.h"
#include "runtime/ops/channel.h"
#include "runtime/ops/conv.h"

enum { TAPS = 9, WIDEST = 16 }; /* kernel elements along a row; channels a block */

typedef struct DepthwiseState {
    int64_t batch, blocks;
    int64_t in[2], out[2], kernel[2], stride[2], dilation[2], begin[2]; /* rows, columns */
    int block;
    bool narrow;   /* x and dy are bf16 */
    ChannelView y; /* for the gradient of the bias */
} DepthwiseState;

typedef struct Job {
    const DepthwiseState *state;
    const void *x, *dy;
    float *dw;
} Job;

/* Outputs [*first, *last) along the row for which all taps are inside. */
static void interior(const DepthwiseState *s, int64_t *first, int64_t *last)
{
    int64_t reach = (s->kernel[1] - 1) * s->dilation[1];
    *first = (s->begin[1] + s->stride[1] - 1) / s->stride[1];
    *last = s->in[1] + s->begin[1] - reach <= 0 ? 0 : (s->in[1] + s->begin[1] - reach - 1) / s->stride[1] + 1;
    *last = *last > s->out[1] ? s->out[1] : *last;
    *first = *first > *last ? *last : *first;
}

/* An output at the border of a row: each tap on its own. */
VECTOR_INLINE void border_output(const DepthwiseState *s, bool narrow, const void *x, const void *dy, int64_t o,
                                 int64_t lanes, float *sums)
{
    for (int64_t k = 0; k < s->kernel[1]; k++) {
        int64_t i = o * s->stride[1] - s->begin[1] + k * s->dilation[1];
        if (i < 0 || i >= s->in[1])
            continue;
        for (int64_t lane = 0; lane < lanes; lane++)
            sums[k * lanes + lane] += bf16_at(x, i * lanes + lane, narrow) * bf16_at(dy, o * lanes + lane, narrow);
    }
}

/* sums[k] += x[first tap + k*dilation] * dy over the interior of a row; `taps` and `lanes` are known to the compiler,
 * so that the sums are registers. */
#define VECTOR_AT(from, at)                                                                                            \
    (narrow ? (Vector)(__builtin_convertvector(*(const Halves *)((const uint16_t *)(from) + (at)), Words) << 16)       \
            : *(const Vector *)((const float *)(from) + (at)))

#define ROW_BODY(taps, lanes)                                                                                          \
    do {                                                                                                               \
        typedef float Vector __attribute__((vector_size(lanes * sizeof(float)), aligned(4), may_alias));               \
        typedef uint32_t Words __attribute__((vector_size(lanes * sizeof(uint32_t))));                                 \
        typedef uint16_t Halves __attribute__((vector_size(lanes * sizeof(uint16_t)), aligned(2), may_alias));         \
        Vector sum[taps];                                                                                              \
        for (int k = 0; k < taps; k++)                                                                                 \
            sum[k] = *(const Vector *)(sums + k * lanes);                                                              \
        for (int64_t o = first; o < last; o++) {                                                                       \
            const Vector gradient = VECTOR_AT(dy, o * lanes);                                                          \
            int64_t from = (o * s->stride[1] - s->begin[1]) * lanes;                                                   \
            for (int k = 0; k < taps; k++)                                                                             \
                sum[k] += VECTOR_AT(x, from + k * s->dilation[1] * lanes) * gradient;                                  \
        }                                                                                                              \
        for (int k = 0; k < taps; k++)                                                                                 \
            *(Vector *)(sums + k * lanes) = sum[k];                                                                    \
    } while (0)

#define ROW_OF_LANES(lanes)                                                                                            \
    switch (s->kernel[1]) {                                                                                            \
    case 3:                                                                                                            \
        ROW_BODY(3, lanes);                                                                                            \
        break;                                                                                                         \
    case 5:                                                                                                            \
        ROW_BODY(5, lanes);                                                                                            \
        break;                                                                                                         \
    case 7:                                                                                                            \
        ROW_BODY(7, lanes);                                                                                            \
        break;                                                                                                         \
    case 9:                                                                                                            \
        ROW_BODY(9, lanes);                                                                                            \
        break;                                                                                                         \
    default:                                                                                                           \
        for (int64_t o = first; o < last; o++)                                                                         \
            border_output(s, narrow, x, dy, o, lanes, sums);                                                           \
    }

VECTOR_INLINE void row_interior(const DepthwiseState *s, bool narrow, const void *x, const void *dy, int64_t first,
                                int64_t last, float *sums)
{
    if (s->block == 16)
        ROW_OF_LANES(16)
    else
        ROW_OF_LANES(8)
}

/* One sample's part of one kernel row. x and dy: the block's planes. */
VECTOR_INLINE void sample_rows(const DepthwiseState *s, bool narrow, const char *x, const char *dy, int64_t kernel_row,
                               float *sums)
{
    int64_t lanes = s->block, first = 0, last = 0, row_bytes = lanes * (narrow ? 2 : 4);
    interior(s, &first, &last);
    for (int64_t o = 0; o < s->out[0]; o++) {
        int64_t i = o * s->stride[0] - s->begin[0] + kernel_row * s->dilation[0];
        if (i < 0 || i >= s->in[0])
            continue;
        const char *x_row = x + i * s->in[1] * row_bytes, *dy_row = dy + o * s->out[1] * row_bytes;
        for (int64_t border = 0; border < first; border++)
            border_output(s, narrow, x_row, dy_row, border, lanes, sums);
        row_interior(s, narrow, x_row, dy_row, first, last, sums);
        for (int64_t border = last; border < s->out[1]; border++)
            border_output(s, narrow, x_row, dy_row, border, lanes, sums);
    }
}

VECTOR_CLONES
static void kernel_rows(int64_t begin, int64_t end, void *context) /* over [C/b, kh] */
{
    const Job *job = context;
    const DepthwiseState *s = job->state;
    int64_t size = s->narrow ? 2 : 4;
    int64_t x_plane = s->in[0] * s->in[1] * s->block * size, y_plane = s->out[0] * s->out[1] * s->block * size;
    int64_t elements = s->kernel[1] * s->block;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t block = unit / s->kernel[0];
        double total[TAPS * WIDEST] = {0};
        for (int64_t n = 0; n < s->batch; n++) {
            int64_t plane = n * s->blocks + block;
            float sums[TAPS * WIDEST] = {0};
            const char *x = (const char *)job->x + plane * x_plane, *dy = (const char *)job->dy + plane * y_plane;
            if (s->narrow)
                sample_rows(s, true, x, dy, unit % s->kernel[0], sums);
            else
                sample_rows(s, false, x, dy, unit % s->kernel[0], sums);
            for (int64_t i = 0; i < elements; i++)
                total[i] += (double)sums[i];
        }
        for (int64_t i = 0; i < elements; i++)
            job->dw[unit * elements + i] = (float)total[i];
    }
}

static Status run_depthwise(Step *step, Error *err)
{
    (void)err;
    const DepthwiseState *state = step->state;
    Job job = {state, step->in[0]->data, step->in[1]->data, step->out[0]->data};
    parallel_for(state->blocks * state->kernel[0], 1, kernel_rows, &job);
    if (step->out_count > 1 && step->out[1] != NULL)
        channel_view_sum(&state->y, job.dy, step->out[1]->data);
    return STATUS_OK;
}

bool depthwise_weight_fits(const PlanContext *context, const ConvShape *shape)
{
    const Window *w = &shape->window;
    if (context->family != LAYOUT_BLOCKED || (context->block != 16 && context->block != 8) || w->rank > 2)
        return false;
    return shape->groups == shape->in_channels && shape->groups == shape->out_channels && shape->groups > 1 &&
           w->kernel[w->rank - 1] <= TAPS && w->begin[0] >= 0 && w->begin[w->rank - 1] >= 0;
}

Status depthwise_weight_prepare(PlanContext *context, const ConvShape *shape, Error *err)
{
    const Window *w = &shape->window;
    const int64_t grouped[] = {shape->groups, 1, 1, w->kernel[0], w->kernel[w->rank - 1]};
    dnnl_format_tag_t tag = w->rank == 1 ? (context->block == 16 ? dnnl_Goiw16g : dnnl_Goiw8g)
                                         : (context->block == 16 ? dnnl_Goihw16g : dnnl_Goihw8g);
    dnnl_md md = NULL;
    DepthwiseState planned = {.batch = shape->batch, .block = context->block};
    planned.blocks = (shape->groups + context->block - 1) / context->block;
    for (int i = 0; i < 2; i++) { /* one spatial dim: rows of one row */
        int axis = i - (2 - w->rank);
        planned.in[i] = axis < 0 ? 1 : w->in[axis];
        planned.out[i] = axis < 0 ? 1 : w->out[axis];
        planned.kernel[i] = axis < 0 ? 1 : w->kernel[axis];
        planned.stride[i] = axis < 0 ? 1 : w->stride[axis];
        planned.dilation[i] = axis < 0 ? 1 : w->dilation[axis];
        planned.begin[i] = axis < 0 ? 0 : w->begin[axis];
    }
    TRY(dnnl_md_tag(&md, DTYPE_F32, w->rank + 3, grouped, tag, err));
    kernel_input_as(context, 0, LAYOUT_BLOCKED, context->compute);
    planned.y = channel_view(context, kernel_input_as(context, 1, LAYOUT_BLOCKED, context->compute));
    planned.narrow = context->compute == DTYPE_BF16;
    kernel_output_md(context, 0, md);
    dnnl_memory_desc_destroy(md);
    if (node_output(context->node, 1) != NULL)
        kernel_output(context, 1, LAYOUT_PLAIN);
    DepthwiseState *state = kernel_state(context, sizeof *state);
    *state = planned;
    kernel_run(context, run_depthwise, "own:depthwise");
    return STATUS_OK;
}
