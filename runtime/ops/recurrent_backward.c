/* Planned RNN, GRU and LSTM, backward, a block of steps after another from the end. First every unit
 * (recurrent_units.c) goes through its steps of the block in reverse order, each one pass over the gates and one
 * product with R, and leaves the gradients of the gate sums; then, while these are near, what the block adds to the
 * gradients of X, W, R and the biases: products over all rows of the block, cut into blocks of their results, one
 * thread each.
 *
 * Steps beyond a sample's end have gradients of zero. */
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/recurrent_kernel.h"
#include "runtime/ops/vector.h"

typedef struct Backward {
    Unit u;
    const float *rec;    /* [GH, H] of the direction */
    Panels panels[2];    /* R in its parts, see part_gates */
    const float *y, *dy; /* of the whole node; dy may be NULL */
    const float *saved, *c0, *h0;
    float *dgates, *before; /* of the direction and the block */
    int64_t first, steps;   /* the block; rows in the buffers count from its first step */
    int64_t stride, gradient_stride;
} Backward;

typedef struct BackwardWork {
    const Step *step;
    int64_t block; /* counted from where the way back begins, for each direction */
    atomic_int failed;
} BackwardWork;

/* Gates whose gradients meet R at once: GRU's candidate is apart, for what R multiplies there has columns of its own.
 */
static int64_t part_gates(const Recurrence *r, int part)
{
    return r->kind != CELL_GRU ? (part == 0 ? r->gates : 0) : part == 0 ? 2 : 1;
}

static int64_t packed_size(const Recurrence *r)
{
    return panels_size(r->gates * r->hidden, r->hidden);
}

static void packed_places(const Recurrence *r, int d, const float *base, Panels parts[2])
{
    const float *at = base + d * packed_size(r);
    for (int i = 0; i < 2; i++) {
        parts[i] = (Panels){part_gates(r, i) * r->hidden, r->hidden, at};
        at += panels_size(parts[i].k, parts[i].n);
    }
}

static void pack(const Recurrence *r, const float *rec, float *to)
{
    for (int d = 0; d < r->directions; d++) {
        Panels parts[2];
        packed_places(r, d, to, parts);
        const float *from = rec + d * r->gates * r->hidden * r->hidden;
        float *at = to + d * packed_size(r);
        for (int i = 0; i < 2; i++) {
            at = recurrent_pack(&parts[i], from, r->hidden, 1, at);
            from += parts[i].k * r->hidden;
        }
    }
}

static Backward backward_of(BackwardWork *work, int64_t unit)
{
    const Step *step = work->step;
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    float *scratch = step->scratch;
    int64_t done = work->block * state->back_steps, left = r->steps - done;
    int64_t steps = left < state->back_steps ? left : state->back_steps;
    const float *saved = recurrent_input(step, GRAD_SAVED), *rec = recurrent_input(step, GRAD_INPUTS + IN_R);
    int64_t n = r->hidden, rows = state->back_steps * r->batch;
    Unit u = recurrent_unit(step, GRAD_INPUTS, unit, &work->failed);
    Backward w = {.u = u,
                  .rec = rec + u.d * r->gates * n * n,
                  .y = step->in[GRAD_Y]->data,
                  .dy = recurrent_input(step, GRAD_DY),
                  .saved = saved == NULL ? NULL : saved + u.d * r->steps * r->batch * state->stride,
                  .c0 = recurrent_input(step, GRAD_INPUTS + IN_C),
                  .h0 = recurrent_input(step, GRAD_INPUTS + IN_H),
                  .dgates = scratch + state->at.gates + u.d * rows * state->gradient_stride,
                  .before = scratch + state->at.before + u.d * rows * n,
                  .first = r->reverse[u.d] ? done : left - steps,
                  .steps = steps,
                  .stride = state->stride,
                  .gradient_stride = state->gradient_stride};
    packed_places(r, u.d, scratch + state->at.weights_r, w.panels);
    return w;
}

enum { AHEAD = 2 };

/* ---- cells ------------------------------------------------------------------------------------------------------ */

/* The row of step t and sample b in the buffers of the block. */
static int64_t block_row(const Backward *w, int64_t t, int64_t b)
{
    return recurrent_row(w->u.r, t - w->first, b);
}

