/* A plan that keeps a promise about memory. A plan's bill is known before anything is allocated; when it is too large,
 * activations are made again instead of kept (passes/recompute.c), as few as will do. The pass estimates from
 * lifetimes; what counts is the bill of the plan that comes of it, so the target is corrected until that fits. */
#include <string.h>

#include "runtime/plan.h"

enum { ROUNDS = 8 };

typedef struct Trial {
    const PlanMaker *maker;
    ParamStore *store;
    PlanOptions measure;
    Map sizes; /* value name -> bytes in the plan that keeps everything */
    Arena arena;
    Model *working; /* of the last round */
    RecomputeReport report;
    size_t total, block; /* of its plan: everything, and what lives during a step */
} Trial;

static Status measure(Trial *trial, Plan **plan, Error *err)
{
    TRY(plan_build(trial->working, trial->store, &trial->measure, plan, err));
    PlanBill bill = plan_bill(*plan);
    trial->total = bill_total(&bill);
    if (trial->maker->held != NULL)
        trial->total += trial->maker->held(trial->maker->context, trial->working);
    trial->block = (*plan)->block_bytes;
    return STATUS_OK;
}

static void remember_sizes(Trial *trial, const Plan *plan)
{
    const Map *values = &trial->working->graph->values;
    for (size_t i = 0; i < values->count; i++) {
        if (values->entries[i].key == NULL)
            continue;
        size_t *bytes = arena_new(&trial->arena, size_t);
        *bytes = plan_value_bytes(plan, values->entries[i].key);
        map_set(&trial->sizes, arena_strdup(&trial->arena, values->entries[i].key), bytes);
    }
}

static size_t remembered(const Value *value, void *context)
{
    const size_t *bytes = map_get(&((Trial *)context)->sizes, value->name);
    return bytes == NULL ? 0 : *bytes;
}

static Status fresh(Trial *trial, Error *err)
{
    model_free(trial->working);
    trial->working = NULL;
    return trial->maker->make(trial->maker->context, &trial->working, err);
}

static Status try_target(Trial *trial, size_t target, Error *err)
{
    Plan *plan = NULL;
    RecomputeOptions options = {.target = target, .bytes = remembered, .context = trial};
    TRY(fresh(trial, err));
    TRY(pass_recompute(trial->working->graph, &options, &trial->report, err));
    Status status = measure(trial, &plan, err);
    plan_free(plan);
    return status;
}

/* The largest target whose plan fits; a sequence of guesses between what did and what did not. */
static Status search(Trial *trial, size_t limit, size_t room, double target, Error *err)
{
    double fits = 0, fails = 0;
    for (int round = 0; round < ROUNDS; round++) {
        TRY(try_target(trial, (size_t)target, err));
        if (trial->total <= limit) {
            fits = target;
            if (trial->total >= limit - limit / 40 || !trial->report.fits)
                return STATUS_OK;
            target *= (double)room / (double)trial->block;
        } else {
            fails = target;
            if (!trial->report.fits)
                break; /* the smallest there is, and too large */
            target *= (double)room / (double)trial->block * 0.99;
        }
        if (fails > 0 && fits > 0 && (target >= fails || target <= fits))
            target = (fits + fails) / 2;
        if (fails > 0 && fits > 0 && fails - fits < fails / 50)
            break;
    }
    return fits > 0 ? try_target(trial, (size_t)fits, err) : STATUS_OK;
}

/* The least a plan can take: for the message. */
static Status smallest(Trial *trial, Error *err)
{
    size_t before = trial->total;
    TRY(try_target(trial, 0, err));
    trial->total = trial->total < before ? trial->total : before;
    return STATUS_OK;
}

static Status recompute_within(Trial *trial, size_t limit, Error *err)
{
    Plan *plan = NULL;
    TRY(measure(trial, &plan, err));
    if (limit > 0 && trial->total > limit && trial->measure.winograd) { /* it wants a hundred megabytes of scratch */
        plan_free(plan);
        plan = NULL;
        trial->measure.winograd = false;
        TRY(measure(trial, &plan, err));
    }
    if (limit == 0 || trial->total <= limit) {
        plan_free(plan);
        return STATUS_OK;
    }
    remember_sizes(trial, plan);
    plan_free(plan);
    size_t fixed = trial->total - trial->block, block = trial->block;
    if (fixed >= limit)
        return smallest(trial, err);
    RecomputeOptions all = {.target = SIZE_MAX, .bytes = remembered, .context = trial};
    TRY(pass_recompute(trial->working->graph, &all, &trial->report, err)); /* changes nothing: says its estimate */
    double scale = (double)trial->report.before / (double)block;
    TRY(search(trial, limit, limit - fixed, (double)(limit - fixed) * scale, err));
    return trial->total <= limit ? STATUS_OK : smallest(trial, err);
}

Status plan_build_within(const PlanMaker *maker, ParamStore *store, const PlanOptions *options, size_t limit,
                         Model **working, Plan **plan, PlanBudget *budget, Error *err)
{
    Trial trial = {.maker = maker, .store = store, .measure = *options};
    trial.measure.measure = true;
    *working = NULL;
    *plan = NULL;
    arena_init(&trial.arena);
    map_init(&trial.sizes);
    Status status = fresh(&trial, err);
    if (status == STATUS_OK)
        status = recompute_within(&trial, limit, err);
    *budget = (PlanBudget){.needed = trial.total, .copies = trial.report.copies};
    if (trial.report.forward_cost > 0)
        budget->again = trial.report.extra_cost / trial.report.forward_cost;
    PlanOptions final = trial.measure;
    final.measure = options->measure;
    if (status == STATUS_OK && limit > 0 && trial.total > limit)
        status = fail(err, STATUS_ENVIRONMENT, "a step takes %zu bytes of memory at least, %zu are allowed",
                      trial.total, limit);
    if (status == STATUS_OK)
        status = plan_build(trial.working, store, &final, plan, err);
    if (status == STATUS_OK)
        *working = trial.working;
    else
        model_free(trial.working);
    map_release(&trial.sizes);
    arena_release(&trial.arena);
    return status;
}
