/* The reference for RNN, GRU and LSTM and for their gradients: one sample and one step at a time, in double, as the
 * equations stand in ONNX's text of the operators. The backward runs the forward again and keeps a record of every
 * step, so it needs nothing saved. */
#include <math.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/recurrent.h"

/* All inputs of a node in double, and where gradients are summed; NULL where there is none. */
typedef struct Reference {
    Recurrence r;
    const double *x, *w, *rec, *b, *h0, *c0, *p; /* w [D, GH, I], rec [D, GH, H], b [D, 2GH], p [D, 3H] */
    const int64_t *lengths;
    double *dx, *dw, *drec, *db, *dh0, *dc0, *dp;
} Reference;

/* One step of one sample. GRU's n is R_h h + Rb_h when linear_before_reset, else r (.) h. */
typedef struct Record {
    double *h_prev, *c_prev, *h, *c, *n; /* [H] */
    double *pre, *act;                   /* [GH] */
} Record;

static double activate(const Activation *a, double x)
{
    switch (a->kind) {
    case ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACT_TANH:
        return tanh(x);
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_AFFINE:
        return a->alpha * x + a->beta;
    case ACT_LEAKY_RELU:
        return x >= 0 ? x : a->alpha * x;
    case ACT_THRESHOLDED_RELU:
        return x >= a->alpha ? x : 0;
    case ACT_SCALED_TANH:
        return a->alpha * tanh(a->beta * x);
    case ACT_HARD_SIGMOID:
        return fmin(fmax(a->alpha * x + a->beta, 0), 1);
    case ACT_ELU:
        return x >= 0 ? x : a->alpha * (exp(x) - 1);
    case ACT_SOFTSIGN:
        return x / (1 + fabs(x));
    case ACT_SOFTPLUS:
        return fmax(x, 0) + log1p(exp(-fabs(x)));
    }
    return 0;
}

/* f'(x), given y = f(x) too. */
static double slope(const Activation *a, double x, double y)
{
    double t;
    switch (a->kind) {
    case ACT_SIGMOID:
        return y * (1 - y);
    case ACT_TANH:
        return 1 - y * y;
    case ACT_RELU:
        return x > 0 ? 1 : 0;
    case ACT_AFFINE:
        return a->alpha;
    case ACT_LEAKY_RELU:
        return x >= 0 ? 1 : a->alpha;
    case ACT_THRESHOLDED_RELU:
        return x >= a->alpha ? 1 : 0;
    case ACT_SCALED_TANH:
        t = tanh(a->beta * x);
        return a->alpha * a->beta * (1 - t * t);
    case ACT_HARD_SIGMOID:
        return y > 0 && y < 1 ? a->alpha : 0;
    case ACT_ELU:
        return x >= 0 ? 1 : y + a->alpha;
    case ACT_SOFTSIGN:
        return 1 / ((1 + fabs(x)) * (1 + fabs(x)));
    case ACT_SOFTPLUS:
        return 1 / (1 + exp(-x));
    }
    return 0;
}

static double clipped(const Recurrence *r, double x)
{
    return r->clip > 0 ? fmin(fmax(x, -r->clip), r->clip) : x;
}

/* Activation of a gate through the clip, and its slope. */
static double gate(const Recurrence *r, const Activation *a, double pre)
{
    return activate(a, clipped(r, pre));
}

static double gate_slope(const Recurrence *r, const Activation *a, double pre, double y)
{
    return r->clip > 0 && fabs(pre) > r->clip ? 0 : slope(a, clipped(r, pre), y);
}

/* ---- reading the inputs ----------------------------------------------------------------------------------------- */

static Status wide(EvalContext *context, int index, const double **data, Error *err)
{
    const Array *array = eval_input(context, index);
    Array *converted;
    *data = NULL;
    if (array == NULL)
        return STATUS_OK;
    TRY(array_convert(context->arena, array, DTYPE_F64, &converted, err));
    *data = converted->data;
    return STATUS_OK;
}