/* The step that was done before step t for sample b; -1 when t was its first. */
static int64_t step_before(const Unit *u, int64_t b)
{
    if (!u->r->reverse[u->d])
        return u->t - 1;
    int64_t length = u->lengths == NULL ? u->r->steps : u->lengths[b];
    return u->t + 1 < length ? u->t + 1 : -1;
}

/* c before step t of sample b. */
static const float *cell_before(const Backward *w, int64_t before, int64_t b)
{
    const Recurrence *r = w->u.r;
    if (before >= 0)
        return w->saved + recurrent_row(r, before, b) * w->stride + 4 * r->hidden;
    return w->c0 != NULL ? w->c0 + w->u.d * r->state_d + b * r->state_b : w->u.zeros;
}

static void cell_back(const Backward *w, int64_t b)
{
    const Unit *u = &w->u;
    const Recurrence *r = u->r;
    int64_t n = r->hidden, row = block_row(w, u->t, b), before = step_before(u, b);
    const float *g = w->saved + recurrent_row(r, u->t, b) * w->stride;
    float *dh = u->h + b * n, *da = w->dgates + row * w->gradient_stride, *h_prev = w->before + row * n;
    if (u->phase == 1) {
        gru_cell_back_reset(n, g, h_prev, u->extra + b * n, dh, da);
        return;
    }
    if (w->dy != NULL)
        cell_add(n, w->dy + recurrent_y_at(r, u->d, u->t, b), dh);
    if (before >= 0)
        memcpy(h_prev, w->y + recurrent_y_at(r, u->d, before, b), (size_t)n * sizeof *h_prev);
    else if (w->h0 != NULL)
        memcpy(h_prev, w->h0 + u->d * r->state_d + b * r->state_b, (size_t)n * sizeof *h_prev);
    else
        memset(h_prev, 0, (size_t)n * sizeof *h_prev);
    if (r->kind == CELL_RNN)
        rnn_cell_back(n, w->y + recurrent_y_at(r, u->d, u->t, b), dh, da, u->state->relu);
    else if (r->kind == CELL_GRU)
        gru_cell_back(n, g, h_prev, dh, da, r->linear_before_reset);
    else
        lstm_cell_back(n, g, cell_before(w, before, b), u->p, dh, u->c + b * n, da);
}

/* Asks for what the pass over sample b will read AHEAD steps later, so that it comes while products are computed. */
static void ask_ahead(const Backward *w, int64_t b)
{
    const Unit *u = &w->u;
    const Recurrence *r = u->r;
    int64_t t = r->reverse[u->d] ? u->t + AHEAD : u->t - AHEAD;
    if (t < 0 || t >= r->steps)
        return;
    if (w->saved != NULL)
        vector_ask(w->saved + recurrent_row(r, t, b) * w->stride, w->stride);
    if (w->dy != NULL)
        vector_ask(w->dy + recurrent_y_at(r, u->d, t, b), r->hidden);
}

