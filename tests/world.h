/* A small net from its text with numbers as an initialisation draws them, a loss, a store and a plan: what
 * test_precision.c and test_winograd.c compare in two precisions or by two algorithms. */
#ifndef REGRAFT_TESTS_WORLD_H
#define REGRAFT_TESTS_WORLD_H

#include <math.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/plan.h"
#include "tests/test.h"

typedef struct World {
    Model *document, *working;
    ParamList params;
    ParamStore *store; /* NULL: nothing is trained */
    Plan *plan;
    Error err;
} World;

static inline void scatter_numbers(float *numbers, int64_t count, int stream, float size)
{
    Rng rng = rng_at(11, (uint64_t)stream);
    for (int64_t i = 0; i < count; i++)
        numbers[i] = (float)(rng_uniform(&rng) * 2 - 1) * size;
}

/* Matrices and kernels get numbers about as large as an initialisation has. */
static inline void world_read(World *w, const char *text)
{
    memset(w, 0, sizeof *w);
    assert_ok(model_parse(text, &builtin_ops, &w->document, &w->err), &w->err);
    Graph *graph = w->document->graph;
    for (size_t i = 0; i < graph->initializer_count; i++) {
        Tensor *tensor = graph->initializers[i]->constant;
        int64_t count = tensor_count(tensor);
        if (tensor->rank >= 2)
            scatter_numbers((float *)(uintptr_t)tensor->data, count, (int)i,
                            1.5F / sqrtf((float)(count / tensor->dims[tensor->rank == 2 ? 1 : 0])));
    }
}

static inline void world_plan(World *w, const WorkingOptions *working, const PlanOptions *options)
{
    assert_ok(working_build(w->document, working, &w->working, &w->err), &w->err);
    assert_ok(plan_build(w->working, w->store, options, &w->plan, &w->err), &w->err);
    for (size_t i = 0; i < w->working->graph->input_count; i++)
        scatter_numbers(plan_input(w->plan, i), type_count(&w->working->graph->inputs[i]->type), 100 + (int)i, 1);
}

/* With a mean squared error and gradients. */
static inline void world_open(World *w, const char *text, const PlanOptions *options)
{
    LossSpec loss = {.kind = LOSS_MSE, .weight = 1, .ignore_index = -1, .target_name = "target"};
    world_read(w, text);
    assert_ok(params_find(w->document, false, &w->params, &w->err), &w->err);
    assert_ok(params_new(&w->params, &w->store, &w->err), &w->err);
    world_plan(
        w,
        &(WorkingOptions){.training = true, .params = &w->params, .losses = &loss, .loss_count = 1, .gradients = true},
        options);
}

/* Weights are constants. */
static inline void world_open_frozen(World *w, const char *text, const PlanOptions *options)
{
    world_read(w, text);
    world_plan(w, &(WorkingOptions){0}, options);
}

static inline void world_close(World *w)
{
    plan_free(w->plan);
    params_free(w->store);
    model_free(w->working);
    model_free(w->document);
}

/* Runs and updates; the loss before. */
static inline float world_train(World *w, const OptimizerSpec *rule, uint64_t step, double lr)
{
    double norm;
    assert_ok(plan_run(w->plan, 0, step, false, &w->err), &w->err);
    float loss = *(const float *)plan_output(w->plan, w->working->graph->output_count - 1);
    assert_ok(optimizer_step(rule, w->store, step, lr, &norm, &w->err), &w->err);
    return loss;
}

#endif