static Type array_type(const Array *array)
{
    Type type = {.kind = TYPE_TENSOR};
    type_set(&type, array->dtype, array->rank, array->dims);
    return type;
}

/* The forward's inputs begin at input `first`. */
static Status reference_read(EvalContext *context, CellKind kind, int first, Reference *ref, Error *err)
{
    const Array *arrays[] = {eval_input(context, first + IN_X), eval_input(context, first + IN_W),
                             eval_input(context, first + IN_R)};
    size_t count;
    *ref = (Reference){0};
    if (arrays[0] == NULL || arrays[1] == NULL || arrays[2] == NULL)
        return eval_fail(context, err, "X, W or R is missing");
    Type x = array_type(arrays[0]), w = array_type(arrays[1]), rec = array_type(arrays[2]);
    TRY(recurrence_init(context->node, kind, &x, &w, &rec, &ref->r, err));
    TRY(wide(context, first + IN_X, &ref->x, err));
    TRY(wide(context, first + IN_W, &ref->w, err));
    TRY(wide(context, first + IN_R, &ref->rec, err));
    TRY(wide(context, first + IN_B, &ref->b, err));
    TRY(wide(context, first + IN_H, &ref->h0, err));
    TRY(wide(context, first + IN_C, &ref->c0, err));
    TRY(wide(context, first + IN_P, &ref->p, err));
    TRY(eval_ints(context, first + IN_LENGTHS, &ref->lengths, &count, err));
    for (int64_t b = 0; ref->lengths != NULL && b < ref->r.batch; b++)
        if (ref->lengths[b] < 0 || ref->lengths[b] > ref->r.steps)
            return eval_fail(context, err, "sequence length %lld of %lld steps", (long long)ref->lengths[b],
                             (long long)ref->r.steps);
    return STATUS_OK;
}

static void store(Array *array, int64_t i, double value)
{
    if (array->dtype == DTYPE_F32)
        ((float *)array->data)[i] = (float)value;
    else
        ((double *)array->data)[i] = value;
}

/* ---- one step ---------------------------------------------------------------------------------------------------- */

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static const double *w_row(const Reference *ref, int d, int64_t row)
{
    return ref->w + (d * ref->r.gates * ref->r.hidden + row) * ref->r.inputs;
}

static const double *r_row(const Reference *ref, int d, int64_t row)
{
    return ref->rec + (d * ref->r.gates * ref->r.hidden + row) * ref->r.hidden;
}

/* Wb, or Rb with `recurrent`. */
static double bias(const Reference *ref, int d, int64_t row, bool recurrent)
{
    int64_t rows = ref->r.gates * ref->r.hidden;
    return ref->b == NULL ? 0 : ref->b[(2 * d + recurrent) * rows + row];
}

static double peephole(const Reference *ref, int d, int which, int64_t j)
{
    return ref->p == NULL ? 0 : ref->p[(d * 3 + which) * ref->r.hidden + j];
}

/* W x + Wb + R h + Rb of one gate's row. */
static double row_sum(const Reference *ref, int d, const double *x, const double *h, int64_t row)
{
    return dot(w_row(ref, d, row), x, ref->r.inputs) + bias(ref, d, row, false) +
           dot(r_row(ref, d, row), h, ref->r.hidden) + bias(ref, d, row, true);
}

/* H = f(W x + R h + Wb + Rb) */
static void rnn_step(const Reference *ref, int d, const double *x, Record *k)
{
    for (int64_t j = 0; j < ref->r.hidden; j++) {
        k->pre[j] = row_sum(ref, d, x, k->h_prev, j);
        k->h[j] = k->act[j] = gate(&ref->r, &ref->r.activations[d][0], k->pre[j]);
    }
}

/* z = f(W_z x + R_z h + Wb_z + Rb_z), r alike; h~ = g(W_h x + R_h (r (.) h) + Rb_h + Wb_h), or with linear_before_reset
 * g(W_h x + r (.) (R_h h + Rb_h) + Wb_h); H = (1 - z) (.) h~ + z (.) h */
