/* Row normalisation planned: own loops over plain rows, each row read while it is in the cache; bf16 rows through f32
 * buffers. Gradients of scale and
 * bias are summed in a fixed number of parts, so that they do not depend on the number of threads. */
#include <math.h>
#include <string.h>

#include "runtime/ops/bf16.h"
#include "runtime/ops/norm.h"

enum { PARTS = 16 }; /* PARTS of the rows, for sums over rows */

typedef struct RowState {
    RowShape shape;
    float epsilon;
    bool rms;
    int64_t parts;
    bool narrow_x, narrow_dy, narrow_y; /* bf16; narrow_y: of the result, y or dx */
} RowState;

/* What the loops over rows see. */
typedef struct Job {
    const RowState *state;
    const void *x, *dy;
    const float *scale, *bias;
    void *y;               /* y or dx */
    float *mean, *inverse; /* forward; statistics may be NULL */
    float *partial;        /* gradient: [parts, 2, length], dscale then dbias; NULL: not wanted */
} Job;

/* Where a row of the result is computed, and its way from there. */
VECTOR_INLINE float *result_row(const Job *job, int64_t at, float *buffer)
{
    return job->state->narrow_y ? buffer : (float *)job->y + at;
}

static void result_done(const Job *job, int64_t at, const float *row)
{
    if (job->state->narrow_y)
        bf16_narrow(row, (uint16_t *)job->y + at, job->state->shape.length);
}

typedef struct Statistics {
    float mean, inverse;
} Statistics;

/* Sums run in four independent vectors, enough to hide the latency of an addition. */
typedef float Vector __attribute__((vector_size(16 * sizeof(float)), aligned(4), may_alias));
enum { LANES = 16, AT_ONCE = 4 * LANES };

VECTOR_INLINE float add_lanes(const Vector parts[4])
{
    const Vector all = (parts[0] + parts[1]) + (parts[2] + parts[3]);
    float sum = 0;
    for (int k = 0; k < LANES; k++)
        sum += all[k];
    return sum;
}

VECTOR_INLINE float sum_of(const float *x, int64_t n)
{
    Vector parts[4] = {{0}};
    float rest = 0;
    int64_t whole = n - n % AT_ONCE;
    for (int64_t i = 0; i < whole; i += AT_ONCE)
        for (int k = 0; k < 4; k++)
            parts[k] += *(const Vector *)(x + i + k * LANES);
    for (int64_t i = whole; i < n; i++)
        rest += x[i];
    return add_lanes(parts) + rest;
}

VECTOR_INLINE float square_of(const float *x, int64_t n, float mean)
{
    Vector parts[4] = {{0}};
    float rest = 0;
    int64_t whole = n - n % AT_ONCE;
    for (int64_t i = 0; i < whole; i += AT_ONCE) {
        for (int k = 0; k < 4; k++) {
            const Vector centred = *(const Vector *)(x + i + k * LANES) - mean;
            parts[k] += centred * centred;
        }
    }
    for (int64_t i = whole; i < n; i++)
        rest += (x[i] - mean) * (x[i] - mean);
    return add_lanes(parts) + rest;
}

/* sum of g and sum of g * (x - mean), with g = dy * scale; scale may be NULL. */
VECTOR_INLINE void gradient_sums(const float *dy, const float *scale, const float *x, int64_t n, float mean, float *sum,
                                 float *product)
{
    Vector one[4] = {{0}}, two[4] = {{0}};
    float rest = 0, more = 0;
    int64_t whole = n - n % AT_ONCE;
    for (int64_t i = 0; i < whole; i += AT_ONCE) {
        for (int k = 0; k < 4; k++) {
            Vector g = *(const Vector *)(dy + i + k * LANES);
            if (scale != NULL)
                g *= *(const Vector *)(scale + i + k * LANES);
            one[k] += g;
            two[k] += g * (*(const Vector *)(x + i + k * LANES) - mean);
        }
    }
    for (int64_t i = whole; i < n; i++) {
        float g = scale != NULL ? dy[i] * scale[i] : dy[i];
        rest += g;
        more += g * (x[i] - mean);
    }
    *sum = add_lanes(one) + rest;
    *product = add_lanes(two) + more;
}

