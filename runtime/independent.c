/* Whether the samples of a batch are computed apart from each other: what passes/batch.c has to show for its rewriting.
 *
 * At a batch of 1 several places in a shape can hold the batch, and a wrong one would still fit while it mixes samples.
 * So the model runs on two batches apart and on both together; the outputs must be the same. */
#include <math.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/plan.h"
#include "runtime/runtime.h"

enum { BOUND_MAX = 32 };

typedef struct Trial {
    Model *working;
    Plan *plan;
} Trial;

/* Every open dim at some usual value; the first one, or the batch of the file, at `batch`. */
static size_t bind(const Graph *graph, int64_t baked, int64_t batch, Binding *bindings)
{
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count && count < BOUND_MAX; i++) {
        const Type *type = &graph->inputs[i]->type;
        if (graph->inputs[i]->constant != NULL || type->kind != TYPE_TENSOR || type->rank < 0)
            continue;
        Binding *binding = &bindings[count++];
        *binding = (Binding){.input = graph->inputs[i]->name, .rank = type->rank};
        for (int axis = 0; axis < type->rank; axis++) {
            bool first = axis == 0 && (type->dims[0] < 0 || type->dims[0] == baked);
            int64_t usual = type->rank >= 4 ? (axis > 1 ? 224 : 3) : 12;
            binding->dims[axis] = first ? batch : type->dims[axis] < 0 ? usual : type->dims[axis];
        }
    }
    return count;
}

static Status open_trial(Model *document, int64_t baked, int64_t batch, Trial *trial, Error *err)
{
    Binding bindings[BOUND_MAX];
    WorkingOptions options = {.bindings = bindings};
    PlanOptions plain = {.plain_only = true};
    options.binding_count = bind(document->graph, baked, batch, bindings);
    TRY(working_build(document, &options, &trial->working, err));
    return plan_build(trial->working, NULL, &plain, &trial->plan, err);
}

static void close_trial(Trial *trial)
{
    plan_free(trial->plan);
    model_free(trial->working);
}

/* Small whole numbers are valid as indices, masks and numbers alike. */
static void fill(const Type *type, void *data, uint64_t stream, int64_t first)
{
    Rng rng = rng_at(1, stream);
    for (int64_t i = 0; i < first; i++)
        (void)rng_uniform(&rng);
    for (int64_t i = 0; i < type_count(type); i++) {
        double x = rng_uniform(&rng);
        if (type->dtype == DTYPE_F32)
            ((float *)data)[i] = (float)(2 * x - 1);
        else if (type->dtype == DTYPE_I64)
            ((int64_t *)data)[i] = x < 0.7;
        else if (type->dtype == DTYPE_I32)
            ((int32_t *)data)[i] = x < 0.7;
        else if (dtype_size(type->dtype) == 1)
            ((uint8_t *)data)[i] = x < 0.7;
    }
}

/* The inputs of half `part` of the joint run, or of all of it. One without a batch is the same for both. */
static Status run_part(const Trial *trial, const Trial *both, int part, Error *err)
{
    const Graph *graph = trial->working->graph;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        bool whole = type_count(type) == type_count(&both->working->graph->inputs[i]->type);
        if (plan_input(trial->plan, i) != NULL)
            fill(type, plan_input(trial->plan, i), i, whole ? 0 : part * type_count(type));
    }
    return plan_run(trial->plan, 0, 0, false, err);
}

/* Does output `index` of the joint run hold, as half `part` along its batch, what `one` has now? */
static bool half_is(const Trial *both, const Trial *one, size_t index, int part)
{
    const Type *whole = &both->working->graph->outputs[index]->type, *half = &one->working->graph->outputs[index]->type;
    int axis = 0;
    while (axis < half->rank && whole->dims[axis] == half->dims[axis])
        axis++;
    if (half->dtype != DTYPE_F32 || axis == half->rank || whole->dims[axis] != 2 * half->dims[axis])
        return true;
    int64_t outer = 1, inner = 1;
    for (int i = 0; i < axis; i++)
        outer *= half->dims[i];
    for (int i = axis; i < half->rank; i++)
        inner *= half->dims[i];
    const float *joint = plan_output(both->plan, index), *alone = plan_output(one->plan, index);
    double largest = 1e-6, apart = 0;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            double x = (double)alone[o * inner + i], y = (double)joint[(2 * o + part) * inner + i];
            largest = fmax(largest, fabs(x));
            apart = fmax(apart, isnan(x - y) ? (isnan(x) && isnan(y) ? 0 : INFINITY) : fabs(x - y));
        }
    return apart <= 1e-3 * largest;
}

static Status compare(const Trial *one, const Trial *both, bool *same, Error *err)
{
    TRY(run_part(both, both, 0, err));
    for (int part = 0; part < 2 && *same; part++) {
        TRY(run_part(one, both, part, err));
        for (size_t i = 0; i < one->working->graph->output_count; i++)
            *same = *same && half_is(both, one, i, part);
    }
    return STATUS_OK;
}

Status samples_independent(Model *document, int64_t baked, bool *same, Error *err)
{
    Trial one = {0}, both = {0};
    *same = true;
    Status status = open_trial(document, baked, baked, &one, err);
    if (status == STATUS_OK)
        status = open_trial(document, baked, 2 * baked, &both, err);
    if (status == STATUS_OK)
        status = compare(&one, &both, same, err);
    close_trial(&one);
    close_trial(&both);
    return status;
}