static void gru_step(const Reference *ref, int d, const double *x, Record *k)
{
    const Recurrence *r = &ref->r;
    int64_t n = r->hidden;
    for (int64_t j = 0; j < 2 * n; j++) {
        k->pre[j] = row_sum(ref, d, x, k->h_prev, j);
        k->act[j] = gate(r, &r->activations[d][0], k->pre[j]);
    }
    const double *z = k->act, *reset = k->act + n;
    for (int64_t j = 0; j < n; j++)
        k->n[j] = r->linear_before_reset ? dot(r_row(ref, d, 2 * n + j), k->h_prev, n) + bias(ref, d, 2 * n + j, true)
                                         : reset[j] * k->h_prev[j];
    for (int64_t j = 0; j < n; j++) {
        int64_t row = 2 * n + j;
        double sum = dot(w_row(ref, d, row), x, r->inputs) + bias(ref, d, row, false);
        sum += r->linear_before_reset ? reset[j] * k->n[j] : dot(r_row(ref, d, row), k->n, n) + bias(ref, d, row, true);
        k->pre[row] = sum;
        k->act[row] = gate(r, &r->activations[d][1], sum);
        k->h[j] = (1 - z[j]) * k->act[row] + z[j] * k->h_prev[j];
    }
}

/* i = f(W_i x + R_i h + P_i (.) c + Wb_i + Rb_i), f alike (or 1 - i when coupled); c~ = g(W_c x + R_c h + Wb_c + Rb_c);
 * C = f (.) c + i (.) c~; o = f(W_o x + R_o h + P_o (.) C + Wb_o + Rb_o); H = o (.) h(C). Gates lie as i o f c. */
static void lstm_step(const Reference *ref, int d, const double *x, Record *k)
{
    const Recurrence *r = &ref->r;
    const Activation *a = r->activations[d];
    int64_t n = r->hidden;
    for (int64_t j = 0; j < 4 * n; j++)
        k->pre[j] = row_sum(ref, d, x, k->h_prev, j);
    for (int64_t j = 0; j < n; j++) {
        k->pre[j] += peephole(ref, d, 0, j) * k->c_prev[j];
        k->pre[2 * n + j] += peephole(ref, d, 2, j) * k->c_prev[j];
        double i = k->act[j] = gate(r, &a[0], k->pre[j]);
        double f = k->act[2 * n + j] = r->coupled ? 1 - i : gate(r, &a[0], k->pre[2 * n + j]);
        double candidate = k->act[3 * n + j] = gate(r, &a[1], k->pre[3 * n + j]);
        k->c[j] = f * k->c_prev[j] + i * candidate;
        k->pre[n + j] += peephole(ref, d, 1, j) * k->c[j];
        k->act[n + j] = gate(r, &a[0], k->pre[n + j]);
        k->h[j] = k->act[n + j] * activate(&a[2], k->c[j]);
    }
}

static void step_forward(const Reference *ref, int d, const double *x, Record *k)
{
    if (ref->r.kind == CELL_RNN)
        rnn_step(ref, d, x, k);
    else if (ref->r.kind == CELL_GRU)
        gru_step(ref, d, x, k);
    else
        lstm_step(ref, d, x, k);
}

/* ---- one sample in one direction --------------------------------------------------------------------------------- */

static int64_t length_of(const Reference *ref, int64_t b)
{
    return ref->lengths == NULL ? ref->r.steps : ref->lengths[b];
}

/* The s-th step that is done is step t of the sequence. */
static int64_t time_of(const Reference *ref, int d, int64_t b, int64_t s)
{
    return ref->r.reverse[d] ? length_of(ref, b) - 1 - s : s;
}

static int64_t x_offset(const Recurrence *r, int64_t t, int64_t b)
{
    return (t * r->row_t + b * r->row_b) * r->inputs;
}

