/* Channel tensors in their three layouts: descriptors, and the two loops that biases need. */
#include "runtime/ops/channel.h"

#include <string.h>

#include "runtime/ops/bf16.h"

enum { LANES = 16 }; /* channels that a loop over channels keeps in registers; at least the block */

bool channel_fits(const PlanContext *context, const Type *type)
{
    return !context->plain_only && context->family != LAYOUT_PLAIN && type->dtype == DTYPE_F32 && type->rank >= 3 &&
           type->rank <= 5 && type_count(type) > 0;
}

Status channel_md(PlanContext *context, Layout layout, DType dtype, int rank, const int64_t *dims, dnnl_md *md,
                  Error *err)
{
    static const dnnl_format_tag_t by16[] = {dnnl_nCw16c, dnnl_nChw16c, dnnl_nCdhw16c};
    static const dnnl_format_tag_t by8[] = {dnnl_nCw8c, dnnl_nChw8c, dnnl_nCdhw8c};
    static const dnnl_format_tag_t last[] = {dnnl_nwc, dnnl_nhwc, dnnl_ndhwc};
    static const dnnl_format_tag_t plain[] = {dnnl_ncw, dnnl_nchw, dnnl_ncdhw};
    const dnnl_format_tag_t *tags = layout == LAYOUT_PLAIN  ? plain
                                    : layout == LAYOUT_NHWC ? last
                                    : context->block == 8   ? by8
                                                            : by16;
    return dnnl_md_tag(md, dtype, rank, dims, tags[rank - 3], err);
}

ChannelView channel_view(const PlanContext *context, const Slot *slot)
{
    ChannelView view = {.layout = slot->layout, .batch = slot->dims[0], .channels = slot->dims[1]};
    view.narrow = slot->dtype == DTYPE_BF16;
    view.block = slot->layout == LAYOUT_BLOCKED ? context->block : 1;
    view.blocks = (view.channels + view.block - 1) / view.block;
    view.spatial = dims_count(slot->rank - 2, slot->dims + 2);
    return view;
}

/* ---- sum ------------------------------------------------------------------------------------------------------ */

typedef struct Job {
    const ChannelView *view;
    const void *from;
    void *to;
} Job;

/* Rows of at most LANES channels that lie `stride` floats apart, added up in float and handed over in double. */
VECTOR_INLINE void sum_lanes_of(const void *rows, bool narrow, int64_t at, int64_t count, int64_t stride, int64_t lanes,
                                double *total)
{
    enum { RUN = 512 }; /* rows added in float before the sum moves into a double */
    for (int64_t begin = 0; begin < count; begin += RUN) {
        int64_t end = begin + RUN < count ? begin + RUN : count;
        float sum[LANES] = {0};
        for (int64_t r = begin; r < end; r++)
            for (int64_t i = 0; i < lanes; i++)
                sum[i] += bf16_at(rows, at + r * stride + i, narrow);
        for (int64_t i = 0; i < lanes; i++)
            total[i] += (double)sum[i];
    }
}

/* From element `at` on. A full set of lanes is known to the compiler and stays in registers. */
VECTOR_INLINE void sum_rows(const Job *job, int64_t at, int64_t count, int64_t stride, int64_t lanes, double *total)
{
    if (lanes == LANES && job->view->narrow)
        sum_lanes_of(job->from, true, at, count, stride, LANES, total);
    else if (lanes == LANES)
        sum_lanes_of(job->from, false, at, count, stride, LANES, total);
    else if (job->view->narrow)
        sum_lanes_of(job->from, true, at, count, stride, lanes, total);
    else
        sum_lanes_of(job->from, false, at, count, stride, lanes, total);
}

VECTOR_INLINE double sum_run_of(const void *from, bool narrow, int64_t at, int64_t count)
{
    enum { RUN = 4096 };
    double total = 0;
    for (int64_t begin = 0; begin < count; begin += RUN) {
        int64_t end = begin + RUN < count ? begin + RUN : count;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = begin; i < end; i++)
            sum += bf16_at(from, at + i, narrow);
        total += (double)sum;
    }
    return total;
}

