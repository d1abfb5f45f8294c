/* Planned RNN, GRU and LSTM with their usual activations. Forward: one product for the inputs of all steps, then a step
 * is one product with R and one pass over the gates; what the backward needs is left where the sums were. Backward: the
 * same steps in reverse order, each one pass and one product, then the gradients of X, W and R as one product each over
 * all steps.
 *
 * Rows (t, b) lie in the order of X. Samples shorter than the sequence skip the steps beyond their end: their state
 * stays, their Y and the gradients of their gates are zero. Other activations, clip and coupled gates run `eval`. */
#include <math.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/recurrent.h"
#include "runtime/ops/vector.h"

enum { CELL_GRAIN = 2048 }; /* hidden numbers a thread takes at least */

/* Buffers of one direction in the step's scratch; sizes in floats. */
typedef struct ScratchPlaces {
    int64_t
        sums; /* [rows, stride]: gate sums, then gates; when nothing is saved, or the backward's gradients of them */
    int64_t h, c;   /* [B, H] */
    int64_t extra;  /* [B, 3H]: R h of GRU; products on the way back */
    int64_t bias;   /* [2, GH] */
    int64_t before; /* [rows, H]: h before each step, backward */
    int64_t zeros;  /* [3H]: stands in for peepholes and cells that are not there */
    int64_t total;
} ScratchPlaces;

typedef struct RecurrentState {
    Recurrence r;
    DnnlEngine *dnnl;
    ScratchPlaces at;
    int64_t stride; /* floats a row of gates */
    bool relu;      /* RNN with Relu */
} RecurrentState;

/* One step of one direction, for the loops over samples. */
typedef struct CellWork {
    const Recurrence *r;
    int d;
    int64_t t, stride;
    bool relu;
    const int32_t *lengths;
    float *gates;          /* saved or scratch, of this direction */
    float *h, *c, *extra;  /* [B, H], [B, H], [B, 3H] */
    const float *bias, *p; /* [2, GH] (input, recurrent); [3, H] */
    float *y;              /* of the whole node, may be NULL */
    /* backward */
    const float *dy, *saved, *c0, *h0;
    float *dgates, *before;
    const float *zeros;
    int phase; /* GRU takes two passes a step */
} CellWork;

static bool is_active(const CellWork *w, int64_t b)
{
    return w->lengths == NULL || w->t < w->lengths[b];
}

static int64_t row_of(const Recurrence *r, int64_t t, int64_t b)
{
    return t * r->row_t + b * r->row_b;
}

static int64_t y_at(const CellWork *w, int64_t t, int64_t b)
{
    return t * w->r->y_t + w->d * w->r->y_d + b * w->r->y_b;
}

/* ---- cells forward, one sample ---------------------------------------------------------------------------------- */

VECTOR_CLONES static void lstm_cell(int64_t n, float *g, const float *bias, const float *p, float *h, float *c)
{
    float *gi = g, *go = g + n, *gf = g + 2 * n, *gc = g + 3 * n, *saved_c = g + 4 * n;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float i = vector_sigmoid(gi[j] + bias[j] + p[j] * c[j]);
        float f = vector_sigmoid(gf[j] + bias[2 * n + j] + p[2 * n + j] * c[j]);
        float candidate = vector_tanh(gc[j] + bias[3 * n + j]);
        float next = f * c[j] + i * candidate;
        float o = vector_sigmoid(go[j] + bias[n + j] + p[n + j] * next);
        gi[j] = i;
        go[j] = o;
        gf[j] = f;
        gc[j] = candidate;
        saved_c[j] = next;
        c[j] = next;
        h[j] = o * vector_tanh(next);
    }
}

/* `rh` is R h for all gates, `wb` and `rb` are the biases: with linear_before_reset all in one pass. */
VECTOR_CLONES static void gru_cell_linear(int64_t n, float *g, const float *rh, const float *wb, const float *rb,
                                          float *h)
{
    float *gz = g, *gr = g + n, *gh = g + 2 * n, *saved_n = g + 3 * n;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float z = vector_sigmoid(gz[j] + rh[j] + (wb[j] + rb[j]));
        float reset = vector_sigmoid(gr[j] + rh[n + j] + (wb[n + j] + rb[n + j]));
        float linear = rh[2 * n + j] + rb[2 * n + j];
        float candidate = vector_tanh(gh[j] + wb[2 * n + j] + reset * linear);
        gz[j] = z;
        gr[j] = reset;
        gh[j] = candidate;
        saved_n[j] = linear;
        h[j] = (1.0F - z) * candidate + z * h[j];
    }
}

