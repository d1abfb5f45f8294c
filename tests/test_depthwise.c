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

/* A net of the test's shapes by plain kernels and by those of `how`, in f32 and, where there is bf16, in that. */
static void compare(const char *net, PlanOptions how, void (*look)(const World *world))
{
    for (int i = 0; i < 2; i++) {
        World a, b;
        how.precision = i == 1 ? PRECISION_BF16 : PRECISION_F32;
        if (precision_check(how.precision, NULL) != STATUS_OK)
            continue;
        world_open(&a, net, &plain);
        world_open(&b, net, &how);
        look(&b);
        assert_gradients_near(&a, &b, i == 1 ? 1e-2 : 1e-5);
        world_close(&a);
        world_close(&b);
    }
}

static void is_depthwise_code(const World *world)
{
    const Step *step = depthwise_step(world, "ConvGradInput");
    assert_int_equal(step->out[0]->layout, LAYOUT_NHWC);
    if (dnnl_version()->major >= 3)
        assert_ptr_equal(strstr(step->kernel, "jit_dw"), step->kernel);
}

static void with_strides_it_is_no_product_of_matrices_in_channels_last(void **state)
{
    (void)state;
    compare(NET(3, 1, 2), (PlanOptions){.training = true, .channels_last = true}, is_depthwise_code);
}

static void is_turned(const World *world)
{
    const Step *step = depthwise_step(world, "ConvGradInput");
    if (world->plan->dnnl.block > 0)
        assert_null(step->call); /* not a primitive: a turn, then one */
}

/* Where the library has code for blocks of channels, the forward convolution with its kernel turned round. */
static void without_strides_it_is_a_convolution_by_the_kernel_turned_round(void **state)
{
    (void)state;
    compare(NET(3, 1, 1), (PlanOptions){.training = true}, is_turned);
}

static void is_own(const World *world)
{
    if (world->plan->dnnl.block > 0)
        assert_string_equal(depthwise_step(world, "ConvGradWeight")->kernel, "own:depthwise");
}

/* No code is generated for 5x5 on blocks; ours reads rows of one block as vectors. */
static void wide_kernels_have_loops_of_our_own_for_their_weights(void **state)
{
    (void)state;
    compare(NET(5, 2, 2), (PlanOptions){.training = true}, is_own);
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