/* Samples begin.. of the unit. */
static void cells_back(int64_t begin, int64_t end, void *context)
{
    const Backward *w = context;
    const Unit *u = &w->u;
    int64_t n = u->r->hidden;
    for (int64_t b = u->begin + begin; b < u->begin + end; b++) {
        if (u->phase == 0)
            ask_ahead(w, b);
        if (unit_is_active(u, b)) {
            cell_back(w, b);
            continue;
        }
        int64_t row = block_row(w, u->t, b);
        memset(w->dgates + row * w->gradient_stride, 0, (size_t)w->gradient_stride * sizeof(float));
        memset(w->before + row * n, 0, (size_t)n * sizeof(float));
    }
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* dh of the step before: `extra` for LSTM and RNN, added to what is there for GRU. Waiting samples keep theirs. */
static void pass_on(const Unit *u)
{
    int64_t n = u->r->hidden;
    for (int64_t b = u->begin; b < u->end; b++) {
        if (!unit_is_active(u, b))
            continue;
        if (u->r->kind == CELL_GRU)
            cell_add(n, u->extra + b * n, u->h + b * n);
        else
            memcpy(u->h + b * n, u->extra + b * n, (size_t)n * sizeof(float));
    }
}

/* extra [samples, H] = (gradients, from column `from` on) (rows of R of gates first.. first + gates) + beta extra */
static void through_weights(const Backward *w, int64_t from, int64_t first, int64_t gates, float beta)
{
    const Unit *u = &w->u;
    int64_t n = u->r->hidden;
    const float *rows = w->dgates + block_row(w, u->t, u->begin) * w->gradient_stride + from * n;
    Gemm g = {.trans_a = 'N',
              .trans_b = 'N',
              .m = u->end - u->begin,
              .n = n,
              .k = gates * n,
              .a = rows,
              .lda = u->r->row_b * w->gradient_stride,
              .b = w->rec + first * n * n,
              .ldb = n,
              .beta = beta,
              .c = u->extra + u->begin * n,
              .ldc = n};
    unit_gemm(u, &g);
}

/* extra [samples, H] = sum over the parts `first`..`last` of (their gradients) R */
static void through_panels(const Backward *w, int first, int last)
{
    const Unit *u = &w->u;
    const Recurrence *r = u->r;
    int64_t n = r->hidden;
    const float *rows = w->dgates + block_row(w, u->t, u->begin) * w->gradient_stride;
    int64_t apart = r->row_b * w->gradient_stride, candidate = (r->linear_before_reset ? 3 : 2) * n;
    PanelTerm terms[2] = {{rows, apart, &w->panels[0]}, {rows + candidate, apart, &w->panels[1]}};
    panels_multiply(u->end - u->begin, terms + first, last - first + 1, false, u->extra + u->begin * n, n);
}

static void backward_step_packed(Backward *w)
{
    Unit *u = &w->u;
    const Recurrence *r = u->r;
    int64_t samples = u->end - u->begin;
    u->phase = 0;
    cells_back(0, samples, w);
    if (r->kind != CELL_GRU) {
        through_panels(w, 0, 0);
    } else if (r->linear_before_reset) {
        through_panels(w, 0, 1);
    } else {
        through_panels(w, 1, 1);
        u->phase = 1;
        cells_back(0, samples, w);
        through_panels(w, 0, 0);
    }
    pass_on(u);
}

static void backward_step(Backward *w)
{
    Unit *u = &w->u;
    const Recurrence *r = u->r;
    int64_t samples = u->end - u->begin, grain = 1 + CELL_GRAIN / (r->hidden + 1);
    u->phase = 0;
    parallel_for(samples, grain, cells_back, w);
    if (r->kind != CELL_GRU) {
        through_weights(w, 0, 0, r->gates, 0.0F);
    } else if (r->linear_before_reset) {
        through_weights(w, 0, 0, 2, 0.0F);
        through_weights(w, 3, 2, 1, 1.0F);
    } else {
        through_weights(w, 2, 2, 1, 0.0F);
        u->phase = 1;
        parallel_for(samples, grain, cells_back, w);
        through_weights(w, 0, 0, 2, 0.0F);
    }
    pass_on(u);
}

static void backward_units(int64_t begin, int64_t end, void *context)
{
    BackwardWork *work = context;
    for (int64_t i = begin; i < end; i++) {
        Backward w = backward_of(work, i);
        bool reverse = w.u.r->reverse[w.u.d];
        for (int64_t s = 0; s < w.steps; s++) {
            w.u.t = reverse ? w.first + s : w.first + w.steps - 1 - s;
            if (w.u.state->panels)
                backward_step_packed(&w);
            else
                backward_step(&w);
        }
    }
}

/* ---- what a block adds to the gradients ------------------------------------------------------------------------- */

enum { GATHER_BLOCK = 256, INPUT_BLOCK = 64 }; /* rows of a result that one thread computes */

/* to [width, columns] += gradients [rows, width]^T factor [rows, columns], a direction; the first block overwrites. */
typedef struct WeightGradient {
    int64_t width, columns, rows;
    const float *gradients, *factor;
    int64_t gradient_stride, factor_stride;
    float *to;
    int64_t gradients_d, factor_d, to_d; /* floats from direction to direction */
    int64_t parts;                       /* a direction has */
    bool add;
    atomic_int *failed;
} WeightGradient;

static void weight_parts(int64_t begin, int64_t end, void *context)
{
    const WeightGradient *w = context;
    for (int64_t i = begin; i < end; i++) {
        int64_t d = i / w->parts, first = i % w->parts * GATHER_BLOCK;
        Gemm g = {.trans_a = 'T',
                  .trans_b = 'N',
                  .m = w->width - first < GATHER_BLOCK ? w->width - first : GATHER_BLOCK,
                  .n = w->columns,
                  .k = w->rows,
                  .a = w->gradients + d * w->gradients_d + first,
                  .lda = w->gradient_stride,
                  .b = w->factor + d * w->factor_d,
                  .ldb = w->factor_stride,
                  .beta = w->add ? 1.0F : 0.0F,
                  .c = w->to + d * w->to_d + first * w->columns,
                  .ldc = w->columns};
        gemm_run(&g, w->failed);
    }
}

static void weight_gradient(int directions, WeightGradient *w)
{
    w->parts = (w->width + GATHER_BLOCK - 1) / GATHER_BLOCK;
    double work = (double)(directions * w->width * w->columns) * (double)w->rows;
    recurrent_tasks(directions * w->parts, work, weight_parts, w);
}

/* The first and the last direction, the same where there is one. */
typedef struct Directions {
    Backward w[2];
    int count;
    bool add; /* a block was there before */
} Directions;

/* For `gates` gates from column `from` * H of the gradients on, of every direction. */
static WeightGradient over_rows(const Directions *all, int64_t from, int64_t gates, int64_t columns)
{
    const Backward *w = &all->w[0];
    const Recurrence *r = w->u.r;
    return (WeightGradient){.width = gates * r->hidden,
                            .columns = columns,
                            .rows = w->steps * r->batch,
                            .gradients = w->dgates + from * r->hidden,
                            .gradient_stride = w->gradient_stride,
                            .gradients_d = all->w[1].dgates - w->dgates,
                            .to_d = r->gates * r->hidden * columns,
                            .add = all->add,
                            .failed = w->u.failed};
}

static void input_weights_gradient(const Directions *all, const float *x, float *dw)
{
    const Recurrence *r = all->w[0].u.r;
    WeightGradient w = over_rows(all, 0, r->gates, r->inputs);
    w.factor = x + recurrent_row(r, all->w[0].first, 0) * r->inputs;
    w.factor_d = (all->w[1].first - all->w[0].first) * r->row_t * r->inputs;
    w.factor_stride = r->inputs;
    w.to = dw;
    weight_gradient(all->count, &w);
}

/* What R multiplied is h before the step, but r (.) h for GRU's candidate without linear_before_reset. */
static void recurrent_weights_gradient(const Directions *all, float *dr)
{
    const Backward *first = &all->w[0];
    const Recurrence *r = first->u.r;
    int64_t n = r->hidden;
    WeightGradient w = over_rows(all, 0, r->kind == CELL_GRU ? 2 : r->gates, n);
    w.factor = first->before;
    w.factor_stride = n;
    w.factor_d = all->w[1].before - first->before;
    w.to = dr;
    weight_gradient(all->count, &w);
    if (r->kind != CELL_GRU)
        return;
    WeightGradient candidate = over_rows(all, r->linear_before_reset ? 3 : 2, 1, n);
    candidate.factor = w.factor;
    candidate.factor_stride = w.factor_stride;
    candidate.factor_d = w.factor_d;
    if (!r->linear_before_reset) {
        const float *reset[2];
        for (int d = 0; d < 2; d++)
            reset[d] = all->w[d].saved + recurrent_row(r, all->w[d].first, 0) * first->stride + 3 * n;
        candidate.factor = reset[0];
        candidate.factor_stride = first->stride;
        candidate.factor_d = reset[1] - reset[0];
    }
    candidate.to = dr + 2 * n * n;
    weight_gradient(all->count, &candidate);
}

typedef struct InputGradient {
    const Backward *w;
    const float *weights; /* [GH, I] of the direction */
    float *dx;            /* [rows of the block, I] */
    float beta;
} InputGradient;

/* dX += (gradients of the gate sums) W */
static void input_parts(int64_t begin, int64_t end, void *context)
{
    const InputGradient *work = context;
    const Backward *w = work->w;
    const Recurrence *r = w->u.r;
    int64_t rows = w->steps * r->batch;
    for (int64_t i = begin; i < end; i++) {
        int64_t at = i * INPUT_BLOCK;
        Gemm g = {.trans_a = 'N',
                  .trans_b = 'N',
                  .m = rows - at < INPUT_BLOCK ? rows - at : INPUT_BLOCK,
                  .n = r->inputs,
                  .k = r->gates * r->hidden,
                  .a = w->dgates + at * w->gradient_stride,
                  .lda = w->gradient_stride,
                  .b = work->weights,
                  .ldb = r->inputs,
                  .beta = work->beta,
                  .c = work->dx + at * r->inputs,
                  .ldc = r->inputs};
        gemm_run(&g, w->u.failed);
    }
}

/* With two directions dx starts as zeros: their blocks overlap. */
static void input_gradient(const Directions *all, const float *weights, float *dx)
{
    for (int d = 0; d < all->count; d++) {
        const Backward *w = &all->w[d];
        const Recurrence *r = w->u.r;
        int64_t rows = w->steps * r->batch, size = r->gates * r->hidden * r->inputs;
        InputGradient work = {w, weights + d * size, dx + recurrent_row(r, w->first, 0) * r->inputs,
                              all->count > 1 ? 1.0F : 0.0F};
        recurrent_tasks((rows + INPUT_BLOCK - 1) / INPUT_BLOCK, (double)rows * (double)size, input_parts, &work);
    }
}

typedef struct ColumnSums {
    const float *x;
    int64_t rows, stride, width;
    float *to, *also; /* also: NULL, or where the same sums go */
    bool add;
} ColumnSums;

enum { SUM_WIDTH = 64 };

VECTOR_CLONES static void column_block(const ColumnSums *s, int64_t first, int64_t width)
{
    double sums[SUM_WIDTH] = {0};
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t j = 0; j < width; j++)
            sums[j] += (double)s->x[i * s->stride + first + j];
    for (int64_t j = 0; j < width; j++) {
        float sum = (float)(s->add ? (double)s->to[first + j] + sums[j] : sums[j]);
        s->to[first + j] = sum;
        if (s->also != NULL)
            s->also[first + j] = sum;
    }
}

