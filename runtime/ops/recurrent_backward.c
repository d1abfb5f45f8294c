/* Planned RNN, GRU and LSTM, backward. A unit (recurrent_units.c) goes through its steps in reverse order, each one
 * pass over the gates and one product with R, and leaves the gradients of all gate sums; then the gradients of X, W and
 * R are products over all rows, cut into blocks of their results, one thread each.
 *
 * Steps beyond a sample's end have gradients of zero. */
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/recurrent_kernel.h"
#include "runtime/ops/vector.h"

typedef struct Backward {
    Unit u;
    const float *rec;    /* [GH, H] of the direction */
    const float *y, *dy; /* of the whole node; dy may be NULL */
    const float *saved, *c0, *h0;
    float *dgates, *before; /* of the direction */
    int64_t stride, gradient_stride;
} Backward;

static Backward backward_of(const Step *step, int64_t unit, atomic_int *failed)
{
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    float *scratch = step->scratch;
    const float *saved = recurrent_input(step, GRAD_SAVED), *rec = recurrent_input(step, GRAD_INPUTS + IN_R);
    int64_t n = r->hidden, rows = r->steps * r->batch;
    Unit u = recurrent_unit(step, GRAD_INPUTS, unit, failed);
    return (Backward){.u = u,
                      .rec = rec + u.d * r->gates * n * n,
                      .y = step->in[GRAD_Y]->data,
                      .dy = recurrent_input(step, GRAD_DY),
                      .saved = saved == NULL ? NULL : saved + u.d * rows * state->stride,
                      .c0 = recurrent_input(step, GRAD_INPUTS + IN_C),
                      .h0 = recurrent_input(step, GRAD_INPUTS + IN_H),
                      .dgates = scratch + state->at.gates + u.d * rows * state->gradient_stride,
                      .before = scratch + state->at.before + u.d * rows * n,
                      .stride = state->stride,
                      .gradient_stride = state->gradient_stride};
}

/* ---- cells ------------------------------------------------------------------------------------------------------ */

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
    int64_t n = r->hidden, row = recurrent_row(r, u->t, b), before = step_before(u, b);
    const float *g = w->saved + row * w->stride;
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

