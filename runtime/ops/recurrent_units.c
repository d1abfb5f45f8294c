/* RNN, GRU and LSTM cut into units. The recurrences of different directions and of different samples know nothing of
 * each other, so a unit is a chunk of samples of one direction, and a thread takes its units through all steps without
 * waiting for anyone. Where there is but one unit and its steps are large, all threads share the columns of each
 * product instead ("team").
 *
 * Results have the same bits at any number of threads: every product of the library runs on one thread and is cut by
 * the shapes alone; own products by panels give a row the same bits whatever stands beside it, so they may be cut by
 * the threads there are. */
#include <string.h>

#include "runtime/ops/ops.h"
#include "runtime/ops/recurrent_kernel.h"
#include "runtime/runtime.h"

enum {
    CHUNK_SAMPLES = 8,         /* rows from which on products are good */
    CHUNK_WEIGHTS = 1 << 20,   /* bytes of R that stay near a core; beyond, more rows share a pass over it */
    BLOCK_ROWS = 64,           /* rows of X that meet W at once */
    BACK_ROWS = 512,           /* rows on the way back that are gathered while they are near */
    SHARED_SAMPLES = 4,        /* up to so many rows the library takes R as it is */
    SHARED_ROWS = 256,         /* rows that pay for packing or transposing */
    POOL_WORK = 1 << 20,       /* multiply-adds that pay for waking the pool */
    TEAM_BLOCK_WORK = 1 << 18, /* and of a block of columns */
    TEAM_BLOCKS = 16,
    TEAM_WIDTH = 128, /* columns of a block at least */
    PACK_GRAIN = 512  /* rows of panels a thread packs at least */
};

/* ---- products --------------------------------------------------------------------------------------------------- */

static int64_t at_least(int64_t leading, int64_t width)
{
    return leading > width ? leading : width > 0 ? width : 1;
}

void gemm_run(const Gemm *g, atomic_int *failed)
{
    if (g->m == 0 || g->n == 0)
        return;
    dnnl_status_t status = dnnl_sgemm(
        g->trans_a, g->trans_b, g->m, g->n, g->k, 1.0F, g->a, at_least(g->lda, g->trans_a == 'T' ? g->m : g->k), g->b,
        at_least(g->ldb, g->trans_b == 'T' ? g->k : g->n), g->beta, g->c, at_least(g->ldc, g->n));
    if (status != dnnl_success)
        atomic_store(failed, (int)status);
}

typedef struct ColumnWork {
    const Gemm *g;
    int64_t width;
    atomic_int *failed;
} ColumnWork;

static void gemm_columns(int64_t begin, int64_t end, void *context)
{
    const ColumnWork *work = context;
    for (int64_t i = begin; i < end; i++) {
        Gemm part = *work->g;
        int64_t first = i * work->width;
        part.n = part.n - first < work->width ? part.n - first : work->width;
        part.b += part.trans_b == 'T' ? first * part.ldb : first;
        part.c += first;
        gemm_run(&part, work->failed);
    }
}

void unit_gemm(const Unit *u, const Gemm *g)
{
    if (!u->state->team) {
        gemm_run(g, u->failed);
        return;
    }
    int64_t work = g->m * g->n * g->k, blocks = 1;
    while (blocks < TEAM_BLOCKS && work >= 2 * blocks * TEAM_BLOCK_WORK && g->n >= 2 * blocks * TEAM_WIDTH)
        blocks *= 2; /* even shares for most pools */
    int64_t width = ((g->n + blocks - 1) / blocks + 15) / 16 * 16;
    ColumnWork columns = {g, width, u->failed};
    recurrent_tasks((g->n + columns.width - 1) / columns.width, (double)work, gemm_columns, &columns);
}

void recurrent_tasks(int64_t n, double work, void (*body)(int64_t begin, int64_t end, void *context), void *context)
{
    if (n > 1 && work >= (double)POOL_WORK) {
        parallel_for(n, 1, body, context);
        return;
    }
    int threads = parallel_threads();
    runtime_set_threads(1);
    body(0, n, context);
    runtime_set_threads(threads);
}

/* ---- what a step knows ------------------------------------------------------------------------------------------ */

bool recurrent_is_usual(const Recurrence *r)
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

int recurrent_saved_index(CellKind kind)
{
    return kind == CELL_LSTM ? 3 : 2;
}

int64_t recurrent_padded(int64_t width)
{
    int64_t padded = (width + 15) / 16 * 16;
    return padded % 64 == 0 ? padded + 16 : padded;
}

int64_t recurrent_take(int64_t *total, int64_t count)
{
    int64_t at = *total;
    *total += (count + 15) / 16 * 16;
    return at;
}

static int64_t chunk_count(const Recurrence *r)
{
    int64_t samples = CHUNK_SAMPLES, bytes = r->gates * r->hidden * r->hidden * (int64_t)sizeof(float);
    for (; samples < 4 * CHUNK_SAMPLES && bytes > CHUNK_WEIGHTS; bytes /= 4)
        samples *= 2;
    return (r->batch + samples - 1) / samples;
}

/* Products by panels give a row the same bits whatever rows stand beside it, so there a thread gets as many as it can.
 */
static int64_t panel_chunks(const Recurrence *r)
{
    int64_t most = (r->batch + CHUNK_SAMPLES - 1) / CHUNK_SAMPLES;
    int64_t wanted = (parallel_threads() + r->directions - 1) / r->directions;
    return wanted < most ? wanted : most;
}