/* The gates, and r (.) h for the product that follows. */
VECTOR_CLONES static void gru_cell_gates(int64_t n, float *g, const float *wb, const float *rb, const float *h)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        g[j] = vector_sigmoid(g[j] + (wb[j] + rb[j]));
        g[n + j] = vector_sigmoid(g[n + j] + (wb[n + j] + rb[n + j]));
        g[3 * n + j] = g[n + j] * h[j];
    }
}

VECTOR_CLONES static void gru_cell_candidate(int64_t n, float *g, const float *wb, const float *rb, float *h)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float z = g[j], candidate = vector_tanh(g[2 * n + j] + (wb[2 * n + j] + rb[2 * n + j]));
        g[2 * n + j] = candidate;
        h[j] = (1.0F - z) * candidate + z * h[j];
    }
}

VECTOR_CLONES static void rnn_cell(int64_t n, const float *g, const float *wb, const float *rb, float *h, bool relu)
{
    if (relu)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            float sum = g[j] + (wb[j] + rb[j]);
            h[j] = sum > 0 ? sum : 0.0F;
        }
    else
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            h[j] = vector_tanh(g[j] + (wb[j] + rb[j]));
}

static void cell_forward(const CellWork *w, int64_t b)
{
    int64_t n = w->r->hidden, all = w->r->gates * n;
    float *g = w->gates + row_of(w->r, w->t, b) * w->stride, *h = w->h + b * n;
    const float *wb = w->bias, *rb = w->bias + all;
    if (w->r->kind == CELL_LSTM)
        lstm_cell(n, g, wb, w->p, h, w->c + b * n);
    else if (w->r->kind == CELL_RNN)
        rnn_cell(n, g, wb, rb, h, w->relu);
    else if (w->r->linear_before_reset)
        gru_cell_linear(n, g, w->extra + b * all, wb, rb, h);
    else if (w->phase == 0)
        gru_cell_gates(n, g, wb, rb, h);
    else
        gru_cell_candidate(n, g, wb, rb, h);
}

static void cells_forward(int64_t begin, int64_t end, void *context)
{
    const CellWork *w = context;
    int64_t n = w->r->hidden;
    bool last = w->r->kind != CELL_GRU || w->r->linear_before_reset || w->phase == 1;
    for (int64_t b = begin; b < end; b++) {
        bool active = is_active(w, b);
        if (active)
            cell_forward(w, b);
        else
            memset(w->gates + row_of(w->r, w->t, b) * w->stride, 0, (size_t)w->stride * sizeof(float));
        if (!last || w->y == NULL)
            continue;
        float *y = w->y + y_at(w, w->t, b);
        if (active)
            memcpy(y, w->h + b * n, (size_t)n * sizeof *y);
        else
            memset(y, 0, (size_t)n * sizeof *y);
    }
}

/* ---- products -------------------------------------------------------------------------------------------------------
 */

static int64_t at_least(int64_t leading, int64_t width)
{
    return leading > width ? leading : width > 0 ? width : 1;
}

/* C [m, n] = A' B' + beta C, rows `lda`, `ldb`, `ldc` apart; 'T' says the operand is stored transposed. */
static Status multiply(char trans_a, char trans_b, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                       const float *b, int64_t ldb, float beta, float *c, int64_t ldc, Error *err)
{
    if (m == 0 || n == 0)
        return STATUS_OK;
    DNNL_TRY(dnnl_sgemm(trans_a, trans_b, m, n, k, 1.0F, a, at_least(lda, trans_a == 'T' ? m : k), b,
                        at_least(ldb, trans_b == 'T' ? k : n), beta, c, at_least(ldc, n)));
    return STATUS_OK;
}

/* The rows of step t as a matrix: the first one, and how far apart they are. */
static float *step_rows(const CellWork *w, float *rows)
{
    return rows + row_of(w->r, w->t, 0) * w->stride;
}

