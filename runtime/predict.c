/* Inference over a source of batches: one plan a batch shape, kept in a small cache, so that the last short batch costs
 * a plan once. */
#include <stdlib.h>
#include <string.h>

#include "runtime/train.h"

enum { PREDICT_PLANS = 4 };

typedef struct Prepared {
    int input_count;
    Type types[SOURCE_MAX];
    Model *working;
    Plan *plan;
    uint64_t used;
} Prepared;

struct Predictor {
    Model *document;
    Prepared plans[PREDICT_PLANS];
    Prepared *current;
    uint64_t clock;
};

Status predictor_new(Model *document, Predictor **predictor, Error *err)
{
    *predictor = calloc(1, sizeof **predictor);
    if (*predictor == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for a predictor");
    (*predictor)->document = document;
    return STATUS_OK;
}

static void prepared_release(Prepared *p)
{
    plan_free(p->plan);
    model_free(p->working);
    memset(p, 0, sizeof *p);
}

void predictor_free(Predictor *predictor)
{
    for (int i = 0; predictor != NULL && i < PREDICT_PLANS; i++)
        prepared_release(&predictor->plans[i]);
    free(predictor);
}

static bool fits(const Prepared *p, const Batch *batch)
{
    if (p->plan == NULL || p->input_count != batch->input_count)
        return false;
    for (int i = 0; i < batch->input_count; i++) {
        const Type *a = &p->types[i], *b = &batch->input_types[i];
        if (a->rank != b->rank || a->dtype != b->dtype ||
            memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) != 0)
            return false;
    }
    return true;
}

/* Inputs of the document that somebody has to feed, in order. */
static Value *fed_input(const Graph *graph, int index)
{
    for (size_t i = 0; i < graph->input_count; i++)
        if (graph->inputs[i]->constant == NULL && index-- == 0)
            return graph->inputs[i];
    return NULL;
}

static Status prepare(Predictor *predictor, const Batch *batch, Prepared *p, Error *err)
{
    Binding bindings[SOURCE_MAX];
    const Graph *graph = predictor->document->graph;
    if (fed_input(graph, batch->input_count) != NULL || fed_input(graph, batch->input_count - 1) == NULL)
        return fail(err, STATUS_REJECTED, "the data gives %d inputs, which is not how many the model takes",
                    batch->input_count);
    for (int i = 0; i < batch->input_count; i++) {
        const Type *type = &batch->input_types[i];
        bindings[i] = (Binding){.input = fed_input(graph, i)->name, .rank = type->rank};
        memcpy(bindings[i].dims, type->dims, (size_t)type->rank * sizeof type->dims[0]);
    }
    WorkingOptions options = {.bindings = bindings, .binding_count = (size_t)batch->input_count};
    TRY(working_build(predictor->document, &options, &p->working, err));
    TRY(plan_build(p->working, NULL, &(PlanOptions){0}, &p->plan, err));
    p->input_count = batch->input_count;
    memcpy(p->types, batch->input_types, sizeof p->types);
    return STATUS_OK;
}

static Status find_plan(Predictor *predictor, const Batch *batch, Prepared **found, Error *err)
{
    Prepared *oldest = &predictor->plans[0];
    for (int i = 0; i < PREDICT_PLANS; i++) {
        Prepared *p = &predictor->plans[i];
        if (fits(p, batch)) {
            *found = p;
            return STATUS_OK;
        }
        oldest = p->used < oldest->used ? p : oldest;
    }
    prepared_release(oldest);
    Status status = prepare(predictor, batch, oldest, err);
    if (status != STATUS_OK)
        prepared_release(oldest);
    *found = oldest;
    return status;
}

Status predictor_run(Predictor *predictor, const Batch *batch, Error *err)
{
    Prepared *p = NULL;
    predictor->current = NULL;
    TRY(find_plan(predictor, batch, &p, err));
    p->used = ++predictor->clock;
    const Graph *graph = p->working->graph;
    for (size_t i = 0; i < graph->input_count && (int)i < batch->input_count; i++) {
        const Type *want = &graph->inputs[i]->type, *have = &batch->input_types[i];
        void *to = plan_input(p->plan, i);
        if (want->dtype != have->dtype || type_count(want) != type_count(have))
            return fail(err, STATUS_REJECTED,
                        "input '%s': the model takes %lld elements of %s a batch, the data has %lld of %s",
                        graph->inputs[i]->name, (long long)type_count(want), dtype_name(want->dtype),
                        (long long)type_count(have), dtype_name(have->dtype));
        if (to != NULL)
            memcpy(to, batch->inputs[i], (size_t)type_count(want) * dtype_size(want->dtype));
    }
    TRY(plan_run(p->plan, 0, 0, false, err));
    predictor->current = p;
    return STATUS_OK;
}

const void *predictor_output(const Predictor *predictor, size_t index, Type *type)
{
    const Graph *graph = predictor->current->working->graph;
    if (index >= graph->output_count)
        return NULL;
    *type = graph->outputs[index]->type;
    return plan_output(predictor->current->plan, index);
}