/* Records of all steps; h and c of one are h_prev and c_prev of the next, and those of the last stay behind it. */
static Record *records_new(const Reference *ref, Arena *arena)
{
    int64_t n = ref->r.hidden, gates = ref->r.gates * n;
    Record *records = arena_array(arena, Record, (size_t)ref->r.steps + 1);
    double *block = arena_array(arena, double, (size_t)((ref->r.steps + 1) * (3 * n + 2 * gates)));
    for (int64_t s = 0; s <= ref->r.steps; s++, block += 3 * n + 2 * gates) {
        records[s] = (Record){.h_prev = block, .c_prev = block + n, .n = block + 2 * n, .pre = block + 3 * n};
        records[s].act = records[s].pre + gates;
        if (s > 0) {
            records[s - 1].h = records[s].h_prev;
            records[s - 1].c = records[s].c_prev;
        }
    }
    return records;
}

static void sample_forward(const Reference *ref, int d, int64_t b, Record *records)
{
    const Recurrence *r = &ref->r;
    int64_t state = d * r->state_d + b * r->state_b;
    for (int64_t j = 0; j < r->hidden; j++) {
        records[0].h_prev[j] = ref->h0 != NULL ? ref->h0[state + j] : 0;
        records[0].c_prev[j] = ref->c0 != NULL ? ref->c0[state + j] : 0;
    }
    for (int64_t s = 0; s < length_of(ref, b); s++)
        step_forward(ref, d, ref->x + x_offset(r, time_of(ref, d, b, s), b), &records[s]);
}

typedef struct Outputs {
    Array *y, *y_h, *y_c, *saved;
} Outputs;

static Status outputs_new(EvalContext *context, const Recurrence *r, DType dtype, Outputs *out, Error *err)
{
    int64_t d = r->directions, h = r->hidden, b = r->batch, t = r->steps;
    const int64_t y_steps[] = {t, d, b, h}, y_batch[] = {b, t, d, h};
    const int64_t state_steps[] = {d, b, h}, state_batch[] = {b, d, h};
    const int64_t saved_steps[] = {d, t, b, r->saved * h}, saved_batch[] = {d, b, t, r->saved * h};
    const int64_t *state = r->batch_first ? state_batch : state_steps;
    bool lstm = r->kind == CELL_LSTM;
    *out = (Outputs){0};
    TRY(eval_output(context, 0, dtype, 4, r->batch_first ? y_batch : y_steps, &out->y, err));
    memset(out->y->data, 0, (size_t)out->y->count * dtype_size(dtype));
    if (context->out_count > 1)
        TRY(eval_output(context, 1, dtype, 3, state, &out->y_h, err));
    if (lstm && context->out_count > 2)
        TRY(eval_output(context, 2, dtype, 3, state, &out->y_c, err));
    int index = lstm ? 3 : 2;
    if (r->saved == 0 || context->out_count <= index)
        return STATUS_OK;
    TRY(eval_output(context, index, dtype, 4, r->batch_first ? saved_batch : saved_steps, &out->saved, err));
    memset(out->saved->data, 0, (size_t)out->saved->count * dtype_size(dtype));
    return STATUS_OK;
}

/* What the planned backward reads: the gates, then LSTM's C or GRU's n. */
static void save_step(const Reference *ref, const Record *k, int64_t at, Array *saved)
{
    const Recurrence *r = &ref->r;
    int64_t gates = r->gates * r->hidden;
    for (int64_t j = 0; j < gates; j++)
        store(saved, at + j, k->act[j]);
    for (int64_t j = 0; j < r->hidden; j++)
        store(saved, at + gates + j, r->kind == CELL_LSTM ? k->c[j] : k->n[j]);
}