VECTOR_INLINE Statistics statistics_of(const float *x, const RowState *state)
{
    float count = (float)state->shape.length;
    Statistics s = {0, 0};
    if (!state->rms)
        s.mean = sum_of(x, state->shape.length) / count;
    s.inverse = 1.0f / sqrtf(square_of(x, state->shape.length, s.mean) / count + state->epsilon);
    return s;
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

VECTOR_CLONES
static void forward_rows(int64_t first, int64_t last, void *context)
{
    const Job *job = context;
    int64_t length = job->state->shape.length;
    const float *scale = job->scale, *bias = job->bias;
    float x_row[BF16_ROW], y_row[BF16_ROW];
    for (int64_t r = first; r < last; r++) {
        const float *x = bf16_read(job->x, job->state->narrow_x, r * length, length, x_row);
        float *y = result_row(job, r * length, y_row);
        Statistics s = statistics_of(x, job->state);
        if (job->mean != NULL)
            job->mean[r] = s.mean;
        if (job->inverse != NULL)
            job->inverse[r] = s.inverse;
        if (bias != NULL) {
#pragma omp simd
            for (int64_t i = 0; i < length; i++)
                y[i] = (x[i] - s.mean) * s.inverse * scale[i] + bias[i];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < length; i++)
                y[i] = (x[i] - s.mean) * s.inverse * scale[i];
        }
        result_done(job, r * length, y);
    }
}

static const void *data_of(Slot *const *slots, int count, int index)
{
    return index < count && slots[index] != NULL ? slots[index]->data : NULL;
}

static Status run_forward(Step *step, Error *err)
{
    (void)err;
    const RowState *state = step->state;
    Job job = {.state = state,
               .x = step->in[0]->data,
               .scale = step->in[1]->data,
               .bias = data_of(step->in, step->in_count, 2),
               .y = step->out[0]->data};
    if (step->out_count > 1 && step->out[1] != NULL)
        job.mean = step->out[1]->data;
    if (step->out_count > 2 && step->out[2] != NULL)
        job.inverse = step->out[2]->data;
    parallel_for(state->shape.rows, 1 + 4096 / (state->shape.length + 1), forward_rows, &job);
    return STATUS_OK;
}

static RowState *state_make(PlanContext *context, const RowShape *shape)
{
    RowState *state = kernel_state(context, sizeof *state);
    state->shape = *shape;
    state->epsilon = node_float(context->node, "epsilon", 1e-5f);
    state->rms = strcmp(context->node->op_type, "RMSNormalization") == 0 || node_int(context->node, "rms", 0) != 0;
    state->parts = shape->rows < PARTS ? shape->rows : PARTS;
    state->narrow_y = context->step->out[0]->dtype == DTYPE_BF16;
    return state;
}

static bool fits(const Node *node, const RowShape *shape, int x_index, int first, int last)
{
    const Type *x = &node->inputs[x_index]->type;
    if (x->dtype != DTYPE_F32 || shape->length == 0 || shape->rows == 0)
        return false;
    for (int i = first; i <= last; i++) {
        const Value *value = node_input(node, i);
        if (value != NULL && !covers_row(shape, x->rank, x->dims, value->type.rank, value->type.dims))
            return false;
    }
    return true;
}

/* Output 0 in `dtype`, over input 0 where that lies in the same. In f32 so does input 0; else it is taken as it lies.
 */
static void place_result(PlanContext *context, int input, DType dtype)
{
    if (dtype == DTYPE_F32 || kernel_input_dtype(context, input) == dtype) {
        kernel_output_in_place_as(context, 0, input, LAYOUT_PLAIN, dtype);
        return;
    }
    kernel_input_as(context, input, LAYOUT_PLAIN, DTYPE_UNDEFINED);
    kernel_output_as(context, 0, LAYOUT_PLAIN, dtype);
}

Status layer_norm_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    RowShape shape;
    TRY(row_shape(node, x->rank, x->dims, &shape, err));
    if (context->plain_only || !fits(node, &shape, 0, 1, 2))
        return kernel_eval(context, err);
    for (int i = 1; i < node->input_count; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    DType dtype = shape.length <= BF16_ROW ? kernel_output_dtype(context, 0) : DTYPE_F32;
    place_result(context, 0, dtype);
    for (int i = 1; i < node->output_count; i++)
        kernel_output(context, i, LAYOUT_PLAIN);
    state_make(context, &shape)->narrow_x = context->step->in[0]->dtype == DTYPE_BF16;
    kernel_run(context, run_forward, "own");
    return STATUS_OK;
}

/* ---- gradient ---------------------------------------------------------------------------------------------------- */

