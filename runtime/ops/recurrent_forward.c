/* Planned RNN, GRU and LSTM with their usual activations, forward. A unit (recurrent_units.c) multiplies the inputs of
 * a block of steps by W, then a step is one product with R and one pass over the gates; what the backward needs is left
 * where the sums were. W and R are transposed first where many rows meet them: the library multiplies by a matrix that
 * lies in its own order without packing it at every step.
 *
 * Rows (t, b) lie in the order of X. Samples shorter than the sequence skip the steps beyond their end: their state
 * stays, their Y is zero. Other activations, clip and coupled gates run `eval`. */
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/recurrent_kernel.h"

/* W or R of one direction as the second operand, from a first gate on. */
typedef struct Weights {
    const float *data;
    int64_t leading;
    bool turned;
} Weights;

typedef struct Forward {
    Unit u;
    const float *x;
    Weights w, rec;
    Panels w_panels[2], rec_panels[2]; /* of the groups of gates that are multiplied at once */
    const float *bias;                 /* [2, GH] (input, recurrent) */
    float *y;                          /* of the whole node, may be NULL */
    float *gates;                      /* of step `first_t` and sample `first_b` */
    int64_t first_t, first_b;
    int64_t gates_t, gates_b; /* floats from step to step, from sample to sample */
} Forward;

static float *gates_at(const Forward *f, int64_t t, int64_t b)
{
    return f->gates + (t - f->first_t) * f->gates_t + (b - f->first_b) * f->gates_b;
}

/* ---- cells ------------------------------------------------------------------------------------------------------ */

static void cell_forward(const Forward *f, int64_t b, float *g)
{
    const Unit *u = &f->u;
    int64_t n = u->r->hidden, all = u->r->gates * n;
    float *h = u->h + b * n;
    const float *wb = f->bias, *rb = f->bias + all;
    if (u->r->kind == CELL_LSTM)
        lstm_cell(n, g, wb, u->p, h, u->c + b * n);
    else if (u->r->kind == CELL_RNN)
        rnn_cell(n, g, wb, rb, h, u->state->relu);
    else if (u->r->linear_before_reset)
        gru_cell_linear(n, g, u->extra + b * all, wb, rb, h);
    else if (u->phase == 0)
        gru_cell_gates(n, g, wb, rb, h);
    else
        gru_cell_candidate(n, g, wb, rb, h);
}

/* Samples begin.. of the unit. */
static void cells_forward(int64_t begin, int64_t end, void *context)
{
    const Forward *f = context;
    const Unit *u = &f->u;
    int64_t n = u->r->hidden;
    bool last = u->r->kind != CELL_GRU || u->r->linear_before_reset || u->phase == 1;
    for (int64_t b = u->begin + begin; b < u->begin + end; b++) {
        bool active = unit_is_active(u, b);
        float *g = gates_at(f, u->t, b);
        if (active)
            cell_forward(f, b, g);
        else
            memset(g, 0, (size_t)u->state->stride * sizeof *g);
        if (!last || f->y == NULL)
            continue;
        float *y = f->y + recurrent_y_at(u->r, u->d, u->t, b);
        if (active)
            memcpy(y, u->h + b * n, (size_t)n * sizeof *y);
        else
            memset(y, 0, (size_t)n * sizeof *y);
    }
}

/* ---- groups of gates, packed ------------------------------------------------------------------------------------- */

/* GRU without linear_before_reset multiplies z and r, then the candidate; the others all at once. */
static int group_count(const Recurrence *r)
{
    return r->kind == CELL_GRU && !r->linear_before_reset ? 2 : 1;
}

static int64_t group_gates(const Recurrence *r, int group)
{
    return group_count(r) == 1 ? r->gates : group == 0 ? 2 : 1;
}

/* Floats of W (k: I) or R (k: H) of one direction. */
static int64_t packed_size(const Recurrence *r, int64_t k)
{
    int64_t size = 0;
    for (int i = 0; i < group_count(r); i++)
        size += panels_size(k, group_gates(r, i) * r->hidden);
    return size;
}

static void packed_places(const Recurrence *r, int d, int64_t k, const float *base, Panels groups[2])
{
    const float *at = base + d * packed_size(r, k);
    for (int i = 0; i < group_count(r); i++) {
        groups[i] = (Panels){k, group_gates(r, i) * r->hidden, at};
        at += panels_size(k, groups[i].n);
    }
}

/* weights: [D, GH, k] */
static void pack(const Recurrence *r, const float *weights, int64_t k, float *to)
{
    for (int d = 0; d < r->directions; d++) {
        Panels groups[2];
        packed_places(r, d, k, to, groups);
        const float *from = weights + d * r->gates * r->hidden * k;
        float *at = to + d * packed_size(r, k);
        for (int i = 0; i < group_count(r); i++) {
            at = recurrent_pack(&groups[i], from, 1, k, at);
            from += groups[i].n * k;
        }
    }
}

