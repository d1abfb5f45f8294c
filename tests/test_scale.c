/* What a model costs before it runs grows as the model does: parsing, export, import, checking, parameters, heads,
 * shapes, passes with and without gradients and the plan of graphs six times as large take at most 18 times as long. A
 * linear step takes 6 to 10 (the larger graph leaves the caches), a quadratic one 36. Counted in CPU time of this
 * process, both sizes in turn and the best turn of each stage, in memory that is not given back in between, so that a
 * busy machine does not matter; what takes milliseconds is not judged. */
#include "tests/large_graphs.h"
#include "tests/test.h"

#include <malloc.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "runtime/runtime.h"

enum { SMALL = 4000, FACTOR = 6, BOUND = 18, TURNS = 6 };
static const double judged_seconds = 0.02;

/* ---- the stages ---------------------------------------------------------------------------------------------- */

enum { STAGE_PARSE, STAGE_FILE, STAGE_PARAMS, STAGE_HEADS, STAGE_SYMBOLIC, STAGE_RUN, STAGE_TRAIN, STAGE_PLAN, STAGES };
static const char *const stage_names[STAGES] = {"parse",
                                                "export and import",
                                                "params_find",
                                                "heads_find",
                                                "shapes_symbolic",
                                                "working_build to run",
                                                "working_build to train",
                                                "plan_build"};

typedef struct Clock {
    double *seconds, last;
} Clock;

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void lap(Clock *clock, int stage)
{
    clock->seconds[stage] = cpu_seconds() - clock->last;
    clock->last = cpu_seconds();
}

static void build_and_plan(const LargeKind *kind, Model *document, const ParamList *params, Clock *clock)
{
    Error err = {STATUS_OK, ""};
    const Binding batch = {.symbol = "N", .value = 2};
    WorkingOptions options = {.bindings = &batch, .binding_count = 1};
    Model *working = NULL;
    assert_ok(working_build(document, &options, &working, &err), &err);
    model_free(working);
    lap(clock, STAGE_RUN);
    if (!kind->trains)
        return;
    const LossSpec loss = {.kind = LOSS_MSE, .weight = 1, .ignore_index = -1, .target_name = "target"};
    options = (WorkingOptions){.bindings = &batch,
                               .binding_count = 1,
                               .training = true,
                               .params = params,
                               .losses = &loss,
                               .loss_count = 1,
                               .gradients = true};
    assert_ok(working_build(document, &options, &working, &err), &err);
    lap(clock, STAGE_TRAIN);
    ParamStore *store = NULL;
    Plan *plan = NULL;
    const PlanOptions training = {.training = true};
    assert_ok(params_new(params, &store, &err), &err);
    assert_ok(plan_build(working, store, &training, &plan, &err), &err);
    lap(clock, STAGE_PLAN);
    plan_free(plan);
    params_free(store);
    model_free(working);
}

static void run_stages(const LargeKind *kind, size_t nodes, double *seconds)
{
    Error err = {STATUS_OK, ""};
    Str text;
    Model *document = NULL, *parsed = NULL;
    char path[] = "/tmp/regraft-scale-XXXXXX";
    close(mkstemp(path));
    str_init(&text);
    kind->write(nodes, &text);
    Clock clock = {seconds, cpu_seconds()};
    assert_ok(model_parse(text.text, &builtin_ops, &parsed, &err), &err);
    lap(&clock, STAGE_PARSE);
    assert_ok(model_export(parsed, path, NULL, &err), &err);
    assert_ok(model_import(path, &builtin_ops, &document, &err), &err);
    assert_ok(model_check(document, &err), &err);
    lap(&clock, STAGE_FILE);
    ParamList params;
    assert_ok(params_find(document, false, &params, &err), &err);
    lap(&clock, STAGE_PARAMS);
    HeadList heads;
    assert_ok(heads_find(document, &heads, &err), &err);
    lap(&clock, STAGE_HEADS);
    assert_ok(shapes_symbolic(document, NULL, &err), &err);
    lap(&clock, STAGE_SYMBOLIC);
    build_and_plan(kind, document, &params, &clock);
    model_free(document);
    model_free(parsed);
    str_release(&text);
    unlink(path);
}

static void cost_grows_as_the_model_does(void **state)
{
    const LargeKind *kind = *state;
    bool fine[STAGES] = {false};
    int slow = STAGES;
    for (int turn = 0; turn < TURNS && slow > 0; turn++) {
        double small[STAGES] = {0}, large[STAGES] = {0};
        run_stages(kind, SMALL, small);
        run_stages(kind, SMALL * FACTOR, large);
        slow = 0;
        for (int stage = 0; stage < STAGES; stage++) {
            fine[stage] |= large[stage] < judged_seconds || large[stage] < (double)BOUND * small[stage];
            slow += !fine[stage];
            if (!fine[stage])
                print_message("%s, %s: %.1f ms and %.1f ms\n", kind->name, stage_names[stage], 1e3 * small[stage],
                              1e3 * large[stage]);
        }
    }
    assert_int_equal(slow, 0);
}

/* test_scale KIND NODES: times of one kind and size, to look at. */
static int measure(const char *name, size_t nodes)
{
    for (size_t k = 0; k < LARGE_KINDS; k++) {
        if (strcmp(name, large_kinds[k].name) != 0)
            continue;
        double seconds[STAGES] = {0}, sum = 0;
        run_stages(&large_kinds[k], nodes, seconds);
        for (int stage = 0; stage < STAGES; stage++) {
            printf("%-22s %8.1f ms\n", stage_names[stage], 1e3 * seconds[stage]);
            sum += seconds[stage];
        }
        printf("%-22s %8.1f ms\n", "all", 1e3 * sum);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3)
        return measure(argv[1], (size_t)strtoull(argv[2], NULL, 10));
    mallopt(M_MMAP_MAX, 0); /* memory stays ours: the kernel's pages are not what is measured */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    struct CMUnitTest tests[LARGE_KINDS];
    for (size_t k = 0; k < LARGE_KINDS; k++)
        tests[k] = (struct CMUnitTest){large_kinds[k].name, cost_grows_as_the_model_does, NULL, NULL,
                                       (void *)(uintptr_t)&large_kinds[k]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