static Status forward_step(CellWork *w, const float *rec, Error *err)
{
    const Recurrence *r = w->r;
    int64_t n = r->hidden, all = r->gates * n, apart = r->row_b * w->stride, grain = 1 + CELL_GRAIN / (n + 1);
    float *rows = step_rows(w, w->gates);
    w->phase = 0;
    if (r->kind != CELL_GRU) {
        TRY(multiply('N', 'T', r->batch, all, n, w->h, n, rec, n, 1.0F, rows, apart, err));
    } else if (r->linear_before_reset) {
        TRY(multiply('N', 'T', r->batch, all, n, w->h, n, rec, n, 0.0F, w->extra, all, err));
    } else {
        TRY(multiply('N', 'T', r->batch, 2 * n, n, w->h, n, rec, n, 1.0F, rows, apart, err));
        parallel_for(r->batch, grain, cells_forward, w);
        w->phase = 1;
        TRY(multiply('N', 'T', r->batch, n, n, rows + 3 * n, apart, rec + 2 * n * n, n, 1.0F, rows + 2 * n, apart,
                     err));
    }
    parallel_for(r->batch, grain, cells_forward, w);
    return STATUS_OK;
}

/* ---- forward
 * ---------------------------------------------------------------------------------------------------------- */

/* [B, H] of one direction from, or to, a state tensor; absent states are zero. */
static void state_load(const Recurrence *r, int d, const float *state, float *to)
{
    for (int64_t b = 0; b < r->batch; b++)
        if (state == NULL)
            memset(to + b * r->hidden, 0, (size_t)r->hidden * sizeof *to);
        else
            memcpy(to + b * r->hidden, state + d * r->state_d + b * r->state_b, (size_t)r->hidden * sizeof *to);
}

static void state_store(const Recurrence *r, int d, const float *from, Slot *slot)
{
    float *state = slot == NULL ? NULL : slot->data;
    for (int64_t b = 0; state != NULL && b < r->batch; b++)
        memcpy(state + d * r->state_d + b * r->state_b, from + b * r->hidden, (size_t)r->hidden * sizeof *from);
}

static const void *input_data(const Step *step, int index)
{
    return index < step->in_count && step->in[index] != NULL ? step->in[index]->data : NULL;
}

