/* The planned kernel of matrix products. Batch dims are merged as far as the strides allow (a weight shared by all
 * batches meets all rows at once); then what is small or has few terms runs in own loops, what oneDNN has a compiled
 * matmul for runs there with transposes as strides, and the rest is one dnnl_sgemm a batch. Addends that are no plain
 * bias are added in a pass of our own. In a bf16 plan the compiled matmul reads bf16, sums in f32, and gives bf16, or
 * f32 where the result is a parameter's gradient or leaves the graph; the other two are for f32. */
#include "runtime/ops/bf16.h"
#include "runtime/ops/ops.h"
#include "runtime/ops/product.h"
#include "runtime/ops/vector.h"

enum {
    DIRECT_WORK = 16384,   /* multiply-adds below which a library call costs more than the loop */
    ADDEND_GRAIN = 8192,   /* elements a thread adds at least */
    THIN_TERMS = 8,        /* at most so many terms in a sum, and rows and columns of */
    THIN_WIDTH = 64,       /* at least this length: a product that is little more than writing its result */
    WIDE_ROWS = 32,        /* at least so many rows meet a B of */
    WIDE_COLUMNS = 768,    /* so many columns and */
    WIDE_NUMBERS = 1 << 19 /* so many numbers: sgemm_is_faster */
};

/* Rows [outer, inner] of A at these distances, which the product wants one behind the other. outer 0: as they lie. */
typedef struct Gather {
    int64_t outer, inner, outer_stride, inner_stride;
} Gather;

typedef struct ProductState {
    Product p;
    float alpha, beta;
    DnnlEngine *dnnl;
    bool swapped;   /* A of the state's product is the node's B, transposed, and the other way round */
    bool sum_after; /* y += beta c in a pass of its own */
    Gather gather;  /* of A's rows before the product */
    DnnlCall *call; /* NULL: sgemm or direct */
} ProductState;

/* ---- merging ---------------------------------------------------------------------------------------------- */

static void drop_batch(Product *p, int d)
{
    p->batch_rank--;
    for (int i = d; i < p->batch_rank; i++) {
        p->batch[i] = p->batch[i + 1];
        p->a_batch[i] = p->a_batch[i + 1];
        p->b_batch[i] = p->b_batch[i + 1];
        p->y_batch[i] = p->y_batch[i + 1];
    }
}

/* Rows of different batches that meet the same B are rows of one matrix when they lie at one distance: the batch
 * around the rows, or within them. */
static bool batch_joins_rows(Product *p, int d)
{
    int64_t n = p->batch[d];
    bool around = p->a_batch[d] == p->a_m * p->m && p->y_batch[d] == p->y_m * p->m;
    bool within = p->a_m == p->a_batch[d] * n && p->y_m == p->y_batch[d] * n;
    if (p->b_batch[d] != 0 || p->c_m != 0 || (p->m != 1 && !around && !within))
        return false;
    if (p->m == 1 || within) {
        p->a_m = p->a_batch[d];
        p->y_m = p->y_batch[d];
    }
    p->m *= n;
    return true;
}

/* Every batch dim that B is repeated for may be the rows; the longest packs B least often. */
static void longest_rows(Product *p)
{
    for (int d = 0; d < p->batch_rank; d++) {
        int64_t m = p->m, a_m = p->a_m, y_m = p->y_m;
        if (p->b_batch[d] != 0 || p->c_m != 0 || p->batch[d] <= m)
            continue;
        p->m = p->batch[d], p->a_m = p->a_batch[d], p->y_m = p->y_batch[d];
        p->batch[d] = m, p->a_batch[d] = a_m, p->y_batch[d] = y_m;
    }
}

static bool batches_join(const Product *p, int d)
{
    int64_t n = p->batch[d + 1];
    return p->a_batch[d] == p->a_batch[d + 1] * n && p->b_batch[d] == p->b_batch[d + 1] * n &&
           p->y_batch[d] == p->y_batch[d + 1] * n;
}

