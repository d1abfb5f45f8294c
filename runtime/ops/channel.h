/* Kernels over channel tensors [N, C, spatial...] in whichever layout they lie. A layout is seen as rows of channels:
 *     PLAIN    [N*C rows]          of S numbers, one channel each
 *     BLOCKED  [N*C/b, S] rows     of b channels, zero behind the last one
 *     NHWC     [N*S rows]          of C channels                                                                    */
#ifndef REGRAFT_RUNTIME_OPS_CHANNEL_H
#define REGRAFT_RUNTIME_OPS_CHANNEL_H

#include "runtime/ops/ops.h"

/* Rank 3 to 5, nothing empty, f32: what library kernels take. Else a row falls back to eval. */
bool channel_fits(const PlanContext *context, const Type *type);
/* The descriptor of [N, C, ...] in `layout`; `any`: the library chooses. */
Status channel_md(PlanContext *context, Layout layout, int rank, const int64_t *dims, dnnl_md *md, Error *err);

typedef struct ChannelView {
    Layout layout;
    int64_t batch, channels, spatial;
    int64_t block, blocks; /* BLOCKED: channels a block, blocks; else 1 and C */
} ChannelView;

ChannelView channel_view(const PlanContext *context, const Slot *slot);
/* sum[c] = sum over n, s of y[n, c, s]; the same result at any thread count. */
void channel_view_sum(const ChannelView *view, const float *y, float *sum);
/* y[n, c, s] += bias[c]; the padding of blocks stays zero. */
void channel_view_add(const ChannelView *view, const float *bias, float *y);

#endif