static Slot *output_slot(const Step *step, int index)
{
    return index < step->out_count ? step->out[index] : NULL;
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

static Status forward_direction(const Step *step, const RecurrentState *state, int d, float *gates, Error *err)
{
    const Recurrence *r = &state->r;
    float *scratch = step->scratch;
    int64_t n = r->hidden, all = r->gates * n, rows = r->steps * r->batch;
    const float *weights = input_data(step, IN_W), *recurrent = input_data(step, IN_R), *p = input_data(step, IN_P);
    Slot *y = output_slot(step, 0);
    float *zeros = scratch + state->at.zeros;
    memset(zeros, 0, (size_t)(3 * n) * sizeof *zeros);
    CellWork w = {.r = r,
                  .d = d,
                  .zeros = zeros,
                  .stride = state->stride,
                  .relu = state->relu,
                  .lengths = input_data(step, IN_LENGTHS),
                  .gates = gates,
                  .h = scratch + state->at.h,
                  .c = scratch + state->at.c,
                  .extra = scratch + state->at.extra,
                  .bias = scratch + state->at.bias,
                  .p = p == NULL ? zeros : p + d * 3 * n,
                  .y = y == NULL ? NULL : y->data};
    TRY(check_lengths(step, r, w.lengths, err));
    bias_load(r, d, input_data(step, IN_B), scratch + state->at.bias);
    state_load(r, d, input_data(step, IN_H), w.h);
    state_load(r, d, input_data(step, IN_C), w.c);
    TRY(multiply('N', 'T', rows, all, r->inputs, input_data(step, IN_X), r->inputs, weights + d * all * r->inputs,
                 r->inputs, 0.0F, gates, state->stride, err));
    for (int64_t s = 0; s < r->steps; s++) {
        w.t = r->reverse[d] ? r->steps - 1 - s : s;
        TRY(forward_step(&w, recurrent + d * all * n, err));
    }
    state_store(r, d, w.h, output_slot(step, 1));
    if (r->kind == CELL_LSTM)
        state_store(r, d, w.c, output_slot(step, 2));
    return STATUS_OK;
}

static int saved_index(CellKind kind)
{
    return kind == CELL_LSTM ? 3 : 2;
}

static Status run_forward(Step *step, Error *err)
{
    const RecurrentState *state = step->state;
    Slot *saved = state->r.saved > 0 ? output_slot(step, saved_index(state->r.kind)) : NULL;
    int64_t size = state->r.steps * state->r.batch * state->stride;
    for (int d = 0; d < state->r.directions; d++) {
        float *gates = saved != NULL ? (float *)saved->data + d * size : (float *)step->scratch + state->at.sums;
        TRY(forward_direction(step, state, d, gates, err));
    }
    return STATUS_OK;
}

/* Sigmoid for gates and Tanh (RNN: or Relu) for the rest, without clip or coupling. */
static bool is_usual(const Recurrence *r)
{
    bool usual = r->clip <= 0 && !r->coupled && r->steps > 0 && r->batch > 0;
    for (int d = 0; d < r->directions; d++) {
        const Activation *a = r->activations[d];
        if (r->kind == CELL_RNN)
            usual = usual && (a[0].kind == ACT_TANH || a[0].kind == ACT_RELU) && a[0].kind == r->activations[0][0].kind;
        else
            usual = usual && a[0].kind == ACT_SIGMOID && a[1].kind == ACT_TANH &&
                    (r->kind == CELL_GRU || a[2].kind == ACT_TANH);
    }
    return usual;
}

static int64_t take(int64_t *total, int64_t count)
{
    int64_t at = *total;
    *total += (count + 15) / 16 * 16;
    return at;
}

static void scratch_layout(RecurrentState *state, bool sums, bool backward)
{
    const Recurrence *r = &state->r;
    int64_t total = 0, rows = r->steps * r->batch, state_size = r->batch * r->hidden;
    state->at.sums = take(&total, sums ? rows * state->stride : 0);
    state->at.h = take(&total, state_size);
    state->at.c = take(&total, state_size);
    state->at.extra = take(&total, 3 * state_size);
    state->at.bias = take(&total, 2 * r->gates * r->hidden);
    state->at.before = take(&total, backward ? rows * r->hidden : 0);
    state->at.zeros = take(&total, 3 * r->hidden);
    state->at.total = total;
}

static Status state_make(PlanContext *context, CellKind kind, int first, RecurrentState **out, Error *err)
{
    const Node *node = context->node;
    RecurrentState *state = kernel_state(context, sizeof *state);
    TRY(recurrence_init(node, kind, &node->inputs[first + IN_X]->type, &node->inputs[first + IN_W]->type,
                        &node->inputs[first + IN_R]->type, &state->r, err));
    state->stride = state->r.hidden * (kind == CELL_RNN ? 1 : state->r.saved);
    state->relu = kind == CELL_RNN && state->r.activations[0][0].kind == ACT_RELU;
    state->dnnl = context->dnnl;
    *out = state;
    return STATUS_OK;
}

Status recurrent_forward_prepare(PlanContext *context, CellKind kind, Error *err)
{
    const Node *node = context->node;
    RecurrentState *state;
    TRY(state_make(context, kind, 0, &state, err));
    if (node->inputs[IN_X]->type.dtype != DTYPE_F32 || context->plain_only || !is_usual(&state->r))
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            kernel_output(context, i, LAYOUT_PLAIN);
    bool saves = state->r.saved > 0 && node_output(node, saved_index(kind)) != NULL;
    scratch_layout(state, !saves, false);
    kernel_scratch(context, (size_t)state->at.total * sizeof(float));
    kernel_run(context, run_forward, "own:steps");
    return STATUS_OK;
}

/* ---- cells backward, one sample -------------------------------------------------------------------------------------
 */

/* In: dh, dc of this step. Out: gradients of the gate sums, dc of the step before; see recurrent_eval.c for the
 * formulas. */
VECTOR_CLONES static void lstm_cell_back(int64_t n, const float *g, const float *c_prev, const float *p,
                                         const float *dh, float *dc, float *da)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float i = g[j], o = g[n + j], f = g[2 * n + j], candidate = g[3 * n + j], before = c_prev[j];
        float squashed = vector_tanh(g[4 * n + j]);
        float da_o = dh[j] * squashed * o * (1.0F - o);
        float d = dc[j] + dh[j] * o * (1.0F - squashed * squashed) + p[n + j] * da_o;
        float da_i = d * candidate * i * (1.0F - i);
        float da_f = d * before * f * (1.0F - f);
        da[j] = da_i;
        da[n + j] = da_o;
        da[2 * n + j] = da_f;
        da[3 * n + j] = d * i * (1.0F - candidate * candidate);
        dc[j] = d * f + p[j] * da_i + p[2 * n + j] * da_f;
    }
}

