/* What this machine can do at most, measured in about 0.2 s: a matrix product that lies in cache, in f32 and, where the
 * processor has it, in bf16 (the library's comes within a few per cent of the multipliers' peak), and a sum of two
 * arrays far larger than any cache. The best of several rounds counts. */
#include <time.h>

#include "runtime/plan.h"

enum { SIDE = 768, STREAM_FLOATS = 8 << 20 };
static const double round_seconds = 0.06;

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static Status best_call(DnnlEngine *dnnl, DnnlCall *call, double *best, Error *err)
{
    double end = seconds_now() + round_seconds;
    *best = 0;
    TRY(dnnl_call_run(dnnl, call, err)); /* warm */
    for (double begin = seconds_now(); begin < end || *best <= 0; begin = seconds_now()) {
        TRY(dnnl_call_run(dnnl, call, err));
        double took = seconds_now() - begin;
        *best = *best <= 0 || took < *best ? took : *best;
    }
    return STATUS_OK;
}

/* Floating-point operations a second of C = A B, [SIDE, SIDE] each, A and B in `dtype`, C in f32. */
static Status product_rate(DnnlEngine *dnnl, DType dtype, double *rate, Error *err)
{
    Arena arena;
    dnnl_md ab = NULL, c = NULL;
    dnnl_primitive_desc_t descriptor = NULL;
    DnnlCall *call = NULL;
    void *scratch = NULL;
    Slot slots[3] = {{0}};
    const int64_t dims[] = {SIDE, SIDE};
    DnnlArg args[] = {{DNNL_ARG_SRC, &slots[0]}, {DNNL_ARG_WEIGHTS, &slots[1]}, {DNNL_ARG_DST, &slots[2]}};
    double best = 0;
    arena_init(&arena);
    Status status = dnnl_md_plain(&ab, dtype, 2, dims, err);
    if (status == STATUS_OK)
        status = dnnl_md_plain(&c, DTYPE_F32, 2, dims, err);
    if (status == STATUS_OK)
        status = dnnl_fail(
            err, dnnl_matmul_primitive_desc_create(&descriptor, dnnl->engine, ab, ab, NULL, c, dnnl->user_scratchpad),
            "a matrix product to measure");
    if (status == STATUS_OK)
        status = dnnl_call_new(dnnl, &arena, descriptor, args, 3, &call, err);
    for (int i = 0; i < 3 && status == STATUS_OK; i++)
        status = block_alloc(&slots[i].data, (size_t)SIDE * SIDE * sizeof(float), "a measurement", err);
    if (status == STATUS_OK)
        status = block_alloc(&scratch, call->scratchpad, "a measurement", err);
    if (status == STATUS_OK) {
        dnnl_call_bind(call, scratch);
        status = best_call(dnnl, call, &best, err);
    }
    *rate = best > 0 ? 2.0 * (double)SIDE * (double)SIDE * (double)SIDE / best : 0;
    dnnl_call_free(call);
    for (int i = 0; i < 3; i++)
        block_free(slots[i].data);
    block_free(scratch);
    if (ab != NULL)
        dnnl_memory_desc_destroy(ab);
    if (c != NULL)
        dnnl_memory_desc_destroy(c);
    arena_release(&arena);
    return status;
}

static void add_range(int64_t begin, int64_t end, void *context)
{
    float **blocks = context;
    const float *a = blocks[0], *b = blocks[1];
    float *c = blocks[2];
    for (int64_t i = begin; i < end; i++)
        c[i] = a[i] + 3 * b[i];
}

/* Bytes a second of c = a + 3 b: two arrays read, one written. */
static Status stream_rate(double *rate, Error *err)
{
    float *blocks[3] = {0};
    Status status = STATUS_OK;
    double best = 0;
    for (int i = 0; i < 3 && status == STATUS_OK; i++)
        status = block_alloc((void **)&blocks[i], STREAM_FLOATS * sizeof(float), "a measurement", err);
    if (status == STATUS_OK)
        parallel_for(STREAM_FLOATS, 1 << 16, add_range, blocks); /* touches the pages */
    double end = seconds_now() + round_seconds;
    for (double begin = seconds_now(); status == STATUS_OK && (begin < end || best <= 0); begin = seconds_now()) {
        parallel_for(STREAM_FLOATS, 1 << 16, add_range, blocks);
        double took = seconds_now() - begin;
        best = best <= 0 || took < best ? took : best;
    }
    *rate = best > 0 ? 3.0 * (double)STREAM_FLOATS * (double)sizeof(float) / best : 0;
    for (int i = 0; i < 3; i++)
        block_free(blocks[i]);
    return status;
}

Status peak_measure(MachinePeak *peak, Error *err)
{
    DnnlEngine dnnl = {0};
    *peak = (MachinePeak){0};
    TRY(dnnl_engine_open(&dnnl, DTYPE_F32, err));
    Status status = product_rate(&dnnl, DTYPE_F32, &peak->f32_flops, err);
    if (status == STATUS_OK && dnnl_has_bf16())
        status = product_rate(&dnnl, DTYPE_BF16, &peak->bf16_flops, err);
    if (status == STATUS_OK)
        status = stream_rate(&peak->bytes, err);
    dnnl_engine_close(&dnnl);
    return status;
}
