/* runtime/precision.c and what a bf16 plan is made of: on a small convolution net and a small transformer, no row that
 * costs time runs in f32, in a reference or in eval; gradients of parameters come out where they live; losses follow
 * those of f32. Every row's bf16 kernel is compared with f64 in suite_gradients.c. */
#include "runtime/ops/batchnorm_lanes.h"
#include "runtime/ops/bf16.h"
#include "tests/world.h"

static const char conv_net[] =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[8,3,32,32] x) => (float[8,16] y) <"
    "float[32,3,3,3] w1={0.1,...}, float[32] s1={1,...}, float[32] b1={0.1,...}, float[32] m1={0,...}, float[32] "
    "v1={1,...}, float[32,1,3,3] wd={0.1,...}, float[32] s2={1,...}, float[32] b2={0.1,...}, float[32] m2={0,...}, "
    "float[32] v2={1,...}, float[32,32,1,1] w2={0.1,...}, float[16,32] wf={0.1,...}, float[16] bf={0.1,...}, "
    "float zero={0}, float six={6}> {"
    "c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1) "
    "n1, m3, v3 = BatchNormalization<training_mode=1>(c1, s1, b1, m1, v1) a1 = Relu(n1) "
    "c2 = Conv<group=32, pads=[1,1,1,1]>(a1, wd) "
    "n2, m4, v4 = BatchNormalization<training_mode=1>(c2, s2, b2, m2, v2) a2 = Clip(n2, zero, six) "
    "c3 = Conv(a2, w2) r = Add(c3, a1) a3 = Relu(r) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a3) "
    "q = GlobalAveragePool(p) f = Flatten(q) y = Gemm<transB=1>(f, wf, bf) }";

static const char transformer[] =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4,64,64] x) => (float[4,64,64] y) <"
    "float[64,64] wq={0.1,...}, float[64,64] wk={0.1,...}, float[64,64] wv={0.1,...}, float[64,256] w1={0.1,...}, "
    "float[256] b1={0.1,...}, float[256,64] w2={0.1,...}, float[64] b2={0.1,...}, float[64] s1={1,...}, float[64] "
    "o1={0.1,...}, int64[4] heads={4,64,4,16}, int64[3] whole={4,64,64}, float eighth={0.25}> {"
    "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) "
    "q4 = Reshape(q, heads) k4 = Reshape(k, heads) v4 = Reshape(v, heads) "
    "qt = Transpose<perm=[0,2,1,3]>(q4) kt = Transpose<perm=[0,2,3,1]>(k4) vt = Transpose<perm=[0,2,1,3]>(v4) "
    "scores = MatMul(qt, kt) scaled = Mul(scores, eighth) part = Softmax<axis=-1>(scaled) mixed = MatMul(part, vt) "
    "back = Transpose<perm=[0,2,1,3]>(mixed) joined = Reshape(back, whole) sum = Add(joined, x) "
    "n = LayerNormalization(sum, s1, o1) h = MatMul(n, w1) hb = Add(h, b1) a = Tanh(hb) z = MatMul(a, w2) "
    "zb = Add(z, b2) y = Add(zb, n) }";

static float train(World *w, uint64_t step)
{
    OptimizerSpec sgd = optimizer_default(OPTIMIZER_SGD);
    sgd.momentum = 0.9;
    return world_train(w, &sgd, step, 0.02);
}

