/* Sums over the positions of each channel, and maps that are affine in each channel, in the three layouts of channel
 * tensors: what batch, instance and group normalisation are made of, forward and backward.
 *
 * Work is split into units (channel_unit.h), which no two threads share; so results do not depend on the number of
 * threads. */
#include <string.h>

#include "runtime/ops/channel_unit.h"

typedef struct Job {
    const ChannelView *view;
    ChannelMap map; /* moments use u, v, p, q of it */
    double *first, *second;
} Job;

/* The coefficients of one unit's lanes. */
typedef struct Lanes {
    float a[LANES], p[LANES], b[LANES], q[LANES], c[LANES];
} Lanes;

ChannelView channel_view_plain(int rank, const int64_t *dims)
{
    ChannelView view = {.layout = rank == 2 ? LAYOUT_NHWC : LAYOUT_PLAIN, .block = 1};
    view.batch = rank > 0 ? dims[0] : 1;
    view.channels = rank > 1 ? dims[1] : 1;
    view.blocks = view.channels;
    view.spatial = rank > 2 ? dims_count(rank - 2, dims + 2) : 1;
    return view;
}

int64_t channel_offset(const ChannelView *view, int64_t n, int64_t c)
{
    if (view->layout == LAYOUT_NHWC)
        return n * view->spatial * view->channels + c;
    return ((n * view->blocks + c / view->block) * view->spatial) * view->block + c % view->block;
}

/* ---- moments -------------------------------------------------------------------------------------------------- */

VECTOR_INLINE void moments_lanes(const Job *job, bool narrow, const Unit *unit, int64_t lanes, const float *p,
                                 const float *q, double *first, double *second)
{
    const void *u = job->map.u, *v = job->map.v;
    for (int64_t begin = 0; begin < unit->rows; begin += RUN) {
        int64_t end = begin + RUN < unit->rows ? begin + RUN : unit->rows;
        float one[LANES] = {0}, two[LANES] = {0};
        for (int64_t r = begin; r < end; r++) {
            int64_t at = unit->base + r * unit->step;
            for (int64_t i = 0; i < lanes; i++) {
                float centred = bf16_at(u, at + i, narrow) - p[i];
                one[i] += centred;
                two[i] += centred * (bf16_at(v, at + i, narrow) - q[i]);
            }
        }
        for (int64_t i = 0; i < lanes; i++) {
            first[i] += (double)one[i];
            second[i] += (double)two[i];
        }
    }
}

VECTOR_INLINE void moments_plane(const Job *job, bool narrow, const Unit *unit, float p, float q, double *first,
                                 double *second)
{
    const void *u = job->map.u, *v = job->map.v;
    int64_t base = unit->base;
    for (int64_t begin = 0; begin < unit->rows; begin += (int64_t)RUN * LANES) {
        int64_t end = begin + (int64_t)RUN * LANES < unit->rows ? begin + (int64_t)RUN * LANES : unit->rows;
        float one = 0, two = 0;
#pragma omp simd reduction(+ : one, two)
        for (int64_t r = begin; r < end; r++) {
            float centred = bf16_at(u, base + r, narrow) - p;
            one += centred;
            two += centred * (bf16_at(v, base + r, narrow) - q);
        }
        *first += (double)one;
        *second += (double)two;
    }
}

VECTOR_INLINE void moments_unit(const Job *job, bool narrow, const Unit *unit, const float *p, const float *q,
                                double *first, double *second)
{
    if (unit->step == 1 && unit->lanes == 1)
        moments_plane(job, narrow, unit, p[0], q[0], first, second);
    else if (unit->whole)
        moments_lanes(job, narrow, unit, LANES, p, q, first, second);
    else
        moments_lanes(job, narrow, unit, unit->lanes, p, q, first, second);
}

