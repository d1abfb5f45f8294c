/* The plans of a Trainer: one for each mode and batch shape, in a small cache, all in one workspace. A plan for a new
 * shape starts from the document and takes milliseconds. */
#include <string.h>

#include "runtime/plan.h"
#include "runtime/trainer.h"

static bool same_types(const PlanEntry *entry, const Batch *batch)
{
    if (entry->input_count != batch->input_count)
        return false;
    for (int i = 0; i < batch->input_count; i++) {
        const Type *a = &entry->types[i], *b = &batch->input_types[i];
        if (a->rank != b->rank || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) != 0)
            return false;
    }
    return true;
}

static void entry_release(PlanEntry *entry)
{
    plan_free(entry->plan);
    model_free(entry->working);
    model_free(entry->whole);
    memset(entry, 0, sizeof *entry);
}

/* Shapes of the document's inputs for this batch: the batch's own, or, over cached features, the original ones at this
 * size. */
static size_t bind_batch(const Trainer *trainer, const Batch *batch, Binding *bindings)
{
    const Graph *graph = trainer->document->graph;
    size_t count = 0;
    for (size_t i = 0, k = 0; i < graph->input_count && k < SOURCE_MAX; i++) {
        if (graph->inputs[i]->constant != NULL)
            continue;
        const Type *type = trainer->cache == NULL ? &batch->input_types[k] : &trainer->cache->input_types[k];
        Binding *binding = &bindings[count++];
        *binding = (Binding){.input = graph->inputs[i]->name, .rank = type->rank};
        memcpy(binding->dims, type->dims, (size_t)type->rank * sizeof binding->dims[0]);
        if (trainer->cache != NULL)
            binding->dims[0] = (int64_t)batch->size;
        k++;
    }
    return count;
}

static Status build_working(Trainer *trainer, const Batch *batch, bool training, PlanEntry *entry, Error *err)
{
    Binding bindings[SOURCE_MAX];
    WorkingOptions options = {.bindings = bindings,
                              .binding_count = bind_batch(trainer, batch, bindings),
                              .training = training,
                              .running_statistics = trainer->options.running_statistics,
                              .params = trainer->params};
    WorkingOptions with_loss = options;
    with_loss.losses = trainer->options.losses + (batch->only > 0 ? batch->only - 1 : 0);
    with_loss.loss_count = batch->only > 0 ? 1 : trainer->options.loss_count;
    with_loss.gradients = true;
    if (trainer->cache == NULL)
        return working_build(trainer->document, training ? &with_loss : &options, &entry->working, err);
    Model *prefix = NULL;
    options.for_split = true;
    TRY(working_build(trainer->document, &options, &entry->whole, err));
    TRY(working_split(entry->whole, &prefix, &entry->working, err));
    model_free(prefix);
    if (training)
        return working_loss(entry->working->graph, &with_loss, err);
    TRY(pass_fuse_conv(entry->working->graph, true, err));
    return pass_fuse_elementwise(entry->working->graph, err);
}

typedef struct Making {
    Trainer *trainer;
    const Batch *batch;
    bool training;
    PlanEntry *entry;
} Making;

/* For plan_build_within. What a working graph was split from lives as long as it. */
static Status make_working(void *context, Model **working, Error *err)
{
    Making *making = context;
    PlanEntry *entry = making->entry;
    model_free(entry->whole);
    entry->whole = entry->working = NULL;
    Status status = build_working(making->trainer, making->batch, making->training, entry, err);
    model_rest(making->trainer->document); /* pages of the file that folding has read */
    *working = entry->working;
    entry->working = NULL;
    return status;
}

size_t entry_models(const PlanEntry *entry)
{
    return (entry->working == NULL ? 0 : entry->working->arena.used) +
           (entry->whole == NULL ? 0 : entry->whole->arena.used);
}

static size_t held_models(const void *context, const Model *working)
{
    return working->arena.used + entry_models(((const Making *)context)->entry);
}

/* Of one plan after the other: with several tasks, each reaches its own head. */
static void note_reached(Trainer *trainer, const Graph *graph)
{
    trainer->planned = true;
    for (size_t i = 0; i < graph->initializer_count; i++) {
        const Value *value = graph->initializers[i];
        if (value->role == ROLE_PARAMETER && value->gradient != NULL)
            trainer->reached[value->parameter] = true;
    }
}

static PlanEntry *oldest_entry(Trainer *trainer)
{
    PlanEntry *oldest = &trainer->plans[0];
    for (int i = 1; i < PLAN_CACHE; i++)
        if (trainer->plans[i].used < oldest->used)
            oldest = &trainer->plans[i];
    return oldest;
}

/* Under a limit a bill counts one plan. Others may stay beside it while what each has of its own (frozen weights in
 * kernel layout, models) fits too. After training they stay while that is within what a bill may be passed by. */