/* c = X W^T + a R^T for one group of gates; without `a` only the first. */
static void group_sums(const Forward *f, int group, const float *a, int64_t lda, float *c, int64_t ldc)
{
    const Unit *u = &f->u;
    const Recurrence *r = u->r;
    PanelTerm terms[2] = {
        {f->x + recurrent_row(r, u->t, u->begin) * r->inputs, r->row_b * r->inputs, &f->w_panels[group]},
        {a, lda, &f->rec_panels[group]}};
    panels_multiply(u->end - u->begin, terms, a == NULL ? 1 : 2, false, c, ldc);
}

static void forward_step_packed(Forward *f)
{
    Unit *u = &f->u;
    const Recurrence *r = u->r;
    int64_t n = r->hidden, samples = u->end - u->begin;
    float *rows = gates_at(f, u->t, u->begin), *h = u->h + u->begin * n;
    u->phase = 0;
    if (r->kind == CELL_GRU && r->linear_before_reset) {
        PanelTerm through = {h, n, &f->rec_panels[0]};
        group_sums(f, 0, NULL, 0, rows, f->gates_b);
        panels_multiply(samples, &through, 1, false, u->extra + u->begin * 3 * n, 3 * n);
    } else {
        group_sums(f, 0, h, n, rows, f->gates_b);
    }
    cells_forward(0, samples, f);
    if (group_count(r) == 1)
        return;
    u->phase = 1;
    group_sums(f, 1, rows + 3 * n, f->gates_b, rows + 2 * n, f->gates_b);
    cells_forward(0, samples, f);
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* c [m, gates * H] = a [m, k] (rows of the weights from first_gate on)^T + beta c */
static void add_product(const Forward *f, const Weights *w, int64_t first_gate, int64_t gates, int64_t m, int64_t k,
                        const float *a, int64_t lda, float beta, float *c, int64_t ldc)
{
    int64_t n = f->u.r->hidden, column = first_gate * n;
    Gemm g = {.trans_a = 'N',
              .trans_b = w->turned ? 'N' : 'T',
              .m = m,
              .n = gates * n,
              .k = k,
              .a = a,
              .lda = lda,
              .b = w->data + column * (w->turned ? 1 : w->leading),
              .ldb = w->leading,
              .beta = beta,
              .c = c,
              .ldc = ldc};
    unit_gemm(&f->u, &g);
}

/* Gate sums of steps first.. from X: rows that are next to each other both in X and among the gates at once. */
static void input_sums(const Forward *f, int64_t first, int64_t steps)
{
    const Unit *u = &f->u;
    const Recurrence *r = u->r;
    int64_t samples = u->end - u->begin, inputs = r->inputs, apart = r->row_b * inputs;
    if (r->batch_first) {
        for (int64_t b = u->begin; b < u->end; b++)
            add_product(f, &f->w, 0, r->gates, steps, inputs, f->x + recurrent_row(r, first, b) * inputs, inputs, 0.0F,
                        gates_at(f, first, b), f->gates_t);
    } else if (samples == r->batch) {
        add_product(f, &f->w, 0, r->gates, steps * samples, inputs, f->x + recurrent_row(r, first, 0) * inputs, apart,
                    0.0F, gates_at(f, first, 0), f->gates_b);
    } else {
        for (int64_t t = first; t < first + steps; t++)
            add_product(f, &f->w, 0, r->gates, samples, inputs, f->x + recurrent_row(r, t, u->begin) * inputs, apart,
                        0.0F, gates_at(f, t, u->begin), f->gates_b);
    }
}

static void forward_step(Forward *f)
{
    Unit *u = &f->u;
    const Recurrence *r = u->r;
    int64_t n = r->hidden, all = r->gates * n, samples = u->end - u->begin, grain = 1 + CELL_GRAIN / (n + 1);
    float *rows = gates_at(f, u->t, u->begin), *h = u->h + u->begin * n;
    u->phase = 0;
    if (r->kind != CELL_GRU) {
        add_product(f, &f->rec, 0, r->gates, samples, n, h, n, 1.0F, rows, f->gates_b);
    } else if (r->linear_before_reset) {
        add_product(f, &f->rec, 0, 3, samples, n, h, n, 0.0F, u->extra + u->begin * all, all);
    } else {
        add_product(f, &f->rec, 0, 2, samples, n, h, n, 1.0F, rows, f->gates_b);
        parallel_for(samples, grain, cells_forward, f);
        u->phase = 1;
        add_product(f, &f->rec, 2, 1, samples, n, rows + 3 * n, f->gates_b, 1.0F, rows + 2 * n, f->gates_b);
    }
    parallel_for(samples, grain, cells_forward, f);
}

static void forward_unit(Forward *f)
{
    Unit *u = &f->u;
    const Recurrence *r = u->r;
    for (int64_t done = 0; done < r->steps; done += u->state->block_steps) {
        int64_t steps = r->steps - done < u->state->block_steps ? r->steps - done : u->state->block_steps;
        int64_t first = r->reverse[u->d] ? r->steps - done - steps : done;
        if (!u->state->saves)
            f->first_t = first;
        if (!u->state->panels)
            input_sums(f, first, steps);
        for (int64_t s = 0; s < steps; s++) {
            u->t = r->reverse[u->d] ? first + steps - 1 - s : first + s;
            if (u->state->panels)
                forward_step_packed(f);
            else
                forward_step(f);
        }
    }
}

/* ---- the node --------------------------------------------------------------------------------------------------- */

typedef struct ForwardWork {
    const Step *step;
    atomic_int failed;
} ForwardWork;

static Weights weights_of(const RecurrentState *state, const float *plain, int d, int64_t width, const float *turned)
{
    if (state->turned)
        return (Weights){turned + d * width * state->turned_stride, state->turned_stride, true};
    return (Weights){plain + d * state->r.gates * state->r.hidden * width, width, false};
}

/* The gates of the whole node where they are saved; a buffer for a block of steps of this unit where they are not. */
static void place_gates(Forward *f, const Step *step, int64_t index)
{
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    if (state->saves) {
        f->gates = (float *)recurrent_output(step, recurrent_saved_index(r->kind))->data +
                   f->u.d * r->steps * r->batch * state->stride;
        f->gates_t = r->row_t * state->stride;
        f->gates_b = r->row_b * state->stride;
        return;
    }
    f->gates =
        (float *)step->scratch + state->at.gates + index * state->block_steps * state->chunk_samples * state->stride;
    f->gates_t = (f->u.end - f->u.begin) * state->stride;
    f->gates_b = state->stride;
    f->first_b = f->u.begin;
}

static void forward_units(int64_t begin, int64_t end, void *context)
{
    ForwardWork *work = context;
    const Step *step = work->step;
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    float *scratch = step->scratch;
    Slot *y = recurrent_output(step, 0);
    for (int64_t i = begin; i < end; i++) {
        Unit u = recurrent_unit(step, 0, i, &work->failed);
        Forward f = {.u = u,
                     .x = recurrent_input(step, IN_X),
                     .w = weights_of(state, recurrent_input(step, IN_W), u.d, r->inputs, scratch + state->at.weights_w),
                     .rec =
                         weights_of(state, recurrent_input(step, IN_R), u.d, r->hidden, scratch + state->at.weights_r),
                     .bias = scratch + state->at.bias + u.d * 2 * r->gates * r->hidden,
                     .y = y == NULL ? NULL : y->data};
        packed_places(r, u.d, r->inputs, scratch + state->at.weights_w, f.w_panels);
        packed_places(r, u.d, r->hidden, scratch + state->at.weights_r, f.rec_panels);
        place_gates(&f, step, i);
        forward_unit(&f);
    }
}

typedef struct TurnWork {
    const float *from; /* [rows, columns] */
    float *to;         /* [columns, stride] */
    int64_t rows, columns, stride;
} TurnWork;

enum { TURN_BLOCK = 16 };

/* Blocks of TURN_BLOCK columns. */
static void turn_blocks(int64_t begin, int64_t end, void *context)
{
    const TurnWork *w = context;
    int64_t last = end * TURN_BLOCK < w->columns ? end * TURN_BLOCK : w->columns;
    for (int64_t row = 0; row < w->rows; row += TURN_BLOCK) {
        int64_t row_end = row + TURN_BLOCK < w->rows ? row + TURN_BLOCK : w->rows;
        for (int64_t j = begin * TURN_BLOCK; j < last; j++)
            for (int64_t i = row; i < row_end; i++)
                w->to[j * w->stride + i] = w->from[i * w->columns + j];
    }
}

static void turn(const RecurrentState *state, const float *from, int64_t width, float *to)
{
    int64_t rows = state->r.gates * state->r.hidden;
    for (int d = 0; d < state->r.directions; d++) {
        TurnWork work = {from + d * rows * width, to + d * width * state->turned_stride, rows, width,
                         state->turned_stride};
        parallel_for((width + TURN_BLOCK - 1) / TURN_BLOCK, 1 + 32768 / (rows * TURN_BLOCK), turn_blocks, &work);
    }
}

/* Biases of one direction, [2, GH]: zero when absent; LSTM, whose two always come together, gets their sum in the
 * first. */
static void bias_load(const Recurrence *r, int d, const float *b, float *to)
{
    int64_t all = r->gates * r->hidden;
    if (b == NULL) {
        memset(to, 0, (size_t)(2 * all) * sizeof *to);
        return;
    }
    memcpy(to, b + 2 * d * all, (size_t)(2 * all) * sizeof *to);
    for (int64_t j = 0; r->kind == CELL_LSTM && j < all; j++)
        to[j] += to[all + j];
}

static Status check_lengths(const Step *step, const Recurrence *r, const int32_t *lengths, Error *err)
{
    for (int64_t b = 0; lengths != NULL && b < r->batch; b++)
        if (lengths[b] < 0 || lengths[b] > r->steps)
            return fail(err, STATUS_REJECTED, "%s: sequence length %d of %lld steps", node_text(step->node), lengths[b],
                        (long long)r->steps);
    return STATUS_OK;
}

static Status run_forward(Step *step, Error *err)
{
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    float *scratch = step->scratch;
    int64_t states = r->batch * r->hidden, all = r->gates * r->hidden;
    TRY(check_lengths(step, r, recurrent_input(step, IN_LENGTHS), err));
    memset(scratch + state->at.zeros, 0, (size_t)(3 * r->hidden) * sizeof *scratch);
    for (int d = 0; d < r->directions; d++) {
        bias_load(r, d, recurrent_input(step, IN_B), scratch + state->at.bias + d * 2 * all);
        recurrent_state_load(r, d, recurrent_input(step, IN_H), scratch + state->at.h + d * states);
        recurrent_state_load(r, d, recurrent_input(step, IN_C), scratch + state->at.c + d * states);
    }
    if (state->panels) {
        pack(r, recurrent_input(step, IN_W), r->inputs, scratch + state->at.weights_w);
        pack(r, recurrent_input(step, IN_R), r->hidden, scratch + state->at.weights_r);
    } else if (state->turned) {
        turn(state, recurrent_input(step, IN_W), r->inputs, scratch + state->at.weights_w);
        turn(state, recurrent_input(step, IN_R), r->hidden, scratch + state->at.weights_r);
    }
    ForwardWork work = {.step = step};
    double multiplies = (double)(r->directions * r->steps * r->batch) * (double)(all * (r->inputs + r->hidden));
    if (state->team)
        forward_units(0, 1, &work);
    else
        recurrent_tasks(recurrent_unit_count(state), multiplies, forward_units, &work);
    for (int d = 0; d < r->directions; d++) {
        recurrent_state_store(r, d, scratch + state->at.h + d * states, recurrent_output(step, 1));
        if (r->kind == CELL_LSTM)
            recurrent_state_store(r, d, scratch + state->at.c + d * states, recurrent_output(step, 2));
    }
    return dnnl_fail(err, (dnnl_status_t)atomic_load(&work.failed), "dnnl_sgemm");
}

static int64_t weights_size(const RecurrentState *state, int64_t k)
{
    return state->r.directions * (state->panels   ? packed_size(&state->r, k)
                                  : state->turned ? k * state->turned_stride
                                                  : 0);
}

static void scratch_layout(RecurrentState *state)
{
    const Recurrence *r = &state->r;
    int64_t total = 0, states = r->directions * r->batch * r->hidden;
    int64_t block = state->block_steps * state->chunk_samples * state->stride;
    state->at.gates = recurrent_take(&total, state->saves ? 0 : recurrent_unit_count(state) * block);
    state->at.h = recurrent_take(&total, states);
    state->at.c = recurrent_take(&total, states);
    state->at.extra = recurrent_take(&total, 3 * states);
    state->at.bias = recurrent_take(&total, r->directions * 2 * r->gates * r->hidden);
    state->at.zeros = recurrent_take(&total, 3 * r->hidden);
    state->at.weights_w = recurrent_take(&total, weights_size(state, r->inputs));
    state->at.weights_r = recurrent_take(&total, weights_size(state, r->hidden));
    state->at.total = total;
}

Status recurrent_forward_prepare(PlanContext *context, CellKind kind, Error *err)
{
    const Node *node = context->node;
    RecurrentState *state;
    TRY(recurrent_state_make(context, kind, 0, &state, err));
    if (node->inputs[IN_X]->type.dtype != DTYPE_F32 || context->plain_only || !recurrent_is_usual(&state->r))
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    for (int i = 0; i < node->output_count; i++) {
        Slot *slot = node->outputs[i] != NULL ? kernel_output(context, i, LAYOUT_PLAIN) : NULL;
        state->saves = state->saves || (slot != NULL && state->r.saved > 0 && i == recurrent_saved_index(kind));
    }
    scratch_layout(state);
    kernel_scratch(context, (size_t)state->at.total * sizeof(float));
    kernel_run(context, run_forward, recurrent_kernel_name(state));
    return STATUS_OK;
}
