/* Planned reductions and their way back, as own loops: oneDNN's are references for everything but the last dim.
 *
 * The physical dims of the input (a blocked tensor has one more) are merged into groups that are alternately kept and
 * reduced. When the last group is reduced, an output is the sum of contiguous runs; when it is kept, rows are added up
 * side by side. Either way the work is cut into units that do not depend on the number of threads, each sums at most
 * CHUNK numbers in float, and what several units contribute to one output is added in double: the bits are the same at
 * any thread count and the error stays near that of a pairwise sum. bf16 is read a buffer at a time; sums are f32 and
 * leave as such, what is spread again may be bf16. */
#include <math.h>

#include "runtime/ops/bf16.h"
#include "runtime/ops/ops.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/vector.h"

enum {
    CHUNK = 8192,      /* contiguous numbers summed in one run */
    ROWS = 256,        /* rows added up by one unit */
    WIDTH = 512,       /* columns of a unit */
    UNIT_GRAIN = 16384 /* elements that are worth a thread */
};

/* Alternating groups of dims, from outside in. */
typedef struct Groups {
    int rank;
    int64_t dims[RANK_MAX + 1], strides[RANK_MAX + 1];
    bool reduced[RANK_MAX + 1];
} Groups;

/* Some groups, walked by one number. */
typedef struct Walk {
    int rank;
    int64_t dims[RANK_MAX + 1], strides[RANK_MAX + 1], count;
} Walk;

typedef enum Accumulate { ADD_VALUES, ADD_SQUARES, ADD_ABSOLUTES, KEEP_MAX, KEEP_MIN } Accumulate;

typedef struct ReduceState {
    ReduceKind kind;
    Accumulate how;
    bool rows;         /* the last group is kept: rows of `length` side by side */
    bool narrow;       /* the input is bf16 */
    int64_t length;    /* of the last group */
    Walk outer;        /* kept groups before the last one */
    Walk inner;        /* reduced groups before the last one; with `rows`, all but the innermost */
    int64_t row_count; /* with `rows`: of the innermost reduced group, row_stride apart */
    int64_t row_stride;
    int64_t units, columns;   /* per outer index; columns: blocks of WIDTH, with `rows` */
    int64_t channels, padded; /* per image: logical and stored, where the result must be packed; else equal */
    double count;
} ReduceState;

static Groups merge_groups(int rank, const int64_t *dims, const bool *reduced)
{
    Groups g = {.rank = 0};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) { /* collected from inside out */
        if (dims[i] == 1)
            continue;
        if (g.rank > 0 && g.reduced[g.rank - 1] == reduced[i]) {
            g.dims[g.rank - 1] *= dims[i];
        } else {
            g.dims[g.rank] = dims[i];
            g.strides[g.rank] = stride;
            g.reduced[g.rank++] = reduced[i];
        }
        stride *= dims[i];
    }
    if (g.rank == 0) {
        g.dims[0] = g.strides[0] = 1;
        g.rank = 1;
    }
    for (int i = 0; i < g.rank / 2; i++) {
        Groups old = g;
        int k = g.rank - 1 - i;
        g.dims[i] = old.dims[k], g.strides[i] = old.strides[k], g.reduced[i] = old.reduced[k];
        g.dims[k] = old.dims[i], g.strides[k] = old.strides[i], g.reduced[k] = old.reduced[i];
    }
    return g;
}

static Walk walk_groups(const Groups *g, int end, bool reduced)
{
    Walk walk = {.count = 1};
    for (int i = 0; i < end; i++)
        if (g->reduced[i] == reduced) {
            walk.dims[walk.rank] = g->dims[i];
            walk.strides[walk.rank++] = g->strides[i];
            walk.count *= g->dims[i];
        }
    return walk;
}

static int64_t walk_offset(const Walk *walk, int64_t i)
{
    int64_t offset = 0;
    for (int d = walk->rank - 1; d > 0; d--) {
        offset += i % walk->dims[d] * walk->strides[d];
        i /= walk->dims[d];
    }
    return walk->rank > 0 ? offset + i * walk->strides[0] : 0;
}

