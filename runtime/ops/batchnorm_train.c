/* Batch normalisation with the statistics of the batch, and the activation behind it, in one go over memory:
 *     z = k (x - mean) + bias,  k = scale / sqrt(var + epsilon),  y = f(z)
 * and, with dz = dy f'(z) and M elements a channel (Ioffe & Szegedy 2015),
 *     dbias = sum dz,  dscale = sum dz (x - mean) / sqrt(var + epsilon)
 *     dx = k (dz - dbias/M) + b (x - mean),  b = -k dscale / (M sqrt(var + epsilon))
 * z is computed again from x with the same operations as before, so nothing but x is kept for the gradient. Where f' is
 * dear (Swish) the sums leave dz in the place of dx.
 *
 * Each direction reads twice: sums first, then results. Groups of channels are taken in turns that fit the cores' own
 * caches, both readings of a turn by the same thread: the second comes from cache. Sums are made unit by unit in double
 * and added in order, so results are the same at any number of threads. */
#include <math.h>

#include "runtime/ops/batchnorm_lanes.h"
#include "runtime/ops/channel_unit.h"

enum {
    TURN_BYTES = 512 << 10,  /* of one tensor, a thread and turn: half of a core's second-level cache */
    STREAM_BYTES = 16 << 20, /* a result of this size is out of the caches before anyone reads it */
    SAMPLES = 4,             /* rows whose mean stands in for a unit's until it is known */
    EIGHT = 8,               /* channels of a block where vectors hold eight floats */
    ROWS = 4                 /* sums that moments_eight makes side by side */
};

typedef float Eight __attribute__((vector_size(EIGHT * sizeof(float)), aligned(4), may_alias));

typedef struct Job {
    const BatchNormLoop *loop;
    int64_t first_group, groups;         /* of this turn */
    ChannelTerm k, mean, bias, b, share; /* share: dbias/M */
} Job;

typedef struct Lanes {
    float k[LANES], mean[LANES], bias[LANES], b[LANES], share[LANES];
} Lanes;

/* 1 / (1 + e^-z): what vector_sigmoid computes, for arguments whose exponential neither overflows nor vanishes. */
VECTOR_INLINE float sigmoid(float z)
{
    float x = z > 87.0F ? 87.0F : z;
    x = x < -87.0F ? -87.0F : x;
    return 1.0F / (1.0F + vector_exp_inner(-x));
}

/* ---- activations ------------------------------------------------------------------------------------------------ */

VECTOR_INLINE float activate(BatchNormActivation kind, float z, float low, float high)
{
    switch (kind) {
    case BATCHNORM_RELU:
        return z < 0 ? 0 : z;
    case BATCHNORM_CLIP:
        return z < low ? low : (z > high ? high : z);
    case BATCHNORM_SWISH:
        return z * sigmoid(z);
    case BATCHNORM_HARD_SWISH: {
        float ramp = z * (1.0F / 6.0F) + 0.5F;
        return z * (ramp < 0 ? 0 : (ramp > 1 ? 1 : ramp));
    }
    case BATCHNORM_LINEAR:
        break;
    }
    return z;
}

VECTOR_INLINE float through(BatchNormActivation kind, float dy, float z, float low, float high)
{
    switch (kind) {
    case BATCHNORM_RELU:
        return z > 0 ? dy : 0;
    case BATCHNORM_CLIP:
        return ((z > low) & (z < high)) ? dy : 0;
    case BATCHNORM_SWISH: {
        float s = sigmoid(z);
        return dy * (s + z * s * (1.0F - s));
    }
    case BATCHNORM_HARD_SWISH:
        return z <= -3 ? 0 : (z < 3 ? dy * (z * (1.0F / 3.0F) + 0.5F) : dy);
    case BATCHNORM_LINEAR:
        break;
    }
    return dy;
}

/* Is f' worth a store and a load? */
VECTOR_INLINE bool is_dear(BatchNormActivation kind)
{
    return kind == BATCHNORM_SWISH;
}

/* ---- walking ----------------------------------------------------------------------------------------------------- */

