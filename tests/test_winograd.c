/* Winograd's algorithm in convolutions (PlanOptions.winograd, runtime/ops/conv_kernel.c): forced by shapes at which the
 * library prefers it, and compared with direct convolution: outputs, every gradient, losses of several updates. Where
 * the library has no such code (oneDNN 3.2 and later, processors without AVX-512) both are the same. */
#include "runtime/dnnl.h"
#include "tests/world.h"

/* 40 channels: the last block of 16 is padded. */
static const char net[] =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[16,40,14,14] x) => (float[16,8] y) <"
    "float[256,40,3,3] w1={0.1,...}, float[256] b1={0.1,...}, float[256,256,3,3] w2={0.1,...}, float[8,256] "
    "wf={0.1,...}, "
    "float[8] bf={0.1,...}> {"
    "c1 = Conv<pads=[1,1,1,1]>(x, w1, b1) a1 = Relu(c1) c2 = Conv<pads=[1,1,1,1]>(a1, w2) s = Add(c2, a1) a2 = Relu(s) "
    "p = GlobalAveragePool(a2) f = Flatten(p) y = Gemm<transB=1>(f, wf, bf) }";

/* `op`: of these nodes; NULL: of any. */
static int steps_by_winograd(const World *w, const char *op)
{
    int count = 0;
    for (size_t i = 0; i < w->plan->step_count; i++) {
        const Step *step = w->plan->steps[i];
        bool wanted = op == NULL || (step->node != NULL && strcmp(step->node->op_type, op) == 0);
        count += wanted && strstr(step->kernel, "wino") != NULL;
    }
    return count;
}

static bool library_has_it(void)
{
    DnnlEngine engine;
    Error err = {0};
    assert_ok(dnnl_engine_open(&engine, DTYPE_F32, &err), &err);
    bool wide = engine.block == 16;
    dnnl_engine_close(&engine);
    const dnnl_version_t *version = dnnl_version();
    return wide && (version->major < 3 || (version->major == 3 && version->minor < 2));
}

/* Largest distance, over the largest number expected. */
static double distance(const float *found, const float *expected, size_t count)
{
    double worst = 0, scale = 0;
    for (size_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs((double)found[i] - (double)expected[i]));
        scale = fmax(scale, fabs((double)expected[i]));
    }
    return worst / scale;
}

static const PlanOptions direct = {.training = true};
static const PlanOptions fast = {.training = true, .winograd = true};

static void gradients_agree_with_direct_convolution(void **state)
{
    (void)state;
    World a, b;
    world_open(&a, net, &direct);
    world_open(&b, net, &fast);
    static const char *const ops[] = {"FusedConv", "ConvGradInput", "ConvGradWeight"};
    for (int i = 0; i < 3 && library_has_it(); i++)
        if (steps_by_winograd(&b, ops[i]) == 0)
            fail_msg("no %s by Winograd's algorithm", ops[i]);
    assert_int_equal(steps_by_winograd(&a, NULL), 0);
    assert_ok(plan_run(a.plan, 0, 1, false, &a.err), &a.err);
    assert_ok(plan_run(b.plan, 0, 1, false, &b.err), &b.err);
    size_t count = params_plain_total(a.store);
    float *expected = calloc(2 * count, sizeof *expected), *found = expected + count;
    assert_non_null(expected);
    assert_ok(params_get_block(a.store, a.store->gradient, expected, &a.err), &a.err);
    assert_ok(params_get_block(b.store, b.store->gradient, found, &b.err), &b.err);
    for (size_t i = 0, at = 0; i < a.params.count; i++) {
        size_t n = (size_t)tensor_count(a.params.items[i].origin);
        double error = distance(found + at, expected + at, n);
        if (!(error < 2e-5))
            fail_msg("the gradient of %s is %g away", a.params.items[i].name, error);
        at += n;
    }
    free(expected);
    world_close(&a);
    world_close(&b);
}

static void losses_of_updates_agree_with_direct_convolution(void **state)
{
    (void)state;
    OptimizerSpec sgd = optimizer_default(OPTIMIZER_SGD);
    World w[2];
    world_open(&w[0], net, &direct);
    world_open(&w[1], net, &fast);
    for (uint64_t step = 1; step <= 10; step++) {
        float loss[2];
        for (int i = 0; i < 2; i++)
            loss[i] = world_train(&w[i], &sgd, step, 0.05);
        if (!(fabsf(loss[1] / loss[0] - 1) < 1e-5F))
            fail_msg("step %d: loss %.9g, by direct convolution %.9g", (int)step, (double)loss[1], (double)loss[0]);
    }
    world_close(&w[0]);
    world_close(&w[1]);
}

/* Constant weights are transformed once, at planning. */
static void a_frozen_net_agrees_with_direct_convolution(void **state)
{
    (void)state;
    World a, b;
    world_open_frozen(&a, net, &(PlanOptions){0});
    world_open_frozen(&b, net, &(PlanOptions){.winograd = true});
    if (library_has_it())
        assert_true(steps_by_winograd(&b, NULL) >= 1);
    assert_ok(plan_run(a.plan, 0, 1, false, &a.err), &a.err);
    assert_ok(plan_run(b.plan, 0, 1, false, &b.err), &b.err);
    assert_true(distance(plan_output(b.plan, 0), plan_output(a.plan, 0), 16 * 8) < 1e-5);
    world_close(&a);
    world_close(&b);
}

/* Evaluating with parameters: what they lie in must stay what a checkpoint can read. */
static void a_plan_for_inference_over_parameters_keeps_their_layout(void **state)
{
    (void)state;
    World w;
    memset(&w, 0, sizeof w);
    assert_ok(model_parse(net, &builtin_ops, &w.document, &w.err), &w.err);
    assert_ok(params_find(w.document, false, &w.params, &w.err), &w.err);
    assert_ok(params_new(&w.params, &w.store, &w.err), &w.err);
    assert_ok(working_build(w.document, &(WorkingOptions){.params = &w.params}, &w.working, &w.err), &w.err);
    assert_ok(plan_build(w.working, w.store, &(PlanOptions){.winograd = true}, &w.plan, &w.err), &w.err);
    size_t count = params_plain_total(w.store);
    float *numbers = calloc(count, sizeof *numbers);
    assert_non_null(numbers);
    assert_ok(params_get_block(w.store, w.store->data, numbers, &w.err), &w.err);
    assert_float_equal(numbers[0], 0.1F, 0);
    assert_float_equal(numbers[count - 1], 0.1F, 0);
    free(numbers);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_agree_with_direct_convolution),
        cmocka_unit_test(losses_of_updates_agree_with_direct_convolution),
        cmocka_unit_test(a_frozen_net_agrees_with_direct_convolution),
        cmocka_unit_test(a_plan_for_inference_over_parameters_keeps_their_layout),
    };
    return cmocka_run_group_tests_name("winograd", tests, NULL, NULL);
}