/* ---- loops -------------------------------------------------------------------------------------------------- */

#define RUN_SUM(NAME, TERM)                                                                                            \
    VECTOR_CLONES static float run_##NAME(const float *x, int64_t n)                                                   \
    {                                                                                                                  \
        float sum = 0;                                                                                                 \
        _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < n; i++)                                         \
        {                                                                                                              \
            float v = x[i];                                                                                            \
            sum += (TERM);                                                                                             \
        }                                                                                                              \
        return sum;                                                                                                    \
    }

RUN_SUM(values, v)
RUN_SUM(squares, v *v)
RUN_SUM(absolutes, v < 0 ? -v : v)

/* A NaN wins. */
#define RUN_EXTREMUM(NAME, SIMD, RELATION)                                                                             \
    VECTOR_CLONES static float run_##NAME(const float *x, int64_t n)                                                   \
    {                                                                                                                  \
        float best = x[0];                                                                                             \
        int broken = 0;                                                                                                \
        _Pragma(SIMD) for (int64_t i = 0; i < n; i++)                                                                  \
        {                                                                                                              \
            best = x[i] RELATION best ? x[i] : best;                                                                   \
            broken |= x[i] != x[i];                                                                                    \
        }                                                                                                              \
        return broken ? NAN : best;                                                                                    \
    }

RUN_EXTREMUM(max, "omp simd reduction(max : best) reduction(| : broken)", >)
RUN_EXTREMUM(min, "omp simd reduction(min : best) reduction(| : broken)", <)

static float run_any(Accumulate how, const float *x, int64_t n)
{
    switch (how) {
    case ADD_VALUES:
        return run_values(x, n);
    case ADD_SQUARES:
        return run_squares(x, n);
    case ADD_ABSOLUTES:
        return run_absolutes(x, n);
    case KEEP_MAX:
        return run_max(x, n);
    case KEEP_MIN:
        return run_min(x, n);
    }
    return 0;
}

/* `count` rows of `width` columns, `stride` apart, into `sums`. */
#define ADD_ROWS(NAME, STEP)                                                                                           \
    VECTOR_INLINE void rows_##NAME##_of(const float *x, int64_t count, int64_t stride, int64_t width, float *sums)     \
    {                                                                                                                  \
        for (int64_t i = 0; i < count; i++)                                                                            \
            for (int64_t j = 0; j < width; j++) {                                                                      \
                float v = x[i * stride + j], sum = sums[j];                                                            \
                sums[j] = (STEP);                                                                                      \
            }                                                                                                          \
    }                                                                                                                  \
    VECTOR_CLONES static void rows_##NAME(const float *x, int64_t count, int64_t stride, int64_t width, float *sums)   \
    {                                                                                                                  \
        if (width == 16) { /* a block of channels: one register */                                                     \
            float block[16];                                                                                           \
            memcpy(block, sums, sizeof block);                                                                         \
            rows_##NAME##_of(x, count, stride, 16, block);                                                             \
            memcpy(sums, block, sizeof block);                                                                         \
        } else {                                                                                                       \
            rows_##NAME##_of(x, count, stride, width, sums);                                                           \
        }                                                                                                              \
    }

ADD_ROWS(values, sum + v)
ADD_ROWS(squares, sum + v * v)
ADD_ROWS(absolutes, sum + (v < 0 ? -v : v))
ADD_ROWS(max, v > sum || v != v ? v : sum)
ADD_ROWS(min, v < sum || v != v ? v : sum)

static void rows_any(Accumulate how, const float *x, int64_t count, int64_t stride, int64_t width, float *sums)
{
    switch (how) {
    case ADD_VALUES:
        rows_values(x, count, stride, width, sums);
        break;
    case ADD_SQUARES:
        rows_squares(x, count, stride, width, sums);
        break;
    case ADD_ABSOLUTES:
        rows_absolutes(x, count, stride, width, sums);
        break;
    case KEEP_MAX:
        rows_max(x, count, stride, width, sums);
        break;
    case KEEP_MIN:
        rows_min(x, count, stride, width, sums);
        break;
    }
}