/* How a body is compiled: what it may treat as constants. */
typedef struct Shape {
    BatchNormActivation kind;
    bool narrow; /* bf16 */
} Shape;

/* `body(job, unit, lanes, shape, ...)` with lanes and shape known to the compiler, for what plans are made of: whole
 * blocks, half ones in f32, plain channels in f32. Other rows are short or rare and find out as they go. */
#define BY_KIND(body, lanes, narrow, ...)                                                                              \
    switch (job->loop->activation) {                                                                                   \
    case BATCHNORM_LINEAR:                                                                                             \
        body(job, &unit, lanes, ((Shape){BATCHNORM_LINEAR, narrow}), __VA_ARGS__);                                     \
        break;                                                                                                         \
    case BATCHNORM_RELU:                                                                                               \
        body(job, &unit, lanes, ((Shape){BATCHNORM_RELU, narrow}), __VA_ARGS__);                                       \
        break;                                                                                                         \
    case BATCHNORM_CLIP:                                                                                               \
        body(job, &unit, lanes, ((Shape){BATCHNORM_CLIP, narrow}), __VA_ARGS__);                                       \
        break;                                                                                                         \
    case BATCHNORM_SWISH:                                                                                              \
        body(job, &unit, lanes, ((Shape){BATCHNORM_SWISH, narrow}), __VA_ARGS__);                                      \
        break;                                                                                                         \
    case BATCHNORM_HARD_SWISH:                                                                                         \
        body(job, &unit, lanes, ((Shape){BATCHNORM_HARD_SWISH, narrow}), __VA_ARGS__);                                 \
        break;                                                                                                         \
    }
#define BY_SHAPE(body, plane, ...)                                                                                     \
    if (is_plane(job, &unit))                                                                                          \
        BY_KIND(plane, 1, false, __VA_ARGS__)                                                                          \
    else if (unit.whole && job->loop->view->narrow)                                                                    \
        BY_KIND(body, LANES, true, __VA_ARGS__)                                                                        \
    else if (unit.whole)                                                                                               \
        BY_KIND(body, LANES, false, __VA_ARGS__)                                                                       \
    else if (unit.lanes == 8 && !job->loop->view->narrow)                                                              \
        BY_KIND(body, 8, false, __VA_ARGS__)                                                                           \
    else                                                                                                               \
        body(job, &unit, unit.lanes, ((Shape){job->loop->activation, job->loop->view->narrow}), __VA_ARGS__);

/* A plain channel lies in one run, and so does the only one of channels last. In f32, that is: bf16 takes other loops.
 */
VECTOR_INLINE bool is_plane(const Job *job, const Unit *unit)
{
    return unit->step == 1 && unit->lanes == 1 && !job->loop->view->narrow;
}

VECTOR_INLINE Unit turn_unit(const Job *job, int64_t index)
{
    const ChannelView *v = job->loop->view;
    return unit_at(v, index / job->groups * group_count(v) + job->first_group + index % job->groups);
}

VECTOR_INLINE Lanes lanes_of(const Job *job, const Unit *unit)
{
    const ChannelView *v = job->loop->view;
    Lanes l;
    gather(v, job->k, unit, l.k);
    gather(v, job->mean, unit, l.mean);
    gather(v, job->bias, unit, l.bias);
    gather(v, job->b, unit, l.b);
    gather(v, job->share, unit, l.share);
    return l;
}

VECTOR_INLINE void store_sums(const Job *job, const Unit *unit, const double *first, const double *second)
{
    const BatchNormLoop *loop = job->loop;
    for (int64_t i = 0; i < unit->lanes && unit->channel + i < loop->view->channels; i++) {
        loop->first[unit->sample * loop->view->channels + unit->channel + i] = first[i];
        loop->second[unit->sample * loop->view->channels + unit->channel + i] = second[i];
    }
}

/* Sixteen channels in bf16 have loops of their own. */
static bool in_lanes(const Job *job, const Unit *unit)
{
    return unit->whole && job->loop->view->narrow && batchnorm_lanes_fit();
}