static void column_blocks(int64_t begin, int64_t end, void *context)
{
    const ColumnSums *s = context;
    for (int64_t i = begin; i < end; i++)
        column_block(s, i * SUM_WIDTH, s->width - i * SUM_WIDTH < SUM_WIDTH ? s->width - i * SUM_WIDTH : SUM_WIDTH);
}

static void column_sums(ColumnSums s)
{
    parallel_for((s.width + SUM_WIDTH - 1) / SUM_WIDTH, 1 + 65536 / (s.rows * SUM_WIDTH + 1), column_blocks, &s);
}

/* Wb and Rb always come together, but for GRU's n with linear_before_reset. */
static void bias_gradient(const Backward *w, bool add, float *db)
{
    const Recurrence *r = w->u.r;
    int64_t n = r->hidden, all = r->gates * n, rows = w->steps * r->batch;
    float *input = db + 2 * w->u.d * all, *recurrent = input + all;
    bool apart = r->kind == CELL_GRU && r->linear_before_reset;
    column_sums((ColumnSums){w->dgates, rows, w->gradient_stride, apart ? 2 * n : all, input, recurrent, add});
    if (!apart)
        return;
    column_sums((ColumnSums){w->dgates + 2 * n, rows, w->gradient_stride, n, input + 2 * n, NULL, add});
    column_sums((ColumnSums){w->dgates + 3 * n, rows, w->gradient_stride, n, recurrent + 2 * n, NULL, add});
}