/* Y^T = B^T A^T: the same numbers with rows and columns exchanged. */
static Product product_swapped(const Product *p)
{
    Product q = *p;
    q.m = p->n, q.n = p->m;
    q.a_m = p->b_n, q.a_k = p->b_k;
    q.b_k = p->a_k, q.b_n = p->a_m;
    q.y_m = p->y_n, q.y_n = p->y_m;
    q.c_m = p->c_n, q.c_n = p->c_m;
    memcpy(q.a_batch, p->b_batch, sizeof q.a_batch);
    memcpy(q.b_batch, p->a_batch, sizeof q.b_batch);
    return q;
}

static void product_merge(Product *p)
{
    for (int d = p->batch_rank - 1; d >= 0; d--)
        if (p->batch[d] == 1)
            drop_batch(p, d);
    for (int d = p->batch_rank - 1; d >= 0; d--)
        if (batch_joins_rows(p, d))
            drop_batch(p, d);
    longest_rows(p);
    for (int d = p->batch_rank - 2; d >= 0; d--)
        if (batches_join(p, d)) {
            p->batch[d + 1] *= p->batch[d];
            drop_batch(p, d);
        }
}

/* ---- own loops ---------------------------------------------------------------------------------------------- */

typedef struct Offsets {
    int64_t a, b, y;
} Offsets;

static Offsets batch_offsets(const Product *p, int64_t i)
{
    Offsets at = {0, 0, 0};
    for (int d = p->batch_rank - 1; d >= 0; d--) {
        int64_t index = i % p->batch[d];
        i /= p->batch[d];
        at.a += index * p->a_batch[d];
        at.b += index * p->b_batch[d];
        at.y += index * p->y_batch[d];
    }
    return at;
}

enum { DIRECT_WIDTH = 16 };

/* One row of Y, DIRECT_WIDTH columns at a time. */
VECTOR_CLONES static void direct_row(const Product *p, const float *a, const float *b, float *y, float alpha)
{
    for (int64_t j = 0; j < p->n; j += DIRECT_WIDTH) {
        float sums[DIRECT_WIDTH] = {0};
        int64_t width = p->n - j < DIRECT_WIDTH ? p->n - j : DIRECT_WIDTH;
        const float *column = b + j * p->b_n;
        if (p->b_n == 1 && width == DIRECT_WIDTH) {
            for (int64_t l = 0; l < p->k; l++)
                for (int i = 0; i < DIRECT_WIDTH; i++)
                    sums[i] += a[l * p->a_k] * column[l * p->b_k + i];
        } else {
            for (int64_t i = 0; i < width; i++)
                for (int64_t l = 0; l < p->k; l++)
                    sums[i] += a[l * p->a_k] * column[l * p->b_k + i * p->b_n];
        }
        for (int64_t i = 0; i < width; i++)
            y[(j + i) * p->y_n] = alpha * sums[i];
    }
}

static void direct_product(const Product *p, const float *a, const float *b, float *y, float alpha)
{
    int64_t count = dims_count(p->batch_rank, p->batch);
    for (int64_t i = 0; i < count; i++) {
        Offsets at = batch_offsets(p, i);
        for (int64_t row = 0; row < p->m; row++)
            direct_row(p, a + at.a + row * p->a_m, b + at.b, y + at.y + row * p->y_m, alpha);
    }
}

typedef struct Addend {
    const Product *p;
    const float *c;
    void *y;
    float beta;
    bool narrow;
} Addend;

VECTOR_CLONES static void addend_row(const Product *p, const float *c, float *y, float beta)
{
    if (p->y_n == 1 && p->c_n == 1)
        for (int64_t j = 0; j < p->n; j++)
            y[j] += beta * c[j];
    else
        for (int64_t j = 0; j < p->n; j++)
            y[j * p->y_n] += beta * c[j * p->c_n];
}

VECTOR_CLONES static void addend_row_narrow(const Product *p, const float *c, uint16_t *y, float beta)
{
    for (int64_t j = 0; j < p->n; j++)
        y[j * p->y_n] = bf16_from_float(bf16_to_float(y[j * p->y_n]) + beta * c[j * p->c_n]);
}