static LaneRows lane_rows(const BatchNormLoop *loop, const Unit *unit, const Lanes *l)
{
    const ChannelView *v = loop->view;
    bool large = v->batch * v->blocks * v->spatial * v->block * (int64_t)sizeof(uint16_t) >= STREAM_BYTES;
    return (LaneRows){.x = (const uint16_t *)loop->x + unit->base,
                      .dy = loop->dy == NULL ? NULL : (const uint16_t *)loop->dy + unit->base,
                      .y = (uint16_t *)loop->y + unit->base,
                      .count = unit->rows,
                      .step = unit->step,
                      .next = sizeof(Lanes) / sizeof(float),
                      .stream = v->layout == LAYOUT_BLOCKED && large && (uintptr_t)loop->y % 64 == 0,
                      .k = l->k,
                      .mean = l->mean,
                      .bias = l->bias,
                      .b = l->b,
                      .share = l->share,
                      .low = loop->low,
                      .high = loop->high};
}

/* Do the units from `index` on lie side by side, as many as are taken together? Then `beside` of each loop does their
 * work. Each has its own sums, so results are those of one after the other. */
static bool lie_beside(const Job *job, int64_t index, int64_t end)
{
    bool fit = job->loop->view->layout == LAYOUT_NHWC && index + LANES_BESIDE <= end &&
               index % job->groups + LANES_BESIDE <= job->groups;
    if (!fit)
        return false;
    Unit last = turn_unit(job, index + LANES_BESIDE - 1);
    return in_lanes(job, &last);
}

static LaneRows rows_beside(const Job *job, int64_t index, Lanes l[LANES_BESIDE])
{
    for (int g = 0; g < LANES_BESIDE; g++) {
        Unit unit = turn_unit(job, index + g);
        l[g] = lanes_of(job, &unit);
    }
    Unit unit = turn_unit(job, index);
    LaneRows rows = lane_rows(job->loop, &unit, l);
    rows.beside = true;
    return rows;
}

/* ---- forward: means and squares about them of each unit ---------------------------------------------------------- */

VECTOR_INLINE void moments_plane(const Job *job, const Unit *unit, const Lanes *l, double *first, double *second)
{
    const float *x = (const float *)job->loop->x + unit->base;
    const float mean = l->mean[0];
    const int64_t run = (int64_t)RUN * LANES;
    for (int64_t begin = 0; begin < unit->rows; begin += run) {
        int64_t end = begin + run < unit->rows ? begin + run : unit->rows;
        float one = 0, two = 0;
#pragma omp simd reduction(+ : one, two)
        for (int64_t r = begin; r < end; r++) {
            float d = x[r] - mean;
            one += d;
            two += d * d;
        }
        *first += (double)one;
        *second += (double)two;
    }
}

VECTOR_INLINE void moments_rows(const Job *job, const Unit *unit, int64_t lanes, bool narrow, const Lanes *l,
                                double *first, double *second)
{
    const void *x = job->loop->x;
    for (int64_t begin = 0; begin < unit->rows; begin += RUN) {
        int64_t end = begin + RUN < unit->rows ? begin + RUN : unit->rows;
        float one[LANES] = {0}, two[LANES] = {0};
        for (int64_t r = begin; r < end; r++) {
            int64_t at = unit->base + r * unit->step;
            for (int64_t i = 0; i < lanes; i++) {
                float d = bf16_at(x, at + i, narrow) - l->mean[i];
                one[i] += d;
                two[i] += d * d;
            }
        }
        for (int64_t i = 0; i < lanes; i++) {
            first[i] += (double)one[i];
            second[i] += (double)two[i];
        }
    }
}

