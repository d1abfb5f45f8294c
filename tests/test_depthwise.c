/* Ways of their own that gradients of depthwise convolutions take (runtime/ops/conv_kernel.c, depthwise_kernel.c): each
 * forced by shapes, layout and precision in which it is wanted, and compared with the plain plan. What they compute on
 * odd shapes is the business of suite_gradients. */
#include "tests/world.h"

/* A convolution before it, whose weights want the gradient of the depthwise one's input; 40 channels: the last block of
 * 16 is padded; even sizes: for odd ones the library does not take strides for products. */
#define NET(kernel, pad, stride)                                                                                       \
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,8,18,16] x) => (float[2,4] y) <"                            \
    "float[40,8,1,1] w1={0.1,...}, float[40,1," #kernel "," #kernel "] wd={0.1,...}, float[40] bd={0.1,...}, "         \
    "float[4,40] wf={0.1,...}> {"                                                                                      \
    "c1 = Conv(x, w1) c2 = Conv<group=40, pads=[" #pad "," #pad "," #pad "," #pad "], strides=[" #stride "," #stride   \
    "]>(c1, wd, bd) a = Tanh(c2) p = GlobalAveragePool(a) f = Flatten(p) y = Gemm<transB=1>(f, wf) }"

static const PlanOptions plain = {.training = true, .plain_only = true};

/* The step of this operator whose node has forty groups. */
static const Step *depthwise_step(const World *w, const char *op)
{
    for (size_t i = 0; i < w->plan->step_count; i++) {
        const Step *step = w->plan->steps[i];
        if (step->node != NULL && strcmp(step->node->op_type, op) == 0 && node_int(step->node, "group", 1) == 40)
            return step;
    }
    fail_msg("no %s of forty groups", op);
    return NULL;
}

/* One step of each: the distance of all gradients in the norm of those expected. */
static void assert_gradients_near(World *expected, World *found, double tolerance)
{
    assert_ok(plan_run(expected->plan, 0, 1, false, &expected->err), &expected->err);
    assert_ok(plan_run(found->plan, 0, 1, false, &found->err), &found->err);
    size_t count = params_plain_total(expected->store);
    float *a = calloc(2 * count, sizeof *a), *b = a + count;
    double error = 0, norm = 0;
    assert_non_null(a);
    assert_ok(params_get_block(expected->store, expected->store->gradient, a, &expected->err), &expected->err);
    assert_ok(params_get_block(found->store, found->store->gradient, b, &found->err), &found->err);
    for (size_t i = 0; i < count; i++) {
        error += pow((double)b[i] - (double)a[i], 2);
        norm += pow((double)a[i], 2);
    }
    free(a);
    assert_true(norm > 0);
    if (!(sqrt(error / norm) < tolerance))
        fail_msg("gradients are %g of their norm away", sqrt(error / norm));
}

static void with_strides_it_is_no_product_of_matrices_in_channels_last(void **state)
{
    (void)state;
    const PlanOptions last[] = {{.training = true, .channels_last = true},
                                {.training = true, .channels_last = true, .precision = PRECISION_BF16}};
    for (int i = 0; i < 2; i++) {
        World a, b;
        if (precision_check(last[i].precision, NULL) != STATUS_OK)
            continue;
        world_open(&a, NET(3, 1, 2), &plain);
        world_open(&b, NET(3, 1, 2), &last[i]);
        const Step *step = depthwise_step(&b, "ConvGradInput");
        assert_int_equal(step->out[0]->layout, LAYOUT_NHWC);
        if (dnnl_version()->major >= 3)
            assert_ptr_equal(strstr(step->kernel, "jit_dw"), step->kernel);
        assert_gradients_near(&a, &b, i == 1 ? 1e-2 : 1e-5);
        world_close(&a);
        world_close(&b);
    }
}

/* Where the library has code for blocks of channels, the forward convolution with its kernel turned round. */
static void without_strides_it_is_a_convolution_by_the_kernel_turned_round(void **state)
{
    (void)state;
    const PlanOptions ways[] = {{.training = true}, {.training = true, .precision = PRECISION_BF16}};
    for (int i = 0; i < 2; i++) {
        World a, b;
        if (precision_check(ways[i].precision, NULL) != STATUS_OK)
            continue;
        world_open(&a, NET(3, 1, 1), &plain);
        world_open(&b, NET(3, 1, 1), &ways[i]);
        const Step *step = depthwise_step(&b, "ConvGradInput");
        if (b.plan->dnnl.block > 0)
            assert_null(step->call); /* not a primitive: a turn, then one */
        assert_gradients_near(&a, &b, i == 1 ? 1e-2 : 1e-5);
        world_close(&a);
        world_close(&b);
    }
}

/* No code is generated for 5x5 on blocks; ours reads rows of one block as vectors. */
static void wide_kernels_have_loops_of_our_own_for_their_weights(void **state)
{
    (void)state;
    const PlanOptions ways[] = {{.training = true}, {.training = true, .precision = PRECISION_BF16}};
    for (int i = 0; i < 2; i++) {
        World a, b;
        if (precision_check(ways[i].precision, NULL) != STATUS_OK)
            continue;
        world_open(&a, NET(5, 2, 2), &plain);
        world_open(&b, NET(5, 2, 2), &ways[i]);
        if (b.plan->dnnl.block > 0)
            assert_string_equal(depthwise_step(&b, "ConvGradWeight")->kernel, "own:depthwise");
        assert_gradients_near(&a, &b, i == 1 ? 1e-2 : 1e-5);
        world_close(&a);
        world_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_strides_it_is_no_product_of_matrices_in_channels_last),
        cmocka_unit_test(without_strides_it_is_a_convolution_by_the_kernel_turned_round),
        cmocka_unit_test(wide_kernels_have_loops_of_our_own_for_their_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
