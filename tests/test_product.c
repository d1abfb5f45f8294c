/* Products of few terms (runtime/ops/product_kernel.c): chosen for the gradient of a weight at few samples and not at
 * more, and compared with the plain path. What other products compute is the business of suite_gradients. */
#include "tests/world.h"

static const char net_of[] = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[%d,80] x) => (float[%d,96] y) <"
                             "float[96,80] w={0.1,...}, float[96] b={0.1,...}> { y = Gemm<transB=1>(x, w, b) }";

static int thin_steps(const Plan *plan)
{
    int count = 0;
    for (size_t i = 0; i < plan->step_count; i++)
        count += strcmp(plan->steps[i]->kernel, "own:thin") == 0;
    return count;
}

static void few_samples_take_it_and_agree(void **state)
{
    (void)state;
    for (int samples = 1; samples <= 9; samples++) {
        char text[300];
        World plain, fast;
        snprintf(text, sizeof text, net_of, samples, samples);
        world_open(&plain, text, &(PlanOptions){.training = true, .plain_only = true});
        world_open(&fast, text, &(PlanOptions){.training = true});
        assert_int_equal(thin_steps(plain.plan), 0);
        assert_int_equal(thin_steps(fast.plan), samples <= 8);
        assert_ok(plan_run(plain.plan, 0, 1, false, &plain.err), &plain.err);
        assert_ok(plan_run(fast.plan, 0, 1, false, &fast.err), &fast.err);
        size_t count = params_plain_total(plain.store);
        float *expected = calloc(2 * count, sizeof *expected), *found = expected + count;
        assert_non_null(expected);
        assert_ok(params_get_block(plain.store, plain.store->gradient, expected, &plain.err), &plain.err);
        assert_ok(params_get_block(fast.store, fast.store->gradient, found, &fast.err), &fast.err);
        double scale = 0;
        for (size_t i = 0; i < count; i++)
            scale = fmax(scale, fabs((double)expected[i]));
        assert_true(scale > 0);
        for (size_t i = 0; i < count; i++)
            if (!(fabs((double)found[i] - (double)expected[i]) <= 2e-6 * scale))
                fail_msg("%d samples: gradient %zu is %g, not %g", samples, i, (double)found[i], (double)expected[i]);
        free(expected);
        world_close(&plain);
        world_close(&fast);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_samples_take_it_and_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
