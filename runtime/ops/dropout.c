/* Dropout, in inference form (a copy) and live. Which elements live is drawn from (seed, node, step) and the element's
 * place alone, so a replayed step and any number of threads drop the same ones. The gradient reads the mask that
 * forward wrote.
 *
 * y = x * mask / (1 - ratio)      (ONNX Dropout-22; Srivastava et al., JMLR 15, 2014, in its "inverted" form)
 * dx = dy * mask / (1 - ratio) */
#include "runtime/ops/ops.h"

#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/ops/vector.h"

enum { GRAIN = 4096, LANES = 32 };

/* What one pass over the elements needs; T is picked by `dtype`. Without `mask` nothing is dropped. */
typedef struct Drop {
    const void *x;
    void *y;
    uint8_t *mask; /* written by forward, read by backward; may be NULL in inference */
    DType dtype;
    double scale;       /* 1 / (1 - ratio) */
    uint32_t threshold; /* dropped below: ratio * 2^32 */
    uint64_t seed, stream;
} Drop;

/* Philox4x32-10 for LANES counters at once: the numbers of base/rng.c, in a form that vectorises. Word w of counter c
 * decides over element 4 c + w. */
#define ROUND(n)                                                                                                       \
    p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;                                                  \
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ (k0 + n * 0x9E3779B9u), c1 = (uint32_t)p1;                                        \
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ (k1 + n * 0xBB67AE85u), c3 = (uint32_t)p0

VECTOR_CLONES static void draw_batch(const Drop *drop, uint64_t counter, uint8_t *restrict mask)
{
    const uint32_t k0 = (uint32_t)drop->seed, k1 = (uint32_t)(drop->seed >> 32), threshold = drop->threshold;
    const uint32_t low = (uint32_t)counter, high = (uint32_t)(counter >> 32); /* LANES counters share the high word */
    const uint32_t stream = (uint32_t)drop->stream, stream_high = (uint32_t)(drop->stream >> 32);
    for (uint32_t i = 0; i < LANES; i++) {
        uint32_t c0 = low + i, c1 = high, c2 = stream, c3 = stream_high;
        uint64_t p0, p1;
        ROUND(0u);
        ROUND(1u);
        ROUND(2u);
        ROUND(3u);
        ROUND(4u);
        ROUND(5u);
        ROUND(6u);
        ROUND(7u);
        ROUND(8u);
        ROUND(9u);
        mask[i] = c0 >= threshold;
        mask[LANES + i] = c1 >= threshold;
        mask[2 * LANES + i] = c2 >= threshold;
        mask[3 * LANES + i] = c3 >= threshold;
    }
}

static void draw_mask(int64_t begin, int64_t end, const Drop *drop)
{
    uint8_t batch[4 * LANES];
    for (int64_t first = begin - begin % (4 * LANES); first < end; first += 4 * LANES) {
        const int64_t from = first < begin ? begin : first, to = first + 4 * LANES < end ? first + 4 * LANES : end;
        draw_batch(drop, (uint64_t)first / 4, batch);
        memcpy(drop->mask + from, batch + (from - first), (size_t)(to - from));
    }
}

#define DEFINE_APPLY(name, type)                                                                                       \
    VECTOR_CLONES static void name(int64_t n, const type *x, const uint8_t *mask, type *y, type scale)                 \
    {                                                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                                \
            y[i] = mask[i] ? x[i] * scale : 0;                                                                         \
    }
DEFINE_APPLY(apply_f32, float)
DEFINE_APPLY(apply_f64, double)

static void apply_mask(int64_t begin, int64_t end, const Drop *drop)
{
    if (drop->dtype == DTYPE_F64)
        apply_f64(end - begin, (const double *)drop->x + begin, drop->mask + begin, (double *)drop->y + begin,
                  drop->scale);
    else
        apply_f32(end - begin, (const float *)drop->x + begin, drop->mask + begin, (float *)drop->y + begin,
                  (float)drop->scale);
}

static void forward_range(int64_t begin, int64_t end, void *context)
{
    draw_mask(begin, end, context);
    apply_mask(begin, end, context);
}

static void backward_range(int64_t begin, int64_t end, void *context)
{
    apply_mask(begin, end, context);
}