static bool has_bf16(void)
{
    return precision_check(PRECISION_BF16, NULL) == STATUS_OK;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void names_of_precisions(void **state)
{
    (void)state;
    Precision precision = PRECISION_BF16;
    assert_true(precision_parse("f32", &precision));
    assert_int_equal(precision, PRECISION_F32);
    assert_true(precision_parse("bf16", &precision));
    assert_int_equal(precision, PRECISION_BF16);
    assert_true(precision_parse("auto", &precision));
    assert_int_equal(precision, has_bf16() ? PRECISION_BF16 : PRECISION_F32);
    assert_false(precision_parse("fp8", &precision));
    assert_int_equal(precision_check(PRECISION_F32, NULL), STATUS_OK);
}

static bool narrow(Slot *const *slots, int count, int index)
{
    return index < count && slots[index] != NULL && slots[index]->dtype == DTYPE_BF16;
}

/* Rows that cost time; whether their first input and first output must be bf16. A residual that began in f32 stays so,
 * and a parameter's gradient is f32. */
static const struct {
    const char *op;
    bool reads, gives;
} hot[] = {{"Conv", true, true},
           {"ConvGradInput", true, true},
           {"ConvGradWeight", true, false},
           {"BatchNormTrain", true, true},
           {"BatchNormTrainGrad", true, true},
           {"MaxPool", true, true},
           {"MaxPoolTrain", true, true},
           {"MaxPoolGrad", true, true},
           {"GlobalAveragePoolGrad", false, true},
           {"Relu", true, true},
           {"ReluGrad", true, true},
           {"Tanh", true, true},
           {"TanhGrad", true, true},
           {"Softmax", true, true},
           {"SoftmaxGrad", true, true},
           {"Transpose", true, true},
           {"LayerNormalization", false, true},
           {"LayerNormGrad", false, true}};

static int check_hot_steps(const Plan *plan)
{
    int met = 0;
    for (size_t s = 0; s < plan->step_count; s++) {
        const Step *step = plan->steps[s];
        if (step->node == NULL)
            continue;
        const char *op = step->node->op_type;
        bool product = strncmp(op, "MatMul", 6) == 0 && strstr(step->kernel, "direct") == NULL;
        bool listed = product, reads = product, gives = false;
        for (size_t i = 0; i < sizeof hot / sizeof hot[0]; i++) {
            if (strcmp(hot[i].op, op) != 0)
                continue;
            listed = true;
            reads = hot[i].reads;
            gives = hot[i].gives;
        }
        if (!listed)
            continue;
        met++;
        if (strncmp(step->kernel, "ref", 3) == 0 || strncmp(step->kernel, "simple", 6) == 0 ||
            strcmp(step->kernel, "eval") == 0)
            fail_msg("%s runs in %s", node_text(step->node), step->kernel);
        if (reads && !narrow(step->in, step->in_count, 0))
            fail_msg("%s (%s) reads f32", node_text(step->node), step->kernel);
        if (gives && !narrow(step->out, step->out_count, 0))
            fail_msg("%s (%s) gives f32", node_text(step->node), step->kernel);
    }
    return met;
}

static void rows_that_cost_time_run_in_bf16(void **state)
{
    (void)state;
    const PlanOptions options = {.training = true, .precision = PRECISION_BF16};
    const char *const texts[] = {conv_net, transformer};
    const int least[] = {12, 20};
    if (!has_bf16())
        skip();
    for (int i = 0; i < 2; i++) {
        World w;
        world_open(&w, texts[i], &options);
        assert_true(check_hot_steps(w.plan) >= least[i]);
        world_close(&w);
    }
}

/* A gradient that a step converted or copied would show as a step without a node that writes to the store. */
static void gradients_come_out_where_parameters_live(void **state)
{
    (void)state;
    const PlanOptions options = {.training = true, .precision = PRECISION_BF16};
    const char *const texts[] = {conv_net, transformer};
    if (!has_bf16())
        skip();
    for (int i = 0; i < 2; i++) {
        World w;
        int written = 0;
        world_open(&w, texts[i], &options);
        for (size_t s = 0; s < w.plan->step_count; s++) {
            const Step *step = w.plan->steps[s];
            for (int k = 0; k < step->out_count; k++) {
                const Slot *slot = step->out[k];
                if (slot == NULL || slot->parameter == NULL || slot->parameter->gradient < 0)
                    continue;
                assert_int_equal(slot->dtype, DTYPE_F32);
                if (step->node == NULL)
                    fail_msg("the gradient of %s is moved", w.params.items[slot->parameter->gradient].name);
                written++;
            }
        }
        assert_int_equal(written, i == 0 ? 9 : 9);
        world_close(&w);
    }
}

static void losses_follow_those_of_f32(void **state)
{
    (void)state;
    const PlanOptions plain = {.training = true, .plain_only = true};
    const PlanOptions fast = {.training = true, .precision = PRECISION_BF16};
    const char *const texts[] = {conv_net, transformer};
    if (!has_bf16())
        skip();
    for (int i = 0; i < 2; i++) {
        World a, b;
        float first = 0, last = 0;
        world_open(&a, texts[i], &plain);
        world_open(&b, texts[i], &fast);
        for (uint64_t step = 1; step <= 12; step++) {
            float want = train(&a, step), have = train(&b, step);
            if (!(fabsf(have / want - 1) <= 2e-2F))
                fail_msg("net %d, step %d: loss %g, in f32 %g", i, (int)step, (double)have, (double)want);
            first = step == 1 ? have : first;
            last = have;
        }
        assert_true(last < 0.97F * first);
        world_close(&a);
        world_close(&b);
    }
}

static void descriptions_tell_precision(void **state)
{
    (void)state;
    const PlanOptions options = {.training = true, .precision = PRECISION_BF16};
    World w;
    Str text;
    if (!has_bf16())
        skip();
    world_open(&w, conv_net, &options);
    str_init(&text);
    plan_describe(w.plan, &text);
    assert_non_null(strstr(text.text, " bf16 "));
    assert_non_null(strstr(text.text, " bf16>f32 ")); /* a weight's gradient */
    assert_non_null(strstr(text.text, " f32>bf16 ")); /* a weight's copy */
    str_release(&text);
    world_close(&w);
}

/* f(k (x - mean) + bias) by the formulas of batchnorm.h, one number at a time. */
static float activated(BatchNormActivation activation, float z)
{
    float ramp = z / 6 + 0.5F;
    switch (activation) {
    case BATCHNORM_RELU:
        return z > 0 ? z : 0;
    case BATCHNORM_CLIP:
        return z < -0.5F ? -0.5F : z > 1 ? 1 : z;
    case BATCHNORM_HARD_SWISH:
        return z * (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp);
    case BATCHNORM_SWISH:
        return z / (1 + expf(-z));
    case BATCHNORM_LINEAR:
        break;
    }
    return z;
}

static void rows_of_sixteen_channels_past_the_caches_and_through_them(void **state)
{
    (void)state;
    enum { ROWS = 37, LANES = 16, COUNT = ROWS * LANES };
    static const BatchNormActivation kinds[] = {BATCHNORM_LINEAR, BATCHNORM_RELU, BATCHNORM_CLIP, BATCHNORM_SWISH,
                                                BATCHNORM_HARD_SWISH};
    _Alignas(64) uint16_t x[COUNT], y[COUNT], streamed[COUNT];
    float numbers[COUNT], k[LANES], mean[LANES], bias[LANES];
    if (!batchnorm_lanes_fit())
        skip();
    scatter_numbers(numbers, COUNT, 1, 4);
    scatter_numbers(k, LANES, 2, 2);
    scatter_numbers(mean, LANES, 3, 1);
    scatter_numbers(bias, LANES, 4, 1);
    bf16_narrow(numbers, x, COUNT);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        LaneRows rows = {
            .x = x, .y = y, .count = ROWS, .step = LANES, .k = k, .mean = mean, .bias = bias, .low = -0.5F, .high = 1};
        batchnorm_lanes_apply(kinds[i], &rows);
        rows.y = streamed;
        rows.stream = true;
        batchnorm_lanes_apply(kinds[i], &rows);
        assert_memory_equal(y, streamed, sizeof y);
        for (int at = 0; at < COUNT; at++) {
            float want =
                activated(kinds[i], k[at % LANES] * (bf16_to_float(x[at]) - mean[at % LANES]) + bias[at % LANES]);
            if (fabsf(bf16_to_float(y[at]) - want) > 0.005F * fabsf(want) + 1e-6F)
                fail_msg("activation %d, number %d: %g, not %g", (int)kinds[i], at, (double)bf16_to_float(y[at]),
                         (double)want);
        }
    }
}