static float start_of(Accumulate how)
{
    return how == KEEP_MAX ? -INFINITY : how == KEEP_MIN ? INFINITY : 0.0F;
}

static float finish(const ReduceState *state, double value)
{
    switch (state->kind) {
    case REDUCE_MEAN:
        return (float)(value / state->count);
    case REDUCE_L2:
        return (float)sqrt(value);
    case REDUCE_LOG_SUM:
        return (float)log(value);
    default:
        return (float)value;
    }
}

/* ---- units ---------------------------------------------------------------------------------------------------- */

typedef struct ReduceWork {
    const ReduceState *state;
    const void *x;
    float *y, *partial; /* partial: one value (or row) a unit; NULL when units are outputs */
} ReduceWork;

/* The last group is reduced: unit u of an output is one piece of one contiguous run. */
static void run_units(int64_t begin, int64_t end, void *context)
{
    const ReduceWork *work = context;
    const ReduceState *s = work->state;
    int64_t pieces = s->units / s->inner.count;
    for (int64_t i = begin; i < end; i++) {
        int64_t output = i / s->units, unit = i % s->units, piece = unit % pieces;
        int64_t at = piece * CHUNK, n = s->length - at < CHUNK ? s->length - at : CHUNK;
        int64_t from = walk_offset(&s->outer, output) + walk_offset(&s->inner, unit / pieces) + at;
        float buffer[CHUNK];
        float value = run_any(s->how, bf16_read(work->x, s->narrow, from, n, buffer), n);
        if (work->partial != NULL)
            work->partial[i] = value;
        else
            work->y[i] = finish(s, (double)value);
    }
}

/* As many rows at once as the buffer holds; rows without gaps are widened in one run. */
static void add_narrow(Accumulate how, const uint16_t *x, int64_t count, int64_t stride, int64_t width, float *sums)
{
    float buffer[CHUNK];
    int64_t most = CHUNK / width;
    for (int64_t done = 0; done < count; done += most) {
        int64_t n = count - done < most ? count - done : most;
        const uint16_t *from = x + done * stride;
        if (stride == width)
            bf16_widen(from, buffer, n * width);
        else
            for (int64_t i = 0; i < n; i++)
                bf16_widen(from + i * stride, buffer + i * width, width);
        rows_any(how, buffer, n, width, width, sums);
    }
}

/* Rows [first, last) of all reduced indices from element `x` on, a stretch of equally spaced ones at a time. */
static void add_rows(const ReduceWork *work, int64_t x, int64_t first, int64_t last, int64_t width, float *sums)
{
    const ReduceState *s = work->state;
    while (first < last) {
        int64_t at = first % s->row_count, n = s->row_count - at;
        if (n > last - first)
            n = last - first;
        int64_t from = x + walk_offset(&s->inner, first / s->row_count) + at * s->row_stride;
        if (s->narrow)
            add_narrow(s->how, (const uint16_t *)work->x + from, n, s->row_stride, width, sums);
        else
            rows_any(s->how, (const float *)work->x + from, n, s->row_stride, width, sums);
        first += n;
    }
}

/* The last group is kept: a unit is up to ROWS rows of up to WIDTH columns. */
static void row_units(int64_t begin, int64_t end, void *context)
{
    const ReduceWork *work = context;
    const ReduceState *s = work->state;
    int64_t per_output = s->units * s->columns, all_rows = s->inner.count * s->row_count;
    for (int64_t i = begin; i < end; i++) {
        int64_t output = i / per_output, unit = i % per_output / s->columns, column = i % s->columns * WIDTH;
        int64_t width = s->length - column < WIDTH ? s->length - column : WIDTH;
        int64_t first = unit * ROWS, last = first + ROWS < all_rows ? first + ROWS : all_rows;
        float sums[WIDTH];
        for (int64_t j = 0; j < width; j++)
            sums[j] = start_of(s->how);
        add_rows(work, walk_offset(&s->outer, output) + column, first, last, width, sums);
        if (work->partial != NULL) {
            memcpy(work->partial + (output * s->units + unit) * s->length + column, sums, (size_t)width * sizeof *sums);
            continue;
        }
        for (int64_t j = 0; j < width; j++)
            work->y[output * s->length + column + j] = finish(s, (double)sums[j]);
    }
}