VECTOR_CLONES
static void moments_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    const ChannelView *view = job->view;
    for (int64_t index = begin; index < end; index++) {
        Unit unit = unit_at(view, index);
        float p[LANES], q[LANES];
        double first[LANES] = {0}, second[LANES] = {0};
        gather(view, job->map.p, &unit, p);
        gather(view, job->map.q, &unit, q);
        if (view->narrow)
            moments_unit(job, true, &unit, p, q, first, second);
        else
            moments_unit(job, false, &unit, p, q, first, second);
        for (int64_t i = 0; i < unit.lanes && unit.channel + i < view->channels; i++) {
            job->first[unit.sample * view->channels + unit.channel + i] = first[i];
            if (job->second != NULL)
                job->second[unit.sample * view->channels + unit.channel + i] = second[i];
        }
    }
}

void channel_moments(const ChannelView *view, const void *u, ChannelTerm p, const void *v, ChannelTerm q, double *first,
                     double *second)
{
    Job job = {.view = view, .map = {.u = u, .v = v != NULL ? v : u, .p = p, .q = q}, .first = first, .second = second};
    parallel_for(unit_count(view), 1, moments_range, &job);
}

/* ---- affine ------------------------------------------------------------------------------------------------------ */

VECTOR_INLINE void affine_two(const ChannelMap *map, bool narrow, const Unit *unit, int64_t lanes, const Lanes *k)
{
    const void *u = map->u, *v = map->v;
    for (int64_t r = 0; r < unit->rows; r++) {
        int64_t at = unit->base + r * unit->step;
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++)
            bf16_put(map->y, at + i,
                     k->a[i] * (bf16_at(u, at + i, narrow) - k->p[i]) +
                         k->b[i] * (bf16_at(v, at + i, narrow) - k->q[i]) + k->c[i],
                     narrow);
    }
}

VECTOR_INLINE void affine_one(const ChannelMap *map, bool narrow, const Unit *unit, int64_t lanes, const Lanes *k)
{
    const void *u = map->u;
    for (int64_t r = 0; r < unit->rows; r++) {
        int64_t at = unit->base + r * unit->step;
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++)
            bf16_put(map->y, at + i, k->a[i] * (bf16_at(u, at + i, narrow) - k->p[i]) + k->c[i], narrow);
    }
}

/* One channel, contiguous. */
VECTOR_INLINE void affine_plane(const ChannelMap *map, bool narrow, const Unit *unit, const Lanes *k)
{
    const float a = k->a[0], p = k->p[0], b = k->b[0], q = k->q[0], c = k->c[0];
    const void *u = map->u, *v = map->v;
    int64_t base = unit->base;
    if (v == NULL) {
#pragma omp simd
        for (int64_t r = 0; r < unit->rows; r++)
            bf16_put(map->y, base + r, a * (bf16_at(u, base + r, narrow) - p) + c, narrow);
        return;
    }
#pragma omp simd
    for (int64_t r = 0; r < unit->rows; r++)
        bf16_put(map->y, base + r, a * (bf16_at(u, base + r, narrow) - p) + b * (bf16_at(v, base + r, narrow) - q) + c,
                 narrow);
}

VECTOR_INLINE void affine_unit(const ChannelMap *map, bool narrow, const Unit *unit, const Lanes *k)
{
    if (unit->step == 1 && unit->lanes == 1)
        affine_plane(map, narrow, unit, k);
    else if (map->v == NULL && unit->whole)
        affine_one(map, narrow, unit, LANES, k);
    else if (map->v == NULL)
        affine_one(map, narrow, unit, unit->lanes, k);
    else if (unit->whole)
        affine_two(map, narrow, unit, LANES, k);
    else
        affine_two(map, narrow, unit, unit->lanes, k);
}

VECTOR_CLONES
static void affine_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    const ChannelMap *map = &job->map;
    for (int64_t index = begin; index < end; index++) {
        Unit unit = unit_at(job->view, index);
        Lanes k;
        gather(job->view, map->a, &unit, k.a);
        gather(job->view, map->p, &unit, k.p);
        gather(job->view, map->b, &unit, k.b);
        gather(job->view, map->q, &unit, k.q);
        gather(job->view, map->c, &unit, k.c);
        if (job->view->narrow)
            affine_unit(map, true, &unit, &k);
        else
            affine_unit(map, false, &unit, &k);
    }
}

void channel_affine(const ChannelView *view, const ChannelMap *map)
{
    Job job = {.view = view, .map = *map};
    parallel_for(unit_count(view), 1, affine_range, &job);
}
