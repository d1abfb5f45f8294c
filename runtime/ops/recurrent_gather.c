/* RNN, GRU and LSTM, backward: what a block of steps adds to the gradients of X, W, R, the biases and the peepholes,
 * from the gradients of its gate sums. Products over all rows of the block and sums over them, cut into parts of their
 * results. The parts of a direction stand together, so that they mostly meet the thread that has its gradients near. */
#include "runtime/ops/ops.h"
#include "runtime/ops/recurrent_kernel.h"
#include "runtime/ops/vector.h"

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
    const Backward *w;
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
    w.factor_stride = first->before_stride;
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
    const float *weights; /* [D, GH, I] */
    float *dx;            /* [rows, I] */
    bool add;
    int64_t parts; /* a direction has */
} InputGradient;

/* dX += (gradients of the gate sums) W */
static void input_parts(int64_t begin, int64_t end, void *context)
{
    const InputGradient *work = context;
    for (int64_t i = begin; i < end; i++) {
        const Backward *w = &work->w[i / work->parts];
        const Recurrence *r = w->u.r;
        int64_t at = i % work->parts * INPUT_BLOCK, rows = w->steps * r->batch, all = r->gates * r->hidden;
        Gemm g = {.trans_a = 'N',
                  .trans_b = 'N',
                  .m = rows - at < INPUT_BLOCK ? rows - at : INPUT_BLOCK,
                  .n = r->inputs,
                  .k = all,
                  .a = w->dgates + at * w->gradient_stride,
                  .lda = w->gradient_stride,
                  .b = work->weights + w->u.d * all * r->inputs,
                  .ldb = r->inputs,
                  .beta = work->add ? 1.0F : 0.0F,
                  .c = work->dx + (recurrent_row(r, w->first, 0) + at) * r->inputs,
                  .ldc = r->inputs};
        gemm_run(&g, w->u.failed);
    }
}

/* With two directions dx starts as zeros; where their blocks overlap one waits for the other. */
static void input_gradient(const Directions *all, const float *weights, float *dx)
{
    const Recurrence *r = all->w->u.r;
    int64_t rows = all->w->steps * r->batch, apart = all->w[1].first - all->w[0].first;
    bool overlap = all->count > 1 && apart < all->w->steps && -apart < all->w->steps;
    InputGradient work = {all->w, weights, dx, all->count > 1, (rows + INPUT_BLOCK - 1) / INPUT_BLOCK};
    double multiplies = (double)rows * (double)(r->gates * r->hidden * r->inputs);
    if (!overlap) {
        recurrent_tasks(all->count * work.parts, all->count * multiplies, input_parts, &work);
        return;
    }
    recurrent_tasks(work.parts, multiplies, input_parts, &work);
    work.w++;
    recurrent_tasks(work.parts, multiplies, input_parts, &work);
}

typedef struct ColumnSums {
    const float *x;
    int64_t rows, stride, width;
    float *to, *also;  /* also: NULL, or where the same sums go */
    int64_t x_d, to_d; /* floats from direction to direction */
    bool add;
    int64_t parts; /* a direction has */
} ColumnSums;

enum { SUM_WIDTH = 64 };

VECTOR_CLONES static void column_sums(const ColumnSums *s, int64_t d, int64_t first, int64_t width)
{
    double sums[SUM_WIDTH] = {0};
    const float *x = s->x + d * s->x_d + first;
    float *to = s->to + d * s->to_d + first, *also = s->also == NULL ? NULL : s->also + d * s->to_d + first;
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t j = 0; j < width; j++)
            sums[j] += (double)x[i * s->stride + j];
    for (int64_t j = 0; j < width; j++) {
        to[j] = (float)(s->add ? (double)to[j] + sums[j] : sums[j]);
        if (also != NULL)
            also[j] = to[j];
    }
}

static void column_parts(int64_t begin, int64_t end, void *context)
{
    const ColumnSums *s = context;
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i % s->parts * SUM_WIDTH;
        column_sums(s, i / s->parts, first, s->width - first < SUM_WIDTH ? s->width - first : SUM_WIDTH);
    }
}

/* Of `gates` gates' columns from column `from` * H on, into the biases of the first direction. */
static void bias_sums(const Directions *all, int64_t from, int64_t gates, float *to, float *also)
{
    const Backward *w = all->w;
    int64_t n = w->u.r->hidden, rows = w->steps * w->u.r->batch;
    ColumnSums s = {.x = w->dgates + from * n,
                    .rows = rows,
                    .stride = w->gradient_stride,
                    .width = gates * n,
                    .to = to,
                    .also = also,
                    .x_d = all->w[1].dgates - w->dgates,
                    .to_d = 2 * w->u.r->gates * n,
                    .add = all->add,
                    .parts = (gates * n + SUM_WIDTH - 1) / SUM_WIDTH};
    parallel_for(all->count * s.parts, 1 + 65536 / (rows * SUM_WIDTH + 1), column_parts, &s);
}

/* Wb and Rb always come together, but for GRU's n with linear_before_reset. */
static void bias_gradient(const Directions *all, float *db)
{
    const Recurrence *r = all->w->u.r;
    int64_t n = r->hidden;
    float *states = db + r->gates * n;
    bool apart = r->kind == CELL_GRU && r->linear_before_reset;
    bias_sums(all, 0, apart ? 2 : r->gates, db, states);
    if (!apart)
        return;
    bias_sums(all, 2, 1, db + 2 * n, NULL);
    bias_sums(all, 3, 1, states + 2 * n, NULL);
}

/* dP_i = sum da_i c_prev, dP_o = sum da_o C, dP_f = sum da_f c_prev */
static void peephole_gradient(Backward w, float *dp)
{
    Unit *u = &w.u;
    const Recurrence *r = u->r;
    int64_t n = r->hidden;
    for (u->t = w.first; u->t < w.first + w.steps; u->t++)
        for (int64_t b = 0; b < r->batch; b++) {
            const float *da = w.dgates + backward_row(&w, u->t, b) * w.gradient_stride;
            const float *c = w.saved + recurrent_row(r, u->t, b) * w.stride + 4 * n;
            const float *c_prev = cell_before(&w, step_before(u, b), b);
            for (int64_t j = 0; unit_is_active(u, b) && j < n; j++) {
                dp[j] += da[j] * c_prev[j];
                dp[n + j] += da[n + j] * c[j];
                dp[2 * n + j] += da[2 * n + j] * c_prev[j];
            }
        }
}

static float *output_data(const Step *step, int index)
{
    Slot *slot = recurrent_output(step, index);
    return slot == NULL ? NULL : slot->data;
}

void recurrent_gather(const Step *step, const Backward *w, int directions, bool add)
{
    float *dx = output_data(step, GRAD_DX), *dw = output_data(step, GRAD_DW), *dr = output_data(step, GRAD_DR);
    float *db = output_data(step, GRAD_DB), *dp = output_data(step, GRAD_DP);
    Directions all = {w, directions, add};
    if (dx != NULL)
        input_gradient(&all, recurrent_input(step, GRAD_INPUTS + IN_W), dx);
    if (dw != NULL)
        input_weights_gradient(&all, recurrent_input(step, GRAD_INPUTS + IN_X), dw);
    if (dr != NULL)
        recurrent_weights_gradient(&all, dr);
    if (db != NULL)
        bias_gradient(&all, db);
    for (int d = 0; dp != NULL && d < directions; d++)
        peephole_gradient(w[d], dp + d * 3 * w->u.r->hidden);
}