/* da is [dz, dr, dh~, dn]; dh becomes the part of the step before that needs no product. Without linear_before_reset dr
 * (anew) and the rest of dh follow from `through` = R_h^T dh~ in a second pass. */
VECTOR_CLONES static void gru_cell_back(int64_t n, const float *g, const float *h_prev, float *dh, float *da,
                                        bool linear)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float z = g[j], reset = g[n + j], candidate = g[2 * n + j];
        float da_h = dh[j] * (1.0F - z) * (1.0F - candidate * candidate);
        da[j] = dh[j] * (h_prev[j] - candidate) * z * (1.0F - z);
        da[n + j] = da_h * g[3 * n + j] * reset * (1.0F - reset);
        da[2 * n + j] = da_h;
        da[3 * n + j] = da_h * (linear ? reset : 1.0F);
        dh[j] *= z;
    }
}

VECTOR_CLONES static void gru_cell_back_reset(int64_t n, const float *g, const float *h_prev, const float *through,
                                              float *dh, float *da)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float reset = g[n + j];
        da[n + j] = through[j] * h_prev[j] * reset * (1.0F - reset);
        dh[j] += through[j] * reset;
    }
}

VECTOR_CLONES static void rnn_cell_back(int64_t n, const float *y, const float *dh, float *da, bool relu)
{
    if (relu)
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            da[j] = y[j] > 0 ? dh[j] : 0.0F;
    else
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            da[j] = dh[j] * (1.0F - y[j] * y[j]);
}

VECTOR_CLONES static void add_to(int64_t n, const float *x, float *y)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
        y[j] += x[j];
}

/* The step that was done before step t for sample b; -1 when t was its first. */
static int64_t step_before(const CellWork *w, int64_t b)
{
    if (!w->r->reverse[w->d])
        return w->t - 1;
    int64_t length = w->lengths == NULL ? w->r->steps : w->lengths[b];
    return w->t + 1 < length ? w->t + 1 : -1;
}

static void cell_back(const CellWork *w, int64_t b)
{
    const Recurrence *r = w->r;
    int64_t n = r->hidden, row = row_of(r, w->t, b), before = step_before(w, b),
            state = w->d * r->state_d + b * r->state_b;
    const float *g = w->saved + row * w->stride;
    float *dh = w->h + b * n, *da = w->dgates + row * w->stride, *h_prev = w->before + row * n;
    if (w->phase == 1) {
        gru_cell_back_reset(n, g, h_prev, w->extra + b * n, dh, da);
        return;
    }
    if (w->dy != NULL)
        add_to(n, w->dy + y_at(w, w->t, b), dh);
    if (before >= 0)
        memcpy(h_prev, w->y + y_at(w, before, b), (size_t)n * sizeof *h_prev);
    else if (w->h0 != NULL)
        memcpy(h_prev, w->h0 + state, (size_t)n * sizeof *h_prev);
    else
        memset(h_prev, 0, (size_t)n * sizeof *h_prev);
    if (r->kind == CELL_RNN)
        rnn_cell_back(n, w->y + y_at(w, w->t, b), dh, da, w->relu);
    else if (r->kind == CELL_GRU)
        gru_cell_back(n, g, h_prev, dh, da, r->linear_before_reset);
    else
        lstm_cell_back(n, g,
                       before >= 0     ? w->saved + row_of(r, before, b) * w->stride + 4 * n
                       : w->c0 != NULL ? w->c0 + state
                                       : w->zeros,
                       w->p, dh, w->c + b * n, da);
}

static void cells_back(int64_t begin, int64_t end, void *context)
{
    const CellWork *w = context;
    int64_t n = w->r->hidden;
    for (int64_t b = begin; b < end; b++) {
        if (is_active(w, b)) {
            cell_back(w, b);
            continue;
        }
        int64_t row = row_of(w->r, w->t, b);
        memset(w->dgates + row * w->stride, 0, (size_t)w->stride * sizeof(float));
        memset(w->before + row * n, 0, (size_t)n * sizeof(float));
    }
}

/* dh of the step before: `through` the product for LSTM and RNN, added to what is there for GRU. Waiting samples keep
 * theirs. */
static void pass_on(const CellWork *w)
{
    int64_t n = w->r->hidden;
    for (int64_t b = 0; b < w->r->batch; b++) {
        if (!is_active(w, b))
            continue;
        if (w->r->kind == CELL_GRU)
            add_to(n, w->extra + b * n, w->h + b * n);
        else
            memcpy(w->h + b * n, w->extra + b * n, (size_t)n * sizeof(float));
    }
}

