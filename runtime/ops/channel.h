/* Kernels over channel tensors [N, C, spatial...] in whichever layout they lie. A layout is seen as rows of channels:
 *     PLAIN    [N*C rows]          of S numbers, one channel each
 *     BLOCKED  [N*C/b, S] rows     of b channels, zero behind the last one
 *     NHWC     [N*S rows]          of C channels
 * Numbers are f32 or bf16, sums and coefficients f32 in either. */
#ifndef REGRAFT_RUNTIME_OPS_CHANNEL_H
#define REGRAFT_RUNTIME_OPS_CHANNEL_H

#include "runtime/ops/ops.h"

/* Rank 3 to 5, nothing empty, f32: what library kernels take. Else a row falls back to eval. */
bool channel_fits(const PlanContext *context, const Type *type);
/* The descriptor of [N, C, ...] in `layout`, of f32 or bf16 numbers. */
Status channel_md(PlanContext *context, Layout layout, DType dtype, int rank, const int64_t *dims, dnnl_md *md,
                  Error *err);

typedef struct ChannelView {
    Layout layout;
    bool narrow; /* bf16 */
    int64_t batch, channels, spatial;
    int64_t block, blocks; /* BLOCKED: channels a block, blocks; else 1 and C */
} ChannelView;

ChannelView channel_view(const PlanContext *context, const Slot *slot);
/* sum[c] = sum over n, s of y[n, c, s]; the same result at any thread count. */
void channel_view_sum(const ChannelView *view, const void *y, float *sum);
/* y[n, c, s] += bias[c]; the padding of blocks stays zero. */
void channel_view_add(const ChannelView *view, const float *bias, void *y);
/* mean[n, c] = mean over s of x[n, c, s], plain; and its gradient: x[n, c, s] = mean[n, c] / S. */
void channel_view_mean(const ChannelView *view, const void *x, float *mean);
void channel_view_spread(const ChannelView *view, const float *mean, void *x);

/* ---- channel_affine.c: what normalisations are made of ----------------------------------------------------------- */

/* One coefficient for each channel, or (stride = C) for each sample and channel: coefficient of (n, c) is at
 * data[n * stride + c]. NULL data: zero. */
typedef struct ChannelTerm {
    const float *data;
    int64_t stride;
} ChannelTerm;

/* first[n, c] = sum over s of (u - p);  second[n, c] = sum over s of (u - p) * (v - q).  `v` may be NULL: no second. */
void channel_moments(const ChannelView *view, const void *u, ChannelTerm p, const void *v, ChannelTerm q, double *first,
                     double *second);
/* y = a*(u - p) + b*(v - q) + c. `v` may be NULL; y may be u or v. Taking centres off first keeps what is left after
 * them exact. The padding of blocks becomes zero. */
typedef struct ChannelMap {
    const void *u, *v;
    void *y;
    ChannelTerm a, p, b, q, c;
} ChannelMap;
void channel_affine(const ChannelView *view, const ChannelMap *map);
/* Any tensor [N, C, ...] lying plain; rank 2 is seen as NHWC with one position, rank 1 as one channel. */
ChannelView channel_view_plain(int rank, const int64_t *dims);
int64_t channel_offset(const ChannelView *view, int64_t n, int64_t c); /* of position 0 */

#endif