static void copy_range(int64_t begin, int64_t end, void *context)
{
    const Drop *drop = context;
    size_t size = dtype_size(drop->dtype);
    if (drop->x != drop->y)
        memcpy((char *)drop->y + (size_t)begin * size, (const char *)drop->x + (size_t)begin * size,
               (size_t)(end - begin) * size);
    if (drop->mask)
        memset(drop->mask + begin, 1, (size_t)(end - begin));
}

static void drop_set_ratio(Drop *drop, double ratio)
{
    drop->scale = ratio < 1 ? 1 / (1 - ratio) : 0;
    double threshold = ratio * 4294967296.0;
    drop->threshold = threshold >= 4294967295.0 ? UINT32_MAX : (uint32_t)threshold;
}

static void drop_set_stream(Drop *drop, const Node *node, uint64_t seed, uint64_t step)
{
    drop->seed = rng_mix(seed, (uint64_t)node_int(node, "seed", 0));
    drop->stream = rng_mix(node_stream(node), step);
}

/* ---- Dropout ------------------------------------------------------------------------------------------ */

static Status dropout_infer(Node *node, Error *err)
{
    TRY(infer_same(node, err));
    const Type *x = &node->inputs[0]->type;
    if (!dtype_is_float(x->dtype))
        return infer_fail(node, err, "of %s; floats are expected", dtype_name(x->dtype));
    if (node_output(node, 1))
        type_set(&node->outputs[1]->type, DTYPE_BOOL, x->rank, x->dims);
    return STATUS_OK;
}

static Status dropout_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *ratio = eval_input(context, 1), *live = eval_input(context, 2);
    Array *y, *mask;
    TRY(eval_output_like(context, 0, x, &y, err));
    TRY(eval_output(context, 1, DTYPE_BOOL, x->rank, x->dims, &mask, err));
    double p = ratio && ratio->count > 0 ? array_f64_at(ratio, 0) : 0.5;
    Drop drop = {.x = x->data, .y = y->data, .mask = mask->data, .dtype = x->dtype};
    if (p < 0 || p > 1)
        return eval_fail(context, err, "ratio %g is outside [0, 1]", p);
    if (!live || live->count == 0 || array_f64_at(live, 0) == 0 || p == 0) {
        copy_range(0, x->count, &drop);
        return STATUS_OK;
    }
    drop_set_ratio(&drop, p);
    drop_set_stream(&drop, context->node, context->seed, context->step);
    forward_range(0, x->count, &drop);
    return STATUS_OK;
}

/* Older forms: is_test and ratio were attributes (1, 6), is_test went away (7, 10), then ratio and training_mode became
 * inputs (12). From 7 to 10 it always ran in inference form, which is what an omitted training_mode says. */
static Status dropout_upgrade(Node *node, Error *err)
{
    (void)err;
    if (node->opset >= 12)
        return STATUS_OK;
    bool live = node->opset < 7 && node_int(node, "is_test", 0) == 0;
    node_set_input(node, 1, node_float_value(node, "ratio", DTYPE_F32, node_float(node, "ratio", 0.5f)));
    if (live)
        node_set_input(node, 2, node_float_value(node, "training_mode", DTYPE_BOOL, 1));
    node_remove_attr(node, "ratio");
    node_remove_attr(node, "is_test");
    node_remove_attr(node, "consumed_inputs");
    return STATUS_OK;
}

/* In inference form (training_mode omitted, or constant and false) the gradient passes. */
static Status dropout_grad(GradContext *context, Error *err)
{
    Node *node = context->node;
    const Value *live = node_input(node, 2);
    if (!live || (value_is_constant(live) && tensor_f64_at(live->constant, 0) == 0)) {
        context->dx[0] = context->dy[0];
        return STATUS_OK;
    }
    if (node->input_count > 1 && context->wants[1])
        return node_unsupported(node, err, "no gradient with respect to the ratio");
    while (node->output_count < 2)
        node_add_output(node, graph_unique_name(node->graph, "mask"));
    if (!node->outputs[1])
        node_set_output(node, 1, graph_add_value(node->graph, graph_unique_name(node->graph, "mask")));
    TRY(node_infer(node, err));
    Value *inputs[] = {context->dy[0], node->outputs[1], node_input(node, 1)};
    Node *back = build_node(&context->b, DOMAIN_INTERNAL, "DropoutGrad", inputs, 3, 1);
    if (back)
        context->dx[0] = build_finish(&context->b, back);
    return context->b.status;
}

