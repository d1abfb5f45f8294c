/* Products of few terms, and such that meet a wide second matrix (runtime/ops/product_kernel.c): chosen where they
 * should be and not elsewhere, and compared with the plain path. What other products compute is the business of
 * suite_gradients. */
#include "tests/world.h"

static int steps_by(const World *world, const char *kernel)
{
    int count = 0;
    for (size_t i = 0; i < world->plan->step_count; i++)
        count += strcmp(world->plan->steps[i]->kernel, kernel) == 0;
    return count;
}

/* One training step of each; the gradients of all parameters agree. */
static void assert_same_gradients(World *plain, World *fast, const char *what)
{
    assert_ok(plan_run(plain->plan, 0, 1, false, &plain->err), &plain->err);
    assert_ok(plan_run(fast->plan, 0, 1, false, &fast->err), &fast->err);
    size_t count = params_plain_total(plain->store);
    float *expected = calloc(2 * count, sizeof *expected), *found = expected + count;
    assert_non_null(expected);
    assert_ok(params_get_block(plain->store, plain->store->gradient, expected, &plain->err), &plain->err);
    assert_ok(params_get_block(fast->store, fast->store->gradient, found, &fast->err), &fast->err);
    double scale = 0;
    for (size_t i = 0; i < count; i++)
        scale = fmax(scale, fabs((double)expected[i]));
    assert_true(scale > 0);
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)found[i] - (double)expected[i]) <= 2e-6 * scale))
            fail_msg("%s: gradient %zu is %g, not %g", what, i, (double)found[i], (double)expected[i]);
    free(expected);
}

static void few_samples_take_it_and_agree(void **state)
{
    (void)state;
    for (int samples = 1; samples <= 9; samples++) {
        char text[300];
        World plain, fast;
        snprintf(text, sizeof text,
                 "<ir_version: 8, opset_import: [\"\" : 17]> g (float[%d,80] x) => (float[%d,96] y) <"
                 "float[96,80] w={0.1,...}, float[96] b={0.1,...}> { y = Gemm<transB=1>(x, w, b) }",
                 samples, samples);
        world_open(&plain, text, &(PlanOptions){.training = true, .plain_only = true});
        world_open(&fast, text, &(PlanOptions){.training = true});
        assert_int_equal(steps_by(&plain, "own:thin"), 0);
        assert_int_equal(steps_by(&fast, "own:thin"), samples <= 8);
        assert_same_gradients(&plain, &fast, "few samples");
        world_close(&plain);
        world_close(&fast);
    }
}

static void a_wide_matrix_is_packed_first_and_agrees(void **state)
{
    (void)state;
    for (int transposed = 0; transposed < 2; transposed++) {
        char text[400];
        World plain, fast;
        snprintf(text, sizeof text,
                 "<ir_version: 8, opset_import: [\"\" : 17]> g (float[40,700] x) => (float[40,800] y) <"
                 "float[%s] w={0.1,-0.2,0.3,0.05,-0.15,0.25,...}, float[800] b={0.1,-0.3,0.2,...}>"
                 "{ y = Gemm<transB=%d>(x, w, b) }",
                 transposed ? "800,700" : "700,800", transposed);
        world_open(&plain, text, &(PlanOptions){.training = true, .plain_only = true});
        world_open(&fast, text, &(PlanOptions){.training = true});
        assert_int_equal(steps_by(&plain, "gemm"), 0);
        if (!transposed)
            assert_int_equal(steps_by(&fast, "gemm"), 1);
        assert_same_gradients(&plain, &fast, transposed ? "transposed" : "as it lies");
        world_close(&plain);
        world_close(&fast);
    }
}

/* Samples first in x, sequences first in y. */
static void rows_that_lie_otherwise_are_copied_together(void **state)
{
    (void)state;
    static const char text[] =
        "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4,30,700] x) => (float[30,4,800] y) <"
        "float[700,800] w={0.1,-0.2,0.3,0.05,-0.15,0.25,...}, float[800] b={0.1,-0.3,0.2,...}>"
        "{ t = Transpose<perm=[1,0,2]>(x) m = MatMul(t, w) y = Add(m, b) }";
    World plain, fast;
    world_open(&plain, text, &(PlanOptions){.training = true, .plain_only = true});
    world_open(&fast, text, &(PlanOptions){.training = true});
    assert_int_equal(steps_by(&plain, "gemm:rows"), 0);
    assert_int_equal(steps_by(&fast, "gemm:rows"), 1);
    assert_same_gradients(&plain, &fast, "sequences first");
    world_close(&plain);
    world_close(&fast);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_samples_take_it_and_agree),
                                       cmocka_unit_test(a_wide_matrix_is_packed_first_and_agrees),
                                       cmocka_unit_test(rows_that_lie_otherwise_are_copied_together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