static void addend_rows(int64_t begin, int64_t end, void *context)
{
    const Addend *work = context;
    const Product *p = work->p;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i % p->m, at = batch_offsets(p, i / p->m).y + row * p->y_m;
        if (work->narrow)
            addend_row_narrow(p, work->c + row * p->c_m, (uint16_t *)work->y + at, work->beta);
        else
            addend_row(p, work->c + row * p->c_m, (float *)work->y + at, work->beta);
    }
}

static void add_addend(const ProductState *state, const Slot *c, const Slot *y)
{
    const Product *p = &state->p;
    Addend work = {p, c->data, y->data, state->beta, y->dtype == DTYPE_BF16};
    int64_t rows = p->m * dims_count(p->batch_rank, p->batch);
    parallel_for(rows, 1 + ADDEND_GRAIN / (p->n + 1), addend_rows, &work);
}

static Status run_direct(Step *step, Error *err)
{
    (void)err;
    const ProductState *state = step->state;
    const float *a = step->in[state->swapped]->data, *b = step->in[!state->swapped]->data;
    direct_product(&state->p, a, b, step->out[0]->data, state->alpha);
    if (state->sum_after)
        add_addend(state, step->in[2], step->out[0]);
    return STATUS_OK;
}

/* ---- few terms --------------------------------------------------------------------------------------------------- */

typedef struct Thin {
    const Product *p;
    const float *a, *b;
    float *y;
    float alpha;
} Thin;

/* Rows of Y as sums of a few rows of B: writing Y is what takes time. */
VECTOR_CLONES static void thin_rows(int64_t begin, int64_t end, void *context)
{
    const Thin *work = context;
    const Product *p = work->p;
    for (int64_t row = begin; row < end; row++) {
        const float *a = work->a + row * p->a_m, *restrict b = work->b;
        float *restrict y = work->y + row * p->y_m;
        const float first = work->alpha * a[0];
        for (int64_t j = 0; j < p->n; j++)
            y[j] = first * b[j];
        for (int64_t l = 1; l < p->k; l++) {
            const float factor = work->alpha * a[l * p->a_k];
            b = work->b + l * p->b_k;
            for (int64_t j = 0; j < p->n; j++)
                y[j] += factor * b[j];
        }
    }
}

static Status run_thin(Step *step, Error *err)
{
    (void)err;
    const ProductState *state = step->state;
    const Product *p = &state->p;
    Thin work = {p, step->in[state->swapped]->data, step->in[!state->swapped]->data, step->out[0]->data, state->alpha};
    parallel_for(p->m, 1 + ADDEND_GRAIN / (p->n + 1), thin_rows, &work);
    if (state->sum_after)
        add_addend(state, step->in[2], step->out[0]);
    return STATUS_OK;
}

/* The gradient of a weight at small batches: the library's product packs operands and takes five times as long. */
static bool thin_fits(const Product *p)
{
    return p->batch_rank == 0 && p->k >= 1 && p->k <= THIN_TERMS && p->b_n == 1 && p->y_n == 1 && p->n >= THIN_WIDTH &&
           p->m >= THIN_WIDTH;
}

/* ---- dnnl_sgemm a batch ---------------------------------------------------------------------------------------- */

static bool sgemm_fits(const Product *p)
{
    return (p->a_k == 1 || p->a_m == 1) && (p->b_n == 1 || p->b_k == 1) && p->y_n == 1;
}

/* The compiled matmul reads a B that is not transposed where it lies, again for every block of rows; sgemm packs it
 * first. Of one that no cache near the core holds the first makes a third to all of the second's speed, as the number
 * of columns would have it: 105 of 258 GFLOP/s for [768, 3072] (docs/decisions.md). Transposed ones are packed by both.
 */