static void cut(RecurrentState *state)
{
    const Recurrence *r = &state->r;
    int64_t all = r->gates * r->hidden;
    state->chunks = chunk_count(r);
    state->chunk_samples = (r->batch + state->chunks - 1) / state->chunks;
    bool shared = state->chunk_samples > SHARED_SAMPLES && r->steps * state->chunk_samples >= SHARED_ROWS;
    state->team = recurrent_unit_count(state) == 1 && r->batch * all * r->hidden >= POOL_WORK;
    state->panels = shared && !state->team && panels_usable();
    state->turned = shared && !state->panels;
    if (state->panels) {
        state->chunks = panel_chunks(r);
        state->chunk_samples = (r->batch + state->chunks - 1) / state->chunks;
    }
    int64_t block = state->panels ? 1 : (BLOCK_ROWS + state->chunk_samples - 1) / state->chunk_samples;
    int64_t back = (BACK_ROWS + r->batch - 1) / r->batch;
    state->block_steps = block < r->steps ? block : r->steps;
    state->back_steps = back < r->steps && !r->batch_first ? back : r->steps;
}

Status recurrent_state_make(PlanContext *context, CellKind kind, int first, RecurrentState **out, Error *err)
{
    const Node *node = context->node;
    RecurrentState *state = kernel_state(context, sizeof *state);
    TRY(recurrence_init(node, kind, &node->inputs[first + IN_X]->type, &node->inputs[first + IN_W]->type,
                        &node->inputs[first + IN_R]->type, &state->r, err));
    int64_t n = state->r.hidden;
    state->stride = n * (kind == CELL_RNN ? 1 : state->r.saved);
    state->gradient_stride = recurrent_padded(n * (kind == CELL_GRU ? 4 : state->r.gates));
    state->before_stride = recurrent_padded(n);
    state->turned_stride = recurrent_padded(n * state->r.gates);
    state->relu = kind == CELL_RNN && state->r.activations[0][0].kind == ACT_RELU;
    if (recurrent_is_usual(&state->r))
        cut(state);
    *out = state;
    return STATUS_OK;
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

const void *recurrent_input(const Step *step, int index)
{
    return index < step->in_count && step->in[index] != NULL ? step->in[index]->data : NULL;
}

Slot *recurrent_output(const Step *step, int index)
{
    return index < step->out_count ? step->out[index] : NULL;
}

void recurrent_state_load(const Recurrence *r, int d, const float *state, float *to)
{
    for (int64_t b = 0; b < r->batch; b++)
        if (state == NULL)
            memset(to + b * r->hidden, 0, (size_t)r->hidden * sizeof *to);
        else
            memcpy(to + b * r->hidden, state + d * r->state_d + b * r->state_b, (size_t)r->hidden * sizeof *to);
}

void recurrent_state_store(const Recurrence *r, int d, const float *from, Slot *slot)
{
    float *state = slot == NULL ? NULL : slot->data;
    for (int64_t b = 0; state != NULL && b < r->batch; b++)
        memcpy(state + d * r->state_d + b * r->state_b, from + b * r->hidden, (size_t)r->hidden * sizeof *from);
}

/* ---- units ------------------------------------------------------------------------------------------------------ */

int64_t recurrent_unit_count(const RecurrentState *state)
{
    return state->r.directions * state->chunks;
}

Unit recurrent_unit(const Step *step, int first, int64_t index, atomic_int *failed)
{
    const RecurrentState *state = step->state;
    const Recurrence *r = &state->r;
    int d = (int)(index / state->chunks);
    int64_t chunk = index % state->chunks, states = d * r->batch * r->hidden;
    float *scratch = step->scratch;
    const float *p = recurrent_input(step, first + IN_P), *zeros = scratch + state->at.zeros;
    return (Unit){.state = state,
                  .r = r,
                  .failed = failed,
                  .d = d,
                  .begin = r->batch * chunk / state->chunks,
                  .end = r->batch * (chunk + 1) / state->chunks,
                  .lengths = recurrent_input(step, first + IN_LENGTHS),
                  .h = scratch + state->at.h + states,
                  .c = scratch + state->at.c + states,
                  .extra = scratch + state->at.extra + 3 * states,
                  .p = p == NULL ? zeros : p + d * 3 * r->hidden,
                  .zeros = zeros};
}

bool unit_is_active(const Unit *u, int64_t b)
{
    return u->lengths == NULL || u->t < u->lengths[b];
}

int64_t recurrent_row(const Recurrence *r, int64_t t, int64_t b)
{
    return t * r->row_t + b * r->row_b;
}

int64_t recurrent_y_at(const Recurrence *r, int d, int64_t t, int64_t b)
{
    return t * r->y_t + d * r->y_d + b * r->y_b;
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

typedef struct PackWork {
    const Panels *panels;
    const float *from;
    int64_t k_stride, n_stride;
    float *to;
} PackWork;

static void pack_panels(int64_t begin, int64_t end, void *context)
{
    const PackWork *w = context;
    panels_pack(w->panels, begin, end, w->from, w->k_stride, w->n_stride, w->to);
}

float *recurrent_pack(const Panels *panels, const float *from, int64_t k_stride, int64_t n_stride, float *to)
{
    PackWork work = {panels, from, k_stride, n_stride, to};
    parallel_for(panels_count(panels->n), 1 + PACK_GRAIN / (panels->k + 1), pack_panels, &work);
    return to + panels_size(panels->k, panels->n);
}

const char *recurrent_kernel_name(const RecurrentState *state)
{
    return state->team ? "own:steps" : state->panels ? "own:panels" : "own:units";
}