/* Partial results of one output (or one column of it), in order. */
static void combine_units(int64_t begin, int64_t end, void *context)
{
    const ReduceWork *work = context;
    const ReduceState *s = work->state;
    int64_t width = s->rows ? s->length : 1;
    for (int64_t i = begin; i < end; i++) {
        const float *partial = work->partial + i / width * s->units * width + i % width;
        double sum = (double)start_of(s->how);
        for (int64_t u = 0; u < s->units; u++) {
            double v = (double)partial[u * width];
            sum = s->how == KEEP_MAX   ? (v > sum || v != v ? v : sum)
                  : s->how == KEEP_MIN ? (v < sum || v != v ? v : sum)
                                       : sum + v;
        }
        work->y[i] = finish(s, sum);
    }
}

static int64_t output_count(const ReduceState *s)
{
    return s->outer.count * (s->rows ? s->length : 1);
}

/* [images, padded] -> [images, channels] */
static void pack_channels(const ReduceState *s, const float *from, float *to)
{
    for (int64_t n = 0; n < output_count(s) / s->padded; n++)
        memcpy(to + n * s->channels, from + n * s->padded, (size_t)s->channels * sizeof *to);
}

static Status run_reduce(Step *step, Error *err)
{
    (void)err;
    const ReduceState *s = step->state;
    float *scratch = step->scratch, *y = step->out[0]->data;
    bool packs = s->padded != s->channels;
    ReduceWork work = {s, step->in[0]->data, packs ? scratch : y, NULL};
    if (s->units > 1)
        work.partial = scratch + (packs ? output_count(s) : 0);
    int64_t size = s->rows ? ROWS * (s->length < WIDTH ? s->length : WIDTH) : s->length < CHUNK ? s->length : CHUNK;
    if (s->rows && s->inner.count * s->row_count < ROWS)
        size = s->inner.count * s->row_count * (s->length < WIDTH ? s->length : WIDTH);
    int64_t grain = 1 + UNIT_GRAIN / (size + 1);
    if (s->rows)
        parallel_for(s->outer.count * s->units * s->columns, grain, row_units, &work);
    else
        parallel_for(s->outer.count * s->units, grain, run_units, &work);
    if (s->units > 1)
        parallel_for(output_count(s), 1 + UNIT_GRAIN / s->units, combine_units, &work);
    if (packs)
        pack_channels(s, scratch, y);
    return STATUS_OK;
}

/* ---- planning --------------------------------------------------------------------------------------------------- */

/* In a channel layout the result is plain only when channels or space go, but not a part of space; the padding must not
 * count. */
static bool layout_suits(const Reduction *r, Layout layout)
{
    if (layout != LAYOUT_BLOCKED && layout != LAYOUT_NHWC)
        return false;
    bool all = true, any = false;
    for (int i = 2; i < r->rank; i++) {
        all = all && (r->reduced[i] || r->dims[i] == 1);
        any = any || r->reduced[i];
    }
    bool channels = r->reduced[1] || r->dims[1] == 1;
    bool neutral = r->kind != REDUCE_MAX && r->kind != REDUCE_MIN;
    return channels ? (neutral || layout == LAYOUT_NHWC) && (all || !any) && r->dims[1] > 1 : all;
}

/* Physical dims of the channel layouts, and which of them are reduced. */
static int physical_dims(const Reduction *r, const Slot *slot, int block, int64_t *dims, bool *reduced)
{
    int rank = slot_physical(slot, slot->layout, block, r->rank, dims);
    for (int i = 0; i < rank; i++)
        reduced[i] = i < r->rank ? r->reduced[i] : false;
    if (slot->layout == LAYOUT_BLOCKED)
        reduced[rank - 1] = r->reduced[1];
    if (slot->layout == LAYOUT_NHWC) {
        for (int i = 1; i < r->rank - 1; i++)
            reduced[i] = r->reduced[i + 1];
        reduced[rank - 1] = r->reduced[1];
    }
    return rank;
}