static void make_room(Trainer *trainer, bool training)
{
    size_t held = 0, largest = 0;
    for (int i = 0; i < PLAN_CACHE; i++) {
        const PlanEntry *entry = &trainer->plans[i];
        if (entry->plan == NULL)
            continue;
        PlanBill bill = plan_bill(entry->plan);
        held += bill.constants + bill.inputs + entry_models(entry);
        largest = entry->budget.needed > largest ? entry->budget.needed : largest;
    }
    if (trainer->measures && held > train_bill_total(&trainer->bill) / 50)
        trainer_forget_plans(trainer);
    if (trainer->options.profile) /* reads the training plan at the end */
        return;
    if (trainer->options.memory > 0 && held + largest > memory_for_plan(trainer, training))
        trainer_forget_plans(trainer);
}

Status trainer_plan(Trainer *trainer, const Batch *batch, bool training, PlanEntry **out, Error *err)
{
    for (int i = 0; i < PLAN_CACHE; i++) {
        PlanEntry *entry = &trainer->plans[i];
        bool same_losses = !training || entry->only == batch->only;
        if (entry->plan != NULL && entry->training == training && same_losses && same_types(entry, batch)) {
            entry->used = ++trainer->clock;
            *out = entry;
            return STATUS_OK;
        }
    }
    make_room(trainer, training);
    PlanEntry *entry = oldest_entry(trainer);
    entry_release(entry);
    Making making = {trainer, batch, training, entry};
    PlanMaker maker = {make_working, &making, held_models};
    PlanOptions options = {.training = training,
                           .plain_only = trainer->options.plain_only,
                           .accumulates = training && (trainer->options.accumulate > 1 || trainer->part_rows > 0),
                           .workspace = &trainer->space,
                           .profile = training && trainer->options.profile,
                           .precision = training ? trainer->options.precision : PRECISION_F32,
                           .winograd = training && trainer->options.winograd};
    Status status = plan_build_within(&maker, trainer->store, &options, memory_for_plan(trainer, training),
                                      &entry->working, &entry->plan, &entry->budget, err);
    trainer->last_needed = entry->budget.needed;
    if (status != STATUS_OK) {
        entry_release(entry);
        return status;
    }
    if (training)
        note_reached(trainer, entry->working->graph);
    entry->training = training;
    entry->only = batch->only;
    entry->input_count = batch->input_count;
    memcpy(entry->types, batch->input_types, sizeof entry->types);
    entry->used = ++trainer->clock;
    *out = entry;
    return STATUS_OK;
}

/* Inputs by position, then the targets of a training plan. A feature that the rest does not read has no place. */
void trainer_feed(PlanEntry *entry, const Batch *batch)
{
    const Graph *graph = entry->working->graph;
    size_t at = 0;
    for (int i = 0; i < batch->input_count && at < graph->input_count; i++, at++) {
        void *to = plan_input(entry->plan, at);
        if (to != NULL)
            memcpy(to, batch->inputs[i],
                   (size_t)type_count(&graph->inputs[at]->type) * dtype_size(graph->inputs[at]->type.dtype));
    }
    for (int i = 0; i < batch->target_count && at < graph->input_count && entry->training; i++, at++) {
        void *to = plan_input(entry->plan, at);
        if (to != NULL)
            memcpy(to, batch->targets[i],
                   (size_t)type_count(&graph->inputs[at]->type) * dtype_size(graph->inputs[at]->type.dtype));
    }
}

Status trainer_has_state(Trainer *trainer, const Batch *batch, bool *state, Error *err)
{
    PlanEntry entry = {0};
    Status status = build_working(trainer, batch, true, &entry, err);
    *state = false;
    for (const Node *node = status == STATUS_OK ? entry.working->graph->first : NULL; node != NULL; node = node->next)
        *state = *state || (node->op != NULL && (node->op->traits & OP_STATE) != 0);
    entry_release(&entry);
    return status;
}

size_t trainer_unreached(const Trainer *trainer, const ParamInfo **first)
{
    size_t count = 0;
    for (size_t i = 0; trainer->planned && i < trainer->params->count; i++) {
        const ParamInfo *info = &trainer->params->items[i];
        if (!info->trainable || info->tied_to >= 0 || trainer->reached[i])
            continue;
        if (count++ == 0)
            *first = info;
    }
    return count;
}

void trainer_forget_plans(Trainer *trainer)
{
    for (int i = 0; i < PLAN_CACHE; i++)
        entry_release(&trainer->plans[i]);
}

Status trainer_profile(const Trainer *trainer, Str *table, Str *trace, Error *err)
{
    const Plan *most = NULL;
    MachinePeak peak = {0};
    for (int i = 0; i < PLAN_CACHE; i++) {
        const PlanEntry *entry = &trainer->plans[i];
        if (entry->plan != NULL && entry->training && (most == NULL || entry->plan->runs > most->runs))
            most = entry->plan;
    }
    if (most == NULL || most->runs == 0)
        return STATUS_OK;
    if (table != NULL) {
        TRY(peak_measure(&peak, err));
        plan_profile(most, &peak, table);
    }
    if (trace != NULL)
        plan_trace(most, trace);
    return STATUS_OK;
}
