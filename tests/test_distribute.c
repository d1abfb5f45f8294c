/* runtime/distribute.c in one process: what a rank adds to the sum over ranks. Several processes: tests/mpi.sh. */
#include "tests/graph_test.h"

#include "runtime/distribute.h"

typedef struct World {
    Model *document, *working;
    ParamList params;
    ParamStore *store;
    Plan *plan;
    float *gradient; /* of the whole batch, as a plain run gives it */
} World;

static void fill(float *values, size_t count, uint64_t seed)
{
    Rng rng = rng_at(seed, 0);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)rng_normal(&rng);
}

static void world_open(World *w)
{
    Error err = {STATUS_OK, ""};
    static const LossSpec loss = {.kind = LOSS_MSE, .weight = 1, .ignore_index = -1, .target_name = "target"};
    static const Binding batch = {.symbol = "N", .value = 4};
    memset(w, 0, sizeof *w);
    w->document = parse_model("<ir_version: 8, opset_import: [\"\" : 17]> g (float[N,1100] x) => (float[N,8] y) "
                              "<float[1000,1100] a = {0.01, -0.02, 0.03, ...}, float[1000] b = {0.1, -0.1, 0, ...}, "
                              "float[8,1000] c = {0.05, -0.04, 0.01, ...}> "
                              "{ h = Gemm<transB = 1>(x, a, b) r = Relu(h) y = Gemm<transB = 1>(r, c) }");
    assert_ok(params_find(w->document, false, &w->params, &err), &err);
    const WorkingOptions options = {.bindings = &batch,
                                    .binding_count = 1,
                                    .training = true,
                                    .params = &w->params,
                                    .losses = &loss,
                                    .loss_count = 1,
                                    .gradients = true};
    const PlanOptions training = {.training = true};
    assert_ok(working_build(w->document, &options, &w->working, &err), &err);
    assert_ok(params_new(&w->params, &w->store, &err), &err);
    assert_ok(plan_build(w->working, w->store, &training, &w->plan, &err), &err);
    fill(plan_input(w->plan, 0), 4 * 1100, 1);
    fill(plan_input(w->plan, 1), 4 * 8, 2);
    assert_ok(plan_run(w->plan, 0, 1, false, &err), &err);
    w->gradient = malloc(w->store->total * sizeof *w->gradient);
    memcpy(w->gradient, w->store->gradient, w->store->total * sizeof *w->gradient);
}

static void world_close(World *w)
{
    free(w->gradient);
    plan_free(w->plan);
    params_free(w->store);
    model_free(w->working);
    model_free(w->document);
}

static void assert_gradient(const World *w, float factor)
{
    size_t moved = 0;
    for (size_t i = 0; i < w->store->total; i++) {
        float wanted = factor * w->gradient[i], have = w->store->gradient[i];
        moved += wanted != 0;
        if (!(fabsf(have - wanted) <= 1e-6f * (1 + fabsf(wanted))))
            fail_msg("element %zu: %g, %g expected", i, (double)have, (double)wanted);
    }
    assert_true(factor == 0 || moved > 1000);
}

static void a_rank_adds_its_part_by_weight(void **state)
{
    (void)state;
    World w;
    Error err = {STATUS_OK, ""};
    Distribution *d;
    world_open(&w);
    assert_ok(distribution_new(NULL, w.store, &d, &err), &err);
    for (int turn = 0; turn < 2; turn++) { /* a second step is like the first */
        assert_ok(distribution_run(d, w.plan, 0, 1, 0.25, true, &err), &err);
        assert_gradient(&w, 0.25f);
    }
    assert_ok(distribution_run(d, NULL, 0, 1, 0, true, &err), &err); /* nothing of this batch is here */
    assert_gradient(&w, 0);
    distribution_free(d);
    world_close(&w);
}

static void parts_of_an_update_are_added_before_they_travel(void **state)
{
    (void)state;
    World w;
    Error err = {STATUS_OK, ""};
    Distribution *d;
    world_open(&w);
    assert_ok(distribution_new(NULL, w.store, &d, &err), &err);
    for (int turn = 0; turn < 2; turn++) {
        assert_ok(distribution_run(d, w.plan, 0, 1, 0.25, false, &err), &err);
        assert_ok(distribution_run(d, NULL, 0, 1, 0, false, &err), &err);
        assert_ok(distribution_run(d, w.plan, 0, 1, 0.5, false, &err), &err);
        assert_ok(distribution_reduce(d, &err), &err);
        assert_gradient(&w, 0.75f);
    }
    distribution_free(d);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_adds_its_part_by_weight),
        cmocka_unit_test(parts_of_an_update_are_added_before_they_travel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