VECTOR_INLINE double sum_run(const Job *job, int64_t at, int64_t count)
{
    return job->view->narrow ? sum_run_of(job->from, true, at, count) : sum_run_of(job->from, false, at, count);
}

VECTOR_CLONES
static void sum_plain(int64_t first, int64_t last, void *context) /* over [C] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t c = first; c < last; c++) {
        double total = 0;
        for (int64_t n = 0; n < v->batch; n++)
            total += sum_run(job, (n * v->channels + c) * v->spatial, v->spatial);
        ((float *)job->to)[c] = (float)total;
    }
}

/* Over groups of LANES channels (NHWC) or blocks (BLOCKED). */
VECTOR_CLONES
static void sum_lanes(int64_t first, int64_t last, void *context)
{
    const Job *job = context;
    const ChannelView *v = job->view;
    bool blocked = v->layout == LAYOUT_BLOCKED;
    int64_t width = blocked ? v->block : LANES;
    for (int64_t g = first; g < last; g++) {
        double total[LANES] = {0};
        int64_t lanes = v->channels - g * width < width ? v->channels - g * width : width;
        if (blocked)
            for (int64_t n = 0; n < v->batch; n++)
                sum_rows(job, (n * v->blocks + g) * v->spatial * v->block, v->spatial, v->block, v->block, total);
        else
            sum_rows(job, g * width, v->batch * v->spatial, v->channels, lanes, total);
        for (int64_t i = 0; i < lanes; i++)
            ((float *)job->to)[g * width + i] = (float)total[i];
    }
}

void channel_view_sum(const ChannelView *view, const void *y, float *sum)
{
    Job job = {view, y, sum};
    if (view->layout == LAYOUT_PLAIN)
        parallel_for(view->channels, 1, sum_plain, &job);
    else
        parallel_for(view->layout == LAYOUT_BLOCKED ? view->blocks : (view->channels + LANES - 1) / LANES, 1, sum_lanes,
                     &job);
}

/* ---- add ------------------------------------------------------------------------------------------------------- */

VECTOR_INLINE void add_to(const Job *job, int64_t i, float bias)
{
    if (job->view->narrow)
        bf16_put(job->to, i, bf16_at(job->to, i, true) + bias, true);
    else
        ((float *)job->to)[i] += bias;
}

VECTOR_CLONES
static void add_plain(int64_t first, int64_t last, void *context) /* over [N, C] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t nc = first; nc < last; nc++) {
        const float bias = ((const float *)job->from)[nc % v->channels];
        for (int64_t i = nc * v->spatial; i < (nc + 1) * v->spatial; i++)
            add_to(job, i, bias);
    }
}

VECTOR_CLONES
static void add_blocked(int64_t first, int64_t last, void *context) /* over [N, C/b] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t nb = first; nb < last; nb++) {
        float bias[LANES] = {0};
        int64_t channel = nb % v->blocks * v->block;
        for (int64_t i = 0; i < v->block && channel + i < v->channels; i++)
            bias[i] = ((const float *)job->from)[channel + i];
        for (int64_t s = 0; s < v->spatial; s++)
            for (int64_t i = 0; i < v->block; i++)
                add_to(job, (nb * v->spatial + s) * v->block + i, bias[i]);
    }
}

VECTOR_CLONES
static void add_nhwc(int64_t first, int64_t last, void *context) /* over [N, S] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t r = first; r < last; r++)
        for (int64_t c = 0; c < v->channels; c++)
            add_to(job, r * v->channels + c, ((const float *)job->from)[c]);
}

void channel_view_add(const ChannelView *view, const float *bias, void *y)
{
    Job job = {view, bias, y};
    if (view->layout == LAYOUT_PLAIN)
        parallel_for(view->batch * view->channels, 1, add_plain, &job);
    else if (view->layout == LAYOUT_BLOCKED)
        parallel_for(view->batch * view->blocks, 1, add_blocked, &job);
    else
        parallel_for(view->batch * view->spatial, 64, add_nhwc, &job);
}

/* ---- means over positions ---------------------------------------------------------------------------------------- */