/* Eight lanes of f32; rows go in turns into ROWS sums, which do not wait for each other. */
VECTOR_INLINE void moments_eight(const Job *job, const Unit *unit, const Lanes *l, double *first, double *second)
{
    const float *x = (const float *)job->loop->x + unit->base;
    const Eight mean = *(const Eight *)l->mean;
    for (int64_t begin = 0; begin < unit->rows; begin += RUN) {
        int64_t end = begin + RUN < unit->rows ? begin + RUN : unit->rows, r = begin;
        Eight one[ROWS] = {0}, two[ROWS] = {0};
        for (; r + ROWS <= end; r += ROWS)
            for (int i = 0; i < ROWS; i++) {
                const Eight d = *(const Eight *)(x + (r + i) * unit->step) - mean;
                one[i] += d;
                two[i] += d * d;
            }
        for (; r < end; r++) {
            const Eight d = *(const Eight *)(x + r * unit->step) - mean;
            one[0] += d;
            two[0] += d * d;
        }
        const Eight ones = (one[0] + one[1]) + (one[2] + one[3]), twos = (two[0] + two[1]) + (two[2] + two[3]);
        for (int64_t i = 0; i < EIGHT; i++) {
            first[i] += (double)ones[i];
            second[i] += (double)twos[i];
        }
    }
}

/* Distances are taken to the mean of a few rows, so that squares do not cancel: (mean - guess)^2 << var. */
VECTOR_INLINE void guess_means(const Job *job, const Unit *unit, float *guess)
{
    int64_t samples = unit->rows < SAMPLES ? unit->rows : SAMPLES;
    for (int64_t i = 0; i < samples; i++) {
        int64_t at = unit->base + i * unit->rows / samples * unit->step;
        for (int64_t c = 0; c < unit->lanes; c++)
            guess[c] += bf16_at(job->loop->x, at + c, job->loop->view->narrow) / (float)samples;
    }
}

/* About the unit's own mean, from sums of distances to a guess. */
VECTOR_INLINE void store_moments(const Job *job, const Unit *unit, const float *guess, double *first, double *second)
{
    const double rows = (double)unit->rows;
    for (int64_t i = 0; i < unit->lanes; i++) {
        double squares = second[i] - first[i] * first[i] / rows;
        second[i] = squares > 0 || squares != squares ? squares : 0;
        first[i] = (double)guess[i] + first[i] / rows;
    }
    store_sums(job, unit, first, second);
}

static void moments_beside(const Job *job, int64_t index)
{
    Lanes l[LANES_BESIDE] = {0};
    double first[LANES_BESIDE * LANES] = {0}, second[LANES_BESIDE * LANES] = {0};
    Unit unit = turn_unit(job, index);
    LaneRows rows = lane_rows(job->loop, &unit, l);
    rows.beside = true;
    for (int g = 0; g < LANES_BESIDE; g++) {
        unit = turn_unit(job, index + g);
        guess_means(job, &unit, l[g].mean);
    }
    batchnorm_lanes_moments(&rows, first, second);
    for (int g = 0; g < LANES_BESIDE; g++) {
        unit = turn_unit(job, index + g);
        store_moments(job, &unit, l[g].mean, first + g * LANES, second + g * LANES);
    }
}

VECTOR_CLONES
static void moments_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    for (int64_t index = begin; index < end; index++) {
        if (lie_beside(job, index, end)) {
            moments_beside(job, index);
            index += LANES_BESIDE - 1;
            continue;
        }
        Unit unit = turn_unit(job, index);
        Lanes l = {0};
        double first[LANES] = {0}, second[LANES] = {0};
        guess_means(job, &unit, l.mean);
        const LaneRows lane = lane_rows(job->loop, &unit, &l);
        if (in_lanes(job, &unit))
            batchnorm_lanes_moments(&lane, first, second);
        else if (is_plane(job, &unit))
            moments_plane(job, &unit, &l, first, second);
        else if (unit.whole && job->loop->view->narrow)
            moments_rows(job, &unit, LANES, true, &l, first, second);
        else if (unit.whole)
            moments_rows(job, &unit, LANES, false, &l, first, second);
        else if (unit.lanes == EIGHT && !job->loop->view->narrow)
            moments_eight(job, &unit, &l, first, second);
        else
            moments_rows(job, &unit, unit.lanes, job->loop->view->narrow, &l, first, second);
        store_moments(job, &unit, l.mean, first, second);
    }
}