static bool sgemm_is_faster(const Product *p)
{
    return sgemm_fits(p) && p->batch_rank == 0 && p->b_n == 1 && p->m >= WIDE_ROWS && p->n >= WIDE_COLUMNS &&
           p->n * p->k >= WIDE_NUMBERS;
}

/* A B that all batches share meets their rows at once only where those lie at one distance, in A and in Y. Where they
 * do in Y, A's rows are copied together when a wide B is worth it (sequences first, then samples: the attention of
 * torch.nn.MultiheadAttention). */
static void gather_rows(ProductState *state)
{
    Product q = state->p;
    int64_t n = q.batch[0];
    bool around = q.batch_rank == 1 && q.y_batch[0] == q.y_m * q.m,
         within = q.batch_rank == 1 && q.y_m == q.y_batch[0] * n;
    if (q.batch_rank != 1 || q.b_batch[0] != 0 || q.a_k != 1 || q.c_m != 0 || (!around && !within))
        return;
    Gather gather = around ? (Gather){n, q.m, q.a_batch[0], q.a_m} : (Gather){q.m, n, q.a_m, q.a_batch[0]};
    q.y_m = around ? q.y_m : q.y_batch[0];
    q.a_m = q.k;
    q.m *= n;
    q.batch_rank = 0;
    if (!sgemm_is_faster(&q))
        return;
    state->gather = gather;
    state->p = q;
}

typedef struct Gathering {
    const Gather *gather;
    const float *from;
    float *to;
    int64_t width;
} Gathering;

static void copy_rows(int64_t begin, int64_t end, void *context)
{
    const Gathering *work = context;
    const Gather *g = work->gather;
    for (int64_t r = begin; r < end; r++)
        memcpy(work->to + r * work->width, work->from + r / g->inner * g->outer_stride + r % g->inner * g->inner_stride,
               (size_t)work->width * sizeof *work->to);
}

/* The distance of rows, at least what a row holds: a single row may claim any. */
static int64_t leading(int64_t stride, int64_t rows, int64_t width)
{
    return rows == 1 || stride < width ? (width > 0 ? width : 1) : stride;
}

static Status run_sgemm(Step *step, Error *err)
{
    const ProductState *state = step->state;
    const Product *p = &state->p;
    const float *a = step->in[state->swapped]->data, *b = step->in[!state->swapped]->data;
    float *y = step->out[0]->data;
    bool plain_a = p->a_k == 1, plain_b = p->b_n == 1;
    int64_t count = dims_count(p->batch_rank, p->batch);
    if (state->gather.outer > 0) {
        Gathering work = {&state->gather, a, step->scratch, p->k};
        parallel_for(p->m, 1 + ADDEND_GRAIN / (p->k + 1), copy_rows, &work);
        a = step->scratch;
    }
    for (int64_t i = 0; i < count; i++) {
        Offsets at = batch_offsets(p, i);
        DNNL_TRY(dnnl_sgemm(plain_a ? 'N' : 'T', plain_b ? 'N' : 'T', p->m, p->n, p->k, state->alpha, a + at.a,
                            plain_a ? leading(p->a_m, p->m, p->k) : leading(p->a_k, p->k, p->m), b + at.b,
                            plain_b ? leading(p->b_k, p->k, p->n) : leading(p->b_n, p->n, p->k), 0.0F, y + at.y,
                            leading(p->y_m, p->m, p->n)));
    }
    if (state->sum_after)
        add_addend(state, step->in[2], step->out[0]);
    return STATUS_OK;
}

/* ---- the matmul primitive --------------------------------------------------------------------------------------- */

static Status run_call(Step *step, Error *err)
{
    const ProductState *state = step->state;
    TRY(dnnl_call_run(state->dnnl, state->call, err));
    if (state->sum_after)
        add_addend(state, step->in[2], step->out[0]);
    return STATUS_OK;
}

/* [batch.., rows, columns] with these strides; repeated batch dims are 1. A single batch dim gets one more before it:
 * the library knows rows that lie between batches (acbd) in four dims only. */