/* ratio and training_mode may be computed: they are read in the step. */
static Status dropout_run(Step *step, Error *err)
{
    Slot *const *in = step->in;
    Slot *mask = step->out_count > 1 ? step->out[1] : NULL;
    Drop drop = {
        .x = in[0]->data, .y = step->out[0]->data, .mask = mask ? mask->data : step->scratch, .dtype = DTYPE_F32};
    float p = step->in_count > 1 && in[1] ? *(const float *)in[1]->data : 0.5f;
    bool live = step->in_count > 2 && in[2] && *(const uint8_t *)in[2]->data && p != 0;
    if (!(p >= 0 && p <= 1))
        return fail(err, STATUS_REJECTED, "%s: ratio %g is outside [0, 1]", node_text(step->node), (double)p);
    uint64_t seed, count;
    step_clock(step, &seed, &count);
    drop_set_ratio(&drop, (double)p);
    drop_set_stream(&drop, step->node, seed, count);
    parallel_for(slot_count(in[0]), GRAIN, live ? forward_range : copy_range, &drop);
    return STATUS_OK;
}

static Status dropout_prepare(PlanContext *context, Error *err)
{
    const Value *ratio = node_input(context->node, 1), *live = node_input(context->node, 2);
    bool floats = context->node->inputs[0]->type.dtype == DTYPE_F32 &&
                  (ratio == NULL || (ratio->type.dtype == DTYPE_F32 && type_count(&ratio->type) == 1)) &&
                  (live == NULL || (live->type.dtype == DTYPE_BOOL && type_count(&live->type) == 1));
    if (!floats)
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    Slot *y = kernel_output_in_place(context, 0, 0, LAYOUT_PLAIN);
    if (node_output(context->node, 1))
        kernel_output(context, 1, LAYOUT_PLAIN);
    else
        kernel_scratch(context, (size_t)slot_count(y));
    kernel_run(context, dropout_run, "own:philox");
    return STATUS_OK;
}

/* ---- DropoutGrad (dy, mask, ratio) -> dx -------------------------------------------------------------- */

static Status dropout_grad_eval(EvalContext *context, Error *err)
{
    const Array *dy = context->in[0], *ratio = eval_input(context, 2);
    Array *dx;
    TRY(eval_output_like(context, 0, dy, &dx, err));
    Drop drop = {.x = dy->data, .y = dx->data, .mask = context->in[1]->data, .dtype = dy->dtype};
    drop_set_ratio(&drop, ratio && ratio->count > 0 ? array_f64_at(ratio, 0) : 0.5);
    backward_range(0, dy->count, &drop);
    return STATUS_OK;
}

static Status dropout_grad_run(Step *step, Error *err)
{
    (void)err;
    Drop drop = {.x = step->in[0]->data, .y = step->out[0]->data, .mask = step->in[1]->data, .dtype = DTYPE_F32};
    drop_set_ratio(&drop, step->in_count > 2 && step->in[2] ? (double)*(const float *)step->in[2]->data : 0.5);
    parallel_for(slot_count(step->in[0]), GRAIN, backward_range, &drop);
    return STATUS_OK;
}

static Status dropout_grad_prepare(PlanContext *context, Error *err)
{
    const Value *ratio = node_input(context->node, 2);
    if (context->node->inputs[0]->type.dtype != DTYPE_F32 || (ratio != NULL && ratio->type.dtype != DTYPE_F32))
        return kernel_eval(context, err);
    kernel_inputs_plain(context);
    kernel_output_in_place(context, 0, 0, LAYOUT_PLAIN);
    kernel_run(context, dropout_grad_run, "own");
    return STATUS_OK;
}

/* clang-format off */
const OpDef ops_dropout[] = {
    {.name = "Dropout", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 3, .min_outputs = 1, .max_outputs = 2,
     .traits = OP_RANDOM | OP_IN_PLACE, .infer = dropout_infer, .eval = dropout_eval, .grad = dropout_grad,
     .upgrade = dropout_upgrade, .prepare = dropout_prepare},
    {.domain = DOMAIN_INTERNAL, .name = "DropoutGrad", .min_inputs = 2, .max_inputs = 3, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_IN_PLACE, .infer = infer_same, .eval = dropout_grad_eval,
     .prepare = dropout_grad_prepare, .no_case = "internal: the gradient of Dropout"},
    {0},
};
/* clang-format on */