/* dP_i = sum da_i c_prev, dP_o = sum da_o C, dP_f = sum da_f c_prev */
static void peephole_gradient(Backward *w, float *dp)
{
    Unit *u = &w->u;
    const Recurrence *r = u->r;
    int64_t n = r->hidden;
    for (u->t = w->first; u->t < w->first + w->steps; u->t++)
        for (int64_t b = 0; b < r->batch; b++) {
            const float *da = w->dgates + block_row(w, u->t, b) * w->gradient_stride;
            const float *c = w->saved + recurrent_row(r, u->t, b) * w->stride + 4 * n;
            const float *c_prev = cell_before(w, step_before(u, b), b);
            for (int64_t j = 0; unit_is_active(u, b) && j < n; j++) {
                dp[j] += da[j] * c_prev[j];
                dp[n + j] += da[n + j] * c[j];
                dp[2 * n + j] += da[2 * n + j] * c_prev[j];
            }
        }
}

/* ---- the node --------------------------------------------------------------------------------------------------- */

static float *output_data(const Step *step, int index)
{
    Slot *slot = recurrent_output(step, index);
    return slot == NULL ? NULL : slot->data;
}

static void gather_gradients(BackwardWork *work)
{
    const Step *step = work->step;
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    float *dx = output_data(step, GRAD_DX), *dw = output_data(step, GRAD_DW), *dr = output_data(step, GRAD_DR);
    float *db = output_data(step, GRAD_DB), *dp = output_data(step, GRAD_DP);
    Directions all = {
        {backward_of(work, 0), backward_of(work, (r->directions - 1) * state->chunks)}, r->directions, work->block > 0};
    if (dx != NULL)
        input_gradient(&all, recurrent_input(step, GRAD_INPUTS + IN_W), dx);
    if (dw != NULL)
        input_weights_gradient(&all, recurrent_input(step, GRAD_INPUTS + IN_X), dw);
    if (dr != NULL)
        recurrent_weights_gradient(&all, dr);
    for (int d = 0; d < r->directions; d++) {
        if (db != NULL)
            bias_gradient(&all.w[d], all.add, db);
        if (dp != NULL)
            peephole_gradient(&all.w[d], dp + d * 3 * r->hidden);
    }
}