VECTOR_INLINE void gradient_row(const Job *job, const float *x, const float *dy, float *dx, Statistics s)
{
    int64_t length = job->state->shape.length;
    const float *scale = job->scale;
    float sum = 0, product = 0;
    if (scale != NULL) /* the loop is made once for each */
        gradient_sums(dy, scale, x, length, s.mean, &sum, &product);
    else
        gradient_sums(dy, NULL, x, length, s.mean, &sum, &product);
    /* dx = inverse*g + b*(x - mean) + c, the formula of layernorm.c with x_hat written out */
    float count = (float)length, b = -product * s.inverse * s.inverse * s.inverse / count;
    float c = job->state->rms ? 0.0f : -s.inverse * sum / count;
    if (scale != NULL) {
#pragma omp simd
        for (int64_t i = 0; i < length; i++)
            dx[i] = s.inverse * dy[i] * scale[i] + b * (x[i] - s.mean) + c;
    } else {
#pragma omp simd
        for (int64_t i = 0; i < length; i++)
            dx[i] = s.inverse * dy[i] + b * (x[i] - s.mean) + c;
    }
}

VECTOR_CLONES
static void gradient_parts(int64_t first, int64_t last, void *context)
{
    const Job *job = context;
    int64_t length = job->state->shape.length, rows = job->state->shape.rows, parts = job->state->parts;
    for (int64_t part = first; part < last; part++) {
        float x_row[BF16_ROW], dy_row[BF16_ROW], dx_row[BF16_ROW];
        float *dscale = job->partial == NULL ? NULL : job->partial + part * 2 * length;
        float *dbias = dscale == NULL ? NULL : dscale + length;
        if (dscale != NULL)
            memset(dscale, 0, (size_t)(2 * length) * sizeof(float));
        for (int64_t r = rows * part / parts; r < rows * (part + 1) / parts; r++) {
            const float *x = bf16_read(job->x, job->state->narrow_x, r * length, length, x_row);
            const float *dy = bf16_read(job->dy, job->state->narrow_dy, r * length, length, dy_row);
            float *dx = result_row(job, r * length, dx_row);
            Statistics s = statistics_of(x, job->state);
            if (dscale != NULL) { /* before dx, which may lie where dy does */
#pragma omp simd
                for (int64_t i = 0; i < length; i++) {
                    dscale[i] += dy[i] * ((x[i] - s.mean) * s.inverse);
                    dbias[i] += dy[i];
                }
            }
            gradient_row(job, x, dy, dx, s);
            result_done(job, r * length, dx);
        }
    }
}

static Status run_gradient(Step *step, Error *err)
{
    (void)err;
    const RowState *state = step->state;
    int64_t length = state->shape.length;
    Job job = {.state = state,
               .dy = step->in[0]->data,
               .x = step->in[1]->data,
               .scale = data_of(step->in, step->in_count, 2),
               .y = step->out[0]->data,
               .partial = step->out_count > 1 ? step->scratch : NULL};
    parallel_for(state->parts, 1, gradient_parts, &job);
    for (int k = 0; k < 2; k++) { /* dscale, dbias: the parts added in order */
        float *sum = k + 1 < step->out_count && step->out[k + 1] != NULL ? step->out[k + 1]->data : NULL;
        if (sum == NULL)
            continue;
        memcpy(sum, job.partial + k * length, (size_t)length * sizeof(float));
        for (int64_t part = 1; part < state->parts; part++)
            for (int64_t i = 0; i < length; i++)
                sum[i] += job.partial[(2 * part + k) * length + i];
    }
    return STATUS_OK;
}

Status layer_norm_grad_prepare(PlanContext *context, Error *err)
{
    const Node *node = context->node;
    const Type *x = &node->inputs[1]->type;
    RowShape shape;
    TRY(row_shape(node, x->rank, x->dims, &shape, err));
    if (context->plain_only || !fits(node, &shape, 1, 2, 2))
        return kernel_eval(context, err);
    bool narrow = context->compute == DTYPE_BF16 && shape.length <= BF16_ROW;
    kernel_input_as(context, 1, LAYOUT_PLAIN, narrow ? DTYPE_UNDEFINED : DTYPE_F32);
    for (int i = 2; i < node->input_count; i++)
        kernel_input(context, i, LAYOUT_PLAIN);
    place_result(context, 0, narrow ? kernel_output_dtype(context, 0) : DTYPE_F32);
    for (int i = 1; i < node->output_count; i++)
        kernel_output(context, i, LAYOUT_PLAIN);
    RowState *state = state_make(context, &shape);
    state->narrow_dy = context->step->in[0]->dtype == DTYPE_BF16;
    state->narrow_x = context->step->in[1]->dtype == DTYPE_BF16;
    if (node->output_count > 1)
        kernel_scratch(context, (size_t)(state->parts * 2 * shape.length) * sizeof(float));
    kernel_run(context, run_gradient, "own");
    return STATUS_OK;
}