/* ---- forward: results -------------------------------------------------------------------------------------------- */

/* A result larger than the caches is written past them: a plain store would first read what it overwrites. */
VECTOR_INLINE void apply_stream(const Job *job, const Unit *unit, int64_t lanes, Shape shape, const Lanes *l)
{
    const float low = job->loop->low, high = job->loop->high;
    const float *x = (const float *)job->loop->x + unit->base;
    float *y = (float *)job->loop->y + unit->base, row[LANES];
    for (int64_t r = 0; r < unit->rows; r++) {
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++)
            row[i] = activate(shape.kind, l->k[i] * (x[r * lanes + i] - l->mean[i]) + l->bias[i], low, high);
        vector_stream(y + r * lanes, row, lanes);
    }
}

VECTOR_INLINE void apply_plane(const Job *job, const Unit *unit, int64_t lanes, Shape shape, const Lanes *l)
{
    (void)lanes;
    const float low = job->loop->low, high = job->loop->high, k = l->k[0], mean = l->mean[0], bias = l->bias[0];
    const float *x = (const float *)job->loop->x + unit->base;
    float *y = (float *)job->loop->y + unit->base;
#pragma omp simd
    for (int64_t r = 0; r < unit->rows; r++)
        y[r] = activate(shape.kind, k * (x[r] - mean) + bias, low, high);
}

VECTOR_INLINE void apply_rows(const Job *job, const Unit *unit, int64_t lanes, Shape shape, const Lanes *l)
{
    const float low = job->loop->low, high = job->loop->high;
    const void *x = job->loop->x;
    void *y = job->loop->y;
    for (int64_t r = 0; r < unit->rows; r++) {
        const int64_t at = unit->base + r * unit->step;
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++) {
            float z = l->k[i] * (bf16_at(x, at + i, shape.narrow) - l->mean[i]) + l->bias[i];
            bf16_put(y, at + i, activate(shape.kind, z, low, high), shape.narrow);
        }
    }
}

VECTOR_CLONES
static void apply_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    for (int64_t index = begin; index < end; index++) {
        if (lie_beside(job, index, end)) {
            Lanes several[LANES_BESIDE];
            const LaneRows rows = rows_beside(job, index, several);
            batchnorm_lanes_apply(job->loop->activation, &rows);
            index += LANES_BESIDE - 1;
            continue;
        }
        Unit unit = turn_unit(job, index);
        Lanes l = lanes_of(job, &unit);
        const LaneRows lane = lane_rows(job->loop, &unit, &l);
        if (in_lanes(job, &unit))
            batchnorm_lanes_apply(job->loop->activation, &lane);
        else
            BY_SHAPE(apply_rows, apply_plane, &l)
    }
}

VECTOR_CLONES
static void apply_stream_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    for (int64_t index = begin; index < end; index++) {
        Unit unit = turn_unit(job, index);
        Lanes l = lanes_of(job, &unit);
        if (unit.whole)
            BY_KIND(apply_stream, LANES, false, &l)
        else
            BY_KIND(apply_stream, LANES / 2, false, &l)
    }
    vector_stream_end();
}

/* ---- gradient: sums of dz and dz (x - mean) ---------------------------------------------------------------------- */

VECTOR_INLINE void sums_plane(const Job *job, const Unit *unit, int64_t lanes, Shape shape, const Lanes *l,
                              double *first, double *second)
{
    (void)lanes;
    const float low = job->loop->low, high = job->loop->high, k = l->k[0], mean = l->mean[0], bias = l->bias[0];
    const float *x = (const float *)job->loop->x + unit->base, *dy = (const float *)job->loop->dy + unit->base;
    float *dx = (float *)job->loop->y + unit->base;
    const int64_t run = (int64_t)RUN * LANES;
    for (int64_t begin = 0; begin < unit->rows; begin += run) {
        int64_t end = begin + run < unit->rows ? begin + run : unit->rows;
        float one = 0, two = 0;
#pragma omp simd reduction(+ : one, two)
        for (int64_t r = begin; r < end; r++) {
            float d = x[r] - mean, dz = through(shape.kind, dy[r], k * d + bias, low, high);
            if (is_dear(shape.kind))
                dx[r] = dz;
            one += dz;
            two += dz * d;
        }
        *first += (double)one;
        *second += (double)two;
    }
}