static void clear(const Step *step, int output)
{
    Slot *slot = recurrent_output(step, output);
    if (slot != NULL && slot->data != NULL)
        memset(slot->data, 0, (size_t)slot_count(slot) * sizeof(float));
}

static Status run_backward(Step *step, Error *err)
{
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    float *scratch = step->scratch, *h = scratch + state->at.h, *c = scratch + state->at.c;
    int64_t n = r->hidden, states = r->batch * n;
    BackwardWork work = {.step = step};
    double multiplies = (double)(r->directions * state->back_steps * r->batch) * (double)(r->gates * n * n);
    memset(scratch + state->at.zeros, 0, (size_t)(3 * n) * sizeof *scratch);
    if (r->directions > 1)
        clear(step, GRAD_DX);
    clear(step, GRAD_DP);
    for (int d = 0; d < r->directions; d++) {
        recurrent_state_load(r, d, recurrent_input(step, GRAD_DY_H), h + d * states);
        recurrent_state_load(r, d, recurrent_input(step, GRAD_DY_C), c + d * states);
    }
    if (state->panels)
        pack(r, recurrent_input(step, GRAD_INPUTS + IN_R), scratch + state->at.weights_r);
    for (; work.block * state->back_steps < r->steps; work.block++) {
        if (state->team)
            backward_units(0, 1, &work);
        else
            recurrent_tasks(recurrent_unit_count(state), multiplies, backward_units, &work);
        gather_gradients(&work);
    }
    for (int d = 0; d < r->directions; d++) {
        recurrent_state_store(r, d, h + d * states, recurrent_output(step, GRAD_DH));
        recurrent_state_store(r, d, c + d * states, recurrent_output(step, GRAD_DC));
    }
    return dnnl_fail(err, (dnnl_status_t)atomic_load(&work.failed), "dnnl_sgemm");
}

static void scratch_layout(RecurrentState *state)
{
    const Recurrence *r = &state->r;
    int64_t total = 0, states = r->directions * r->batch * r->hidden;
    int64_t rows = r->directions * state->back_steps * r->batch;
    state->at.gates = recurrent_take(&total, rows * state->gradient_stride);
    state->at.h = recurrent_take(&total, states);
    state->at.c = recurrent_take(&total, states);
    state->at.extra = recurrent_take(&total, 3 * states);
    state->at.before = recurrent_take(&total, rows * r->hidden);
    state->at.zeros = recurrent_take(&total, 3 * r->hidden);
    state->at.weights_r = recurrent_take(&total, state->panels ? r->directions * packed_size(r) : 0);
    state->at.total = total;
}

Status recurrent_backward_prepare(PlanContext *context, CellKind kind, Error *err)
{
    const Node *node = context->node;
    RecurrentState *state;
    TRY(recurrent_state_make(context, kind, GRAD_INPUTS, &state, err));
    bool known = node_input(node, GRAD_Y) != NULL && (kind == CELL_RNN || node_input(node, GRAD_SAVED) != NULL);
    if (node->inputs[GRAD_INPUTS + IN_X]->type.dtype != DTYPE_F32 || context->plain_only || !known ||
        !recurrent_is_usual(&state->r))
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            kernel_output(context, i, LAYOUT_PLAIN);
    scratch_layout(state);
    kernel_scratch(context, (size_t)state->at.total * sizeof(float));
    kernel_run(context, run_backward, recurrent_kernel_name(state));
    return STATUS_OK;
}