static Status backward_step(CellWork *w, const float *rec, Error *err)
{
    const Recurrence *r = w->r;
    int64_t n = r->hidden, all = r->gates * n, apart = r->row_b * w->stride, grain = 1 + CELL_GRAIN / (n + 1);
    float *rows = step_rows(w, w->dgates);
    w->phase = 0;
    parallel_for(r->batch, grain, cells_back, w);
    if (r->kind != CELL_GRU) {
        TRY(multiply('N', 'N', r->batch, n, all, rows, apart, rec, n, 0.0F, w->extra, n, err));
    } else if (r->linear_before_reset) {
        TRY(multiply('N', 'N', r->batch, n, 2 * n, rows, apart, rec, n, 0.0F, w->extra, n, err));
        TRY(multiply('N', 'N', r->batch, n, n, rows + 3 * n, apart, rec + 2 * n * n, n, 1.0F, w->extra, n, err));
    } else {
        TRY(multiply('N', 'N', r->batch, n, n, rows + 2 * n, apart, rec + 2 * n * n, n, 0.0F, w->extra, n, err));
        w->phase = 1;
        parallel_for(r->batch, grain, cells_back, w);
        TRY(multiply('N', 'N', r->batch, n, 2 * n, rows, apart, rec, n, 0.0F, w->extra, n, err));
    }
    pass_on(w);
    return STATUS_OK;
}

/* ---- backward: what is gathered over all steps ----------------------------------------------------------------------
 */

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
static void bias_gradient(const CellWork *w, float *db)
{
    int64_t n = w->r->hidden, all = w->r->gates * n, rows = w->r->steps * w->r->batch;
    float *input = db + 2 * w->d * all, *recurrent = input + all;
    column_sums(w->dgates, rows, w->stride, all, input, recurrent);
    if (w->r->kind == CELL_GRU && w->r->linear_before_reset)
        column_sums(w->dgates + 3 * n, rows, w->stride, n, recurrent + 2 * n, NULL);
}

/* dP_i = sum da_i c_prev, dP_o = sum da_o C, dP_f = sum da_f c_prev */
static void peephole_gradient(CellWork *w, float *dp)
{
    const Recurrence *r = w->r;
    int64_t n = r->hidden;
    memset(dp, 0, (size_t)(3 * n) * sizeof *dp);
    for (w->t = 0; w->t < r->steps; w->t++)
        for (int64_t b = 0; b < r->batch; b++) {
            int64_t row = row_of(r, w->t, b), before = step_before(w, b);
            const float *da = w->dgates + row * w->stride, *c = w->saved + row * w->stride + 4 * n;
            const float *c_prev = before >= 0     ? w->saved + row_of(r, before, b) * w->stride + 4 * n
                                  : w->c0 != NULL ? w->c0 + w->d * r->state_d + b * r->state_b
                                                  : NULL;
            for (int64_t j = 0; is_active(w, b) && j < n; j++) {
                float past = c_prev != NULL ? c_prev[j] : 0.0F;
                dp[j] += da[j] * past;
                dp[n + j] += da[n + j] * c[j];
                dp[2 * n + j] += da[2 * n + j] * past;
            }
        }
}

static float *output_data(const Step *step, int index)
{
    Slot *slot = output_slot(step, index);
    return slot == NULL ? NULL : slot->data;
}

/* dR = (gradients of the gate sums)^T (what R multiplied): h_prev, but r (.) h for GRU's candidate without
 * linear_before_reset. */
static Status recurrent_gradient(const CellWork *w, float *dr, Error *err)
{
    const Recurrence *r = w->r;
    int64_t n = r->hidden, rows = r->steps * r->batch;
    int64_t direct = r->kind == CELL_GRU ? 2 * n : r->gates * n;
    TRY(multiply('T', 'N', direct, n, rows, w->dgates, w->stride, w->before, n, 0.0F, dr, n, err));
    if (r->kind != CELL_GRU)
        return STATUS_OK;
    bool linear = r->linear_before_reset;
    const float *gradients = w->dgates + (linear ? 3 : 2) * n, *factor = linear ? w->before : w->saved + 3 * n;
    return multiply('T', 'N', n, n, rows, gradients, w->stride, factor, linear ? n : w->stride, 0.0F, dr + 2 * n * n, n,
                    err);
}