VECTOR_INLINE void sums_rows(const Job *job, const Unit *unit, int64_t lanes, Shape shape, const Lanes *l,
                             double *first, double *second)
{
    const float low = job->loop->low, high = job->loop->high;
    const void *x = job->loop->x, *dy = job->loop->dy;
    void *dx = job->loop->y;
    for (int64_t begin = 0; begin < unit->rows; begin += RUN) {
        int64_t end = begin + RUN < unit->rows ? begin + RUN : unit->rows;
        float one[LANES] = {0}, two[LANES] = {0};
        for (int64_t r = begin; r < end; r++) {
            const int64_t at = unit->base + r * unit->step;
            float d[LANES], dz[LANES];
#pragma omp simd
            for (int64_t i = 0; i < lanes; i++) {
                d[i] = bf16_at(x, at + i, shape.narrow) - l->mean[i];
                dz[i] = through(shape.kind, bf16_at(dy, at + i, shape.narrow), l->k[i] * d[i] + l->bias[i], low, high);
                if (is_dear(shape.kind))
                    bf16_put(dx, at + i, dz[i], shape.narrow);
            }
#pragma omp simd
            for (int64_t i = 0; i < lanes; i++) {
                one[i] += dz[i];
                two[i] += dz[i] * d[i];
            }
        }
        for (int64_t i = 0; i < lanes; i++) {
            first[i] += (double)one[i];
            second[i] += (double)two[i];
        }
    }
}

static void sums_beside(const Job *job, int64_t index)
{
    Lanes l[LANES_BESIDE];
    double first[LANES_BESIDE * LANES] = {0}, second[LANES_BESIDE * LANES] = {0};
    const LaneRows rows = rows_beside(job, index, l);
    batchnorm_lanes_sums(job->loop->activation, &rows, first, second);
    for (int g = 0; g < LANES_BESIDE; g++) {
        Unit unit = turn_unit(job, index + g);
        store_sums(job, &unit, first + g * LANES, second + g * LANES);
    }
}

VECTOR_CLONES
static void sums_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    for (int64_t index = begin; index < end; index++) {
        if (lie_beside(job, index, end)) {
            sums_beside(job, index);
            index += LANES_BESIDE - 1;
            continue;
        }
        Unit unit = turn_unit(job, index);
        Lanes l = lanes_of(job, &unit);
        double first[LANES] = {0}, second[LANES] = {0};
        const LaneRows lane = lane_rows(job->loop, &unit, &l);
        if (in_lanes(job, &unit))
            batchnorm_lanes_sums(job->loop->activation, &lane, first, second);
        else
            BY_SHAPE(sums_rows, sums_plane, &l, first, second)
        store_sums(job, &unit, first, second);
    }
}

/* ---- gradient: dx ------------------------------------------------------------------------------------------------ */

VECTOR_INLINE void spread_plane(const Job *job, const Unit *unit, int64_t lanes, Shape shape, const Lanes *l)
{
    (void)lanes;
    const BatchNormActivation kind = is_dear(shape.kind) ? BATCHNORM_LINEAR : shape.kind;
    const float low = job->loop->low, high = job->loop->high;
    const float k = l->k[0], mean = l->mean[0], bias = l->bias[0], b = l->b[0], share = l->share[0];
    const float *x = (const float *)job->loop->x + unit->base;
    float *dx = (float *)job->loop->y + unit->base;
    const float *dy = is_dear(shape.kind) ? dx : (const float *)job->loop->dy + unit->base;
#pragma omp simd
    for (int64_t r = 0; r < unit->rows; r++) {
        float d = x[r] - mean, dz = through(kind, dy[r], k * d + bias, low, high);
        dx[r] = k * (dz - share) + b * d;
    }
}