static void sample_store(const Reference *ref, int d, int64_t b, const Record *records, const Outputs *out)
{
    const Recurrence *r = &ref->r;
    int64_t length = length_of(ref, b), state = d * r->state_d + b * r->state_b;
    for (int64_t s = 0; s < length; s++) {
        int64_t t = time_of(ref, d, b, s), row = t * r->row_t + b * r->row_b;
        for (int64_t j = 0; j < r->hidden; j++)
            store(out->y, t * r->y_t + d * r->y_d + b * r->y_b + j, records[s].h[j]);
        if (out->saved != NULL)
            save_step(ref, &records[s], (d * r->steps * r->batch + row) * r->saved * r->hidden, out->saved);
    }
    for (int64_t j = 0; j < r->hidden; j++) {
        if (out->y_h != NULL)
            store(out->y_h, state + j, records[length].h_prev[j]);
        if (out->y_c != NULL)
            store(out->y_c, state + j, records[length].c_prev[j]);
    }
}

Status recurrent_forward_eval(EvalContext *context, CellKind kind, Error *err)
{
    Reference ref;
    Outputs out;
    TRY(reference_read(context, kind, 0, &ref, err));
    TRY(outputs_new(context, &ref.r, context->in[IN_X]->dtype, &out, err));
    Record *records = records_new(&ref, context->arena);
    for (int d = 0; d < ref.r.directions; d++)
        for (int64_t b = 0; b < ref.r.batch; b++) {
            sample_forward(&ref, d, b, records);
            sample_store(&ref, d, b, records, &out);
        }
    return STATUS_OK;
}

/* ---- backward: backpropagation through time (Werbos, "Backpropagation through time: what it does and how to do it",
 * 1990); the derivatives are those of the equations above
 * ---------------------------------------------------------------- */

/* Gradients at one step. In: dh, dc of the step's h and c. Out: of what comes from the step before, of the gates' sums
 * (dpre), and of GRU's n where it is a sum of its own (dn). */
typedef struct Back {
    double *dh, *dc, *dh_prev, *dc_prev, *dn; /* [H] */
    double *dpre;                             /* [GH] */
} Back;

static void rnn_back(const Reference *ref, int d, const Record *k, Back *g)
{
    for (int64_t j = 0; j < ref->r.hidden; j++)
        g->dpre[j] = g->dh[j] * gate_slope(&ref->r, &ref->r.activations[d][0], k->pre[j], k->act[j]);
}

/* dz = dh (h_prev - h~), dh~ = dh (1 - z), dh_prev += dh z. linear_before_reset: dn = da_h r, dr = da_h n; else
 * d(r h) = R_h^T da_h, dr = d(r h) h_prev, dh_prev += d(r h) r. */
static void gru_back(const Reference *ref, int d, const Record *k, Back *g)
{
    const Recurrence *r = &ref->r;
    const Activation *a = r->activations[d];
    int64_t n = r->hidden;
    for (int64_t j = 0; j < n; j++) {
        double z = k->act[j], candidate = k->act[2 * n + j];
        g->dpre[j] = g->dh[j] * (k->h_prev[j] - candidate) * gate_slope(r, &a[0], k->pre[j], z);
        g->dpre[2 * n + j] = g->dh[j] * (1 - z) * gate_slope(r, &a[1], k->pre[2 * n + j], candidate);
        g->dh_prev[j] += g->dh[j] * z;
    }
    for (int64_t j = 0; j < n; j++) {
        double reset = k->act[n + j], dreset = 0, da = g->dpre[2 * n + j];
        if (r->linear_before_reset) {
            g->dn[j] = da * reset;
            dreset = da * k->n[j];
        } else {
            double through = 0;
            for (int64_t i = 0; i < n; i++)
                through += r_row(ref, d, 2 * n + i)[j] * g->dpre[2 * n + i];
            dreset = through * k->h_prev[j];
            g->dh_prev[j] += through * reset;
        }
        g->dpre[n + j] = dreset * gate_slope(r, &a[0], k->pre[n + j], reset);
    }
}

/* do = dh h(C); dC = dc + dh o h'(C) + P_o da_o; di = dC c~, df = dC c_prev (coupled: di -= dC c_prev), dc~ = dC i;
 * dc_prev = dC f + P_i da_i + P_f da_f */
