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
                  .before = scratch + state->at.before + u.d * rows * state->before_stride,
                  .first = r->reverse[u.d] ? done : left - steps,
                  .steps = steps,
                  .stride = state->stride,
                  .gradient_stride = state->gradient_stride,
                  .before_stride = state->before_stride};
    packed_places(r, u.d, scratch + state->at.weights_r, w.panels);
    return w;
}

enum { AHEAD = 2 };

/* ---- cells ------------------------------------------------------------------------------------------------------ */

int64_t backward_row(const Backward *w, int64_t t, int64_t b)
{
    return recurrent_row(w->u.r, t - w->first, b);
}

int64_t step_before(const Unit *u, int64_t b)
{
    if (!u->r->reverse[u->d])
        return u->t - 1;
    int64_t length = u->lengths == NULL ? u->r->steps : u->lengths[b];
    return u->t + 1 < length ? u->t + 1 : -1;
}

const float *cell_before(const Backward *w, int64_t before, int64_t b)
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
    int64_t n = r->hidden, row = backward_row(w, u->t, b), before = step_before(u, b);
    const float *g = w->saved + recurrent_row(r, u->t, b) * w->stride;
    float *dh = u->h + b * n, *da = w->dgates + row * w->gradient_stride, *h_prev = w->before + row * w->before_stride;
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
        int64_t row = backward_row(w, u->t, b);
        memset(w->dgates + row * w->gradient_stride, 0, (size_t)w->gradient_stride * sizeof(float));
        memset(w->before + row * w->before_stride, 0, (size_t)n * sizeof(float));
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
    const float *rows = w->dgates + backward_row(w, u->t, u->begin) * w->gradient_stride + from * n;
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
    const float *rows = w->dgates + backward_row(w, u->t, u->begin) * w->gradient_stride;
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

/* ---- the node --------------------------------------------------------------------------------------------------- */

static void gather(BackwardWork *work)
{
    const RecurrentState *state = work->step->state;
    int directions = state->r.directions;
    const Backward w[2] = {backward_of(work, 0), backward_of(work, (directions - 1) * state->chunks)};
    recurrent_gather(work->step, w, directions, work->block > 0);
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
        gather(&work);
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
    state->at.before = recurrent_take(&total, rows * state->before_stride);
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