static Accumulate accumulate_of(ReduceKind kind)
{
    return kind == REDUCE_MAX                               ? KEEP_MAX
           : kind == REDUCE_MIN                             ? KEEP_MIN
           : kind == REDUCE_L1                              ? ADD_ABSOLUTES
           : kind == REDUCE_L2 || kind == REDUCE_SUM_SQUARE ? ADD_SQUARES
                                                            : ADD_VALUES;
}

static void state_fill(ReduceState *s, const Groups *g)
{
    int last = g->rank - 1;
    s->length = g->dims[last];
    s->rows = !g->reduced[last];
    s->outer = walk_groups(g, last, false);
    s->columns = 1;
    if (!s->rows) {
        s->inner = walk_groups(g, last, true);
        s->units = s->inner.count * ((s->length + CHUNK - 1) / CHUNK);
        return;
    }
    s->inner = walk_groups(g, last - 1, true);
    s->row_count = last > 0 ? g->dims[last - 1] : 1;
    s->row_stride = last > 0 ? g->strides[last - 1] : 0;
    s->units = (s->inner.count * s->row_count + ROWS - 1) / ROWS;
    s->columns = (s->length + WIDTH - 1) / WIDTH;
}

Status reduction_prepare(const Reduction *r, PlanContext *context, Error *err)
{
    const Node *node = context->node;
    int64_t dims[RANK_MAX + 1];
    bool reduced[RANK_MAX + 1];
    bool slow = r->kind == REDUCE_PROD || r->kind == REDUCE_LOG_SUM_EXP;
    if (node->outputs[0]->type.dtype != DTYPE_F32 || context->plain_only || slow || dims_count(r->rank, r->dims) == 0)
        return kernel_eval(context, err);
    bool suits = r->rank >= 3 && r->rank <= 5 && layout_suits(r, kernel_input_layout(context, 0));
    Slot *x = kernel_input_as(context, 0, suits ? kernel_input_layout(context, 0) : LAYOUT_PLAIN, DTYPE_UNDEFINED);
    kernel_output(context, 0, LAYOUT_PLAIN);
    int rank = physical_dims(r, x, context->block, dims, reduced);
    Groups groups = merge_groups(rank, dims, reduced);
    ReduceState *s = kernel_state(context, sizeof *s);
    s->kind = r->kind;
    s->how = accumulate_of(r->kind);
    s->narrow = x->dtype == DTYPE_BF16;
    s->count = (double)r->count;
    state_fill(s, &groups);
    s->channels = s->padded = 1;
    if (x->layout == LAYOUT_BLOCKED && !r->reduced[1]) {
        s->channels = r->dims[1];
        s->padded = (r->dims[1] + context->block - 1) / context->block * context->block;
    }
    size_t outputs = (size_t)output_count(s);
    size_t wanted = (s->units > 1 ? outputs * (size_t)s->units : 0) + (s->padded != s->channels ? outputs : 0);
    kernel_scratch(context, wanted * sizeof(float));
    kernel_run(context, run_reduce, s->rows ? "own:rows" : "own:runs");
    return STATUS_OK;
}

/* ---- the way back ------------------------------------------------------------------------------------------------ */

typedef struct SpreadState {
    bool rows;   /* the last group is kept: copy rows; else fill runs */
    bool narrow; /* dx is bf16 */
    int64_t length;
    Groups outer; /* all groups but the last, kept and reduced */
    int64_t outer_count;
    int64_t channels, padded; /* dy must be padded to whole blocks first */
    int64_t images;
    float scale;
} SpreadState;

typedef struct SpreadWork {
    const SpreadState *state;
    const float *dy;
    void *dx;
} SpreadWork;

VECTOR_CLONES static void scaled_copy(const float *x, float *y, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * scale;
}

VECTOR_CLONES static void scaled_copy_narrow(const float *x, uint16_t *y, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_from_float(x[i] * scale);
}

VECTOR_CLONES static void fill(float *y, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = value;
}

VECTOR_CLONES static void fill_narrow(uint16_t *y, int64_t n, uint16_t value)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = value;
}