static Status operand_md(dnnl_md *md, DType dtype, const Product *p, const int64_t *batch_strides, int64_t rows,
                         int64_t columns, int64_t row_stride, int64_t column_stride, Error *err)
{
    int64_t dims[RANK_MAX + 2], strides[RANK_MAX + 2], all = rows * columns;
    int rank = 0;
    for (int i = p->batch_rank == 1 ? -1 : 0; i < p->batch_rank; i++, rank++) {
        bool repeated = batch_strides == NULL || i < 0 || batch_strides[i] == 0;
        dims[rank] = repeated ? 1 : p->batch[i];
        strides[rank] = repeated ? all : batch_strides[i];
    }
    if (p->batch_rank == 1)
        strides[0] = all * dims[1];
    dims[rank] = rows;
    dims[rank + 1] = columns;
    strides[rank] = row_stride;
    strides[rank + 1] = column_stride;
    return dnnl_md_strided(md, dtype, rank + 2, dims, strides, err);
}

typedef struct MatmulParts {
    DType dtype, y_dtype; /* of A and B; of Y */
    dnnl_md a, b, c, y;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t descriptor;
} MatmulParts;

static void parts_release(MatmulParts *parts)
{
    dnnl_md all[] = {parts->a, parts->b, parts->c, parts->y};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] != NULL)
            dnnl_memory_desc_destroy(all[i]);
    if (parts->attr != NULL)
        dnnl_primitive_attr_destroy(parts->attr);
    *parts = (MatmulParts){.dtype = parts->dtype, .y_dtype = parts->y_dtype};
}

/* alpha as a linear post-op; user scratchpad. */
static Status scaled_attr(float alpha, dnnl_primitive_attr_t *attr, Error *err)
{
    dnnl_post_ops_t ops = NULL;
    DNNL_TRY(dnnl_primitive_attr_create(attr));
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user));
    if (alpha == 1.0F)
        return STATUS_OK;
    DNNL_TRY(dnnl_post_ops_create(&ops));
    dnnl_status_t status = dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, alpha, 0.0F);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(*attr, ops);
    dnnl_post_ops_destroy(ops);
    return dnnl_fail(err, status, "scaling a product");
}

static Status describe(const ProductState *state, bool bias, DnnlEngine *dnnl, MatmulParts *parts, Error *err)
{
    const Product *p = &state->p;
    TRY(operand_md(&parts->a, parts->dtype, p, p->a_batch, p->m, p->k, p->a_m, p->a_k, err));
    TRY(operand_md(&parts->b, parts->dtype, p, p->b_batch, p->k, p->n, p->b_k, p->b_n, err));
    TRY(operand_md(&parts->y, parts->y_dtype, p, p->y_batch, p->m, p->n, p->y_m, p->y_n, err));
    if (bias)
        TRY(operand_md(&parts->c, DTYPE_F32, p, NULL, 1, p->n, p->n, 1, err));
    TRY(scaled_attr(state->alpha, &parts->attr, err));
    dnnl_status_t made = dnnl_matmul_primitive_desc_create(&parts->descriptor, dnnl->engine, parts->a, parts->b,
                                                           parts->c, parts->y, parts->attr);
    if (made == dnnl_success && dnnl_is_reference(parts->descriptor)) {
        dnnl_primitive_desc_destroy(parts->descriptor);
        made = dnnl_unimplemented;
    }
    if (made == dnnl_unimplemented)
        parts->descriptor = NULL;
    return made == dnnl_unimplemented ? STATUS_OK : dnnl_fail(err, made, "a matrix product");
}

/* The library's compiled matmul in the plan's precision, or in f32; else parts->descriptor stays NULL. */
static Status matmul_choose(PlanContext *context, const ProductState *state, bool bias, MatmulParts *parts, Error *err)
{
    parts->dtype = context->compute;
    parts->y_dtype = kernel_output_dtype(context, 0);
    TRY(describe(state, bias, context->dnnl, parts, err));
    if (parts->descriptor != NULL || parts->dtype == DTYPE_F32)
        return STATUS_OK;
    parts_release(parts);
    parts->dtype = parts->y_dtype = DTYPE_F32;
    return describe(state, bias, context->dnnl, parts, err);
}