static void lstm_back(const Reference *ref, int d, const Record *k, Back *g)
{
    const Recurrence *r = &ref->r;
    const Activation *a = r->activations[d];
    int64_t n = r->hidden;
    for (int64_t j = 0; j < n; j++) {
        double i = k->act[j], o = k->act[n + j], f = k->act[2 * n + j], candidate = k->act[3 * n + j];
        double squashed = activate(&a[2], k->c[j]);
        double da_o = g->dh[j] * squashed * gate_slope(r, &a[0], k->pre[n + j], o);
        double dc = g->dc[j] + g->dh[j] * o * slope(&a[2], k->c[j], squashed) + peephole(ref, d, 1, j) * da_o;
        double di = dc * (r->coupled ? candidate - k->c_prev[j] : candidate);
        double da_i = di * gate_slope(r, &a[0], k->pre[j], i);
        double da_f = r->coupled ? 0 : dc * k->c_prev[j] * gate_slope(r, &a[0], k->pre[2 * n + j], f);
        g->dpre[j] = da_i;
        g->dpre[n + j] = da_o;
        g->dpre[2 * n + j] = da_f;
        g->dpre[3 * n + j] = dc * i * gate_slope(r, &a[1], k->pre[3 * n + j], candidate);
        g->dc_prev[j] = dc * f + peephole(ref, d, 0, j) * da_i + peephole(ref, d, 2, j) * da_f;
        if (ref->dp != NULL) {
            double *dp = ref->dp + d * 3 * n + j;
            dp[0] += da_i * k->c_prev[j];
            dp[n] += da_o * k->c[j];
            dp[2 * n] += da_f * k->c_prev[j];
        }
    }
}

/* From the sums of gate row `row`: dW += da x^T, dx += W^T da, dR += dr s^T, dh_prev += R^T dr, biases. `dr` is the
 * gradient of the recurrent part and `s` what R multiplied; `dh_prev` is NULL where that path is already counted. */
static void row_back(const Reference *ref, int d, int64_t row, int64_t x_at, double da, double dr, const double *s,
                     double *dh_prev)
{
    const Recurrence *r = &ref->r;
    int64_t rows = r->gates * r->hidden;
    for (int64_t i = 0; i < r->inputs; i++) {
        ref->dx[x_at + i] += da * w_row(ref, d, row)[i];
        ref->dw[(d * rows + row) * r->inputs + i] += da * ref->x[x_at + i];
    }
    for (int64_t i = 0; i < r->hidden; i++) {
        ref->drec[(d * rows + row) * r->hidden + i] += dr * s[i];
        if (dh_prev != NULL)
            dh_prev[i] += dr * r_row(ref, d, row)[i];
    }
    ref->db[2 * d * rows + row] += da;
    ref->db[(2 * d + 1) * rows + row] += dr;
}

static void step_back(const Reference *ref, int d, int64_t x_at, const Record *k, Back *g)
{
    const Recurrence *r = &ref->r;
    int64_t n = r->hidden;
    memset(g->dh_prev, 0, (size_t)n * sizeof *g->dh_prev);
    if (r->kind == CELL_RNN)
        rnn_back(ref, d, k, g);
    else if (r->kind == CELL_GRU)
        gru_back(ref, d, k, g);
    else
        lstm_back(ref, d, k, g);
    for (int64_t row = 0; row < r->gates * n; row++) {
        bool candidate = r->kind == CELL_GRU && row >= 2 * n;
        if (!candidate)
            row_back(ref, d, row, x_at, g->dpre[row], g->dpre[row], k->h_prev, g->dh_prev);
        else if (r->linear_before_reset)
            row_back(ref, d, row, x_at, g->dpre[row], g->dn[row - 2 * n], k->h_prev, g->dh_prev);
        else
            row_back(ref, d, row, x_at, g->dpre[row], g->dpre[row], k->n, NULL);
    }
}