static void spread_unit(const SpreadState *s, const float *dy, void *dx, int64_t at)
{
    if (s->rows && s->narrow)
        scaled_copy_narrow(dy, (uint16_t *)dx + at, s->length, s->scale);
    else if (s->rows)
        scaled_copy(dy, (float *)dx + at, s->length, s->scale);
    else if (s->narrow)
        fill_narrow((uint16_t *)dx + at, s->length, bf16_from_float(*dy * s->scale));
    else
        fill((float *)dx + at, s->length, *dy * s->scale);
}

/* Unit i writes the i-th row of dx; where its dy lies follows from the indices of the kept groups. */
static void spread_units(int64_t begin, int64_t end, void *context)
{
    const SpreadWork *work = context;
    const SpreadState *s = work->state;
    for (int64_t i = begin; i < end; i++) {
        int64_t rest = i, from = 0, step = s->rows ? s->length : 1;
        for (int d = s->outer.rank - 1; d >= 0; d--) {
            int64_t index = rest % s->outer.dims[d];
            rest /= s->outer.dims[d];
            if (s->outer.reduced[d])
                continue;
            from += index * step;
            step *= s->outer.dims[d];
        }
        spread_unit(s, work->dy + from, work->dx, i * s->length);
    }
}

static Status run_spread(Step *step, Error *err)
{
    (void)err;
    const SpreadState *s = step->state;
    SpreadWork work = {s, step->in[0]->data, step->out[0]->data};
    if (s->padded != s->channels) {
        float *scratch = step->scratch;
        memset(scratch, 0, (size_t)(s->images * s->padded) * sizeof *scratch);
        for (int64_t n = 0; n < s->images; n++)
            memcpy(scratch + n * s->padded, work.dy + n * s->channels, (size_t)s->channels * sizeof *scratch);
        work.dy = scratch;
    }
    parallel_for(s->outer_count, 1 + UNIT_GRAIN / (s->length + 1), spread_units, &work);
    return STATUS_OK;
}

/* dy [.., C, 1..] is plain; dx may take a channel layout when space is what it spreads over, or channels are whole. */
static Layout spread_layout(const Reduction *r, PlanContext *context)
{
    Layout layout = r->rank >= 3 && r->rank <= 5 ? kernel_input_layout(context, 1) : LAYOUT_PLAIN;
    bool space = true;
    for (int i = 2; i < r->rank; i++)
        space = space && (r->reduced[i] || r->dims[i] == 1);
    bool suits = (layout == LAYOUT_BLOCKED || layout == LAYOUT_NHWC) && space && !r->reduced[1];
    return suits ? layout : LAYOUT_PLAIN;
}

Status spread_prepare(const Reduction *r, PlanContext *context, double scale, Error *err)
{
    int64_t dims[RANK_MAX + 1];
    bool reduced[RANK_MAX + 1];
    if (context->node->outputs[0]->type.dtype != DTYPE_F32 || context->plain_only || dims_count(r->rank, r->dims) == 0)
        return kernel_eval(context, err);
    kernel_input(context, 0, LAYOUT_PLAIN);
    Slot *dx = kernel_output_as(context, 0, spread_layout(r, context), kernel_output_dtype(context, 0));
    SpreadState *s = kernel_state(context, sizeof *s);
    int rank = physical_dims(r, dx, context->block, dims, reduced);
    s->outer = merge_groups(rank, dims, reduced);
    s->outer.rank--;
    s->rows = !s->outer.reduced[s->outer.rank];
    s->length = s->outer.dims[s->outer.rank];
    s->outer_count = dims_count(s->outer.rank, s->outer.dims);
    s->scale = (float)scale;
    s->narrow = dx->dtype == DTYPE_BF16;
    s->channels = s->padded = 1;
    if (dx->layout == LAYOUT_BLOCKED) {
        s->channels = r->dims[1];
        s->padded = (r->dims[1] + context->block - 1) / context->block * context->block;
        s->images = r->kept[0];
        if (s->padded != s->channels)
            kernel_scratch(context, (size_t)(s->images * s->padded) * sizeof(float));
    }
    kernel_run(context, run_spread, s->rows ? "own:rows" : "own:runs");
    return STATUS_OK;
}