VECTOR_INLINE void spread_rows(const Job *job, const Unit *unit, int64_t lanes, Shape shape, const Lanes *l)
{
    const float low = job->loop->low, high = job->loop->high;
    const BatchNormActivation kind = is_dear(shape.kind) ? BATCHNORM_LINEAR : shape.kind;
    const void *x = job->loop->x;
    void *dx = job->loop->y;
    const void *dy = is_dear(shape.kind) ? dx : job->loop->dy;
    for (int64_t r = 0; r < unit->rows; r++) {
        const int64_t at = unit->base + r * unit->step;
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++) {
            float d = bf16_at(x, at + i, shape.narrow) - l->mean[i], z = l->k[i] * d + l->bias[i];
            float dz = through(kind, bf16_at(dy, at + i, shape.narrow), z, low, high);
            bf16_put(dx, at + i, l->k[i] * (dz - l->share[i]) + l->b[i] * d, shape.narrow);
        }
    }
}

VECTOR_CLONES
static void spread_range(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    for (int64_t index = begin; index < end; index++) {
        if (lie_beside(job, index, end)) {
            Lanes several[LANES_BESIDE];
            const LaneRows rows = rows_beside(job, index, several);
            batchnorm_lanes_spread(job->loop->activation, &rows);
            index += LANES_BESIDE - 1;
            continue;
        }
        Unit unit = turn_unit(job, index);
        Lanes l = lanes_of(job, &unit);
        const LaneRows lane = lane_rows(job->loop, &unit, &l);
        if (in_lanes(job, &unit))
            batchnorm_lanes_spread(job->loop->activation, &lane);
        else
            BY_SHAPE(spread_rows, spread_plane, &l)
    }
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

size_t batchnorm_scratch(const ChannelView *view)
{
    size_t channels = (size_t)view->channels;
    return (size_t)view->batch * channels * 2 * sizeof(double) + channels * 4 * sizeof(float);
}

/* The loop's scratch: sums of each sample and channel, then four coefficients a channel. */
static float *loop_begin(BatchNormLoop *loop, void *scratch)
{
    loop->first = scratch;
    loop->second = loop->first + loop->view->batch * loop->view->channels;
    return (float *)(loop->second + loop->view->batch * loop->view->channels);
}

/* Groups whose share of a thread fits its cache; all of them where channels lie last and a turn would not be a run. */
static int64_t turn_groups(const ChannelView *v)
{
    int64_t all = group_count(v), bytes = v->batch * v->spatial * lane_width(v) * (v->narrow ? 2 : 4);
    if (v->layout == LAYOUT_NHWC)
        return all;
    int64_t groups = TURN_BYTES * (int64_t)parallel_threads() / (bytes > 0 ? bytes : 1);
    return groups < 1 ? 1 : groups < all ? groups : all;
}

static double element_count(const ChannelView *v)
{
    return (double)(v->batch * v->spatial);
}

static void add_samples(const BatchNormLoop *loop, int64_t c, double *first, double *second)
{
    *first = *second = 0;
    for (int64_t n = 0; n < loop->view->batch; n++) {
        *first += loop->first[n * loop->view->channels + c];
        *second += loop->second[n * loop->view->channels + c];
    }
}

/* Units know their own means and sums of squares about them (Chan, Golub & LeVeque 1979):
 *     mean = sum mean_n / N,  M var = sum over n of  squares_n + S (mean_n - mean)^2 */
static void finish_moments(const BatchNormLoop *loop, float *k, int64_t begin, int64_t end)
{
    const ChannelView *v = loop->view;
    for (int64_t c = begin; c < end; c++) {
        double sum = 0, squares = 0;
        for (int64_t n = 0; n < v->batch; n++)
            sum += loop->first[n * v->channels + c];
        double mean = sum / (double)v->batch;
        for (int64_t n = 0; n < v->batch; n++) {
            double distance = loop->first[n * v->channels + c] - mean;
            squares += loop->second[n * v->channels + c] + (double)v->spatial * distance * distance;
        }
        loop->mean[c] = (float)mean;
        loop->var[c] = (float)(squares / element_count(v));
        k[c] = (float)((double)loop->scale[c] / sqrt((double)loop->var[c] + (double)loop->epsilon));
    }
}

/* Blocks of aligned f32 that fill cache lines, and a result that takes no input's place. */
static bool streams(const BatchNormLoop *loop)
{
    const ChannelView *v = loop->view;
    int64_t bytes = v->batch * v->blocks * v->block * v->spatial * (int64_t)sizeof(float);
    return v->layout == LAYOUT_BLOCKED && (v->block == LANES || v->block == LANES / 2) && !v->narrow &&
           loop->x != loop->y && bytes >= STREAM_BYTES && (uintptr_t)loop->y % 64 == 0;
}

void batchnorm_forward(BatchNormLoop *loop, void *scratch)
{
    const ChannelView *v = loop->view;
    float *k = loop_begin(loop, scratch);
    int64_t turn = turn_groups(v), all = group_count(v), width = lane_width(v);
    bool stream = streams(loop);
    for (int64_t g = 0; g < all; g += turn) {
        int64_t groups = g + turn < all ? turn : all - g, end = (g + groups) * width;
        Job job = {.loop = loop, .first_group = g, .groups = groups};
        parallel_for(v->batch * groups, 1, moments_range, &job);
        finish_moments(loop, k, g * width, end < v->channels ? end : v->channels);
        job.k = (ChannelTerm){k, 0};
        job.mean = (ChannelTerm){loop->mean, 0};
        job.bias = (ChannelTerm){loop->bias, 0};
        parallel_for(v->batch * groups, 1, stream ? apply_stream_range : apply_range, &job);
    }
}

static void find_factors(const BatchNormLoop *loop, float *k)
{
    for (int64_t c = 0; c < loop->view->channels; c++)
        k[c] = (float)((double)loop->scale[c] / sqrt((double)loop->var[c] + (double)loop->epsilon));
}

void batchnorm_again(BatchNormLoop *loop, void *scratch)
{
    const ChannelView *v = loop->view;
    float *k = loop_begin(loop, scratch);
    Job job = {.loop = loop, .groups = group_count(v), .k = {k, 0}, .mean = {loop->mean, 0}, .bias = {loop->bias, 0}};
    find_factors(loop, k);
    parallel_for(v->batch * job.groups, 1, apply_range, &job);
}

static void finish_sums(const BatchNormLoop *loop, const float *k, float *b, float *share, int64_t begin, int64_t end)
{
    double count = element_count(loop->view);
    for (int64_t c = begin; c < end; c++) {
        double first, second, inverse = 1 / sqrt((double)loop->var[c] + (double)loop->epsilon);
        add_samples(loop, c, &first, &second);
        double dscale = second * inverse;
        b[c] = (float)(-(double)k[c] * dscale * inverse / count);
        share[c] = (float)(first / count);
        if (loop->dscale != NULL)
            loop->dscale[c] = (float)dscale;
        if (loop->dbias != NULL)
            loop->dbias[c] = (float)first;
    }
}

void batchnorm_backward(BatchNormLoop *loop, void *scratch)
{
    const ChannelView *v = loop->view;
    float *k = loop_begin(loop, scratch), *b = k + v->channels, *share = b + v->channels;
    int64_t turn = turn_groups(v), all = group_count(v), width = lane_width(v);
    find_factors(loop, k);
    for (int64_t g = 0; g < all; g += turn) {
        int64_t groups = g + turn < all ? turn : all - g, end = (g + groups) * width;
        Job job = {.loop = loop,
                   .first_group = g,
                   .groups = groups,
                   .k = {k, 0},
                   .mean = {loop->mean, 0},
                   .bias = {loop->bias, 0}};
        parallel_for(v->batch * groups, 1, sums_range, &job);
        finish_sums(loop, k, b, share, g * width, end < v->channels ? end : v->channels);
        job.b = (ChannelTerm){b, 0};
        job.share = (ChannelTerm){share, 0};
        parallel_for(v->batch * groups, 1, spread_range, &job);
    }
}