static double gradient_at(const Array *array, int64_t i)
{
    return array == NULL ? 0 : array_f64_at(array, i);
}

static void sample_back(EvalContext *context, const Reference *ref, int d, int64_t b, const Record *records, Back *g)
{
    const Recurrence *r = &ref->r;
    const Array *dy = eval_input(context, GRAD_DY), *dy_h = eval_input(context, GRAD_DY_H);
    const Array *dy_c = eval_input(context, GRAD_DY_C);
    int64_t state = d * r->state_d + b * r->state_b;
    for (int64_t j = 0; j < r->hidden; j++) {
        g->dh[j] = gradient_at(dy_h, state + j);
        g->dc[j] = gradient_at(dy_c, state + j);
    }
    for (int64_t s = length_of(ref, b) - 1; s >= 0; s--) {
        int64_t t = time_of(ref, d, b, s);
        for (int64_t j = 0; j < r->hidden; j++)
            g->dh[j] += gradient_at(dy, t * r->y_t + d * r->y_d + b * r->y_b + j);
        step_back(ref, d, x_offset(r, t, b), &records[s], g);
        double *dh = g->dh, *dc = g->dc;
        g->dh = g->dh_prev, g->dc = g->dc_prev;
        g->dh_prev = dh, g->dc_prev = dc;
    }
    for (int64_t j = 0; j < r->hidden; j++) {
        ref->dh0[state + j] = g->dh[j];
        ref->dc0[state + j] = g->dc[j];
    }
}

static Status gradients_store(EvalContext *context, const double *const *from, Error *err)
{
    static const int of[GRAD_OUTPUT_COUNT] = {[GRAD_DX] = IN_X, [GRAD_DW] = IN_W, [GRAD_DR] = IN_R, [GRAD_DB] = IN_B,
                                              [GRAD_DH] = IN_H, [GRAD_DC] = IN_C, [GRAD_DP] = IN_P};
    for (int i = 0; i < context->out_count; i++) {
        const Array *like = eval_input(context, GRAD_INPUTS + of[i]);
        Array *out;
        if (like == NULL || node_output(context->node, i) == NULL)
            continue;
        TRY(eval_output_like(context, i, like, &out, err));
        for (int64_t k = 0; k < out->count; k++)
            store(out, k, from[i][k]);
    }
    return STATUS_OK;
}

Status recurrent_backward_eval(EvalContext *context, CellKind kind, Error *err)
{
    Reference ref;
    TRY(reference_read(context, kind, GRAD_INPUTS, &ref, err));
    const Recurrence *r = &ref.r;
    Arena *arena = context->arena;
    int64_t n = r->hidden, rows = r->directions * r->gates * n, states = r->directions * r->batch * n;
    ref.dx = arena_array(arena, double, (size_t)(r->steps * r->batch * r->inputs) + 1);
    ref.dw = arena_array(arena, double, (size_t)(rows * r->inputs) + 1);
    ref.drec = arena_array(arena, double, (size_t)(rows * n) + 1);
    ref.db = arena_array(arena, double, (size_t)(rows * 2) + 1);
    ref.dh0 = arena_array(arena, double, (size_t)states + 1);
    ref.dc0 = arena_array(arena, double, (size_t)states + 1);
    ref.dp = arena_array(arena, double, (size_t)(r->directions * 3 * n) + 1);
    double *block = arena_array(arena, double, (size_t)((5 + r->gates) * n) + 1);
    Back g = {block, block + n, block + 2 * n, block + 3 * n, block + 4 * n, block + 5 * n};
    Record *records = records_new(&ref, arena);
    for (int d = 0; d < r->directions; d++)
        for (int64_t b = 0; b < r->batch; b++) {
            sample_forward(&ref, d, b, records);
            sample_back(context, &ref, d, b, records, &g);
        }
    const double *from[] = {ref.dx, ref.dw, ref.drec, ref.db, ref.dh0, ref.dc0, ref.dp};
    return gradients_store(context, from, err);
}