/* The processor's conversion and that of the portable loop (which takes what is left of sixteen) agree. */
static void narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    enum { COUNT = 1003 };
    float numbers[COUNT];
    uint16_t narrow_numbers[COUNT];
    scatter_numbers(numbers, COUNT, 5, 100);
    numbers[0] = NAN, numbers[1] = -INFINITY, numbers[2] = 0x1.01p0F, numbers[3] = 0x1.03p0F, numbers[4] = 0x1.0101p0F;
    numbers[5] = 0x1.fffffep127F, numbers[6] = -0.0F;
    bf16_narrow(numbers, narrow_numbers, COUNT);
    for (int i = 1; i < COUNT; i++)
        assert_int_equal(narrow_numbers[i], bf16_from_float(numbers[i]));
    assert_true(isnan(bf16_to_float(narrow_numbers[0])));
    assert_true(isnan(bf16_to_float(bf16_from_float(NAN))));
    assert_int_equal(narrow_numbers[2], 0x3F80); /* ties go to even */
    assert_int_equal(narrow_numbers[3], 0x3F82);
    assert_int_equal(narrow_numbers[4], 0x3F81);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_precisions),
        cmocka_unit_test(rows_that_cost_time_run_in_bf16),
        cmocka_unit_test(gradients_come_out_where_parameters_live),
        cmocka_unit_test(losses_follow_those_of_f32),
        cmocka_unit_test(descriptions_tell_precision),
        cmocka_unit_test(rows_of_sixteen_channels_past_the_caches_and_through_them),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