/* Samples begin.. of the unit. */
static void cells_back(int64_t begin, int64_t end, void *context)
{
    const Backward *w = context;
    const Unit *u = &w->u;
    int64_t n = u->r->hidden;
    for (int64_t b = u->begin + begin; b < u->begin + end; b++) {
        if (unit_is_active(u, b)) {
            cell_back(w, b);
            continue;
        }
        int64_t row = recurrent_row(u->r, u->t, b);
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
    const float *rows = w->dgates + recurrent_row(u->r, u->t, u->begin) * w->gradient_stride + from * n;
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

typedef struct BackwardWork {
    const Step *step;
    atomic_int failed;
} BackwardWork;

static void backward_units(int64_t begin, int64_t end, void *context)
{
    BackwardWork *work = context;
    for (int64_t i = begin; i < end; i++) {
        Backward w = backward_of(work->step, i, &work->failed);
        const Recurrence *r = w.u.r;
        for (int64_t s = r->steps - 1; s >= 0; s--) {
            w.u.t = r->reverse[w.u.d] ? r->steps - 1 - s : s;
            backward_step(&w);
        }
    }
}

/* ---- what is gathered over all rows ----------------------------------------------------------------------------- */

enum { GATHER_BLOCK = 256, INPUT_BLOCK = 64 }; /* rows of a result that one thread computes */

/* Rows of a gradient of weights: to [width, columns] = gradients [rows, width]^T factor [rows, columns], a direction.
 */
typedef struct WeightGradient {
    int64_t width, columns, rows;
    const float *gradients, *factor;
    int64_t gradient_stride, factor_stride;
    float *to;
    int64_t gradients_d, factor_d, to_d; /* floats from direction to direction */
    int64_t blocks;                      /* a direction has */
    atomic_int *failed;
} WeightGradient;

static void weight_blocks(int64_t begin, int64_t end, void *context)
{
    const WeightGradient *w = context;
    for (int64_t i = begin; i < end; i++) {
        int64_t d = i / w->blocks, first = i % w->blocks * GATHER_BLOCK;
        Gemm g = {.trans_a = 'T',
                  .trans_b = 'N',
                  .m = w->width - first < GATHER_BLOCK ? w->width - first : GATHER_BLOCK,
                  .n = w->columns,
                  .k = w->rows,
                  .a = w->gradients + d * w->gradients_d + first,
                  .lda = w->gradient_stride,
                  .b = w->factor + d * w->factor_d,
                  .ldb = w->factor_stride,
                  .c = w->to + d * w->to_d + first * w->columns,
                  .ldc = w->columns};
        gemm_run(&g, w->failed);
    }
}

static void weight_gradient(int directions, WeightGradient *w)
{
    w->blocks = (w->width + GATHER_BLOCK - 1) / GATHER_BLOCK;
    double work = (double)(directions * w->width * w->columns) * (double)w->rows;
    recurrent_tasks(directions * w->blocks, work, weight_blocks, w);
}

/* A gradient over the gates from..from + gates of every direction, of which `first` is the first: gradients, strides.
 */
static WeightGradient over_rows(const Backward *first, int64_t from, int64_t gates, int64_t columns)
{
    const Recurrence *r = first->u.r;
    int64_t rows = r->steps * r->batch;
    return (WeightGradient){.width = gates * r->hidden,
                            .columns = columns,
                            .rows = rows,
                            .gradients = first->dgates + from * r->hidden,
                            .gradient_stride = first->gradient_stride,
                            .gradients_d = rows * first->gradient_stride,
                            .to_d = r->gates * r->hidden * columns,
                            .failed = first->u.failed};
}

static void input_weights_gradient(const Backward *first, const float *x, float *dw)
{
    const Recurrence *r = first->u.r;
    WeightGradient w = over_rows(first, 0, r->gates, r->inputs);
    w.factor = x;
    w.factor_stride = r->inputs;
    w.to = dw;
    weight_gradient(r->directions, &w);
}

/* What R multiplied is h before the step, but r (.) h for GRU's candidate without linear_before_reset. */
static void recurrent_weights_gradient(const Backward *first, float *dr)
{
    const Recurrence *r = first->u.r;
    int64_t n = r->hidden, rows = r->steps * r->batch;
    WeightGradient w = over_rows(first, 0, r->kind == CELL_GRU ? 2 : r->gates, n);
    w.factor = first->before;
    w.factor_stride = n;
    w.factor_d = rows * n;
    w.to = dr;
    weight_gradient(r->directions, &w);
    if (r->kind != CELL_GRU)
        return;
    w = over_rows(first, r->linear_before_reset ? 3 : 2, 1, n);
    w.factor = r->linear_before_reset ? first->before : first->saved + 3 * n;
    w.factor_stride = r->linear_before_reset ? n : first->stride;
    w.factor_d = rows * w.factor_stride;
    w.to = dr + 2 * n * n;
    weight_gradient(r->directions, &w);
}

typedef struct InputGradient {
    const Backward *first;
    const float *weights; /* [D, GH, I] */
    float *dx;            /* [rows, I] */
} InputGradient;

/* dX = sum over the directions of (gradients of the gate sums) W */
static void input_blocks(int64_t begin, int64_t end, void *context)
{
    const InputGradient *w = context;
    const Recurrence *r = w->first->u.r;
    int64_t all = r->gates * r->hidden, rows = r->steps * r->batch, stride = w->first->gradient_stride;
    for (int64_t i = begin; i < end; i++)
        for (int d = 0; d < r->directions; d++) {
            int64_t at = i * INPUT_BLOCK;
            Gemm g = {.trans_a = 'N',
                      .trans_b = 'N',
                      .m = rows - at < INPUT_BLOCK ? rows - at : INPUT_BLOCK,
                      .n = r->inputs,
                      .k = all,
                      .a = w->first->dgates + (d * rows + at) * stride,
                      .lda = stride,
                      .b = w->weights + d * all * r->inputs,
                      .ldb = r->inputs,
                      .beta = d > 0 ? 1.0F : 0.0F,
                      .c = w->dx + at * r->inputs,
                      .ldc = r->inputs};
            gemm_run(&g, w->first->u.failed);
        }
}

static void input_gradient(const Backward *first, const float *weights, float *dx)
{
    const Recurrence *r = first->u.r;
    InputGradient work = {first, weights, dx};
    int64_t rows = r->steps * r->batch;
    double multiplies = (double)(r->directions * rows) * (double)(r->gates * r->hidden * r->inputs);
    recurrent_tasks((rows + INPUT_BLOCK - 1) / INPUT_BLOCK, multiplies, input_blocks, &work);
}

typedef struct ColumnSums {
    const float *x;
    int64_t rows, stride, width;
    float *to, *also; /* also: NULL, or where the same sums go */
} ColumnSums;

enum { SUM_WIDTH = 64 };

VECTOR_CLONES static void column_block(const ColumnSums *s, int64_t first, int64_t width)
{
    double sums[SUM_WIDTH] = {0};
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t j = 0; j < width; j++)
            sums[j] += (double)s->x[i * s->stride + first + j];
    for (int64_t j = 0; j < width; j++) {
        s->to[first + j] = (float)sums[j];
        if (s->also != NULL)
            s->also[first + j] = (float)sums[j];
    }
}

static void column_blocks(int64_t begin, int64_t end, void *context)
{
    const ColumnSums *s = context;
    for (int64_t i = begin; i < end; i++)
        column_block(s, i * SUM_WIDTH, s->width - i * SUM_WIDTH < SUM_WIDTH ? s->width - i * SUM_WIDTH : SUM_WIDTH);
}

static void column_sums(const float *x, int64_t rows, int64_t stride, int64_t width, float *to, float *also)
{
    ColumnSums s = {x, rows, stride, width, to, also};
    parallel_for((width + SUM_WIDTH - 1) / SUM_WIDTH, 1 + 8192 / (rows * SUM_WIDTH + 1), column_blocks, &s);
}

/* Wb and Rb always come together, but for GRU's n with linear_before_reset. */
static void bias_gradient(const Backward *w, float *db)
{
    const Recurrence *r = w->u.r;
    int64_t n = r->hidden, all = r->gates * n, rows = r->steps * r->batch;
    float *input = db + 2 * w->u.d * all, *recurrent = input + all;
    column_sums(w->dgates, rows, w->gradient_stride, all, input, recurrent);
    if (r->kind == CELL_GRU && r->linear_before_reset)
        column_sums(w->dgates + 3 * n, rows, w->gradient_stride, n, recurrent + 2 * n, NULL);
}

/* dP_i = sum da_i c_prev, dP_o = sum da_o C, dP_f = sum da_f c_prev */
static void peephole_gradient(Backward *w, float *dp)
{
    Unit *u = &w->u;
    const Recurrence *r = u->r;
    int64_t n = r->hidden;
    memset(dp, 0, (size_t)(3 * n) * sizeof *dp);
    for (u->t = 0; u->t < r->steps; u->t++)
        for (int64_t b = 0; b < r->batch; b++) {
            int64_t row = recurrent_row(r, u->t, b);
            const float *da = w->dgates + row * w->gradient_stride, *c = w->saved + row * w->stride + 4 * n;
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
    Backward first = backward_of(step, 0, &work->failed);
    if (dx != NULL)
        input_gradient(&first, recurrent_input(step, GRAD_INPUTS + IN_W), dx);
    if (dw != NULL)
        input_weights_gradient(&first, recurrent_input(step, GRAD_INPUTS + IN_X), dw);
    if (dr != NULL)
        recurrent_weights_gradient(&first, dr);
    for (int d = 0; d < r->directions; d++) {
        Backward w = backward_of(step, d * state->chunks, &work->failed);
        if (db != NULL)
            bias_gradient(&w, db);
        if (dp != NULL)
            peephole_gradient(&w, dp + d * 3 * r->hidden);
        recurrent_state_store(r, d, w.u.h, recurrent_output(step, GRAD_DH));
        recurrent_state_store(r, d, w.u.c, recurrent_output(step, GRAD_DC));
    }
}

static Status run_backward(Step *step, Error *err)
{
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    float *scratch = step->scratch;
    int64_t n = r->hidden, states = r->batch * n;
    memset(scratch + state->at.zeros, 0, (size_t)(3 * n) * sizeof *scratch);
    for (int d = 0; d < r->directions; d++) {
        recurrent_state_load(r, d, recurrent_input(step, GRAD_DY_H), scratch + state->at.h + d * states);
        recurrent_state_load(r, d, recurrent_input(step, GRAD_DY_C), scratch + state->at.c + d * states);
    }
    BackwardWork work = {.step = step};
    double multiplies = (double)(r->directions * r->steps * r->batch) * (double)(r->gates * n * n);
    if (state->team)
        backward_units(0, 1, &work);
    else
        recurrent_tasks(recurrent_unit_count(state), multiplies, backward_units, &work);
    gather_gradients(&work);
    return dnnl_fail(err, (dnnl_status_t)atomic_load(&work.failed), "dnnl_sgemm");
}

static void scratch_layout(RecurrentState *state)
{
    const Recurrence *r = &state->r;
    int64_t total = 0, states = r->directions * r->batch * r->hidden, rows = r->directions * r->steps * r->batch;
    state->at.gates = recurrent_take(&total, rows * state->gradient_stride);
    state->at.h = recurrent_take(&total, states);
    state->at.c = recurrent_take(&total, states);
    state->at.extra = recurrent_take(&total, 3 * states);
    state->at.before = recurrent_take(&total, rows * r->hidden);
    state->at.zeros = recurrent_take(&total, 3 * r->hidden);
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
    kernel_run(context, run_backward, state->team ? "own:steps" : "own:units");
    return STATUS_OK;
}