/* Consumes the descriptor. The step's slots stand. */
static Status matmul_call(PlanContext *context, ProductState *state, bool bias, const MatmulParts *parts, Error *err)
{
    Step *step = context->step;
    DnnlArg args[4] = {{DNNL_ARG_SRC, kernel_view(context, step->in[state->swapped], parts->a)},
                       {DNNL_ARG_WEIGHTS, kernel_view(context, step->in[!state->swapped], parts->b)},
                       {DNNL_ARG_DST, kernel_view(context, step->out[0], parts->y)}};
    if (bias)
        args[3] = (DnnlArg){DNNL_ARG_BIAS, kernel_view(context, step->in[2], parts->c)};
    return kernel_call(context, parts->descriptor, args, bias ? 4 : 3, &state->call, err);
}

/* ---- prepare ----------------------------------------------------------------------------------------------------- */

static void state_fill(ProductState *state, const Product *product)
{
    Product *p = &state->p;
    *p = *product;
    state->swapped = p->y_n != 1 && p->n > 1 && (p->y_m == 1 || p->m == 1);
    if (state->swapped)
        *p = product_swapped(product);
    product_merge(p);
}

static Status product_place(PlanContext *context, ProductState *state, bool bias, MatmulParts *parts, Error *err)
{
    const Product *p = &state->p;
    int64_t batches = dims_count(p->batch_rank, p->batch);
    bool small = batches * p->m * p->n * (p->k + 1) <= DIRECT_WORK || p->k == 0;
    parts->dtype = parts->y_dtype = DTYPE_F32;
    bool thin = context->compute == DTYPE_F32 && thin_fits(p);
    if (context->compute == DTYPE_F32)
        gather_rows(state);
    bool wide = context->compute == DTYPE_F32 && sgemm_is_faster(p);
    if (state->gather.outer > 0)
        kernel_scratch(context, (size_t)(p->m * p->k) * sizeof(float));
    if (!small && !thin && !wide)
        TRY(matmul_choose(context, state, bias, parts, err));
    kernel_input_as(context, 0, LAYOUT_PLAIN, parts->dtype);
    kernel_input_as(context, 1, LAYOUT_PLAIN, parts->dtype);
    kernel_input(context, 2, LAYOUT_PLAIN);
    if (kernel_output_as(context, 0, LAYOUT_PLAIN, parts->y_dtype) == NULL)
        return kernel_fail(context, err, "nobody takes its result");
    if (parts->descriptor != NULL) {
        TRY(matmul_call(context, state, bias, parts, err));
        state->sum_after = state->sum_after && !bias;
        kernel_run(context, run_call, state->call->implementation);
    } else if (thin) {
        kernel_run(context, run_thin, "own:thin");
    } else if (!small && sgemm_fits(p)) {
        kernel_run(context, run_sgemm, state->gather.outer > 0 ? "gemm:rows" : "gemm");
    } else {
        kernel_run(context, run_direct, "own:direct");
    }
    return STATUS_OK;
}

Status product_prepare(const Product *product, PlanContext *context, double alpha, double beta, Error *err)
{
    const Node *node = context->node;
    if (node->outputs[0]->type.dtype != DTYPE_F32 || context->plain_only)
        return kernel_eval(context, err);
    bool addend = node_input(node, 2) != NULL;
    ProductState *state = kernel_state(context, sizeof *state);
    *state = (ProductState){.alpha = (float)alpha, .beta = (float)beta, .sum_after = addend, .dnnl = context->dnnl};
    state_fill(state, product);
    bool bias = addend && alpha == 1 && beta == 1 && state->p.c_m == 0 && state->p.c_n == 1;
    MatmulParts parts = {0};
    Status status = product_place(context, state, bias, &parts, err);
    parts_release(&parts);
    return status;
}
