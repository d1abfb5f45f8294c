/* Units of work over channel tensors: one sample and one group of channels (one channel when plain, a block, or LANES
 * channels last), seen as rows of lanes. Results that are made unit by unit do not depend on the number of threads.
 * For the loops of channel_affine.c and batchnorm_train.c. */
#ifndef REGRAFT_RUNTIME_OPS_CHANNEL_UNIT_H
#define REGRAFT_RUNTIME_OPS_CHANNEL_UNIT_H

#include "runtime/ops/bf16.h"
#include "runtime/ops/channel.h"

enum { LANES = 16, RUN = 512 }; /* RUN: positions added in float before the sum moves into a double */

/* Rows of `lanes` channels: row r begins at base + r*step. */
typedef struct Unit {
    int64_t sample, channel, lanes, base, rows, step;
    bool whole; /* lanes == LANES */
} Unit;

VECTOR_INLINE int64_t lane_width(const ChannelView *v)
{
    return v->layout == LAYOUT_PLAIN ? 1 : v->layout == LAYOUT_BLOCKED ? v->block : LANES;
}

VECTOR_INLINE int64_t group_count(const ChannelView *v)
{
    return (v->channels + lane_width(v) - 1) / lane_width(v);
}

VECTOR_INLINE int64_t unit_count(const ChannelView *v)
{
    return v->batch * group_count(v);
}

VECTOR_INLINE Unit unit_at(const ChannelView *v, int64_t index)
{
    int64_t width = lane_width(v), groups = group_count(v);
    Unit unit = {.sample = index / groups, .channel = index % groups * width, .rows = v->spatial, .lanes = width};
    if (v->layout == LAYOUT_NHWC) {
        unit.base = unit.sample * v->spatial * v->channels + unit.channel;
        unit.step = v->channels;
        if (unit.channel + width > v->channels)
            unit.lanes = v->channels - unit.channel;
    } else {
        unit.base = index * v->spatial * width;
        unit.step = width;
    }
    unit.whole = unit.lanes == LANES;
    return unit;
}

/* The coefficients of a unit's lanes; zero behind the last channel. */
VECTOR_INLINE void gather(const ChannelView *v, ChannelTerm term, const Unit *unit, float lanes[LANES])
{
    for (int64_t i = 0; i < LANES; i++)
        lanes[i] = 0;
    if (term.data == NULL)
        return;
    for (int64_t i = 0; i < unit->lanes && unit->channel + i < v->channels; i++)
        lanes[i] = term.data[unit->sample * term.stride + unit->channel + i];
}

#endif