static Status gather_gradients(const Step *step, CellWork *w, Error *err)
{
    const Recurrence *r = w->r;
    int64_t n = r->hidden, all = r->gates * n, rows = r->steps * r->batch, d = w->d;
    const float *x = input_data(step, GRAD_INPUTS + IN_X), *weights = input_data(step, GRAD_INPUTS + IN_W);
    float *dx = output_data(step, GRAD_DX), *dw = output_data(step, GRAD_DW), *dr = output_data(step, GRAD_DR);
    float *db = output_data(step, GRAD_DB), *dp = output_data(step, GRAD_DP);
    if (dx != NULL)
        TRY(multiply('N', 'N', rows, r->inputs, all, w->dgates, w->stride, weights + d * all * r->inputs, r->inputs,
                     d > 0 ? 1.0F : 0.0F, dx, r->inputs, err));
    if (dw != NULL)
        TRY(multiply('T', 'N', all, r->inputs, rows, w->dgates, w->stride, x, r->inputs, 0.0F, dw + d * all * r->inputs,
                     r->inputs, err));
    if (dr != NULL)
        TRY(recurrent_gradient(w, dr + d * all * n, err));
    if (db != NULL)
        bias_gradient(w, db);
    if (dp != NULL)
        peephole_gradient(w, dp + d * 3 * n);
    state_store(r, w->d, w->h, output_slot(step, GRAD_DH));
    state_store(r, w->d, w->c, output_slot(step, GRAD_DC));
    return STATUS_OK;
}

static Status backward_direction(const Step *step, const RecurrentState *state, int d, Error *err)
{
    const Recurrence *r = &state->r;
    float *scratch = step->scratch;
    const float *saved = input_data(step, GRAD_SAVED), *p = input_data(step, GRAD_INPUTS + IN_P);
    const float *recurrent = input_data(step, GRAD_INPUTS + IN_R);
    int64_t n = r->hidden;
    float *zeros = scratch + state->at.zeros;
    memset(zeros, 0, (size_t)(3 * n) * sizeof *zeros);
    CellWork w = {.r = r,
                  .d = d,
                  .zeros = zeros,
                  .stride = state->stride,
                  .relu = state->relu,
                  .lengths = input_data(step, GRAD_INPUTS + IN_LENGTHS),
                  .h = scratch + state->at.h,
                  .c = scratch + state->at.c,
                  .extra = scratch + state->at.extra,
                  .p = p == NULL ? zeros : p + d * 3 * n,
                  .y = step->in[GRAD_Y]->data,
                  .dy = input_data(step, GRAD_DY),
                  .saved = saved == NULL ? NULL : saved + d * r->steps * r->batch * state->stride,
                  .c0 = input_data(step, GRAD_INPUTS + IN_C),
                  .h0 = input_data(step, GRAD_INPUTS + IN_H),
                  .dgates = scratch + state->at.sums,
                  .before = scratch + state->at.before};
    state_load(r, d, input_data(step, GRAD_DY_H), w.h);
    state_load(r, d, input_data(step, GRAD_DY_C), w.c);
    for (int64_t s = r->steps - 1; s >= 0; s--) {
        w.t = r->reverse[d] ? r->steps - 1 - s : s;
        TRY(backward_step(&w, recurrent + d * r->gates * n * n, err));
    }
    return gather_gradients(step, &w, err);
}

static Status run_backward(Step *step, Error *err)
{
    const RecurrentState *state = step->state;
    for (int d = 0; d < state->r.directions; d++)
        TRY(backward_direction(step, state, d, err));
    return STATUS_OK;
}

Status recurrent_backward_prepare(PlanContext *context, CellKind kind, Error *err)
{
    const Node *node = context->node;
    RecurrentState *state;
    TRY(state_make(context, kind, GRAD_INPUTS, &state, err));
    bool known = node_input(node, GRAD_Y) != NULL && (kind == CELL_RNN || node_input(node, GRAD_SAVED) != NULL);
    if (node->inputs[GRAD_INPUTS + IN_X]->type.dtype != DTYPE_F32 || context->plain_only || !known ||
        !is_usual(&state->r))
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            kernel_output(context, i, LAYOUT_PLAIN);
    scratch_layout(state, true, true);
    kernel_scratch(context, (size_t)state->at.total * sizeof(float));
    kernel_run(context, run_backward, "own:steps");
    return STATUS_OK;
}