VECTOR_CLONES
static void mean_plain(int64_t first, int64_t last, void *context) /* over [N, C] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t nc = first; nc < last; nc++)
        ((float *)job->to)[nc] = (float)(sum_run(job, nc * v->spatial, v->spatial) / (double)v->spatial);
}

/* Over [N, C/b], or [N, C/LANES] for NHWC. */
VECTOR_CLONES
static void mean_lanes(int64_t first, int64_t last, void *context)
{
    const Job *job = context;
    const ChannelView *v = job->view;
    bool blocked = v->layout == LAYOUT_BLOCKED;
    int64_t width = blocked ? v->block : LANES, groups = (v->channels + width - 1) / width;
    for (int64_t ng = first; ng < last; ng++) {
        double total[LANES] = {0};
        int64_t n = ng / groups, channel = ng % groups * width;
        int64_t lanes = v->channels - channel < width ? v->channels - channel : width;
        if (blocked)
            sum_rows(job, ng * v->spatial * v->block, v->spatial, v->block, v->block, total);
        else
            sum_rows(job, n * v->spatial * v->channels + channel, v->spatial, v->channels, lanes, total);
        for (int64_t i = 0; i < lanes; i++)
            ((float *)job->to)[n * v->channels + channel + i] = (float)(total[i] / (double)v->spatial);
    }
}

void channel_view_mean(const ChannelView *view, const void *x, float *mean)
{
    Job job = {view, x, mean};
    int64_t width = view->layout == LAYOUT_BLOCKED ? view->block : LANES;
    if (view->layout == LAYOUT_PLAIN)
        parallel_for(view->batch * view->channels, 16, mean_plain, &job);
    else
        parallel_for(view->batch * ((view->channels + width - 1) / width), 1, mean_lanes, &job);
}

VECTOR_CLONES
static void spread_plain(int64_t first, int64_t last, void *context) /* over [N, C] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t nc = first; nc < last; nc++) {
        const float share = ((const float *)job->from)[nc] / (float)v->spatial;
        for (int64_t s = 0; s < v->spatial; s++)
            bf16_put(job->to, nc * v->spatial + s, share, v->narrow);
    }
}

VECTOR_CLONES
static void spread_blocked(int64_t first, int64_t last, void *context) /* over [N, C/b] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t nb = first; nb < last; nb++) {
        float share[LANES] = {0};
        int64_t n = nb / v->blocks, channel = nb % v->blocks * v->block;
        for (int64_t i = 0; i < v->block && channel + i < v->channels; i++)
            share[i] = ((const float *)job->from)[n * v->channels + channel + i] / (float)v->spatial;
        uint16_t short_share[LANES];
        for (int64_t i = 0; i < LANES; i++)
            short_share[i] = bf16_from_float(share[i]);
        size_t bytes = (size_t)v->block * (v->narrow ? sizeof *short_share : sizeof *share);
        for (int64_t s = 0; s < v->spatial; s++)
            memcpy((char *)job->to + (size_t)(nb * v->spatial + s) * bytes, v->narrow ? (void *)short_share : share,
                   bytes);
    }
}

VECTOR_CLONES
static void spread_nhwc(int64_t first, int64_t last, void *context) /* over [N, S] */
{
    const Job *job = context;
    const ChannelView *v = job->view;
    for (int64_t r = first; r < last; r++) {
        const float *mean = (const float *)job->from + r / v->spatial * v->channels;
        for (int64_t c = 0; c < v->channels; c++)
            bf16_put(job->to, r * v->channels + c, mean[c] / (float)v->spatial, v->narrow);
    }
}

void channel_view_spread(const ChannelView *view, const float *mean, void *x)
{
    Job job = {view, mean, x};
    if (view->layout == LAYOUT_PLAIN)
        parallel_for(view->batch * view->channels, 16, spread_plain, &job);
    else if (view->layout == LAYOUT_BLOCKED)
        parallel_for(view->batch * view->blocks, 1, spread_blocked, &job);
    else
        parallel_for(view->batch * view->spatial, 16, spread_nhwc, &job);
}
